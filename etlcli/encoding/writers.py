"""Attributes as code: each writer adds one attribute to a batch of items, or writes it for one row.

A batch is written column by column where its cells allow it; what does not allow it (a number that is not finite, a key
that is too long) is looked at row by row, to the same end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from binascii import a2b_base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, repeat
from typing import Final, final

import orjson

from etlcli.encoding.casts import cast_encoder
from etlcli.encoding.copy_text import NULL, unescape
from etlcli.encoding.fields import field_encoder
from etlcli.encoding.masks import mask_encoder
from etlcli.encoding.near import near_names
from etlcli.encoding.numeric import number
from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, encoder_for, shorten
from etlcli.encoding.rules import Rule
from etlcli.encoding.specs import AttributeSpec, Constant, FromColumn, FromTemplate
from etlcli.encoding.templates import Field
from etlcli.encoding.text import Text, quote
from etlcli.errors import ConfigError, SourceError
from etlcli.model import AttributeType, Column

__all__ = [
    "Assembly",
    "Batch",
    "Surroundings",
    "Writer",
    "constant_content",
    "encoder_of",
    "key_problem",
    "make_writer",
]

_TEXT: Final = Text()
_BASE64_GROUP: Final = 4  # characters, for 3 bytes


class Batch:
    """Rows taken apart into columns.

    Args:
        cells: Fields of COPY lines, row after row.
        width: How many fields a row has.
        rows: How many rows there are.
        has_nulls: Whether any cell may be NULL.
    """

    def __init__(self, cells: list[bytes], width: int, rows: int, *, has_nulls: bool) -> None:
        self._cells = cells
        self._width = width
        self.rows = rows
        self.has_nulls = has_nulls

    def column(self, index: int) -> list[bytes]:
        """Take out a column's cells."""
        return self._cells[index :: self._width]


class Assembly:
    """A batch's items in the making: pieces with a value for each row, and what every row has between them."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._streams: list[Iterable[bytes]] = []
        self._constant = b""

    def same(self, piece: bytes) -> None:
        """Add what every row has."""
        self._constant += piece

    def each(self, pieces: list[bytes]) -> None:
        """Add a piece for each row."""
        if self._constant:
            self._streams.append(repeat(self._constant))
            self._constant = b""
        self._streams.append(pieces)

    def joined(self) -> list[bytes]:
        """Join each row's pieces."""
        return list(map(b"".join, zip(*self._streams, repeat(self._constant, self._rows), strict=False)))


class Writer(ABC):
    """Writes one attribute.

    Args:
        opening: What stands before its value: the name, and the comma before it.
        columns: The columns that it is made of.
        indices: Their places in the source's rows.
        key_limit: The bytes that a key's value may have; 0 where it is not part of the key.
    """

    attribute_type: AttributeType | None = None
    """The type that a key attribute of it has; None where it cannot be a key."""

    def __init__(self, opening: bytes, columns: Sequence[str], indices: Sequence[int], key_limit: int) -> None:
        self.opening = opening
        self.columns = columns
        self.indices = indices
        self.key_limit = key_limit

    @abstractmethod
    def add_to(self, assembly: Assembly, batch: Batch, bad: dict[int, Unrepresentable]) -> None:
        """Add it to each item of a batch, and note the rows that break a rule: the first problem of a row counts."""

    @abstractmethod
    def fragment(self, texts: Sequence[bytes | None]) -> bytes:
        """Write it with its name, or nothing where it is absent.

        Args:
            texts: PostgreSQL's texts of its columns; None is NULL.

        Raises:
            Unrepresentable: A rule is broken; the message names the column or the attribute.
            SourceError: A text is not what PostgreSQL writes.
        """

    @final
    def add_row_by_row(self, assembly: Assembly, batch: Batch, bad: dict[int, Unrepresentable]) -> None:
        """Do what ``add_to`` does the slow way, which every row can go."""
        columns = [batch.column(index) for index in self.indices]
        fragments = []
        for row, cells in enumerate(zip(*columns, strict=True)):
            try:
                fragments.append(self.fragment([None if cell == NULL else unescape(cell) for cell in cells]))
            except Unrepresentable as problem:
                fragments.append(b"")
                bad.setdefault(row, problem)
        assembly.each(fragments)


class _ColumnWriter(Writer):
    """An attribute of one column: as it is, cast, or masked."""

    def __init__(
        self,
        opening: bytes,
        column: str,
        index: int,
        key_limit: int,
        *,
        encode: ValueEncoder,
        null: bytes | None,
        text_instead: bool,
    ) -> None:
        super().__init__(opening, (column,), (index,), key_limit)
        self.attribute_type = encode.attribute_type
        self._column = column
        self._index = index
        self._encode = encode
        self._absent = opening + null if null else b""
        self._text_instead = text_instead and not key_limit

    def add_to(self, assembly: Assembly, batch: Batch, bad: dict[int, Unrepresentable]) -> None:
        column = batch.column(self._index)
        encode = self._encode
        if not (batch.has_nulls and NULL in column):
            contents = self._contents(column)
            if contents is None:
                self.add_row_by_row(assembly, batch, bad)
                return
            assembly.same(self.opening + encode.head)
            assembly.each(contents)
            assembly.same(encode.tail)
            return
        present = [cell for cell in column if cell != NULL]
        contents = None if self.key_limit else self._contents(present) if present else []
        if contents is None:
            self.add_row_by_row(assembly, batch, bad)
            return
        before, after, absent = self.opening + encode.head, encode.tail, self._absent
        following = iter(contents)
        assembly.each([absent if cell == NULL else before + next(following) + after for cell in column])

    def _contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Write values at once; None where a cell may break a rule."""
        try:
            contents = self._encode.contents(cells)
        except SourceError as error:
            raise self._locate(error) from None
        if self.key_limit and contents and not _surely_fit(contents, self.attribute_type, self.key_limit):
            return None
        return contents

    def fragment(self, texts: Sequence[bytes | None]) -> bytes:
        text = texts[0]
        where = f"column {self._column}"
        if text is None:
            if self.key_limit:
                raise Unrepresentable("key-null", f"{where}: a key cannot be NULL", self._column)
            return self._absent
        try:
            content = self._encode.content(text)
        except SourceError as error:
            raise self._locate(error) from None
        except Unrepresentable as problem:
            if self._text_instead:
                return self.opening + _TEXT(text)
            raise Unrepresentable(problem.rule, f"{where}: {problem.message}", self._column) from None
        if self.key_limit and (wrong := key_problem(content, self.attribute_type, self.key_limit)):
            raise Unrepresentable(wrong[0], f"{where}: {wrong[1]}", self._column)
        return self.opening + self._encode.head + content + self._encode.tail

    def _locate(self, error: SourceError) -> SourceError:
        """Name the column in an error that an encoder raised."""
        return SourceError(f"column {self._column}: {error.message}", hint=error.hint)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A field of a template, and the literal behind it.

    Attributes:
        column: The field's column.
        slot: The place of the column among the template's.
        encode: What writes the field.
        after: The literal, as the inside of a JSON string.
    """

    column: str
    slot: int
    encode: ValueEncoder
    after: bytes


class _TemplateWriter(Writer):
    """An S that is put together from columns; absent where one of them is NULL."""

    attribute_type: AttributeType | None = "S"

    def __init__(
        self, opening: bytes, spec: FromTemplate, places: Mapping[str, tuple[int, Column]], limit: int
    ) -> None:
        columns = spec.template.columns
        super().__init__(opening, columns, [places[column][0] for column in columns], limit)
        self._where = f"attribute {spec.name}"
        self._before = b""
        self._pieces: list[_Piece] = []
        parts = spec.template.parts
        for part, following in zip(parts, [*parts[1:], ""], strict=True):
            if isinstance(part, Field):
                encode = field_encoder(part, places[part.column][1].type)
                after = b"" if isinstance(following, Field) else quote(following.encode())
                self._pieces.append(_Piece(part.column, columns.index(part.column), encode, after))
            elif not self._pieces:
                self._before = quote(part.encode())
        self._literals = len(self._before) + sum(len(piece.after) for piece in self._pieces)

    def add_to(self, assembly: Assembly, batch: Batch, bad: dict[int, Unrepresentable]) -> None:
        columns = [batch.column(index) for index in self.indices]
        present: list[bool] = []
        if batch.has_nulls and any(NULL in column for column in columns):
            present = [NULL not in cells for cells in zip(*columns, strict=True)]
            columns = [list(compress(column, present)) for column in columns]
        if present and not any(present) and not self.key_limit:
            assembly.each([b""] * batch.rows)
            return
        contents = None if present and self.key_limit else self._contents(columns)
        if contents is None:
            self.add_row_by_row(assembly, batch, bad)
        elif present:
            whole = Assembly(sum(present))
            self._add(whole, contents)
            following = iter(whole.joined())
            assembly.each([next(following) if there else b"" for there in present])
        else:
            self._add(assembly, contents)

    def _add(self, assembly: Assembly, contents: list[list[bytes]]) -> None:
        assembly.same(self.opening + _TEXT.head + self._before)
        for piece, column in zip(self._pieces, contents, strict=True):
            assembly.each(column)
            assembly.same(piece.after)
        assembly.same(_TEXT.tail)

    def _contents(self, columns: list[list[bytes]]) -> list[list[bytes]] | None:
        """Write the fields of rows without NULL, field by field; None where a row may break a rule."""
        contents = []
        shortest = longest = self._literals
        for piece in self._pieces:
            try:
                column = piece.encode.contents(columns[piece.slot])
            except SourceError as error:
                raise self._locate(piece, error) from None
            if column is None:
                return None
            if self.key_limit and column:
                shortest, longest = shortest + min(map(len, column)), longest + max(map(len, column))
            contents.append(column)
        return None if self.key_limit and not 0 < shortest <= longest <= self.key_limit else contents

    def fragment(self, texts: Sequence[bytes | None]) -> bytes:
        # NULL first, whatever else may be wrong: the whole attribute is then absent.
        if None in texts:
            if not self.key_limit:
                return b""
            column = self.columns[texts.index(None)]
            raise Unrepresentable(
                "key-null", f"{self._where}: column {column} is NULL, and a key has to be whole", column
            )
        out = [self._before]
        for piece in self._pieces:
            text = texts[piece.slot]
            assert text is not None
            try:
                out += (piece.encode.content(text), piece.after)
            except SourceError as error:
                raise self._locate(piece, error) from None
            except Unrepresentable as problem:
                raise Unrepresentable(
                    problem.rule, f"{self._where}: column {piece.column}: {problem.message}", piece.column
                ) from None
        content = b"".join(out)
        if self.key_limit and (wrong := key_problem(content, "S", self.key_limit)):
            raise Unrepresentable(wrong[0], f"{self._where}: {wrong[1]}")
        return self.opening + _TEXT.head + content + _TEXT.tail

    def _locate(self, piece: _Piece, error: SourceError) -> SourceError:
        return SourceError(f"column {piece.column}: {error.message}", hint=error.hint)


class _ConstantWriter(Writer):
    """The same in every item."""

    def __init__(self, opening: bytes, spec: Constant, key_limit: int) -> None:
        super().__init__(opening, (), (), key_limit)
        self.attribute_type = None if spec.type == "BOOL" else spec.type
        content = constant_content(spec)
        if key_limit and (wrong := key_problem(content, self.attribute_type, key_limit)):
            raise ConfigError(
                f"the key attribute {spec.name} is a constant, and {wrong[1]}",
                hint="A key tells items apart: name a column in it, {COLUMN}.",
            )
        form = b'{"%b":%b}' if spec.type == "BOOL" else b'{"%b":"%b"}'
        self._whole = opening + form % (spec.type.encode(), content)

    def add_to(self, assembly: Assembly, batch: Batch, bad: dict[int, Unrepresentable]) -> None:  # noqa: ARG002
        assembly.same(self._whole)

    def fragment(self, texts: Sequence[bytes | None]) -> bytes:  # noqa: ARG002  it has no columns
        return self._whole


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What writers are built in.

    Attributes:
        places: The columns by name, each with its place in the source's rows.
        options: How values become attributes.
        mask_key: The key of ``hmac`` masks.
    """

    places: Mapping[str, tuple[int, Column]]
    options: EncodingOptions
    mask_key: bytes | None = None


def make_writer(spec: AttributeSpec, opening: bytes, key_limit: int, around: Surroundings) -> Writer:
    """Build the writer of an attribute.

    Raises:
        ConfigError: A column does not exist, a template does not go with its columns, a constant is no number that
            DynamoDB holds, or a mask has no key.
    """
    match spec:
        case FromColumn():
            index, column = _place(spec.column, around)
            null = b'{"NULL":true}' if around.options.null_as == "null" else None
            return _ColumnWriter(
                opening,
                spec.column,
                index,
                key_limit,
                encode=encoder_of(spec, column, around.options, around.mask_key),
                null=null,
                text_instead=around.options.on_unrepresentable == "string",
            )
        case FromTemplate():
            for name in spec.template.columns:
                _place(name, around)
            if not spec.template.columns:
                return _ConstantWriter(
                    opening, Constant(spec.name, "S", "".join(map(str, spec.template.parts))), key_limit
                )
            return _TemplateWriter(opening, spec, around.places, key_limit)
        case Constant():
            return _ConstantWriter(opening, spec, key_limit)


def encoder_of(spec: FromColumn, column: Column, options: EncodingOptions, mask_key: bytes | None) -> ValueEncoder:
    """Build what writes the values of an attribute that is one column.

    Raises:
        ConfigError: A mask has no key.
    """
    if spec.mask is not None:
        return mask_encoder(spec.mask, mask_key)
    if spec.cast is not None:
        return cast_encoder(spec.cast, column.type, options)
    return Text() if column.name in options.as_text else encoder_for(column.type, options)


def constant_content(spec: Constant) -> bytes:
    """Write a constant's value.

    Raises:
        ConfigError: It is no number that DynamoDB holds, or not UTF-8.
    """
    if spec.type == "BOOL":
        return b"true" if spec.text == "true" else b"false"
    try:
        text = spec.text.encode()
        return quote(text) if spec.type == "S" else number(text)
    except (Unrepresentable, SourceError, UnicodeEncodeError) as error:
        raise ConfigError(
            f"the attribute {spec.name} cannot be constant: {error}",
            hint="A constant is a text, a boolean, or a number that DynamoDB holds; in quotes it is a text.",
        ) from None


def key_problem(content: bytes, kind: AttributeType | None, limit: int) -> tuple[Rule, str] | None:
    """Tell the rule that a key's value breaks, and how; None where it breaks none.

    Args:
        content: The inside of its DynamoDB JSON.
        kind: Its attribute type.
        limit: How many bytes it may have.
    """
    if kind == "N":
        return None
    value = a2b_base64(content) if kind == "B" else orjson.loads(b'"%b"' % content).encode()
    if not value:
        return "key-empty", "a key cannot be empty"
    if len(value) > limit:
        shown = shorten(value) if kind == "S" else "its value"
        return "key-too-long", f"{shown} has {len(value)} bytes, this key takes {limit}"
    return None


def _surely_fit(contents: list[bytes], kind: AttributeType | None, limit: int) -> bool:
    """Whether no key's value is empty or too long; some that are neither may not be told apart from those that are."""
    if kind == "N":
        return True
    longest = max(map(len, contents))
    if kind == "B":
        longest = longest // _BASE64_GROUP * 3
    # JSON's escapes only make a text longer.
    return longest <= limit and min(map(len, contents)) > 0


def _place(name: str, around: Surroundings) -> tuple[int, Column]:
    if name not in around.places:
        raise ConfigError(f"there is no column {name!r}", hint=near_names(name, around.places))
    return around.places[name]
