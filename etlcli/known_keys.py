"""Which keys were seen, in memory that does not grow: a Bloom filter. Pure.

A key that was added is always known. One that was not is taken for known by chance: of a few million keys, about one in
a hundred thousand; the more keys there are for the bound, the more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

__all__ = ["MAX_BYTES", "KnownKeys"]

MAX_BYTES = 64 * 1024 * 1024
"""The most memory that is taken, enough for 16 million keys at full sharpness."""

_MIN_BYTES = 4 * 1024 * 1024
_BYTES_PER_KEY = 4
_PROBES = 8


class KnownKeys:
    """A set of keys that forgets none, and may take a few others for its own.

    Args:
        expected: About how many keys will be added; None where nobody knows.
        max_bytes: The most memory to take.
    """

    def __init__(self, expected: int | None, max_bytes: int = MAX_BYTES) -> None:
        wanted = max_bytes if expected is None else max(_MIN_BYTES, expected * _BYTES_PER_KEY)
        self._bits = bytearray(min(wanted, max_bytes))

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
