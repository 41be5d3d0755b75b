"""The packed layout: consecutive encoded rows, compressed, as one cache entry.

An entry, byte by byte (integers big-endian):

    0   4  magic, ``METL``
    4   1  format version, 1
    5   1  compression, 1 = zstd
    6   4  rows
    10  4  bytes of the encoded rows
    14  8  digest of the encoded rows (blake2b)
    22  n  the encoded rows, compressed: each an item as DynamoDB JSON, which holds no line break, and a line break
    -8  8  digest of all before it (blake2b)

The two digests tell damage (the last one) from rows that differ from those first extracted (the inner one).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import zstandard

from etlcli.errors import ChunkError

__all__ = ["MAX_ENCODED_BYTES", "TARGET_STORED_BYTES", "Packed", "Packer", "unpack"]

TARGET_STORED_BYTES = 256 * 1024
"""What a chunk should take in the cache: few calls, quick retries, far below the limit of an item."""

MAX_ENCODED_BYTES = 3 * 1024 * 1024
"""The bound on a chunk's encoded rows, however well they compress: what a loader holds of one chunk. Only a single row
can be over it."""

_MAGIC = b"METL"
_VERSION = 1
_ZSTD = 1
_HEADER = struct.Struct(">4sBBII8s")
_DIGEST_BYTES = 8

# zstd's default. Higher ones save a few percent of the metered operations for several times the processor time.
_LEVEL = 3


class Packed(NamedTuple):
    """A chunk ready to be stored."""

    entry: bytes
    rows: int
    bytes_encoded: int
    stored_digest: str
    rows_digest: str

    @property
    def bytes_stored(self) -> int:
        """Bytes of its cache entry."""
        return len(self.entry)


class Packer:
    """Packs one chunk as its rows come. Deterministic: the same rows in the same batches make the same entry."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=False).compressobj()
        self._digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        self._parts: list[bytes] = []
        self._stored = 0
        self._encoded = 0
        self._rows = 0

    @property
    def full(self) -> bool:
        """Whether the chunk has reached its target, in compressed or in encoded bytes."""
        return self._stored >= TARGET_STORED_BYTES or self._encoded >= MAX_ENCODED_BYTES

    def has_room(self, size: int) -> bool:
        """Whether rows of so many encoded bytes, with line breaks, fit under the bound; into an empty chunk all do."""
        return not self._encoded or self._encoded + size <= MAX_ENCODED_BYTES

    def add(self, items: Sequence[bytes]) -> None:
        """Append encoded rows."""
        if not items:
            return
        lines = b"\n".join(items) + b"\n"
        self._digest.update(lines)
        self._encoded += len(lines)
        self._rows += len(items)
        part = self._compressor.compress(lines)
        if part:
            self._parts.append(part)
            self._stored += len(part)

    def finish(self) -> Packed:
        """Close the chunk; the packer is spent."""
        self._parts.append(self._compressor.flush())
        rows_digest = self._digest.digest()
        header = _HEADER.pack(_MAGIC, _VERSION, _ZSTD, self._rows, self._encoded, rows_digest)
        body = b"".join([header, *self._parts])
        stored_digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
        return Packed(body + stored_digest, self._rows, self._encoded, stored_digest.hex(), rows_digest.hex())


def unpack(entry: bytes, what: str) -> list[bytes]:
    """Open an entry into its encoded rows, each an item as DynamoDB JSON.

    Args:
        entry: The cache entry.
        what: The chunk's name, for errors.

    Raises:
        ChunkError: It is damaged, or of a version that this program does not know.
    """
    if len(entry) < _HEADER.size + _DIGEST_BYTES or entry[:4] != _MAGIC:
        raise ChunkError(f"{what} is no chunk of momento-etl, or is damaged", hint=_AGAIN)
    whole = memoryview(entry)  # of which no part is copied
    body, stored_digest = whole[:-_DIGEST_BYTES], entry[-_DIGEST_BYTES:]
    if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != stored_digest:
        raise ChunkError(f"{what} is damaged: its checksum does not match", hint=_AGAIN)
    _, version, compression, rows, encoded_bytes, rows_digest = _HEADER.unpack_from(body)
    if version != _VERSION or compression != _ZSTD:
        raise ChunkError(
            f"{what} is of format {version}.{compression}, which this program does not know",
            hint="Load it with the version of momento-etl that extracted it, or a newer one.",
        )
    try:
        # No room for anything would mean to zstd: as much as you like.
        lines = zstandard.ZstdDecompressor().decompress(body[_HEADER.size :], max_output_size=max(1, encoded_bytes))
    except zstandard.ZstdError:
        # Whole, so whoever wrote it did not write what its header says.
        raise ChunkError(f"{what} is damaged: it cannot be decompressed", hint=_AGAIN) from None
    if (
        len(lines) != encoded_bytes
        or hashlib.blake2b(lines, digest_size=_DIGEST_BYTES).digest() != rows_digest
        or lines.count(b"\n") != rows
    ):
        raise ChunkError(f"{what} is damaged: its rows do not match their checksum", hint=_AGAIN)
    items = lines.split(b"\n")
    items.pop()  # what follows the last line break: nothing
    return items


_AGAIN = "Run momento-etl run (or extract) again: it reads the rows anew."
