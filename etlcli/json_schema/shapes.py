"""The parts that schemas are made of. Every object is closed: a field that nobody described is an error."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

__all__ = [
    "ANY",
    "BOOLEAN",
    "INTEGER",
    "ITEM",
    "NUMBER",
    "STRING",
    "Shape",
    "Shapes",
    "array_of",
    "closed",
    "described",
    "map_of",
    "one_of",
    "or_null",
]

Shape: TypeAlias = dict[str, Any]
"""A JSON Schema, or a part of one."""

ANY: Shape = {}
STRING: Shape = {"type": "string"}
INTEGER: Shape = {"type": "integer"}
NUMBER: Shape = {"type": "number"}
BOOLEAN: Shape = {"type": "boolean"}

ITEM: Shape = {
    "type": "object",
    "description": "An item, or a key, as DynamoDB JSON: the name of an attribute to its type and value.",
    "additionalProperties": {"type": "object", "minProperties": 1, "maxProperties": 1},
}

_PLAIN = {str: STRING, int: INTEGER, float: NUMBER, bool: BOOLEAN}


def closed(properties: Mapping[str, Shape], optional: Sequence[str] = ()) -> Shape:
    """An object of these fields and no other; all but the optional ones are always there."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def array_of(items: Shape) -> Shape:
    """A list of any length."""
    return {"type": "array", "items": items}


def map_of(values: Shape) -> Shape:
    """An object whose fields' names are data."""
    return {"type": "object", "additionalProperties": values}


def or_null(shape: Shape) -> Shape:
    """The same, or null."""
    if set(shape) <= {"type", "description"} and isinstance(shape.get("type"), str):
        return {**shape, "type": [shape["type"], "null"]}
    return {"anyOf": [shape, {"type": "null"}]}


def one_of(*values: str) -> Shape:
    """One of some words."""
    return {"enum": list(values)}


def described(shape: Shape, text: str) -> Shape:
    """The same, with words for people."""
    return {**shape, "description": text}


class Shapes:
    """Schemas of dataclasses, as ``dataclasses.asdict`` makes them objects; each is defined once.

    Attributes:
        definitions: What they refer to, for ``$defs``.
    """

    def __init__(self) -> None:
        self.definitions: dict[str, Shape] = {}

    def of(self, kind: type) -> Shape:
        """Refer to a dataclass."""
        name = kind.__name__
        if name not in self.definitions:
            self.definitions[name] = {}  # first, since it may hold others of its kind
            self.definitions[name] = closed(self.properties(kind))
        return {"$ref": f"#/$defs/{name}"}

    def properties(self, kind: type) -> dict[str, Shape]:
        """The fields of a dataclass or a named tuple."""
        hints = get_type_hints(kind)
        names = [item.name for item in fields(kind)] if is_dataclass(kind) else list(getattr(kind, "_fields", ()))
        return {name: self._of_hint(hints[name]) for name in names}

    def _of_hint(self, hint: Any) -> Shape:
        origin, arguments = get_origin(hint), get_args(hint)
        if hint in _PLAIN:
            return dict(_PLAIN[hint])
        if origin is Literal:
            return one_of(*arguments)
        if origin in (Union, types.UnionType):
            kinds = [kind for kind in arguments if kind is not type(None)]
            shapes = [self._of_hint(kind) for kind in kinds]
            shape = shapes[0] if len(shapes) == 1 else {"type": [each["type"] for each in shapes]}
            return or_null(shape) if len(kinds) < len(arguments) else shape
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return map_of(self._of_hint(arguments[1]))
        if isinstance(origin, type) and issubclass(origin, Sequence):
            return array_of(self._of_hint(arguments[0]))
        if is_dataclass(hint):
            return self.of(hint)  # type: ignore[arg-type]
        if isinstance(hint, type) and issubclass(hint, tuple):
            # A named tuple within a dataclass stays a list.
            places = list(self.properties(hint).values())
            return {"type": "array", "prefixItems": places, "minItems": len(places), "maxItems": len(places)}
        raise TypeError(f"no schema is known of {hint!r}")
