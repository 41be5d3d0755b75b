"""A DynamoDB that keeps items by itself, since moto would be slow, and hands on what concerns the state table."""

from __future__ import annotations

from collections import Counter

import aiohttp
import orjson
from aiohttp import web

from tests.integration.keeper import Keeper

__all__ = ["StatefulKeeper"]


class StatefulKeeper(Keeper):
    """Serves from a thread of its own while its context lasts.

    Args:
        behind: The URL of a DynamoDB with conditional writes, for tables whose names begin with ``state-``.

    Attributes:
        calls: How many calls have come, by action; behind ``state:`` those for the state that were answered.
        puts: How many items were put into each table.
        puts_by: How many were, with each access key.
    """

    def __init__(self, behind: str) -> None:
        super().__init__()
        self._behind = behind
        self.puts: Counter[str] = Counter()
        self.puts_by: Counter[str] = Counter()

    async def _answer(self, request: web.Request) -> web.Response:
        action = request.headers["X-Amz-Target"].partition(".")[2]
        body = await request.read()
        asked = orjson.loads(body)
        if not str(asked.get("TableName", "")).startswith("state-"):
            if action == "BatchWriteItem":
                ((table, writes),) = asked["RequestItems"].items()
                access_key = request.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
                self.puts[table] += len(writes)
                self.puts_by[access_key] += len(writes)
            return await super()._answer(request)
        headers = {name: request.headers[name] for name in ("Content-Type", "X-Amz-Target", "Authorization")}
        async with aiohttp.ClientSession() as session, session.post(self._behind, data=body, headers=headers) as found:
            answer = await found.read()
        with self._changed:
            self.calls[f"state:{action}"] += 1
            self._changed.notify_all()
        return web.Response(status=found.status, body=answer, content_type="application/x-amz-json-1.0")
