"""Killed at any instant: the same command finishes the job, and repeats at most what was in flight (promise 2)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import orjson
import pytest

from etlcli.cache.documents import dump_ledger_page, load_ledger_page
from etlcli.encoding import Recipe, ShapeOptions
from etlcli.errors import CacheError, ChunkError, EtlError, SourceError, Unavailable
from etlcli.leasing import LeaseHeld
from etlcli.model import Column, Key, KeyAttribute, Layout, Process, Relation, Selection
from etlcli.ports import Refusal
from etlcli.report import Report
from etlcli.state.host import HostProcesses
from etlcli.stopping import Stopped
from tests.contract.fakes.cache import Call, FakeAccount, FakeCache
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSnapshot, Row
from tests.contract.fakes.state import FakeState
from tests.integration.world import JOB, MOVIES, World, bounded, fake_world, item, movies, play

pytestmark = pytest.mark.usefixtures("small_chunks", "nobody_waits")

# Chunks that are on their way at once: those that are stored, those that are loaded, and those whose ledger page was
# not written yet.
IN_FLIGHT = 4 + 4 + 4


class Killed(BaseException):
    """SIGKILL: whatever is called from now on, nothing happens."""


@dataclass
class Kill:
    """Kills a run at its so many-th call of any service, before the call has an effect or, ``late``, after it."""

    at: int
    late: bool = False
    calls: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return len(self.calls) > self.at

    def before(self, name: str) -> None:
        self.after()
        self.calls.append(name)
        if not self.late:
            self.after()

    def after(self) -> None:
        if self.done:
            raise Killed


class MortalCache(FakeCache):
    def __init__(self, name: str, account: FakeAccount, kill: Kill) -> None:
        super().__init__(name, account)
        self.kill = kill

    async def _called(self, name: str, key: str) -> EtlError | None:
        self.kill.before(f"{name} {key}")
        return await super()._called(name, key)

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        await super().set(key, value, ttl_seconds)
        self.kill.after()

    async def delete(self, key: str) -> None:
        await super().delete(key)
        self.kill.after()


class MortalSink(FakeSink):
    kill: Kill

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        self.kill.before("put")
        refusals = await super().put(items)
        self.kill.after()
        return refusals


class MortalState(FakeState):
    kill: Kill

    async def _is_there(self) -> bool:
        self.kill.before("state")
        there = await super()._is_there()
        self.kill.after()
        return there


class Grave:
    """A machine on which every process that can be asked for is dead."""

    def is_dead(self, process: Process) -> bool:  # noqa: ARG002
        return True


@pytest.fixture
def dead_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are given by a process that has ended by the time of the next one."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = HostProcesses().find(child.pid)
    child.communicate(b"\n")
    assert process is not None
    monkeypatch.setattr(HostProcesses, "current", lambda _self: process)


def on_the_grave(world: World) -> World:
    """The same world, for a command that finds no process alive."""
    return replace(world, state=FakeState(account=world.state.account, processes=Grave()), report=Report("movies"))


async def killed(world: World, at: int, command: str, *, late: bool) -> Kill:
    """Give a command that is killed at a call, if it makes so many."""
    kill = Kill(at, late)
    mortal = on_the_grave(world)
    mortal.cache = MortalCache("etl", world.account, kill)
    mortal.sink_of = type("It", (MortalSink,), {"kill": kill})
    mortal.state = MortalState(account=world.state.account, processes=Grave())
    mortal.state.kill = kill
    try:
        await getattr(mortal, command)()
    except (Killed, BaseExceptionGroup):
        assert kill.done
    return kill


def with_rejects(count: int) -> list[Row]:
    return [(n, title, "NaN" if int(str(n)) % 50 == 7 else rating) for n, title, rating in movies(count)]


@pytest.mark.usefixtures("dead_process")
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("layout", "count"), [("packed", 900), ("rows", 60)])
def test_killed_at_any_call_the_same_run_goes_on(layout: Layout, count: int, *, late: bool) -> None:
    rows = with_rejects(count)
    good = [item(row) for row in rows if row[2] != "NaN"]

    async def scenario() -> None:
        resumed = 0
        for at in range(10_000):
            world = fake_world(rows, job=replace(JOB, layout=layout))
            kill = await killed(world, at, "run", late=late)
            if not kill.done:
                break  # more calls than there are
            after = on_the_grave(world)
            report = await after.run()
            where = f"killed at call {at}, {kill.calls[-1]}"
            assert after.items == good, where
            assert after.figures == (count, len(good), count - len(good)), where
            assert report.manifest is not None
            records = await after.staging.fetch_ledger(report.manifest)
            assert sum(record.rows for record in records) == len(good), where
            largest = max(record.rows for record in records)
            assert after.tables["movies"].written <= len(good) + IN_FLIGHT * largest, where
            assert len(await after.staging.fetch_rejects(report.manifest)) == count - len(good), where
            assert await after.staging.fetch_current() == report.run_id
            resumed += report.resumed
            # All is told: nothing is left to be taken up.
            assert not (await on_the_grave(world).run()).resumed, where
        assert at > 60
        assert resumed > at / (2 if layout == "packed" else 4)

    bounded(scenario)


@pytest.mark.usefixtures("dead_process")
@pytest.mark.parametrize("late", [False, True])
def test_killed_at_any_call_the_same_extraction_goes_on(*, late: bool) -> None:
    rows = with_rejects(900)

    async def scenario() -> None:
        resumed = 0
        for at in range(10_000):
            world = fake_world(rows)
            kill = await killed(world, at, "extract", late=late)
            if not kill.done:
                break
            stored = {key for key in world.account.caches.get("etl", {}) if "/chunk/" in key}
            after = on_the_grave(world)
            report = await after.extract()
            resumed += report.resumed
            where = f"killed at call {at}, {kill.calls[-1]}"
            if report.resumed:
                again = [key for key in world.account.named("set") if key in stored]
                assert len(again) <= len(stored) + IN_FLIGHT, where
            await after.load()
            assert after.items == [item(row) for row in rows if row[2] != "NaN"], where
            assert after.figures == (900, 882, 18), where
        assert at > 30
        assert resumed > at / 3

    bounded(scenario)


@pytest.mark.usefixtures("dead_process")
@pytest.mark.parametrize("late", [False, True])
def test_killed_at_any_call_the_same_load_goes_on(*, late: bool) -> None:
    async def scenario() -> None:
        resumed = 0
        for at in range(10_000):
            world = fake_world(movies(900))
            extracted = await world.extract()
            kill = await killed(world, at, "load", late=late)
            if not kill.done:
                break
            after = on_the_grave(world)
            report = await after.load()
            where = f"killed at call {at}, {kill.calls[-1]}"
            assert report.run_id == extracted.run_id
            assert after.items == [item(row) for row in movies(900)], where
            assert after.figures == (900, 900, 0), where
            assert after.tables["movies"].written <= 900 + IN_FLIGHT * 60, where
            resumed += report.resumed
            # What is told to be loaded already is not taken for done by whoever loads it once more.
            after.tables["movies"].items.clear()
            again = await on_the_grave(world).load()
            assert (again.resumed, len(after.items)) == (False, 900), where
        assert at > 30
        assert resumed > at / 3

    bounded(scenario)


@pytest.mark.usefixtures("dead_process")
def test_killed_again_and_again_it_comes_to_an_end() -> None:
    async def scenario() -> None:
        world = fake_world(with_rejects(2000))
        for at in range(20, 400):
            kill = await killed(world, at % 97 + 5, "run", late=at % 2 == 0)
            if not kill.done:
                break
        assert at > 22
        assert world.items == [item(row) for row in with_rejects(2000) if row[2] != "NaN"]
        assert world.tables["movies"].written <= 1960 + (at - 19) * IN_FLIGHT * 60

    bounded(scenario)


@pytest.mark.usefixtures("dead_process")
def test_a_chunk_that_is_read_anew_is_loaded_anew_though_its_number_was_loaded() -> None:
    async def scenario() -> None:
        for at in range(20, 140, 3):
            world = fake_world(movies(900))
            run_id = await interrupted(world)
            # The cache remembers an older page of the ledger than what was loaded since.
            key = f"movies/{run_id}/ledger/0"
            page = load_ledger_page(world.account.values("etl")[key], key)
            await world.cache.set(key, dump_ledger_page(page[:2]), 4800)
            world.source.rows = movies(900, "new")
            await killed(world, at, "run", late=True)
            after = on_the_grave(world)
            report = await after.run()
            assert report.manifest is not None
            records = await after.staging.fetch_ledger(report.manifest)
            cached = [line for record in records for line in await after.staging.fetch_chunk(report.manifest, record)]
            assert after.items == [orjson.loads(line) for line in cached], at

    bounded(scenario)


# What is not taken up, and what is said of it


async def interrupted(world: World, at: int = 60) -> str:
    """A run that was killed after some of its chunks were loaded."""
    assert (await killed(world, at, "run", late=True)).done
    (run_id,) = await world.staging.fetch_runs()
    assert 0 < world.tables["movies"].written < len(world.source.rows)
    return run_id


def with_title_first(world: World) -> None:
    world.source.relation = replace(MOVIES, columns=(MOVIES.columns[1], MOVIES.columns[0], MOVIES.columns[2]))
    world.source.rows = [(row[1], row[0], row[2]) for row in world.source.rows]


def made_anew(world: World) -> None:
    world.tables["movies"] = FakeTable(Key(KeyAttribute("movie_id", "N")))


def damaged(name: str) -> Callable[[World], None]:
    def damage(world: World) -> None:
        (key,) = [key for key in world.account.caches["etl"] if key.endswith(name)]
        entry = world.account.caches["etl"][key]
        world.account.caches["etl"][key] = entry._replace(value=b"{" + entry.value)

    return damage


@pytest.mark.usefixtures("dead_process")
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (with_title_first, "the source's columns, or what is made of them, have changed since"),
        (lambda world: setattr(world, "job", replace(JOB, layout="rows")), "its layout is packed"),
        (lambda world: setattr(world, "job", replace(JOB, restart=True)), None),
        (damaged("/manifest"), "manifest is damaged"),
        (damaged("/ledger/0"), "ledger/0 is damaged"),
    ],
)
def test_what_would_make_other_items_is_not_taken_up(change: Callable[[World], None], why: str | None) -> None:
    async def scenario(world: World) -> None:
        run_id = await interrupted(world)
        change(world)
        after = on_the_grave(world)
        report = await after.run()
        assert (report.resumed, report.run_id != run_id) == (False, True)
        assert after.items == [item(row) for row in movies(900)]
        assert [warning for warning in report.warnings if why is not None and why in warning] or why is None

    play(scenario, fake_world(movies(900)))


@pytest.mark.usefixtures("dead_process")
def test_a_table_that_was_made_anew_gets_all_of_it() -> None:
    async def scenario(world: World) -> None:
        run_id = await interrupted(world)
        made_anew(world)
        after = on_the_grave(world)
        report = await after.run()
        assert (report.resumed, report.run_id) == (True, run_id)
        assert after.tables["movies"].written == 900
        assert after.items == [item(row) for row in movies(900)]

    play(scenario, fake_world(movies(900)))


@pytest.mark.usefixtures("dead_process")
@pytest.mark.parametrize(
    "relation",
    [
        replace(MOVIES, primary_key=(), unique_keys=()),
        replace(MOVIES, unseekable=frozenset({"movie_id"})),
    ],
)
def test_rows_without_a_unique_order_are_read_anew(relation: Relation) -> None:
    async def scenario(world: World) -> None:
        run_id = await interrupted(world)
        after = on_the_grave(world)
        report = await after.run()
        assert (report.resumed, report.run_id != run_id) == (False, True)
        assert any("no unique order" in warning for warning in report.warnings)
        assert after.items == [item(row) for row in movies(900)]

    play(scenario, fake_world(movies(900), relation))


@pytest.mark.usefixtures("dead_process")
def test_a_masked_key_is_nowhere_in_the_cache() -> None:
    async def scenario(world: World) -> None:
        world.recipe = Recipe(shape=ShapeOptions(mask={"title": "hash"}))
        world.source.relation = replace(MOVIES, primary_key=("title",), unique_keys=(frozenset({"title"}),))
        await interrupted(world)
        assert not any(b"Film" in value for value in world.account.values("etl").values())
        report = await on_the_grave(world).run()
        assert not report.resumed
        assert len(world.tables["movies"].items) == 900

    play(scenario, fake_world(movies(900), job=replace(JOB, key=("movie_id",))))


def test_a_run_of_a_living_process_is_left_alone() -> None:
    async def scenario(world: World) -> None:
        await killed(world, 30, "extract", late=True)
        (first,) = await world.staging.fetch_runs()
        for command in ("extract", "run"):
            report = await getattr(on_the_grave(world), command)()
            assert (report.resumed, report.run_id != first) == (False, True)

    play(scenario, fake_world(movies(900)))


@pytest.mark.usefixtures("dead_process")
def test_a_run_takes_up_what_an_extraction_left() -> None:
    async def scenario(world: World) -> None:
        await killed(world, 30, "extract", late=True)
        (first,) = await world.staging.fetch_runs()
        report = await on_the_grave(world).run()
        assert (report.resumed, report.run_id) == (True, first)
        assert world.items == [item(row) for row in movies(900)]

    play(scenario, fake_world(movies(900)))


@pytest.mark.usefixtures("dead_process")
def test_what_changed_meanwhile_is_read_in_the_newer_snapshot() -> None:
    async def scenario(world: World) -> None:
        await interrupted(world)
        world.source.rows = movies(1000, "new")
        report = await on_the_grave(world).run()
        assert report.resumed
        assert report.manifest is not None
        assert len(report.manifest.snapshots) == 2
        found = {found["movie_id"]["N"]: found for found in world.items}
        assert len(found) == 1000
        editions = [found[str(number)] == item(movies(1000, "new")[number]) for number in range(1000)]
        assert editions == sorted(editions), "the old rows come first, and none is neither"
        assert 0 < sum(editions) < 1000

    play(scenario, fake_world(movies(900)))


# Ending early, as asked


@pytest.mark.parametrize("command", ["run", "load", "extract"])
@pytest.mark.parametrize("after", [1, 2, 5, 9])
def test_asked_to_end_it_finishes_what_is_in_flight_and_no_more(command: str, after: int) -> None:
    async def scenario(world: World) -> None:
        if command == "load":
            await world.extract()
        seen = 0
        asked_at = 0

        def ask(call: Call) -> None:
            nonlocal seen, asked_at
            seen += "/chunk/" in call.key and call.name == ("get" if command == "load" else "set")
            if seen == after and not world.report.stop.requested:
                assert world.report.stop.heeded
                world.report.stop.request()
                asked_at = len(world.account.named("set"))

        world.account.fault = ask
        with pytest.raises(Stopped):
            await getattr(world, command)()
        world.account.fault = None
        begun = [key for key in world.account.named("set")[asked_at:] if "/chunk/" in key]
        assert len(begun) <= 4
        assert not world.report.stop.heeded
        assert world.source.closed == world.source.opened
        written = world.tables["movies"].written if world.tables else 0
        assert command == "extract" or 0 < written < 900
        # Nothing is done twice, and whoever ended in order has nothing to hide from the next one.
        if command == "extract":
            manifest = await world.staging.fetch_manifest(str(world.report.run_id))
            assert manifest is not None
            known = await world.staging.fetch_known_chunks(manifest)
            assert len(known) == sum("/chunk/" in key for key in world.account.named("set"))
            return
        record = await world.state.fetch_run("movies", str(world.report.run_id))
        assert record is not None
        assert record.status == "interrupted"
        report = await getattr(world, command)()
        assert report.resumed
        assert world.items == [item(row) for row in movies(900)]
        assert world.tables["movies"].written == 900

    play(scenario, fake_world(movies(900)))


def test_asked_to_end_while_it_waits_for_room_it_does() -> None:
    async def scenario(world: World) -> None:
        sink = FakeSink("movies", account=world.tables)
        sink.gate = asyncio.Event()
        running = asyncio.create_task(world.run(sink))
        before = -1
        while before != world.source.handed_over or not before:  # until it waits
            before = world.source.handed_over
            for _ in range(200):
                await asyncio.sleep(0)
        world.report.stop.request()
        for _ in range(50):
            await asyncio.sleep(0)
        assert not running.done(), "the items that were sent are waited for"
        sink.gate.set()
        with pytest.raises(Stopped):
            await running

    play(scenario, fake_world(movies(6000), job=replace(JOB, max_cached_bytes=5000)))


# The source breaks


@pytest.mark.parametrize("command", ["extract", "run"])
@pytest.mark.parametrize("every", [0, 100, 700])
def test_a_connection_that_breaks_is_made_again(command: str, every: int) -> None:
    async def scenario(world: World) -> None:
        broken = 0

        async def breaks(handed_over: int) -> None:
            nonlocal broken
            if handed_over == every and broken < 5:
                broken += 1
                raise Unavailable("the connection broke", hint="again")

        world.source.before_batch = breaks
        report = await getattr(world, command)()
        assert (broken, report.counters.retries) == (5, 5)
        assert report.manifest is not None
        assert len(report.manifest.snapshots) == 6
        if command == "extract":
            await world.load()
        assert world.items == [item(row) for row in movies(5000)]
        assert world.figures == (5000, 5000, 0)

    play(scenario, fake_world(movies(5000)))


@pytest.mark.parametrize("command", ["extract", "run"])
def test_a_connection_that_breaks_while_the_run_is_planned_is_made_again(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = 0

    async def describe(self: FakeSnapshot, selection: Selection) -> Relation:
        nonlocal broken
        broken += 1
        if broken in (1, 2, 4, 5):  # before there is a plan, and when a newer snapshot is looked at
            raise Unavailable("the connection broke", hint="again")
        return await describes(self, selection)

    describes = FakeSnapshot.describe
    monkeypatch.setattr(FakeSnapshot, "describe", describe)

    async def scenario(world: World) -> None:
        async def breaks(handed_over: int) -> None:
            if handed_over == 500 and broken == 3:
                raise Unavailable("the connection broke", hint="again")

        world.source.before_batch = breaks
        report = await getattr(world, command)()
        assert (broken, report.counters.retries) == (6, 5)
        assert world.source.closed == world.source.opened == 6
        if command == "extract":
            await world.load()
        assert world.items == [item(row) for row in movies(900)]

    play(scenario, fake_world(movies(900)))


def test_rows_without_a_unique_order_cannot_be_gone_on_with() -> None:
    async def scenario(world: World) -> None:
        world.source.error = (500, Unavailable("the connection broke", hint="again"))
        with pytest.raises(Unavailable, match="the connection broke"):
            await world.run()
        assert world.source.opened == 1

    play(scenario, fake_world(movies(900), replace(MOVIES, primary_key=(), unique_keys=())))


@pytest.mark.parametrize("name", ["title", "year"])
def test_columns_that_change_while_they_are_read_are_an_error(name: str) -> None:
    async def scenario(world: World) -> None:
        async def breaks(handed_over: int) -> None:
            if handed_over == 500:
                number, title, rating = MOVIES.columns
                changed = Column(name, replace(title.type, name="varchar(9)"))
                world.source.relation = replace(MOVIES, columns=(number, changed, rating))
                raise Unavailable("the connection broke")

        world.source.before_batch = breaks
        with pytest.raises(SourceError, match=r"public\.movies changed while it was read"):
            await world.run()

    play(scenario, fake_world(movies(900)))


# Chunks that are gone


def losing(world: World, *numbers: int) -> None:
    """The cache loses chunks between their being stored and being loaded."""
    lost: set[str] = set()

    def lose(call: Call) -> None:
        number = call.key.rpartition("/")[2]
        if call.name == "get" and "/chunk/" in call.key and number in map(str, numbers) and call.key not in lost:
            lost.add(call.key)
            world.account.caches["etl"].pop(call.key)

    world.account.fault = lose


@pytest.mark.parametrize("changed", [False, True])
def test_a_lost_chunk_is_read_again(*, changed: bool) -> None:
    async def scenario(world: World) -> None:
        losing(world, 0, 3, 7)
        if changed:

            async def change(handed_over: int) -> None:
                if handed_over == 800:
                    world.source.rows = [row for row in movies(900, "new") if row[0] != "5"]

            world.source.before_batch = change
        report = await world.run()
        told = [warning for warning in report.warnings if "were read again" in warning]
        assert len(told) == 3
        assert world.figures[0] == world.figures[1] == len(world.items)
        assert report.manifest is not None
        assert report.manifest.totals.rows_extracted == world.figures[0]
        if not changed:
            assert all("are the same" in warning for warning in told)
            assert world.items == [item(row) for row in movies(900)]
        else:
            assert any("the source has changed there since" in warning for warning in told)
        # What was stored again is whole.
        before = world.items
        world.account.fault = None
        world.tables = {}
        await world.load()
        assert world.items == before

    play(scenario, fake_world(movies(900)))


def test_a_lost_chunk_that_cannot_be_read_again_begins_the_next_run_anew() -> None:
    async def scenario(world: World) -> None:
        losing(world, 3)
        with pytest.raises(ChunkError, match=r"chunk 3 of run .* cannot be read again") as caught:
            await world.run()
        assert "again" in str(caught.value.hint)
        world.account.fault = None
        report = await world.run()
        assert not report.resumed
        assert world.items == [item(row) for row in movies(900)]

    play(scenario, fake_world(movies(900), replace(MOVIES, primary_key=(), unique_keys=())))


def test_a_load_names_the_chunk_that_is_gone() -> None:
    async def scenario(world: World) -> None:
        await world.extract()
        losing(world, 3)
        with pytest.raises(CacheError, match="chunk 3 of run ") as caught:
            await world.load()
        assert "momento-etl run" in str(caught.value.hint)
        assert world.source.opened == 1

    play(scenario, fake_world(movies(900)))


class Losing(FakeSink):
    """Says that all is written, and forgets one item the first time."""

    forgotten = False

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        kept = [found for found in items if b'"N":"77"' not in found or Losing.forgotten]
        Losing.forgotten = Losing.forgotten or len(kept) < len(items)
        return await super().put(kept)


def test_a_run_that_lost_a_row_is_not_gone_on_with() -> None:
    async def scenario(world: World) -> None:
        Losing.forgotten = False
        with pytest.raises(EtlError, match="899 are accounted for"):
            await world.run()
        report = await world.run()
        assert not report.resumed
        assert world.items == [item(row) for row in movies(900)]

    play(scenario, fake_world(movies(900), sink_of=Losing))


# Two at once


@pytest.mark.parametrize("second", ["run", "load"])
def test_of_two_at_once_one_works(second: str) -> None:
    async def scenario(world: World) -> None:
        await world.extract()
        sink = FakeSink("movies", account=world.tables)
        sink.gate = asyncio.Event()
        first = asyncio.create_task(world.run(sink))
        while not world.tables:  # noqa: ASYNC110  a fake has no event for it
            await asyncio.sleep(0)
        other = replace(world, report=Report("movies"))
        with pytest.raises(LeaseHeld, match=r"another run of movies is at work: momento-etl run, on .*since") as caught:
            await getattr(other, second)()
        assert caught.value.exit_code == 5
        assert "--wait-for-lease" in str(caught.value.hint)
        sink.gate.set()
        await first
        await getattr(other, second)()

    play(scenario, fake_world(movies(900)))
