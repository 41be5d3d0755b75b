"""Arrays: L, of L where there are more dimensions. A NULL element is NULL.

A list has no bounds of its own, so an array whose bounds do not start at 1 (``[0:2]={a,b,c}``) is none: PostgreSQL
counts it as another value than ``{a,b,c}``.
"""

from __future__ import annotations

import re
from typing import Final

from etlcli.encoding.nesting import check_nesting
from etlcli.encoding.numeric import Integer
from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, encoder_for, register_kind, shorten
from etlcli.encoding.text import Text, is_plain
from etlcli.errors import SourceError
from etlcli.model import PgType

__all__ = ["Array"]

_VECTORS: Final = frozenset(("int2vector", "oidvector"))
"""System types that the catalog calls arrays, but whose text is not an array's."""


class Array(ValueEncoder):
    """L, which cannot be a key.

    Args:
        element: The encoder of its elements.
        delimiter: What stands between two elements.
    """

    def __init__(self, element: ValueEncoder, delimiter: str) -> None:
        self._element = element
        mark = delimiter.encode()
        self._token = re.compile(
            rb'"((?:[^"\\]|\\.)*+)"|([{}])|' + re.escape(mark) + rb'|([^"{}' + re.escape(mark) + rb"]+)", re.DOTALL
        )
        # Elements that are written as they stand, where their text is plain; for them there are shorter ways.
        self._verbatim = type(element) in (Text, Integer) and delimiter == ","
        self._opening = b'{"L":[' + element.head
        self._closing = element.tail + b"]}"
        self._between = element.tail + b"," + element.head

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Write a column at once where commas and braces are marks wherever they stand; else cell by cell."""
        joined = b"\n".join(cells)
        if not self._verbatim or b"\\" in joined or b"NULL" in joined or b"]={" in joined or b'""' in joined:
            return self.each(cells)
        if b'"' in joined:
            within_quotes = b"".join(joined.split(b'"')[1::2])
            if b"," in within_quotes or b"{" in within_quotes or b"}" in within_quotes:
                return self.each(cells)
            joined = joined.replace(b'"', b"")
        if joined.count(b"{") != len(cells) or not is_plain(joined.replace(b"\n", b"")):
            return self.each(cells)
        # In this order, since each replacement brings marks that an earlier one looks for.
        joined = joined.replace(b"{", self._opening).replace(b"}", self._closing).replace(b",", self._between)
        # What is closed as it is opened is empty: an element that is an empty string would be in quotes.
        return joined.replace(self._opening + self._closing, b'{"L":[]}').split(b"\n")

    def content(self, text: bytes) -> bytes:
        """Write one array.

        Raises:
            Unrepresentable: What the elements' encoder raises, ``array-bounds`` or ``nesting-depth``.
        """
        if self._verbatim and b"\\" not in text and b"NULL" not in text and text.count(b"{") == 1 and text[0] == 0x7B:
            return self._without_escapes(text)
        return check_nesting(self._translate(text), text)

    def _without_escapes(self, text: bytes) -> bytes:
        """Write an array of one dimension without escapes, whose quoted elements are what stands between two quotes."""
        inner = text[1:-1]
        if not inner:
            return b'{"L":[]}'
        elements: list[bytes] = []
        for index, part in enumerate(inner.split(b'"')):
            if index % 2:
                elements.append(part)
            elif part and part != b",":
                elements += part.strip(b",").split(b",")
        if not is_plain(text.replace(b'"', b"")):
            return b'{"L":[' + b",".join(map(self._element, elements)) + b"]}"
        return self._opening + self._between.join(elements) + self._closing

    def _translate(self, text: bytes) -> bytes:
        """Write any array, one token after the other."""
        if text.startswith(b"["):
            raise Unrepresentable("array-bounds", f"{shorten(text)} does not start at 1, as a list does")
        end = 0
        out: list[bytes] = []
        for matched in self._token.finditer(text, end):
            if matched.start() != end:
                break
            end = matched.end()
            quoted, brace, bare = matched.groups()
            if brace == b"{":
                out.append(b'{"L":[')
            elif brace == b"}":
                out.append(b"]}")
            elif bare == b"NULL":
                out.append(b'{"NULL":true}')
            elif bare is not None:
                out.append(self._element(bare))
            elif quoted is not None:
                out.append(self._element(re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL)))
            else:
                out.append(b",")
        if end != len(text) or not out or out[0] != b'{"L":[':
            raise SourceError(f"{shorten(text)} is not an array as PostgreSQL writes it")
        return b"".join(out)


@register_kind("array")
def _array(pg_type: PgType, options: EncodingOptions) -> ValueEncoder:
    if pg_type.element is None or pg_type.typname in _VECTORS:
        return Text()
    return Array(encoder_for(pg_type.element, options), pg_type.delimiter)
