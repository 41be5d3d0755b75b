"""Columns as another attribute type than their own, by choice of the user. A value that does not fit is refused."""

from __future__ import annotations

import re
from binascii import b2a_base64
from typing import Final

from etlcli.encoding.boolean import Boolean
from etlcli.encoding.numeric import number
from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, encoder_for, shorten
from etlcli.encoding.specs import CastType
from etlcli.encoding.temporal import EpochSeconds
from etlcli.encoding.text import Text
from etlcli.model import AttributeType, PgType

__all__ = ["cast_encoder"]

# What PostgreSQL takes as a decimal number, space around it and all; NaN and infinities are for ``number`` to refuse.
_NUMBER: Final = re.compile(rb"([+-]?)(?:([0-9]+)(?:\.([0-9]*))?|\.([0-9]+))(?:[eE]([+-]?[0-9]+))?")
_NOT_FINITE: Final = re.compile(rb"NaN|[+-]?(?:Infinity|inf)", re.IGNORECASE)

_WORDS: Final = {
    **dict.fromkeys((b"true", b"t", b"yes", b"y", b"on", b"1"), b"true"),
    **dict.fromkeys((b"false", b"f", b"no", b"n", b"off", b"0"), b"false"),
}


class _AsNumber(ValueEncoder):
    """N: the text read as a number."""

    head = b'{"N":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "N"

    def content(self, text: bytes) -> bytes:
        if text.isdigit():
            return number(text)
        stripped = text.strip()
        if _NOT_FINITE.fullmatch(stripped):
            raise Unrepresentable("number-not-finite", f"{shorten(text)} is not a number that DynamoDB holds")
        matched = _NUMBER.fullmatch(stripped)
        if matched is None:
            raise Unrepresentable("cast-number", f"{shorten(text)} is not a number")
        sign, whole, fraction, only_fraction, exponent = matched.groups()
        digits = (whole or b"0") + (b"." + (fraction or only_fraction) if fraction or only_fraction else b"")
        return number((b"-" if sign == b"-" else b"") + digits + (b"e" + exponent if exponent else b""))


class _AsBytes(ValueEncoder):
    """B: the text in UTF-8."""

    head = b'{"B":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "B"

    def content(self, text: bytes) -> bytes:
        return b2a_base64(text, newline=False)


class _AsBoolean(ValueEncoder):
    """BOOL: the words that PostgreSQL takes for true and false."""

    head = b'{"BOOL":'
    tail = b"}"

    def content(self, text: bytes) -> bytes:
        value = _WORDS.get(text) or _WORDS.get(text.strip().lower())
        if value is None:
            raise Unrepresentable("cast-boolean", f"{shorten(text)} is neither true nor false")
        return value


def cast_encoder(to: CastType, pg_type: PgType, options: EncodingOptions) -> ValueEncoder:
    """Build what writes a column as the attribute type that the user chose for it.

    What is of that type already keeps its own encoder. A timestamp with time zone as N is the exact seconds since 1970,
    since its text is never a number; DynamoDB's own TTL wants just that.
    """
    if to == "S":
        return Text()
    own = encoder_for(pg_type, options)
    if to == "BOOL":
        return own if isinstance(own, Boolean) else _AsBoolean()
    if own.attribute_type == to:
        return own
    if to == "B":
        return _AsBytes()
    is_instant = pg_type.kind == "base" and pg_type.typname == "timestamptz" and pg_type.extension is None
    return EpochSeconds() if is_instant else _AsNumber()
