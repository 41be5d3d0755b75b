"""A run in blocks: whatever happens to its calls, every row is in the destination once, and is counted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.block import BLOCK_CHUNKS, Block, by_block, place_in, unbroken
from etlcli.blocks.planning import cut
from etlcli.inspection import list_rejects
from etlcli.model import ChunkRecord, KeyRange, Layout, place_behind
from etlcli.report import Report
from tests.contract.fakes.source import Row
from tests.contract.fakes.state import FakeState
from tests.integration.in_blocks import Driver
from tests.integration.test_pipeline_resume import (
    Grave,
    Kill,
    Killed,
    MortalCache,
    MortalSink,
    MortalState,
    dead_process,
    with_rejects,
)
from tests.integration.world import JOB, World, bounded, fake_world, item, nobody_waits, small_chunks

__all__ = ["dead_process", "nobody_waits", "small_chunks"]

pytestmark = pytest.mark.usefixtures("small_chunks", "nobody_waits")


def is_refused(found: dict[str, Any]) -> str | None:
    return "not this one" if int(found["movie_id"]["N"]) % 90 == 11 else None


def good(rows: list[Row], *, refusing: bool = False) -> list[dict[str, Any]]:
    items = [item(row) for row in rows if row[2] != "NaN"]
    return [it for it in items if not refusing or is_refused(it) is None]


async def assert_exact(
    world: World, report: Report, rows: list[Row], *, refusing: bool = False, where: str = ""
) -> None:
    expected = good(rows, refusing=refusing)
    assert world.items == expected, where
    counters = report.counters
    figures = (counters.rows_extracted, counters.rows_loaded, counters.rows_rejected, counters.rows_dropped)
    assert figures == (len(rows), len(expected), len(rows) - len(expected), 0), where
    _, rejects = await list_rejects(world.job.name, world.cache, report.run_id)
    assert len(rejects) == len(rows) - len(expected), where
    told = {it.row.get("movie_id", it.key) for it in rejects}
    assert len(told) == len(rejects), where


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("layout", "count"), [("packed", 900), ("rows", 60)])
@pytest.mark.parametrize("share", [None, 1])
def test_every_row_is_there_once(layout: Layout, count: int, share: int | None, *, at_once: bool) -> None:
    rows = with_rejects(count)

    async def scenario() -> None:
        world = fake_world(rows, job=replace(JOB, layout=layout), refuse=is_refused)
        driver = Driver(world, share=share, kept=share)
        report = await driver.run(at_once=at_once)
        await assert_exact(world, report, rows, refusing=True)
        assert report.manifest is not None
        assert report.manifest.totals.rows_extracted == count
        assert len(driver.calls) == 4
        assert await world.staging.fetch_current() == report.run_id
        if share and layout == "packed":
            assert max(driver.calls.values()) >= 6

    bounded(scenario)


def on_the_grave(world: World) -> World:
    return replace(world, state=FakeState(account=world.state.account, processes=Grave()), report=Report("movies"))


async def given_again(world: World, at: int, *, late: bool, share: int | None = 2500) -> tuple[Kill, Report]:
    """An execution of which one call is killed at the so many-th call of any service, and given again."""
    kill = Kill(at, late)
    mortal = on_the_grave(world)
    mortal.cache = MortalCache("etl", world.account, kill)
    mortal.sink_of = type("It", (MortalSink,), {"kill": kill})
    mortal.state = MortalState(account=world.state.account, processes=Grave())
    mortal.state.kill = kill
    driver = Driver(mortal, share=share, kept=0 if share else None)
    give = driver._give

    async def again(name: str, call: Callable[..., Any]) -> Any:
        was_alive = not kill.done
        try:
            return await give(name, call)
        except (Killed, BaseExceptionGroup):
            if not (was_alive and kill.done):
                raise
        driver.world = on_the_grave(world)
        return await give(name, call)

    driver._give = again  # type: ignore[method-assign]
    return kill, await driver.run()


@pytest.mark.usefixtures("dead_process")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("layout", "count"), [("packed", 300), ("rows", 24)])
def test_a_call_that_is_killed_at_any_instant_is_given_again(layout: Layout, count: int, *, late: bool) -> None:
    rows = with_rejects(count)

    async def scenario() -> None:
        for at in range(10_000):
            world = fake_world(rows, job=replace(JOB, layout=layout), refuse=is_refused)
            kill, report = await given_again(world, at, late=late)
            if not kill.done:
                break
            where = f"killed at call {at}, {kill.calls[at]}"
            await assert_exact(world, report, rows, refusing=True, where=where)
        assert at > 100

    bounded(scenario)


# What a block is


KEYS = [(f"{n:05}",) for n in range(60)]


@given(ranges=st.integers(1, 60), first=st.integers(0, 3), most=st.integers(1, 12))
def test_blocks_take_each_range_once(ranges: int, first: int, most: int) -> None:
    edges = [None, *KEYS[: ranges - 1], None]
    blocks = cut(edges, first, most)
    assert len(blocks) <= most
    assert [block.number for block in blocks] == list(range(first, first + len(blocks)))
    together = [it for block in blocks for it in block.ranges()]
    assert together == [KeyRange(after=low, last=high) for low, high in pairwise(edges)]


@given(ranges=st.integers(1, 9), data=st.data())
def test_what_is_left_of_a_block_is_all_behind_the_last_row(ranges: int, data: st.DataObject) -> None:
    block = Block(0, (KEYS[0], *KEYS[5 : 5 * ranges : 5], KEYS[59]))
    last = data.draw(st.sampled_from(KEYS[1:]))
    left = block.ranges(last)
    covered = [key for it in left for key in KEYS if (it.after or ("",)) < key <= (it.last or ("z",))]
    assert covered == [key for key in KEYS if key > last]


def chunk(number: int, first: int, last: int, *, behind: int | None = None) -> ChunkRecord:
    before = "" if behind is None else place_behind((str(behind),))
    return ChunkRecord(number, 1, 0, 0, 1, 1, "aa", "bb", (str(first),), (str(last),), 1.0, 1, before)


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=4), gone=st.sets(st.integers(0, 4)), order=st.randoms())
def test_chunks_are_taken_up_to_the_first_gap(counts: list[int], gone: set[int], order: Any) -> None:
    records = [
        chunk(block * BLOCK_CHUNKS + n, n, n, behind=n - 1) for block, count in enumerate(counts) for n in range(count)
    ]
    kept = [it for it in records if it.number % BLOCK_CHUNKS not in gone]
    order.shuffle(kept)
    grouped = by_block(kept)
    for block, count in enumerate(counts):
        until = min([count, *gone])
        found = Block(block).chunks_of(grouped.get(block, ()))
        assert found == tuple(records[sum(counts[:block]) :][:until])


def test_a_chunk_of_an_attempt_with_other_bounds_is_not_taken() -> None:
    records = [chunk(0, 0, 9), chunk(1, 10, 19, behind=9), chunk(2, 20, 29, behind=18)]
    assert unbroken(records) == tuple(records[:2])
    earlier = [record._replace(behind="") for record in records]  # an earlier version told nothing
    assert unbroken(earlier) == tuple(earlier)


@given(a=st.lists(st.integers(0, 9)), b=st.lists(st.integers(0, 9)))
def test_a_place_names_what_is_stored(a: list[int], b: list[int]) -> None:
    def records(keys: list[int]) -> list[ChunkRecord]:
        return [chunk(n, key, key)._replace(stored_digest=str(key)) for n, key in enumerate(keys)]

    assert (place_in(records(a)) == place_in(records(b))) == (a == b)
