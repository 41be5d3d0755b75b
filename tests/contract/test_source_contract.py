"""What every source does: the in-memory one, and PostgreSQL.

The server is the embedded stack's, unless ``MOMENTO_ETL_TEST_POSTGRES`` names another.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
import pytest
from psycopg import sql

from etlcli.errors import SourceError
from etlcli.model import Relation, Selection
from etlcli.ports import Reading, Snapshot, Source
from etlcli.progress import Counters
from etlcli.source.postgres import PostgresSource
from tests.conftest import Schema
from tests.contract.fakes.source import FakeSource, column

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
