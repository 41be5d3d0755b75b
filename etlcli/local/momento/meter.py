"""What was used, in Momento's unit.

A metered operation (https://docs.momentohq.com/cache/manage/operations): each item or element that is sent or received
costs 1 for every started 1,024 bytes of its value. Where a call moves none (a Miss, a delete, a question about keys),
what the caller supplied counts as one item. A conditional set costs twice. No call that is answered costs less than 1.
The read concern's factor is not applied: the Python SDK has no such setting.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

__all__ = ["CHUNK_BYTES", "Meter", "Usage", "operations"]

CHUNK_BYTES = 1024
"""What one metered operation pays for."""


def operations(size: int) -> int:
    """Reckons what one item or element costs.

    Args:
        size: Its bytes.

    Returns:
        Metered operations, at least 1.
    """
    return (size + CHUNK_BYTES - 1) // CHUNK_BYTES or 1


@dataclass(slots=True)
class Usage:
    """Counts of one RPC, or of all.

    Attributes:
        calls: Calls that arrived, whatever became of them.
        operations: Metered operations; none for throttled calls and injected errors.
        throttled: Calls that a rate limit refused.
    """

    calls: int = 0
    operations: int = 0
    throttled: int = 0


@dataclass(slots=True)
class Meter:
    """What was used since the start or the last reset.

    Attributes:
        by_rpc: Usage of each RPC, by its name on the wire (`Get`, `DictionarySet`, `CreateCache`). Reading a name that
            was not called yet gives zeros.
    """

    by_rpc: defaultdict[str, Usage] = field(default_factory=lambda: defaultdict(Usage))

    @property
    def total(self) -> Usage:
        """The sum over all RPCs."""
        rows = self.by_rpc.values()
        return Usage(
            calls=sum(row.calls for row in rows),
            operations=sum(row.operations for row in rows),
            throttled=sum(row.throttled for row in rows),
        )

    @property
    def calls(self) -> int:
        """Calls that arrived."""
        return self.total.calls

    @property
    def operations(self) -> int:
        """Metered operations."""
        return self.total.operations

    def reset(self) -> None:
        """Starts from zero."""
        self.by_rpc.clear()
