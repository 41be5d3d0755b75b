"""The mark of mode ``replace``: one attribute more on each item, spliced into what is encoded already. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from etlcli.model import ItemMark, Key

__all__ = ["carries", "key_of", "mark_bytes", "marked"]

# The id of the job's mark (12 hex digits), a slash, and a run_id (24 characters).
_VALUE_BYTES = 37


def mark_bytes(attribute: str) -> int:
    """The bytes that the mark takes of an item's 400 KB: names count, in UTF-8."""
    return len(attribute.encode()) + _VALUE_BYTES


def marked(items: Sequence[bytes], mark: ItemMark) -> list[bytes]:
    """Add the mark to items, each DynamoDB JSON with at least its key's attribute."""
    start = orjson.dumps({mark.attribute: {"S": mark.value}})[:-1] + b","
    return [start + item[1:] for item in items]


def carries(item: Mapping[str, Any], mark: ItemMark) -> bool:
    """Whether an item that was read carries a job's mark, of whichever run."""
    found = item.get(mark.attribute, {}).get("S")
    return isinstance(found, str) and found.startswith(mark.prefix)


def key_of(item: bytes, key: Key) -> str:
    """Take an item's key out of it, as DynamoDB JSON text."""
    document = orjson.loads(item)
    return orjson.dumps({attribute.name: document[attribute.name] for attribute in key.attributes}).decode()
