"""Rows as PostgreSQL's COPY writes them become items as DynamoDB JSON: once, exactly; later they are only spliced.

``make_shape`` decides what items consist of, and ``RowEncoder`` makes them. Each family of types has a file of its own
here and registers itself; ``registry`` finds a type's encoder.

shape      columns and config into attributes and key     specs      one attribute, as data
templates  their grammar      fields  what types make of it     key_hint   long keys: a config to paste
writers    attributes as code, batch by batch     row        whole rows
hook       the user's own function     python_values  what it works on
casts, masks  other types, hidden values     copy_text, limits  COPY's escapes, DynamoDB's limits
rules      what a row can break, with a hint each
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
from etlcli.encoding.hook import Transform, load_transform
from etlcli.encoding.limits import item_size, number_size
from etlcli.encoding.masks import mask_key_id
from etlcli.encoding.near import near_names
from etlcli.encoding.options import DEFAULT_OPTIONS, EncodingOptions
from etlcli.encoding.recipe import PLAIN, Recipe
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, attribute_type, encoder_for
from etlcli.encoding.row import Encoded, RowEncoder
from etlcli.encoding.rules import hint_of
from etlcli.encoding.shape import Shape, ShapeOptions, make_shape
from etlcli.encoding.specs import AttributeSpec, Constant, FromColumn, FromTemplate, spec_from_json, spec_to_json
from etlcli.encoding.templates import Field, Template

__all__ = [
    "DEFAULT_OPTIONS",
    "ENCODING_VERSION",
    "PLAIN",
    "AttributeSpec",
    "Constant",
    "Encoded",
    "EncodingOptions",
    "Field",
    "FromColumn",
    "FromTemplate",
    "Recipe",
    "RowEncoder",
    "Shape",
    "ShapeOptions",
    "Template",
    "Transform",
    "Unrepresentable",
    "ValueEncoder",
    "attribute_type",
    "decode_fields",
    "encoder_for",
    "hint_of",
    "item_size",
    "load_transform",
    "make_shape",
    "mask_key_id",
    "near_names",
    "number_size",
    "spec_from_json",
    "spec_to_json",
]

ENCODING_VERSION: Final = 2
"""Part of a run's fingerprint: raise it whenever a row's bytes would come out differently."""
