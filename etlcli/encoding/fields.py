"""What a template makes of its columns, by their types: the text of each field, and what can be read back from it."""

from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from etlcli.encoding.boolean import Boolean
from etlcli.encoding.numeric import Integer
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, encoder_for, shorten
from etlcli.encoding.templates import Field, Template
from etlcli.encoding.text import Text, quote
from etlcli.errors import ConfigError
from etlcli.model import PgType

__all__ = ["determined_columns", "field_encoder", "has_text", "is_injective"]

_INTEGERS: Final = frozenset(("int2", "int4", "int8", "oid"))
_DATES: Final = frozenset(("date", "timestamp", "timestamptz"))
_WHOLE_NUMERIC: Final = re.compile(r"numeric\([0-9]+,(?:0|-[0-9]+)\)")

_DIGITS: Final = string.digits
_ALPHABETS: Final[Mapping[str, str]] = {
    **dict.fromkeys(_INTEGERS, _DIGITS + "-"),
    **dict.fromkeys(("numeric", "float4", "float8"), _DIGITS + "+-.eENaInfity"),
    "bool": "truefals",
    "uuid": string.hexdigits + "-",
    "date": _DIGITS + "- BCinfty",
    "timestamp": _DIGITS + "-:.T BCinfty",
    "timestamptz": _DIGITS + "-:.TZ+ BCinfty",
    **dict.fromkeys(("time", "timetz"), _DIGITS + ":.+-"),
    **dict.fromkeys(("inet", "cidr", "macaddr", "macaddr8"), string.hexdigits + ".:/"),
}
"""The characters that the plain text of a type can have, for the types that do not take any."""

_WIDTHS: Final[Mapping[str, int]] = {"uuid": 36}
"""The length of the plain text of a type, where it is always the same."""

# Where each directive's digits stand in PostgreSQL's text of a date or a timestamp.
_PLACES: Final = {"%Y": (0, 4), "%m": (5, 7), "%d": (8, 10), "%H": (11, 13), "%M": (14, 16), "%S": (17, 19)}
_OF_DATE: Final = ("%Y", "%m", "%d")
_ORDINARY: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}(?: [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:\+00)?)?")
_WHOLE_NUMBER: Final = re.compile(rb"-?[0-9]+")


class _Padded(ValueEncoder):
    """A whole number with zeros before it, as Python formats it: the sign first, and counted."""

    head = b'{"S":"'
    tail = b'"}'

    def __init__(self, width: int) -> None:
        self._width = width

    def content(self, text: bytes) -> bytes:
        if not _WHOLE_NUMBER.fullmatch(text):
            raise Unrepresentable("template-value", f"{shorten(text)} is not a whole number, so it cannot be padded")
        return text.zfill(self._width)


class _DateParts(ValueEncoder):
    """Parts of a date or a timestamp."""

    head = b'{"S":"'
    tail = b'"}'

    def __init__(self, pieces: tuple[str, ...]) -> None:
        self._pieces: list[bytes | slice] = [
            slice(*_PLACES[piece]) if piece in _PLACES else quote(piece.encode()) for piece in pieces
        ]

    def content(self, text: bytes) -> bytes:
        if not _ORDINARY.fullmatch(text):
            raise Unrepresentable(
                "template-value", f"{shorten(text)} has no year of four digits, so a template cannot format it"
            )
        return b"".join([text[piece] if isinstance(piece, slice) else piece for piece in self._pieces])


def has_text(pg_type: PgType) -> bool:
    """Whether a template can hold a column of this type."""
    if _is(pg_type, ("bool",)):
        return True
    return encoder_for(pg_type).attribute_type in ("S", "N")


def field_encoder(field: Field, pg_type: PgType) -> ValueEncoder:
    """Build what writes a field, as the inside of an S.

    Raises:
        ConfigError: The type has no text, or does not take the format.
    """
    if not has_text(pg_type):
        raise ConfigError(
            f"column {field.column} is of type {pg_type.name}, which has no text that a template could hold",
            hint="Templates take text, numbers, booleans, dates and the like; not json, arrays, bytea or composites."
            " A --query can turn it into text.",
        )
    if field.padding is not None:
        if not (_is(pg_type, _INTEGERS) or (_is(pg_type, ("numeric",)) and _WHOLE_NUMERIC.fullmatch(pg_type.name))):
            raise _unfit(field, pg_type, "zero padding is for integers")
        return _Padded(field.padding)
    if pieces := field.pieces:
        if not _is(pg_type, _DATES):
            raise _unfit(field, pg_type, "directives such as %Y are for dates and timestamps")
        if pg_type.typname == "date" and any(piece in _PLACES and piece not in _OF_DATE for piece in pieces):
            raise _unfit(field, pg_type, "a date has no time of day, only %Y, %m and %d")
        return _DateParts(pieces)
    if _is(pg_type, ("bool",)):
        return Boolean()
    if _is(pg_type, _INTEGERS):
        return Integer()
    encode = encoder_for(pg_type)
    # Numbers are PostgreSQL's text, whatever DynamoDB's N would take.
    return Text() if encode.attribute_type == "N" else encode


def is_injective(template: Template, types: Mapping[str, PgType]) -> bool:
    """Whether rows that differ in any of the template's columns never have the same text. False where it is not sure.

    Args:
        template: The template.
        types: The columns' types, by name.
    """
    return determined_columns(template, types) == frozenset(template.columns)


def determined_columns(template: Template, types: Mapping[str, PgType]) -> frozenset[str]:
    """Name the columns whose values can be read back from the text: rows that differ in one of them differ in the text.

    Reading from the left, a field ends where its type says (a uuid), or at the first character that cannot be part of
    it; from the right the same; and what is left between the two is one field at most, or is not looked at.
    """
    traits = [_traits(part, types) if isinstance(part, Field) else part for part in template.parts]
    from_left = len(list(takewhile(bool, _ends(traits))))
    from_right = len(list(takewhile(bool, _ends([_reversed(trait) for trait in reversed(traits)]))))
    between = [trait for trait in traits[from_left : len(traits) - from_right] if isinstance(trait, _Traits)]
    if len(between) > 1:
        traits = traits[:from_left] + traits[len(traits) - from_right :]
    return frozenset(trait.column for trait in traits if isinstance(trait, _Traits) and trait.lossless)


@dataclass(frozen=True, slots=True)
class _Traits:
    """What is known of a field's text.

    Attributes:
        column: Its column.
        alphabet: The characters that it can have; None for any.
        width: Its length, where it is always the same.
        lossless: Whether it tells the column's values apart.
    """

    column: str
    alphabet: frozenset[str] | None
    width: int | None
    lossless: bool


def _traits(field: Field, types: Mapping[str, PgType]) -> _Traits:
    pg_type = types[field.column]
    if pieces := field.pieces:
        fixed = sum(_width_of(piece) for piece in pieces)
        literal = "".join(piece for piece in pieces if piece not in _PLACES)
        # A timestamp has microseconds, which no directive gives.
        whole = pg_type.typname == "date" and set(_OF_DATE) <= set(pieces)
        return _Traits(field.column, frozenset(_DIGITS + literal), fixed, lossless=whole)
    if field.padding is not None:
        return _Traits(field.column, frozenset(_DIGITS + "-"), None, lossless=True)
    built_in = pg_type.kind == "base" and pg_type.extension is None
    alphabet = _ALPHABETS.get(pg_type.typname) if built_in else None
    width = _WIDTHS.get(pg_type.typname) if built_in else None
    return _Traits(field.column, None if alphabet is None else frozenset(alphabet), width, lossless=True)


def _width_of(piece: str) -> int:
    start, stop = _PLACES.get(piece, (0, len(piece)))
    return stop - start


def _ends(traits: list[_Traits | str]) -> list[bool]:
    """Tell of each part in reading order whether its end is known where its start is."""
    ends = []
    for place, trait in enumerate(traits):
        if isinstance(trait, str) or trait.width is not None:
            ends.append(True)
        else:
            following = traits[place + 1] if place + 1 < len(traits) else None
            ends.append(
                isinstance(following, str) and trait.alphabet is not None and following[0] not in trait.alphabet
            )
    return ends


def _reversed(trait: _Traits | str) -> _Traits | str:
    return trait[::-1] if isinstance(trait, str) else trait


def _is(pg_type: PgType, typnames: tuple[str, ...] | frozenset[str]) -> bool:
    return pg_type.kind == "base" and pg_type.extension is None and pg_type.typname in typnames


def _unfit(field: Field, pg_type: PgType, why: str) -> ConfigError:
    return ConfigError(
        f"the format {field.format} does not go with column {field.column} of type {pg_type.name}: {why}",
        hint=f"Without a format, {{{field.column}}}, a template has the column's own text.",
    )
