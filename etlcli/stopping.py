"""Ending early, as asked: nothing new is begun, what is in flight is finished and recorded.

    SIGINT, SIGTERM, --timeout ─▶ Stop.request ─▶ no more rows are read, no more chunks are taken
                                              ─▶ chunks in flight are stored, loaded and noted ─▶ Stopped

Whoever asks gives it some seconds and then cancels: what a request does that never ends, nobody waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["Stop", "Stopped"]

T = TypeVar("T")


class Stopped(BaseException):
    """The work has ended early, as asked. No ``Exception``: nothing on the way may take it for a failure."""


class Stop:
    """Whether the work is to end early.

    Attributes:
        requested: Whether it is.
        heeded: Whether the work just now ends by itself soon after it is asked to; else it has to be cancelled, which
            loses nothing while nothing is in flight.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self.heeded = False

    @property
    def requested(self) -> bool:
        """Whether the work is to end."""
        return self._asked.is_set()

    def request(self) -> None:
        """Ask the work to end."""
        self._asked.set()

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Say that the body ends by itself once it is asked to."""
        self.heeded = True
        try:
            yield
        finally:
            self.heeded = False

    def check(self) -> None:
        """End here, if asked to.

        Raises:
            Stopped: It was.
        """
        if self.requested:
            raise Stopped

    async def unless(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do what may be broken off: waiting, or reading.

        Returns:
            What came of it; None where the work was to end first. It is then cancelled, and has ended.
        """
        if self.requested:
            work.close()
            return None
        doing = asyncio.ensure_future(work)
        asked = asyncio.ensure_future(self._asked.wait())
        try:
            await asyncio.wait((doing, asked), return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if not doing.done():
                doing.cancel()
                await asyncio.wait((doing,))
        return None if doing.cancelled() else doing.result()
