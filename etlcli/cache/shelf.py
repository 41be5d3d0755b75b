"""Entries of any size, in a cache whose items have a limit that nobody tells.

An entry that is refused for its size is cut in halves, and these again, until they are taken; the size that was taken
is remembered, so that no later entry meets the same refusal. Its parts are stored under ``KEY/0``, ``KEY/1`` and on.

Who reads a chunk knows from the ledger in how many parts it is stored. Who reads a document does not: in its place
there is an index. The parts lie under a name that follows from what they hold, and the index is written after them, so
that a document that is written again is found as it was or as it is, and never as a mixture.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TypeVar

from etlcli.cache import documents
from etlcli.cache.documents import Index
from etlcli.errors import TooLarge, leading
from etlcli.ports import Cache

__all__ = ["SMALLEST_PART_BYTES", "Shelf", "each"]

T = TypeVar("T")

SMALLEST_PART_BYTES = 1024
"""What an account must take: parts of this size are not cut any more. It is what one metered operation pays for."""

# Calls for one entry at once.
_CALLS_IN_FLIGHT = 16


class Shelf:
    """Stores and fetches entries, whole or in parts.

    Args:
        cache: Where they are.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._largest: int | None = None  # bytes that are not refused, as far as is known; None before any refusal

    async def store(self, key: str, entry: bytes, ttl_seconds: float) -> int:
        """Store an entry.

        Returns:
            In how many parts; 1 for a whole one, under the key itself.

        Raises:
            TooLarge: Not even a part of ``SMALLEST_PART_BYTES`` is taken.
        """
        return await self._store(lambda _parts: key, entry, ttl_seconds)

    async def fetch(self, key: str, parts: int) -> bytes | None:
        """Fetch an entry that is stored in so many parts; None where it is not there, or a part of it is not."""
        if parts == 1:
            return await self._cache.get(key)
        found = await each(partial(self._cache.get, name) for name in _names(key, parts))
        pieces = [piece for piece in found if piece is not None]
        return b"".join(pieces) if len(pieces) == len(found) else None

    async def remove(self, key: str, parts: int) -> None:
        """Remove an entry; harmless where it is gone."""
        await each(partial(self._cache.delete, name) for name in _names(key, parts))

    async def store_document(self, key: str, document: bytes, ttl_seconds: float) -> None:
        """Store a document with its checksum, in place of the one before.

        Raises:
            TooLarge: As in ``store``.
        """
        entry = documents.sealed(document, key)
        below = documents.checksum_of(entry)
        parts = await self._store(lambda parts: key if parts == 1 else f"{key}/{below}-{parts}", entry, ttl_seconds)
        if parts > 1:
            index = documents.dump_index(Index(parts, f"{below}-{parts}"))
            await self._cache.set(key, documents.sealed(index, key), ttl_seconds)

    async def fetch_document(self, key: str) -> bytes | None:
        """Fetch a document, checked; None where it is not there, or a part of it is not.

        Raises:
            UnreadableError: It is damaged, was stored under another key, or is of a newer version.
        """
        entry = await self._cache.get(key)
        if entry is None:
            return None
        document = documents.unsealed(entry, key)
        index = documents.load_index(document, key)
        if index is None:
            return document
        entry = await self.fetch(f"{key}/{index.below}", index.parts)
        return None if entry is None else documents.unsealed(entry, key)

    async def _store(self, place: Callable[[int], str], entry: bytes, ttl_seconds: float) -> int:
        """Store an entry in as few parts as are taken, at the place that their number leads to."""
        while True:
            pieces = self._cut(entry)
            try:
                # One after the other: the first one that is refused spares the others the way.
                for name, piece in zip(_names(place(len(pieces)), len(pieces)), pieces, strict=True):
                    await self._cache.set(name, piece, ttl_seconds)
            except TooLarge as error:
                self._note_refused(len(pieces[0]), error)
            else:
                return len(pieces)

    def _cut(self, entry: bytes) -> list[bytes]:
        if self._largest is None or len(entry) <= self._largest:
            return [entry]
        size = -(-len(entry) // -(-len(entry) // self._largest))  # all alike, rather than a small one at the end
        return [entry[start : start + size] for start in range(0, len(entry), size)]

    def _note_refused(self, size: int, error: TooLarge) -> None:
        """Remember that so many bytes are too many, and try half of it.

        Raises:
            TooLarge: That would be less than any account must take.
        """
        if size <= SMALLEST_PART_BYTES:
            raise TooLarge(
                error.message,
                hint=f"The account refuses {size:,} bytes as too large already: ask Momento to raise its limit.",
            ) from error
        half = -(-size // 2)
        # Several may have been refused at once; who tried less than this one knows better.
        self._largest = half if self._largest is None else min(self._largest, half)


def _names(key: str, parts: int) -> list[str]:
    return [key] if parts == 1 else [f"{key}/{part}" for part in range(parts)]


async def each(calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """Make calls, some at once; answer in their order."""
    gate = asyncio.Semaphore(_CALLS_IN_FLIGHT)

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await call()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(call)) for call in calls]
    except BaseExceptionGroup as errors:
        raise leading(errors) from None
    return [task.result() for task in tasks]
