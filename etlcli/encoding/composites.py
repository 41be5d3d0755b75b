"""Composite types: M of their fields, by name."""

from __future__ import annotations

import re
from typing import Final

from etlcli.encoding.nesting import check_nesting
from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import ValueEncoder, encoder_for, register_kind, shorten
from etlcli.encoding.text import Text, quote
from etlcli.errors import SourceError
from etlcli.model import PgType

__all__ = ["Composite"]

_FIELD: Final = re.compile(rb'(?:"((?:[^"\\]|\\.|"")*+)"|([^",()]*+))([,)])', re.DOTALL)
_DOUBLED: Final = re.compile(rb'\\(.)|"(")', re.DOTALL)


class Composite(ValueEncoder):
    """M, which cannot be a key. A field that is NULL is as a column that is NULL: absent, or NULL by option.

    Args:
        names: The fields' names.
        encoders: Their encoders, in the same order.
        null: What a NULL field becomes; None for nothing at all.
    """

    def __init__(self, names: list[str], encoders: list[ValueEncoder], null: bytes | None) -> None:
        self._fields = [
            (b'"' + quote(name.encode()) + b'":', encode) for name, encode in zip(names, encoders, strict=True)
        ]
        self._null = null

    def content(self, text: bytes) -> bytes:
        """Write one row's text, ``(1,"a b",)``.

        Raises:
            Unrepresentable: What the fields' encoders raise, or ``nesting-depth``.
            SourceError: The row has not the fields of its type.
        """
        texts = _split(text)
        if not self._fields and texts == [None]:
            texts = []
        if len(texts) != len(self._fields):
            raise SourceError(f"{shorten(text)} has {len(texts)} fields, its type has {len(self._fields)}")
        members = []
        for (name, encode), field in zip(self._fields, texts, strict=True):
            if field is not None:
                members.append(name + encode(field))
            elif self._null is not None:
                members.append(name + self._null)
        return check_nesting(b'{"M":{' + b",".join(members) + b"}}", text)


def _split(text: bytes) -> list[bytes | None]:
    """Split a row's text; nothing at all between two commas is NULL, an empty string is in quotes."""
    texts: list[bytes | None] = []
    end = 1
    last = b"," if text.startswith(b"(") else b""
    while last == b"," and (matched := _FIELD.match(text, end)):
        quoted, bare, last = matched.groups()
        texts.append(_DOUBLED.sub(rb"\1\2", quoted) if quoted is not None else bare or None)
        end = matched.end()
    if last != b")" or end != len(text):
        raise SourceError(f"{shorten(text)} is not a row as PostgreSQL writes it")
    return texts


@register_kind("composite")
def _composite(pg_type: PgType, options: EncodingOptions) -> ValueEncoder:
    if not pg_type.fields and pg_type.typname == "record":
        return Text()
    return Composite(
        [field.name for field in pg_type.fields],
        [encoder_for(field.type, options) for field in pg_type.fields],
        b'{"NULL":true}' if options.null_as == "null" else None,
    )
