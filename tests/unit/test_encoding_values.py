"""One table of cases per type family: PostgreSQL's text on the left, the attribute value on the right."""

from __future__ import annotations

import json

import pytest

from etlcli.encoding import EncodingOptions, Unrepresentable, attribute_type, encoder_for
from etlcli.errors import SourceError
from etlcli.model import Column, PgType


def base(typname: str, extension: str | None = None) -> PgType:
    return PgType(typname, typname, extension=extension)


def array(element: PgType, delimiter: str = ",") -> PgType:
    return PgType(f"{element.name}[]", f"_{element.typname}", kind="array", element=element, delimiter=delimiter)


POINT3 = PgType(
    "shape",
    "shape",
    kind="composite",
    fields=(Column("id", base("int4")), Column('na"me', base("text")), Column("tags", array(base("text")))),
)

CASES = [
    # integers
    ("int4", "0", '{"N":"0"}'),
    ("int8", "-9223372036854775808", '{"N":"-9223372036854775808"}'),
    ("oid", "4294967295", '{"N":"4294967295"}'),
    # numbers keep PostgreSQL's text, unless it is long
    ("numeric", "1.500", '{"N":"1.500"}'),
    ("numeric", "-0.05", '{"N":"-0.05"}'),
    ("numeric", "0.000", '{"N":"0.000"}'),
    ("numeric", "9" * 38, f'{{"N":"{"9" * 38}"}}'),
    ("numeric", "9" * 38 + "0" * 88, f'{{"N":"{"9" * 38}E88"}}'),
    ("numeric", "1" + "0" * 125, '{"N":"1E125"}'),
    ("numeric", "0." + "0" * 129 + "1", '{"N":"1E-130"}'),
    ("numeric", "-12." + "0" * 16383, '{"N":"-12E0"}'),
    ("numeric", "0." + "0" * 16383, '{"N":"0"}'),
    ("float8", "-0", '{"N":"-0"}'),
    ("float8", "1e+20", '{"N":"1e+20"}'),
    ("float8", "2.2250738585072014e-100", '{"N":"2.2250738585072014e-100"}'),
    ("float4", "1.1754944e-38", '{"N":"1.1754944e-38"}'),
    # booleans, binary
    ("bool", "t", '{"BOOL":true}'),
    ("bool", "f", '{"BOOL":false}'),
    ("bytea", r"\x", '{"B":""}'),
    ("bytea", r"\x00ff10", '{"B":"AP8Q"}'),
    # text
    ("text", "", '{"S":""}'),
    ("text", 'say "hi"\\ \n\t\x0b\x01', r'{"S":"say \"hi\"\\ \n\t\u000b\u0001"}'),
    ("text", "żółć 🎬", '{"S":"żółć 🎬"}'),
    ("bpchar", "a   ", '{"S":"a   "}'),
    ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", '{"S":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}'),
    ("money", "$1,000.00", '{"S":"$1,000.00"}'),
    ("tsvector", "'a':1 'b':2", '{"S":"\'a\':1 \'b\':2"}'),
    ("nobody_knows", "x", '{"S":"x"}'),
    # temporal
    ("date", "2024-02-29", '{"S":"2024-02-29"}'),
    ("date", "0044-03-15 BC", '{"S":"0044-03-15 BC"}'),
    ("date", "infinity", '{"S":"infinity"}'),
    ("timestamp", "2024-02-29 10:15:00.5", '{"S":"2024-02-29T10:15:00.5"}'),
    ("timestamp", "0044-03-15 12:00:00 BC", '{"S":"0044-03-15 12:00:00 BC"}'),
    ("timestamp", "-infinity", '{"S":"-infinity"}'),
    ("timestamptz", "2024-02-29 10:15:00.5+00", '{"S":"2024-02-29T10:15:00.5Z"}'),
    ("timestamptz", "10000-01-01 00:00:00+00", '{"S":"10000-01-01T00:00:00Z"}'),
    ("timestamptz", "0044-03-15 12:00:00+00 BC", '{"S":"0044-03-15 12:00:00+00 BC"}'),
    ("timestamptz", "infinity", '{"S":"infinity"}'),
    ("timetz", "03:04:05+00", '{"S":"03:04:05+00"}'),
    ("interval", "P1Y2M3DT4H5M6.5S", '{"S":"P1Y2M3DT4H5M6.5S"}'),
    # json
    ("jsonb", "null", '{"NULL":true}'),
    ("jsonb", "{}", '{"M":{}}'),
    ("jsonb", "[]", '{"L":[]}'),
    ("jsonb", '""', '{"S":""}'),
    ("jsonb", "12345678901234567890.5", '{"N":"12345678901234567890.5"}'),
    (
        "jsonb",
        '{"a": 1, "b": [true, "x:{", null, {}], "c": {"e": ","}}',
        '{"M":{"a":{"N":"1"},"b":{"L":[{"BOOL":true},{"S":"x:{"},{"NULL":true},{"M":{}}]},"c":{"M":{"e":{"S":","}}}}}',
    ),
    ("jsonb", r'{"q\"": "\\ \n é"}', r'{"M":{"q\"":{"S":"\\ \n é"}}}'),
    ("jsonb", "[1, [2, [3]]]", '{"L":[{"N":"1"},{"L":[{"N":"2"},{"L":[{"N":"3"}]}]}]}'),
    ("jsonb", '{"a": "", "b": ""}', '{"M":{"a":{"S":""},"b":{"S":""}}}'),
    ("json", ' {"a" : 1 ,\n "b":\t-0.0e+1}\n', '{"M":{"a":{"N":"1"},"b":{"N":"0"}}}'),
    ("json", r'["\ud83c\udfac", "\u0000", "\/"]', r'{"L":[{"S":"\ud83c\udfac"},{"S":"\u0000"},{"S":"\/"}]}'),
    ("json", '{"a": {"k": 1}, "b": {"k": 2}}', '{"M":{"a":{"M":{"k":{"N":"1"}}},"b":{"M":{"k":{"N":"2"}}}}}'),
    # arrays
    (array(base("text")), "{}", '{"L":[]}'),
    (array(base("text")), "{a,NULL,b}", '{"L":[{"S":"a"},{"NULL":true},{"S":"b"}]}'),
    (array(base("text")), '{"NULL","",null}', '{"L":[{"S":"NULL"},{"S":""},{"S":"null"}]}'),
    (array(base("text")), r'{"a\"b","c\\d","{e,f}",g}', r'{"L":[{"S":"a\"b"},{"S":"c\\d"},{"S":"{e,f}"},{"S":"g"}]}'),
    (array(base("text")), '{"Film Noir",Drama,"a,b"}', '{"L":[{"S":"Film Noir"},{"S":"Drama"},{"S":"a,b"}]}'),
    (array(base("int4")), "{1,2}", '{"L":[{"N":"1"},{"N":"2"}]}'),
    (array(base("int4")), "{{1,2},{3,NULL}}", '{"L":[{"L":[{"N":"1"},{"N":"2"}]},{"L":[{"N":"3"},{"NULL":true}]}]}'),
    (array(base("bool")), "{t,f}", '{"L":[{"BOOL":true},{"BOOL":false}]}'),
    (array(base("box"), ";"), "{(1,1),(0,0);(2,2),(1,1)}", '{"L":[{"S":"(1,1),(0,0)"},{"S":"(2,2),(1,1)"}]}'),
    (array(base("jsonb")), r'{"{\"a\": [1]}"}', '{"L":[{"M":{"a":{"L":[{"N":"1"}]}}}]}'),
    (PgType("int2vector", "int2vector", kind="array", element=base("int2")), "1 2", '{"S":"1 2"}'),
    # composites
    (POINT3, '(1,"a b",)', r'{"M":{"id":{"N":"1"},"na\"me":{"S":"a b"}}}'),
    (POINT3, '(,"",{})', r'{"M":{"na\"me":{"S":""},"tags":{"L":[]}}}'),
    (POINT3, "(,,)", '{"M":{}}'),
    (
        POINT3,
        r'(7,"say ""x"" \\","{""b,c"",d}")',
        r'{"M":{"id":{"N":"7"},"na\"me":{"S":"say \"x\" \\"},"tags":{"L":[{"S":"b,c"},{"S":"d"}]}}}',
    ),
    (PgType("c", "c", kind="composite"), "()", '{"M":{}}'),
    (PgType("c", "c", kind="composite", fields=(Column("a", base("int4")),)), "()", '{"M":{}}'),
    (array(POINT3), r'{"(1,\"a b\",)",NULL}', r'{"L":[{"M":{"id":{"N":"1"},"na\"me":{"S":"a b"}}},{"NULL":true}]}'),
    # extensions
    (base("hstore", "hstore"), "", '{"M":{}}'),
    (base("hstore", "hstore"), r'"a"=>"1", "q\"\\"=>NULL', r'{"M":{"a":{"S":"1"},"q\"\\":{"NULL":true}}}'),
    (base("hstore"), '"a"=>"1"', r'{"S":"\"a\"=>\"1\""}'),
    (base("vector", "vector"), "[1,2.5,1e-07]", '{"L":[{"N":"1"},{"N":"2.5"},{"N":"1e-07"}]}'),
    (base("sparsevec", "vector"), "{1:1,3:2}/5", '{"S":"{1:1,3:2}/5"}'),
    # kinds whose text says all
    (PgType("mood", "mood", kind="enum"), "happy", '{"S":"happy"}'),
    (PgType("int4", "int4", kind="enum"), "not an integer", '{"S":"not an integer"}'),
    (PgType("int4range", "int4range", kind="range"), "[1,5)", '{"S":"[1,5)"}'),
    (PgType("int4multirange", "int4multirange", kind="multirange"), "{[1,5)}", '{"S":"{[1,5)}"}'),
    (PgType("record", "record", kind="pseudo"), "(1,2)", '{"S":"(1,2)"}'),
]  # fmt: skip


@pytest.mark.parametrize(("pg_type", "text", "value"), CASES)
def test_a_value_becomes_exactly_this(pg_type: PgType | str, text: str, value: str) -> None:
    encode = encoder_for(base(pg_type) if isinstance(pg_type, str) else pg_type)
    assert encode(text.encode()).decode() == value
    # A column at once is the same.
    cell = text.replace("\\", r"\\").replace("\n", r"\n").replace("\t", r"\t").replace("\v", r"\v").encode()
    contents = encode.contents([cell, cell])
    assert contents is not None
    assert [encode.head + content + encode.tail for content in contents] == [value.encode()] * 2


REFUSED = [
    ("float8", "NaN", "number-not-finite"),
    ("numeric", "-Infinity", "number-not-finite"),
    ("numeric", "1" * 39, "number-precision"),
    ("numeric", "1." + "0" * 37 + "1", "number-precision"),
    ("float8", "1e+126", "number-range"),
    ("float8", "5e-324", "number-range"),
    ("numeric", "0." + "0" * 130 + "1", "number-range"),
    ("numeric", "1" + "0" * 126, "number-range"),
    ("json", "1e99999999999999999999999", "number-range"),
    ("json", "-1e-99999999999999999999999", "number-range"),
    ("jsonb", f'{{"a": [{"1" * 39}]}}', "number-precision"),
    ("json", '{"a": 1, "b": 2, "a": 3}', "json-duplicate-key"),
    ("json", r'{"a": 1, "\u0061": 3}', "json-duplicate-key"),
    ("json", r'{"a": [{"k": 1, "k": 1}]}', "json-duplicate-key"),
    ("json", r'["\ud800"]', "json-surrogate"),
    ("json", r'{"\udc00x": 1}', "json-surrogate"),
    ("jsonb", '{"a": {"": 1}}', "json-empty-key"),
    ("jsonb", json.dumps({"k" * 65_536: 1}), "json-key-too-long"),
    ("json", json.dumps({'"' + "k" * 65_535: 1}), "json-key-too-long"),
    ("jsonb", "[" * 33 + "]" * 33, "nesting-depth"),
    ("jsonb", '{"a": ' * 32 + '"x"' + "}" * 32, "nesting-depth"),
    ("json", "[" * 100_000 + "]" * 100_000, "nesting-depth"),
    (array(base("numeric")), "{1,NaN}", "number-not-finite"),
    (array(base("int4")), "[0:1]={1,2}", "array-bounds"),
    (array(base("text")), "[1:1][-3:-2]={{a,NULL}}", "array-bounds"),
    (array(array(base("int4"))), '{"[2:2]={1}"}', "array-bounds"),
    (array(base("jsonb")), "{{" + "[" * 30 + "1" + "]" * 30 + "}}", "nesting-depth"),
    (base("hstore", "hstore"), '""=>"1"', "hstore-empty-key"),
    (base("hstore", "hstore"), f'"{"k" * 65_536}"=>"1"', "hstore-key-too-long"),
]


@pytest.mark.parametrize(("pg_type", "text", "rule"), REFUSED)
def test_what_dynamodb_cannot_hold_names_its_rule(pg_type: PgType | str, text: str, rule: str) -> None:
    encode = encoder_for(base(pg_type) if isinstance(pg_type, str) else pg_type)
    with pytest.raises(Unrepresentable) as caught:
        encode(text.encode())
    assert caught.value.rule == rule
    assert len(caught.value.message) < 250
    assert encode.contents([text.replace("\\", r"\\").encode()]) is None


@pytest.mark.parametrize(
    "text", ["[" * 31 + '"x"' + "]" * 31, '{"a": ' * 31 + "1" + "}" * 31, "[" + ", ".join(["[]"] * 40) + "]"]
)
def test_nesting_is_counted_as_dynamodb_counts_it(text: str) -> None:
    assert encoder_for(base("jsonb"))(text.encode())


@pytest.mark.parametrize(
    ("pg_type", "text", "said"),
    [
        (base("bool"), "true", "is not a boolean as PostgreSQL writes it"),
        (base("bytea"), r"\000abc", "is not bytea in hexadecimal form"),
        (base("bytea"), r"\x0", "is not bytea in hexadecimal form: Odd-length"),
        (base("numeric"), "1,5", "1,5"),
        (base("timestamptz"), "2024-02-29 10:15:00+02", "is not a time in UTC"),
        (base("jsonb"), "[1, what]", "within a json value is not JSON"),
        (base("json"), r'"\n" what', "within a json value is not JSON"),
        (base("vector", "vector"), "1,2", "is not a vector as pgvector writes it"),
        (base("hstore", "hstore"), "a=>1", "is not hstore as PostgreSQL writes it"),
        (array(base("int4")), "1,2", "is not an array as PostgreSQL writes it"),
        (POINT3, "1,2,3", "is not a row as PostgreSQL writes it"),
        (POINT3, "(1,2)", "has 2 fields, its type has 3"),
        (POINT3, "(1,2,3", "is not a row as PostgreSQL writes it"),
    ],
)
def test_text_that_postgresql_does_not_write_is_an_error(pg_type: PgType, text: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        encoder_for(pg_type)(text.encode())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01 00:00:00+00", "0"),
        ("1969-12-31 23:59:59.5+00", "-0.5"),
        ("1969-12-31 23:59:58.000001+00", "-1.999999"),
        ("2024-02-29 10:15:00.120000+00", "1709201700.12"),
        ("0001-01-01 00:00:00+00", "-62135596800"),
        ("0001-12-31 00:00:00+00 BC", "-62135683200"),
        ("294276-12-31 23:59:59.999999+00", "9224318015999.999999"),
    ],
)
def test_timestamps_as_exact_seconds(text: str, seconds: str) -> None:
    encode = encoder_for(base("timestamptz"), EncodingOptions(timestamps_as="epoch"))
    assert encode(text.encode()) == f'{{"N":"{seconds}"}}'.encode()
    assert encode.attribute_type == "N"


def test_infinite_times_have_no_seconds() -> None:
    encode = encoder_for(base("timestamptz"), EncodingOptions(timestamps_as="epoch"))
    with pytest.raises(Unrepresentable, match="infinity"):
        encode(b"infinity")
    with pytest.raises(SourceError, match="is not a time in UTC"):
        encode(b"2024-02-29 10:15:00+02")


def test_json_as_string_is_postgresqls_text() -> None:
    encode = encoder_for(base("json"), EncodingOptions(json_as="string"))
    assert encode(b'{"a": 1,  "a": NaN}') == rb'{"S":"{\"a\": 1,  \"a\": NaN}"}'


def test_null_fields_of_composites_follow_the_option() -> None:
    encode = encoder_for(POINT3, EncodingOptions(null_as="null"))
    assert encode(b"(1,x,)") == rb'{"M":{"id":{"N":"1"},"na\"me":{"S":"x"},"tags":{"NULL":true}}}'


@pytest.mark.parametrize(
    ("pg_type", "expected"),
    [
        (base("int8"), "N"),
        (base("float4"), "N"),
        (base("numeric"), "N"),
        (base("text"), "S"),
        (base("uuid"), "S"),
        (base("timestamptz"), "S"),
        (base("date"), "S"),
        (base("bytea"), "B"),
        (PgType("mood", "mood", kind="enum"), "S"),
        (PgType("int4range", "int4range", kind="range"), "S"),
        (base("bool"), None),
        (base("json"), None),
        (base("jsonb"), None),
        (array(base("int4")), None),
        (POINT3, None),
        (base("hstore", "hstore"), None),
        (base("vector", "vector"), None),
    ],
)
def test_the_type_of_a_key_attribute_follows_the_column(pg_type: PgType, expected: str | None) -> None:
    assert attribute_type(pg_type) == expected


def test_caches_stay_small_and_right_when_every_document_is_different() -> None:
    encode = encoder_for(base("jsonb"))
    for number in range(3000):
        text = f'{{"a": {number}, "b": [{number}, {number}.5], "c": "{number}"}}'
        expected = (
            f'{{"M":{{"a":{{"N":"{number}"}},"b":{{"L":[{{"N":"{number}"}},{{"N":"{number}.5"}}]}},'
            f'"c":{{"S":"{number}"}}}}}}'
        )
        assert encode(text.encode()).decode() == expected
