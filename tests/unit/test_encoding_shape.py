"""What items look like, decided once: collisions, keys, and configs to paste."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etlcli.config import JobOptions, load_settings, resolve_job, resolve_options
from etlcli.encoding import EncodingOptions, RowEncoder, Shape, ShapeOptions, make_shape
from etlcli.encoding.specs import Constant, FromColumn, FromTemplate
from etlcli.encoding.templates import Template
from etlcli.errors import ConfigError, UsageError
from etlcli.model import Column, Key, KeyAttribute, PgType


def base(typname: str) -> PgType:
    return PgType(typname, typname)


COLUMNS = tuple(
    Column(name, pg_type)
    for name, pg_type in (
        ("id", base("int4")),
        ("name", base("text")),
        ("price", base("numeric")),
        ("live", base("bool")),
        ("at", base("timestamptz")),
        ("photo", base("bytea")),
        ("extra", base("jsonb")),
        ("tags", PgType("text[]", "_text", kind="array", element=base("text"))),
        ("place", PgType("place", "place", kind="composite", fields=(Column("x", base("int4")),))),
    )
)
ALL = tuple(column.name for column in COLUMNS)


def shape(*key: str, options: EncodingOptions | None = None, **wanted: Any) -> Shape:
    return make_shape(COLUMNS, ShapeOptions(**wanted), key or ("id",), options=options or EncodingOptions(), job="m")


def test_columns_as_they_are() -> None:
    plain = shape()
    assert plain.attributes == tuple(FromColumn(name, name) for name in ALL)
    assert plain.key == Key(KeyAttribute("id", "N"))
    assert plain.columns == ALL
    assert plain.key_columns == ("id",)
    assert plain.identifying == {"id"}
    assert plain.kinds == {
        "id": "N",
        "name": "S",
        "price": "N",
        "live": "BOOL",
        "at": "S",
        "photo": "B",
        "tags": "L",
        "place": "M",
    }


def test_everything_at_once() -> None:
    made = shape(
        "pk",
        "id",
        columns=("name", "id", "price", "at"),
        drop=("name",),
        rename={"price": "cost"},
        cast={"price": "S"},
        mask={"at": "hash"},
        attributes={"pk": "M#{name}#{live}", "version": 1, "ok": True, "note": "{{x}}"},
    )
    assert made.attributes == (
        FromColumn("id", "id"),
        FromColumn("cost", "price", cast="S"),
        FromColumn("at", "at", mask="hash"),
        FromTemplate("pk", Template.parse("M#{name}#{live}")),
        Constant("version", "N", "1"),
        Constant("ok", "BOOL", "true"),
        Constant("note", "S", "{x}"),
    )
    assert made.key == Key(KeyAttribute("pk", "S"), KeyAttribute("id", "N"))
    assert made.columns == ("id", "name", "price", "live", "at")
    assert made.key_columns == ("name", "live", "id")
    assert made.identifying == {"name", "live", "id"}
    encoder = RowEncoder([c for c in COLUMNS if c.name in made.columns], made.attributes, made.key)
    (item,) = encoder.encode_batch([rb"7	Heat	8.30	t	\N"]).items
    assert item == (
        b'{"pk":{"S":"M#Heat#true"},"id":{"N":"7"},"cost":{"S":"8.30"},"version":{"N":"1"},"ok":{"BOOL":true},'
        b'"note":{"S":"{x}"}}'
    )


@pytest.mark.parametrize(
    ("key", "wanted", "name", "kind"),
    [
        ("id", {}, "id", "N"),
        ("price", {"rename": {"price": "cost"}}, "cost", "N"),
        ("cost", {"rename": {"price": "cost"}}, "cost", "N"),
        ("name", {"rename": {"name": "id", "id": "name"}}, "name", "N"),  # attributes first
        ("photo", {}, "photo", "B"),
        ("at", {}, "at", "S"),
        ("live", {"cast": {"live": "S"}}, "live", "S"),
        ("extra", {"mask": {"extra": "hash"}}, "extra", "S"),
        ("id", {"cast": {"id": "B"}}, "id", "B"),
        ("k", {"attributes": {"k": 5}}, "k", "N"),
    ],
)
def test_a_keys_names_are_those_of_attributes_or_of_columns(key: str, wanted: Any, name: str, kind: Any) -> None:
    assert shape(key, **wanted).key == Key(KeyAttribute(name, kind))


def test_a_primary_keys_names_are_those_of_columns() -> None:
    wanted = ShapeOptions(rename={"name": "id", "id": "name"})
    assert make_shape(COLUMNS, wanted, ("id",), key_of_columns=True).key.hash == KeyAttribute("name", "N")


def test_timestamps_as_epoch_are_keys_of_type_n() -> None:
    assert shape("at", options=EncodingOptions(timestamps_as="epoch")).key.hash.type == "N"


@pytest.mark.parametrize(
    ("key", "wanted", "identifying"),
    [
        (("name",), {"cast": {"name": "N"}}, set()),
        (("price",), {"cast": {"price": "N"}}, {"price"}),
        (("at",), {"cast": {"at": "N"}}, {"at"}),
        (("name",), {"cast": {"name": "B"}}, {"name"}),
        (("name",), {"mask": {"name": "redact"}}, set()),
        (("name",), {"mask": {"name": "hmac"}, "has_mask_key": True}, {"name"}),
        (("k", "id"), {"attributes": {"k": "const"}}, {"id"}),
        (("k", "id"), {"attributes": {"k": "{at:%Y-%m}"}}, {"id"}),
        (("k",), {"attributes": {"k": "{at:%Y-%m}#{id}"}}, {"id"}),
        (("id",), {"transforms": True}, set()),
    ],
)
def test_which_columns_a_key_tells(key: tuple[str, ...], wanted: Any, identifying: set[str]) -> None:
    assert shape(*key, **wanted).identifying == identifying


@pytest.mark.parametrize(
    ("wanted", "problem", "hint"),
    [
        ({"drop": ("nmae",)}, "there is no column 'nmae', named in `drop`", "Did you mean name?"),
        ({"rename": {"Name": "x"}}, "there is no column 'Name', named in `rename`", "Did you mean name?"),
        ({"cast": {"zzz": "S"}}, "there is no column 'zzz', named in `cast`", "There are: id, name"),
        ({"mask": {"prise": "hash"}}, "there is no column 'prise', named in `mask`", "Did you mean price?"),
        ({"columns": ("idd",)}, "there is no column 'idd', named in `columns`", "Did you mean id?"),
        (
            {"attributes": {"k": "{nmae}"}},
            "attribute k: the template '{nmae}' names the column 'nmae', which does not exist",
            "mean name?",
        ),
        ({"attributes": {"k": "{"}}, "attribute k: the template '{' has a field", "Fields are {column}"),
        ({"attributes": {"k": "{extra}"}}, "attribute k: column extra is of type jsonb", "not json, arrays"),
        ({"attributes": {"k": "{name:03d}"}}, "attribute k: the format 03d does not go with column name", "{name}"),
        ({"drop": ("name",), "rename": {"name": "x"}}, "the column name stands in `drop` and in `rename`", "Take"),
        ({"drop": ("name",), "cast": {"name": "B"}}, "the column name stands in `drop` and in `cast`", "Take"),
        ({"drop": ("name",), "mask": {"name": "hash"}}, "the column name stands in `drop` and in `mask`", "Take"),
        ({"columns": ("id",), "mask": {"name": "hash"}}, "`mask`, and not among the columns to take", "id,name"),
        ({"cast": {"name": "B"}, "mask": {"name": "hash"}}, "stands in `cast` and in `mask`", "Take"),
        ({"cast": {"name": "X"}}, "`cast` gives the column name 'X'", "S, N, B, BOOL"),
        ({"mask": {"name": "md5"}}, "`mask` gives the column name 'md5'", "hash, redact, hmac"),
        ({"mask": {"name": "hmac"}}, "masked by hmac, and there is no key", "mask_key"),
        ({"rename": {"name": "id"}}, "column id and column name would both become the attribute id", "Rename"),
        ({"attributes": {"id": 1}}, "column id and constant '1' would both become the attribute id", "Rename"),
        ({"attributes": {"id": "{name}"}}, "column id and template '{name}' would both become", "Rename"),
        ({"rename": {"name": ""}}, "'', is not between 1 and 65535 bytes long (column name)", "another name"),
        ({"rename": {"name": "é" * 32_768}}, "is not between 1 and 65535 bytes long", "another name"),
        ({"rename": {"id": "x" * 256}}, "a key attribute's name, 'xxx", "another name"),
        ({"reserved": "name"}, "column name would become the attribute name, which is this job's mark", "mark = "),
    ],
)
def test_mistakes_name_the_culprits(wanted: Any, problem: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shape(**wanted)
    assert problem in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("key", "wanted", "problem", "hint"),
    [
        (("idd",), {}, "there is no attribute or column 'idd', named in --key", "Did you mean id?"),
        (("costs",), {"rename": {"price": "cost"}}, "there is no attribute or column 'costs'", "Did you mean cost?"),
        (("name",), {"drop": ("name",)}, "the key column name, named in --key, becomes no attribute", "`drop`"),
        (("name",), {"columns": ("id",)}, "the key column name, named in --key, becomes no attribute", "--columns"),
        (("price", "cost"), {"rename": {"price": "cost"}}, "--key names the attribute cost twice: price, cost", "two"),
        ((), {}, "the destination has no key", "--key"),
        (("extra",), {}, "column extra is of type jsonb, which cannot be a DynamoDB key", 'cast = { extra = "S" }'),
        (("tags",), {}, "column tags is of type text[], which cannot be", 'cast = { tags = "S" }'),
        (("live",), {}, "column live is of type bool, which cannot be a DynamoDB key", 'cast = { live = "S" }'),
        (("id",), {"cast": {"id": "BOOL"}}, "(cast to BOOL)", 'cast = { id = "S" }'),
        (("k",), {"attributes": {"k": False}}, "a constant of type BOOL", "text or a number"),
    ],
)
def test_what_cannot_be_a_key(key: tuple[str, ...], wanted: Any, problem: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_shape(COLUMNS, ShapeOptions(**wanted), key)
    assert problem in caught.value.message
    assert hint in (caught.value.hint or "")


def test_two_columns_of_one_name() -> None:
    with pytest.raises(UsageError, match="two columns of the name id"):
        make_shape([*COLUMNS, COLUMNS[0]], ShapeOptions(), ("id",))


# Keys of three and more columns: the hint is a config.


def proposed(columns: list[Column], job: str = "order_lines", **wanted: Any) -> str:
    names = [column.name for column in columns]
    with pytest.raises(UsageError) as caught:
        make_shape(columns, ShapeOptions(**wanted), names, job=job, key_origin="the primary key", key_of_columns=True)
    assert f"the primary key has {len(names)} columns" in caught.value.message
    return caught.value.hint or ""


def typed(**types: str) -> list[Column]:
    return [Column(name, base(typname)) for name, typname in types.items()]


def test_the_config_for_a_key_of_three_columns() -> None:
    hint = proposed(typed(order_id="int4", line_no="int2", part_no="int2"))
    assert hint.split("\n")[1:] == [
        "[tables.order_lines]",
        'key = ["order_id", "sk"]',
        'attributes = { sk = "{line_no}#{part_no}" }',
    ]


@pytest.mark.parametrize(
    ("types", "key", "attributes"),
    [
        ({"a": "text", "b": "text", "c": "int4"}, '["a", "sk"]', '{ sk = "{b}#{c}" }'),
        ({"a": "int4", "b": "text", "c": "text"}, '["b", "sk"]', '{ sk = "{a}#{c}" }'),
        ({"a": "bytea", "b": "int4", "c": "int4"}, '["a", "sk"]', '{ sk = "{b}#{c}" }'),
        ({"a": "int4", "b": "int4", "c": "bytea"}, '["c", "sk"]', '{ sk = "{a}#{b}" }'),
        ({"a": "bool", "b": "uuid", "c": "date"}, '["b", "sk"]', '{ sk = "{a}#{c}" }'),
        ({"a": "bool", "b": "bool", "c": "bool"}, '["pk", "sk"]', '{ pk = "{a}", sk = "{b}#{c}" }'),
        (
            {"a": "text", "i": "int4", "b": "text", "j": "int4"},
            '["a", "sk"]',
            '{ sk = "{i}#{b}#{j}" }',
        ),
        ({"a": "text", "b": "text", "c": "text"}, '["a", "sk"]', '{ sk = "{b}#{c}" }'),
    ],
)
def test_which_columns_are_joined(types: dict[str, str], key: str, attributes: str) -> None:
    hint = proposed(typed(**types))
    assert f"key = {key}" in hint
    assert f"attributes = {attributes}" in hint
    assert ("a run looks for such rows" in hint) == (list(types.values()) == ["text"] * 3)


def test_a_proposal_keeps_what_the_section_has_and_takes_free_names() -> None:
    columns = [*typed(a="int4", b="int4", c="int4"), Column("sk", base("text"))]
    with pytest.raises(UsageError) as caught:
        make_shape(columns, ShapeOptions(attributes={"x": 'y"', "n": 1, "t": True}), ["a", "b", "c"], job="m")
    assert 'key = ["a", "sk2"]\nattributes = { x = "y\\"", n = 1, t = true, sk2 = "{b}#{c}" }' in (
        caught.value.hint or ""
    )


def test_columns_that_cannot_be_joined() -> None:
    hint = proposed([*typed(a="bytea", b="bytea"), COLUMNS[-2]])
    assert hint.startswith("These cannot be joined in a template: a (bytea), b (bytea), tags (text[]).")
    assert "--query" in hint


def test_a_misspelt_name_among_many() -> None:
    with pytest.raises(UsageError, match="no attribute or column 'nmae'"):
        make_shape(COLUMNS, ShapeOptions(), ("id", "nmae", "price"))


names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8) | (
    st.sampled_from(
        ["a b", "A", 'q"', "'", "{x}", "a:b", "a.b", " ", "\n", "#", "\\", "}", '"', "env:X", "sk", "pk", "é"]
    )
)
keyable = st.sampled_from(["int4", "text", "numeric", "uuid", "date", "timestamptz", "bool", "bytea"])
jobs = st.text(min_size=1, max_size=8).filter(lambda name: bool(name.strip()) and name.isprintable())


@settings(max_examples=200)
@given(st.lists(st.tuples(names, keyable), min_size=3, max_size=5, unique_by=lambda pair: pair[0]), jobs)
def test_the_config_can_be_pasted_as_it_stands(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]], job: str
) -> None:
    columns = [Column(name, base(typname)) for name, typname in pairs]
    hint = proposed(columns, job=job)
    if hint.startswith("These cannot be joined"):
        assert sum(typname == "bytea" for _, typname in pairs) > 1
        return
    assert all(line.isprintable() for line in hint.split("\n"))
    # Indented, as the command line prints it.
    pasted = "\n".join("      " + line for line in hint.split("\n")[1:])
    folder = tmp_path_factory.mktemp("pasted")
    (folder / "momento-etl.toml").write_text(pasted, encoding="utf-8")
    settings = load_settings(environ={}, folder=folder)
    assert list(settings.tables) == [job]
    table = settings.tables[job]
    assert table.key is not None
    made = make_shape(columns, ShapeOptions(attributes=table.attributes or {}), table.key)
    assert len(made.key.attributes) == 2
    assert set(made.key_columns) == set(dict(pairs))
    assert (made.identifying == set(dict(pairs))) == ("a run looks for such rows" not in hint)
    # Two attributes hold two columns of any text, of which one may be bytea, which has to be alone.
    kinds = [typname for _, typname in pairs]
    assert kinds.count("text") + ("bytea" in kinds) > 2 or made.identifying == set(dict(pairs))
    RowEncoder(columns, made.attributes, made.key)


def test_options_of_a_job_are_those_of_a_shape(tmp_path: Path) -> None:
    (tmp_path / "momento-etl.toml").write_text(
        "[tables.m]\nkey = ['pk', 'id']\ndrop = ['photo']\nrename = { name = 'title' }\ncast = { price = 'S' }\n"
        "mask = { extra = 'hmac' }\nmask_key = 'k'\nattributes = { pk = 'M#{name}', rate = 0.10 }\n"
    )
    config = load_settings(environ={}, folder=tmp_path)
    options: JobOptions = resolve_options(config, "m")
    wanted = ShapeOptions(
        drop=options.drop,
        rename=options.rename,
        cast=options.cast,
        mask=options.mask,
        has_mask_key=options.mask_key is not None,
        attributes=options.attributes,
    )
    made = make_shape(COLUMNS, wanted, resolve_job(config, "m").key or ())
    assert [spec.name for spec in made.attributes] == [
        *("id", "title", "price", "live", "at", "extra", "tags", "place", "pk", "rate")
    ]
    assert made.attributes[-1] == Constant("rate", "N", "0.10")
