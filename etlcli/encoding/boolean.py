"""Booleans: BOOL."""

from __future__ import annotations

from typing import Final

from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import ValueEncoder, register, shorten
from etlcli.errors import SourceError
from etlcli.model import PgType

__all__ = ["Boolean"]

_VALUES: Final = {b"t": b"true", b"f": b"false"}


class Boolean(ValueEncoder):
    """BOOL, which cannot be a key."""

    head = b'{"BOOL":'
    tail = b"}"

    def content(self, text: bytes) -> bytes:
        """Write ``true`` or ``false``."""
        value = _VALUES.get(text)
        if value is None:
            raise SourceError(f"{shorten(text)} is not a boolean as PostgreSQL writes it")
        return value

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Look the cells up."""
        try:
            return [_VALUES[cell] for cell in cells]
        except KeyError:
            return self.each(cells)


@register("bool")
def _boolean(_pg_type: PgType, _options: EncodingOptions) -> ValueEncoder:
    return Boolean()
