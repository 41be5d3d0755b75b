"""Entries that are too large for the limit of an item: cut until they are taken, and whole again when they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.cache import documents
from etlcli.cache.documents import UnreadableError
from etlcli.cache.shelf import SMALLEST_PART_BYTES, Shelf
from etlcli.errors import EtlError, TooLarge, Unavailable
from tests.contract.fakes.cache import Call, FakeAccount, FakeCache

TTL = 60.0
KEY = "movies/R/chunk/7"


class Scene:
    """A shelf over a fake cache with a limit of its own."""

    def __init__(self, item_bytes: int) -> None:
        self.account = FakeAccount(caches={"etl": {}}, item_bytes=item_bytes)
        self.cache = FakeCache("etl", self.account)
        self.shelf = Shelf(self.cache)

    @property
    def held(self) -> dict[str, bytes]:
        return self.account.values("etl")

    @property
    def sets(self) -> int:
        return len(self.account.named("set"))


def play(scenario: Callable[[Scene], Awaitable[None]], item_bytes: int = 100_000) -> None:
    async def body() -> None:
        async with asyncio.timeout(30):
            await scenario(Scene(item_bytes))

    asyncio.run(body())


def entry(size: int) -> bytes:
    return (b"%d " % size + bytes(range(256)) * (size // 256 + 1))[:size]


# Chunks


@given(st.integers(0, 40_000), st.integers(SMALLEST_PART_BYTES, 50_000))
def test_what_is_stored_comes_back_and_can_be_removed(size: int, limit: int) -> None:
    async def scenario(scene: Scene) -> None:
        parts = await scene.shelf.store(KEY, entry(size), TTL)
        assert (parts == 1) == (size <= limit)
        assert await scene.shelf.fetch(KEY, parts) == entry(size)
        assert all(len(value) <= limit for value in scene.held.values())
        assert set(scene.held) == ({KEY} if parts == 1 else {f"{KEY}/{part}" for part in range(parts)})
        await scene.shelf.remove(KEY, parts)
        await scene.shelf.remove(KEY, parts)
        assert scene.held == {}
        assert await scene.shelf.fetch(KEY, parts) is None

    play(scenario, limit)


def test_a_size_that_was_refused_is_not_tried_again() -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.shelf.store("a", entry(256_000), TTL) == 4
        refused = scene.sets - 4
        assert refused == 2  # whole, and in halves
        assert await scene.shelf.store("b", entry(256_000), TTL) == 4
        assert await scene.shelf.store("c", entry(90_000), TTL) == 2
        assert await scene.shelf.store("d", entry(60_000), TTL) == 1
        assert scene.sets == refused + 4 + 4 + 2 + 1
        sizes = [len(value) for value in scene.held.values()]
        assert min(sizes) > 40_000  # alike, without a crumb at the end

    play(scenario)


def test_many_that_are_refused_at_once_agree_on_a_size() -> None:
    async def scenario(scene: Scene) -> None:
        stored = await asyncio.gather(*(scene.shelf.store(f"k{n}", entry(256_000 + n), TTL) for n in range(8)))
        assert max(stored) == 4
        found = await asyncio.gather(*(scene.shelf.fetch(f"k{n}", parts) for n, parts in enumerate(stored)))
        assert found == [entry(256_000 + n) for n in range(8)]
        assert scene.sets <= 8 * (4 + 2)

    play(scenario)


def test_a_limit_that_is_lowered_in_mid_run_is_followed() -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.shelf.store(KEY, entry(150_000), TTL) == 2
        scene.account.item_bytes = 20_000
        parts = await scene.shelf.store(KEY, entry(150_000), TTL)
        assert parts == 8
        assert await scene.shelf.fetch(KEY, parts) == entry(150_000)

    play(scenario)


@pytest.mark.parametrize("size", [1, SMALLEST_PART_BYTES, 5_000_000])
def test_an_account_that_takes_next_to_nothing_is_an_error_and_no_endless_cutting(size: int) -> None:
    async def scenario(scene: Scene) -> None:
        with pytest.raises(TooLarge) as caught:
            await scene.shelf.store(KEY, entry(size), TTL)
        assert "ask Momento" in str(caught.value.hint)
        assert scene.sets <= 14
        assert scene.held == {}

    play(scenario, 0)


def test_other_failures_are_not_taken_for_a_limit() -> None:
    async def scenario(scene: Scene) -> None:
        scene.account.fault = lambda call: Unavailable("gone") if call.name == "set" else None
        with pytest.raises(Unavailable):
            await scene.shelf.store(KEY, entry(10), TTL)
        assert scene.sets == 1
        scene.account.fault = None
        assert await scene.shelf.store(KEY, entry(90_000), TTL) == 1

    play(scenario)


@pytest.mark.parametrize("part", range(4))
def test_a_part_that_is_gone_is_a_miss(part: int) -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.shelf.store(KEY, entry(256_000), TTL) == 4
        await scene.cache.delete(f"{KEY}/{part}")
        assert await scene.shelf.fetch(KEY, 4) is None

    play(scenario)


# Documents

RUNS = [f"run {n}" for n in range(3000)]
DOCUMENT = documents.dump_runs(RUNS)
PAGE = "movies/R/ledger/3"


@pytest.mark.parametrize("limit", [5_000_000, 20_000, 1100])
def test_a_document_comes_back_whatever_the_limit(limit: int) -> None:
    async def scenario(scene: Scene) -> None:
        assert await scene.shelf.fetch_document(PAGE) is None
        await scene.shelf.store_document(PAGE, DOCUMENT, TTL)
        assert await scene.shelf.fetch_document(PAGE) == DOCUMENT
        await scene.shelf.store_document(PAGE, documents.dump_pointer("R"), TTL)
        assert await scene.shelf.fetch_document(PAGE) == documents.dump_pointer("R")
        assert all(len(value) <= limit for value in scene.held.values())

    play(scenario, limit)


def test_a_document_of_an_earlier_version_is_taken_without_a_checksum() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.cache.set(PAGE, DOCUMENT, TTL)
        assert await scene.shelf.fetch_document(PAGE) == DOCUMENT

    play(scenario)


def test_a_document_under_another_key_is_refused() -> None:
    async def scenario(scene: Scene) -> None:
        for size, document in (("small", documents.dump_pointer("R")), ("large", DOCUMENT)):
            await scene.shelf.store_document(f"one/{size}", document, TTL)
            await scene.cache.set(f"other/{size}", scene.held[f"one/{size}"], TTL)
            with pytest.raises(UnreadableError, match=f"other/{size} is damaged"):
                await scene.shelf.fetch_document(f"other/{size}")

    play(scenario, 20_000)


def test_a_document_is_found_as_it_was_or_as_it_is_at_any_moment() -> None:
    versions = [documents.dump_runs([f"{n} of version {version}" for n in range(3000)]) for version in range(3)]

    async def scenario(scene: Scene) -> None:
        seen: list[bytes] = []

        async def look() -> None:
            found = await Shelf(scene.cache).fetch_document(PAGE)
            assert found is not None
            seen.append(found)

        def watch(call: Call) -> EtlError | None:
            if call.name == "set":
                watching.append(asyncio.create_task(look()))
            return None

        watching: list[asyncio.Task[None]] = []
        await scene.shelf.store_document(PAGE, versions[0], TTL)
        scene.account.fault = watch
        for version in versions[1:]:
            await scene.shelf.store_document(PAGE, version, TTL)
        scene.account.fault = None
        await asyncio.gather(*watching)
        await look()
        places = [versions.index(found) for found in seen]
        assert all(before <= after for before, after in pairwise(places))
        assert set(places) == {0, 1, 2}

    play(scenario, 20_000)


def test_every_bit_of_an_index_and_every_byte_of_its_parts_counts() -> None:
    async def scenario(scene: Scene) -> None:
        await scene.shelf.store_document(PAGE, DOCUMENT, TTL)
        entries = scene.account.caches["etl"]
        told = set()
        for key, held in list(entries.items()):
            step = 1 if key == PAGE else 499
            for bit in range(0, len(held.value) * 8, step):
                value = bytearray(held.value)
                value[bit // 8] ^= 1 << bit % 8
                entries[key] = held._replace(value=bytes(value))
                try:
                    found = await scene.shelf.fetch_document(PAGE)
                    runs = None if found is None else documents.load_runs(found, PAGE)
                except UnreadableError as error:
                    told.add((PAGE in error.message, error.hint is not None))
                else:
                    assert runs in (RUNS, None)
            entries[key] = held
        assert told == {(True, True)}
        assert await scene.shelf.fetch_document(PAGE) == DOCUMENT

    play(scenario, 20_000)
