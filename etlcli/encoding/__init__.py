"""Rows as PostgreSQL's COPY writes them become items as DynamoDB JSON: once, exactly; later they are only spliced.

``RowEncoder`` is the way in. Each family of types has a file of its own here and registers itself; ``registry`` finds a
type's encoder, ``row`` puts rows together, ``copy_text`` undoes COPY's escapes, ``limits`` knows DynamoDB's.
"""

from __future__ import annotations

from typing import Final

# Imported so that they register themselves.
from etlcli.encoding import (  # noqa: F401
    arrays,
    binary,
    boolean,
    composites,
    documents,
    hstore,
    numeric,
    temporal,
    text,
    vector,
)
from etlcli.encoding.copy_text import decode_fields
from etlcli.encoding.limits import item_size
from etlcli.encoding.options import DEFAULT_OPTIONS, EncodingOptions
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, attribute_type, encoder_for
from etlcli.encoding.row import RowEncoder

__all__ = [
    "DEFAULT_OPTIONS",
    "ENCODING_VERSION",
    "EncodingOptions",
    "RowEncoder",
    "Unrepresentable",
    "ValueEncoder",
    "attribute_type",
    "decode_fields",
    "encoder_for",
    "item_size",
]

ENCODING_VERSION: Final = 1
"""Part of a run's fingerprint: raise it whenever a row's bytes would come out differently."""
