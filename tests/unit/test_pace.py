"""The pace against simulated accounts, in simulated time: how near it comes, how politely, and who waits for whom."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice, repeat
from typing import Protocol, TypeAlias

import pytest

from etlcli.cache.pace import Costs, Line, Pace
from etlcli.local.momento.clock import ManualClock
from etlcli.retry import RetryPolicy
from tests.unit.simulated_time import SimulatedLoop

SEEDS = range(2)
CHUNK = 256  # metered operations
POLICY = RetryPolicy()


# Simulated accounts


Simulate: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]


@pytest.fixture(params=SEEDS)
def simulate(request: pytest.FixtureRequest) -> Simulate:
    """Runs a body in simulated time; what is left to chance goes by a seed."""

    def simulated(body: Callable[[], Awaitable[None]]) -> None:
        random.seed(request.param)
        loop = SimulatedLoop()
        try:
            loop.run_until_complete(asyncio.ensure_future(body(), loop=loop))
        finally:
            loop.close()

    return simulated


class Account(Protocol):
    rate: float

    def admits(self, cost: int, now: float) -> bool: ...


@dataclass
class Bucket:
    """Saves allowance up to ``saved`` seconds' worth.

    Lets a call in while some is left and carries the rest as a debt; or, ``strict``, only while all of its cost is.
    """

    rate: float
    saved: float = 1.0
    strict: bool = False
    balance: float = 0.0
    at: float = float("-inf")

    def admits(self, cost: int, now: float) -> bool:
        self.balance = min(self.rate * self.saved, self.balance + (now - self.at) * self.rate)
        self.at = now
        if self.balance < (cost if self.strict else 1):
            return False
        self.balance -= cost
        return True


@dataclass
class Seconds:
    """Counts anew with each second of the clock, and saves nothing. As strict as that, or lets the last call in."""

    rate: float
    strict: bool = True
    second: int = -1
    used: int = 0

    def admits(self, cost: int, now: float) -> bool:
        if int(now) != self.second:
            self.second, self.used = int(now), 0
        if self.used + (cost if self.strict else 1) > self.rate:
            return False
        self.used += cost
        return True


@dataclass
class Client:
    """Makes calls as the adapter does, a few at once, and keeps a record."""

    account: Account
    policy: RetryPolicy = POLICY
    latency: float = 0.01
    operations: int = 0
    refused: int = 0
    passed: list[tuple[float, int]] = field(default_factory=list)
    refused_for: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = asyncio.get_running_loop().time
        self.pace = Pace(self.clock)
        self.line = Line(self.pace)

    async def call(self, cost: int, expected: int | None = None) -> None:
        place = self.line.place()
        attempts = 0
        while True:
            sent = await self.line.go(place, cost if expected is None else expected)
            await asyncio.sleep(self.latency / 2)
            admitted = self.account.admits(cost, self.clock())
            await asyncio.sleep(self.latency / 2)
            if admitted:
                self.pace.succeed(sent, cost)
                self.operations += cost
                self.passed.append((self.clock(), cost))
                return
            attempts += 1
            self.refused += 1
            self.refused_for[cost] = max(self.refused_for.get(cost, 0), attempts)
            self.pace.refuse(sent, self.policy.wait(attempts))

    async def work(self, costs: Iterator[int], until: float = float("inf"), workers: int = 4) -> None:
        async def worker() -> None:
            for cost in costs:
                if self.clock() >= until:
                    return
                await self.call(cost)

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(worker())

    def given(self, start: float, end: float) -> float:
        """The rate at which calls got through in a stretch of time."""
        return sum(cost for at, cost in self.passed if start <= at < end) / (end - start)


# How near, how politely


@pytest.mark.parametrize(
    ("account", "cost", "share", "refusals"),
    [
        (lambda: Bucket(100), [CHUNK], 0.97, 100),
        (lambda: Bucket(100), [CHUNK, 1, CHUNK, 2, CHUNK, 20, CHUNK], 0.97, 120),
        (lambda: Bucket(100), [6], 0.97, 120),
        (lambda: Bucket(100, saved=0.01), [CHUNK], 0.93, 100),
        (lambda: Bucket(100, strict=True), [30], 0.95, 120),
        (lambda: Bucket(100, strict=True), [6], 0.95, 120),
        (lambda: Bucket(100, strict=True), [100], 0.90, 100),
        (lambda: Bucket(100, saved=60), [CHUNK], 0.97, 120),
        (lambda: Bucket(10_000), [CHUNK], 0.97, 200),
        (lambda: Bucket(10), [CHUNK], 0.85, 120),
        (lambda: Seconds(100), [4], 0.93, 120),
        (lambda: Seconds(100), [30], 0.86, 120),  # at most three in a second: 0.90
        (lambda: Seconds(100, strict=False), [CHUNK], 2.4, 120),  # one in a second: 2.56
    ],
)
def test_it_settles_near_the_allowance(
    simulate: Simulate, account: Callable[[], Account], cost: list[int], share: float, refusals: int
) -> None:
    async def body() -> None:
        client = Client(account())
        await client.work(cycle(cost), until=200)
        assert client.given(0, 200) >= share * client.account.rate
        assert client.refused <= refusals

    simulate(body)


def test_a_short_run_is_not_spent_on_finding_out(simulate: Simulate) -> None:
    async def body() -> None:
        client = Client(Bucket(100))
        await client.work(islice(cycle([CHUNK, 2, CHUNK, 10, CHUNK]), 10))
        assert client.clock() <= 1.15 * (client.operations - 100 - CHUNK) / 100
        assert client.refused <= 45

    simulate(body)


@pytest.mark.parametrize("cost", [1, CHUNK])
def test_many_calls_at_once_under_a_high_limit(simulate: Simulate, cost: int) -> None:
    async def body() -> None:
        client = Client(Bucket(1000 * cost))
        await client.work(repeat(cost), until=12, workers=64)
        assert client.given(2, 12) >= 0.95 * client.account.rate
        assert client.refused <= len(client.passed) / 20

    simulate(body)


def test_without_a_refusal_nothing_waits(simulate: Simulate) -> None:
    async def body() -> None:
        client = Client(Bucket(float("inf"), balance=float("inf")), latency=0.0)
        await client.work(islice(repeat(CHUNK), 1000), workers=64)
        assert client.clock() == 0
        assert client.pace.rate is None

    simulate(body)


def test_who_wants_less_than_the_allowance_gets_it(simulate: Simulate) -> None:
    async def body() -> None:
        client = Client(Bucket(100))

        async def now_and_then() -> None:
            while client.clock() < 200:
                await asyncio.sleep(random.expovariate(10.0))
                await client.call(1)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(now_and_then())
        assert client.refused <= 5
        assert client.given(0, 200) > 70

    simulate(body)


# The allowance moves


def test_it_follows_an_allowance_that_rises(simulate: Simulate) -> None:
    async def body() -> None:
        account = Bucket(100)
        client = Client(account)
        await client.work(repeat(CHUNK), until=60)
        account.rate = 1000
        await client.work(repeat(CHUNK), until=180)
        assert client.given(110, 180) >= 850
        assert client.refused <= 200

    simulate(body)


def test_it_follows_an_allowance_that_falls(simulate: Simulate) -> None:
    async def body() -> None:
        account = Bucket(1000)
        client = Client(account)
        await client.work(repeat(CHUNK), until=60)
        before = client.refused
        account.rate = 100
        await client.work(repeat(CHUNK), until=180)
        assert client.given(70, 180) >= 90
        assert client.refused - before <= 80

    simulate(body)


def test_a_time_in_which_others_use_it_all_is_soon_made_up_for(simulate: Simulate) -> None:
    async def body() -> None:
        account = Bucket(100)
        client = Client(account)
        await client.work(repeat(CHUNK), until=60)
        account.rate, account.balance = 1e-9, -1.0
        working = asyncio.create_task(client.work(repeat(CHUNK), until=300))
        await asyncio.sleep(100)
        before = client.refused
        assert before < 150  # it has not stormed while nothing was to be had
        account.rate = 100
        await working
        assert client.given(210, 300) >= 85

    simulate(body)


# Who waits for whom


@pytest.mark.parametrize("clients", [2, 4, 10])
@pytest.mark.parametrize("cost", [4, CHUNK])
def test_clients_that_share_an_account_get_alike(simulate: Simulate, cost: int, clients: int) -> None:
    async def body() -> None:
        account = Bucket(100)
        all_of_them = [Client(account) for _ in range(clients)]
        await asyncio.gather(*(client.work(repeat(cost), until=600) for client in all_of_them))
        used = [client.operations for client in all_of_them]
        assert sum(used) >= 0.9 * 100 * 600
        assert min(used) >= max(used) / 3

    simulate(body)


@pytest.mark.parametrize("account", [lambda: Bucket(100, saved=3, strict=True), lambda: Bucket(100)])
def test_a_large_call_does_not_starve_among_small_ones(simulate: Simulate, account: Callable[[], Account]) -> None:
    async def body() -> None:
        client = Client(account())
        small = asyncio.create_task(client.work(repeat(1), until=120, workers=8))
        await asyncio.sleep(20)
        for _ in range(10):
            started = client.clock()
            await client.call(CHUNK)
            assert client.clock() - started < 10
        assert client.clock() < 90
        await small
        assert client.given(0, 120) >= 85

    simulate(body)


def test_the_oldest_goes_first_also_after_a_refusal(simulate: Simulate) -> None:
    async def body() -> None:
        clock = asyncio.get_running_loop().time
        pace = Pace(clock)
        line = Line(pace)
        places = [line.place() for _ in range(4)]
        first = await line.go(places[0], 1)
        pace.refuse(first, 5.0)
        order: list[int] = []

        async def wait(number: int, delay: float) -> None:
            await asyncio.sleep(delay)
            sent = await line.go(places[number], 1)
            order.append(number)
            pace.succeed(sent, 1)

        # The first comes last to the line, when others wait there already.
        await asyncio.gather(wait(2, 0.0), wait(3, 0.0), wait(1, 1.0), wait(0, 3.0))
        assert order == [0, 1, 2, 3]
        assert clock() >= 5.0

    simulate(body)


def test_who_gives_up_waiting_lets_the_next_one_go(simulate: Simulate) -> None:
    async def body() -> None:
        pace = Pace(asyncio.get_running_loop().time)
        line = Line(pace)
        pace.refuse(await line.go(line.place(), 1), 2.0)

        async def call() -> None:
            pace.succeed(await line.go(line.place(), 1), 1)

        waiting = [asyncio.create_task(call()) for _ in range(5)]
        await asyncio.sleep(1)
        for task in (waiting[0], waiting[2], waiting[3]):
            task.cancel()
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(it, asyncio.CancelledError) for it in done] == [True, False, True, True, False]

    simulate(body)


# Single steps


def refused_once(clock: ManualClock) -> Pace:
    """A pace that was refused after 100 operations in a second."""
    pace = Pace(clock)
    pace.succeed(pace.send(50, waited=False), 50)
    clock.advance(0.5)
    pace.succeed(pace.send(50, waited=True), 50)
    clock.advance(0.5)
    pace.refuse(pace.send(50, waited=True), 0.0)
    return pace


def test_one_refusal_is_one_cut_however_many_calls_were_under_way() -> None:
    clock = ManualClock()
    pace = refused_once(clock)
    assert pace.rate == pytest.approx(90)
    clock.advance(60)
    sent = [pace.send(1, waited=True) for _ in range(20)]
    pace.succeed(pace.send(1, waited=True), 1)
    before = pace.rate
    clock.advance(0.001)
    for each in sent:
        pace.refuse(each, 0.0)
    assert before is not None
    assert pace.rate == pytest.approx(before * 0.9)


def test_everybody_waits_after_a_refusal() -> None:
    clock = ManualClock()
    pace = Pace(clock)
    pace.refuse(pace.send(1, waited=False), 3.0)
    assert pace.rate is None  # nothing tells how much it might be
    assert pace.delay() == pytest.approx(3.0)
    clock.advance(3.0)
    assert pace.delay() == 0


def test_one_call_at_a_time_tries_whether_there_is_some_allowance_again(simulate: Simulate) -> None:
    async def body() -> None:
        client = Client(Bucket(100), latency=0.1)
        client.account.admits(1000, 0.0)  # nothing is left for nine seconds
        working = asyncio.create_task(client.work(islice(repeat(1), 12), workers=6))
        await asyncio.sleep(8)
        assert 6 < client.refused < 25
        # All six went at once before any was refused; from then on only the oldest.
        assert client.refused_for == {1: client.refused - 5}
        await working

    simulate(body)


def test_what_a_read_did_cost_is_settled_afterwards() -> None:
    clock = ManualClock()
    pace = refused_once(clock)
    clock.advance(10)
    small, large = pace.send(1, waited=True), pace.send(CHUNK, waited=True)
    before = pace.delay()
    pace.succeed(small, CHUNK)
    assert pace.delay() > before + 2
    pace.succeed(large, 1)
    assert pace.delay() < before + 1


def test_a_lost_call_is_paid_for_and_tells_nothing() -> None:
    clock = ManualClock()
    pace = refused_once(clock)
    clock.advance(10)
    rate = pace.rate
    pace.lose(pace.send(90, waited=True))
    assert pace.rate == rate
    assert pace.delay() == pytest.approx(0.9, abs=0.01)  # a tenth of a second was spared before


def test_no_wait_is_longer_than_some_seconds() -> None:
    clock = ManualClock()
    pace = refused_once(clock)
    pace.lose(pace.send(1_000_000, waited=True))
    assert 10 <= pace.delay() <= 30


# What reads will cost


def test_the_cost_of_a_read_is_that_of_its_kind() -> None:
    costs = Costs()
    assert costs.expected("m/r/chunk/1") == 1
    costs.learn("m/r/chunk/1", 256)
    assert costs.expected("m/r/chunk/2") == 256
    assert costs.expected("m/r/ledger/2") == 1
    assert costs.expected("chunk") == 1
    costs.learn("m/r/chunk/2", 100)
    assert 100 < costs.expected("m/r/chunk/3") < 256


def test_only_the_kinds_in_use_are_remembered() -> None:
    costs = Costs()
    costs.learn("used/1", 200)
    for number in range(5000):
        costs.learn(f"{number}/1", 7)
        costs.learn("used/1", 200)
    assert costs.expected("used/2") == 200
    assert costs.expected("0/2") == 1
    assert costs.expected("4999/2") == 7
