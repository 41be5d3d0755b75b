"""``doctor``: all is well, one thing at a time is not, and nothing is left behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import boto3
import pytest
from aiohttp import web

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine, Result
from tests.integration.responder import Responder
from tests.integration.source_helpers import pooler, role

CONFIG = """
[tables.good]
destination = "{name}"
cache = "{name}"
"""


def checks(result: Result) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for check in result.json["checks"]:
        found.setdefault((check["endpoint"], check["name"]), []).append(check)
    return found


def tables(stack: Stack) -> set[str]:
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    try:
        names: set[str] = set()
        for page in client.get_paginator("list_tables").paginate():
            names |= set(page["TableNames"])
        return names
    finally:
        client.close()


@pytest.fixture
def configured(command_line: CommandLine, schema: Schema, unique: str) -> CommandLine:
    schema.execute("create table good (id integer primary key)")
    (command_line.folder / "momento-etl.toml").write_text(CONFIG.format(name=unique))
    return command_line


def test_all_is_well_before_and_after_a_run(configured: CommandLine, stack: Stack, unique: str) -> None:
    before = tables(stack)
    first = configured("doctor", "--output", "json")
    found = checks(first)
    assert tables(stack) == before
    assert {check["status"] for check in first.json["checks"]} == {"ok", "warning"}
    # What is not there yet is told, with who makes it.
    assert found["destination", "table"][0]["status"] == "warning"
    assert "create-table" in found["destination", "table"][0]["hint"]
    assert f"{unique} will be made" in found["cache", "allowed"][0]["message"]
    assert found["source", "allowed"][0]["message"] == "good: may read good, 1 column"
    assert found["source", "pooler"][0]["facts"] == {"pooler": False}
    assert found["destination", "clock"][0]["status"] == "ok"
    for endpoint in ("source", "cache", "destination"):
        for name in ("reachable", "login", "version", "limits"):
            assert found[endpoint, name][0]["status"] == "ok", (endpoint, name)

    configured("run", "--table", "good")
    caches = checks(configured("doctor", "--output", "json"))["cache", "limits"][0]["facts"]["caches"]
    second = configured("doctor", "--table", "good")
    assert second.err == f"{len(second.out.splitlines())} checks: none failed, no warning\n"
    assert "warning" not in second.out, second
    assert f"may write to table {unique}" in second.out
    assert f"may store, read and remove in cache {unique}" in second.out
    assert "with the right key" in second.out
    assert all(re.match(r"ok {7}\w+ +\w+ +\S", line) for line in second.out.splitlines()), second
    # Not one cache more, and no row that a run has not put there.
    again = checks(configured("doctor", "--output", "json"))["cache", "limits"][0]["facts"]["caches"]
    assert again == caches
    configured("verify", "--table", "good", "--extra")


def test_a_login_that_is_refused(configured: CommandLine, stack: Stack) -> None:
    wrong = re.sub(r"//([^:]+):[^@]+@", r"//\1:PLANTED-wrong@", stack.postgres_url)
    result = configured.given(DATABASE_URL=wrong)("doctor", "--output", "json", code=1)
    found = checks(result)
    assert found["source", "reachable"][0]["status"] == "ok"
    assert found["source", "login"][0]["status"] == "failed"
    assert "password" in found["source", "login"][0]["hint"]
    assert found["cache", "login"][0]["status"] == "ok"
    assert result.json["error"]["message"] == "1 check failed: source login"
    assert "PLANTED-wrong" not in result.out + result.err


def test_a_table_that_may_not_be_read_and_one_that_is_not_there(configured: CommandLine, schema: Schema) -> None:
    with role(schema.url) as (name, url):
        schema.execute(f"grant usage on schema {schema.name} to {name}")
        found = checks(
            configured.given(DATABASE_URL=url)(
                "doctor", "--table", "good", "--table", "bad", "--output", "json", code=1
            )
        )
    allowed, missing = found["source", "allowed"]
    assert (allowed["status"], missing["status"]) == ("failed", "failed")
    assert "Grant SELECT" in allowed["hint"]
    assert "no table 'bad'" in missing["message"]


def test_nobody_answers(configured: CommandLine) -> None:
    nowhere = configured.given(
        DATABASE_URL="postgresql://u@127.0.0.1:9/d?connect_timeout=2",
        MOMENTO_LOCAL="127.0.0.1:9",
        AWS_ENDPOINT_URL_DYNAMODB="http://127.0.0.1:9",
    )
    result = nowhere("doctor", "--output", "json", code=1)
    found = checks(result)
    for endpoint in ("source", "cache", "destination"):
        (check,) = found[endpoint, "reachable"]
        assert check["status"] == "failed"
        assert check["hint"]
        assert (endpoint, "login") not in found


def test_rights_that_are_missing_in_dynamodb(configured: CommandLine, unique: str) -> None:
    with Responder(deny={"BatchWriteItem", "GetItem"}) as server:
        there = configured.given(AWS_ENDPOINT_URL_DYNAMODB=server.url)
        there("create-table", "good")
        found = checks(there("doctor", "--output", "json", code=1))
    (denied,) = (check for check in found["destination", "allowed"] if check["status"] == "failed")
    assert "dynamodb:BatchWriteItem" in denied["hint"]
    assert unique in denied["message"]


def test_a_policy_for_the_jobs_tables_alone_will_do(configured: CommandLine, unique: str) -> None:
    with Responder(deny={"ListTables", "DescribeLimits"}) as server:
        there = configured.given(AWS_ENDPOINT_URL_DYNAMODB=server.url)
        there("create-table", "good")
        found = checks(there("doctor", "--output", "json"))
    assert found["destination", "login"][0]["status"] == "ok"
    assert found["destination", "limits"][0]["message"].startswith("not told")
    assert unique in found["destination", "allowed"][0]["message"]


def test_the_state_table_may_not_be_written(configured: CommandLine) -> None:
    with Responder() as server:
        there = configured.given(AWS_ENDPOINT_URL_DYNAMODB=server.url)
        there("run", "--table", "good")
        server.deny = {"UpdateItem"}
        found = checks(there("doctor", "--output", "json", code=1))
    (denied,) = found["state", "allowed"]
    assert denied["status"] == "failed"
    assert "UpdateItem" in denied["message"]
    off = configured.given(MOMENTO_ETL_STATE_ENABLED="false")("doctor", "--output", "json")
    assert checks(off)["state", "table"][0]["status"] == "warning"


def test_what_mode_replace_does_besides_is_tried(configured: CommandLine, unique: str) -> None:
    with (configured.folder / "momento-etl.toml").open("a") as config:
        config.write('mode = "replace"\n')
    configured("run", "--table", "good")
    assert f"may remove from table {unique}" in configured("doctor").out
    configured("verify", "--table", "good", "--extra")
    with Responder() as server:
        there = configured.given(AWS_ENDPOINT_URL_DYNAMODB=server.url)
        there("create-table", "good")
        server.deny = {f"DeleteItem:{unique}"}
        denied = checks(there("doctor", "--output", "json", code=1))["destination", "allowed"]
    (failed,) = (check for check in denied if check["status"] == "failed")
    assert "DeleteItem" in failed["message"]
    assert "dynamodb:Scan, UpdateItem and DeleteItem" in failed["hint"]


def test_a_signer_that_is_not_known(configured: CommandLine) -> None:
    class Stranger(Responder):
        def reply(self, _action: str, _body: bytes) -> web.Response:
            refused = {"__type": "com.amazon.coral.service#UnrecognizedClientException", "message": "no"}
            return web.json_response(refused, status=400)

    with Stranger() as server:
        found = checks(configured.given(AWS_ENDPOINT_URL_DYNAMODB=server.url)("doctor", "--output", "json", code=1))
    assert found["destination", "reachable"][0]["status"] == "ok"
    assert found["destination", "login"][0]["status"] == "failed"
    assert ("destination", "table") not in found
    assert found["state", "table"][0]["message"].startswith("not looked at")


class Yesterday(Responder):
    """A DynamoDB that lives in another time."""

    def reply(self, action: str, body: bytes) -> web.Response:
        response = super().reply(action, body)
        response.headers["Date"] = "Wed, 01 Jan 2020 00:00:00 GMT"
        return response


def test_a_clock_that_is_wrong(configured: CommandLine) -> None:
    with Yesterday() as server:
        result = configured.given(AWS_ENDPOINT_URL_DYNAMODB=server.url)("doctor", "--output", "json", code=1)
    (clock,) = checks(result)["destination", "clock"]
    assert clock["status"] == "failed"
    assert "ahead of" in clock["message"]
    assert "NTP" in clock["hint"]
    assert clock["facts"]["clock_ahead_seconds"] > 86_400


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler(configured: CommandLine, schema: Schema, mode: str) -> None:
    more = ("default_pool_size = 5", "ignore_startup_parameters = options,extra_float_digits")
    with pooler(schema.url, f"pool_mode = {mode}", *more) as url:
        found = checks(configured.given(DATABASE_URL=url)("doctor", "--output", "json", code=1))
    (check,) = found["source", "pooler"]
    assert check["status"] == "warning"
    assert check["facts"] == {"pooler": True, "transaction_mode": mode == "transaction"}
    assert "a pooler" in check["message"]
    assert ("by the transaction" in check["message"]) == (mode == "transaction")


def test_half_a_configuration(configured: CommandLine, bare: CommandLine, tmp_path: Path) -> None:
    alone = bare.given(DATABASE_URL=configured.environment["DATABASE_URL"])
    (tmp_path / "momento-etl.toml").unlink()
    found = checks(alone("doctor", "--output", "json"))
    for endpoint in ("cache", "destination"):
        (check,) = found[endpoint, "configured"]
        assert (check["status"], check["message"]) == ("warning", "not configured")
        assert check["hint"]
    assert not any(endpoint == "state" for endpoint, _ in found)
    half = alone.given(MOMENTO_API_KEY="PLANTED-no-key")("doctor", "--output", "json", code=1)
    assert checks(half)["cache", "configured"][0]["status"] == "failed"
    assert "PLANTED-no-key" not in half.out + half.err
    nothing = bare("doctor", "--output", "json", code=2)
    assert nothing.json["error"]["message"].startswith("nothing is configured")
    assert "checks" not in nothing.json


def test_the_embedded_stack_at_a_terminal(bare: CommandLine) -> None:
    terminal = bare.terminal("doctor", "--local")
    assert terminal.end() == 0
    assert all(len(line) <= 80 for line in terminal.lines), terminal.text
    shown = "\n".join(terminal.lines)
    for words in ("ok       local        postgres", "ok       source       reachable", "ok       cache"):
        assert words in shown, shown
    assert "\x1b[32m" in terminal.text
    plain = bare("doctor", "--local")
    assert "\x1b" not in plain.out


def test_a_job_that_cannot_be_resolved(configured: CommandLine) -> None:
    (configured.folder / "momento-etl.toml").write_text('[tables.good]\ntransform = "no_such_module:change"\n')
    found = checks(configured("doctor", "--output", "json", code=1))
    assert found["config", "jobs"][0]["status"] == "failed"
    assert found["source", "reachable"][0]["status"] == "ok"
