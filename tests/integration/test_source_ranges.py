"""Reading from a key on, in PostgreSQL: whatever types a key has, nothing is left out and nothing comes twice."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections.abc import Iterator, Sequence
from itertools import pairwise

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from etlcli.encoding.copy_text import NULL, unescape
from etlcli.errors import SourceError
from etlcli.model import Job, KeyRange, Selection, Since
from etlcli.plan import make_plan
from etlcli.ports import Reading
from tests.conftest import Schema
from tests.integration.source_helpers import debian_binaries, describe, query, server, source, with_parameters

# What a key's column can be, with values from all over it: each is a text that PostgreSQL reads.
WORDS = [
    "",
    " ",
    "a",
    "A",
    "ä",
    "B",
    "b",
    "a b",
    "ab",
    "a-b",
    "é",
    "e\u0301",
    "z",
    "Z",
    "10",
    "9",
    "\\",
    "\\N",
    "'",
    "{}",
]
MOMENTS = ["-infinity", "infinity", "4714-11-24 BC", "0044-03-15 BC", "0001-01-01", "1970-01-01", "9999-12-31"]
CLOCKS = [*MOMENTS, "2026-08-14 10:00:00.000001", "2026-08-14 10:00", "294276-12-31 23:59:59.999999"]
FIGURES = ["-Infinity", "Infinity", "NaN", "-0", "0.1", "-1e-30", "1e30", "3", "10", "2", "-2", "0.30000000000000004"]
KINDS = {
    "int2": ["-32768", "-1", "0", "9", "10", "32767"],
    "int4": ["-2147483648", "-1", "0", "9", "10", "2147483647"],
    "int8": ["-9223372036854775808", "-1", "0", "9", "10", "9223372036854775807"],
    "oid": ["0", "9", "10", "2147483648", "4294967295"],
    "numeric": [*FIGURES, "1.0", "1.50", "9" * 60, "1e-80", "1e-80001e", "-1e400"],
    "numeric(8,3)": ["-12345.678", "0", "1.5", "10", "9"],
    "float4": [*FIGURES, "1e-45", "3.4028235e38", "16777217", "0.1000000015"],
    "float8": [*FIGURES, "5e-324", "1.7976931348623157e308", "9007199254740993"],
    "bool": ["t", "f"],
    "text": WORDS,
    'text collate "C"': WORDS,
    'text collate "und-x-icu"': WORDS,
    'text collate "pg_unicode_fast"': WORDS,
    "text collate blind": WORDS,
    "varchar(5)": [word[:5] for word in WORDS],
    "char(3)": [word[:3] for word in WORDS],
    "bpchar": ["a", "a  ", " a", "", "  ", "b", "A"],
    "name": WORDS,
    '"char"': ["", "a", "A", "z", "\\", "'", " "],
    "bytea": [r"\x", r"\x00", r"\x0000", r"\xff", r"\x5c27", r"\x61"],
    "uuid": [f"{digit * 8}-0000-0000-0000-00000000000{digit}" for digit in "0189af"],
    "date": MOMENTS,
    "timestamp": CLOCKS,
    "timestamp(0)": CLOCKS[:-1],
    "timestamptz": CLOCKS,
    "time": ["00:00", "24:00", "23:59:59.999999", "9:00", "10:00"],
    "timetz": ["00:00+00", "24:00-15:59", "10:00+02", "10:00+03:30", "09:00+01", "08:00:00.5+00"],
    "interval": [
        "1 day",
        "24:00:00",
        "1 mon",
        "30 days",
        "-1 mon 1 day",
        "1 day -24:00:01",
        "0",
        "-0.000001 sec",
        "-1 year 2 mons -3 days +04:05:06.7",
        "178956970 years 7 mons",
        "-178956970 years",
        "2147483647 days",
        "2562047788:00:54.775807",
        "infinity",
        "-infinity",
    ],
    "inet": ["10.0.0.1", "10.0.0.1/8", "10.0.0.0/8", "9.0.0.1", "::1", "fe80::/10", "255.255.255.255"],
    "cidr": ["10.0.0.0/8", "10.0.0.0/16", "9.0.0.0/8", "::/0", "fe80::/10"],
    "macaddr": ["08:00:2b:01:02:03", "ff:00:00:00:00:00", "00:00:00:00:00:00"],
    "macaddr8": ["08:00:2b:01:02:03:04:05", "ff:00:00:00:00:00:00:01"],
    "bit(3)": ["000", "001", "101", "111"],
    "varbit": ["", "0", "1", "01", "10", "0000000000000000000000000000000000001"],
    "pg_lsn": ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"],
    "tid": ["(0,1)", "(0,10)", "(1,2)"],
    "xid8": ["0", "9", "10", "18446744073709551615"],
    "jsonb": ["1", "10", "9", "1.0", '"a"', "null", "{}", "[]", '{"b": [1, "x\'\\\\"]}', "true", '{"a": 1.50}'],
    "tsvector": ["a b", "'a':1A 'b c':2", "", "b"],
    "tsquery": ["a & b", "a <-> b", "!a | 'b c':*A"],
    "mood": ["sad", "it''s ok", "a,b", "happy"],
    "elsewhere.price": ["1.5", "10", "9"],
    "elsewhere.code": ["b", "B", "a", "A", "-a"],
    "int4range": ["empty", "[1,5)", "(,5)", "[1,)", "(,)", "[10,20)", "[9,20)"],
    "tstzrange": ["[2026-01-01, 2026-02-01)", "(-infinity,infinity]", "empty", "(,)"],
    "int4multirange": ["{}", "{[1,5)}", "{[1,5),[7,9)}", "{(,)}"],
    "int4[]": ["{}", "{1}", "{10}", "{9}", "{1,NULL}", "{NULL}", "{{1,2},{3,4}}", "[0:1]={1,2}", "{1,2}"],
    "text[]": ["{}", '{""}', "{a,B}", "{A,b}", '{"a,b","c\\"d"}', "{NULL}", '{"NULL"}'],
    "pair": ["(1,a)", "(10,a)", "(9,a)", '(1,"a,b")', "(1,)", "(,a)", '(1,"")', '(1,"a""b")'],
    "vector": ["[1,2]", "[10,2]", "[9,2]", "[0.1,-1e-30]", "[1]"],
}
TYPES = (
    "create schema elsewhere; create type mood as enum ('happy', 'it''s ok', 'sad', 'a,b');"
    " create type pair as (n int4, v text); create domain elsewhere.price as numeric(10,2);"
    " create domain elsewhere.code as text collate {} check (value <> 'never') not null"
)


@pytest.fixture(scope="module")
def debian() -> Iterator[str]:
    """Debian's server: older, with ICU and with extensions, which the search path does not find."""
    binaries = debian_binaries()
    if binaries is None:
        pytest.skip("there is no Debian server")
    with server(binaries) as started:
        with psycopg.connect(started.url, autocommit=True) as connection:
            connection.execute("create schema ext")
            for name in ("citext", "hstore", "ltree", "isn", "cube", "seg"):
                connection.execute(sql.SQL("create extension {} schema ext").format(sql.Identifier(name)))
        yield started.url


@pytest.fixture(params=["stack", "debian"])
def typed(request: pytest.FixtureRequest) -> Iterator[Schema]:
    """A schema with types of a test's own, some of them where the search path does not lead."""
    if request.param == "stack":
        url = request.getfixturevalue("stack").postgres_url
    else:
        url = request.getfixturevalue("debian")
    name = f"t_{secrets.token_hex(5)}"
    url = with_parameters(url, options=f"-csearch_path={name}")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(name)))
        has_icu = connection.execute("select from pg_collation where collname = 'und-x-icu'").fetchone() is not None
        connection.execute(sql.SQL(TYPES.format('"und-x-icu"' if has_icu else '"C"')))
        if has_icu:
            connection.execute(
                "create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
        yield Schema(name, url, connection)
        connection.execute(sql.SQL("drop schema {}, elsewhere cascade").format(sql.Identifier(name)))


def known(connection: psycopg.Connection[tuple[object, ...]], kind: str) -> bool:
    """Whether a server has a type, and a collation."""
    try:
        connection.execute(sql.SQL(f"create temporary table tried (k {kind}); drop table tried"))
    except (psycopg.errors.UndefinedObject, psycopg.errors.InvalidSchemaName):
        return False
    return True


def filled(
    connection: psycopg.Connection[tuple[object, ...]], kinds: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Make the table ``t`` with a key of these types, and those of the rows that PostgreSQL takes."""
    names = [f"k{place}" for place in range(len(kinds))]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, kinds, strict=True))
    connection.execute(sql.SQL("drop table if exists t"))
    connection.execute(sql.SQL(f"create table t ({columns}, v int4, primary key ({', '.join(names)}))"))
    for number, row in enumerate(rows):
        values = [sql.SQL("{}").format(sql.Literal(value)) for value in row]
        statement = sql.SQL("insert into t values ({}, {}) on conflict do nothing")
        with connection.transaction():
            connection.execute(statement.format(sql.SQL(", ").join(values), sql.Literal(number)))


async def lines(url: str, reading: Reading, ranges: Sequence[KeyRange | None]) -> list[list[bytes]]:
    """Read each range, in a session that knows nothing of others."""
    async with source(url).snapshot() as snapshot:
        await snapshot.describe(reading.selection)
        return [
            [line async for batch in snapshot.read(reading._replace(range=each)) for line in batch] for each in ranges
        ]


def key_of(line: bytes, columns: int) -> tuple[str, ...]:
    """A row's key as the ledger keeps it."""
    cells = line.split(b"\t")[:columns]
    assert NULL not in cells
    return tuple(unescape(cell).decode() for cell in cells)


def splits_everywhere(url: str, columns: int, selection: Selection = Selection("t")) -> None:  # noqa: B008
    """Part the rows behind each of them, and between some: the parts are the whole."""
    names = tuple(f"k{place}" for place in range(columns))
    reading = Reading(selection, (*names, "v"), names)
    (whole,) = asyncio.run(lines(url, reading, [None]))
    keys = [key_of(line, columns) for line in whole]
    spans = [tuple(sorted(random.Random(place).choices(range(len(keys)), k=2))) for place in range(len(keys))]
    ranges = [KeyRange(after=key) for key in keys]
    ranges += [KeyRange(last=key) for key in keys]
    ranges += [KeyRange(first=keys[first], last=keys[last]) for first, last in spans]
    expected = [whole[place + 1 :] for place in range(len(keys))]
    expected += [whole[: place + 1] for place in range(len(keys))]
    expected += [whole[first : last + 1] for first, last in spans]
    found = asyncio.run(lines(url, reading, ranges))
    for wanted, rows, right in zip(ranges, found, expected, strict=True):
        assert rows == right, wanted
    asyncio.run(is_cut(url, reading, whole))


async def is_cut(url: str, reading: Reading, whole: list[bytes]) -> None:
    """Cut the rows into parts: they are the whole, about as large each, and end where the ledger says that rows end."""
    keys = [key_of(line, len(reading.order_by)) for line in whole]
    for parts in (2, 3, 2 * len(whole) + 1):
        async with source(url).snapshot() as snapshot:
            await snapshot.describe(reading.selection)
            found = await snapshot.split(reading, parts)
        assert set(found) <= set(keys)
        assert len(found) == max(0, min(parts, len(keys)) - 1)
        edges = [None, *found, None]
        ranges = [KeyRange(after=low, last=high) for low, high in pairwise(edges)]
        each = await lines(url, reading, ranges)
        assert [line for part in each for line in part] == whole
        assert max(map(len, each)) <= max(1, min(map(len, each)) + 1)


def accepted(connection: psycopg.Connection[tuple[object, ...]], kind: str, values: Sequence[str]) -> list[str]:
    """Those values that the type takes; most of them have to be."""
    plain = kind.partition(" collate ")[0]
    kept = []
    for value in values:
        try:
            with connection.transaction():
                connection.execute(sql.SQL(f"select {{}}::{plain}").format(sql.Literal(value)))
        except psycopg.DataError:
            continue
        kept.append(value)
    assert len(kept) >= 2, kind
    return kept


@pytest.mark.parametrize("kind", KINDS)
def test_each_type_alone(typed: Schema, kind: str) -> None:
    if not known(typed.connection, kind):
        pytest.skip("this server does not have it")
    values = accepted(typed.connection, kind, KINDS[kind])
    filled(typed.connection, [kind], [[value] for value in values])
    splits_everywhere(typed.url, 1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_keys_of_several_columns(typed: Schema, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(KINDS)), min_size=2, max_size=4), label="kinds")
    kinds = [kind if known(typed.connection, kind) else "text" for kind in kinds]
    # Few values a column, so that the later ones have to decide.
    pools = [accepted(typed.connection, kind, KINDS[kind]) for kind in kinds]
    pools = [data.draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3)) for pool in pools]
    rows = data.draw(st.lists(st.tuples(*map(st.sampled_from, pools)), min_size=1, max_size=12), label="rows")
    filled(typed.connection, kinds, rows)
    splits_everywhere(typed.url, len(kinds))


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)
floats = st.floats(width=32).map(repr)
numbers = st.decimals(allow_nan=False).map("{:f}".format) | st.just("NaN")
intervals = st.tuples(*[st.integers(-99, 99)] * 3, st.integers(-(10**12), 10**12)).map(
    lambda parts: "{} mons {} days {} hours {} microseconds".format(*parts)
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(texts, floats, numbers, intervals), max_size=12),
    collation=st.sampled_from(["C", "und-x-icu", "blind"]),
    order=st.permutations(range(4)),
)
def test_any_values(typed: Schema, rows: list[tuple[str, ...]], collation: str, order: list[int]) -> None:
    collated = f'text collate "{collation}"'
    kinds = [collated if known(typed.connection, collated) else "text", "float8", "numeric", "interval"]
    filled(typed.connection, [kinds[place] for place in order], [[row[place] for place in order] for row in rows])
    splits_everywhere(typed.url, 4)


def test_equal_intervals_of_other_words(typed: Schema) -> None:
    filled(
        typed.connection, ["interval", "int4"], [["24:00:00", "2"], ["1 day", "1"], ["1 day", "3"], ["23:00:00", "9"]]
    )
    splits_everywhere(typed.url, 2)
    reading = Reading(Selection("t"), ("v",), ("k0", "k1"))
    assert asyncio.run(lines(typed.url, reading, [KeyRange(after=("P1D", "2"))])) == [[b"2"]]


# ---- What a range is combined with ----------------------------------------------------------------------------------


def test_conditions_queries_and_views(typed: Schema) -> None:
    rows = [[word, str(number)] for word in ["b", "a", "C", "é"] for number in range(5)]
    filled(typed.connection, ['text collate "C"', "int4"], rows)
    typed.execute("create view seen as select * from t where v % 2 = 0")
    condition = "k1 = 1 or k1 = 3 -- or none"
    for selection in [
        Selection("t", where=condition),
        Selection("seen"),
        Selection("seen", where=condition),
        query("select * from t where v < 15; -- all"),
        query("select * from t", where=condition),
    ]:
        splits_everywhere(typed.url, 2, selection)


def test_what_is_new_within_a_range(typed: Schema) -> None:
    filled(typed.connection, ["int4"], [[str(number)] for number in range(10)])
    typed.execute("update t set v = null where k0 in (2, 8)")
    reading = Reading(Selection("t"), ("k0",), ("k0",), Since("v", "5", 0))
    found = asyncio.run(lines(typed.url, reading, [KeyRange(after=("3",)), KeyRange(first=("2",), last=("5",))]))
    assert found == [[b"5", b"6", b"7", b"8", b"9"], [b"2", b"5"]]


def test_partitions_and_columns_with_odd_names(typed: Schema) -> None:
    typed.execute(
        'create table t ("K ""0""" int4, "select" text, v int4, primary key ("K ""0""", "select"))'
        ' partition by range ("K ""0""");'
        " create table t1 partition of t for values from (0) to (5);"
        " create table t2 partition of t for values from (5) to (10);"
        " insert into t select n % 10, 'x' || n, n from generate_series(1, 40) n"
    )
    names = ('K "0"', "select")
    reading = Reading(Selection("t"), (*names, "v"), names)
    (whole,) = asyncio.run(lines(typed.url, reading, [None]))
    keys = [key_of(line, 2) for line in whole]
    found = asyncio.run(lines(typed.url, reading, [KeyRange(after=key) for key in keys]))
    assert found == [whole[place + 1 :] for place in range(40)]


@pytest.mark.parametrize("text", ["1'); drop table t; --", "\\", "1 or true", "", "9" * 30])
def test_a_text_that_is_no_value_changes_nothing(typed: Schema, text: str) -> None:
    filled(typed.connection, ["int4"], [["1"]])
    reading = Reading(Selection("t"), ("k0",), ("k0",))
    with pytest.raises(SourceError, match="while reading rows"):
        asyncio.run(lines(typed.url, reading, [KeyRange(after=(text,))]))
    assert asyncio.run(lines(typed.url, reading, [None])) == [[b"1"]]


def test_operators_that_others_made_are_not_taken(typed: Schema) -> None:
    """What is found first under a name, on this search path, compares the other way round."""
    for kind in ("int4", "text"):
        for name, mirrored in {"<": ">", "<=": ">=", ">": "<", ">=": "<="}.items():
            function = f"{'less' if '<' in name else 'more'}{len(name)}_{kind}"
            typed.execute(
                f"create function {function}({kind}, {kind}) returns bool immutable language sql"
                f" as 'select $1 operator(pg_catalog.{mirrored}) $2';"
                f" create operator {name} (leftarg = {kind}, rightarg = {kind}, function = {function})"
            )
    filled(typed.connection, ["int4", "text"], [[str(number), word] for number in range(3) for word in "abc"])
    url = with_parameters(typed.url, options=f"-csearch_path={typed.name},pg_catalog")
    with psycopg.connect(url) as connection:
        assert connection.execute("select 1 > 2").fetchone() == (True,)
    splits_everywhere(url, 2)


# ---- The index ------------------------------------------------------------------------------------------------------


def explained(url: str, order: tuple[str, ...], wanted: KeyRange) -> str:
    async def main() -> str:
        async with source(url).snapshot() as snapshot:
            await snapshot.describe(Selection("t"))
            statement = await snapshot._statement(Reading(Selection("t"), (*order, "v"), order, range=wanted))
            cursor = await snapshot._connection.execute(sql.SQL("explain {}").format(statement))
            return "\n".join(row[0] for row in await cursor.fetchall())

    return asyncio.run(main())


@pytest.mark.parametrize(
    "kind", ["int4", "text", 'text collate "und-x-icu"', "elsewhere.price", "bytea", "timestamptz"]
)
def test_the_keys_index_finds_the_rows(typed: Schema, kind: str) -> None:
    if not known(typed.connection, kind):
        pytest.skip("this server does not have it")
    written = {"bytea": "n::text::bytea", "timestamptz": "timestamptz '2026-01-01' + n * interval '1 s'"}.get(
        kind, f"n::{kind.partition(' ')[0]}"
    )
    typed.execute(
        f"create table t (k0 int4, k1 {kind}, v text, primary key (k0, k1));"
        f" insert into t select n / 300, {written}, repeat('x', 200) from generate_series(1, 30000) n order by 1, 2;"
        " analyze t"
    )
    row = typed.connection.execute("select k1::text from t where k0 = 98 limit 1").fetchone()
    assert row is not None
    last = ("98", str(row[0]))
    for wanted in (KeyRange(after=last), KeyRange(first=last, last=("98", last[1]))):
        plan = explained(typed.url, ("k0", "k1"), wanted)
        assert "Index Scan using t_pkey" in plan, plan
        assert re.search(r"Index Cond: \(+ROW\(k0, ", plan), plan
        assert "Sort" not in plan, plan
        assert "Filter" not in plan, plan


# ---- What cannot be found again -------------------------------------------------------------------------------------


def resumes(url: str, selection: Selection, **options: object) -> bool:
    relation = describe(url, selection)
    return make_plan(Job("t", selection, "t", "t", **options), relation, "db").resumes  # type: ignore[arg-type]


def test_types_whose_text_another_session_may_read_otherwise(typed: Schema) -> None:
    settled = {f"a{place}": kind for place, kind in enumerate(KINDS) if known(typed.connection, kind)}
    typed.execute(
        "create domain salary as money; create type paid as (who int4, what money);"
        " create type pay as range (subtype = money); create domain payments as salary[]"
    )
    kinds = [
        "money",
        "salary",
        "paid",
        "pay",
        "payments",
        "money[]",
        "paid[]",
        "regclass",
        "regtype",
        "regrole",
        "regproc",
    ]
    row = typed.connection.execute(
        "select typname from pg_type where oid = (select rngmultitypid from pg_range where rngtypid = 'pay'::regtype)"
    ).fetchone()
    assert row is not None
    unsettled = {f"b{place}": kind for place, kind in enumerate([*kinds, str(row[0])])}
    columns = ", ".join(f"{name} {kind} not null" for name, kind in (settled | unsettled).items())
    typed.execute(f"create table t ({columns})")
    assert describe(typed.url, "t").unseekable == set(unsettled)


def test_whether_reading_can_go_on(typed: Schema) -> None:
    typed.execute(
        "create table t (id int4 primary key, a int4 not null unique, b int4 unique, c int4,"
        " d int4 unique nulls not distinct, e money not null unique)"
    )
    plain = Selection("t")
    assert resumes(typed.url, plain)
    assert not resumes(typed.url, Selection("t", limit=10))
    assert resumes(typed.url, Selection("t", where="c > 1"))
    assert not resumes(typed.url, query("select * from t"))
    typed.execute("alter table t drop constraint t_pkey")
    expected = {
        ("a",): True,
        ("b",): False,
        ("c",): False,
        ("d",): False,
        ("a", "c"): False,
        ("e",): False,
        ("a", "id"): True,
    }
    assert {key: resumes(typed.url, plain, key=key) for key in expected} == expected


def test_a_constraint_that_is_not_valid_says_nothing_of_the_rows(typed: Schema) -> None:
    if typed.connection.info.server_version < 180_000:
        pytest.skip("before PostgreSQL 18 there is no such constraint")
    typed.execute("create table t (id int4 unique, v text); insert into t values (null, 'x'), (1, 'y'), (null, 'z')")
    assert describe(typed.url, "t").unseekable == {"id", "v"}
    typed.execute("alter table t add constraint present not null id not valid")
    assert describe(typed.url, "t").unseekable == {"id", "v"}
    typed.execute("update t set id = 2 where v = 'x'; update t set id = 3 where v = 'z'")
    typed.execute("alter table t validate constraint present")
    assert describe(typed.url, "t").unseekable == {"v"}


# ---- Extensions ------------------------------------------------------------------------------------------------------


EXTENSIONS = {
    "ext.citext": ["a", "A", "b", "B", "ä", "Z", "", "a-b"],
    "ext.hstore": ["", "a=>1", "a=>NULL", '"a b"=>"c\\"d"', "b=>10", "b=>9"],
    "ext.ltree": ["", "a", "a.b", "a.B", "b"],
    "ext.isbn13": ["978-0-393-04002-9", "978-0-11-000222-4"],
    "ext.cube": ["(1,2)", "(10,2)", "(9,2),(10,3)", "(0.1)"],
    "ext.seg": ["1", "10", "9 .. 10", "1.50", "<5"],
}


@pytest.mark.parametrize("kind", EXTENSIONS)
def test_types_of_extensions_that_the_search_path_does_not_find(debian: str, kind: str) -> None:
    with psycopg.connect(debian, autocommit=True) as connection:
        values = accepted(connection, kind, EXTENSIONS[kind])
        filled(connection, [kind], [[value] for value in values])
        splits_everywhere(debian, 1)
        filled(connection, [kind, "int4"], [[value, number] for value in values for number in ("9", "10")])
        splits_everywhere(debian, 2)
        filled(connection, ["int4", kind, "text"], [[n, value, "x"] for value in values for n in ("9", "10")])
        splits_everywhere(debian, 3)
        filled(connection, [kind, kind], [[one, two] for one in values[:4] for two in values[:4]])
        splits_everywhere(debian, 2)


def test_a_key_whose_operators_are_of_several_schemas_uses_the_index(debian: str) -> None:
    with psycopg.connect(debian, autocommit=True) as connection:
        connection.execute(
            "drop table if exists t; create table t (k0 int4, k1 ext.citext, v text, primary key (k0, k1));"
            " insert into t select n, n::text, repeat('x', 200) from generate_series(1, 30000) n; analyze t"
        )
    plan = explained(debian, ("k0", "k1"), KeyRange(after=("29000", "x")))
    assert "Index Cond: (k0 >= 29000)" in plan, plan
    assert "Seq Scan" not in plan, plan
