"""Whether an item is what a row makes: by value, and where not, in which attribute. Pure.

DynamoDB keeps values, not spellings: a number loses its zeros and its exponent, a set its order. What is equal by value
is equal here, whatever it looks like.
"""

from __future__ import annotations

from binascii import Error, a2b_base64
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

__all__ = ["AttributeDifference", "AttributeValue", "Path", "attribute_differences", "key_bytes"]

AttributeValue: TypeAlias = Mapping[str, Any]
"""One value as DynamoDB JSON: ``{"N": "1"}``."""

Path: TypeAlias = tuple[str | int, ...]
"""A place within an attribute's value: names of maps and numbers of lists."""

_DIGITS = frozenset("0123456789")


class AttributeDifference(NamedTuple):
    """How an attribute of an item differs from the row's: the first place at which it does.

    Attributes:
        attribute: Its name.
        path: Where within it; empty for the attribute itself.
        expected: What the row has there; None where it has nothing.
        found: The same of the item.
    """

    attribute: str
    path: Path
    expected: AttributeValue | None
    found: AttributeValue | None


def attribute_differences(
    expected: Mapping[str, AttributeValue], found: Mapping[str, AttributeValue]
) -> list[AttributeDifference]:
    """Compare an item with what its row makes.

    Args:
        expected: What the row makes, as DynamoDB JSON.
        found: The item, the same.

    Returns:
        At most one difference for each attribute, the row's own attributes first.
    """
    if expected == found:
        return []
    differences = []
    for name in dict.fromkeys([*expected, *found]):
        difference = _difference(expected.get(name), found.get(name))
        if difference is not None:
            differences.append(AttributeDifference(name, *difference))
    return differences


def key_bytes(item: Mapping[str, AttributeValue], names: Sequence[str]) -> bytes:
    """Write an item's key so that equal keys, and no others, are equal bytes.

    Args:
        item: The item, or its key alone, as DynamoDB JSON.
        names: The key's attributes, always in the same order.
    """
    parts = []
    for name in names:
        ((kind, content),) = item[name].items()
        value = _bytes(content) if kind == "B" else (_number(content) if kind == "N" else content).encode()
        parts.append(b"%b%d:%b" % (kind.encode(), len(value), value))
    return b"".join(parts)


def _difference(
    expected: AttributeValue | None, found: AttributeValue | None
) -> tuple[Path, AttributeValue | None, AttributeValue | None] | None:
    """Find the first place at which two values differ, in the row's order."""
    if expected == found:
        return None
    here = (), expected, found
    if expected is None or found is None:
        return here
    ((kind, wanted),), ((other_kind, there),) = expected.items(), found.items()
    if kind != other_kind:
        return here
    if kind == "M":
        return _first((name, wanted.get(name), there.get(name)) for name in dict.fromkeys([*wanted, *there]))
    if kind == "L":
        return _first((place, *pair) for place, pair in enumerate(zip_longest(wanted, there)))
    return None if _is_same(kind, wanted, there) else here


def _first(
    parts: Iterable[tuple[str | int, AttributeValue | None, AttributeValue | None]],
) -> tuple[Path, AttributeValue | None, AttributeValue | None] | None:
    for step, expected, found in parts:
        difference = _difference(expected, found)
        if difference is not None:
            path, wanted, there = difference
            return (step, *path), wanted, there
    return None


def _is_same(kind: str, expected: Any, found: Any) -> bool:
    """Compare what has no parts, or has them in no order."""
    match kind:
        case "N":
            return _number(expected) == _number(found)
        case "B":
            return _bytes(expected) == _bytes(found)
        case "SS":
            return set(expected) == set(found)
        case "NS":
            return set(map(_number, expected)) == set(map(_number, found))
        case "BS":
            return set(map(_bytes, expected)) == set(map(_bytes, found))
        case _:
            return bool(expected == found)


def _number(text: str) -> str:
    """Write a number's value in its one plain form: no exponent, no zeros that say nothing, no negative zero."""
    if text[:1] not in ("0", "") and _DIGITS.issuperset(text):
        return text
    try:
        # Exact, both ways: neither looks at the context's precision.
        plain = format(Decimal(text), "f")
    except InvalidOperation:
        return text
    minus, digits = ("-", plain[1:]) if plain.startswith("-") else ("", plain)
    whole, _, fraction = digits.partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    value = f"{whole}.{fraction}" if fraction else whole
    return value if value == "0" else minus + value


def _bytes(text: str) -> bytes:
    try:
        return a2b_base64(text)
    except Error:
        return text.encode()
