"""Strings: text types, and every type that has no family of its own, as PostgreSQL's own text.

Enums, uuid, inet, cidr, macaddr, xml, bit, money, ranges, multiranges, tsvector, geometric types, citext and unknown
types are among them.
"""

from __future__ import annotations

from typing import Final

import orjson

from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import ValueEncoder, register_kind
from etlcli.model import AttributeType, PgType

__all__ = ["CONTROLS", "Text", "is_plain", "quote"]

CONTROLS: Final = bytes(range(0x20))
"""What JSON refuses inside a string."""

_NEITHER_QUOTED_NOR_PLAIN: Final = CONTROLS + b'"\\'
_CONTROLS_BUT_TAB: Final = CONTROLS.replace(b"\t", b"")


def is_plain(text: bytes) -> bool:
    """Whether a text is the inside of a JSON string as it stands."""
    return len(text.translate(None, _NEITHER_QUOTED_NOR_PLAIN)) == len(text)


def quote(text: bytes) -> bytes:
    """Write a text as the inside of a JSON string."""
    return text if is_plain(text) else orjson.dumps(text.decode())[1:-1]


class Text(ValueEncoder):
    """S with PostgreSQL's own text; it may be empty (but not in a key)."""

    head = b'{"S":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "S"

    def content(self, text: bytes) -> bytes:
        """Escape what JSON wants escaped."""
        return quote(text)

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        r"""Escape a whole column in a few passes over its bytes.

        COPY's escapes are JSON's (``\b \f \n \r \t \\``) but for ``\v``; so where that one is not used and no other
        control character stands as itself, quotes are all that is left to escape.
        """
        joined = b"\t".join(cells)
        if rb"\v" in joined or len(joined.translate(None, _CONTROLS_BUT_TAB)) != len(joined):
            return self.each(cells)
        return joined.replace(b'"', b'\\"').split(b"\t") if b'"' in joined else cells


@register_kind("base")
@register_kind("enum")
@register_kind("range")
@register_kind("multirange")
@register_kind("pseudo")
def _text(_pg_type: PgType, _options: EncodingOptions) -> ValueEncoder:
    return Text()
