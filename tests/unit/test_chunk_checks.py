"""``run --verify`` and ``load --verify`` over fakes: what is put is read back before it counts, or may be freed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest

from etlcli import extraction, pipeline
from etlcli.cache import packed
from etlcli.cache.staging import Staging
from etlcli.encoding import PLAIN
from etlcli.errors import EtlError, ExitCode, SinkError
from etlcli.model import CREATE_DEFAULTS, Incremental, Job, Layout, Mode, Overlap, Relation, Selection
from etlcli.ports import Refusal, StoredItem
from etlcli.report import Report
from etlcli.resuming.unfinished import progress_name
from etlcli.verification.findings import DifferenceFound
from tests.contract.fakes.cache import Call, FakeAccount, FakeCache
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSource, Row, column
from tests.contract.fakes.state import FakeState

MARK = "_momento_etl"
ROWS = 3000
MOVIES = Relation(
    name="public.movies",
    columns=(column("movie_id", "int4"), column("title", "text"), column("rating", "numeric")),
    primary_key=("movie_id",),
    unique_keys=(frozenset({"movie_id"}),),
)
JOB = Job("movies", Selection(table="movies"), "etl", "movies", verifies=True)
Meddle = Callable[[dict[tuple[str, ...], dict[str, Any]]], None]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_ENCODED_BYTES", 10_000)
    monkeypatch.setattr(extraction, "_PIECE_BYTES", 2500)


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fake cache has not is not asked for again."""
    defaults = Staging.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "settling_seconds", 0.0)


def movies(count: int) -> list[Row]:
    return [(str(number), f"Film {number}", f"{number % 10}.50") for number in range(count)]


def place(number: int) -> tuple[str, ...]:
    return (orjson.dumps({"N": str(number)}).decode(),)


class MeddledSink(FakeSink):
    """Between a put and what follows, somebody else has a hand in the table."""

    meddle: Meddle | None = None
    events: list[tuple[str, set[int]]]

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        refusals = await super().put(items)
        self.events.append(("put", {int(orjson.loads(item)["movie_id"]["N"]) for item in items}))
        if self.meddle is not None:
            self.meddle(self.account[self.table].items)
        return refusals

    async def fetch(self, keys: Sequence[bytes]) -> list[StoredItem | None]:
        found = await super().fetch(keys)
        self.events.append(("fetched", {int(orjson.loads(key)["movie_id"]["N"]) for key in keys}))
        return found


@dataclass
class World:
    """A source, a cache and a table, and the commands over them."""

    rows: Sequence[Row] = field(default_factory=lambda: movies(ROWS))
    job: Job = JOB
    refuse: Callable[[dict[str, Any]], str | None] | None = None
    account: FakeAccount = field(default_factory=FakeAccount)
    tables: dict[str, FakeTable] = field(default_factory=dict)
    state: FakeState = field(default_factory=FakeState)
    report: Report = field(default_factory=lambda: Report("movies"))
    events: list[tuple[str, set[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = FakeSource(MOVIES, self.rows)
        self.cache = FakeCache("etl", self.account)

    def begun(self, meddle: Meddle | None, errors: Sequence[EtlError]) -> MeddledSink:
        self.report = Report("movies")
        self.events.clear()
        sink = MeddledSink("movies", self.report.counters, self.tables, refuse=self.refuse, errors=errors)
        sink.meddle, sink.events = meddle, self.events
        return sink

    def run(self, meddle: Meddle | None = None, errors: Sequence[EtlError] = ()) -> Report:
        sink = self.begun(meddle, errors)
        self._play(
            pipeline.run(self.job, PLAIN, CREATE_DEFAULTS, self.source, self.cache, sink, self.state, self.report)
        )
        return self.report

    def extract(self) -> None:
        self._play(
            pipeline.extract(self.job, PLAIN, self.source, self.cache, self.state, Report("movies")),
        )

    def load(self, meddle: Meddle | None = None, errors: Sequence[EtlError] = ()) -> Report:
        sink = self.begun(meddle, errors)
        self._play(pipeline.load(self.job, None, CREATE_DEFAULTS, self.cache, sink, self.state, self.report))
        return self.report

    def _play(self, command: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(60):
                await command
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())

    @property
    def items(self) -> dict[tuple[str, ...], dict[str, Any]]:
        return self.tables["movies"].items

    @property
    def numbers_put(self) -> list[int]:
        return sorted(number for name, numbers in self.events if name == "put" for number in numbers)

    def noted(self) -> frozenset[int]:
        """The chunks that count as loaded."""

        async def main() -> frozenset[int]:
            identity = await FakeSink("movies", account=self.tables).identity()
            return await self.state.fetch_progress("movies", progress_name(str(self.report.run_id), identity))

        return asyncio.run(main())

    def chunks(self) -> dict[int, range]:
        """The numbers of the items that each chunk has."""
        manifest = self.report.manifest
        assert manifest is not None
        records = asyncio.run(Staging(self.cache, "movies").fetch_known_chunks(manifest))
        return {it.number: range(int(str(it.first_key[0])), int(str(it.last_key[0])) + 1) for it in records}

    def chunk_of(self, number: int) -> int:
        """The chunk that has an item."""
        return next(chunk for chunk, numbers in self.chunks().items() if number in numbers)


def told(report: Report) -> list[tuple[str, int]]:
    assert report.verification is not None
    return [(it.kind, int(it.key["movie_id"]["N"])) for it in report.verification.differences]


def once(harm: Meddle, number: int) -> Meddle:
    """Harm an item, the first time that it is there."""
    done: list[int] = []

    def meddle(items: dict[tuple[str, ...], dict[str, Any]]) -> None:
        if place(number) in items and not done:
            done.append(number)
            harm(items)

    return meddle


def overwritten(number: int) -> Meddle:
    def harm(items: dict[tuple[str, ...], dict[str, Any]]) -> None:
        items[place(number)] = {**items[place(number)], "title": {"S": "another's"}}

    return once(harm, number)


def deleted(number: int) -> Meddle:
    def harm(items: dict[tuple[str, ...], dict[str, Any]]) -> None:
        del items[place(number)]

    return once(harm, number)


@pytest.mark.parametrize("layout", ["packed", "rows"])
@pytest.mark.parametrize("mode", ["upsert", "replace"])
@pytest.mark.parametrize("command", ["run", "load"])
def test_where_nothing_is_wrong_all_is_compared_and_nothing_found(command: str, mode: Mode, layout: Layout) -> None:
    world = World(rows=movies(300), job=replace(JOB, mode=mode, layout=layout))
    if command == "run":
        report = world.run()
    else:
        world.run()
        world.extract()
        report = world.load()
    found = report.verification
    assert found is not None
    assert (found.total, found.rows, found.rows_compared, found.against) == (0, 300, 300, "cache")
    assert report.counters.rows_compared == report.counters.rows_loaded == 300
    assert not any("could not be" in warning for warning in report.warnings)
    assert world.noted() == frozenset(range(report.counters.chunks_stored))


def test_who_does_not_ask_for_it_pays_nothing_for_it() -> None:
    world = World(job=replace(JOB, verifies=False))
    assert world.run(overwritten(5)).verification is None
    assert {name for name, _ in world.events} == {"put"}


@pytest.mark.parametrize("command", ["run", "load"])
@pytest.mark.parametrize(("harm", "kind"), [(overwritten, "different"), (deleted, "missing")])
def test_what_somebody_else_does_meanwhile_is_a_difference_and_the_same_command_mends_it(
    harm: Callable[[int], Meddle], kind: str, command: str
) -> None:
    world = World()
    if command == "load":
        world.extract()
    act = world.run if command == "run" else world.load
    with pytest.raises(DifferenceFound, match=rf"1 item is {kind}") as caught:
        act(harm(1234))
    assert caught.value.exit_code == ExitCode.DIFFERENCE
    assert "The same command" in (caught.value.hint or "")
    assert told(world.report) == [(kind, 1234)]
    assert world.report.counters.rows_loaded == ROWS
    assert world.report.manifest is not None
    chunks = set(range(world.report.manifest.totals.chunks))
    wrong = world.chunk_of(1234)
    assert world.noted() == chunks - {wrong}
    again = act()
    assert again.resumed
    assert 1234 in world.numbers_put
    assert len(world.numbers_put) < ROWS // 5
    assert again.verification is not None
    assert (again.verification.total, again.verification.rows_compared) == (0, ROWS)
    assert world.items[place(1234)]["title"] == {"S": "Film 1234"}


def test_all_differences_are_counted_and_the_first_ones_named_in_order() -> None:
    world = World()

    def meddle(items: dict[tuple[str, ...], dict[str, Any]]) -> None:
        for number in range(0, ROWS, 30):
            if place(number) in items:
                items[place(number)] = {**items[place(number)], "note": {"S": "by hand"}}

    with pytest.raises(DifferenceFound, match="100 items are different"):
        world.run(meddle)
    assert told(world.report) == [("different", number) for number in range(0, 600, 30)]
    (first,) = world.report.verification.differences[0].attributes  # type: ignore[union-attr]
    assert (first.attribute, first.expected, first.found) == ("note", None, {"S": "by hand"})


def test_a_chunk_is_compared_before_it_is_freed() -> None:
    world = World(job=replace(JOB, max_cached_bytes=6000))

    def on(call: Call) -> None:
        if call.name == "delete" and "/chunk/" in call.key:
            world.events.append(("freed", {int(call.key.rpartition("/")[2])}))

    world.account.fault = on
    world.run()
    assert world.report.manifest is not None
    freed = [next(iter(numbers)) for name, numbers in world.events if name == "freed"]
    assert len(freed) == world.report.manifest.chunks_freed > 10
    seen: set[int] = set()
    chunks = world.chunks()
    for name, numbers in world.events:
        if name == "fetched":
            seen |= numbers
        elif name == "freed":
            assert seen.issuperset(chunks[next(iter(numbers))])


def test_what_dynamodb_refuses_is_not_looked_for() -> None:
    world = World(refuse=lambda item: "no sevens" if item["movie_id"]["N"].endswith("7") else None)
    report = world.run()
    found = report.verification
    assert found is not None
    assert (found.total, found.rows_rejected, found.rows_compared) == (0, 300, 2700)


def test_the_mark_is_part_of_what_was_put() -> None:
    world = World(job=replace(JOB, mode="replace"))
    world.run()
    world.items[place(9999)] = {**world.items[place(1)], "movie_id": {"N": "9999"}}

    def harm(items: dict[tuple[str, ...], dict[str, Any]]) -> None:
        items[place(5)] = {name: value for name, value in items[place(5)].items() if name != MARK}

    with pytest.raises(DifferenceFound):
        world.run(once(harm, 5))
    assert world.report.verification is not None
    ((difference,),) = [it.attributes for it in world.report.verification.differences]
    assert (difference.attribute, difference.found) == (MARK, None)
    # Not all that is new is in place, so nothing was removed; once it is, what has no row is.
    assert place(9999) in world.items
    world.run()
    assert place(9999) not in world.items


def test_no_watermark_moves_past_a_difference() -> None:
    world = World(job=replace(JOB, incremental=Incremental("movie_id", Overlap(0, is_duration=False))))
    with pytest.raises(DifferenceFound):
        world.run(deleted(7))
    assert asyncio.run(world.state.fetch_watermark("movies")).watermark is None
    world.run()
    assert asyncio.run(world.state.fetch_watermark("movies")).watermark is not None


# What an earlier attempt has put


def interrupted(command: str = "run") -> World:
    """A run, or a load, of which some chunks are loaded, and some are not."""
    world = World()
    if command == "load":
        world.extract()
    act = world.run if command == "run" else world.load
    fault = SinkError("the disk is full", hint="Buy another.")

    def fail(items: dict[tuple[str, ...], dict[str, Any]]) -> None:
        if len(items) > ROWS // 2:
            raise fault

    with pytest.raises(SinkError, match="the disk"):
        act(fail)
    assert len(world.noted()) > 3
    return world


@pytest.mark.parametrize("command", ["run", "load"])
def test_what_was_loaded_before_is_compared_too_and_mended_by_the_next(command: str) -> None:
    world = interrupted(command)
    act = world.run if command == "run" else world.load
    before = world.noted()
    number = 3
    assert world.chunk_of(number) in before
    deleted(number)(world.items)
    with pytest.raises(DifferenceFound, match="1 item is missing"):
        act()
    assert number not in world.numbers_put
    assert told(world.report) == [("missing", number)]
    found = world.report.verification
    assert found is not None
    assert (found.rows, found.rows_compared) == (ROWS, ROWS)
    assert world.noted() == frozenset()
    act()
    assert number in world.numbers_put
    assert world.report.verification is not None
    assert world.report.verification.total == 0


@pytest.mark.parametrize("command", ["run", "load"])
def test_what_was_loaded_before_and_is_not_cached_any_more_is_told(command: str) -> None:
    world = interrupted(command)
    act = world.run if command == "run" else world.load
    gone = min(world.noted())
    run_id = world.report.run_id
    del world.account.caches["etl"][f"movies/{run_id}/chunk/{gone}"]
    act()
    found = world.report.verification
    assert found is not None
    assert found.total == 0
    assert 0 < found.rows_compared < found.rows == ROWS
    (warning,) = [it for it in world.report.warnings if "could not be verified" in it]
    assert warning.startswith(f"1 chunk of {ROWS - found.rows_compared:,} rows")


def test_a_failure_while_comparing_ends_the_run_and_the_chunk_does_not_count() -> None:
    world = World()

    class Failing(MeddledSink):
        async def fetch(self, keys: Sequence[bytes]) -> list[StoredItem | None]:
            if b'{"movie_id":{"N":"1500"}}' in keys:
                raise SinkError("the table was deleted", hint="Make it anew.")
            return await super().fetch(keys)

    sink = Failing("movies", world.report.counters, world.tables)
    sink.events = world.events
    with pytest.raises(SinkError, match="was deleted"):
        world._play(
            pipeline.run(JOB, PLAIN, CREATE_DEFAULTS, world.source, world.cache, sink, world.state, world.report)
        )
    assert world.chunk_of(1500) not in world.noted()
    assert world.report.verification is None
