"""A DynamoDB that keeps what it is sent, on loopback: for what moto would take minutes to read back.

Besides what the responder knows: BatchWriteItem with puts, BatchGetItem, and Scan page by page, of any table but for
its key's types. Like DynamoDB it reads at most so many bytes at once, and leaves the rest unprocessed.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from tests.integration.responder import Responder

__all__ = ["Keeper"]

_ANSWER_BYTES = 16_000_000
_PAGE_ITEMS = 5000

Item = dict[str, dict[str, Any]]


class Keeper(Responder):
    """Serves from a thread of its own while its context lasts.

    Attributes:
        kept: The items of each table, by what ``place_of`` makes of their keys.
        throttles: Whether every batch of writes is throttled.
        overwrite: An item that somebody else puts over the one with its key whenever that has been put; None for none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, dict[bytes, Item]] = {}
        self.throttles = False
        self.overwrite: Item | None = None
        self._scanned: dict[str, list[bytes]] = {}

    def reply(self, action: str, body: bytes) -> web.Response:
        """Answer a call."""
        request = orjson.loads(body)
        match action:
            case "BatchWriteItem" if {*request["RequestItems"]} - {*self._tables}:
                return _json({"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException"}, 400)
            case "BatchWriteItem" if self.throttles:
                return _json({"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException"}, 400)
            case "BatchWriteItem":
                for table, writes in request["RequestItems"].items():
                    kept = self.kept.setdefault(table, {})
                    for write in writes:
                        item = write["PutRequest"]["Item"]
                        kept[self.place_of(table, item)] = item
                    if self.overwrite is not None and (place := self.place_of(table, self.overwrite)) in kept:
                        kept[place] = self.overwrite
            case "BatchGetItem":
                ((table, wanted),) = request["RequestItems"].items()
                assert wanted["ConsistentRead"] is True
                return _json(self._get(table, wanted["Keys"]))
            case "Scan" if request["TableName"] in self.kept:
                assert request["ConsistentRead"] is True
                return _json(self._scan(request))
        return super().reply(action, body)

    def drop(self, table: str) -> None:
        """Delete a table."""
        del self._tables[table]
        self.kept.pop(table, None)

    def place_of(self, table: str, item: Mapping[str, Any]) -> bytes:
        """Tell an item by its key, as it is spelled."""
        schema = self._tables[table]["KeySchema"]
        return orjson.dumps([item[part["AttributeName"]] for part in schema])

    def _get(self, table: str, keys: list[Item]) -> dict[str, Any]:
        assert 1 <= len(keys) <= 100
        kept = self.kept.get(table, {})
        found: list[Item] = []
        size = 0
        for place, key in enumerate(keys):
            item = kept.get(self.place_of(table, key))
            if item is None:
                continue
            size += len(orjson.dumps(item))
            if found and size > _ANSWER_BYTES:
                return {"Responses": {table: found}, "UnprocessedKeys": {table: {"Keys": keys[place:]}}}
            found.append(item)
        return {"Responses": {table: found}, "UnprocessedKeys": {}}

    def _scan(self, request: dict[str, Any]) -> dict[str, Any]:
        table = request["TableName"]
        names = [part["AttributeName"] for part in self._tables[table]["KeySchema"]]
        last = request.get("ExclusiveStartKey")
        if last is None:
            self._scanned[table] = sorted(self.kept[table])
        places = self._scanned[table]
        start = 0 if last is None else bisect(places, self.place_of(table, last))
        page = [self.kept[table][place] for place in places[start : start + _PAGE_ITEMS]]
        answer: dict[str, Any] = {"Items": [{name: item[name] for name in names} for item in page]}
        if start + _PAGE_ITEMS < len(places):
            answer["LastEvaluatedKey"] = answer["Items"][-1]
        return answer


def _json(answer: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(answer), status=status, headers={"Content-Type": "application/x-amz-json-1.0"}
    )
