"""Which items of a table no row has: all of its keys are read, and held against those that were found by their rows."""

from __future__ import annotations

from contextlib import aclosing

from etlcli.comparison import key_bytes
from etlcli.marking import carries
from etlcli.model import ItemMark, Key
from etlcli.ports import Sink, StoredItem
from etlcli.report import Report
from etlcli.verification.findings import Difference, Verification
from etlcli.verification.known_keys import KnownKeys

__all__ = ["Surplus"]


class Surplus:
    """Looks for surplus items, once all rows' items have been looked at.

    A key that is not known has no row for certain. One that is may be taken for another, and then is counted all the
    same: the table has more items than were found by their rows.

    Args:
        found: Gets what is found.
        key: The table's key.
        mark: The mark that a job's items carry; None where every item counts.
        known: Knows the keys that rows have.
    """

    def __init__(self, found: Verification, key: Key, mark: ItemMark | None, known: KnownKeys | None = None) -> None:
        self._found = found
        self._names = [attribute.name for attribute in key.attributes]
        self._mark = mark
        self._known = known if known is not None else KnownKeys()
        self._accounted = 0

    def account(self, key: StoredItem, item: StoredItem | None) -> None:
        """Note a row's key, and the item under it where there is one."""
        self._known.add(key_bytes(key, self._names))
        self._accounted += item is not None and (self._mark is None or carries(item, self._mark))

    async def look(self, sink: Sink, report: Report) -> None:
        """Read the keys of all items, and note those that no row has.

        Raises:
            EtlError: The destination failed.
        """
        found, counters = self._found, report.counters
        counters.stage = "looking for surplus items"
        found.counts["surplus"] = scanned = 0
        async with aclosing(sink.scan_keys(self._mark)) as pages:  # type: ignore[type-var]
            async for page in pages:
                for place, key in enumerate(page, scanned):
                    if key_bytes(key, self._names) not in self._known:
                        found.note(Difference("surplus", {name: key[name] for name in self._names}), (place,))
                scanned += len(page)
                counters.stage = f"looking for surplus items ({scanned:,} items so far)"
        hidden = scanned - self._accounted - found.counts["surplus"]
        if hidden > 0:
            found.counts["surplus"] += hidden
            items = "1 surplus item" if hidden == 1 else f"{hidden:,} surplus items"
            report.warnings.append(
                f"{items} can only be counted: the table holds more items than were found by their rows. Was it being"
                " written to? Or the rows are too many to tell all keys apart"
            )
