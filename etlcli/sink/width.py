"""How many requests are in flight at once: as many as keep a processor busy, however far away DynamoDB is."""

from __future__ import annotations

import math

__all__ = ["FIRST", "Width"]

FIRST = 64
"""Requests at once to begin with, and after trouble: where an answer takes 5 ms they keep a processor busy."""

# More answers in a second than a processor can make requests for: with so many on their way, none is waited for.
_ANSWERS_IN_A_SECOND = 4_000

# One that takes longer than this is not far away: it waits in a line that is full already, and would sooner miss its
# deadline the more are in it.
_FAR_SECONDS = 1.0


class Width:
    """Grows where DynamoDB is far away: 64 requests of 25 rows with answers after 50 ms are 32,000 rows/s at most.

    How far away it is, the quickest answer tells: others also wait for this program, while it has rows to encode.

    Args:
        most: The bound: at most so many requests at once.

    Attributes:
        requests: So many at once, now.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.requests = min(FIRST, most)
        self._answers = 0
        self._quickest = math.inf

    def note_answer(self, seconds: float, *, some_wait: bool) -> None:
        """Note that all of a request was taken, after how long, and whether others wait for their turn just now."""
        if not some_wait:
            self._begin()  # more at once is nothing that anybody waits for
            return
        self._answers += 1
        self._quickest = min(self._quickest, seconds)
        # As many answers as there are requests at once come in about the time that one takes.
        if self._answers >= self.requests:
            if self._quickest < _FAR_SECONDS:
                wanted = min(math.ceil(self._quickest * _ANSWERS_IN_A_SECOND), self.requests * 3 // 2, self._most)
                self.requests = max(self.requests, wanted)
            self._begin()

    def note_trouble(self) -> None:
        """Note a throttle, or a request without a good answer: however many there were, they were too many."""
        self.requests = min(FIRST, self._most)
        self._begin()

    def _begin(self) -> None:
        self._answers = 0
        self._quickest = math.inf
