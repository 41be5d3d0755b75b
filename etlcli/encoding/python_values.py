"""Items as Python values and back, exactly: what a user's own function works on.

N    decimal.Decimal; back from int, float and Decimal
S    str; back from uuid.UUID too, and from datetime, date and time as ISO 8601
B    bytes; back from bytearray and memoryview too
BOOL bool      NULL None      L list; back from tuple too      M dict
sets are only made: SS, NS and BS from set and frozenset
"""

from __future__ import annotations

import datetime as dt
import math
import uuid
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any, Final

import orjson

from etlcli.encoding.limits import MAX_ATTRIBUTE_NAME_BYTES, MAX_NESTING_LEVELS
from etlcli.encoding.numeric import number
from etlcli.encoding.registry import Unrepresentable, shorten
from etlcli.encoding.text import quote

__all__ = ["from_python", "name_of", "to_python"]

_MAX_INTEGER_BITS: Final = 420
"""No larger integer is in DynamoDB's range (9.99E+125 has 419 bits), and of much larger ones Python makes no text."""


def to_python(item: bytes) -> dict[str, Any]:
    """Read an item, ``{"id":{"N":"1"},...}``."""
    return {name: _read(value) for name, value in orjson.loads(item).items()}


def _read(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return Decimal(content)
        case "B":
            return a2b_base64(content)
        case "NULL":
            return None
        case "L":
            return [_read(element) for element in content]
        case "M":
            return {name: _read(member) for name, member in content.items()}
        case _:  # S and BOOL
            return content


def from_python(name: str, value: Any) -> bytes:
    """Write the value of an attribute as DynamoDB JSON.

    Raises:
        Unrepresentable: ``transform-value``, ``nesting-depth`` or a number's rules; the message names the attribute.
    """
    try:
        return _written(value, 1)
    except Unrepresentable as problem:
        raise Unrepresentable(
            problem.rule, f"attribute {shorten(name.encode(errors='replace'))}: {problem.message}"
        ) from None


def name_of(name: object) -> bytes:
    """Write the name of an attribute, or of a map's member, as the inside of a JSON string.

    Raises:
        Unrepresentable: ``transform-value``: it cannot be one.
    """
    if not isinstance(name, str):
        raise _unfit(f"{_shown(name)} is no text, so it cannot be a name")
    encoded = _utf8(name)
    if not 0 < len(encoded) <= MAX_ATTRIBUTE_NAME_BYTES:
        raise _unfit(f"the name {shorten(encoded)} is not between 1 and {MAX_ATTRIBUTE_NAME_BYTES} bytes long")
    return quote(encoded)


def _written(value: Any, level: int) -> bytes:
    if level > MAX_NESTING_LEVELS:
        raise Unrepresentable("nesting-depth", f"it has over {MAX_NESTING_LEVELS} levels, which DynamoDB does not take")
    match value:
        case None:
            return b'{"NULL":true}'
        case bool():
            return b'{"BOOL":true}' if value else b'{"BOOL":false}'
        case int() | float() | Decimal():
            return b'{"N":"%b"}' % _number(value)
        case bytes() | bytearray() | memoryview():
            return b'{"B":"%b"}' % b2a_base64(value, newline=False)
        case list() | tuple():
            return b'{"L":[%b]}' % b",".join([_written(element, level + 1) for element in value])
        case dict():
            members = [b'"%b":%b' % (name_of(name), _written(member, level + 1)) for name, member in value.items()]
            return b'{"M":{%b}}' % b",".join(members)
        case set() | frozenset():
            return _set(value)
        case _:
            return b'{"S":"%b"}' % quote(_utf8(_text(value)))


def _text(value: object) -> str:
    match value:
        case str():
            return value
        case uuid.UUID():
            return str(value)
        case dt.datetime():
            text = value.isoformat()
            # As the columns have it: a time in UTC ends in Z.
            return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
        case dt.date() | dt.time():
            return value.isoformat()
    raise _unfit(f"{_shown(value)} is of a type that DynamoDB has no form for")


def _number(value: float | Decimal) -> bytes:
    if isinstance(value, int):
        if value.bit_length() > _MAX_INTEGER_BITS:
            raise Unrepresentable("number-range", "an integer of that size is outside what DynamoDB holds")
        return number(b"%d" % value)
    if not (value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)):
        raise Unrepresentable("number-not-finite", f"{value} is not a number that DynamoDB holds")
    return number((str(value) if isinstance(value, Decimal) else repr(float(value))).encode())


def _set(value: AbstractSet[Any]) -> bytes:
    """Write a set, in the order of its elements' text, so that the same set is the same bytes."""
    if not value:
        raise _unfit("an empty set cannot be kept: DynamoDB has none")
    if all(isinstance(element, str) for element in value):
        kind, texts = b"SS", [quote(_utf8(element)) for element in value]
    elif all(isinstance(element, int | float | Decimal) and not isinstance(element, bool) for element in value):
        kind, texts = b"NS", [_number(element) for element in value]
        if len({Decimal(text.decode()) for text in texts}) < len(texts):
            raise _unfit("a set has a number twice")
    elif all(isinstance(element, bytes) for element in value):
        kind, texts = b"BS", [b2a_base64(element, newline=False) for element in value]
    else:
        raise _unfit("a set has to hold texts only, numbers only, or bytes only")
    return b'{"%b":["%b"]}' % (kind, b'","'.join(sorted(texts)))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise _unfit(
            f"{shorten(text.encode(errors='replace'))} has half a surrogate pair, which is no text in UTF-8"
        ) from None


def _shown(value: object) -> str:
    return f"a value of type {type(value).__module__}.{type(value).__qualname__}".replace("builtins.", "")


def _unfit(problem: str) -> Unrepresentable:
    return Unrepresentable("transform-value", problem)
