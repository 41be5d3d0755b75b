"""``tests/bench`` in small: each measurement can be made, and what it measures is what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from etlcli.cache.momento import MomentoCache
from etlcli.cache.staging import Staging
from etlcli.config import MomentoAccess
from etlcli.model import Job, Selection
from etlcli.plan import make_plan, row_encoder
from etlcli.progress import Counters
from etlcli.source.postgres import PostgresSource
from tests.bench import figures
from tests.bench.__main__ import measure
from tests.bench.compare import WAYS
from tests.bench.running import PRODUCT, prepare, run, table_of
from tests.bench.scale import BLOCKS, IN_FLIGHT
from tests.bench.servers import Servers, serving
from tests.bench.stages import STAGES
from tests.bench.ways import sketch
from tests.conftest import Schema, Stack

BESIDES_CHUNKS = 17
BESIDES_CHUNKS_CALLS = 13
"""What a run of one page of the ledger costs besides its chunks, whatever it moves: metered operations, and calls."""


@pytest.fixture
def servers(stack: Stack, schema: Schema) -> Iterator[Servers]:
    with serving(schema.url, stack.dynamodb_url) as servers:
        yield servers


def test_the_ways_are_compared_and_the_stages_measured(stack: Stack, schema: Schema, tmp_path: Path) -> None:
    measured = measure(("compare", "stages"), schema.url, stack.dynamodb_url, rows=800, counts=(), rounds=1)

    ways = measured["compare"]["ways"]
    assert [*ways, *measured["compare"]["left_out"]] == [way.name for way in WAYS if way.is_there] + [
        way.name for way in WAYS if not way.is_there
    ]
    # A set and a get of each of its 11 fields; and the cache is made.
    assert ways["original"]["momento_operations_per_1000"] == 22_000 + 1000 / ways["original"]["rows"]
    assert ways["batch_writer"]["momento_calls_per_1000"] == 0
    assert measured["stages"]["stages"].keys() == set(STAGES)

    kept = tmp_path / "speed.json"
    figures.save(kept, measured)
    document = figures.save(kept, {"startup": {"rounds": 1}})
    assert document.keys() == {"compare", "stages", "startup"}
    assert document == figures.load(kept)

    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{figures.MARKS[0]}\nold\n{figures.MARKS[1]}\nafter\n", encoding="utf-8")
    for _ in range(2):
        figures.fill_readme(readme, measured)
        text = readme.read_text(encoding="utf-8")
        assert text.startswith(f"before\n{figures.MARKS[0]}\n\n800 rows")
        assert text.endswith(f"\n\n{figures.MARKS[1]}\nafter\n")
        assert "old" not in text
        for way in ways.values():
            assert text.count(f"| {way['label']} |") == 1


def test_what_else_is_measured(stack: Stack, schema: Schema) -> None:
    wanted = ("memory", "latency", "limits", "scale", "startup")
    measured = measure(wanted, schema.url, stack.dynamodb_url, rows=400, counts=(400,), rounds=1)
    assert tuple(measured) == wanted
    assert measured["memory"]["counts"]["400"]["peak_bytes"] > 10_000_000
    assert measured["latency"]["rows_per_second"].keys() == {"5", "50"}
    assert 1 <= measured["latency"]["most_in_flight"]["50"] <= 16  # requests of 25 rows
    assert measured["limits"]["operations"] > 0
    scale = measured["scale"]
    assert list(scale["rows_per_second"]) == ["1", "2", "4", "8"]
    assert scale["share_of_linear"]["1"] == 1
    # What bounds each worker is the same for all of them, whatever their number.
    assert 1 <= scale["most_in_flight"] <= BLOCKS * IN_FLIGHT
    assert measured["startup"]["seconds"].keys() > {"help", "imports"}
    tables = figures.tables(measured)
    assert "| 400 rows | " in tables
    assert "| 50 ms | " in tables
    assert "| 8 ranges | " in tables


def test_a_thousand_rows_cost_few_operations_and_the_summary_tells_all_of_them(servers: Servers) -> None:
    prepare(servers, [20_000])
    found = run(servers, PRODUCT, 20_000, "operations")
    summary = found.ended.summary
    chunks = asyncio.run(_chunks(servers, table_of(20_000), "operations"))
    assert summary["momento_operations"] == found.momento["operations"] <= 85 * 20
    assert summary["momento_calls"] == found.momento["calls"]
    assert found.dynamodb["requests"] == 800
    # Exactly: each chunk is stored once and fetched once. What goes with them: the cache is made, and the list of runs,
    # manifest, pages of the ledger and pointer are read and written.
    assert summary["bytes_cached"] == sum(chunks)
    assert summary["momento_operations"] - 2 * sum(-(-size // 1024) for size in chunks) == BESIDES_CHUNKS
    assert summary["momento_calls"] - 2 * len(chunks) == BESIDES_CHUNKS_CALLS


def test_rows_that_do_not_arrive_are_not_measured(servers: Servers) -> None:
    prepare(servers, [10])
    with pytest.raises(RuntimeError, match="ended with 2"):
        run(servers, PRODUCT, 10, "no name for a cache: \n")
    idle = replace(PRODUCT, module="tests.bench.questions")  # ends well, and does nothing
    with pytest.raises(ValueError, match="Expecting value"):
        run(servers, idle, 10, "nothing")


def test_the_sketch_makes_the_items_that_the_product_makes(servers: Servers) -> None:
    prepare(servers, [500])
    lines, items = asyncio.run(_encoded(servers.postgres_url, table_of(500)))
    assert len(lines) == len(items) == 500
    for line, item in zip(lines, items, strict=True):
        assert orjson.loads(sketch.encode(line)) == orjson.loads(item)


async def _chunks(servers: Servers, job: str, cache: str) -> list[int]:
    """The bytes of each chunk of the newest extraction."""
    async with MomentoCache(MomentoAccess("local", local=servers.momento.address), cache, Counters()) as staged:
        staging = Staging(staged, job)
        manifest = await staging.fetch_manifest(await staging.fetch_current() or "")
        assert manifest is not None
        return [record.bytes_stored for record in await staging.fetch_ledger(manifest)]


async def _encoded(postgres_url: str, table: str) -> tuple[list[bytes], list[bytes]]:
    source = PostgresSource(postgres_url, Counters())
    async with source.snapshot() as snapshot:
        selection = Selection(table=table)
        plan = make_plan(Job("bench", selection, "c", "d"), await snapshot.describe(selection), source.description)
        lines = [line async for batch in snapshot.read(plan.reading) for line in batch]
    return lines, row_encoder(plan).encode_batch(lines).items
