"""Verification over fakes: what it finds, what it does not take for a difference, and what it reads it from."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from etlcli import pipeline
from etlcli.cache.staging import Staging
from etlcli.encoding import PLAIN, Recipe, ShapeOptions, Transform
from etlcli.errors import CacheError, ExitCode, SinkError, SourceError, UsageError
from etlcli.model import CREATE_DEFAULTS, Incremental, Job, Overlap, Relation, Selection, Share
from etlcli.ports import StoredItem
from etlcli.report import Report
from etlcli.verification import rows, sampling, surplus
from etlcli.verification import verify as module
from etlcli.verification.findings import DifferenceFound, Verification, Wanted, facts_of
from etlcli.verification.known_keys import KnownKeys
from etlcli.verification.verify import verify
from tests.contract.fakes.cache import FakeAccount, FakeCache
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSource, Row, column
from tests.contract.fakes.state import FakeState

MARK = "_momento_etl"
MOVIES = Relation(
    name="public.movies",
    columns=(column("movie_id", "int4"), column("title", "text"), column("rating", "numeric")),
    primary_key=("movie_id",),
    unique_keys=(frozenset({"movie_id"}),),
)
JOB = Job("movies", Selection(table="movies"), "etl", "movies")
REPLACE = replace(JOB, mode="replace")
ALL = Wanted()
EXTRA = Wanted(extra=True)
SOURCE = Wanted(from_source=True)


def movies(count: int) -> list[Row]:
    return [(str(number), f"Film {number}", f"{number % 10}.50") for number in range(count)]


class CountingSink(FakeSink):
    """Notes how many keys are asked for at once, and at how many requests at once."""

    largest = requests = at_once = most_at_once = 0

    async def fetch(self, keys: Sequence[bytes]) -> list[StoredItem | None]:
        self.largest = max(self.largest, len(keys))
        self.requests += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            return await super().fetch(keys)
        finally:
            self.at_once -= 1


@dataclass
class World:
    """A source, a cache and a table, and the commands over them."""

    rows: Sequence[Row] = ()
    job: Job = JOB
    recipe: Recipe = PLAIN
    relation: Relation = MOVIES
    refuse: Callable[[dict[str, Any]], str | None] | None = None
    account: FakeAccount = field(default_factory=FakeAccount)
    tables: dict[str, FakeTable] = field(default_factory=dict)
    state: FakeState = field(default_factory=FakeState)
    report: Report = field(default_factory=lambda: Report("movies"))
    error: DifferenceFound | None = None

    def __post_init__(self) -> None:
        self.source = FakeSource(self.relation, self.rows)
        self.cache = FakeCache("etl", self.account)

    def sink(self) -> CountingSink:
        self.asked = CountingSink(self.job.destination, self.report.counters, self.tables, refuse=self.refuse)
        return self.asked

    def run(self) -> Report:
        report = self.report = Report("movies")
        asyncio.run(
            pipeline.run(
                self.job, self.recipe, CREATE_DEFAULTS, self.source, self.cache, self.sink(), self.state, report
            )
        )
        return report

    def verify(self, wanted: Wanted = ALL, *, source: bool = True, cache: bool = True) -> Verification:
        self.report = Report("movies")
        self.error = None

        async def main() -> None:
            try:
                async with asyncio.timeout(60):
                    await verify(
                        self.job,
                        lambda: self.recipe,
                        wanted,
                        self.source if source else None,
                        self.cache if cache else None,
                        self.sink(),
                        self.state,
                        self.report,
                    )
            except DifferenceFound as error:
                self.error = error
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())
        found = self.report.verification
        assert found is not None
        assert bool(found.total) == (self.error is not None)
        return found

    @property
    def items(self) -> dict[tuple[str, ...], dict[str, Any]]:
        return self.tables[self.job.destination].items

    def harm(self, number: int, **changes: Any) -> None:
        """Change attributes of an item; None removes one."""
        item = {**self.items[place(number)], **changes}
        self.items[place(number)] = {name: value for name, value in item.items() if value is not None}

    def add(self, number: int, **attributes: Any) -> None:
        self.items[place(number)] = {"movie_id": {"N": str(number)}, **attributes}


def place(number: int) -> tuple[str, ...]:
    return (orjson.dumps({"N": str(number)}).decode(),)


def loaded(wanted: Sequence[Row], **changes: Any) -> World:
    world = World(wanted, **changes)
    world.run()
    return world


def told(found: Verification) -> list[tuple[str, int, list[tuple[str, Any, Any]]]]:
    """The differences, short."""
    return [
        (it.kind, int(it.key["movie_id"]["N"]), [(a.attribute, a.expected, a.found) for a in it.attributes])
        for it in found.differences
    ]


@pytest.mark.parametrize(
    ("job", "wanted"),
    [(JOB, EXTRA), (REPLACE, replace(EXTRA, from_source=True))],
    ids=["upsert against cache", "replace against source"],
)
def test_of_many_rows_one_is_missing_one_differs_by_a_digit_and_one_is_surplus(job: Job, wanted: Wanted) -> None:
    world = loaded(movies(10_000), job=job)
    clean = world.verify(wanted)
    assert (clean.rows_compared, clean.total, clean.counts["surplus"], clean.differences) == (10_000, 0, 0, [])
    del world.items[place(3_141)]
    world.harm(9_265, rating={"N": "5.51"})
    world.add(10_000, **({MARK: world.items[place(1)][MARK]} if job.mode == "replace" else {}))
    found = world.verify(wanted)
    assert (found.counts["missing"], found.counts["different"], found.counts["surplus"]) == (1, 1, 1)
    assert told(found) == [
        ("missing", 3_141, []),
        ("different", 9_265, [("rating", {"N": "5.50"}, {"N": "5.51"})]),
        ("surplus", 10_000, []),
    ]
    assert world.asked.largest == 100
    assert world.asked.requests >= 100
    assert world.asked.most_at_once <= 8
    assert wanted.from_source or world.asked.most_at_once > 1


def test_it_tells_where_the_rows_came_from() -> None:
    world = loaded(movies(10))
    run_id = world.report.run_id
    found = world.verify()
    assert (found.against, world.report.run_id, found.rows, found.rows_compared) == ("cache", run_id, 10, 10)
    assert world.source.opened == 1
    found = world.verify(SOURCE)
    assert (found.against, world.report.run_id, found.rows, found.rows_compared) == ("source", None, 10, 10)
    assert world.source.opened == world.source.closed == 2
    assert world.report.warnings == []


def test_the_cached_rows_are_what_was_extracted_and_the_sources_what_they_are_now() -> None:
    world = loaded(movies(10))
    world.source.rows[3] = ("3", "Film 3, restored", "3.50")
    assert world.verify().total == 0
    found = world.verify(SOURCE)
    assert told(found) == [("different", 3, [("title", {"S": "Film 3, restored"}, {"S": "Film 3"})])]


def flush(world: World) -> None:
    world.account.caches["etl"].clear()


def forget(part: str) -> Callable[[World], None]:
    def act(world: World) -> None:
        entries = world.account.caches["etl"]
        for key in [key for key in entries if part in key]:
            del entries[key]

    return act


def damage(world: World) -> None:
    entries = world.account.caches["etl"]
    (key,) = [key for key in entries if "/chunk/" in key]
    value = bytearray(entries[key].value)
    value[50] ^= 1
    entries[key] = entries[key]._replace(value=bytes(value))


def drop(world: World) -> None:
    del world.account.caches["etl"]


def in_a_hurry(cache: FakeCache, job: str) -> Staging:
    return Staging(cache, job, settling_seconds=0.0)


LOSSES = [
    pytest.param(drop, "there is no cache", id="no cache"),
    pytest.param(flush, "no complete extraction", id="flushed"),
    pytest.param(forget("/manifest"), "holds no run", id="manifest"),
    pytest.param(forget("/ledger/"), "ledger", id="ledger"),
    pytest.param(forget("/chunk/"), "chunk 0", id="chunk"),
    pytest.param(damage, "chunk 0", id="damaged"),
]


@pytest.mark.parametrize(("lose", "words"), LOSSES)
def test_what_the_cache_has_not_the_source_tells(
    lose: Callable[[World], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Staging", in_a_hurry)
    world = loaded(movies(250))
    world.harm(7, title=None)
    lose(world)
    found = world.verify(EXTRA)
    assert found.against == "source"
    assert told(found) == [("different", 7, [("title", {"S": "Film 7"}, None)])]
    assert found.rows_compared == world.report.counters.rows_compared == 250
    (warning,) = world.report.warnings
    assert words in warning
    assert "source instead" in warning
    with pytest.raises(CacheError, match=words) as caught:
        world.verify(source=False)
    assert caught.value.hint


def test_a_chunk_that_has_expired_is_missed_before_anything_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    world = loaded(movies(250))
    later = time.time() + world.job.ttl_seconds
    monkeypatch.setattr(rows, "time", SimpleNamespace(time=lambda: later))
    world.account.calls.clear()
    found = world.verify()
    assert (found.against, found.rows_compared, world.asked.requests) == ("source", 250, 3)
    assert not [key for key in world.account.named("get") if "/chunk/" in key]
    assert "have expired: 1 of 1" in world.report.warnings[0]


def test_a_source_that_is_read_otherwise_than_by_the_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Staging", in_a_hurry)
    some = replace(JOB, selection=Selection(table="movies", limit=5), narrowed_by=("--limit",))
    world = loaded(movies(10), job=some)
    forget("/chunk/")(world)
    assert world.verify().total == 0
    assert not any("other options" in warning for warning in world.report.warnings)
    world.job = JOB
    assert world.verify().counts["missing"] == 5
    assert any("other options" in warning for warning in world.report.warnings)


def test_a_run_that_was_begun_later_and_did_not_end_is_told() -> None:
    world = loaded(movies(10))
    first = world.report.run_id
    world.source.rows.append(("10", "the last", "1"))
    world.source.error = (5, SourceError("the server went away"))
    with pytest.raises(SourceError):
        world.run()
    later = world.report.run_id
    world.source.error = None
    found = world.verify()
    assert (found.against, world.report.run_id, found.rows) == ("cache", first, 10)
    (warning,) = world.report.warnings
    assert f"run {later} began later" in warning
    world.verify(replace(ALL, run_id=first))
    assert world.report.warnings == []


def test_a_run_that_is_named_is_that_run_or_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Staging", in_a_hurry)
    world = loaded(movies(10))
    first = str(world.report.run_id)
    world.source.rows[0] = ("0", "Another", None)
    world.run()
    assert world.verify().total == 0
    assert world.verify(replace(ALL, run_id=first)).counts["different"] == 1
    forget(f"{first}/chunk/")(world)
    with pytest.raises(CacheError):
        world.verify(replace(ALL, run_id=first))
    with pytest.raises(CacheError, match="nonesuch"):
        world.verify(replace(ALL, run_id="nonesuch"))


def test_a_cache_that_answers_nothing_is_an_error() -> None:
    world = loaded(movies(10))
    world.account.fault = lambda _call: CacheError("the key is refused", hint="Make one.", of_service=True)
    with pytest.raises(CacheError, match="refused"):
        world.verify()


def test_differences_are_counted_all_and_kept_some_in_the_order_of_the_rows() -> None:
    world = loaded(movies(3000))
    for number in range(0, 3000, 3):
        del world.items[place(number)]
        world.harm(number + 1, title={"S": "?"})
    found = world.verify(replace(ALL, shown=5))
    assert found.counts == {"missing": 1000, "different": 1000}
    assert [(kind, number) for kind, number, _ in told(found)] == [
        *(("missing", number) for number in (0, 3, 6, 9, 12)),
        *(("different", number) for number in (1, 4, 7, 10, 13)),
    ]
    assert world.verify(replace(ALL, shown=0)).differences == []


def test_an_item_with_more_than_its_row_is_different() -> None:
    world = loaded(movies(3))
    world.harm(1, note={"S": "by hand"})
    assert told(world.verify()) == [("different", 1, [("note", None, {"S": "by hand"})])]


# Samples


@pytest.mark.parametrize("wanted", [ALL, SOURCE], ids=["cache", "source"])
@pytest.mark.parametrize("sample", ["100", "1", "5000", "10%", "100%", "0.5%"])
def test_a_sample_is_as_large_as_asked_and_chosen_by_its_seed(wanted: Wanted, sample: str) -> None:
    world = loaded(movies(2000))
    for number in range(2000):
        world.harm(number, rating=None)
    share = Share(Decimal(sample.rstrip("%")), is_percentage=sample.endswith("%"))

    def chosen(seed: int) -> list[int]:
        found = world.verify(replace(wanted, sample=share, seed=seed, shown=2000))
        assert found.rows == 2000
        assert found.rows_compared == found.counts["different"] == len(found.differences)
        return [number for _, number, _ in told(found)]

    first, again, other = chosen(1), chosen(1), chosen(2)
    assert first == again
    if share.is_percentage:
        assert len(first) == pytest.approx(20 * float(share.figure), rel=0.35, abs=8)
    else:
        assert len(first) == min(2000, int(share.figure))
    assert (first == other) == (len(first) == 2000)
    if len(first) >= 100:
        # From all over the table, whatever the chunks are.
        assert all(any(start <= number < start + 500 for number in first) for start in range(0, 2000, 500))


def test_a_percentage_takes_the_same_rows_of_cache_and_source() -> None:
    world = loaded(movies(2000))
    for number in range(2000):
        world.harm(number, rating=None)
    share = Share(Decimal(5), is_percentage=True)
    by_cache, by_source = (told(world.verify(replace(it, sample=share, seed=7, shown=999))) for it in (ALL, SOURCE))
    assert by_cache == by_source != []


def test_a_sample_by_number_reads_no_other_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etlcli.cache.packed.MAX_ENCODED_BYTES", 4000)
    monkeypatch.setattr("etlcli.extraction._PIECE_BYTES", 1000)
    world = loaded(movies(3000))
    assert world.report.counters.chunks_stored > 40
    world.account.calls.clear()
    assert world.verify(replace(ALL, sample=Share(Decimal(3), is_percentage=False))).rows_compared == 3
    assert 1 <= len([key for key in world.account.named("get") if "/chunk/" in key]) <= 3


@pytest.mark.parametrize(
    ("wanted", "job", "words"),
    [
        (Wanted(sample=Share(Decimal(0), is_percentage=False)), JOB, "nothing"),
        (Wanted(sample=Share(Decimal(1), is_percentage=True), extra=True), JOB, "only all of the rows can tell"),
        (EXTRA, replace(JOB, narrowed_by=("--where",)), "--where"),
    ],
)
def test_what_would_tell_too_little_is_refused(wanted: Wanted, job: Job, words: str) -> None:
    world = loaded(movies(3))
    world.job = job
    with pytest.raises(UsageError, match=words) as caught:
        world.verify(wanted)
    assert caught.value.hint


def test_a_sample_of_the_source_that_memory_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_MOST_BYTES", 100_000)
    world = loaded(movies(1000))
    few, many = (replace(SOURCE, sample=Share(Decimal(count), is_percentage=False)) for count in (100, 900))
    assert world.verify(few).rows_compared == 100
    with pytest.raises(UsageError, match="900 of the source's rows is too large") as caught:
        world.verify(many)
    assert "--sample 1%" in (caught.value.hint or "")
    assert world.verify(replace(many, from_source=False)).rows_compared == 900
    assert world.source.opened == world.source.closed


# Surplus


def test_in_mode_upsert_every_item_without_a_row_is_surplus() -> None:
    world = loaded(movies(100))
    for number in range(1000, 1003):
        world.add(number)
    found = world.verify(replace(EXTRA, shown=2))
    assert found.counts["surplus"] == 3
    assert [(kind, number) for kind, number, _ in told(found)] == [("surplus", 1000), ("surplus", 1001)]
    assert world.verify(ALL).total == 0


def test_in_mode_replace_only_the_jobs_own_are() -> None:
    world = loaded(movies(100), job=REPLACE)
    world.add(1000)
    world.add(1001, **{MARK: {"S": "another/1"}})
    world.add(1002, **{MARK: {"N": "1"}})
    assert world.verify(EXTRA).total == 0
    world.add(1003, **{MARK: world.items[place(5)][MARK]})
    assert told(world.verify(EXTRA)) == [("surplus", 1003, [])]


def test_an_item_that_lost_the_mark_is_different() -> None:
    world = loaded(movies(10), job=REPLACE)
    mark = world.items[place(4)][MARK]["S"].partition("/")[0]
    world.harm(4, **{MARK: None})
    world.harm(5, **{MARK: {"S": "another/1"}})
    world.harm(6, **{MARK: {"S": f"{mark}/20200101T000000000Z-0000"}})  # of whichever run
    assert told(world.verify(EXTRA)) == [
        ("different", 4, [(MARK, {"S": f"{mark}/*"}, None)]),
        ("different", 5, [(MARK, {"S": f"{mark}/*"}, {"S": "another/1"})]),
    ]


def test_a_mark_in_mode_upsert_is_an_attribute_like_any_other() -> None:
    world = loaded(movies(10))
    world.harm(4, **{MARK: {"S": "job/1"}})
    assert told(world.verify()) == [("different", 4, [(MARK, None, {"S": "job/1"})])]


@pytest.mark.parametrize("job", [JOB, REPLACE], ids=["upsert", "replace"])
@pytest.mark.parametrize("wanted", [EXTRA, replace(EXTRA, from_source=True)], ids=["cache", "source"])
def test_the_old_item_of_a_rejected_row_is_not_surplus(wanted: Wanted, job: Job) -> None:
    world = loaded(movies(100), job=job)
    world.source.rows[10:12] = [("10", "Film 10", "NaN"), ("11", "Film 11", "Infinity")]
    world.source.rows.append(("100", "never loaded", "NaN"))
    assert world.run().counters.rows_rejected == 3
    assert place(10) in world.items
    found = world.verify(wanted)
    assert (found.total, found.counts["surplus"], found.rows, found.rows_rejected) == (0, 0, 98, 3)
    assert world.report.warnings == []
    world.add(200, **({MARK: world.items[place(5)][MARK]} if job.mode == "replace" else {}))
    assert told(world.verify(wanted)) == [("surplus", 200, [])]


@pytest.mark.parametrize("wanted", [EXTRA, replace(EXTRA, from_source=True)], ids=["cache", "source"])
def test_where_only_a_transform_could_tell_a_rejected_rows_key_that_is_said(wanted: Wanted) -> None:
    def transform(item: dict[str, Any]) -> dict[str, Any]:
        return item | {"share": 1 / int(item["movie_id"] % 10)}

    recipe = Recipe(shape=ShapeOptions(transforms=True), transform=Transform("shop:transform", transform, "digest"))
    world = loaded(movies(20), recipe=PLAIN)
    world.recipe = recipe
    world.run()
    assert world.report.counters.rows_rejected == 2
    found = world.verify(wanted)
    assert (found.total, found.counts["surplus"]) == (2, 2)
    assert any("of 2 rejected rows nobody knows the key" in warning for warning in world.report.warnings)


def test_what_dynamodb_refused_is_not_expected() -> None:
    world = loaded(movies(50))
    world.refuse = lambda item: "no sevens" if item["movie_id"]["N"] == "7" else None
    world.harm(7, title={"S": "of an earlier run"})
    del world.items[place(8)]
    world.run()
    assert world.report.counters.rows_rejected == 1
    found = world.verify(EXTRA)
    assert (found.total, found.rows, found.rows_compared, found.rows_rejected) == (0, 49, 49, 1)


def test_what_dynamodb_refused_is_known_however_large_it_is() -> None:
    world = World([("7", "\x01" * 200_000, None), ("8", "small", None)])
    world.refuse = lambda item: "no sevens" if item["movie_id"]["N"] == "7" else None
    world.run()
    assert world.report.counters.rows_rejected == 1
    found = world.verify()
    assert (found.total, found.rows, found.rows_compared, found.rows_rejected) == (0, 1, 1, 1)


def test_where_keys_cannot_be_told_apart_surplus_is_counted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    world = loaded(movies(2000))
    for number in range(5000, 5300):
        world.add(number)
    monkeypatch.setattr(surplus, "KnownKeys", lambda: KnownKeys(700))
    found = world.verify(replace(EXTRA, shown=1000))
    assert found.counts["surplus"] == 300
    assert 0 < len(found.differences) < 300
    assert all(number >= 5000 for _, number, _ in told(found))
    (warning,) = world.report.warnings
    assert f"{300 - len(found.differences)} surplus items can only be counted" in warning


def test_a_job_without_a_mark_has_no_items_of_its_own() -> None:
    world = loaded(movies(10), job=REPLACE)
    world.state = FakeState()
    with pytest.raises(SinkError, match="no mark"):
        world.verify(EXTRA)
    assert world.verify().total == 0
    assert "no mark" in world.report.warnings[0]


@pytest.mark.parametrize(("narrowed_by", "is_told"), [(("--where", "--columns"), True), (("--columns",), False)])
def test_a_run_of_some_rows_cannot_tell_surplus(narrowed_by: tuple[str, ...], *, is_told: bool) -> None:
    world = loaded(movies(10), job=replace(JOB, narrowed_by=narrowed_by))
    world.job = JOB
    if not is_told:
        assert world.verify(EXTRA).total == 0
        return
    with pytest.raises(UsageError, match=r"took only some rows \(--where\): it cannot tell which items have no row"):
        world.verify(EXTRA)
    assert world.verify().total == 0


def test_an_incremental_run_cannot_tell_surplus() -> None:
    world = World(movies(10), job=replace(JOB, incremental=Incremental("movie_id", Overlap(0, is_duration=False))))
    world.run()
    assert world.verify(EXTRA).total == 0
    world.source.rows.append(("10", "Film 10", "1"))
    world.run()
    assert world.verify().rows == 2  # the newest of the last run once more
    with pytest.raises(UsageError, match="only what is new since 9"):
        world.verify(EXTRA)
    found = world.verify(replace(EXTRA, from_source=True))
    assert (found.rows, found.total) == (11, 0)


# What rows are made into


def test_masks_casts_and_templates_are_as_the_run_had_them() -> None:
    shape = ShapeOptions(
        drop=("rating",),
        rename={"title": "name"},
        cast={"movie_id": "S"},
        mask={"title": "hmac"},
        has_mask_key=True,
        attributes={"kind": "MOVIE#{movie_id}"},
    )
    world = loaded(movies(50), recipe=Recipe(shape=shape, mask_key=secrets.token_bytes(16)))
    assert world.verify(EXTRA).total == 0
    assert world.verify(replace(EXTRA, from_source=True)).total == 0


def test_rows_that_a_transform_drops_are_not_expected() -> None:
    def transform(item: dict[str, Any]) -> dict[str, Any] | None:
        return item if int(item["movie_id"]) % 2 else None

    recipe = Recipe(shape=ShapeOptions(transforms=True), transform=Transform("shop:transform", transform, "digest"))
    world = loaded(movies(50), recipe=recipe)
    for wanted in (EXTRA, replace(EXTRA, from_source=True)):
        found = world.verify(wanted)
        assert (found.rows, found.rows_dropped, found.total) == (25, 25, 0)


def test_that_a_transform_may_not_make_the_same_again_is_said() -> None:
    calls = 0

    def transform(item: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        return item | {"seen": calls}

    recipe = Recipe(shape=ShapeOptions(transforms=True), transform=Transform("shop:count", transform, "digest"))
    world = loaded(movies(5), recipe=recipe)
    assert world.verify().total == 0
    assert world.verify(SOURCE).counts["different"] == 5
    assert world.error is not None
    assert "shop:count was called anew" in (world.error.hint or "")


def test_the_rows_layout_is_verified_as_the_packed_one() -> None:
    world = loaded(movies(120), job=replace(JOB, layout="rows"))
    world.harm(7, rating={"N": "7.51"})
    found = world.verify(EXTRA)
    assert (found.against, found.rows_compared, found.counts["different"]) == ("cache", 120, 1)


def test_what_the_recipe_needs_is_not_asked_for_where_the_cache_has_the_rows() -> None:
    world = loaded(movies(10))

    def recipe() -> Recipe:
        raise UsageError("the key of masks is not here")

    async def main(wanted: Wanted) -> int:
        report = Report("movies")
        await verify(JOB, recipe, wanted, world.source, world.cache, world.sink(), world.state, report)
        assert report.verification is not None
        return report.verification.total

    assert asyncio.run(main(ALL)) == 0
    with pytest.raises(UsageError, match="not here"):
        asyncio.run(main(SOURCE))


# The table


def test_a_table_that_is_not_there_or_has_another_key_is_an_error() -> None:
    world = loaded(movies(10))
    for wanted in (ALL, SOURCE):
        world.job = replace(JOB, destination="gone")
        with pytest.raises(SinkError, match="no DynamoDB table gone") as caught:
            world.verify(wanted)
        assert caught.value.hint
    world.job = replace(JOB, key=("title",))
    with pytest.raises(UsageError, match="another key") as wrong:
        world.verify(SOURCE)
    assert wrong.value.hint


class FailingSink(FakeSink):
    async def fetch(self, keys: Sequence[bytes]) -> list[StoredItem | None]:
        if b'{"movie_id":{"N":"500"}}' in keys:
            raise SinkError("the table was deleted", hint="Make it anew.")
        return await super().fetch(keys)


@pytest.mark.parametrize("wanted", [ALL, SOURCE], ids=["cache", "source"])
def test_a_failure_ends_it_and_leaves_nothing_behind(wanted: Wanted) -> None:
    world = loaded(movies(5000))
    world.sink = lambda: FailingSink("movies", world.report.counters, world.tables)  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(SinkError, match="was deleted"):
        world.verify(wanted)
    assert world.source.opened == world.source.closed


def test_a_source_that_fails_in_the_middle_is_an_error() -> None:
    world = loaded(movies(500))
    world.source.error = (300, SourceError("the server went away"))
    with pytest.raises(SourceError, match="went away"):
        world.verify(SOURCE)


def test_an_empty_table_of_no_rows_is_right() -> None:
    world = loaded([])
    for wanted in (EXTRA, replace(EXTRA, from_source=True)):
        found = world.verify(wanted)
        assert (found.rows, found.total, found.counts["surplus"]) == (0, 0, 0)


def test_pieces_are_small_where_items_are_large() -> None:
    world = loaded([(str(number), "x" * 90_000, None) for number in range(40)])
    assert world.verify().total == 0
    assert world.asked.largest == 11


# How it ends


def test_differences_end_it_with_a_code_of_their_own() -> None:
    world = loaded(movies(10))
    del world.items[place(1)]
    world.harm(2, title=None)
    world.harm(3, title=None)
    world.verify()
    assert world.error is not None
    assert world.error.exit_code == ExitCode.DIFFERENCE
    assert world.error.message == (
        "table movies is not what the cached rows make: 1 item is missing, 2 items are different"
    )
    assert world.error.hint == "momento-etl run --table movies puts the items of all rows again."


def test_an_incremental_job_is_told_to_take_all_rows() -> None:
    world = loaded(movies(10), job=replace(JOB, incremental=Incremental("movie_id", Overlap(0, is_duration=False))))
    del world.items[place(1)]
    world.verify()
    assert world.error is not None
    assert "--full-refresh" in (world.error.hint or "")


def test_its_facts_are_json() -> None:
    world = loaded(movies(10), job=REPLACE)
    world.harm(1, title={"S": "?"})
    found = world.verify(replace(ALL, sample=Share(Decimal(100), is_percentage=True), seed=3))
    facts = orjson.loads(orjson.dumps(facts_of(found, 4.5)))
    assert facts.pop("source").endswith("movies")
    assert facts == {
        "against": "cache",
        "rows": 10,
        "rows_compared": 10,
        "rows_rejected": 0,
        "rows_dropped": 0,
        "sample": "100%",
        "seed": 3,
        "missing": 0,
        "different": 1,
        "surplus": None,
        "read_units": 4.5,
        "differences": [
            {
                "kind": "different",
                "key": {"movie_id": {"N": "1"}},
                "attributes": [{"attribute": "title", "path": [], "expected": {"S": "Film 1"}, "found": {"S": "?"}}],
            }
        ],
    }


def test_a_mark_is_looked_for_and_never_made() -> None:
    world = loaded(movies(10))
    world.job = REPLACE
    world.verify(SOURCE)
    assert asyncio.run(world.state.fetch_mark("movies")) is None
