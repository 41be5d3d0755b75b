"""The base tables of a schema: which they are, in what order, and under which names they are found again."""

from __future__ import annotations

import asyncio
import secrets

import psycopg
import pytest
from psycopg import sql

from etlcli.errors import SourceError, UsageError
from etlcli.model import BaseTable, Relation
from etlcli.ports import Source
from tests.conftest import Schema
from tests.contract.fakes.source import FAKE_SCHEMA, FakeSource, column
from tests.integration.source_helpers import (
    debian_binaries,
    describe,
    role,
    server,
    source,
    wheel_binaries,
    with_parameters,
)


def tables(url: str, schema: str) -> list[BaseTable]:
    return asyncio.run(source(url).tables(schema))


def names(url: str, schema: str) -> list[str]:
    return [table.name for table in tables(url, schema)]


def refused(url: str, schema: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        tables(url, schema)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("kind", ["fake", "postgres"])
def test_what_every_source_does(kind: str, schema: Schema) -> None:
    schema.execute("create table t (id int)")
    made: dict[str, tuple[Source, str]] = {
        "fake": (FakeSource(Relation("t", (column("id", "int4"),)), []), FAKE_SCHEMA),
        "postgres": (source(schema.url), schema.name),
    }
    where, name = made[kind]
    assert asyncio.run(where.tables(name)) == [BaseTable(f"{name}.t", name, "t", is_visible=True)]
    with pytest.raises(UsageError) as caught:
        asyncio.run(where.tables(f"{name}s"))
    assert name in (caught.value.hint or "")


def test_tables_and_partitioned_tables_and_nothing_else(schema: Schema) -> None:
    schema.execute(
        "create table b (id int); create unlogged table a (id int); create table empty ();"
        " create table parted (id int, k text) partition by list (k);"
        " create table parted_x partition of parted for values in ('x');"
        " create table parted_rest partition of parted default partition by list (id);"
        " create table parted_rest_1 partition of parted_rest for values in (1);"
        " create view seen as select 1 as id; create materialized view kept as select 1 as id;"
        " create sequence counted; create type pair as (a int, b int); create index on b (id)"
    )
    assert names(schema.url, schema.name) == ["a", "b", "empty", "parted"]


def test_a_partition_is_its_parents_in_another_schema_too(schema: Schema) -> None:
    other = f"{schema.name}_parts"
    schema.execute(
        f"create schema {other}; create table parted (id int) partition by list (id);"
        f" create table {other}.one partition of parted for values in (1);"
        f" create table {other}.two partition of parted for values in (2); create view {other}.seen as select 1"
    )
    try:
        assert names(schema.url, schema.name) == ["parted"]
        error = refused(schema.url, other)
        assert error.message == f"the schema {other} has no base tables"
        assert "2 partitions and 1 view" in (error.hint or "")
    finally:
        schema.execute(f"drop schema {other} cascade")


def test_inheriting_tables_with_columns_of_their_own(schema: Schema) -> None:
    schema.execute(
        "create table events (id int, kind text);"
        # As tables were partitioned before there were partitions: what it holds, a read of the parent returns whole.
        " create table events_2025 () inherits (events); create table events_2026 (id int) inherits (events);"
        " create table clicks (x int, y int) inherits (events); create table clicks_2026 () inherits (clicks);"
        " create table named (name text); create table two_parents () inherits (events, named);"
        " create table shrunk (gone int) inherits (events); alter table shrunk drop column gone"
    )
    assert names(schema.url, schema.name) == ["clicks", "events", "named", "two_parents"]


def test_a_child_of_another_schemas_table(schema: Schema) -> None:
    other = f"{schema.name}_kids"
    schema.execute(
        f"create schema {other}; create table parent (id int); create table {other}.kid () inherits (parent)"
    )
    try:
        # Nothing else in its schema shows its rows.
        assert names(schema.url, other) == ["kid"]
    finally:
        schema.execute(f"drop schema {other} cascade")


def test_names_lead_back_to_their_tables(schema: Schema) -> None:
    # Each with a number of columns of its own, by which to tell it.
    awkward = ["Order Details", "order details", "a.b", 'we"ird', "ПРИВЕТ", "фильмы", "select", "1st", "trailing ", "'"]
    other = f'{schema.name} "Odd".Schema'
    with psycopg.connect(schema.url, autocommit=True) as connection:
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(other)))
        try:
            for count, name in enumerate(awkward, 1):
                columns = sql.SQL(", ").join(sql.SQL("{} int").format(sql.Identifier(f"c{n}")) for n in range(count))
                connection.execute(sql.SQL("create table {} ({})").format(sql.Identifier(other, name), columns))
            quoted = '"' + other.replace('"', '""') + '"'
            found = tables(schema.url, quoted)
            assert [table.name for table in found] == sorted(awkward, key=str.encode)
            assert {table.schema for table in found} == {other}
            for table in found:
                assert len(describe(schema.url, table.typed).columns) == awkward.index(table.name) + 1, table
        finally:
            connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(other)))


def test_what_its_own_name_means(schema: Schema) -> None:
    schema.execute("create table here (id int)")
    elsewhere = with_parameters(schema.url, options="-csearch_path=public")
    (seen,), (hidden,) = tables(schema.url, schema.name), tables(elsewhere, schema.name)
    assert seen == BaseTable(f"{schema.name}.here", schema.name, "here", is_visible=True)
    assert hidden == seen._replace(is_visible=False)
    # In public, too, the schema is said: another table of that name may come first on the search path.
    assert all(table.typed.startswith("public.") for table in tables(schema.url, "public"))


def test_a_schema_as_it_is_typed(schema: Schema) -> None:
    schema.execute("create table t (id int)")
    for typed in (schema.name, schema.name.upper(), f'"{schema.name}"', f" {schema.name} "):
        assert names(schema.url, typed) == ["t"]
    # In quotes it is what it is.
    error = refused(schema.url, f'"{schema.name.upper()}"')
    assert f"Did you mean {schema.name}?" == error.hint


def test_schemas_that_are_not_there(schema: Schema) -> None:
    schema.execute("create table t (id int)")
    near = refused(schema.url, schema.name.replace("t_", "y_"))
    assert f"there is no schema 'y_{schema.name[2:]}'" in near.message
    assert schema.name in (near.hint or "")
    far = refused(schema.url, "zzzzzz")
    assert (far.hint or "").startswith("Schemas there: ")
    assert "pg_catalog" not in (far.hint or "")
    for typed in ('"', "a.b.c", f"{schema.name}.t"):
        assert refused(schema.url, typed).message
    with pytest.raises(UsageError):
        tables(schema.url, "a\0b")


def test_a_schema_without_tables(schema: Schema) -> None:
    empty = refused(schema.url, schema.name)
    assert (empty.message, empty.hint) == (
        f"the schema {schema.name} has no base tables",
        "It is empty. Is it the right schema, and the right database?",
    )
    schema.execute("create view v as select 1; create view w as select 1; create materialized view m as select 1")
    full = refused(schema.url, schema.name)
    assert full.hint == "It has 1 materialized view and 2 views. Name with --table what else is to be copied."


def test_temporary_tables_are_nobodys() -> None:
    # Within one session the schema of temporary tables has a name, and is no place to copy from.
    binaries = wheel_binaries() or debian_binaries()
    assert binaries is not None
    with server(binaries) as started, psycopg.connect(started.url, autocommit=True) as connection:
        connection.execute("create temporary table passing (id int)")
        row = connection.execute("select nspname from pg_namespace where oid = pg_my_temp_schema()").fetchone()
        assert row is not None
        assert "has no base tables" in refused(started.url, str(row[0])).message


def test_rights(schema: Schema) -> None:
    schema.execute("create table t (id int)")
    with role(schema.url) as (name, url):
        with pytest.raises(SourceError) as caught:
            tables(url, schema.name)
        assert f"does not allow this user to use the schema {schema.name}" in caught.value.message
        assert "Grant USAGE" in (caught.value.hint or "")
        assert not caught.value.of_service
        schema.execute(f"grant usage on schema {schema.name} to {name}")
        # That its rows may not be read is the table's own error, beside the others that may.
        assert names(url, schema.name) == ["t"]


def test_a_source_that_cannot_be_reached_is_marked_so(schema: Schema) -> None:
    with pytest.raises(SourceError) as caught:
        tables(with_parameters(schema.url, password=secrets.token_hex(4)), schema.name)
    assert caught.value.of_service
