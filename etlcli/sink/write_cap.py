"""The user's own bound on writes in a second (``--max-writes``), over all requests in flight."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["BURST_SECONDS", "WriteCap"]

BURST_SECONDS = 0.25
"""What is not used is saved for so long: no second has more than this share above the bound, unless one item alone
costs more."""


class WriteCap:
    """A token bucket of write units: it fills steadily, and every request takes what it costs before it is sent.

    First come, first served. What costs more than the bucket holds goes when it is full, and those behind it wait until
    its whole cost has come in.

    Args:
        units_a_second: The bound: 1 or more.
        clock: Seconds that never go back.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        units_a_second: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._rate = units_a_second
        self._clock = clock
        self._sleep = sleep
        # The bucket as a time: at `_empty_at` it was, or will be, empty, with all that has been promised taken out.
        self._empty_at = clock() - BURST_SECONDS

    @property
    def most(self) -> int:
        """The units that a request should have at most, so that writes come evenly."""
        return max(1, int(self._rate * BURST_SECONDS))

    async def take(self, units: float) -> float:
        """Wait until a request of so many units may be sent; answer for how many seconds."""
        now = self._clock()
        seconds = units / self._rate
        full_enough_at = max(self._empty_at, now - BURST_SECONDS) + min(seconds, BURST_SECONDS)
        self.owe(units)
        wait = max(0.0, full_enough_at - now)
        if wait:
            await self._sleep(wait)
        return wait

    def owe(self, units: float) -> None:
        """Take what a request turned out to cost above what was taken for it: those to come wait for it."""
        self._empty_at = max(self._empty_at, self._clock() - BURST_SECONDS) + units / self._rate
