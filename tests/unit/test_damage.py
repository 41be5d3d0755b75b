"""What a load makes of a cache that is not as an extraction left it: an exact error each time, or the same rows."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from etlcli import extraction
from etlcli.cache import documents, packed
from etlcli.cache import ledger as ledger_module
from etlcli.cache import staging as staging_module
from etlcli.cache.staging import Staging
from etlcli.errors import CacheError, ChunkError
from etlcli.inspection import check_chunks, inspect_job, list_rejects
from etlcli.model import Manifest
from tests.contract.fakes.cache import FakeAccount, FakeCache
from tests.integration.whole_run import CACHE, JOB, WholeRun, films

TTL = 600.0


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_ENCODED_BYTES", 500)
    monkeypatch.setattr(extraction, "_PIECE_BYTES", 200)


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads of this cache do not lag behind writes."""
    defaults = Staging.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "settling_seconds", 0.0)


class Scene:
    """A cache that holds one extraction, of some chunks and some rejects."""

    def __init__(self, rows: int) -> None:
        self.account = FakeAccount(caches={CACHE: {}})
        self.cache = FakeCache(CACHE, self.account)
        self.whole = WholeRun(films(rows, bad_every=4))
        self.manifest: Manifest
        self.run_id: str

    @property
    def staging(self) -> Staging:
        return Staging(self.cache, JOB.name)

    async def extract(self) -> None:
        manifest = (await self.whole.extract(self.cache)).manifest
        assert manifest is not None
        self.manifest = manifest
        self.run_id = manifest.run_id

    @property
    def entries(self) -> dict[str, Any]:
        return self.account.caches[CACHE]

    def key(self, name: str) -> str:
        return f"films/{name.replace('RUN', self.run_id)}"

    def change(self, name: str, change: Callable[[bytes], bytes]) -> None:
        """Change an entry, and leave its checksum as it is."""
        held = self.entries[self.key(name)]
        self.entries[self.key(name)] = held._replace(value=change(held.value))

    def rewrite(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        """Change a document, and give it the checksum that belongs to it."""
        key = self.key(name)
        document = orjson.loads(documents.unsealed(self.entries[key].value, key))
        change(document)
        self.change(name, lambda _: documents.sealed(orjson.dumps(document), key))

    async def found(self) -> tuple[object, ...]:
        """All that a load or a look finds, but for when it was written."""
        run_id = await self.staging.fetch_current()
        assert run_id is not None
        manifest = await self.staging.fetch_manifest(run_id)
        assert manifest is not None
        records = await self.staging.fetch_ledger(manifest)
        items = [await self.staging.fetch_chunk(manifest, record) for record in records]
        rejects = await self.staging.fetch_rejects(manifest)
        return run_id, manifest, records, items, rejects, await self.staging.fetch_runs()


def play(scenario: Callable[[Scene], Awaitable[None]], rows: int = 40) -> None:
    async def body() -> None:
        async with asyncio.timeout(60):
            scene = Scene(rows)
            await scene.extract()
            assert scene.manifest.totals.chunks >= rows // 20
            await scenario(scene)

    asyncio.run(body())


def test_a_bit_flipped_in_any_byte_of_any_entry_is_seen_or_changes_nothing() -> None:
    async def scenario(scene: Scene) -> None:
        rng = random.Random(2026)
        expected = await scene.found()
        seen = unchanged = 0
        told: set[tuple[bool, bool]] = set()
        for key, held in list(scene.entries.items()):
            for place in range(len(held.value)):
                value = bytearray(held.value)
                value[place] ^= 1 << rng.randrange(8)
                scene.entries[key] = held._replace(value=bytes(value))
                try:
                    found = await scene.found()
                except CacheError as error:
                    seen += 1
                    number = key.rpartition("/")[2]
                    named = f"chunk {number} of run {scene.run_id}" if "/chunk/" in key else key
                    told.add((named in error.message, error.hint is not None))
                else:
                    unchanged += 1
                    assert found == expected, key
            scene.entries[key] = held
        assert await scene.found() == expected
        assert told == {(True, True)}
        assert seen > 20 * unchanged

    play(scenario, rows=30)


@pytest.mark.parametrize("name", ["current", "RUN/manifest", "RUN/ledger/0", "RUN/chunk/1"])
def test_an_entry_that_is_cut_short_ends_a_load_and_not_a_run(name: str) -> None:
    async def scenario(scene: Scene) -> None:
        scene.change(name, lambda value: value[: len(value) // 2])
        with pytest.raises(CacheError) as caught:
            await scene.whole.load(scene.cache)
        assert "Run momento-etl run (or extract) again" in str(caught.value.hint)
        expected = "chunk 1 of run" if "chunk" in name else f"{scene.key(name)} is damaged"
        assert expected in caught.value.message
        await scene.whole.run(scene.cache)
        scene.whole.assert_exact()

    play(scenario)


@pytest.mark.parametrize("name", ["current", "RUN/manifest", "RUN/ledger/0"])
def test_a_document_of_a_newer_version_is_named_so(name: str) -> None:
    async def scenario(scene: Scene) -> None:
        scene.rewrite(name, lambda document: document.update(format=documents.FORMAT + 1, more={}))
        with pytest.raises(CacheError, match="was written by a newer momento-etl") as caught:
            await scene.whole.load(scene.cache)
        assert scene.key(name) in caught.value.message
        assert "newer version" in str(caught.value.hint)
        await scene.whole.run(scene.cache)
        scene.whole.assert_exact()

    play(scenario)


def test_a_ledger_that_lacks_a_page_or_a_chunk_is_never_taken_for_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (staging_module, ledger_module):
        monkeypatch.setattr(module, "LEDGER_PAGE_CHUNKS", 2)

    async def scenario(scene: Scene) -> None:
        assert scene.manifest.totals.chunks > 3
        held = dict(scene.entries)
        del scene.entries[scene.key("RUN/ledger/1")]
        with pytest.raises(CacheError, match=f"page 1 of the ledger of run {scene.run_id} is not in the cache"):
            await scene.whole.load(scene.cache)
        scene.entries.update(held)
        scene.rewrite("RUN/ledger/1", lambda page: page["chunks"].pop(0))
        with pytest.raises(CacheError, match=r"page 1 of the ledger .* does not name chunks 2 to 3") as caught:
            await scene.whole.load(scene.cache)
        assert caught.value.hint
        with pytest.raises(CacheError, match="page 1 of the ledger"):
            await check_chunks(JOB.name, scene.cache)

    play(scenario)


@pytest.mark.parametrize(
    ("place", "other", "message"),
    [
        ("RUN/manifest", "OLD/manifest", "RUN/manifest is damaged"),
        ("RUN/ledger/0", "OLD/ledger/0", "RUN/ledger/0 is damaged"),
        ("RUN/chunk/1", "OLD/chunk/1", "chunk 1 of run RUN is not what the ledger says"),
        ("RUN/chunk/1", "RUN/chunk/0", "chunk 1 of run RUN is not what the ledger says"),
        ("RUN/chunk/1", "RUN/manifest", "chunk 1 of run RUN is not what the ledger says"),
        ("RUN/manifest", "RUN/chunk/1", "RUN/manifest is damaged"),
        ("current", "runs", "films/current is damaged"),
    ],
)
def test_what_belongs_under_another_key_is_refused(place: str, other: str, message: str) -> None:
    async def scenario(scene: Scene) -> None:
        old = scene.run_id
        scene.whole.rows = films(44, bad_every=5)
        await scene.extract()
        run = scene.run_id
        value = scene.entries[scene.key(other.replace("OLD", old))].value
        scene.change(place, lambda _: value)
        with pytest.raises(CacheError, match=message.replace("RUN", run)) as caught:
            await scene.whole.load(scene.cache)
        assert caught.value.hint

    play(scenario)


def test_a_pointer_to_a_run_that_expired_is_an_error_that_names_it() -> None:
    async def scenario(scene: Scene) -> None:
        for key in list(scene.entries):
            if scene.run_id in key:
                del scene.entries[key]
        run_id = scene.run_id
        with pytest.raises(CacheError, match=f"holds no run {run_id} of films") as caught:
            await scene.whole.load(scene.cache)
        assert "expired" in str(caught.value.hint)
        assert (await inspect_job(JOB.name, scene.cache)).runs == ()

    play(scenario)


def test_expired_and_lost_and_damaged_chunks_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(scene: Scene) -> None:
        held = dict(scene.entries)
        key = scene.key("RUN/chunk/1")
        del scene.entries[key]
        with pytest.raises(ChunkError, match=r"chunk 1 .* though its time is not up: the cache was flushed") as lost:
            await scene.whole.load(scene.cache)
        assert "--ttl" not in str(lost.value.hint)
        late = time.time() + JOB.ttl_seconds
        with monkeypatch.context() as patch:
            patch.setattr(staging_module, "time", SimpleNamespace(time=lambda: late))
            with pytest.raises(ChunkError, match=r"chunk 1 .* any more: it has expired") as expired:
                await scene.whole.load(scene.cache)
        assert "--ttl" in str(expired.value.hint)
        scene.entries.update(held)
        scene.change("RUN/chunk/1", lambda value: value[:40] + bytes([value[40] ^ 1]) + value[41:])
        with pytest.raises(ChunkError, match=r"chunk 1 .* is damaged: its checksum does not match"):
            await scene.whole.load(scene.cache)
        _, wrong, _ = await check_chunks(JOB.name, scene.cache)
        assert len(wrong) == 1
        assert "damaged" in wrong[0].message

    play(scenario)


def test_rejects_that_are_gone_are_not_taken_for_none() -> None:
    async def scenario(scene: Scene) -> None:
        _, rejects = await list_rejects(JOB.name, scene.cache)
        assert len(rejects) == scene.manifest.totals.rows_rejected == 10
        del scene.entries[scene.key("RUN/rejects/extract/0")]
        with pytest.raises(CacheError, match=r"rejected 10 rows, and cache 'etl' tells only 0 of them") as caught:
            await list_rejects(JOB.name, scene.cache)
        assert "rejects file" in str(caught.value.hint)

    play(scenario)
