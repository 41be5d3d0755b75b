"""Accounts that take less at once than a chunk, a page or a manifest has: it is stored in parts, and runs are exact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import pytest

from etlcli import extraction
from etlcli.cache import packed
from etlcli.cache.momento import MomentoCache
from etlcli.cache.staging import Staging
from etlcli.config.momento import MomentoAccess
from etlcli.errors import ChunkError, TooLarge
from etlcli.inspection import check_chunks, inspect_job, list_rejects
from etlcli.local.momento.limits import Limits
from etlcli.local.momento.server import MomentoServer, serve
from etlcli.model import Relation
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from tests.contract.fakes.source import Row, column
from tests.integration.whole_run import CACHE, FILMS, JOB, WholeRun, films

BOUND = 60  # seconds after which a test is given up
QUICK = RetryPolicy(patience=5.0, base=0.01, ceiling=0.05)
WIDE = Relation(
    name="public.films",
    columns=(column("id", "int4"), *(column(f"a_column_with_a_name_{n}", "text") for n in range(300))),
    primary_key=("id",),
    unique_keys=(frozenset({"id"}),),
)


@dataclass
class Scene:
    """An account with a limit of its own."""

    server: MomentoServer
    cache: MomentoCache
    counters: Counters

    @property
    def entries(self) -> dict[str, bytes]:
        held = self.server.store.cache(CACHE)
        keys = [key.decode() for key in held._entries]
        return {key: value for key in keys if (value := held.get(key.encode())) is not None}

    def longest(self, part_of_key: str) -> int:
        return max(len(value) for key, value in self.entries.items() if part_of_key in key)


def play(scenario: Callable[[Scene], Awaitable[None]], **limits: int) -> None:
    @asynccontextmanager
    async def scene() -> AsyncIterator[Scene]:
        async with serve(port=0, limits=Limits(**limits)) as server:
            counters = Counters()
            access = MomentoAccess("local", local=server.address)
            async with MomentoCache(access, CACHE, counters, QUICK) as cache:
                yield Scene(server, cache, counters)

    async def body() -> None:
        async with asyncio.timeout(BOUND), scene() as made:
            await scenario(made)

    asyncio.run(body())


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand rows fill many chunks, and more than one page of the ledger."""
    monkeypatch.setattr(packed, "MAX_ENCODED_BYTES", 6000)
    monkeypatch.setattr(extraction, "_PIECE_BYTES", 1500)


@pytest.mark.parametrize("limit", [200_000, 100_000, 30_000, 1500])
def test_chunks_of_their_usual_size_are_split(limit: int) -> None:
    async def scenario(scene: Scene) -> None:
        whole = WholeRun(films(16_000, bad_every=50))
        await whole.run(scene.cache)
        whole.assert_exact()
        assert whole.report.manifest is not None
        records = await Staging(scene.cache, JOB.name).fetch_ledger(whole.report.manifest)
        assert len(records) > 1
        assert records[0].bytes_stored > 256 * 1024
        assert records[0].parts >= records[0].bytes_stored / limit
        assert limit / 2 < scene.longest("/chunk/") <= limit
        whole.tables.clear()
        await whole.extract(scene.cache)
        await whole.load(scene.cache)
        whole.assert_exact()
        _, wrong, _ = await check_chunks(JOB.name, scene.cache)
        assert wrong == []
        # A size that was refused once is not sent again: whole, and then in halves, for each of the two commands.
        sets = scene.server.meter.by_rpc["Set"]
        assert sets.calls - len(scene.entries) < 2 * 40
        assert scene.counters.retries == scene.counters.throttles == 0

    play(scenario, max_item_bytes=limit)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("limit", [5000, 1100])
def test_manifest_ledger_and_rejects_are_split_too(limit: int) -> None:
    def row(n: int) -> Row:
        return (str(n), *(f"{n}" if (n + c) % 100 == 0 else None for c in range(300)))

    async def scenario(scene: Scene) -> None:
        whole = WholeRun([row(n) for n in range(1500)], relation=WIDE)
        await whole.run(scene.cache)
        whole.assert_exact()
        for name in ("manifest", "ledger/0"):
            assert 0 < scene.longest(f"{whole.report.run_id}/{name}/") <= limit  # below its name, and so in parts
        narrow = WholeRun(films(3000, bad_every=5), replace(JOB, name="narrow"), FILMS)
        await narrow.extract(scene.cache)
        await narrow.load(scene.cache)
        narrow.assert_exact()
        inspection = await inspect_job("narrow", scene.cache)
        assert inspection.current is not None
        assert len(inspection.current.chunks) > 30
        assert len(inspection.sample) == 5
        _, rejects = await list_rejects("narrow", scene.cache)
        assert [reject.row["id"] for reject in rejects] == [str(n) for n in range(0, 3000, 5)]
        assert any("/rejects/extract/0/" in key for key in scene.entries)

    play(scenario, max_item_bytes=limit)


@pytest.mark.usefixtures("small_chunks")
def test_the_bound_on_stored_bytes_holds_for_parts() -> None:
    bound = 20_000

    async def scenario(scene: Scene) -> None:
        for edition in range(2):  # the second finds what the first left
            whole = WholeRun(films(4000 + edition), replace(JOB, max_cached_bytes=bound))
            await whole.run(scene.cache)
            whole.assert_exact()
            stored = {key: value for key, value in scene.entries.items() if "/chunk/" in key}
            assert all(key.count("/") == 4 for key in stored)  # JOB/RUN/chunk/NUMBER/PART
            assert bound / 2 < sum(map(len, stored.values())) <= bound
            assert whole.report.counters.bytes_cached > 2 * bound

    play(scenario, max_item_bytes=1200)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("damage", ["flipped", "gone", "swapped"])
def test_a_part_that_is_not_as_it_was_is_seen(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Staging.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "settling_seconds", 0.0)

    async def scenario(scene: Scene) -> None:
        whole = WholeRun(films(1000))
        await whole.extract(scene.cache)
        held = scene.server.store.cache(CACHE)
        key = f"films/{whole.report.run_id}/chunk/2".encode()
        one, other = held.get(key + b"/0"), held.get(key + b"/1")
        assert one is not None
        assert other is not None
        match damage:
            case "flipped":
                held.set(key + b"/1", bytes([other[0] ^ 1]) + other[1:], 60_000)
            case "gone":
                held.delete(key + b"/1")
            case _:
                held.set(key + b"/0", other, 60_000)
                held.set(key + b"/1", one, 60_000)
        _, wrong, _ = await check_chunks(JOB.name, scene.cache)
        assert len(wrong) == 1
        assert f"chunk 2 of run {whole.report.run_id}" in wrong[0].message
        with pytest.raises(ChunkError, match="chunk 2 ") as caught:
            await whole.load(scene.cache)
        assert caught.value.hint

    play(scenario, max_item_bytes=1200)


@pytest.mark.parametrize(
    ("limits", "title"),
    [
        ({}, "x" * (128 * 1024 + 1)),
        ({"max_element_bytes": 2000}, "x" * 3000),
        ({"max_item_bytes": 2000}, "x" * 3000),
        ({"max_request_bytes": 2000}, "x" * 3000),
    ],
    ids=["documented", "element", "item", "request"],
)
def test_the_rows_layout_is_not_split_and_names_the_other_one(limits: dict[str, int], title: str) -> None:
    async def scenario(scene: Scene) -> None:
        whole = WholeRun([("1", title, "1.5")], replace(JOB, layout="rows"))
        with pytest.raises(TooLarge) as caught:
            await whole.run(scene.cache)
        assert 'layout = "packed"' in str(caught.value.hint)
        whole.job = JOB
        await whole.run(scene.cache)
        whole.assert_exact()

    play(scenario, **limits)


def test_an_account_that_takes_next_to_nothing_is_an_error_with_a_hint() -> None:
    async def scenario(scene: Scene) -> None:
        with pytest.raises(TooLarge) as caught:
            await WholeRun(films(10)).run(scene.cache)
        assert "ask Momento to raise its limit" in str(caught.value.hint)

    play(scenario, max_item_bytes=100)
