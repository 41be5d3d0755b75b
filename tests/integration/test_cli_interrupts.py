"""A run that is told to stop: at once, in order, and with the right exit code."""

from __future__ import annotations

import fcntl
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Schema
from tests.integration.command_line import CommandLine, Result
from tests.integration.responder import Responder


@pytest.fixture
def many(schema: Schema) -> None:
    schema.execute(
        "create table many (id integer primary key, a text, b text);"
        " insert into many select n, md5(n::text), md5((-n)::text) from generate_series(1, 50000) n"
    )


def stopped(
    command_line: CommandLine, unique: str, number: signal.Signals, *, output: str = "json"
) -> tuple[Result, Responder]:
    """Send a signal to a run once some batches are written and the next ones are under way; the answers never come."""
    arguments = ("run", "--table", "many", "--cache", unique, "--destination", unique, "--output", output)
    with Responder(BatchWriteItem=40) as responder:
        process = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).start(*arguments)
        responder.wait_for("BatchWriteItem", 60)
        process.send_signal(number)
        return command_line.finish(process, *arguments), responder


def noiseless(result: Result) -> None:
    """Nothing that says that something went wrong on the way out."""
    for noise in ("Traceback", "destroyed", "never retrieved", "Exception ignored", "itself failed", "Unclosed"):
        assert noise not in result.err, str(result)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_a_run(command_line: CommandLine, unique: str, number: signal.Signals, code: int) -> None:
    result, responder = stopped(command_line, unique, number)
    assert result.code == code, str(result)
    noiseless(result)
    summary = result.json
    assert summary["status"] == "interrupted"
    assert summary["error"]["message"] == f"interrupted by {number.name}"
    assert summary["run_id"]
    # What it says that it wrote was acknowledged.
    assert 0 < summary["rows_loaded"] <= responder.items < 50_000
    assert f"{number.name}: stopping" in result.err
    # Nothing points at what is half done.
    listed = command_line("inspect-cache", "many", "--cache", unique, "--output", "json").json
    if listed["current"] is not None:  # the extraction was complete already: then it is whole
        assert listed["runs"][0]["totals"]["rows_extracted"] == 50_000


@pytest.mark.usefixtures("many")
def test_what_a_person_sees_of_it(command_line: CommandLine, unique: str) -> None:
    result, _ = stopped(command_line, unique, signal.SIGINT, output="text")
    assert result.code == 130
    assert result.out == ""
    noiseless(result)
    assert "SIGINT: stopping" in result.err
    assert re.search(r"^run many: interrupted in ", result.err, re.MULTILINE), result
    assert "interrupted by SIGINT. What was written so far stays. Run the same command again" in result.err
    # It was killed in the middle of the job; now the same command does it all.
    with Responder() as responder:
        again = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url)(
            "run", "--table", "many", "--cache", unique, "--destination", unique, "--output", "json"
        )
        assert again.json["rows_loaded"] == responder.items == 50_000


def test_a_second_signal_ends_at_once(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute("create table few (id integer primary key)")
    arguments = ("create-table", "few", "--destination", unique, "--output", "json")
    with Responder(DescribeTable=0) as responder:
        process = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).start(*arguments)
        responder.wait_for("DescribeTable", 1)  # boto3 waits in a thread for an answer, which a signal does not end
        # A second signal has to be a second wish, so they are sent until one is.
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        result = command_line.finish(process, *arguments)
    assert result.code == 143, str(result)
    assert result.out == ""  # it did not end in order, which would have given an object, but at once
    noiseless(result)
    assert "SIGTERM: stopping (once more: at once)" in result.err


def test_a_signal_before_there_is_an_event_loop(bare: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o700)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another command that is at work on the stack
        arguments = ("run", "--local", "--table", "movies", "--output", "json")
        process = bare.given(MOMENTO_ETL_LOCAL_DIR=str(folder)).start(*arguments)
        assert process.stderr is not None
        assert "The embedded stack" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        result = bare.finish(process, *arguments)
    assert result.code == 143, str(result)
    assert (result.json["status"], result.json["run_id"]) == ("interrupted", None)
    noiseless(result)
