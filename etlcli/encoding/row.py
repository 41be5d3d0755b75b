"""Whole rows: COPY lines become items, or rejects.

A batch is taken apart into columns, each column is written at once by its encoder where its cells allow it, and the
columns are zipped back into rows: most of the work is then done by a few calls per batch instead of some per value.
What does not allow it (a number that is not finite, a key that is too long) is looked at cell by cell, to the same end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from etlcli.encoding.copy_text import NULL, decode_fields, unescape
from etlcli.encoding.limits import (
    MAX_ATTRIBUTE_NAME_BYTES,
    MAX_HASH_KEY_BYTES,
    MAX_ITEM_BYTES,
    MAX_KEY_NAME_BYTES,
    MAX_RANGE_KEY_BYTES,
    item_size,
)
from etlcli.encoding.options import DEFAULT_OPTIONS, EncodingOptions
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, encoder_for, shorten
from etlcli.encoding.text import Text, quote
from etlcli.errors import SourceError, UsageError
from etlcli.model import Column, Key, Reject

__all__ = ["RowEncoder"]

_HEX_PREFIX: Final = len(rb"\x")
_COPY_HEX_PREFIX: Final = len(rb"\\x")
"""What stands before the hexadecimal digits of a bytea: two characters, and one more where COPY escaped the first."""

_REJECTED_IN_ANY_CASE: Final = frozenset(("key-null", "key-empty", "key-too-long", "item-too-large"))
"""Rules of keys and items: no option turns them into a string or an error, since either would be no better."""


@dataclass(frozen=True, slots=True)
class _Attribute:
    """One attribute of the items.

    Attributes:
        column: Its column's name.
        index: The place of its column in the source's rows.
        opening: What stands before its value: the name, and the comma before it.
        encode: Its encoder.
        key_limit: The bytes a key's value may have; 0 where it is not part of the key.
    """

    column: str
    index: int
    opening: bytes
    encode: ValueEncoder
    key_limit: int = 0

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Write a column without NULLs at once; None where a cell may break a rule."""
        if self.key_limit and self.encode.attribute_type != "N" and cells:
            shortest, longest = min(map(len, cells)), max(map(len, cells))
            if self.encode.attribute_type == "B":
                shortest, longest = shortest - _COPY_HEX_PREFIX, (longest - _COPY_HEX_PREFIX) // 2
            # Escapes only make a cell longer than its value, so what fits with them fits without.
            if shortest <= 0 or longest > self.key_limit:
                return None
        try:
            return self.encode.contents(cells)
        except SourceError as error:
            raise self.locate(error) from None

    def locate(self, error: SourceError) -> SourceError:
        """Name the column in an error that an encoder raised."""
        return SourceError(f"column {self.column}: {error.message}", hint=error.hint)


class RowEncoder:
    """Turns rows of one schema into items, ``{"movie_id":{"N":"1"},"title":{"S":"..."}}``, one line each.

    The key comes first in an item, then the other attributes in the order of their columns; so an item's bytes depend
    on nothing but its row. Build one per schema. It keeps small caches, so it belongs to one thread.

    Args:
        columns: The columns of the rows, in the order of their fields.
        attributes: The attribute that each column becomes; None for a column that is read but not part of the item.
        key: The destination key, by its attributes' names.
        source_key: The columns whose text ``key_text`` gives.
        options: How rows become items.

    Raises:
        UsageError: The names or the key do not fit the columns.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        attributes: Sequence[str | None],
        key: Key,
        *,
        source_key: Sequence[str] = (),
        options: EncodingOptions = DEFAULT_OPTIONS,
    ) -> None:
        names = [column.name for column in columns]
        _check_names(names, attributes, key, options)
        self._names = names
        self._options = options
        self._source_key = tuple(_index(names, name, "column") for name in source_key)
        limits = dict(zip(key.attributes, (MAX_HASH_KEY_BYTES, MAX_RANGE_KEY_BYTES), strict=False))
        order = [
            (_index(list(attributes), attribute.name, "key attribute"), limit) for attribute, limit in limits.items()
        ]
        in_key = {index for index, _ in order}
        order += [(i, 0) for i, name in enumerate(attributes) if name is not None and i not in in_key]
        self._attributes = []
        for place, (index, key_limit) in enumerate(order):
            column = columns[index]
            encode = Text() if column.name in options.as_text else encoder_for(column.type, options)
            opening = b'%b"%b":' % (b"," if place else b"{", quote((attributes[index] or "").encode()))
            self._attributes.append(_Attribute(column.name, index, opening, encode, key_limit))
        for attribute, made in zip(key.attributes, self._attributes, strict=False):
            if made.encode.attribute_type != attribute.type:
                raise UsageError(
                    f"the key attribute {attribute} cannot be made from the column {made.column}, which becomes "
                    f"{made.encode.attribute_type or 'no type that a key can have'}"
                )
        self._null = b'{"NULL":true}' if options.null_as == "null" else None

    def encode(self, lines: list[bytes]) -> tuple[list[bytes], list[Reject]]:
        """Encode a batch of rows.

        Args:
            lines: Lines of PostgreSQL's COPY text format, without their newlines. Batches of 100 to 2,000 are fastest;
                some copies of a batch are made in memory.

        Returns:
            The items and the rejected rows, each in the order of the lines.

        Raises:
            SourceError: A line has not as many fields as there are columns, or is not UTF-8; a text is not what
                PostgreSQL writes under the pinned settings; or, by option, a value that DynamoDB cannot hold.
        """
        if not lines:
            return [], []
        joined = self._join(lines)
        cells = joined.split(b"\t")
        width = len(self._names)
        has_nulls = NULL in joined
        bad: dict[int, Unrepresentable] = {}
        streams: list[Iterable[bytes]] = []
        constant = b""  # what every row has between the last stream of values and the next
        for attribute in self._attributes:
            column = cells[attribute.index :: width]
            if not (has_nulls and NULL in column):
                contents = attribute.contents(column)
                if contents is not None:
                    streams += (repeat(constant + attribute.opening + attribute.encode.head), contents)
                    constant = attribute.encode.tail
                    continue
            if constant:
                streams.append(repeat(constant))
                constant = b""
            streams.append(self._with_nulls(attribute, column) or self._one_by_one(attribute, column, bad))
        items = list(map(b"".join, zip(*streams, repeat(constant + b"}"), strict=False)))
        if max(map(len, items)) > MAX_ITEM_BYTES:
            for row, item in enumerate(items):
                if row not in bad and (problem := _too_large(item)):
                    bad[row] = problem
        if not bad:
            return items, []
        rejects = [self.reject(decode_fields(lines[row]), bad[row]) for row in sorted(bad)]
        return [item for row, item in enumerate(items) if row not in bad], rejects

    def encode_fields(self, fields: Sequence[bytes | None]) -> bytes:
        """Encode one row that was kept as PostgreSQL's text per column (None is NULL).

        The item is the same, byte for byte, as ``encode`` makes of the row's COPY line.

        Raises:
            Unrepresentable: DynamoDB cannot hold the row; ``reject`` makes a reject of it.
            SourceError: As with ``encode``, but for the option to fail, which ``reject`` sees to.
        """
        if len(fields) != len(self._names):
            raise SourceError(f"a row has {len(fields)} fields, {len(self._names)} were expected")
        for name, text in zip(self._names, fields, strict=True):
            _check_utf8(name, text)
        item = b"".join([self._fragment(attribute, fields[attribute.index]) for attribute in self._attributes]) + b"}"
        if len(item) > MAX_ITEM_BYTES and (problem := _too_large(item)):
            raise problem
        return item

    def reject(self, fields: Sequence[bytes | None], problem: Unrepresentable) -> Reject:
        """Make the reject of a row.

        Args:
            fields: The row as PostgreSQL's text per column; None is NULL.
            problem: What is wrong with it.

        Raises:
            SourceError: By option a value that DynamoDB cannot hold is an error: it names column, value and key.
        """
        texts = {name: text.decode() for name, text in zip(self._names, fields, strict=True) if text is not None}
        if self._options.on_unrepresentable == "fail" and problem.rule not in _REJECTED_IN_ANY_CASE:
            keys = [attribute.column for attribute in self._attributes if attribute.key_limit]
            where = ", ".join(f"{name} = {shorten(texts.get(name, '').encode())}" for name in keys)
            raise SourceError(
                f"{problem.message}, in the row with {where} ({problem.rule})",
                hint="on_unrepresentable = 'reject' sets such rows aside, 'string' writes such values as text.",
            )
        return Reject(problem.rule, problem.message, texts)

    def key_text(self, line: bytes) -> tuple[str | None, ...]:
        """Give PostgreSQL's text of the source key's columns in a COPY line that ``encode`` took; None is NULL."""
        cells = line.split(b"\t")
        return tuple([None if cells[i] == NULL else unescape(cells[i]).decode() for i in self._source_key])

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

    def _with_nulls(self, attribute: _Attribute, column: list[bytes]) -> list[bytes] | None:
        """Write a column with NULLs at once, each value under its name; None where a cell may break a rule."""
        present = [cell for cell in column if cell != NULL]
        contents = attribute.contents(present) if present else []
        if contents is None or attribute.key_limit:
            return None
        before = attribute.opening + attribute.encode.head
        after = attribute.encode.tail
        absent = attribute.opening + self._null if self._null else b""
        following = iter(contents)
        return [absent if cell == NULL else before + next(following) + after for cell in column]

    def _one_by_one(self, attribute: _Attribute, column: list[bytes], bad: dict[int, Unrepresentable]) -> list[bytes]:
        """Write a column cell by cell, and note the rows that break a rule; the first problem of a row counts."""
        fragments = []
        for row, cell in enumerate(column):
            try:
                fragments.append(self._fragment(attribute, None if cell == NULL else unescape(cell)))
            except Unrepresentable as problem:
                fragments.append(b"")
                bad.setdefault(row, problem)
        return fragments

    def _fragment(self, attribute: _Attribute, text: bytes | None) -> bytes:
        """Write one attribute with its name, or nothing where it is absent."""
        if attribute.key_limit:
            _check_key(attribute, text)
        if text is None:
            return attribute.opening + self._null if self._null else b""
        try:
            return attribute.opening + attribute.encode(text)
        except SourceError as error:
            raise attribute.locate(error) from None
        except Unrepresentable as problem:
            if self._options.on_unrepresentable == "string" and not attribute.key_limit:
                return attribute.opening + _TEXT(text)
            raise Unrepresentable(
                problem.rule, f"column {attribute.column}: {problem.message}", attribute.column
            ) from None


_TEXT: Final = Text()


def _index(names: Sequence[str | None], name: str, what: str) -> int:
    if name not in names:
        raise UsageError(f"there is no {what} {name}", hint=f"There are: {', '.join(filter(None, names))}.")
    return names.index(name)


def _check_names(names: list[str], attributes: Sequence[str | None], key: Key, options: EncodingOptions) -> None:
    if len(names) != len(attributes):
        raise UsageError(f"{len(names)} columns cannot become {len(attributes)} attributes")
    if unknown := options.as_text.difference(names):
        raise UsageError(f"there is no column {', '.join(sorted(unknown))}", hint=f"There are: {', '.join(names)}.")
    in_key = {attribute.name for attribute in key.attributes}
    seen = set()
    for name in attributes:
        if name is None:
            continue
        limit = MAX_KEY_NAME_BYTES if name in in_key else MAX_ATTRIBUTE_NAME_BYTES
        if not 0 < len(name.encode()) <= limit:
            raise UsageError(f"the attribute name {shorten(name.encode())} is not between 1 and {limit} bytes long")
        if name in seen:
            raise UsageError(f"two columns would both become the attribute {name}", hint="Rename or drop one of them.")
        seen.add(name)


def _check_utf8(column: str, text: bytes | None) -> None:
    try:
        if text is not None:
            text.decode()
    except UnicodeDecodeError:
        raise SourceError(
            f"column {column}: {shorten(text or b'')} is not UTF-8",
            hint="The database's encoding is SQL_ASCII, it seems, so PostgreSQL cannot convert to UTF-8.",
        ) from None


def _check_key(attribute: _Attribute, text: bytes | None) -> None:
    """Check what DynamoDB asks of a key's value."""
    if text is None:
        raise Unrepresentable("key-null", f"column {attribute.column}: a key cannot be NULL", attribute.column)
    if attribute.encode.attribute_type == "N":
        return
    size = (len(text) - _HEX_PREFIX) // 2 if attribute.encode.attribute_type == "B" else len(text)
    if not size:
        raise Unrepresentable("key-empty", f"column {attribute.column}: a key cannot be empty", attribute.column)
    if size > attribute.key_limit:
        raise Unrepresentable(
            "key-too-long",
            f"column {attribute.column}: {shorten(text)} has {size} bytes, this key takes {attribute.key_limit}",
            attribute.column,
        )


def _too_large(item: bytes) -> Unrepresentable | None:
    size = item_size(item)
    if size <= MAX_ITEM_BYTES:
        return None
    return Unrepresentable("item-too-large", f"the item has {size} bytes, DynamoDB takes {MAX_ITEM_BYTES}")
