"""A DynamoDB that answers and forgets, on loopback: for what moto would be too slow or too obliging for.

It knows CreateTable, DescribeTable and BatchWriteItem, of the state table as much as a run needs of one that stays
empty, and reads back nothing. It counts what it is sent, and can be told to hold answers back or to refuse.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

from aiohttp import web

__all__ = ["Responder"]

_PUT = b'"PutRequest"'
_EMPTY: dict[str, dict[str, Any]] = {
    "BatchGetItem": {"Responses": {}, "UnprocessedKeys": {}},
    "DeleteItem": {},
    "DescribeTimeToLive": {},
    "GetItem": {},
    "PutItem": {},
    "Query": {"Items": []},
    "Scan": {"Items": []},
    "UpdateItem": {},
    "UpdateTimeToLive": {},
}


class Responder:
    """Serves from a thread of its own while its context lasts.

    Args:
        deny: Actions that this user may not call; with a table's name behind a colon, not on this table.
        hold_after: Actions of which only so many calls are answered before ``release``.
    """

    def __init__(self, *, deny: Collection[str] = (), **hold_after: int) -> None:
        self.deny = deny
        self.url = ""
        self.items = 0
        self.calls: Counter[str] = Counter()
        self.last: dict[str, bytes] = {}
        self._hold_after: dict[str, int] = hold_after
        self._tables: dict[str, dict[str, Any]] = {}
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30), "the responder does not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)

    def release(self) -> None:
        """Answer all that is held, and hold nothing any more."""
        self._loop.call_soon_threadsafe(self._released.set)

    def hold(self, **after: int) -> None:
        """From now on answer only so many more calls of each of these actions before the next ``release``."""

        async def change() -> None:
            self._released.clear()
            self._hold_after = {action: self.calls[action] + more for action, more in after.items()}

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(30)

    def wait_for(self, action: str, calls: int, seconds: float = 60.0) -> None:
        """Wait until so many calls have arrived, held ones included."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: self.calls[action] >= calls, seconds)
        assert arrived, f"only {self.calls[action]} calls of {action} have arrived"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._released = asyncio.Event()
        self._stop = asyncio.Event()
        application = web.Application(client_max_size=2**25)
        application.router.add_post("/", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{port}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        action = request.headers["X-Amz-Target"].partition(".")[2]
        body = await request.read()
        with self._changed:
            self.calls[action] += 1
            self.last[action] = body
            number = self.calls[action]
            self._changed.notify_all()
        if number > self._hold_after.get(action, number):
            await self._released.wait()
        if self.deny and {action, f"{action}:{json.loads(body).get('TableName')}"} & {*self.deny}:
            denied = "com.amazon.coral.service#AccessDeniedException"
            return _json({"__type": denied, "Message": f"User: ada is not authorized to perform: {action}"}, 400)
        return self.reply(action, body)

    def reply(self, action: str, body: bytes) -> web.Response:
        """Answer a call that is neither held nor denied."""
        match action:
            case "BatchWriteItem":
                self.items += body.count(_PUT)
                return _json({"UnprocessedItems": {}})
            case "CreateTable":
                table = {**json.loads(body), "TableId": f"made-{self.calls[action]}"}
                self._tables[table["TableName"]] = table
                return _json({"TableDescription": {**table, "TableStatus": "ACTIVE"}})
            case "DescribeTable":
                known = self._tables.get(json.loads(body)["TableName"])
                if known is None:
                    return _json({"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"}, 400)
                return _json({"Table": {**known, "TableStatus": "ACTIVE"}})
        if action in _EMPTY:
            return _json(_EMPTY[action])
        return _json({"__type": "com.amazon.coral.service#UnknownOperationException"}, 400)


def _json(answer: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(answer).encode(), status=status, headers={"Content-Type": "application/x-amz-json-1.0"}
    )
