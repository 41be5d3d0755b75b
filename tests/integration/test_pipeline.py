"""The story as a whole: extract, load and run over fakes, and over the real cache adapter and server.

Chunks are made small, so that a few thousand rows fill many.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeAlias, cast

import orjson
import pytest

from etlcli.cache import packed
from etlcli.cache.staging import RUNS_KEPT
from etlcli.encoding import Recipe, ShapeOptions, Transform
from etlcli.errors import (
    CacheError,
    ChunkError,
    ConfigError,
    EtlError,
    SinkError,
    SourceError,
    TerminalError,
    Unavailable,
    UsageError,
    first_error,
)
from etlcli.inspection import check_chunks, find_row, inspect_job, list_rejects
from etlcli.model import ItemMark, Key, KeyAttribute, Layout, Share
from etlcli.ports import Refusal
from etlcli.report import Report
from etlcli.state import NullState
from tests.contract.fakes.cache import Call, FakeAccount, FakeCache
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSource, Row, column
from tests.contract.fakes.state import FakeState
from tests.integration.world import (
    BOUND,
    CHUNK_BYTES,
    JOB,
    MOVIES,
    Scenario,
    World,
    bounded,
    fake_world,
    item,
    momento,
    movies,
    play,
)

pytestmark = pytest.mark.usefixtures("small_chunks", "nobody_waits")


# The way through


@pytest.mark.parametrize("count", [0, 1, 99, 2000])
def test_extract_and_load_is_run(play_both: Callable[[Scenario], None], count: int) -> None:
    rows = movies(count)

    async def scenario(world: World) -> None:
        world.source.rows = rows
        extracted = await world.extract()
        assert extracted.manifest is not None
        assert extracted.manifest.status == "complete"
        assert await world.staging.fetch_current() == extracted.run_id
        assert (count > 500) == (extracted.counters.chunks_stored > 10)
        loaded = await world.load()
        assert loaded.run_id == extracted.run_id
        assert loaded.table_created
        assert world.items == [item(row) for row in rows]
        assert world.figures == (count, count, 0)
        assert loaded.counters.chunks_loaded == loaded.counters.chunks_stored == extracted.counters.chunks_stored

        world.tables = {}
        ran = await world.run()
        assert ran.run_id != extracted.run_id
        assert await world.staging.fetch_current() == ran.run_id
        assert world.items == [item(row) for row in rows]
        assert world.figures == (count, count, 0)
        assert ran.manifest is not None
        assert ran.manifest.totals == extracted.manifest.totals
        assert world.source.closed == world.source.opened == 2

    play_both(scenario)


def test_chunks_follow_the_source_and_say_where_they_begin_and_end() -> None:
    async def scenario(world: World) -> None:
        report = await world.extract()
        assert report.manifest is not None
        records = await world.staging.fetch_ledger(report.manifest)
        assert [it.number for it in records] == list(range(report.manifest.totals.chunks))
        last = -1
        for it in records:
            assert it.first_key == (str(last + 1),)
            last = int(str(it.last_key[0]))
            items = [orjson.loads(line) for line in await world.staging.fetch_chunk(report.manifest, it)]
            assert [int(found["movie_id"]["N"]) for found in items] == list(range(last + 1 - it.rows, last + 1))
        assert last == 1999

    play(scenario, fake_world(movies(2000)))


def test_chunks_stay_under_the_bound_on_encoded_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real sizes
    names = [f"a_column_with_a_name_that_is_long_{number:03}" for number in range(200)]
    relation = replace(MOVIES, columns=(column("movie_id", "int4"), *(column(name, "int4") for name in names)))
    rows = [(str(number), *["1"] * len(names)) for number in range(2000)]
    world = fake_world(rows, relation)
    world.source.batch_rows = 1000

    async def scenario(world: World) -> None:
        report = await world.extract()
        assert report.manifest is not None
        records = await world.staging.fetch_ledger(report.manifest)
        assert sum(it.rows for it in records) == 2000
        assert all(it.bytes_encoded <= packed.MAX_ENCODED_BYTES for it in records)
        assert all(it.bytes_encoded > packed.MAX_ENCODED_BYTES // 2 for it in records[:-1])
        assert len(records) > 4

    play(scenario, world)


def test_rows_that_grow_and_shrink_all_arrive() -> None:
    lengths = [10] * 300 + [3000] * 20 + [1] * 900 + [9000] * 3 + [5] * 500
    rows: list[Row] = [(str(n), "x" * length, None) for n, length in enumerate(lengths)]

    async def scenario(world: World) -> None:
        report = await world.run()
        assert world.items == [item(row) for row in rows]
        assert report.manifest is not None
        for it in await world.staging.fetch_ledger(report.manifest):
            assert it.bytes_encoded <= CHUNK_BYTES or it.rows == 1

    play(scenario, fake_world(rows))


@pytest.mark.parametrize("command", ["extract", "run"])
def test_duplicate_keys_are_refused_before_anything_is_written(command: str) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(SourceError, match=r"same destination key \(title\): Alien") as caught:
            await getattr(world, command)()
        assert "--key" in str(caught.value.hint)
        assert (world.account.calls, world.tables) == ([], {})

    rows = [("1", "Alien", None), ("2", "Alien", None)]
    play(scenario, fake_world(rows, job=replace(JOB, key=("title",))))


@pytest.mark.parametrize("command", ["load", "run"])
def test_a_table_with_another_key_is_refused_before_any_row_moves(command: str) -> None:
    async def scenario(world: World) -> None:
        await world.extract()
        world.tables["movies"] = FakeTable(Key(KeyAttribute("title", "S")))
        before = dict(world.entries)
        with pytest.raises(UsageError, match="another key") as caught:
            await getattr(world, command)()
        assert "title (S)" in caught.value.message
        assert "movie_id (N)" in caught.value.message
        assert world.items == []
        assert dict(world.entries) == before

    play(scenario, fake_world(movies(10)))


def test_what_cannot_become_items_is_refused_before_the_table_is_made() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(UsageError):
            await world.run()
        assert (world.account.calls, world.tables) == ([], {})

    relation = replace(MOVIES, columns=(*MOVIES.columns, column("title", "text")))
    play(scenario, fake_world([], relation))


# Rejected rows


def with_rejects(count: int, every: int) -> list[Row]:
    return [(n, title, "NaN" if int(str(n)) % every == 0 else rating) for n, title, rating in movies(count)]


@pytest.mark.parametrize("every", [1, 3])
def test_rejected_rows_are_counted_and_kept(play_both: Callable[[Scenario], None], every: int) -> None:
    rows = with_rejects(600, every)
    good = [item(row) for row in rows if row[2] != "NaN"]
    bad = [str(row[0]) for row in rows if row[2] == "NaN"]

    async def scenario(world: World) -> None:
        world.source.rows = rows
        for command in (world.extract, world.load, world.run):
            report = await command()
            assert report.counters.rows_extracted == 600
            assert report.counters.rows_rejected == len(bad)
            assert report.manifest is not None
            assert report.manifest.totals.rows_rejected == len(bad)
            assert report.run_id is not None
            kept = await world.staging.fetch_rejects(report.manifest)
            assert [it.row["movie_id"] for it in kept] == bad
            assert {it.rule for it in kept} == {"number-not-finite"}
        assert world.items == good

    play_both(scenario)


def test_refused_items_are_rejects_and_are_counted_once_more_by_each_load() -> None:
    rows = with_rejects(600, 10)

    def refuse(found: dict[str, Any]) -> str | None:
        return "no sevens" if "7" in found["movie_id"]["N"] else None

    refused = [str(row[0]) for row in rows if "7" in str(row[0]) and row[2] != "NaN"]

    async def scenario(world: World) -> None:
        ran = await world.run()
        assert world.figures == (600, 600 - 60 - len(refused), 60 + len(refused))
        _, rejects = await list_rejects("movies", world.cache)
        assert len(rejects) == 60 + len(refused)
        found = [orjson.loads(it.row["item"])["movie_id"]["N"] for it in rejects if it.rule == "refused-by-dynamodb"]
        assert sorted(found) == sorted(refused)
        # The run that is loaded now was loaded by `run` before: what was refused then is not counted twice.
        loaded = await world.load()
        assert loaded.run_id == ran.run_id
        assert world.figures == (600, 600 - 60 - len(refused), 60 + len(refused))
        world.refuse = None
        await world.load()
        assert world.figures == (600, 540, 60)
        assert len((await list_rejects("movies", world.cache))[1]) == 60

    play(scenario, fake_world(rows, refuse=refuse))


def test_all_items_refused() -> None:
    async def scenario(world: World) -> None:
        await world.run()
        assert world.figures == (300, 0, 300)
        assert world.items == []

    play(scenario, fake_world(movies(300), refuse=lambda _: "none at all"))


class Forgetful(FakeSink):
    """Says that all is written, and forgets one item."""

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        return await super().put([found for found in items if b'"N":"77"' not in found])


@pytest.mark.parametrize("command", ["run", "load"])
def test_a_row_that_nobody_accounts_for_is_an_error(command: str) -> None:
    async def scenario(world: World) -> None:
        await world.extract()
        with pytest.raises(EtlError, match="200 rows were extracted, and 199 are accounted for"):
            await getattr(world, command)()

    play(scenario, fake_world(movies(200), sink_of=Forgetful))


# Never half


def at_write(number: int) -> Callable[[Call], EtlError | None]:
    left = number

    def fault(call: Call) -> EtlError | None:
        nonlocal left
        if call.name != "set":
            return None
        left -= 1
        return CacheError(f"write {number} failed") if left == -1 else None

    return fault


@pytest.mark.parametrize("loses_answers", [False, True])
@pytest.mark.parametrize("command", ["extract", "run"])
def test_a_failure_at_any_write_leaves_no_half_extraction(command: str, *, loses_answers: bool) -> None:
    old, new = movies(150, "old"), movies(600, "new")

    async def begin() -> FakeAccount:
        world = fake_world(old)
        await world.extract()
        return world.account

    async def scenario() -> None:
        before = await begin()
        failures = 0
        for number in range(1000):
            account = copy.deepcopy(before)
            account.loses_answers = loses_answers
            world = World(FakeSource(MOVIES, new), FakeCache("etl", account), account)
            previous = await world.staging.fetch_current()
            account.fault = at_write(number)
            try:
                await getattr(world, command)()
            except CacheError as error:
                failures += error.message == f"write {number} failed"
            else:
                break  # more writes than there are
            account.fault = None
            current = await world.staging.fetch_current()
            if current != previous:
                assert loses_answers  # the pointer itself, whose answer was lost
                assert current == world.report.run_id
            if world.tables:
                assert {it["movie_id"]["N"] for it in world.items} <= {row[0] for row in new}
            world.tables = {}
            await world.load()
            assert world.items == [item(row) for row in (old if current == previous else new)]
            # And the same command works the next time.
            world.tables = {}
            await getattr(world, command)()
            await world.load()
            assert world.items == [item(row) for row in new]
        assert failures == number > 12
        assert world.account.named("set")[-1] == "movies/current" or command == "run"

    bounded(scenario)


def test_a_failure_before_the_first_extraction_leaves_nothing_to_load() -> None:
    async def scenario() -> None:
        for number in range(1000):
            world = fake_world(movies(600))
            world.account.fault = at_write(number)
            try:
                await world.extract()
            except CacheError:
                world.account.fault = None
                with pytest.raises(CacheError, match="holds no complete extraction of movies"):
                    await world.load()
                assert world.tables == {}
            else:
                break
        assert number > 12

    bounded(scenario)


def test_the_pointer_moves_after_all_that_it_stands_for() -> None:
    async def scenario(world: World) -> None:
        report = await world.run()
        sets = world.account.named("set")
        assert sets.index("movies/current") > max(
            place for place, key in enumerate(sets) if "/chunk/" in key or "/ledger/" in key or "/manifest" in key
        )
        assert sets.count("movies/current") == 1
        assert report.counters.chunks_stored == sum("/chunk/" in key for key in sets) > 20

    play(scenario, fake_world(movies(2000)))


@pytest.mark.parametrize("command", ["extract", "run"])
def test_a_slow_ledger_is_waited_for_before_the_pointer_moves(command: str) -> None:
    class SlowLedger(FakeCache):
        async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
            if "/ledger/" in key:
                for _ in range(500):  # in which all chunks are stored
                    await asyncio.sleep(0)
            await super().set(key, value, ttl_seconds)

    async def scenario(world: World) -> None:
        world.cache = SlowLedger("etl", world.account)
        report = await getattr(world, command)()
        assert report.manifest is not None
        records = await world.staging.fetch_ledger(report.manifest)
        assert sum(it.rows for it in records) == 1000
        sets = world.account.named("set")
        assert sets.index("movies/current") > max(place for place, key in enumerate(sets) if "/ledger/" in key)

    play(scenario, fake_world(movies(1000)))


# What load finds, or does not


def test_load_without_a_cache() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(CacheError, match="there is no cache 'etl'") as caught:
            await world.load()
        assert "momento-etl extract --table movies" in str(caught.value.hint)

    play(scenario, fake_world())


def test_load_with_nothing_in_the_cache(play_both: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        await world.cache.ensure()
        with pytest.raises(CacheError, match="cache 'etl' holds no complete extraction of movies") as caught:
            await world.load()
        assert "momento-etl extract --table movies" in str(caught.value.hint)
        assert world.tables == {}

    play_both(scenario)


def test_load_of_a_run_that_is_not_complete() -> None:
    async def scenario(world: World) -> None:
        world.source.error = (500, Unavailable("the database went away"))
        with pytest.raises(Unavailable):
            await world.extract()
        run_id = world.report.run_id
        with pytest.raises(CacheError, match=f"run {run_id} of movies is not complete"):
            await world.load(run_id)
        with pytest.raises(CacheError, match="holds no complete extraction"):
            await world.load()
        assert world.tables == {}

    play(scenario, fake_world(movies(1000)))


def test_load_of_a_run_that_is_not_there() -> None:
    async def scenario(world: World) -> None:
        await world.extract()
        with pytest.raises(CacheError, match="holds no run 20200101T000000000Z-0000 of movies"):
            await world.load("20200101T000000000Z-0000")

    play(scenario, fake_world(movies(10)))


def test_load_of_an_expired_run() -> None:
    async def scenario(world: World) -> None:
        report = await world.extract()
        now = time.time() + JOB.ttl_seconds + 1
        world.account.clock = lambda: now
        with pytest.raises(CacheError, match="holds no complete extraction of movies") as caught:
            await world.load()
        assert "--ttl" in str(caught.value.hint)
        with pytest.raises(CacheError, match=f"holds no run {report.run_id}"):
            await world.load(report.run_id)

    play(scenario, fake_world(movies(10)))


def test_load_of_an_older_run_by_its_name() -> None:
    async def scenario(world: World) -> None:
        old = await world.extract()
        world.source.rows = movies(50, "new")
        await world.extract()
        await world.load(old.run_id)
        assert world.items == [item(row) for row in movies(100, "old")]

    play(scenario, fake_world(movies(100, "old")))


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "other"])
def test_a_chunk_that_is_missing_or_damaged_is_named(play_both: Callable[[Scenario], None], damage: str) -> None:
    async def scenario(world: World) -> None:
        world.source.rows = movies(1000)
        report = await world.extract()
        key = f"movies/{report.run_id}/chunk/7"
        value = await world.cache.get(key)
        other = await world.cache.get(f"movies/{report.run_id}/chunk/6")
        assert value is not None
        assert other is not None
        flipped = bytes([*value[:40], value[40] ^ 16, *value[41:]])
        if damage == "missing":
            await world.cache.delete(key)
        else:
            await world.cache.set(key, {"cut": value[:-5], "flipped": flipped, "other": other}[damage], 60)
        with pytest.raises(ChunkError, match=f"chunk 7 of run {report.run_id}") as caught:
            await world.load()
        assert "momento-etl run" in str(caught.value.hint)
        _, wrong, _ = await check_chunks("movies", world.cache)
        assert len(wrong) == 1
        assert wrong[0].number == 7
        assert wrong[0].state == ("missing" if damage == "missing" else "damaged")
        assert "chunk 7 " in wrong[0].message

    play_both(scenario)


def test_reads_that_lag_behind_writes_are_waited_for() -> None:
    async def scenario(world: World) -> None:
        world.account.lag = 3
        await world.extract()
        await world.load()
        assert world.items == [item(row) for row in movies(700)]
        await world.run()
        assert world.figures == (700, 700, 0)

    play(scenario, fake_world(movies(700)))


def test_two_jobs_in_one_cache() -> None:
    async def scenario(world: World) -> None:
        await world.extract()
        world.job = replace(JOB, name="movies/2026")
        world.source.rows = movies(50, "other")
        await world.extract()
        await world.load()
        assert world.items == [item(row) for row in movies(50, "other")]
        world.job, world.tables = JOB, {}
        await world.load()
        assert world.items == [item(row) for row in movies(300)]

    play(scenario, fake_world(movies(300)))


# The bound on stored bytes


def test_stored_bytes_stay_under_the_bound() -> None:
    limit = 20_000

    async def body() -> None:
        async with asyncio.timeout(BOUND), momento() as world:
            server = world.server
            assert server is not None
            world.job = replace(JOB, max_cached_bytes=limit)
            peak = 0

            def sample(_request: object) -> bool:
                nonlocal peak
                peak = max(peak, server.store.stored_bytes)
                return False

            server.faults.fail("set", "get", "delete", status="internal", when=sample)
            for edition in ("first", "second"):  # the second finds what the first left
                world.source.rows = movies(6000, edition)
                report = await world.run()
                assert world.items == [item(row) for row in world.source.rows]
                counters = report.counters
                assert counters.bytes_cached > 2 * limit
                # Chunks are bounded to the byte; what is beside them is their keys, the ledger, manifest and list.
                beside = 0
                for run in await world.staging.fetch_runs():
                    for name in ("manifest", *(f"ledger/{page}" for page in range(5))):
                        beside += len(await world.cache.get(f"movies/{run}/{name}") or b"")
                keys = 60 * 300
                assert limit / 2 < peak < limit + beside + keys
                assert report.manifest is not None
                assert 0 < report.manifest.chunks_freed < report.manifest.totals.chunks
                stored = [
                    it.bytes_stored
                    for it in await world.staging.fetch_ledger(report.manifest)
                    if await world.cache.get(f"movies/{report.run_id}/chunk/{it.number}") is not None
                ]
                assert sum(stored) <= limit
                assert len(stored) == report.manifest.totals.chunks - report.manifest.chunks_freed
                assert await world.staging.fetch_manifest(report.manifest.run_id) == report.manifest
                with pytest.raises(CacheError, match=f"{report.manifest.chunks_freed} of its .* chunks were freed"):
                    await world.load()

    asyncio.run(body())


@pytest.mark.parametrize("limit", [1, 3000, 20_000])
def test_the_bound_holds_to_the_byte_in_every_order(limit: int) -> None:
    async def scenario(world: World) -> None:
        sizes: dict[str, int] = {}

        def watch(call: Call) -> None:
            held = [len(value) for key, value in world.entries.items() if "/chunk/" in key]
            assert sum(held) <= limit or len(held) <= 1
            sizes[call.key] = sum(held)

        await world.cache.ensure()
        world.account.fault = watch
        for _ in range(2):
            await world.run()
            assert world.items == [item(row) for row in world.source.rows]
        assert max(sizes.values()) > min(limit, 500) / 2

    play(scenario, fake_world(movies(3000), job=replace(JOB, max_cached_bytes=limit)))


def test_an_extraction_that_cannot_fit_is_refused_before_it_starts() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(CacheError, match=r"public\.movies takes 1,000,000 bytes") as caught:
            await world.extract()
        assert "momento-etl run" in str(caught.value.hint)
        assert world.account.calls == []
        assert world.source.handed_over == 0
        await world.run()  # which needs no room for all of it
        assert world.figures == (3000, 3000, 0)

    relation = replace(MOVIES, stored_bytes=1_000_000)
    play(scenario, fake_world(movies(3000), relation, job=replace(JOB, max_cached_bytes=20_000)))


def test_an_extraction_that_does_not_fit_after_all_ends_with_the_same_advice() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(CacheError, match="max_cached_bytes is 20,000") as caught:
            await world.extract()
        assert "momento-etl run" in str(caught.value.hint)
        assert await world.staging.fetch_current() is None
        await world.run()
        assert world.figures == (6000, 6000, 0)

    play(scenario, fake_world(movies(6000), job=replace(JOB, max_cached_bytes=20_000)))


def test_a_superseded_run_makes_room_the_oldest_first() -> None:
    async def scenario(world: World) -> None:
        runs = []
        for edition in "abc":
            world.source.rows = movies(2000, edition)
            runs.append(str((await world.extract()).run_id))
        held = [len(world.chunk_keys(run)) for run in runs]
        one = world.report.counters.bytes_cached
        world.job = replace(JOB, max_cached_bytes=int(one * 2.5))
        await world.extract()
        left = [len(world.chunk_keys(run)) for run in runs]
        assert left[0] == 0  # the oldest is gone, and some of the next
        assert 0 < left[1] < held[1]
        assert left[2] == held[2]
        await world.load()
        assert world.items == [item(row) for row in movies(2000, "c")]

    play(scenario, fake_world())


def test_what_no_list_names_any_more_is_not_left_behind() -> None:
    async def scenario(world: World) -> None:
        runs = [str((await world.extract()).run_id) for _ in range(RUNS_KEPT + 4)]
        known = await world.staging.fetch_runs()
        assert known == runs[::-1][:RUNS_KEPT]
        for run in runs:
            assert bool(world.chunk_keys(run)) == (run in known)

    play(scenario, fake_world(movies(200)))


def document(**changes: Any) -> Callable[[bytes], bytes]:
    return lambda value: orjson.dumps({**orjson.loads(value), **changes})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("runs", lambda _: b"garbage"),
        ("runs", document(format=2)),
        ("current", lambda _: b"garbage"),
        ("RUN/manifest", lambda _: b"garbage"),
        ("RUN/manifest", document(format=2)),
        ("RUN/manifest", document(ttl_seconds="x")),
        ("RUN/manifest", None),
        ("RUN/ledger/0", lambda _: b"garbage"),
        ("RUN/ledger/0", document(format=2)),
        ("RUN/ledger/0", None),
        ("RUN/chunk/0", None),
    ],
)
@pytest.mark.parametrize("command", ["extract", "run"])
def test_whatever_an_earlier_run_left_behind_a_new_one_works(
    command: str, name: str, change: Callable[[bytes], bytes] | None
) -> None:
    async def scenario(world: World) -> None:
        first = await world.extract()
        key = f"movies/{name.replace('RUN', str(first.run_id))}"
        if change is None:
            await world.cache.delete(key)
        else:
            await world.cache.set(key, change(world.entries[key]), 60)
        await getattr(world, command)()
        unreadable = change is not None and name != "current"
        assert [key in warning for warning in world.report.warnings] == [True] * unreadable
        await world.load()
        assert world.items == [item(row) for row in movies(200)]
        assert world.report.run_id != first.run_id

    play(scenario, fake_world(movies(200)))


# Failures in the middle


class Breaking(FakeSink):
    """Fails for good at its third put."""

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        if len(self.puts) >= 2:
            raise SinkError("the table is gone")
        return await super().put(items)


def test_a_failing_loader_ends_the_extractor() -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(SinkError, match="the table is gone"):
            await world.run()
        assert world.source.handed_over < 20_000
        assert world.source.closed == world.source.opened == 1
        assert await world.staging.fetch_current() is None

    play(scenario, fake_world(movies(20_000), sink_of=Breaking, job=replace(JOB, max_cached_bytes=20_000)))


def test_a_failing_loader_ends_an_extractor_that_waits_for_room() -> None:
    async def scenario(world: World) -> None:
        sink = FakeSink("movies", account=world.tables)
        sink.gate = asyncio.Event()
        running = asyncio.create_task(world.run(sink))
        before = -1
        while before != world.source.handed_over or not before:  # until it waits
            before = world.source.handed_over
            for _ in range(200):
                await asyncio.sleep(0)
        assert before < 6000
        sink.errors = [SinkError("the table is gone")]
        sink.gate.set()
        with pytest.raises(SinkError, match="the table is gone"):
            await running

    play(scenario, fake_world(movies(6000), job=replace(JOB, max_cached_bytes=5000)))


@pytest.mark.parametrize(
    "error", [SourceError("refused in the middle"), Unavailable("the connection broke"), ValueError("a defect")]
)
@pytest.mark.parametrize("command", ["extract", "run"])
def test_a_failing_source_ends_the_rest(command: str, error: Exception) -> None:
    async def scenario(world: World) -> None:
        world.source.error = (1500, error)
        with pytest.raises(type(error)) as caught:
            await getattr(world, command)()
        assert caught.value is error
        assert world.source.closed == world.source.opened
        assert (world.source.opened == 1) == (not isinstance(error, Unavailable))
        assert await world.staging.fetch_current() is None
        world.source.error = None
        await getattr(world, command)()

    play(scenario, fake_world(movies(3000)))


def test_an_error_at_the_very_end_of_the_source_is_no_extraction() -> None:
    async def scenario(world: World) -> None:
        world.source.error = (10_000, SourceError("the last byte never came"))
        with pytest.raises(SourceError):
            await world.run()
        assert await world.staging.fetch_current() is None

    play(scenario, fake_world(movies(300)))


@pytest.mark.parametrize("command", ["extract", "run"])
def test_a_ledger_that_cannot_be_written_ends_the_run(command: str) -> None:
    async def scenario(world: World) -> None:
        world.account.fault = lambda call: CacheError("refused") if "/ledger/" in call.key else None
        with pytest.raises(CacheError, match="refused"):
            await getattr(world, command)()
        assert await world.staging.fetch_current() is None
        manifest = await world.staging.fetch_manifest(str(world.report.run_id))
        assert manifest is not None
        assert manifest.status == "extracting"

    play(scenario, fake_world(movies(3000)))


@pytest.mark.parametrize("number", range(1, 12))
def test_a_ledger_page_that_could_not_be_written_once_never_makes_a_complete_run(number: int) -> None:
    # The keeper fails while the extraction waits to write the last pages itself.
    async def scenario(world: World) -> None:
        seen = 0

        def fault(call: Call) -> EtlError | None:
            nonlocal seen
            seen += "/ledger/" in call.key
            return CacheError("refused") if "/ledger/" in call.key and seen == number else None

        world.account.fault = fault
        with contextlib.suppress(CacheError):
            await world.extract()
        world.account.fault = None
        manifest = await world.staging.fetch_manifest(str(world.report.run_id))
        assert manifest is not None
        if manifest.status == "complete":
            records = await world.staging.fetch_ledger(manifest)
            assert sum(it.rows for it in records) == 260

    play(scenario, fake_world(movies(260)))


def test_the_leading_error_of_a_group() -> None:
    passing, lasting, usage, defect = Unavailable("a"), SinkError("b"), UsageError("c"), ValueError("d")

    def leading(*errors: Exception) -> BaseException:
        with pytest.raises(Exception, match=r"^[abcd]$") as caught, first_error():
            raise ExceptionGroup("all", [ExceptionGroup("some", errors[:1]), *errors[1:]])
        return caught.value

    assert leading(passing, lasting) is lasting
    assert leading(lasting, usage) is usage
    assert leading(defect, passing) is passing
    assert leading(defect) is defect
    assert leading(passing) is passing


# Cancellation


@pytest.mark.parametrize("command", ["extract", "load", "run"])
def test_cancelled_at_any_call_nothing_is_left_behind(command: str) -> None:
    async def attempt(number: int) -> bool:
        world = fake_world(movies(260))
        await world.extract()
        before = await world.staging.fetch_current()
        task: asyncio.Task[Any] = asyncio.create_task(getattr(world, command)())
        calls = 0

        def cancel(_call: Call) -> None:
            nonlocal calls
            calls += 1
            if calls == number:
                task.cancel()

        world.account.fault = cancel
        try:
            await task
        except asyncio.CancelledError:
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert world.source.opened == world.source.closed
            assert world.account.in_flight == 0
            world.account.fault = None
            if await world.staging.fetch_current() != before:
                assert world.account.named("set")[-1] == "movies/current"
            world.tables = {}
            await world.load()
            assert world.items == [item(row) for row in movies(260)]
            return True
        assert calls < number or command != "load"
        return False

    async def scenario() -> None:
        number = 1
        while await attempt(number):
            number += 1
        assert number > 8

    bounded(scenario)


def test_cancelled_over_the_wire_nothing_is_left_behind() -> None:
    async def body() -> None:
        async with asyncio.timeout(BOUND), momento() as world:
            server = world.server
            assert server is not None
            world.source.rows = movies(3000)
            task: asyncio.Task[Any] = asyncio.create_task(world.run())
            others = asyncio.all_tasks()

            def cancel(_request: object) -> bool:
                task.cancel()
                return False

            fault = server.faults.fail("set", status="internal", when=lambda it: b"/chunk/9" in it.cache_key)
            fault.when = lambda it: b"/chunk/9" in it.cache_key and cancel(it)
            with pytest.raises(asyncio.CancelledError):
                await task
            mine = {
                it for it in asyncio.all_tasks() - others if "etlcli" in repr(it.get_coro()) and "local" not in repr(it)
            }
            assert mine == set()
            assert await world.staging.fetch_current() is None
            server.faults.clear()
            await world.run()
            assert world.figures == (3000, 3000, 0)

    asyncio.run(body())


# Memory


def settled() -> Awaitable[None]:
    """Let everybody work who can."""

    async def body() -> None:
        for _ in range(2000):
            await asyncio.sleep(0)

    return body()


def chunks_of(items: int) -> float:
    return items * 60 / CHUNK_BYTES


@pytest.mark.parametrize("rows", [3000, 9000])
def test_a_cache_that_stalls_holds_the_source(rows: int) -> None:
    """Chunks that were read and not stored yet are few, however large the table is."""

    async def scenario(world: World) -> None:
        gate = asyncio.Event()

        class Gated(FakeCache):
            async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
                if "/chunk/" in key:
                    waiting.append(key)
                    await gate.wait()
                await super().set(key, value, ttl_seconds)

        waiting: list[str] = []
        world.cache = Gated("etl", world.account)
        running = asyncio.create_task(world.run())
        await settled()
        assert len(waiting) == 4
        # Four being stored, four that wait, one that waits to wait, and one being filled
        assert chunks_of(world.source.handed_over) < 14
        gate.set()
        await running
        assert world.figures == (rows, rows, 0)

    play(scenario, fake_world(movies(rows)))


@pytest.mark.parametrize("rows", [3000, 9000])
def test_a_destination_that_stalls_holds_the_loader_and_at_the_bound_the_source(rows: int) -> None:
    async def scenario(world: World) -> None:
        sink = FakeSink("movies", account=world.tables)
        sink.gate = asyncio.Event()
        running = asyncio.create_task(world.run(sink))
        await settled()
        fetched = sum("/chunk/" in key for key in world.account.named("get"))
        assert fetched == 3
        stored = sum("/chunk/" in key for key in world.account.named("set"))
        assert stored < 35  # all that there is room for
        assert sum(len(value) for key, value in world.entries.items() if "/chunk/" in key) <= 10_000
        assert chunks_of(world.source.handed_over) < stored + 14
        sink.gate.set()
        await running
        assert world.figures == (rows, rows, 0)

    play(scenario, fake_world(movies(rows), job=replace(JOB, max_cached_bytes=10_000)))


def test_calls_at_once_are_few() -> None:
    async def scenario(world: World) -> None:
        await world.run()
        # Four that store, four that fetch, and the ledger's keeper
        assert 2 < world.account.peak <= 9

    play(scenario, fake_world(movies(6000)))


# Inspection


def test_what_the_cache_holds(play_both: Callable[[Scenario], None]) -> None:
    async def scenario(world: World) -> None:
        world.source.rows = with_rejects(600, 100)
        first = await world.extract()
        second = await world.run()
        found = await inspect_job("movies", world.cache)
        assert [it.manifest.run_id for it in found.runs] == [second.run_id, first.run_id]
        assert [it.current for it in found.runs] == [True, False]
        assert found.current is not None
        assert found.current.manifest == second.manifest
        assert sum(it.rows for it in found.current.chunks) == 594
        assert found.current.seconds_left is not None
        assert 0 < found.current.seconds_left <= JOB.ttl_seconds
        assert list(found.sample) == [item(row) for row in world.source.rows[1:6]]
        row = await find_row("movies", world.cache, "593")
        assert row is not None
        assert row[1] == item(world.source.rows[593])
        assert await find_row("movies", world.cache, "600") is None
        assert (await check_chunks("movies", world.cache, first.run_id))[1] == []
        _, rejects = await list_rejects("movies", world.cache, first.run_id)
        assert len(rejects) == 6

    play_both(scenario)


def test_an_old_runs_ledger_that_has_expired_hides_nothing() -> None:
    async def scenario(world: World) -> None:
        first = await world.extract()
        second = await world.extract()
        await world.cache.delete(f"movies/{first.run_id}/ledger/0")
        found = await inspect_job("movies", world.cache)
        assert [(it.manifest.run_id, bool(it.chunks)) for it in found.runs] == [
            (second.run_id, True),
            (first.run_id, False),
        ]
        assert found.runs[1].seconds_left is None
        for ask in (
            lambda: find_row("movies", world.cache, "1", first.run_id),
            lambda: check_chunks("movies", world.cache, first.run_id),
        ):
            with pytest.raises(CacheError, match="page 0 of the ledger"):
                await ask()

    play(scenario, fake_world(movies(200)))


# Mode replace


REPLACE = replace(JOB, mode="replace")
MARK = "_momento_etl"
BY_HAND = {"movie_id": {"N": "900001"}, "title": {"S": "by hand"}, MARK: {"N": "1"}}


def unmarked(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in found.items() if name != MARK} for found in items]


def placed(world: World, *items: dict[str, Any]) -> None:
    """Write items past the program."""
    for found in items:
        world.tables["movies"].items[orjson.dumps(found["movie_id"]).decode(),] = found


async def in_one_go(world: World) -> Report:
    return await world.run()


async def in_two(world: World) -> Report:
    return await world.load((await world.extract()).run_id)


WAYS = pytest.mark.parametrize("transfer", [in_one_go, in_two])
Transfer: TypeAlias = Callable[[World], Awaitable[Report]]


@WAYS
@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_replace_removes_what_is_gone_and_nothing_else(
    play_both: Callable[[Scenario], None], transfer: Transfer, layout: Layout
) -> None:
    async def scenario(world: World) -> None:
        world.job = replace(REPLACE, layout=layout)
        world.source.rows = movies(300)
        first = await transfer(world)
        assert (first.mode, first.counters.items_deleted) == ("replace", 0)
        assert unmarked(world.items) == [item(row) for row in movies(300)]
        placed(world, BY_HAND)
        world.source.rows = movies(400, "new")[150:]
        second = await transfer(world)
        assert second.counters.items_deleted == 150
        assert unmarked(world.items[:-1]) == [item(row) for row in movies(400, "new")[150:]]
        assert world.items[-1] == BY_HAND
        mark = (await world.state.ensure_mark("movies")).value(str(second.run_id))
        assert {found[MARK]["S"] for found in world.items[:-1]} == {mark}
        assert world.figures == (250, 250, 0)

    play_both(scenario)


@WAYS
def test_two_jobs_leave_each_others_items_alone(transfer: Transfer) -> None:
    async def scenario(world: World) -> None:
        other = replace(world, job=replace(REPLACE, name="actors"), source=FakeSource(MOVIES, movies(2000)[1000:]))
        await transfer(world)
        await transfer(other)
        assert len(world.items) == 1300
        world.source.rows = movies(200)
        assert (await transfer(world)).counters.items_deleted == 100
        other.source.rows = movies(1600)[1000:]
        assert (await transfer(other)).counters.items_deleted == 400
        assert unmarked(world.items) == [item(row) for row in [*movies(200), *movies(1600)[1000:]]]

    play(scenario, fake_world(movies(300), job=REPLACE))


@WAYS
@pytest.mark.parametrize(
    ("bound", "gone", "removed"),
    [
        (Share(Decimal(50), is_percentage=True), 50, True),
        (Share(Decimal(50), is_percentage=True), 51, False),
        (Share(Decimal("12.5"), is_percentage=True), 12, True),
        (Share(Decimal("12.5"), is_percentage=True), 13, False),
        (Share(Decimal(7), is_percentage=False), 7, True),
        (Share(Decimal(7), is_percentage=False), 8, False),
        (Share(Decimal(0), is_percentage=False), 0, True),
        (Share(Decimal(0), is_percentage=True), 1, False),
        (Share(Decimal(100), is_percentage=True), 100, True),
    ],
    ids=str,
)
def test_never_more_than_may_be_removed(transfer: Transfer, bound: Share, gone: int, *, removed: bool) -> None:
    async def scenario(world: World) -> None:
        await transfer(world)
        placed(world, *({"movie_id": {"N": str(number)}} for number in range(2000, 2400)))
        world.job = replace(world.job, max_deletes=bound)
        world.source.rows = movies(100, "new")[gone:]
        if removed:
            assert (await transfer(world)).counters.items_deleted == gone
        else:
            with pytest.raises(TerminalError, match=rf"{gone} of the 100 items.*none was") as caught:
                await transfer(world)
            assert "--max-deletes" in str(caught.value.hint)
            assert world.report.counters.items_deleted == 0
            # Everything new is in place, and what is to go can go later.
            world.job = replace(world.job, max_deletes=Share(Decimal(100), is_percentage=True))
            left = unmarked(world.items)[: -400 or None]
            assert left == [item(row) for row in [*movies(gone), *movies(100, "new")[gone:]]]
            assert (await world.load()).counters.items_deleted == gone
        assert unmarked(world.items)[:-400] == [item(row) for row in movies(100, "new")[gone:]]
        assert len(world.items) == 500 - gone

    play(scenario, fake_world(movies(100), job=REPLACE))


@WAYS
@pytest.mark.parametrize("every", [2, 77])
def test_a_rejected_rows_old_item_stays(play_both: Callable[[Scenario], None], transfer: Transfer, every: int) -> None:
    rows = [row for row in with_rejects(700, every) if int(str(row[0])) % 5]  # every fifth is gone
    rejected = [str(row[0]) for row in rows if row[2] == "NaN"]
    refused = [str(row[0]) for row in rows if row[2] != "NaN" and int(str(row[0])) % 3 == 0]

    def refuse(found: dict[str, Any]) -> str | None:
        return "no threes" if int(found["movie_id"]["N"]) % 3 == 0 else None

    async def scenario(world: World) -> None:
        world.job = REPLACE
        world.source.rows = movies(700, "old")
        await transfer(world)
        old = {found["movie_id"]["N"]: found for found in unmarked(world.items)}
        world.source.rows, world.refuse = rows, refuse
        report = await transfer(world)
        assert report.counters.rows_rejected == len(rejected) + len(refused)
        assert report.counters.items_deleted == 140
        found = {it["movie_id"]["N"]: it for it in unmarked(world.items)}
        assert found.keys() == {str(row[0]) for row in rows}
        for row in rows:
            number = str(row[0])
            assert found[number] == (old[number] if number in {*rejected, *refused} else item(row))
        # Once the rows are good again, nothing of it is left; and once they are gone, their items go.
        world.refuse = None
        world.source.rows = [row for row in movies(700) if str(row[0]) in found]
        assert (await transfer(world)).counters.items_deleted == 0
        world.source.rows = [row for row in movies(700) if str(row[0]) in found.keys() - rejected[:5]]
        assert (await transfer(world)).counters.items_deleted == 5

    play_both(scenario)


@WAYS
def test_rejects_that_the_cache_lost_keep_everything_in_place(transfer: Transfer) -> None:
    async def scenario(world: World) -> None:
        await transfer(world)
        world.source.rows = with_rejects(250, 2)
        stored: list[Call] = []

        def fault(call: Call) -> EtlError | None:
            if call.name == "get" and call.key.endswith("rejects/extract/1"):
                world.account.caches["etl"].pop(call.key, None)
            stored.append(call)
            return None

        world.account.fault = fault
        with pytest.raises(CacheError, match=r"125 rows were rejected.*only 100 of them") as caught:
            await transfer(world)
        assert "--ttl" in str(caught.value.hint)
        assert world.report.counters.items_deleted == 0
        assert len(world.items) == 300
        world.account.fault = None
        assert (await transfer(world)).counters.items_deleted == 50

    play(scenario, fake_world(movies(300), job=REPLACE))


@WAYS
def test_rejects_that_lag_behind_are_waited_for(transfer: Transfer) -> None:
    async def scenario(world: World) -> None:
        await transfer(world)
        world.account.lag = 3
        world.source.rows = with_rejects(250, 2)
        assert (await transfer(world)).counters.items_deleted == 50
        assert len(world.items) == 250

    play(scenario, fake_world(movies(300), job=REPLACE))


def hook(found: dict[str, Any]) -> dict[str, Any] | None:
    if "raise" in found["title"]:
        raise ValueError("not this one")
    return None if "drop" in found["title"] else found


HOOKED = Recipe(shape=ShapeOptions(transforms=True), transform=Transform("mine:hook", hook, "digest"))


@WAYS
@pytest.mark.parametrize("refused", [False, True])
def test_what_only_a_transform_could_tell_is_not_guessed_at(transfer: Transfer, *, refused: bool) -> None:
    async def scenario(world: World) -> None:
        await transfer(world)
        (number, _, rating), *rest = movies(300)[20:]
        world.source.rows = [(number, "raise" if not refused else "refuse", rating), *rest]
        if refused:
            # The item that DynamoDB refuses is at hand, and its key with it.
            assert (await transfer(world)).counters.items_deleted == 20
        else:
            with pytest.raises(
                TerminalError, match="not removed: 1 row was rejected, and only mine:hook could tell which items"
            ):
                await transfer(world)
            assert world.report.counters.items_deleted == 0
        assert {found["movie_id"]["N"] for found in world.items} >= {str(row[0]) for row in movies(300)[20:]}
        assert len(world.items) == (280 if refused else 300)

    world = fake_world(movies(300), job=REPLACE, recipe=HOOKED)
    world.refuse = lambda found: "no" if found["title"]["S"] == "refuse" else None
    play(scenario, world)


@WAYS
def test_what_a_transform_drops_has_no_row_any_more(transfer: Transfer) -> None:
    async def scenario(world: World) -> None:
        await transfer(world)
        world.source.rows = [(number, f"drop {title}", rating) for number, title, rating in movies(9)] + movies(300)[9:]
        assert (await transfer(world)).counters.items_deleted == 9
        assert len(world.items) == 291

    play(scenario, fake_world(movies(300), job=REPLACE, recipe=HOOKED))


@WAYS
def test_what_was_written_without_a_mark_is_never_removed(transfer: Transfer) -> None:
    upsert, marks = JOB, REPLACE

    async def scenario(world: World) -> None:
        await transfer(world)
        world.job, world.source.rows = marks, movies(200)
        assert (await transfer(world)).counters.items_deleted == 0
        assert len(world.items) == 300
        # In mode upsert again: what it puts has no mark any more, and so stays.
        world.job, world.source.rows = upsert, movies(100)
        assert (await transfer(world)).mode == "upsert"
        assert [MARK in found for found in world.items] == [False] * 100 + [True] * 100 + [False] * 100
        world.job, world.source.rows = replace(marks, max_deletes=Share(Decimal(100), is_percentage=False)), movies(50)
        assert (await transfer(world)).counters.items_deleted == 100
        assert [found["movie_id"]["N"] for found in world.items] == [str(n) for n in [*range(100), *range(200, 300)]]

    play(scenario, fake_world(movies(300), job=upsert))


@pytest.mark.parametrize("command", ["run", "load"])
def test_without_a_state_table_there_is_no_mark_and_nothing_is_begun(command: str) -> None:
    async def scenario(world: World) -> None:
        await world.extract()  # it needs none
        before = dict(world.entries)
        world.state = cast(FakeState, NullState())
        with pytest.raises(ConfigError, match="state table") as caught:
            await getattr(world, command)()
        assert caught.value.hint
        assert (world.tables, dict(world.entries)) == ({}, before)

    play(scenario, fake_world(movies(30), job=REPLACE))


@pytest.mark.parametrize("command", ["run", "load"])
def test_a_run_that_fails_removes_nothing_and_the_next_does(command: str) -> None:
    async def scenario(world: World) -> None:
        await world.run()
        world.source.rows = movies(2000, "new")[100:]
        await world.extract()
        sink = world.sink()
        sink.errors = [SinkError("no more", hint="wait")]
        sink.puts.clear()
        with pytest.raises(SinkError):
            await getattr(world, command)(sink=sink)
        assert world.report.counters.items_deleted == 0
        assert len(world.items) == 2000
        assert (await getattr(world, command)()).counters.items_deleted == 100
        assert unmarked(world.items) == [item(row) for row in movies(2000, "new")[100:]]

    play(scenario, fake_world(movies(2000), job=REPLACE))


def test_an_old_extraction_that_is_loaded_again_removes_nothing_of_a_newer_one() -> None:
    async def scenario(world: World) -> None:
        first = await world.run()
        world.source.rows = movies(300, "new")[100:]
        await world.run()
        world.job = replace(world.job, max_deletes=Share(Decimal(100), is_percentage=True))
        assert (await world.load(first.run_id)).counters.items_deleted == 0
        assert unmarked(world.items) == [item(row) for row in [*movies(200), *movies(300, "new")[200:]]]
        # And what it brought back goes with the next run.
        assert (await world.run()).counters.items_deleted == 100
        assert unmarked(world.items) == [item(row) for row in movies(300, "new")[100:]]

    play(scenario, fake_world(movies(200), job=REPLACE))


@WAYS
def test_what_somebody_writes_meanwhile_is_theirs(transfer: Transfer) -> None:
    async def scenario(world: World) -> None:
        await transfer(world)
        world.source.rows = movies(300)[10:]

        class Busy(FakeSink):
            async def sweep(self, mark: ItemMark) -> int:
                self.meanwhile = lambda: placed(world, {"movie_id": {"N": "3"}, "title": {"S": "mine now"}})
                return await super().sweep(mark)

        world.sink_of = Busy
        assert (await transfer(world)).counters.items_deleted == 9
        assert world.items[0] == {"movie_id": {"N": "3"}, "title": {"S": "mine now"}}
        assert len(world.items) == 291

    play(scenario, fake_world(movies(300), job=REPLACE))


@WAYS
def test_a_source_that_is_empty_all_of_a_sudden_empties_nothing(transfer: Transfer) -> None:
    async def scenario(world: World) -> None:
        await transfer(world)
        world.source.rows = []
        with pytest.raises(TerminalError, match="300 of the 300 items"):
            await transfer(world)
        assert len(world.items) == 300

    play(scenario, fake_world(movies(300), job=REPLACE))


@WAYS
def test_an_empty_source_and_an_empty_table_are_no_error(transfer: Transfer) -> None:
    async def scenario(world: World) -> None:
        assert (await transfer(world)).counters.items_deleted == 0

    play(scenario, fake_world([], job=REPLACE))
