"""The fault proxy itself, and what PostgreSQL's, Momento's and DynamoDB's clients make of what it does."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import boto3
import orjson
import pytest

from etlcli.cache.momento import MomentoCache
from etlcli.config.momento import MomentoAccess
from etlcli.errors import Unavailable
from etlcli.local.momento.server import MomentoServer, serve
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.dynamodb import DynamoDBSink
from etlcli.sink.settings import DynamoDBSettings
from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine
from tests.integration.fault_proxy import Direction, Fault, FaultProxy, Kind, fault_proxy, scheduled, with_host_port

BOUND = 60  # seconds after which a test is given up
DATA = random.Random(1).randbytes(300_000)
DIRECTIONS: tuple[Direction, ...] = ("up", "down")
SILENCE = (Fault("stall", "up"), Fault("stall", "down"))
QUICK = RetryPolicy(patience=30.0, base=0.01, ceiling=0.1)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(BOUND):
            await body()

    asyncio.run(bounded())


# The proxy itself


class Peer:
    """A server that sends all of its data once the client has ended, and keeps what it got."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = asyncio.Event()
        self.error: OSError | None = None
        self.sends = DATA

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                self.got += piece
            writer.write(self.sends)
            await writer.drain()
            writer.write_eof()
            await reader.read()
        except OSError as error:
            self.error = error
        finally:
            self.ended.set()
            writer.close()


@contextlib.asynccontextmanager
async def between(*faults: Fault) -> AsyncIterator[tuple[Peer, FaultProxy]]:
    peer = Peer()
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        with fault_proxy(f"{host}:{port}") as proxy:
            if faults:
                proxy.script(*faults)
            yield peer, proxy
    finally:
        server.close()


async def exchange(proxy: FaultProxy, sends: bytes = DATA) -> bytes:
    """Sends, ends, and reads to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        writer.write(sends)
        await writer.drain()
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


def test_without_faults_all_is_passed_on() -> None:
    async def body() -> None:
        async with between() as (peer, proxy):
            assert await exchange(proxy) == DATA
            assert peer.got == DATA
            assert proxy.passed == {"up": len(DATA), "down": len(DATA)}
            assert proxy.counts == {"connections": 1}

    run(body)


@pytest.mark.parametrize("after", [0, 1, 65_536, 123_457])
def test_a_cut_comes_after_so_many_bytes(after: int) -> None:
    async def body() -> None:
        async with between(Fault("cut", "down", after)) as (peer, proxy):
            received = await exchange(proxy) if after else await exchange(proxy, b"")
            assert received == DATA[:after]
            await peer.ended.wait()
            assert proxy.counts["cut"] == 1
        async with between(Fault("cut", "up", after)) as (peer, proxy):
            with contextlib.suppress(OSError):  # it was still sending
                assert await exchange(proxy) == b""
            await peer.ended.wait()
            assert peer.got == DATA[:after]

    run(body)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_reset_is_one_at_both_ends(direction: Direction) -> None:
    async def body() -> None:
        async with between(Fault("reset", direction, 100_000)) as (peer, proxy):
            peer.sends = DATA * 50  # more than is on its way at a time
            with pytest.raises(OSError, match=r"reset|not connected|Broken pipe|Connection lost"):
                await exchange(proxy)
            await peer.ended.wait()
            assert isinstance(peer.error, ConnectionError)

    run(body)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_stall_lasts_until_it_is_released(direction: Direction) -> None:
    async def body() -> None:
        async with between(Fault("stall", direction, 100_000)) as (peer, proxy):
            exchanging = asyncio.create_task(exchange(proxy))
            await asyncio.to_thread(proxy.wait_for, "stall")
            assert proxy.passed[direction] == 100_000
            assert not exchanging.done()
            proxy.release()
            assert await exchanging == DATA
            assert peer.got == DATA

    run(body)


def test_half_closed_downwards_the_client_can_still_send() -> None:
    async def body() -> None:
        async with between(Fault("half_close", "down")) as (peer, proxy):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            assert await reader.read() == b""
            writer.write(DATA)
            writer.write_eof()
            await peer.ended.wait()
            assert peer.got == DATA
            writer.close()

    run(body)


def test_half_closed_upwards_the_server_can_still_send() -> None:
    async def body() -> None:
        async with between(Fault("half_close", "up", 1000)) as (peer, proxy):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(DATA[:5000])
            assert await reader.read() == DATA
            assert peer.got == DATA[:1000]
            writer.close()

    run(body)


@pytest.mark.parametrize("bit", [0, 7])
@pytest.mark.parametrize("position", [0, 70_000])
def test_one_bit_is_flipped(position: int, bit: int) -> None:
    async def body() -> None:
        async with between(Fault("corrupt", "up", position, bit)) as (peer, proxy):
            assert await exchange(proxy) == DATA
            differing = {at: a ^ b for at, (a, b) in enumerate(zip(peer.got, DATA, strict=True)) if a != b}
            assert differing == {position: 1 << bit}

    run(body)


def test_bandwidth_and_delay_take_their_time() -> None:
    async def body() -> None:
        async with between(Fault("slow", "up", rate=1_000_000), Fault("delay", "down", seconds=0.2)) as (peer, proxy):
            started = time.monotonic()
            assert await exchange(proxy) == DATA
            # Never sooner; how much later is the machine's affair.
            assert time.monotonic() - started >= len(DATA) / 1_000_000 + 0.2
            assert peer.got == DATA

    run(body)


def test_who_is_refused_may_come_back() -> None:
    async def body() -> None:
        async with between() as (_, proxy):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            await asyncio.to_thread(proxy.wait_for, "connections")
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                await exchange(proxy)
            writer.write_eof()
            assert await reader.read() == DATA  # who was there stays
            writer.close()
            proxy.accept()
            assert await exchange(proxy) == DATA

    run(body)


def test_who_is_connected_can_be_struck() -> None:
    async def body() -> None:
        async with between() as (peer, proxy):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            writer.write(b"so far")
            await asyncio.to_thread(proxy.wait_for, "connections")
            proxy.strike(Fault("reset"))
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await peer.ended.wait()
            writer.close()

    run(body)


def test_a_server_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    with fault_proxy(f"{address[0]}:{address[1]}") as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as one:
        with pytest.raises(ConnectionResetError):
            one.recv(1)
        assert proxy.counts["unreachable"] == 1


def test_a_schedule_is_its_seeds() -> None:
    plan, again, other = scheduled(1, 0.2), scheduled(1, 0.2), scheduled(2, 0.2)
    drawn = [plan(number) for number in range(1000)]
    assert drawn == [again(number) for number in range(1000)]
    assert drawn != [other(number) for number in range(1000)]
    assert 150 < sum(map(bool, drawn)) < 250
    assert {fault.kind for faults in drawn for fault in faults} == {"cut", "reset"}


def test_nothing_is_left_of_it() -> None:
    async def body() -> None:
        before = threading.active_count()
        async with between(*SILENCE) as (peer, proxy):
            reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
            await asyncio.to_thread(proxy.wait_for, "stall", 2)
            proxy.close()
            assert await reader.read() == b""
            await peer.ended.wait()
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await exchange(proxy)
            proxy.close = lambda: None  # type: ignore[method-assign]  # closed already
        # The one for wait_for stays in the loop's pool.
        assert threading.active_count() <= before + 1

    run(body)


# PostgreSQL

ROWS = 4000


@pytest.fixture
def wide(schema: Schema) -> None:
    schema.execute(
        "create table wide (id integer primary key, t text);"
        f" insert into wide select n, repeat(md5(n::text), 30) from generate_series(1, {ROWS}) n"
    )


@pytest.fixture
def by_proxy(command_line: CommandLine) -> Iterator[tuple[CommandLine, FaultProxy]]:
    """Commands whose PostgreSQL is behind a proxy."""
    url = command_line.environment["DATABASE_URL"]
    with fault_proxy(url) as proxy:
        yield command_line.given(DATABASE_URL=with_host_port(url, proxy)), proxy


# A query's rows have no unique order: nobody could tell which of them were read.
AS_QUERY = ("--table", "wide", "--query", "select * from wide")


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("kind", ["cut", "reset", "half_close"])
def test_a_source_that_breaks_in_mid_read_is_gone_on_with(
    kind: Kind, by_proxy: tuple[CommandLine, FaultProxy], unique: str
) -> None:
    command, proxy = by_proxy
    proxy.script(Fault(kind, "down", 2_000_000))
    to = ("--table", "wide", "--cache", unique)
    summary = command("run", *to, "--destination", unique, "--output", "json").json
    assert proxy.counts[kind] == 1
    assert (summary["rows_extracted"], summary["rows_loaded"], summary["snapshots"]) == (ROWS, ROWS, 2)
    assert summary["retries"] > 0


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("kind", ["cut", "reset", "half_close"])
def test_a_source_that_breaks_in_mid_read(kind: Kind, by_proxy: tuple[CommandLine, FaultProxy], unique: str) -> None:
    command, proxy = by_proxy
    whole = command("extract", *AS_QUERY, "--cache", unique, "--output", "json").json
    assert whole["rows_extracted"] == ROWS
    proxy.script(Fault(kind, "down", 2_000_000))
    failed = command.fails("extract", *AS_QUERY, "--cache", unique, code=1)
    assert proxy.counts[kind] == 1
    assert "connection to PostgreSQL" in failed.json["error"]["message"]
    assert "while reading rows" in failed.json["error"]["message"]
    assert failed.json["rows_extracted"] < ROWS
    # What is loaded is still the whole one.
    loaded = command("load", "--table", "wide", "--cache", unique, "--destination", unique, "--output", "json").json
    assert (loaded["run_id"], loaded["rows_loaded"]) == (whole["run_id"], ROWS)


@pytest.mark.usefixtures("wide")
def test_of_half_an_extraction_there_is_nothing_to_load(by_proxy: tuple[CommandLine, FaultProxy], unique: str) -> None:
    command, proxy = by_proxy
    proxy.script(Fault("reset", "down", 2_000_000))
    command.fails("extract", *AS_QUERY, "--cache", unique, code=1)
    failed = command.fails("load", "--table", "wide", "--cache", unique, "--destination", unique, code=1)
    assert failed.json["rows_loaded"] == 0
    command("run", *AS_QUERY, "--cache", unique, "--destination", unique)


# Momento

CACHE = "movies"
VALUE = random.Random(2).randbytes(256 * 1024)


def with_momento(
    scenario: Callable[[MomentoCache, FaultProxy, MomentoServer, Counters], Awaitable[None]],
    retry: RetryPolicy = QUICK,
    call_seconds: float = 15.0,
) -> None:
    async def body() -> None:
        async with serve(port=0) as server:
            server.store.create(CACHE)
            with fault_proxy(f"127.0.0.1:{server.port}") as proxy:
                counters = Counters()
                access = MomentoAccess("local", local=proxy.address)
                async with MomentoCache(access, CACHE, counters, retry, call_seconds=call_seconds) as cache:
                    await scenario(cache, proxy, server, counters)

    run(body)


@pytest.mark.parametrize("kind", ["cut", "reset", "half_close"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_chunk_whose_connection_breaks_is_stored_again(direction: Direction, kind: Kind) -> None:
    async def scenario(cache: MomentoCache, proxy: FaultProxy, server: MomentoServer, counters: Counters) -> None:
        await cache.set("k", b"before", 600)
        # Upwards in the middle of the value; downwards in the answer, so that it was stored already.
        proxy.strike(Fault(kind, direction, 100_000 if direction == "up" else 5))
        await asyncio.gather(*(cache.set(f"k{number}", VALUE, 600) for number in range(4)))
        assert proxy.counts[kind] == 1
        assert proxy.counts["connections"] > 1
        for number in range(4):
            assert await cache.get(f"k{number}") == VALUE
        assert counters.momento_calls >= server.meter.calls

    with_momento(scenario)


def test_a_chunk_whose_connection_breaks_is_read_again() -> None:
    async def scenario(cache: MomentoCache, proxy: FaultProxy, _server: MomentoServer, counters: Counters) -> None:
        await cache.set("k", VALUE, 600)
        proxy.strike(Fault("reset", "down", 100_000))
        assert await cache.get("k") == VALUE
        assert counters.retries > 0

    with_momento(scenario)


def test_a_stalled_connection_is_given_up_for_a_new_one() -> None:
    async def scenario(cache: MomentoCache, proxy: FaultProxy, _server: MomentoServer, counters: Counters) -> None:
        await cache.set("k", b"before", 600)
        proxy.strike(Fault("stall", "up", 100_000))
        proxy.strike(Fault("stall", "down"))
        # Nobody releases it.
        await cache.set("k", VALUE, 600)
        assert await cache.get("k") == VALUE
        assert counters.retries > 0
        assert proxy.counts["connections"] > 1

    with_momento(scenario, call_seconds=1.0)


MOMENTO_CALLS: dict[str, Callable[[MomentoCache], Awaitable[Any]]] = {
    "ensure": lambda cache: cache.ensure(),
    "exists": lambda cache: cache.exists(),
    "get": lambda cache: cache.get("k"),
    "set": lambda cache: cache.set("k", VALUE, 600),
    "get_dictionary": lambda cache: cache.get_dictionary("k"),
    "set_dictionary": lambda cache: cache.set_dictionary("k", {"f": b"v"}, 600),
    "delete": lambda cache: cache.delete("k"),
}


@pytest.mark.parametrize("call", MOMENTO_CALLS)
def test_every_call_to_momento_has_a_deadline(call: str) -> None:
    async def scenario(cache: MomentoCache, proxy: FaultProxy, _server: MomentoServer, _counters: Counters) -> None:
        proxy.script(*SILENCE, connections=100)
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable):
                await MOMENTO_CALLS[call](cache)

    with_momento(scenario, RetryPolicy(patience=0.0), call_seconds=0.5)


# DynamoDB

COUNT = 400


@pytest.fixture
def dynamodb(stack: Stack) -> Iterator[Any]:
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield client
    client.close()


def items_of(dynamodb: Any, table: str) -> dict[str, str]:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return {item["id"]["N"]: item["t"]["S"] for page in pages for item in page["Items"]}


EXPECTED = {str(number): f"{number} " * 20 for number in range(COUNT)}
ITEMS = [orjson.dumps({"id": {"N": number}, "t": {"S": text}}) for number, text in EXPECTED.items()]


def load(url: str, table: str, counters: Counters, retry: RetryPolicy = QUICK, request_seconds: float = 20.0) -> None:
    settings = DynamoDBSettings(region="us-east-1", endpoint_url=url, access_key_id="test", secret_access_key="test")

    async def body() -> None:
        async with DynamoDBSink(settings, table, counters, retry, 4, request_seconds=request_seconds) as sink:
            assert await sink.put(ITEMS) == []

    run(body)


@pytest.fixture
def table(dynamodb: Any, unique: str) -> str:
    dynamodb.create_table(
        TableName=unique,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    return unique


@pytest.mark.parametrize(
    ("direction", "kind"),
    [
        ("up", "cut"),
        ("up", "reset"),
        ("up", "stall"),
        ("down", "cut"),
        ("down", "reset"),
        ("down", "half_close"),
        ("down", "stall"),
    ],
)
def test_requests_whose_connection_breaks_are_made_again(
    direction: Direction, kind: Kind, stack: Stack, dynamodb: Any, table: str
) -> None:
    counters = Counters()
    # Upwards in the middle of a request; downwards in the middle of an answer, so that it was carried out already.
    fault = Fault(kind, direction, 1500 if direction == "up" else 60)
    with fault_proxy(stack.dynamodb_url) as proxy:
        proxy.script(fault, connections=3)
        load(with_host_port(stack.dynamodb_url, proxy), table, counters, request_seconds=1.0)
        assert proxy.counts[kind] == 3
    assert items_of(dynamodb, table) == EXPECTED
    assert counters.rows_loaded == COUNT
    assert counters.retries > 0


@pytest.mark.parametrize("seed", range(4))
def test_answers_with_a_flipped_bit_lose_nothing(seed: int, stack: Stack, dynamodb: Any, table: str) -> None:
    counters = Counters()
    with fault_proxy(stack.dynamodb_url, scheduled(seed, 0.7, ("corrupt",), within=250, directions=("down",))) as proxy:
        load(with_host_port(stack.dynamodb_url, proxy), table, counters, request_seconds=1.0)
        assert proxy.counts["corrupt"] > 0
    assert items_of(dynamodb, table) == EXPECTED
    assert counters.rows_loaded == COUNT


def test_every_third_connection_breaks(stack: Stack, dynamodb: Any, table: str) -> None:
    counters = Counters()
    with fault_proxy(stack.dynamodb_url, scheduled(7, 0.33, ("cut", "reset", "stall"), within=4000)) as proxy:
        load(with_host_port(stack.dynamodb_url, proxy), table, counters, request_seconds=1.0)
    assert items_of(dynamodb, table) == EXPECTED
    assert counters.rows_loaded == COUNT


def test_a_refused_connection_is_tried_again(stack: Stack, dynamodb: Any, table: str) -> None:
    counters = Counters()
    with fault_proxy(stack.dynamodb_url) as proxy:

        class Telling(RetryPolicy):
            def wait(self, attempt: int) -> float:
                proxy.accept()
                return super().wait(attempt)

        proxy.refuse()
        load(with_host_port(stack.dynamodb_url, proxy), table, counters, Telling(30.0, 0.01, 0.1))
    assert items_of(dynamodb, table) == EXPECTED
    assert counters.retries > 0


def test_writes_to_dynamodb_have_a_deadline(stack: Stack, table: str) -> None:
    with fault_proxy(stack.dynamodb_url) as proxy:
        proxy.script(*SILENCE, connections=100)
        with pytest.raises(Unavailable):
            load(
                with_host_port(stack.dynamodb_url, proxy),
                table,
                Counters(),
                RetryPolicy(patience=0.0),
                request_seconds=0.3,
            )
