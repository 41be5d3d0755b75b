"""What several jobs leave in their caches stays under one bound, and what was freed says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from etlcli.cache.packed import Packer
from etlcli.cache.staging import Staging
from etlcli.errors import CacheError
from etlcli.leftovers import Leftovers
from etlcli.model import ChunkRecord, Key, KeyAttribute, Manifest, Totals
from etlcli.progress import Counters
from etlcli.report import Report
from tests.contract.fakes.cache import FakeAccount, FakeCache

LIMIT = 1000


class World:
    """An account, and jobs that store something in it."""

    def __init__(self) -> None:
        self.account = FakeAccount()
        self.opened: list[str] = []
        self.left = Leftovers(LIMIT, self._open)

    @asynccontextmanager
    async def _open(self, name: str, counters: Counters) -> AsyncIterator[FakeCache]:
        assert isinstance(counters, Counters)
        self.opened.append(name)
        yield FakeCache(name, self.account)

    async def store(self, job: str, cache: str, size: int, chunks: int = 2) -> Report:
        """Store a complete run, said to have so many bytes."""
        staging = Staging(FakeCache(cache, self.account), job, settling_seconds=0)
        await staging.ensure()
        run_id = f"run-of-{job}"
        now = time.time()
        records = []
        for number in range(chunks):
            packer = Packer()
            packer.add([b'{"id":{"N":"1"}}'])
            await staging.store_chunk(run_id, number, packer.finish(), 600)
            records.append(record(number, now))
        await staging.store_ledger_page(run_id, 0, records, 600)
        await staging.store_manifest(manifest(job, run_id, chunks, now))
        return Report(job, cache=cache, run_id=run_id, counters=Counters(bytes_cached=size))

    def chunks(self, cache: str, job: str) -> list[str]:
        return [key for key in self.account.values(cache) if key.startswith(f"{job}/") and "/chunk/" in key]

    async def freed(self, cache: str, job: str) -> int:
        found = await Staging(FakeCache(cache, self.account), job).fetch_manifest(f"run-of-{job}")
        assert found is not None
        return found.chunks_freed


def record(number: int, now: float) -> ChunkRecord:
    return ChunkRecord(number, 1, 0, 0, 16, 50, "s", "r", ("1",), ("1",), now)


def manifest(job: str, run_id: str, chunks: int, now: float) -> Manifest:
    return Manifest(
        job=job,
        run_id=run_id,
        status="complete",
        source="db",
        fingerprint="f",
        columns=(),
        key=Key(KeyAttribute("id", "N")),
        source_key=("id",),
        layout="packed",
        ttl_seconds=600,
        started_at=now,
        written_at=now,
        totals=Totals(chunks=chunks),
    )


def next_job() -> Report:
    return Report("next", cache="c")


def room_after(world: World, reports: Sequence[Report]) -> list[int]:
    async def main() -> list[int]:
        rooms = []
        for report in reports:
            rooms.append(await world.left.make_room(report))
            world.left.note(report)
        return rooms

    return asyncio.run(main())


def test_what_fits_stays() -> None:
    world = World()
    reports = [asyncio.run(world.store(name, "c-1", 250)) for name in ("aaa", "bbb")]
    assert room_after(world, [*reports, next_job()]) == [LIMIT, 750, 500]
    assert world.opened == []
    assert len(world.chunks("c-1", "aaa")) == 2


def test_the_oldest_goes_first_and_only_as_far_as_is_needed() -> None:
    world = World()
    reports = [
        asyncio.run(world.store(*job)) for job in (("aaa", "c-1", 300), ("bbb", "c-2", 100), ("ccc", "c-1", 200))
    ]
    assert room_after(world, [*reports, next_job()]) == [LIMIT, 700, 600, 700]
    assert world.opened == ["c-1"]
    assert [len(world.chunks(*where)) for where in (("c-1", "aaa"), ("c-2", "bbb"), ("c-1", "ccc"))] == [0, 2, 2]
    # What is gone is told, so that a load says why; what is there is as it was.
    assert asyncio.run(world.freed("c-1", "aaa")) == 2
    assert asyncio.run(world.freed("c-1", "ccc")) == 0


def test_a_job_that_fills_the_bound_makes_way_for_the_next() -> None:
    world = World()
    # It counted all that it stored in its time, and freed some of it itself.
    report = asyncio.run(world.store("aaa", "c-1", 50 * LIMIT))
    assert room_after(world, [report, next_job()]) == [LIMIT, LIMIT]
    assert world.chunks("c-1", "aaa") == []


def test_a_job_that_stored_nothing_is_nobodys_burden() -> None:
    world = World()
    empty = Report("aaa", cache="c-1", run_id="r")
    never = Report("bbb", cache="c-1", counters=Counters(bytes_cached=LIMIT))
    assert room_after(world, [empty, never, next_job()]) == [LIMIT] * 3


def test_what_has_expired_needs_no_freeing() -> None:
    world = World()
    report = asyncio.run(world.store("aaa", "c-1", 900))
    world.account.caches["c-1"].clear()
    assert room_after(world, [report, next_job()]) == [LIMIT, LIMIT]


def test_a_cache_that_refuses_is_a_warning_of_the_next_job() -> None:
    world = World()
    report = asyncio.run(world.store("aaa", "c-1", 900))
    world.account.fault = lambda call: CacheError("not allowed") if call.name == "delete" else None
    after = next_job()
    assert room_after(world, [report, after]) == [LIMIT, LIMIT]
    assert after.warnings == ["what aaa has stored in cache c-1 could not be removed: not allowed"]
