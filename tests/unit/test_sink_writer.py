"""Patience and errors of the writer, with a clock that only its own waits move."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import orjson
import pytest

from etlcli.errors import SinkError, Throttled, Unavailable
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.post import Answer, Poster
from etlcli.sink.translate import Place
from etlcli.sink.writer import Writer

PLACE = Place("movies", "http://127.0.0.1:1")
DONE = b'{"UnprocessedItems":{}}'
THROTTLE = b'{"__type":"x#ThrottlingException"}'
GONE = b'{"__type":"x#ResourceNotFoundException"}'
SIGNER: Any = object()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Steady(RetryPolicy):
    """Every wait takes a second."""

    def wait(self, attempt: int) -> float:
        assert attempt > 0
        return 1.0


class StubPoster:
    def __init__(self, post: Callable[[bytes], Awaitable[Answer]]) -> None:
        self.post = post


def writer(
    post: Callable[[bytes], Awaitable[Answer]], clock: Clock, counters: Counters | None = None, patience: float = 10.0
) -> Writer:
    poster = cast(Poster, StubPoster(post))
    return Writer(poster, PLACE, counters or Counters(), Steady(patience), 8, clock=clock, sleep=clock.sleep)


def items(count: int, start: int = 0) -> list[bytes]:
    return [orjson.dumps({"id": {"N": str(number)}}) for number in range(start, start + count)]


def test_patience_is_the_policys() -> None:
    clock, counters = Clock(), Counters()

    async def post(_body: bytes) -> Answer:
        return Answer(400, THROTTLE, SIGNER)

    with pytest.raises(Throttled):
        asyncio.run(writer(post, clock, counters).put(items(3)))
    assert clock.now == 1010.0
    assert (counters.throttles, counters.retries) == (10, 0)


def test_patience_starts_anew_with_what_is_acknowledged() -> None:
    clock, counters = Clock(), Counters()
    calls = 0

    async def post(body: bytes) -> Answer:
        nonlocal calls
        calls += 1
        if calls % 10:
            return Answer(400, THROTTLE, SIGNER)
        sent = orjson.loads(body)["RequestItems"]["movies"]
        return Answer(200, orjson.dumps({"UnprocessedItems": {"movies": sent[1:]} if sent[1:] else {}}), SIGNER)

    asyncio.run(writer(post, clock, counters).put(items(8)))
    assert counters.rows_loaded == 8
    assert clock.now - 1000.0 == 79.0


def test_patience_starts_anew_with_what_others_get_acknowledged() -> None:
    # Another batch's items are taken one by one for 40 seconds; this one is throttled all that time, and then taken.
    clock, counters = Clock(), Counters()

    async def post(body: bytes) -> Answer:
        sent = orjson.loads(body)["RequestItems"]["movies"]
        if int(sent[0]["PutRequest"]["Item"]["id"]["N"]) < 100:
            return Answer(200, DONE, SIGNER) if clock.now > 1030.0 else Answer(400, THROTTLE, SIGNER)
        return Answer(200, orjson.dumps({"UnprocessedItems": {"movies": sent[1:]} if sent[1:] else {}}), SIGNER)

    async def main() -> None:
        target = writer(post, clock, counters, patience=5.0)
        await asyncio.gather(target.put(items(3)), target.put(items(25, 100)))

    asyncio.run(main())
    assert counters.rows_loaded == 28


def test_an_error_that_stays_comes_out_before_those_that_pass() -> None:
    together = asyncio.Event()
    calls = 0

    async def post(_body: bytes) -> Answer:
        nonlocal calls
        calls += 1
        last = calls == 8
        if last:
            together.set()
        await together.wait()
        return Answer(400, GONE if last else THROTTLE, SIGNER)

    with pytest.raises(SinkError, match="does not exist"):
        asyncio.run(writer(post, Clock(), patience=0.0).put(items(200)))


def test_a_fault_of_the_program_comes_out_as_it_is() -> None:
    async def post(_body: bytes) -> Answer:
        raise ZeroDivisionError

    counters = Counters()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(writer(post, Clock(), counters).put(items(200)))
    assert counters.requests_in_flight == 0


def test_nothing_usable_is_unavailable() -> None:
    async def post(_body: bytes) -> Answer:
        raise Unavailable("cut")

    clock, counters = Clock(), Counters()
    with pytest.raises(Unavailable, match="cut"):
        asyncio.run(writer(post, clock, counters).put(items(1)))
    assert (counters.throttles, counters.retries) == (0, 10)


def test_few_but_large_items_go_side_by_side() -> None:
    counters = Counters()
    together = asyncio.Event()

    async def post(_body: bytes) -> Answer:
        if counters.requests_in_flight == 3:
            together.set()
        await together.wait()
        return Answer(200, DONE, SIGNER)

    large = [orjson.dumps({"id": {"N": str(number)}, "text": {"S": "x" * 390_000}}) for number in range(6)]
    asyncio.run(writer(post, Clock(), counters).put(large))
    assert counters.rows_loaded == 6


def test_far_away_more_go_side_by_side_until_there_is_trouble() -> None:
    clock, counters = Clock(), Counters()
    waiting: list[asyncio.Future[Answer]] = []
    most: list[int] = []

    async def post(_body: bytes) -> Answer:
        waiting.append(asyncio.get_running_loop().create_future())
        return await waiting[-1]

    async def world() -> None:
        """Answer all that is asked at once, half a second later; once with a throttle before all other answers."""
        while counters.rows_loaded < 40_000:
            for _ in range(20):
                await asyncio.sleep(0)
            asked = waiting[:]
            waiting.clear()
            most.append(len(asked))
            for number, answer in enumerate(asked):
                clock.now += 0.5 / len(asked)
                throttled = len(most) == 6 and not number
                answer.set_result(Answer(400, THROTTLE, SIGNER) if throttled else Answer(200, DONE, SIGNER))

    async def main() -> None:
        poster = cast(Poster, StubPoster(post))
        target = Writer(poster, PLACE, counters, Steady(10.0), 160, clock=clock, sleep=clock.sleep)
        puts = (target.put(items(10_000, 10_000 * part)) for part in range(4))
        await asyncio.gather(world(), *puts)

    asyncio.run(main())
    assert most[0] == 64
    assert max(most[:6]) == 160
    assert most[6] <= 64
    assert counters.throttles == 1
    assert counters.rows_loaded == 40_000
