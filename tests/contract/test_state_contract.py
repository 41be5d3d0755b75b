"""What every state store does: the in-memory one, and DynamoDB's over HTTP.

The server is the embedded stack's, unless ``MOMENTO_ETL_TEST_DYNAMODB`` names another.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import asdict, replace
from typing import Any, Protocol, TypeVar

import boto3
import pytest

from etlcli.errors import EtlError, SinkError, UsageError
from etlcli.model import Key, KeyAttribute
from etlcli.ports import StateStore
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink import state as adapter
from etlcli.sink.connect import Connection, connect
from etlcli.sink.settings import DynamoDBSettings
from etlcli.sink.state import DynamoDBState
from etlcli.sink.state_table import _attribute, _decoded
from etlcli.state import (
    STATE_KEY,
    Claim,
    Held,
    Lease,
    LeaseWatch,
    Lost,
    Process,
    RunRecord,
    SchemaColumn,
    Standing,
    Taken,
    Watermark,
    WatermarkEntry,
)
from tests.contract.fakes.state import FakeState, FakeStateTable

T = TypeVar("T")
Store = AbstractAsyncContextManager[StateStore]

JOB = "movies"
RUN = "20260814T101502123Z-7f3a"
OTHER_KEYS = [
    Key(KeyAttribute("job", "S")),
    Key(KeyAttribute("job", "S"), KeyAttribute("entry", "N")),
    Key(KeyAttribute("movie_id", "N")),
]


class Machine:
    """A host's clocks and processes, moved by the tests alone."""

    def __init__(self, now: float = 1_786_700_000.0) -> None:
        self.steady = 1000.0
        self.now = now
        self.dead: set[Process] = set()

    def is_dead(self, process: Process) -> bool:
        return process in self.dead

    def clock(self) -> float:
        return self.steady

    def wall(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.steady += seconds
        self.now += seconds


class House(Protocol):
    """An implementation, and a door behind its back."""

    def store(self, table: str, machine: Machine | None = None) -> Store: ...

    def make_table(self, table: str, key: Key) -> None: ...

    def drop_table(self, table: str) -> None: ...

    def plant(self, table: str, item: dict[str, Any]) -> None: ...

    def items(self, table: str) -> list[dict[str, Any]]: ...


class FakeHouse:
    def __init__(self) -> None:
        self.account: dict[str, FakeStateTable] = {}

    def store(self, table: str, machine: Machine | None = None) -> Store:
        machine = machine or Machine()
        return FakeState(table, self.account, processes=machine, clock=machine.clock, wall=machine.wall)

    def make_table(self, table: str, key: Key) -> None:
        self.account[table] = FakeStateTable(key)

    def drop_table(self, table: str) -> None:
        del self.account[table]

    def plant(self, table: str, item: dict[str, Any]) -> None:
        self.account[table].items[item["job"], item["entry"]] = item

    def items(self, table: str) -> list[dict[str, Any]]:
        return list(self.account[table].items.values())


class DynamoDBHouse:
    def __init__(self, endpoint: str) -> None:
        self.settings = DynamoDBSettings(
            region="us-east-1", endpoint_url=endpoint, access_key_id="testing", secret_access_key="testing"
        )
        self.client = boto3.client(
            "dynamodb",
            region_name="us-east-1",
            endpoint_url=endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def store(self, table: str, machine: Machine | None = None) -> Store:
        machine = machine or Machine()
        return DynamoDBState(
            self.settings,
            table,
            Counters(),
            RetryPolicy(patience=5.0, base=0.01),
            processes=machine,
            clock=machine.clock,
            wall=machine.wall,
        )

    def make_table(self, table: str, key: Key) -> None:
        self.client.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": it.name, "AttributeType": it.type} for it in key.attributes],
            KeySchema=[
                {"AttributeName": it.name, "KeyType": role}  # type: ignore[typeddict-item]
                for it, role in zip(key.attributes, ("HASH", "RANGE"), strict=False)
            ],
        )
        self.client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})

    def drop_table(self, table: str) -> None:
        self.client.delete_table(TableName=table)
        self.client.get_waiter("table_not_exists").wait(TableName=table, WaiterConfig={"Delay": 1})

    def plant(self, table: str, item: dict[str, Any]) -> None:
        self.client.put_item(TableName=table, Item=_attribute(item)["M"])

    def items(self, table: str) -> list[dict[str, Any]]:
        pages = self.client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        return [_decoded(item) for page in pages for item in page["Items"]]


@pytest.fixture(params=["fake", "dynamodb"])
def house(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    if request.param == "fake":
        yield FakeHouse()
        return
    if "MOMENTO_ETL_TEST_DYNAMODB" not in os.environ:
        # moto serves each request in a thread and has no locks: now and then two conditional writes both succeed, or
        # one of two additions is lost, which DynamoDB rules out. So requests go one by one, in any order.
        monkeypatch.setattr(adapter, "connect", one_by_one)
    real = DynamoDBHouse(request.getfixturevalue("stack").dynamodb_url)
    yield real
    real.client.close()


_turn = threading.Lock()


def one_by_one(settings: DynamoDBSettings, answer_seconds: float) -> Connection:
    connection = connect(settings, answer_seconds)
    session: Any = connection.client._endpoint.http_session  # type: ignore[attr-defined]
    send = session.send

    def alone(request: Any) -> Any:
        with _turn:
            return send(request)

    session.send = alone
    return connection


@pytest.fixture
def table(house: House) -> Iterator[str]:
    name = f"etl-state-{secrets.token_hex(6)}"
    yield name
    if isinstance(house, DynamoDBHouse):
        try:
            house.client.delete_table(TableName=name)
        except house.client.exceptions.ResourceNotFoundException:
            return


def within(store: Store, use: Callable[[StateStore], Awaitable[T]]) -> T:
    async def main() -> T:
        async with store as opened:
            return await use(opened)

    return asyncio.run(main())


def claim(holder: str | None = None, process: Process | None = None) -> Claim:
    return Claim(holder or secrets.token_hex(8), "ada", "momento-etl run --table movies", process)


def taken(answer: Taken | Held) -> Lease:
    assert isinstance(answer, Taken)
    return answer.lease


def watermark(value: str, run_id: str = RUN) -> Watermark:
    return Watermark("updated_at", "timestamp with time zone", value, run_id, 1_786_700_000.25)


def run_record(job: str = JOB, number: int = 1, **changes: Any) -> RunRecord:
    record = RunRecord(
        job=job,
        run_id=f"20260814T10150{number:04d}Z-7f3a",
        command="momento-etl run --table movies",
        host="ada",
        status="running",
        started_at=1_786_700_000.5 + number,
    )
    return replace(record, **changes)


# --- The table


def test_the_table_is_made_once(house: House, table: str) -> None:
    async def use(store: StateStore) -> None:
        assert store.table == table
        assert await store.prepare()
        assert not await store.prepare()

    within(house.store(table), use)
    assert within(house.store(table), lambda store: store.prepare()) is False


def test_two_make_it_at_once(house: House, table: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(house.store(table)) for _ in range(4)]
            await asyncio.gather(*(store.prepare() for store in stores))
            await asyncio.gather(*(store.ensure_mark(JOB) for store in stores))

    asyncio.run(main())
    assert len(house.items(table)) == 1


def test_a_table_made_beforehand_will_do(house: House, table: str) -> None:
    house.make_table(table, STATE_KEY)

    async def use(store: StateStore) -> None:
        assert not await store.prepare()
        assert isinstance(await store.acquire(JOB, claim(), LeaseWatch()), Taken)

    within(house.store(table), use)


@pytest.mark.parametrize("key", OTHER_KEYS, ids=str)
def test_a_table_with_another_key_is_an_error_that_shows_both(house: House, table: str, key: Key) -> None:
    house.make_table(table, key)
    uses: list[Callable[[StateStore], Awaitable[object]]] = [
        lambda store: store.prepare(),
        lambda store: store.acquire(JOB, claim(), LeaseWatch()),
        lambda store: store.fetch_runs(None, 10),
        lambda store: store.acknowledge(JOB, RUN, [1]),
    ]

    async def main(store: StateStore) -> None:
        for use in uses:
            with pytest.raises(UsageError) as caught:
                await use(store)
            assert str(key) in caught.value.message
            assert str(STATE_KEY) in caught.value.message
            assert caught.value.hint

    within(house.store(table), main)
    assert house.items(table) == []


@pytest.mark.parametrize("name", ["ab", "no/slash", "", "zustände"])
def test_a_name_that_is_none_is_an_error(house: House, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        within(house.store(name), lambda store: store.prepare())
    assert caught.value.hint


def test_reading_makes_no_table_and_finds_nothing(house: House, table: str) -> None:
    async def use(store: StateStore) -> None:
        assert await store.fetch_lease(JOB) is None
        assert await store.fetch_watermark(JOB) == WatermarkEntry()
        assert await store.fetch_mark(JOB) is None
        assert await store.fetch_run(JOB, RUN) is None
        assert await store.fetch_runs(JOB, 5) == []
        assert await store.fetch_runs(None, 5) == []
        assert await store.fetch_jobs() == []
        assert await store.fetch_progress(JOB, RUN) == frozenset()
        await store.clear_progress(JOB, RUN)
        await store.reset_watermark(JOB)
        assert await store.prepare(), "it was not there"

    within(house.store(table), use)


def test_a_table_deleted_in_the_middle_is_an_error(house: House, table: str) -> None:
    async def use(store: StateStore) -> None:
        lease = taken(await store.acquire(JOB, claim(), LeaseWatch()))
        await asyncio.to_thread(house.drop_table, table)
        for call in (
            store.renew(lease),
            store.acknowledge(JOB, RUN, [1]),
            store.fetch_progress(JOB, RUN),
            store.put_run(run_record()),
            store.fetch_runs(None, 1),
            store.move_watermark(JOB, watermark("1"), 0),
            store.release(lease),
        ):
            with pytest.raises(SinkError, match="gone") as caught:
                await call
            assert caught.value.hint

    within(house.store(table), use)


# --- Leases


def test_a_lease_is_held_by_one(house: House, table: str) -> None:
    process = Process("boot", 4711, "99")

    async def use(store: StateStore) -> None:
        first = await store.acquire(JOB, claim("one", process), LeaseWatch())
        assert isinstance(first, Taken)
        assert first.standing is Standing.FREE
        second = await store.acquire(JOB, claim("two"), LeaseWatch())
        assert isinstance(second, Held)
        assert (second.record.holder, second.record.host, second.record.process) == ("one", "ada", process)
        assert second.record.since == 1_786_700_000
        assert second.record.expires_at == 1_786_700_030
        assert second.seconds_left == 30
        assert not second.seems_abandoned
        assert "momento-etl run --table movies, on ada (pid 4711), since 2026-08-14 " in str(second)
        assert await store.fetch_lease(JOB) == second.record
        assert isinstance(await store.acquire("actors", claim(), LeaseWatch()), Taken), "another job"

    within(house.store(table), use)


def test_a_lease_is_renewed_and_released(house: House, table: str) -> None:
    machine = Machine()

    async def use(store: StateStore) -> None:
        lease = taken(await store.acquire(JOB, claim(), LeaseWatch()))
        assert lease.renewed_at == machine.steady
        machine.pass_by(7)
        renewed = await store.renew(lease)
        assert isinstance(renewed, Lease)
        assert renewed.renewed_at == machine.steady
        record = await store.fetch_lease(JOB)
        assert record is not None
        assert (record.renewals, record.expires_at) == (1, machine.now + 30)
        assert await store.release(renewed)
        assert await store.fetch_lease(JOB) is None
        assert not await store.release(renewed), "there is nothing left to release"
        assert await store.renew(renewed) == Lost(JOB, None)
        assert isinstance(await store.acquire(JOB, claim(), LeaseWatch()), Taken)

    within(house.store(table, machine), use)


def test_who_shares_the_holder_shares_the_lease(house: House, table: str) -> None:
    # One Step Functions execution, many functions.
    async def use(store: StateStore) -> None:
        first = taken(await store.acquire(JOB, claim("execution"), LeaseWatch()))
        second = await store.acquire(JOB, claim("execution"), LeaseWatch())
        assert isinstance(second, Taken)
        assert second.standing is Standing.OURS
        assert isinstance(await store.renew(first), Lease)
        assert isinstance(await store.renew(second.lease), Lease)

    within(house.store(table), use)


def test_of_two_at_once_exactly_one_wins(house: House, table: str) -> None:
    async def main() -> None:
        async with house.store(table) as one, house.store(table) as two:
            await one.prepare()
            for number in range(50):
                job = f"job-{number}"
                answers = await asyncio.gather(
                    one.acquire(job, claim("one"), LeaseWatch()), two.acquire(job, claim("two"), LeaseWatch())
                )
                winners = [answer for answer in answers if isinstance(answer, Taken)]
                losers = [answer for answer in answers if isinstance(answer, Held)]
                assert len(winners) == len(losers) == 1
                assert losers[0].record.holder == winners[0].lease.holder

    asyncio.run(main())


def test_of_two_that_take_over_at_once_exactly_one_wins(house: House, table: str) -> None:
    machine = Machine()
    gone = Process("boot", 1, "1")
    machine.dead.add(gone)

    async def main() -> None:
        async with house.store(table, machine) as one, house.store(table, machine) as two:
            for number in range(10):
                job = f"job-{number}"
                taken(await one.acquire(job, claim("killed", gone), LeaseWatch()))
                answers = await asyncio.gather(
                    one.acquire(job, claim("one"), LeaseWatch()), two.acquire(job, claim("two"), LeaseWatch())
                )
                assert sorted(type(answer).__name__ for answer in answers) == ["Held", "Taken"]

    asyncio.run(main())


def test_a_dead_process_of_this_host_loses_its_lease_at_once(house: House, table: str) -> None:
    machine = Machine()
    killed = Process("boot", 4711, "99")

    async def use(store: StateStore) -> None:
        old = taken(await store.acquire(JOB, claim("killed", killed), LeaseWatch()))
        assert isinstance(await store.acquire(JOB, claim("next"), LeaseWatch()), Held)
        machine.dead.add(killed)
        answer = await store.acquire(JOB, claim("next"), LeaseWatch())
        assert isinstance(answer, Taken)
        assert answer.standing is Standing.DEAD
        assert answer.before is not None
        assert answer.before.holder == "killed"
        lost = await store.renew(old)
        assert isinstance(lost, Lost)
        assert lost.to is not None
        assert lost.to.holder == "next"
        assert not await store.release(old)
        assert await store.fetch_lease(JOB) == lost.to, "what is not ours is not released"

    within(house.store(table, machine), use)


def test_elsewhere_it_takes_a_period_of_watching(house: House, table: str) -> None:
    # The dead host's clock was wrong by hours, in either direction: only the watcher's own counts.
    async def main(skew: float, job: str) -> None:
        there, here = Machine(), Machine()
        there.now += skew
        async with house.store(table, there) as dead, house.store(table, here) as store:
            taken(await dead.acquire(job, claim("dead"), LeaseWatch()))
            watch, mine = LeaseWatch(), claim("mine")
            first = await store.acquire(job, mine, watch)
            assert isinstance(first, Held)
            assert first.seems_abandoned, "by the clock it cannot be alive, or says nothing"
            here.pass_by(29.9)
            second = await store.acquire(job, mine, watch)
            assert isinstance(second, Held)
            assert second.seconds_left == pytest.approx(0.1)
            here.pass_by(0.2)
            third = await store.acquire(job, mine, watch)
            assert isinstance(third, Taken)
            assert third.standing is Standing.EXPIRED

    asyncio.run(main(7200.0, "ahead"))
    asyncio.run(main(-7200.0, "behind"))


def test_a_renewed_lease_is_never_taken_over_whatever_the_clocks_say(house: House, table: str) -> None:
    async def main() -> None:
        there, here = Machine(), Machine()
        there.now -= 7200
        async with house.store(table, there) as holder, house.store(table, here) as store:
            lease: Lease | Lost = taken(await holder.acquire(JOB, claim("holder"), LeaseWatch()))
            watch, mine = LeaseWatch(), claim("mine")
            for _ in range(10):
                answer = await store.acquire(JOB, mine, watch)
                assert isinstance(answer, Held)
                here.pass_by(25)
                there.pass_by(25)
                assert isinstance(lease, Lease)
                lease = await holder.renew(lease)
            last = await store.acquire(JOB, mine, watch)
            assert isinstance(last, Held)
            assert not last.seems_abandoned, "it was seen to live"

    asyncio.run(main())


def test_a_lease_taken_anew_is_watched_anew(house: House, table: str) -> None:
    machine = Machine()

    async def use(store: StateStore) -> None:
        watch, mine = LeaseWatch(), claim("mine")
        first = taken(await store.acquire(JOB, claim("first"), LeaseWatch()))
        assert isinstance(await store.acquire(JOB, mine, watch), Held)
        machine.pass_by(20)
        await store.release(first)
        taken(await store.acquire(JOB, claim("second"), LeaseWatch()))
        machine.pass_by(20)
        answer = await store.acquire(JOB, mine, watch)
        assert isinstance(answer, Held)
        assert answer.seconds_left == 30

    within(house.store(table, machine), use)


def test_long_words_do_not_keep_a_lease_from_being_taken(house: House, table: str) -> None:
    async def use(store: StateStore) -> None:
        long = Claim("me", "h" * 500_000, "é" * 500_000)
        taken(await store.acquire(JOB, long, LeaseWatch()))
        record = await store.fetch_lease(JOB)
        assert record is not None
        assert record.command.startswith("ééé")
        assert record.command.endswith("(1,000,000 bytes in all)")

    within(house.store(table), use)


# --- Progress


def test_progress_is_what_was_acknowledged(house: House, table: str) -> None:
    async def use(store: StateStore) -> None:
        assert await store.fetch_progress(JOB, RUN) == frozenset()
        await store.acknowledge(JOB, RUN, [3, 1, 999])
        await store.acknowledge(JOB, RUN, [])
        await store.acknowledge(JOB, RUN, [1, 1000, 123_456])
        assert await store.fetch_progress(JOB, RUN) == {1, 3, 999, 1000, 123_456}
        assert await store.fetch_progress(JOB, "another-run") == frozenset()
        assert await store.fetch_progress("actors", RUN) == frozenset()
        await store.clear_progress(JOB, RUN)
        assert await store.fetch_progress(JOB, RUN) == frozenset()
        await store.clear_progress(JOB, RUN)

    within(house.store(table), use)


def test_two_writers_of_one_run_lose_nothing(house: House, table: str) -> None:
    chunks = list(range(800, 1200))
    random.shuffle(chunks)

    async def main() -> None:
        async with house.store(table) as one, house.store(table) as two:
            await one.prepare()

            async def write(store: StateStore, mine: list[int]) -> None:
                for start in range(0, len(mine), 10):
                    await store.acknowledge(JOB, RUN, mine[start : start + 10])

            await asyncio.gather(write(one, chunks[::2]), write(two, chunks[1::2]), write(two, chunks[:50]))
            assert await one.fetch_progress(JOB, RUN) == set(chunks)

    asyncio.run(main())


def test_a_whole_page_is_small(house: House, table: str) -> None:
    within(house.store(table), lambda store: store.acknowledge(JOB, RUN, range(2000)))
    assert len(house.items(table)) == 2
    assert within(house.store(table), lambda store: store.fetch_progress(JOB, RUN)) == set(range(2000))


async def _progress_among(among: range, store: StateStore) -> frozenset[int]:
    return await store.fetch_progress(JOB, RUN, among)


def test_progress_among_some_chunks_alone(house: House, table: str) -> None:
    chunks = {0, 998, 999, 1000, 1999, 2000, 63_999, 64_000, 64_001, 127_999, 128_000}
    within(house.store(table), lambda store: store.acknowledge(JOB, RUN, chunks))
    within(house.store(table), lambda store: store.acknowledge(JOB, f"{RUN}~", [64_000]))  # of another run
    for among in (range(64_000), range(64_000, 128_000), range(1, 1000), range(999, 1001), range(200_000, 200_001)):
        ask = functools.partial(_progress_among, among)
        assert within(house.store(table), ask) == chunks & set(among)


# --- History


def test_a_run_is_written_at_its_start_and_when_it_is_over(house: House, table: str) -> None:
    started = run_record(columns=(SchemaColumn("movie_id", "integer"), SchemaColumn('Titel "x"', "text")))
    over = replace(
        started,
        status="failed",
        ended_at=1_786_700_100.75,
        counts={"rows_loaded": 12_345_678_901, "duration_seconds": 0.001},
        error="DynamoDB refuses",
        hint="ask it nicely",
    )

    async def use(store: StateStore) -> None:
        await store.put_run(started)
        assert await store.fetch_runs(JOB, 5) == [started]
        await store.put_run(over)
        assert await store.fetch_run(JOB, started.run_id) == over
        assert await store.fetch_runs(JOB, 5) == [over]

    within(house.store(table), use)


def test_a_beginning_that_arrives_late_changes_nothing(house: House, table: str) -> None:
    started = run_record()
    over = replace(started, status="succeeded", ended_at=started.started_at + 9, counts={"rows_loaded": 7})
    # The same extraction, loaded once more.
    again = replace(started, command="load", started_at=started.started_at + 3600)
    again_over = replace(again, status="failed", ended_at=again.started_at + 1)

    async def use(store: StateStore) -> None:
        for record, found in [
            (over, over),
            (started, over),
            (again, again),
            (over, over),
            (again, again),
            (again_over, again_over),
            (again, again_over),
            (started, again_over),
        ]:
            await store.put_run(record)
            assert await store.fetch_run(JOB, started.run_id) == found

    within(house.store(table), use)


def test_a_run_is_found_without_its_job(house: House, table: str) -> None:
    async def use(store: StateStore) -> None:
        assert await store.fetch_run(None, RUN) is None
        for number, job in enumerate(("actors", "movies", "#jobs", "odd/one")):
            await store.put_run(run_record(job, number))
        for number, job in enumerate(("actors", "movies", "#jobs", "odd/one")):
            found = await store.fetch_run(None, run_record(number=number).run_id)
            assert found == run_record(job, number)
        assert await store.fetch_run(None, RUN) is None

    within(house.store(table), use)


def test_the_newest_runs_come_first(house: House, table: str) -> None:
    numbers = list(range(12))
    random.shuffle(numbers)

    async def use(store: StateStore) -> None:
        for number in numbers:
            await store.put_run(run_record("even" if number % 2 == 0 else "odd", number))
        await store.acknowledge("even", RUN, [1])
        await store.put_run(run_record("#jobs", 99))

        async def listed(job: str | None, limit: int) -> list[tuple[str, float]]:
            return [(run.job, run.started_at - 1_786_700_000.5) for run in await store.fetch_runs(job, limit)]

        assert await listed("odd", 3) == [("odd", 11), ("odd", 9), ("odd", 7)]
        assert await listed("odd", 100) == [("odd", number) for number in (11, 9, 7, 5, 3, 1)]
        assert await listed(None, 4) == [("#jobs", 99), ("odd", 11), ("even", 10), ("odd", 9)]
        assert len(await listed(None, 100)) == 13
        assert await listed("none", 3) == []
        assert await listed(None, 0) == []
        assert await store.fetch_jobs() == ["#jobs", "even", "odd"]

    within(house.store(table), use)


def test_a_long_history_is_read_to_its_end(house: House, table: str) -> None:
    # Over 1 MB, which is where DynamoDB ends a page of a query.
    columns = tuple(SchemaColumn(f"c{number}" + "x" * 55, "text") for number in range(1600))

    async def use(store: StateStore) -> None:
        for number in range(12):
            await store.put_run(run_record(number=number, columns=columns))
        runs = await store.fetch_runs(JOB, 11)
        assert [run.started_at for run in runs] == sorted((run.started_at for run in runs), reverse=True)
        assert len(runs) == 11
        assert all(run.columns == columns for run in runs)

    within(house.store(table), use)


def test_what_is_too_long_is_cut_with_a_note(house: House, table: str) -> None:
    columns = tuple(SchemaColumn("ü" * 63, "x" * 500) for _ in range(1600))
    record = run_record(error="E" * 3_000_000, hint="H" * 3_000_000, command="ö" * 500_000, columns=columns)

    async def use(store: StateStore) -> None:
        await store.put_run(record)
        found = await store.fetch_run(JOB, record.run_id)
        assert found is not None
        assert found.error is not None
        assert found.error.startswith("EEE")
        assert found.error.endswith("(3,000,000 bytes in all)")
        assert found.columns == ()
        assert sorted(note.split()[0] for note in found.notes) == ["command", "error", "hint", "the"]

    within(house.store(table), use)


# --- Watermarks and marks


def test_a_watermark_is_moved_and_reset(house: House, table: str) -> None:
    async def use(store: StateStore) -> None:
        assert await store.fetch_watermark(JOB) == WatermarkEntry(0, None)
        assert await store.move_watermark(JOB, watermark("2026-08-13 10:00:00+00"), 0)
        assert await store.fetch_watermark(JOB) == WatermarkEntry(1, watermark("2026-08-13 10:00:00+00"))
        assert await store.move_watermark(JOB, watermark("2026-08-14 10:00:00+00"), 1)
        assert not await store.move_watermark(JOB, watermark("2026-08-13 12:00:00+00", "slow-run"), 1)
        assert await store.fetch_watermark(JOB) == WatermarkEntry(2, watermark("2026-08-14 10:00:00+00"))
        assert (await store.fetch_watermark("actors")).watermark is None
        await store.reset_watermark(JOB)
        entry = await store.fetch_watermark(JOB)
        assert entry == WatermarkEntry(3, None)
        assert not await store.move_watermark(JOB, watermark("before the reset"), 2)
        assert not await store.move_watermark(JOB, watermark("long before the reset"), 0)
        assert await store.move_watermark(JOB, watermark("after"), entry.version)

    within(house.store(table), use)


def test_a_watermark_tells_where_it_is_from_and_older_ones_do_not(house: House, table: str) -> None:
    known = replace(watermark("5"), source="db:5432/shop movies", destination="movies", fingerprint="ab12")
    older = {name: value for name, value in asdict(watermark("5")).items() if value}

    async def use(store: StateStore) -> None:
        house.plant(table, {"job": JOB, "entry": "watermark", "format": 1, "version": 4, **older})
        assert await store.fetch_watermark(JOB) == WatermarkEntry(4, watermark("5"))
        assert await store.move_watermark(JOB, known, 4)
        assert await store.fetch_watermark(JOB) == WatermarkEntry(5, known)
        await store.reset_watermark(JOB)
        assert await store.fetch_watermark(JOB) == WatermarkEntry(6, None)

    house.make_table(table, STATE_KEY)
    within(house.store(table), use)


def test_of_two_that_move_a_watermark_exactly_one_does(house: House, table: str) -> None:
    async def main() -> None:
        async with house.store(table) as one, house.store(table) as two:
            await one.prepare()
            for version in range(20):
                moved = await asyncio.gather(
                    one.move_watermark(JOB, watermark(f"one {version}", "one"), version),
                    two.move_watermark(JOB, watermark(f"two {version}", "two"), version),
                )
                assert sorted(moved) == [False, True]
                entry = await one.fetch_watermark(JOB)
                winner = "one" if moved[0] else "two"
                assert entry == WatermarkEntry(version + 1, watermark(f"{winner} {version}", winner))

    asyncio.run(main())


def test_a_mark_is_made_once(house: House, table: str) -> None:
    async def main() -> None:
        async with house.store(table) as one, house.store(table) as two:
            marks = await asyncio.gather(*(store.ensure_mark(JOB) for store in (one, two, one, two)))
            assert len(set(marks)) == 1
            assert await two.fetch_mark(JOB) == marks[0]
            assert (await one.ensure_mark("actors")).id != marks[0].id

    asyncio.run(main())


# --- From the future, and damaged


ENTRIES = ["lease", "watermark", "mark", f"run#{RUN}", f"progress#{RUN}#000000"]
READS: dict[str, list[Callable[[StateStore], Awaitable[object]]]] = {
    "lease": [lambda store: store.fetch_lease(JOB), lambda store: store.acquire(JOB, claim(), LeaseWatch())],
    "watermark": [lambda store: store.fetch_watermark(JOB)],
    "mark": [lambda store: store.fetch_mark(JOB), lambda store: store.ensure_mark(JOB)],
    "run": [
        lambda store: store.fetch_run(JOB, RUN),
        lambda store: store.fetch_runs(JOB, 1),
        lambda store: store.fetch_runs(None, 1),
    ],
    "progress": [lambda store: store.fetch_progress(JOB, RUN)],
}
WRITES: dict[str, list[Callable[[StateStore], Awaitable[object]]]] = {
    "lease": [],
    "watermark": [
        lambda store: store.reset_watermark(JOB),
        lambda store: store.move_watermark(JOB, watermark("x"), 0),
    ],
    "mark": [],
    "run": [lambda store: store.put_run(run_record(run_id=RUN))],
    "progress": [lambda store: store.acknowledge(JOB, RUN, [1])],
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_of_a_newer_format_is_refused_and_left_alone(house: House, table: str, entry: str) -> None:
    item = {"job": JOB, "entry": entry, "format": 2, "chunks": {5}, "holder": "me", "renewals": 1, "version": 7}
    house.make_table(table, STATE_KEY)
    house.plant(table, item)
    house.plant(table, {"job": "#jobs", "entry": JOB, "format": 1})
    kind = entry.partition("#")[0]

    async def main(store: StateStore) -> None:
        for use in READS[kind] + WRITES[kind]:
            with pytest.raises(SinkError, match="newer momento-etl") as caught:
                await use(store)
            assert JOB in caught.value.message
            assert caught.value.hint

    within(house.store(table), main)
    assert item in house.items(table)


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_damaged_entry_is_an_error(house: House, table: str, entry: str) -> None:
    house.make_table(table, STATE_KEY)
    house.plant(table, {"job": "#jobs", "entry": JOB, "format": 1})
    damages: list[dict[str, Any]] = [
        {},
        {"format": "one"},
        {"format": 1},
        {"format": 1, "schema": "{", "version": 1, "value": "half of it"},
    ]

    async def main(store: StateStore) -> None:
        for damage in damages:
            house.plant(table, {**damage, "job": JOB, "entry": entry})
            for use in READS[entry.partition("#")[0]]:
                with pytest.raises(EtlError, match="damaged") as caught:
                    await use(store)
                assert caught.value.hint

    within(house.store(table), main)
