"""pgvector's dense vectors: L of N. A sparse vector is a string with PostgreSQL's own text."""

from __future__ import annotations

from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import ValueEncoder, register, shorten
from etlcli.errors import SourceError
from etlcli.model import PgType

__all__ = ["Vector"]


class Vector(ValueEncoder):
    """L of N, which cannot be a key.

    No number of it breaks a rule: pgvector refuses NaN and infinities, and every ``real`` is within DynamoDB's range.
    """

    head = b'{"L":[{"N":"'
    tail = b'"}]}'

    def content(self, text: bytes) -> bytes:
        """Write ``[1,2.5,1e-07]``."""
        if not (text.startswith(b"[") and text.endswith(b"]")):
            raise SourceError(f"{shorten(text)} is not a vector as pgvector writes it")
        return text[1:-1].replace(b",", b'"},{"N":"')


@register("vector", "halfvec", extension="vector")
def _vector(_pg_type: PgType, _options: EncodingOptions) -> ValueEncoder:
    return Vector()
