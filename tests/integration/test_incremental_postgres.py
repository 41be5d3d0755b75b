"""Incremental runs over PostgreSQL while others write: transactions that commit late, updates, and runs that fail.

Writers stamp rows as ``now()`` does, when their transaction begins, but by a clock that the test moves: what the
overlap has to cover is decided here, and not by how fast the machine is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest

from etlcli import pipeline
from etlcli.encoding import PLAIN
from etlcli.errors import EtlError, SinkError
from etlcli.model import CREATE_DEFAULTS, Incremental, Job, Overlap, Selection
from etlcli.progress import Counters
from etlcli.report import Report
from etlcli.source.postgres import PostgresSnapshot, PostgresSource
from tests.conftest import Schema
from tests.contract.fakes.cache import FakeAccount, FakeCache
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.state import FakeState

OVERLAP = 60
STEPS = 120
WRITERS = 3

# What happens between steps, and how often: of writers, and of runs.
WRITES = {"begin": 14, "change": 30, "at once": 12, "commit": 5, "roll back": 2}
RUNS = {"run": 16, "fail": 3, "part": 3, "halves": 3, "extract": 2}

# How the test's clock is written into each type of column: a number of seconds, which is an overlap's unit, too.
STAMPS = {
    "timestamptz": "timestamptz '2026-08-14 10:00:00+00' + {} * interval '1 second'",
    "timestamp": "timestamp '2026-08-14 10:00:00' + {} * interval '1 second'",
    "bigint": "{}",
    "numeric": "{} + 0.1",
    "double precision": "{} + 0.1",
}


@dataclass
class Copy:
    """A job, and where its rows go."""

    url: str
    overlap: int = OVERLAP
    tables: dict[str, FakeTable] = field(default_factory=dict)
    state: FakeState = field(default_factory=FakeState)
    cached: FakeAccount = field(default_factory=FakeAccount)
    taken: int = 0

    @property
    def job(self) -> Job:
        wanted = Incremental("at", Overlap(self.overlap, is_duration=False))
        return Job("events", Selection("events"), "events", "events", incremental=wanted)

    def run(self, job: Job | None = None, *, errors: tuple[EtlError, ...] = ()) -> Report:
        report = Report("events", destination="events")
        sink = FakeSink("events", report.counters, self.tables, errors=errors)
        source = PostgresSource(self.url, report.counters)
        cache = FakeCache("events", self.cached)
        asyncio.run(pipeline.run(job or self.job, PLAIN, CREATE_DEFAULTS, source, cache, sink, self.state, report))
        self.taken += report.counters.rows_extracted
        return report

    def extract(self) -> None:
        report = Report("events")
        source, cache = PostgresSource(self.url, Counters()), FakeCache("events", self.cached)
        asyncio.run(pipeline.extract(self.job, PLAIN, source, cache, self.state, report))
        self.taken += report.counters.rows_extracted

    def load(self) -> Report:
        report = Report("events", destination="events")
        sink, cache = FakeSink("events", report.counters, self.tables), FakeCache("events", self.cached)
        asyncio.run(pipeline.load(self.job, None, CREATE_DEFAULTS, cache, sink, self.state, report))
        return report

    @property
    def items(self) -> dict[int, str]:
        if "events" not in self.tables:
            return {}
        return {int(it["id"]["N"]): it["v"]["S"] for it in self.tables["events"].items.values()}


@dataclass
class Writer:
    """A transaction that is open, since when, and the rows that it holds locked."""

    connection: psycopg.Connection[tuple[object, ...]]
    began: int
    rows: set[int] = field(default_factory=set)


class Table:
    """The source's table, its writers, and the clock."""

    def __init__(self, schema: Schema, kind: str, opened: ExitStack) -> None:
        self.schema = schema
        self.stamp = STAMPS[kind]
        self.clock = 1000
        self.writers: list[Writer] = []
        self._opened = opened
        self._idle = [self._connect() for _ in range(WRITERS)]
        self._edition = 0
        schema.execute(f"create table events (id integer primary key, v text, at {kind}, unique (at, id))")
        self.write(schema.connection, self.clock, range(40))

    def _connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return self._opened.enter_context(psycopg.connect(self.schema.url))

    def begin(self) -> None:
        self.writers.append(Writer(self._idle.pop(), self.clock))

    def write(self, connection: psycopg.Connection[Any], began: int, ids: Any) -> None:
        self._edition += 1
        rows = ", ".join(f"({number}, 'edition {self._edition}', {self.stamp.format(began)})" for number in ids)
        connection.execute(
            f"insert into events values {rows} on conflict (id) do update set v = excluded.v, at = excluded.at"
        )

    def act(self, what: str, chance: random.Random) -> None:
        """Do something, where there is something to do it with."""
        if what == "begin" and self._idle:
            self.begin()
        elif what == "at once":
            self.write(self.schema.connection, self.clock, [chance.randrange(100, 120)])
        elif what == "change" and self.writers:
            self._change(chance.choice(self.writers), chance)
        elif what in ("commit", "roll back") and self.writers:
            self.end(chance.choice(self.writers), commit=what == "commit")

    def _change(self, writer: Writer, chance: random.Random) -> None:
        """Insert or update some rows that nobody else has locked."""
        locked = {number for other in self.writers if other is not writer for number in other.rows}
        ids = {chance.randrange(90) for _ in range(chance.randint(1, 4))} - locked
        if ids:
            self.write(writer.connection, writer.began, ids)
            writer.rows |= ids

    def end(self, writer: Writer, *, commit: bool) -> None:
        if commit:
            writer.connection.commit()
        else:
            writer.connection.rollback()
        self.writers.remove(writer)
        self._idle.append(writer.connection)

    def pass_by(self, seconds: int, overlap: int) -> None:
        """Move the clock; a transaction that would be open for longer than the overlap commits now, just in time."""
        for writer in list(self.writers):
            if self.clock + seconds - writer.began > overlap:
                self.end(writer, commit=True)
        self.clock += seconds

    @property
    def rows(self) -> dict[int, str]:
        return dict(self.schema.connection.execute("select id, v from events").fetchall())  # type: ignore[arg-type]


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def run(copy: Copy, table: Table, what: str, chance: random.Random) -> None:
    match what:
        case "run":
            copy.run()
            # What is committed by now is there already, and not only at the end.
            assert copy.items == table.rows
        case "fail":
            with pytest.raises(SinkError):
                copy.run(errors=(SinkError("no"),))
        case "part":
            copy.run(replace(copy.job, narrowed_by=("--limit",), selection=Selection("events", limit=3)))
        case "extract":
            copy.extract()
        case "halves":
            copy.extract()
            table.act("change", chance)
            copy.load()


@pytest.mark.parametrize("kind", STAMPS)
@pytest.mark.parametrize("seed", range(5))
def test_no_row_is_missed_whatever_is_written_between_runs(
    schema: Schema, opened: ExitStack, kind: str, seed: int
) -> None:
    chance = random.Random(f"{kind} {seed}")
    table, copy = Table(schema, kind, opened), Copy(schema.url)
    copy.run()
    runs = 1
    for _ in range(STEPS):
        what = chance.choices([*WRITES, *RUNS], [*WRITES.values(), *RUNS.values()])[0]
        if what in WRITES:
            table.act(what, chance)
        else:
            runs += 1
            run(copy, table, what, chance)
        table.pass_by(chance.choice((0, 1, 3, 5, 12)), OVERLAP)
    for writer in list(table.writers):
        table.end(writer, commit=True)
    copy.run()
    assert copy.items == table.rows
    assert copy.taken < runs * len(table.rows) * 0.8  # it did not simply take all of them every time


def test_a_late_commit_is_behind_the_watermark_and_taken_by_the_overlap(schema: Schema, opened: ExitStack) -> None:
    table = Table(schema, "timestamptz", opened)
    within, without = Copy(schema.url, overlap=60), Copy(schema.url, overlap=0)
    table.begin()
    (late,) = table.writers
    table.write(late.connection, late.began, [500])
    table.clock += 60
    table.write(schema.connection, table.clock, [501])
    first = [copy.run() for copy in (within, without)]
    assert {report.watermark.value for report in first if report.watermark} == {"2026-08-14 10:17:40+00"}
    table.end(late, commit=True)
    for copy in (within, without):
        copy.run()
    assert within.items == table.rows
    # Without an overlap it is lost: that is what the overlap is for.
    assert table.rows.keys() - without.items.keys() == {500}


def test_deleted_rows_are_not_seen(schema: Schema, opened: ExitStack) -> None:
    table, copy = Table(schema, "bigint", opened), Copy(schema.url)
    copy.run()
    schema.execute("delete from events where id = 7")
    copy.run()
    assert copy.items.keys() - table.rows.keys() == {7}
    copy.run(replace(copy.job, incremental=Incremental("at", full_refresh=True)))
    assert 7 in copy.items, "a full refresh puts all rows, and removes none"


def test_the_watermark_is_of_the_snapshot_that_is_read(schema: Schema, opened: ExitStack) -> None:
    """What is committed while rows are read is newer than the watermark, and left to the next run."""
    table, copy = Table(schema, "bigint", opened), Copy(schema.url, overlap=0)

    class Busy(PostgresSource):
        @asynccontextmanager
        async def snapshot(self) -> AsyncIterator[PostgresSnapshot]:
            async with super().snapshot() as snapshot:
                table.write(schema.connection, 5000, [600])
                yield snapshot

    report = Report("events", destination="events")
    sink = FakeSink("events", report.counters, copy.tables)
    source, cache = Busy(schema.url, report.counters), FakeCache("events", copy.cached)
    asyncio.run(pipeline.run(copy.job, PLAIN, CREATE_DEFAULTS, source, cache, sink, copy.state, report))
    assert report.watermark is not None
    assert report.watermark.value == "1000"
    assert 600 not in copy.items
    copy.run()
    assert copy.items == table.rows
