"""The embedded Momento server as the unmodified `momento` SDK sees it, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from momento import CacheClient, CacheClientAsync, Configurations, CredentialProvider
from momento.config import Configuration
from momento.config.middleware import MiddlewareMessage, MiddlewareRequestHandlerContext, MiddlewareStatus
from momento.config.middleware.aio import Middleware, MiddlewareMetadata, MiddlewareRequestHandler
from momento.errors import MomentoErrorCode
from momento.requests import CollectionTtl
from momento.responses import (
    CacheDelete,
    CacheDictionaryFetch,
    CacheDictionaryGetField,
    CacheDictionaryGetFields,
    CacheDictionaryIncrement,
    CacheDictionaryRemoveField,
    CacheDictionaryRemoveFields,
    CacheDictionarySetField,
    CacheDictionarySetFields,
    CacheFlush,
    CacheGet,
    CacheIncrement,
    CacheListFetch,
    CacheSet,
    CacheSetFetch,
    CacheSetIfNotExists,
    CreateCache,
    DeleteCache,
    ListCaches,
)
from momento_wire_types import cacheclient_pb2 as pb
from momento_wire_types import cacheclient_pb2_grpc, common_pb2, controlclient_pb2, controlclient_pb2_grpc

from etlcli.errors import EtlError
from etlcli.local.momento.__main__ import main
from etlcli.local.momento.clock import ManualClock
from etlcli.local.momento.faults import Faults
from etlcli.local.momento.limits import ON_DEMAND, Limits
from etlcli.local.momento.meter import Usage
from etlcli.local.momento.server import MomentoServer, run, serve
from etlcli.local.momento.store import Store

BOUND = 60  # seconds after which a test is given up
CACHE = "cache"
HOUR = timedelta(hours=1)

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def connected(
    server: MomentoServer, *, middlewares: list[Middleware] | None = None, timeout_seconds: float = 15
) -> AsyncIterator[CacheClientAsync]:
    configuration: Configuration = Configurations.Laptop.v1()
    if timeout_seconds != 15:
        configuration = configuration.with_client_timeout(timedelta(seconds=timeout_seconds))
    if middlewares:
        configuration = configuration.with_middlewares([*middlewares])
    credentials = CredentialProvider.for_momento_local(server.host, server.port)
    async with CacheClientAsync(configuration, credentials, HOUR) as client:
        yield client


def play(
    scenario: Callable[[MomentoServer, CacheClientAsync], Awaitable[None]],
    *,
    middlewares: list[Middleware] | None = None,
    **options: Any,
) -> None:
    """Runs a scenario against a server with a cache, on a free port."""

    async def body() -> None:
        async with asyncio.timeout(BOUND), serve(**options) as server:
            server.store.create(CACHE)
            async with connected(server, middlewares=middlewares) as client:
                await scenario(server, client)

    asyncio.run(body())


class Raw:
    """The generated stubs, for what the SDK has no call for; the calls name the cache."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._data = cacheclient_pb2_grpc.ScsStub(channel)  # type: ignore[no-untyped-call]
        self.control = controlclient_pb2_grpc.ScsControlStub(channel)  # type: ignore[no-untyped-call]

    async def call(self, rpc: str, request: Any, **metadata: str) -> Any:
        return await getattr(self._data, rpc)(request, metadata=_pairs(metadata), timeout=BOUND)

    async def stream(self, rpc: str, request: Any, **metadata: str) -> list[Any]:
        return [reply async for reply in getattr(self._data, rpc)(request, metadata=_pairs(metadata), timeout=BOUND)]


def _pairs(metadata: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key.replace("_", "-"), value) for key, value in {"cache": CACHE, **metadata}.items())


def play_raw(scenario: Callable[[MomentoServer, Raw], Awaitable[None]], **options: Any) -> None:
    async def body() -> None:
        async with asyncio.timeout(BOUND), serve(**options) as server:
            server.store.create(CACHE)
            async with grpc.aio.insecure_channel(f"{server.host}:{server.port}") as channel:
                await scenario(server, Raw(channel))

    asyncio.run(body())


def refused(response: Any, code: MomentoErrorCode) -> Any:
    """Checks an SDK's error response, and gives its exception."""
    assert hasattr(response, "error_code"), response
    assert response.error_code is code, response
    return response.inner_exception


def trailer(response: Any) -> str | None:
    """The `err` trailer, as the SDK hands it on."""
    found: str | None = response.inner_exception.transport_details.grpc.metadata.get("err")
    return found


# Caches


def test_caches_are_made_listed_and_deleted() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        assert isinstance(await client.create_cache("another"), CreateCache.Success)
        assert isinstance(await client.create_cache("another"), CreateCache.CacheAlreadyExists)
        listed = await client.list_caches()
        assert isinstance(listed, ListCaches.Success)
        assert [cache.name for cache in listed.caches] == ["another", CACHE]
        assert isinstance(await client.set("another", "key", "value"), CacheSet.Success)
        assert isinstance(await client.get(CACHE, "key"), CacheGet.Miss)
        assert isinstance(await client.delete_cache("another"), DeleteCache.Success)
        refused(await client.delete_cache("another"), MomentoErrorCode.NOT_FOUND_ERROR)
        refused(await client.get("another", "key"), MomentoErrorCode.NOT_FOUND_ERROR)

    play(scenario)


def test_a_flush_keeps_the_cache() -> None:
    async def scenario(server: MomentoServer, client: CacheClientAsync) -> None:
        await client.set(CACHE, "key", "value")
        await client.dictionary_set_field(CACHE, "dictionary", "field", "value")
        assert isinstance(await client.flush_cache(CACHE), CacheFlush.Success)
        assert isinstance(await client.get(CACHE, "key"), CacheGet.Miss)
        assert server.store.stored_bytes == 0
        refused(await client.flush_cache("unknown"), MomentoErrorCode.NOT_FOUND_ERROR)

    play(scenario)


@pytest.mark.parametrize("name", [" ", "ab", "has blank", "sl/ash", "x" * 256])
def test_names_of_no_cache(name: str) -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        refused(await client.create_cache(name), MomentoErrorCode.INVALID_ARGUMENT_ERROR)

    play(scenario)


def test_listed_limits_are_those_of_the_account() -> None:
    async def scenario(_server: MomentoServer, raw: Raw) -> None:
        listed = await raw.control.ListCaches(controlclient_pb2._ListCachesRequest())
        limits = listed.cache[0].cache_limits
        assert (limits.max_traffic_rate, limits.max_item_size_kb, limits.max_ttl_seconds) == (100, 4883, 86_400)

    play_raw(scenario, limits=ON_DEMAND)


def test_every_data_call_on_an_unknown_cache_is_not_found() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        for response in (
            await client.get("unknown", "k"),
            await client.set("unknown", "k", "v"),
            await client.delete("unknown", "k"),
            await client.increment("unknown", "k"),
            await client.set_if_not_exists("unknown", "k", "v"),
            await client.dictionary_get_field("unknown", "d", "f"),
            await client.dictionary_get_fields("unknown", "d", ["f"]),
            await client.dictionary_fetch("unknown", "d"),
            await client.dictionary_set_field("unknown", "d", "f", "v"),
            await client.dictionary_set_fields("unknown", "d", {"f": "v"}),
            await client.dictionary_increment("unknown", "d", "f"),
            await client.dictionary_remove_field("unknown", "d", "f"),
            await client.dictionary_remove_fields("unknown", "d", ["f"]),
        ):
            refused(response, MomentoErrorCode.NOT_FOUND_ERROR)
            assert trailer(response) == "general_momento_error"

    play(scenario)


def test_a_data_call_has_to_name_a_cache() -> None:
    async def scenario(_server: MomentoServer, raw: Raw) -> None:
        for cache in ({}, {"cache": " "}):
            metadata = tuple(cache.items())
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await raw._data.Get(pb._GetRequest(cache_key=b"k"), metadata=metadata, timeout=BOUND)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    play_raw(scenario)


def test_what_is_not_implemented_says_so() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        for response in (await client.list_fetch(CACHE, "list"), await client.set_fetch(CACHE, "set")):
            assert isinstance(response, CacheListFetch.Error | CacheSetFetch.Error)
            refused(response, MomentoErrorCode.BAD_REQUEST_ERROR)
            assert "is not implemented by the embedded Momento server" in response.inner_exception.message

    play(scenario)


# Scalars


def test_values_come_back_as_they_went() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        for key, value in (("text", "héllö"), (b"\x00\xff", b"\xff\x00"), ("empty", b"")):
            assert isinstance(await client.get(CACHE, key), CacheGet.Miss)
            assert isinstance(await client.set(CACHE, key, value), CacheSet.Success)
            got = await client.get(CACHE, key)
            assert isinstance(got, CacheGet.Hit)
            assert got.value_bytes == (value.encode() if isinstance(value, str) else value)
        assert isinstance(await client.delete(CACHE, "text"), CacheDelete.Success)
        assert isinstance(await client.delete(CACHE, "text"), CacheDelete.Success)
        assert isinstance(await client.get(CACHE, "text"), CacheGet.Miss)

    play(scenario)


def test_items_expire() -> None:
    clock = ManualClock()

    async def scenario(server: MomentoServer, client: CacheClientAsync) -> None:
        ttl = timedelta(seconds=2)
        await client.set(CACHE, "set", "v", ttl=ttl)
        await client.set_if_not_exists(CACHE, "set if", "v", ttl=ttl)
        await client.increment(CACHE, "increment", 5, ttl=ttl)
        await client.set(CACHE, "stays", "v")
        clock.advance(1.999)
        for key in ("set", "set if", "increment", "stays"):
            assert isinstance(await client.get(CACHE, key), CacheGet.Hit)
        clock.advance(0.001)
        for key in ("set", "set if", "increment"):
            assert isinstance(await client.get(CACHE, key), CacheGet.Miss)
        assert isinstance(await client.get(CACHE, "stays"), CacheGet.Hit)
        refused(
            await client.set(CACHE, "k", "v", ttl=timedelta(hours=24, milliseconds=1)),
            MomentoErrorCode.INVALID_ARGUMENT_ERROR,
        )
        assert server.store.stored_bytes == len("stays") + 1

    play(scenario, clock=clock)


def test_the_sweep_runs_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    swept = asyncio.Event()
    sweep = Store.sweep

    def observed(store: Store) -> int:
        if gone := sweep(store):
            swept.set()
        return gone

    monkeypatch.setattr(Store, "sweep", observed)

    async def scenario(server: MomentoServer, client: CacheClientAsync) -> None:
        await client.set(CACHE, "key", "value", ttl=timedelta(seconds=1))
        clock.advance(1)
        await swept.wait()
        assert server.store.stored_bytes == 0

    play(scenario, clock=clock, sweep_seconds=0)


def test_set_if_not_exists() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        assert isinstance(await client.set_if_not_exists(CACHE, "k", "first"), CacheSetIfNotExists.Stored)
        assert isinstance(await client.set_if_not_exists(CACHE, "k", "second"), CacheSetIfNotExists.NotStored)
        got = await client.get(CACHE, "k")
        assert isinstance(got, CacheGet.Hit)
        assert got.value_string == "first"

    play(scenario)


def test_increment() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        for amount, total in ((1, 1), (41, 42), (-1042, -1000)):
            response = await client.increment(CACHE, "counter", amount)
            assert isinstance(response, CacheIncrement.Success)
            assert response.value == total
        got = await client.get(CACHE, "counter")
        assert isinstance(got, CacheGet.Hit)
        assert got.value_string == "-1000"
        await client.set(CACHE, "text", "abcxyz")
        response = await client.increment(CACHE, "text", 1)
        refused(response, MomentoErrorCode.FAILED_PRECONDITION_ERROR)

    play(scenario)


_CHECKED = {"value_to_check": b"held"}


@pytest.mark.parametrize(
    ("condition", "on_absent", "on_held", "on_other"),
    [
        ({"present": common_pb2.Present()}, "not_stored", "stored", "stored"),
        ({"absent": common_pb2.Absent()}, "stored", "not_stored", "not_stored"),
        ({"equal": common_pb2.Equal(**_CHECKED)}, "not_stored", "stored", "not_stored"),
        ({"not_equal": common_pb2.NotEqual(**_CHECKED)}, "stored", "not_stored", "stored"),
        (
            {"present_and_not_equal": common_pb2.PresentAndNotEqual(**_CHECKED)},
            "not_stored",
            "not_stored",
            "stored",
        ),
        ({"absent_or_equal": common_pb2.AbsentOrEqual(**_CHECKED)}, "stored", "stored", "not_stored"),
    ],
)
def test_conditional_sets(condition: dict[str, Any], on_absent: str, on_held: str, on_other: str) -> None:
    async def scenario(server: MomentoServer, raw: Raw) -> None:
        cache = server.store.cache(CACHE)
        request = pb._SetIfRequest(cache_key=b"k", cache_body=b"new", ttl_milliseconds=60_000, **condition)
        for held, outcome in ((None, on_absent), (b"held", on_held), (b"other", on_other)):
            cache.delete(b"k")
            if held is not None:
                cache.set(b"k", held, 60_000)
            assert (await raw.call("SetIf", request)).WhichOneof("result") == outcome
            assert cache.get(b"k") == (b"new" if outcome == "stored" else held)

    play_raw(scenario)


def test_requests_without_a_choice_are_refused() -> None:
    async def scenario(_server: MomentoServer, raw: Raw) -> None:
        for rpc, request in (
            ("SetIf", pb._SetIfRequest(cache_key=b"k", cache_body=b"v")),
            ("UpdateTtl", pb._UpdateTtlRequest(cache_key=b"k")),
            ("DictionaryDelete", pb._DictionaryDeleteRequest(dictionary_name=b"d")),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await raw.call(rpc, request)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    play_raw(scenario)


def test_items_are_asked_for_their_presence_type_and_ttl() -> None:
    clock = ManualClock()

    async def scenario(server: MomentoServer, raw: Raw) -> None:
        cache = server.store.cache(CACHE)
        cache.set(b"scalar", b"v", 10_000)
        cache.dictionary_set(b"dictionary", [(b"f", b"v")], 20_000, refresh_ttl=True)
        clock.advance(2.5)
        keys = [b"scalar", b"nothing", b"dictionary"]
        assert list((await raw.call("KeysExist", pb._KeysExistRequest(cache_keys=keys))).exists) == [True, False, True]
        assert list((await raw.call("KeysExist", pb._KeysExistRequest())).exists) == []
        types = [await raw.call("ItemGetType", pb._ItemGetTypeRequest(cache_key=key)) for key in keys]
        assert [reply.WhichOneof("result") for reply in types] == ["found", "missing", "found"]
        assert types[0].found.item_type == pb._ItemGetTypeResponse.SCALAR
        assert types[2].found.item_type == pb._ItemGetTypeResponse.DICTIONARY
        ttls = [await raw.call("ItemGetTtl", pb._ItemGetTtlRequest(cache_key=key)) for key in keys]
        assert [reply.WhichOneof("result") for reply in ttls] == ["found", "missing", "found"]
        assert [reply.found.remaining_ttl_millis for reply in ttls] == [7_500, 0, 17_500]

    play_raw(scenario, clock=clock)


@pytest.mark.parametrize(
    ("change", "outcome", "left"),
    [
        ({"overwrite_to_milliseconds": 3_000}, "set", 3_000),
        ({"increase_to_milliseconds": 20_000}, "set", 20_000),
        ({"increase_to_milliseconds": 5_000}, "not_set", 10_000),
        ({"decrease_to_milliseconds": 5_000}, "set", 5_000),
        ({"decrease_to_milliseconds": 20_000}, "not_set", 10_000),
    ],
)
def test_ttls_are_changed(change: dict[str, int], outcome: str, left: int) -> None:
    async def scenario(server: MomentoServer, raw: Raw) -> None:
        request = pb._UpdateTtlRequest(cache_key=b"k", **change)
        assert (await raw.call("UpdateTtl", request)).WhichOneof("result") == "missing"
        server.store.cache(CACHE).set(b"k", b"v", 10_000)
        assert (await raw.call("UpdateTtl", request)).WhichOneof("result") == outcome
        assert server.store.cache(CACHE).ttl_milliseconds(b"k") == left

    play_raw(scenario, clock=ManualClock())


def test_batches() -> None:
    clock = ManualClock()

    async def scenario(server: MomentoServer, raw: Raw) -> None:
        items = [
            pb._SetRequest(cache_key=b"a", cache_body=b"apple", ttl_milliseconds=3_000),
            pb._SetRequest(cache_key=b"b", cache_body=b"berry", ttl_milliseconds=20_000),
            pb._SetRequest(cache_key=b"c", cache_body=b"cherry", ttl_milliseconds=90_000_000),
        ]
        stored = await raw.stream("SetBatch", pb._SetBatchRequest(items=items))
        assert [reply.result for reply in stored] == [pb.Ok, pb.Ok, pb.Invalid]
        assert "over the limit" in stored[2].message
        server.store.cache(CACHE).dictionary_set(b"d", [(b"f", b"v")], 20_000, refresh_ttl=True)
        clock.advance(5)
        wanted = pb._GetBatchRequest(items=[pb._GetRequest(cache_key=key) for key in (b"a", b"b", b"d")])
        got = await raw.stream("GetBatch", wanted)
        assert [(reply.result, reply.cache_body) for reply in got] == [
            (pb.Miss, b""),
            (pb.Hit, b"berry"),
            (pb.Invalid, b""),
        ]
        assert await raw.stream("GetBatch", pb._GetBatchRequest()) == []
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await raw.stream("GetBatch", wanted, cache="unknown")
        assert error.value.code() is grpc.StatusCode.NOT_FOUND

    play_raw(scenario, clock=clock)


# Dictionaries


def test_dictionaries() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        assert isinstance(await client.dictionary_fetch(CACHE, "d"), CacheDictionaryFetch.Miss)
        assert isinstance(await client.dictionary_get_field(CACHE, "d", "a"), CacheDictionaryGetField.Miss)
        assert isinstance(await client.dictionary_get_fields(CACHE, "d", ["a"]), CacheDictionaryGetFields.Miss)
        stored = await client.dictionary_set_fields(CACHE, "d", {"a": "1", "b": "2"})
        assert isinstance(stored, CacheDictionarySetFields.Success)
        assert isinstance(
            await client.dictionary_set_field(CACHE, "d", b"\xff", b"\x00"), CacheDictionarySetField.Success
        )
        fields = await client.dictionary_get_fields(CACHE, "d", ["b", "missing", "a"])
        assert isinstance(fields, CacheDictionaryGetFields.Hit)
        assert [type(field) for field in fields.responses] == [
            CacheDictionaryGetField.Hit,
            CacheDictionaryGetField.Miss,
            CacheDictionaryGetField.Hit,
        ]
        assert fields.value_dictionary_string_string == {"a": "1", "b": "2"}
        one = await client.dictionary_get_field(CACHE, "d", b"\xff")
        assert isinstance(one, CacheDictionaryGetField.Hit)
        assert (one.field_bytes, one.value_bytes) == (b"\xff", b"\x00")
        assert isinstance(await client.dictionary_get_field(CACHE, "d", "missing"), CacheDictionaryGetField.Miss)
        removed = await client.dictionary_remove_field(CACHE, "d", b"\xff")
        assert isinstance(removed, CacheDictionaryRemoveField.Success)
        fetched = await client.dictionary_fetch(CACHE, "d")
        assert isinstance(fetched, CacheDictionaryFetch.Hit)
        assert fetched.value_dictionary_string_string == {"a": "1", "b": "2"}
        gone = await client.dictionary_remove_fields(CACHE, "d", ["a", "b", "missing"])
        assert isinstance(gone, CacheDictionaryRemoveFields.Success)
        assert isinstance(await client.dictionary_fetch(CACHE, "d"), CacheDictionaryFetch.Miss)

    play(scenario)


def test_dictionary_increment() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        for amount, total in ((0, 0), (7, 7), (-8, -1)):
            response = await client.dictionary_increment(CACHE, "d", "f", amount)
            assert isinstance(response, CacheDictionaryIncrement.Success)
            assert response.value == total
        await client.dictionary_set_field(CACHE, "d", "text", "hello, world!")
        response = await client.dictionary_increment(CACHE, "d", "text", 1)
        refused(response, MomentoErrorCode.FAILED_PRECONDITION_ERROR)

    play(scenario)


@pytest.mark.parametrize("refresh", [True, False])
def test_collection_ttl(refresh: bool) -> None:
    clock = ManualClock()
    ttl = CollectionTtl(timedelta(seconds=2), refresh_ttl=refresh)

    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        await client.dictionary_set_field(CACHE, "d", "one", "1", ttl=ttl)
        clock.advance(1)
        await client.dictionary_set_fields(CACHE, "d", {"two": "2"}, ttl=ttl)
        clock.advance(1)
        fetched = await client.dictionary_fetch(CACHE, "d")
        assert isinstance(fetched, CacheDictionaryFetch.Hit if refresh else CacheDictionaryFetch.Miss)

    play(scenario, clock=clock)


def test_dictionary_length_and_deletion_as_a_whole() -> None:
    async def scenario(server: MomentoServer, raw: Raw) -> None:
        length = pb._DictionaryLengthRequest(dictionary_name=b"d")
        assert (await raw.call("DictionaryLength", length)).WhichOneof("dictionary") == "missing"
        server.store.cache(CACHE).dictionary_set(b"d", [(b"a", b"1"), (b"b", b"2")], 60_000, refresh_ttl=True)
        assert (await raw.call("DictionaryLength", length)).found.length == 2
        everything = pb._DictionaryDeleteRequest(dictionary_name=b"d", all=pb._DictionaryDeleteRequest.All())
        for _ in range(2):
            await raw.call("DictionaryDelete", everything)
            assert (await raw.call("DictionaryLength", length)).WhichOneof("dictionary") == "missing"

    play_raw(scenario)


def test_a_key_of_another_type() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        await client.set(CACHE, "scalar", "1")
        await client.dictionary_set_field(CACHE, "dictionary", "f", "v")
        for response in (
            await client.get(CACHE, "dictionary"),
            await client.increment(CACHE, "dictionary"),
            await client.dictionary_fetch(CACHE, "scalar"),
            await client.dictionary_get_fields(CACHE, "scalar", ["f"]),
            await client.dictionary_set_field(CACHE, "scalar", "f", "v"),
            await client.dictionary_increment(CACHE, "scalar", "f"),
            await client.dictionary_remove_field(CACHE, "scalar", "f"),
        ):
            refused(response, MomentoErrorCode.FAILED_PRECONDITION_ERROR)
            assert trailer(response) == "invalid_type"
        assert isinstance(await client.set(CACHE, "dictionary", "now a scalar"), CacheSet.Success)
        assert isinstance(await client.delete(CACHE, "scalar"), CacheDelete.Success)

    play(scenario)


# Limits


def test_the_item_size_limit_and_its_trailer() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        largest = os.urandom(5_000_000)
        assert isinstance(await client.set(CACHE, "a key of its own", largest), CacheSet.Success)
        got = await client.get(CACHE, "a key of its own")
        assert isinstance(got, CacheGet.Hit)
        assert got.value_bytes == largest
        for response in (
            await client.set(CACHE, "k", largest + b"x"),
            await client.set(CACHE, "k", b"x" * 5_242_000),
            await client.set_if_not_exists(CACHE, "k", largest + b"x"),
        ):
            error = refused(response, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
            assert trailer(response) == "item_size_limit_exceeded"
            assert error.message_wrapper == "Item size limit exceeded for this account"
        assert isinstance(await client.get(CACHE, "k"), CacheGet.Miss)
        # Over 5,243,000 bytes it is the SDK's own channel that refuses: the same status, and no trailer.
        response = await client.set(CACHE, "k", b"x" * 5_243_000)
        refused(response, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        assert trailer(response) is None

    play(scenario)


def test_the_element_size_limit_and_its_trailer() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        largest = b"x" * 128 * 1024
        assert isinstance(await client.dictionary_set_field(CACHE, "d", "f", largest), CacheDictionarySetField.Success)
        response = await client.dictionary_set_field(CACHE, "d", "g", largest + b"x")
        error = refused(response, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        assert trailer(response) == "element_size_limit_exceeded"
        assert error.message_wrapper == "Element size limit exceeded for this account"
        grown = await client.dictionary_set_fields(CACHE, "d", {str(number): largest for number in range(38)})
        refused(grown, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        assert trailer(grown) == "item_size_limit_exceeded"
        fetched = await client.dictionary_fetch(CACHE, "d")
        assert isinstance(fetched, CacheDictionaryFetch.Hit)
        assert list(fetched.value_dictionary_string_bytes) == ["f"]

    play(scenario)


def test_the_request_size_limit_and_its_trailer() -> None:
    async def scenario(server: MomentoServer, raw: Raw) -> None:
        items = [pb._SetRequest(cache_key=b"k", cache_body=b"x" * 1_000_000, ttl_milliseconds=1_000)] * 6
        pairs = [pb._DictionaryFieldValuePair(field=b"%d" % number, value=b"x" * 100_000) for number in range(53)]
        for answer in (
            raw.stream("SetBatch", pb._SetBatchRequest(items=items)),
            raw.call("DictionarySet", pb._DictionarySetRequest(dictionary_name=b"d", items=pairs)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await answer
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            trailers = dict(error.value.trailing_metadata() or ())
            assert trailers["err"] == "request_size_limit_exceeded"
        assert server.store.stored_bytes == 0

    play_raw(scenario)


def test_the_rate_limit_and_its_trailer() -> None:
    clock = ManualClock()

    async def scenario(server: MomentoServer, client: CacheClientAsync) -> None:
        for number in range(50):
            assert isinstance(await client.set(CACHE, str(number), b"x" * 1025), CacheSet.Success)
        response = await client.get(CACHE, "1")
        error = refused(response, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        assert trailer(response) == "operations_rate_limit_exceeded"
        assert error.message_wrapper == "Request rate limit exceeded for this account"
        refused(await client.set(CACHE, "not stored", "v"), MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        clock.advance(0.02)
        assert isinstance(await client.get(CACHE, "not stored"), CacheGet.Miss)
        assert server.meter.total == Usage(calls=53, operations=101, throttled=2)

    play(scenario, clock=clock, limits=ON_DEMAND)


def test_a_chunk_over_a_seconds_worth_is_let_in_and_paid_off() -> None:
    clock = ManualClock()

    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        chunk = b"x" * 256 * 1024
        assert isinstance(await client.set(CACHE, "chunk", chunk), CacheSet.Success)
        clock.advance(1.5)
        refused(await client.get(CACHE, "chunk"), MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        clock.advance(0.1)
        assert isinstance(await client.get(CACHE, "chunk"), CacheGet.Hit)

    play(scenario, clock=clock, limits=ON_DEMAND)


def test_the_throughput_limit_and_its_trailer() -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        assert isinstance(await client.set(CACHE, "k", b"x" * 1_000_000), CacheSet.Success)
        response = await client.get(CACHE, "k")
        error = refused(response, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        assert trailer(response) == "throughput_rate_limit_exceeded"
        assert error.message_wrapper == "Bandwidth limit exceeded for this account"

    play(scenario, clock=ManualClock(), limits=Limits(bytes_per_second=1_000_000))


def test_control_calls_and_caches_are_limited() -> None:
    clock = ManualClock()

    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        for name in ("two", "three"):
            assert isinstance(await client.create_cache(name), CreateCache.Success)
        response = await client.create_cache("four")
        error = refused(response, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        assert error.message == "Cache count limit exceeded: at most 3"
        assert isinstance(await client.delete_cache("two"), DeleteCache.Success)
        assert isinstance(await client.create_cache("four"), CreateCache.Success)
        throttled = await client.list_caches()
        refused(throttled, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        assert trailer(throttled) == "operations_rate_limit_exceeded"
        clock.advance(0.2)
        assert isinstance(await client.list_caches(), ListCaches.Success)

    play(scenario, clock=clock, limits=ON_DEMAND)


def test_stored_bytes_are_limited() -> None:
    async def scenario(server: MomentoServer, client: CacheClientAsync) -> None:
        for number in range(5):
            await client.set(CACHE, str(number), b"x" * 99, ttl=timedelta(minutes=number + 1))
        hits = [isinstance(await client.get(CACHE, str(number)), CacheGet.Hit) for number in range(5)]
        assert hits == [False, False, True, True, True]
        assert server.store.evicted == 2

    play(scenario, limits=Limits(max_stored_bytes=300))


def test_what_calls_cost() -> None:
    async def scenario(server: MomentoServer, raw: Raw) -> None:
        def entry(key: bytes, size: int) -> Any:
            return pb._SetRequest(cache_key=key, cache_body=b"x" * size, ttl_milliseconds=60_000)

        def pair(field: bytes, size: int) -> Any:
            return pb._DictionaryFieldValuePair(field=field, value=b"x" * size)

        fields = [pair(b"a", 1), pair(b"b", 1024), pair(b"c", 1025)]
        named: dict[str, Any] = {"dictionary_name": b"d"}
        costs: list[tuple[str, Any, int]] = [
            ("Get", pb._GetRequest(cache_key=b"k"), 1),
            ("Set", entry(b"k", 262_144), 256),
            ("Get", pb._GetRequest(cache_key=b"k"), 256),
            ("SetIf", pb._SetIfRequest(cache_key=b"k", cache_body=b"x" * 1500, absent=common_pb2.Absent()), 4),
            ("SetIfNotExists", pb._SetIfNotExistsRequest(cache_key=b"k", cache_body=b"x" * 1500), 2),
            ("KeysExist", pb._KeysExistRequest(cache_keys=[b"x" * 600, b"y" * 600]), 2),
            ("ItemGetTtl", pb._ItemGetTtlRequest(cache_key=b"k"), 1),
            ("Delete", pb._DeleteRequest(cache_key=b"k"), 1),
            ("Increment", pb._IncrementRequest(cache_key=b"n", amount=1, ttl_milliseconds=60_000), 1),
            ("DictionaryFetch", pb._DictionaryFetchRequest(**named), 1),
            ("DictionarySet", pb._DictionarySetRequest(**named, items=fields, ttl_milliseconds=60_000), 4),
            ("DictionaryFetch", pb._DictionaryFetchRequest(**named), 4),
            ("DictionaryGet", pb._DictionaryGetRequest(**named, fields=[b"a", b"c", b"missing"]), 3),
            ("DictionaryGet", pb._DictionaryGetRequest(**named, fields=[b"missing"]), 1),
            ("DictionaryLength", pb._DictionaryLengthRequest(**named), 1),
        ]
        for rpc, request, cost in costs:
            server.meter.reset()
            await raw.call(rpc, request)
            assert server.meter.by_rpc == {rpc: Usage(calls=1, operations=cost)}, rpc
        server.meter.reset()
        await raw.stream("SetBatch", pb._SetBatchRequest(items=[entry(b"a", 1), entry(b"b", 1025)]))
        keys = [pb._GetRequest(cache_key=key) for key in (b"a", b"b", b"missing")]
        await raw.stream("GetBatch", pb._GetBatchRequest(items=keys))
        assert {rpc: usage.operations for rpc, usage in server.meter.by_rpc.items()} == {"SetBatch": 3, "GetBatch": 4}
        server.meter.reset()
        for rpc, request in (
            ("Increment", pb._IncrementRequest(cache_key=b"d")),
            ("Get", pb._GetRequest(cache_key=b"d")),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await raw.call(rpc, request)
        with pytest.raises(grpc.aio.AioRpcError):
            await raw.call("Set", entry(b"k", 5_000_001))
        assert (server.meter.calls, server.meter.operations) == (3, 3)

    play_raw(scenario)


# Faults


class Asking(Middleware):
    """Adds metadata to every call, as the SDK's published helper for Momento Local does."""

    def __init__(self, **metadata: str) -> None:
        self._metadata = metadata

    async def on_new_request(self, _context: MiddlewareRequestHandlerContext) -> MiddlewareRequestHandler:
        return _Asking(self._metadata)


class _Asking(MiddlewareRequestHandler):
    def __init__(self, metadata: dict[str, str]) -> None:
        self._metadata = metadata

    async def on_request_metadata(self, metadata: MiddlewareMetadata) -> MiddlewareMetadata:
        assert metadata.grpc_metadata is not None
        for key, value in self._metadata.items():
            metadata.grpc_metadata[key.replace("_", "-")] = value
        return metadata

    async def on_request_body(self, request: MiddlewareMessage) -> MiddlewareMessage:
        return request

    async def on_response_metadata(self, metadata: MiddlewareMetadata) -> MiddlewareMetadata:
        return metadata

    async def on_response_body(self, response: MiddlewareMessage) -> MiddlewareMessage:
        return response

    async def on_response_status(self, status: MiddlewareStatus) -> MiddlewareStatus:
        return status


def test_a_full_outage_outlasts_the_sdks_retries() -> None:
    async def scenario(server: MomentoServer, client: CacheClientAsync) -> None:
        refused(await client.get(CACHE, "key"), MomentoErrorCode.SERVER_UNAVAILABLE)
        refused(await client.increment(CACHE, "key"), MomentoErrorCode.SERVER_UNAVAILABLE)
        assert isinstance(await client.set(CACHE, "key", "value"), CacheSet.Success)
        assert {rpc: usage.calls for rpc, usage in server.meter.by_rpc.items()} == {"Get": 4, "Increment": 1, "Set": 1}
        assert server.meter.operations == 1

    asking = Asking(request_id="test", return_error="unavailable", error_rpcs="get increment")
    play(scenario, middlewares=[asking])


def test_a_passing_outage_does_not() -> None:
    async def scenario(server: MomentoServer, client: CacheClientAsync) -> None:
        assert isinstance(await client.get(CACHE, "key"), CacheGet.Miss)
        assert server.meter.by_rpc["Get"].calls == 3

    asking = Asking(request_id="test", return_error="unavailable", error_rpcs="get", error_count="2")
    play(scenario, middlewares=[asking])


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("invalid-argument", MomentoErrorCode.INVALID_ARGUMENT_ERROR),
        ("unknown", MomentoErrorCode.BAD_REQUEST_ERROR),
        ("already-exists", MomentoErrorCode.ALREADY_EXISTS_ERROR),
        ("not-found", MomentoErrorCode.NOT_FOUND_ERROR),
        ("internal", MomentoErrorCode.INTERNAL_SERVER_ERROR),
        ("permission-denied", MomentoErrorCode.PERMISSION_ERROR),
        ("unauthenticated", MomentoErrorCode.AUTHENTICATION_ERROR),
        ("cancelled", MomentoErrorCode.CANCELLED_ERROR),
        ("resource-exhausted", MomentoErrorCode.LIMIT_EXCEEDED_ERROR),
        ("deadline-exceeded", MomentoErrorCode.TIMEOUT_ERROR),
        ("unavailable", MomentoErrorCode.SERVER_UNAVAILABLE),
        ("failed-precondition", MomentoErrorCode.FAILED_PRECONDITION_ERROR),
    ],
)
def test_errors_that_can_be_asked_for(asked: str, shown: MomentoErrorCode) -> None:
    async def scenario(_server: MomentoServer, client: CacheClientAsync) -> None:
        refused(await client.set(CACHE, "key", "value"), shown)

    play(scenario, middlewares=[Asking(return_error=asked, error_rpcs="set")])


def test_streams_fail_when_asked() -> None:
    async def scenario(_server: MomentoServer, raw: Raw) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await raw.stream("GetBatch", pb._GetBatchRequest(), return_error="unavailable", error_rpcs="get-batch")
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE

    play_raw(scenario)


def test_a_delay_longer_than_the_clients_patience() -> None:
    waiting: list[float] = []

    async def sleep(seconds: float) -> None:
        waiting.append(seconds)
        await asyncio.Event().wait()

    async def body() -> None:
        async with asyncio.timeout(BOUND), serve(faults=Faults(sleep=sleep)) as server:
            server.store.create(CACHE)
            asking: list[Middleware] = [Asking(request_id="x", delay_rpcs="get", delay_ms="1500", delay_count="1")]
            async with connected(server, middlewares=asking, timeout_seconds=0.2) as client:
                refused(await client.get(CACHE, "key"), MomentoErrorCode.TIMEOUT_ERROR)
            assert waiting == [1.5]
            async with connected(server, middlewares=asking) as client:
                assert isinstance(await client.get(CACHE, "key"), CacheGet.Miss)
            assert waiting == [1.5]

    asyncio.run(body())


def test_faults_scripted_in_python() -> None:
    async def scenario(server: MomentoServer, client: CacheClientAsync) -> None:
        throttle = server.faults.fail("set", status="resource-exhausted", err="operations_rate_limit_exceeded", count=1)
        response = await client.set(CACHE, "key", "value")
        error = refused(response, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
        assert error.message_wrapper == "Request rate limit exceeded for this account"
        assert isinstance(await client.set(CACHE, "key", "value"), CacheSet.Success)
        assert throttle.met == 1
        server.faults.fail("get", status="not-found", when=lambda request: request.cache_key == b"chosen")
        refused(await client.get(CACHE, "chosen"), MomentoErrorCode.NOT_FOUND_ERROR)
        assert isinstance(await client.get(CACHE, "key"), CacheGet.Hit)
        server.faults.fail("increment", status="unavailable", count=1, after=True)
        refused(await client.increment(CACHE, "counter"), MomentoErrorCode.SERVER_UNAVAILABLE)
        again = await client.increment(CACHE, "counter")
        assert isinstance(again, CacheIncrement.Success)
        assert again.value == 2

    play(scenario)


# Clients, ports, signals


def test_the_synchronous_client() -> None:
    def use(server: MomentoServer) -> None:
        credentials = CredentialProvider.for_momento_local(server.host, server.port)
        with CacheClient(Configurations.Laptop.v1(), credentials, HOUR) as client:
            assert isinstance(client.create_cache(CACHE), CreateCache.Success)
            assert isinstance(client.set(CACHE, "key", "value"), CacheSet.Success)
            got = client.get(CACHE, "key")
            assert isinstance(got, CacheGet.Hit)
            assert got.value_string == "value"
            stored = client.dictionary_set_fields(CACHE, "d", {"a": "1"})
            assert isinstance(stored, CacheDictionarySetFields.Success)
            fetched = client.dictionary_fetch(CACHE, "d")
            assert isinstance(fetched, CacheDictionaryFetch.Hit)
            assert fetched.value_dictionary_string_string == {"a": "1"}
            response = client.set(CACHE, "key", b"x" * 5_000_001)
            error = refused(response, MomentoErrorCode.LIMIT_EXCEEDED_ERROR)
            assert error.message_wrapper == "Item size limit exceeded for this account"
            refused(client.get("unknown", "key"), MomentoErrorCode.NOT_FOUND_ERROR)

    async def body() -> None:
        async with asyncio.timeout(BOUND), serve() as server:
            await asyncio.to_thread(use, server)

    asyncio.run(body())


def test_many_calls_at_once() -> None:
    async def scenario(server: MomentoServer, client: CacheClientAsync) -> None:
        responses = await asyncio.gather(*(client.increment(CACHE, "counter") for _ in range(200)))
        values = [response.value for response in responses if isinstance(response, CacheIncrement.Success)]
        assert sorted(values) == list(range(1, 201))
        assert server.meter.by_rpc["Increment"] == Usage(calls=200, operations=200)

    play(scenario)


def test_a_taken_port_is_an_error() -> None:
    async def body() -> None:
        async with asyncio.timeout(BOUND), serve() as server:
            with pytest.raises(EtlError, match=rf"127\.0\.0\.1:{server.port}: address already in use"):
                async with serve(server.port):
                    pass
        async with serve(server.port) as again:
            assert again.port == server.port

    asyncio.run(body())


def test_an_ipv6_address() -> None:
    if not socket.has_ipv6 or not _can_bind("::1"):
        pytest.skip("this machine has no IPv6 loopback")

    async def body() -> None:
        async with asyncio.timeout(BOUND), serve(host="::1") as server:
            assert server.address == f"[::1]:{server.port}"
            async with grpc.aio.insecure_channel(server.address) as channel:
                listed = await Raw(channel).control.ListCaches(controlclient_pb2._ListCachesRequest(), timeout=BOUND)
                assert not listed.cache
            with pytest.raises(EtlError, match=rf"\[::1\]:{server.port}: address already in use"):
                async with serve(server.port, host="::1"):
                    pass

    asyncio.run(body())


def _can_bind(host: str) -> bool:
    try:
        with socket.create_server((host, 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_the_command_says_that_the_port_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    async def body() -> int:
        async with asyncio.timeout(BOUND), serve() as server:
            return await asyncio.to_thread(_command, server.port)

    assert asyncio.run(body()) == 1
    output = capsys.readouterr()
    assert output.out == ""
    error, hint = output.err.splitlines()
    assert error.startswith("error: the Momento server cannot listen on 127.0.0.1:")
    assert error.endswith(": address already in use")
    assert hint == "hint: Choose another port, or stop what listens there."


def _command(port: int) -> int:
    process = subprocess.run(
        [sys.executable, "-m", "etlcli.local.momento", "--port", str(port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    sys.stdout.write(process.stdout)
    sys.stderr.write(process.stderr)
    return process.returncode


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "etlcli.local.momento", "--port", "0", "--limits", "on-demand"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        yield running
        running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal(process: subprocess.Popen[str], number: signal.Signals) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith("Momento server on 127.0.0.1:")
    assert line.endswith(", limits: on-demand\n")
    port = int(line.split(":")[1].split(",")[0])

    def use() -> None:
        credentials = CredentialProvider.for_momento_local("127.0.0.1", port)
        with CacheClient(Configurations.Laptop.v1(), credentials, HOUR) as client:
            assert isinstance(client.create_cache(CACHE), CreateCache.Success)
            process.send_signal(number)
            output, errors = process.communicate(timeout=BOUND)
            assert (process.returncode, output, errors) == (0, "", "")

    use()


def test_run_reports_a_bad_address() -> None:
    with pytest.raises(EtlError, match=r"cannot listen on 192\.0\.2\.1:0"):
        run(0, host="192.0.2.1")


def test_an_unknown_preset_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--limits", "generous"])
    assert exit_.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
