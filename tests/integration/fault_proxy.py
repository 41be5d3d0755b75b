"""A TCP proxy that misbehaves as it is told: between a client and PostgreSQL, Momento or DynamoDB.

Faults are scripted for the connections to come, struck on those that there are, or drawn from a seeded schedule. It
serves from a thread of its own, so that clients may be asynchronous, blocking, or another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

from psycopg import conninfo

__all__ = ["Direction", "Fault", "FaultProxy", "Kind", "fault_proxy", "scheduled", "with_host_port"]

T = TypeVar("T")

Direction: TypeAlias = Literal["up", "down"]
"""``up`` is from the client to the server."""

Kind: TypeAlias = Literal["cut", "reset", "stall", "half_close", "delay", "corrupt", "slow"]

_PIECE_BYTES = 65536
_JOIN_SECONDS = 30.0


@dataclass(frozen=True)
class Fault:
    """What befalls a connection.

    Attributes:
        kind: ``cut``: both ends see an orderly end. ``reset``: both ends see a reset. ``stall``: nothing passes any
            more in this direction until ``release``. ``half_close``: who receives in this direction sees its end, and
            the other direction goes on. ``delay``: each piece comes later. ``corrupt``: one bit is flipped. ``slow``:
            so many bytes a second.
        direction: In which direction bytes are counted, and what the fault is about.
        after: It happens once so many bytes have passed; with ``corrupt``, to the byte that comes then.
        bit: Which bit of that byte.
        seconds: For how long ``delay`` holds each piece back.
        rate: Bytes a second.
    """

    kind: Kind
    direction: Direction = "down"
    after: int = 0
    bit: int = 0
    seconds: float = 0.0
    rate: float = 0.0


Plan: TypeAlias = Callable[[int], Sequence[Fault]]
"""The faults of a connection, by its number from 0."""


def scheduled(
    seed: int,
    share: float,
    kinds: Sequence[Kind] = ("cut", "reset"),
    within: int = 100_000,
    directions: Sequence[Direction] = ("up", "down"),
) -> Plan:
    """Draw faults for a share of all connections, always the same ones for a seed.

    Args:
        seed: What they depend on.
        share: How many of the connections meet one, from 0 to 1.
        kinds: One of these.
        within: After at most so many bytes.
        directions: In one of these.
    """

    def plan(number: int) -> list[Fault]:
        rng = random.Random(f"{seed}/{number}")
        if rng.random() >= share:
            return []
        return [Fault(rng.choice(kinds), rng.choice(directions), rng.randrange(within), rng.randrange(8))]

    return plan


class FaultProxy:
    """Listens on loopback, and passes on what it gets to one server.

    Attributes:
        port: Where it listens.
        counts: What happened: ``connections``, ``unreachable`` (the server was), and each fault by its kind.
        passed: Bytes that were passed on in each direction.
    """

    def __init__(self, host: str, port: int, plan: Plan | None = None) -> None:
        self._target = (host, port)
        self._plan = plan
        self._scripted: deque[Sequence[Fault]] = deque()
        self._connections: set[_Connection] = set()
        self._begun = 0
        self._released = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._changed = threading.Condition()
        self.port = 0
        self.counts: Counter[str] = Counter()
        self.passed: Counter[Direction] = Counter()

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin to listen, on a free port."""
        self._thread.start()
        self._do(self._listen())

    def close(self) -> None:
        """End all connections and the thread; nothing is left behind."""
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_SECONDS)
        assert not self._thread.is_alive(), "the proxy does not end"
        self._loop.close()

    # What to do to whom

    def script(self, *faults: Fault, connections: int = 1) -> None:
        """Let the next connections meet these faults, besides those of the plan."""
        self._scripted.extend([faults] * connections)

    def strike(self, fault: Fault) -> None:
        """Let all present connections meet a fault, ``after`` so many bytes from now."""
        self._do(self._strike(fault))

    def release(self) -> None:
        """Let go on what is stalled. What stalls later stalls again."""
        self._do(self._release())

    def refuse(self) -> None:
        """Let nobody connect; who is connected stays so."""
        self._do(self._deafen())

    def accept(self) -> None:
        """Let clients connect again."""
        self._do(self._listen())

    def wait_for(self, what: str, count: int = 1, seconds: float = 60.0) -> None:
        """Wait until something has happened so often."""
        with self._changed:
            came = self._changed.wait_for(lambda: self.counts[what] >= count, seconds)
        assert came, f"{what} happened {self.counts[what]} times, not {count}: {dict(self.counts)}"

    # In its own thread

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(_JOIN_SECONDS)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=_PIECE_BYTES)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _deafen(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _close(self) -> None:
        await self._deafen()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # closed transports say so in the loop's next round

    async def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _strike(self, fault: Fault) -> None:
        for connection in list(self._connections):
            connection.add(fault)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self._begun
        self._begun += 1
        faults = [*(self._plan(number) if self._plan else ()), *(self._scripted.popleft() if self._scripted else ())]
        try:
            upstream = await asyncio.open_connection(*self._target, limit=_PIECE_BYTES)
        except OSError:
            self.note("connections")
            self.note("unreachable")
            _reset(writer)
            return
        connection = _Connection(self, (reader, writer), upstream)
        self._connections.add(connection)
        try:
            for fault in faults:
                connection.add(fault)
            self.note("connections")  # not before: whoever waits for it may strike it
            await connection.run()
        except asyncio.CancelledError:
            pass  # by ``close`` alone; asyncio's streams complain aloud of one that ends so
        finally:
            self._connections.discard(connection)

    def note(self, what: str) -> None:
        """Count something that happened."""
        with self._changed:
            self.counts[what] += 1
            self._changed.notify_all()

    async def until_released(self) -> None:
        """Wait for the next ``release``."""
        await self._released.wait()


@dataclass
class _Way:
    """One direction of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    passed: int = 0
    pending: list[Fault] = field(default_factory=list)
    delay: float = 0.0
    rate: float = 0.0
    open: bool = True
    struck: asyncio.Event = field(default_factory=asyncio.Event)


class _Connection:
    """A client's connection, and the one to the server that belongs to it."""

    def __init__(
        self,
        proxy: FaultProxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._proxy = proxy
        self._writers = (client[1], server[1])
        self._ways: dict[Direction, _Way] = {"up": _Way(client[0], server[1]), "down": _Way(server[0], client[1])}

    def add(self, fault: Fault) -> None:
        """Plan a fault, after so many bytes from now."""
        way = self._ways[fault.direction]
        way.pending.append(replace(fault, after=way.passed + fault.after))
        way.pending.sort(key=lambda it: it.after)
        way.struck.set()

    async def run(self) -> None:
        """Pass on both ways until both have ended, or a fault ends them."""
        try:
            async with asyncio.TaskGroup() as group:
                for direction, way in self._ways.items():
                    group.create_task(self._pass_on(direction, way))
        except* (_Over, OSError):
            pass
        finally:
            for writer in self._writers:
                writer.close()

    async def _pass_on(self, direction: Direction, way: _Way) -> None:
        while True:
            data = bytearray(await self._read(way))
            await self._meet(way, data)
            if not data:
                break
            while data:
                # A fault in the middle of a piece parts it, so that it happens just after so many bytes.
                until = way.pending[0].after - way.passed if way.pending else len(data)
                await self._send(direction, way, bytes(data[:until]))
                del data[:until]
                await self._meet(way, data)
        if way.open:
            way.open = False
            way.writer.write_eof()

    async def _read(self, way: _Way) -> bytes:
        """Take the next piece, or meet the fault that is due before it comes; empty at the end."""
        while True:
            way.struck.clear()
            await self._meet(way, None)
            reading = asyncio.ensure_future(way.reader.read(_PIECE_BYTES))
            striking = asyncio.ensure_future(way.struck.wait())
            try:
                await asyncio.wait((reading, striking), return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    return reading.result()
            finally:
                striking.cancel()
                if not reading.done():
                    reading.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await reading

    async def _meet(self, way: _Way, data: bytearray | None) -> None:
        """Meet the faults that are due; ``data`` is what comes next, None before anything has come."""
        while way.pending and way.pending[0].after <= way.passed:
            fault = way.pending[0]
            if fault.kind == "corrupt":
                if not data:
                    return
                data[0] ^= 1 << fault.bit
            way.pending.pop(0)
            self._proxy.note(fault.kind)
            match fault.kind:
                case "cut":
                    raise _Over
                case "reset":
                    for writer in self._writers:
                        _reset(writer)
                    raise _Over
                case "stall":
                    await self._proxy.until_released()
                case "half_close":
                    way.open = False
                    way.writer.write_eof()
                case "delay":
                    way.delay = fault.seconds
                case "slow":
                    way.rate = fault.rate

    async def _send(self, direction: Direction, way: _Way, data: bytes) -> None:
        if way.delay:
            await asyncio.sleep(way.delay)
        # What comes after a half-close is taken and thrown away, as by a peer that does not look any more.
        if not way.open or not data:
            way.passed += len(data)
            return
        step = len(data) if not way.rate else max(1, int(way.rate / 50))
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            if way.rate:
                await asyncio.sleep(len(piece) / way.rate)
            # Counted first, so that whoever has received something finds it counted.
            way.passed += len(piece)
            self._proxy.passed[direction] += len(piece)
            way.writer.write(piece)
            await way.writer.drain()


class _Over(Exception):  # noqa: N818  not an error
    """The connection has met its end."""


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by a reset, whatever is still on its way."""
    connected: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextmanager
def fault_proxy(target: str, plan: Plan | None = None) -> Iterator[FaultProxy]:
    """Put a proxy in front of a server.

    Args:
        target: host:port, a URL, or a PostgreSQL connection string.
        plan: Faults by the connection's number.
    """
    proxy = FaultProxy(*_host_port(target), plan)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()


def with_host_port(target: str, proxy: FaultProxy) -> str:
    """The same address, by way of a proxy. PostgreSQL is not offered encryption, so that bytes can be reckoned."""
    if target.startswith("http"):
        return urlsplit(target)._replace(netloc=proxy.address).geturl()
    if "=" in target or target.startswith("postgres"):
        return conninfo.make_conninfo(
            target, host="127.0.0.1", port=proxy.port, sslmode="disable", gssencmode="disable"
        )
    return proxy.address


def _host_port(target: str) -> tuple[str, int]:
    if target.startswith("http"):
        parts = urlsplit(target)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port
    if "=" in target or target.startswith("postgres"):
        parameters = conninfo.conninfo_to_dict(target)
        return str(parameters["host"]), int(str(parameters.get("port", 5432)))
    host, _, port = target.rpartition(":")
    return host, int(port)
