"""What goes where: data to stdout, the rest to stderr, one JSON object at the end, and no secret anywhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from etlcli import __version__
from tests.conftest import Schema
from tests.integration.command_line import PROGRAM, SUMMARY_FIELDS, CommandLine
from tests.integration.responder import Responder

COMMANDS = (
    "run",
    "extract",
    "load",
    "inspect-cache",
    "create-table",
    "history",
    "local",
    "local up",
    "local down",
    "local status",
    "verify",
    "plan",
    "doctor",
    "init",
    "schema",
    "schema summary",
    "state",
    "state show",
)


@pytest.fixture
def small(schema: Schema) -> None:
    schema.execute(
        "create table small (id integer primary key, n numeric);"
        " insert into small select n, n from generate_series(1, 9) n; insert into small values (10, 'NaN')"
    )


def test_help_and_version(bare: CommandLine) -> None:
    version, nothing, whole, *each = bare.at_once(
        lambda cli: cli("--version"),
        lambda cli: cli(code=2),
        lambda cli: cli("--help"),
        *(lambda cli, name=name: cli(*name.split(), "-h") for name in COMMANDS),
    )
    assert version.out == f"momento-etl {__version__}\n"
    assert nothing.out.strip() == whole.out.strip()
    for name in COMMANDS:
        assert name.split()[0] in whole.out
    for name, result in zip(("", *COMMANDS), (whole, *each), strict=True):
        assert result.err == "", result
        assert f"Usage: momento-etl {name}".rstrip() in result.out, result
        assert "<bool>" not in result.out, result
        assert max(map(len, result.out.splitlines())) <= 80, result
    run_help = each[0].out
    assert "[default: the primary key]" in " ".join(run_help.replace("│", " ").split())
    assert "momento-etl run --local --table movies" in run_help
    # An example on two lines could not be pasted.
    for result in each[:6]:
        examples = re.findall(r"^ +momento-etl .*$", result.out, re.MULTILINE)
        assert examples, result
        assert all(len(example.rstrip()) < 80 for example in examples), result


@pytest.mark.usefixtures("small")
def test_text_goes_to_stderr_and_data_to_stdout(command_line: CommandLine, unique: str) -> None:
    to = ("--table", "small", "--cache", unique, "--destination", unique)
    run = command_line("run", *to, code=3)
    assert run.out == ""
    for words in (
        "run small: done, with rejected rows",
        "read      10 rows from",
        "(made now)",
        "rejected  1 row",
        "rows/s",
        f"momento-etl inspect-cache small --cache {unique} --rejects",
        "number-not-finite",
    ):
        assert words in run.err, run
    assert "\x1b" not in run.err
    assert not re.search(r" $", run.err, re.MULTILINE), run
    assert "warning" not in run.err
    extract = command_line("extract", "--table", "small", "--cache", unique, "--where", "id < 10")
    assert re.fullmatch(r"\d{8}T\d{9}Z-[0-9a-f]{4}\n", extract.out), extract
    assert f"momento-etl load --table small --cache {unique}" in extract.err
    load = command_line("load", *to)
    assert load.out == ""
    assert re.search(r"written +9 items to table", load.err), load
    assert re.search(r"read +9 rows from .* extracted \d+s ago", load.err), load

    # Quiet is quiet, but for errors.
    quiet = command_line("run", *to, "--quiet", "--where", "id < 10")
    assert (quiet.out, quiet.err) == ("", "")
    quiet_extract = command_line("extract", "--table", "small", "--cache", unique, "-q", "--query", "select 1 as id")
    assert len(quiet_extract.out.splitlines()) == 1
    assert quiet_extract.err == ""
    quiet_error = command_line("run", "--table", "smal", "-q", code=2)
    assert (quiet_error.out, quiet_error.err.splitlines()[0]) == ("", "error: there is no table 'smal' in the source")


@pytest.mark.usefixtures("small")
def test_json_is_one_object_and_jsonl_ends_with_it(command_line: CommandLine, unique: str) -> None:
    to = ("--table", "small", "--cache", unique, "--destination", unique)
    run = command_line("run", *to, "--output", "json", code=3)
    # Nothing but where the rejected rows are, which is no progress and no summary.
    assert re.fullmatch(r"(rejected rows: \S+\n)?", run.err), run
    summary = run.json
    assert summary["error"] is None
    assert (summary["command"], summary["status"], summary["job"]) == ("run", "rejected_rows", "small")
    assert (summary["rows_extracted"], summary["rows_loaded"], summary["rows_rejected"]) == (10, 9, 1)
    assert summary["rows_dropped"] == 0
    assert summary["chunks"] == 1
    assert summary["momento_calls"] > 0
    assert summary["momento_operations"] >= summary["momento_calls"] / 2
    assert summary["bytes_cached"] > 0
    assert summary["duration_seconds"] > 0
    created = command_line("create-table", "small", "--destination", unique, "--output", "json")
    assert created.err == ""
    assert created.json["created"] is False

    # Events come by the second, so this run is held up until one has come.
    with Responder(BatchWriteItem=0) as responder:
        process = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).start("run", *to, "--output", "jsonl")
        assert process.stdout is not None
        first = process.stdout.readline()
        responder.release()
        result = command_line.finish(process, "run")
    assert result.code == 3, result
    lines = [json.loads(line) for line in [first, *result.out.splitlines()]]
    assert [line.get("event") for line in lines] == ["progress"] * (len(lines) - 1) + [None]
    assert lines[-1].keys() >= SUMMARY_FIELDS
    assert lines[0]["rows_extracted"] <= lines[-1]["rows_extracted"] == 10


@pytest.mark.usefixtures("small")
def test_verbose_tells_more_and_still_no_secret(command_line: CommandLine, unique: str) -> None:
    # `finish` looks for the planted secrets in whatever any command prints; here is where the most is printed.
    to = ("--table", "small", "--cache", unique, "--destination", unique, "--verbose")
    command_line("run", *to, code=3)
    wrong = command_line.given(AWS_SECRET_ACCESS_KEY=None, AWS_SESSION_TOKEN=None)
    failed = wrong("run", *to, code=2)
    assert "Traceback (most recent call last)" in failed.err
    assert "error: half of the AWS credentials" in failed.err
    in_url = command_line.given(DATABASE_URL="postgresql://u:PLANTED-in-url%zz@h/d")
    malformed = in_url("run", *to, "--output", "json", code=2)
    assert "Traceback" in malformed.err
    assert "PLANTED-in-url" not in malformed.out + malformed.err
    legacy = in_url.given(DATABASE_URL="postgresql://u:x@h/d", MOMENTO_LOCAL=None, MOMENTO_API_KEY="PLANTED-key")
    refused = legacy("run", *to, code=2)
    assert "PLANTED-key" not in refused.out + refused.err


def test_output_is_whole_however_it_is_written(tmp_path: Path) -> None:
    # Signals interrupt the writing of what does not fit into the pipe at once; libraries' own have that effect too.
    program = """
import signal, sys
from etlcli.cli import main
main._speak_anywhere()
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
sys.stdout.write("0123456789" * 1_000_000 + chr(10))
sys.stdout.flush()
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    for unbuffered in ("", "1"):
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            cwd=tmp_path,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        ) as process:
            assert process.stdout is not None
            read = 0
            while some := os.read(process.stdout.fileno(), 4096):
                read += len(some)
        assert (process.returncode, read) == (0, 10_000_001)


@pytest.mark.usefixtures("small")
def test_a_reader_that_goes_away(command_line: CommandLine, unique: str) -> None:
    command_line("extract", "--table", "small", "--cache", unique, "--where", "id < 10", "-q")

    def to_nobody(*arguments: str) -> str:
        with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
            assert reader.stdin is not None
            reader.wait()
            ended = subprocess.run(
                [*PROGRAM, *arguments],
                cwd=command_line.folder,
                env=command_line.variables(),
                stdout=reader.stdin,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
            )
        assert ended.returncode in (0, 1)
        return ended.stderr

    in_cache = ("inspect-cache", "small", "--cache", unique)
    for arguments in (
        in_cache,
        (*in_cache, "--output", "json"),
        ("extract", "--table", "small", "--cache", unique, "--where", "id < 10", "-q"),
        ("--version",),
        ("run", "--help"),
    ):
        said = to_nobody(*arguments)
        assert said == "", f"{arguments}: {said}"
