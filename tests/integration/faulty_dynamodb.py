"""A DynamoDB that misbehaves at a seeded rate: it stands before a real one and hands the good calls on.

It serves from a thread of its own, so that clients may be asynchronous, blocking, or another process, and keeps account
of every put that the server behind it has carried out, and of those that nobody was told of.
"""

from __future__ import annotations

import asyncio
import random
import threading
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, get_args

import aiohttp
import orjson
from aiohttp import web

__all__ = ["KINDS", "FaultyDynamoDB", "Kind"]

Kind: TypeAlias = Literal[
    "throttle", "unprocessed", "error", "foreign", "cut", "stall", "lost", "lost_error", "truncated", "damaged"
]
"""What befalls a call.

``throttle``: it is refused, with reasons. ``unprocessed``: some items of a batch are handed on, the others are
unprocessed; any other call is throttled. ``error``: DynamoDB fails. ``foreign``: something else answers. ``cut``: the
connection ends. ``stall``: nothing comes for some time, then it ends.

Or it is handed on, and ``lost``: the connection ends. ``lost_error``: the answer is that DynamoDB failed.
``truncated``: half of the answer comes. ``damaged``: a bit of it is flipped, which its checksum tells.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)

_THROTTLES = ("ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded")
_REASONS = (
    "TableWriteKeyRangeThroughputExceeded",
    "TableWriteAccountLimitExceeded",
    "TableWriteMaxOnDemandThroughputExceeded",
    "TableWriteProvisionedThroughputExceeded",
    "IndexWriteProvisionedThroughputExceeded",
)
_ERRORS = ((500, "InternalServerError"), (503, "ServiceUnavailable"))
_PAGE = b"<html><head><title>Bad Gateway</title></head><body>nginx</body></html>"
_FOREIGN = (
    (502, _PAGE),
    (503, b""),
    (504, _PAGE),
    (200, _PAGE),
    (200, b""),
    (200, b'{"UnprocessedIt'),
    (400, b""),
    (400, b'{"__type":"com.amazonaws.dynam'),
)
_NOT_HANDED_ON = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass(frozen=True)
class _Schedule:
    rate: float = 0.0
    seed: int = 0
    kinds: tuple[Kind, ...] = KINDS
    actions: frozenset[str] | None = None
    stall_seconds: float = 0.0


class FaultyDynamoDB:
    """Serves while its context lasts; until ``faults`` is called it only hands on.

    Args:
        target: The URL of the server behind it.

    Attributes:
        target: The same.
        url: Where it is.
        calls: How many calls have come, by action.
        made: How many faults were made, by kind.
        puts: How often each item was put on the server behind by a batch: by table, and by the values of its key with
            slashes between them.
        unheard: How many of these puts nobody was told of.
        signed: How many calls were signed with each access key.
        expired: The access keys whose credentials have expired, for tests to add to.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._schedule = _Schedule()
        self._keys: dict[str, list[str]] = {}
        self.url = ""
        self.calls: Counter[str] = Counter()
        self.made: Counter[Kind] = Counter()
        self.puts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.unheard: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.signed: Counter[str] = Counter()
        self.expired: set[str] = set()
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def faults(
        self,
        rate: float,
        seed: int = 0,
        *,
        kinds: Collection[Kind] = KINDS,
        actions: Collection[str] | None = None,
        stall_seconds: float = 0.3,
    ) -> None:
        """Let a share of all calls from now on meet a fault. What call number N meets depends on seed and N alone.

        Args:
            rate: How many of them, from 0 to 1.
            seed: What is drawn by.
            kinds: The faults to draw from.
            actions: The API's names of the calls that can meet one; None for all.
            stall_seconds: For how long a stalled call hears nothing.
        """
        chosen = None if actions is None else frozenset(actions)
        self._schedule = _Schedule(rate, seed, tuple(kinds), chosen, stall_seconds)

    def wait_for(self, action: str, calls: int, seconds: float = 60.0) -> None:
        """Wait until so many calls of an action have come."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: self.calls[action] >= calls, seconds)
        assert arrived, f"only {self.calls[action]} calls of {action} have come"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30), "the faulty DynamoDB does not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive(), "the faulty DynamoDB does not end"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        application = web.Application(client_max_size=2**25)
        application.router.add_post("/", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        async with aiohttp.ClientSession(auto_decompress=False) as self._behind:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        action = request.headers["X-Amz-Target"].partition(".")[2]
        access_key = request.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        body = await request.read()
        with self._changed:
            number = self.calls.total()
            self.calls[action] += 1
            self.signed[access_key] += 1
            self._changed.notify_all()
        if access_key in self.expired:
            return _refusal(400, "ExpiredTokenException")
        schedule = self._schedule
        chance = random.Random(f"{schedule.seed}/{number}")
        if chance.random() >= schedule.rate or (schedule.actions is not None and action not in schedule.actions):
            return _reply(*await self._hand_on(request, action, body, heard=True))
        kind = chance.choice(schedule.kinds)
        self.made[kind] += 1
        match kind:
            case "unprocessed" if action in {"BatchWriteItem", "BatchGetItem"}:
                return await self._some(request, action, body, chance)
            case "throttle" | "unprocessed":
                return _throttle(orjson.loads(body), chance)
            case "error":
                status, code = chance.choice(_ERRORS)
                return _refusal(status, code)
            case "foreign":
                status, page = chance.choice(_FOREIGN)
                return web.Response(status=status, body=page, content_type="text/html")
            case "cut" | "stall":
                await asyncio.sleep(schedule.stall_seconds if kind == "stall" else 0.0)
                return _abort(request)
        status, answer = await self._hand_on(request, action, body, heard=False)
        if kind == "lost":
            return _abort(request)
        if kind == "lost_error":
            return _refusal(500, "InternalServerError")
        if kind == "truncated":
            return await _half(request, status, answer)
        place = chance.randrange(len(answer))
        damaged = answer[:place] + bytes([answer[place] ^ 1 << chance.randrange(8)]) + answer[place + 1 :]
        return _reply(status, damaged, checksum=zlib.crc32(answer))

    async def _some(self, request: web.Request, action: str, body: bytes, chance: random.Random) -> web.StreamResponse:
        """Hand on some of a batch's items, but not all, and say of the others that they are unprocessed."""
        asked = orjson.loads(body)
        ((table, listed),) = asked["RequestItems"].items()
        things = listed if action == "BatchWriteItem" else listed["Keys"]
        taken = sorted(chance.sample(range(len(things)), chance.randrange(len(things))))
        left = [thing for place, thing in enumerate(things) if place not in set(taken)]
        answer: dict[str, Any] = {"Responses": {table: []}} if action == "BatchGetItem" else {}
        if taken:
            some = [things[place] for place in taken]
            asked["RequestItems"][table] = some if action == "BatchWriteItem" else {**listed, "Keys": some}
            status, found = await self._hand_on(request, action, orjson.dumps(asked), heard=True)
            if status != 200:
                return _reply(status, found)
            answer = orjson.loads(found)
        # None of them was carried out unless it was handed on: what the server behind left is left, too.
        if action == "BatchWriteItem":
            answer["UnprocessedItems"] = {table: left + answer.get("UnprocessedItems", {}).get(table, [])}
        else:
            more = answer.get("UnprocessedKeys", {}).get(table, {}).get("Keys", [])
            answer["UnprocessedKeys"] = {table: {**listed, "Keys": left + more}}
        return _reply(200, orjson.dumps(answer))

    async def _hand_on(self, request: web.Request, action: str, body: bytes, *, heard: bool) -> tuple[int, bytes]:
        """Let the server behind carry out a call, and keep account of the puts."""
        status, answer = await self._ask(request, action, body)
        if action == "BatchWriteItem" and status == 200:
            ((table, writes),) = orjson.loads(body)["RequestItems"].items()
            if table not in self._keys:
                _, described = await self._ask(request, "DescribeTable", orjson.dumps({"TableName": table}))
                self._keys[table] = [it["AttributeName"] for it in orjson.loads(described)["Table"]["KeySchema"]]
            left = orjson.loads(answer).get("UnprocessedItems", {}).get(table, [])
            done = Counter(self._keys_of(table, writes)) - Counter(self._keys_of(table, left))
            self.puts[table].update(done)
            if not heard:
                self.unheard[table].update(done)
        return status, answer

    async def _ask(self, request: web.Request, action: str, body: bytes) -> tuple[int, bytes]:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _NOT_HANDED_ON}
        headers["X-Amz-Target"] = f"DynamoDB_20120810.{action}"
        async with self._behind.post(self.target, data=body, headers=headers) as response:
            return response.status, await response.read()

    def _keys_of(self, table: str, writes: Iterable[Mapping[str, Any]]) -> list[str]:
        items = [write["PutRequest"]["Item"] for write in writes]
        return ["/".join(next(iter(item[name].values())) for name in self._keys[table]) for item in items]


def _reply(status: int, body: bytes, checksum: int | None = None) -> web.Response:
    # DynamoDB's own answers all have their checksum.
    headers = {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Crc32": str(zlib.crc32(body) if checksum is None else checksum),
    }
    return web.Response(status=status, body=body, headers=headers)


def _refusal(status: int, code: str, **members: object) -> web.Response:
    document = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "so it is", **members}
    return _reply(status, orjson.dumps(document))


def _throttle(asked: Mapping[str, Any], chance: random.Random) -> web.Response:
    code, reason = chance.choice(_THROTTLES), chance.choice(_REASONS)
    table = asked.get("TableName") or next(iter(asked["RequestItems"]))
    index = "/index/by-title" if reason.startswith("Index") else ""
    resource = f"arn:aws:dynamodb:us-east-1:123456789012:table/{table}{index}"
    member = "throttlingReasons" if code == "ThrottlingException" else "ThrottlingReasons"
    return _refusal(400, code, **{member: [{"reason": reason, "resource": resource}]})


def _abort(request: web.Request) -> web.Response:
    if request.transport is not None:  # None where the client has given up already
        request.transport.abort()
    return web.Response()


async def _half(request: web.Request, status: int, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(status=status, headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    _abort(request)
    return response
