"""The functions under the template's rights: a DynamoDB that refuses each what its role does not allow."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web

from etlcli.aws import handlers
from etlcli.aws.container import Container
from etlcli.aws.failures import EtlTerminal
from tests.aws.rights import Template
from tests.aws.test_template import FUNCTIONS, PATH
from tests.conftest import Schema, Stack
from tests.integration.faulty_dynamodb import FaultyDynamoDB

Rights = dict[str, set[tuple[str, str]]]


class GuardedDynamoDB(FaultyDynamoDB):
    """Allows what a role may do, and keeps account of it.

    Attributes:
        acting: The function that is at work.
        rights: What each role may do; see ``Template.rights``.
        used: What each function has asked for and got, on which of a job's two tables.
        denied: What it has asked for and not got.
    """

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self.acting = ""
        self.rights: Rights = {}
        self.used: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        self.denied: list[tuple[str, str, str]] = []

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        action = f"dynamodb:{request.headers['X-Amz-Target'].partition('.')[2]}"
        asked = orjson.loads(await request.read())
        tables = list(asked["RequestItems"]) if "RequestItems" in asked else [asked["TableName"]]
        for table in tables:
            if (action, f"table/{table}") not in self.rights[f"{self.acting}Role"]:
                self.denied.append((self.acting, action, table))
                code = "com.amazon.coral.service#AccessDeniedException"
                body = {"__type": code, "message": f"User: role is not authorized to perform: {action}"}
                return web.Response(status=400, body=orjson.dumps(body), content_type="application/x-amz-json-1.0")
            self.used[self.acting].add((action, kind_of(table)))
        return await super()._answer(request)


class Context:
    """What Lambda tells a handler."""

    aws_request_id = "request"

    def get_remaining_time_in_millis(self) -> int:
        """Plenty."""
        return 600_000


class Functions:
    """The functions, each called under its own rights."""

    def __init__(self, guard: GuardedDynamoDB) -> None:
        self._guard = guard

    def call(self, function: str, handler: Callable[[Any, Any], dict[str, Any]], event: Any) -> dict[str, Any]:
        """Call one, in a container of its own."""
        self._guard.acting = function
        container = Container()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(handlers, "_container", container)
            try:
                return handler(event, Context())
            finally:
                container.run(container.forget)

    def run(self, event: dict[str, Any]) -> dict[str, Any]:
        """Do what the state machine does, one block after the other."""
        planned = self.call("Plan", handlers.plan, {"event": event, "execution": f"execution-{secrets.token_hex(4)}"})
        for number in planned["blocks"]:
            block = {"event": planned["event"], "call": planned["call"], "block": number, "next": "FromDbToCache"}
            while block["next"] != "none":
                if block["next"] == "FromDbToCache":
                    block = self.call("FromDbToCache", handlers.from_db_to_cache, block)
                block = self.call("FromCacheToDynamoDb", handlers.from_cache_to_dynamo_db, block)
        return self.call("Finish", handlers.finish, planned)


@pytest.fixture
def guard(stack: Stack, schema: Schema, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GuardedDynamoDB]:
    schema.execute(
        "create table films (id integer primary key, rating numeric);"
        "insert into films select n, n from generate_series(1, 300) n"
    )
    with GuardedDynamoDB(stack.dynamodb_url) as guard:
        for name, value in {
            "DATABASE_URL": schema.url,
            "MOMENTO_LOCAL": stack.momento,
            "AWS_ENDPOINT_URL_DYNAMODB": guard.url,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        yield guard


@pytest.fixture
def functions(guard: GuardedDynamoDB, unique: str, tmp_path: Path) -> Functions:
    """For two jobs whose tables are to be created with every option that there is for it."""
    config = f"""
        [destination]
        tags = {{ team = "data" }}
        point_in_time_recovery = true
        ttl_attribute = "expires"
        [tables.{unique}]
        source = "films"
        [tables.{unique}-2]
        source = "films"
        """
    (tmp_path / "momento-etl.toml").write_text(config, encoding="utf-8")
    return Functions(guard)


@pytest.fixture
def stack_of(guard: GuardedDynamoDB, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(job: str, **parameters: str) -> None:
        """Go over to the rights of a stack, whose state table is its own."""
        state = f"{job}-state"
        monkeypatch.setenv("MOMENTO_ETL_STATE_TABLE", state)
        given = {"Table": job, "DestinationTable": job, "StateTable": state, **parameters}
        guard.rights = Template(PATH, given).rights()

    return use


def kind_of(table: str) -> str:
    return "state" if table.endswith("-state") else "destination"


def granted(rights: Rights, function: str) -> set[tuple[str, str]]:
    """What a function may do with tables; tags are given by CreateTable, which then wants their right too."""
    return {
        (action, kind_of(table))
        for action, table in rights[f"{function}Role"]
        if action.startswith("dynamodb:") and action != "dynamodb:TagResource"
    }


def test_the_functions_need_what_they_may_do_and_no_more(
    guard: GuardedDynamoDB, functions: Functions, stack_of: Callable[..., None], schema: Schema, unique: str
) -> None:
    stack_of(unique, Replace="true")
    event = {"table": unique, "mode": "replace", "ranges": 3}
    assert functions.run(event)["rows"] == 300
    # One is gone, and one is rejected, whose old item is spared.
    schema.execute("delete from films where id = 7; update films set rating = 'NaN' where id = 8")
    assert functions.run(event)["summary"]["items_deleted"] == 1
    planned = functions.call("Plan", handlers.plan, {"event": event, "execution": "another"})
    failed = {**planned, "error": {"Error": "EtlTerminal", "Cause": "it failed"}}
    assert functions.call("Abort", handlers.abort, {"state": failed, "execution": "another"})["run"] == planned["run"]

    # As the original's two functions are called, with no Plan that makes the tables.
    stack_of(f"{unique}-2", Replace="true")
    extracted = functions.call("FromDbToCache", handlers.from_db_to_cache, {"table": f"{unique}-2"})
    assert functions.call("FromCacheToDynamoDb", handlers.from_cache_to_dynamo_db, extracted)["rows"] == 298

    assert not guard.denied
    assert guard.used.keys() == FUNCTIONS.keys()
    unused = {function: granted(guard.rights, function) - used for function, used in guard.used.items()}
    # Items of the state are all of a kind: who may keep some may keep all. Everything else is for those who use it.
    kept = {(f"dynamodb:{action}", "state") for action in ("GetItem", "Query", "PutItem", "UpdateItem", "DeleteItem")}
    assert {function: rights - kept for function, rights in unused.items() if rights - kept} == {}
    assert kept <= set().union(*guard.used.values())


def test_tables_that_are_there_need_no_right_to_create_them(
    guard: GuardedDynamoDB, functions: Functions, stack_of: Callable[..., None], unique: str
) -> None:
    stack_of(unique, CreateTables="false")
    with pytest.raises(EtlTerminal, match="CreateTable"):
        functions.run({"table": unique})
    assert guard.denied
    stack_of(unique)
    functions.run({"table": unique})
    guard.denied.clear()
    stack_of(unique, CreateTables="false")
    assert functions.run({"table": unique})["rows"] == 300
    assert not guard.denied


def test_without_its_right_replace_removes_nothing_and_says_why(
    guard: GuardedDynamoDB, functions: Functions, stack_of: Callable[..., None], unique: str
) -> None:
    stack_of(unique)
    with pytest.raises(EtlTerminal, match="Scan"):
        functions.run({"table": unique, "mode": "replace"})
    assert {action for _, action, _ in guard.denied} == {"dynamodb:Scan"}
