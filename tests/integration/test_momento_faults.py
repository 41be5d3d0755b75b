"""A Momento that fails in one call out of five: what is stored is found as it was, and a whole run ends exact.

The faults are drawn by the server, or asked for through the official fault metadata; besides, connections are cut. Then
what does not pass by itself: a cache deleted or flushed in mid-run, a key revoked, an address that goes silent.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from momento import Configurations
from momento.config.middleware import MiddlewareMessage, MiddlewareRequestHandlerContext, MiddlewareStatus
from momento.config.middleware.aio import Middleware, MiddlewareMetadata, MiddlewareRequestHandler

from etlcli import extraction
from etlcli.cache import momento as adapter
from etlcli.cache import packed
from etlcli.cache.momento import MomentoCache
from etlcli.cache.staging import Staging
from etlcli.config.momento import MomentoAccess
from etlcli.errors import CacheError, ChunkError, Unavailable
from etlcli.local.momento.faults import PASSING
from etlcli.local.momento.limits import Limits
from etlcli.local.momento.server import MomentoServer, serve
from etlcli.model import Layout
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from tests.conftest import Schema
from tests.integration.command_line import CommandLine
from tests.integration.fault_proxy import Fault, fault_proxy
from tests.integration.faulty_momento import PATIENT, faulty_momento, faulty_momento_beside
from tests.integration.whole_run import CACHE, JOB, WholeRun, films

BOUND = 60  # seconds after which a test is given up
TTL = 600.0
AT_ONCE = RetryPolicy(patience=0.0)
"""Gives up after the first failure."""


def bounded(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(BOUND):
            await body()

    asyncio.run(main())


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand rows fill many chunks."""
    monkeypatch.setattr(packed, "MAX_ENCODED_BYTES", 8000)
    monkeypatch.setattr(extraction, "_PIECE_BYTES", 2000)


@pytest.fixture
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads of this server do not lag behind writes."""
    defaults = Staging.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "settling_seconds", 0.0)


# One call out of five


async def store_and_find(cache: MomentoCache, seed: int, count: int = 300, workers: int = 8) -> None:
    """Stores values and dictionaries, some over others, and removes some; looks whether each is what it should be."""
    rng = random.Random(seed)
    numbers = iter(range(count))

    def value() -> bytes:
        return rng.randbytes(rng.choice([0, 1, 1000, 5000]))

    async def work() -> None:
        for number in numbers:
            entry, dictionary = f"films/r/chunk/{number}", f"films/r/rows/{number}"
            for _ in range(1 + (number % 3 == 0)):
                stored = value()
                await cache.set(entry, stored, TTL)
                assert await cache.get(entry) == stored
            fields = {f"field {n}": value() for n in range(1 + number % 3)}
            await cache.set_dictionary(dictionary, fields, TTL)
            assert await cache.get_dictionary(dictionary) == fields
            if number % 5 == 0:
                await cache.delete(entry)
                assert await cache.get(entry) is None
                await cache.delete(dictionary)
                assert await cache.get_dictionary(dictionary) is None

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())


def test_values_and_dictionaries_are_exact_whatever_befalls_the_calls() -> None:
    async def body() -> None:
        counters = Counters()
        async with faulty_momento(seed=0, cut_within=300_000) as momento, momento.open(CACHE, counters) as cache:
            await cache.ensure()
            await store_and_find(cache, 0)
            met = momento.disturbance.met
            assert set(met) == set(momento.disturbance.kinds)
            assert sum(met.values()) > 0.15 * counters.momento_calls
            assert momento.proxy.counts["cut"] + momento.proxy.counts["reset"] > 3
            assert counters.retries > 100 < sum(met.values())

    bounded(body)


class Asking(Middleware):
    """Asks for faults in the metadata of a share of all calls, as the SDKs' helpers for Momento Local do."""

    def __init__(self, rate: float, seed: int) -> None:
        self._rng = random.Random(seed)
        self._rate = rate
        self.asked = 0
        self.throttled = 0

    async def on_new_request(self, _context: MiddlewareRequestHandlerContext) -> MiddlewareRequestHandler:
        if self._rng.random() >= self._rate:
            return _Asking({})
        self.asked += 1
        rpcs = "get set delete dictionary-set dictionary-fetch"
        if self._rng.random() < 0.1:
            late = {"delay-rpcs": rpcs, "delay-ms": "1000", "delay-count": "1"}
            return _Asking({"request-id": f"late {self.asked}", **late})
        self.throttled += (throttles := self._rng.random() < 0.1 and self.throttled < 10)
        status = "resource-exhausted" if throttles else self._rng.choice(PASSING)
        # All share one count, which lets this many of them fail.
        return _Asking({"request-id": "all", "return-error": status, "error-rpcs": rpcs, "error-count": "200"})


class _Asking(MiddlewareRequestHandler):
    def __init__(self, metadata: Mapping[str, str]) -> None:
        self._metadata = metadata

    async def on_request_metadata(self, metadata: MiddlewareMetadata) -> MiddlewareMetadata:
        assert metadata.grpc_metadata is not None
        for key, value in self._metadata.items():
            metadata.grpc_metadata[key] = value
        return metadata

    async def on_request_body(self, request: MiddlewareMessage) -> MiddlewareMessage:
        return request

    async def on_response_metadata(self, metadata: MiddlewareMetadata) -> MiddlewareMetadata:
        return metadata

    async def on_response_body(self, response: MiddlewareMessage) -> MiddlewareMessage:
        return response

    async def on_response_status(self, status: MiddlewareStatus) -> MiddlewareStatus:
        return status


def test_the_same_with_faults_asked_for_by_the_official_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    asking = Asking(0.2, seed=3)

    def asked(*arguments: Any) -> object:
        return Configurations.Laptop(*arguments).with_middlewares([asking])

    monkeypatch.setattr(adapter, "Configurations", SimpleNamespace(Laptop=asked))

    async def body() -> None:
        counters = Counters()
        async with faulty_momento(rate=0.0) as momento, momento.open(CACHE, counters) as cache:
            await cache.ensure()
            await store_and_find(cache, 3, count=120)
            assert asking.asked > 0.15 * counters.momento_calls
            assert counters.retries > 40
            assert counters.throttles == asking.throttled > 0

    bounded(body)


# Whole runs


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(
    ("layout", "rows", "limits"),
    [("packed", 4000, Limits()), ("packed", 4000, Limits(max_item_bytes=2000)), ("rows", 150, Limits())],
    ids=["packed", "in_parts", "rows"],
)
def test_a_whole_run_ends_exact(layout: Layout, rows: int, limits: Limits) -> None:
    async def body() -> None:
        whole = WholeRun(films(rows, bad_every=97), replace(JOB, layout=layout))
        counters = Counters()
        async with faulty_momento(seed=5, limits=limits) as momento, momento.open(CACHE, counters) as cache:
            await whole.run(cache)
            whole.assert_exact()
            assert not any("read again" in warning for warning in whole.report.warnings)
            await whole.extract(cache)
            whole.tables.clear()
            await whole.load(cache)
            whole.assert_exact()
            assert sum(momento.disturbance.met.values()) > 0.1 * counters.momento_calls > 20

    bounded(body)


def test_the_command_line_against_a_momento_that_fails(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute(
        "create table films (id integer primary key, title text);"
        " insert into films select n, md5(n::text) || md5((-n)::text) from generate_series(1, 12000) n"
    )
    with faulty_momento_beside(seed=11, limits=Limits(max_item_bytes=20_000), cut_within=500_000) as momento:
        cli = command_line.given(MOMENTO_LOCAL=momento.address)
        arguments = ("--table", "films", "--cache", unique, "--destination", unique)
        summary = cli("run", *arguments, "--output", "json").json
        assert summary["rows_extracted"] == summary["rows_loaded"] == 12_000
        assert summary["chunks"] > 1
        assert sum(momento.disturbance.met.values()) > 5


# What does not pass by itself


@asynccontextmanager
async def connected(
    server: MomentoServer, retry: RetryPolicy = PATIENT, address: str | None = None, call_seconds: float = 15.0
) -> AsyncIterator[MomentoCache]:
    access = MomentoAccess("local", local=address or server.address)
    async with MomentoCache(access, CACHE, Counters(), retry, call_seconds=call_seconds) as cache:
        yield cache


USES: dict[str, Callable[[MomentoCache], Awaitable[object]]] = {
    "get": lambda cache: cache.get("k"),
    "set": lambda cache: cache.set("k", b"v", TTL),
    "delete": lambda cache: cache.delete("k"),
    "get_dictionary": lambda cache: cache.get_dictionary("d"),
    "set_dictionary": lambda cache: cache.set_dictionary("d", {"f": b"v"}, TTL),
    "create": lambda cache: cache.ensure(),
}


@pytest.mark.parametrize("direction", ["up", "down"])
def test_every_call_has_a_deadline(direction: str) -> None:
    async def body() -> None:
        async with serve(port=0) as server:
            server.store.create(CACHE)
            with fault_proxy(server.address) as proxy:
                for use in USES.values():
                    async with connected(server, AT_ONCE, proxy.address, call_seconds=0.2) as cache:
                        proxy.script(Fault("stall", "up" if direction == "up" else "down"))
                        with pytest.raises(Unavailable) as caught:
                            await use(cache)
                        assert proxy.address in caught.value.message
                        assert caught.value.hint

    bounded(body)


@pytest.mark.parametrize("use", [name for name in USES if name != "create"])
def test_a_cache_that_is_deleted_meanwhile_is_named_and_not_made_again(use: str) -> None:
    async def body() -> None:
        async with serve(port=0) as server, connected(server) as cache:
            await cache.ensure()
            await cache.set("k", b"v", TTL)
            server.store.delete(CACHE)
            with pytest.raises(CacheError, match=f"there is no cache '{CACHE}' .* any more: it was deleted") as caught:
                await USES[use](cache)
            assert "Run momento-etl run" in str(caught.value.hint)
            assert server.store.names() == []

    bounded(body)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_a_run_whose_cache_is_deleted_ends_and_the_next_one_begins_anew(layout: Layout) -> None:
    async def body() -> None:
        whole = WholeRun(films(1000 if layout == "packed" else 250), replace(JOB, layout=layout))
        async with serve(port=0) as server, connected(server) as cache:

            async def delete(handed_over: int) -> None:
                if handed_over == 100:
                    server.store.delete(CACHE)

            whole.before_batch = delete
            with pytest.raises(CacheError, match="any more: it was deleted meanwhile"):
                await whole.run(cache)
            assert server.store.names() == []
            whole.before_batch = None
            await whole.run(cache)
            whole.assert_exact()

    bounded(body)


@pytest.mark.usefixtures("small_chunks", "nobody_waits")
@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_a_run_whose_cache_is_flushed_reads_again_what_was_lost(layout: Layout) -> None:
    async def body() -> None:
        whole = WholeRun(films(1000 if layout == "packed" else 250), replace(JOB, layout=layout))
        async with serve(port=0) as server, connected(server) as cache:
            fetches = 0

            def flush(_request: object) -> bool:
                nonlocal fetches
                fetches += 1
                if fetches == 10:
                    server.store.cache(CACHE).flush()
                return False

            server.faults.fail("get", "dictionary-fetch", status="internal", when=flush)
            await whole.run(cache)
            whole.assert_exact()
            assert fetches > 10
            assert any("its rows were read again" in warning for warning in whole.report.warnings)

    bounded(body)


@pytest.mark.usefixtures("small_chunks", "nobody_waits")
@pytest.mark.parametrize("layout", ["packed", "rows"])
@pytest.mark.parametrize("fetches", [0, 1, 2, 3, 6])
def test_a_load_whose_cache_is_flushed_is_never_a_success(layout: Layout, fetches: int) -> None:
    async def body() -> None:
        whole = WholeRun(films(1000 if layout == "packed" else 250), replace(JOB, layout=layout))
        async with serve(port=0) as server, connected(server) as cache:
            await whole.extract(cache)
            left = fetches

            def flush(_request: object) -> bool:
                nonlocal left
                left -= 1
                if left == 0:
                    server.store.cache(CACHE).flush()
                return False

            if fetches:
                server.faults.fail("get", "dictionary-fetch", status="internal", when=flush)
            else:
                server.store.cache(CACHE).flush()
            with pytest.raises(CacheError) as caught:
                await whole.load(cache)
            assert caught.value.hint
            if isinstance(caught.value, ChunkError):
                assert "though its time is not up: the cache was flushed" in caught.value.message

    bounded(body)


@pytest.mark.usefixtures("small_chunks")
def test_a_key_that_is_revoked_in_mid_run_ends_it_at_once() -> None:
    async def body() -> None:
        whole = WholeRun(films(1000))
        async with serve(port=0) as server, connected(server) as cache:

            async def revoke(handed_over: int) -> None:
                if handed_over == 500:
                    server.api_keys.only("another")

            whole.before_batch = revoke
            with pytest.raises(CacheError) as caught:
                await whole.run(cache)
            assert "expired, revoked" in str(caught.value.hint)
            assert caught.value.of_service
            calls = server.meter.calls
            server.api_keys.accepted = None
            whole.before_batch = None
            await whole.run(cache)
            whole.assert_exact()
            assert server.meter.calls > calls

    bounded(body)
