"""DynamoDB's limits and faults as users meet them: what a run comes to, what it says, and how it ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine, Result
from tests.integration.faulty_dynamodb import FaultyDynamoDB
from tests.integration.responder import Responder


@pytest.fixture
def to(unique: str) -> tuple[str, ...]:
    return ("--table", "films", "--cache", unique, "--destination", unique)


@pytest.fixture
def films(schema: Schema) -> Callable[[int], None]:
    def make(rows: int) -> None:
        schema.execute(
            "create table films (id integer primary key, title text);"
            f" insert into films select n, 'film ' || n from generate_series(1, {rows}) n; analyze films"
        )

    return make


@pytest.fixture
def dynamodb(stack: Stack) -> Any:
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=stack.dynamodb_url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield client
    client.close()


def through(command_line: CommandLine, server: FaultyDynamoDB | Responder) -> CommandLine:
    return command_line.given(AWS_ENDPOINT_URL_DYNAMODB=server.url)


def state_table(command_line: CommandLine) -> str:
    return command_line.variables()["MOMENTO_ETL_STATE_TABLE"]


def test_a_fifth_of_all_calls_goes_wrong_and_every_row_arrives(
    command_line: CommandLine,
    faulty_dynamodb: FaultyDynamoDB,
    films: Callable[[int], None],
    to: tuple[str, ...],
    unique: str,
    dynamodb: Any,
) -> None:
    films(5000)
    faulty_dynamodb.faults(0.2, 11)
    summary = through(command_line, faulty_dynamodb)("run", *to, "--output", "json").json
    assert (summary["rows_extracted"], summary["rows_loaded"]) == (5000, 5000)
    assert faulty_dynamodb.made.total() > 20
    once = dict.fromkeys(map(str, range(1, 5001)), 1)
    assert faulty_dynamodb.puts[unique] - faulty_dynamodb.unheard[unique] == once
    pages = dynamodb.get_paginator("scan").paginate(TableName=unique)
    found = {item["id"]["N"]: item["title"]["S"] for page in pages for item in page["Items"]}
    assert found == {number: f"film {number}" for number in once}
    # All of Momento's throttles are its own.
    assert sum(sum(counts.values()) for counts in summary["throttle_reasons"].values()) == summary["throttles"]
    assert unique in summary["throttle_reasons"]["UnprocessedItems"]


def test_a_bound_on_writes_holds_wherever_it_is_given(
    command_line: CommandLine, films: Callable[[int], None], to: tuple[str, ...]
) -> None:
    films(200)

    def slow(result: Result) -> None:
        summary = result.json
        assert (summary["rows_loaded"], summary["throttles"]) == (200, 0)
        # A quarter of a second's worth goes at once; the others come in at 200 a second.
        assert summary["duration_seconds"] >= (200 - 50) / 200

    with Responder() as responder:
        bound = through(command_line, responder)
        slow(bound("run", *to, "--max-writes", "200", "--output", "json"))
        slow(bound.given(MOMENTO_ETL_DESTINATION_MAX_WRITES="200")("load", *to, "--output", "json"))
    planned = command_line("run", *to, "--max-writes", "10", "--dry-run", "--output", "json").json["plan"]
    assert (planned["time"]["write_limit"], planned["time"]["write_seconds"]) == (10, 20.0)


def test_a_run_that_was_throttled_a_good_deal_says_by_what(
    command_line: CommandLine,
    faulty_dynamodb: FaultyDynamoDB,
    films: Callable[[int], None],
    to: tuple[str, ...],
    unique: str,
) -> None:
    films(2000)
    faulty_dynamodb.faults(0.4, 5, kinds=["throttle"], actions=["BatchWriteItem"])
    result = through(command_line, faulty_dynamodb)("run", *to, "--output", "json")
    summary = result.json
    assert summary["throttles"] >= 20
    assert summary["warnings"]
    for warning in summary["warnings"]:
        words = (
            r"(one hot key range: |table limit: |account limit: |an index's limit, ).*\. To go faster, .*--max-writes\."
        )
        assert re.search(rf"DynamoDB throttled \d+ requests: {words}", warning)
        assert warning in " ".join(result.err.split())
    assert all(set(counts) <= {unique, f"{unique}/index/by-title"} for counts in summary["throttle_reasons"].values())


def running(
    command_line: CommandLine, faulty_dynamodb: FaultyDynamoDB, to: tuple[str, ...], drop: Callable[[], object]
) -> Result:
    """Run at a pace at which the destination is far from full by the time at which a table is dropped."""
    arguments = ("run", *to, "--max-writes", "100", "--output", "json")
    process = through(command_line, faulty_dynamodb).start(*arguments)
    faulty_dynamodb.wait_for("BatchWriteItem", 2)
    drop()
    result = command_line.finish(process, *arguments)
    assert result.code == 1, str(result)
    assert result.json["rows_loaded"] < 2000, "it ends at once"
    assert "Traceback" not in result.err
    return result


def test_the_destination_is_deleted_in_the_middle(
    command_line: CommandLine,
    faulty_dynamodb: FaultyDynamoDB,
    films: Callable[[int], None],
    to: tuple[str, ...],
    unique: str,
    dynamodb: Any,
) -> None:
    films(2000)
    result = running(command_line, faulty_dynamodb, to, lambda: dynamodb.delete_table(TableName=unique))
    error = result.json["error"]
    assert f"table {unique} at " in error["message"]
    assert "was deleted" in error["message"]
    assert f"momento-etl create-table {unique}" in error["hint"]
    # The same command makes it anew, and loads all of it.
    again = command_line("run", *to, "--output", "json").json
    assert (again["rows_loaded"], again["destination_created"]) == (2000, True)
    assert dynamodb.scan(TableName=unique, Select="COUNT")["Count"] == 2000


def test_the_state_table_is_deleted_in_the_middle(
    command_line: CommandLine,
    faulty_dynamodb: FaultyDynamoDB,
    films: Callable[[int], None],
    to: tuple[str, ...],
    dynamodb: Any,
) -> None:
    films(2000)
    state = state_table(command_line)
    result = running(command_line, faulty_dynamodb, to, lambda: dynamodb.delete_table(TableName=state))
    assert f"state table is gone: table {state} " in result.json["error"]["message"]
    assert "makes the table anew" in result.json["error"]["hint"]


def test_a_state_table_that_may_not_be_used_says_how_to_do_without(
    command_line: CommandLine, films: Callable[[int], None], to: tuple[str, ...]
) -> None:
    films(9)
    with Responder(deny=[f"PutItem:{state_table(command_line)}"]) as responder:
        limited = through(command_line, responder)
        error = limited.fails("run", *to, code=1).json["error"]
        assert "the state table cannot be used" in error["message"]
        assert "PutItem" in error["message"]
        for words in ("dynamodb:DescribeTable, GetItem", "CreateTable", "[state] enabled = false"):
            assert words in error["hint"]
        without = limited.given(MOMENTO_ETL_STATE_ENABLED="false")
        assert without("run", *to, "--output", "json").json["rows_loaded"] == 9
