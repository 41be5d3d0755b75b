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
        puts: How many items were put into each table.
    """

    def __init__(self, behind: str) -> None:
        super().__init__()
        self._behind = behind
        self.puts: Counter[str] = Counter()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        asked = orjson.loads(body)
        if not str(asked.get("TableName", "")).startswith("state-"):
            for table, writes in asked.get("RequestItems", {}).items():
                self.puts[table] += len(writes)
            return await super()._answer(request)
        headers = {name: request.headers[name] for name in ("Content-Type", "X-Amz-Target", "Authorization")}
        async with aiohttp.ClientSession() as session, session.post(self._behind, data=body, headers=headers) as found:
            return web.Response(status=found.status, body=await found.read(), content_type="application/x-amz-json-1.0")
