"""Disks that are full, folders that cannot be written to: rows move on all the same, and nothing is lost unsaid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Schema
from tests.integration.command_line import CommandLine
from tests.integration.mortal import Mortals
from tests.integration.responder import Responder

FULL = "/dev/full"
pytestmark = pytest.mark.skipif(not Path(FULL).exists(), reason="there is no /dev/full here")

ROWS, BAD = 40, 3


@pytest.fixture
def to(schema: Schema, unique: str) -> tuple[str, ...]:
    schema.execute(
        "create table films (id integer primary key, rating float8);"
        " insert into films"
        f" select n, case when n <= {BAD} then 'NaN'::float8 else n end from generate_series(1, {ROWS}) n"
    )
    return ("--table", "films", "--cache", unique, "--destination", unique)


def kept_in_the_cache(line: CommandLine, to: tuple[str, ...], run_id: str) -> int:
    found = line("inspect-cache", "films", *to[2:4], "--run-id", run_id, "--rejects", "--output", "json").json
    return len(found["rejects"])


@pytest.mark.parametrize("command", ["run", "extract"])
def test_the_named_file_for_rejected_rows_has_no_room(forked: CommandLine, to: tuple[str, ...], command: str) -> None:
    failed = forked.fails(command, *to[: 4 if command == "extract" else 6], "--rejects-file", FULL, code=1)
    summary = failed.json
    assert summary["error"]["message"] == f"rejected rows cannot be written to {FULL}: No space left on device"
    told = f"inspect-cache films --cache {to[3]} --run-id {summary['run_id']} --rejects"
    assert told in summary["error"]["hint"]
    assert summary["rows_rejected"] == BAD
    assert summary["rows_loaded"] == (ROWS - BAD if command == "run" else 0)
    assert kept_in_the_cache(forked, to, summary["run_id"]) == BAD
    # A run that failed for another reason says that first, and this too.
    other = forked.fails(
        command, *to[: 4 if command == "extract" else 6], "--rejects-file", FULL, "--max-rejects", "1", code=1
    )
    assert "at most 1" in other.json["error"]["message"]
    assert other.json["warnings"] == [summary["error"]["message"]]


def test_one_of_several_jobs_has_no_room(forked: CommandLine, schema: Schema, to: tuple[str, ...]) -> None:
    schema.execute("create table actors (id integer primary key); insert into actors values (1)")
    result = forked(
        "run", "--table", "films", "--table", "actors", *to[2:4], "--rejects-file", FULL, "--output", "json", code=1
    )
    films, actors = result.json["jobs"]
    assert (films["status"], films["rows_loaded"]) == ("failed", ROWS - BAD)
    assert (actors["status"], actors["rows_loaded"]) == ("succeeded", 1)
    assert "No space left on device" in result.err


def test_a_file_that_cannot_be_made_is_refused_before_anything_moves(forked: CommandLine, to: tuple[str, ...]) -> None:
    (forked.folder / "a-file").write_text("")
    for named, why in (
        ("nowhere/rejects.jsonl", "there is no folder nowhere"),
        ("a-file/rejects.jsonl", "there is no folder a-file"),
        (".", "it is a folder"),
    ):
        failed = forked.fails("run", *to, "--rejects-file", named, code=2)
        assert failed.json["error"]["message"] == f"--rejects-file {named}: {why}"
        assert failed.json["rows_extracted"] == 0


def test_the_file_that_nobody_named_cannot_be_made(forked: CommandLine, to: tuple[str, ...]) -> None:
    # Its name would be longer than a file's can be.
    job = "j" * 230
    query = ("--query", "select * from films", "--key", "id")
    result = forked("run", "--table", job, *query, *to[2:], "--output", "json", code=3)
    (warning,) = (text for text in result.json["warnings"] if "rejected rows" in text)
    assert "cannot be written" in warning
    assert f"--run-id {result.json['run_id']} --rejects" in warning
    assert warning in result.err
    assert result.json["rows_loaded"] == ROWS - BAD
    found = forked("inspect-cache", job, *to[2:4], "--rejects", "--output", "json").json
    assert len(found["rejects"]) == BAD


def started_with(mortals: Mortals, line: CommandLine, stream: str, *arguments: str) -> tuple[int, str]:
    """Run a command one of whose streams is on a full disk; answer its exit code, and what the other one took."""
    streams = line.folder / f"full-{stream}-{len(list(line.folder.iterdir()))}"
    streams.mkdir()
    (streams / stream).symlink_to(FULL)
    process = mortals.start(line.variables(), line.folder, list(arguments), streams=streams)
    code = process.wait(60)
    return code, process.err if stream == "out" else process.out


@pytest.mark.parametrize("output", ["text", "json", "jsonl"])
def test_stderr_has_no_room_and_the_run_goes_on(
    mortals: Mortals, command_line: CommandLine, to: tuple[str, ...], output: str
) -> None:
    with Responder() as responder:
        line = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url)
        code, out = started_with(mortals, line, "err", "run", *to, "--verbose", "--output", output)
        assert code == 3
        assert responder.items == ROWS - BAD
    if output != "text":
        assert json.loads(out.splitlines()[-1] if output == "jsonl" else out)["rows_loaded"] == ROWS - BAD


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--output", "json"),
        ("run", "--output", "jsonl"),
        ("extract",),
        ("plan",),
        ("plan", "--output", "json"),
    ],
)
def test_stdout_has_no_room_and_nobody_takes_it_for_all(
    mortals: Mortals, command_line: CommandLine, to: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    where = to[: 4 if arguments[0] == "extract" else 6]
    with Responder() as responder:
        line = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url)
        code, err = started_with(mortals, line, "out", arguments[0], *where, *arguments[1:])
        assert code == 1, err
        assert responder.items == (ROWS - BAD if arguments[0] == "run" else 0)
    assert "error: stdout cannot be written to: No space left on device" in err
    assert "hint: " in err
    assert "Traceback" not in err
    assert "itself failed" not in err
    assert "Exception ignored" not in err


@pytest.mark.parametrize("arguments", [("history",), ("verify", "--table", "films"), ("--help",), ("--version",)])
def test_an_answer_that_stdout_does_not_take(
    mortals: Mortals, command_line: CommandLine, to: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    assert to
    more = ("--output", "json") if arguments[0] == "verify" else ()
    code, err = started_with(mortals, command_line, "out", *arguments, *more)
    assert code == 1, err
    assert "error: stdout cannot be written to: No space left on device" in err
    assert "Traceback" not in err
    assert "itself failed" not in err
