"""The config file, for editors and checkers that read TOML by a JSON Schema. Made of ``etlcli.config.schema`` alone.

It says no less than the program does where JSON Schema can: what depends on two values, or on the services, only the
program tells.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from etlcli.config import SECTIONS, Option
from etlcli.config.kinds import (
    Attributes,
    Choice,
    ChoiceMap,
    Count,
    Duration,
    Flag,
    Kind,
    NameList,
    NameMap,
    OverlapAmount,
    PostgresAddress,
    Price,
    ResourceName,
    ShareOf,
    Size,
    Tags,
)
from etlcli.config.schema import Section
from etlcli.json_schema.shapes import STRING, Shape

__all__ = ["config_schema"]

_TEXT: Shape = {"type": "string", "pattern": r"\S"}
_DURATION = r"^\s*[0-9]{1,18} ?[dhms]?\s*$"
_SIZE = r"^\s*[0-9]{1,18} ?([KMGkmg]([Ii])?)?[Bb]?\s*$"
_SHARE = r"^\s*([0-9]{1,18} ?%?|[0-9]{1,3}\.[0-9]{1,6} ?%)\s*$"
_REFERENCE: Shape = {
    "type": "string",
    "pattern": r"^\s*(env|ssm|secretsmanager):",
    "description": "Stands for a value.",
}
_NAME = r"^\s*[A-Za-z0-9._-]{3,255}\s*$"


def config_schema() -> Shape:
    """Make the schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A config for momento-etl",
        "type": "object",
        "properties": {section.name: _section(section) for section in SECTIONS.values()},
        "additionalProperties": False,
    }


def _section(section: Section) -> Shape:
    keys: Shape = {
        "type": "object",
        "description": section.doc,
        "properties": {option.name: _option(option) for option in section.options.values()},
        "additionalProperties": False,
    }
    if not section.named:
        return keys
    keys["not"] = {"required": ["source", "query"]}
    return {"type": "object", "propertyNames": _TEXT, "additionalProperties": keys}


def _option(option: Option) -> Shape:
    shape = {"description": option.doc, **_kind(option.kind)}
    if option.default not in (None, ""):
        shape["default"] = _json(option.default)
    shape["examples"] = [_json(option.example_value())]
    return shape


def _kind(kind: Kind) -> Shape:
    shape = _values(kind)
    if not kind.scalar or shape in (STRING, _TEXT):
        return shape
    return {"anyOf": [shape, _REFERENCE]}


def _values(kind: Kind) -> Shape:
    """What a kind takes, but for references."""
    match kind:
        case Flag():
            return {"type": "boolean"}
        case Choice():
            return {"enum": list(kind.values)}
        case Count() | Duration() | Size():
            return _figure(kind)
        case ShareOf():
            return {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _SHARE}]}
        case OverlapAmount():
            return {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": _DURATION}]}
        case Price():
            return {"type": ["number", "string"], "minimum": 0}
        case ResourceName():
            return {"type": "string", "pattern": _NAME}
        case _:
            return _collection(kind)


def _collection(kind: Kind) -> Shape:
    """The same, for lists, tables and texts."""
    match kind:
        case NameList():
            names = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True}
            return names if kind.at_most is None else {**names, "maxItems": kind.at_most}
        case Tags():
            tags = {"type": "string", "maxLength": 256}
            names = {"minLength": 1, "maxLength": 128, "not": {"pattern": "^[Aa][Ww][Ss]:"}}
            return {"type": "object", "maxProperties": 50, "propertyNames": names, "additionalProperties": tags}
        case NameMap():
            return _map({"type": "string", "minLength": 1})
        case ChoiceMap():
            return _map({"enum": list(kind.values)})
        case Attributes():
            return _map({"type": ["string", "number", "boolean"]})
        case PostgresAddress():
            return STRING
        case _:
            return _TEXT


def _figure(kind: Count | Duration | Size) -> Shape:
    number: Shape = {"type": "integer", "minimum": kind.minimum}
    if kind.maximum is not None:
        number["maximum"] = kind.maximum
    patterns = {Count: r"^\s*[0-9]{1,18}\s*$", Duration: _DURATION, Size: _SIZE}
    return {"anyOf": [number, {**STRING, "pattern": patterns[type(kind)]}]}


def _map(values: Shape) -> Shape:
    return {"type": "object", "propertyNames": {"minLength": 1}, "additionalProperties": values}


def _json(value: Any) -> Any:
    """Write a value as JSON has it: an exact number as a number, anything else of our own as its text."""
    match value:
        case Decimal():
            return float(value) if value % 1 else int(value)
        case dict():
            return {name: _json(content) for name, content in value.items()}
        case None | str() | bool() | int() | list():
            return value
        case _:
            return str(value)
