"""The in-memory source: rows that the core's tests extract, as lines of PostgreSQL's COPY text format."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from etlcli.encoding import AttributeSpec, FromColumn
from etlcli.model import Column, PgType, Relation, Selection, SnapshotRecord
from etlcli.ports import Reading

Row = Sequence[str | None]

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def column(name: str, typname: str) -> Column:
    return Column(name, PgType(typname, typname))


class FakeSource:
    """One table or query.

    ``error`` is raised once so many rows were handed over, where it is set; ``before_batch`` is awaited before each
    batch, with the number of rows that were handed over.
    """

    def __init__(
        self,
        relation: Relation,
        rows: Iterable[Row],
        *,
        batch_rows: int = 100,
        error: tuple[int, BaseException] | None = None,
        before_batch: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self.relation = relation
        self.rows = list(rows)
        self.batch_rows = batch_rows
        self.error = error
        self.before_batch = before_batch
        self.opened = 0
        self.closed = 0
        self.handed_over = 0

    @property
    def description(self) -> str:
        return "memory:5432/shop"

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[FakeSnapshot]:
        await asyncio.sleep(0)
        self.opened += 1
        try:
            yield FakeSnapshot(self)
        finally:
            self.closed += 1


class FakeSnapshot:
    def __init__(self, source: FakeSource) -> None:
        self.record = SnapshotRecord("100:100:", 1_786_000_000.0)
        self._source = source

    async def describe(self, selection: Selection) -> Relation:
        assert selection.table or selection.query
        await asyncio.sleep(0)
        return self._source.relation

    async def read(self, reading: Reading) -> AsyncIterator[list[bytes]]:
        source = self._source
        places = self._places(reading.columns)
        rows = source.rows[: reading.selection.limit]
        for start in range(0, len(rows), source.batch_rows):
            if source.before_batch is not None:
                await source.before_batch(start)
            await asyncio.sleep(0)
            if source.error is not None and source.error[0] <= start:
                raise source.error[1]
            batch = [_line([row[place] for place in places]) for row in rows[start : start + source.batch_rows]]
            source.handed_over += len(batch)
            yield batch
        if source.error is not None:
            raise source.error[1]

    async def duplicates(self, reading: Reading, key: Sequence[str | AttributeSpec]) -> list[tuple[str | None, ...]]:
        await asyncio.sleep(0)
        columns = []
        for part in key:
            # Only plain columns: what else a key can be made of is for PostgreSQL to compute.
            spec = FromColumn(part, part) if isinstance(part, str) else part
            assert isinstance(spec, FromColumn)
            assert (spec.cast, spec.mask) == (None, None)
            columns.append(spec.column)
        assert set(columns) <= set(reading.columns)
        places = self._places(columns)
        rows = self._source.rows[: reading.selection.limit]
        found = Counter(tuple(row[place] for place in places) for row in rows)
        return [values for values, count in found.items() if count > 1 and None not in values][:5]

    def _places(self, columns: Sequence[str]) -> list[int]:
        names = [column.name for column in self._source.relation.columns]
        return [names.index(name) for name in columns]


def _line(fields: Row) -> bytes:
    return "\t".join(
        "\\N" if field is None else "".join(_ESCAPES.get(letter, letter) for letter in field) for field in fields
    ).encode()
