"""What mode ``replace`` asks of DynamoDB, against one that misbehaves by script."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar, cast

import orjson
import pytest

from etlcli.errors import EtlError, SinkError, Throttled, Unavailable
from etlcli.model import ItemMark, Key, KeyAttribute, Survey
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.post import Answer, Poster
from etlcli.sink.sweep import ACTIONS, Sweeper
from etlcli.sink.translate import Place

T = TypeVar("T")
Document = dict[str, Any]

PLACE = Place("movies", "http://127.0.0.1:1")
QUICK = RetryPolicy(patience=30.0, base=0.0001, ceiling=0.0002)
HASTY = RetryPolicy(patience=0.0, base=0.0001, ceiling=0.0002)
KEY = Key(KeyAttribute("id", "N"))
MARK = ItemMark("_mark", "job/", "job/2")
SIGNERS: list[Any] = [object(), object()]
IN_FLIGHT = 48
CONDITION_FAILED = "ConditionalCheckFailedException"


def refused(code: str, status: int = 400) -> Answer:
    body = orjson.dumps({"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "so it is"})
    return Answer(status, body, SIGNERS[0])


class Table:
    """Items by their number, each no more than its mark, in pages; and the scripts of faults that come first."""

    def __init__(self, marks: Mapping[int, str], page: int = 10) -> None:
        self.marks = dict(marks)
        self.page = page
        self.faults: dict[str, deque[Answer | EtlError]] = {action: deque() for action in ACTIONS}
        self.requests: list[tuple[str, Document]] = []
        self.renewed: list[object] = []
        self.loses_answers = False
        self.arrivals: asyncio.Queue[str] = asyncio.Queue()
        self.hold: asyncio.Event | None = None
        self.at_once = self.most_at_once = 0

    @property
    def calls(self) -> Counter[str]:
        return Counter(action for action, _ in self.requests)

    async def post(self, action: str, body: bytes) -> Answer:
        request = orjson.loads(body)
        self.requests.append((action, request))
        self.arrivals.put_nowait(action)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self.hold is not None and action != "Scan":
                await self.hold.wait()
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        if self.faults[action]:
            fault = self.faults[action].popleft()
            if isinstance(fault, EtlError):
                raise fault
            return fault
        answer = self.scan(request) if action == "Scan" else self.write(action, request)
        if self.loses_answers and action != "Scan":
            self.loses_answers = False
            raise Unavailable("cut")
        return answer

    def scan(self, request: Document) -> Answer:
        assert request["ConsistentRead"] is True
        numbers = sorted(self.marks)
        start = request.get("ExclusiveStartKey")
        left = [number for number in numbers if start is None or number > int(start["id"]["N"])]
        page, more = left[: self.page], len(left) > self.page
        values = {name: value["S"] for name, value in request["ExpressionAttributeValues"].items()}
        found = [number for number in page if self.marks[number].startswith(values[":prefix"])]
        if ":value" in values:
            found = [number for number in found if self.marks[number] < values[":value"]]
        items = [{"id": {"N": str(number)}, "_mark": {"S": self.marks[number]}} for number in found]
        document = {"Items": items, "Count": len(items), "ScannedCount": len(page)}
        if more:
            document["LastEvaluatedKey"] = {"id": {"N": str(page[-1])}}
        return Answer(200, orjson.dumps(document), SIGNERS[0])

    def write(self, action: str, request: Document) -> Answer:
        number = int(request["Key"]["id"]["N"])
        values = {name: value["S"] for name, value in request["ExpressionAttributeValues"].items()}
        seen = self.marks.get(number, "")
        if action == "DeleteItem":
            if seen != values[":seen"]:
                return refused(CONDITION_FAILED)
            del self.marks[number]
        else:
            if not (seen.startswith(values[":prefix"]) and seen < values[":value"]):
                return refused(CONDITION_FAILED)
            self.marks[number] = values[":value"]
        return Answer(200, b"{}", SIGNERS[0])


class StubPoster:
    def __init__(self, table: Table, action: str) -> None:
        self._table = table
        self._action = action

    async def post(self, body: bytes) -> Answer:
        return await self._table.post(self._action, body)

    async def renew(self, refused: object) -> None:
        self._table.renewed.append(refused)


def stale(*numbers: int) -> dict[int, str]:
    return dict.fromkeys(numbers, "job/1")


def use(
    table: Table,
    act: Callable[[Sweeper], Awaitable[T]],
    counters: Counters | None = None,
    retry: RetryPolicy = QUICK,
) -> T:
    counted = counters if counters is not None else Counters()

    async def main() -> T:
        posters = cast(dict[str, Poster], {action: StubPoster(table, action) for action in ACTIONS})
        try:
            return await act(Sweeper(posters, PLACE, counted, retry, IN_FLIGHT))
        finally:
            assert counted.requests_in_flight == 0
            assert asyncio.all_tasks() == {asyncio.current_task()}

    return asyncio.run(main())


def survey(sweeper: Sweeper) -> Awaitable[Survey]:
    return sweeper.survey(MARK)


def sweep(sweeper: Sweeper) -> Awaitable[int]:
    return sweeper.sweep(MARK, KEY)


def spare(*numbers: int) -> Callable[[Sweeper], Awaitable[int]]:
    keys = [orjson.dumps({"id": {"N": str(number)}}) for number in numbers]
    return lambda sweeper: sweeper.spare(keys, MARK)


def test_requests_are_what_the_api_asks_for() -> None:
    table = Table(stale(7))
    use(table, survey)
    use(table, spare(8))
    use(table, sweep)
    names = {"#mark": "_mark"}
    of_prefix = {":prefix": {"S": "job/"}}
    of_both = {**of_prefix, ":value": {"S": "job/2"}}
    assert table.requests == [
        (
            "Scan",
            {
                "TableName": "movies",
                "ConsistentRead": True,
                "FilterExpression": "begins_with(#mark, :prefix)",
                "ProjectionExpression": "#mark",
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": of_prefix,
            },
        ),
        (
            "UpdateItem",
            {
                "TableName": "movies",
                "Key": {"id": {"N": "8"}},
                "UpdateExpression": "SET #mark = :value",
                "ConditionExpression": "begins_with(#mark, :prefix) AND #mark < :value",
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": of_both,
            },
        ),
        (
            "Scan",
            {
                "TableName": "movies",
                "ConsistentRead": True,
                "FilterExpression": "begins_with(#mark, :prefix) AND #mark < :value",
                "ProjectionExpression": "#mark, #more0",
                "ExpressionAttributeNames": {**names, "#more0": "id"},
                "ExpressionAttributeValues": of_both,
            },
        ),
        (
            "DeleteItem",
            {
                "TableName": "movies",
                "Key": {"id": {"N": "7"}},
                "ConditionExpression": "#mark = :seen",
                "ExpressionAttributeNames": names,
                "ExpressionAttributeValues": {":seen": {"S": "job/1"}},
            },
        ),
    ]


def test_pages_without_a_single_item_are_not_the_end() -> None:
    table = Table({**dict.fromkeys(range(95), "another/1"), **stale(95, 96)}, page=10)
    assert use(table, survey) == Survey(2, 2)
    assert table.calls["Scan"] == 10
    assert use(table, sweep) == 2
    assert table.marks == dict.fromkeys(range(95), "another/1")


FAULTS = [
    pytest.param(refused("ProvisionedThroughputExceededException"), 1, id="throughput"),
    pytest.param(refused("ThrottlingException"), 1, id="throttling"),
    pytest.param(refused("InternalServerError", 500), 0, id="500"),
    pytest.param(refused("TransactionConflictException"), 0, id="transaction"),
    pytest.param(Answer(502, b"<html>Bad Gateway</html>", None), 0, id="gateway's page"),  # type: ignore[arg-type]
    pytest.param(Answer(200, b"<html>Please sign in</html>", None), 0, id="portal's page"),  # type: ignore[arg-type]
    pytest.param(Answer(200, b"", None), 0, id="nothing"),  # type: ignore[arg-type]
    pytest.param(Answer(200, b"[]", None), 0, id="a list"),  # type: ignore[arg-type]
    pytest.param(Answer(400, b"", None), 0, id="a refusal without a word"),  # type: ignore[arg-type]
    pytest.param(Answer(400, b'{"__type":"com.am', None), 0, id="truncated"),  # type: ignore[arg-type]
    pytest.param(Unavailable("cut"), 0, id="cut"),
]


@pytest.mark.parametrize(("fault", "throttles"), FAULTS)
@pytest.mark.parametrize("action", ACTIONS)
def test_what_passes_is_tried_again(action: str, fault: Answer | EtlError, throttles: int) -> None:
    table, counters = Table(stale(*range(25))), Counters()
    table.faults[action].extend([fault] * 3)
    assert use(table, spare(3, 4), counters) == 2
    assert use(table, survey, counters) == Survey(25, 23)
    assert use(table, sweep, counters) == 23
    assert table.marks == dict.fromkeys((3, 4), "job/2")
    assert (counters.throttles, counters.retries, counters.items_deleted) == (3 * throttles, 3, 23)


def test_a_scan_that_tells_of_no_items_is_no_answer() -> None:
    table, counters = Table(stale(1)), Counters()
    table.faults["Scan"].append(Answer(200, b"{}", SIGNERS[0]))
    assert use(table, survey, counters) == Survey(1, 1)
    assert counters.retries == 1


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (refused("ThrottlingException"), Throttled, "throttles"),
        (refused("InternalServerError", 500), Unavailable, "no good answer"),
        (Unavailable("no answer at all", hint="wait"), Unavailable, "no answer"),
        (refused("AccessDeniedException"), SinkError, "may not call"),
        (refused("ResourceNotFoundException"), SinkError, "does not exist"),
        (Answer(403, b"<html>Blocked</html>", SIGNERS[0]), SinkError, "HTTP status 403"),
    ],
)
def test_what_stays_ends_it(action: str, fault: Answer | EtlError, kind: type[EtlError], words: str) -> None:
    table = Table(stale(*range(100)))
    table.faults[action].extend([fault] * 200)
    act = {"Scan": survey, "UpdateItem": spare(*range(100)), "DeleteItem": sweep}[action]
    with pytest.raises(kind, match=words) as caught:
        use(table, act, retry=HASTY)
    assert caught.value.hint
    if "may not" in words:
        assert f"dynamodb:{action}" in caught.value.hint
    assert len(table.marks) == 100


@pytest.mark.parametrize("action", ACTIONS)
def test_expired_credentials_are_renewed(action: str) -> None:
    table, counters = Table(stale(1, 2)), Counters()
    table.faults[action].extend([refused("ExpiredTokenException")] * 2)
    assert use(table, spare(1), counters) == 1
    assert use(table, sweep, counters) == 1
    assert table.renewed == [SIGNERS[0]] * 2
    assert counters.retries == 2


def test_credentials_that_stay_expired() -> None:
    table = Table(stale(1))
    table.faults["DeleteItem"].extend([refused("ExpiredTokenException")] * 10)
    with pytest.raises(SinkError, match="expired") as caught:
        use(table, sweep)
    assert caught.value.hint
    assert table.calls["DeleteItem"] == 4


def test_what_was_removed_before_it_failed_is_counted() -> None:
    table, counters = Table(stale(*range(40)), page=20), Counters()

    async def act(sweeper: Sweeper) -> int:
        asked = table.scan

        def scan(request: Document) -> Answer:
            return refused("AccessDeniedException") if "ExclusiveStartKey" in request else asked(request)

        table.scan = scan  # type: ignore[method-assign]
        return await sweep(sweeper)

    with pytest.raises(SinkError):
        use(table, act, counters)
    assert counters.items_deleted == 20
    assert sorted(table.marks) == list(range(20, 40))


@pytest.mark.parametrize("act", [sweep, spare(1)])
def test_an_answer_that_is_lost_does_no_harm(act: Callable[[Sweeper], Awaitable[int]]) -> None:
    table, counters = Table(stale(1)), Counters()
    table.loses_answers = True
    assert use(table, act, counters) == 0  # carried out, but nobody can know
    assert table.marks in ({}, {1: "job/2"})
    assert counters.retries == 1


def test_a_key_that_dynamodb_could_not_hold_is_nobodys() -> None:
    table = Table(stale(1, 2))
    table.faults["UpdateItem"].append(refused("ValidationException"))
    assert use(table, spare(1, 2)) == 1


@pytest.mark.parametrize("action", ["Scan", "DeleteItem"])
def test_a_request_that_is_not_understood_is_an_error(action: str) -> None:
    table = Table(stale(1))
    table.faults[action].append(refused("ValidationException"))
    with pytest.raises(SinkError, match="so it is"):
        use(table, sweep)
    assert table.marks == stale(1)


@pytest.mark.parametrize("act", [sweep, spare(*range(500))])
def test_many_go_at_once_and_not_too_many(act: Callable[[Sweeper], Awaitable[int]]) -> None:
    table = Table(stale(*range(500)), page=1000)
    assert use(table, act) == 500
    assert table.most_at_once == IN_FLIGHT


def test_a_sweep_that_is_cancelled_leaves_nothing_behind() -> None:
    table, counters = Table(stale(*range(100))), Counters()

    async def act(sweeper: Sweeper) -> None:
        table.hold = asyncio.Event()
        task = asyncio.create_task(sweeper.sweep(MARK, KEY))
        for _ in range(11):  # the scan, and a page's items
            await table.arrivals.get()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    use(table, act, counters)
    assert table.calls["DeleteItem"] == 10
    assert table.calls["Scan"] == 1
    assert counters.items_deleted == 0
