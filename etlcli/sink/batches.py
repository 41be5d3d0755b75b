"""The shape of BatchWriteItem: which items go together, a request's bytes, what an answer says. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import orjson

from etlcli.capacity import write_units
from etlcli.sink.translate import Verdict, judge, own_document, reasons_of, text_of, words_of
from etlcli.throttling import Reason

__all__ = ["BATCH_BYTES", "BATCH_ITEMS", "Accepted", "Problem", "batches", "halves", "read_answer", "request", "spread"]

BATCH_ITEMS = 25
"""DynamoDB's limit on the puts of one BatchWriteItem."""

BATCH_BYTES = 1_000_000
"""Bytes of items in one request.

DynamoDB takes 16 MB, but from here on more in one request gains nothing (1 MB is 1,000 write units, a second's worth
of a partition), and costs memory and, on a slow line, the deadline.
"""

_BETWEEN = b'}},{"PutRequest":{"Item":'
_AFTER = b"}}]}}"
_ALL_DONE = b'{"UnprocessedItems":{}}'
_GOLDEN = 0.6180339887498949


class Accepted(NamedTuple):
    """DynamoDB took the request; these items of it, re-serialised, it did not get to."""

    unprocessed: list[bytes]


class Problem(NamedTuple):
    """DynamoDB did not take the request, or its answer cannot be read."""

    verdict: Verdict
    status: int
    code: str
    message: str
    reasons: tuple[Reason, ...] = ()


def spread(items: Sequence[bytes]) -> Sequence[bytes]:
    """Put neighbours far apart, since they often share a hash key, and one partition takes 1,000 writes a second.

    Item number i goes where the fraction of i times the golden section falls: fractions of near numbers lie far apart,
    and those of any run of numbers are spread evenly, so a run that shares a hash key is met all along the way.
    """
    count = len(items)
    if count <= BATCH_ITEMS:
        return items
    fractions = [number * _GOLDEN % 1.0 for number in range(count)]
    return [items[number] for number in sorted(range(count), key=fractions.__getitem__)]


def batches(items: Sequence[bytes], most_units: int | None = None) -> Iterator[list[bytes]]:
    """Divide items, in order, into batches within ``BATCH_ITEMS`` and ``BATCH_BYTES``; a larger item goes alone.

    Args:
        items: The items.
        most_units: A batch's bound in write units; None for none. An item that costs more goes alone.
    """
    batch: list[bytes] = []
    size = units = 0
    for item in items:
        cost = 0 if most_units is None else write_units([item])
        over = size + len(item) > BATCH_BYTES or (most_units is not None and units + cost > most_units)
        if len(batch) == BATCH_ITEMS or (batch and over):
            yield batch
            batch, size, units = [], 0, 0
        batch.append(item)
        size += len(item)
        units += cost
    if batch:
        yield batch


def halves(batch: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Cut a batch of two or more items in two."""
    middle = len(batch) // 2
    return batch[:middle], batch[middle:]


def request(table: str, batch: Sequence[bytes]) -> bytes:
    """Write a BatchWriteItem request of items that are DynamoDB JSON already; they are not looked into.

    Args:
        table: The table's name, of which nothing needs escaping (``names.check_table_name``).
        batch: One item or more.
    """
    parts = list(batch)
    # The frame goes on the outer items, so that all the others are copied once.
    parts[0] = b'{"RequestItems":{"%b":[{"PutRequest":{"Item":%b' % (table.encode(), parts[0])
    parts[-1] += _AFTER
    return _BETWEEN.join(parts)


def read_answer(status: int, body: bytes, *, table: str, sent: int) -> Accepted | Problem:
    """Read the answer to a BatchWriteItem request.

    Args:
        status: The HTTP status.
        body: The answer's bytes.
        table: The table's name.
        sent: How many items were sent: more than those cannot be unprocessed.
    """
    if status == 200 and body == _ALL_DONE:
        return Accepted([])
    document = own_document(status, body)
    if document is None:
        return Problem(judge(status, ""), status, "", text_of(body))
    if status == 200:
        unprocessed = _unprocessed(document, table)
        if unprocessed is None or len(unprocessed) > sent:
            return Problem(Verdict.PASSING, status, "", "an answer that does not say which items were unprocessed")
        return Accepted(unprocessed)
    code, message = words_of(document)
    return Problem(judge(status, code), status, code, message, reasons_of(document, table))


def _unprocessed(document: dict[str, object], table: str) -> list[bytes] | None:
    """The unprocessed items, written anew: they come back in DynamoDB's own spelling, so bytes cannot be compared.

    Nothing is lost by that: in DynamoDB JSON numbers and binaries are strings.
    """
    tables = document.get("UnprocessedItems")
    if not isinstance(tables, dict) or not tables.keys() <= {table}:
        return None
    try:
        return [orjson.dumps(write["PutRequest"]["Item"]) for write in tables.get(table, ())]
    except (KeyError, TypeError):
        return None
