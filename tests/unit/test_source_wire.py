"""Taking COPY's rows many at once, from a server that is always ahead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any, cast

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
        async with aclosing(wire.copy_out(cast("Any", Connection()), b"copy")) as batches:
            async for batch in batches:
                assert batch == [b"row"] * 1000
                turns.append("batch")
                if turns.count("batch") == 20:
                    break
        task.cancel()

    asyncio.run(main())
    assert turns.count("other") >= 19
