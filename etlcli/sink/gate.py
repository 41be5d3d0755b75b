"""A bound on what is under way at once: so many requests, and so many bytes of them."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Gate"]


class Gate:
    """Lets requests in, first come, first served, while both bounds hold.

    The bytes are bounded besides the requests since bodies differ by a thousand times: without it, large ones would
    fill a small machine's memory, and on a slow line all of them would miss their deadline, again and again.

    Args:
        requests: At most so many at once.
        size: At most so many bytes at once; a single larger request goes alone.

    Attributes:
        requests: As given. A change counts from the next ``enter`` or ``leave`` on.
    """

    def __init__(self, requests: int, size: int) -> None:
        self.requests = requests
        self._size = size
        self._in_requests = 0
        self._in_size = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._waiting)

    async def enter(self, size: int) -> None:
        """Wait until a request of ``size`` bytes has room; every ``enter`` that returns is followed by a ``leave``."""
        if not self._waiting and self._fits(size):
            self._take(size)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave(size)  # it had its turn already, and was cancelled before it knew
            else:
                self._admit()  # those behind it may be smaller
            raise

    def leave(self, size: int) -> None:
        """Give the room of one request of ``size`` bytes back."""
        self._in_requests -= 1
        self._in_size -= size
        self._admit()

    def _fits(self, size: int) -> bool:
        return self._in_requests == 0 or (self._in_requests < self.requests and self._in_size + size <= self._size)

    def _take(self, size: int) -> None:
        self._in_requests += 1
        self._in_size += size

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.done():
                if not self._fits(size):
                    return
                self._take(size)
                turn.set_result(None)
            self._waiting.popleft()
