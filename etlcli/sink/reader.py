"""Reads items back by their keys, and all keys of a table: what ``verify`` asks of the sink.

BatchGetItem and Scan, as the API reference has them, both with strong consistency, so that what a run wrote a moment
ago is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from etlcli.comparison import key_bytes
from etlcli.errors import Throttled, leading
from etlcli.sink.asking import Asker
from etlcli.throttling import Reason, count_throttle

if TYPE_CHECKING:
    from etlcli.model import ItemMark, Key
    from etlcli.ports import StoredItem
    from etlcli.progress import Counters
    from etlcli.retry import RetryPolicy
    from etlcli.sink.post import Poster
    from etlcli.sink.translate import Place

__all__ = ["ACTIONS", "BATCH_KEYS", "Reader"]

_GET, _SCAN = "BatchGetItem", "Scan"

ACTIONS = (_GET, _SCAN)
"""The API's names of what the reader asks for."""

BATCH_KEYS = 100
"""DynamoDB's limit on the keys of one BatchGetItem. What is over 16 MB of items it leaves unprocessed."""

# An answer may have 16 MB: more of them at once would fill a small machine's memory.
_IN_FLIGHT = 16


class Reader:
    """Reads one table.

    Args:
        posters: What posts each of ``ACTIONS``.
        place: The table, and where it is.
        counters: Kept up to date: read_units, throttles, retries, requests_in_flight.
        retry: The patience with a request that gets nowhere.
        scan_items: At most so many items are looked at in one page of a scan; None for DynamoDB's bound, 1 MB.
        clock: Seconds that never go back.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        posters: Mapping[str, Poster],
        place: Place,
        counters: Counters,
        retry: RetryPolicy,
        scan_items: int | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._place = place
        self._counters = counters
        self._retry = retry
        self._scan_items = scan_items
        self._clock = clock
        self._sleep = sleep
        self._gate = asyncio.Semaphore(_IN_FLIGHT)
        # A batch may be of several tables, and names each of its own.
        self._get = Asker(posters[_GET], _GET, place, counters, retry, member="Responses", names_table=False)
        self._scan = Asker(posters[_SCAN], _SCAN, place, counters, retry, member="Items")

    async def fetch(self, keys: Sequence[bytes]) -> list[StoredItem | None]:
        """Read the items under some keys.

        Returns:
            An item for each key, in the keys' order; None where there is none.

        Raises:
            SinkError: Not allowed, a key that the table cannot have, or the table is gone.
            Throttled: DynamoDB read nothing for as long as the policy is patient.
            Unavailable: Nothing usable was answered for as long.
        """
        if not keys:
            return []
        documents = list(map(orjson.loads, keys))
        names = list(documents[0])
        places = [key_bytes(document, names) for document in documents]
        # One key twice is an error to DynamoDB.
        wanted = list(dict(zip(places, documents, strict=True)).values())
        batches = [wanted[start : start + BATCH_KEYS] for start in range(0, len(wanted), BATCH_KEYS)]
        found: dict[bytes, StoredItem] = {}
        try:
            async with asyncio.TaskGroup() as group:
                for batch in batches:
                    group.create_task(self._batch(batch, names, found))
        except BaseExceptionGroup as errors:
            error = leading(errors)
            raise error from error.__cause__
        return [found.get(place) for place in places]

    async def keys(self, key: Key, mark: ItemMark | None) -> AsyncGenerator[list[StoredItem], None]:
        """Read the keys of all items, page by page; of a large table many pages may be empty.

        Args:
            key: The table's key.
            mark: The job whose items are wanted, by the mark of any of its runs; None for every item.

        Raises:
            SinkError: Not allowed, or the table is gone.
            Throttled: As in ``fetch``.
            Unavailable: As in ``fetch``.
        """
        names = {f"#key{place}": attribute.name for place, attribute in enumerate(key.attributes)}
        request: dict[str, Any] = {
            "ConsistentRead": True,
            "ReturnConsumedCapacity": "TOTAL",
            "ProjectionExpression": ", ".join(names),
            "ExpressionAttributeNames": names,
        }
        if mark is not None:
            request["FilterExpression"] = "begins_with(#mark, :prefix)"
            request["ExpressionAttributeNames"] = {**names, "#mark": mark.attribute}
            request["ExpressionAttributeValues"] = {":prefix": {"S": mark.prefix}}
        if self._scan_items is not None:
            request["Limit"] = self._scan_items
        while True:
            answer = await self._scan.ask(request)
            assert answer is not None, "a scan has no condition that could fail"
            self._count_units([answer.get("ConsumedCapacity")])
            yield answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _batch(self, batch: list[dict[str, Any]], names: Sequence[str], found: dict[bytes, StoredItem]) -> None:
        """Ask for some items, and then for what is left of them, until nothing is."""
        async with self._gate:
            attempt, since = 0, 0.0
            while True:
                answer = await self._get.ask(
                    {
                        "RequestItems": {self._place.table: {"Keys": batch, "ConsistentRead": True}},
                        "ReturnConsumedCapacity": "TOTAL",
                    }
                )
                assert answer is not None, "no refusal is expected"
                self._count_units(answer.get("ConsumedCapacity") or ())
                for item in answer["Responses"].get(self._place.table, ()):
                    found[key_bytes(item, names)] = item
                left = (answer.get("UnprocessedKeys") or {}).get(self._place.table, {}).get("Keys", [])
                if not left:
                    return
                got_somewhere = len(left) < len(batch)
                attempt = 1 if got_somewhere else attempt + 1
                since = self._clock() if attempt == 1 else since
                # The room is kept while waiting: the fewer requests go out, the sooner a throttle ends.
                await self._wait(attempt, since, got_somewhere=got_somewhere)
                batch = left

    async def _wait(self, attempt: int, since: float, *, got_somewhere: bool) -> None:
        """Wait before asking for unprocessed keys again.

        Raises:
            Throttled: There has been no progress for as long as the policy is patient.
        """
        pause = self._retry.wait(attempt)
        throttle = Throttled(
            f"DynamoDB throttles {_GET} on {self._place} (UnprocessedKeys: it reads none of what is asked for)",
            hint="Raise the table's read capacity, or verify some of the rows: --sample 1%",
            reasons=[Reason("UnprocessedKeys", self._place.table)],
        )
        if not got_somewhere and self._clock() + pause - since > self._retry.patience:
            raise throttle
        if got_somewhere:
            self._counters.retries += 1  # perhaps only 16 MB of them were read
        else:
            count_throttle(self._counters, throttle)
        await self._sleep(pause)

    def _count_units(self, consumed: Sequence[Mapping[str, Any] | None]) -> None:
        self._counters.read_units += sum(float(it.get("CapacityUnits", 0)) for it in consumed if it)
