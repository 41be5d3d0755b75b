"""What time it is, in seconds from an arbitrary start."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

__all__ = ["Clock", "ManualClock"]

Clock: TypeAlias = Callable[[], float]
"""Seconds that never go back; `time.monotonic` is one."""


class ManualClock:
    """A clock that stands still until it is moved, so that a test need not wait for a TTL or a rate limit.

    Args:
        now: The time it starts at, in seconds.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def __call__(self) -> float:
        """The time it was moved to."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Moves the clock on.

        Args:
            seconds: How far; not negative.
        """
        if seconds < 0:
            msg = f"a clock does not go back ({seconds} s)"
            raise ValueError(msg)
        self._now += seconds
