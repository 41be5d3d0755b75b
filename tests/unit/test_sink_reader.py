"""What ``verify`` asks of DynamoDB, against one that misbehaves by script."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import orjson
import pytest

from etlcli.errors import EtlError, SinkError, Throttled, Unavailable
from etlcli.model import ItemMark, Key, KeyAttribute
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.post import Answer, Poster
from etlcli.sink.reader import ACTIONS, BATCH_KEYS, Reader
from etlcli.sink.translate import Place

T = TypeVar("T")
Document = dict[str, Any]

PLACE = Place("movies", "http://127.0.0.1:1")
QUICK = RetryPolicy(patience=30.0, base=0.0001, ceiling=0.0002)
HASTY = RetryPolicy(patience=0.0, base=0.0001, ceiling=0.0002)
KEY = Key(KeyAttribute("id", "N"))
SIGNER: Any = object()


def refused(code: str, status: int = 400) -> Answer:
    body = orjson.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "so it is"})
    return Answer(status, body, SIGNER)


class Table:
    """Items by their number. Of a batch it answers at most ``most`` keys, the last ones, in an order of its own."""

    def __init__(self, numbers: range | list[int], *, most: int = BATCH_KEYS) -> None:
        self.items = {number: {"id": {"N": f"{number}"}, "title": {"S": f"Film {number}"}} for number in numbers}
        self.most = most
        self.faults: dict[str, deque[Answer | EtlError]] = {action: deque() for action in ACTIONS}
        self.requests: list[tuple[str, Document]] = []
        self.at_once = self.most_at_once = 0

    async def post(self, action: str, body: bytes) -> Answer:
        request = orjson.loads(body)
        self.requests.append((action, request))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.faults[action]:
            fault = self.faults[action].popleft()
            if isinstance(fault, EtlError):
                raise fault
            return fault
        return self.get(request) if action == "BatchGetItem" else self.scan(request)

    def get(self, request: Document) -> Answer:
        ((name, wanted),) = request["RequestItems"].items()
        assert wanted["ConsistentRead"] is True
        keys = wanted["Keys"]
        assert len(keys) <= 100
        assert len({key["id"]["N"] for key in keys}) == len(keys)
        done, left = keys[len(keys) - self.most :] if self.most < len(keys) else keys, keys[: -self.most]
        left = left if self.most < len(keys) else []
        if not self.most:
            done, left = [], keys
        found = [item for key in reversed(done) if (item := self.items.get(int(float(key["id"]["N"]))))]
        document: Document = {
            "Responses": {name: found},
            "UnprocessedKeys": {name: {"Keys": left, "ConsistentRead": True}} if left else {},
            "ConsumedCapacity": [{"TableName": name, "CapacityUnits": len(done)}],
        }
        return Answer(200, orjson.dumps(document), SIGNER)

    def scan(self, request: Document) -> Answer:
        numbers = sorted(self.items)
        start = request.get("ExclusiveStartKey")
        left = [number for number in numbers if start is None or number > int(start["id"]["N"])]
        page, more = left[:10], len(left) > 10
        document: Document = {
            "Items": [{"id": {"N": str(number)}} for number in page if number % 2 or "FilterExpression" not in request],
            "ConsumedCapacity": {"TableName": "movies", "CapacityUnits": 2.5},
        }
        if more:
            document["LastEvaluatedKey"] = {"id": {"N": str(page[-1])}}
        return Answer(200, orjson.dumps(document), SIGNER)


class StubPoster:
    def __init__(self, table: Table, action: str) -> None:
        self._table = table
        self._action = action

    async def post(self, body: bytes) -> Answer:
        return await self._table.post(self._action, body)

    async def renew(self, refused: object) -> None:
        pass


def use(
    table: Table,
    act: Callable[[Reader], Awaitable[T]],
    counters: Counters | None = None,
    retry: RetryPolicy = QUICK,
) -> T:
    counted = counters if counters is not None else Counters()

    async def main() -> T:
        posters = cast(dict[str, Poster], {action: StubPoster(table, action) for action in ACTIONS})
        try:
            return await act(Reader(posters, PLACE, counted, retry))
        finally:
            assert counted.requests_in_flight == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(main())


def fetch(*numbers: int | str) -> Callable[[Reader], Awaitable[list[Document | None]]]:
    keys = [orjson.dumps({"id": {"N": str(number)}}) for number in numbers]
    return lambda reader: reader.fetch(keys)


def keys_of(mark: ItemMark | None = None) -> Callable[[Reader], Awaitable[list[list[Document]]]]:
    async def act(reader: Reader) -> list[list[Document]]:
        return [page async for page in reader.keys(KEY, mark)]

    return act


def test_requests_are_what_the_api_asks_for() -> None:
    table = Table([1])
    use(table, fetch(1, 2))
    use(table, keys_of())
    use(table, keys_of(ItemMark("_mark", "job/", "job/2")))
    scan = {
        "TableName": "movies",
        "ConsistentRead": True,
        "ReturnConsumedCapacity": "TOTAL",
        "ProjectionExpression": "#key0",
        "ExpressionAttributeNames": {"#key0": "id"},
    }
    keys = [{"id": {"N": "1"}}, {"id": {"N": "2"}}]
    assert table.requests == [
        (
            "BatchGetItem",
            {
                "RequestItems": {"movies": {"Keys": keys, "ConsistentRead": True}},
                "ReturnConsumedCapacity": "TOTAL",
            },
        ),
        ("Scan", scan),
        (
            "Scan",
            {
                **scan,
                "FilterExpression": "begins_with(#mark, :prefix)",
                "ExpressionAttributeNames": {"#key0": "id", "#mark": "_mark"},
                "ExpressionAttributeValues": {":prefix": {"S": "job/"}},
            },
        ),
    ]


@pytest.mark.parametrize("count", [0, 1, 100, 101, 2345])
@pytest.mark.parametrize("most", [100, 99, 7, 1])
def test_each_key_gets_its_item_whatever_is_left_unprocessed(count: int, most: int) -> None:
    if count > 200 and most < 7:
        count = 200
    table, counters = Table(range(0, count, 2), most=most), Counters()
    found = use(table, fetch(*range(count)), counters)
    assert found == [table.items.get(number) for number in range(count)]
    assert counters.read_units == count
    assert counters.throttles == 0
    assert table.most_at_once <= 16


def test_keys_are_told_apart_by_value() -> None:
    table = Table([1, 2])
    assert use(table, fetch("1.0", 1, "1E0", 2, 3)) == [table.items[1]] * 3 + [table.items[2], None]
    ((_, request),) = table.requests
    assert len(request["RequestItems"]["movies"]["Keys"]) == 3


def test_keys_that_are_never_processed_are_a_throttle_in_the_end() -> None:
    table, counters = Table(range(5), most=0), Counters()
    clock = [0.0]

    async def act(reader: Reader) -> object:
        async def sleep(seconds: float) -> None:
            assert seconds >= 0
            clock[0] += 1.0
            await asyncio.sleep(0)

        reader._clock, reader._sleep = lambda: clock[0], sleep
        return await reader.fetch([orjson.dumps({"id": {"N": "1"}})])

    with pytest.raises(Throttled, match="reads none") as caught:
        use(table, act, counters)
    assert caught.value.hint
    assert 29 <= clock[0] <= 31
    assert counters.throttles == len(table.requests) - 1


def test_patience_begins_anew_with_every_item() -> None:
    table, counters = Table(range(40), most=1), Counters()
    clock = [0.0]

    async def act(reader: Reader) -> list[Document | None]:
        async def sleep(seconds: float) -> None:
            assert seconds >= 0
            clock[0] += 20.0
            table.most = 1 - table.most
            await asyncio.sleep(0)

        reader._clock, reader._sleep = lambda: clock[0], sleep
        return await reader.fetch([orjson.dumps({"id": {"N": str(number)}}) for number in range(40)])

    assert use(table, act, counters) == list(table.items.values())
    assert clock[0] > 300
    assert counters.throttles > 10


def test_all_pages_are_read() -> None:
    table, counters = Table(range(25)), Counters()
    pages = use(table, keys_of(), counters)
    assert [int(key["id"]["N"]) for page in pages for key in page] == list(range(25))
    assert counters.read_units == 7.5


def test_pages_without_a_single_item_are_not_the_end() -> None:
    table = Table([*range(0, 60, 2), 61])
    pages = use(table, keys_of(ItemMark("_mark", "job/", "job/2")))
    assert pages == [[], [], [], [{"id": {"N": "61"}}]]


FAULTS = [
    pytest.param(refused("ProvisionedThroughputExceededException"), 1, id="throughput"),
    pytest.param(refused("InternalServerError", 500), 0, id="500"),
    pytest.param(Answer(502, b"<html>Bad Gateway</html>", SIGNER), 0, id="gateway's page"),
    pytest.param(Answer(200, b"{}", SIGNER), 0, id="an empty answer"),
    pytest.param(Unavailable("cut"), 0, id="cut"),
]


@pytest.mark.parametrize(("fault", "throttles"), FAULTS)
def test_what_passes_is_tried_again(fault: Answer | EtlError, throttles: int) -> None:
    table, counters = Table(range(15)), Counters()
    for action in ACTIONS:
        table.faults[action].extend([fault] * 3)
    assert None not in use(table, fetch(*range(15)), counters)
    assert sum(map(len, use(table, keys_of(), counters))) == 15
    assert (counters.throttles, counters.retries) == (6 * throttles, 6)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (refused("ThrottlingException"), Throttled, "throttles"),
        (refused("InternalServerError", 500), Unavailable, "no good answer"),
        (refused("AccessDeniedException"), SinkError, "may not call"),
        (refused("ResourceNotFoundException"), SinkError, "does not exist"),
        (refused("ValidationException"), SinkError, "refuses"),
    ],
)
def test_what_stays_ends_it(action: str, fault: Answer | EtlError, kind: type[EtlError], words: str) -> None:
    table = Table(range(500))
    table.faults[action].extend([fault] * 200)
    act: Callable[[Reader], Awaitable[object]] = fetch(*range(500)) if action == "BatchGetItem" else keys_of()
    with pytest.raises(kind, match=words) as caught:
        use(table, act, retry=HASTY)
    if "may not" in words:
        assert caught.value.hint is not None
        assert f"dynamodb:{action}" in caught.value.hint
