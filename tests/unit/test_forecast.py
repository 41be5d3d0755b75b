"""What a run would do: nothing is written for it, little is held, and what is reckoned is reckoned right."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from etlcli import extraction
from etlcli.cache import packed
from etlcli.capacity import read_units, write_units
from etlcli.cli.render_plan import duration, money, plan_text
from etlcli.config import load_settings
from etlcli.encoding import PLAIN, EncodingOptions, Recipe, Transform, item_size
from etlcli.errors import SourceError, Unavailable, UsageError
from etlcli.forecast import (
    DEFAULT_LIMITS,
    Forecast,
    Limits,
    facts_of,
    make_bill,
    price_sources,
    reading,
    rehearsal,
    rehearse,
    sum_of,
    timing_of,
)
from etlcli.forecast.figures import Sample, Tally, Usage, scaled
from etlcli.forecast.reading import SAMPLE_ROWS
from etlcli.forecast.stand_ins import RehearsedCache
from etlcli.model import Incremental, Job, Key, KeyAttribute, Relation, Selection, Share
from etlcli.ports import Cache
from etlcli.progress import Counters
from etlcli.report import Report
from etlcli.state import RunRecord, SchemaColumn, Watermark
from tests.contract.fakes.cache import FakeAccount, FakeCache
from tests.contract.fakes.sink import FakeSink, FakeTable
from tests.contract.fakes.source import FakeSource, Row, column
from tests.contract.fakes.state import FakeState
from tests.unit.test_render import drawn

JOB = Job("movies", Selection(table="movies"), "etl", "movies")
MOVIES = Relation(
    name="public.movies",
    columns=(column("movie_id", "int4"), column("title", "text"), column("rating", "float8")),
    primary_key=("movie_id",),
    unique_keys=(frozenset({"movie_id"}),),
    stored_bytes=1_000_000,
)
KEY = Key(KeyAttribute("movie_id", "N"))
SETTINGS = load_settings(environ={})


def movies(count: int, *, bad_every: int = 0) -> list[Row]:
    return [
        (str(n), f"Film № {word(n)}", "NaN" if bad_every and n % bad_every == 0 else f"{n}.5") for n in range(count)
    ]


def word(number: int) -> str:
    return hashlib.blake2b(str(number).encode(), digest_size=12).hexdigest()


class Place:
    """Fakes of everything around a source, to look at afterwards."""

    def __init__(self, rows: Sequence[Row], relation: Relation = MOVIES, **changes: Any) -> None:
        self.source = FakeSource(relation, rows, **changes)
        self.account = FakeAccount()
        self.tables: dict[str, FakeTable] = {}
        self.state = FakeState()
        self.report = Report("movies")

    def forecast(self, job: Job = JOB, recipe: Recipe = PLAIN, *, exact: bool = True) -> Forecast:
        sink = FakeSink("movies", self.report.counters, self.tables)
        cache = FakeCache("etl", self.account)
        return asyncio.run(rehearse(job, recipe, self.source, cache, sink, self.state, self.report, exact=exact))


def usage(**changes: Any) -> Usage:
    momento = {"chunk": Tally(2, 40), "ledger": Tally(1, 1), "rejects": Tally(2, 11), "run": Tally(7, 9)}
    figures: dict[str, Any] = {
        "rows_extracted": 1000,
        "rows_loaded": 900,
        "rows_rejected": 80,
        "rows_dropped": 20,
        "chunks": 1,
        "chunks_freed": 0,
        "bytes_encoded": 100_000,
        "bytes_stored": 20_000,
        "momento": momento,
        "write_units": 950,
        "item_bytes": 99_000,
    }
    return Usage(**(figures | changes))


# Nothing is written


@pytest.mark.parametrize("exact", [True, False])
def test_nothing_is_written_anywhere(exact: bool) -> None:
    place = Place(movies(300, bad_every=9))
    job = replace(JOB, mode="replace")
    place.forecast(job, exact=exact)
    assert place.account.caches == {}
    assert {call.name for call in place.account.calls} <= {"get", "exists"}
    assert place.tables == {}
    assert place.state.account == {}
    assert place.source.opened == place.source.closed == 1


def test_what_is_there_stays_as_it_is() -> None:
    place = Place(movies(40))
    place.tables["movies"] = FakeTable(KEY, items={("1",): {"movie_id": {"N": "1"}}})
    cache = FakeCache("etl", place.account)
    asyncio.run(cache.ensure())
    asyncio.run(cache.set("movies/runs", b'{"format":1,"runs":[]}', 60))
    before = place.account.values("etl")
    place.account.calls.clear()
    forecast = place.forecast()
    assert place.account.values("etl") == before
    assert {call.name for call in place.account.calls} == {"get", "exists"}
    assert place.tables["movies"].items == {("1",): {"movie_id": {"N": "1"}}}
    assert (forecast.table_exists, forecast.table_items) == (True, 1)


def test_the_commands_own_figures_are_what_it_did_itself() -> None:
    place = Place(movies(100))
    forecast = place.forecast()
    counters = place.report.counters
    assert (counters.rows_extracted, counters.rows_loaded, counters.chunks_stored, counters.bytes_cached) == (
        100,
        0,
        0,
        0,
    )
    assert (counters.momento_calls, place.report.run_id) == (0, None)
    assert (forecast.usage.rows_loaded, forecast.usage.chunks, forecast.momento_calls > 5) == (100, 1, True)


def test_without_cache_and_destination_it_is_the_same() -> None:
    place = Place(movies(100))
    with_all = place.forecast()
    alone = asyncio.run(rehearse(JOB, PLAIN, place.source, None, None, place.state, Report("movies"), exact=True))
    assert alone == replace(with_all, table_exists=None)


def test_a_cache_that_cannot_be_asked_is_a_warning() -> None:
    place = Place(movies(100))
    place.account.fault = lambda _: Unavailable("nobody answers at cell-1", hint="Is the endpoint right?")
    forecast = place.forecast()
    assert forecast.usage.rows_loaded == 100
    assert place.report.warnings == [
        "what earlier runs left in the cache is taken for nothing: nobody answers at cell-1"
    ]


# What is held does not grow with the table


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_little_is_held_of_many_chunks(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_ENCODED_BYTES", 4000)
    monkeypatch.setattr(extraction, "_PIECE_BYTES", 1000)
    caches: list[RehearsedCache] = []

    def made(name: str, cache: Cache | None, counters: Counters) -> RehearsedCache:
        caches.append(RehearsedCache(name, cache, counters))
        return caches[-1]

    monkeypatch.setattr(rehearsal, "RehearsedCache", made)
    forecast = Place(movies(8000, bad_every=3)).forecast(replace(JOB, layout=layout, mode="replace"))
    (cache,) = caches
    assert forecast.usage.chunks > 10
    assert cache.peak_bytes < forecast.usage.bytes_stored / 2
    assert forecast.usage.rows_rejected == 2667
    held = sum(len(value) for value in cache._values.values())
    assert held < 3000  # the manifest, the pointer and the list of runs


def test_examples_are_few_and_short() -> None:
    names = [f"c{n}" for n in range(300)]
    relation = Relation("t", (column("id", "int4"), *(column(name, "text") for name in names)), ("id",))
    rows = [(str(n), *(["x" * 1500] * 300)) for n in range(5)]
    (count,) = Place(rows, relation).forecast().rejects
    assert (count.rule, count.rows, len(count.examples)) == ("item-too-large", 5, 3)
    assert all(len(example.row) <= 50 for example in count.examples)
    assert max(len(value) for example in count.examples for value in example.row.values()) <= 201


# What would end the run


def test_rejects_are_counted_by_rule() -> None:
    rows = [*movies(100, bad_every=10), ("1000", "x" * 500_000, "1"), ("1001", "y", "Infinity")]
    place = Place(rows)
    forecast = place.forecast()
    assert [(count.rule, count.rows) for count in forecast.rejects] == [
        ("number-not-finite", 11),
        ("item-too-large", 1),
    ]
    assert forecast.rejects[0].examples[1].row["movie_id"] == "10"
    assert forecast.verdict is None
    counted = forecast.usage
    assert counted.rows_extracted == counted.rows_loaded + counted.rows_rejected == 102


@pytest.mark.parametrize(
    ("most", "fails"),
    [
        (Share(Decimal(10), is_percentage=False), False),
        (Share(Decimal(9), is_percentage=False), True),
        (Share(Decimal(10), is_percentage=True), False),
        (Share(Decimal("9.9"), is_percentage=True), True),
    ],
)
def test_too_many_rejects_are_a_verdict_over_all_of_them(most: Share, fails: bool) -> None:
    forecast = Place(movies(100, bad_every=10)).forecast(replace(JOB, max_rejects=most))
    assert forecast.usage.rows_rejected == 10
    assert (forecast.verdict is not None) == fails
    if forecast.verdict is not None:
        assert "10 of 100 rows would be rejected" in forecast.verdict.message
        assert forecast.verdict.hint


def test_what_fails_a_run_at_its_end_is_a_verdict() -> None:
    recipe = replace(PLAIN, transform=Transform("mine:same", lambda row: row, "0" * 32))
    place = Place(movies(50, bad_every=10))
    place.tables["movies"] = FakeTable(KEY)
    forecast = place.forecast(replace(JOB, mode="replace"), recipe)
    assert forecast.verdict is not None
    assert "mine:same" in forecast.verdict.message
    assert forecast.usage.rows_rejected == 5


def test_what_ends_a_run_before_its_rows_move_ends_the_forecast() -> None:
    place = Place(movies(10))
    place.tables["movies"] = FakeTable(Key(KeyAttribute("film", "S")))
    with pytest.raises(UsageError, match="has another key than this job"):
        place.forecast()
    twice = Place([("1", "a", "1"), ("1", "b", "2")], replace(MOVIES, unique_keys=()))
    with pytest.raises(SourceError, match="same destination key"):
        twice.forecast()
    strict = replace(PLAIN, encoding=EncodingOptions(on_unrepresentable="fail"))
    with pytest.raises(SourceError, match="number-not-finite"):
        Place(movies(10, bad_every=5)).forecast(recipe=strict)


def test_drift_is_told_or_refused() -> None:
    place = Place(movies(5))
    columns = (SchemaColumn("movie_id", "int4"), SchemaColumn("title", "text"), SchemaColumn("year", "int4"))
    record = RunRecord("movies", "20260101T000000000Z-0000", "run", "host", "succeeded", 1.0, columns=columns)
    asyncio.run(place.state.put_run(record))
    place.forecast()
    assert [change.column for change in place.report.schema_changes] == ["year", "rating"]
    assert len(place.report.warnings) == 1
    with pytest.raises(SourceError, match="frozen"):
        place.forecast(replace(JOB, freezes_schema=True))
    assert [run.run_id for run in asyncio.run(place.state.fetch_runs("movies", 9))] == [record.run_id]


def test_an_incremental_run_begins_where_it_would_and_moves_nothing() -> None:
    place = Place(movies(2000))
    place.tables["movies"] = FakeTable(KEY)
    watermark = Watermark("movie_id", "int4", "1900", "20260101T000000000Z-0000", 1.0)
    asyncio.run(place.state.move_watermark("movies", watermark, 0))
    forecast = place.forecast(replace(JOB, incremental=Incremental("movie_id")))
    assert forecast.usage.rows_extracted == 2000 - 900  # 1,000 of them overlap
    assert place.report.watermark is not None
    assert (place.report.watermark.since, place.report.watermark.value) == ("1900", "1999")
    assert not place.report.watermark_moved
    assert asyncio.run(place.state.fetch_watermark("movies")).watermark == watermark


# Samples


def test_a_small_table_is_read_whole() -> None:
    place = Place(movies(2500, bad_every=500))
    sampled = place.forecast(exact=False)
    assert sampled == Place(movies(2500, bad_every=500)).forecast()
    assert sampled.exact
    assert sampled.sample == Sample(2500, is_whole=True, total=2500)


@pytest.mark.parametrize("can_be_sampled", [True, False])
def test_a_sample_stands_for_all_rows(can_be_sampled: bool) -> None:
    relation = replace(MOVIES, stored_bytes=1_000_000 if can_be_sampled else None)
    rows = movies(40_000, bad_every=7)
    whole, some = Place(rows, relation).forecast(), Place(rows, relation, batch_rows=1000).forecast(exact=False)
    assert not some.exact
    assert SAMPLE_ROWS * 0.8 <= some.sample.rows <= SAMPLE_ROWS * 1.2
    for name in ("rows_extracted", "rows_loaded", "rows_rejected", "bytes_encoded", "write_units"):
        assert getattr(some.usage, name) == pytest.approx(getattr(whole.usage, name), rel=0.1), name
    assert some.usage.bytes_stored == pytest.approx(whole.usage.bytes_stored, rel=0.3)
    assert some.momento_operations == pytest.approx(whole.momento_operations, rel=0.3)
    (rule,), (of_all,) = some.rejects, whole.rejects
    assert rule.rows == pytest.approx(of_all.rows, rel=0.1)


def test_estimates_that_are_wrong_or_missing_do_no_harm() -> None:
    for estimate in (None, 0, 1, 50, 90_000):
        place = Place(movies(400), replace(MOVIES, stored_bytes=None), estimate=lambda _, said=estimate: said)
        forecast = place.forecast(exact=False)
        assert forecast.exact
        assert forecast.usage.rows_loaded == 400
    large = Place(movies(30_000), estimate=lambda _: 3).forecast(exact=False)
    assert not large.exact
    assert large.sample.total >= large.sample.rows >= SAMPLE_ROWS


@pytest.mark.parametrize(("limit", "exact"), [(0, True), (1500, True), (9000, True), (30_000, False)])
def test_a_limit_is_known_to_the_sample(limit: int, exact: bool) -> None:
    place = Place(movies(40_000))
    job = replace(JOB, selection=Selection(table="movies", limit=limit))
    forecast = place.forecast(job, exact=False)
    assert (forecast.exact, forecast.usage.rows_extracted) == (exact, limit)


def test_large_rows_are_not_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_MOST_BYTES", 2_000_000)
    place = Place([(str(n), "x" * 20_000, "1") for n in range(400)], batch_rows=10)
    forecast = place.forecast(exact=False)
    assert not forecast.exact
    assert 100 <= forecast.sample.rows < 150
    assert forecast.usage.rows_extracted == 400


def test_duplicates_of_a_large_table_are_looked_for_only_where_all_is_read() -> None:
    rows = [*movies(30_000), ("7", "again", "1")]
    with pytest.raises(SourceError, match="same destination key"):
        Place(rows, replace(MOVIES, unique_keys=())).forecast()
    forecast = Place(rows, replace(MOVIES, unique_keys=())).forecast(exact=False)
    assert not forecast.checks_duplicates
    assert Place(rows).forecast(exact=False).checks_duplicates  # a constraint saw to it


def test_scaling_leaves_what_belongs_to_the_run_and_grows_the_rest() -> None:
    sample = Sample(1000, is_whole=False, total=100_000)
    grown = scaled(usage(), sample, "packed", 80_000_000)
    assert (grown.rows_extracted, grown.rows_loaded, grown.rows_rejected, grown.rows_dropped) == (
        100_000,
        90_000,
        8000,
        2000,
    )
    assert (grown.bytes_stored, grown.write_units, grown.chunks, grown.chunks_freed) == (2_000_000, 95_000, 8, 0)
    assert grown.momento["run"] == Tally(7, 9)
    assert grown.momento["chunk"] == Tally(16, 2 * 2_000_000 // 1024 + 8)
    assert grown.momento["rejects"] == Tally(81, 1001)
    assert grown.momento["ledger"].calls == 8
    assert scaled(usage(), sample, "packed", 1_000_000).chunks_freed == 4
    in_rows = scaled(usage(), sample, "rows", 80_000_000)
    assert (in_rows.chunks, in_rows.momento["chunk"]) == (180, Tally(180_000, 4000))
    assert scaled(usage(), Sample(1000, is_whole=True, total=1000), "packed", 1) == usage()


# Units, times, money


def test_write_units_are_dynamodbs_whatever_an_item_holds() -> None:
    chance = random.Random(2026)
    numbers = ("0", "-0.00012", "100000", "75E100", "-1E-130", "9.99E125", "1" * 38)

    def value(depth: int, kinds: Sequence[str]) -> dict[str, Any]:
        kind = chance.choice(kinds)
        match kind:
            case "S":
                letters = 'abc é€😀{}[]:,"\\\n' if depth < 9 else "abc é€😀{}[]:,'"
                return {kind: "".join(chance.choices(letters, k=chance.randrange(60)))}
            case "N":
                return {kind: chance.choice([*numbers, str(chance.randrange(-(10**12), 10**12))])}
            case "B":
                return {kind: base64.b64encode(chance.randbytes(chance.randrange(90))).decode()}
            case "BOOL":
                return {kind: chance.random() < 0.5}
            case "NULL":
                return {kind: True}
            case "L":
                return {kind: [value(depth + 1, kinds[:5]) for _ in range(chance.randrange(4))]}
            case _:
                return {kind: {f'm{n}{{"N":"1"}}': value(depth + 1, kinds[:5]) for n in range(chance.randrange(4))}}

    seen = set()
    for round_ in range(4000):
        # Half of the items are flat and without escapes, which is what is measured without a look at each value.
        kinds = ("S", "N", "S", "BOOL", "NULL", "B", "L", "M") if round_ % 2 else ("S", "N", "N", "BOOL", "NULL")
        names = ('co{"S":"l', "nämé") if round_ % 20 == 1 else ("column", "nämé")
        item = orjson.dumps(
            {f"{names[n % 2]}{n}": value(0 if round_ % 2 else 9, kinds) for n in range(chance.randrange(1, 120))}
        )
        expected = -(-item_size(item) // 1024)
        assert write_units([item]) == expected, item
        seen.add(expected)
    assert seen >= {1, 2, 3}


def test_units_begin_at_their_first_byte() -> None:
    def sized(size: int) -> bytes:
        item = orjson.dumps({"i": {"S": "x" * (size - 1)}})
        assert item_size(item) == size
        return item

    assert [write_units([sized(size)]) for size in (2, 1024, 1025, 2048, 2049)] == [1, 1, 2, 2, 3]
    assert write_units([sized(1025), sized(10)]) == 3
    assert [read_units(size) for size in (0, 1, 4096, 4097)] == [0, 1, 1, 2]


def test_the_scans_of_replace_cost_what_the_table_holds() -> None:
    place = Place(movies(1000))
    job = replace(JOB, mode="replace")
    assert place.forecast(job).read_units == 0  # the table is new
    place.tables["movies"] = FakeTable(KEY)
    assert place.forecast().read_units == 0
    # Twice over the items of this run, of which the JSON is counted.
    of_empty = place.forecast(job)
    assert of_empty.read_units == 2 * read_units(of_empty.usage.item_bytes) > 0
    place.tables["movies"].items = {(str(n),): {"t": {"S": "x" * 1000}} for n in range(5000)}
    assert place.forecast(job).read_units > 2000


def test_time_is_what_the_slower_service_takes() -> None:
    place = Place(movies(4000))
    forecast = place.forecast()
    timing = timing_of(forecast, DEFAULT_LIMITS)
    assert timing.write_seconds == 1.0
    assert timing.momento_seconds == forecast.momento_operations / 100
    assert timing.bounded_by == ("momento" if forecast.momento_operations > 100 else "dynamodb")
    slow = timing_of(forecast, Limits(momento_operations=1_000_000, write_units=10))
    assert (slow.bounded_by, slow.seconds) == ("dynamodb", 400.0)


def test_money_is_use_times_price() -> None:
    forecast = Place(movies(10)).forecast()
    large = replace(
        forecast,
        read_units=8_000_000,
        usage=replace(forecast.usage, write_units=2_000_000, momento={"chunk": Tally(1, 10 * 2**20)}),
    )
    bill = make_bill(large, SETTINGS.prices)
    assert (bill.dynamodb_write, bill.dynamodb_read, bill.momento_transfer) == (
        Decimal("1.25"),
        Decimal(1),
        Decimal("0.5"),
    )
    assert bill.total == Decimal("2.75")


def test_prices_say_where_they_come_from(tmp_path: Path) -> None:
    assert price_sources(SETTINGS)["dynamodb_write"].startswith("default, as of 20")
    assert set(price_sources(SETTINGS)) == {
        *("dynamodb_write", "dynamodb_read", "momento_transfer"),
        *("lambda_compute", "lambda_requests", "state_transitions"),
    }
    (tmp_path / "momento-etl.toml").write_text("[prices]\nmomento_transfer = 0.5\n", encoding="utf-8")
    sources = price_sources(load_settings(environ={}, folder=tmp_path))
    assert "momento-etl.toml" in sources["momento_transfer"]
    assert sources["dynamodb_write"] == price_sources(SETTINGS)["dynamodb_write"]


# What is shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (4.91, "4.9 s"), (119.9, "119.9 s"), (120, "2.0 min"), (7200, "2.0 h"), (864_000, "10.0 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0", "$0.00"),
        ("1234.5", "$1,234.50"),
        ("0.1", "$0.10"),
        ("0.0995", "$0.100"),
        ("0.042", "$0.042"),
        ("0.00123", "$0.0012"),
        ("0.0000015", "less than $0.000001"),
        ("0.000023", "$0.000023"),
    ],
)
def test_amounts(amount: str, text: str) -> None:
    assert money(Decimal(amount)) == text


def shown(place: Place, job: Job, forecast: Forecast, width: int = 80) -> list[str]:
    manifest = place.report.manifest
    assert manifest is not None
    timing, bill = timing_of(forecast, DEFAULT_LIMITS), make_bill(forecast, SETTINGS.prices)
    return drawn(plan_text(job, manifest, forecast, timing, bill, price_sources(SETTINGS)), width)


def test_a_plan_fits_a_small_screen() -> None:
    place = Place(movies(3000))
    lines = shown(place, JOB, place.forecast())
    assert len(lines) <= 20
    assert all(len(line) <= 80 for line in lines)
    assert lines[0] == "plan movies: exact, all rows were read"
    assert re.search(r"^rows +3,000  to read from ", lines[1]), lines
    assert re.search(r"^items +3,000  to write to table movies ", lines[2]), lines
    assert not any("~" in line for line in lines)


def test_every_figure_of_an_estimate_is_marked_as_one() -> None:
    place = Place(movies(40_000, bad_every=10))
    text = "\n".join(shown(place, JOB, place.forecast(exact=False), 200))
    assert "plan movies: an estimate from" in text
    for line in ("rows", "items", "rejected", "chunks", "operations", "write units", "time", "cost"):
        assert re.search(rf"^{line} +~\S", text, re.MULTILINE), text
    assert "number-not-finite" in text


def test_a_plan_says_what_mode_replace_does() -> None:
    place = Place(movies(100))
    job = replace(JOB, mode="replace", max_deletes=Share(Decimal(10), is_percentage=False))
    text = "\n".join(shown(place, job, place.forecast(job), 200))
    assert re.search(r"^read units +0  removes nothing: a new table", text, re.MULTILINE), text
    place.tables["movies"] = FakeTable(KEY)
    text = "\n".join(shown(place, job, place.forecast(job), 200))
    assert re.search(r"^read units +\d+  at most, to look for items whose rows are gone", text, re.MULTILINE), text
    assert "at most 10 of the job's items are removed" in text


def test_what_may_be_written_in_a_row_moves_no_cursor() -> None:
    place = Place([("1", "\x1b[2Jgone", "NaN")])
    text = "\n".join(shown(place, JOB, place.forecast()))
    assert "\x1b" not in text
    assert "\\x1b[2Jgone" in text


def test_plans_add_up() -> None:
    plans = []
    for rows in (100, 250):
        place = Place(movies(rows, bad_every=50))
        forecast = place.forecast()
        assert place.report.manifest is not None
        about = timing_of(forecast, DEFAULT_LIMITS), make_bill(forecast, SETTINGS.prices), price_sources(SETTINGS)
        plans.append(facts_of(JOB, place.report.manifest, forecast, *about))
    total = sum_of(plans)
    assert total is not None
    assert total["exact"]
    assert total["rows"] == {"extracted": 350, "loaded": 343, "rejected": 7, "dropped": 0}
    assert total["cache"]["operations"] == sum(plan["cache"]["operations"] for plan in plans)
    assert total["cost"]["total"] == pytest.approx(sum(plan["cost"]["total"] for plan in plans))
    assert sum_of([]) is None


def test_facts_are_json() -> None:
    place = Place(movies(60, bad_every=7))
    forecast = place.forecast()
    assert place.report.manifest is not None
    about = timing_of(forecast, DEFAULT_LIMITS), make_bill(forecast, SETTINGS.prices), price_sources(SETTINGS)
    facts = facts_of(JOB, place.report.manifest, forecast, *about)
    assert orjson.loads(orjson.dumps(facts)) == facts
    assert facts["rejects"][0]["rows"] == facts["rows"]["rejected"] == 9
    assert len(facts["rejects"][0]["examples"]) == 3
    # Of a run by one process, prices of what it does not use say nothing.
    assert facts["cost"]["prices"].keys() == {"dynamodb_write", "dynamodb_read", "momento_transfer"}
    assert facts["remote"] is None


def test_a_stand_in_gives_back_what_a_run_reads() -> None:
    async def main() -> None:
        cache = RehearsedCache("etl", None, Counters())
        await cache.set("movies/runs", b"runs", 60)
        await cache.set("movies/R/chunk/0", b"rows", 60)
        assert [await cache.get("movies/runs"), await cache.get("movies/runs")] == [b"runs", b"runs"]
        assert [await cache.get("movies/R/chunk/0"), await cache.get("movies/R/chunk/0")] == [b"rows", None]

    asyncio.run(main())
