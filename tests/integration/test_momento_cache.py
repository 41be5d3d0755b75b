"""The Momento adapter under faults: what is tried again, what is not, what is counted, and what is never said."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import random
import subprocess
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from etlcli.cache import momento as adapter
from etlcli.cache.momento import MomentoCache, credential_provider
from etlcli.config.momento import MomentoAccess
from etlcli.errors import CacheError, ConfigError, EtlError, Throttled, TooLarge, Unavailable, UsageError
from etlcli.local.momento.clock import ManualClock
from etlcli.local.momento.limits import Limits
from etlcli.local.momento.server import MomentoServer, serve
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy

BOUND = 60  # seconds after which a test is given up
CACHE = "movies"
TTL = 600.0
QUICK = RetryPolicy(patience=30.0, base=0.001, ceiling=0.01)
AT_ONCE = RetryPolicy(patience=0.0)
"""Gives up after the first failure."""

RATE = "operations_rate_limit_exceeded"
PASSING = ["unavailable", "internal", "deadline-exceeded", "cancelled", "unknown", "aborted", "data-loss"]


@dataclass
class Scene:
    server: MomentoServer
    counters: Counters
    cache: MomentoCache

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"


@contextlib.asynccontextmanager
async def connected(
    server: MomentoServer,
    retry: RetryPolicy = QUICK,
    name: str = CACHE,
    clock: ManualClock | None = None,
    **adapter_options: Any,
) -> AsyncIterator[Scene]:
    counters = Counters()
    access = MomentoAccess("local", local=f"127.0.0.1:{server.port}")
    if clock is None:
        cache = MomentoCache(access, name, counters, retry, **adapter_options)
    else:
        cache = Timeless(access, name, counters, retry, clock, **adapter_options)
    async with cache:
        yield Scene(server, counters, cache)


class Timeless(MomentoCache):
    """Moves a clock instead of waiting, and stops it while calls are under way."""

    def __init__(
        self, access: MomentoAccess, name: str, counters: Counters, retry: RetryPolicy, clock: ManualClock, **more: Any
    ) -> None:
        async def sleep(seconds: float) -> None:
            await self.at_rest.wait()
            clock.advance(seconds)

        super().__init__(access, name, counters, retry, **{"clock": clock, "sleep": sleep, **more})
        self.under_way = 0
        self.at_rest = asyncio.Event()

    async def _attempt(self, *arguments: Any) -> Any:
        self.under_way += 1
        self.at_rest.clear()
        try:
            return await super()._attempt(*arguments)
        finally:
            self.under_way -= 1
            if not self.under_way:
                self.at_rest.set()


def play(
    scenario: Callable[[Scene], Awaitable[None]],
    retry: RetryPolicy = QUICK,
    clock: ManualClock | None = None,
    adapter_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> None:
    """Runs a scenario against a server that has the cache; with a clock, both go by it, and waiting moves it."""

    async def body() -> None:
        async with asyncio.timeout(BOUND), serve(port=0, clock=clock or time.monotonic, **options) as server:
            server.store.create(CACHE)
            async with connected(server, retry, clock=clock, **(adapter_options or {})) as scene:
                await scenario(scene)

    asyncio.run(body())


USES: dict[str, Callable[[MomentoCache], Awaitable[object]]] = {
    "get": lambda cache: cache.get("k"),
    "set": lambda cache: cache.set("k", b"v", TTL),
    "delete": lambda cache: cache.delete("k"),
    "dictionary-fetch": lambda cache: cache.get_dictionary("d"),
    "dictionary-set": lambda cache: cache.set_dictionary("d", {"f": b"v"}, TTL),
    "create-cache": lambda cache: cache.ensure(),
}


# What passes


@pytest.mark.parametrize("rpc", USES)
@pytest.mark.parametrize("status", PASSING)
def test_what_passes_is_tried_again_and_counted(status: str, rpc: str) -> None:
    async def scenario(scene: Scene) -> None:
        fault = scene.server.faults.fail(rpc, status=status, count=3)
        await USES[rpc](scene.cache)
        assert fault.met == 3
        assert (scene.counters.retries, scene.counters.throttles) == (3, 0)
        assert scene.counters.momento_calls == 4

    play(scenario)


@pytest.mark.parametrize("err", ["operations_rate_limit_exceeded", "throughput_rate_limit_exceeded", None])
@pytest.mark.parametrize("rpc", USES)
def test_throttles_are_waited_out_and_counted(rpc: str, err: str | None) -> None:
    async def scenario(scene: Scene) -> None:
        scene.server.faults.fail(rpc, status="resource-exhausted", err=err, count=5)
        await USES[rpc](scene.cache)
        assert (scene.counters.throttles, scene.counters.retries) == (5, 0)
        assert scene.counters.momento_calls == 6

    play(scenario)


def test_a_set_whose_answer_was_lost_is_made_again() -> None:
    async def scenario(scene: Scene) -> None:
        scene.server.faults.fail("set", status="unavailable", after=True, count=1)
        await scene.cache.set("k", b"v", TTL)
        assert await scene.cache.get("k") == b"v"
        assert scene.server.meter.by_rpc["Set"].calls == 2

    play(scenario)


@pytest.mark.parametrize("rpc", USES)
def test_a_call_that_stalls_is_given_up_and_made_again(rpc: str) -> None:
    async def scenario(scene: Scene) -> None:
        async def for_ever(_seconds: float) -> None:
            await asyncio.Event().wait()

        scene.server.faults.sleep = for_ever
        scene.server.faults.delay(rpc, seconds=1, count=2)
        await USES[rpc](scene.cache)
        assert scene.counters.retries == 2

    play(scenario, adapter_options={"call_seconds": 0.2})


# Rate limits

ALLOWED = 100
ON_DEMAND = Limits(operations_per_second=ALLOWED)
CHUNK = bytes(256 * 1024)


async def at_once(count: int, call: Callable[[int], Awaitable[object]], workers: int = 4) -> None:
    """Makes calls numbered from 0, a few at once, as the core does."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await call(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())


def inevitable(operations: int, last: int) -> float:
    """The seconds that so many metered operations take: one second's worth is there, and the last call goes on debt."""
    return (operations - ALLOWED - last) / ALLOWED


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "limits", [ON_DEMAND, Limits(bytes_per_second=ALLOWED * 1024)], ids=["operations", "throughput"]
)
def test_the_pace_settles_near_the_allowance_and_loses_nothing(
    limits: Limits, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "uniform", random.Random(seed).uniform)
    clock = ManualClock()

    async def scenario(scene: Scene) -> None:
        cache, meter = scene.cache, scene.server.meter
        await at_once(20, lambda number: cache.set(f"m/r/chunk/{number}", CHUNK[number:], TTL))

        async def read(number: int) -> None:
            assert await cache.get(f"m/r/chunk/{number}") == CHUNK[number:]

        await at_once(20, read)
        assert scene.counters.momento_operations == meter.operations == 2 * 20 * 256
        assert scene.counters.momento_calls == meter.calls
        assert scene.counters.throttles == meter.total.throttled > 0 == scene.counters.retries
        assert clock() <= inevitable(meter.operations, 256) / 0.9
        # Each chunk that is refused was sent for nothing.
        assert scene.counters.throttles < 2 * 40

    play(scenario, RetryPolicy(), clock, limits=limits)


@pytest.mark.parametrize("seed", range(5))
def test_a_short_run_does_not_take_much_longer_than_it_must(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", random.Random(seed).uniform)
    clock = ManualClock()

    async def scenario(scene: Scene) -> None:
        # 20,000 rows at 81 operations for a thousand: four chunks, the last of them small, and what goes with them.
        sizes = [256 * 1024, 256 * 1024, 256 * 1024, 30 * 1024]
        cache = scene.cache
        stored: asyncio.Queue[int] = asyncio.Queue()

        async def store(number: int) -> None:
            await cache.set(f"m/r/chunk/{number}", bytes(sizes[number]), TTL)
            await cache.set("m/r/ledger/0", bytes(1500), TTL)
            stored.put_nowait(number)

        async def fetch(_number: int) -> None:
            number = await stored.get()
            assert await cache.get(f"m/r/chunk/{number}") == bytes(sizes[number])

        for name in ("m/r/manifest", "m/runs"):
            await cache.set(name, bytes(2000), TTL)
        async with asyncio.TaskGroup() as group:
            group.create_task(at_once(len(sizes), store))
            group.create_task(at_once(len(sizes), fetch))
        await cache.set("m/current", b"r", TTL)
        meter = scene.server.meter
        assert 1600 < meter.operations < 1650
        assert clock() <= 1.15 * inevitable(meter.operations, 1)

    play(scenario, RetryPolicy(), clock, limits=ON_DEMAND)


def test_without_a_limit_nothing_waits() -> None:
    clock = ManualClock()

    async def scenario(scene: Scene) -> None:
        await at_once(60, lambda number: scene.cache.set(f"k/{number}", CHUNK, TTL), workers=16)
        assert clock() == 0
        # Those who make caches meet a limit of their own, which says nothing of the others'.
        scene.server.faults.fail("create-cache", status="resource-exhausted", err=RATE, count=10)
        await scene.cache.ensure()
        waited = clock()
        assert waited > 0
        await at_once(60, lambda number: scene.cache.get(f"k/{number}"), workers=16)
        assert clock() == waited

    play(scenario, RetryPolicy(), clock)


@pytest.mark.parametrize("others", [0, 8])
def test_a_call_may_be_refused_for_longer_than_patience_while_others_get_through(others: int) -> None:
    clock = ManualClock()
    answered: list[asyncio.Task[bytes | None]] = []
    due = [float(second) for second in range(1, others + 1)]

    async def scenario(scene: Scene) -> None:
        answers = asyncio.Queue[None]()

        async def answer(_seconds: float) -> None:
            await answers.get()

        async def sleep(seconds: float) -> None:
            clock.advance(seconds)
            while due and due[0] <= clock():
                due.pop(0)
                answers.put_nowait(None)
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                waiting.difference_update(done)
                answered.extend(done)

        faults = scene.server.faults
        faults.sleep = answer
        faults.delay("get", seconds=1)
        faults.fail("set", status="resource-exhausted", err=RATE, when=lambda _: clock() < 8.0)
        policy = RetryPolicy(patience=2.0, base=1.0, ceiling=1.0)
        async with connected(scene.server, policy, clock=clock, sleep=sleep) as one:
            waiting = {asyncio.create_task(one.cache.get(f"k{number}")) for number in range(others)}
            if others:
                await one.cache.set("slow", b"v", TTL)
                assert one.counters.throttles > 8
                assert len(answered) >= 7
            else:
                with pytest.raises(Throttled):
                    await one.cache.set("slow", b"v", TTL)
            answers.put_nowait(None)
            await asyncio.gather(*waiting)

    play(scenario)


@pytest.mark.parametrize("small_ones_pass", [True, False])
def test_chunks_that_the_allowance_never_lets_in_are_told_from_an_account_in_use(small_ones_pass: bool) -> None:
    clock = ManualClock()

    async def scenario(scene: Scene) -> None:
        await scene.cache.get("k")  # an endpoint that never answered is given up earlier
        scene.server.faults.fail(
            "set",
            *(() if small_ones_pass else ("get",)),
            status="resource-exhausted",
            err=RATE,
        )
        with pytest.raises(Throttled) as caught:
            await scene.cache.set("m/r/chunk/0", CHUNK, TTL)
        assert ("256 metered operations" in caught.value.message) == small_ones_pass
        assert ('layout = "rows"' in str(caught.value.hint)) == small_ones_pass
        assert "ask Momento to raise it" in str(caught.value.hint)
        assert clock() > 110
        assert scene.counters.throttles < 100  # all waits at their ceiling, not a storm

    play(scenario, RetryPolicy(), clock)


# Patience


@pytest.mark.parametrize("status", PASSING)
def test_patience_runs_out(status: str) -> None:
    async def scenario(scene: Scene) -> None:
        scene.server.faults.fail("get", status=status)
        with pytest.raises(Unavailable) as caught:
            await scene.cache.get("movies/current")
        assert f"cache '{CACHE}' at {scene.address}" in caught.value.message
        assert "movies/current" in caught.value.message
        assert caught.value.hint
        assert (scene.counters.momento_calls, scene.counters.retries) == (1, 0)

    play(scenario, AT_ONCE)


def test_patience_with_a_rate_limit_runs_out_too() -> None:
    async def scenario(scene: Scene) -> None:
        scene.server.faults.fail("set", status="resource-exhausted", err="operations_rate_limit_exceeded")
        with pytest.raises(Throttled) as caught:
            await scene.cache.set("k", b"v", TTL)
        assert f"cache '{CACHE}' at {scene.address}" in caught.value.message
        assert "rate limit" in str(caught.value.hint)
        assert scene.counters.throttles == 1

    play(scenario, AT_ONCE)


@pytest.mark.parametrize("status", PASSING)
def test_a_call_without_an_answer_is_given_up_while_others_get_through(status: str) -> None:
    clock = ManualClock()

    async def scenario(scene: Scene) -> None:
        async def sleep(seconds: float) -> None:
            clock.advance(seconds)
            await one.cache.get("k")

        scene.server.faults.fail("set", status=status)
        policy = RetryPolicy(patience=20.0, base=1.0, ceiling=1.0)
        async with connected(scene.server, policy, clock=clock, sleep=sleep) as one:
            with pytest.raises(Unavailable):
                await one.cache.set("k", b"v", TTL)
            assert 15 < clock() < 25
            assert one.counters.retries > 15

    play(scenario)


def test_throttles_before_it_do_not_use_up_the_patience_with_silence() -> None:
    clock = ManualClock()

    async def scenario(scene: Scene) -> None:
        await scene.cache.get("k")  # an endpoint that never answered is given up earlier
        throttles = scene.server.faults.fail(
            "create-cache", status="resource-exhausted", err=RATE, when=lambda _: clock() < 20
        )
        silence = scene.server.faults.fail("create-cache", status="unavailable", count=12)
        await scene.cache.ensure()
        assert throttles.met > 5
        assert silence.met == 12

    play(scenario, RetryPolicy(patience=25.0, base=2.0, ceiling=2.0), clock)


def test_nobody_listens() -> None:
    async def body() -> None:
        async with serve(port=0) as server:
            pass
        async with asyncio.timeout(BOUND), connected(server, RetryPolicy(patience=0.2, base=0.05)) as scene:
            for use in USES.values():
                with pytest.raises(Unavailable) as caught:
                    await use(scene.cache)
                assert "contact us" not in caught.value.message
                assert scene.address in caught.value.message
            with pytest.raises(Unavailable):
                await scene.cache.exists()

    asyncio.run(body())


# What stays


@pytest.mark.parametrize(
    "err", ["item_size_limit_exceeded", "element_size_limit_exceeded", "request_size_limit_exceeded"]
)
def test_a_size_limit_is_told_from_a_rate_limit_by_its_trailer(err: str) -> None:
    async def scenario(scene: Scene) -> None:
        scene.server.faults.fail("set", status="resource-exhausted", err=err)
        with pytest.raises(TooLarge) as caught:
            await scene.cache.set("k", b"v" * 70_000, TTL)
        assert "70,000" in str(caught.value.hint)
        assert (scene.counters.momento_calls, scene.counters.throttles, scene.counters.retries) == (1, 0, 0)

    play(scenario)


def test_a_dictionary_that_the_client_does_not_send_is_too_large_and_no_throttle() -> None:
    async def scenario(scene: Scene) -> None:
        fields = {f"f{n}": bytes(100_000) for n in range(60)}
        with pytest.raises(TooLarge) as caught:
            await scene.cache.set_dictionary("d", fields, TTL)
        assert "6,000,000" in str(caught.value.hint)
        assert scene.server.meter.calls == 0
        assert (scene.counters.momento_calls, scene.counters.throttles, scene.counters.retries) == (1, 0, 0)

    play(scenario)


def test_a_field_whose_name_is_no_text_is_read_as_another_one() -> None:
    async def scenario(scene: Scene) -> None:
        held = scene.server.store.cache(CACHE)
        held.dictionary_set(b"d", [(b"a\xff", b"1"), (b"b", b"2")], 60_000, refresh_ttl=True)
        assert await scene.cache.get_dictionary("d") == {"a\N{REPLACEMENT CHARACTER}": b"1", "b": b"2"}

    play(scenario)


@pytest.mark.parametrize("rpc", USES)
@pytest.mark.parametrize(
    ("status", "hint"),
    [
        ("unauthenticated", "expired, revoked"),
        ("permission-denied", "read and write permission"),
        ("failed-precondition", ""),
        ("unimplemented", ""),
    ],
)
def test_refusals_are_not_tried_again(rpc: str, status: str, hint: str) -> None:
    async def scenario(scene: Scene) -> None:
        scene.server.faults.fail(*USES, status=status)
        with pytest.raises(CacheError) as caught:
            await USES[rpc](scene.cache)
        assert scene.address in caught.value.message
        assert hint in str(caught.value.hint)
        assert (scene.counters.throttles, scene.counters.retries) == (0, 0)

    play(scenario)


def test_a_key_for_data_alone_need_not_make_a_cache_that_is_there() -> None:
    async def scenario(scene: Scene) -> None:
        scene.server.faults.fail("create-cache", status="permission-denied")
        assert not await scene.cache.ensure()
        assert scene.counters.momento_operations == scene.server.meter.operations
        async with connected(scene.server, name="another") as other:
            with pytest.raises(CacheError, match="permission"):
                await other.cache.ensure()

    play(scenario)


def test_no_room_for_another_cache() -> None:
    async def scenario(scene: Scene) -> None:
        async with connected(scene.server, name="another") as other:
            with pytest.raises(CacheError) as caught:
                await other.cache.ensure()
            assert "[cache] name" in str(caught.value.hint)
            assert (other.counters.throttles, other.counters.retries) == (0, 0)
            assert other.counters.momento_operations == scene.server.meter.operations
        assert not await scene.cache.ensure()

    play(scenario, limits=Limits(max_caches=1))


def test_a_key_that_holds_a_collection() -> None:
    async def scenario(scene: Scene) -> None:
        scene.server.store.cache(CACHE).dictionary_set(b"k", [(b"a", b"b")], 60_000, refresh_ttl=True)
        with pytest.raises(CacheError, match="dictionary") as caught:
            await scene.cache.get("k")
        assert "Something else is stored under this name" in str(caught.value.hint)
        assert scene.counters.momento_operations == scene.server.meter.operations

    play(scenario)


# Metering


@pytest.mark.parametrize("seed", range(3))
def test_what_is_counted_is_what_the_server_meters(seed: int) -> None:
    rng = random.Random(seed)
    keys = ["k", "ключ", "long" * 400]

    async def use(scene: Scene, absent: Scene) -> None:
        key, size = rng.choice(keys), rng.choice([0, 1, 1023, 1024, 1025, 2048, 2049, 260_000])
        match rng.randrange(8):
            case 0 | 1 | 2:
                await scene.cache.set(key, bytes(size), TTL)
            case 3 | 4:
                await scene.cache.get(key)
            case 5:
                await scene.cache.delete(key)
            case 6:
                await scene.cache.ensure()
                await scene.cache.exists()
            case _:
                with pytest.raises(TooLarge):
                    await scene.cache.set(key, bytes(300_000), TTL)
                with pytest.raises(CacheError):
                    await absent.cache.get(key)
                assert not await absent.cache.exists()

    async def scenario(scene: Scene) -> None:
        faults = scene.server.faults
        faults.fail("get", "set", "delete", "create-cache", status="unavailable", when=lambda _: rng.random() < 0.1)
        faults.fail("get", "set", status="resource-exhausted", when=lambda _: rng.random() < 0.1)
        async with connected(scene.server, name="not-there") as absent, connected(scene.server, name="-") as invalid:
            await asyncio.gather(*(use(scene, absent) for _ in range(150)))
            with pytest.raises(UsageError):
                await invalid.cache.ensure()
            counted = [it.counters for it in (scene, absent, invalid)]
        meter = scene.server.meter
        assert sum(it.momento_operations for it in counted) == meter.operations > 1000
        assert sum(it.momento_calls for it in counted) == meter.calls
        assert scene.counters.retries > 0 < scene.counters.throttles

    play(scenario, limits=Limits(max_item_bytes=290_000))


# A server that goes and comes back


def test_a_server_killed_midway_and_back() -> None:
    class Telling(RetryPolicy):
        failed: asyncio.Event

        def wait(self, attempt: int) -> float:
            self.failed.set()
            return super().wait(attempt)

    async def body() -> None:
        policy = Telling(patience=50.0, base=0.01, ceiling=0.1)
        object.__setattr__(policy, "failed", asyncio.Event())
        async with contextlib.AsyncExitStack() as client:
            async with serve(port=0) as server:
                server.store.create(CACHE)
                scene = await client.enter_async_context(connected(server, policy))
                await scene.cache.set("before", b"1", TTL)
            setting = asyncio.create_task(scene.cache.set("k", b"v", TTL))
            getting = asyncio.create_task(scene.cache.get("before"))
            await policy.failed.wait()
            async with serve(port=server.port) as back:
                back.store.create(CACHE)
                await setting
                assert await getting is None  # what was in memory is gone
                assert await scene.cache.get("k") == b"v"
                assert scene.counters.retries > 0

    async def bounded() -> None:
        async with asyncio.timeout(BOUND):
            await body()

    asyncio.run(bounded())


PROGRAM = """
import asyncio
from etlcli.cache.momento import MomentoCache
from etlcli.config.momento import MomentoAccess
from etlcli.errors import Unavailable
from etlcli.local.momento.server import serve
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy

async def main():
    async with serve(port=0) as server:
        access = MomentoAccess("local", local=f"127.0.0.1:{server.port}")
        cache = MomentoCache(access, "movies", Counters(), RetryPolicy(patience=0.1, base=0.02))
        await cache.__aenter__()
        await cache.ensure()
        await cache.set("k", b"v", 60)
    try:
        await cache.set("k", b"v", 60)
    except Unavailable:
        print("unavailable")
    await cache.__aexit__(None, None, None)

asyncio.run(main())
"""


def test_a_program_that_uses_the_adapter_hears_no_noise() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
        env={**os.environ, "GRPC_VERBOSITY": "NONE"},  # as the command line sets it
    )
    assert (done.stdout, done.stderr) == ("unavailable\n", "")


# Keys


def jwt(claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'HS256'})}.{part(claims)}.c2lnbmF0dXJl"


PLANTED = "PLANTEDsecretPLANTED"
V2 = jwt({"t": "g", "jti": PLANTED})
LEGACY_V1 = base64.b64encode(
    json.dumps({"api_key": f"eyJ.{PLANTED}.x", "endpoint": "cell-1.example.com"}).encode()
).decode()
LEGACY_JWT = jwt({"sub": PLANTED, "cp": "control.cell-1.example.com", "c": "cache.cell-1.example.com"})
ACCESSES = {
    "v2": MomentoAccess("v2", V2, "cell-1.example.com"),
    "legacy v1": MomentoAccess("legacy", LEGACY_V1),
    "legacy jwt": MomentoAccess("legacy", LEGACY_JWT),
}


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES.keys())
def test_every_kind_of_key_makes_a_provider(access: MomentoAccess) -> None:
    provider = credential_provider(access)
    assert provider.cache_endpoint == "cache.cell-1.example.com"
    assert provider.control_endpoint == "control.cell-1.example.com"
    assert provider.auth_token


def test_momento_local_needs_no_key() -> None:
    provider = credential_provider(MomentoAccess("local", local="127.0.0.1:8081"))
    assert (provider.cache_endpoint, provider.port, provider.auth_token) == ("127.0.0.1", 8081, "")


@pytest.mark.parametrize(
    "access",
    [
        MomentoAccess("v2", f"{PLANTED}", "cell-1.example.com"),
        MomentoAccess("v2", LEGACY_JWT, "cell-1.example.com"),
        MomentoAccess("v2", "", "cell-1.example.com"),
        MomentoAccess("v2", V2, ""),
        MomentoAccess("legacy", PLANTED),
        MomentoAccess("legacy", f"{PLANTED}.{PLANTED}.{PLANTED}"),
        MomentoAccess("legacy", V2),
        MomentoAccess("legacy", jwt([PLANTED])),
        MomentoAccess("legacy", base64.b64encode(PLANTED.encode()).decode()),
        MomentoAccess("legacy", base64.b64encode(json.dumps({"api_key": PLANTED}).encode()).decode()),
        MomentoAccess("legacy", ""),
    ],
)
def test_a_malformed_key_is_an_error_that_does_not_tell_it(access: MomentoAccess) -> None:
    with pytest.raises(ConfigError) as caught:
        MomentoCache(access, CACHE, Counters())
    assert caught.value.hint
    assert_secret(access.api_key, "".join(traceback.format_exception(caught.value)))
    assert_secret(access.api_key, f"{access!r} {caught.value!r} {caught.value.message} {caught.value.hint}")


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES.keys())
def test_no_error_of_a_call_tells_the_key(
    access: MomentoAccess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider = credential_provider(access)

    async def body() -> None:
        # Nobody listens there; what counts is that the key is on its way.
        async with serve(port=0) as server:
            pass
        there = replace(provider, cache_endpoint="127.0.0.1", control_endpoint="127.0.0.1", port=server.port)
        monkeypatch.setattr(adapter, "credential_provider", lambda _access: there)
        async with asyncio.timeout(BOUND), MomentoCache(access, CACHE, Counters(), AT_ONCE) as cache:
            for use in USES.values():
                with pytest.raises(EtlError) as caught:
                    await use(cache)
                told = f"{cache!r} {caught.value!r} {caught.value.message} {caught.value.hint}"
                assert_secret(access.api_key, told + "".join(traceback.format_exception(caught.value)))

    with caplog.at_level(logging.DEBUG):
        asyncio.run(body())
    assert_secret(access.api_key, caplog.text)


def assert_secret(key: str | None, text: str) -> None:
    assert PLANTED not in text
    if key:
        for piece in (key, *key.split(".")):
            assert len(piece) < 12 or piece not in text
