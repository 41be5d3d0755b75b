"""Runs in blocks beside others: two calls at once, two executions, a block that fails, a cache that forgets or lags."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from decimal import Decimal
from typing import Any

import pytest

from etlcli import block as a_block
from etlcli.blocks import ledger, planning
from etlcli.blocks.finishing import UnfinishedBlocks
from etlcli.blocks.ledger import StaleLedger
from etlcli.blocks.planning import Spread
from etlcli.blocks.rights import BlockBusy
from etlcli.cache import staging
from etlcli.encoding import PLAIN
from etlcli.errors import CacheError, EtlError, SinkError, TerminalError
from etlcli.inspection import check_chunks, inspect_job
from etlcli.leasing import LeaseHeld
from etlcli.model import Incremental, Share
from etlcli.report import Report
from etlcli.stopping import Stopped
from etlcli.verification.findings import Wanted
from etlcli.verification.verify import verify
from tests.contract.fakes.cache import Call
from tests.contract.fakes.source import Row
from tests.integration.in_blocks import Driver
from tests.integration.test_pipeline_resume import dead_process, killed, with_rejects
from tests.integration.world import JOB, MOVIES, World, bounded, fake_world, item, movies, nobody_waits, small_chunks
from tests.unit.test_blocks import assert_exact, is_refused, on_the_grave

__all__ = ["dead_process", "nobody_waits", "small_chunks"]

pytestmark = pytest.mark.usefixtures("small_chunks", "nobody_waits")


# Twice at once


def test_a_block_that_is_given_twice_at_once_is_done_once() -> None:
    rows = with_rejects(400)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        driver = Driver(world, share=1, kept=0)
        planned = await driver.plan()

        async def twice(block: int) -> None:
            """Each step is given twice; who comes second is told so, or finds the work done."""
            told, lost, step = "", (), "extract"
            for _ in range(200):
                if step == "extract":
                    calls = [driver.extract(planned.call, block, told, lost) for _ in range(2)]
                else:
                    calls = [driver.load(planned.call, block, told) for _ in range(2)]  # type: ignore[misc]
                answers: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
                done = [it for it in answers if not isinstance(it, BaseException)]
                failed = [str(it) for it in answers if isinstance(it, BaseException)]
                assert all(isinstance(it, BlockBusy) for it in answers if isinstance(it, BaseException))
                assert all(" is worked on already: " in it for it in failed)
                assert done
                told = done[-1].ledger
                if step == "extract":
                    step = "load"
                    continue
                if not done[-1].more:
                    return
                lost, step = done[-1].lost, "extract" if done[-1].reads else "load"

        for block in planned.blocks:
            await twice(block)
        await assert_exact(world, await driver.finish(planned.call), rows, refusing=True)

    bounded(scenario)


# A block that fails, and two executions


def test_a_block_that_fails_is_named_and_the_next_execution_does_what_is_left() -> None:
    rows = with_rejects(400)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        driver = Driver(world, spread=Spread(3, ranges=5))
        planned = await driver.plan()
        for block in planned.blocks:
            if block == 2:
                # All of it is stored, and none loaded.
                await driver.extract(planned.call, block)
            elif block != 4:
                await driver.work(planned.call, block)
        with pytest.raises(UnfinishedBlocks, match=r"2 of 5 blocks of run .* block 2 \(\d chunks.*block 4 \(not all"):
            await driver.finish(planned.call)
        assert await world.staging.fetch_current() is None
        written = world.tables["movies"].written
        other = Driver(on_the_grave(world), "execution-2")
        with pytest.raises(LeaseHeld):
            await other.plan()
        await world.state.release(await leased_by(world, "execution-1"))
        again = await other.plan()
        assert (again.resumed, again.blocks, again.call.run_id) == (True, (2, 4), planned.call.run_id)
        with pytest.raises(LeaseHeld):
            await driver.extract(planned.call, 4)
        await other.blocks(again)
        report = await other.finish(again.call)
        await assert_exact(world, report, rows, refusing=True)
        assert world.tables["movies"].written == len(world.items) > written

    bounded(scenario)


async def leased_by(world: World, holder: str) -> Any:
    from etlcli.state import Lease

    record = await world.state.fetch_lease("movies")
    assert record is not None
    assert record.holder == holder
    return Lease("movies", holder, record.period_seconds, 0.0)


# A cache that settles late, or forgets


@pytest.mark.parametrize("lag", [1, 2, 3])
@pytest.mark.parametrize("share", [None, 1])
def test_a_cache_that_settles_late_loses_and_doubles_nothing(lag: int, share: int | None) -> None:
    rows = with_rejects(400)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        world.account.lag = lag
        driver = Driver(world, share=share, kept=0 if share else None, tries=30)
        report = await driver.run()
        for key in [key for key in world.entries for _ in range(lag)]:
            await world.cache.get(key)  # who looks for rejects may have to look again
        await assert_exact(world, report, rows, refusing=True)

    bounded(scenario)


def test_an_earlier_ledger_is_refused_and_no_number_given_twice() -> None:
    async def scenario() -> None:
        world = fake_world(movies(400))
        driver = Driver(world, spread=Spread(1, ranges=1), share=1000, kept=0)
        planned = await driver.plan()
        first = await driver.extract(planned.call, 0)
        page = f"movies/{planned.call.run_id}/ledger/0"
        earlier = world.account.values("etl")[page]
        await driver.load(planned.call, 0, first.ledger)
        second = await driver.extract(planned.call, 0, first.ledger)
        assert second.chunks > first.chunks
        await world.cache.set(page, earlier, 4800)
        with pytest.raises(StaleLedger, match=r"names .* chunks, and .* or more were stored"):
            await driver.load(planned.call, 0, second.ledger)
        with pytest.raises(StaleLedger):
            await driver.extract(planned.call, 0, second.ledger)
        # One that is told of nothing goes by what is loaded.
        await world.cache.delete(page)
        with pytest.raises(StaleLedger, match="loaded that its ledger does not name"):
            await driver.extract(planned.call, 0)
        # The next execution begins with what there is.
        await world.cache.set(page, earlier, 4800)
        report = await driver.run()
        await assert_exact(world, report, movies(400))

    bounded(scenario)


def test_chunks_that_are_gone_are_read_again() -> None:
    rows = with_rejects(400)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        driver = Driver(world)
        planned = await driver.plan()
        extracted = await driver.extract(planned.call, 1)
        gone = sorted(world.chunk_keys(planned.call.run_id))[::2]
        for key in gone:
            await world.cache.delete(key)
        lost = await driver.load(planned.call, 1, extracted.ledger)
        assert (len(lost.lost), lost.more, lost.reads) == (len(gone), True, True)
        mended = await driver.extract(planned.call, 1, lost.ledger, lost.lost)
        assert mended.rows == extracted.rows
        done = await driver.load(planned.call, 1, mended.ledger)
        assert not done.more
        for block in planned.blocks:
            if block != 1:
                await driver.work(planned.call, block)
        await assert_exact(world, await driver.finish(planned.call), rows, refusing=True)

    bounded(scenario)


@pytest.mark.parametrize("gone", ["/block/2", "/manifest"])
def test_what_the_cache_lost_of_a_run_is_said_with_what_to_do(gone: str) -> None:
    async def scenario() -> None:
        world = fake_world(movies(400))
        driver = Driver(world)
        planned = await driver.plan()
        await world.cache.delete(f"movies/{planned.call.run_id}{gone}")
        with pytest.raises(CacheError) as error:
            await driver.extract(planned.call, 2)
        assert error.value.hint
        assert "again" in error.value.hint or "anew" in error.value.hint
        with pytest.raises(TerminalError):
            await driver.finish(planned.call)
        await assert_exact(world, await driver.run(), movies(400))

    bounded(scenario)


def test_pages_of_the_ledger_that_are_gone_are_read_again_by_the_next_execution() -> None:
    rows = with_rejects(400)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        driver = Driver(world)
        planned = await driver.plan()
        await driver.blocks(planned)
        (key,) = [key for key in world.entries if key.endswith("/ledger/1000")]
        await world.cache.delete(key)
        with pytest.raises(UnfinishedBlocks, match=r"block 1 \(.* not in the ledger any more\)"):
            await driver.finish(planned.call)
        again = await driver.plan()
        await driver.blocks(again)
        await assert_exact(world, await driver.finish(again.call), rows, refusing=True)

    bounded(scenario)


# What one way has begun, the other ends


def asks_to_stop(world: World, after: int) -> Callable[[Call], EtlError | None]:
    stored = 0

    def look(call: Call) -> None:
        nonlocal stored
        stored += call.name == "set" and "/chunk/" in call.key
        if stored >= after:
            world.report.stop.request()

    return look


@pytest.mark.parametrize("after", [1, 4, 9])
def test_a_run_that_was_interrupted_is_ended_in_blocks(after: int) -> None:
    rows = with_rejects(600)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        world.account.fault = asks_to_stop(world, after)
        with pytest.raises(Stopped):
            await world.run()
        world.account.fault = None
        run_id = world.report.run_id
        driver = Driver(world)
        planned = await driver.plan()
        assert (planned.resumed, planned.call.run_id) == (True, run_id)
        await driver.blocks(planned)
        await assert_exact(world, await driver.finish(planned.call), rows, refusing=True)

    bounded(scenario)


def test_a_run_with_more_chunks_than_one_block_can_have_becomes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (a_block, staging, planning, ledger):
        monkeypatch.setattr(module, "BLOCK_CHUNKS", 64)
    monkeypatch.setattr(staging, "_BLOCK_PAGES", 1)
    rows = with_rejects(8000)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        world.account.fault = asks_to_stop(world, 100)
        with pytest.raises(Stopped):
            await world.run()
        world.account.fault = None
        driver = Driver(world, spread=Spread(1, ranges=5))
        report = await driver.run()
        await assert_exact(world, report, rows, refusing=True)
        assert len(driver.calls) >= 6
        fresh = fake_world(rows)
        with pytest.raises(TerminalError, match="more than 64 chunks, which is as many as one block"):
            await Driver(fresh, spread=Spread(1, ranges=1)).run()

    bounded(scenario)


@pytest.mark.parametrize("share", [0.3, 0.6, 2.0])
def test_what_a_run_that_is_taken_up_stores_counts(share: float) -> None:
    async def scenario() -> None:
        world = fake_world(movies(2000))
        world.account.fault = asks_to_stop(world, 20)
        with pytest.raises(Stopped):
            await world.run()
        stored = sum(len(value) for key, value in world.entries.items() if "/chunk/" in key)
        world.job = replace(JOB, max_cached_bytes=int(stored / share))
        most = 0

        def look(_call: Call) -> None:
            nonlocal most
            most = max(most, sum(len(value) for key, value in world.entries.items() if "/chunk/" in key))

        driver = Driver(world)
        planned = await driver.plan()
        world.account.fault = look
        await driver.blocks(planned)
        assert most <= max(world.job.max_cached_bytes, stored * 2 if share > 1 else 0)
        await assert_exact(world, await driver.finish(planned.call), movies(2000))

    bounded(scenario)


@pytest.mark.usefixtures("dead_process")
@pytest.mark.parametrize("late", [False, True])
def test_a_run_that_was_killed_anywhere_is_ended_in_blocks(*, late: bool) -> None:
    rows = with_rejects(300)

    async def scenario() -> None:
        resumed = 0
        for at in range(0, 10_000, 3):
            world = fake_world(rows, refuse=is_refused)
            kill = await killed(world, at, "run", late=late)
            if not kill.done:
                break
            driver = Driver(on_the_grave(world))
            planned = await driver.plan()
            await driver.blocks(planned)
            report = await driver.finish(planned.call)
            await assert_exact(world, report, rows, refusing=True, where=f"killed at call {at}, {kill.calls[at]}")
            resumed += planned.resumed
        assert at > 30
        assert resumed > 3

    bounded(scenario)


@pytest.mark.usefixtures("dead_process")
@pytest.mark.parametrize("share", [None, 1])
def test_a_run_that_was_left_in_blocks_is_ended_by_one(share: int | None) -> None:
    rows = with_rejects(400)

    async def scenario() -> None:
        for calls in range(1, 30):
            world = fake_world(rows, refuse=is_refused)
            left = calls

            def count(_name: str, _report: Report) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    raise SinkError("it fails")

            driver = Driver(world, share=share, kept=share, on_call=count)
            planned = await driver.plan()
            is_all = True
            try:
                await driver.blocks(planned)
                await driver.finish(planned.call)
            except SinkError:
                is_all = False
                await world.state.release(await leased_by(world, "execution-1"))
            report = await on_the_grave(world).run()
            if not is_all:
                assert calls == 1 or report.run_id == planned.call.run_id
            await assert_exact(world, report, rows, refusing=True, where=f"left after {calls} calls")

    bounded(scenario)


def test_a_complete_run_in_blocks_is_as_any_other() -> None:
    rows = with_rejects(400)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        report = await Driver(world).run(at_once=True)
        inspection = await inspect_job("movies", world.cache)
        assert inspection.current is not None
        assert inspection.current.manifest.run_id == report.run_id
        assert (await check_chunks("movies", world.cache))[1] == []
        world.tables.clear()
        again = await world.load()
        await assert_exact(world, again, rows, refusing=True)
        # Once more, now that it is known as loaded.
        await assert_exact(world, await world.load(), rows, refusing=True)

    bounded(scenario)


@pytest.mark.parametrize("from_source", [False, True])
def test_a_complete_run_in_blocks_is_verified(*, from_source: bool) -> None:
    async def scenario() -> None:
        world = fake_world(with_rejects(400))
        await Driver(world).run()
        wanted = Wanted(from_source=from_source)
        report = world.begun()
        await verify(world.job, lambda: PLAIN, wanted, world.source, world.cache, world.sink(), world.state, report)
        assert report.verification is not None
        assert report.verification.rows_compared == 392
        del world.tables["movies"].items[next(iter(world.tables["movies"].items))]
        with pytest.raises(EtlError):
            await verify(
                world.job, lambda: PLAIN, wanted, world.source, world.cache, world.sink(), world.state, world.begun()
            )

    bounded(scenario)


# Bounds


def test_a_percentage_of_rejects_is_held_against_all_rows() -> None:
    rows: list[Row] = [(n, title, "NaN" if int(str(n)) < 20 else rating) for n, title, rating in movies(400)]

    async def scenario() -> None:
        world = fake_world(rows, job=replace(JOB, max_rejects=Share(Decimal(10), is_percentage=True)))
        await assert_exact(world, await Driver(world).run(), rows)
        world = fake_world(rows, job=replace(JOB, max_rejects=Share(Decimal(4), is_percentage=True)))
        driver = Driver(world)
        planned = await driver.plan()
        await driver.blocks(planned)
        with pytest.raises(TerminalError, match="20 of 400 rows were rejected"):
            await driver.finish(planned.call)
        # Once the rows are mended, the next execution reads them.
        world.source.rows = movies(400)
        await assert_exact(world, await driver.run(), movies(400))

    bounded(scenario)


def test_rows_without_a_unique_order_are_one_block() -> None:
    relation = replace(MOVIES, primary_key=(), unique_keys=())

    async def scenario() -> None:
        world = fake_world(movies(400), relation, job=replace(JOB, key=("movie_id",)))
        failing = 3

        def fail(call: Call) -> EtlError | None:
            nonlocal failing
            failing -= call.name == "set" and "/chunk/" in call.key
            return SinkError("it fails") if failing < 0 else None

        driver = Driver(world)
        planned = await driver.plan()
        assert planned.blocks == (0,)
        world.account.fault = fail
        with pytest.raises(SinkError):
            await driver.extract(planned.call, 0)
        world.account.fault = None
        await driver.work(planned.call, 0)
        await assert_exact(world, await driver.finish(planned.call), movies(400))
        assert world.tables["movies"].written == 400

    bounded(scenario)


def test_a_hundred_thousand_ranges_fit_into_a_payload() -> None:
    async def scenario() -> None:
        world = fake_world(movies(100_000))
        planned = await Driver(world, spread=Spread(1000, ranges=100_000)).plan()
        assert planned.ranges == 100_000
        assert len(planned.blocks) == 1000
        assert len(json.dumps(asdict(planned))) < 10_000

    bounded(scenario)


def test_replace_removes_what_is_gone_and_spares_what_was_rejected() -> None:
    async def scenario() -> None:
        world = fake_world(movies(400), job=replace(JOB, mode="replace"))
        await Driver(world).run()
        # One row is gone, and one was rejected: its old item stays.
        world.source.rows = [(n, t, "NaN" if n == "30" else r) for n, t, r in movies(400) if n != "50"]
        report = await Driver(world, share=1, kept=0).run()
        numbers = {int(it["movie_id"]["N"]) for it in world.items}
        assert numbers == set(range(400)) - {50}
        assert (report.counters.items_deleted, report.counters.rows_rejected) == (1, 1)

    bounded(scenario)


def test_an_incremental_run_takes_what_is_new() -> None:
    incremental = Incremental("movie_id")

    async def scenario() -> None:
        world = fake_world(movies(100), job=replace(JOB, incremental=incremental))
        first = await Driver(world).run()
        assert first.watermark_moved
        world.source.rows = movies(3000, "new")
        second = await Driver(world).run()
        assert second.watermark_moved
        assert second.counters.rows_extracted == 3000
        assert world.items == [item(row) for row in movies(3000, "new")]
        third = await Driver(world).run()
        assert third.counters.rows_extracted == 1001  # the overlap

    bounded(scenario)


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_call_that_is_asked_to_end_goes_on_in_the_next(after: int) -> None:
    rows = with_rejects(600)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        moved = 0

        def look(call: Call) -> None:
            nonlocal moved
            moved += "/chunk/" in call.key and call.name in ("set", "get")
            if moved >= after:
                moved = 0
                world.report.stop.request()

        world.account.fault = look
        driver = Driver(world)
        report = await driver.run()
        await assert_exact(world, report, rows, refusing=True)
        assert sum(driver.calls.values()) > 8

    bounded(scenario)


@pytest.mark.parametrize("kept", [0, 3000])
def test_a_block_stores_no_more_than_its_share(kept: int) -> None:
    async def scenario() -> None:
        world = fake_world(movies(600))
        driver = Driver(world, spread=Spread(1, ranges=1), share=4000, kept=kept)
        planned = await driver.plan()
        most = 0

        def look(_call: Call) -> None:
            nonlocal most
            held = sum(len(value) for key, value in world.entries.items() if "/chunk/" in key)
            most = max(most, held)

        world.account.fault = look
        await driver.blocks(planned)
        assert 0 < most <= 4000 + kept
        await assert_exact(world, await driver.finish(planned.call), movies(600))

    bounded(scenario)


def test_a_block_that_is_done_is_known_of_long_after_its_rows_have_expired() -> None:
    rows = with_rejects(400)

    async def scenario() -> None:
        world = fake_world(rows, refuse=is_refused)
        driver = Driver(world, spread=Spread(3, ranges=4))
        planned = await driver.plan()
        first, *others = planned.blocks
        await driver.work(planned.call, first)
        later = world.account.clock() + 3 * world.job.ttl_seconds
        world.account.clock = lambda: later
        for block in others:
            await driver.work(planned.call, block)
        await assert_exact(world, await driver.finish(planned.call), rows, refusing=True)

    bounded(scenario)
