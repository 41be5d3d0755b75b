"""What the SDK holds of control, scalar and dictionary calls, asked by both of its clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import grpc
import pytest
from momento import (
    CacheClient,
    CacheClientAsync,
    Configurations,
    CredentialProvider,
    TopicClientAsync,
    TopicConfigurations,
)
from momento.config import Configuration
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
    CacheSet,
    CacheSetIfNotExists,
    CreateCache,
    CreateSigningKey,
    DeleteCache,
    ListCaches,
    ListSigningKeys,
    RevokeSigningKey,
    TopicPublish,
    TopicSubscribe,
)
from momento_wire_types import cacheclient_pb2 as pb
from momento_wire_types import cacheclient_pb2_grpc, common_pb2

from etlcli.local.momento.api_keys import ApiKeys
from etlcli.local.momento.clock import ManualClock
from etlcli.local.momento.faults import Faults
from etlcli.local.momento.limits import Limits
from etlcli.local.momento.meter import Usage
from etlcli.local.momento.server import MomentoServer, serve

BOUND = 60  # seconds after which a test is given up
CACHE = "cache"
KEY = "the-right-key"
HOUR = timedelta(hours=1)
PATIENCE = timedelta(milliseconds=50)


class Ask(Protocol):
    """One call of a client: its name and its arguments."""

    async def __call__(self, call: str, *arguments: Any, **named: Any) -> Any: ...


Connect = Callable[..., Any]


@pytest.fixture(params=["asynchronous", "synchronous"])
def connect(request: pytest.FixtureRequest) -> Connect:
    """Either client, asked in one way; the synchronous one in a thread of its own, beside the server's loop."""

    @asynccontextmanager
    async def made(
        server: MomentoServer, *, key: str = "", ttl: timedelta = HOUR, configuration: Configuration | None = None
    ) -> AsyncIterator[Ask]:
        configuration = configuration or Configurations.Laptop.v1()
        credentials = replace(CredentialProvider.for_momento_local(server.host, server.port), auth_token=key)
        if request.param == "asynchronous":
            async with CacheClientAsync(configuration, credentials, ttl) as client:

                async def ask(call: str, *arguments: Any, **named: Any) -> Any:
                    return await getattr(client, call)(*arguments, **named)

                yield ask
        else:
            blocking = await asyncio.to_thread(CacheClient, configuration, credentials, ttl)

            async def ask_blocking(call: str, *arguments: Any, **named: Any) -> Any:
                return await asyncio.to_thread(getattr(blocking, call), *arguments, **named)

            try:
                yield ask_blocking
            finally:
                await asyncio.to_thread(blocking.__exit__, None, None, None)

    return made


def play(scenario: Callable[[MomentoServer], Awaitable[None]], **options: Any) -> None:
    """Runs a scenario against a server with a cache, on a free port."""

    async def body() -> None:
        async with asyncio.timeout(BOUND), serve(**options) as server:
            server.store.create(CACHE)
            await scenario(server)

    asyncio.run(body())


def data_calls(cache: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every scalar and dictionary call of the SDK."""
    yield "get", (cache, "key")
    yield "set", (cache, "key", "value")
    yield "set_if_not_exists", (cache, "key", "value")
    yield "delete", (cache, "key")
    yield "increment", (cache, "counter")
    yield "dictionary_fetch", (cache, "dictionary")
    yield "dictionary_get_field", (cache, "dictionary", "field")
    yield "dictionary_get_fields", (cache, "dictionary", ["field"])
    yield "dictionary_set_field", (cache, "dictionary", "field", "value")
    yield "dictionary_set_fields", (cache, "dictionary", {"field": "value"})
    yield "dictionary_increment", (cache, "dictionary", "counter")
    yield "dictionary_remove_field", (cache, "dictionary", "field")
    yield "dictionary_remove_fields", (cache, "dictionary", ["field"])


def control_calls() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Every control call of the SDK."""
    yield "create_cache", ("another",)
    yield "list_caches", ()
    yield "flush_cache", (CACHE,)
    yield "delete_cache", (CACHE,)
    yield "create_signing_key", (HOUR,)
    yield "list_signing_keys", ()
    yield "revoke_signing_key", ("key-id",)


def code_of(response: Any) -> MomentoErrorCode | None:
    """The error code of a response; None for one that is no error."""
    code: MomentoErrorCode | None = getattr(response, "error_code", None)
    return code


# Control calls


def test_caches(connect: Connect) -> None:
    async def scenario(server: MomentoServer) -> None:
        async with connect(server) as ask:
            assert isinstance(await ask("create_cache", "another"), CreateCache.Success)
            assert isinstance(await ask("create_cache", "another"), CreateCache.CacheAlreadyExists)
            listed = await ask("list_caches")
            assert isinstance(listed, ListCaches.Success)
            assert [cache.name for cache in listed.caches] == ["another", CACHE]
            assert isinstance(await ask("set", "another", "key", "value"), CacheSet.Success)
            assert isinstance(await ask("get", CACHE, "key"), CacheGet.Miss)
            assert isinstance(await ask("flush_cache", "another"), CacheFlush.Success)
            assert isinstance(await ask("get", "another", "key"), CacheGet.Miss)
            assert isinstance(await ask("delete_cache", "another"), DeleteCache.Success)
            for call in ("delete_cache", "flush_cache"):
                assert code_of(await ask(call, "another")) is MomentoErrorCode.NOT_FOUND_ERROR

    play(scenario)


def test_signing_keys_are_made_listed_and_revoked(connect: Connect) -> None:
    clock = ManualClock()

    async def scenario(server: MomentoServer) -> None:
        async with connect(server) as ask:
            before = datetime.now().astimezone().replace(microsecond=0, tzinfo=None)
            made = [await ask("create_signing_key", timedelta(minutes=minutes)) for minutes in (30, 60, 90)]
            first, second, third = made
            for minutes, key in zip((30, 60, 90), made, strict=True):
                assert isinstance(key, CreateSigningKey.Success)
                left = key.expires_at - before
                assert timedelta(minutes=minutes) <= left <= timedelta(minutes=minutes, seconds=BOUND)
                web_key = json.loads(key.key)
                assert (web_key["kid"], web_key["kty"]) == (key.key_id, "oct")
            assert len({json.loads(key.key)["k"] for key in made}) == 3
            listed = await ask("list_signing_keys")
            assert isinstance(listed, ListSigningKeys.Success)
            assert [(key.key_id, key.expires_at) for key in listed.signing_keys] == [
                (key.key_id, key.expires_at) for key in made
            ]
            assert isinstance(await ask("revoke_signing_key", second.key_id), RevokeSigningKey.Success)
            listed = await ask("list_signing_keys")
            assert [key.key_id for key in listed.signing_keys] == [first.key_id, third.key_id]
            clock.advance(30 * 60)
            listed = await ask("list_signing_keys")
            assert [key.key_id for key in listed.signing_keys] == [third.key_id]
            # A second time, and of what never was: there is nothing left to take back.
            assert isinstance(await ask("revoke_signing_key", second.key_id), RevokeSigningKey.Success)

    play(scenario, clock=clock)


# Every call


def test_a_cache_that_is_not_there(connect: Connect) -> None:
    async def scenario(server: MomentoServer) -> None:
        async with connect(server) as ask:
            answers = {call: code_of(await ask(call, *given)) for call, given in data_calls("unknown")}
            assert answers == dict.fromkeys(answers, MomentoErrorCode.NOT_FOUND_ERROR)
            assert len(answers) == 13

    play(scenario)


def test_a_key_that_is_not_let_in(connect: Connect) -> None:
    calls = [*data_calls(CACHE), *control_calls()]

    async def scenario(server: MomentoServer) -> None:
        for wrong in ("the-wrong-key", "", KEY.upper()):
            async with connect(server, key=wrong) as ask:
                answers = {call: code_of(await ask(call, *given)) for call, given in calls}
                assert answers == dict.fromkeys(answers, MomentoErrorCode.AUTHENTICATION_ERROR)
        assert server.store.names() == [CACHE]
        assert server.meter.total == Usage(calls=3 * len(calls), operations=0)
        async with connect(server, key=KEY) as ask:
            for call, given in data_calls(CACHE):
                assert code_of(await ask(call, *given)) is None, call

    play(scenario, api_keys=ApiKeys(frozenset({KEY})))


def test_a_key_expires_and_another_takes_its_place(connect: Connect) -> None:
    async def scenario(server: MomentoServer) -> None:
        async with connect(server, key="old") as old, connect(server, key="new") as new:
            assert isinstance(await old("set", CACHE, "key", "value"), CacheSet.Success)
            server.api_keys.only("new")
            assert code_of(await old("get", CACHE, "key")) is MomentoErrorCode.AUTHENTICATION_ERROR
            got = await new("get", CACHE, "key")
            assert isinstance(got, CacheGet.Hit)
            assert got.value_string == "value"
            server.api_keys.only()
            assert code_of(await new("get", CACHE, "key")) is MomentoErrorCode.AUTHENTICATION_ERROR

    play(scenario)


def test_an_answer_that_comes_too_late(connect: Connect) -> None:
    waited: list[float] = []

    async def never(seconds: float) -> None:
        waited.append(seconds)
        await asyncio.Event().wait()

    async def scenario(server: MomentoServer) -> None:
        hasty = Configurations.Laptop.v1().with_client_timeout(PATIENCE)
        async with connect(server, configuration=hasty) as ask:
            answers = {call: code_of(await ask(call, *given)) for call, given in data_calls(CACHE)}
            assert answers == dict.fromkeys(answers, MomentoErrorCode.TIMEOUT_ERROR)
        assert set(waited) == {0.25}
        assert server.store.stored_bytes == 0

    play(scenario, faults=Faults(sleep=never, latency=0.25))


def test_latency_comes_before_any_other_delay(connect: Connect) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    async def scenario(server: MomentoServer) -> None:
        async with connect(server) as ask:
            server.faults.delay("get", seconds=9)
            assert isinstance(await ask("set", CACHE, "key", "value"), CacheSet.Success)
            assert isinstance(await ask("get", CACHE, "key"), CacheGet.Hit)
            assert isinstance(await ask("list_caches"), ListCaches.Success)
            assert waited == [0.5, 0.5, 9, 0.5]

    play(scenario, faults=Faults(sleep=note, latency=0.5))


# Scalars


def test_scalars(connect: Connect) -> None:
    async def scenario(server: MomentoServer) -> None:
        async with connect(server) as ask:
            assert isinstance(await ask("get", CACHE, b"\xff\x00"), CacheGet.Miss)
            assert isinstance(await ask("set", CACHE, b"\xff\x00", b"\x00\xfe"), CacheSet.Success)
            got = await ask("get", CACHE, b"\xff\x00")
            assert isinstance(got, CacheGet.Hit)
            assert got.value_bytes == b"\x00\xfe"
            assert isinstance(await ask("set_if_not_exists", CACHE, "key", "first"), CacheSetIfNotExists.Stored)
            assert isinstance(await ask("set_if_not_exists", CACHE, "key", "second"), CacheSetIfNotExists.NotStored)
            got = await ask("get", CACHE, "key")
            assert isinstance(got, CacheGet.Hit)
            assert got.value_string == "first"
            for _ in range(2):
                assert isinstance(await ask("delete", CACHE, "key"), CacheDelete.Success)
                assert isinstance(await ask("get", CACHE, "key"), CacheGet.Miss)
            for amount, total in ((1, 1), (-43, -42)):
                response = await ask("increment", CACHE, "counter", amount)
                assert isinstance(response, CacheIncrement.Success)
                assert response.value == total

    play(scenario)


@pytest.mark.parametrize(
    ("call", "given"), [("set", ("value",)), ("set_if_not_exists", ("value",)), ("increment", (5,))]
)
def test_a_ttl_of_its_own_and_the_clients(connect: Connect, call: str, given: tuple[Any, ...]) -> None:
    clock = ManualClock()

    async def scenario(server: MomentoServer) -> None:
        async with connect(server, ttl=timedelta(seconds=5)) as ask:
            await ask(call, CACHE, "own", *given, ttl=timedelta(seconds=2))
            await ask(call, CACHE, "default", *given)
            for moved, alive in ((1.999, ["own", "default"]), (0.001, ["default"]), (3, [])):
                clock.advance(moved)
                found = [key for key in ("own", "default") if isinstance(await ask("get", CACHE, key), CacheGet.Hit)]
                assert found == alive
            refused = await ask(call, CACHE, "key", *given, ttl=timedelta(seconds=-1))
            assert code_of(refused) is MomentoErrorCode.INVALID_ARGUMENT_ERROR

    play(scenario, clock=clock)


class Stub:
    """The generated stub, for what the Python SDK has no call for."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = cacheclient_pb2_grpc.ScsStub(channel)  # type: ignore[no-untyped-call]

    async def __call__(self, rpc: str, request: Any) -> Any:
        return await getattr(self._stub, rpc)(request, metadata=(("cache", CACHE),), timeout=BOUND)


class Raw:
    """Calls of which nothing is known but their path."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    async def __call__(self, path: str) -> Any:
        return await self._channel.unary_unary(path)(b"", timeout=BOUND)


def play_stub(scenario: Callable[[MomentoServer, Stub], Awaitable[None]], **options: Any) -> None:
    async def connected(server: MomentoServer) -> None:
        async with grpc.aio.insecure_channel(server.address) as channel:
            await scenario(server, Stub(channel))

    play(connected, **options)


def set_if_hash(value: bytes, **condition: Any) -> Any:
    return pb._SetIfHashRequest(cache_key=b"key", cache_body=value, ttl_milliseconds=60_000, **condition)


def test_a_value_and_its_hash() -> None:
    async def scenario(server: MomentoServer, stub: Stub) -> None:
        asked = pb._GetWithHashRequest(cache_key=b"key")
        assert (await stub("GetWithHash", asked)).WhichOneof("result") == "missing"
        stored = await stub("SetIfHash", set_if_hash(b"value", unconditional=common_pb2.Unconditional()))
        found = (await stub("GetWithHash", asked)).found
        assert (found.value, found.hash) == (b"value", stored.stored.new_hash)
        assert found.hash
        server.store.cache(CACHE).set(b"key", b"other", 60_000)
        other = (await stub("GetWithHash", asked)).found
        assert (other.value, other.hash == found.hash) == (b"other", False)
        server.store.cache(CACHE).set(b"key", b"value", 60_000)
        assert (await stub("GetWithHash", asked)).found == found

    play_stub(scenario)


@pytest.mark.parametrize(
    ("condition", "on_absent", "on_same", "on_other"),
    [
        (
            lambda held: {"present_and_hash_equal": common_pb2.PresentAndHashEqual(hash_to_check=held)},
            False,
            True,
            False,
        ),
        (
            lambda held: {"present_and_not_hash_equal": common_pb2.PresentAndNotHashEqual(hash_to_check=held)},
            False,
            False,
            True,
        ),
        (lambda held: {"absent_or_hash_equal": common_pb2.AbsentOrHashEqual(hash_to_check=held)}, True, True, False),
        (
            lambda held: {"absent_or_not_hash_equal": common_pb2.AbsentOrNotHashEqual(hash_to_check=held)},
            True,
            False,
            True,
        ),
        (lambda _: {"unconditional": common_pb2.Unconditional()}, True, True, True),
    ],
    ids=["present and equal", "present and not equal", "absent or equal", "absent or not equal", "unconditional"],
)
def test_sets_that_hang_on_a_hash(
    condition: Callable[[bytes], dict[str, Any]], on_absent: bool, on_same: bool, on_other: bool
) -> None:
    async def scenario(server: MomentoServer, stub: Stub) -> None:
        cache = server.store.cache(CACHE)
        cache.set(b"key", b"held", 60_000)
        held = (await stub("GetWithHash", pb._GetWithHashRequest(cache_key=b"key"))).found.hash
        for before, stores in ((None, on_absent), (b"held", on_same), (b"other", on_other)):
            cache.delete(b"key")
            if before is not None:
                cache.set(b"key", before, 60_000)
            reply = await stub("SetIfHash", set_if_hash(b"new", **condition(held)))
            assert reply.WhichOneof("result") == ("stored" if stores else "not_stored")
            assert cache.get(b"key") == (b"new" if stores else before)
            if stores:
                now = (await stub("GetWithHash", pb._GetWithHashRequest(cache_key=b"key"))).found
                assert now.hash == reply.stored.new_hash

    play_stub(scenario)


def test_what_hashes_are_refused_and_cost() -> None:
    async def scenario(server: MomentoServer, stub: Stub) -> None:
        always = {"unconditional": common_pb2.Unconditional()}
        compared = {"present_and_hash_equal": common_pb2.PresentAndHashEqual(hash_to_check=b"x")}
        asked = pb._GetWithHashRequest(cache_key=b"key")
        for rpc, request, cost in (
            ("GetWithHash", asked, 1),
            ("SetIfHash", set_if_hash(b"x" * 1025, **always), 2),
            ("SetIfHash", set_if_hash(b"x" * 1025, **compared), 4),
            ("GetWithHash", asked, 2),
        ):
            server.meter.reset()
            await stub(rpc, request)
            assert server.meter.by_rpc == {rpc: Usage(calls=1, operations=cost)}
        server.store.cache(CACHE).delete(b"key")
        server.store.cache(CACHE).dictionary_set(b"key", [(b"f", b"v")], 60_000, refresh_ttl=True)
        for rpc, request, status in (
            ("GetWithHash", asked, grpc.StatusCode.FAILED_PRECONDITION),
            ("SetIfHash", set_if_hash(b"v", **compared), grpc.StatusCode.FAILED_PRECONDITION),
            ("SetIfHash", set_if_hash(b"v"), grpc.StatusCode.INVALID_ARGUMENT),
            ("SetIfHash", set_if_hash(b"x" * 2001, **always), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await stub(rpc, request)
            assert error.value.code() is status
        await stub("SetIfHash", set_if_hash(b"now a scalar", **always))
        assert server.store.cache(CACHE).get(b"key") == b"now a scalar"

    play_stub(scenario, limits=Limits(max_item_bytes=2000))


# Dictionaries


def test_dictionaries(connect: Connect) -> None:
    async def scenario(server: MomentoServer) -> None:
        async with connect(server) as ask:
            name = (CACHE, "dictionary")
            assert isinstance(await ask("dictionary_fetch", *name), CacheDictionaryFetch.Miss)
            assert isinstance(await ask("dictionary_get_field", *name, "a"), CacheDictionaryGetField.Miss)
            assert isinstance(await ask("dictionary_get_fields", *name, ["a"]), CacheDictionaryGetFields.Miss)
            stored = await ask("dictionary_set_fields", *name, {"a": "1", b"\xff": b"\x00"})
            assert isinstance(stored, CacheDictionarySetFields.Success)
            assert isinstance(await ask("dictionary_set_field", *name, "b", "2"), CacheDictionarySetField.Success)
            some = await ask("dictionary_get_fields", *name, ["b", "missing", "a"])
            assert isinstance(some, CacheDictionaryGetFields.Hit)
            assert [type(one) for one in some.responses] == [
                CacheDictionaryGetField.Hit,
                CacheDictionaryGetField.Miss,
                CacheDictionaryGetField.Hit,
            ]
            assert some.value_dictionary_string_string == {"b": "2", "a": "1"}
            for amount, total in ((0, 0), (7, 7), (-9, -2)):
                added = await ask("dictionary_increment", *name, "n", amount)
                assert isinstance(added, CacheDictionaryIncrement.Success)
                assert added.value == total
            one = await ask("dictionary_remove_field", *name, b"\xff")
            assert isinstance(one, CacheDictionaryRemoveField.Success)
            fetched = await ask("dictionary_fetch", *name)
            assert isinstance(fetched, CacheDictionaryFetch.Hit)
            assert fetched.value_dictionary_string_string == {"a": "1", "b": "2", "n": "-2"}
            rest = await ask("dictionary_remove_fields", *name, ["a", "b", "n", "missing"])
            assert isinstance(rest, CacheDictionaryRemoveFields.Success)
            assert isinstance(await ask("dictionary_fetch", *name), CacheDictionaryFetch.Miss)

    play(scenario)


@pytest.mark.parametrize(
    ("call", "given"),
    [
        ("dictionary_set_field", ("field", "1")),
        ("dictionary_set_fields", ({"field": "1"},)),
        ("dictionary_increment", ("field", 1)),
    ],
)
@pytest.mark.parametrize("refresh", [True, False])
def test_whether_a_write_renews_a_dictionary(
    connect: Connect, call: str, given: tuple[Any, ...], refresh: bool
) -> None:
    clock = ManualClock()

    async def scenario(server: MomentoServer) -> None:
        async with connect(server, ttl=timedelta(seconds=4)) as ask:
            for ttl in (CollectionTtl(timedelta(seconds=2), refresh), CollectionTtl(None, refresh)):
                seconds = 2 if ttl.ttl else 4
                await ask(call, CACHE, "dictionary", *given, ttl=ttl)
                clock.advance(seconds - 0.5)
                await ask(call, CACHE, "dictionary", *given, ttl=ttl)
                clock.advance(0.5)
                fetched = await ask("dictionary_fetch", CACHE, "dictionary")
                assert isinstance(fetched, CacheDictionaryFetch.Hit if refresh else CacheDictionaryFetch.Miss)
                clock.advance(seconds)
                assert isinstance(await ask("dictionary_fetch", CACHE, "dictionary"), CacheDictionaryFetch.Miss)

    play(scenario, clock=clock)


# What there is not


def test_collections_that_are_not_there_say_so(connect: Connect) -> None:
    async def scenario(server: MomentoServer) -> None:
        async with connect(server) as ask:
            for call, given in (
                ("list_fetch", ("name",)),
                ("list_push_back", ("name", "value")),
                ("set_fetch", ("name",)),
                ("set_add_element", ("name", "value")),
                ("sorted_set_fetch_by_rank", ("name",)),
                ("sorted_set_put_element", ("name", "value", 1.0)),
            ):
                response = await ask(call, CACHE, *given)
                assert code_of(response) is MomentoErrorCode.BAD_REQUEST_ERROR, call
                assert "is not implemented by the embedded Momento server" in response.inner_exception.message
        assert (server.meter.calls, server.meter.operations, server.store.stored_bytes) == (6, 0, 0)

    play(scenario)


def test_services_that_are_not_there_say_so() -> None:
    async def scenario(server: MomentoServer) -> None:
        credentials = CredentialProvider.for_momento_local(server.host, server.port)
        async with TopicClientAsync(TopicConfigurations.Default.v1(), credentials) as client:
            published = await client.publish(CACHE, "topic", "message")
            assert isinstance(published, TopicPublish.Error)
            assert "Publish is not implemented by the embedded" in published.inner_exception.message
            subscribed = await client.subscribe(CACHE, "topic")
            assert isinstance(subscribed, TopicSubscribe.Error)
        async with grpc.aio.insecure_channel(server.address) as channel:
            for path in ("/leaderboard.Leaderboard/GetByRank", "/cache_client.Scs/Unheard", "/odd/"):
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await Raw(channel)(path)
                assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
                assert str(error.value.details()).startswith(path.rpartition("/")[2])

    play(scenario)


# The limits of messages


def test_a_request_limit_over_the_usual_one_is_kept() -> None:
    generous = Limits(max_request_bytes=20_000_000, max_item_bytes=8_000_000)

    async def scenario(server: MomentoServer) -> None:
        options = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
        async with grpc.aio.insecure_channel(server.address, options=options) as channel:
            stub = Stub(channel)
            kept = pb._SetRequest(cache_key=b"key", cache_body=b"x" * 8_000_000, ttl_milliseconds=60_000)
            assert (await stub("Set", kept)).result == pb.Ok
            assert len((await stub("Get", pb._GetRequest(cache_key=b"key"))).cache_body) == 8_000_000

    play(scenario, limits=generous)
