"""The lease while the work goes on: kept alive, given back, and heeded once it may be lost (promise 6)."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from etlcli.errors import EtlError, SinkError, Unavailable
from etlcli.leasing import LeaseHeld, LeaseLost, SendingRight, leased
from etlcli.report import Report
from etlcli.state import LEASE_SECONDS, Claim, Lease, LeaseWatch, Lost, NullState, Process, Taken
from tests.contract.fakes.state import FakeState
from tests.unit.simulated_time import simulate

REQUEST_SECONDS = 20.0


def clock() -> float:
    return asyncio.get_running_loop().time()


class Store(FakeState):
    """Counts by the simulated clock; ``out_of_reach`` while it is so, and ``taken_by_others`` for good."""

    def __init__(self, account: FakeState | None = None) -> None:
        super().__init__(account=account.account if account is not None else None, clock=clock, wall=clock)
        self.out_of_reach = False
        self.renewals = 0

    async def renew(self, lease: Lease) -> Lease | Lost:
        self.renewals += 1
        if self.out_of_reach:
            await asyncio.sleep(1.0)
            raise Unavailable("nobody answers")
        return await super().renew(lease)


def held(
    store: FakeState | NullState, report: Report | None = None, *, wait_seconds: float = 0.0
) -> AbstractAsyncContextManager[SendingRight]:
    return leased(
        "movies",
        "run",
        store,
        report or Report("movies"),
        request_seconds=REQUEST_SECONDS,
        wait_seconds=wait_seconds,
        clock=clock,
    )


def test_it_is_kept_for_as_long_as_the_work_takes() -> None:
    async def body() -> None:
        store = Store()
        async with held(store) as right:
            for _ in range(600):
                await asyncio.sleep(1.0)
                right.check()
        assert store.renewals > 600 / LEASE_SECONDS
        assert await store.fetch_lease("movies") is None

    simulate(body)


@pytest.mark.parametrize("error", [SinkError("broken"), ValueError("a defect"), asyncio.CancelledError()])
def test_it_is_given_back_on_every_way_out(error: BaseException) -> None:
    async def body() -> None:
        store = Store()
        with pytest.raises((type(error), BaseExceptionGroup)):
            async with held(store):
                raise error
        assert await store.fetch_lease("movies") is None

    simulate(body)


def test_a_lease_that_cannot_be_given_back_is_told_of() -> None:
    async def body() -> None:
        store, report = Store(), Report("movies")
        async with held(store, report):
            store.errors = [SinkError("denied")]
        assert report.warnings == ["the lease of movies could not be given back; it ends by itself within 30 s"]

    simulate(body)


def test_nothing_is_sent_any_more_before_another_could_have_it() -> None:
    async def body() -> None:
        store = Store()
        sent: list[float] = []

        async def work() -> None:
            async with held(store) as right:
                store.out_of_reach = True
                while True:
                    right.check()
                    sent.append(clock())
                    await asyncio.sleep(0.25)

        with pytest.raises(BaseExceptionGroup) as caught:
            await work()
        assert caught.group_contains(LeaseLost)
        # The last request's answer comes before the lease ends, by whoever's clock.
        assert 0 < sent[-1] + REQUEST_SECONDS < LEASE_SECONDS

    simulate(body)


def test_work_that_sends_nothing_just_then_is_ended_too() -> None:
    async def body() -> None:
        store = Store()

        async def work() -> None:
            async with held(store):
                store.out_of_reach = True
                await asyncio.Event().wait()

        with pytest.raises(BaseExceptionGroup) as caught:
            await work()
        assert caught.group_contains(LeaseLost)
        assert clock() < LEASE_SECONDS

    simulate(body)


def test_a_state_table_that_is_back_in_time_costs_nothing() -> None:
    async def body() -> None:
        store = Store()
        async with held(store) as right:
            for _ in range(20):
                store.out_of_reach = True
                await asyncio.sleep(6.0)
                right.check()
                store.out_of_reach = False
                await asyncio.sleep(6.0)
                right.check()

    simulate(body)


def test_who_wakes_up_late_finds_that_it_may_not_send() -> None:
    now = 100.0
    right = SendingRight("movies", REQUEST_SECONDS, clock=lambda: now)
    right.extend(Lease("movies", "a", LEASE_SECONDS, now))
    right.check()
    now += LEASE_SECONDS  # as after a night's sleep
    with pytest.raises(LeaseLost, match="could not be renewed in time") as caught:
        right.check()
    assert "was this machine asleep" in str(caught.value.hint)


def test_a_lease_that_was_taken_over_ends_the_work_at_once() -> None:
    async def body() -> None:
        store = Store()
        ended_at = 0.0
        right: SendingRight | None = None

        async def work() -> None:
            nonlocal ended_at, right
            async with held(store) as right:
                (mine,) = [item for (_, entry), item in store.account[store.table].items.items() if entry == "lease"]
                mine["holder"] = "another"
                mine["command"] = "momento-etl run"
                try:
                    await asyncio.Event().wait()
                finally:
                    ended_at = clock()

        with pytest.raises(BaseExceptionGroup) as caught:
            await work()
        assert ended_at < LEASE_SECONDS
        (lost,) = caught.value.exceptions
        assert isinstance(lost, LeaseLost)
        assert "was taken over by momento-etl run on" in lost.message
        assert right is not None
        with pytest.raises(LeaseLost):
            right.check()
        found = await store.fetch_lease("movies")
        assert found is not None
        assert found.holder == "another", "it is not ours to give back"

    simulate(body)


def test_who_waits_gets_it_once_it_is_free() -> None:
    async def body() -> None:
        store = Store()
        order = []

        async def work(name: str, seconds: float, wait_seconds: float) -> None:
            async with held(Store(store), wait_seconds=wait_seconds):
                order.append(f"{name} begins")
                await asyncio.sleep(seconds)
                order.append(f"{name} ends")

        first = asyncio.create_task(work("first", 100.0, 0.0))
        await asyncio.sleep(1.0)
        with pytest.raises(LeaseHeld, match="another run of movies is at work"):
            await work("second", 1.0, 50.0)
        assert clock() >= 50
        await work("third", 1.0, 200.0)
        await first
        assert order == ["first begins", "first ends", "third begins", "third ends"]

    simulate(body)


@pytest.mark.parametrize("known_dead", [True, False])
def test_a_holder_that_is_gone_is_taken_over(*, known_dead: bool) -> None:
    class Machine:
        def is_dead(self, process: Process) -> bool:  # noqa: ARG002
            return known_dead

    async def body() -> None:
        store, report = Store(), Report("movies")
        store.processes = Machine()
        gone = Claim("gone", "there", "momento-etl run", Process("boot", 1, "then"))
        assert isinstance(await store.acquire("movies", gone, LeaseWatch()), Taken)
        async with held(store, report, wait_seconds=LEASE_SECONDS + 5) as right:
            assert right.after_death
            took = clock()
        assert took == 0 if known_dead else LEASE_SECONDS <= took <= LEASE_SECONDS + 5
        assert any("momento-etl run" in warning for warning in report.warnings)

    simulate(body)


def test_without_a_state_table_there_is_nothing_to_renew() -> None:
    async def body() -> None:
        async with held(NullState()) as right:
            await asyncio.sleep(1000.0)
            right.check()

    simulate(body)


def test_a_state_table_that_fails_at_once_is_an_error_before_any_work() -> None:
    async def body() -> None:
        store = Store()
        store.errors = [SinkError("denied", hint="ask")]
        with pytest.raises(EtlError, match="denied"):
            async with held(store):
                pytest.fail("it has no lease")

    simulate(body)
