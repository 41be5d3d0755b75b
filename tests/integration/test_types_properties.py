"""Tables of random types with random rows, moved for real: PostgreSQL, Momento's adapter and server, DynamoDB's sink.

What arrives is read back and compared with what is there by the oracle, which shares no code with the package. A
column's type is drawn as a tree (scalars, domains, enums, arrays of one or two dimensions, composites), its values as
texts that PostgreSQL reads: a mistake in what is read, encoded, packed, unpacked or written shows as a cell that
differs.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import boto3
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from etlcli import pipeline
from etlcli.cache.momento import MomentoCache
from etlcli.config.momento import MomentoAccess
from etlcli.encoding import PLAIN
from etlcli.model import CREATE_DEFAULTS, Job, Layout, Reject, Selection
from etlcli.plan import make_plan, row_encoder
from etlcli.report import Report
from etlcli.sink.dynamodb import DynamoDBSink
from etlcli.sink.settings import DynamoDBSettings
from etlcli.source.postgres import PostgresSource
from etlcli.state import NullState
from tests.conftest import Schema, Stack
from tests.integration import oracle

Texts: TypeAlias = st.SearchStrategy[str]

# ---- Values, as PostgreSQL reads them -------------------------------------------------------------------------------

characters = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
awkward = st.sampled_from(
    ["", " ", "NULL", "null", "\\", "\\N", '"', "'", "{}", "(,)", ",", ";", "a,b", "]={", "\t", "\n", "\v", "\1", "é🎬"]
)  # fmt: skip
texts = st.text(characters, max_size=12) | awkward


def integers(bits: int) -> Texts:
    limit = 2 ** (bits - 1)
    return (st.integers(-limit, limit - 1) | st.sampled_from([0, -1, limit - 1, -limit])).map(str)


def floats(width: Literal[32, 64]) -> Texts:
    """Mostly numbers that N holds; now and then any at all."""
    ordinary = st.integers(-(10**7), 10**7).map(lambda number: str(number / 1000))
    return st.one_of(ordinary, ordinary, ordinary, st.floats(width=width).map(repr))


digits = st.text("0123456789", min_size=1, max_size=12)
many_digits = st.text("0123456789", min_size=35, max_size=40)
decimals = st.tuples(
    st.sampled_from(["", "-"]),
    st.one_of(digits, digits, digits, many_digits),
    st.just("") | digits.map(".{}".format),
    st.just("") | st.integers(-20, 20).map("e{}".format) | st.sampled_from(["e-115", "e-130", "e110", "e125"]),
).map("".join)
numbers = st.one_of(decimals, decimals, decimals, st.sampled_from(["NaN", "Infinity", "-Infinity", "-0.00"]))
offsets = st.integers(-15 * 60, 15 * 60).map(
    lambda minutes: f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
)
endless = st.sampled_from(["infinity", "-infinity", "0044-03-15 BC", "4714-11-24 BC", "10000-01-01", "294276-12-31"])
moments = st.datetimes().map(str) | endless
zoned = st.tuples(st.datetimes(dt.datetime(2, 1, 1), dt.datetime(9998, 1, 1)).map(str), offsets).map("".join)  # noqa: DTZ001
times = st.times().map(str) | st.just("24:00:00")
intervals = st.tuples(*[st.integers(-9999, 9999)] * 3, st.integers(-(10**12), 10**12)).map(
    lambda parts: "{} years {} mons {} days {} microseconds".format(*parts)
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e20, 1e20) | texts | st.just(10**40),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4),
    max_leaves=8,
).map(json.dumps)
spans = st.tuples(st.integers(-99, 99), st.integers(0, 99)).map(
    lambda span: f"[{span[0]},{span[0] + span[1]})"
) | st.sampled_from(["empty", "(,)", "[1,)"])
places = st.tuples(floats(64), floats(64)).map(lambda place: f"({place[0]},{place[1]})")

SCALARS: dict[str, Texts] = {
    "boolean": st.sampled_from(["t", "f"]),
    "smallint": integers(16),
    "integer": integers(32),
    "bigint": integers(64),
    "numeric": numbers,
    "real": floats(32),
    "double precision": floats(64),
    "money": st.integers(-(10**9), 10**9).map(lambda cents: f"{cents / 100:.2f}"),
    "text": texts,
    "char(20)": texts,
    "mood": st.sampled_from(["sad", 'so "so"', "a,b", "\\", "NULL", ""]),
    "positive": st.integers(1, 2**31 - 1).map(str),
    "bytea": st.binary(max_size=20).map(lambda data: f"\\x{data.hex()}"),
    "varbit": st.text("01", max_size=20),
    "date": st.dates().map(str) | endless,
    "time": times,
    "timetz": st.tuples(times, offsets).map("".join),
    "timestamp": moments,
    "timestamptz": zoned | endless,
    "interval": intervals,
    "json": documents,
    "jsonb": documents,
    "uuid": st.uuids().map(str),
    "inet": st.ip_addresses().map(str),
    "int4range": spans,
    "int4multirange": st.lists(spans, max_size=3).map(lambda each: f"{{{','.join(each)}}}"),
    "point": places,
    "tsvector": texts.map(
        lambda text: "'" + text.replace("\\", "\\\\").replace("'", "''") + "'" if text.strip() else ""
    ),
}
OWN = """
create type mood as enum ('sad', 'so "so"', 'a,b', E'\\\\', 'NULL', '');
create domain positive as integer check (value > 0);
"""

# ---- Types, as trees ------------------------------------------------------------------------------------------------

_numbers = itertools.count()


@dataclass(frozen=True)
class Tree:
    """A type.

    Attributes:
        name: How SQL writes it.
        values: Its values, as PostgreSQL reads them.
        made: The statements that make it and what it stands on, in order.
    """

    name: str
    values: Texts
    made: tuple[str, ...] = ()


def quoted(text: str) -> str:
    """Write a text as arrays and composites hold it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array_text(values: list[str | None]) -> str:
    return "{" + ",".join("NULL" if value is None else quoted(value) for value in values) + "}"


def array_of(element: Tree) -> Tree:
    some = st.none() | element.values
    one = st.lists(some, max_size=4).map(array_text)
    two = st.integers(1, 3).flatmap(
        lambda width: st.lists(st.lists(some, min_size=width, max_size=width), min_size=1, max_size=3)
    )
    square = two.map(lambda rows: "{" + ",".join(map(array_text, rows)) + "}")
    shifted = st.tuples(st.integers(-3, 3), some).map(lambda it: f"[{it[0]}:{it[0]}]={array_text([it[1]])}")
    return Tree(f"{element.name}[]", st.one_of(one, one, one, square, shifted), element.made)


def composite_of(fields: list[tuple[str, Tree]]) -> Tree:
    name = f"made_{next(_numbers)}"
    columns = ", ".join(f"{sql.Identifier(field).as_string()} {tree.name}" for field, tree in fields)
    values = st.tuples(*(st.none() | tree.values for _, tree in fields)).map(
        lambda row: "(" + ",".join("" if value is None else quoted(value) for value in row) + ")"
    )
    return Tree(
        name, values, (*(made for _, tree in fields for made in tree.made), f"create type {name} as ({columns})")
    )


def domain_over(tree: Tree) -> Tree:
    name = f"made_{next(_numbers)}"
    return Tree(name, tree.values, (*tree.made, f"create domain {name} as {tree.name}"))


names = st.text(characters, min_size=1, max_size=8).filter(lambda name: name.strip() and len(name.encode()) < 60) | (
    st.sampled_from(["select", "a.b", "A b", '"', "#", ":x", "{n}", "é🎬", "size", "'"])
)
scalars = st.sampled_from([Tree(name, values) for name, values in SCALARS.items()])


def over(inner: st.SearchStrategy[Tree], *, of_arrays: bool) -> st.SearchStrategy[Tree]:
    """Types that stand on others."""
    fields = st.lists(st.tuples(names, inner), min_size=1, max_size=3, unique_by=lambda field: field[0])
    # An array of arrays has more dimensions, unless there is a domain or a composite between the two.
    elements = st.one_of(inner.map(domain_over), fields.map(composite_of)) if of_arrays else inner
    return st.one_of(inner.map(domain_over), elements.map(array_of), fields.map(composite_of))


simple = over(scalars, of_arrays=False)
nested = over(simple, of_arrays=True)
trees = st.one_of(scalars, scalars, simple, nested)


@dataclass(frozen=True)
class Table:
    """A table: its columns, and rows of texts."""

    columns: list[tuple[str, Tree]]
    rows: list[tuple[str | None, ...]]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = draw(
        st.lists(
            st.tuples(names.filter(lambda name: name != "id"), trees),
            min_size=1,
            max_size=5,
            unique_by=lambda column: column[0],
        )
    )
    row = st.tuples(*(st.none() | tree.values for _, tree in columns))
    return Table(columns, draw(st.lists(row, min_size=1, max_size=12)))


# ---- Moving them ----------------------------------------------------------------------------------------------------


class World:
    """The services, and the tables in them."""

    def __init__(self, stack: Stack, schema: Schema, unique: str) -> None:
        self.stack = stack
        self.schema = schema
        self.unique = unique
        self.runner = asyncio.Runner()
        self.connection = schema.connection
        self.dynamodb = boto3.client(
            "dynamodb",
            endpoint_url=stack.dynamodb_url,
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        schema.execute(OWN)

    def make(self, table: Table) -> str:
        """Make a table, and the types that it wants; answer its name."""
        name = f"t{next(_numbers)}"
        made = dict.fromkeys(statement for _, tree in table.columns for statement in tree.made)
        columns = ", ".join(f"{sql.Identifier(column).as_string()} {tree.name}" for column, tree in table.columns)
        for statement in (*made, f"create table {name} (id integer primary key, {columns})"):
            self.schema.execute(statement)
        parameters = ", ".join(["%s", *(f"%s::{tree.name}" for _, tree in table.columns)])
        insert = sql.SQL(f"insert into {name} values ({parameters})")
        for number, row in enumerate(table.rows):
            self.connection.execute(insert, [number, *row], prepare=False)
        return name

    def drop(self, table: Table, name: str) -> None:
        self.schema.execute(f"drop table {name}")
        for statement in reversed(list(dict.fromkeys(made for _, tree in table.columns for made in tree.made))):
            _, kind, made, *_ = statement.split()
            self.schema.execute(f"drop {kind} if exists {made} cascade")

    def move(self, name: str, layout: Layout) -> tuple[Report, list[Reject]]:
        """Run a table through the real pipeline."""
        report, rejects = Report(name), list[Reject]()
        report.hear_rejects = rejects.extend
        job = Job(name, Selection(table=name), self.unique, self.destination(name), layout=layout)

        async def main() -> None:
            source = PostgresSource(self.schema.url, report.counters)
            place = DynamoDBSettings("us-east-1", self.stack.dynamodb_url, access_key_id="a", secret_access_key="b")
            access = MomentoAccess(kind="local", local=self.stack.momento)
            async with (
                MomentoCache(access, job.cache, report.counters) as cache,
                DynamoDBSink(place, job.destination, report.counters) as sink,
            ):
                await pipeline.run(job, PLAIN, CREATE_DEFAULTS, source, cache, sink, NullState(), report)

        self.runner.run(main())
        return report, rejects

    def destination(self, name: str) -> str:
        return f"{self.unique}-{name}"

    def encoded(self, name: str) -> tuple[list[bytes], list[Reject]]:
        """Read and encode a table, and leave it at that."""

        async def main() -> tuple[list[bytes], list[Reject]]:
            job, report = Job(name, Selection(table=name), "none", "none"), Report(name)
            async with PostgresSource(self.schema.url, report.counters).snapshot() as snapshot:
                plan = make_plan(job, await snapshot.describe(job.selection), "here")
                encoder = row_encoder(plan)
                lines = [line async for batch in snapshot.read(plan.reading) for line in batch]
                return encoder.encode(lines)

        return self.runner.run(main())


@pytest.fixture
def world(stack: Stack, schema: Schema, unique: str) -> Iterator[World]:
    made = World(stack, schema, unique)
    yield made
    made.runner.close()
    made.dynamodb.close()


def many(examples: int) -> settings:
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples, deadline=None, suppress_health_check=slow)


@many(400)
@given(tables(), st.sampled_from(["packed", "rows"]))
def test_any_table_arrives_exactly(world: World, table: Table, layout: Layout) -> None:
    name = world.make(table)
    report, rejects = world.move(name, layout)
    outcome = oracle.compare(
        world.schema.url, world.stack.dynamodb_url, f"select * from {name}", world.destination(name)
    )
    assert not outcome.differences, outcome.differences
    counters = report.counters
    assert (counters.rows_extracted, counters.rows_loaded) == (len(table.rows), outcome.equal)
    assert {reject.row["id"] for reject in rejects} == outcome.reasons.keys()
    world.dynamodb.delete_table(TableName=world.destination(name))
    world.drop(table, name)


@many(1000)
@given(tables())
def test_any_table_is_encoded_exactly(world: World, table: Table) -> None:
    name = world.make(table)
    items, rejects = world.encoded(name)
    kinds, rows = oracle.rows_of(world.schema.url, f"select * from {name} order by id")
    wanted, refused = [], set()
    for row in rows:
        try:
            wanted.append(oracle.expected(row, kinds, ["id"]))
        except oracle.Unrepresentable:
            refused.add(row["id"])
    assert [{attribute: by_value(value) for attribute, value in json.loads(item).items()} for item in items] == wanted
    assert {reject.row["id"] for reject in rejects} == refused
    world.drop(table, name)


def by_value(value: dict[str, Any]) -> oracle.Value:
    """Read DynamoDB JSON as boto3 gives it: with binaries as bytes."""
    ((letter, content),) = value.items()
    match letter:
        case "B":
            return "B", base64.b64decode(content, validate=True)
        case "L":
            return "L", [by_value(element) for element in content]
        case "M":
            return "M", {name: by_value(member) for name, member in content.items()}
    return oracle.from_dynamodb(value)
