"""Past runs as their users see them: what is recorded, what changed, and a state table that is not as it should be."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import boto3
import pytest
from rich.cells import cell_len

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine, Result
from tests.integration.responder import Responder
from tests.integration.test_cli_interrupts import noiseless

GOES_ON = "This run goes on without"

# What makes a table of the state's key.
ONE_RUN = "select 'films' as job, 'run' as entry"


@pytest.fixture
def films(schema: Schema) -> None:
    schema.execute(
        "create table films (id integer primary key, price numeric(10,2), title text);"
        " insert into films select n, n, 'film' from generate_series(1, 9) n"
    )


@pytest.fixture
def to(unique: str) -> tuple[str, ...]:
    return ("--table", "films", "--cache", unique, "--destination", unique)


def state_table(command_line: CommandLine) -> str:
    return command_line.variables()["MOMENTO_ETL_STATE_TABLE"]


def dynamodb(stack: Stack) -> Any:
    return boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=stack.dynamodb_url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def recorded(command_line: CommandLine, *arguments: str) -> list[dict[str, Any]]:
    runs = command_line("history", *arguments, "--output", "json").json["runs"]
    assert isinstance(runs, list)
    return runs


@pytest.mark.usefixtures("films")
def test_runs_and_loads_are_recorded(
    command_line: CommandLine, schema: Schema, unique: str, to: tuple[str, ...]
) -> None:
    nothing = command_line("history")
    assert re.fullmatch(r"No run is recorded in table state-\w+, which the first one makes\.\n", nothing.out)
    assert command_line("history", "films", "--output", "json").json["runs"] == []

    extracted = command_line("extract", "--table", "films", "--cache", unique).out.strip()
    assert recorded(command_line) == [], "an extraction needs no DynamoDB"
    command_line("load", *to)
    run = command_line("run", *to, "--output", "json").json
    schema.execute("insert into films values (10, 'NaN', 'none')")
    rejecting = command_line("run", *to, "--output", "json", code=3).json
    failed = command_line("run", *to, "--max-rejects", "0", "--output", "json", code=1).json
    schema.execute("create table actors (id integer primary key)")
    other = command_line(
        "run", "--table", "actors", "--cache", unique, "--destination", f"{unique}-2", "--output", "json"
    )

    runs = recorded(command_line, "public.films")
    names = [failed["run_id"], rejecting["run_id"], run["run_id"], extracted]
    assert [it["run_id"] for it in runs] == names
    assert [it["status"] for it in runs] == ["failed", "rejected_rows", "succeeded", "succeeded"]
    assert [it["command"] for it in runs] == ["run", "run", "run", "load"]
    assert [it["counts"]["rows_loaded"] for it in runs] == [failed["rows_loaded"], 9, 9, 9]
    assert [it["columns"] for it in runs] == [3, 3, 3, 0]
    assert runs[0]["error"] == failed["error"]
    assert runs[1]["error"] is None
    assert all(it["host"] and it["ended_at"] >= it["started_at"] for it in runs)
    assert [it["run_id"] for it in recorded(command_line, "films", "--limit", "2")] == names[:2]
    assert [it["run_id"] for it in recorded(command_line, "--limit", "2")] == [other.json["run_id"], names[0]]

    text = command_line("history").out
    assert re.search(rf"^{failed['run_id']}  films +failed ", text, re.MULTILINE), text
    assert re.search(
        rf"^{other.json['run_id']}  actors +done +\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d +[\d.]+ s +0 ", text, re.MULTILINE
    )
    assert "--run-id RUN tells why a run failed" in text

    one = command_line("history", "--run-id", failed["run_id"])
    for words in ("run films: failed in ", failed["error"]["message"], "id integer, price numeric(10,2), title text"):
        assert words in one.out, one
    whole = command_line("history", "films", "--run-id", failed["run_id"], "--output", "json").json
    assert (whole["job"], whole["run_id"]) == ("films", failed["run_id"])
    assert whole["run"]["schema"][1] == {"name": "price", "type": "numeric(10,2)"}
    assert {name: whole["run"][name] for name in runs[0]} == runs[0]
    command_line.fails("history", "--run-id", "20200101T000000000Z-0000", code=2)
    command_line.fails("history", "actors", "--run-id", failed["run_id"], code=2)


@pytest.mark.usefixtures("films")
def test_a_load_after_a_run_leaves_its_schema_to_be_compared_with(
    command_line: CommandLine, schema: Schema, to: tuple[str, ...]
) -> None:
    command_line("run", *to)
    loaded = command_line("load", *to, "--output", "json").json
    (only,) = recorded(command_line)
    assert (only["command"], only["run_id"], only["columns"]) == ("load", loaded["run_id"], 3)
    schema.execute("alter table films add seen date")
    assert len(command_line("run", *to, "--output", "json").json["schema_changes"]) == 1


@pytest.mark.usefixtures("films")
def test_changed_columns_are_told_or_refused(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str, to: tuple[str, ...]
) -> None:
    frozen = command_line("run", *to, "--schema-contract", "freeze")
    assert "warning" not in frozen.err, "there is nothing to compare the first run with"
    schema.execute("alter table films alter price type numeric(12,2); alter table films rename title to name")
    fresh = ("--table", "films", "--cache", f"{unique}-2", "--destination", f"{unique}-2")
    refused = command_line.fails("run", *fresh, "--schema-contract", "freeze", code=1)
    changes = [
        {"column": "price", "before": "numeric(10,2)", "now": "numeric(12,2)"},
        {"column": "title", "before": "text", "now": None},
        {"column": "name", "before": None, "now": "text"},
    ]
    assert refused.json["schema_changes"] == changes
    for words in ("price was numeric(10,2) and is numeric(12,2)", "title (text) was removed", "name (text) was added"):
        assert words in refused.json["error"]["message"]
    assert "--schema-contract evolve" in refused.json["error"]["hint"]
    # Nothing was made, and nothing was recorded.
    client = dynamodb(stack)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_table(TableName=f"{unique}-2")
    client.close()
    gone = command_line.fails("inspect-cache", "films", "--cache", f"{unique}-2", code=1)
    assert "there is no cache" in gone.json["error"]["message"]
    command_line.fails("extract", *fresh[:4], "--schema-contract", "freeze", code=1)
    assert len(recorded(command_line)) == 1

    told = command_line("run", *to, "--columns", "id,name", "--output", "json")
    assert told.json["schema_changes"] == changes
    assert "columns of films changed since its last run" in told.err
    # Accepted once. What a run takes of the columns is no matter.
    assert command_line("run", *to, "--schema-contract", "freeze", "--output", "json").json["schema_changes"] == []

    (command_line.folder / "momento-etl.toml").write_text('[tables.films]\nschema_contract = "freeze"\n')
    command_line.given(MOMENTO_ETL_STATE_ENABLED="true")("run", *to)
    off = command_line.given(MOMENTO_ETL_STATE_ENABLED="false")
    assert "nothing to compare" in off.fails("run", *to, code=2).json["error"]["message"]
    assert (
        "there is no history: the state table is switched off" in off.fails("history", code=2).json["error"]["message"]
    )


def test_a_wide_table_floods_nobody(command_line: CommandLine, schema: Schema, unique: str) -> None:
    names = [f"c{number:04d}{'x' * 58}" for number in range(1599)]
    schema.execute(f"create table wide (id integer primary key, {', '.join(f'{name} date' for name in names)})")
    to = ("--table", "wide", "--cache", unique, "--destination", unique)
    command_line("run", *to)
    schema.execute("drop table wide; create table wide (id integer primary key)")
    told = command_line("run", *to)
    assert len(told.err.splitlines()) < 25, told
    assert "and 1,589 more" in told.err
    (_, first) = recorded(command_line)
    assert (first["columns"], first["notes"]) == (1600, [])
    whole = command_line("history", "--run-id", first["run_id"])
    assert names[-1] in whole.out


@pytest.mark.usefixtures("films")
def test_no_secret_is_recorded(
    command_line: CommandLine, schema: Schema, stack: Stack, to: tuple[str, ...], unique: str
) -> None:
    command_line("run", *to)
    # A failure in the middle of reading, which PostgreSQL words.
    schema.execute("create view broken as select id, 1 / (id - 9) as x from films")
    command_line.fails(
        "run", "--table", "broken", "--key", "id", "--cache", unique, "--destination", f"{unique}-2", code=1
    )
    assert [run["status"] for run in recorded(command_line)] == ["failed", "succeeded"]
    client = dynamodb(stack)
    kept = json.dumps(client.scan(TableName=state_table(command_line))["Items"])
    client.close()
    assert "division by zero" in kept
    for secret in command_line.secrets:
        assert secret not in kept


@pytest.mark.usefixtures("films")
def test_a_table_of_runs_fits_the_screen(command_line: CommandLine, schema: Schema, to: tuple[str, ...]) -> None:
    schema.execute("insert into films values (10, 'NaN', 'none')")
    command_line("run", *to, code=3)

    def shown(*arguments: str, width: int) -> str:
        terminal = command_line.terminal("history", *arguments, width=width)
        assert terminal.end() == 0, terminal.text
        assert all(cell_len(line) <= width for line in terminal.lines), terminal.text
        text = "\n".join(terminal.lines)
        # The run's name can always be pasted.
        assert re.search(r"^\d{8}T\d{9}Z-[0-9a-f]{4} ", text, re.MULTILINE), text
        assert ("host" in text) == (width == 120), text
        assert ("films" in text) == (not arguments), text
        return text

    narrow, *_ = command_line.at_once(
        lambda _: shown(width=40),
        lambda _: shown("films", width=60),
        lambda _: shown(width=80),
        lambda _: shown("films", width=120),
    )
    assert "started" not in narrow


# --- A state table that is not as it should be


def stood_still(result: Result, responder: Responder | None = None) -> None:
    """Without a lease it has moved nothing, and it says what works without one, and how to do without."""
    assert (result.json["rows_extracted"], result.json["rows_loaded"], result.json["run_id"]) == (0, 0, None)
    assert responder is None or responder.items == 0
    hint = result.json["error"]["hint"]
    assert "extract, inspect-cache, create-table, plan and verify do not need it" in hint, result
    assert "[state] enabled = false" in hint, result


@pytest.mark.usefixtures("films")
def test_a_table_of_that_name_that_is_the_users(command_line: CommandLine, unique: str, to: tuple[str, ...]) -> None:
    taken = command_line.given(MOMENTO_ETL_STATE_TABLE=unique)
    command_line("create-table", "films", "--destination", unique)
    for needs in ((), ("--mode", "replace"), ("--schema-contract", "freeze")):
        failed = taken.fails("run", *to, *needs, code=2)
        assert "another key" in failed.json["error"]["message"]
        assert failed.json["rows_extracted"] == 0
    assert taken.fails("history", code=2).json["error"]["hint"]


@pytest.mark.usefixtures("films")
@pytest.mark.parametrize("action", ["DescribeTable", "CreateTable", "Query", "PutItem"])
def test_a_user_who_may_not_do_it(command_line: CommandLine, to: tuple[str, ...], action: str) -> None:
    with Responder(deny=[f"{action}:{state_table(command_line)}"]) as responder:
        limited = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url)
        limited("create-table", *to[1:2], *to[4:])
        limited("extract", *to[:4])
        stood_still(limited.fails("run", *to, code=1), responder)
        went = limited.given(MOMENTO_ETL_STATE_ENABLED="false")("run", *to, "--output", "json")
        assert went.json["rows_loaded"] == responder.items == 9


@pytest.mark.usefixtures("films")
def test_a_history_that_is_not_answered_does_not_keep_a_run(command_line: CommandLine, to: tuple[str, ...]) -> None:
    with Responder(PutItem=1) as responder:  # the lease
        result = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url)("run", *to, "--output", "json")
    assert result.json["rows_loaded"] == 9, str(result)
    warnings = [text for text in result.json["warnings"] if GOES_ON in text]
    assert len(warnings) == 1, str(result)
    assert "[state] enabled = false" in warnings[0]
    assert result.err.count(GOES_ON) == 1, str(result)


@pytest.mark.usefixtures("films")
def test_an_interrupted_run_is_recorded_as_one(command_line: CommandLine, to: tuple[str, ...]) -> None:
    # Its writes never get an answer; what it writes last does.
    with Responder(BatchWriteItem=0) as responder:
        process = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).start("run", *to, "--output", "json")
        responder.wait_for("BatchWriteItem", 1)
        responder.wait_for("PutItem", 3)  # the lease, the job's name, the run
        process.send_signal(signal.SIGINT)
        result = command_line.finish(process, "run")
        assert responder.calls["PutItem"] == 4
        assert b'"interrupted"' in responder.last["PutItem"]
    assert result.code == 130, str(result)
    noiseless(result)
    assert result.json["warnings"] == []


@pytest.mark.usefixtures("films")
def test_an_interrupted_run_does_not_wait_for_a_table_that_does_not_answer(
    command_line: CommandLine, to: tuple[str, ...]
) -> None:
    with Responder(BatchWriteItem=0, PutItem=1) as responder:
        process = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).start("run", *to, "--output", "json")
        responder.wait_for("BatchWriteItem", 1)
        responder.wait_for("PutItem", 2)
        process.send_signal(signal.SIGTERM)
        result = command_line.finish(process, "run")
    assert result.code == 143, str(result)
    noiseless(result)


@pytest.mark.usefixtures("films")
def test_a_killed_run_stays_running(command_line: CommandLine, to: tuple[str, ...], stack: Stack) -> None:
    with Responder(BatchWriteItem=0) as responder:
        process = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).start("run", *to)
        responder.wait_for("PutItem", 3)
        responder.wait_for("BatchWriteItem", 1)
        process.kill()
        process.communicate()
        assert responder.calls["PutItem"] == 3
        left = json.loads(responder.last["PutItem"])["Item"]
    command_line(
        "create-table", "films", "--destination", state_table(command_line), "--query", ONE_RUN, "--key", "job,entry"
    )
    client = dynamodb(stack)
    client.put_item(TableName=state_table(command_line), Item=left)
    client.close()
    (run,) = recorded(command_line, "films")
    assert (run["status"], run["ended_at"], run["duration_seconds"], run["columns"]) == ("running", None, None, 3)
    listed = command_line("history", "films")
    assert re.search(r"running +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +- +-  ", listed.out), listed
    assert "or killed" in listed.out
    assert "running" in command_line("history", "films", "--run-id", run["run_id"]).out
