"""At a terminal: a banner for the embedded stack, progress that comes and goes, and screens that fit."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from tests.conftest import Schema
from tests.integration.command_line import CommandLine, Terminal
from tests.integration.responder import Responder

COLOUR = re.compile(r"\x1b\[[0-9;]*[1-9][0-9;]*m")


def fits(terminal: Terminal) -> None:
    """No line is longer than the screen is wide; the terminal would break it anywhere."""
    for line in terminal.lines:
        assert cell_len(line) <= terminal.width, f"{line!r} in\n{terminal.text}"


@pytest.mark.parametrize("width", [80, 120])
def test_screens_of_the_embedded_stack(bare: CommandLine, unique: str, width: int) -> None:
    extract = bare.terminal("extract", "--table", "movies", "--cache", unique, width=width)
    assert extract.end() == 0, extract.text
    fits(extract)
    # Nothing is configured: a person is told what this works on, in whole words.
    shown = " ".join(extract.text.split())
    assert "nothing is configured, so this works on the embedded stack" in re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert "extract movies: done in" in "\n".join(extract.lines)
    assert COLOUR.search(extract.text)

    inspected, row, status, help_ = bare.at_once(
        lambda cli: ended(cli.terminal("inspect-cache", "movies", "--cache", unique, width=width)),
        lambda cli: ended(cli.terminal("inspect-cache", "movies", "--cache", unique, "--row", "42", width=width)),
        lambda cli: ended(cli.terminal("local", "status", width=width)),
        lambda cli: ended(cli.terminal("run", "--help", width=width)),
    )
    for terminal in (inspected, row, status, help_):
        fits(terminal)
    text = "\n".join(inspected.lines)
    assert re.search(r"^\d{8}T\d{9}Z-[0-9a-f]{4} +current +3,201 +1 ", text, re.MULTILINE), text
    # The sample shows as many columns as fit whole, and says how many do not.
    header = next(line for line in inspected.lines if line.lstrip().startswith("movie_id  title"))
    count = len(header.split())
    assert ("mpaa_rating" in header) == (width == 120)
    # As many rows as fit, too: the screen has 24 lines.
    assert re.search(r"^ +3  I Married a Strange Person +1998-08-28 +203134", text, re.MULTILINE), text
    assert re.search(r"and \d+ more attributes", text), text
    assert "…" not in text
    assert count >= 5 if width == 80 else count >= 6
    assert len(inspected.lines) <= 45
    assert re.search(r"^title +S +The Abyss +text", "\n".join(row.lines), re.MULTILINE), row.text
    assert len(re.findall(r" running ", "\n".join(status.lines))) == 3, status.text


def ended(terminal: Terminal) -> Terminal:
    """Wait for a command that succeeds."""
    assert terminal.end() == 0, terminal.text
    return terminal


@pytest.fixture
def many(schema: Schema) -> None:
    schema.execute(
        "create table many (id integer primary key, a text);"
        " insert into many select n, md5(n::text) from generate_series(1, 9000) n; analyze many"
    )


@pytest.mark.usefixtures("many")
def test_progress_shows_and_goes(command_line: CommandLine, unique: str) -> None:
    arguments = ("run", "--table", "many", "--cache", unique, "--destination", unique)
    with Responder(BatchWriteItem=20) as responder:
        terminal = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).terminal(*arguments)
        terminal.wait_for(r"written .*[1-9]\d* of ~?9,000")  # it shows while the answers are held back
        terminal.wait_for(r"read .*9,000 of ~?9,000")
        responder.release()
        assert terminal.end() == 0, terminal.text
    fits(terminal)
    # What comes last is the summary, on a line that was cleared; the cursor is back.
    last = terminal.text.rpartition("\x1b[2K")[2]
    assert "run many: done in" in re.sub(r"\x1b\[[0-9;]*m", "", last)
    assert "━" not in last
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


@pytest.mark.usefixtures("many")
def test_an_interrupted_terminal_gets_its_cursor_back(command_line: CommandLine, unique: str) -> None:
    arguments = ("run", "--table", "many", "--cache", unique, "--destination", unique)
    with Responder(BatchWriteItem=20) as responder:
        terminal = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).terminal(*arguments)
        terminal.wait_for(r"written .*[1-9]\d* of ~?9,000")
        terminal.press(b"\x03")  # Ctrl-C
        assert terminal.end() == 130, terminal.text
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")
    assert "Traceback" not in terminal.text
    assert "run many: interrupted in" in "\n".join(terminal.lines)


@pytest.mark.usefixtures("many")
def test_colour_and_movement_can_be_refused(command_line: CommandLine, unique: str) -> None:
    to = ("--table", "many", "--cache", unique, "--limit", "10")
    colourless, dumb, json = command_line.at_once(
        lambda cli: ended(cli.given(NO_COLOR="1").terminal("extract", *to)),
        lambda cli: ended(cli.given(TERM="dumb").terminal("extract", *to)),
        lambda cli: ended(cli.terminal("extract", *to, "--output", "json", "--quiet")),
    )
    for terminal in (colourless, dumb):
        assert "extract many: " in "\n".join(terminal.lines)
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", terminal.text), terminal.text
    assert "\x1b" not in dumb.text
    assert json.text.lstrip().startswith("{")
    assert "\x1b" not in json.text
