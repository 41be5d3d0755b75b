"""Which rows a sample takes: by chance, and yet, under the same seed, the same ones again. Pure."""

from __future__ import annotations

import hashlib
import heapq
import itertools
import random
from fractions import Fraction

from etlcli.errors import UsageError
from etlcli.model import Share

__all__ = ["Chance", "ChosenPlaces", "Lottery"]

# What a lottery may hold, and about what an entry of it takes besides the item.
_MOST_BYTES = 64 * 1024 * 1024
_ENTRY_BYTES = 200


class Chance:
    """Takes some percent of the rows, by their keys: the same ones of the cache and of the source.

    Args:
        percentage: How many of a hundred rows; may have decimals.
        seed: Decides which.
    """

    def __init__(self, percentage: Share, seed: int) -> None:
        self._seed = seed
        self._below = int(Fraction(percentage.figure) / 100 * 2**64)

    def takes(self, key: bytes) -> bool:
        """Whether the row with this key is taken."""
        return _lot(key, self._seed) < self._below


class ChosenPlaces:
    """So many of so many rows, chosen by their numbers, each with the same chance.

    Args:
        rows: How many there are.
        count: How many of them are taken.
        seed: Decides which.
    """

    def __init__(self, rows: int, count: int, seed: int) -> None:
        self._places = sorted(random.Random(seed).sample(range(rows), min(count, rows)))
        self._next = 0

    def within(self, start: int, end: int) -> list[int]:
        """The chosen ones of a stretch, counted from its start; stretches are asked for in order."""
        first = self._next
        while self._next < len(self._places) and self._places[self._next] < end:
            self._next += 1
        return [place - start for place in self._places[first : self._next]]


class Lottery:
    """Takes so many rows of a number that nobody knows before the last one has been seen: those with the smallest lots.

    Args:
        count: How many are taken.
        seed: Decides which.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._numbers = itertools.count()
        self._kept: list[tuple[int, int, bytes]] = []  # a heap, the largest lot first
        self._bytes = 0

    def enter(self, key: bytes, item: bytes) -> None:
        """Let a row take part.

        Raises:
            UsageError: The rows that are taken would fill the memory.
        """
        entry = (-_lot(key, self._seed), next(self._numbers), item)
        if len(self._kept) < self._count:
            heapq.heappush(self._kept, entry)
            self._bytes += len(item) + _ENTRY_BYTES
        elif entry > self._kept[0]:
            self._bytes += len(item) - len(heapq.heapreplace(self._kept, entry)[2])
        if self._bytes > _MOST_BYTES:
            raise UsageError(
                f"a sample of {self._count:,} of the source's rows is too large to be held until all have been read",
                hint="Ask for fewer, or for a percentage, of which none is held: --sample 1%",
            )

    def taken(self) -> list[bytes]:
        """The rows that were taken, in the order in which they came."""
        return [item for _, _, item in sorted(self._kept, key=lambda entry: entry[1])]


def _lot(key: bytes, seed: int) -> int:
    """Draw a row's lot, of 64 bits."""
    return int.from_bytes(hashlib.blake2b(b"%d/%b" % (seed, key), digest_size=8).digest())
