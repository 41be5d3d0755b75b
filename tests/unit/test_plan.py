"""The plan: which columns, which key, in which order, and what the fingerprint stands for."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from etlcli.encoding import DEFAULT_OPTIONS, EncodingOptions, Recipe
from etlcli.errors import UsageError
from etlcli.model import Column, Job, Key, KeyAttribute, PgType, Relation, Selection
from etlcli.plan import Plan, make_plan, row_encoder

INT = PgType("integer", "int4")
TEXT = PgType("text", "text")
BYTES = PgType("bytea", "bytea")
JSON = PgType("jsonb", "jsonb")
MOVIES = Relation(
    name="public.movies",
    columns=(
        Column("movie_id", INT),
        Column("title", TEXT),
        Column("released", PgType("date", "date")),
        Column("digest", BYTES),
        Column("extra", JSON),
    ),
    primary_key=("movie_id",),
    unique_keys=(frozenset({"movie_id"}), frozenset({"title", "released"})),
    estimated_rows=3000,
    stored_bytes=100_000,
)
JOB = Job("movies", Selection(table="movies"), "movies", "movies")
QUERY = replace(JOB, selection=Selection(query="select 1"))
SOURCE = "127.0.0.1:5432/shop"


def planned(job: Job = JOB, relation: Relation = MOVIES, options: EncodingOptions = DEFAULT_OPTIONS) -> Plan:
    return make_plan(job, relation, SOURCE, Recipe(options))


def selecting(**changes: Any) -> Job:
    return replace(JOB, selection=replace(JOB.selection, **changes))


# The key


def test_the_key_that_is_asked_for_comes_first() -> None:
    plan = planned(replace(JOB, key=("title", "released")))
    assert plan.key == Key(KeyAttribute("title", "S"), KeyAttribute("released", "S"))
    assert plan.key_columns == ("title", "released")
    assert plan.source_key == ("movie_id",)  # which an index gives without a sort
    assert plan.keys_are_unique
    assert plan.warnings == ()


def test_then_the_primary_key() -> None:
    plan = planned()
    assert plan.key == Key(KeyAttribute("movie_id", "N"))
    assert plan.source_key == ("movie_id",)
    assert plan.keys_are_unique
    assert plan.warnings == ()


def test_a_primary_key_in_its_own_order() -> None:
    plan = planned(relation=replace(MOVIES, primary_key=("title", "movie_id")))
    assert plan.key == Key(KeyAttribute("title", "S"), KeyAttribute("movie_id", "N"))
    assert plan.reading.order_by == ("title", "movie_id")


@pytest.mark.parametrize("key", [None, ()])
def test_then_the_first_column_with_a_warning(key: tuple[str, ...] | None) -> None:
    plan = planned(replace(JOB, key=key), replace(MOVIES, primary_key=(), unique_keys=()))
    assert plan.key_columns == plan.source_key == ("movie_id",)
    assert not plan.keys_are_unique
    assert [("no primary key" in it, "movie_id" in it, "--key" in it) for it in plan.warnings] == [(True, True, True)]


def test_the_first_column_is_the_first_that_is_taken() -> None:
    plan = planned(selecting(columns=("title", "movie_id")), replace(MOVIES, primary_key=(), unique_keys=()))
    assert plan.key_columns == ("title",)


def test_a_query_has_no_order_of_its_own() -> None:
    relation = replace(MOVIES, name=None, primary_key=(), unique_keys=())
    plan = planned(QUERY, relation)
    assert (plan.key_columns, plan.source_key, plan.reading.order_by) == (("movie_id",), (), ())
    assert "a query has no primary key" in plan.warnings[0]
    keyed = planned(replace(QUERY, key=("title",)), relation)
    assert (keyed.key_columns, keyed.source_key, keyed.warnings) == (("title",), ("title",), ())


@pytest.mark.parametrize(
    ("key", "unique"),
    [
        (("movie_id",), True),
        (("title",), False),
        (("released", "title"), True),
        (("title", "movie_id"), True),
        (("released", "digest"), False),
    ],
)
def test_whether_a_constraint_covers_the_key(key: tuple[str, ...], unique: bool) -> None:
    assert planned(replace(JOB, key=key)).keys_are_unique is unique


@pytest.mark.parametrize(
    ("column", "attribute_type"), [("movie_id", "N"), ("title", "S"), ("released", "S"), ("digest", "B")]
)
def test_types_of_key_attributes(column: str, attribute_type: str) -> None:
    assert planned(replace(JOB, key=(column,))).key.hash.type == attribute_type


def test_a_type_that_cannot_be_a_key() -> None:
    with pytest.raises(UsageError, match="column extra is of type jsonb") as caught:
        planned(replace(JOB, key=("extra",)))
    assert "--key" in str(caught.value.hint)


def test_more_columns_than_a_key_can_have() -> None:
    with pytest.raises(UsageError, match=r"the primary key has 3 columns \(movie_id, title, released\)") as caught:
        planned(relation=replace(MOVIES, primary_key=("movie_id", "title", "released")))
    assert '[tables.movies]\nkey = ["movie_id", "sk"]\n' in str(caught.value.hint)
    with pytest.raises(UsageError, match="--key has 3 columns"):
        planned(replace(JOB, key=("movie_id", "title", "released")))


# Columns


def test_columns_in_the_order_asked_for() -> None:
    plan = planned(selecting(columns=("title", "movie_id")))
    assert [column.name for column in plan.columns] == ["title", "movie_id"]
    assert plan.reading.columns == ("movie_id", "title")  # the source's own order: what is read decides nothing


def test_columns_that_are_read_for_their_order_only() -> None:
    plan = planned(replace(selecting(columns=("title", "released")), key=("title", "released")))
    assert plan.reading.columns == ("title", "released", "movie_id")
    assert plan.reading.order_by == plan.source_key == ("movie_id",)
    assert [column.name for column in plan.columns] == ["title", "released"]
    items, rejects = row_encoder(plan).encode([b"Alien\t1979-05-25\t42"])
    assert items == [b'{"title":{"S":"Alien"},"released":{"S":"1979-05-25"}}']
    assert rejects == []
    assert row_encoder(plan).key_text(b"Alien\t1979-05-25\t42") == ("42",)


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ("movie_ids", "Did you mean movie_id"),
        ("titel", "Did you mean title?"),
        ("TITLE", "Did you mean title?"),
        ("zzzzz", "There are: movie_id, title, released, digest, extra."),
    ],
)
@pytest.mark.parametrize("option", ["--columns", "--key"])
def test_a_column_that_does_not_exist(option: str, wrong: str, hint: str) -> None:
    job = selecting(columns=("movie_id", wrong)) if option == "--columns" else replace(JOB, key=(wrong,))
    with pytest.raises(UsageError, match=f"column '{wrong}', named in {option}") as caught:
        planned(job)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


def test_a_name_in_other_capitals_is_the_nearest() -> None:
    relation = replace(MOVIES, columns=(*MOVIES.columns, Column("TITLES", TEXT)))
    with pytest.raises(UsageError) as caught:
        planned(replace(JOB, key=("TITLE",)), relation)
    assert caught.value.hint == "Did you mean title?"


def test_a_key_column_that_is_not_taken() -> None:
    with pytest.raises(
        UsageError, match="the key column movie_id, named in the primary key, becomes no attribute"
    ) as caught:
        planned(selecting(columns=("title",)))
    assert caught.value.hint == "Add it: --columns title,movie_id"


@pytest.mark.parametrize(
    ("key", "order"), [(None, ()), (("place",), ()), (("place", "title"), ("title",)), (("title",), ("title",))]
)
def test_rows_come_in_the_order_of_what_has_one(key: tuple[str, ...] | None, order: tuple[str, ...]) -> None:
    place = Column("place", PgType("point", "point"))
    relation = replace(
        MOVIES,
        columns=(place, *MOVIES.columns),
        primary_key=(),
        unique_keys=(),
        unordered=frozenset({"place"}),
    )
    plan = planned(replace(JOB, key=key), relation)
    assert plan.key_columns == (key or ("place",))
    assert plan.source_key == plan.reading.order_by == order


@pytest.mark.parametrize(
    "job",
    [selecting(columns=("movie_id", "title", "movie_id")), replace(JOB, key=("title", "title"))],
    ids=["--columns", "--key"],
)
def test_a_column_named_twice(job: Job) -> None:
    with pytest.raises(UsageError, match="is named twice in --"):
        planned(job)


def test_no_columns() -> None:
    with pytest.raises(UsageError, match=r"public\.movies has no columns"):
        planned(relation=replace(MOVIES, columns=(), primary_key=()))


def test_what_cannot_become_items_is_refused_before_anything_is_made() -> None:
    twice = replace(MOVIES, columns=(*MOVIES.columns, Column("title", TEXT)))  # as a query can have it
    with pytest.raises(UsageError, match="title"):
        planned(relation=twice)
    with pytest.raises(UsageError, match="title_of"):
        planned(options=EncodingOptions(as_text=frozenset({"title_of"})))


# The fingerprint


def test_the_fingerprint_is_the_same_for_the_same() -> None:
    assert planned().fingerprint == planned().fingerprint
    one = planned(options=EncodingOptions(as_text=frozenset({"title", "released", "movie_id"} - {"movie_id"})))
    other = planned(options=EncodingOptions(as_text=frozenset({"released", "title"})))
    assert one.fingerprint == other.fingerprint


CHANGED: dict[str, Plan] = {
    "source": make_plan(JOB, MOVIES, "127.0.0.1:5432/other"),
    "relation": planned(relation=replace(MOVIES, name="sales.movies")),
    "query": planned(selecting(query="select 1")),
    "where": planned(selecting(where="movie_id > 1")),
    "another where": planned(selecting(where="movie_id > 2")),
    "limit": planned(selecting(limit=5)),
    "columns": planned(selecting(columns=("movie_id", "title"))),
    "order of columns": planned(selecting(columns=("title", "movie_id"))),
    "key": planned(replace(JOB, key=("title",))),
    "key's order": planned(replace(JOB, key=("title", "movie_id"))),
    "order of rows": planned(replace(JOB, key=("movie_id",)), replace(MOVIES, primary_key=("title",))),
    "type": planned(
        relation=replace(MOVIES, columns=(Column("movie_id", PgType("bigint", "int8")), *MOVIES.columns[1:]))
    ),
    "new column": planned(relation=replace(MOVIES, columns=(*MOVIES.columns, Column("x", INT)))),
    "json": planned(options=EncodingOptions(json_as="string")),
    "null": planned(options=EncodingOptions(null_as="null")),
    "timestamps": planned(options=EncodingOptions(timestamps_as="epoch")),
    "unrepresentable": planned(options=EncodingOptions(on_unrepresentable="fail")),
    "text": planned(options=EncodingOptions(as_text=frozenset({"title"}))),
}


def test_the_fingerprint_changes_with_all_that_decides_what_items_look_like() -> None:
    found = {"as it was": planned().fingerprint} | {what: plan.fingerprint for what, plan in CHANGED.items()}
    assert len(set(found.values())) == len(found), found


def test_every_option_is_in_the_fingerprint() -> None:
    assert {field.name for field in fields(EncodingOptions)} == {
        "on_unrepresentable",
        "json_as",
        "null_as",
        "timestamps_as",
        "as_text",
    }, "one more option: add it to CHANGED above"


@pytest.mark.parametrize(
    "plan",
    [
        planned(replace(JOB, name="other", cache="other", destination="other", ttl_seconds=1, max_cached_bytes=1)),
        planned(selecting(table="public.movies")),
        planned(relation=replace(MOVIES, estimated_rows=None, stored_bytes=None)),
        planned(selecting(columns=tuple(column.name for column in MOVIES.columns))),
        planned(replace(JOB, key=("movie_id",))),
    ],
    ids=["names", "spelling", "estimates", "all columns", "the same key"],
)
def test_the_fingerprint_does_not_change_with_anything_else(plan: Plan) -> None:
    assert plan.fingerprint == planned().fingerprint
