"""The mark of mode ``replace``: on items, in their size, and the keys that tell which old items are spared."""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.encoding import PLAIN, EncodingOptions, Recipe, RowEncoder, ShapeOptions, Transform, item_size
from etlcli.errors import ConfigError, UsageError
from etlcli.marking import key_of, mark_bytes, marked
from etlcli.model import Column, ItemMark, Job, Key, KeyAttribute, PgType, Relation, Selection, new_run_id
from etlcli.plan import make_plan, row_encoder
from etlcli.state import Mark

UPSERT = Job("movies", Selection(table="movies"), "etl", "movies")
REPLACE = replace(UPSERT, mode="replace")
COLUMNS = tuple(
    Column(name, PgType(typname, typname))
    for name, typname in (
        ("id", "int8"),
        ("code", "text"),
        ("digest", "bytea"),
        ("born", "date"),
        ("rating", "numeric"),
        ("note", "text"),
    )
)
MOVIES = Relation("public.movies", COLUMNS, primary_key=("id",), unique_keys=(frozenset({"id"}),))
MAX_ITEM_BYTES = 409_600


def mark_of(attribute: str = "_momento_etl") -> ItemMark:
    mark = Mark(secrets.token_hex(6), 0.0)
    return ItemMark(attribute, mark.value(""), mark.value(new_run_id()))


def encoder(job: Job = REPLACE, recipe: Recipe = PLAIN) -> RowEncoder:
    return row_encoder(make_plan(job, MOVIES, "here", recipe), recipe)


def line(**texts: str | None) -> bytes:
    given = {"id": "7", "code": "c", "digest": "\\\\x00", "born": "2001-02-03", "rating": "1", "note": None, **texts}
    return "\t".join("\\N" if text is None else text for text in given.values()).encode()


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(NAMES, st.lists(st.dictionaries(NAMES, st.sampled_from([{"N": "1"}, {"S": '"}'}, {"L": []}]), min_size=1)))
def test_the_mark_is_an_attribute_more(attribute: str, items: list[dict[str, Any]]) -> None:
    mark = mark_of(attribute)
    others = [{name: value for name, value in item.items() if name != attribute} or {"_": {"N": "0"}} for item in items]
    found = [orjson.loads(item) for item in marked([orjson.dumps(item) for item in others], mark)]
    assert found == [{**item, attribute: {"S": mark.value}} for item in others]


@given(NAMES)
def test_the_mark_takes_as_many_bytes_as_are_left_for_it(attribute: str) -> None:
    item = b'{"pk":{"S":"x"}}'
    (whole,) = marked([item], mark_of(attribute))
    if attribute != "pk":
        assert item_size(whole) - item_size(item) == mark_bytes(attribute)


def test_of_two_runs_the_later_has_the_larger_mark() -> None:
    mark = Mark(secrets.token_hex(6), 0.0)
    start = dt.datetime(2026, 12, 31, 23, 59, 59, 999_000, tzinfo=dt.UTC)
    moments = [start + dt.timedelta(milliseconds=step) for step in (0, 1, 2, 1000, 3_600_000, 10**11)]
    values = [mark.value(new_run_id(moment)).encode() for moment in moments]
    assert values == sorted(values)
    assert all(value > mark.value("").encode() for value in values)
    assert {len(value) for value in values} == {mark_bytes("")}


@pytest.mark.parametrize("attribute", ["_momento_etl", "größe", "m"])
def test_an_item_has_to_leave_room_for_the_mark(attribute: str) -> None:
    room = mark_bytes(attribute)
    without = item_size(encoder(UPSERT).encode([line(note="")])[0][0])
    fits, over = (line(note="x" * (MAX_ITEM_BYTES - without - room + more)) for more in (0, 1))
    (item,), (reject,) = encoder(replace(REPLACE, mark=attribute)).encode([fits, over])
    (whole,) = marked([item], mark_of(attribute))
    assert item_size(whole) == MAX_ITEM_BYTES
    assert reject.rule == "item-too-large"
    assert f"{room} of them for its mark" in reject.message
    assert len(encoder(UPSERT).encode([fits, over])[0]) == 2


def test_an_item_has_to_leave_room_for_the_mark_row_by_row_too() -> None:
    without = item_size(encoder(UPSERT).encode([line(note="")])[0][0])
    over = line(note="x" * (MAX_ITEM_BYTES - without - mark_bytes("_momento_etl") + 1))
    fields = [b"7", b"c", b"\\x00", b"2001-02-03", b"1", over.rpartition(b"\t")[2]]
    assert encoder(UPSERT).encode_fields(fields) is not None
    with pytest.raises(Exception, match="for its mark"):
        encoder().encode_fields(fields)


def shaped(key: tuple[str, ...], **options: Any) -> tuple[Job, Recipe]:
    return replace(REPLACE, key=key), Recipe(shape=ShapeOptions(**options), mask_key=b"secret")


KEYS = {
    "number": shaped(("id",)),
    "text": shaped(("code",)),
    "binary and text": shaped(("digest", "code")),
    "cast": shaped(("id",), cast={"id": "S"}),
    "cast to binary": shaped(("id", "born"), cast={"id": "B"}),
    "hash": shaped(("code",), mask={"code": "hash"}),
    "hmac": shaped(("code", "id"), mask={"code": "hmac"}, has_mask_key=True),
    "renamed": shaped(("pk", "sk"), rename={"code": "pk", "id": "sk"}),
    "templates": shaped(("pk", "sk"), attributes={"pk": "MOVIE#{id:06d}", "sk": 'a"{code}\\{born:%Y-%m}'}),
    "a template of a dropped column": shaped(("pk",), attributes={"pk": "{code}"}, drop=("code",)),
    "a constant": shaped(("kind", "id"), attributes={"kind": "movie"}),
    "a number that is constant": shaped(("id", "version"), attributes={"version": 2}),
}


@pytest.mark.parametrize("case", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("code", ["c", 'q"uote', "back\\\\slash", "t\\tab", "\u0001é🎬", "a b#{x}"])
def test_a_rejects_key_is_the_one_that_its_item_would_have(case: tuple[Job, Recipe], code: str) -> None:
    job, recipe = case
    made = encoder(job, recipe)
    key = make_plan(job, MOVIES, "here", recipe).key
    (item,), _ = made.encode([line(code=code)])
    _, (reject,) = made.encode([line(code=code, rating="NaN")])
    assert reject.key is not None
    assert orjson.loads(reject.key) == orjson.loads(key_of(item, key))
    # Of an item that is too large, too.
    _, (large,) = made.encode([line(code=code, note="x" * MAX_ITEM_BYTES)])
    assert (large.rule, large.key) == ("item-too-large", reject.key)


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        (("code",), {"code": None}),
        (("code",), {"code": ""}),
        (("code",), {"code": "x" * 2049}),
        (("id", "code"), {"code": "x" * 1025}),
        (("rating",), {"rating": "NaN"}),
        (("digest",), {"digest": "\\\\x"}),
    ],
)
def test_without_a_key_that_dynamodb_holds_there_is_none(key: tuple[str, ...], bad: dict[str, str | None]) -> None:
    _, (reject,) = encoder(replace(REPLACE, key=key)).encode([line(**bad)])
    assert reject.key is None


def test_a_key_is_none_even_where_values_become_strings() -> None:
    recipe = Recipe(EncodingOptions(on_unrepresentable="string"))
    _, (reject,) = encoder(replace(REPLACE, key=("rating",)), recipe).encode([line(rating="Infinity")])
    assert reject.key is None


def test_a_rejects_key_is_told_in_mode_upsert_too() -> None:
    _, (reject,) = encoder(UPSERT).encode([line(rating="NaN")])
    assert reject.key == '{"id":{"N":"7"}}'


def change(item: dict[str, Any]) -> dict[str, Any] | None:
    if item["code"] == "drop":
        return None
    return {**item, "id": item["id"] + 1, **({"_momento_etl": "mine"} if item["code"] == "mark" else {})}


HOOK = Recipe(shape=ShapeOptions(transforms=True), transform=Transform("tests:change", change, "digest"))


def test_after_a_transform_nobody_knows_a_rejects_key() -> None:
    items, (reject,) = encoder(REPLACE, HOOK).encode_batch([line(), line(rating="NaN"), line(code="drop")])[:2]
    assert orjson.loads(items[0])["id"] == {"N": "8"}
    assert (reject.rule, reject.key) == ("number-not-finite", None)


def test_a_transform_does_not_write_the_mark() -> None:
    _, (reject,), _ = encoder(REPLACE, HOOK).encode_batch([line(code="mark")])
    assert reject.rule == "transform-value"
    assert "_momento_etl" in reject.message
    assert encoder(UPSERT, HOOK).encode_batch([line(code="mark")]).rejects == []


@pytest.mark.parametrize(
    ("mark", "recipe"),
    [
        ("note", PLAIN),
        ("id", PLAIN),
        ("mine", Recipe(shape=ShapeOptions(rename={"note": "mine"}))),
        ("mine", Recipe(shape=ShapeOptions(attributes={"mine": "{code}"}))),
        ("mine", Recipe(shape=ShapeOptions(attributes={"mine": 1}))),
    ],
)
def test_the_mark_is_none_of_the_jobs_own_attributes(mark: str, recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="mark") as caught:
        make_plan(replace(REPLACE, mark=mark), MOVIES, "here", recipe)
    assert "mark =" in str(caught.value.hint)
    make_plan(replace(UPSERT, mark=mark), MOVIES, "here", recipe)


def test_a_column_that_is_dropped_or_renamed_leaves_its_name_to_the_mark() -> None:
    for shape in (ShapeOptions(drop=("note",)), ShapeOptions(rename={"note": "other"})):
        make_plan(replace(REPLACE, mark="note"), MOVIES, "here", Recipe(shape=shape))


def test_a_key_of_the_marks_name_is_refused() -> None:
    recipe = Recipe(shape=ShapeOptions(attributes={"pk": "{id}"}))
    with pytest.raises(UsageError, match="mark"):
        make_plan(replace(REPLACE, key=("pk",), mark="pk"), MOVIES, "here", recipe)


def test_mode_and_mark_are_in_the_fingerprint() -> None:
    prints = {
        make_plan(job, MOVIES, "here").fingerprint
        for job in (UPSERT, replace(UPSERT, mark="other"), REPLACE, replace(REPLACE, mark="other"))
    }
    assert len(prints) == 3


def test_an_items_key_is_taken_out_of_it() -> None:
    key = Key(KeyAttribute("b", "S"), KeyAttribute("a", "N"))
    item = orjson.dumps({"a": {"N": "1"}, "x": {"L": []}, "b": {"S": '"'}})
    assert orjson.loads(key_of(item, key)) == {"b": {"S": '"'}, "a": {"N": "1"}}
