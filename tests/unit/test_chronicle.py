"""A run's history while it goes on: written in order, never in the way, and told of once where it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from etlcli import chronicle, pipeline
from etlcli.chronicle import Chronicle, recorded
from etlcli.encoding import PLAIN
from etlcli.errors import ConfigError, SinkError, SourceError, Unavailable, UsageError
from etlcli.model import CREATE_DEFAULTS, Column, Incremental, Job, Key, KeyAttribute, PgType, Relation, Selection
from etlcli.ports import StateStore
from etlcli.report import Report
from etlcli.state import DEFAULT_STATE_TABLE, NullState, RunRecord, SchemaColumn, schema_of
from tests.contract.fakes.cache import FakeAccount, FakeCache
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSource, column
from tests.contract.fakes.state import FakeState, FakeStateTable

BOUND = 60  # seconds after which a test is given up

JOB = Job("movies", Selection(table="movies"), "etl", "movies")
RUN = "20260814T101502123Z-7f3a"
COLUMNS = (Column("id", PgType("integer", "int4")), Column("title", PgType("text", "text")))
FEWER = COLUMNS[:1]
GOES_ON = "This run goes on without"

Body = Callable[[Chronicle], Awaitable[None]]


class Watched(FakeState):
    """A state that tells what was written to it, and holds writes and reads back until they may go on."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.written: list[RunRecord] = []
        self.may_write, self.may_read = asyncio.Event(), asyncio.Event()
        self.may_write.set()
        self.may_read.set()

    async def put_run(self, record: RunRecord) -> None:
        await self.may_write.wait()
        await super().put_run(record)
        self.written.append(record)

    async def fetch_runs(self, job: str | None, limit: int) -> list[RunRecord]:
        await self.may_read.wait()
        return await super().fetch_runs(job, limit)

    @property
    def statuses(self) -> list[str]:
        return [record.status for record in self.written]


def new_report(run_id: str = RUN) -> Report:
    report = Report("movies")
    report.run_id = run_id
    return report


def went(body: Body, state: StateStore, report: Report, *, job: Job = JOB, command: str = "run") -> None:
    """Go through a recorded run whose inside is the body."""

    async def main() -> None:
        async with asyncio.timeout(BOUND), recorded(command, job, state, report) as kept:
            await body(kept)

    asyncio.run(main())


async def begins(kept: Chronicle) -> None:
    kept.begin(COLUMNS)


def past(state: FakeState, *records: RunRecord) -> None:
    async def main() -> None:
        for record in records:
            await state.put_run(record)

    asyncio.run(main())


def earlier(number: int = 1, **changes: Any) -> RunRecord:
    record = RunRecord("movies", f"20260813T10150{number:04d}Z-0000", "run", "ada", "succeeded", 1e9, 1e9 + number)
    return replace(record, **{"columns": schema_of(COLUMNS), **changes})


# --- In order


def test_a_run_is_written_when_it_begins_and_when_it_is_over() -> None:
    state, report = Watched(), new_report()

    async def body(kept: Chronicle) -> None:
        kept.begin(COLUMNS)
        report.counters.rows_loaded = 7
        await asyncio.sleep(0)

    went(body, state, report)
    begun, over = state.written
    assert (begun.status, begun.ended_at, begun.counts) == ("running", None, {})
    assert begun.columns == (SchemaColumn("id", "integer"), SchemaColumn("title", "text"))
    assert replace(over, status="running", ended_at=None, counts={}) == begun
    assert over.status == "succeeded"
    assert over.ended_at is not None
    assert over.ended_at >= over.started_at
    assert over.counts["rows_loaded"] == 7
    assert (over.error, over.hint) == (None, None)
    assert report.warnings == []


def test_rejected_rows_show() -> None:
    state, report = Watched(), new_report()
    report.counters.rows_rejected = 1
    went(begins, state, report)
    assert state.statuses == ["running", "rejected_rows"]


def test_the_rows_wait_for_nothing() -> None:
    state, report = Watched(), new_report()
    moved: list[bool] = []

    async def body(kept: Chronicle) -> None:
        state.may_read.clear()
        state.may_write.clear()
        kept.begin(COLUMNS)
        for _ in range(10):
            await asyncio.sleep(0)
        moved.append(not state.written)
        asyncio.get_running_loop().call_soon(state.may_read.set)
        asyncio.get_running_loop().call_soon(state.may_write.set)

    went(body, state, report)
    assert moved == [True]
    # The end waits for the beginning: the other way round, the run would seem to run for ever.
    assert state.statuses == ["running", "succeeded"]


def test_a_run_that_never_began_leaves_nothing() -> None:
    state, report = Watched(), new_report()

    async def fails(_: Chronicle) -> None:
        raise SourceError("no such table")

    with pytest.raises(SourceError):
        went(fails, state, report)
    assert state.account == {}, "not even a table"


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (SinkError("DynamoDB refuses", hint="ask it nicely"), "DynamoDB refuses", "ask it nicely"),
        (
            ExceptionGroup("", [Unavailable("gone"), ExceptionGroup("", [SinkError("refused", hint="h")])]),
            "refused",
            "h",
        ),
        (KeyError("s3cret"), "momento-etl itself failed: KeyError", None),
    ],
)
def test_a_failure_is_written_with_its_cause(error: Exception, message: str, hint: str | None) -> None:
    state, report = Watched(), new_report()

    async def fails(kept: Chronicle) -> None:
        kept.begin(COLUMNS)
        raise error

    with pytest.raises(type(error)) as caught:
        went(fails, state, report)
    assert caught.value is error
    assert state.statuses == ["running", "failed"]
    assert state.written[-1].error == message
    assert hint is None or state.written[-1].hint == hint
    assert "s3cret" not in str(state.written)


def interrupted(state: Watched, report: Report, before: Callable[[], None] = lambda: None) -> None:
    """Cancel a run in its middle."""

    async def main() -> None:
        inside = asyncio.Event()

        async def run() -> None:
            async with recorded("run", JOB, state, report) as kept:
                before()
                kept.begin(COLUMNS)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(run())
        await inside.wait()
        task.cancel()
        async with asyncio.timeout(BOUND):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing goes on behind its back"

    asyncio.run(main())


def test_an_interrupted_run_says_so() -> None:
    state = Watched()
    interrupted(state, new_report())
    assert state.statuses == ["running", "interrupted"]


def test_an_interrupted_run_does_not_wait_for_a_table_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "_CLOSING_SECONDS", 0.01)
    state = Watched()
    interrupted(state, new_report(), state.may_write.clear)
    assert state.written == []


# --- Where it cannot be written


def broken(**given: Any) -> list[Any]:
    return [pytest.param(make, id=name) for name, make in given.items()]


@pytest.mark.parametrize(
    "make",
    broken(
        denied=lambda: Watched(errors=[SinkError("may not call DescribeTable", hint="ask")] * 9),
        unreachable=lambda: Watched(errors=[Unavailable("nobody answers")] * 9),
        not_creatable=lambda: Watched(creatable=False),
        taken=lambda: Watched(account={DEFAULT_STATE_TABLE: FakeStateTable(Key(KeyAttribute("movie_id", "N")))}),
        one_fault=lambda: Watched(errors=[Unavailable("nobody answers")]),
    ),
)
def test_a_run_goes_on_without_and_warns_once(make: Callable[[], Watched]) -> None:
    state, report = make(), new_report()
    went(begins, state, report)
    (warning,) = report.warnings
    assert GOES_ON in warning
    assert "[state] enabled = false" in warning
    assert not warning.startswith(GOES_ON), "it says why"


def test_a_look_back_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "_LOOK_SECONDS", 0.01)
    state, report = Watched(), new_report()
    state.may_read.clear()
    went(begins, state, report)
    assert state.statuses == ["running", "succeeded"], "what can be written is"
    (warning,) = report.warnings
    assert "does not answer" in warning


def test_an_end_is_written_though_the_beginning_could_not_be() -> None:
    state, report = Watched(), new_report()
    # The look back, then the beginning.
    state.errors = [Unavailable("nobody answers")] * 2
    went(begins, state, report)
    assert state.statuses == ["succeeded"]


def test_a_run_that_is_over_does_not_wait_where_its_beginning_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicle, "_CLOSING_SECONDS", 0.01)
    tried: list[str] = []

    class Stuck(FakeState):
        async def put_run(self, record: RunRecord) -> None:
            tried.append(record.status)
            if record.status == "running":
                raise Unavailable("nobody answers")
            await asyncio.Event().wait()

    report = new_report()
    went(begins, Stuck(), report)
    assert tried == ["running", "succeeded"]
    assert len(report.warnings) == 1


def test_without_a_table_by_configuration_there_is_nothing_to_warn_of() -> None:
    report = new_report()
    went(begins, NullState(), report)
    assert report.warnings == []


# --- Drift


def test_changes_are_told_and_the_run_goes_on() -> None:
    state, report = Watched(), new_report()
    past(state, earlier(columns=schema_of(FEWER)))
    went(begins, state, report)
    assert [str(change) for change in report.schema_changes] == ["title (text) was added"]
    (warning,) = report.warnings
    assert warning == "columns of movies changed since its last run:\n  title (text) was added"
    # The next one finds the new columns.
    again = new_report("20260815T000000000Z-0000")
    went(begins, state, again)
    assert (again.schema_changes, again.warnings) == ([], [])


def test_a_load_keeps_what_its_extraction_saw() -> None:
    state = Watched()
    past(state, earlier(run_id=RUN))

    async def loads(kept: Chronicle) -> None:
        kept.begin()

    went(loads, state, new_report(), command="load")
    assert (state.written[-1].command, state.written[-1].columns) == ("load", schema_of(COLUMNS))
    # So a later run still has something to be compared with, though the record of the first one was written over.
    later = new_report("20260815T000000000Z-0000")

    async def run(kept: Chronicle) -> None:
        kept.begin(FEWER)

    went(run, state, later)
    assert [str(change) for change in later.schema_changes] == ["title (text) was removed"]
    # One that nobody recorded has seen nothing.
    went(loads, state, new_report("20260816T000000000Z-0000"), command="load")
    assert state.written[-1].columns == ()


def test_the_widest_table_there_is() -> None:
    columns = tuple(
        Column(f"{n:04d}" + "ü" * 29, PgType("timestamp(6) without time zone", "timestamp")) for n in range(1600)
    )
    state, report = Watched(), new_report()

    async def run(kept: Chronicle) -> None:
        kept.begin(columns)

    went(run, state, report)
    wider = new_report("20260815T000000000Z-0000")

    async def run_again(kept: Chronicle) -> None:
        kept.begin([*columns[1:], Column("more", PgType("text", "text"))])

    went(run_again, state, wider)
    assert len(wider.schema_changes) == 2


# --- Through the story


class World:
    """A source of one row, and all that a run writes to."""

    def __init__(self, state: StateStore) -> None:
        self.state = state
        self.source = FakeSource(
            Relation("public.movies", (column("id", "int4"),), ("id",), (frozenset({"id"}),)), [("1",)]
        )
        self.caches = FakeAccount()
        self.tables: dict[str, FakeTable] = {}
        self.report = Report("movies")

    def widen(self) -> None:
        self.source.relation = replace(
            self.source.relation, columns=(*self.source.relation.columns, column("title", "text"))
        )
        self.source.rows = [(*row, None) for row in self.source.rows]

    def run(self, job: Job = JOB) -> Report:
        self.report = Report("movies")
        sink = FakeSink("movies", self.report.counters, self.tables)

        async def main() -> None:
            cache = FakeCache("etl", self.caches)
            async with asyncio.timeout(BOUND):
                await pipeline.run(job, PLAIN, CREATE_DEFAULTS, self.source, cache, sink, self.state, self.report)

        asyncio.run(main())
        return self.report

    def extract(self, job: Job) -> Report:
        self.report = Report("movies")

        async def main() -> None:
            cache = FakeCache("etl", self.caches)
            async with asyncio.timeout(BOUND):
                await pipeline.extract(job, PLAIN, self.source, cache, self.state, self.report)

        asyncio.run(main())
        return self.report


FROZEN = replace(JOB, freezes_schema=True)


def test_a_frozen_job_moves_nothing_once_columns_changed() -> None:
    state = Watched()
    world = World(state)
    assert world.run(FROZEN).warnings == [], "the first run of all has nothing to be compared with"
    world.widen()
    world.caches, world.tables = FakeAccount(), {}
    written = list(state.written)
    for move in (world.run, world.extract):
        with pytest.raises(SourceError, match="title"):
            move(FROZEN)
        assert [str(change) for change in world.report.schema_changes] == ["title (text) was added"]
        assert (world.tables, world.caches.caches) == ({}, {})
    assert state.written == written, "it never began"
    # Accepted once, it goes on.
    accepted = world.run(JOB)
    assert len(accepted.schema_changes) == 1
    assert world.run(FROZEN).schema_changes == []
    assert world.extract(FROZEN).run_id is not None


@pytest.mark.parametrize("state", [FakeState(errors=[SinkError("denied", hint="ask")]), NullState()], ids=type)
def test_a_frozen_job_does_not_go_on_without_a_state(state: StateStore) -> None:
    world = World(state)
    with pytest.raises((SinkError, ConfigError)):
        world.run(FROZEN)
    assert (world.tables, world.caches.caches) == ({}, {})


@pytest.mark.parametrize(
    "job",
    [replace(JOB, mode="replace"), replace(JOB, incremental=Incremental("id"))],
    ids=["replace", "incremental"],
)
@pytest.mark.parametrize(
    "make",
    broken(
        denied=lambda: FakeState(errors=[SinkError("denied", hint="ask")] * 9),
        taken=lambda: FakeState(account={DEFAULT_STATE_TABLE: FakeStateTable(Key(KeyAttribute("movie_id", "N")))}),
        off=NullState,
    ),
)
def test_what_needs_the_state_fails_before_a_row_moves(job: Job, make: Callable[[], StateStore]) -> None:
    world = World(make())
    with pytest.raises((SinkError, UsageError)):
        world.run(job)
    assert not world.tables.get("movies", FakeTable(Key(KeyAttribute("id", "N")))).items
    assert world.source.handed_over == 0


def test_a_run_that_fails_in_its_middle_is_written() -> None:
    state = Watched()
    world = World(state)
    world.source.error = (0, SourceError("the connection broke", hint="run again"))
    with pytest.raises(SourceError):
        world.run()
    assert state.statuses == ["running", "failed"]
    assert (state.written[-1].error, state.written[-1].hint) == ("the connection broke", "run again")


def test_a_state_that_fails_does_not_hide_what_failed() -> None:
    class Forgetting(FakeState):
        async def put_run(self, record: RunRecord) -> None:  # noqa: ARG002
            raise SinkError("denied")

    world = World(Forgetting())
    world.source.error = (0, SourceError("the connection broke", hint="run again"))
    with pytest.raises(SourceError, match="the connection broke"):
        world.run()
    assert sum(GOES_ON in warning for warning in world.report.warnings) == 1
