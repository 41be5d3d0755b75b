"""Runs that take longer than their entries live: what a run is known by stays, and expired chunks are called so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest

from etlcli import extraction
from etlcli.cache import ledger as ledger_module
from etlcli.cache import packed
from etlcli.cache import staging as staging_module
from etlcli.cache.ledger import Ledger
from etlcli.cache.momento import MomentoCache
from etlcli.cache.staging import Staging
from etlcli.config.momento import MomentoAccess
from etlcli.errors import ChunkError
from etlcli.inspection import check_chunks, inspect_job
from etlcli.local.momento.clock import ManualClock
from etlcli.local.momento.limits import Limits
from etlcli.local.momento.server import MomentoServer, serve
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from tests.integration.whole_run import CACHE, JOB, WholeRun, films

BOUND = 60  # seconds after which a test is given up
START = 1_786_000_000.0
QUICK = RetryPolicy(patience=5.0, base=0.01, ceiling=0.05)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The one clock of the server, the ledger and whoever reckons what is left of a time to live."""
    clock = ManualClock(START)
    for module in (staging_module, ledger_module, extraction):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=clock, monotonic=clock))
    for kind, name, value in ((Ledger, "clock", clock), (Staging, "settling_seconds", 0.0)):
        defaults = kind.__init__.__kwdefaults__
        assert defaults is not None
        monkeypatch.setitem(defaults, name, value)
    monkeypatch.setattr(packed, "MAX_ENCODED_BYTES", 3000)
    monkeypatch.setattr(extraction, "_PIECE_BYTES", 1000)
    return clock


def play(
    clock: ManualClock, scenario: Callable[[MomentoServer, MomentoCache], Awaitable[None]], limits: Limits
) -> None:
    async def body() -> None:
        async with asyncio.timeout(BOUND), serve(port=0, clock=clock, limits=limits, sweep_seconds=0.01) as server:
            access = MomentoAccess("local", local=server.address)
            async with MomentoCache(access, CACHE, Counters(), QUICK) as cache:
                await scenario(server, cache)

    asyncio.run(body())


@pytest.mark.parametrize("limits", [Limits(), Limits(max_item_bytes=1200)], ids=["whole", "in_parts"])
def test_a_run_of_many_times_the_time_to_live_is_known_to_its_end(clock: ManualClock, limits: Limits) -> None:
    whole = WholeRun(films(7000))
    ttl = JOB.ttl_seconds

    async def scenario(_server: MomentoServer, cache: MomentoCache) -> None:
        known: set[int] = set()

        async def look(handed_over: int) -> None:
            """Some of the time to live passes between two batches; then all there is of the run is looked for."""
            nonlocal known
            run_id = whole.report.run_id
            if run_id is None or not handed_over:
                return
            clock.advance(ttl / 6)
            staging = Staging(cache, JOB.name)
            assert await staging.fetch_runs() == [run_id]
            manifest = await staging.fetch_manifest(run_id)
            assert manifest is not None
            assert manifest.status == "extracting"
            before, known = known, {record.number for record in await staging.fetch_known_chunks(manifest)}
            assert known >= before  # no page has expired

        whole.before_batch = look
        await whole.run(cache)
        whole.assert_exact()
        assert clock() - START > 10 * ttl
        assert len(known) > 64

        inspection = await inspect_job(JOB.name, cache)
        assert inspection.current is not None
        assert len(inspection.current.chunks) == whole.report.counters.chunks_stored
        _, wrong, _ = await check_chunks(JOB.name, cache)
        assert 0 < len(wrong) < len(inspection.current.chunks)
        assert all(found.message.endswith("any more: it has expired") for found in wrong)
        assert {found.state for found in wrong} == {"expired"}

    play(clock, scenario, limits)


def test_expired_chunks_are_told_from_flushed_and_damaged_ones(clock: ManualClock) -> None:
    async def scenario(server: MomentoServer, cache: MomentoCache) -> None:
        whole = WholeRun(films(300))
        await whole.extract(cache)
        held = server.store.cache(CACHE)
        key = f"films/{whole.report.run_id}/chunk/1".encode()
        value = held.get(key)
        assert value is not None
        held.set(key, value[:30] + bytes([value[30] ^ 1]) + value[31:], JOB.ttl_seconds * 1000)
        with pytest.raises(ChunkError, match=r"chunk 1 .* is damaged"):
            await whole.load(cache)
        held.delete(key)
        with pytest.raises(ChunkError, match=r"chunk 1 .* though its time is not up"):
            await whole.load(cache)
        assert whole.report.manifest is not None
        records = await Staging(cache, JOB.name).fetch_ledger(whole.report.manifest)
        clock.advance(JOB.ttl_seconds)
        with pytest.raises(ChunkError, match=r"chunk 0 .* any more: it has expired") as caught:
            await Staging(cache, JOB.name).fetch_chunk(whole.report.manifest, records[0])
        assert "--ttl" in str(caught.value.hint)

    play(clock, scenario, Limits())
