"""The user's bound on writes, in simulated time: never above it, near below it, evenly, and with patience."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import orjson
import pytest

from etlcli.capacity import write_units
from etlcli.encoding import item_size
from etlcli.errors import Throttled, Unavailable
from etlcli.model import ItemMark, Key, KeyAttribute
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.post import Answer, Poster
from etlcli.sink.sweep import ACTIONS, Sweeper
from etlcli.sink.translate import Place
from etlcli.sink.write_cap import BURST_SECONDS, WriteCap
from etlcli.sink.writer import Writer
from tests.unit.simulated_time import SimulatedLoop

T = TypeVar("T")

PLACE = Place("movies", "http://127.0.0.1:1")
SIGNER: Any = object()
THROTTLE = b'{"__type":"x#ThrottlingException"}'


def simulated(body: Callable[[], Awaitable[T]]) -> tuple[T, float]:
    """Run a body in simulated time; answer with what it gave and for how many seconds it ran."""
    random.seed(2026)
    loop = SimulatedLoop()
    try:
        return loop.run_until_complete(asyncio.ensure_future(body(), loop=loop)), loop.now
    finally:
        loop.close()


def a_cap(units_a_second: int) -> WriteCap:
    return WriteCap(units_a_second, clock=asyncio.get_running_loop().time)


def sized(number: int, size: int) -> bytes:
    """An item of about so many bytes in DynamoDB's count."""
    item = orjson.dumps({"id": {"N": str(number)}, "text": {"S": "x" * (size - 12)}})
    assert abs(item_size(item) - size) <= 8
    return item


@dataclass
class Served:
    """A table on the way to which every request takes some time, and which notes when it got what."""

    latency: float = 0.02
    faults: Callable[[int, list[dict[str, Any]]], Answer | None] = lambda _number, _items: None
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    puts: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    async def post(self, body: bytes) -> Answer:
        self.calls += 1
        number = self.calls
        items = [write["PutRequest"]["Item"] for write in orjson.loads(body)["RequestItems"]["movies"]]
        units = write_units([orjson.dumps(item) for item in items])
        self.arrivals.append((asyncio.get_running_loop().time(), units))
        await asyncio.sleep(self.latency)
        fault = self.faults(number, items)
        if fault is not None:
            return fault
        self.puts.update(item["id"]["N"] for item in items)
        return Answer(200, b'{"UnprocessedItems":{}}', SIGNER)

    def most_within(self, seconds: float) -> int:
        """The most units that arrived in any stretch of time so long."""
        return max(
            sum(units for at, units in self.arrivals if start <= at < start + seconds) for start, _ in self.arrivals
        )

    @property
    def units(self) -> int:
        return sum(units for _, units in self.arrivals)


def put(
    served: Served,
    items: Sequence[bytes],
    units_a_second: int | None,
    counters: Counters | None = None,
    patience: float = 120.0,
) -> float:
    """Put items; answer for how many simulated seconds that took."""

    async def body() -> None:
        cap = None if units_a_second is None else a_cap(units_a_second)
        clock = asyncio.get_running_loop().time
        target = Writer(
            cast(Poster, served), PLACE, counters or Counters(), RetryPolicy(patience), 64, cap, clock=clock
        )
        quarter = -(-len(items) // 4)
        await asyncio.gather(*(target.put(items[start : start + quarter]) for start in range(0, len(items), quarter)))

    return simulated(body)[1]


@pytest.mark.parametrize("rate", [1, 3, 10, 100, 1000, 4000])
@pytest.mark.parametrize("sizes", [[300], [300, 1500, 3000], [900, 20_000]], ids=str)
def test_no_second_has_more_than_the_bound_and_little_is_left_unused(rate: int, sizes: list[int]) -> None:
    items = [sized(number, sizes[number % len(sizes)]) for number in range(min(4000, 12 * rate + 40))]
    served = Served()
    seconds = put(served, items, rate)
    assert set(served.puts) == {str(number) for number in range(len(items))}
    dearest = max(write_units([item]) for item in items[: len(sizes)])
    for stretch in (0.5, 1.0, 5.0):
        assert served.most_within(stretch) <= rate * stretch + max(rate * BURST_SECONDS, dearest) + 1e-6
    # The bucket is full at first, and the last request is waited for.
    assert seconds <= served.units / rate + served.latency + 0.01
    assert seconds >= (served.units - max(rate * BURST_SECONDS, dearest)) / rate - 1e-6


def test_writes_come_evenly() -> None:
    served = Served()
    put(served, [sized(number, 300) for number in range(4000)], 1000)
    by_quarter = Counter(int(at / BURST_SECONDS) for at, _ in served.arrivals for _ in range(25))
    assert by_quarter[0] <= 525
    assert all(225 <= count <= 275 for quarter, count in by_quarter.items() if 0 < quarter < max(by_quarter))


def test_without_a_bound_nothing_waits() -> None:
    served = Served(latency=0.0)
    assert put(served, [sized(number, 300) for number in range(5000)], None) == 0.0
    assert {units for _, units in served.arrivals} == {25}


def test_what_is_sent_again_counts_again() -> None:
    def every_other(number: int, _items: list[dict[str, Any]]) -> Answer | None:
        return Answer(400, THROTTLE, SIGNER) if number % 2 else None

    items, counters = [sized(number, 300) for number in range(1000)], Counters()
    served = Served(faults=every_other)
    seconds = put(served, items, 100, counters)
    assert served.units > 1900
    assert served.most_within(1.0) <= 125
    assert seconds >= (served.units - 25) / 100
    assert (counters.rows_loaded, counters.throttles) == (1000, served.calls // 2)


def test_unprocessed_items_count_again() -> None:
    def halves(_number: int, items: list[dict[str, Any]]) -> Answer | None:
        left = [{"PutRequest": {"Item": item}} for item in items[len(items) // 2 + 1 :]]
        return Answer(200, orjson.dumps({"UnprocessedItems": {"movies": left} if left else {}}), SIGNER)

    served, counters = Served(faults=halves), Counters()
    put(served, [sized(number, 300) for number in range(500)], 100, counters)
    assert counters.rows_loaded == 500
    assert served.units == 20 * (25 + 12 + 5 + 2)
    assert served.most_within(1.0) <= 125


def test_an_item_that_costs_more_than_the_bound_has_all_the_patience_of_others() -> None:
    # 293 units at one a second: between any two tries more time passes than there is patience.
    def first_fails(number: int, _items: list[dict[str, Any]]) -> Answer | None:
        return Answer(500, b"<html>", SIGNER) if number <= 3 else None

    served, counters = Served(faults=first_fails), Counters()
    seconds = put(served, [sized(1, 300_000)], 1, counters, patience=60.0)
    assert served.puts == {"1": 1}
    assert 3 * 293 <= seconds <= 3 * 293 + 10


def test_patience_runs_out_under_a_bound_too() -> None:
    served = Served(faults=lambda _number, _items: Answer(400, THROTTLE, SIGNER))
    with pytest.raises(Throttled):
        put(served, [sized(number, 300) for number in range(10)], 5, patience=20.0)
    assert served.arrivals[-1][0] <= 60.0


def test_who_waits_is_served_in_turn() -> None:
    async def body() -> list[int]:
        cap = a_cap(10)
        served: list[int] = []

        async def take(number: int, units: int) -> None:
            await cap.take(units)
            served.append(number)

        await asyncio.gather(*(take(number, units) for number, units in enumerate([2, 40, 1, 5, 1])))
        return served

    assert simulated(body)[0] == [0, 1, 2, 3, 4]


def test_time_that_was_not_used_is_saved_for_a_moment_only() -> None:
    async def body() -> tuple[float, float]:
        cap = a_cap(100)
        await asyncio.sleep(3600)
        at_once = sum([await cap.take(1) for _ in range(25)])
        return at_once, await cap.take(1)

    at_once, then = simulated(body)[0]
    assert at_once == pytest.approx(0.0, abs=1e-9)
    assert then == pytest.approx(0.01)


def test_a_wait_that_is_cancelled_does_not_hold_up_others_for_longer_than_its_turn() -> None:
    async def body() -> float:
        cap = a_cap(10)
        waiting = [asyncio.create_task(cap.take(10)) for _ in range(3)]
        await asyncio.sleep(0.1)
        for task in waiting:
            task.cancel()
        return await cap.take(1)

    assert simulated(body)[0] <= 3.0


class Stale:
    """A table of stale items, whose deletion costs what they are large."""

    def __init__(self, units: list[float | None]) -> None:
        self.units = units
        self.arrivals: list[float] = []
        self.fail = 2

    async def post(self, action: str, body: bytes) -> Answer:
        request = orjson.loads(body)
        if action == "Scan":
            items = [{"id": {"N": str(n)}, "_mark": {"S": "job/1"}} for n in range(len(self.units))]
            return Answer(200, orjson.dumps({"Items": items}), SIGNER)
        assert request["ReturnConsumedCapacity"] == "TOTAL"
        self.arrivals.append(asyncio.get_running_loop().time())
        if self.fail:
            self.fail -= 1
            raise Unavailable("cut")
        units = self.units[int(request["Key"]["id"]["N"])]
        # Compatible servers do not all tell.
        consumed = {} if units is None else {"ConsumedCapacity": {"TableName": "movies", "CapacityUnits": units}}
        return Answer(200, orjson.dumps(consumed), SIGNER)


class OneAction:
    def __init__(self, stale: Stale, action: str) -> None:
        self.stale, self.action = stale, action

    async def post(self, body: bytes) -> Answer:
        return await self.stale.post(self.action, body)


@pytest.mark.parametrize(("rate", "each"), [(1, 1.0), (10, 1.0), (10, 7.0), (40, None)])
def test_removals_are_bound_by_what_they_cost(rate: int, each: float | None) -> None:
    stale, counters = Stale([each] * 60), Counters()

    async def body() -> int:
        posters = {action: cast(Poster, OneAction(stale, action)) for action in ACTIONS}
        sweeper = Sweeper(posters, PLACE, counters, RetryPolicy(), 64, cap=a_cap(rate))
        return await sweeper.sweep(ItemMark("_mark", "job/", "job/2"), Key(KeyAttribute("id", "N")))

    removed, seconds = simulated(body)
    assert (removed, counters.items_deleted, counters.retries) == (60, 60, 2)
    cost = 60 * (each or 1.0) + 2
    # The last one's cost is owed by nobody any more.
    assert cost - (each or 1.0) * 16 - rate * BURST_SECONDS - 1 <= seconds * rate <= cost + rate
