"""The room that entries take, and when they leave it.

One space holds the entries of all caches, since the limit on stored bytes is one for all of them. It knows keys, sizes
and times, not what a value means.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from etlcli.local.momento.clock import Clock

__all__ = ["Entries", "Entry", "Space", "Value"]

Value: TypeAlias = bytes | dict[bytes, bytes]
"""A scalar or a dictionary. Sets, lists and sorted sets would be further types here."""

_SPARE = 1024  # outdated lines the expiry order may have before it is tidied


@dataclass(slots=True)
class Entry:
    """What one key holds.

    Attributes:
        value: The item.
        size: Bytes of the key and of all that the item holds.
        expires_at: The clock's seconds from which it is gone.
        line: Its valid line in the expiry order; earlier lines are outdated.
    """

    value: Value
    size: int
    expires_at: float
    line: int


Entries: TypeAlias = dict[bytes, Entry]
"""One cache's entries. They change through `Space` only."""


class Space:
    """Keeps the bytes in use, and the order in which entries expire.

    An expired entry goes when it is asked for, when room is needed, or at the next `sweep`.

    Args:
        clock: The time.
        max_bytes: What may be stored; None for no limit. Over it, the entries that would expire soonest go first.
    """

    def __init__(self, clock: Clock, max_bytes: int | None = None) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._order: list[tuple[float, int, Entries, bytes]] = []
        self._next_line = 0
        self._count = 0
        self.stored_bytes = 0
        self.evicted = 0

    def live(self, entries: Entries, key: bytes) -> Entry | None:
        """Finds an entry that has not expired.

        Args:
            entries: The cache's entries.
            key: Its key.

        Returns:
            The entry, or None.
        """
        entry = entries.get(key)
        if entry is None or entry.expires_at > self._clock():
            return entry
        self.drop(entries, key)
        return None

    def put(self, entries: Entries, key: bytes, value: Value, size: int, ttl: float) -> None:
        """Stores an entry in place of what the key held.

        Args:
            entries: The cache's entries.
            key: Its key.
            value: The item.
            size: Bytes of the key and of all that the item holds.
            ttl: Seconds until it expires; 0 leaves nothing.
        """
        self.drop(entries, key)
        if ttl <= 0:
            return
        entry = entries[key] = Entry(value, size, 0.0, 0)
        self._count += 1
        self.stored_bytes += size
        self.renew(entries, key, entry, ttl)
        self._make_room()

    def renew(self, entries: Entries, key: bytes, entry: Entry, ttl: float) -> None:
        """Sets a live entry's time to live.

        Args:
            entries: The cache's entries.
            key: Its key.
            entry: The entry.
            ttl: Seconds until it expires; 0 drops it.
        """
        if ttl <= 0:
            self.drop(entries, key)
            return
        self._next_line += 1
        entry.line = self._next_line
        entry.expires_at = self._clock() + ttl
        heapq.heappush(self._order, (entry.expires_at, entry.line, entries, key))
        if len(self._order) > 2 * self._count + _SPARE:
            self._tidy()

    def resize(self, entry: Entry, size: int) -> None:
        """Takes note that a live entry's item has changed in place.

        Args:
            entry: The entry.
            size: Its bytes now.
        """
        self.stored_bytes += size - entry.size
        entry.size = size
        self._make_room()

    def drop(self, entries: Entries, key: bytes) -> None:
        """Removes an entry, if it is there.

        Args:
            entries: The cache's entries.
            key: Its key.
        """
        entry = entries.pop(key, None)
        if entry is not None:
            self._count -= 1
            self.stored_bytes -= entry.size

    def clear(self, entries: Entries) -> None:
        """Removes all entries of a cache.

        Args:
            entries: The cache's entries.
        """
        self._count -= len(entries)
        self.stored_bytes -= sum(entry.size for entry in entries.values())
        entries.clear()
        self._tidy()

    def sweep(self) -> int:
        """Removes what has expired.

        Returns:
            How many entries went.
        """
        now, before = self._clock(), self._count
        while self._order and self._order[0][0] <= now:
            self._pop()
        return before - self._count

    def _make_room(self) -> None:
        if self._max_bytes is None or self.stored_bytes <= self._max_bytes:
            return
        self.sweep()
        while self.stored_bytes > self._max_bytes and self._order:
            self.evicted += self._pop()

    def _pop(self) -> bool:
        """Takes the first line, and its entry if the line is the entry's own."""
        _, line, entries, key = heapq.heappop(self._order)
        entry = entries.get(key)
        if entry is None or entry.line != line:
            return False
        self.drop(entries, key)
        return True

    def _tidy(self) -> None:
        """Drops outdated lines, so that overwriting one key for ever takes no room."""
        self._order = [row for row in self._order if (entry := row[2].get(row[3])) is not None and entry.line == row[1]]
        heapq.heapify(self._order)
