"""Compares some items at a time with what the table holds under their keys, read with strong consistency."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import orjson

from etlcli.comparison import AttributeDifference, attribute_differences
from etlcli.marking import carries
from etlcli.model import ItemMark, Key
from etlcli.ports import Sink, StoredItem
from etlcli.progress import Counters
from etlcli.verification.findings import Difference, DifferenceKind, Place, Verification
from etlcli.verification.surplus import Surplus

__all__ = ["Comparer", "cut"]

# What is asked for at once: DynamoDB's most, or less where the items are large.
_MOST_ITEMS = 100
_MOST_BYTES = 1_000_000


def cut(items: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Cut items into what one request asks for."""
    piece: list[bytes] = []
    size = 0
    for item in items:
        if len(piece) == _MOST_ITEMS or (piece and size + len(item) > _MOST_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += len(item)
    if piece:
        yield piece


class Comparer:
    """Compares items for one verification.

    Args:
        found: Gets what is found.
        key: The table's key.
        sink: The table.
        counters: ``rows_compared`` is kept up to date.
        mark: What the table's items carry of any of the job's runs, besides what is compared; None for nothing.
        surplus: Learns which items have a row; None where nobody looks for those that have none.
    """

    def __init__(
        self,
        found: Verification,
        key: Key,
        sink: Sink,
        counters: Counters,
        *,
        mark: ItemMark | None = None,
        surplus: Surplus | None = None,
    ) -> None:
        self._found = found
        self._names = [attribute.name for attribute in key.attributes]
        self._sink = sink
        self._counters = counters
        self._mark = mark
        self._surplus = surplus

    async def compare(self, items: Sequence[bytes], start: Place) -> bool:
        """Compare some items (see ``cut``), and note what differs.

        Args:
            items: What rows make, as DynamoDB JSON.
            start: Where they are among all items.

        Returns:
            Whether nothing differs.

        Raises:
            EtlError: The destination failed.
        """
        rows: list[StoredItem] = [orjson.loads(item) for item in items]
        is_same = True
        for place, (row, (key, item)) in enumerate(zip(rows, await self._fetched(rows), strict=True)):
            differences = () if item is None else tuple(self._differences(row, item))
            if item is None or differences:
                is_same = False
                kind: DifferenceKind = "missing" if item is None else "different"
                self._found.note(Difference(kind, key, differences), (*start, place))
        self._counters.rows_compared += len(rows)
        return is_same

    async def spare(self, keys: Sequence[bytes]) -> None:
        """Account for the items under these keys, whose rows are rejected: they are not surplus, whatever they hold.

        Raises:
            EtlError: The destination failed.
        """
        await self._fetched([orjson.loads(key) for key in keys])

    async def _fetched(self, rows: Sequence[StoredItem]) -> list[tuple[StoredItem, StoredItem | None]]:
        """Fetch each row's item; answer with its key."""
        keys = [{name: row[name] for name in self._names} for row in rows]
        items = await self._sink.fetch([orjson.dumps(key) for key in keys])
        if self._surplus is not None:
            for key, item in zip(keys, items, strict=True):
                self._surplus.account(key, item)
        return list(zip(keys, items, strict=True))

    def _differences(self, row: StoredItem, item: StoredItem) -> list[AttributeDifference]:
        if self._mark is None:
            return attribute_differences(row, item)
        name, prefix = self._mark.attribute, self._mark.prefix
        differences = attribute_differences(row, {it: value for it, value in item.items() if it != name})
        if not carries(item, self._mark):
            # Without it, a run in this mode would not know the item for its own once its row is gone.
            differences.append(AttributeDifference(name, (), {"S": f"{prefix}*"}, item.get(name)))
        return differences
