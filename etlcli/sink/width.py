"""How many requests are in flight at once: as few as keep this program busy, within a bound."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["FIRST", "Width"]

FIRST = 64
"""Requests at once to begin with, and after trouble: where an answer takes 5 ms they keep a processor busy."""

# Above this share of the time the thread has enough to do: more at once would only wait for it, and cost it more.
_BUSY_SHARE = 0.85

# As many answers as there are requests at once come in about the time that one takes. One that takes longer than this
# is not far away: it waits in a line that is full already, and would sooner miss its deadline the more are in it.
_FAR_SECONDS = 1.0


class Width:
    """Grows while requests wait their turn and the thread has nothing to do but wait for answers.

    So it does where DynamoDB is far away: 64 requests of 25 rows with answers after 50 ms are 32,000 rows/s at most.

    Args:
        most: The bound: at most so many requests at once.
        clock: Seconds that never go back.
        busy: Seconds in which this thread was at work.

    Attributes:
        requests: So many at once, now.
    """

    def __init__(
        self,
        most: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.thread_time,
    ) -> None:
        self._most = most
        self._clock = clock
        self._busy = busy
        self.requests = min(FIRST, most)
        self._answers = 0
        self._began = self._busy_before = 0.0

    def note_answer(self, *, some_wait: bool) -> None:
        """Note that all of a request was taken, and whether others wait for their turn just now."""
        if self.requests == self._most:
            return
        if not some_wait:
            self._answers = 0  # more at once is nothing that anybody waits for
            return
        self._answers += 1
        if self._answers == 1:
            self._began, self._busy_before = self._clock(), self._busy()
        elif self._answers > self.requests:
            seconds, busy_seconds = self._clock() - self._began, self._busy() - self._busy_before
            if busy_seconds < _BUSY_SHARE * seconds and seconds < _FAR_SECONDS:
                self.requests = min(self._most, self.requests * 3 // 2)
            self._answers = 0

    def note_trouble(self) -> None:
        """Note a throttle, or a request without a good answer: however many there were, they were too many."""
        self.requests = min(FIRST, self._most)
        self._answers = 0
