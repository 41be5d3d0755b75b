"""Properties: what goes in comes out, read back by an oracle that shares no code with the encoders."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etlcli.encoding import EncodingOptions, RowEncoder, Unrepresentable, decode_fields, encoder_for
from etlcli.model import Column, Key, KeyAttribute, PgType


def read(value: dict[str, Any]) -> Any:
    """DynamoDB JSON to Python."""
    ((kind, content),) = value.items()
    match kind:
        case "S" | "BOOL":
            return content
        case "N":
            return Decimal(content)
        case "B":
            return base64.b64decode(content)
        case "NULL":
            return None
        case "L":
            return [read(element) for element in content]
        case _:
            return {name: read(member) for name, member in content.items()}


def copy_cell(text: str | None) -> bytes:
    if text is None:
        return rb"\N"
    escapes = {"\\": r"\\", "\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t", "\v": r"\v"}
    return "".join(escapes.get(character, character) for character in text).encode()


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", '"', "\\", "\\N", "NULL", "{", "}", ",", "a b", "\x0b", "\x7f", "\u2028", "🎬", '",{', "]={"]
)
numbers = st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=6
) | st.integers(-(10**37), 10**37).map(Decimal)
documents = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts.filter(bool), children, max_size=4),
    max_leaves=15,
)


def write_json(value: Any, *, spaced: bool) -> str:
    """Like jsonb's output, or like what a person keeps in json."""
    match value:
        case None | bool():
            return json.dumps(value)
        case Decimal():
            return f"{value:f}"
        case str():
            return json.dumps(value, ensure_ascii=spaced)
        case list():
            return "[" + ("\n , " if spaced else ", ").join(write_json(v, spaced=spaced) for v in value) + "]"
        case _:
            pairs = [
                write_json(k, spaced=spaced) + (" :\t" if spaced else ": ") + write_json(v, spaced=spaced)
                for k, v in value.items()
            ]
            return "{" + ", ".join(pairs) + "}"


def write_array(elements: list[Any]) -> str:
    """array_out, from its documentation: quotes where they are needed and, now and then, where they are not."""
    out = []
    for element in elements:
        if isinstance(element, list):
            out.append(write_array(element))
        elif element is None:
            out.append("NULL")
        elif not element or element.upper() == "NULL" or set(element) & set('{},"\\ \t\n\r\v\f'):
            out.append('"' + element.replace("\\", r"\\").replace('"', r"\"") + '"')
        else:
            out.append(element)
    return "{" + ",".join(out) + "}"


@given(documents, st.booleans())
def test_json_is_the_same_value(value: Any, spaced: bool) -> None:
    encode = encoder_for(PgType("json", "json") if spaced else PgType("jsonb", "jsonb"))
    encoded = encode(write_json(value, spaced=spaced).encode())
    assert b"\n" not in encoded
    assert read(json.loads(encoded)) == value


@given(st.lists(texts | st.none(), max_size=5) | st.lists(st.lists(texts, min_size=2, max_size=2), max_size=3))
def test_arrays_are_the_same_values(value: list[Any]) -> None:
    text = PgType("text", "text")
    encode = encoder_for(PgType("text[]", "_text", kind="array", element=text))
    assert read(json.loads(encode(write_array(value).encode()))) == value


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_numbers_are_exact_or_refused(value: Decimal) -> None:
    for text in (str(value), f"{value:f}"):
        encode = encoder_for(PgType("numeric", "numeric"))
        digits = len("".join(map(str, value.as_tuple().digits)).strip("0"))
        if digits > 38 or (digits and not -130 <= value.adjusted() <= 125):
            with pytest.raises(Unrepresentable) as caught:
                encode(text.encode())
            assert caught.value.rule == ("number-precision" if digits > 38 else "number-range")
        else:
            assert read(json.loads(encode(text.encode()))) == value


STRANGE = st.sampled_from(["NaN", "1e+300", "1" * 40, "12.50", "-7", "0." + "0" * 60])
COLUMNS = tuple(
    Column(name, pg_type)
    for name, pg_type in (
        ("id", PgType("int4", "int4")),
        ("name", PgType("text", "text")),
        ("amount", PgType("numeric", "numeric")),
        ("tags", PgType("text[]", "_text", kind="array", element=PgType("text", "text"))),
        ("doc", PgType("jsonb", "jsonb")),
        ("raw", PgType("json", "json")),
        ("at", PgType("timestamptz", "timestamptz")),
        ("ok", PgType("bool", "bool")),
        ("data", PgType("bytea", "bytea")),
    )
)
rows = st.tuples(
    st.integers(0, 99).map(str) | st.none(),
    texts | st.none(),
    numbers.map(str) | STRANGE | st.none(),
    st.lists(texts | st.none(), max_size=3).map(write_array) | st.none(),
    (documents | st.just({"": "x"})).map(lambda value: write_json(value, spaced=False)) | st.none(),
    (documents | st.just({"": ""})).map(lambda value: write_json(value, spaced=True)) | st.none(),
    st.sampled_from(["2024-02-29 10:15:00+00", "infinity", "0044-03-15 12:00:00.5+00 BC"]) | st.none(),
    st.sampled_from(["t", "f"]) | st.none(),
    st.binary(max_size=4).map(lambda data: "\\x" + data.hex()) | st.none(),
)


@settings(max_examples=60)
@given(
    st.lists(rows, min_size=1, max_size=6), st.sampled_from(["reject", "string"]), st.sampled_from(["absent", "null"])
)
def test_a_batch_is_its_rows_one_by_one(
    batch: list[tuple[str | None, ...]], on_unrepresentable: Any, null_as: Any
) -> None:
    options = EncodingOptions(on_unrepresentable=on_unrepresentable, null_as=null_as)
    encoder = RowEncoder(COLUMNS, [column.name for column in COLUMNS], Key(KeyAttribute("id", "N")), options=options)
    lines = [b"\t".join(map(copy_cell, row)) for row in batch]
    items, rejects = encoder.encode(lines)
    expected_items, expected_rejects = [], []
    for row, line in zip(batch, lines, strict=True):
        fields = decode_fields(line)
        assert fields == [None if text is None else text.encode() for text in row]
        try:
            expected_items.append(encoder.encode_fields(fields))
        except Unrepresentable as problem:
            expected_rejects.append(encoder.reject(fields, problem))
    assert items == expected_items
    assert rejects == expected_rejects
    assert all(json.loads(item) and b"\n" not in item for item in items)
    assert len(items) + len(rejects) == len(batch)
