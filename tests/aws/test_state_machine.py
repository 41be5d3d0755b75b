"""The functions under AWS's runtime emulator, driven by the state machine's own file, over the embedded servers."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.aws.lambdas import Functions, emulator_program, functions
from tests.aws.step_functions import StepFunctions, step_functions
from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine
from tests.integration.fault_proxy import Fault, FaultProxy, fault_proxy, with_host_port

pytestmark = pytest.mark.skipif(
    emulator_program() is None,
    reason="AWS's runtime emulator is not there: MOMENTO_ETL_TEST_SAM names an environment with aws-sam-cli",
)

# What one call may take: little, so that much work takes more than one.
TIMEOUTS = {"FromDbToCache": 20, "FromCacheToDynamoDb": 10}

# A title is so many digests: a chunk then has about 2,500 rows.
FACTORS = (1, -1, 3, -3, 5, -5)

# The original's state machine: two steps, and nothing else.
TWO_STEPS = {
    "StartAt": "FromDbToCache",
    "States": {
        "FromDbToCache": {"Type": "Task", "Resource": "${FromDbToCacheArn}", "Next": "FromCacheToDynamoDb"},
        "FromCacheToDynamoDb": {"Type": "Task", "Resource": "${FromCacheToDynamoDbArn}", "End": True},
    },
}


@dataclass
class Aws:
    """Everything that an execution needs."""

    functions: Functions
    machine: StepFunctions
    stack: Stack
    state_table: str
    postgres: FaultProxy

    def items(self, table: str) -> list[dict[str, Any]]:
        """Everything that is in a destination table."""
        client = boto3.client(
            "dynamodb",
            endpoint_url=self.stack.dynamodb_url,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        pages = client.get_paginator("scan").paginate(TableName=table)
        found = sorted((item for page in pages for item in page["Items"]), key=lambda item: int(item["id"]["N"]))
        client.close()
        return found


@pytest.fixture(scope="module")
def aws(built_artifact: Path, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    folder = tmp_path_factory.mktemp("aws")
    state_table = f"state-{secrets.token_hex(6)}"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "MOMENTO_LOCAL": stack.momento,
        "AWS_ENDPOINT_URL_DYNAMODB": stack.dynamodb_url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "MOMENTO_ETL_STATE_TABLE": state_table,
    }
    with ExitStack() as resources:
        postgres = resources.enter_context(fault_proxy(stack.postgres_url))
        environment["DATABASE_URL"] = with_host_port(stack.postgres_url, postgres)
        containers = {"FromDbToCache": 2, "FromCacheToDynamoDb": 2}
        lambdas = resources.enter_context(functions(built_artifact, environment, folder, containers, TIMEOUTS))
        machine = resources.enter_context(step_functions(lambdas.port, folder))
        yield Aws(lambdas, machine, stack, state_table, postgres)


@pytest.fixture(autouse=True)
def forgotten(aws: Aws) -> None:
    """What an earlier test did is no business of this one."""
    aws.functions.forget()


def rows(schema: Schema, count: int) -> str:
    """Make a table of rows that hardly compress; answer its name."""
    schema.execute(
        "create table films (id int primary key, title text, rating numeric);"
        f" insert into films select g, {' || '.join(f'md5((g * {it})::text)' for it in FACTORS)}, g * 1.5"
        f" from generate_series(1, {count}) g; analyze films"
    )
    return f"{schema.name}.films"


def expected(count: int) -> list[dict[str, Any]]:
    def digest(number: int) -> str:
        return hashlib.md5(str(number).encode()).hexdigest()

    return [
        {
            "id": {"N": str(number)},
            "title": {"S": "".join(digest(number * factor) for factor in FACTORS)},
            "rating": {"N": f"{number * 1.5:.1f}"},
        }
        for number in range(1, count + 1)
    ]


def test_50_000_rows_in_many_ranges_two_at_once(aws: Aws, schema: Schema, unique: str) -> None:
    event = {"table": rows(schema, 50_000), "cache": unique, "destination": unique, "ranges": 10, "concurrency": 2}
    ended = aws.machine.run(event)
    assert ended.status == "SUCCEEDED", ended
    assert (ended.output["rows"], ended.output["key"]) == (50_000, "id")
    summary = ended.output["summary"]
    assert (summary["status"], summary["rows_extracted"], summary["snapshots"]) == ("succeeded", 50_000, 11)
    # What all calls counted, not the last one alone: a chunk of each block is stored and fetched.
    assert summary["momento_operations"] > 2 * summary["bytes_cached"] / 1024
    extracting = aws.functions["FromDbToCache"]
    assert extracting.most_at_once == 2
    assert {call["block"] for call in extracting.calls} == set(range(10))
    assert aws.items(unique) == expected(50_000)
    for name in ("Plan", "FromDbToCache", "Finish"):
        assert max(len(json.dumps(call)) for call in aws.functions[name].calls) < 10_000


def test_a_call_stops_in_time_and_the_loop_goes_on(aws: Aws, schema: Schema, unique: str) -> None:
    event = {"table": rows(schema, 20_000), "cache": unique, "destination": unique, "ranges": 1, "max_writes": 1500}
    ended = aws.machine.run(event)
    assert ended.status == "SUCCEEDED", ended
    loading = aws.functions["FromCacheToDynamoDb"]
    assert len(loading.answers) >= 2
    assert [answer["more"] for answer in loading.answers] == [True] * (len(loading.answers) - 1) + [False]
    counts = [answer["rows"] for answer in loading.answers]
    assert counts == sorted(set(counts))  # each got further than the one before
    assert aws.items(unique) == expected(20_000)


def test_a_function_that_is_killed_in_the_middle_of_reading_is_called_again(
    aws: Aws, schema: Schema, unique: str
) -> None:
    event = {"table": rows(schema, 12_000), "cache": unique, "destination": unique, "ranges": 1}
    extracting = aws.functions["FromDbToCache"]

    def hold_up(_call: object) -> None:
        # Once, after about 5,000 rows.
        aws.postgres.script(Fault("stall", after=1_200_000))
        extracting.fails = lambda _call: None

    extracting.fails = hold_up
    execution = aws.machine.start_with(event)
    aws.postgres.wait_for("stall")
    assert extracting.kill_one()
    ended = aws.machine.wait(execution)
    assert ended.status == "SUCCEEDED", ended
    assert "errorType" in extracting.answers[0]
    assert ended.output["rows"] == ended.output["summary"]["rows_extracted"] == 12_000
    assert aws.items(unique) == expected(12_000)


def test_a_function_that_is_killed_in_the_middle_of_loading_is_called_again(
    aws: Aws, schema: Schema, unique: str
) -> None:
    event = {"table": rows(schema, 8_000), "cache": unique, "destination": unique, "ranges": 1, "max_writes": 2000}
    loading = aws.functions["FromCacheToDynamoDb"]
    execution = aws.machine.start_with(event)
    loading.wait_until(lambda: stored(aws, unique) > 1000)
    assert loading.kill_one()
    ended = aws.machine.wait(execution)
    assert ended.status == "SUCCEEDED", ended
    assert "errorType" in loading.answers[0]
    assert ended.output["rows"] == 8_000
    assert aws.items(unique) == expected(8_000)


def stored(aws: Aws, table: str) -> int:
    try:
        return len(aws.items(table))
    except Exception:  # noqa: BLE001  it is not there yet
        return 0


def test_the_same_block_delivered_twice_at_once(aws: Aws, schema: Schema, unique: str) -> None:
    event = {"table": rows(schema, 8_000), "cache": unique, "destination": unique, "ranges": 2}
    for name in ("FromDbToCache", "FromCacheToDynamoDb"):
        aws.functions[name].twice = True
    ended = aws.machine.run(event)
    assert ended.status == "SUCCEEDED", ended
    assert ended.output["summary"]["rows_extracted"] == ended.output["rows"] == 8_000
    assert aws.items(unique) == expected(8_000)
    # Neither failed, or the one that did may be called again.
    errors = {it["errorType"] for name in TIMEOUTS for it in aws.functions[name].echoes if "errorType" in it}
    assert errors <= {"EtlTransient"}


def test_a_block_that_always_fails_is_named_and_the_next_execution_does_what_is_left(
    aws: Aws, schema: Schema, unique: str
) -> None:
    event = {"table": rows(schema, 8_000), "cache": unique, "destination": unique, "ranges": 4}
    refused = {"errorType": "EtlTerminal", "errorMessage": "planted"}
    aws.functions["FromCacheToDynamoDb"].fails = lambda call: refused if call["block"] == 2 else None
    ended = aws.machine.run(event)
    assert ended.status == "FAILED", ended
    assert ended.error == "EtlTerminal"
    assert "1 of 4 blocks of run" in str(ended.cause)
    assert "block 2 (1 chunks are not loaded)" in str(ended.cause)
    # Ranges are cut by a sample, and about alike.
    assert 4_000 < len(aws.items(unique)) < 8_000

    aws.functions.forget()
    again = aws.machine.run(event)
    assert again.status == "SUCCEEDED", again
    assert {call["block"] for call in aws.functions["FromDbToCache"].calls} == {2}
    assert again.output["rows"] == 8_000
    assert aws.items(unique) == expected(8_000)


def test_the_originals_event_and_answer(aws: Aws, schema: Schema, unique: str) -> None:
    schema.execute(
        "create table movie (movie_id int primary key, id int, title text);"
        " insert into movie select g, g, 'film ' || g from generate_series(1, 250) g"
    )
    event = {
        "table": "movie",
        "query": f"select * from {schema.name}.movie order by 1 asc",
        "cache": unique,
        "destination": unique,
    }
    ended = aws.machine.run(event, json.dumps(TWO_STEPS))
    assert ended.status == "SUCCEEDED", ended
    answer = ended.output
    assert {name: answer[name] for name in ("name", "rows", "key")} == {"name": "movie", "rows": 250, "key": "movie_id"}
    assert aws.functions["FromDbToCache"].answers[0]["rows"] == 250
    assert [int(item["movie_id"]["N"]) for item in aws.items(unique)] == list(range(1, 251))


def test_a_query_goes_through_the_state_machine_as_one_range(aws: Aws, schema: Schema, unique: str) -> None:
    table = rows(schema, 3_000)
    event = {"table": "q", "query": f"select * from {table}", "cache": unique, "destination": unique, "ranges": 8}
    ended = aws.machine.run(event)
    assert ended.status == "SUCCEEDED", ended
    assert [call["block"] for call in aws.functions["FromDbToCache"].calls] == [0]
    assert aws.items(unique) == expected(3_000)


def test_two_executions_of_one_job(aws: Aws, schema: Schema, unique: str) -> None:
    event = {"table": rows(schema, 6_000), "cache": unique, "destination": unique, "ranges": 1, "max_writes": 1500}
    first = aws.machine.start_with(event)
    aws.functions["FromCacheToDynamoDb"].began.wait(120)
    second = aws.machine.run(event)
    assert second.status == "FAILED"
    assert second.error == "EtlTerminal"
    assert "another run of" in str(second.cause)
    assert "is at work: " in str(second.cause)
    ended = aws.machine.wait(first)
    assert ended.status == "SUCCEEDED", ended
    assert aws.items(unique) == expected(6_000)


@pytest.fixture
def command_line(aws: Aws, tmp_path: Path) -> CommandLine:
    # By the way that the functions go: what another address leads to may be another database.
    found = CommandLine.on(aws.stack, with_host_port(aws.stack.postgres_url, aws.postgres), tmp_path)
    return found.given(MOMENTO_ETL_STATE_TABLE=aws.state_table)


def test_the_functions_finish_what_the_command_line_began(
    aws: Aws, schema: Schema, unique: str, command_line: CommandLine
) -> None:
    table = rows(schema, 20_000)
    where = ("--table", table, "--cache", unique, "--destination", unique)
    process = command_line.start("run", *where, "--max-writes", "1500")
    try:
        aws.functions["Plan"].wait_until(lambda: stored(aws, unique) > 5_000)
    finally:
        process.send_signal(signal.SIGINT)
    stopped = command_line.finish(process)
    assert stopped.code == 130, str(stopped)
    ended = aws.machine.run({"table": table, "cache": unique, "destination": unique, "ranges": 4})
    assert ended.status == "SUCCEEDED", ended
    assert aws.functions["Plan"].answers[-1]["resumed"] is True
    assert ended.output["rows"] == 20_000
    assert aws.items(unique) == expected(20_000)
    # The run is one, and both saw it.
    listed = command_line("history", table, "--output", "json").json
    assert [run["status"] for run in listed["runs"]] == ["succeeded"]
    assert listed["runs"][0]["run_id"] == ended.output["run"]
    assert command_line("verify", *where, "--output", "json").json["verification"]["rows_compared"] == 20_000


def test_the_command_line_finishes_what_the_functions_began(
    aws: Aws, schema: Schema, unique: str, command_line: CommandLine
) -> None:
    table = rows(schema, 12_000)
    event = {"table": table, "cache": unique, "destination": unique, "ranges": 6}
    refused = {"errorType": "EtlTerminal", "errorMessage": "planted"}
    aws.functions["FromDbToCache"].fails = lambda call: refused if call["block"] in (1, 4) else None
    aws.functions["FromCacheToDynamoDb"].fails = lambda call: refused if call["block"] == 2 else None
    ended = aws.machine.run(event)
    assert ended.status == "FAILED", ended
    assert "3 of 6 blocks" in str(ended.cause)
    where = ("--table", table, "--cache", unique, "--destination", unique)
    summary = command_line("run", *where, "--output", "json").json
    assert summary["resumed"] is True
    assert summary["rows_loaded"] == 12_000
    assert aws.items(unique) == expected(12_000)
    assert command_line("verify", *where, "--output", "json").json["verification"]["rows_compared"] == 12_000
    # What it left in the cache is whole: it can be loaded once more.
    assert command_line("load", *where, "--output", "json").json["rows_loaded"] == 12_000


@pytest.mark.parametrize(
    ("event", "says"),
    [
        pytest.param([1, 2], "the event has to be an object, and is list", id="list"),
        pytest.param({}, "the event names no table", id="empty"),
        pytest.param({"table": "movies", "wehre": "x"}, "unknown field 'wehre'; did you mean `where`", id="typo"),
        pytest.param({"table": "no_such_table"}, "no_such_table", id="unknown table"),
        pytest.param({"table": "movies", "ranges": 0}, "ranges has to be a number from 1", id="ranges"),
    ],
)
def test_events_that_are_none(aws: Aws, event: object, says: str) -> None:
    answer = aws.functions.invoke("Plan", event)
    assert answer["errorType"] == "EtlTerminal"
    assert says in answer["errorMessage"]


def test_a_postgresql_that_cannot_be_reached_is_named(aws: Aws) -> None:
    aws.postgres.refuse()
    try:
        answer = aws.functions.invoke("Plan", {"table": "movies"})
    finally:
        aws.postgres.accept()
    assert answer["errorType"] == "EtlTransient"
    assert f"127.0.0.1:{aws.postgres.port}" in answer["errorMessage"]


def test_what_is_logged_is_json_with_job_and_run(aws: Aws, schema: Schema, unique: str) -> None:
    ended = aws.machine.run({"table": rows(schema, 500), "cache": unique, "destination": unique})
    assert ended.status == "SUCCEEDED", ended
    run = ended.output["run"]
    lines = [json.loads(line) for line in aws.functions.logged() if line.startswith("{") and run in line]
    assert {line["function"] for line in lines} == {"Plan", "FromDbToCache", "FromCacheToDynamoDb", "Finish"}
    counted = {
        name: sum(line.get(name, 0) for line in lines if "_aws" in line)
        for name in ("rows_extracted", "rows_loaded", "rows_rejected")
    }
    assert counted == {"rows_extracted": 500, "rows_loaded": 500, "rows_rejected": 0}
    for line in lines:
        metrics = line["_aws"]["CloudWatchMetrics"][0]
        assert metrics["Namespace"] == "momento-etl"
        assert all(metric["Name"] in line for metric in metrics["Metrics"])
        assert line["job"]
