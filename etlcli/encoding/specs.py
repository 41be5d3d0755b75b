"""What an item consists of, as data: one spec an attribute, which travels as JSON and is built into code where needed.

No secret is ever in a spec: an ``hmac`` mask names its method, and the key is handed to ``RowEncoder`` apart from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from etlcli.encoding.templates import Template
from etlcli.errors import CacheError

__all__ = [
    "CASTS",
    "MASKS",
    "AttributeSpec",
    "CastType",
    "Constant",
    "FromColumn",
    "FromTemplate",
    "Mask",
    "columns_of",
    "origin_of",
    "spec_from_json",
    "spec_to_json",
]

CastType: TypeAlias = Literal["S", "N", "B", "BOOL"]
Mask: TypeAlias = Literal["hash", "redact", "hmac"]

CASTS: Final[tuple[str, ...]] = get_args(CastType)
MASKS: Final[tuple[str, ...]] = get_args(Mask)
_CONSTANTS: Final = ("S", "N", "BOOL")


@dataclass(frozen=True, slots=True)
class FromColumn:
    """An attribute that is a column: as it is, under another name, as another type, or masked.

    Attributes:
        name: The attribute's name.
        column: The column's name.
        cast: The attribute type that it gets; None for the column's own.
        mask: What hides its value; None for nothing. Never together with ``cast``.
    """

    name: str
    column: str
    cast: CastType | None = None
    mask: Mask | None = None


@dataclass(frozen=True, slots=True)
class Constant:
    """An attribute that is the same in every item.

    Attributes:
        name: The attribute's name.
        type: Its attribute type.
        text: Its value: the text, the number as text (so that it stays exact), ``true`` or ``false``.
    """

    name: str
    type: Literal["S", "N", "BOOL"]
    text: str


@dataclass(frozen=True, slots=True)
class FromTemplate:
    """An attribute of type S that is put together from columns."""

    name: str
    template: Template


AttributeSpec: TypeAlias = FromColumn | Constant | FromTemplate


def columns_of(spec: AttributeSpec) -> tuple[str, ...]:
    """Name the columns that an attribute is made of, each once."""
    match spec:
        case FromColumn():
            return (spec.column,)
        case FromTemplate():
            return spec.template.columns
        case Constant():
            return ()


def origin_of(spec: AttributeSpec) -> str:
    """Say in words what an attribute is made of."""
    match spec:
        case FromColumn():
            return f"column {spec.column}"
        case FromTemplate():
            return f"template {spec.template.text!r}"
        case Constant():
            return f"constant {spec.text[:60]!r}"


def spec_to_json(spec: AttributeSpec) -> dict[str, Any]:
    """Write a spec as what a JSON document can hold."""
    match spec:
        case FromColumn():
            document: dict[str, Any] = {"name": spec.name, "column": spec.column}
            if spec.cast is not None:
                document["cast"] = spec.cast
            if spec.mask is not None:
                document["mask"] = spec.mask
            return document
        case Constant():
            return {"name": spec.name, "constant": {spec.type: spec.text}}
        case FromTemplate():
            return {"name": spec.name, "template": spec.template.text}


def spec_from_json(document: Mapping[str, Any]) -> AttributeSpec:
    """Read what ``spec_to_json`` wrote.

    Raises:
        CacheError: It is something else.
    """
    match document:
        case {"name": str(name), "column": str(column), **rest} if [*rest] in ([], ["cast"], ["mask"]):
            kind, mask = rest.get("cast"), rest.get("mask")
            if kind in (None, *CASTS) and mask in (None, *MASKS):
                return FromColumn(name, column, cast("CastType | None", kind), cast("Mask | None", mask))
        case {"name": str(name), "constant": dict(constant), **rest} if not rest and len(constant) == 1:
            ((kind, text),) = constant.items()
            if kind in _CONSTANTS and isinstance(text, str):
                return Constant(name, kind, text)
        case {"name": str(name), "template": str(text), **rest} if not rest:
            return FromTemplate(name, Template.parse(text))
    raise CacheError(f"{str(document)[:200]} is not an attribute as momento-etl describes one")
