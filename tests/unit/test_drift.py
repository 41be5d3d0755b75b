"""What counts as a change of the source's columns, and what a run says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from etlcli import drift
from etlcli.errors import ConfigError, SinkError, SourceError
from etlcli.model import Column, Incremental, Job, PgType, SchemaChange, Selection
from etlcli.ports import StateStore
from etlcli.state import NullState, RunRecord, RunState, SchemaColumn, schema_of
from tests.contract.fakes.state import FakeState

JOB = Job("movies", Selection(table="movies"), "etl", "movies")
FROZEN = replace(JOB, freezes_schema=True)


def columns(**types: str) -> tuple[Column, ...]:
    return tuple(Column(name, PgType(kind, kind)) for name, kind in types.items())


BEFORE = columns(id="integer", price="numeric(10,2)", title="text")
AFTER = columns(id="integer", price="numeric(12,2)", title="text")
PRICE = SchemaChange("price", "numeric(10,2)", "numeric(12,2)")


def compared(before: Sequence[Column], now: Sequence[Column]) -> list[str]:
    return [str(change) for change in drift.compare(schema_of(before), schema_of(now))]


def test_what_is_a_change() -> None:
    assert compared(BEFORE, BEFORE) == []
    assert compared(BEFORE, tuple(reversed(BEFORE))) == []
    assert compared(BEFORE, AFTER) == ["price was numeric(10,2) and is numeric(12,2)"]
    renamed = columns(id="integer", cost="numeric(10,2)", title="text")
    assert compared(BEFORE, renamed) == ["price (numeric(10,2)) was removed", "cost (numeric(10,2)) was added"]
    assert compared(BEFORE, columns(Title="text", id="bigint", tags="text[]")) == [
        "id was integer and is bigint",
        "price (numeric(10,2)) was removed",
        "title (text) was removed",
        "Title (text) was added",
        "tags (text[]) was added",
    ]


class Counting(FakeState):
    """A state that tells how many runs it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    async def fetch_runs(self, job: str | None, limit: int) -> list[RunRecord]:
        self.asked.append(limit)
        return await super().fetch_runs(job, limit)


def looked(
    runs: Sequence[tuple[RunState, Sequence[Column]]], job: Job = JOB, state: Counting | None = None
) -> list[SchemaChange]:
    """What is found after these runs, the oldest first, where the source's columns are ``AFTER``."""
    store = state or Counting()

    async def main() -> list[SchemaChange]:
        for number, (status, seen) in enumerate(runs):
            run_id = f"20260814T10{number:07d}Z-7f3a"
            await store.put_run(
                RunRecord("movies", run_id, "run", "ada", status, float(number), number + 1.0, columns=schema_of(seen))
            )
        return await drift.look(job, AFTER, store)

    return asyncio.run(main())


def test_the_newest_run_that_succeeded_is_compared_with() -> None:
    assert looked([]) == []
    assert looked([("succeeded", BEFORE)]) == [PRICE]
    assert looked([("rejected_rows", BEFORE)]) == [PRICE]
    assert looked([("succeeded", BEFORE), ("succeeded", AFTER)]) == []
    assert looked([("succeeded", AFTER), ("succeeded", BEFORE)]) == [PRICE]


@pytest.mark.parametrize("status", ["running", "failed", "interrupted"])
def test_runs_that_did_not_succeed_do_not_count(status: RunState) -> None:
    assert looked([(status, BEFORE)]) == []
    assert looked([("succeeded", BEFORE), (status, AFTER)]) == [PRICE]


def test_loads_do_not_count() -> None:
    assert looked([("succeeded", BEFORE), ("succeeded", ())]) == [PRICE]
    assert looked([("succeeded", ())]) == []


def test_a_long_row_of_failures_hides_nothing() -> None:
    state = Counting()
    failures: list[tuple[RunState, Sequence[Column]]] = [("failed", AFTER)] * 30
    assert looked([("succeeded", BEFORE), *failures], state=state) == [PRICE]
    assert state.asked == [1, 20, 400]
    # Mostly one run has to be read, which may have a long schema.
    state = Counting()
    assert looked([("succeeded", BEFORE)] * 3, state=state) == [PRICE]
    assert state.asked == [1]


def test_another_jobs_runs_are_its_own() -> None:
    assert looked([("succeeded", BEFORE)], replace(JOB, name="actors")) == []


def test_a_frozen_schema_needs_something_to_compare_it_with() -> None:
    async def look(job: Job, state: StateStore) -> list[SchemaChange]:
        return await drift.look(job, AFTER, state)

    assert asyncio.run(look(JOB, NullState())) == []
    with pytest.raises(ConfigError, match=r"movies is frozen .*nothing to compare.*enabled = false") as caught:
        asyncio.run(look(FROZEN, NullState()))
    assert caught.value.hint
    assert asyncio.run(look(FROZEN, FakeState())) == [], "the first run of all"
    with pytest.raises(SinkError, match="so it is"):
        asyncio.run(look(FROZEN, FakeState(errors=[SinkError("so it is")])))


def test_a_frozen_schema_refuses_and_names_each_change() -> None:
    drift.refuse(FROZEN, [])
    drift.refuse(JOB, [PRICE])
    with pytest.raises(SourceError) as caught:
        drift.refuse(FROZEN, [PRICE, SchemaChange("seen", None, "date")])
    assert caught.value.message.splitlines() == [
        "columns of movies changed since its last run, and its schema is frozen (schema_contract):",
        "  price was numeric(10,2) and is numeric(12,2)",
        "  seen (date) was added",
    ]
    assert caught.value.hint is not None
    assert "--schema-contract evolve" in caught.value.hint


def test_many_changes_do_not_flood_the_screen() -> None:
    many = [SchemaChange(f"c{number}", None, "text") for number in range(1600)]
    lines = drift.warning(JOB, many).splitlines()
    assert len(lines) == 12
    assert lines[1] == "  c0 (text) was added"
    assert lines[-1] == "  and 1,590 more (--output json has all)"
    assert len(drift.warning(JOB, many[:10]).splitlines()) == 11
    with pytest.raises(SourceError) as caught:
        drift.refuse(FROZEN, many)
    assert len(caught.value.message.splitlines()) == 12


def test_a_name_with_a_line_break_stays_on_its_line() -> None:
    assert drift.told([SchemaChange("a\nb", None, "text")]) == "  a\\nb (text) was added"


def test_an_incremental_run_leaves_old_items_as_they_are_and_says_so() -> None:
    incremental = replace(JOB, incremental=Incremental("seen"))
    refreshed = replace(JOB, incremental=Incremental("seen", full_refresh=True))
    assert "--full-refresh" in drift.warning(incremental, [PRICE])
    assert "--full-refresh" not in drift.warning(refreshed, [PRICE])
    assert "--full-refresh" not in drift.warning(JOB, [PRICE])


def test_a_schema_is_kept_as_names_and_types() -> None:
    assert schema_of(BEFORE)[1] == SchemaColumn("price", "numeric(10,2)")
