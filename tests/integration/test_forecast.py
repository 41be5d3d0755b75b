"""A forecast and the run that follows it: the same rows, rejects, chunks and bytes, and the same use of Momento.

The cache is the real adapter over the real server. Chunks are made small, so that a few thousand rows fill many.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest

from etlcli import extraction, pipeline
from etlcli.cache import packed
from etlcli.cache.momento import MomentoCache
from etlcli.cache.rows import TARGET_ROWS
from etlcli.config.momento import MomentoAccess
from etlcli.encoding import PLAIN, Recipe, Transform, item_size
from etlcli.forecast import Forecast, rehearse
from etlcli.forecast.stand_ins import RehearsedCache
from etlcli.local.momento.server import serve
from etlcli.model import CREATE_DEFAULTS, Job, Relation, Selection
from etlcli.progress import Counters
from etlcli.report import Report
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSource, Row, column
from tests.contract.fakes.state import FakeState

BOUND = 120  # seconds after which a test is given up
CHUNK_BYTES = 120_000
TOLERANCE = 0.05
JOB = Job("movies", Selection(table="movies"), "etl", "movies")
MOVIES = Relation(
    name="public.movies",
    columns=(column("movie_id", "int4"), column("title", "text"), column("rating", "float8")),
    primary_key=("movie_id",),
    unique_keys=(frozenset({"movie_id"}),),
)
WIDE = Relation(
    name="public.wide",
    columns=tuple(column(f"column_{n}", "int4" if n % 2 == 0 else "text") for n in range(120)),
    primary_key=("column_0",),
    unique_keys=(frozenset({"column_0"}),),
)


def movies(count: int, *, bad_every: int = 0) -> list[Row]:
    return [
        (str(n), f"Film № {n} {n * 7919 % 100_003:x}", "NaN" if bad_every and n % bad_every == 0 else f"{n}.5")
        for n in range(count)
    ]


def wide(count: int) -> list[Row]:
    return [
        tuple(str(n * 1000 + c) if c % 2 == 0 else f"text {n * c * 7919 % 100_003}" for c in range(120))
        for n in range(count)
    ]


def keep_odd(row: dict[str, Any]) -> dict[str, Any] | None:
    return row if row["movie_id"] % 2 else None


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_ENCODED_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(extraction, "_PIECE_BYTES", CHUNK_BYTES // 4)


@dataclass
class World:
    """A source, a cache on a server, a destination and a state table, for forecasts and runs in turn."""

    source: FakeSource
    job: Job
    recipe: Recipe
    server: int
    tables: dict[str, FakeTable] = field(default_factory=dict)
    state: FakeState = field(default_factory=FakeState)

    @contextlib.asynccontextmanager
    async def cache(self, counters: Counters) -> AsyncIterator[MomentoCache]:
        access = MomentoAccess("local", local=f"127.0.0.1:{self.server}")
        async with MomentoCache(access, "etl", counters) as cache:
            yield cache

    async def plan(self) -> tuple[Forecast, Report]:
        report = Report(self.job.name)
        sink = FakeSink("movies", report.counters, self.tables)
        async with self.cache(report.counters) as cache:
            forecast = await rehearse(self.job, self.recipe, self.source, cache, sink, self.state, report, exact=True)
        return forecast, report

    async def run(self) -> Report:
        report = Report(self.job.name)
        sink = FakeSink("movies", report.counters, self.tables)
        async with self.cache(report.counters) as cache:
            await pipeline.run(self.job, self.recipe, CREATE_DEFAULTS, self.source, cache, sink, self.state, report)
        return report


def play(source: FakeSource, job: Job, recipe: Recipe, scenario: Callable[[World], Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(BOUND), serve(port=0) as server:
            await scenario(World(source, job, recipe, server.port))

    asyncio.run(main())


SHAPES: dict[str, tuple[Relation, Sequence[Row], Job, Recipe]] = {
    "empty": (MOVIES, [], JOB, PLAIN),
    "one row": (MOVIES, movies(1), JOB, PLAIN),
    "many chunks": (MOVIES, movies(15_000), JOB, PLAIN),
    "wide": (WIDE, wide(1500), JOB, PLAIN),
    "rejects": (MOVIES, movies(4000, bad_every=5), JOB, PLAIN),
    "only rejects": (MOVIES, movies(500, bad_every=1), JOB, PLAIN),
    "rows layout": (MOVIES, movies(900), replace(JOB, layout="rows"), PLAIN),
    "little room": (MOVIES, movies(6000), replace(JOB, max_cached_bytes=30_000), PLAIN),
    "little room for rows": (MOVIES, movies(900), replace(JOB, layout="rows", max_cached_bytes=20_000), PLAIN),
    "limit": (MOVIES, movies(900), replace(JOB, selection=Selection(table="movies", limit=700)), PLAIN),
    "dropped": (MOVIES, movies(3000), JOB, replace(PLAIN, transform=Transform("tests:keep_odd", keep_odd, "0" * 32))),
    "replace": (MOVIES, movies(3000), replace(JOB, mode="replace"), PLAIN),
    "replace with rejects": (MOVIES, movies(3000, bad_every=7), replace(JOB, mode="replace"), PLAIN),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_forecast_and_the_run_after_it_agree(shape: str) -> None:
    relation, rows, job, recipe = SHAPES[shape]

    async def scenario(world: World) -> None:
        # The first run finds nothing; each after it finds what those before it left, in cache and destination.
        for _ in range(2):
            forecast, planned = await world.plan()
            before = {name: dict(table.items) for name, table in world.tables.items()}
            report = await world.run()
            usage, counters, manifest = forecast.usage, report.counters, report.manifest
            assert manifest is not None
            assert forecast.exact
            assert forecast.verdict is None
            assert (usage.rows_extracted, usage.rows_loaded, usage.rows_rejected, usage.rows_dropped) == (
                counters.rows_extracted,
                counters.rows_loaded,
                counters.rows_rejected,
                counters.rows_dropped,
            )
            assert (usage.chunks, usage.bytes_encoded, usage.bytes_stored) == (
                counters.chunks_stored,
                counters.bytes_encoded,
                counters.bytes_cached,
            )
            assert sum(count.rows for count in forecast.rejects) == counters.rows_rejected
            # How often the ledger's pages are written depends on how fast chunks come: with each of them at most.
            freed = abs(usage.chunks_freed - manifest.chunks_freed) * (TARGET_ROWS if job.layout == "rows" else 1)
            assert abs(forecast.momento_calls - counters.momento_calls) <= usage.chunks + freed
            assert forecast.momento_operations == pytest.approx(counters.momento_operations, rel=TOLERANCE)
            assert abs(usage.chunks_freed - manifest.chunks_freed) <= 1
            assert (usage.chunks_freed > 0) == shape.startswith("little room")
            assert planned.manifest is not None
            assert (planned.manifest.key, planned.manifest.columns) == (manifest.key, manifest.columns)
            assert forecast.table_exists == bool(before)

    play(FakeSource(relation, rows), job, recipe, scenario)


def test_write_units_are_those_of_the_items_that_are_put() -> None:
    async def scenario(world: World) -> None:
        forecast, _ = await world.plan()
        await world.run()
        items = world.tables["movies"].items.values()
        assert forecast.write_units == sum(-(-item_size(orjson.dumps(item)) // 1024) for item in items)
        assert forecast.write_units > len(items)  # some take more than one

    play(FakeSource(WIDE, wide(300)), JOB, PLAIN, scenario)


def test_what_a_call_costs_is_counted_alike() -> None:
    """Every kind of call, small and large, hit and miss: the stand-in and the adapter count the same."""
    large, fields = b"x" * 5000, {"a": b"1", "b": b"y" * 3000, "long" * 20: b""}

    async def calls(cache: Any) -> None:
        await cache.ensure()
        await cache.set("movies/current", b"{}", 60)
        await cache.get("movies/current")
        await cache.get("movies/missing")
        await cache.set("movies/R/chunk/0", large, 60)
        await cache.get("movies/R/chunk/0")
        await cache.set_dictionary("movies/R/chunk/1/0", fields, 60)
        await cache.get_dictionary("movies/R/chunk/1/0")
        await cache.get_dictionary("movies/R/chunk/1/1")
        await cache.delete("movies/R/chunk/0")
        await cache.delete("movies/R/rejects/load/0" + "0" * 2000)
        await cache.exists()

    async def main() -> None:
        async with serve(port=0) as server:
            access = MomentoAccess("local", local=f"127.0.0.1:{server.port}")
            real, counted = Counters(), Counters()
            async with MomentoCache(access, "etl", real) as cache:
                await calls(cache)
            await calls(RehearsedCache("etl", None, counted))
            assert (counted.momento_calls, counted.momento_operations) == (
                real.momento_calls,
                real.momento_operations,
            )

    asyncio.run(main())
