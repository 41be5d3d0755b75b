"""A fifth of all calls to DynamoDB goes wrong, one way or another: nothing is lost, and nothing is taken for done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import boto3
import orjson
import pytest

from etlcli.errors import SinkError
from etlcli.model import CREATE_DEFAULTS, CreateOptions, ItemMark, Key, KeyAttribute, Survey
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.dynamodb import DynamoDBSink
from etlcli.sink.settings import DynamoDBSettings
from etlcli.sink.state import DynamoDBState
from etlcli.state import Claim, Lease, LeaseWatch, RunRecord, Taken, Watermark
from tests.integration.faulty_dynamodb import KINDS, FaultyDynamoDB, Kind

T = TypeVar("T")

KEY = Key(KeyAttribute("id", "N"))
QUICK = RetryPolicy(patience=60.0, base=0.002, ceiling=0.02)
MARK = ItemMark("_mark", "job/", "job/2")


def settings(server: FaultyDynamoDB) -> DynamoDBSettings:
    return DynamoDBSettings(region="us-east-1", endpoint_url=server.url, access_key_id="test", secret_access_key="test")


def items(count: int, mark: str | None = None) -> list[bytes]:
    more = {} if mark is None else {"_mark": {"S": mark}}
    return [orjson.dumps({"id": {"N": str(n)}, "text": {"S": f"row {n}"}, **more}) for n in range(count)]


def with_sink(
    server: FaultyDynamoDB,
    table: str,
    use: Callable[[DynamoDBSink], Awaitable[T]],
    counters: Counters | None = None,
    max_writes: int | None = None,
) -> T:
    async def main() -> T:
        async with DynamoDBSink(
            settings(server),
            table,
            counters or Counters(),
            QUICK,
            max_in_flight=8,
            request_seconds=2.0,
            max_writes=max_writes,
        ) as sink:
            return await use(sink)

    return asyncio.run(main())


def with_state(server: FaultyDynamoDB, table: str, use: Callable[[DynamoDBState], Awaitable[T]]) -> T:
    async def main() -> T:
        async with DynamoDBState(settings(server), table, Counters(), QUICK) as state:
            return await use(state)

    return asyncio.run(main())


async def everything(sink: DynamoDBSink, count: int) -> list[object]:
    return list(await sink.fetch([orjson.dumps({"id": {"N": str(n)}}) for n in range(count)]))


def assert_each_acknowledged_once(server: FaultyDynamoDB, table: str, count: int) -> None:
    """Every item was put once, and once more for each put that nobody was told of."""
    assert server.puts[table] - server.unheard[table] == dict.fromkeys(map(str, range(count)), 1)


@pytest.mark.parametrize("seed", range(2))
def test_every_item_is_acknowledged_once(faulty_dynamodb: FaultyDynamoDB, unique: str, seed: int) -> None:
    wanted, counters = items(3000), Counters()

    async def use(sink: DynamoDBSink) -> list[object]:
        await sink.create(KEY, CreateOptions(ttl_attribute="gone_at"))
        parts = [wanted[start : start + 750] for start in range(0, len(wanted), 750)]
        assert await asyncio.gather(*map(sink.put, parts)) == [[]] * 4
        return await everything(sink, len(wanted))

    faulty_dynamodb.faults(0.2, seed)
    assert with_sink(faulty_dynamodb, unique, use, counters) == [orjson.loads(item) for item in wanted]
    assert counters.rows_loaded == len(wanted)
    assert_each_acknowledged_once(faulty_dynamodb, unique, len(wanted))
    assert faulty_dynamodb.made.total() > 20
    assert counters.throttles == sum(sum(counts.values()) for counts in counters.throttle_reasons.values())


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault_by_itself(faulty_dynamodb: FaultyDynamoDB, unique: str, kind: Kind) -> None:
    wanted, counters = items(400), Counters()

    async def use(sink: DynamoDBSink) -> list[object]:
        await sink.create(KEY, CREATE_DEFAULTS)
        assert await sink.put(wanted) == []
        return await everything(sink, len(wanted))

    faulty_dynamodb.faults(0.5, 7, kinds=[kind], stall_seconds=0.02)
    assert with_sink(faulty_dynamodb, unique, use, counters) == [orjson.loads(item) for item in wanted]
    assert counters.rows_loaded == len(wanted)
    assert_each_acknowledged_once(faulty_dynamodb, unique, len(wanted))
    made = faulty_dynamodb.made[kind]
    assert made >= 8
    assert bool(faulty_dynamodb.unheard[unique]) is (kind in {"lost", "lost_error", "truncated", "damaged"})
    assert (counters.throttles > 0) is (kind in {"throttle", "unprocessed"})
    if kind == "unprocessed":
        assert counters.throttle_reasons["UnprocessedItems"][unique] > 0


def test_an_item_that_is_refused_is_refused_once_and_the_others_arrive(
    faulty_dynamodb: FaultyDynamoDB, unique: str
) -> None:
    bad = orjson.dumps({"id": {"N": "1000"}, "text": {"S": "x" * 500_000}})
    wanted = items(200)

    async def use(sink: DynamoDBSink) -> list[object]:
        await sink.create(KEY, CREATE_DEFAULTS)
        faulty_dynamodb.faults(0.4, 3)
        refusals = await sink.put([*wanted[:100], bad, *wanted[100:]])
        assert [refusal.item for refusal in refusals] == [bad]
        return await everything(sink, len(wanted))

    assert with_sink(faulty_dynamodb, unique, use) == [orjson.loads(item) for item in wanted]
    assert_each_acknowledged_once(faulty_dynamodb, unique, len(wanted))


def test_what_replace_asks_for_is_done_nevertheless(faulty_dynamodb: FaultyDynamoDB, unique: str) -> None:
    spared = [orjson.dumps({"id": {"N": str(n)}}) for n in range(20)]

    async def use(sink: DynamoDBSink) -> list[object]:
        await sink.create(KEY, CREATE_DEFAULTS)
        await sink.put(items(120, "job/1"))
        faulty_dynamodb.faults(0.3, 5)
        # An answer that is lost tells of one less, and the second look finds them all.
        await sink.spare(spared, MARK)
        assert await sink.survey(MARK) == Survey(120, 100)
        await sink.sweep(MARK)
        assert await sink.survey(MARK) == Survey(20, 0)
        return [item for page in [page async for page in sink.scan_keys()] for item in page]

    kept = with_sink(faulty_dynamodb, unique, use, max_writes=1000)
    assert len(kept) == 20


def test_a_table_deleted_in_the_middle_ends_it_at_once(faulty_dynamodb: FaultyDynamoDB, unique: str) -> None:
    counters = Counters()

    async def use(sink: DynamoDBSink) -> None:
        await sink.create(KEY, CREATE_DEFAULTS)
        faulty_dynamodb.faults(0.2, 1)
        # Slowly, so that it is far from its end by then.
        putting = asyncio.create_task(sink.put(items(5000)))
        before = faulty_dynamodb.calls["BatchWriteItem"]
        await asyncio.to_thread(faulty_dynamodb.wait_for, "BatchWriteItem", before + 5)
        await asyncio.to_thread(drop, faulty_dynamodb, unique)
        with pytest.raises(SinkError, match="does not exist") as caught:
            await putting
        assert unique in (caught.value.hint or "")

    with_sink(faulty_dynamodb, unique, use, counters, max_writes=500)
    # Whoever hears of it first ends the others, and no patience is spent on it.
    assert counters.rows_loaded < 5000


def drop(server: FaultyDynamoDB, table: str) -> None:
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=server.target,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.delete_table(TableName=table)
    client.close()


@pytest.mark.parametrize("seed", range(2))
def test_what_is_kept_between_runs_is_kept(faulty_dynamodb: FaultyDynamoDB, unique: str, seed: int) -> None:
    claim = Claim("me", "ada", "momento-etl run")
    runs = [
        RunRecord("movies", f"r{n:03d}", "momento-etl run", "ada", "succeeded", 1_786_700_000.0 + n) for n in range(9)
    ]
    mark = Watermark("updated_at", "date", "2026-08-14", "r", 1_786_700_000.5)

    async def use(state: DynamoDBState) -> None:
        taken = await state.acquire("movies", claim, LeaseWatch())
        assert isinstance(taken, Taken)
        # Two at once, each page noted by both.
        await asyncio.gather(*(state.acknowledge("movies", "r", range(start, 2500, 2)) for start in (0, 1)))
        assert await state.fetch_progress("movies", "r") == frozenset(range(2500))
        renewed = await state.renew(taken.lease)
        assert isinstance(renewed, Lease)
        for run in runs:
            await state.put_run(run)
        assert await state.fetch_runs("movies", 20) == runs[::-1]
        assert await state.move_watermark("movies", mark, 0)
        assert not await state.move_watermark("movies", replace(mark, run_id="s"), 0)
        assert (await state.fetch_watermark("movies")).watermark == mark
        made = await state.ensure_mark("movies")
        assert await state.fetch_mark("movies") == made
        await state.clear_progress("movies", "r")
        assert await state.fetch_progress("movies", "r") == frozenset()
        await state.release(renewed)
        assert await state.fetch_lease("movies") is None

    faulty_dynamodb.faults(0.2, seed)
    with_state(faulty_dynamodb, unique, use)
    assert faulty_dynamodb.made.total() > 3
