"""The bound on stored bytes: who may store next, and what is freed for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

from etlcli.errors import CacheError

__all__ = ["CacheBudget", "Room"]

Free = Callable[[], Awaitable[None]]


class Room(Protocol):
    """Who may store how much."""

    def has_room(self, size: int) -> bool:
        """Whether an entry of ``size`` bytes will have room, now or once others are freed."""
        ...

    async def reserve(self, size: int) -> None:
        """Make room for an entry of ``size`` bytes, and count it as stored.

        Raises:
            CacheError: There is no room, and there will be none.
        """
        ...


class CacheBudget:
    """Keeps what a job stores under ``max_cached_bytes``, by freeing what was loaded, the oldest first, or by waiting.

    Args:
        limit: Bytes.
        loading: Whether a loader works at the same time; without one, waiting would never end.
    """

    def __init__(self, limit: int, *, loading: bool) -> None:
        self._limit = limit
        self._loading = loading
        self._stored = 0
        self._superseded: deque[tuple[int, Free]] = deque()
        self._loaded: deque[tuple[int, Free]] = deque()
        self._changed = asyncio.Condition()

    @property
    def stored_bytes(self) -> int:
        """What is stored just now, as far as is known here."""
        return self._stored

    async def hold(self, size: int, free: Free) -> None:
        """Take account of an entry of a superseded run, which is freed before anything else."""
        async with self._changed:
            self._stored += size
            self._superseded.append((size, free))
            self._changed.notify_all()

    async def take_over(self, size: int) -> None:
        """Take account of an entry of this run that an earlier attempt stored."""
        async with self._changed:
            self._stored += size

    async def release(self, size: int, free: Free) -> None:
        """Offer an entry of this run, which was loaded, to be freed once room is needed."""
        async with self._changed:
            self._loaded.append((size, free))
            self._changed.notify_all()

    def has_room(self, size: int) -> bool:  # noqa: ARG002  ``reserve`` waits, or says that it makes no sense
        """There will be."""
        return True

    async def reserve(self, size: int) -> None:
        """Make room for an entry of ``size`` bytes, and count it as stored.

        Raises:
            CacheError: There is no room, and nobody loads who could make some.
        """
        async with self._changed:
            while self._stored and self._stored + size > self._limit:
                freeable = self._superseded or self._loaded
                if freeable:
                    freed, free = freeable[0]
                    # Only what is gone stops to count; what could not be removed stays the next to go. Nobody else
                    # takes it meanwhile, since the lock is held.
                    await free()
                    freeable.popleft()
                    self._stored -= freed
                elif self._loading:
                    await self._changed.wait()
                else:
                    raise CacheError(
                        f"the extraction does not fit into the cache: {self._stored:,} bytes are stored, and"
                        f" max_cached_bytes is {self._limit:,}",
                        hint="momento-etl run loads while it extracts, and so needs no room for the whole table. Or"
                        " raise [cache] max_cached_bytes, if the account has room.",
                    )
            self._stored += size
