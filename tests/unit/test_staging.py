"""The staging area: the names in the cache, and reads that lag behind writes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.cache import staging as module
from etlcli.cache.documents import dump_pointer
from etlcli.cache.packed import Packer
from etlcli.cache.staging import LEDGER_PAGE_CHUNKS, RUNS_KEPT, Stage, Staging
from etlcli.errors import CacheError, ChunkError
from etlcli.local.momento.clock import ManualClock
from etlcli.model import ChunkRecord, Column, Key, KeyAttribute, Manifest, PgType, Reject, Totals
from tests.contract.fakes.cache import FakeAccount, FakeCache

RUN = "20260814T101502123Z-7f3a"
TTL = 4800
ROWS = [b'{"id":{"N":"1"}}', b'{"id":{"N":"2"}}']


class Scene:
    """A job's staging area over a fake cache, in a time that passes only while somebody sleeps."""

    def __init__(self, job: str = "movies", *, lag: int = 0) -> None:
        self.clock = ManualClock(1_786_000_000.0)
        self.account = FakeAccount(clock=self.clock, lag=lag)
        self.account.caches["etl"] = {}
        self.job = job
        self.slept: list[float] = []

    @property
    def staging(self) -> Staging:
        return Staging(FakeCache("etl", self.account), self.job)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)

    @property
    def keys(self) -> set[str]:
        return set(self.account.caches["etl"])

    def manifest(self, chunks: int = 0, **changes: Any) -> Manifest:
        now = self.clock()
        manifest = Manifest(
            job=self.job,
            run_id=RUN,
            status="complete",
            source="here",
            fingerprint="f",
            columns=(Column("id", PgType("integer", "int4")),),
            key=Key(KeyAttribute("id", "N")),
            source_key=("id",),
            layout="packed",
            ttl_seconds=TTL,
            started_at=now,
            written_at=now,
            completed_at=now,
            totals=Totals(chunks=chunks),
        )
        return replace(manifest, **changes)

    async def settle(self, key: str) -> None:
        """Read until what was written last is found."""
        while self.account.caches["etl"][key].lag:
            await FakeCache("etl", self.account).get(key)

    async def store_chunk(self, number: int, rows: list[bytes] = ROWS) -> ChunkRecord:
        packer = Packer()
        packer.add(rows)
        packed = packer.finish()
        await self.staging.store_chunk(RUN, number, packed, TTL)
        return ChunkRecord(
            number,
            packed.rows,
            0,
            0,
            packed.bytes_encoded,
            len(packed.entry),
            packed.stored_digest,
            packed.rows_digest,
            ("1",),
            ("2",),
            self.clock(),
        )


def record(number: int) -> ChunkRecord:
    return ChunkRecord(number, 2, 0, 0, 30, 60, "aa", "bb", ("1",), (None,), 1_786_000_000.0)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Scene, Callable[[Scene], Awaitable[None]]], None]:
    def played(scene: Scene, scenario: Callable[[Scene], Awaitable[None]]) -> None:
        monkeypatch.setattr(module, "time", SimpleNamespace(time=scene.clock))
        monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=scene.sleep))
        asyncio.run(bounded(scene, scenario))

    async def bounded(scene: Scene, scenario: Callable[[Scene], Awaitable[None]]) -> None:
        async with asyncio.timeout(30):
            await scenario(scene)

    return played


Play = Callable[[Scene, Callable[[Scene], Awaitable[None]]], None]


# Names


async def store_everything(scene: Scene) -> None:
    staging = scene.staging
    await scene.store_chunk(0)
    await scene.store_chunk(12)
    await staging.store_ledger_page(RUN, 3, [record(LEDGER_PAGE_CHUNKS * 3)], TTL)
    await staging.store_manifest(scene.manifest())
    await staging.move_current(RUN, TTL)
    await staging.note_run(RUN, TTL)
    await staging.store_rejects(RUN, "extract", 0, [Reject("r", "m", {})], TTL)
    await staging.store_rejects(RUN, "load", 1, [Reject("r", "m", {})], TTL)


def test_names_in_the_cache_are_as_documented(play: Play) -> None:
    scene = Scene()
    play(scene, store_everything)
    assert scene.keys == {
        "movies/current",
        "movies/runs",
        f"movies/{RUN}/manifest",
        f"movies/{RUN}/ledger/3",
        f"movies/{RUN}/chunk/0",
        f"movies/{RUN}/chunk/12",
        f"movies/{RUN}/rejects/extract/0",
        f"movies/{RUN}/rejects/load/1",
    }
    for name in ("JOB/current", "JOB/runs", "JOB/RUN/manifest", "JOB/RUN/ledger/PAGE", "JOB/RUN/chunk/NUMBER"):
        assert f"\n    {name} " in str(module.__doc__)


@pytest.mark.parametrize(
    ("job", "prefix"),
    [("a/b", "a%2Fb/"), ("a%2Fb", "a%252Fb/"), ("100%", "100%25/"), ("Order Details", "Order Details/"), ("ж", "ж/")],
)
def test_jobs_with_odd_names(play: Play, job: str, prefix: str) -> None:
    scene = Scene(job)
    play(scene, store_everything)
    assert all(key.startswith(prefix) for key in scene.keys)


names = st.text(st.sampled_from("ab/%25F2"), min_size=1, max_size=8)


@given(names, names)
def test_no_two_jobs_share_a_name(one: str, other: str) -> None:
    scene, another = Scene(one), Scene(other)
    asyncio.run(store_everything(scene))
    asyncio.run(store_everything(another))
    assert bool(scene.keys & another.keys) == (one == other)


def test_jobs_in_one_cache_do_not_see_each_other(play: Play) -> None:
    scene = Scene("a")

    async def scenario(scene: Scene) -> None:
        await store_everything(scene)
        scene.job = "a/b"
        staging = scene.staging
        assert await staging.fetch_current() is None
        assert await staging.fetch_runs() == []
        assert await staging.fetch_manifest(RUN) is None
        assert await staging.fetch_rejects(scene.manifest(0)) == []
        await staging.move_current("other", TTL)
        scene.job = "a"
        assert await scene.staging.fetch_current() == RUN

    play(scene, scenario)


# Chunks


def test_a_chunk_comes_back(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        stored = await scene.store_chunk(3)
        assert await scene.staging.fetch_chunk(scene.manifest(), stored) == ROWS
        await scene.staging.free_chunk(scene.manifest(), stored)
        await scene.staging.free_chunk(scene.manifest(), stored)
        assert scene.keys == set()

    play(Scene(), scenario)


def test_an_expired_chunk_is_an_error_that_names_it(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        stored = await scene.store_chunk(3)
        scene.clock.advance(TTL)
        with pytest.raises(ChunkError, match=f"chunk 3 of run {RUN} is not in cache 'etl'") as caught:
            await scene.staging.fetch_chunk(scene.manifest(), stored)
        assert "--ttl" in str(caught.value.hint)
        assert scene.slept == []  # what was stored long ago does not come any more

    play(Scene(), scenario)


def test_a_chunk_that_the_ledger_does_not_know_is_refused(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        stored = await scene.store_chunk(3)
        await scene.store_chunk(3, [b'{"id":{"N":"3"}}', b'{"id":{"N":"4"}}'])
        with pytest.raises(ChunkError, match=r"chunk 3 .* not what the ledger says"):
            await scene.staging.fetch_chunk(scene.manifest(), stored)

    play(Scene(), scenario)


@pytest.mark.parametrize("bit", [0, 50, 333, -1, -70])
def test_a_damaged_chunk_is_an_error_that_names_it(play: Play, bit: int) -> None:
    async def scenario(scene: Scene) -> None:
        stored = await scene.store_chunk(3)
        entries = scene.account.caches["etl"]
        key = f"movies/{RUN}/chunk/3"
        value = bytearray(entries[key].value)
        value[bit // 8] ^= 1 << bit % 8
        entries[key] = entries[key]._replace(value=bytes(value))
        with pytest.raises(ChunkError, match="chunk 3 "):
            await scene.staging.fetch_chunk(scene.manifest(), stored)

    play(Scene(), scenario)


# Eventual consistency


@pytest.mark.parametrize("lag", [1, 5])
def test_reads_that_lag_are_asked_again(play: Play, lag: int) -> None:
    async def scenario(scene: Scene) -> None:
        stored = await scene.store_chunk(0)
        assert await scene.staging.fetch_chunk(scene.manifest(), stored) == ROWS
        assert len(scene.slept) == lag
        await scene.staging.move_current(RUN, TTL)
        assert await scene.staging.fetch_current(settle=True) == RUN
        await scene.staging.store_ledger_page(RUN, 0, [record(0)], TTL)
        assert await scene.staging.fetch_ledger(scene.manifest(1)) == [record(0)]
        await scene.staging.store_manifest(scene.manifest(1))
        assert await scene.staging.fetch_manifest(RUN, settle=True) is not None

    play(Scene(lag=lag), scenario)


def test_a_page_as_it_was_before_is_asked_again(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.staging.store_ledger_page(RUN, 0, [record(0)], TTL)
        await scene.settle(f"movies/{RUN}/ledger/0")
        await scene.staging.store_ledger_page(RUN, 0, [record(0), record(1)], TTL)
        assert await scene.staging.fetch_ledger(scene.manifest(2)) == [record(0), record(1)]
        assert len(scene.slept) == 3

    play(Scene(lag=3), scenario)


def test_a_manifest_as_it_was_before_is_asked_again(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.staging.store_manifest(scene.manifest(status="extracting"))
        await scene.settle(f"movies/{RUN}/manifest")
        await scene.staging.store_manifest(scene.manifest())
        found = await scene.staging.fetch_manifest(RUN)
        assert found is not None
        assert found.status == "extracting"
        found = await scene.staging.fetch_manifest(RUN, settle=True)
        assert found is not None
        assert found.status == "complete"

    play(Scene(lag=3), scenario)


def test_what_does_not_come_is_waited_for_as_long_as_reads_may_lag(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        stored = await scene.store_chunk(0)
        await scene.staging.free_chunk(scene.manifest(), stored)
        started = scene.clock()
        with pytest.raises(ChunkError):
            await scene.staging.fetch_chunk(scene.manifest(), stored)
        assert scene.clock() - started == pytest.approx(5.0)
        assert scene.account.named("get")[-1] == f"movies/{RUN}/chunk/0"
        scene.slept.clear()
        assert await scene.staging.fetch_current(settle=True) is None
        assert sum(scene.slept) == pytest.approx(5.0)

    play(Scene(), scenario)


def test_nothing_is_waited_for_where_nothing_was_written_lately(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        stored = await scene.store_chunk(0)
        manifest = scene.manifest(2)
        await scene.staging.free_chunk(scene.manifest(), stored)
        scene.clock.advance(5.5)
        with pytest.raises(ChunkError):
            await scene.staging.fetch_chunk(scene.manifest(), stored)
        with pytest.raises(CacheError, match="page 0"):
            await scene.staging.fetch_ledger(manifest)
        assert await scene.staging.fetch_current() is None
        assert await scene.staging.fetch_runs() == []
        assert await scene.staging.fetch_manifest(RUN) is None
        assert scene.slept == []

    play(Scene(), scenario)


# Ledger, runs, rejects


def test_a_ledger_of_many_pages(play: Play) -> None:
    chunks = 2 * LEDGER_PAGE_CHUNKS + 5

    async def scenario(scene: Scene) -> None:
        for page in range(3):
            numbers = range(page * LEDGER_PAGE_CHUNKS, min(chunks, (page + 1) * LEDGER_PAGE_CHUNKS))
            await scene.staging.store_ledger_page(RUN, page, [record(number) for number in numbers], TTL)
        whole = [record(number) for number in range(chunks)]
        manifest = scene.manifest(chunks)
        assert await scene.staging.fetch_ledger(manifest) == whole
        assert await scene.staging.fetch_known_chunks(manifest) == whole
        open_manifest = scene.manifest(status="extracting")
        assert await scene.staging.fetch_known_chunks(open_manifest) == whole
        del scene.account.caches["etl"][f"movies/{RUN}/ledger/1"]
        scene.clock.advance(60)
        with pytest.raises(CacheError, match=f"page 1 of the ledger of run {RUN} is not in the cache") as caught:
            await scene.staging.fetch_ledger(manifest)
        assert caught.value.hint
        page = LEDGER_PAGE_CHUNKS
        assert await scene.staging.fetch_known_chunks(manifest) == whole[:page] + whole[2 * page :]
        assert await scene.staging.fetch_known_chunks(open_manifest) == whole[:page]

    play(Scene(), scenario)


@pytest.mark.parametrize("numbers", [[0, 1], [0, 1, 2, 3], [0, 2, 1], [0, 1, 1], [1, 2, 3], []])
def test_a_ledger_that_does_not_name_each_chunk_is_refused(play: Play, numbers: list[int]) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.staging.store_ledger_page(RUN, 0, [record(number) for number in numbers], TTL)
        manifest = scene.manifest(3)
        scene.clock.advance(60)
        with pytest.raises(CacheError, match=r"page 0 .* chunks 0 to 2"):
            await scene.staging.fetch_ledger(manifest)

    play(Scene(), scenario)


def test_a_run_without_chunks_has_no_ledger(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.staging.fetch_ledger(scene.manifest(0)) == []
        assert scene.account.calls == []

    play(Scene(), scenario)


def test_the_newest_runs_are_remembered(play: Play) -> None:
    runs = [f"2026{number:04}" for number in range(RUNS_KEPT + 3)]

    async def scenario(scene: Scene) -> None:
        for run in runs:
            await scene.staging.note_run(run, TTL)
        newest = runs[::-1][:RUNS_KEPT]
        assert await scene.staging.fetch_runs() == newest
        await scene.staging.note_run(newest[3], TTL)  # to renew the list
        assert await scene.staging.fetch_runs() == newest

    play(Scene(), scenario)


def test_a_list_of_runs_that_cannot_be_read_is_replaced(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        await FakeCache("etl", scene.account).set("movies/runs", b"garbage", TTL)
        with pytest.raises(CacheError, match="movies/runs is damaged"):
            await scene.staging.fetch_runs()
        await scene.staging.note_run(RUN, TTL)
        assert await scene.staging.fetch_runs() == [RUN]

    play(Scene(), scenario)


def test_a_damaged_document_is_an_error_that_names_it(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        cache = FakeCache("etl", scene.account)
        for name in ("current", f"{RUN}/manifest", f"{RUN}/ledger/0", f"{RUN}/rejects/load/0"):
            await cache.set(f"movies/{name}", dump_pointer("x").replace(b"run_id", b"walk"), TTL)
        reads: dict[str, Callable[[], Awaitable[object]]] = {
            "current": lambda: scene.staging.fetch_current(settle=True),
            "manifest": lambda: scene.staging.fetch_manifest(RUN, settle=True),
            "ledger/0": lambda: scene.staging.fetch_ledger(scene.manifest(1)),
            "rejects/load/0": lambda: scene.staging.fetch_rejects(scene.manifest(0)),
        }
        for name, read in reads.items():
            with pytest.raises(CacheError, match=f"movies/.*{name} is damaged"):
                await read()
        assert scene.slept == []

    play(Scene(), scenario)


def test_rejects_come_back_in_their_order(play: Play) -> None:
    def reject(text: str) -> Reject:
        return Reject("rule", text, {"id": text})

    async def scenario(scene: Scene) -> None:
        staging = scene.staging
        await staging.store_rejects(RUN, "load", 0, [reject("l0")], TTL)
        await staging.store_rejects(RUN, "extract", 0, [reject("e0"), reject("e1")], TTL)
        await staging.store_rejects(RUN, "extract", 1, [reject("e2")], TTL)
        assert [it.message for it in await staging.fetch_rejects(scene.manifest(0))] == ["e0", "e1", "e2", "l0"]
        await staging.end_rejects(RUN, "extract", 1)
        await staging.end_rejects(RUN, "load", 0)
        assert [it.message for it in await staging.fetch_rejects(scene.manifest(0))] == ["e0", "e1"]

    play(Scene(), scenario)


@pytest.mark.parametrize("lag", [0, 3])
def test_rejects_that_are_known_of_are_waited_for(play: Play, lag: int) -> None:
    pages = [[Reject("rule", f"{page}.{number}", {}) for number in range(3)] for page in range(3)]

    async def scenario(scene: Scene) -> None:
        staging = scene.staging
        for page, rejects in enumerate(pages):
            await staging.store_rejects(RUN, "extract", page, rejects, TTL)
        await staging.store_rejects(RUN, "load", 0, pages[0], TTL)
        expected: dict[Stage, int] = {"extract": 9, "load": 3}
        assert [page async for page in staging.fetch_reject_pages(scene.manifest(0), expected)] == [*pages, pages[0]]
        assert bool(scene.slept) == bool(lag)
        # Nobody looks further than what there is.
        assert scene.account.named("get")[-1] == f"movies/{RUN}/rejects/load/0"

    play(Scene(lag=lag), scenario)


def test_rejects_that_are_missing_are_missed_after_some_seconds(play: Play) -> None:
    async def scenario(scene: Scene) -> None:
        staging = scene.staging
        rejects = [Reject("rule", str(number), {}) for number in range(3)]
        await staging.store_rejects(RUN, "extract", 0, rejects, TTL)
        await staging.store_rejects(RUN, "extract", 2, rejects, TTL)
        await staging.store_rejects(RUN, "load", 0, rejects, TTL)
        found = [page async for page in staging.fetch_reject_pages(scene.manifest(0), {"extract": 9, "load": 0})]
        assert found == [rejects]
        assert 4.9 < sum(scene.slept) < 5.1
        # Who does not know how many there are does not wait.
        scene.slept.clear()
        assert len(await staging.fetch_rejects(scene.manifest(0))) == 6
        assert scene.slept == []

    play(Scene(), scenario)
