"""Every kind of attribute: from row to item, in a batch and one by one, and from JSON and back."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etlcli.encoding import EncodingOptions, RowEncoder, Unrepresentable, decode_fields, mask_key_id
from etlcli.encoding.specs import (
    AttributeSpec,
    CastType,
    Constant,
    FromColumn,
    FromTemplate,
    Mask,
    columns_of,
    spec_from_json,
    spec_to_json,
)
from etlcli.encoding.templates import Template
from etlcli.errors import CacheError, ConfigError, SourceError, UsageError
from etlcli.model import Column, Key, KeyAttribute, PgType, Reject

KEY = b"k"
ID = Key(KeyAttribute("id", "N"))
COLUMNS = tuple(
    Column(name, PgType(typname, typname))
    for name, typname in (
        ("id", "int4"),
        ("t", "text"),
        ("n", "numeric"),
        ("b", "bool"),
        ("raw", "bytea"),
        ("at", "timestamptz"),
        ("doc", "jsonb"),
    )
)
PLACES = {column.name: index for index, column in enumerate(COLUMNS)}


def template(name: str, text: str) -> FromTemplate:
    return FromTemplate(name, Template.parse(text))


def encoder(*specs: AttributeSpec, key: Key = ID, columns: Any = COLUMNS, **options: Any) -> RowEncoder:
    return RowEncoder(columns, specs, key, options=EncodingOptions(**options), mask_key=KEY)


def encode_one(spec: AttributeSpec, column: str, text: str | None, **options: Any) -> Any:
    """Write one attribute, in a batch and alone; answer it, None where it is absent, or the rule that is broken."""
    fields: list[bytes | None] = [None] * len(COLUMNS)
    fields[0] = b"1"
    fields[PLACES[column]] = None if text is None else text.encode()
    line = b"\t".join(
        rb"\N" if field is None else field.replace(b"\\", rb"\\").replace(b"\n", rb"\n") for field in fields
    )
    made = encoder(FromColumn("id", "id"), spec, **options)
    items, rejects, dropped = made.encode_batch([line])
    assert dropped == 0
    assert one_by_one(made, [line]) == (items, rejects)
    return json.loads(items[0]).get(spec.name) if items else rejects[0].rule


def one_by_one(made: RowEncoder, lines: list[bytes]) -> tuple[list[bytes | None], list[Reject]]:
    items = []
    rejects = []
    for line in lines:
        fields = decode_fields(line)
        try:
            items.append(made.encode_fields(fields))
        except Unrepresentable as problem:
            rejects.append(made.reject(fields, problem))
    return items, rejects


@pytest.mark.parametrize(
    ("column", "to", "text", "expected"),
    [
        ("n", "S", "8.30", {"S": "8.30"}),
        ("n", "S", "NaN", {"S": "NaN"}),
        ("at", "S", "2024-02-29 10:15:00+00", {"S": "2024-02-29 10:15:00+00"}),
        ("doc", "S", '{"a": 1}', {"S": '{"a": 1}'}),
        ("raw", "S", r"\x00ff", {"S": r"\x00ff"}),
        ("b", "S", "t", {"S": "t"}),
        ("t", "N", "42", {"N": "42"}),
        ("t", "N", "007", {"N": "007"}),
        ("t", "N", "  -1.50\n", {"N": "-1.50"}),
        ("t", "N", "+5", {"N": "5"}),
        ("t", "N", ".5", {"N": "0.5"}),
        ("t", "N", "5.", {"N": "5"}),
        ("t", "N", "-.5E+3", {"N": "-0.5e+3"}),
        ("t", "N", "1e5", {"N": "1e5"}),
        ("t", "N", "9" * 38 + "0" * 50, {"N": "9" * 38 + "E50"}),
        ("n", "N", "1.10", {"N": "1.10"}),
        ("doc", "N", "5", {"N": "5"}),
        ("at", "N", "1970-01-01 00:01:00.5+00", {"N": "60.5"}),
        ("at", "N", "infinity", "number-not-finite"),
        ("t", "N", "", "cast-number"),
        ("t", "N", "ten", "cast-number"),
        ("t", "N", "0x10", "cast-number"),
        ("t", "N", "1_000", "cast-number"),
        ("t", "N", "1,5", "cast-number"),
        ("t", "N", "٣", "cast-number"),
        ("t", "N", ".", "cast-number"),
        ("t", "N", "nan", "number-not-finite"),
        ("t", "N", "-Infinity", "number-not-finite"),
        ("t", "N", "1" * 39, "number-precision"),
        ("t", "N", "1e126", "number-range"),
        ("t", "N", "1e" + "9" * 500, "number-range"),
        ("b", "N", "t", "cast-number"),
        ("t", "B", "é", {"B": "w6k="}),
        ("t", "B", "", {"B": ""}),
        ("raw", "B", r"\x00ff", {"B": "AP8="}),
        ("n", "B", "1.5", {"B": "MS41"}),
        *(("t", "BOOL", word, {"BOOL": True}) for word in ("true", "t", "1", "yes", "y", "on", " TRUE ", "Yes")),
        *(("t", "BOOL", word, {"BOOL": False}) for word in ("false", "f", "0", "no", "n", "off", "OFF\n")),
        ("b", "BOOL", "t", {"BOOL": True}),
        ("n", "BOOL", "1", {"BOOL": True}),
        ("n", "BOOL", "2", "cast-boolean"),
        ("t", "BOOL", "", "cast-boolean"),
        ("t", "BOOL", "maybe", "cast-boolean"),
    ],
)
def test_casts(column: str, to: CastType, text: str, expected: object) -> None:
    assert encode_one(FromColumn("x", column, cast=to), column, text) == expected


@pytest.mark.parametrize("to", ["S", "N", "B", "BOOL"])
@pytest.mark.parametrize("column", ["t", "n", "b", "raw", "at", "doc"])
def test_null_stays_null_in_a_cast(to: CastType, column: str) -> None:
    assert encode_one(FromColumn("x", column, cast=to), column, None) is None
    assert encode_one(FromColumn("x", column, cast=to), column, None, null_as="null") == {"NULL": True}


def test_by_option_what_does_not_fit_becomes_a_string() -> None:
    assert encode_one(FromColumn("x", "t", cast="N"), "t", "ten", on_unrepresentable="string") == {"S": "ten"}


@pytest.mark.parametrize("text", ["", "a@b.c", "ä\\", "x" * 1000])
def test_masks(text: str) -> None:
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert encode_one(FromColumn("x", "t", mask="hash"), "t", text) == {"S": digest}
    secret = hmac.new(KEY, text.encode(), "sha256").hexdigest()
    assert encode_one(FromColumn("x", "t", mask="hmac"), "t", text) == {"S": secret}
    assert encode_one(FromColumn("x", "t", mask="redact"), "t", text) == {"S": "***"}


@pytest.mark.parametrize("mask", ["hash", "redact", "hmac"])
def test_null_stays_null_under_a_mask(mask: Mask) -> None:
    assert encode_one(FromColumn("x", "doc", mask=mask), "doc", None) is None
    assert encode_one(FromColumn("x", "doc", mask=mask), "doc", None, null_as="null") == {"NULL": True}


def test_a_keys_id_tells_keys_apart_and_nothing_else() -> None:
    assert mask_key_id(b"a") == mask_key_id(b"a") != mask_key_id(b"b")
    assert len(mask_key_id(b"a")) == 32


def test_hmac_needs_a_key() -> None:
    with pytest.raises(ConfigError, match="there is no key for it"):
        RowEncoder(COLUMNS, [FromColumn("id", "id"), FromColumn("x", "t", mask="hmac")], ID)


def test_constants_templates_and_renamed_columns_in_their_order() -> None:
    made = encoder(
        Constant("type", "S", 'MO"VIE'),
        FromColumn("title", "t"),
        Constant("version", "N", "1.50"),
        FromColumn("id", "id"),
        Constant("live", "BOOL", "true"),
        template("sk", '"{t}"#{n}'),
    )
    line = rb"7	He\nat	\N	t	\\x00	2024-02-29 10:15:00+00	[]"
    common = (
        rb'{"id":{"N":"7"},"type":{"S":"MO\"VIE"},"title":{"S":"He\nat"},"version":{"N":"1.50"},"live":{"BOOL":true}'
    )
    assert made.encode_batch([line, line.replace(rb"\N", b"8.30")]).items == [
        common + b"}",
        common + rb',"sk":{"S":"\"He\nat\"#8.30"}}',
    ]


def test_an_item_of_constants_alone() -> None:
    made = encoder(Constant("pk", "S", "x"), Constant("n", "N", "1"), key=Key(KeyAttribute("pk", "S")))
    line = rb"7	a	\N	t	\\x00	\N	[]"
    assert made.encode_batch([line, line]).items == [b'{"pk":{"S":"x"},"n":{"N":"1"}}'] * 2
    made = encoder(template("pk", "x{{}}"), key=Key(KeyAttribute("pk", "S")))
    assert made.encode_batch([line, line]).items == [b'{"pk":{"S":"x{}"}}'] * 2


@pytest.mark.parametrize(
    ("spec", "column", "kind"),
    [
        (FromColumn("k", "t", mask="hash"), "t", "S"),
        (FromColumn("k", "n", cast="S"), "n", "S"),
        (FromColumn("k", "t", cast="B"), "t", "B"),
        (FromColumn("k", "t", cast="N"), "t", "N"),
        (FromColumn("k", "raw"), "raw", "B"),
        (template("k", "{t}"), "t", "S"),
        (template("k", "X{n}#{t}"), "n", "S"),
    ],
)
def test_keys_of_every_kind_have_to_be_there(spec: AttributeSpec, column: str, kind: Any) -> None:
    made = encoder(spec, key=Key(KeyAttribute("k", kind)))
    row = [b"1", b"5", b"5", b"t", rb"\\x05", rb"\N", rb"\N"]
    assert len(made.encode_batch([b"\t".join(row)]).items) == 1
    row[PLACES[column]] = rb"\N"
    items, (reject,), _ = made.encode_batch([b"\t".join(row)])
    assert (items, reject.rule) == ([], "key-null")
    assert column in reject.message


@pytest.mark.parametrize(
    ("spec", "cell", "rule"),
    [
        (FromColumn("k", "t", cast="B"), b"", "key-empty"),
        (template("k", "{t}"), b"", "key-empty"),
        (template("k", "#{t}"), b"", None),
        (FromColumn("k", "t", cast="B"), b"x" * 2048, None),
        (FromColumn("k", "t", cast="B"), b"x" * 2049, "key-too-long"),
        (template("k", "#{t}"), b"x" * 2047, None),
        (template("k", "#{t}"), b"x" * 2048, "key-too-long"),
        (template("k", "#{t}"), rb"\n" * 2047, None),
        (template("k", "#{t}"), rb"\n" * 2048, "key-too-long"),
        (template("k", "{t}{t}"), "é".encode() * 512, None),
        (template("k", "{t}{t}"), "é".encode() * 512 + b"x", "key-too-long"),
        (FromColumn("k", "t", mask="hash"), b"x" * 5000, None),
        (FromColumn("k", "t", cast="N"), b"ten", "cast-number"),
    ],
)
def test_keys_of_every_kind_have_a_length(spec: AttributeSpec, cell: bytes, rule: str | None) -> None:
    kind = (spec.cast or "S") if isinstance(spec, FromColumn) else "S"
    made = encoder(spec, key=Key(KeyAttribute("k", kind)), on_unrepresentable="string")  # type: ignore[arg-type]
    line = b"\t".join([b"1", cell, b"5", b"t", rb"\N", rb"\N", rb"\N"])
    items, rejects, _ = made.encode_batch([line, line])
    assert [reject.rule for reject in rejects] == ([rule] * 2 if rule else [])
    assert len(items) == (0 if rule else 2)


def test_a_templates_reject_names_attribute_and_column() -> None:
    made = encoder(FromColumn("id", "id"), template("sk", "{at:%Y}"), on_unrepresentable="string")
    _, (reject,), _ = made.encode_batch([rb"1	a	1	t	\N	infinity	\N"])
    assert reject.rule == "template-value"
    assert reject.message.startswith("attribute sk: column at: 'infinity'")
    assert reject.row == {"id": "1", "t": "a", "n": "1", "b": "t", "at": "infinity"}


@pytest.mark.parametrize(
    ("specs", "key", "problem"),
    [
        ([FromColumn("id", "nope")], ID, "there is no column 'nope'"),
        ([FromColumn("id", "id"), template("x", "{nope}")], ID, "there is no column 'nope'"),
        ([FromColumn("id", "id"), template("x", "{doc}")], ID, "of type jsonb"),
        ([FromColumn("id", "id"), Constant("id", "S", "x")], ID, "column id and constant 'x' would both become"),
        ([FromColumn("id", "id"), template("", "{t}")], ID, "between 1 and 65535"),
        ([FromColumn("id", "id"), Constant("n", "N", "ten")], ID, "cannot be constant"),
        ([FromColumn("id", "id"), Constant("n", "N", "1e400")], ID, "cannot be constant"),
        ([Constant("id", "N", "1"), FromColumn("k", "t")], Key(KeyAttribute("i", "N")), "no key attribute i"),
        ([Constant("k", "S", "")], Key(KeyAttribute("k", "S")), "a key cannot be empty"),
        ([template("k", "{t}")], Key(KeyAttribute("k", "N")), r"k \(N\) cannot be made from the template '{t}'"),
        ([Constant("k", "BOOL", "true")], Key(KeyAttribute("k", "S")), "no type that a key can have"),
    ],
)
def test_specs_are_checked_before_any_row(specs: list[AttributeSpec], key: Key, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        RowEncoder(COLUMNS, specs, key)


names = st.text(min_size=1, max_size=5)
specs = st.one_of(
    st.builds(FromColumn, names, names),
    st.builds(FromColumn, names, names, cast=st.sampled_from(["S", "N", "B", "BOOL"])),
    st.builds(FromColumn, names, names, mask=st.sampled_from(["hash", "redact", "hmac"])),
    st.builds(Constant, names, st.sampled_from(["S", "N", "BOOL"]), st.text(max_size=5)),
    st.builds(template, names, st.sampled_from(["", "{a}#{b:010d}", "x", '{"a:b":%Y}'])),
)


@given(specs)
def test_specs_travel_as_json(spec: AttributeSpec) -> None:
    assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": "x"},
        {"name": "x", "column": 1},
        {"name": "x", "column": "c", "cast": "X"},
        {"name": "x", "column": "c", "mask": "md5"},
        {"name": "x", "column": "c", "cast": "N", "mask": "hash"},
        {"name": "x", "column": "c", "key": "secret"},
        {"name": "x", "constant": {"B": "x"}},
        {"name": "x", "constant": {"N": 1}},
        {"name": "x", "constant": {}},
        {"name": "x", "template": "x", "column": "c"},
    ],
)
def test_other_documents_are_refused(document: dict[str, Any]) -> None:
    with pytest.raises(CacheError):
        spec_from_json(document)


def test_columns_of_specs() -> None:
    assert columns_of(FromColumn("x", "a", mask="hash")) == ("a",)
    assert columns_of(template("x", "{b}{a}{b}")) == ("b", "a")
    assert columns_of(Constant("x", "S", "a")) == ()


SPECS: tuple[AttributeSpec, ...] = (
    *(FromColumn(f"{column}-{to}", column, cast=to) for column in PLACES for to in ("S", "N", "B", "BOOL")),
    *(FromColumn(f"{column}-{mask}", column, mask=mask) for column in PLACES for mask in ("hash", "redact", "hmac")),
    *(FromColumn(column, column) for column in PLACES),
    Constant("constant", "S", "c"),
    template("all", "{id:05d}|{t}|{n}|{b}|{at}"),
    template("month", "{at:%Y-%m}{t}"),
)
KEYS: tuple[tuple[str, Any], ...] = (
    ("id", "N"),
    ("t", "S"),
    ("raw", "B"),
    ("all", "S"),
    ("month", "S"),
    ("n-S", "S"),
    ("t-N", "N"),
    ("t-B", "B"),
    ("at-hash", "S"),
    ("constant", "S"),
)
cells = st.tuples(
    st.integers(-5, 5).map(str),
    st.sampled_from(["", "5", "true", "x\ty", '"\\', "\x0b", "é", "x" * 1030]) | st.none(),
    st.sampled_from(["1.50", "NaN", "1e+300", "-0"]) | st.none(),
    st.sampled_from(["t", "f"]) | st.none(),
    st.sampled_from([r"\x", r"\x00ff", r"\x" + "00" * 1100]) | st.none(),
    st.sampled_from(["2024-02-29 10:15:00+00", "infinity", "0044-03-15 12:00:00+00 BC"]) | st.none(),
    st.sampled_from(["[]", '"1"', "7", '{"": 1}']) | st.none(),
)
ESCAPES = {"\\": r"\\", "\t": r"\t", "\x0b": r"\v"}


@settings(max_examples=200)
@given(
    st.lists(cells, min_size=1, max_size=5),
    st.lists(st.sampled_from(SPECS), max_size=6, unique_by=lambda spec: spec.name),
    st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True),
    st.sampled_from(["reject", "string"]),
    st.sampled_from(["absent", "null"]),
    st.sampled_from(["iso", "epoch"]),
)
def test_a_batch_is_its_rows_one_by_one(
    rows: list[tuple[str | None, ...]],
    some: list[AttributeSpec],
    keys: list[tuple[str, Any]],
    on_unrepresentable: str,
    null_as: str,
    timestamps_as: str,
) -> None:
    by_name = {spec.name: spec for spec in SPECS}
    chosen = {spec.name: spec for spec in some} | {name: by_name[name] for name, _ in keys}
    key = Key(*(KeyAttribute(name, kind) for name, kind in keys))
    made = encoder(
        *chosen.values(), key=key, on_unrepresentable=on_unrepresentable, null_as=null_as, timestamps_as=timestamps_as
    )
    lines = [
        b"\t".join(rb"\N" if cell is None else "".join(ESCAPES.get(c, c) for c in cell).encode() for cell in row)
        for row in rows
    ]
    items, rejects = one_by_one(made, lines)
    assert made.encode_batch(lines) == (items, rejects, 0)
    for item in items:
        assert item is not None
        assert list(json.loads(item))[: len(keys)] == [name for name, _ in keys]


@pytest.mark.parametrize("mask", ["hash", "redact", "hmac"])
def test_what_is_masked_is_hidden_in_rejects_too(mask: Mask) -> None:
    specs = (FromColumn("id", "id"), FromColumn("hidden", "t", mask=mask), FromColumn("n", "n"))
    line = b"1\tada@example.org\tNaN\t\\N\t\\N\t\\N\t\\N"
    (reject,) = encoder(*specs).encode([line])[1]
    assert reject == Reject(
        "number-not-finite", reject.message, {"id": "1", "t": "***", "n": "NaN"}, '{"id":{"N":"1"}}'
    )
    key = Key(KeyAttribute("hidden", "S"))
    with pytest.raises(SourceError) as caught:
        encoder(*specs, key=key, on_unrepresentable="fail").encode([line])
    assert "ada" not in caught.value.message
