"""``--log-file``: what is said, with times and without secrets, behind what is there; and it ends no run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import Schema
from tests.integration.command_line import CommandLine
from tests.integration.responder import Responder

STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ( |$)")


@pytest.fixture
def to(schema: Schema, unique: str) -> tuple[str, ...]:
    schema.execute("create table small (id integer primary key); insert into small select generate_series(1, 9)")
    return ("--table", "small", "--cache", unique, "--destination", unique, "--log-file", "etl.log")


def lines(folder: Path) -> list[str]:
    found = (folder / "etl.log").read_text().splitlines()
    assert all(STAMP.match(line) for line in found), found
    return [line[21:] for line in found]


def test_what_is_said_is_kept(forked: CommandLine, to: tuple[str, ...], tmp_path: Path) -> None:
    first = forked("run", *to)
    logged = lines(tmp_path)
    assert logged[0].startswith("momento-etl 0.")
    assert logged[0].endswith(" ".join(to))
    for said in filter(str.strip, first.err.splitlines()):
        assert said in logged, said
    # Behind what is there; quiet on the screen, not in the file.
    quiet = forked("run", *to, "--quiet")
    assert quiet.err == ""
    assert lines(tmp_path)[: len(logged)] == logged
    assert sum("run small: done" in line for line in lines(tmp_path)) == 2
    assert (tmp_path / "etl.log").stat().st_mode & 0o077 == 0


def test_failures_have_their_traceback_in_it_alone(forked: CommandLine, to: tuple[str, ...], tmp_path: Path) -> None:
    failed = forked("run", "--table", "nothing", *to[-2:], "--output", "json", code=2)
    logged = "\n".join(lines(tmp_path))
    assert "Traceback" in logged
    assert "Traceback" not in failed.err
    assert "error: there is no table 'nothing' in the source" in logged
    assert "hint: " in logged


def test_libraries_are_heard_and_secrets_are_not(
    command_line: CommandLine, to: tuple[str, ...], tmp_path: Path
) -> None:
    url = "postgresql://ada:PLANTED-in-option@127.0.0.1:9/d?connect_timeout=2"
    command_line("plan", "--source", url, *to[:2], *to[-2:], code=1)
    command_line("run", *to)
    text = "\n".join(lines(tmp_path))
    for secret in (*command_line.secrets, "PLANTED-in-option"):
        assert secret not in text
    assert "postgresql://ada:***@127.0.0.1:9/d" in text
    assert "INFO:" in text


def test_progress_comes_by_the_line_at_a_terminal_too(
    command_line: CommandLine, to: tuple[str, ...], tmp_path: Path
) -> None:
    with Responder(BatchWriteItem=0) as responder:
        terminal = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).terminal("run", *to)
        responder.wait_for("BatchWriteItem", 1)
        while not any("rows 9 read" in line for line in lines(tmp_path)):
            terminal.wait_for("written")
            terminal.text = ""
        responder.release()
        assert terminal.end() == 0
    assert "\x1b" not in (tmp_path / "etl.log").read_text()


def test_a_file_that_cannot_be_opened_is_refused(bare: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("no/such/folder.log", "file/below", "."):
        failed = bare.fails("run", "--local", "--table", "movies", "--log-file", name, code=2)
        assert failed.json["error"]["message"].startswith(f"--log-file {name} cannot be written")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_ends_no_run(forked: CommandLine, to: tuple[str, ...]) -> None:
    run = forked("run", *to[:-1], "/dev/full")
    assert run.err.count("the log file /dev/full takes no more: No space left on device") == 1
    assert "run small: done" in run.err
