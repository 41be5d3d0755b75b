"""What Momento counts of a call: the one rule that the adapter meters by, and ``plan`` predicts by."""

from __future__ import annotations

__all__ = ["METERED_BYTES", "metered"]

METERED_BYTES = 1024
"""Every started so many bytes of an element, sent or received, cost one metered operation (Momento's limits page)."""


def metered(size: int) -> int:
    """Reckon what sending or receiving an element of ``size`` bytes costs, in metered operations."""
    return max(1, -(-size // METERED_BYTES))
