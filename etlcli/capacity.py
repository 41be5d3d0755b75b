"""How DynamoDB charges writes and reads: in units, each for some started bytes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from etlcli.encoding import item_size, number_size

__all__ = ["read_units", "write_units"]

_WRITE_UNIT_BYTES = 1024
"""A write request unit is charged for each started so many bytes of an item (Developer Guide)."""

_READ_UNIT_BYTES = 4096
"""The same for a strongly consistent read; a scan is charged for all that it passes over."""

_NUMBER = re.compile(rb'\{"N":"([^"]*)"\}')

# The bytes of an attribute's JSON that are not counted: the comma, the quotes and the colon of its name, and what
# stands around its value. What is no text and no number counts as one byte.
_AROUND_TEXT = len(b',"":{"S":""}')
_ONE_BYTE = {value: len(b',"":') + len(value) - 1 for value in (b'{"BOOL":true}', b'{"BOOL":false}', b'{"NULL":true}')}


def write_units(items: Iterable[bytes]) -> int:
    """Reckon what it costs to put items, each as DynamoDB JSON, where none of them takes the place of a larger one."""
    # An item is never larger than its JSON (see item_size): most are known to be small without a look at them.
    return sum(1 if len(item) <= _WRITE_UNIT_BYTES else _units_of(item) for item in items)


def read_units(size: int) -> int:
    """Reckon what a strongly consistent scan over so many bytes costs."""
    return -(-size // _READ_UNIT_BYTES)


def _units_of(item: bytes) -> int:
    """Reckon one item's units; measuring it value by value costs several times what it took to encode it."""
    if b"\\" in item:
        return _units(item_size(item))
    # No escapes: every quote is one of JSON's own, so what is counted here stands in no text.
    texts, numbers = item.count(b'{"S":"'), _NUMBER.findall(item)
    others = {value: item.count(value) for value in _ONE_BYTE}
    if item.count(b'":{"') != texts + len(numbers) + sum(others.values()):
        return _units(item_size(item))  # something has parts, or is binary
    digits = sum(map(len, numbers))
    size = len(item) - 1 - digits - _AROUND_TEXT * (texts + len(numbers))  # 1: the braces, less a comma
    size -= sum(count * _ONE_BYTE[value] for value, count in others.items())
    # A number counts at least 1 byte, and at most (characters + 2) / 2 + 1.
    least, most = _units(size + len(numbers)), _units(size + digits // 2 + 2 * len(numbers))
    return least if least == most else _units(size + sum(number_size(number.decode()) for number in numbers))


def _units(size: int) -> int:
    return -(-size // _WRITE_UNIT_BYTES)
