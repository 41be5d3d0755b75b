"""The extractor's ledger: written as chunks arrive, in whatever order, and again before it expires."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from etlcli.cache import documents
from etlcli.cache.ledger import Ledger
from etlcli.cache.staging import LEDGER_PAGE_CHUNKS, Staging
from etlcli.errors import CacheError, EtlError
from etlcli.local.momento.clock import ManualClock
from etlcli.model import ChunkRecord, Key, KeyAttribute, Manifest
from tests.contract.fakes.cache import Call, FakeAccount, FakeCache

RUN = "20260814T101502123Z-7f3a"
TTL = 60
MANIFEST = Manifest(
    "movies", RUN, "extracting", "s", "f", (), Key(KeyAttribute("id", "N")), ("id",), "packed", TTL, 1.0, 1.0
)
MANIFEST_KEY = f"movies/{RUN}/manifest"


def page_key(page: int) -> str:
    return f"movies/{RUN}/ledger/{page}"


def record(number: int) -> ChunkRecord:
    return ChunkRecord(number, 2, 0, 0, 30, 60, "aa", "bb", (None,), ("2",), 1_786_000_000.0)


class Scene:
    """A ledger over a fake cache, both by one clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.clock = ManualClock(5000.0)
        self.account = FakeAccount(caches={"etl": {}}, clock=self.clock)
        self.staging = Staging(FakeCache("etl", self.account), "movies", settling_seconds=0)
        self.ledger = Ledger(self.staging, MANIFEST, clock=self.clock)

    def page(self, page: int) -> list[int]:
        document = self.account.values("etl")[page_key(page)]
        return [found.number for found in documents.load_ledger_page(document, "")]

    def manifest(self) -> Manifest:
        return documents.load_manifest(self.account.values("etl")[MANIFEST_KEY], "")

    async def until(self, condition: Callable[[], Any]) -> None:
        """Let the others work until something is so."""
        while not condition():  # noqa: ASYNC110  whatever it is about tells nobody
            await asyncio.sleep(0)

    async def idle(self) -> None:
        """Let the others work for as long as they have anything to do."""
        calls = -1
        while calls != len(self.account.calls):
            calls = len(self.account.calls)
            for _ in range(20):
                await asyncio.sleep(0)


def play(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    async def body() -> None:
        async with asyncio.timeout(30):
            await scenario(Scene())

    asyncio.run(body())


def kept(scenario: Callable[[Scene], Awaitable[None]]) -> None:
    """Plays a scenario while the ledger is being kept."""

    async def body(scene: Scene) -> None:
        keeper = asyncio.create_task(scene.ledger.keep())
        try:
            await scenario(scene)
        finally:
            keeper.cancel()
            with pytest.raises(asyncio.CancelledError):
                await keeper

    play(body)


def test_pages_are_written_as_chunks_arrive_out_of_order() -> None:
    async def scenario(scene: Scene) -> None:
        scene.ledger.add(record(5))
        await scene.until(lambda: page_key(0) in scene.account.values("etl"))
        assert scene.page(0) == [5]
        for number in (3, 70, 4):
            scene.ledger.add(record(number))
        await scene.until(lambda: page_key(1) in scene.account.values("etl"))
        assert scene.page(0) == [3, 4, 5]
        assert scene.page(1) == [70]
        await scene.idle()
        assert scene.account.named("set") == [page_key(0), page_key(0), page_key(1)]

    kept(scenario)


def test_flush_writes_all_that_changed_and_nothing_else() -> None:
    async def scenario(scene: Scene) -> None:
        numbers = [*range(150, 100, -1), *range(101)]
        for number in numbers:
            scene.ledger.add(record(number))
        await scene.ledger.flush()
        assert [scene.page(page) for page in range(3)] == [
            list(range(64)),
            list(range(64, 128)),
            list(range(128, 151)),
        ]
        await scene.ledger.flush()
        assert len(scene.account.named("set")) == 3
        scene.ledger.add(record(151))
        await scene.ledger.flush()
        assert scene.account.named("set")[3:] == [page_key(2)]

    play(scenario)


def test_a_chunk_that_arrives_while_its_page_is_written_is_written_too() -> None:
    async def scenario(scene: Scene) -> None:
        def late(call: Call) -> None:
            if call.key == page_key(0) and len(scene.account.named("set")) == 1:
                scene.ledger.add(record(1))

        scene.account.fault = late
        scene.ledger.add(record(0))
        await scene.ledger.flush()
        await scene.ledger.flush()
        assert scene.page(0) == [0, 1]

    play(scenario)


def test_what_could_not_be_written_is_not_taken_for_written() -> None:
    async def scenario(scene: Scene) -> None:
        broken = True

        def fault(call: Call) -> EtlError | None:
            return CacheError("refused") if broken and call.key == page_key(1) else None

        scene.account.fault = fault
        for number in (0, 64, 128):
            scene.ledger.add(record(number))
        first = asyncio.create_task(scene.ledger.flush())
        second = asyncio.create_task(scene.ledger.flush())  # waits for the first one's lock
        with pytest.raises(CacheError):
            await first
        with pytest.raises(CacheError):
            await second
        broken = False
        await scene.ledger.flush()
        assert [scene.page(page) for page in range(3)] == [[0], [64], [128]]

    play(scenario)


def test_all_is_written_again_before_it_expires() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.ledger.write_manifest()
        await scene.staging.note_run(RUN, TTL)
        for number in (0, 64):
            scene.ledger.add(record(number))
        for step in range(20):  # ten times the time to live in all
            scene.clock.advance(TTL / 2)
            scene.ledger.add(record(128 + step))
            await scene.idle()
            assert scene.manifest().run_id == RUN
            assert await scene.staging.fetch_runs() == [RUN]
            assert [scene.page(page) for page in (0, 1)] == [[0], [64]]

    kept(scenario)


def test_it_is_written_again_however_fast_chunks_arrive() -> None:
    async def scenario(scene: Scene) -> None:
        numbers = iter(range(1, LEDGER_PAGE_CHUNKS))

        def another(call: Call) -> None:
            # By the time a page is written there is always one chunk more, and time has passed.
            if call.key == page_key(0) and call.name == "set":
                scene.clock.advance(TTL / 10)
                if (number := next(numbers, None)) is not None:
                    scene.ledger.add(record(number))

        await scene.ledger.write_manifest()
        scene.account.fault = another
        scene.ledger.add(record(0))
        await scene.until(lambda: next(numbers, None) is None)
        assert scene.account.named("set").count(MANIFEST_KEY) > 5
        assert scene.manifest().run_id == RUN

    kept(scenario)


def test_nothing_is_written_again_early() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.ledger.write_manifest()
        scene.ledger.add(record(0))
        await scene.idle()
        scene.clock.advance(TTL / 4)
        scene.ledger.add(record(1))
        await scene.idle()
        assert scene.account.named("set") == [MANIFEST_KEY, page_key(0), page_key(0)]

    kept(scenario)


def test_the_timer_alone_writes_it_again() -> None:
    # With a real clock, and a time to live that is as good as over: nobody adds a chunk here.
    async def body() -> None:
        account = FakeAccount(caches={"etl": {}})
        enough = asyncio.Event()

        def watch(_call: Call) -> None:
            if min(account.named("set").count(key) for key in (MANIFEST_KEY, page_key(0))) >= 3:
                enough.set()

        account.fault = watch
        staging = Staging(FakeCache("etl", account), "movies", settling_seconds=0)
        ledger = Ledger(staging, Manifest(**{**_fields(MANIFEST), "ttl_seconds": 0.003}))
        ledger.add(record(0))
        keeper = asyncio.create_task(ledger.keep())
        async with asyncio.timeout(30):
            await enough.wait()
        keeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeper

    asyncio.run(body())


def _fields(manifest: Manifest) -> dict[str, Any]:
    return {name: getattr(manifest, name) for name in Manifest.__dataclass_fields__}


def test_a_failure_ends_the_keeping() -> None:
    async def scenario(scene: Scene) -> None:
        scene.account.fault = lambda _call: CacheError("refused")
        keeper = asyncio.create_task(scene.ledger.keep())
        scene.ledger.add(record(0))
        with pytest.raises(CacheError, match="refused"):
            await keeper

    play(scenario)


def test_the_manifest_is_what_was_last_written() -> None:
    async def scenario(scene: Scene) -> None:
        ledger = scene.ledger
        for number in range(3):
            ledger.add(record(number))
        await ledger.write_manifest()
        assert scene.manifest() == ledger.manifest
        assert ledger.manifest.status == "extracting"
        assert ledger.manifest.written_at > MANIFEST.written_at
        scene.account.fault = lambda _call: CacheError("refused")
        with pytest.raises(CacheError):
            await ledger.complete()
        assert ledger.manifest.status == "extracting"
        scene.account.fault = None
        ledger.note_freed()
        ledger.note_freed()
        complete = await ledger.complete()
        assert complete == scene.manifest() == ledger.manifest
        assert (complete.status, complete.totals.chunks, complete.chunks_freed) == ("complete", 3, 2)
        assert complete.completed_at is not None
        await ledger.write_manifest()
        assert scene.manifest().status == "complete"
        assert scene.manifest().chunks_freed == 2

    play(scenario)


def test_a_lost_page_is_an_error_that_names_it() -> None:
    async def scenario(scene: Scene) -> None:
        for number in range(200):
            scene.ledger.add(record(number))
        await scene.ledger.flush()
        manifest = await scene.ledger.complete()
        assert await scene.staging.fetch_ledger(manifest) == [record(number) for number in range(200)]
        del scene.account.caches["etl"][page_key(2)]
        with pytest.raises(CacheError, match=f"page 2 of the ledger of run {RUN}"):
            await scene.staging.fetch_ledger(manifest)

    play(scenario)
