"""Rows: COPY lines to items and rejects, by every option."""

from __future__ import annotations

import pytest

from etlcli.encoding import EncodingOptions, RowEncoder, Unrepresentable, decode_fields
from etlcli.encoding.copy_text import unescape
from etlcli.errors import SourceError, UsageError
from etlcli.model import Column, Key, KeyAttribute, PgType, Reject


def column(name: str, typname: str) -> Column:
    return Column(name, PgType(typname, typname))


COLUMNS = (column("id", "int4"), column("title", "text"), column("rating", "numeric"), column("extra", "json"))
ID = Key(KeyAttribute("id", "N"))


def movies(key: Key = ID, **options: object) -> RowEncoder:
    return RowEncoder(
        COLUMNS,
        ["id", "title", "rating", "extra"],
        key,
        source_key=["title", "id"],
        options=EncodingOptions(**options),  # type: ignore[arg-type]
    )


def test_rows_become_items_and_null_is_absent() -> None:
    lines = [b"1\tHeat\t8.3\t\\N", rb"2	\N	\N	{}", b"3\tM\t8.30\t[1]"]
    assert movies().encode(lines) == (
        [
            b'{"id":{"N":"1"},"title":{"S":"Heat"},"rating":{"N":"8.3"}}',
            b'{"id":{"N":"2"},"extra":{"M":{}}}',
            b'{"id":{"N":"3"},"title":{"S":"M"},"rating":{"N":"8.30"},"extra":{"L":[{"N":"1"}]}}',
        ],
        [],
    )
    assert movies().encode([]) == ([], [])


def test_a_row_of_nothing_but_its_key() -> None:
    assert movies().encode([rb"1	\N	\N	\N"])[0] == [b'{"id":{"N":"1"}}']


def test_null_by_option() -> None:
    encoder = movies(null_as="null")
    expected = b'{"id":{"N":"1"},"title":{"NULL":true},"rating":{"N":"1"},"extra":{"NULL":true}}'
    assert encoder.encode([rb"1	\N	1	\N"])[0] == [expected]
    assert encoder.encode_fields([b"1", None, b"1", None]) == expected


def test_the_key_comes_first_and_columns_can_be_renamed_or_dropped() -> None:
    key = Key(KeyAttribute("pk", "S"), KeyAttribute("id", "N"))
    encoder = RowEncoder(COLUMNS, ["id", "pk", None, 'Ex"tra'], key)
    assert encoder.encode([b"1\tHeat\tNaN\tnull"]) == (
        [b'{"pk":{"S":"Heat"},"id":{"N":"1"},"Ex\\"tra":{"NULL":true}}'],
        [],
    )


def test_an_item_does_not_depend_on_its_batch() -> None:
    lines = [b'1\tq"\t1\t{}', b'2\t\\\\x\\v\t1e5\t""', b'3\t\\N\t0\t[""]', b"4\t\xc3\xa9\t1\t1"]
    whole = movies().encode(lines)[0]
    assert [item for line in lines for item in movies().encode([line])[0]] == whole
    assert [movies().encode_fields(decode_fields(line)) for line in lines] == whole


def test_rejects_name_rule_column_value_and_row() -> None:
    lines = [b"1\ta\t1\t\\N", b"2\tb\\tc\tNaN\t\\N", b'3\tc\t1\t{"a": 1, "a": 2}', b"4\td\t1\t\\N"]
    items, rejects = movies().encode(lines)
    assert [item[:13] for item in items] == [b'{"id":{"N":"1', b'{"id":{"N":"4']
    assert rejects[0] == Reject(
        "number-not-finite",
        "column rating: 'NaN' is not a number that DynamoDB holds",
        {"id": "2", "title": "b\tc", "rating": "NaN"},
        '{"id":{"N":"2"}}',
    )
    assert rejects[1].rule == "json-duplicate-key"
    assert rejects[1].message.startswith("column extra: ")


def test_messages_show_values_short_and_on_one_line() -> None:
    _, rejects = movies().encode([b'1\ta\t1\t{"": "\\\\n\xc3\xa9", \\n"\x7f\xe2\x80\xa8' + b"x" * 99 + b'": 1}'])
    assert rejects[0].message.isprintable()
    assert "..." in rejects[0].message
    assert len(rejects[0].message) < 150


def test_the_first_problem_of_a_row_counts() -> None:
    _, rejects = movies().encode([b'1\ta\tNaN\t{"": 1}'])
    assert [reject.rule for reject in rejects] == ["number-not-finite"]


def test_by_option_a_value_becomes_a_string() -> None:
    encoder = movies(on_unrepresentable="string")
    lines = [b"1\ta\tNaN\t1", b'2\ta\t1\t{"a": 1, "a": 2}']
    assert encoder.encode(lines) == (
        [
            b'{"id":{"N":"1"},"title":{"S":"a"},"rating":{"S":"NaN"},"extra":{"N":"1"}}',
            b'{"id":{"N":"2"},"title":{"S":"a"},"rating":{"N":"1"},"extra":{"S":"{\\"a\\": 1, \\"a\\": 2}"}}',
        ],
        [],
    )


def test_a_string_would_not_mend_a_key() -> None:
    encoder = movies(Key(KeyAttribute("rating", "N")), on_unrepresentable="string")
    items, rejects = encoder.encode([b"1\ta\tNaN\t1", rb"2	a	\N	1"])
    assert items == []
    assert [reject.rule for reject in rejects] == ["number-not-finite", "key-null"]


def test_by_option_a_value_is_an_error_that_names_column_value_and_key() -> None:
    with pytest.raises(SourceError, match=r"column rating: 'NaN' .*, in the row with id = '7' \(number-not-finite\)"):
        movies(on_unrepresentable="fail").encode([b"1\ta\t1\t1", b"7\ta\tNaN\t1"])


def test_keys_are_rejected_even_where_values_fail() -> None:
    key = Key(KeyAttribute("title", "S"))
    items, rejects = movies(key, on_unrepresentable="fail").encode([rb"1	\N	1	1", b"2\t\t1\t1", b"3\tx\t1\t1"])
    assert len(items) == 1
    assert [reject.rule for reject in rejects] == ["key-null", "key-empty"]


@pytest.mark.parametrize(("limit", "key"), [
    (2048, Key(KeyAttribute("t", "S"))),
    (1024, Key(KeyAttribute("n", "N"), KeyAttribute("t", "S"))),
])  # fmt: skip
def test_string_keys_have_a_length_in_utf8_bytes(limit: int, key: Key) -> None:
    encoder = RowEncoder([column("n", "int4"), column("t", "text")], ["n", "t"], key)
    fits = [b"1\t" + b"x" * limit, b"1\t" + "é".encode() * (limit // 2), b"1\t" + rb"\n" * limit]
    assert len(encoder.encode(fits)[0]) == 3
    _, rejects = encoder.encode([b"1\t" + b"x" * (limit + 1), b"1\t" + "é".encode() * (limit // 2) + b"x", b"1\t"])
    assert [reject.rule for reject in rejects] == ["key-too-long", "key-too-long", "key-empty"]


def test_binary_keys_have_a_length_in_raw_bytes() -> None:
    encoder = RowEncoder([column("b", "bytea")], ["b"], Key(KeyAttribute("b", "B")))
    assert len(encoder.encode([rb"\\x" + b"00" * 2048, rb"\\x00"])[0]) == 2
    _, rejects = encoder.encode([rb"\\x" + b"00" * 2049, rb"\\x"])
    assert [reject.rule for reject in rejects] == ["key-too-long", "key-empty"]


def test_items_over_400_kb_are_rejected_by_their_size_not_their_json() -> None:
    size = 409_600 - len("id") - 2 - len("title")
    lines = [b"1\t" + b"x" * size + rb"	\N	\N", b"2\t" + b"x" * (size + 1) + rb"	\N	\N"]
    items, rejects = movies().encode(lines)
    assert [len(item) > 409_600 for item in items] == [True]
    assert [(reject.rule, reject.row["id"]) for reject in rejects] == [("item-too-large", "2")]
    with pytest.raises(Unrepresentable, match="409601 bytes"):
        movies().encode_fields(decode_fields(lines[1]))


def test_source_keys_are_postgresqls_text() -> None:
    assert movies().key_text(rb"1	a\tb\\	2	\N") == ("a\tb\\", "1")
    assert movies().key_text(rb"1	\N	2	\N") == (None, "1")


def test_columns_as_text_keep_a_numerics_scale() -> None:
    encoder = movies(as_text=frozenset({"rating", "extra"}))
    assert encoder.encode([b"1\ta\tNaN\t[1]"])[0] == [
        b'{"id":{"N":"1"},"title":{"S":"a"},"rating":{"S":"NaN"},"extra":{"S":"[1]"}}'
    ]


@pytest.mark.parametrize("line", [b"1\t2\t3", b"1\t2\t3\t4\t5", b""])
def test_a_malformed_line_is_an_error(line: bytes) -> None:
    with pytest.raises(SourceError, match=r"^a row has \d fields, 4 were expected"):
        movies().encode([b"1\ta\t1\t1", line])
    with pytest.raises(SourceError, match=r"^a row has \d fields, 4 were expected"):
        movies().encode_fields(decode_fields(line))


def test_one_field_too_many_does_not_make_up_for_one_too_few() -> None:
    with pytest.raises(SourceError, match="a row has 3 fields, 4 were expected: "):
        movies().encode([b"1\ta\t1", b"1\t1\ta\t1\t1"])


def test_text_that_is_not_utf8_is_an_error_that_names_the_column() -> None:
    with pytest.raises(SourceError, match=r"column title: .* not UTF-8"):
        movies().encode([b"1\t\xff\t1\t1"])
    with pytest.raises(SourceError, match=r"column title: .* not UTF-8"):
        movies().encode_fields([b"1", b"\xff", None, None])


def test_an_encoders_error_names_the_column() -> None:
    for rating in (b"1,5 kilos" + b"x" * 40, b"1e5x"):
        with pytest.raises(SourceError, match="column rating"):
            movies().encode([b"1\ta\t" + rating + b"\t1"])


@pytest.mark.parametrize(
    ("attributes", "key", "message"),
    [
        (["id", "title", "rating"], ID, "4 columns cannot become 3"),
        (["id", "id", None, None], ID, "both become"),
        (["id", "", None, None], ID, "between 1 and 65535"),
        (["id", "x" * 65_536, None, None], ID, "between 1 and 65535"),
        (["x" * 256, None, None, None], Key(KeyAttribute("x" * 256, "N")), "between 1 and 255"),
        (["a", "title", None, None], ID, "no key attribute id"),
        (["id", "title", None, None], Key(KeyAttribute("id", "S")), r"id \(S\) cannot be made from the column id"),
        (["id", None, None, "extra"], Key(KeyAttribute("extra", "S")), "no type that a key can have"),
    ],
)
def test_names_and_keys_are_checked_before_any_row(attributes: list[str | None], key: Key, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RowEncoder(COLUMNS, attributes, key)


def test_unknown_columns_are_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(UsageError) as caught:
        movies(as_text=frozenset({"ratings"}))
    assert "rating" in (caught.value.hint or "")
    with pytest.raises(UsageError):
        RowEncoder(COLUMNS, ["id", None, None, None], ID, source_key=["nope"])


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (rb"\b\f\n\r\t\v\\", b"\b\f\n\r\t\v\\"),
        (rb"\\n", rb"\n"),
        (rb"\\\n", b"\\\n"),
        (rb"\\\\N", rb"\\N"),
        (rb"\n\\\\t\\", b"\n\\\\t\\"),
        (rb"\\N", rb"\N"),
        (b"plain", b"plain"),
    ],
)
def test_copy_escapes(cell: bytes, text: bytes) -> None:
    assert unescape(cell) == text


def test_null_is_a_whole_field() -> None:
    assert decode_fields(b"\\N\t\\\\N\t\tN") == [None, rb"\N", b"", b"N"]
    assert decode_fields(b"a\t") == [b"a", b""]
