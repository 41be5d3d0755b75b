"""What every cache does: the in-memory one, and Momento's over gRPC through its SDK.

The server is the embedded one, in this process, unless ``MOMENTO_ETL_TEST_MOMENTO`` names another (``host:port``). Only
tests that move the clock are then left out.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeAlias

import pytest

from etlcli.cache.momento import MAX_ITEM_BYTES, MomentoCache
from etlcli.config.momento import MomentoAccess
from etlcli.errors import CacheError, TooLarge, UsageError
from etlcli.local.momento.clock import ManualClock
from etlcli.local.momento.server import serve
from etlcli.ports import Cache
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from tests.contract.fakes.cache import FakeAccount, FakeCache

ELSEWHERE = os.environ.get("MOMENTO_ETL_TEST_MOMENTO")
BOUND = 60  # seconds after which a test is given up
TTL = 600.0
QUICK = RetryPolicy(patience=5.0, base=0.01, ceiling=0.05)


class House(Protocol):
    """An implementation."""

    counters: Counters

    def cache(self, name: str) -> AbstractAsyncContextManager[Cache]: ...

    def advance(self, seconds: float) -> None:
        """Move the clock that entries expire by."""


class FakeHouse:
    def __init__(self) -> None:
        self.counters = Counters()
        self._clock = ManualClock(1_000_000.0)
        self._account = FakeAccount(clock=self._clock)

    def cache(self, name: str) -> AbstractAsyncContextManager[Cache]:
        return FakeCache(name, self._account)

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)


class MomentoHouse:
    def __init__(self, address: str, clock: ManualClock | None) -> None:
        self.counters = Counters()
        self._access = MomentoAccess("local", local=address)
        self._clock = clock

    def cache(self, name: str) -> AbstractAsyncContextManager[Cache]:
        return MomentoCache(self._access, name, self.counters, QUICK)

    def advance(self, seconds: float) -> None:
        assert self._clock is not None
        self._clock.advance(seconds)


@asynccontextmanager
async def fake_house() -> AsyncIterator[House]:
    yield FakeHouse()


@asynccontextmanager
async def momento_house() -> AsyncIterator[House]:
    if ELSEWHERE:
        yield MomentoHouse(ELSEWHERE, None)
        return
    clock = ManualClock(1_000_000.0)
    async with serve(port=0, clock=clock) as server:
        yield MomentoHouse(f"127.0.0.1:{server.port}", clock)


Scenario: TypeAlias = Callable[[House], Awaitable[None]]
Play: TypeAlias = Callable[[Scenario], None]


@pytest.fixture(params=[fake_house, momento_house], ids=["fake", "momento"])
def play(request: pytest.FixtureRequest) -> Play:
    def played(scenario: Scenario) -> None:
        async def body() -> None:
            async with asyncio.timeout(BOUND), request.param() as house:
                await scenario(house)

        asyncio.run(body())

    return played


@pytest.fixture
def moved_clock(request: pytest.FixtureRequest) -> None:
    """For tests that move the clock."""
    if ELSEWHERE and "momento" in request.node.name:
        pytest.skip("the clock of a server elsewhere cannot be moved")


def new_name() -> str:
    return f"etl-{secrets.token_hex(6)}"


def test_a_cache_is_made_once(play: Play) -> None:
    async def scenario(house: House) -> None:
        name = new_name()
        async with house.cache(name) as cache, house.cache(name) as again:
            assert cache.name == name
            assert not await cache.exists()
            assert await cache.ensure()
            assert await cache.exists()
            assert not await cache.ensure()
            assert not await again.ensure()
            assert await again.exists()

    play(scenario)


def test_making_a_cache_again_keeps_what_it_holds(play: Play) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            await cache.set("k", b"v", TTL)
            await cache.ensure()
            assert await cache.get("k") == b"v"

    play(scenario)


def test_caches_share_nothing(play: Play) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as one, house.cache(new_name()) as other:
            await one.ensure()
            assert not await other.exists()
            await other.ensure()
            await one.set("k", b"one", TTL)
            assert await other.get("k") is None

    play(scenario)


def test_values_are_stored_overwritten_and_removed(play: Play) -> None:
    async def scenario(house: House) -> None:
        name = new_name()
        async with house.cache(name) as cache, house.cache(name) as reader:
            await cache.ensure()
            assert await cache.get("k") is None
            await cache.set("k", b"first", TTL)
            assert await reader.get("k") == b"first"
            await cache.set("k", b"second and longer", TTL)
            assert await reader.get("k") == b"second and longer"
            await cache.delete("k")
            assert await reader.get("k") is None
            await cache.delete("k")

    play(scenario)


def test_dictionaries_are_stored_and_removed(play: Play) -> None:
    async def scenario(house: House) -> None:
        name = new_name()
        fields = {"title": b"L\xc3\xa9on", "": b"no name", "empty": b"", "any": bytes(range(256)), "ü/%": b"1"}
        async with house.cache(name) as cache, house.cache(name) as reader:
            await cache.ensure()
            assert await cache.get_dictionary("d") is None
            await cache.set_dictionary("d", fields, TTL)
            assert await reader.get_dictionary("d") == fields
            await cache.delete("d")
            assert await reader.get_dictionary("d") is None

    play(scenario)


def test_a_field_over_the_limit_is_refused(play: Play) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            await cache.set_dictionary("d", {"f": b"x" * 128 * 1024}, TTL)
            with pytest.raises(TooLarge):
                await cache.set_dictionary("e", {"f": b"x" * (128 * 1024 + 1)}, TTL)
            assert await cache.get_dictionary("e") is None

    play(scenario)


@pytest.mark.usefixtures("moved_clock")
def test_dictionaries_live_for_their_time(play: Play) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            await cache.set_dictionary("d", {"f": b"1"}, 10.0)
            house.advance(9.0)
            assert await cache.get_dictionary("d") == {"f": b"1"}
            house.advance(2.0)
            assert await cache.get_dictionary("d") is None

    play(scenario)


@pytest.mark.usefixtures("moved_clock")
def test_values_live_for_their_time(play: Play) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            await cache.set("short", b"1", 10.0)
            await cache.set("renewed", b"1", 10.0)
            await cache.set("long", b"1", 100.0)
            house.advance(9.5)
            assert await cache.get("short") == b"1"
            await cache.set("renewed", b"2", 10.0)
            house.advance(1.0)
            assert await cache.get("short") is None
            assert await cache.get("renewed") == b"2"
            house.advance(88.0)
            assert await cache.get("long") == b"1"
            house.advance(2.0)
            assert await cache.get("long") is None

    play(scenario)


@pytest.mark.parametrize("size", [MAX_ITEM_BYTES + 1, 5_300_000], ids=["service", "client"])
def test_a_value_over_the_limit_is_refused_and_never_tried_again(play: Play, size: int) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            await cache.set("k", b"there before", TTL)
            with pytest.raises(TooLarge) as caught:
                await cache.set("k", bytes(size), TTL)
            assert f"{size:,}" in f"{caught.value.message} {caught.value.hint}"
            assert await cache.get("k") == b"there before"
            assert (house.counters.retries, house.counters.throttles) == (0, 0)

    play(scenario)


def test_a_value_at_the_limit_is_taken(play: Play) -> None:
    value = secrets.token_bytes(MAX_ITEM_BYTES)

    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            await cache.set("k", value, TTL)
            assert await cache.get("k") == value

    play(scenario)


@pytest.mark.parametrize(
    "use",
    [lambda cache: cache.get("k"), lambda cache: cache.set("k", b"v", TTL), lambda cache: cache.delete("k")],
    ids=["get", "set", "delete"],
)
def test_a_cache_that_does_not_exist(play: Play, use: Callable[[Cache], Awaitable[object]]) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(name := new_name()) as cache:
            with pytest.raises(CacheError, match=f"there is no cache '{name}'") as caught:
                await use(cache)
            assert caught.value.hint is not None
            assert "momento-etl extract" in caught.value.hint
            assert house.counters.retries == 0

    play(scenario)


@pytest.mark.parametrize("name", ["", "no", "a b c", "a/b/c", "кэш-фильмов", "x" * 256])
def test_names_that_no_cache_can_have(play: Play, name: str) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(name) as cache:
            with pytest.raises(UsageError) as caught:
                await cache.ensure()
            assert caught.value.hint is not None
            assert "3 to 255" in caught.value.hint

    play(scenario)


def test_more_than_24_hours_are_refused(play: Play) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            await cache.set("k", b"v", 24 * 3600)
            with pytest.raises(CacheError) as caught:
                await cache.set("k", b"v", 24 * 3600 + 1)
            assert "24 hours" in str(caught.value.hint)
            assert not isinstance(caught.value, TooLarge)

    play(scenario)


@pytest.mark.parametrize(
    "value",
    [b"", b"\0", bytes(range(256)), b"\n" * 1025, "ключ 😀".encode(), secrets.token_bytes(300_000)],
    ids=["empty", "zero", "every-byte", "lines", "utf-8", "large"],
)
def test_values_come_back_as_they_are(play: Play, value: bytes) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            await cache.set("k", value, TTL)
            found = await cache.get("k")
            assert found == value
            assert isinstance(found, bytes)

    play(scenario)


def test_keys_are_told_apart_whatever_is_in_them(play: Play) -> None:
    keys = [
        *("k", "K", " k", "k ", "a/b", "a%2Fb", "a//b", "?", "*", '"', "\\", "\n", "\x00", "\x7f"),
        *("ключ", "é", "e\u0301", "😀", "k" * 2000),
    ]

    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            for number, key in enumerate(keys):
                await cache.set(key, b"%d" % number, TTL)
            assert [await cache.get(key) for key in keys] == [b"%d" % number for number in range(len(keys))]
            for key in keys[::2]:
                await cache.delete(key)
            found = [await cache.get(key) for key in keys]
            assert found == [b"%d" % number if number % 2 else None for number in range(len(keys))]

    play(scenario)


def test_calls_at_once_do_not_mix(play: Play) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            await cache.ensure()
            values = {f"key-{number}": secrets.token_bytes(number * 200) for number in range(100)}
            await asyncio.gather(*(cache.set(key, value, TTL) for key, value in values.items()))
            found = await asyncio.gather(*(cache.get(key) for key in values))
            assert dict(zip(values, found, strict=True)) == values
            made = await asyncio.gather(*(cache.ensure() for _ in range(10)))
            assert not any(made)

    play(scenario)


def test_a_cache_made_by_many_at_once_is_made_by_one(play: Play) -> None:
    async def scenario(house: House) -> None:
        async with house.cache(new_name()) as cache:
            made = await asyncio.gather(*(cache.ensure() for _ in range(10)))
            assert sorted(made) == [False] * 9 + [True]

    play(scenario)
