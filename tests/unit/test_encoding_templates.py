"""Templates: their grammar, what types make of them, and whether rows can be told apart by their text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etlcli.encoding import EncodingOptions, RowEncoder, Unrepresentable, decode_fields
from etlcli.encoding.fields import determined_columns, field_encoder, is_injective
from etlcli.encoding.specs import AttributeSpec, FromColumn, FromTemplate
from etlcli.encoding.templates import Field, Template, field_text
from etlcli.errors import ConfigError
from etlcli.model import Column, Key, KeyAttribute, PgType


def base(typname: str, name: str | None = None) -> PgType:
    return PgType(name or typname, typname)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("MOVIE", ("MOVIE",)),
        ("", ()),
        ("{a}", (Field("a"),)),
        ("MOVIE#{movie_id}", ("MOVIE#", Field("movie_id"))),
        ("{a}{b}-", (Field("a"), Field("b"), "-")),
        ("{n:010d}", (Field("n", "010d"),)),
        ("{at:%Y-%m}", (Field("at", "%Y-%m"),)),
        ("{at:%H:%M}", (Field("at", "%H:%M"),)),
        ("{{{a}}}", ("{", Field("a"), "}")),
        ("{{a}}", ("{a}",)),
        ("{order id}", (Field("order id"),)),
        ("{ a }", (Field("a"),)),
        ('{"a"}', (Field("a"),)),
        ('{ "a" :%Y}', (Field("a", "%Y"),)),
        ('{"odd: }{"" name ":%Y}', (Field('odd: }{" name ', "%Y"),)),
        ("{Größe}%s\n", (Field("Größe"), "%s\n")),
    ],
)
def test_what_a_template_means(text: str, parts: tuple[str | Field, ...]) -> None:
    template = Template.parse(text)
    assert template.parts == parts
    assert template.text == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "cannot be read, from '{' on"),
        ("a}", "has a } that no { opens"),
        ("{a", "cannot be read"),
        ("{a}}", "has a } that no { opens"),
        ("{}", "names no column"),
        ("{ }", "names no column"),
        ('{""}', "names no column"),
        ("{:010d}", "names no column"),
        ("{a{b}}", "cannot be read"),
        ('{"a}', "cannot be read"),
        ("{a:}", "unknown format ''"),
        ("{a:10d}", "unknown format '10d'"),
        ("{a:>10}", "unknown format '>10'"),
        ("{a:d}", "unknown format 'd'"),
        ("{a:0d}", "unknown format '0d'"),
        ("{a:%%}", "unknown format '%%'"),
        ("{a:%y}", "the directive %y; there are %Y, %m, %d, %H, %M, %S and %%"),
        ("{a:%Y%}", "the directive %;"),
        ("{a:0101d}", "to more than 100 characters"),
        ("{a:0" + "9" * 5000 + "d}", "to more than 100 characters"),
    ],
)
def test_malformed_templates(text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Template.parse(text)
    assert problem in caught.value.message
    assert "{column:010d}" in (caught.value.hint or "")


@given(st.text(max_size=20))
def test_any_text_is_a_template_or_a_config_error(text: str) -> None:
    try:
        template = Template.parse(text)
    except ConfigError:
        return
    again = "".join(
        part.replace("{", "{{").replace("}", "}}")
        if isinstance(part, str)
        else field_text(part.column)[:-1] + (f":{part.format}" if part.format else "") + "}"
        for part in template.parts
    )
    assert Template.parse(again).parts == template.parts


@given(st.text(min_size=1))
def test_any_column_can_be_named_in_a_field(name: str) -> None:
    assert Template.parse(f"x{field_text(name)}y").parts == ("x", Field(name), "y")


def written(field: str, typname: str | PgType, text: str) -> str:
    (part,) = Template.parse(field).fields
    encode = field_encoder(part, base(typname) if isinstance(typname, str) else typname)
    alone = encode.content(text.encode())
    assert encode.contents([text.encode()] * 2) in ([alone] * 2, None)
    return alone.decode()


@pytest.mark.parametrize(
    ("field", "pg_type", "text", "expected"),
    [
        ("{a}", "int4", "-5", "-5"),
        ("{a}", "numeric", "1.500", "1.500"),
        ("{a}", "numeric", "NaN", "NaN"),
        ("{a}", "numeric", "1" * 60, "1" * 60),
        ("{a}", "float8", "1e+300", "1e+300"),
        ("{a}", "bool", "t", "true"),
        ("{a}", "bool", "f", "false"),
        ("{a}", "text", 'say "x"', r"say \"x\""),
        ("{a}", "uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("{a}", "date", "2024-02-29", "2024-02-29"),
        ("{a}", "date", "infinity", "infinity"),
        ("{a}", "timestamp", "2024-02-29 10:15:00.5", "2024-02-29T10:15:00.5"),
        ("{a}", "timestamptz", "2024-02-29 10:15:00.5+00", "2024-02-29T10:15:00.5Z"),
        ("{a}", "timestamptz", "0044-03-15 12:00:00+00 BC", "0044-03-15 12:00:00+00 BC"),
        ("{a}", "interval", "P1D", "P1D"),
        ("{a:010d}", "int8", "42", "0000000042"),
        ("{a:010d}", "int8", "-42", "-000000042"),
        ("{a:03d}", "int4", "12345", "12345"),
        ("{a:05d}", base("numeric", "numeric(10,0)"), "42", "00042"),
        ("{a:05d}", base("numeric", "numeric(3,-2)"), "4200", "04200"),
        ("{a:%Y-%m}", "date", "2024-02-29", "2024-02"),
        ("{a:%d.%m.%Y}", "date", "0009-02-03", "03.02.0009"),
        ("{a:%Y%m%d%H%M%S}", "timestamp", "2024-02-29 10:15:07.123456", "20240229101507"),
        ("{a:%H:%M}", "timestamptz", "2024-02-29 10:15:00+00", "10:15"),
        ('{a:%Y%%"%Y}', "date", "2024-02-29", r"2024%\"2024"),
    ],
)
def test_a_fields_text(field: str, pg_type: str | PgType, text: str, expected: str) -> None:
    assert written(field, pg_type, text) == expected


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 100))
def test_padding_is_pythons(value: int, width: int) -> None:
    assert written(f"{{a:0{width}d}}", "int8", str(value)) == f"{value:0{width}d}"


@given(
    st.datetimes(min_value=datetime.fromisoformat("1000-01-01")) | st.dates(min_value=date(1000, 1, 1)),
    st.sampled_from(["%Y-%m", "%d/%m/%Y", "%Y", "%m%d%Y"]),
)
def test_dates_are_formatted_as_python_does(value: date, pattern: str) -> None:
    typname = "timestamp" if isinstance(value, datetime) else "date"
    assert written(f"{{a:{pattern}}}", typname, str(value)) == value.strftime(pattern)


@pytest.mark.parametrize(
    ("field", "typname", "text"),
    [
        ("{a:%Y}", "date", "0044-03-15 BC"),
        ("{a:%Y}", "date", "10000-01-01"),
        ("{a:%Y}", "date", "infinity"),
        ("{a:%Y}", "timestamp", "-infinity"),
        ("{a:%Y}", "timestamptz", "0044-03-15 12:00:00+00 BC"),
        ("{a:05d}", PgType("numeric(10,0)", "numeric"), "NaN"),
    ],
)
def test_what_a_format_cannot_write(field: str, typname: str | PgType, text: str) -> None:
    with pytest.raises(Unrepresentable) as caught:
        written(field, typname, text)
    assert caught.value.rule == "template-value"


JSONB = base("jsonb")
ARRAY = PgType("int[]", "_int4", kind="array", element=base("int4"))


@pytest.mark.parametrize(
    ("field", "pg_type", "problem"),
    [
        ("{a}", JSONB, "of type jsonb, which has no text"),
        ("{a}", ARRAY, "of type int[], which has no text"),
        ("{a}", base("bytea"), "of type bytea, which has no text"),
        ("{a}", PgType("p", "p", kind="composite", fields=(Column("x", JSONB),)), "has no text"),
        ("{a}", PgType("hstore", "hstore", extension="hstore"), "has no text"),
        ("{a:010d}", base("text"), "zero padding is for integers"),
        ("{a:010d}", base("numeric", "numeric(10,2)"), "zero padding is for integers"),
        ("{a:010d}", base("numeric"), "zero padding is for integers"),
        ("{a:010d}", base("float8"), "zero padding is for integers"),
        ("{a:%Y}", base("text"), "for dates and timestamps"),
        ("{a:%H}", base("time"), "for dates and timestamps"),
        ("{a:%H}", base("date"), "a date has no time of day"),
    ],
)
def test_formats_and_types_that_do_not_go_together(field: str, pg_type: PgType, problem: str) -> None:
    (part,) = Template.parse(field).fields
    with pytest.raises(ConfigError) as caught:
        field_encoder(part, pg_type)
    assert problem in caught.value.message
    assert caught.value.hint


TYPES: Mapping[str, PgType] = {
    "i": base("int4"),
    "j": base("int8"),
    "n": base("numeric"),
    "t": base("text"),
    "u": base("text"),
    "g": base("uuid"),
    "h": base("uuid"),
    "d": base("date"),
    "at": base("timestamptz"),
    "b": base("bool"),
    "e": PgType("mood", "mood", kind="enum"),
}


@pytest.mark.parametrize(
    ("text", "determined"),
    [
        ("{i}", "i"),
        ("{t}", "t"),
        ("x{t}y", "t"),
        ("{i}#{j}", "i j"),
        ("{i}{j}", ""),
        ("{i:010d}{j}", ""),
        ("{i}-{j}", ""),  # a minus sign is no separator
        ("{i}-#{j}", "i j"),  # told from the right
        ("{i}#-{j}", "i j"),
        ("{t}#{i}", "t i"),
        ("{i}#{t}", "i t"),
        ("{i}#{t}#{j}", "i t j"),
        ("{t}#{u}", ""),
        ("{i}#{t}#{u}", "i"),
        ("{t}#{u}#{j}", "j"),
        ("{e}#{i}", "e i"),
        ("{g}{h}", "g h"),
        ("{g}{t}{h}", "g t h"),
        ("{t}#{t}", ""),
        ("{i}#{i}", "i"),
        ("{d:%Y-%m}", ""),
        ("{d:%Y%m%d}{i}", "d i"),
        ("{d:%Y}#{i}", "i"),
        ("{at:%Y-%m-%dT%H:%M:%S}", ""),
        ("{at}#{i}", "at i"),
        ("{d} {i}", "d i"),  # a date before Christ has a space, so this is told from the right, too
        ("{d} {t}", ""),
        ("{b}{i}", ""),  # it is so, but that is not looked at
        ("{n}e{i}", "n i"),
        ("{n}e{t}", ""),
        ("{n}/{i}", "n i"),
        ("constant", ""),
    ],
)
def test_what_can_be_told_from_a_text(text: str, determined: str) -> None:
    template = Template.parse(text)
    assert determined_columns(template, TYPES) == frozenset(determined.split())
    assert is_injective(template, TYPES) is (frozenset(determined.split()) == frozenset(template.columns))


values: dict[str, st.SearchStrategy[str]] = {
    "i": st.integers(-12, 120).map(str),
    "j": st.integers(-12, 120).map(str),
    "n": st.sampled_from(["1.5", "15", "-1", "1e+20", "NaN", "0.1"]),
    "t": st.text("1#-", max_size=3),
    "u": st.text("1#-", max_size=3),
    "g": st.sampled_from(["1" * 36, "1" * 35 + "2"]),
    "h": st.sampled_from(["1" * 36, "2" * 36]),
    "d": st.sampled_from(["2024-01-11", "2024-11-01", "1111-11-11"]),
    "at": st.sampled_from(["2024-01-11 11:11:11+00", "2024-01-11 11:11:11.1+00"]),
    "b": st.sampled_from(["t", "f"]),
    "e": st.text("1#", min_size=1, max_size=3),
}
formats = {"i": ["", ":03d"], "j": ["", ":02d"], "d": ["", ":%Y%m", ":%Y-%m-%d", ":%d1%m%Y"], "at": ["", ":%M%S"]}


@st.composite
def templates(draw: st.DrawFn) -> str:
    columns = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=4))
    out = draw(st.sampled_from(["", "1", "#"]))
    for column in columns:
        form = draw(st.sampled_from(formats.get(column, [""])))
        out += f"{{{column}{form}}}" + draw(st.sampled_from(["", "", "#", "1", "-", "#-", "-#", " "]))
    return out


@settings(max_examples=400)
@given(templates(), st.data())
def test_rows_with_one_text_have_the_same_determined_columns(text: str, data: st.DataObject) -> None:
    template = Template.parse(text)
    rows = data.draw(st.lists(st.fixed_dictionaries({c: values[c] for c in template.columns}), min_size=2, max_size=8))
    determined = determined_columns(template, TYPES)
    seen: dict[str, dict[str, str]] = {}
    for row in rows:
        out = "".join(
            part if isinstance(part, str) else written_field(part, row[part.column]) for part in template.parts
        )
        first = seen.setdefault(out, row)
        assert {c: first[c] for c in determined} == {c: row[c] for c in determined}


def written_field(field: Field, text: str) -> str:
    return field_encoder(field, TYPES[field.column]).content(text.encode()).decode()


COLUMNS = tuple(Column(name, pg_type) for name, pg_type in TYPES.items())
NULLABLE = {name: strategy | st.none() for name, strategy in values.items()}


@settings(max_examples=150)
@given(templates(), st.lists(st.fixed_dictionaries(NULLABLE), min_size=1, max_size=5), st.booleans())
def test_a_batch_is_its_rows_one_by_one(text: str, rows: list[dict[str, str | None]], in_key: bool) -> None:
    key = Key(KeyAttribute("pk", "S")) if in_key else Key(KeyAttribute("id", "N"))
    columns = [*COLUMNS, Column("id", base("int4"))]
    spec = FromTemplate("pk", Template.parse(text))
    specs: list[AttributeSpec] = [FromColumn("id", "id"), spec, FromTemplate("other", Template.parse("{t}"))]
    encoder = RowEncoder(columns, specs, key, options=EncodingOptions(null_as="null"))
    lines = [
        b"\t".join(rb"\N" if cell is None else cell.encode() for cell in [*(row[name] for name in TYPES), str(place)])
        for place, row in enumerate(rows)
    ]
    encoded = encoder.encode_batch(lines)
    expected: list[bytes | None] = []
    rejected: list[Any] = []
    for line in lines:
        fields = decode_fields(line)
        try:
            expected.append(encoder.encode_fields(fields))
        except Unrepresentable as problem:
            rejected.append(encoder.reject(fields, problem))
    assert encoded == (expected, rejected, 0)
    assert {reject.rule for reject in rejected} <= {"key-null", "key-empty"}
