"""The rows layout: one dictionary a row, a field an attribute, its value as text, so that the web console shows it.

    JOB/RUN/chunk/NUMBER/ROW     movie_id "42", title "The Abyss", genres [{"S":"Action"}], ...

A field is what stands in the attribute: a string's or a number's characters, ``true`` or ``false``, bytes in base64;
what has parts (L, M and the sets) is DynamoDB JSON. The manifest says what type each attribute has; an attribute of
one row that has another one (a string in place of a number, by option) is named in the row's extra field ``~types``.
So an item comes back exactly as it was; the chunk's digest proves it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from etlcli.cache.packed import MAX_ENCODED_BYTES, TARGET_STORED_BYTES
from etlcli.errors import CacheError, ChunkError, TooLarge
from etlcli.model import ChunkRecord

__all__ = [
    "MAX_ELEMENT_BYTES",
    "PACKED_HINT",
    "TARGET_ROWS",
    "TYPES_FIELD",
    "Row",
    "RowsChunk",
    "RowsPacker",
    "canonical",
    "restore",
]

MAX_ELEMENT_BYTES = 128 * 1024
"""What one element of a collection may take (Momento's limits page: 128 KB)."""

TYPES_FIELD = "~types"
"""The field that names the types of attributes which are not what the manifest says."""

TARGET_ROWS = 500
"""Rows a chunk. Every row is a call of its own; a chunk is what is loaded, checked and freed as one."""

_DIGEST_BYTES = 8
_TEXT = {"S", "N", "B"}
PACKED_HINT = 'Use the packed layout, which has no such limits: layout = "packed" below [cache].'

Row = Mapping[str, bytes]
"""A row's dictionary: field to value."""


class RowsChunk(NamedTuple):
    """A chunk ready to be stored.

    Attributes:
        dictionaries: Its rows.
        bytes_encoded: Bytes of its encoded rows.
        bytes_stored: Bytes of all fields and values.
        stored_digest: Hex digest of all fields and values, in order.
        rows_digest: Hex digest of the encoded rows.
    """

    dictionaries: tuple[Row, ...]
    bytes_encoded: int
    bytes_stored: int
    stored_digest: str
    rows_digest: str

    @property
    def rows(self) -> int:
        """How many rows it holds."""
        return len(self.dictionaries)


class RowsPacker:
    """Gathers one chunk as its rows come.

    Args:
        kinds: The type that each attribute has as a rule, by its name.
    """

    def __init__(self, kinds: Mapping[str, str]) -> None:
        self._kinds = kinds
        self._items: list[bytes] = []
        self._encoded = 0

    @property
    def full(self) -> bool:
        """Whether the chunk has reached its target."""
        return len(self._items) >= TARGET_ROWS or self._encoded >= TARGET_STORED_BYTES

    def has_room(self, size: int) -> bool:
        """Whether rows of so many encoded bytes fit under the bound; into an empty chunk all do."""
        return not self._encoded or self._encoded + size <= MAX_ENCODED_BYTES

    def add(self, items: Sequence[bytes]) -> None:
        """Append encoded rows."""
        self._items.extend(items)
        self._encoded += sum(map(len, items)) + len(items)

    def finish(self) -> RowsChunk:
        """Close the chunk; the packer is spent.

        Raises:
            TooLarge: A value is over the limit of an element.
        """
        rows = tuple(fields_of(item, self._kinds) for item in self._items)
        encoded = [canonical(item) for item in self._items]
        return RowsChunk(
            dictionaries=rows,
            bytes_encoded=sum(len(line) + 1 for line in encoded),
            bytes_stored=sum(len(name.encode()) + len(value) for row in rows for name, value in row.items()),
            stored_digest=_stored_digest(rows),
            rows_digest=_rows_digest(encoded),
        )


def fields_of(item: bytes, kinds: Mapping[str, str]) -> Row:
    """Write an item as a dictionary.

    Raises:
        TooLarge: A value is over the limit of an element.
    """
    fields: dict[str, bytes] = {}
    other: dict[str, str] = {}
    for name, value in orjson.loads(item).items():
        ((kind, content),) = value.items()
        if name == TYPES_FIELD:
            raise CacheError(f"the rows layout has its own use for an attribute named {name}", hint=PACKED_HINT)
        fields[name] = _written(kind, content)
        if len(fields[name]) > MAX_ELEMENT_BYTES:
            raise TooLarge(
                f"the value of {name} has {len(fields[name]):,} bytes, and a field in the cache can have"
                f" {MAX_ELEMENT_BYTES:,}",
                hint=PACKED_HINT,
            )
        if kinds.get(name) != kind:
            other[name] = kind
    if other:
        fields[TYPES_FIELD] = orjson.dumps(other)
    return fields


def item_of(fields: Row, kinds: Mapping[str, str]) -> bytes:
    """Read an item from its dictionary, in canonical form.

    Raises:
        KeyError, ValueError: It is not a dictionary that ``fields_of`` wrote.
    """
    types = {**kinds, **orjson.loads(fields.get(TYPES_FIELD, b"{}"))}
    item = {name: {types[name]: _read(types[name], value)} for name, value in fields.items() if name != TYPES_FIELD}
    return orjson.dumps(item, option=orjson.OPT_SORT_KEYS)


def canonical(item: bytes) -> bytes:
    """Write an item with its names in order, since a dictionary keeps none. Numbers are strings here: exact."""
    return orjson.dumps(orjson.loads(item), option=orjson.OPT_SORT_KEYS)


def restore(rows: Sequence[Row], kinds: Mapping[str, str], record: ChunkRecord, what: str) -> list[bytes]:
    """Turn a chunk's dictionaries back into items, and check them against what the ledger says.

    Raises:
        ChunkError: They are not what was stored; ``what`` names the chunk.
    """
    try:
        items = [item_of(row, kinds) for row in rows]
    except (KeyError, ValueError, AttributeError, TypeError):
        items = []
    if _stored_digest(rows) != record.stored_digest or _rows_digest(items) != record.rows_digest:
        raise ChunkError(
            f"{what} is damaged: its rows do not match their checksum",
            hint="Run momento-etl run (or extract) again: it reads the rows anew.",
        )
    return items


def _written(kind: str, content: Any) -> bytes:
    if kind in _TEXT:
        return str(content).encode()
    if kind == "BOOL":
        return b"true" if content else b"false"
    if kind == "NULL":
        return b"NULL"
    return orjson.dumps(content)


def _read(kind: str, value: bytes) -> Any:
    if kind in _TEXT:
        return value.decode()
    if kind == "BOOL":
        return value == b"true"
    if kind == "NULL":
        return True
    return orjson.loads(value)


def _rows_digest(encoded: Sequence[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for line in encoded:
        digest.update(line)
        digest.update(b"\n")
    return digest.hexdigest()


def _stored_digest(rows: Sequence[Row]) -> str:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for row in rows:
        for name, value in sorted(row.items()):
            digest.update(b"%d:%b%d:%b" % (len(name.encode()), name.encode(), len(value), value))
        digest.update(b"\n")
    return digest.hexdigest()
