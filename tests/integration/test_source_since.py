"""Where a reading of new rows begins, in PostgreSQL: at the edges of each type, through indexes, views and domains."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import psycopg
import pytest
from psycopg import sql

from etlcli.errors import UsageError
from etlcli.model import Selection, Since
from etlcli.ports import Reading
from etlcli.source.postgres import PostgresSnapshot
from etlcli.source.since import finite
from tests.conftest import Schema
from tests.integration.source_helpers import chosen, debian_binaries, query, server, source

T = TypeVar("T")
MOST = 2**63 - 1

# Each type's values in its order, from the lowest to the highest that it has.
ORDERED = {
    "int2": ["-32768", "-32767", "0", "32767"],
    "int4": ["-2147483648", "-2147483647", "0", "2147483647"],
    "int8": ["-9223372036854775808", "-9223372036854775807", "0", "9223372036854775807"],
    "oid": ["0", "1", "4294967295"],
    "numeric": ["-Infinity", "-1e300", "-0.5", "0", "1e300", "Infinity", "NaN"],
    "float4": ["-Infinity", "-3.4028235e+38", "-1e-45", "0", "3.4028235e+38", "Infinity", "NaN"],
    "float8": ["-Infinity", "-1.7976931348623157e+308", "-5e-324", "0", "1.7976931348623157e+308", "Infinity", "NaN"],
    "date": ["-infinity", "4714-11-24 BC", "0001-01-01 BC", "0001-01-01", "5874897-12-31", "infinity"],
    "timestamp": [
        "-infinity",
        "4714-11-24 00:00:00 BC",
        "0044-03-15 12:00:00.000001 BC",
        "0001-01-01 00:00:00",
        "294276-12-31 23:59:59.999999",
        "infinity",
    ],
    "timestamptz": [
        "-infinity",
        "4714-11-24 00:00:00+00 BC",
        "0044-03-15 12:00:00.000001+00 BC",
        "2026-08-14 10:00:00.123456+00",
        "294276-12-31 23:59:59.999999+00",
        "infinity",
    ],
}


def asked(url: str, selection: str | Selection, question: Callable[[PostgresSnapshot], Awaitable[T]]) -> T:
    async def main() -> T:
        async with source(url).snapshot() as snapshot:
            await snapshot.describe(chosen(selection))
            return await question(snapshot)

    return asyncio.run(main())


def read(url: str, selection: str | Selection, since: Since, columns: tuple[str, ...] = ("id",)) -> list[bytes]:
    wanted = Reading(chosen(selection), columns, ("id",), since)

    async def question(snapshot: PostgresSnapshot) -> list[bytes]:
        return [line async for batch in snapshot.read(wanted) for line in batch]

    return asked(url, selection, question)


def filled(schema: Schema, typname: str) -> None:
    schema.execute(f"create table t (id integer primary key, at {typname}); insert into t values (-1, null)")
    with schema.connection.cursor() as cursor:
        cursor.executemany(
            sql.SQL("insert into t values (%s, %s::{})").format(sql.Identifier(typname)), enumerate(ORDERED[typname])
        )


@pytest.mark.parametrize("typname", ORDERED)
def test_from_each_value_on_without_an_overlap(schema: Schema, typname: str) -> None:
    filled(schema, typname)
    values = ORDERED[typname]
    for place, value in enumerate(values):
        found = [int(line) for line in read(schema.url, "t", Since("at", value, 0))]
        assert found == [-1, *range(place, len(values))], value


@pytest.mark.parametrize("typname", ORDERED)
@pytest.mark.parametrize("overlap", [1, 300, 1000, 10**13, MOST])
def test_no_overlap_leaves_a_types_range_or_reaches_forward(schema: Schema, typname: str, overlap: int) -> None:
    filled(schema, typname)
    values = ORDERED[typname]
    for place, value in enumerate(values):
        found = [int(line) for line in read(schema.url, "t", Since("at", value, overlap))]
        assert found[0] == -1
        assert set(found) >= {-1, *range(place, len(values))}, value


def test_the_largest_overlap_is_exact(schema: Schema) -> None:
    filled(schema, "int8")
    for value, expected in zip(ORDERED["int8"], [0, 0, 1, 2], strict=True):
        assert [int(line) for line in read(schema.url, "t", Since("at", value, MOST))] == [-1, *range(expected, 4)]


@pytest.mark.parametrize("typname", ["timestamp", "timestamptz"])
def test_an_overlap_around_the_first_moment(schema: Schema, typname: str) -> None:
    filled(schema, typname)
    zone = "+00" if typname == "timestamptz" else ""
    for value, overlap, expected in [
        (f"4714-11-24 00:04:59{zone} BC", 300, [-1, 0, 1, 2, 3, 4, 5]),  # would begin before there is time
        (f"4714-11-24 00:05:00{zone} BC", 300, [-1, 1, 2, 3, 4, 5]),
        (f"4714-11-24 00:05:01{zone} BC", 300, [-1, 2, 3, 4, 5]),
        (f"0044-03-15 12:00:00.000002{zone} BC", 0, [-1, 3, 4, 5]),
        (f"0044-03-15 12:00:01.000001{zone} BC", 1, [-1, 2, 3, 4, 5]),
        (f"0044-03-15 12:00:01.000002{zone} BC", 1, [-1, 3, 4, 5]),
    ]:
        assert [int(line) for line in read(schema.url, "t", Since("at", value, overlap))] == expected, value


@pytest.mark.parametrize("typname", ORDERED)
def test_the_newest_value_can_be_read_back_exactly(schema: Schema, typname: str) -> None:
    filled(schema, typname)
    for place, value in reversed(list(enumerate(ORDERED[typname]))):
        if not is_finite(value):
            continue
        newest = newest_of(schema.url, "t", "at")
        assert newest is not None
        first = next(int(line) for line in read(schema.url, "t", Since("at", newest, 0)) if line != b"-1")
        assert first == place
        schema.execute(f"delete from t where id = {place}")
    assert newest_of(schema.url, "t", "at") is None


def is_finite(value: str) -> bool:
    return value.lower().lstrip("-") not in ("infinity", "nan")


@pytest.mark.parametrize(
    ("typname", "text"),
    [
        ("int2", "32768"),
        ("int4", "2147483648"),
        ("int8", "1.5"),
        ("oid", "4294967296"),
        ("numeric", "1,000"),
        ("float4", "1e40"),
        ("date", "2026-02-30"),
        ("timestamp", "2026-13-01"),
        ("timestamptz", "294277-01-01"),
        ("timestamptz", "2026-08-14 10:00 Mars/Olympus"),
        ("timestamptz", ""),
        ("int4", "1); drop table t; --"),
        ("int4", "1'"),
        ("timestamptz", "now'::timestamptz; select '1"),
        ("numeric", "\\"),
    ],
)
def test_what_is_no_value_is_refused_with_an_example(schema: Schema, typname: str, text: str) -> None:
    filled(schema, typname)
    row = schema.connection.execute("select format_type(%s::regtype, null)", (typname,)).fetchone()
    assert row is not None
    with pytest.raises(UsageError) as caught:
        asked(schema.url, "t", lambda snapshot: snapshot.value(Selection("t"), "at", text))
    assert caught.value.message.startswith(f"{text} is no value of at ({row[0]}): ")
    assert (caught.value.hint or "").startswith("For example: ")
    with pytest.raises(UsageError):
        asked(schema.url, "t", lambda snapshot: snapshot.precedes(Selection("t"), "at", ORDERED[typname][-1], text))


@pytest.mark.parametrize("text", ["1\0", "\udce9"])
def test_what_cannot_be_sent_is_refused(schema: Schema, text: str) -> None:
    filled(schema, "int4")
    with pytest.raises(UsageError, match="the value of at holds a character that PostgreSQL cannot take"):
        asked(schema.url, "t", lambda snapshot: snapshot.value(Selection("t"), "at", text))


@pytest.mark.parametrize(
    ("typname", "text", "written"),
    [
        ("timestamptz", "2026-08-14T10:00:00Z", "2026-08-14 10:00:00+00"),
        ("timestamptz", "2026-08-14T10:00:00+02:00", "2026-08-14 08:00:00+00"),
        ("timestamptz", "2026-08-14", "2026-08-14 00:00:00+00"),
        ("timestamp", "2026-08-14T10:00:00Z", "2026-08-14 10:00:00"),
        ("date", "2026-08-14T10:00:00Z", "2026-08-14"),
        ("timestamptz", "epoch", "1970-01-01 00:00:00+00"),
        ("int4", " 007 ", "7"),
        ("float8", "1e3", "1000"),
    ],
)
def test_values_as_people_write_them(schema: Schema, typname: str, text: str, written: str) -> None:
    filled(schema, typname)
    assert asked(schema.url, "t", lambda snapshot: snapshot.value(Selection("t"), "at", text)) == written


def test_conditions_queries_views_and_domains(schema: Schema) -> None:
    schema.execute(
        "create domain moment as timestamptz(3) check (value > '2000-01-01');"
        ' create table t (id integer primary key, "When ""it""" moment, v text);'
        " insert into t select n, timestamptz '2026-08-14 10:00:00+00' + n * interval '1 second', 'v' || n % 3"
        " from generate_series(0, 9) n; create view seen as select * from t where id < 8"
    )
    column = 'When "it"'
    at = "2026-08-14 10:00:0{}+00"
    since = Since(column, at.format(6), 2)
    condition = Selection("t", where="v = 'v1' or v = 'v2' -- of three")
    cases: list[tuple[str | Selection, int, list[int]]] = [
        ("t", 9, [4, 5, 6, 7, 8, 9]),
        ("seen", 7, [4, 5, 6, 7]),
        (condition, 8, [4, 5, 7, 8]),
        (query("select * from t where id > 5; -- late"), 9, [6, 7, 8, 9]),
        (query('select id + 100 as id, "When ""it""" from t'), 9, [104, 105, 106, 107, 108, 109]),
    ]
    for selection, newest, expected in cases:
        assert newest_of(schema.url, selection, column) == at.format(newest)
        assert [int(line) for line in read(schema.url, selection, since)] == expected


def test_the_condition_of_new_rows_does_not_weaken_the_users(schema: Schema) -> None:
    filled(schema, "int4")
    # Without parentheses around each, the NULLs would come although the condition says no.
    where = Selection("t", where="at > 0 or false")
    assert read(schema.url, where, Since("at", "-5", 0)) == [b"3"]
    assert not asked(schema.url, where, lambda snapshot: snapshot.has_nulls(where, "at"))


@pytest.mark.parametrize("typname", ORDERED)
def test_an_index_finds_what_is_new(schema: Schema, typname: str) -> None:
    first = {"date": "date '2026-01-01' + n", "oid": "n::int8::oid"}.get(
        typname, "timestamp '2026-01-01' + n * interval '1 minute'" if "time" in typname else "n"
    )
    schema.execute(
        f"create table t (id integer primary key, at {typname}, v text);"
        f" insert into t select n, {first}, repeat('x', 200) from generate_series(1, 30000) n;"
        " create index on t (at); analyze t"
    )

    async def question(snapshot: PostgresSnapshot) -> tuple[str, str]:
        newest = await snapshot.newest(Selection("t"), "at")
        assert newest is not None
        plans = []
        reading = snapshot._select(Reading(Selection("t"), ("id", "v"), ("id",), Since("at", newest, 1)))
        largest = sql.SQL("select max(at) {}").format(snapshot._from(Selection("t"), finite("at", typname, 180000)))
        for statement in (reading, largest):
            cursor = await snapshot._connection.execute(sql.SQL("explain {}").format(statement))
            plans.append("\n".join(row[0] for row in await cursor.fetchall()))
        return plans[0], plans[1]

    new_rows, largest = asked(schema.url, "t", question)
    assert "Index Cond: (at >= " in new_rows, new_rows
    assert "Index Cond: (at IS NULL)" in new_rows, new_rows
    assert "Seq Scan" not in new_rows, new_rows
    assert "Index Only Scan Backward" in largest, largest


def test_before_numeric_had_infinities() -> None:
    written = {version: finite("at", "numeric", version).as_string(None) for version in (130_000, 140_000)}
    assert "infinity" not in written[130_000]
    assert """'NaN'::"pg_catalog"."numeric\"""" in written[130_000]
    assert "infinity" in written[140_000]


@pytest.fixture(scope="module")
def debian() -> Iterator[str]:
    binaries = debian_binaries()
    if binaries is None:
        pytest.skip("there is no Debian server")
    with server(binaries) as started:
        yield started.url


@pytest.mark.parametrize("typname", ORDERED)
def test_an_older_server_takes_the_same(debian: str, typname: str) -> None:
    values = ORDERED[typname]
    last = max(place for place, value in enumerate(values) if is_finite(value))
    with psycopg.connect(debian, autocommit=True) as connection:
        kind = sql.Identifier(typname)
        connection.execute(
            sql.SQL("drop table if exists t; create table t (id integer primary key, at {})").format(kind)
        )
        with connection.cursor() as cursor:
            cursor.executemany(sql.SQL("insert into t values (%s, %s::{})").format(kind), enumerate(values))
    newest = newest_of(debian, "t", "at")
    assert newest is not None
    assert read(debian, "t", Since("at", newest, 0))[0] == b"%d" % last
    assert read(debian, "t", Since("at", values[0], 300))[0] == b"0"


def newest_of(url: str, selection: str | Selection, column: str) -> str | None:
    return asked(url, selection, lambda snapshot: snapshot.newest(chosen(selection), column))
