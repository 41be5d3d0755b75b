"""What every source does: the in-memory one, and PostgreSQL.

The server is the embedded stack's, unless ``MOMENTO_ETL_TEST_POSTGRES`` names another.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import psycopg
import pytest
from psycopg import sql

from etlcli.errors import SourceError, UsageError
from etlcli.model import KeyRange, Relation, Selection, Since
from etlcli.ports import Reading, Snapshot, Source
from etlcli.progress import Counters
from etlcli.source.postgres import PostgresSource
from tests.conftest import Schema
from tests.contract.fakes.source import FakeSource, column

T = TypeVar("T")
Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Content:
    """One table, ``t``: its columns (name and type), its rows in the order of its key, and that key."""

    columns: Sequence[tuple[str, str]]
    rows: Sequence[Row]
    key: tuple[str, ...] = ()


class House(Protocol):
    """An implementation, and a look behind its back."""

    def source(self, content: Content) -> Source: ...

    def failing(self, content: Content, after: int) -> tuple[Source, Selection]:
        """A source whose rows fail with SourceError, once some of them (at most ``after``) were read."""
        ...

    def open_snapshots(self) -> int: ...


class FakeHouse:
    def __init__(self) -> None:
        self.made: list[FakeSource] = []

    def source(self, content: Content) -> Source:
        relation = Relation("t", tuple(column(*named) for named in content.columns), primary_key=content.key)
        self.made.append(FakeSource(relation, content.rows))
        return self.made[-1]

    def failing(self, content: Content, after: int) -> tuple[Source, Selection]:
        self.source(content)
        self.made[-1].error = (after, SourceError("division by zero"))
        return self.made[-1], Selection("t")

    def open_snapshots(self) -> int:
        return sum(source.opened - source.closed for source in self.made)


class PostgresHouse:
    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.name = f"contract {schema.name}"

    def source(self, content: Content) -> Source:
        columns = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in content.columns]
        if content.key:
            columns.append(sql.SQL("primary key ({})").format(sql.SQL(", ").join(map(sql.Identifier, content.key))))
        connection = self.schema.connection
        connection.execute(sql.SQL("create table t ({})").format(sql.SQL(", ").join(columns)))
        # In another order than the key's, which a scan would return.
        with connection.cursor() as cursor, cursor.copy("copy t from stdin") as copy:
            for row in reversed(content.rows):
                copy.write_row(row)
        return self._source()

    def failing(self, content: Content, after: int) -> tuple[Source, Selection]:
        self.source(content)
        query = f"select t.*, 1 / (row_number() over (order by id) - {after + 1}) as one from t"
        return self._source(), Selection("t", query=f"select id, v from ({query}) as numbered where one is not null")

    def _source(self) -> Source:
        url = psycopg.conninfo.make_conninfo(self.schema.url, application_name=self.name)
        return PostgresSource(url, Counters())

    def open_snapshots(self) -> int:
        """Sessions that are in a transaction; a server needs a moment to end one whose client is gone."""
        row = self.schema.connection.execute(
            "select count(*) from pg_stat_activity where application_name = %s", (self.name,)
        ).fetchone()
        assert row is not None
        return int(str(row[0]))


@pytest.fixture(params=["fake", "postgres"])
def house(request: pytest.FixtureRequest) -> House:
    if request.param == "fake":
        return FakeHouse()
    return PostgresHouse(request.getfixturevalue("schema"))


FEW = Content([("id", "int4"), ("v", "text")], [("1", "a"), ("2", "b"), ("3", None)], ("id",))
MANY = Content([("id", "int4"), ("v", "text")], [(str(n), f"v{n}") for n in range(3456)], ("id",))
TABLE = Selection("t")


def reading(content: Content, selection: Selection = TABLE, columns: tuple[str, ...] | None = None) -> Reading:
    return Reading(selection, columns or tuple(name for name, _ in content.columns), content.key)


async def batches_of(snapshot: Snapshot, wanted: Reading) -> list[list[bytes]]:
    return [batch async for batch in snapshot.read(wanted)]


def read(
    house: House, content: Content, selection: Selection = TABLE, columns: tuple[str, ...] | None = None
) -> list[list[bytes]]:
    async def main() -> list[list[bytes]]:
        async with house.source(content).snapshot() as snapshot:
            await snapshot.describe(selection)
            return await batches_of(snapshot, reading(content, selection, columns))

    return asyncio.run(main())


def lines(batches: list[list[bytes]]) -> list[bytes]:
    return [line for batch in batches for line in batch]


def test_a_description_says_where(house: House) -> None:
    description = house.source(FEW).description
    assert description
    assert "\n" not in description
    assert ":" in description


def test_a_snapshot_has_a_name_and_a_time(house: House) -> None:
    async def main() -> None:
        async with house.source(FEW).snapshot() as snapshot:
            assert snapshot.record.name
            assert snapshot.record.taken_at > 1_700_000_000

    asyncio.run(main())


def test_describe_tells_columns_and_key(house: House) -> None:
    content = Content([("b", "text"), ("a", "int4"), ("c", "jsonb")], [("x", "1", "{}")], ("b", "a"))

    async def main() -> Relation:
        async with house.source(content).snapshot() as snapshot:
            return await snapshot.describe(TABLE)

    relation = asyncio.run(main())
    assert relation.name is not None
    assert [(column.name, column.type.typname) for column in relation.columns] == list(content.columns)
    assert relation.primary_key == ("b", "a")


def test_rows_come_in_the_keys_order(house: House) -> None:
    assert lines(read(house, FEW)) == [b"1\ta", b"2\tb", rb"3" + b"\t" + rb"\N"]
    expected = [b"%d\tv%d" % (n, n) for n in range(3456)]
    assert lines(read(house_again(house), MANY)) == expected


def house_again(house: House) -> House:
    """The same implementation, with nothing in it."""
    if isinstance(house, PostgresHouse):
        house.schema.execute("drop table t")
        return PostgresHouse(house.schema)
    return FakeHouse()


def test_batches_hold_something_and_no_more_than_a_thousand_rows(house: House) -> None:
    batches = read(house, MANY)
    assert sum(map(len, batches)) == 3456
    assert len(batches) > 3
    assert all(1 <= len(batch) <= 1000 for batch in batches)


def test_an_empty_source_has_no_batches(house: House) -> None:
    assert read(house, Content(FEW.columns, [], ("id",))) == []


def test_columns_come_as_asked_for(house: House) -> None:
    content = Content([("id", "int4"), ("a", "text"), ("b", "text")], [("1", "x", "y")], ("id",))
    assert lines(read(house, content, columns=("b", "id"))) == [b"y\t1"]


def test_a_limit(house: House) -> None:
    assert lines(read(house, MANY, Selection("t", limit=1234))) == [b"%d\tv%d" % (n, n) for n in range(1234)]
    assert read(house_again(house), FEW, Selection("t", limit=0)) == []
    assert len(lines(read(house_again(house), FEW, Selection("t", limit=99)))) == 3


def test_a_sample_is_a_part_of_the_rows_in_order(house: House) -> None:
    all_lines = lines(read(house, MANY))

    async def sampled(snapshot: Snapshot, share: float) -> list[bytes]:
        return lines(await batches_of(snapshot, reading(MANY)._replace(sample=share)))

    async def main() -> tuple[list[bytes], list[bytes]]:
        async with house_again(house).source(MANY).snapshot() as snapshot:
            await snapshot.describe(TABLE)
            return await sampled(snapshot, 20.0), await sampled(snapshot, 100.0)

    some, whole = asyncio.run(main())
    assert whole == all_lines
    assert 0 < len(some) < len(all_lines) * 3 / 4
    assert some == [line for line in all_lines if line in set(some)]
    # From all over the table, not only from where it begins.
    assert all_lines.index(some[-1]) - all_lines.index(some[0]) > len(some)


def test_an_estimate_reads_no_rows_and_knows_limits(house: House) -> None:
    async def main() -> tuple[int | None, int | None]:
        async with house.source(MANY).snapshot() as snapshot:
            await snapshot.describe(TABLE)
            of_ten = await snapshot.estimate(reading(MANY, Selection("t", limit=10)))
            return await snapshot.estimate(reading(MANY)), of_ten

    of_all, of_ten = asyncio.run(main())
    assert of_ten == 10
    # Nothing was analysed: PostgreSQL goes by the table's size.
    assert of_all is not None
    assert 300 < of_all < 30_000


def test_lines_are_copys_text(house: House) -> None:
    values = ["", "\\", "\\N", "a\tb", "a\nb", "a\r\nb", "\b\f\v", "é🎬", " x ", '"', "\\t", "\x01\x7f"]
    content = Content([("id", "int4"), ("v", "text")], [(str(n), value) for n, value in enumerate(values)], ("id",))
    assert [line.split(b"\t")[1] for line in lines(read(house, content))] == [
        b"",
        rb"\\",
        rb"\\N",
        rb"a\tb",
        rb"a\nb",
        rb"a\r\nb",
        rb"\b\f\v",
        "é🎬".encode(),
        b" x ",
        b'"',
        rb"\\t",
        b"\x01\x7f",
    ]


def test_one_snapshot_can_be_read_twice(house: House) -> None:
    async def main() -> None:
        async with house.source(FEW).snapshot() as snapshot:
            await snapshot.describe(TABLE)
            first = await batches_of(snapshot, reading(FEW))
            assert await snapshot.duplicates(reading(FEW), ("id",)) == []
            assert await batches_of(snapshot, reading(FEW)) == first

    asyncio.run(main())


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("id",), set()),
        (("a",), {("1",), ("2",)}),
        (("b",), {("x",)}),
        (("a", "b"), {("2", "x")}),
        (("b", "a"), {("x", "2")}),
        (("n",), set()),
        (("a", "n"), set()),
    ],
)
def test_duplicates(house: House, key: tuple[str, ...], expected: set[Row]) -> None:
    content = Content(
        [("id", "int4"), ("a", "int4"), ("b", "text"), ("n", "text")],
        [
            ("1", "1", "x", None),
            ("2", "1", "y", None),
            ("3", "2", "x", "p"),
            ("4", "2", "x", "q"),
            ("5", "3", None, None),
        ],
        ("id",),
    )
    assert set(duplicates(house, content, key)) == expected


def test_at_most_five_duplicates(house: House) -> None:
    content = Content([("id", "int4"), ("v", "int4")], [(str(n), str(n % 9)) for n in range(100)], ("id",))
    found = duplicates(house, content, ("v",))
    assert len(found) == len(set(found)) == 5
    assert set(found) <= {(str(n),) for n in range(9)}


def test_duplicates_of_nothing(house: House) -> None:
    assert duplicates(house, Content(FEW.columns, [], ("id",)), ("v",)) == []


def duplicates(house: House, content: Content, key: tuple[str, ...]) -> list[Row]:
    async def main() -> list[Row]:
        async with house.source(content).snapshot() as snapshot:
            await snapshot.describe(TABLE)
            return await snapshot.duplicates(reading(content), key)

    return asyncio.run(main())


def changed(typname: str, *values: str | None) -> Content:
    """A table whose rows have these values in the column ``at``, numbered from 0."""
    rows = [(str(number), value) for number, value in enumerate(values)]
    return Content([("id", "int4"), ("at", typname)], rows, ("id",))


def asked(house: House, content: Content, question: Callable[[Snapshot], Awaitable[T]]) -> T:
    async def main() -> T:
        async with house.source(content).snapshot() as snapshot:
            await snapshot.describe(TABLE)
            return await question(snapshot)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("typname", "values", "newest"),
    [
        ("int4", ["3", "-7", "20", None], "20"),
        ("int4", [None, None], None),
        ("int4", [], None),
        ("numeric", ["9.5", "10.25", "NaN", "-3"], "10.25"),
        ("numeric", ["NaN"], None),
        ("float8", ["1.5", "Infinity", "NaN", "-Infinity"], "1.5"),
        ("float8", ["-Infinity"], None),
        ("date", ["2026-08-14", "infinity", "-infinity", "2026-08-09"], "2026-08-14"),
        ("timestamp", ["2026-08-14 09:00:00.000001", "2026-08-14 09:00:00"], "2026-08-14 09:00:00.000001"),
        ("timestamptz", ["2026-08-14 09:00:00+00", "infinity", None], "2026-08-14 09:00:00+00"),
        ("timestamptz", ["infinity", "-infinity"], None),
    ],
)
def test_the_newest_value_is_the_largest_finite_one(
    house: House, typname: str, values: list[str | None], newest: str | None
) -> None:
    content = changed(typname, *values)
    assert asked(house, content, lambda snapshot: snapshot.newest(TABLE, "at")) == newest


def test_a_limit_does_not_hide_the_newest_value_or_a_null(house: House) -> None:
    limited = Selection("t", limit=1)

    async def main() -> tuple[str | None, bool]:
        async with house.source(changed("int4", "1", "5", None)).snapshot() as snapshot:
            await snapshot.describe(limited)
            return await snapshot.newest(limited, "at"), await snapshot.has_nulls(limited, "at")

    assert asyncio.run(main()) == ("5", True)


@pytest.mark.parametrize(("values", "expected"), [(["1", None], True), (["1", "2"], False), ([], False)])
def test_nulls_are_noticed(house: House, values: list[str | None], expected: bool) -> None:
    assert asked(house, changed("int4", *values), lambda snapshot: snapshot.has_nulls(TABLE, "at")) is expected


@pytest.mark.parametrize(
    ("typname", "text", "written"),
    [
        ("int8", " 12 ", "12"),
        ("numeric", "1.50", "1.50"),
        ("date", "2026-08-14", "2026-08-14"),
        ("timestamp", "2026-08-14T10:00:00", "2026-08-14 10:00:00"),
        ("timestamptz", "2026-08-14T10:00:00Z", "2026-08-14 10:00:00+00"),
    ],
)
def test_a_value_is_written_as_the_source_writes_it(house: House, typname: str, text: str, written: str) -> None:
    assert asked(house, changed(typname), lambda snapshot: snapshot.value(TABLE, "at", text)) == written


@pytest.mark.parametrize("typname", ["int4", "numeric", "float8", "date", "timestamp", "timestamptz"])
def test_what_is_no_value_is_an_error_that_names_the_column(house: House, typname: str) -> None:
    with pytest.raises(UsageError, match=r"'soon is no value of at \(") as caught:
        asked(house, changed(typname), lambda snapshot: snapshot.value(TABLE, "at", "'soon"))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("typname", "first", "second", "expected"),
    [
        ("int4", "9", "10", True),
        ("int4", "10", "9", False),
        ("int4", "9", "9", True),
        ("numeric", "9.50", "9.5", True),
        ("float8", "Infinity", "1e300", False),
        ("float8", "Infinity", "NaN", True),
        ("date", "2026-08-09", "2026-08-14", True),
        ("timestamptz", "2026-08-14 10:00:00+00", "2026-08-14 09:59:59.999999+00", False),
        ("timestamptz", "2026-08-14 10:00:00+02", "2026-08-14 09:00:00+00", True),
        ("timestamptz", "-infinity", "2026-08-14 09:00:00+00", True),
    ],
)
def test_which_value_precedes(house: House, typname: str, first: str, second: str, expected: bool) -> None:
    found = asked(house, changed(typname), lambda snapshot: snapshot.precedes(TABLE, "at", first, second))
    assert found is expected


SECOND = "2026-08-14 10:00:0{}+00"


@pytest.mark.parametrize(
    ("typname", "since", "overlap", "values", "expected"),
    [
        ("int4", "10", 0, ["9", "10", "11", None], {1, 2, 3}),
        ("int4", "10", 3, ["6", "7", "8"], {1, 2}),
        ("int8", "10", 10**30, ["-9223372036854775808", "0"], {0, 1}),
        ("numeric", "10.5", 1, ["9.5", "9.49", "NaN"], {0, 2}),
        ("float8", "10", 0, ["-Infinity", "Infinity", "NaN", "9.999999"], {1, 2}),
        ("date", "2026-08-14", 0, ["2026-08-13", "2026-08-14", "infinity"], {1, 2}),
        ("date", "2026-08-14", 1, ["2026-08-12", "2026-08-13", "-infinity"], {1}),
        ("date", "2026-08-14", 86_400, ["2026-08-12", "2026-08-13"], {1}),
        ("date", "2026-08-14", 86_401, ["2026-08-11", "2026-08-12"], {1}),
        ("timestamp", "2026-08-14 10:00:00", 5, ["2026-08-14 09:59:55", "2026-08-14 09:59:54.999999"], {0}),
        ("timestamptz", SECOND.format(5), 3, [SECOND.format(n) for n in range(9)], set(range(2, 9))),
        ("timestamptz", "2026-08-14 12:00:05+02", 0, [SECOND.format(4), SECOND.format(5), None], {1, 2}),
        ("timestamptz", SECOND.format(5), 0, ["infinity", "-infinity"], {0}),
    ],
)
def test_a_reading_since_a_value(
    house: House, typname: str, since: str, overlap: int, values: list[str | None], expected: set[int]
) -> None:
    content = changed(typname, *values)
    wanted = Reading(TABLE, ("id",), ("id",), Since("at", since, overlap))
    read = lines(asked(house, content, lambda snapshot: batches_of(snapshot, wanted)))
    assert [int(line) for line in read] == sorted(expected)


def test_a_reading_since_a_value_that_is_limited(house: House) -> None:
    content = changed("int4", "1", "5", None, "7")
    wanted = Reading(Selection("t", limit=2), ("id", "at"), ("id",), Since("at", "5", 0))
    found = lines(asked(house, content, lambda snapshot: batches_of(snapshot, wanted)))
    assert found == [b"1\t5", rb"2" + b"\t" + rb"\N"]


PLACES = Content(
    [("shop", "text"), ("number", "int4"), ("v", "text")],
    [(shop, str(number), f"{shop}{number}") for shop in ("a", "b", "c") for number in (-10, -9, 2, 10)],
    ("shop", "number"),
)
ALL = [b"\t".join(str(field).encode() for field in row) for row in PLACES.rows]
KEYS = [(shop or "", number or "") for shop, number, _ in PLACES.rows]


def ranged(house: House, *ranges: KeyRange, selection: Selection = TABLE) -> list[list[bytes]]:
    async def main() -> list[list[bytes]]:
        async with house.source(PLACES).snapshot() as snapshot:
            await snapshot.describe(selection)
            wanted = [reading(PLACES, selection)._replace(range=each) for each in ranges]
            return [lines(await batches_of(snapshot, each)) for each in wanted]

    return asyncio.run(main())


def test_reading_goes_on_behind_any_row(house: House) -> None:
    behind = ranged(house, *(KeyRange(after=key) for key in KEYS))
    assert behind == [ALL[place + 1 :] for place in range(len(KEYS))]


def test_rows_between_two_keys_both_included(house: House) -> None:
    spans = [(first, last) for first in range(len(KEYS)) for last in range(first, len(KEYS))]
    found = ranged(house, *(KeyRange(first=KEYS[first], last=KEYS[last]) for first, last in spans))
    assert found == [ALL[first : last + 1] for first, last in spans]


def test_ranges_with_one_end_or_none_or_nothing_in_them(house: House) -> None:
    found = ranged(
        house,
        KeyRange(),
        KeyRange(first=KEYS[5]),
        KeyRange(last=KEYS[5]),
        KeyRange(after=KEYS[2], last=KEYS[3]),
        KeyRange(after=KEYS[3], last=KEYS[3]),
        KeyRange(first=KEYS[4], last=KEYS[3]),
    )
    assert found == [ALL, ALL[5:], ALL[:6], ALL[3:4], [], []]


def test_a_range_begins_and_ends_where_no_row_is(house: House) -> None:
    found = ranged(
        house,
        KeyRange(after=("a", "3")),
        KeyRange(first=("aa", "0"), last=("bb", "0")),
        KeyRange(after=("", "0"), last=("b", "-10")),
        KeyRange(after=("d", "0")),
    )
    assert found == [ALL[3:], ALL[4:8], ALL[:5], []]


def test_a_limit_counts_within_a_range(house: House) -> None:
    limited = Selection("t", limit=3)
    assert ranged(house, KeyRange(after=KEYS[4]), KeyRange(after=KEYS[10]), selection=limited) == [ALL[5:8], ALL[11:]]


def test_a_range_of_what_is_new(house: House) -> None:
    async def main() -> list[list[bytes]]:
        async with house.source(PLACES).snapshot() as snapshot:
            await snapshot.describe(TABLE)
            new = reading(PLACES)._replace(since=Since("number", "2", 1))
            wanted = [new._replace(range=each) for each in (KeyRange(after=KEYS[2]), KeyRange(KEYS[2], None, KEYS[6]))]
            return [lines(await batches_of(snapshot, each)) for each in wanted]

    assert asyncio.run(main()) == [[ALL[n] for n in (3, 6, 7, 10, 11)], [ALL[n] for n in (3, 6)]]


def test_an_estimate_and_duplicates_of_a_range(house: House) -> None:
    async def main() -> tuple[list[Row], list[Row], int | None]:
        async with house.source(PLACES).snapshot() as snapshot:
            await snapshot.describe(TABLE)
            rest = reading(PLACES)._replace(range=KeyRange(after=KEYS[7]))
            whole = await snapshot.duplicates(reading(PLACES), ("shop",))
            return whole, await snapshot.duplicates(rest, ("shop",)), await snapshot.estimate(rest)

    whole, rest, estimate = asyncio.run(main())
    assert sorted(whole) == [("a",), ("b",), ("c",)]
    assert rest == [("c",)]
    assert estimate is not None


# ---- Cutting the rows into parts ------------------------------------------------------------------------------------


def cut(house: House, content: Content, parts: int, **changes: Any) -> list[tuple[str, ...]]:
    async def split(snapshot: Snapshot) -> list[tuple[str, ...]]:
        return await snapshot.split(reading(content)._replace(**changes), parts)

    return asked(house, content, split)


@pytest.mark.parametrize(
    ("parts", "keys"),
    [
        (1, []),
        (2, ["1727"]),
        (4, ["863", "1727", "2591"]),
    ],
)
def test_parts_have_as_many_rows_each(house: House, parts: int, keys: list[str]) -> None:
    assert cut(house, MANY, parts) == [(key,) for key in keys]


def test_there_are_no_more_parts_than_rows(house: House) -> None:
    assert cut(house, FEW, 100) == [("1",), ("2",)]


@pytest.mark.parametrize("rows", [[], [("7", "x")]])
def test_none_or_one_row_are_one_part(house: House, rows: list[Row]) -> None:
    assert cut(house, replace(FEW, rows=rows), 5) == []


def test_what_lies_in_a_range_is_cut(house: House) -> None:
    behind = cut(house, MANY, 2, range=KeyRange(after=("3445",)))
    assert behind == [("3450",)]


def test_what_is_new_is_cut(house: House) -> None:
    assert cut(house, MANY, 2, since=Since("id", "3446", 0)) == [("3450",)]


def test_keys_of_two_columns_with_odd_values_are_cut(house: House) -> None:
    texts = ["", "\tB", "\\N", "b\n", "ключ"]
    rows = [(str(number), text) for number in (1, 2) for text in texts]
    content = Content([("n", "int4"), ("t", 'text collate "C"')], rows, ("n", "t"))
    if isinstance(house, FakeHouse):
        content = replace(content, columns=[("n", "int4"), ("t", "text")])
    assert cut(house, content, 10) == rows[:-1]


def test_a_sample_is_cut_at_keys_of_its_own(house: House) -> None:
    keys = cut(house, MANY, 4, sample=50.0)
    assert 1 <= len(keys) <= 3
    assert {key for (key,) in keys} <= {row[0] for row in MANY.rows}
    assert sorted(keys, key=lambda key: int(key[0])) == keys


def test_an_error_in_the_middle_comes_after_whole_lines(house: House) -> None:
    source, selection = house.failing(MANY, 3000)

    async def main() -> list[bytes]:
        read: list[bytes] = []
        async with source.snapshot() as snapshot:
            await snapshot.describe(selection)
            with pytest.raises(SourceError, match="division by zero"):
                await collect(snapshot.read(reading(MANY, selection)), read)
        return read

    read = asyncio.run(main())
    assert len(read) <= 3000
    assert read == [b"%d\tv%d" % (n, n) for n in range(len(read))]
    closes(house)


async def collect(batches: AsyncIterator[list[bytes]], into: list[bytes]) -> None:
    async for batch in batches:
        into += batch


@pytest.mark.parametrize("read_some", [False, True])
def test_leaving_early_leaves_nothing_open(house: House, read_some: bool) -> None:
    async def main() -> None:
        async with house.source(MANY).snapshot() as snapshot:
            assert house.open_snapshots() == 1
            await snapshot.describe(TABLE)
            if read_some:
                generator: Any = snapshot.read(reading(MANY))
                async with aclosing(generator) as batches:
                    assert await anext(batches)

    asyncio.run(main())
    closes(house)


def test_an_error_of_the_callers_own_leaves_nothing_open(house: House) -> None:
    async def main() -> None:
        async with house.source(MANY).snapshot() as snapshot:
            await snapshot.describe(TABLE)
            raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="the caller's own"):
        asyncio.run(main())
    closes(house)


def closes(house: House) -> None:
    gc.collect()  # what was left open warns now
    poll(lambda: house.open_snapshots() == 0)


def poll(condition: Callable[[], bool]) -> None:
    """Ask until it holds, each time with a round trip to the server; a bound on the number only ends a failure."""
    assert any(condition() for _ in range(20_000))
