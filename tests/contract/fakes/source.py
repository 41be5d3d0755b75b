"""The in-memory source: rows that the core's tests extract, as lines of PostgreSQL's COPY text format."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal

from etlcli.encoding import AttributeSpec, FromColumn
from etlcli.errors import UsageError
from etlcli.model import BaseTable, Column, PgType, Relation, Selection, SnapshotRecord
from etlcli.ports import Reading

Row = Sequence[str | None]

FAKE_SCHEMA = "shop"
"""The one schema there is."""

_TIMES = ("timestamptz", "timestamp", "date")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\b": "\\b", "\f": "\\f", "\v": "\\v"}


def column(name: str, typname: str) -> Column:
    return Column(name, PgType(typname, typname))


class FakeSource:
    """One table or query.

    ``error`` is raised once so many rows were handed over, where it is set; ``before_batch`` is awaited before each
    batch, with the number of rows that were handed over. ``estimate`` is what the planner makes of the true number of
    rows.
    """

    def __init__(
        self,
        relation: Relation,
        rows: Iterable[Row],
        *,
        batch_rows: int = 100,
        error: tuple[int, BaseException] | None = None,
        before_batch: Callable[[int], Awaitable[None]] | None = None,
        estimate: Callable[[int], int | None] = lambda rows: rows,
    ) -> None:
        self.relation = relation
        self.rows = list(rows)
        self.batch_rows = batch_rows
        self.error = error
        self.before_batch = before_batch
        self.estimate = estimate
        self.opened = 0
        self.closed = 0
        self.handed_over = 0

    @property
    def description(self) -> str:
        return "memory:5432/shop"

    async def tables(self, schema: str) -> list[BaseTable]:
        await asyncio.sleep(0)
        if schema != FAKE_SCHEMA:
            raise UsageError(f"there is no schema {schema!r} in the source", hint=f"Did you mean {FAKE_SCHEMA}?")
        name = self.relation.name or ""
        return [BaseTable(f"{schema}.{name}", schema, name, is_visible=True)]

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
        rows = self._chosen(reading)[: reading.selection.limit]
        if reading.sample is not None:
            # Pages of two rows, all over the table.
            every = max(1, round(100 / reading.sample))
            rows = [row for place, row in enumerate(rows) if place // 2 % every == 0]
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

    async def estimate(self, reading: Reading) -> int | None:
        await asyncio.sleep(0)
        return self._source.estimate(len(self._chosen(reading)[: reading.selection.limit]))

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
        rows = self._chosen(reading)[: reading.selection.limit]
        found = Counter(tuple(row[place] for place in places) for row in rows)
        return [values for values, count in found.items() if count > 1 and None not in values][:5]

    async def split(self, reading: Reading, parts: int) -> list[tuple[str, ...]]:
        await asyncio.sleep(0)
        places = self._places(reading.order_by)
        rows = self._chosen(reading)
        ends = [
            number for number in range(1, len(rows)) if number * parts // len(rows) > (number - 1) * parts // len(rows)
        ]
        return [tuple(rows[number - 1][place] or "" for place in places) for number in ends]

    async def newest(self, selection: Selection, column: str) -> str | None:
        await asyncio.sleep(0)
        found = [text for text in self._cells(selection, column) if text is not None]
        ranks = {text: rank for text in found if (rank := _rank(self._typname(column), text))[1].is_finite()}
        return max(ranks, key=lambda text: ranks[text], default=None)

    async def has_nulls(self, selection: Selection, column: str) -> bool:
        await asyncio.sleep(0)
        return None in self._cells(selection, column)

    async def value(self, selection: Selection, column: str, text: str) -> str:
        await asyncio.sleep(0)
        assert selection.table or selection.query
        typname = self._typname(column)
        try:
            _rank(typname, text)
        except (ValueError, ArithmeticError):
            raise UsageError(f"{text} is no value of {column} ({typname})", hint="Write one.") from None
        if typname in _TIMES and "inf" not in text:
            moment = dt.datetime.fromisoformat(text)
            # Of an offset's minutes PostgreSQL writes none where there are none.
            return str(moment.date()) if typname == "date" else str(moment).replace("+00:00", "+00")
        return text.strip()

    async def precedes(self, selection: Selection, column: str, first: str, second: str) -> bool:
        written = [await self.value(selection, column, text) for text in (first, second)]
        ranks = [_rank(self._typname(column), text) for text in written]
        return ranks[0] <= ranks[1]

    def _cells(self, selection: Selection, column: str) -> list[str | None]:
        assert selection.table or selection.query
        (place,) = self._places([column])
        return [row[place] for row in self._source.rows]

    def _chosen(self, reading: Reading) -> list[Row]:
        rows = self._new(reading)
        wanted = reading.range
        if wanted is None:
            return rows
        places = self._places(reading.order_by)
        typnames = [self._source.relation.columns[place].type.typname for place in places]

        def rank(key: Sequence[str | None]) -> list[tuple[bool, Decimal | str]]:
            assert None not in key
            return [_order(typname, text or "") for typname, text in zip(typnames, key, strict=True)]

        def is_within(row: Row) -> bool:
            own = rank([row[place] for place in places])
            return (
                (wanted.after is None or own > rank(wanted.after))
                and (wanted.first is None or own >= rank(wanted.first))
                and (wanted.last is None or own <= rank(wanted.last))
            )

        return [row for row in rows if is_within(row)]

    def _new(self, reading: Reading) -> list[Row]:
        since = reading.since
        if since is None:
            return self._source.rows
        typname = self._typname(since.column)
        (place,) = self._places([since.column])
        unit = 86_400 if typname == "date" else 1
        infinite, start = _rank(typname, since.value)
        bound = infinite, start - -(-since.overlap // unit) * unit
        return [row for row in self._source.rows if (text := row[place]) is None or _rank(typname, text) >= bound]

    def _typname(self, column: str) -> str:
        return self._source.relation.columns[self._places([column])[0]].type.typname

    def _places(self, columns: Sequence[str]) -> list[int]:
        names = [column.name for column in self._source.relation.columns]
        return [names.index(name) for name in columns]


def _rank(typname: str, text: str) -> tuple[bool, Decimal]:
    """A place in the order of a type's values: NaN after all, seconds for times."""
    if typname not in _TIMES or "inf" in text:
        figure = Decimal(text.strip())
        return (True, Decimal("Infinity")) if figure.is_nan() else (False, figure)
    moment = dt.datetime.fromisoformat(text)
    passed = moment.replace(tzinfo=moment.tzinfo or dt.UTC) - _EPOCH
    return False, Decimal(passed // dt.timedelta(microseconds=1)) / 1_000_000


def _order(typname: str, text: str) -> tuple[bool, Decimal | str]:
    """A place in the order of a key column's values; texts go by their code points."""
    return (False, text) if typname == "text" else _rank(typname, text)


def _line(fields: Row) -> bytes:
    return "\t".join(
        "\\N" if field is None else "".join(_ESCAPES.get(letter, letter) for letter in field) for field in fields
    ).encode()
