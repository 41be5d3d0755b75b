"""How fast something may be used up."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etlcli.local.momento.clock import Clock

__all__ = ["TokenBucket"]


class TokenBucket:
    """A balance that fills at a steady rate, up to one second's worth.

    A call is let in while the balance holds at least 1, and its whole cost is taken, so the balance can go below zero:
    a single call may cost more than a second's worth (a chunk of 256 KB costs 256 operations of 100 a second), and must
    neither be shut out for ever nor starve behind small ones. In the long run no more is used than the rate gives.

    Args:
        rate: What comes in, a second; at least 1. None lets everything through.
        clock: The time.
    """

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._balance = rate or 0.0
        self._since = clock()

    def open(self) -> bool:
        """Tells whether a call is let in now."""
        rate = self._rate
        if rate is None:
            return True
        now = self._clock()
        self._balance = min(rate, self._balance + (now - self._since) * rate)
        self._since = now
        return self._balance >= 1

    def take(self, cost: float) -> None:
        """Takes a call's cost.

        Args:
            cost: In the rate's unit.
        """
        if self._rate is not None:
            self._balance -= cost
