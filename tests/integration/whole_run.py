"""Whole runs over the real cache adapter, with a source and a destination in memory."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from etlcli import pipeline
from etlcli.encoding import PLAIN
from etlcli.model import CREATE_DEFAULTS, Job, Relation, Selection
from etlcli.ports import Cache
from etlcli.report import Report
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSource, Row, column
from tests.contract.fakes.state import FakeState

__all__ = ["CACHE", "FILMS", "JOB", "WholeRun", "films"]

CACHE = "etl"
JOB = Job("films", Selection(table="films"), CACHE, "films")
FILMS = Relation(
    name="public.films",
    columns=(column("id", "int4"), column("title", "text"), column("rating", "float8")),
    primary_key=("id",),
    unique_keys=(frozenset({"id"}),),
)


def films(count: int, *, bad_every: int = 0) -> list[Row]:
    """Rows that hardly compress; every so many of them has a number that DynamoDB cannot hold."""
    return [
        (str(n), f"№ {n} {(n + 1) * 7919**9 % 10**30:x}", "NaN" if bad_every and n % bad_every == 0 else f"{n}.5")
        for n in range(count)
    ]


@dataclass
class WholeRun:
    """One job, run over whatever cache is given.

    Attributes:
        rows: The source's rows.
        job: The job.
        relation: The source's table.
        before_batch: Awaited before each batch of 100 rows, with the number of rows that were handed over.
        report: The last command's.
    """

    rows: list[Row]
    job: Job = JOB
    relation: Relation = FILMS
    before_batch: Callable[[int], Awaitable[None]] | None = None
    tables: dict[str, FakeTable] = field(default_factory=dict)
    state: FakeState = field(default_factory=FakeState)
    report: Report = field(default_factory=lambda: Report("films"))

    def _begin(self) -> tuple[FakeSource, FakeSink]:
        self.report = Report(self.job.name)
        source = FakeSource(self.relation, self.rows, before_batch=self.before_batch)
        return source, FakeSink(self.job.destination, self.report.counters, self.tables)

    async def extract(self, cache: Cache) -> Report:
        source, _ = self._begin()
        await pipeline.extract(self.job, PLAIN, source, cache, self.state, self.report)
        return self.report

    async def load(self, cache: Cache) -> Report:
        _, sink = self._begin()
        await pipeline.load(self.job, None, CREATE_DEFAULTS, cache, sink, self.state, self.report)
        return self.report

    async def run(self, cache: Cache) -> Report:
        source, sink = self._begin()
        await pipeline.run(self.job, PLAIN, CREATE_DEFAULTS, source, cache, sink, self.state, self.report)
        return self.report

    def assert_exact(self) -> None:
        """Every row is in the destination, as it should be, or was counted as rejected."""
        names = [it.name for it in self.relation.columns]
        kinds = {"int4": "N", "float8": "N"}
        expected: dict[str, Any] = {}
        for row in self.rows:
            if "NaN" not in row:
                item = {
                    column.name: {kinds.get(column.type.typname, "S"): value}
                    for column, value in zip(self.relation.columns, row, strict=True)
                    if value is not None
                }
                expected[str(row[0])] = item
        found = {item[names[0]]["N"]: item for item in self.tables[self.job.destination].items.values()}
        assert found == expected
        counters = self.report.counters
        assert counters.rows_extracted == len(self.rows)
        assert counters.rows_loaded == len(expected)
        assert counters.rows_rejected == len(self.rows) - len(expected)
