"""Whole rows: COPY lines become items, or rejects.

A batch is taken apart into columns, each attribute is written at once by its writer where its cells allow it, and the
attributes are zipped back into rows: most of the work is then done by a few calls per batch instead of some per value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from etlcli.encoding.copy_text import NULL, decode_fields, unescape
from etlcli.encoding.hook import ItemTransform, Transform
from etlcli.encoding.limits import MAX_HASH_KEY_BYTES, MAX_ITEM_BYTES, MAX_RANGE_KEY_BYTES, item_size
from etlcli.encoding.masks import REDACTED
from etlcli.encoding.naming import check_names
from etlcli.encoding.near import near_names
from etlcli.encoding.options import DEFAULT_OPTIONS, EncodingOptions
from etlcli.encoding.registry import Unrepresentable, shorten
from etlcli.encoding.specs import AttributeSpec, FromColumn, origin_of
from etlcli.encoding.text import quote
from etlcli.encoding.writers import Assembly, Batch, Surroundings, Writer, make_writer
from etlcli.errors import SourceError, UsageError
from etlcli.model import Column, Key, Reject

__all__ = ["Encoded", "RowEncoder"]

_NEVER_AN_ERROR: Final = frozenset(
    ("key-null", "key-empty", "key-too-long", "key-type", "item-too-large", "transform-error", "transform-value")
)
"""Rules of keys, items and transforms: no option turns them into an error, since none is about a value of a column."""


class Encoded(NamedTuple):
    """What a batch of rows became; items, rejects and dropped rows add up to its lines.

    Attributes:
        items: The items, in the order of their lines.
        rejects: The rows that DynamoDB cannot hold, in the order of their lines.
        dropped: How many rows the transform left out.
    """

    items: list[bytes]
    rejects: list[Reject]
    dropped: int


class RowEncoder:
    """Turns rows of one schema into items, ``{"movie_id":{"N":"1"},"title":{"S":"..."}}``, one line each.

    The key comes first in an item, then the other attributes in their order; so an item's bytes depend on nothing but
    its row. Build one per schema. It keeps small caches, so it belongs to one thread.

    Args:
        columns: The columns of the rows, in the order of their fields.
        attributes: What items consist of (``make_shape`` decides it). Or, for columns as they are, the attribute name
            that each column gets, and None for a column that is read but not part of the item.
        key: The destination key, by its attributes' names.
        source_key: The columns whose text ``key_text`` gives.
        options: How values become attributes.
        mask_key: The secret key of ``hmac`` masks.
        transform: The user's own function over finished items.
        reserved: The name of an attribute that somebody adds to the items later, so that no item may have it.
        reserved_bytes: How many bytes that attribute takes, which an item has to leave free.

    Raises:
        UsageError: Names, key or attributes do not fit the columns.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        attributes: Sequence[str | None] | Sequence[AttributeSpec],
        key: Key,
        *,
        source_key: Sequence[str] = (),
        options: EncodingOptions = DEFAULT_OPTIONS,
        mask_key: bytes | None = None,
        transform: Transform | None = None,
        reserved: str | None = None,
        reserved_bytes: int = 0,
    ) -> None:
        names = [column.name for column in columns]
        if unknown := options.as_text.difference(names):
            name = min(unknown)
            raise UsageError(f"there is no column {name}", hint=f"{near_names(name, names)}")
        self._names = names
        self._options = options
        order = tuple(_index(names, name) for name in source_key)
        self._max_bytes = MAX_ITEM_BYTES - reserved_bytes
        self._transform = ItemTransform(transform, key, reserved) if transform is not None else None
        specs = _specs(names, attributes)
        self._masked = {spec.column for spec in specs if isinstance(spec, FromColumn) and spec.mask is not None}
        self._source_key = () if self._masked.intersection(source_key) else order
        check_names(specs, {attribute.name for attribute in key.attributes})
        around = Surroundings({column.name: (i, column) for i, column in enumerate(columns)}, options, mask_key)
        self._writers = _writers(specs, key, around)

    def encode(self, lines: list[bytes]) -> tuple[list[bytes], list[Reject]]:
        """Encode a batch of rows where no transform drops any; else ``encode_batch`` tells how many it dropped."""
        assert self._transform is None, "a transform may drop rows: encode_batch counts them"
        encoded = self.encode_batch(lines)
        return encoded.items, encoded.rejects

    def encode_batch(self, lines: list[bytes]) -> Encoded:
        """Encode a batch of rows.

        Args:
            lines: Lines of PostgreSQL's COPY text format, without their newlines. Batches of 100 to 2,000 are fastest;
                some copies of a batch are made in memory.

        Raises:
            SourceError: A line has not as many fields as there are columns, or is not UTF-8; a text is not what
                PostgreSQL writes under the pinned settings; or, by option, a value that DynamoDB cannot hold.
        """
        if not lines:
            return Encoded([], [], 0)
        joined = self._join(lines)
        batch = Batch(joined.split(b"\t"), len(self._names), len(lines), has_nulls=NULL in joined)
        assembly = Assembly(len(lines))
        bad: dict[int, Unrepresentable] = {}
        for writer in self._writers:
            writer.add_to(assembly, batch, bad)
        assembly.same(b"}")
        items = assembly.joined()
        dropped: set[int] = set()
        if self._transform is not None:
            items = self._transformed(self._transform, items, bad, dropped)
        if max(map(len, items)) > self._max_bytes:
            for row, item in enumerate(items):
                if row not in bad and (problem := self._too_large(item)):
                    bad[row] = problem
        if not bad and not dropped:
            return Encoded(items, [], 0)
        rejects = [self.reject(decode_fields(lines[row]), bad[row]) for row in sorted(bad)]
        kept = [item for row, item in enumerate(items) if row not in bad and row not in dropped]
        return Encoded(kept, rejects, len(dropped))

    def encode_fields(self, fields: Sequence[bytes | None]) -> bytes | None:
        """Encode one row that was kept as PostgreSQL's text per column (None is NULL).

        The item is the same, byte for byte, as ``encode_batch`` makes of the row's COPY line.

        Returns:
            The item; None where the transform drops the row.

        Raises:
            Unrepresentable: DynamoDB cannot hold the row; ``reject`` makes a reject of it.
            SourceError: As with ``encode_batch``, but for the option to fail, which ``reject`` sees to.
        """
        if len(fields) != len(self._names):
            raise SourceError(f"a row has {len(fields)} fields, {len(self._names)} were expected")
        for name, text in zip(self._names, fields, strict=True):
            _check_utf8(name, text)
        fragments = [writer.fragment([fields[index] for index in writer.indices]) for writer in self._writers]
        item: bytes | None = b"".join(fragments) + b"}"
        if self._transform is not None and item is not None:
            item = self._transform(item)
        if item is not None and (problem := self._too_large(item)):
            raise problem
        return item

    def reject(self, fields: Sequence[bytes | None], problem: Unrepresentable) -> Reject:
        """Make the reject of a row. What is masked in items is hidden here too: rejects are kept, and shown.

        Args:
            fields: The row as PostgreSQL's text per column; None is NULL.
            problem: What is wrong with it.

        Raises:
            SourceError: By option a value that DynamoDB cannot hold is an error: it names column, value and key.
        """
        texts = {
            name: REDACTED.decode() if name in self._masked else text.decode()
            for name, text in zip(self._names, fields, strict=True)
            if text is not None
        }
        if self._options.on_unrepresentable == "fail" and problem.rule not in _NEVER_AN_ERROR:
            keys = dict.fromkeys(name for writer in self._writers if writer.key_limit for name in writer.columns)
            where = ", ".join(f"{name} = {shorten(texts.get(name, '').encode())}" for name in keys)
            raise SourceError(
                f"{problem.message}, in the row with {where} ({problem.rule})",
                hint="on_unrepresentable = 'reject' sets such rows aside, 'string' writes such values as text.",
            )
        return Reject(problem.rule, problem.message, texts, self._key_of(fields))

    def key_text(self, line: bytes) -> tuple[str | None, ...]:
        """Give PostgreSQL's text of the source key's columns in a COPY line that was encoded; None is NULL.

        Where one of them is masked there is none: keys are kept, and shown.
        """
        cells = line.split(b"\t")
        return tuple([None if cells[i] == NULL else unescape(cells[i]).decode() for i in self._source_key])

    def _key_of(self, fields: Sequence[bytes | None]) -> str | None:
        """Write the destination key of a row as its item would have it.

        None where DynamoDB could not hold it, and with a transform, which may change it.
        """
        if self._transform is not None:
            return None
        try:
            fragments = [
                writer.fragment([fields[index] for index in writer.indices])
                for writer in self._writers
                if writer.key_limit
            ]
        except Unrepresentable:
            return None
        return (b"".join(fragments) + b"}").decode()

    def _join(self, lines: list[bytes]) -> bytes:
        """Join lines by tabs, once each is known to have as many fields as there are columns, all UTF-8."""
        tabs = len(self._names) - 1
        counts = [line.count(b"\t") for line in lines]
        if counts.count(tabs) != len(lines):
            line, count = next((line, count) for line, count in zip(lines, counts, strict=True) if count != tabs)
            raise SourceError(f"a row has {count + 1} fields, {tabs + 1} were expected: {shorten(line)}")
        joined = b"\t".join(lines)
        if not joined.isascii():
            try:
                joined.decode()
            except UnicodeDecodeError:
                for line in lines:
                    for name, cell in zip(self._names, line.split(b"\t"), strict=True):
                        _check_utf8(name, cell)
        return joined

    def _transformed(
        self, transform: ItemTransform, items: list[bytes], bad: dict[int, Unrepresentable], dropped: set[int]
    ) -> list[bytes]:
        """Hand the good rows' items to the transform, and note what it refuses or drops; its place is then empty."""
        transformed = []
        for row, item in enumerate(items):
            result: bytes | None = item
            if row not in bad:
                try:
                    result = transform(item)
                except Unrepresentable as problem:
                    bad[row] = problem
                if result is None:
                    dropped.add(row)
            transformed.append(b"" if result is None or row in bad else result)
        return transformed

    def _too_large(self, item: bytes) -> Unrepresentable | None:
        if len(item) <= self._max_bytes or (size := item_size(item)) <= self._max_bytes:
            return None
        room = "" if self._max_bytes == MAX_ITEM_BYTES else f", {MAX_ITEM_BYTES - self._max_bytes} of them for its mark"
        return Unrepresentable("item-too-large", f"the item has {size} bytes, DynamoDB takes {MAX_ITEM_BYTES}{room}")


def _specs(names: Sequence[str], attributes: Sequence[str | None] | Sequence[AttributeSpec]) -> list[AttributeSpec]:
    """Make specs of plain names, one for each column."""
    specs: list[AttributeSpec] = [spec for spec in attributes if spec is not None and not isinstance(spec, str)]
    if specs:
        return specs
    if len(names) != len(attributes):
        raise UsageError(f"{len(names)} columns cannot become {len(attributes)} attributes")
    return [FromColumn(name, column) for column, name in zip(names, attributes, strict=True) if isinstance(name, str)]


def _writers(specs: Sequence[AttributeSpec], key: Key, around: Surroundings) -> list[Writer]:
    """Build the writers, those of the key first."""
    by_name: Mapping[str, AttributeSpec] = MappingProxyType({spec.name: spec for spec in specs})
    writers: list[Writer] = []
    for attribute, limit in zip(key.attributes, (MAX_HASH_KEY_BYTES, MAX_RANGE_KEY_BYTES), strict=False):
        spec = by_name.get(attribute.name)
        if spec is None:
            raise UsageError(f"there is no key attribute {attribute.name}", hint=near_names(attribute.name, by_name))
        writer = make_writer(spec, _opening(attribute.name, first=not writers), limit, around)
        if writer.attribute_type != attribute.type:
            raise UsageError(
                f"the key attribute {attribute} cannot be made from the {origin_of(spec)}, which becomes "
                f"{writer.attribute_type or 'no type that a key can have'}"
            )
        writers.append(writer)
    in_key = {attribute.name for attribute in key.attributes}
    writers += [make_writer(spec, _opening(spec.name), 0, around) for spec in specs if spec.name not in in_key]
    return writers


def _opening(name: str, *, first: bool = False) -> bytes:
    return b'%b"%b":' % (b"{" if first else b",", quote(name.encode()))


def _index(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise UsageError(f"there is no column {name}", hint=near_names(name, names))
    return names.index(name)


def _check_utf8(column: str, text: bytes | None) -> None:
    try:
        if text is not None:
            text.decode()
    except UnicodeDecodeError:
        raise SourceError(
            f"column {column}: {shorten(text or b'')} is not UTF-8",
            hint="The database's encoding is SQL_ASCII, it seems, so PostgreSQL cannot convert to UTF-8.",
        ) from None
