"""hstore: M of S."""

from __future__ import annotations

import re
from typing import Final

from etlcli.encoding.limits import MAX_ATTRIBUTE_NAME_BYTES
from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, register, shorten
from etlcli.encoding.text import quote
from etlcli.errors import SourceError
from etlcli.model import PgType

__all__ = ["Hstore"]

_PAIR: Final = re.compile(rb'"((?:[^"\\]|\\.)*+)"=>(?:"((?:[^"\\]|\\.)*+)"|NULL)(?:, |$)', re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)


class Hstore(ValueEncoder):
    """M of S, which cannot be a key. A NULL value is NULL: left out, its key would be lost."""

    head = b'{"M":{'
    tail = b"}}"

    def content(self, text: bytes) -> bytes:
        r"""Write the pairs of ``"k"=>"v", "k2"=>NULL``.

        Raises:
            Unrepresentable: ``hstore-empty-key`` or ``hstore-key-too-long``.
        """
        members = []
        end = 0
        while end < len(text):
            matched = _PAIR.match(text, end)
            if matched is None:
                raise SourceError(f"{shorten(text)} is not hstore as PostgreSQL writes it")
            end = matched.end()
            key, value = (None if part is None else _ESCAPED.sub(rb"\1", part) for part in matched.groups())
            if not key:
                raise Unrepresentable("hstore-empty-key", f"{shorten(text)} has an empty key")
            if len(key) > MAX_ATTRIBUTE_NAME_BYTES:
                raise Unrepresentable(
                    "hstore-key-too-long", f"the key {shorten(key)} is over {MAX_ATTRIBUTE_NAME_BYTES} bytes"
                )
            encoded = b'{"NULL":true}' if value is None else b'{"S":"%b"}' % quote(value)
            members.append(b'"%b":%b' % (quote(key), encoded))
        return b",".join(members)


@register("hstore", extension="hstore")
def _hstore(_pg_type: PgType, _options: EncodingOptions) -> ValueEncoder:
    return Hstore()
