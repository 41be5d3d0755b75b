"""Taking COPY's rows many at once: from a server that is always ahead, that says nothing, or that is not understood."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from etlcli.source import wire


class AlwaysAhead:
    """What stands for libpq's connection: it never has to be waited for."""

    def send_query_params(self, statement: bytes, values: None) -> None:
        assert (statement, values) == (b"copy", None)

    def get_copy_data(self, decode: int) -> tuple[int, memoryview]:
        assert decode == 1
        return 4, memoryview(b"row\n")


class Connection:
    pgconn = AlwaysAhead()


def answered(*_: object) -> Iterator[int]:
    yield from ()


def test_others_get_their_turn_between_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_answer", answered)
    turns: list[str] = []

    async def other() -> None:
        while True:
            turns.append("other")
            await asyncio.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(other())
        async with aclosing(wire.copy_out(cast("Any", Connection()), b"copy", 60.0)) as batches:
            async for batch in batches:
                assert batch == [b"row"] * 1000
                turns.append("batch")
                if turns.count("batch") == 20:
                    break
        task.cancel()

    asyncio.run(main())
    assert turns.count("other") >= 19


class Scripted:
    """What stands for libpq's connection: it has these messages, and then there is an end, or nothing more."""

    def __init__(self, messages: Sequence[bytes], socket: int | None = None) -> None:
        self._messages = list(messages)
        self.socket = socket

    def send_query_params(self, statement: bytes, values: None) -> None:
        pass

    def get_copy_data(self, decode: int) -> tuple[int, memoryview]:
        assert decode == 1
        if not self._messages:
            return (-1 if self.socket is None else 0), memoryview(b"")
        message = self._messages.pop(0)
        return len(message), memoryview(message)


def copied(
    monkeypatch: pytest.MonkeyPatch,
    pgconn: Scripted,
    counted: int | None,
    *,
    patience: float = 60.0,
    into: list[bytes] | None = None,
) -> list[bytes]:
    taken = [] if into is None else into

    def answer(*_: object) -> Generator[int, Any, SimpleNamespace]:
        yield from ()
        return SimpleNamespace(command_tuples=counted)

    async def main() -> list[bytes]:
        connection = cast("Any", SimpleNamespace(pgconn=pgconn))
        async with aclosing(wire.copy_out(connection, b"copy", patience)) as batches:
            async for batch in batches:
                taken.extend(batch)
        return taken

    monkeypatch.setattr(wire, "_answer", answer)
    return asyncio.run(main())


def test_the_lines_that_the_server_has_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert copied(monkeypatch, Scripted([b"1\n", b"2\\n\n", b"\n"]), 3) == [b"1", b"2\\n", b""]
    assert copied(monkeypatch, Scripted([]), 0) == []


@pytest.mark.parametrize("counted", [1, 3, None])
def test_other_lines_than_the_server_has_counted(monkeypatch: pytest.MonkeyPatch, counted: int | None) -> None:
    with pytest.raises(wire.Miscounted, match="2 rows arrived"):
        copied(monkeypatch, Scripted([b"1\n", b"2\n"]), counted)


@pytest.mark.parametrize("messages", [[b"1\x0b", b"2\n"], [b"1\n", b"2\x0b"], [b"1\n2\n"], [b"1\n", b"2"]])
def test_a_message_that_is_not_one_line(monkeypatch: pytest.MonkeyPatch, messages: list[bytes]) -> None:
    with pytest.raises(psycopg.OperationalError, match="rows arrived damaged"):
        copied(monkeypatch, Scripted(messages), 2)


def test_what_came_before_an_error_comes_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    taken: list[bytes] = []
    with ours, theirs, pytest.raises(TimeoutError):
        copied(monkeypatch, Scripted([b"1\n", b"2\n"], ours.fileno()), None, patience=0.01, into=taken)
    assert taken == [b"1", b"2"]


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        copied(monkeypatch, Scripted([b"1\n"], ours.fileno()), 1, patience=0.01)
