"""The source of a rehearsal: all rows, watched; or a sample of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from etlcli.encoding import AttributeSpec
from etlcli.forecast.figures import Sample
from etlcli.model import BaseTable, Relation, Selection
from etlcli.ports import Reading, Snapshot, Source
from etlcli.progress import Counters

__all__ = ["SAMPLE_ROWS", "RehearsedSource"]

SAMPLE_ROWS = 2000
"""How many rows a sample should have."""

# A table that should have no more than so many rows is read whole; and no sample, whatever the planner believes, has
# more of them, or of their bytes.
_MOST_ROWS = 5 * SAMPLE_ROWS
_MOST_BYTES = 32 * 1024 * 1024


class RehearsedSource:
    """A source that is read once, all of it or a sample.

    Args:
        source: The source itself.
        counters: What is shown while it is read: the rows so far, and how many there should be.
        exact: Whether all rows are read.

    Attributes:
        sample: Which rows were read.
        checks_duplicates: Whether PostgreSQL was asked for rows that share a key, where it had to be.
        relation: What it said of the selection; None before it was asked.
    """

    def __init__(self, source: Source, counters: Counters, *, exact: bool) -> None:
        self._source = source
        self._counters = counters
        self._exact = exact
        self.sample = Sample(0, is_whole=True, total=0)
        self.checks_duplicates = True
        self.relation: Relation | None = None

    @property
    def description(self) -> str:
        """The source's."""
        return self._source.description

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[_Watched]:
        """Open a snapshot of the source."""
        async with self._source.snapshot() as snapshot:
            yield _Watched(snapshot, self, self._counters, exact=self._exact)

    async def tables(self, schema: str) -> list[BaseTable]:
        """The source's."""
        return await self._source.tables(schema)


class _Watched:
    """A snapshot of a source that is rehearsed with."""

    def __init__(self, snapshot: Snapshot, source: RehearsedSource, counters: Counters, *, exact: bool) -> None:
        self.record = snapshot.record
        self._snapshot = snapshot
        self._source = source
        self._counters = counters
        self._exact = exact
        self._can_be_sampled = False
        self._has_ended = False

    async def describe(self, selection: Selection) -> Relation:
        self._counters.stage = "planning"
        relation = self._source.relation = await self._snapshot.describe(selection)
        # What holds its rows itself: PostgreSQL takes no samples of views and foreign tables.
        self._can_be_sampled = relation.name is not None and relation.stored_bytes is not None
        return relation

    async def duplicates(self, reading: Reading, key: Sequence[str | AttributeSpec]) -> list[tuple[str | None, ...]]:
        # That takes all rows to be read, and sorted.
        if not self._exact and await self._estimated(reading) > _MOST_ROWS:
            self._source.checks_duplicates = False
            return []
        self._counters.stage = "looking for duplicate keys"
        return await self._snapshot.duplicates(reading, key)

    async def newest(self, selection: Selection, column: str) -> str | None:
        return await self._snapshot.newest(selection, column)

    async def has_nulls(self, selection: Selection, column: str) -> bool:
        return await self._snapshot.has_nulls(selection, column)

    async def value(self, selection: Selection, column: str, text: str) -> str:
        return await self._snapshot.value(selection, column, text)

    async def split(self, reading: Reading, parts: int) -> list[tuple[str, ...]]:
        return await self._snapshot.split(reading, parts)

    async def precedes(self, selection: Selection, column: str, first: str, second: str) -> bool:
        return await self._snapshot.precedes(selection, column, first, second)

    async def estimate(self, reading: Reading) -> int | None:
        return await self._snapshot.estimate(reading)

    async def read(self, reading: Reading) -> AsyncIterator[list[bytes]]:
        self._counters.rows_expected = total = await self._estimated(reading)
        self._counters.stage = "reading"
        async with aclosing(self._all(reading) if self._exact else self._some(reading, total)) as batches:
            async for batch in batches:
                yield batch

    async def _estimated(self, reading: Reading) -> int:
        return await self._snapshot.estimate(reading) or 0

    async def _all(self, reading: Reading) -> AsyncGenerator[list[bytes], None]:
        rows = 0
        async with aclosing(self._snapshot.read(reading)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                rows += len(batch)
                self._counters.rows_extracted += len(batch)
                yield batch
        self._source.sample = Sample(rows, is_whole=True, total=rows)

    async def _some(self, reading: Reading, total: int) -> AsyncGenerator[list[bytes], None]:
        """Read a sample: spread over the table where it can be; else the first rows, which may be all there are."""
        limit = reading.selection.limit
        seems_small = total <= _MOST_ROWS
        if not seems_small and limit is None and self._can_be_sampled:
            async with aclosing(self._bounded(reading._replace(sample=100 * SAMPLE_ROWS / total))) as batches:
                async for batch in batches:
                    yield batch
            if self._counters.rows_extracted:
                self._note(total, is_whole=False)
                return
        most = _MOST_ROWS if seems_small else SAMPLE_ROWS
        if limit is None or limit > most:
            reading = reading._replace(selection=replace(reading.selection, limit=most))
        async with aclosing(self._bounded(reading)) as batches:
            async for batch in batches:
                yield batch
        rows = self._counters.rows_extracted
        self._note(total, is_whole=self._has_ended and (rows < most or rows == limit))

    async def _bounded(self, reading: Reading) -> AsyncGenerator[list[bytes], None]:
        """Read until it ends, or there is enough of it."""
        rows = size = 0
        self._has_ended = False
        async with aclosing(self._snapshot.read(reading)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                rows += len(batch)
                size += sum(map(len, batch))
                self._counters.rows_extracted += len(batch)
                yield batch
                if rows > _MOST_ROWS or size > _MOST_BYTES:
                    return
        self._has_ended = True

    def _note(self, total: int, *, is_whole: bool) -> None:
        rows = self._counters.rows_extracted
        self._source.sample = Sample(rows, is_whole, total=rows if is_whole else max(total, rows))
