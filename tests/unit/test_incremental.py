"""Incremental runs over fakes: where each begins, and when the watermark moves. ``value`` is the incremental key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import pytest

from etlcli import pipeline
from etlcli.encoding import PLAIN
from etlcli.errors import ConfigError, EtlError, SinkError, SourceError, UsageError
from etlcli.model import CREATE_DEFAULTS, Incremental, Job, Overlap, Relation, Selection, Share
from etlcli.plan import make_plan
from etlcli.ports import StateStore
from etlcli.report import Report
from etlcli.state import NullState, Watermark, WatermarkEntry
from tests.contract.fakes.cache import FakeAccount, FakeCache
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSource, column
from tests.contract.fakes.state import FakeState

NONE = Overlap(0, is_duration=False)
INCREMENTAL = Incremental("value", NONE)
JOB = Job("events", Selection("events"), "events", "events", incremental=INCREMENTAL)


def relation(typname: str = "int4", name: str | None = "events") -> Relation:
    return Relation(name, (column("id", "int4"), column("value", typname)), ("id",), (frozenset({"id"}),))


@dataclass
class World:
    """A source whose rows are id and value, a destination, and the state table, over many runs."""

    rows: dict[int, str | None] = field(default_factory=dict)
    relation: Relation = field(default_factory=relation)
    state: StateStore = field(default_factory=FakeState)
    tables: dict[str, FakeTable] = field(default_factory=dict)
    cached: FakeAccount = field(default_factory=FakeAccount)
    source_errors: tuple[int, BaseException] | None = None
    sink_errors: Sequence[EtlError] = ()
    report: Report = field(default_factory=lambda: Report("events"))

    def source(self) -> FakeSource:
        rows = [(str(number), value) for number, value in sorted(self.rows.items())]
        return FakeSource(self.relation, rows, error=self.source_errors)

    def run(self, job: Job = JOB, **changes: Any) -> Report:
        job = replace(job, **changes)
        self.report = report = Report(job.name, destination=job.destination)
        sink = FakeSink(job.destination, report.counters, self.tables, errors=self.sink_errors)
        cache = FakeCache("events", self.cached)
        main = pipeline.run(job, PLAIN, CREATE_DEFAULTS, self.source(), cache, sink, self.state, report)
        asyncio.run(main)
        return report

    def extract(self, job: Job = JOB) -> str:
        self.report = report = Report(job.name)
        asyncio.run(pipeline.extract(job, PLAIN, self.source(), FakeCache("events", self.cached), self.state, report))
        assert report.run_id is not None
        assert not report.watermark_moved
        return report.run_id

    def load(self, run_id: str | None = None, job: Job = JOB) -> Report:
        self.report = report = Report(job.name, destination=job.destination)
        sink = FakeSink(job.destination, report.counters, self.tables, errors=self.sink_errors)
        cache = FakeCache("events", self.cached)
        asyncio.run(pipeline.load(job, run_id, CREATE_DEFAULTS, cache, sink, self.state, report))
        return report

    @property
    def entry(self) -> WatermarkEntry:
        return asyncio.run(self.state.fetch_watermark("events"))

    @property
    def watermark(self) -> str | None:
        found = self.entry.watermark
        return None if found is None else found.value

    def items(self, table: str = "events") -> dict[int, str | None]:
        """The destination's items, as ids and values."""
        items = self.tables[table].items.values()
        return {int(item["id"]["N"]): item["value"]["N"] if "value" in item else None for item in items}


def taken(report: Report) -> int:
    return report.counters.rows_extracted


def test_the_first_run_takes_all_and_the_next_what_is_new() -> None:
    world = World({1: "10", 2: "20"})
    report = world.run()
    assert (taken(report), report.watermark_moved, world.watermark) == (2, True, "20")
    assert report.watermark is not None
    assert (report.watermark.since, report.watermark.value) == (None, "20")
    world.rows |= {1: "30", 3: "25"}
    report = world.run()
    assert (taken(report), report.watermark_moved, world.watermark) == (3, True, "30")
    assert report.watermark is not None
    assert (report.watermark.since, report.watermark.value) == ("20", "30")
    assert world.items() == {1: "30", 2: "20", 3: "25"}
    assert report.warnings == []


@pytest.mark.parametrize(
    ("overlap", "expected"), [(None, 2), (0, 1), (5, 1), (999, 1), (1000, 2), (9998, 2), (9999, 3), (2**63 - 1, 3)]
)
def test_a_run_reaches_back_by_the_overlap(overlap: int | None, expected: int) -> None:
    world = World({1: "9000", 2: "10000", 3: "1"})
    wanted = None if overlap is None else Overlap(overlap, is_duration=False)
    job = replace(JOB, incremental=Incremental("value", wanted))
    assert taken(world.run(job)) == 3
    assert taken(world.run(job)) == expected


def test_nothing_new_leaves_the_watermark_where_it_is() -> None:
    world = World({1: "10", 2: "20"})
    world.run()
    report = world.run()
    assert (taken(report), world.watermark, report.warnings) == (1, "20", [])


def test_an_empty_table_sets_none_and_the_next_run_takes_all() -> None:
    world = World()
    report = world.run()
    assert (taken(report), report.watermark_moved, world.entry) == (0, False, WatermarkEntry())
    world.rows = {1: "-7"}
    assert taken(world.run()) == 1
    assert world.watermark == "-7"


def test_a_table_that_is_all_null_is_taken_every_time() -> None:
    world = World({1: None, 2: None})
    for _ in range(2):
        report = world.run()
        assert taken(report) == 2
        assert not report.watermark_moved
        assert world.watermark is None
        assert "rows whose value is NULL are taken by every run" in report.warnings


def test_rows_that_are_null_are_taken_besides_what_is_new() -> None:
    world = World({1: "10", 2: None, 3: "20"})
    world.run()
    world.rows |= {4: None, 5: "21"}
    report = world.run()
    assert (taken(report), world.watermark) == (4, "21")  # 2, 3, 4 and 5
    assert world.items() == world.rows


def test_what_was_removed_from_the_source_stays() -> None:
    world = World({1: "10", 2: "20"})
    world.run()
    del world.rows[1]
    world.run()
    assert world.items() == {1: "10", 2: "20"}


@pytest.mark.parametrize(("rows", "found"), [({1: "10"}, "the newest value is 10"), ({}, "no value is left")])
def test_a_source_that_went_back_is_a_warning(rows: dict[int, str | None], found: str) -> None:
    world = World({1: "10", 2: "20"})
    world.run()
    world.rows = rows
    (warning,) = world.run().warnings
    assert warning.startswith(f"{found}, and the watermark 20: rows were removed")
    assert "--full-refresh" in warning
    # Nothing is ever forgotten for want of rows; what is smaller only means that more is taken.
    assert world.watermark == ("10" if rows else "20")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"narrowed_by": ("--where",)}, "--where"),
        ({"narrowed_by": ("--columns", "--limit"), "selection": Selection("events", limit=1)}, "--columns and --limit"),
        # In the job's section it holds for every run.
        ({"selection": Selection("events", limit=1)}, "limit"),
    ],
)
def test_a_run_that_takes_a_part_leaves_the_watermark_alone(changes: dict[str, Any], named: str) -> None:
    world = World({1: "10"})
    world.run()
    before = world.entry
    world.rows |= {2: "20", 3: "30"}
    report = world.run(**changes)
    assert report.warnings == [f"{named}: this run takes only a part, so the watermark stays where it is"]
    assert not report.watermark_moved
    assert world.entry == before
    assert taken(world.run()) == 3


def test_a_full_refresh_takes_all_and_sets_the_watermark() -> None:
    world = World({1: "10", 2: "20"})
    world.run()
    world.rows[1] = "5"  # an update that the column does not show
    assert taken(world.run()) == 1
    report = world.run(incremental=replace(INCREMENTAL, full_refresh=True))
    assert (taken(report), report.watermark_moved, report.warnings) == (2, True, [])
    assert world.items() == world.rows
    assert world.entry.version == 3


def test_since_takes_rows_from_a_value_on() -> None:
    world = World({1: "10", 2: "20", 3: "30"})
    world.run()
    report = world.run(incremental=replace(INCREMENTAL, since="20"))
    assert (taken(report), report.watermark_moved, report.warnings) == (2, True, [])


@pytest.mark.parametrize(("first", "since"), [(True, "31"), (False, "10")])
def test_since_that_leaves_a_gap_does_not_move_the_watermark(first: bool, since: str) -> None:
    world = World({1: "10", 2: "20", 3: "30"})
    if first:
        world.run()
    world.rows[4] = "40"
    before = world.entry
    report = world.run(incremental=replace(INCREMENTAL, since=since))
    assert report.warnings == [
        f"--since {since} leaves out rows that no run has taken, so the watermark stays where it is"
    ]
    assert (report.watermark_moved, world.entry) == (False, before)
    world.run()
    assert world.items() == world.rows


def test_since_that_is_no_value_is_refused_before_anything_is_made() -> None:
    world = World({1: "10"})
    with pytest.raises(UsageError, match=r"soon is no value of value \(int4\)"):
        world.run(incremental=replace(INCREMENTAL, since="soon"))
    assert world.tables == {}
    assert world.cached.caches == {}


@pytest.mark.parametrize(
    ("typname", "wanted", "message", "hint"),
    [
        ("text", INCREMENTAL, "value is text, and cannot be the incremental_key", "a time"),
        ("uuid", INCREMENTAL, "value is uuid, and cannot be the incremental_key", "a number"),
        ("timetz", INCREMENTAL, "value is timetz, and cannot be", "grow"),
        ("int4", Incremental("valeu"), "there is no column 'valeu', named as incremental_key", "Did you mean value?"),
        ("int4", Incremental("value", Overlap(300, is_duration=True)), "the overlap is a time", "overlap = 1000"),
        ("numeric", Incremental("value", Overlap(2**63, is_duration=False)), "the overlap is over", "--full-refresh"),
    ],
)
def test_columns_that_cannot_be_followed(typname: str, wanted: Incremental, message: str, hint: str) -> None:
    world = World({1: "10"}, relation(typname))
    with pytest.raises(UsageError) as caught:
        world.run(incremental=wanted)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert world.tables == {}


def test_a_plain_number_is_an_overlap_of_seconds_for_times() -> None:
    world = World({1: "2026-08-14 10:00:00+00", 2: "2026-08-14 10:01:00+00"}, relation("timestamptz"))
    job = replace(JOB, incremental=Incremental("value", Overlap(59, is_duration=False)))
    assert [taken(world.run(job)), taken(world.run(job))] == [2, 1]
    job = replace(JOB, incremental=Incremental("value", Overlap(60, is_duration=True)))
    assert taken(world.run(job)) == 2


@pytest.mark.parametrize(("column_name", "typname"), [("value", "int8"), ("other", "int4"), ("value", "timestamptz")])
def test_a_watermark_of_another_column_or_type_is_refused(column_name: str, typname: str) -> None:
    world = World({1: "10"})
    world.run()
    values = ("1", "2026-08-14 10:00:00+00" if typname == "timestamptz" else "11")
    world.relation = Relation("events", (column("id", "int4"), column(column_name, typname)), ("id",))
    world.rows = {int(values[0]): values[1]}
    wanted = Incremental(column_name, NONE)
    with pytest.raises(UsageError) as caught:
        world.run(incremental=wanted)
    assert f"followed the column value (int4), and this one would follow {column_name} ({typname})" in str(caught.value)
    assert "--full-refresh" in (caught.value.hint or "")
    world.run(incremental=replace(wanted, full_refresh=True))
    found = world.entry.watermark
    assert found is not None
    assert (found.column, found.type, found.value) == (column_name, typname, values[1])


def test_another_source_is_a_warning_and_so_is_another_making_of_items() -> None:
    world = World({1: "10"})
    world.run()
    world.relation = relation(name="archive.events")
    (warning,) = world.run().warnings
    assert "taken from memory:5432/shop events, and this run reads memory:5432/shop archive.events" in warning
    world.relation = replace(world.relation, columns=(*world.relation.columns, column("more", "text")))
    world.rows = {}
    warnings = world.run().warnings
    assert any("reads, or makes of it, has changed" in warning for warning in warnings)


def test_a_run_that_fails_leaves_the_watermark_alone() -> None:
    world = World({1: "10"})
    world.run()
    before = world.entry
    world.rows |= {number: str(number) for number in range(11, 400)}
    world.source_errors = (100, SourceError("division by zero"))
    with pytest.raises(SourceError):
        world.run()
    assert world.entry == before
    world.source_errors, world.sink_errors = None, (SinkError("no"),)
    with pytest.raises(SinkError):
        world.run()
    assert world.entry == before
    world.sink_errors = ()
    assert taken(world.run()) == 390
    assert world.items() == world.rows


def test_an_interrupted_run_leaves_the_watermark_alone() -> None:
    world = World({number: str(number) for number in range(300)})
    job, report = JOB, Report("events")

    async def main() -> None:
        reading = asyncio.Event()

        async def before_batch(start: int) -> None:
            if start:
                reading.set()
                await asyncio.Event().wait()

        source = world.source()
        source.before_batch = before_batch
        sink = FakeSink("events", report.counters, world.tables)
        cache = FakeCache("events", world.cached)
        run = asyncio.create_task(pipeline.run(job, PLAIN, CREATE_DEFAULTS, source, cache, sink, world.state, report))
        await reading.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run

    asyncio.run(main())
    assert world.entry == WatermarkEntry()
    assert taken(world.run()) == 300


def test_rejects_within_bounds_are_accounted_for_and_beyond_them_not() -> None:
    # A numeric that DynamoDB cannot hold.
    world = World({1: "1", 2: "1" * 40}, relation("numeric"))
    with pytest.raises(EtlError):
        world.run(max_rejects=Share(Decimal(0), is_percentage=False))
    assert world.entry == WatermarkEntry()
    report = world.run(max_rejects=Share(Decimal(1), is_percentage=False))
    assert (report.counters.rows_rejected, report.watermark_moved, world.watermark) == (1, True, "1" * 40)


def test_duplicates_are_looked_for_in_old_rows_too() -> None:
    world = World()
    world.relation = Relation("events", (column("id", "int4"), column("value", "int4")), ("id",))
    world.rows = {1: "10", 2: "20"}
    world.run()
    # The row that another one would overwrite is old: among the new ones alone, no key comes twice.
    world.source = lambda: FakeSource(world.relation, [("1", "10"), ("2", "20"), ("1", "30")])  # type: ignore[method-assign]
    with pytest.raises(SourceError, match="more than one row has the same destination key"):
        world.run()
    assert world.watermark == "20"
    assert world.items() == {1: "10", 2: "20"}


def test_extract_and_load_move_it_once_and_only_when_all_is_loaded() -> None:
    world = World({1: "10"})
    run_id = world.extract()
    assert world.entry == WatermarkEntry()
    report = world.load()
    found = world.entry.watermark
    assert found is not None
    assert (found.value, found.run_id, found.destination) == ("10", run_id, "events")
    assert found.source == "memory:5432/shop events"
    assert (report.watermark_moved, world.entry.version) == (True, 1)
    # Once more: it is this run's own value that is there.
    report = world.load()
    assert (report.watermark_moved, report.warnings, world.entry.version) == (True, [], 1)


def test_a_load_that_fails_leaves_the_watermark_alone() -> None:
    world = World({1: "10"})
    world.extract()
    world.sink_errors = (SinkError("no"),)
    with pytest.raises(SinkError):
        world.load()
    assert world.entry == WatermarkEntry()
    world.sink_errors = ()
    assert world.load().watermark_moved


def test_an_old_extraction_never_moves_it_back() -> None:
    world = World({1: "10"})
    world.run()
    world.rows[2] = "20"
    old = world.extract()
    world.rows[2] = "30"
    world.run()
    before = world.entry
    report = world.load(old)
    assert (report.watermark_moved, world.entry, world.watermark) == (False, before, "30")
    (warning,) = report.warnings
    assert "is newer, and was loaded before this one" in warning
    assert "--full-refresh" in warning
    assert world.items()[2] == "20"  # as the warning says
    world.run(incremental=replace(INCREMENTAL, full_refresh=True))
    assert world.items() == world.rows


def test_of_two_extractions_the_older_may_be_loaded_first() -> None:
    world = World({1: "10"})
    first = world.extract()
    world.rows[2] = "20"
    second = world.extract()
    world.load(first)
    assert world.watermark == "10"
    report = world.load(second)
    # The second took all there was, for it read the watermark before the first was loaded.
    assert not report.watermark_moved
    assert report.warnings == [f"run {first} has set the watermark meanwhile: it stays as it is"]
    assert world.items() == world.rows
    assert world.watermark == "10"


def test_a_reset_in_the_middle_of_a_run_holds() -> None:
    world = World({1: "10"})
    world.run()
    world.extract()
    asyncio.run(world.state.reset_watermark("events"))
    report = world.load()
    assert report.warnings == ["the watermark was reset meanwhile: the next run takes all rows"]
    assert world.watermark is None
    assert taken(world.run()) == 1


def test_another_destination_has_not_seen_what_came_before() -> None:
    world = World({1: "10", 2: "20"})
    world.run()
    report = world.run(destination="copy")
    assert taken(report) == 2
    assert world.items("copy") == world.rows
    assert any("this run takes all rows" in warning for warning in report.warnings)
    # Now the watermark is the copy's: the first table has to be filled anew before it can be relied on.
    world.rows[3] = "30"
    assert taken(world.run(destination="copy")) == 2
    assert taken(world.run()) == 3
    assert world.items() == world.items("copy") == world.rows


def test_a_table_that_is_gone_is_filled_anew() -> None:
    world = World({1: "10", 2: "20"})
    world.run()
    del world.tables["events"]
    report = world.run()
    assert (taken(report), report.watermark_moved) == (2, True)
    assert report.warnings == ["table events is not there yet: this run takes all rows"]
    assert world.items() == world.rows


@pytest.mark.parametrize("destination", ["events", "copy"])
def test_what_is_new_alone_is_not_taken_for_all_by_another_table(destination: str) -> None:
    world = World({1: "10", 2: "20"})
    world.run()
    world.extract()
    if destination == "events":
        del world.tables["events"]
    else:
        world.tables[destination] = FakeTable(world.tables["events"].key)
    before = world.entry
    report = world.load(job=replace(JOB, destination=destination))
    assert (report.watermark_moved, world.entry) == (False, before)
    (warning,) = report.warnings
    assert warning.startswith(f"this extraction holds only what is new since 20, and table {destination} has not seen")


def test_without_a_state_table_it_is_refused_before_anything_is_made() -> None:
    world = World({1: "10"}, state=NullState())
    with pytest.raises(ConfigError, match="needs the state table"):
        world.run()
    assert world.tables == {}
    world.state = FakeState()
    world.extract()
    world.state = NullState()
    with pytest.raises(ConfigError, match="needs the state table"):
        world.load()
    assert world.tables == {}


def test_a_state_table_that_fails_fails_the_run() -> None:
    world = World({1: "10"}, state=FakeState(errors=[SinkError("not allowed", hint="allow it")] * 20))
    with pytest.raises(SinkError, match="not allowed"):
        world.run()
    assert world.tables == {}


def test_an_entry_without_a_place_is_trusted() -> None:
    world = World({1: "10", 2: "20"})
    older = Watermark("value", "int4", "20", "20260814T101502123Z-7f3a", 1_786_700_000.0)
    asyncio.run(world.state.move_watermark("events", older, 0))
    world.tables["events"] = FakeTable(make_plan(JOB, world.relation, "").key)
    report = world.run()
    assert (taken(report), report.warnings, report.watermark_moved) == (1, [], True)
