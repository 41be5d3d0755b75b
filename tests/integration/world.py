"""A source, a cache and a destination for the story as a whole: fakes, or the real cache adapter over its server.

Chunks are made small, so that a few thousand rows fill many.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest

from etlcli import extraction, pipeline, preparing
from etlcli.blocks import finishing
from etlcli.cache import packed, staging
from etlcli.cache.momento import MomentoCache
from etlcli.cache.staging import Staging
from etlcli.config.momento import MomentoAccess
from etlcli.encoding import PLAIN, Recipe
from etlcli.local.momento.server import MomentoServer, serve
from etlcli.model import CREATE_DEFAULTS, Job, Relation, Selection
from etlcli.ports import Cache
from etlcli.progress import Counters
from etlcli.report import Report
from etlcli.resuming import rereading
from etlcli.retry import RetryPolicy
from tests.contract.fakes.cache import FakeAccount, FakeCache
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSource, Row, column
from tests.contract.fakes.state import FakeState

BOUND = 60  # seconds after which a test is given up
CHUNK_BYTES = 4000
JOB = Job("movies", Selection(table="movies"), "etl", "movies")
MOVIES = Relation(
    name="public.movies",
    columns=(column("movie_id", "int4"), column("title", "text"), column("rating", "numeric")),
    primary_key=("movie_id",),
    unique_keys=(frozenset({"movie_id"}),),
)


def movies(count: int, edition: str = "") -> list[Row]:
    return [(str(n), f"Film\t№ {n} {edition}", None if n % 7 == 0 else f"{n}.5") for n in range(count)]


def item(row: Row) -> dict[str, Any]:
    movie_id, title, rating = row
    made: dict[str, Any] = {"movie_id": {"N": movie_id}, "title": {"S": title}}
    return made if rating is None else {**made, "rating": {"N": rating}}


def in_order(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda it: int(it["movie_id"]["N"]))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_ENCODED_BYTES", CHUNK_BYTES)
    monkeypatch.setattr(extraction, "_PIECE_BYTES", CHUNK_BYTES // 4)


@pytest.fixture
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for reads to settle takes next to no time; the clock is moved instead (a little: many wait at once)."""
    waited = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal waited
        waited += seconds / 20
        await asyncio.sleep(0)

    for module in (staging, rereading, preparing, finishing):
        monkeypatch.setattr(module, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": sleep}))
    monkeypatch.setattr(staging, "time", SimpleNamespace(time=lambda: time.time() + waited))
    for module in (rereading, preparing, finishing):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 20 * waited))


@dataclass
class World:
    """A source, a cache and a destination, and the commands over them."""

    source: FakeSource
    cache: Cache
    account: FakeAccount
    server: MomentoServer | None = None
    counters: Counters = field(default_factory=Counters)
    job: Job = JOB
    recipe: Recipe = PLAIN
    tables: dict[str, FakeTable] = field(default_factory=dict)
    refuse: Callable[[dict[str, Any]], str | None] | None = None
    report: Report = field(default_factory=lambda: Report("movies"))
    sink_of: Callable[..., FakeSink] = FakeSink
    state: FakeState = field(default_factory=FakeState)

    def begun(self) -> Report:
        self.report = Report(self.job.name)
        return self.report

    def sink(self) -> FakeSink:
        return self.sink_of("movies", self.report.counters, self.tables, refuse=self.refuse)

    async def extract(self) -> Report:
        report = self.begun()
        await pipeline.extract(self.job, self.recipe, self.source, self.cache, self.state, report)
        return report

    async def load(self, run_id: str | None = None, sink: FakeSink | None = None) -> Report:
        report = self.begun()
        await pipeline.load(self.job, run_id, CREATE_DEFAULTS, self.cache, sink or self.sink(), self.state, report)
        return report

    async def run(self, sink: FakeSink | None = None) -> Report:
        report = self.begun()
        if sink is not None:
            sink.counters = report.counters
        await pipeline.run(
            self.job, self.recipe, CREATE_DEFAULTS, self.source, self.cache, sink or self.sink(), self.state, report
        )
        return report

    @property
    def staging(self) -> Staging:
        return Staging(self.cache, self.job.name)

    @property
    def items(self) -> list[dict[str, Any]]:
        return in_order(list(self.tables["movies"].items.values()))

    @property
    def entries(self) -> dict[str, bytes]:
        return self.account.values("etl")

    def chunk_keys(self, run_id: str) -> set[str]:
        return {key for key in self.entries if f"/{run_id}/chunk/" in key}

    @property
    def figures(self) -> tuple[int, int, int]:
        counters = self.report.counters
        return counters.rows_extracted, counters.rows_loaded, counters.rows_rejected


def fake_world(rows: Sequence[Row] = (), relation: Relation = MOVIES, **changes: Any) -> World:
    account = FakeAccount()
    return World(FakeSource(relation, rows), FakeCache("etl", account), account, **changes)


Scenario: TypeAlias = Callable[[World], Awaitable[None]]


@contextlib.asynccontextmanager
async def fake() -> AsyncIterator[World]:
    yield fake_world()


@contextlib.asynccontextmanager
async def momento() -> AsyncIterator[World]:
    async with serve(port=0) as server:
        counters = Counters()
        access = MomentoAccess("local", local=f"127.0.0.1:{server.port}")
        async with MomentoCache(access, "etl", counters, RetryPolicy(patience=10.0, base=0.001, ceiling=0.01)) as cache:
            yield World(FakeSource(MOVIES, []), cache, FakeAccount(), server, counters)


def bounded(body: Callable[[], Awaitable[None]]) -> None:
    """Runs a test's body, and looks for tasks that it left behind."""

    async def main() -> None:
        async with asyncio.timeout(BOUND):
            await body()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def play(scenario: Scenario, world: World) -> None:
    async def body() -> None:
        await scenario(world)

    bounded(body)


@pytest.fixture(params=[fake, momento])
def play_both(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    def played(scenario: Scenario) -> None:
        async def main() -> None:
            async with asyncio.timeout(BOUND), request.param() as world:
                await scenario(world)

        asyncio.run(main())

    return played
