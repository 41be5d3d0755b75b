"""Numbers: N with the exact value, from PostgreSQL's own text and never through a float."""

from __future__ import annotations

import re
from typing import Final

from etlcli.encoding.limits import MAX_NUMBER_DIGITS, MAX_NUMBER_EXPONENT, MIN_NUMBER_EXPONENT
from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, register, shorten
from etlcli.errors import SourceError
from etlcli.model import AttributeType, PgType

__all__ = ["Integer", "Number", "number"]

_NUMBER: Final = re.compile(rb"(-?)([0-9]+)(?:\.([0-9]*))?(?:[eE]([+-]?)0*([0-9]+))?")
_NOT_FINITE: Final = frozenset((b"NaN", b"Infinity", b"-Infinity"))

_PLAIN_CHARACTERS: Final = 38
"""A text so short and without an exponent breaks no rule: no more than 38 digits, none smaller than 1E-36."""

_KEPT_CHARACTERS: Final = 48
"""Longer texts are written anew: they are mostly zeros, up to 131,072 of them. 38 digits, sign, point, exponent fit."""

_EXPONENT_DIGITS: Final = 10
"""PostgreSQL holds no value of a gigabyte or more, so no row of zeros makes up for a longer exponent."""


def number(text: bytes) -> bytes:
    """Write a number as the inside of an N, with exactly the value of the text.

    PostgreSQL's spelling is kept where it is short, else it is written as digits and an exponent. DynamoDB itself drops
    zeros, exponents and the sign of ``-0``: it has no negative zero, and the value is 0.

    Args:
        text: A number as PostgreSQL writes it, in a column or within JSON.

    Raises:
        Unrepresentable: ``number-not-finite``, ``number-precision`` or ``number-range``.
        SourceError: It is not a number.
    """
    if len(text) <= _PLAIN_CHARACTERS and text.isdigit():
        return text
    if text in _NOT_FINITE:
        raise Unrepresentable("number-not-finite", f"{shorten(text)} is not a number that DynamoDB holds")
    matched = _NUMBER.fullmatch(text)
    if matched is None:
        raise SourceError(f"{shorten(text)} is not a number as PostgreSQL writes it")
    minus, whole, fraction, exponent_sign, exponent_digits = matched.groups(b"")
    digits = (whole + fraction).lstrip(b"0")
    if not digits:
        return text if len(text) <= _KEPT_CHARACTERS and not exponent_digits else b"0"
    if len(exponent_digits) > _EXPONENT_DIGITS:
        raise _out_of_range(text)
    significant = digits.rstrip(b"0")
    if len(significant) > MAX_NUMBER_DIGITS:
        raise Unrepresentable(
            "number-precision",
            f"{shorten(text)} has {len(significant)} significant digits, DynamoDB holds {MAX_NUMBER_DIGITS}",
        )
    exponent = int(exponent_sign + (exponent_digits or b"0")) - len(fraction) + len(digits) - len(significant)
    if not MIN_NUMBER_EXPONENT <= exponent + len(significant) - 1 <= MAX_NUMBER_EXPONENT:
        raise _out_of_range(text)
    return text if len(text) <= _KEPT_CHARACTERS else b"%b%bE%d" % (minus, significant, exponent)


def _out_of_range(text: bytes) -> Unrepresentable:
    return Unrepresentable(
        "number-range",
        f"{shorten(text)} is outside 1E{MIN_NUMBER_EXPONENT} to 9.99E+{MAX_NUMBER_EXPONENT}, which DynamoDB holds",
    )


class Integer(ValueEncoder):
    """N of at most 19 digits: as PostgreSQL wrote it."""

    head = b'{"N":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "N"

    def content(self, text: bytes) -> bytes:
        """Nothing to do: every integer of PostgreSQL's is one of DynamoDB's."""
        return text

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Nothing to do."""
        return cells


class Number(ValueEncoder):
    """N of any size, which DynamoDB may not be able to hold."""

    head = b'{"N":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "N"

    def content(self, text: bytes) -> bytes:
        """See ``number``."""
        return number(text)

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Take a column as it is where none of its cells is long, has an exponent, or is not finite."""
        joined = b" ".join(cells)
        if b"e" in joined or b"n" in joined or b"N" in joined or max(map(len, cells), default=0) > _PLAIN_CHARACTERS:
            return self.each(cells)
        return cells


@register("int2", "int4", "int8", "oid")
def _integer(_pg_type: PgType, _options: EncodingOptions) -> ValueEncoder:
    return Integer()


@register("numeric", "float4", "float8")
def _number(_pg_type: PgType, _options: EncodingOptions) -> ValueEncoder:
    return Number()
