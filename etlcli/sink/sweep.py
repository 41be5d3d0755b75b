"""Looks for a job's stale items, spares some, and removes the others: what mode ``replace`` asks of the sink.

Scan, UpdateItem and DeleteItem, as the API reference has them. A scan reads the whole table, filter or not. It is made
twice, once to count and once to remove, so that nothing is removed before it is known how much would be, and memory
does not grow with what is stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from etlcli.errors import leading
from etlcli.model import ItemMark, Key, Survey
from etlcli.sink.asking import Asker

if TYPE_CHECKING:
    from etlcli.progress import Counters
    from etlcli.retry import RetryPolicy
    from etlcli.sink.post import Poster
    from etlcli.sink.translate import Place
    from etlcli.sink.write_cap import WriteCap

__all__ = ["ACTIONS", "Sweeper"]

T = TypeVar("T")

_SCAN, _UPDATE, _DELETE = "Scan", "UpdateItem", "DeleteItem"

ACTIONS = (_SCAN, _UPDATE, _DELETE)
"""The API's names of what the sweeper asks for."""

_CONDITION_FAILED = "ConditionalCheckFailedException"
# What it says of a key that it could not hold: there is no such item then.
_NO_SUCH_KEY = "ValidationException"

# A mark of another type than S neither begins with a text nor is less than one: what is not ours is never met.
_IS_THE_JOBS = "begins_with(#mark, :prefix)"
_IS_STALE = f"{_IS_THE_JOBS} AND #mark < :value"


class Sweeper:
    """Counts, spares and removes items of one table.

    Args:
        posters: What posts each of ``ACTIONS``.
        place: The table, and where it is.
        counters: Kept up to date: items_deleted, throttles, retries, requests_in_flight.
        retry: The patience with each request.
        max_in_flight: At most so many requests at once.
        scan_items: At most so many items are looked at in one page of a scan; None for DynamoDB's bound, 1 MB.
        cap: The bound on writes in a second; None for none.
    """

    def __init__(
        self,
        posters: Mapping[str, Poster],
        place: Place,
        counters: Counters,
        retry: RetryPolicy,
        max_in_flight: int,
        scan_items: int | None = None,
        cap: WriteCap | None = None,
    ) -> None:
        self._counters = counters
        # More than those of a quarter of a second would only wait for each other, and lose their patience over it.
        self._max_in_flight = max_in_flight if cap is None else min(max_in_flight, cap.most)
        self._scan_items = scan_items
        self._scan = Asker(posters[_SCAN], _SCAN, place, counters, retry, member="Items")
        self._update = Asker(
            posters[_UPDATE], _UPDATE, place, counters, retry, refusals={_CONDITION_FAILED, _NO_SUCH_KEY}, cap=cap
        )
        self._delete = Asker(posters[_DELETE], _DELETE, place, counters, retry, refusals={_CONDITION_FAILED}, cap=cap)

    async def survey(self, mark: ItemMark) -> Survey:
        """Count the job's items, and those that an earlier run wrote.

        Raises:
            SinkError: Not allowed, or the table is gone.
        """
        items = stale = 0
        async with aclosing(self._pages(_IS_THE_JOBS, mark)) as pages:
            async for page in pages:
                items += len(page)
                stale += sum(item[mark.attribute]["S"] < mark.value for item in page)
        return Survey(items, stale)

    async def spare(self, keys: Sequence[bytes], mark: ItemMark) -> int:
        """Give the job's items under these keys this run's mark.

        Returns:
            How many items it was given to.

        Raises:
            SinkError: Not allowed, or the table is gone.
        """
        return await self._each([orjson.loads(key) for key in keys], lambda key: self._spare(key, mark))

    async def sweep(self, mark: ItemMark, key: Key) -> int:
        """Remove the job's items that an earlier run wrote, each only if its mark is still the one that was seen.

        Args:
            mark: This run's mark.
            key: The table's key.

        Returns:
            How many were removed.

        Raises:
            SinkError: Not allowed, or the table is gone.
        """
        removed = 0
        names = [attribute.name for attribute in key.attributes]
        async with aclosing(self._pages(_IS_STALE, mark, names)) as pages:
            async for page in pages:
                removed += await self._each(page, lambda item: self._remove(item, mark, names))
        return removed

    async def _pages(
        self, condition: str, mark: ItemMark, also: Sequence[str] = ()
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Scan the table for items: their mark, and these attributes. Of a large table most pages may be empty."""
        more = {f"#more{place}": name for place, name in enumerate(also)}
        request: dict[str, Any] = {
            # So that what this run wrote a moment ago is not taken for what an earlier one left.
            "ConsistentRead": True,
            "FilterExpression": condition,
            "ProjectionExpression": ", ".join(["#mark", *more]),
            **_expressed(condition, mark, more),
        }
        if self._scan_items is not None:
            request["Limit"] = self._scan_items
        while True:
            answer = await self._scan.ask(request)
            assert answer is not None, "a scan has no condition that could fail"
            yield answer["Items"]
            if not answer.get("LastEvaluatedKey"):
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def _spare(self, key: dict[str, Any], mark: ItemMark) -> bool:
        request = {
            "Key": key,
            "UpdateExpression": "SET #mark = :value",
            "ConditionExpression": _IS_STALE,
            **_expressed(_IS_STALE, mark),
        }
        return await self._update.ask(request) is not None

    async def _remove(self, item: dict[str, Any], mark: ItemMark, names: Sequence[str]) -> bool:
        request = {
            "Key": {name: item[name] for name in names},
            "ConditionExpression": "#mark = :seen",
            "ExpressionAttributeNames": {"#mark": mark.attribute},
            "ExpressionAttributeValues": {":seen": item[mark.attribute]},
        }
        # Where the condition fails, somebody has written or removed the item meanwhile, and it is theirs now.
        removed = await self._delete.ask(request) is not None
        self._counters.items_deleted += removed
        return removed

    async def _each(self, things: Sequence[T], do: Callable[[T], Awaitable[bool]]) -> int:
        """Do something to each of many things, some at once; answer for how many it did what it is for."""
        todo = iter(things)  # shared by the workers: each takes the next

        async def work() -> int:
            return sum([await do(thing) for thing in todo])

        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(work()) for _ in range(min(self._max_in_flight, len(things)))]
        except BaseExceptionGroup as errors:
            error = leading(errors)
            raise error from error.__cause__
        return sum(worker.result() for worker in workers)


def _expressed(condition: str, mark: ItemMark, names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Say what the names and values in a condition stand for; DynamoDB refuses one too many."""
    values = {":prefix": {"S": mark.prefix}, ":value": {"S": mark.value}}
    return {
        "ExpressionAttributeNames": {"#mark": mark.attribute, **(names or {})},
        "ExpressionAttributeValues": {name: value for name, value in values.items() if name in condition},
    }
