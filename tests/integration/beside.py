"""Servers of asyncio's in a thread of their own, for commands in processes of theirs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

__all__ = ["beside"]

T = TypeVar("T")

_JOIN_SECONDS = 30.0


@contextmanager
def beside(serving: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Serve while the block runs.

    Args:
        serving: Makes what serves; entered and left in the thread.
    """
    running: list[tuple[T, Callable[[], object]]] = []
    ready = threading.Event()

    async def stay() -> None:
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        try:
            async with serving() as served:
                running.append((served, lambda: loop.call_soon_threadsafe(over.set)))
                ready.set()
                await over.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(stay()), daemon=True)
    thread.start()
    assert ready.wait(_JOIN_SECONDS), "it does not start"
    served, end = running[0]
    try:
        yield served
    finally:
        end()
        thread.join(_JOIN_SECONDS)
        assert not thread.is_alive(), "it does not end"
