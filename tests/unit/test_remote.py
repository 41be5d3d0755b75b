"""What a run by the Lambda functions would do: as the functions do it, and as the README reckons it."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import replace
from decimal import Decimal
from hashlib import sha512
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.block import MOST_BLOCKS
from etlcli.blocks.planning import ROWS_PER_RANGE, Shares, Spread, count_blocks, cut
from etlcli.cache.packed import TARGET_STORED_BYTES
from etlcli.cli.render_remote import remote_text
from etlcli.config import load_settings
from etlcli.encoding import PLAIN
from etlcli.forecast import (
    DEFAULT_LIMITS,
    Forecast,
    Limits,
    Remote,
    as_if,
    figures,
    make_bill,
    make_remote_bill,
    rehearse,
    remote_of,
    work_of,
)
from etlcli.forecast import remote as forecasting
from etlcli.forecast.remote import CALL_LIMIT_SECONDS, COLD_SECONDS, EXECUTION_SECONDS, MEMORY_MB, MOST_ROUNDS, Work
from etlcli.model import Job
from etlcli.report import Report
from tests.aws.rights import Template
from tests.contract.fakes.sink import FakeSink
from tests.contract.fakes.source import FakeSource, Row
from tests.contract.fakes.state import FakeState
from tests.integration.in_blocks import Driver
from tests.integration.world import JOB, MOVIES, bounded, fake_world, momento, movies
from tests.unit.test_render import drawn

ROOT = Path(__file__).parents[2]
AWS = ROOT / "etlcli" / "aws"
PRICES = load_settings(environ={}).prices


def work(rows: int, *, encoded: int = 475, stored: int = 42, **changes: Any) -> Work:
    """So many rows, each of so many bytes."""
    chunks = ceil(rows * stored / figures.FULL_CHUNK_BYTES)
    found = Work(
        rows=rows,
        table_rows=rows,
        bytes_encoded=rows * encoded,
        bytes_stored=rows * stored,
        chunks=chunks,
        chunk_operations=2 * rows * stored // 1024 + chunks,
        write_units=rows,
    )
    return replace(found, **changes)


# The README's billion rows

BILLION = work(1_000_000_000)
FAST = Limits(momento_operations=5000, write_units=40_000)


def arithmetic(remote: Remote) -> str:
    """Reckon the plan for a billion rows as one would on paper; each line follows from those above it."""
    rows, encoded, stored, at_once, room = 1_000_000_000, 475, 42, 10, 80_000_000
    ranges = rows // ROWS_PER_RANGE
    each = ranges // MOST_BLOCKS
    chunk = TARGET_STORED_BYTES * 13 // 12
    chunks_of_range = ceil(ROWS_PER_RANGE * stored / chunk)
    chunks = ranges * chunks_of_range
    chunk_bytes = rows * stored // chunks
    share, kept = room // 2 // at_once, room // 2 // MOST_BLOCKS
    fits = share // chunk_bytes
    assert (share + kept) // chunk_bytes == fits
    rounds = ceil(each * chunks_of_range / fits)
    half = rows * encoded / MOST_BLOCKS / 30_000_000
    block = 2 * rounds * 0.5 + 2 * half
    functions = MOST_BLOCKS / at_once * block
    moved = 2 * rows * stored // 1024 + chunks
    beside = remote.momento_operations - moved
    assert 0 < beside < 0.02 * moved
    operations = moved + beside
    momento, writes = operations / 5000, rows / 40_000
    seconds = writes + 12
    calls = 2 * rounds * MOST_BLOCKS + 2
    paid = at_once * writes + (2 * at_once + 2) * 3
    gb = paid * 1769 / 1024
    transitions = 4 + MOST_BLOCKS * (2 + 3 * rounds)
    costs = [
        rows / 1e6 * 0.625,
        operations * 1024 / 2**30 * 0.05,
        gb / 1e6 * 13.3334 + calls / 1e6 * 0.20,
        transitions / 1000 * 0.025,
    ]
    found = (remote.ranges, remote.blocks, remote.chunks, remote.rounds, remote.lambda_calls, remote.transitions)
    assert found == (ranges, MOST_BLOCKS, chunks, rounds, calls, transitions)
    assert remote.shares.cached_bytes == share
    assert (remote.block_seconds, remote.functions_seconds) == pytest.approx((block, functions))
    assert (remote.momento_seconds, remote.write_seconds, remote.seconds) == pytest.approx((momento, writes, seconds))
    assert remote.gb_seconds == pytest.approx(gb)
    bill = make_remote_bill(remote, PRICES)
    parts = [bill.services.dynamodb_write, bill.services.momento_transfer, bill.lambda_compute + bill.lambda_requests]
    assert [float(part) for part in (*parts, bill.state_transitions)] == pytest.approx(costs)
    assert float(bill.total) == pytest.approx(sum(costs))
    lines = [
        ("ranges", f"{rows:,} rows / {ROWS_PER_RANGE:,} = {ranges:,}"),
        ("blocks", f"{ranges:,} / {MOST_BLOCKS:,} = {each} ranges each"),
        ("chunks", f"{ROWS_PER_RANGE:,} * {stored} B / {chunk:,} B = {chunks_of_range} a range; {chunks:,} in all"),
        ("a share", f"{room:,} B / 2 / {at_once} at once = {share:,} B, {fits} chunks of {chunk_bytes:,} B"),
        ("rounds", f"{each} * {chunks_of_range} chunks / {fits} = {rounds} a block, two calls each"),
        ("a block", f"{2 * rounds} calls * 0.5 s + 2 * 1,000,000 * {encoded} B / 30 MB/s = {block:.1f} s"),
        ("functions", f"{MOST_BLOCKS:,} / {at_once} * {block:.1f} s = {functions:,.0f} s"),
        ("operations", f"2 * {rows:,} * {stored} B / 1,024 B + {chunks:,} + {beside:,} beside = {operations:,}"),
        ("Momento", f"{operations:,} / 5,000 a second = {momento:,.0f} s"),
        ("DynamoDB", f"{rows:,} / 40,000 a second = {writes:,.0f} s, the longest"),
        ("time", f"{writes:,.0f} s + 4 cold starts * 3 s = {seconds:,.0f} s = {seconds / 3600:.1f} h"),
        (
            "paid",
            f"{at_once} * {writes:,.0f} s + {2 * at_once + 2} * 3 s = {paid:,.0f} s; * 1,769 / 1,024 GB = {gb:,.0f}",
        ),
        ("transitions", f"4 + {MOST_BLOCKS:,} * (2 + 3 * {rounds}) = {transitions:,}"),
        ("cost", " + ".join(f"${cost:,.2f}" for cost in costs) + f" = ${sum(costs):,.2f}"),
    ]
    return "".join(f"{name:<13}{line}\n" for name, line in lines)


def test_the_plan_for_a_billion_rows_is_the_readmes() -> None:
    remote = remote_of(BILLION, JOB, Spread(), FAST)
    shown = drawn(remote_text(remote, make_remote_bill(remote, PRICES), exact=False), 90)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for text in ("\n".join(line.rstrip() for line in shown).strip(), arithmetic(remote)):
        assert text in readme, f"the README should have:\n{text}"


# As the functions do it


def test_it_is_spread_as_the_plan_function_spreads_it() -> None:
    async def scenario() -> None:
        for spread in (Spread(3, 4), Spread(10, 4), Spread(2, 1), Spread(3, 30)):
            world = fake_world(movies(300), job=replace(JOB, max_cached_bytes=3_000_000, max_writes=600))
            planned = await Driver(world, spread=spread).plan()
            remote = remote_of(work(300), world.job, spread, DEFAULT_LIMITS)
            call = planned.call
            assert (remote.ranges, remote.blocks, remote.concurrency) == (
                planned.ranges,
                len(planned.blocks),
                planned.concurrency,
            )
            assert (remote.shares.cached_bytes, remote.shares.kept_bytes, remote.shares.max_writes) == (
                call.cached_bytes,
                call.kept_bytes,
                call.max_writes,
            )

    bounded(scenario)


def long_rows(count: int) -> list[Row]:
    """Rows of which a few thousand fill chunks."""
    return [(str(n), "".join(sha512(f"{n}{part}".encode()).hexdigest() for part in "abc"), None) for n in range(count)]


async def forecast_of(rows: list[Row]) -> Forecast:
    source = FakeSource(replace(MOVIES, estimated_rows=len(rows)), rows)
    report = Report("movies")
    return await rehearse(
        JOB, PLAIN, source, None, FakeSink("movies", report.counters, {}), FakeState(), report, exact=True
    )


@pytest.mark.parametrize(("ranges", "share"), [(3, None), (8, None), (2, 1), (2, 600_000)])
def test_calls_and_operations_are_those_that_a_run_comes_to(
    monkeypatch: pytest.MonkeyPatch, ranges: int, share: int | None
) -> None:
    rows, spread = long_rows(8000), Spread(2, ranges)
    if share is not None:
        shares = Shares(concurrency=1, cached_bytes=share, kept_bytes=0, max_writes=None)
        monkeypatch.setattr(forecasting, "share_out", lambda *_: shares)

    async def scenario() -> None:
        async with momento() as world:
            world.source = FakeSource(MOVIES, rows)
            remote = remote_of(work_of(await forecast_of(rows)), JOB, spread, DEFAULT_LIMITS)
            driver = Driver(world, spread=spread, share=share, kept=None if share is None else 0)
            done = await driver.run()
            assert done.manifest is not None
            assert remote.chunks == done.manifest.totals.chunks >= 6
            assert remote.blocks * (remote.rounds + remote.loads) == sum(driver.calls.values())
            assert remote.momento_operations == pytest.approx(world.counters.momento_operations, rel=0.03)

    bounded(scenario)


def test_what_it_knows_of_the_functions_is_so() -> None:
    template = Template(AWS / "template.yaml", {}).content
    assert template["Parameters"]["MemorySize"]["Default"] == MEMORY_MB
    assert template["Parameters"]["Timeout"]["Default"] - 20 == CALL_LIMIT_SECONDS
    machine = json.loads((AWS / "state_machine.asl.json").read_text(encoding="utf-8"))
    assert machine["TimeoutSeconds"] == EXECUTION_SECONDS
    # Each state that a run without failures enters, and each execution's start.
    outer, state = [], machine["StartAt"]
    while state is not None:
        outer.append(state)
        state = machine["States"][state].get("Next")
    inner = machine["States"]["Each block"]["ItemProcessor"]
    loop, state = [], inner["StartAt"]
    while "Choices" not in inner["States"][state]:
        loop.append(state)
        state = inner["States"][state]["Next"]
    loop.append(state)
    ends = [inner["States"][state]["Default"]]
    assert "Next" not in inner["States"][ends[0]]
    one = remote_of(work(10), JOB, Spread(), DEFAULT_LIMITS)
    assert (one.blocks, one.rounds) == (1, 1)
    assert one.transitions == (len(outer) + 1) + (len(loop) + len(ends) + 1)
    more = replace(one, blocks=7, rounds=5, loads=5)
    assert more.transitions == (len(outer) + 1) + 7 * (5 * len(loop) + len(ends) + 1)


@given(ranges=st.integers(1, 5000), most=st.integers(1, 1000))
def test_blocks_are_counted_as_they_are_cut(ranges: int, most: int) -> None:
    assert count_blocks(ranges, most) == len(cut([None] * (ranges + 1), most=most))


# What bounds it


@given(
    rows=st.integers(0, 10**10),
    at_once=st.integers(1, 200),
    operations=st.integers(1, 10**6),
    units=st.integers(1, 10**5),
    room=st.integers(1_000_000, 10**10),
    stored=st.integers(1, 300),
)
def test_it_is_never_faster_than_anything_that_bounds_it(
    rows: int, at_once: int, operations: int, units: int, room: int, stored: int
) -> None:
    job = replace(JOB, max_cached_bytes=room)
    remote = remote_of(work(rows, stored=stored), job, Spread(at_once), Limits(operations, units))
    assert remote.seconds >= max(rows / units, 2 * rows * stored / 1024 / operations - 1)
    assert 1 <= remote.enough <= remote.concurrency <= at_once
    assert remote.concurrency * remote.shares.cached_bytes <= room
    assert remote.lambda_seconds >= remote.blocks * remote.block_seconds
    assert remote.seconds * remote.concurrency * 1.01 + 1000 >= remote.blocks * remote.block_seconds
    assert {"functions", "momento", "dynamodb"} >= {remote.bounded_by}
    assert make_remote_bill(remote, PRICES).total >= 0


def test_twice_as_many_at_once_take_half_the_time_until_a_service_is_the_bound() -> None:
    unbounded = Limits(10**9, 10**9)
    job = replace(JOB, max_cached_bytes=10**12)

    def functions(at_once: int) -> float:
        return remote_of(BILLION, job, Spread(at_once), unbounded).functions_seconds

    assert [functions(1) / functions(at_once) for at_once in (2, 4, 8)] == pytest.approx([2, 4, 8])
    bound = [remote_of(BILLION, job, Spread(at_once), FAST) for at_once in (8, 80)]
    assert {it.bounded_by for it in bound} == {"dynamodb"}
    assert bound[0].seconds == bound[1].seconds
    # Those that wait are paid.
    assert bound[1].gb_seconds == pytest.approx(10 * bound[0].gb_seconds, rel=0.001)
    assert bound[1].enough == bound[0].enough < 8


def test_a_jobs_own_bounds_count() -> None:
    job = replace(JOB, max_writes=1000, max_cached_bytes=6_000_000)
    remote = remote_of(BILLION, job, Spread(100), FAST)
    assert remote.write_seconds == 1_000_000
    assert remote.concurrency == 4  # of 250 writes a second each
    assert remote_of(BILLION, replace(job, max_writes=None), Spread(100), FAST).concurrency == 5  # of two chunks each
    assert remote.loads == remote.rounds
    # What is loaded in one call takes more than its time.
    slow = remote_of(work(2_000_000, stored=1), replace(JOB, max_writes=250), Spread(ranges=2), DEFAULT_LIMITS)
    assert (slow.rounds, slow.loads) == (1, ceil(4000 / CALL_LIMIT_SECONDS))
    assert slow.transitions == 4 + 2 * (2 + 3 + 2 * (slow.loads - 1))


# What is wrong with it


@pytest.mark.parametrize(
    ("changed", "job", "limits", "problem"),
    [
        ({}, JOB, FAST, None),
        ({"splits": False}, JOB, FAST, "one reader takes all"),
        ({"splits": False}, JOB, FAST, "it would fail"),
        ({"table_rows": None}, JOB, FAST, "ANALYZE"),
        ({}, JOB, DEFAULT_LIMITS, "more than a day"),
        ({"bytes_stored": 10**13}, JOB, Limits(10**9, 10**9), f"{MOST_ROUNDS:,} rounds"),
        ({"bytes_stored": 10**14}, JOB, Limits(10**9, 10**9), "64,000 chunks"),
    ],
)
def test_what_would_go_wrong_is_said(changed: dict[str, Any], job: Job, limits: Limits, problem: str | None) -> None:
    remote = remote_of(replace(BILLION, **changed), job, Spread(), limits)
    if problem is None:
        assert remote.problems == []
    else:
        assert [it for it in remote.problems if problem in it], remote.problems


def test_a_small_table_is_one_range_and_no_problem() -> None:
    remote = remote_of(work(3201), JOB, Spread(), DEFAULT_LIMITS)
    assert (remote.ranges, remote.blocks, remote.concurrency, remote.lambda_calls) == (1, 1, 1, 4)
    assert remote.problems == []
    assert remote.seconds > 4 * COLD_SECONDS
    empty = remote_of(work(0), JOB, Spread(), DEFAULT_LIMITS)
    assert (empty.ranges, empty.rounds, empty.write_seconds) == (1, 1, 0)


# As if there were more


def test_a_forecast_for_more_rows_is_that_of_more_rows() -> None:
    few, many = asyncio.run(forecast_of(movies(2000))), asyncio.run(forecast_of(movies(20_000)))
    grown = as_if(few, 20_000, JOB.layout, JOB.max_cached_bytes)
    assert not grown.exact
    assert (grown.usage.rows_extracted, grown.table_rows, grown.write_units) == (20_000, 20_000, 20_000)
    assert grown.usage.bytes_encoded == pytest.approx(many.usage.bytes_encoded, rel=0.1)
    assert float(make_bill(grown, PRICES).total) == pytest.approx(float(make_bill(many, PRICES).total), rel=0.1)
    assert work_of(grown).chunks >= 1


def test_money_is_use_times_price() -> None:
    remote = remote_of(BILLION, JOB, Spread(), FAST)
    prices = replace(PRICES, lambda_compute=Decimal(0), lambda_requests=Decimal(10**6), state_transitions=Decimal(0))
    bill = make_remote_bill(remote, prices)
    assert bill.lambda_requests == remote.lambda_calls
    assert bill.total == bill.services.total + remote.lambda_calls
    text = "\n".join(drawn(remote_text(remote, bill, exact=True), 100))
    assert "estimate" not in text
    assert re.search(r"^cost +\$", text, re.MULTILINE)
