"""Which keys were seen, in memory that does not grow: a Bloom filter. Pure.

A key that was added is always known. One that was not is taken for known by chance: beside 9 million keys one in a
hundred thousand, beside 50 million one in eight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

__all__ = ["SIZE_BYTES", "KnownKeys"]

SIZE_BYTES = 32 * 1024 * 1024
"""The memory that is taken, page by page as it is written to."""

_PROBES = 8


class KnownKeys:
    """A set of keys that forgets none, and may take a few others for its own.

    Args:
        size_bytes: The memory to take.
    """

    def __init__(self, size_bytes: int = SIZE_BYTES) -> None:
        self._bits = bytearray(size_bytes)

    def add(self, key: bytes) -> None:
        """Remember a key."""
        for place in self._places(key):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, key: bytes) -> bool:
        """Whether a key was added; where not, the answer is by chance yes, as the module says."""
        return all(self._bits[place >> 3] & 1 << (place & 7) for place in self._places(key))

    def _places(self, key: bytes) -> Iterator[int]:
        digest = hashlib.blake2b(key, digest_size=16).digest()
        first, step = int.from_bytes(digest[:8]), int.from_bytes(digest[8:]) | 1
        count = 8 * len(self._bits)
        return ((first + probe * step) % count for probe in range(_PROBES))
