"""What DynamoDB takes, as named constants, and how it measures an item.

Sources, each named where it is used:

* *guide*: the Amazon DynamoDB Developer Guide, "Constraints", "Naming rules" and "Item sizes and formats".
* *measured*: facts that paritysuite/dynamodb-conformance measured against the service in 2026
  (``src/item-size.ts``, ``tests/tier3/limits/nestingDepth.test.ts``), where the guide is vague or wrong.
"""

from __future__ import annotations

from binascii import a2b_base64
from typing import Any, Final

import orjson

__all__ = [
    "MAX_ATTRIBUTE_NAME_BYTES",
    "MAX_HASH_KEY_BYTES",
    "MAX_ITEM_BYTES",
    "MAX_KEY_NAME_BYTES",
    "MAX_NESTING_LEVELS",
    "MAX_NUMBER_DIGITS",
    "MAX_NUMBER_EXPONENT",
    "MAX_RANGE_KEY_BYTES",
    "MIN_NUMBER_EXPONENT",
    "item_size",
    "nesting_levels",
    "number_size",
]

MAX_ITEM_BYTES: Final = 409_600
"""400 KB of 1,024 bytes, attribute names included (guide); this many are taken, one more is not (measured)."""

MAX_HASH_KEY_BYTES: Final = 2048
"""Bytes of a hash key's value: UTF-8 of an S, raw bytes of a B (guide). A number always fits."""

MAX_RANGE_KEY_BYTES: Final = 1024
"""The same for a range key (guide)."""

MAX_KEY_NAME_BYTES: Final = 255
"""Bytes of a key attribute's name. The guide says so of indexes; tables are the same (Alternator's tests on AWS)."""

MAX_ATTRIBUTE_NAME_BYTES: Final = 65_535
"""Bytes of any attribute's name: at least one character and less than 64 KB (guide)."""

MAX_NUMBER_DIGITS: Final = 38
"""Significant digits of an N, leading and trailing zeros not counted (guide)."""

MAX_NUMBER_EXPONENT: Final = 125
"""The decimal exponent of the largest N: 9.99...E+125 (guide)."""

MIN_NUMBER_EXPONENT: Final = -130
"""The decimal exponent of the smallest N that is not zero: 1E-130 (guide)."""

MAX_NESTING_LEVELS: Final = 32
"""Levels of an attribute's value, itself the first: a scalar within 31 maps is taken, within 32 not (measured)."""


def number_size(text: str) -> int:
    """Reckon the bytes that DynamoDB counts for a number.

    A byte for each pair of digits that is not zeros alone, one byte more, and one for a minus sign; zero is one byte
    whatever its spelling (measured; the guide says "approximately" and less).

    Args:
        text: A number as an N attribute holds it.
    """
    mantissa, _, exponent = text.lower().partition("e")
    negative = mantissa.startswith("-")
    whole, _, fraction = mantissa.lstrip("+-").partition(".")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 1
    point = len(digits) - len(fraction) + int(exponent or 0)  # how many of the digits stand before the decimal point
    digits = digits.rstrip("0")
    # Pairs are counted from the decimal point on, both ways: 120 is (1)(20) and takes a byte more than 12.
    begins_within_a_pair = point % 2 == 1
    return 1 + (len(digits) + begins_within_a_pair + 1) // 2 + negative


def _value_size(value: dict[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            return number_size(content)
        case "B":
            return len(a2b_base64(content))
        case "L":
            return 3 + sum(1 + _value_size(element) for element in content)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _value_size(member) for name, member in content.items())
        case "SS" | "NS" | "BS":
            # Reckoned like a list, which is no less than what the guide says of sets: nothing.
            return 3 + sum(1 + _value_size({kind[0]: element}) for element in content)
        case _:  # BOOL and NULL
            return 1


def item_size(item: bytes) -> int:
    """Reckon an item's size as DynamoDB measures it against ``MAX_ITEM_BYTES``.

    Names and strings are their UTF-8 bytes, binaries their raw bytes, BOOL and NULL one byte; a list or map is three
    bytes, one more for each element or pair, and its contents (guide).

    An item is never larger than its DynamoDB JSON, so only long JSON has to be measured. By induction each value's JSON
    is longer than the value's size by one byte or more: S, N and B spend 8 bytes on ``{"S":""}`` around a text that is
    no shorter than what is counted (JSON escapes only add; base64 is longer than its bytes; a number counts at most
    (digits + 2) / 2 + 2); ``{"BOOL":true}`` and ``{"NULL":true}`` are 13 and 12 bytes for 1; a list or map spends 8 on
    ``{"L":[]}`` for 3, and a pair 3 on quotes and colon for 1; an element's extra byte is the one byte left over
    (in a set, one of its quotes).

    Args:
        item: DynamoDB JSON, ``{"id":{"N":"1"},...}``, nested no deeper than ``MAX_NESTING_LEVELS``.
    """
    return sum(len(name.encode()) + _value_size(value) for name, value in orjson.loads(item).items())


def nesting_levels(value: bytes) -> int:
    """Count an attribute value's levels: 1 for a scalar or an empty list, 2 for a list of scalars, and so on.

    Made for values of any depth, so it neither recurses nor builds a tree.

    Args:
        value: An attribute value as DynamoDB JSON, ``{"L":[{"N":"1"}]}``.
    """
    braces = level = deepest = 0
    # Whatever stands between quotes is out of the way in the odd parts, once escaped quotes are gone.
    for part in value.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[0::2]:
        for byte in part:
            if byte in b"{[":
                braces += 1
                # Every value opens one brace, every container one more inside it: values stand at odd depths.
                if braces % 2:
                    level = (braces + 1) // 2
                    deepest = max(deepest, level)
            elif byte in b"}]":
                braces -= 1
    return deepest
