"""A run in blocks: whatever happens to its calls, every row is in the destination once, and is counted once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from etlcli.inspection import list_rejects
from etlcli.model import Layout
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
