"""What the PostgreSQL source finds and reads: names, relations, types, rows, queries.

On the stack's server; extension types, foreign tables and an older version on Debian's
(``MOMENTO_ETL_TEST_POSTGRES_BIN`` names another folder of PostgreSQL binaries with contrib), else they are skipped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from etlcli.encoding import RowEncoder
from etlcli.errors import SourceError, Unavailable, UsageError
from etlcli.model import Column, Key, KeyAttribute, PgType, Relation, Selection
from etlcli.ports import Reading
from etlcli.progress import Counters
from etlcli.source import postgres
from etlcli.source.postgres import PostgresSource
from tests.conftest import Schema, Stack
from tests.integration.source_helpers import (
    PATIENT,
    closing,
    debian_binaries,
    describe,
    duplicates,
    query,
    read,
    role,
    server,
    source,
    with_parameters,
)


@pytest.fixture(scope="session")
def debian() -> Iterator[str]:
    """The URL of Debian's server, with contrib."""
    binaries = debian_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL of Debian's is installed (apt-get install postgresql)")
    with server(binaries) as started:
        yield started.url


@pytest.fixture
def contrib(debian: str) -> Iterator[str]:
    """A database of a test's own on Debian's server."""
    name = "contrib_test"
    with psycopg.connect(debian, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield with_parameters(debian, dbname=name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def names(relation: Relation) -> list[str]:
    return [column.name for column in relation.columns]


def type_of(relation: Relation, name: str = "v") -> PgType:
    return next(column.type for column in relation.columns if column.name == name)


def expect_usage(url: str, selection: str | Selection, message: str, hint: str = "") -> UsageError:
    """Describing is refused, with such words."""
    with pytest.raises(UsageError) as caught:
        describe(url, selection)
    assert re.search(message, caught.value.message), caught.value.message
    assert caught.value.hint
    assert re.search(hint, caught.value.hint), caught.value.hint
    return caught.value


# ---- Names ----------------------------------------------------------------------------------------------------------

NAMES = [
    ("movies", "movies"),
    ("Movies", "movies"),
    ("MOVIES", "movies"),
    ("MixedCase", "MixedCase"),
    ("Order Details", "Order Details"),
    ('"Order Details"', "Order Details"),
    ("order", "order"),
    ('"select"', "select"),
    ("a.b", "a.b"),
    ('"a.b"', "a.b"),
    ("..", ".."),
    ("it's", "it's"),
    ('"say ""hi"""', 'say "hi"'),
    ("größe", "größe"),
    ("映画 🎬", "映画 🎬"),
    ("percent %s {}", "percent %s {}"),
    (r"back\slash", r"back\slash"),
    ("$1", "$1"),
    ("1st", "1st"),
    ("x" * 63, "x" * 63),
    ("é" * 31, "é" * 31),
    ("-- comment", "-- comment"),
    ("x; drop table y", "x; drop table y"),
]


@pytest.mark.parametrize(("typed", "name"), NAMES)
def test_a_name_finds_its_table(schema: Schema, typed: str, name: str) -> None:
    schema.connection.execute(sql.SQL("create table {} (v int)").format(sql.Identifier(name)))
    schema.connection.execute(sql.SQL("insert into {} values (7)").format(sql.Identifier(name)))
    relation = describe(schema.url, typed)
    assert names(relation) == ["v"]
    assert read(schema.url, typed) == [b"7"]
    # The name that is shown can be typed back.
    assert relation.name is not None
    assert describe(schema.url, relation.name) == relation


@pytest.mark.parametrize("quote", [False, True])
def test_a_name_with_its_schema(schema: Schema, stack: Stack, quote: bool) -> None:
    schema.execute('create table "Order Details" (v int); insert into "Order Details" values (7)')
    typed = f'{schema.name}."Order Details"' if quote else f"{schema.name}.Order Details"
    assert read(stack.postgres_url, typed) == [b"7"]
    assert describe(stack.postgres_url, typed).name == f'{schema.name}."Order Details"'


def test_exact_case_comes_before_lower_case(schema: Schema) -> None:
    schema.execute('create table "Movies" (a int); create table movies (b int)')
    assert names(describe(schema.url, "Movies")) == ["a"]
    assert names(describe(schema.url, "movies")) == ["b"]
    assert names(describe(schema.url, "MOVIES")) == ["b"]


def test_the_schema_comes_before_a_dot_in_a_name(schema: Schema) -> None:
    schema.execute(f'create table "{schema.name}.t" (dotted int); create table t (plain int)')
    assert names(describe(schema.url, f"{schema.name}.t")) == ["plain"]
    assert names(describe(schema.url, f'"{schema.name}.t"')) == ["dotted"]


def test_an_index_does_not_stand_before_a_table(schema: Schema) -> None:
    schema.execute('create table movies (v int); create index "Movies" on movies (v)')
    assert names(describe(schema.url, "Movies")) == ["v"]


def test_the_search_path_decides_between_schemas(schema: Schema, stack: Stack) -> None:
    other = f"{schema.name}_b"
    schema.execute(f'create schema "{other}"; create table t (a int); create table "{other}".t (b int)')
    try:
        both = stack.postgres_url
        first = with_parameters(both, options=f"-csearch_path={schema.name},{other}")
        second = with_parameters(both, options=f"-csearch_path={other},{schema.name}")
        assert names(describe(first, "t")) == ["a"]
        assert names(describe(second, "t")) == ["b"]
        assert names(describe(first, f"{other}.t")) == ["b"]
        # The row source is the one that was described, not a name to be looked up again.
        schema.execute(f'insert into "{other}".t values (5)')
        assert read(first, f"{other}.t") == [b"5"]
    finally:
        schema.execute(f'drop schema "{other}" cascade')


def test_a_temporary_table_of_another_session(schema: Schema) -> None:
    schema.execute("create temporary table mine (v int)")
    row = schema.connection.execute("select nspname from pg_namespace where oid = pg_my_temp_schema()").fetchone()
    assert row is not None
    with pytest.raises(SourceError, match="temporary table of another session"):
        describe(schema.url, f"{row[0]}.mine")
    expect_usage(schema.url, "mine", "there is no table 'mine'")


def test_near_names_are_hinted(schema: Schema, stack: Stack) -> None:
    schema.execute('create table customers (v int); create table "Order Details" (v int)')
    expect_usage(
        stack.postgres_url, f"{schema.name}.custmers", "there is no table .*custmers", f"{schema.name}.customers"
    )
    expect_usage(stack.postgres_url, f"{schema.name[:-1]}.customers", "there is no table", f"{schema.name}.customers")
    expect_usage(schema.url, "Order Detail", "there is no table", re.escape(f'{schema.name}."Order Details"'))


def test_a_table_outside_the_search_path_is_hinted_with_its_schema(schema: Schema, stack: Stack) -> None:
    schema.execute(f"create table only_in_{schema.name} (v int)")
    expect_usage(
        stack.postgres_url,
        f"only_in_{schema.name}",
        "no table",
        rf"Did you mean {schema.name}\.only_in_{schema.name}\b",
    )


def test_nothing_is_near(contrib: str) -> None:
    expect_usage(contrib, "movies", "there is no table 'movies'", "no table that this user can see")
    with psycopg.connect(contrib, autocommit=True) as connection:
        for number in range(12):
            connection.execute(sql.SQL("create table {} (v int)").format(sql.Identifier(f"t{number:02}")))
    expect_usage(contrib, "zzzzzzzzzzzz", "there is no table", r"Tables there: t00, .*, t09 and 2 more\.")


@pytest.mark.parametrize(
    ("typed", "what"),
    [
        ("t_pkey", "an index"),
        ("p_pkey", "an index"),
        ("t_id_seq", "a sequence"),
        ("pair", "a composite type"),
    ],
)
def test_what_holds_no_rows(schema: Schema, typed: str, what: str) -> None:
    schema.execute(
        "create table t (id serial primary key); create type pair as (a int, b int);"
        "create table p (id int primary key) partition by range (id)"
    )
    expect_usage(schema.url, typed, f"{typed} is {what}, which holds no rows", "Name a table")


def test_a_toast_table(schema: Schema) -> None:
    schema.execute("create table t (v text)")
    row = schema.connection.execute("select reltoastrelid::regclass::text from pg_class where oid = 't'::regclass")
    found = row.fetchone()
    assert found is not None
    expect_usage(schema.url, str(found[0]), "is a TOAST table, which holds no rows")


@pytest.mark.parametrize(
    "typed", ["pg_class", "pg_catalog.pg_type", "information_schema.tables", "pg_stats", "pg_settings"]
)
def test_system_catalogs_can_be_read(stack: Stack, typed: str) -> None:
    relation = describe(stack.postgres_url, typed)
    assert len(relation.columns) > 3
    lines = read(stack.postgres_url, Selection(typed, limit=3))
    assert len(lines) == 3
    assert {line.count(b"\t") for line in lines} == {len(relation.columns) - 1}


@pytest.mark.parametrize("typed", ["mov\0ies", "mov\udce9"])
def test_a_name_that_cannot_be_sent(stack: Stack, typed: str) -> None:
    expect_usage(stack.postgres_url, typed, "the table's name holds a character that PostgreSQL cannot take")


# ---- Relations ------------------------------------------------------------------------------------------------------


def test_a_table(schema: Schema) -> None:
    schema.execute(
        "create table t (id int primary key, v text); insert into t select i, 'x' from generate_series(1, 1000) i;"
        "analyze t"
    )
    relation = describe(schema.url, "t")
    assert relation.name == f"{schema.name}.t"
    assert relation.columns == (Column("id", PgType("integer", "int4")), Column("v", PgType("text", "text")))
    assert relation.primary_key == ("id",)
    assert relation.unique_keys == (frozenset({"id"}),)
    assert relation.estimated_rows == 1000
    assert relation.stored_bytes is not None
    assert 30_000 < relation.stored_bytes < 200_000


def test_a_table_in_public_is_shown_bare(contrib: str) -> None:
    with psycopg.connect(contrib, autocommit=True) as connection:
        connection.execute('create table movies (v int); create table "Order" (v int); create table "order" (v int)')
    assert describe(contrib, "movies").name == "movies"
    assert describe(contrib, "public.movies").name == "movies"
    assert describe(contrib, "Order").name == '"Order"'
    assert describe(contrib, "order").name == "order"


def test_a_table_never_analysed(schema: Schema) -> None:
    schema.execute("create table t (v int) with (autovacuum_enabled = off); insert into t values (1)")
    relation = describe(schema.url, "t")
    assert relation.estimated_rows is None
    assert relation.stored_bytes == 8192


def test_an_empty_table(schema: Schema) -> None:
    schema.execute("create table t (id int primary key)")
    assert describe(schema.url, "t").stored_bytes == 0
    assert read(schema.url, "t", order_by=["id"]) == []


def test_a_view(schema: Schema) -> None:
    schema.execute("create table t (id int primary key); insert into t values (1); create view v as select * from t")
    relation = describe(schema.url, "v")
    assert (relation.primary_key, relation.unique_keys) == ((), ())
    assert (relation.estimated_rows, relation.stored_bytes) == (None, None)
    assert read(schema.url, "v") == [b"1"]


def test_a_materialized_view(schema: Schema) -> None:
    schema.execute(
        "create materialized view m as select i as id from generate_series(1, 500) i; create unique index on m (id);"
        "analyze m"
    )
    relation = describe(schema.url, "m")
    assert relation.estimated_rows == 500
    assert relation.stored_bytes is not None
    assert relation.primary_key == ()
    assert len(read(schema.url, "m")) == 500


def test_a_materialized_view_without_data(schema: Schema) -> None:
    schema.execute("create materialized view m as select 1 as id with no data")
    with pytest.raises(SourceError, match="has not been populated") as caught:
        describe(schema.url, "m")
    assert "REFRESH MATERIALIZED VIEW" in f"{caught.value.message} {caught.value.hint}"


def test_a_partitioned_parent(schema: Schema) -> None:
    schema.execute(
        "create table p (region text, id int, v text, primary key (id, region)) partition by list (region);"
        "create table p_eu partition of p for values in ('eu') partition by range (id);"
        "create table p_eu_1 partition of p_eu for values from (0) to (100);"
        "create table p_eu_2 partition of p_eu for values from (100) to (1000);"
        "create table p_us partition of p for values in ('us');"
        "insert into p select 'eu', i, 'x' from generate_series(0, 499) i;"
        "insert into p select 'us', i, 'x' from generate_series(0, 249) i; analyze"
    )
    relation = describe(schema.url, "p")
    assert relation.primary_key == ("id", "region")
    assert relation.unique_keys == (frozenset({"id", "region"}),)
    assert relation.estimated_rows == 750
    parts = [describe(schema.url, name) for name in ("p_eu_1", "p_eu_2", "p_us")]
    assert relation.stored_bytes == sum(part.stored_bytes or 0 for part in parts)
    assert describe(schema.url, "p_eu").estimated_rows == 500
    lines = read(schema.url, "p", ["id", "region"], ["id", "region"])
    assert len(lines) == 750
    assert lines[:3] == [b"0\teu", b"0\tus", b"1\teu"]


def test_an_inheritance_parent(schema: Schema) -> None:
    schema.execute(
        "create table parent (id int primary key, v text); create table child (extra int) inherits (parent);"
        "create table grandchild () inherits (child);"
        "insert into parent values (1, 'p'); insert into child values (1, 'c', 2);"
        "insert into grandchild select 1, 'g', 3 from generate_series(1, 300); analyze"
    )
    relation = describe(schema.url, "parent")
    assert names(relation) == ["id", "v"]
    # The parent's key does not bind the children's rows, and those are read as well.
    assert relation.primary_key == ()
    assert relation.unique_keys == ()
    assert len(read(schema.url, "parent")) == 302
    assert relation.estimated_rows == 302
    grandchild = describe(schema.url, "grandchild")
    assert relation.stored_bytes is not None
    assert grandchild.stored_bytes is not None
    assert relation.stored_bytes > grandchild.stored_bytes
    assert describe(schema.url, "child").primary_key == ()


def test_a_foreign_table(contrib: str) -> None:
    with psycopg.connect(contrib, autocommit=True) as connection:
        connection.execute("create table far (id int primary key, v text); insert into far values (1, 'x')")
        connection.execute("create extension postgres_fdw; create schema near")
        parts = psycopg.conninfo.conninfo_to_dict(contrib)
        connection.execute(
            sql.SQL(
                "create server loop foreign data wrapper postgres_fdw options (host {}, port {}, dbname {});"
                "create user mapping for current_user server loop options (user 'postgres');"
                "import foreign schema public from server loop into near"
            ).format(*(sql.Literal(str(parts[name])) for name in ("host", "port", "dbname")))
        )
    relation = describe(contrib, "near.far")
    assert names(relation) == ["id", "v"]
    assert relation.primary_key == ()
    assert (relation.estimated_rows, relation.stored_bytes) == (None, None)
    assert read(contrib, "near.far") == [b"1\tx"]


def test_a_table_without_columns(schema: Schema) -> None:
    schema.execute("create table t (); insert into t default values")
    assert describe(schema.url, "t").columns == ()
    assert read(schema.url, "t") == [b""]


def test_generated_identity_and_dropped_columns(schema: Schema) -> None:
    virtual = ", w int generated always as (a * 3) virtual" if schema.connection.info.server_version >= 180000 else ""
    schema.execute(
        "create table t (gone text, id int generated always as identity primary key, a int, was text,"
        f" d int generated always as (a * 2) stored{virtual});"
        "insert into t (a) values (5), (6); alter table t drop column gone; alter table t drop column was"
    )
    expected = ["id", "a", "d", *(["w"] if virtual else [])]
    relation = describe(schema.url, "t")
    assert names(relation) == expected
    assert relation.primary_key == ("id",)
    assert read(schema.url, "t", order_by=["id"])[0] == (b"1\t5\t10\t15" if virtual else b"1\t5\t10")


def test_1600_columns(schema: Schema) -> None:
    wide = [f"c{n:04}" for n in range(1600)]
    schema.execute(f"create table t ({', '.join(f'{name} smallint' for name in wide)}, primary key (c1599, c0000))")
    schema.execute(f"insert into t values ({', '.join(str(n % 7) for n in range(1600))})")
    relation = describe(schema.url, "t")
    assert names(relation) == wide
    assert relation.primary_key == ("c1599", "c0000")
    (line,) = read(schema.url, "t", order_by=relation.primary_key)
    assert line.split(b"\t") == [b"%d" % (n % 7) for n in range(1600)]


@pytest.mark.parametrize(
    ("statements", "primary", "unique"),
    [
        ("", (), []),
        ("alter table t add primary key (c, a)", ("c", "a"), [{"a", "c"}]),
        ("alter table t add primary key (a) include (b, c)", ("a",), [{"a"}]),
        # A snapshot shows committed rows only, and commits have checked it.
        ("alter table t add primary key (a) deferrable initially deferred", ("a",), [{"a"}]),
        ("alter table t add unique (a) deferrable", (), [{"a"}]),
        ("create unique index on t (a)", (), [{"a"}]),
        ("create unique index on t (a, b, c)", (), [{"a", "b", "c"}]),
        ("create unique index on t (a) include (b)", (), [{"a"}]),
        ("alter table t add primary key (b); alter table t add unique (a, c)", ("b",), [{"b"}, {"a", "c"}]),
        ("create unique index on t (a) where b > 0", (), []),
        ("create unique index on t ((a + 1))", (), []),
        ("create unique index on t (a, (b + 1))", (), []),
        ("create index on t (a)", (), []),
        # Over columns that may be NULL, rows that differ in nothing are allowed.
        ("create unique index on t (n)", (), []),
        ("create unique index on t (a, n)", (), []),
        ("create unique index on t (n) nulls not distinct", (), [{"n"}]),
        ("create unique index on t (a) include (n)", (), [{"a"}]),
        ("alter table t add exclude using btree (a with =)", (), []),
    ],
)
def test_keys(schema: Schema, statements: str, primary: tuple[str, ...], unique: list[set[str]]) -> None:
    schema.execute("create table t (a int not null, b int not null, c int not null, n int)")
    if statements:
        schema.execute(statements)
    relation = describe(schema.url, "t")
    assert relation.primary_key == primary
    assert list(relation.unique_keys) == unique


def test_an_invalid_unique_index_says_nothing(schema: Schema) -> None:
    schema.execute("create table t (a int not null); insert into t values (1), (1)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        schema.connection.execute("create unique index concurrently u on t (a)")
    row = schema.connection.execute("select indisvalid from pg_index where indexrelid = 'u'::regclass").fetchone()
    assert row == (False,)
    assert describe(schema.url, "t").unique_keys == ()


def test_keys_on_an_older_server(contrib: str) -> None:
    with psycopg.connect(contrib, autocommit=True) as connection:
        connection.execute("create table t (a int, b int not null, primary key (b, a)); create unique index on t (a)")
    relation = describe(contrib, "t")
    assert relation.primary_key == ("b", "a")
    assert set(relation.unique_keys) == {frozenset({"a", "b"}), frozenset({"a"})}


# ---- Types ----------------------------------------------------------------------------------------------------------

INT4 = PgType("integer", "int4")
TEXT = PgType("text", "text")


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("integer", INT4),
        ("numeric(10,2)", PgType("numeric(10,2)", "numeric")),
        ("varchar(20)", PgType("character varying(20)", "varchar")),
        ("char(3)", PgType("character(3)", "bpchar")),
        ("bpchar", PgType("bpchar", "bpchar")),
        ('"char"', PgType('"char"', "char")),
        ("name", PgType("name", "name")),
        ("timestamp(3) with time zone", PgType("timestamp(3) with time zone", "timestamptz")),
        ("interval day to second(2)", PgType("interval day to second(2)", "interval")),
        ("bit varying(5)", PgType("bit varying(5)", "varbit")),
        ("pg_lsn", PgType("pg_lsn", "pg_lsn")),
        ("regclass", PgType("regclass", "regclass")),
        ("xid8", PgType("xid8", "xid8")),
        ("int2vector", PgType("int2vector", "int2vector")),
        ("oidvector", PgType("oidvector", "oidvector")),
        ("tsvector", PgType("tsvector", "tsvector")),
        ("jsonpath", PgType("jsonpath", "jsonpath")),
        ("int4range", PgType("int4range", "int4range", "range")),
        ("tstzmultirange", PgType("tstzmultirange", "tstzmultirange", "multirange")),
        ("text[]", PgType("text[]", "_text", "array", element=TEXT)),
        ("text[][]", PgType("text[]", "_text", "array", element=TEXT)),
        ("numeric(6,2)[]", PgType("numeric(6,2)[]", "_numeric", "array", element=PgType("numeric", "numeric"))),
        ("box", PgType("box", "box")),
        ("box[]", PgType("box[]", "_box", "array", element=PgType("box", "box"), delimiter=";")),
        ("point[]", PgType("point[]", "_point", "array", element=PgType("point", "point"))),
        (
            "int4range[]",
            PgType("int4range[]", "_int4range", "array", element=PgType("int4range", "int4range", "range")),
        ),
        (
            "int2vector[]",
            PgType("int2vector[]", "_int2vector", "array", element=PgType("int2vector", "int2vector")),
        ),
    ],
)
def test_built_in_types(schema: Schema, declared: str, expected: PgType) -> None:
    schema.execute(f"create table t (v {declared})")
    assert type_of(describe(schema.url, "t")) == expected


def test_types_of_the_users_own(schema: Schema) -> None:
    schema.execute(
        "create type mood as enum ('sad', 'ok'); create type inner_t as (n int, gone int, moods mood[]);"
        "alter type inner_t drop attribute gone;"
        "create domain positive as int check (value > 0); create domain very_positive as positive;"
        "create domain several as positive[]; create domain boxes as box[]; create domain a_box as box;"
        "create type outer_t as (i inner_t, many inner_t[], d several);"
        "create domain wrapped as outer_t; create domain rewrapped as wrapped;"
        "create type span as range (subtype = float8);"
        "create table rowed (a int);"
        "create table t (e mood, es mood[], p positive, vp very_positive, s several, ss several[], vps very_positive[],"
        " b boxes, ab a_box[], o outer_t, w rewrapped, ws rewrapped[],"
        " sp span, spm span_multirange, r rowed, rs rowed[])"
    )
    relation = describe(schema.url, "t")
    mood = PgType("mood", "mood", "enum")
    moods = PgType("mood[]", "_mood", "array", element=mood)
    positive = PgType("positive", "int4")
    several = PgType("several", "_int4", "array", element=INT4)
    assert type_of(relation, "e") == mood
    assert type_of(relation, "es") == moods
    assert type_of(relation, "p") == positive
    assert type_of(relation, "vp") == PgType("very_positive", "int4")
    positives = PgType("several", "_positive", "array", element=positive)
    assert type_of(relation, "s") == positives != several
    assert type_of(relation, "ss") == PgType("several[]", "_several", "array", element=positives)
    assert type_of(relation, "vps") == PgType(
        "very_positive[]", "_very_positive", "array", element=PgType("very_positive", "int4")
    )
    assert type_of(relation, "b") == PgType("boxes", "_box", "array", element=PgType("box", "box"), delimiter=";")
    assert type_of(relation, "ab") == PgType(
        "a_box[]", "_a_box", "array", element=PgType("a_box", "box"), delimiter=";"
    )
    inner = PgType("inner_t", "inner_t", "composite", fields=(Column("n", INT4), Column("moods", moods)))
    fields = (
        Column("i", inner),
        Column("many", PgType("inner_t[]", "_inner_t", "array", element=inner)),
        Column("d", positives),
    )
    assert type_of(relation, "o") == PgType("outer_t", "outer_t", "composite", fields=fields)
    wrapped = PgType("rewrapped", "outer_t", "composite", fields=fields)
    assert type_of(relation, "w") == wrapped
    assert type_of(relation, "ws") == PgType("rewrapped[]", "_rewrapped", "array", element=wrapped)
    assert type_of(relation, "sp") == PgType("span", "span", "range")
    assert type_of(relation, "spm") == PgType("span_multirange", "span_multirange", "multirange")
    rowed = PgType("rowed", "rowed", "composite", fields=(Column("a", INT4),))
    assert type_of(relation, "r") == rowed
    assert type_of(relation, "rs") == PgType("rowed[]", "_rowed", "array", element=rowed)


def test_the_delimiter_is_the_one_that_postgresql_writes(schema: Schema) -> None:
    schema.execute(
        "create domain a_box as box; create table t (v a_box[]); insert into t values ('{(1,1),(0,0);(2,2),(1,1)}')"
    )
    assert read(schema.url, "t") == [b"{(1,1),(0,0);(2,2),(1,1)}"]
    assert type_of(describe(schema.url, "t")).delimiter == ";"


def test_a_type_that_contains_itself_cannot_be_made(schema: Schema) -> None:
    """What lets the types be resolved without an end check: PostgreSQL has no recursive ones, not even by a detour."""
    schema.execute("create table node (id int); create domain nodes as node[]")
    for detour in ("node", "node[]", "nodes", "nodes[]"):
        with pytest.raises(psycopg.errors.InvalidTableDefinition):
            schema.execute(f"alter table node add column kids {detour}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select 'x' as v", TEXT),
        ("select null as v", TEXT),
        ("select row(1, 'a') as v", PgType("record", "record", "pseudo")),
        (
            "select array[row(1, 'a')] as v",
            PgType("record[]", "_record", "array", element=PgType("record", "record", "pseudo")),
        ),
        ("select 1.5::numeric(4,1) as v", PgType("numeric(4,1)", "numeric")),
        ("select most_common_vals as v from pg_stats", PgType("anyarray", "anyarray", "pseudo")),
        ("select 'pg_class'::regclass as v", PgType("regclass", "regclass")),
        ("select c as v from (select 1 as a) c", PgType("record", "record", "pseudo")),
    ],
)
def test_types_of_a_query(stack: Stack, text: str, expected: PgType) -> None:
    assert type_of(describe(stack.postgres_url, query(text))) == expected
    assert len(read(stack.postgres_url, query(text, limit=1))) == 1


def test_pgvector(schema: Schema) -> None:
    row = schema.connection.execute("select 1 from pg_available_extensions where name = 'vector'").fetchone()
    if row is None:
        pytest.skip("this server has no pgvector")
    schema.execute("create extension if not exists vector with schema public; create table t (v public.vector(3))")
    found = type_of(describe(schema.url, "t"))
    assert (found.typname, found.kind, found.extension) == ("vector", "base", "vector")
    assert found.name.endswith("vector(3)")


def test_extension_types(contrib: str) -> None:
    with psycopg.connect(contrib, autocommit=True) as connection:
        connection.execute(
            "create extension hstore; create extension citext; create extension ltree; create extension cube;"
            "create domain tags as hstore; create schema other; create type other.hstore as (a int);"
            "create table t (h hstore, hs hstore[], d tags, c citext, cs citext[], l ltree, cu cube,"
            " fake other.hstore);"
            "insert into t values ('a=>1', array['b=>2'::hstore], 'c=>3', 'Ab', '{X,y}', 'top.sub', '(1,2)', row(4))"
        )
    relation = describe(contrib, "t")
    hstore = PgType("hstore", "hstore", extension="hstore")
    citext = PgType("citext", "citext", extension="citext")
    assert type_of(relation, "h") == hstore
    assert type_of(relation, "hs").element == hstore
    assert type_of(relation, "d") == PgType("tags", "hstore", extension="hstore")
    assert type_of(relation, "c") == citext
    assert type_of(relation, "cs").element == citext
    assert type_of(relation, "l") == PgType("ltree", "ltree", extension="ltree")
    assert type_of(relation, "cu").extension == "cube"
    assert type_of(relation, "fake") == PgType("other.hstore", "hstore", "composite", fields=(Column("a", INT4),))
    (line,) = read(contrib, "t")
    assert line.split(b"\t")[0] == b'"a"=>"1"'
    # What is said of the types is what the encoders go by.
    encoder = RowEncoder(relation.columns, names(relation), Key(KeyAttribute("c", "S")))
    items, rejects = encoder.encode([line])
    assert rejects == []
    assert b'"h":{"M":{"a":{"S":"1"}}}' in items[0]
    assert b'"d":{"M":{"c":{"S":"3"}}}' in items[0]


# ---- Reading --------------------------------------------------------------------------------------------------------

SHOWN = [
    ("'2024-02-03'::date", "2024-02-03"),
    ("'2024-02-03 04:05:06.789+02'::timestamptz", "2024-02-03 02:05:06.789+00"),
    ("'2024-02-03 04:05:06'::timestamp", "2024-02-03 04:05:06"),
    ("interval '1 year -2 days 03:04:05'", "P1Y-2DT3H4M5S"),
    ("0.1::float8 + 0.2", "0.30000000000000004"),
    ("(1.0 / 3)::float4", "0.33333334"),
    (r"'\xdeadbeef00'::bytea", r"\\xdeadbeef00"),
    ("'é🎬'::text", "é🎬"),
    ("'10:11:12+02'::timetz", "10:11:12+02"),
    ("'a\tb\nc\\d'::text", r"a\tb\nc\\d"),
    ("null::text", r"\N"),
    ("''::text", ""),
    ("true", "t"),
    ("'\"quoted\"'::text", '"quoted"'),
    ("array['2024-02-03'::date, null]", "{2024-02-03,NULL}"),
    ("row('2024-02-03'::date, 0.1::float8 + 0.2)", "(2024-02-03,0.30000000000000004)"),
]
VALUES = "select " + ", ".join(f"{written} as c{place}" for place, (written, _) in enumerate(SHOWN))
LINE = "\t".join(shown for _, shown in SHOWN).encode()

HOSTILE = [
    "datestyle = 'German'",
    "intervalstyle = 'sql_standard'",
    "timezone = 'Asia/Kathmandu'",
    "extra_float_digits = -15",
    "bytea_output = 'escape'",
    "client_encoding = 'LATIN1'",
    "xmloption = 'document'",
    "standard_conforming_strings = off",
    "escape_string_warning = on",
    "default_transaction_read_only = off",
    "default_transaction_isolation = 'read committed'",
    "default_transaction_deferrable = on",
    "quote_all_identifiers = on",
    "row_security = on",
    "idle_in_transaction_session_timeout = '10s'",
    "statement_timeout = '10s'",
    "array_nulls = off",
    "search_path = nowhere",
    "lc_messages = 'C'",
]


def hostile_settings(connection: psycopg.Connection[Any]) -> list[str]:
    version = connection.info.server_version
    return HOSTILE + (["transaction_timeout = '10s'"] if version >= 170000 else [])


def test_lines_are_as_pinned(stack: Stack) -> None:
    assert read(stack.postgres_url, query(VALUES)) == [LINE]


def test_no_roles_settings_change_a_line(stack: Stack) -> None:
    with psycopg.connect(stack.postgres_url) as connection:
        settings = hostile_settings(connection)
    with role(stack.postgres_url, *settings) as (_, url):
        assert read(url, query(VALUES)) == [LINE]
        # They are in force for others of that role: the test is worth something.
        with psycopg.connect(url) as connection:
            row = connection.execute(
                "select '2024-02-03'::date::text, current_setting('extra_float_digits')"
            ).fetchone()
            assert row == ("03.02.2024", "-15")


@pytest.mark.parametrize("where", ["database", "connection"])
def test_no_other_settings_change_a_line(contrib: str, where: str) -> None:
    url = contrib
    if where == "database":
        with psycopg.connect(contrib, autocommit=True) as connection:
            for setting in HOSTILE:
                connection.execute(sql.SQL("alter database contrib_test set {}").format(sql.SQL(setting)))
    else:
        options = "-cdatestyle=German -cextra_float_digits=-15 -cbytea_output=escape -cintervalstyle=postgres_verbose"
        url = with_parameters(contrib, options=options, client_encoding="LATIN1")
    assert read(url, query(VALUES)) == [LINE]


def test_limits_of_time_are_lifted(stack: Stack) -> None:
    shown = ["statement_timeout", "idle_in_transaction_session_timeout"]
    with psycopg.connect(stack.postgres_url) as connection:
        if connection.info.server_version >= 170000:
            shown.append("transaction_timeout")
    text = "select " + ", ".join(f"current_setting('{name}') as {name}" for name in shown)
    settings = [f"{name} = '10s'" for name in shown]
    with role(stack.postgres_url, *settings) as (_, url):
        assert read(url, query(text)) == ["\t".join("0" for _ in shown).encode()]


def test_what_hides_or_moves_rows_is_off(stack: Stack) -> None:
    with role(stack.postgres_url, "row_security = on", "synchronize_seqscans = on") as (_, url):
        shown = "select current_setting('row_security') as a, current_setting('synchronize_seqscans') as b"
        assert read(url, query(shown)) == [b"off\toff"]


def test_the_transaction_only_reads_in_one_snapshot(stack: Stack) -> None:
    shown = (
        "select current_setting('transaction_isolation') as a, current_setting('transaction_read_only') as b,"
        " current_setting('transaction_deferrable') as c"
    )
    with role(stack.postgres_url, "default_transaction_read_only = off") as (_, url):
        assert read(url, query(shown)) == [b"repeatable read\ton\toff"]


def test_a_statement_timeout_that_lets_nothing_begin_is_told(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_BEGIN", postgres._BEGIN.replace(";", "; select pg_sleep(60);", 1))
    with (
        role(stack.postgres_url, "statement_timeout = 1") as (_, url),
        pytest.raises(Unavailable, match=r"cancelled the start of a snapshot: .*statement timeout") as caught,
    ):
        read(url, query("select 1 as v"))
    assert "ALTER ROLE" in str(caught.value.hint)


def test_a_statement_timeout_of_a_millisecond_is_survived(stack: Stack) -> None:
    """It is in force for the transaction's very first statements, which take less, mostly: hence the attempts."""
    with role(stack.postgres_url, "statement_timeout = 1") as (_, url):

        async def main() -> int:
            async with PostgresSource(url, Counters(), PATIENT).snapshot() as snapshot:
                selection = query("select pg_sleep(0.05)::text as v, i from generate_series(1, 2) i")
                await snapshot.describe(selection)
                return sum([len(batch) async for batch in snapshot.read(Reading(selection, ("i", "v"), ()))])

        assert asyncio.run(main()) == 2


def test_a_string_is_read_the_same_whatever_the_server_says(stack: Stack) -> None:
    with role(stack.postgres_url, "standard_conforming_strings = off", "escape_string_warning = off") as (_, url):
        assert read(url, query(r"select 'a\\b' as v")) == [rb"a\\\\b"]
        assert read(url, query(r"select 'a' as v; -- \'")) == [b"a"]


def test_type_names_do_not_depend_on_quote_all_identifiers(schema: Schema) -> None:
    schema.execute("create type mood as enum ('ok'); create table t (m mood, n numeric(4,2)[])")
    with role(schema.url, "quote_all_identifiers = on") as (name, url):
        schema.execute(f"grant usage on schema {schema.name} to {name}; grant select on t to {name}")
        assert describe(url, "t") == describe(schema.url, "t")


def test_another_encoding_of_the_database(debian: str) -> None:
    with psycopg.connect(debian, autocommit=True) as connection:
        connection.execute("create database latin template template0 encoding 'LATIN1' locale 'C'")
    try:
        url = with_parameters(debian, dbname="latin")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("create table größe (naïve text); insert into größe values ('é')")
        assert names(describe(url, "größe")) == ["naïve"]
        assert read(url, Selection("größe", where="naïve = 'é'")) == ["é".encode()]
        assert names(describe(url, query('select 1 as "ö"'))) == ["ö"]
    finally:
        with psycopg.connect(debian, autocommit=True) as connection:
            connection.execute("drop database latin with (force)")


@pytest.fixture
def numbers(schema: Schema) -> Schema:
    schema.execute(
        'create table n (id int primary key, "Even Number" boolean, v text);'
        "insert into n select i, i % 2 = 0, 'v' || i from generate_series(1, 50) i order by -i"
    )
    return schema


def test_the_order_is_the_source_keys(numbers: Schema) -> None:
    assert read(numbers.url, "n", ["id"], ["id"]) == [b"%d" % i for i in range(1, 51)]
    assert read(numbers.url, "n", ["v"], ["Even Number", "id"])[:2] == [b"v1", b"v3"]


def test_columns_come_as_asked_for(numbers: Schema) -> None:
    assert read(numbers.url, Selection("n", limit=1), ["v", "Even Number", "id"], ["id"]) == [b"v1\tf\t1"]
    assert read(numbers.url, Selection("n", limit=2), ["v"], ["id"]) == [b"v1", b"v2"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection("n", where="id > 48"), [b"49", b"50"]),
        (Selection("n", where='"Even Number" -- comment', limit=2), [b"2", b"4"]),
        (Selection("n", where="id = 1 or id = 2"), [b"1", b"2"]),
        (Selection("n", where="v like '%5' and v <> '%s'", limit=1), [b"5"]),
        (Selection("n", where="n.id = 3"), [b"3"]),
        (Selection("n", where="id in (select max(id) from n)"), [b"50"]),
        (Selection("n", where="true) or (id < 0"), None),
        (Selection("n", limit=0), []),
        (Selection("n", where="false"), []),
        (query("select * from n", where="id < 3"), [b"1", b"2"]),
        (query("select * from n where id > 10 -- comment", where="id < 12 -- comment"), [b"11"]),
        (query("select id, v from n order by id desc", limit=2), [b"1", b"2"]),
        (query("select id, v from n order by id desc limit 3", where="id > 0"), [b"48", b"49", b"50"]),
    ],
)
def test_selections(numbers: Schema, selection: Selection, expected: list[bytes] | None) -> None:
    lines = read(numbers.url, selection, ["id"], ["id"])
    assert lines == ([b"%d" % i for i in range(1, 51)] if expected is None else expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select 1 as a", [b"1"]),
        ("select 1 as a;", [b"1"]),
        ("  \n select 1 as a ;; \n", [b"1"]),
        ("select 1 as a -- the end", [b"1"]),
        ("select 1 as a; -- the end;", [b"1"]),
        ("/* a */ select 1 as a /* b; */;", [b"1"]),
        ("select a from (values (1), (3), (2)) t(a) order by a desc", [b"3", b"2", b"1"]),
        ("with x as (select 1 as a), y as (select a + 1 as a from x) select * from y", [b"2"]),
        ("with recursive r as (select 1 as a union all select a + 1 from r where a < 3) table r", [b"1", b"2", b"3"]),
        ("values (1, 'x'), (2, 'y')", [b"1\tx", b"2\ty"]),
        ("table one", [b"7"]),
        ("(select 1 as a) union all (select 2)", [b"1", b"2"]),
        ("select '100%' as a, '%s' as b, '%(x)s' as c, 7 % 4 as d", [b"100%\t%s\t%(x)s\t3"]),
        ("select '{}' as a, '{0}' as b, '{x}' as c", [b"{}\t{0}\t{x}"]),
        ("select $$it's; $x$ -- $$ as a", [b"it's; $x$ -- "]),
        ("select $tag$)$$ ($tag$ as a", [b")$$ ("]),
        (r"select E'a\\b\'c\x01' as a", [b"a\\\\b'c\x01"]),
        ("select ')' as \"a)\"", [b")"]),
        ("select 1", [b"1"]),
        ('select 1 as "say ""hi"" %s {}", 2 as "Ünï"', [b"1\t2"]),
        ("select * from generate_series(1, 3) g", [b"1", b"2", b"3"]),
        ("select '☃' as a", ["☃".encode()]),
    ],
)
def test_queries(schema: Schema, text: str, expected: list[bytes]) -> None:
    schema.execute("create table one (a int); insert into one values (7)")
    relation = describe(schema.url, query(text))
    assert relation.name is None
    assert (relation.primary_key, relation.unique_keys) == ((), ())
    assert (relation.estimated_rows, relation.stored_bytes) == (None, None)
    assert read(schema.url, query(text)) == expected


WRITES = "the query (is not one that only reads|writes, and the source is only read|returns no columns)"
UNTAKEN = "PostgreSQL does not take the statement"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("insert into one values (1)", WRITES),
        ("insert into one values (1) returning a", WRITES),
        ("update one set a = 2", WRITES),
        ("update one set a = 2 returning *", WRITES),
        ("delete from one", WRITES),
        ("delete from one returning *", WRITES),
        ("with gone as (delete from one returning *) select * from gone", WRITES),
        ("merge into one using (select 1 as b) s on a = b when matched then delete", WRITES),
        ("select * into other from one", WRITES),
        ("select * from one for update", WRITES),
        ("create table other (a int)", WRITES),
        ("create table other as select * from one", WRITES),
        ("drop table one", WRITES),
        ("truncate one", WRITES),
        ("copy one to stdout", WRITES),
        ("copy one to program 'true'", WRITES),
        ("show server_version", WRITES),
        ("explain select 1", WRITES),
        ("set datestyle = 'German'", WRITES),
        ("begin", WRITES),
        ("commit", WRITES),
        ("call nothing()", WRITES),
        ("do $$ begin end $$", WRITES),
        ("listen x", WRITES),
        ("prepare p as select 1", WRITES),
        ("vacuum", WRITES),
        ("", "the query is empty"),
        (";", "the query is empty"),
        ("-- select 1", "the query is empty"),
        ("select", WRITES),
        ("select 1; select 2", "more than one statement"),
        ("select 1; drop table one", "more than one statement"),
        ("select 1; commit; drop table one; --", "more than one statement"),
        ("select 1) as q; drop table one; --", UNTAKEN),
        ("select 1) as q, (select 2", UNTAKEN),
        ("selct 1", f"{UNTAKEN}: syntax error"),
        ("select '", UNTAKEN),
        ("select 1 /* open", UNTAKEN),
        ("select 1 as a, 2 as a", "more than one column named 'a'"),
        ("select 1, 2", r"more than one column named '\?column\?'"),
        ("select $1 as a", r"asks for parameters"),
        ("select * from one where a = $1", r"asks for parameters"),
        ("select * from nowhere", f"{UNTAKEN}.*nowhere"),
        ("select nothing from one", f"{UNTAKEN}.*nothing"),
        ("select * from nowhere.one", f"{UNTAKEN}.*nowhere"),
        ("select nowhere.f()", f"{UNTAKEN}.*nowhere"),
        ("select * from one where a = 'x'", f"{UNTAKEN}.*invalid input syntax"),
        ("select 1 \0 as a", "holds a character that PostgreSQL cannot take"),
        ("select '\udce9' as a", "holds a character that PostgreSQL cannot take"),
    ],
)
def test_queries_that_are_refused(schema: Schema, text: str, message: str) -> None:
    schema.execute(
        "create table one (a int); insert into one values (7); create procedure nothing() language sql as ''"
    )
    expect_usage(schema.url, query(text), message)
    # Nothing was done.
    assert schema.connection.execute("select a from one").fetchall() == [(7,)]
    row = schema.connection.execute("select to_regclass('other')").fetchone()
    assert row == (None,)


def test_a_mistake_is_found_in_its_line(stack: Stack) -> None:
    error = expect_usage(stack.postgres_url, query("\nselect 1 as a,\n  nothing\nfrom pg_class\n"), "nothing")
    assert error.message.endswith("(line 3)")
    assert "line" not in expect_usage(stack.postgres_url, query("select nothing"), "nothing").message.lower()


@pytest.mark.parametrize("call", ["nextval('s')", "setval('s', 9)", "writes()", "lo_create(0)", "pg_notify('a', 'b')"])
def test_functions_that_write_are_stopped(schema: Schema, call: str) -> None:
    schema.execute(
        "create table one (a int); create sequence s;"
        "create function writes() returns int language sql as 'insert into one values (1) returning a'"
    )
    if call.startswith("pg_notify"):
        # It writes nothing, and is not heard of either: the transaction never commits.
        assert read(schema.url, query(f"select {call} as a")) == [b""]
        return
    with pytest.raises(UsageError, match="writes, and the source is only read") as caught:
        read(schema.url, query(f"select {call} as a"))
    assert "Nothing was changed" in (caught.value.hint or "")
    assert schema.connection.execute("select a from one").fetchall() == []
    assert schema.connection.execute("select last_value, is_called from s").fetchall() == [(1, False)]


@pytest.mark.parametrize(
    "where",
    [
        "true) union all (select 666, false, 'x'",
        "true) union all select 666, false, 'x' from n where (true",
        "true) limit (1",
        "true) order by (1",
        "true) group by (id",
        "true) then 1 end from n where (true",
        "true) then 1 when (true",
        "true); drop table n; --",
        "true); commit; drop table n; select (1",
        "id = 1; select 1",
        "id = 1;",
        "true) /*",
        "(true",
        "true)",
        "",
        "-- nothing",
        "nothing = 1",
        "id = 'x'",
        "count(*) > 1",
        "id",
        "v = $1",
        "selct",
        "row_number() over () = 1",
    ],
)
@pytest.mark.parametrize("by_query", [False, True])
def test_conditions_that_are_refused(numbers: Schema, where: str, by_query: bool) -> None:
    selection = query("select * from n", where=where) if by_query else Selection("n", where=where)
    with pytest.raises(UsageError) as caught:
        describe(numbers.url, selection)
    assert caught.value.hint
    assert numbers.connection.execute("select count(*) from n").fetchone() == (50,)


@pytest.mark.parametrize("where", ["id = 1 \0", "v = '\udce9'"])
def test_conditions_that_cannot_be_sent(numbers: Schema, where: str) -> None:
    expect_usage(numbers.url, Selection("n", where=where), "the condition holds a character")


def test_unknown_columns_are_left_for_the_plan_to_name(numbers: Schema) -> None:
    assert names(describe(numbers.url, Selection("n", columns=("id", "nothing")))) == ["id", "Even Number", "v"]


def test_a_query_that_fails_half_way(stack: Stack) -> None:
    text = "select i, 1 / (5000 - i) as v from generate_series(1, 10000) i"

    async def main() -> tuple[list[bytes], SourceError]:
        lines: list[bytes] = []
        async with source(stack.postgres_url).snapshot() as snapshot:
            selection = query(text)
            await snapshot.describe(selection)
            try:
                async for batch in snapshot.read(Reading(selection, ("i", "v"), ())):
                    lines += batch
            except SourceError as error:
                return lines, error
        raise AssertionError("it did not fail")

    lines, error = asyncio.run(main())
    assert "division by zero" in error.message
    assert "reading rows" in error.message
    # Every line that came before it is whole and in order.
    assert [line.split(b"\t")[0] for line in lines] == [b"%d" % i for i in range(1, len(lines) + 1)]
    assert len(lines) < 5000


def test_one_snapshot_for_all(numbers: Schema) -> None:
    async def main() -> tuple[list[bytes], list[bytes], list[tuple[str | None, ...]]]:
        async with source(numbers.url).snapshot() as snapshot:
            selection = Selection("n")
            numbers.execute("insert into n values (-1, false, 'before describe')")
            await snapshot.describe(selection)
            numbers.execute("delete from n where id <= 10; update n set v = 'changed', id = id + 1000")
            numbers.execute("insert into n values (1, true, 'again'); insert into n values (0, true, 'new')")
            first = [line async for batch in snapshot.read(Reading(selection, ("id", "v"), ("id",))) for line in batch]
            twice = await snapshot.duplicates(Reading(selection, ("v",), ()), ("v",))
            numbers.execute("insert into n values (-5, true, 'later')")
            second = [line async for batch in snapshot.read(Reading(selection, ("id", "v"), ("id",))) for line in batch]
            return first, second, twice

    first, second, twice = asyncio.run(main())
    assert first == second == [b"%d\tv%d" % (i, i) for i in range(1, 51)]
    assert twice == []  # in the present, 40 rows say 'changed'


@pytest.mark.parametrize("partition", [False, True])
def test_nobody_empties_the_table_between_describe_and_read(schema: Schema, partition: bool) -> None:
    """TRUNCATE is not MVCC-safe: committed meanwhile, it would leave an older snapshot with nothing, and no error."""
    schema.execute(
        "create table p (id int primary key) partition by range (id);"
        "create table p1 partition of p for values from (0) to (100); insert into p select generate_series(0, 9)"
    )
    target = "p1" if partition else "p"

    async def main() -> list[bytes]:
        async with source(schema.url).snapshot() as snapshot:
            selection = Selection("p")
            await snapshot.describe(selection)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                schema.execute(f"set lock_timeout = '1ms'; truncate {target}")
            schema.execute("insert into p values (10)")  # writers are not held up
            return [line async for batch in snapshot.read(Reading(selection, ("id",), ("id",))) for line in batch]

    assert asyncio.run(main()) == [b"%d" % i for i in range(10)]


def batches_of(url: str, text: str) -> list[list[bytes]]:
    async def main() -> list[list[bytes]]:
        async with source(url).snapshot() as snapshot:
            relation = await snapshot.describe(query(text))
            return [batch async for batch in snapshot.read(Reading(query(text), tuple(names(relation)), ()))]

    return asyncio.run(main())


def test_batches_are_bounded_in_rows(stack: Stack) -> None:
    batches = batches_of(stack.postgres_url, "select generate_series(1, 3500) as i")
    assert [len(batch) for batch in batches] == [1000, 1000, 1000, 500]


def test_no_empty_batch_at_an_even_end(stack: Stack) -> None:
    assert [len(batch) for batch in batches_of(stack.postgres_url, "select generate_series(1, 2000) as i")] == [
        1000
    ] * 2
    assert batches_of(stack.postgres_url, "select 1 as i where false") == []


def test_batches_are_bounded_in_bytes(stack: Stack) -> None:
    batches = batches_of(stack.postgres_url, "select repeat('x', 10000) as v from generate_series(1, 100)")
    assert sum(map(len, batches)) == 100
    assert max(map(len, batches)) == 27  # the first count of 10,001 bytes that is over 256 KiB


def test_wide_rows(stack: Stack) -> None:
    batches = batches_of(
        stack.postgres_url, "select i, repeat(chr(96 + i), 1000000) as v from generate_series(1, 20) i"
    )
    assert [len(batch) for batch in batches] == [1] * 20
    for number, (line,) in enumerate(batches, 1):
        assert line == b"%d\t" % number + bytes([96 + number]) * 1_000_000


def test_lines_of_nothing_but_newlines(stack: Stack) -> None:
    text = r"select repeat(E'\n', i) as v from generate_series(0, 1500) i"
    lines = [line for batch in batches_of(stack.postgres_url, text) for line in batch]
    assert lines == [rb"\n" * i for i in range(1501)]


# ---- Duplicates -----------------------------------------------------------------------------------------------------


def test_duplicates(schema: Schema) -> None:
    schema.execute(
        "create table t (id int, a int, b text, n int);"
        "insert into t values (1, 1, 'x', null), (2, 1, 'y', null), (3, 2, 'x', 5), (4, 2, 'x', 6), (5, 3, null, 5)"
    )
    assert duplicates(schema.url, "t", ["id"]) == []
    assert sorted(duplicates(schema.url, "t", ["a"])) == [("1",), ("2",)]
    assert duplicates(schema.url, "t", ["b"]) == [("x",)]
    assert duplicates(schema.url, "t", ["a", "b"]) == [("2", "x")]
    assert duplicates(schema.url, "t", ["n"]) == [("5",)]  # NULLs are no key
    assert duplicates(schema.url, "t", ["a", "n"]) == []


def test_at_most_five_duplicates(schema: Schema) -> None:
    schema.execute("create table t as select i % 20 as v from generate_series(1, 100) i")
    found = duplicates(schema.url, "t", ["v"])
    assert len(set(found)) == len(found) == 5


def test_duplicates_among_what_is_selected_only(schema: Schema) -> None:
    schema.execute("create table t (id int primary key, v int); insert into t values (1, 7), (2, 8), (3, 7)")
    assert duplicates(schema.url, "t", ["v"]) == [("7",)]
    assert duplicates(schema.url, Selection("t", limit=2), ["v"], ["id"]) == []
    assert duplicates(schema.url, Selection("t", limit=3), ["v"], ["id"]) == [("7",)]
    assert duplicates(schema.url, Selection("t", where="id > 1"), ["v"]) == []
    assert duplicates(schema.url, query("select v from t where v = 7"), ["v"]) == [("7",)]


@pytest.mark.parametrize(
    ("declared", "values", "expected"),
    [
        # As numbers go: these make one DynamoDB key.
        ("numeric", ["1.0", "1.00"], [("1.0",)]),
        ("float8", ["0", "-0"], [("0",)]),
        ("numeric", ["NaN", "NaN"], [("NaN",)]),
        # As text goes: equal to PostgreSQL, and yet two keys.
        ("interval", ["1 day", "24 hours"], []),
        ("interval", ["1 day", "24:00:00", "1 day"], [("P1D",)]),
        ("jsonb", ["1.0", "1.00"], []),
        ("char(3)", ["a", "a "], [("a  ",)]),
        ("bpchar", ["a", "a "], []),
        # Types that PostgreSQL itself cannot compare.
        ("json", ['{"a": 1}', '{"a": 1}'], [('{"a": 1}',)]),
        ("json", ['{"a": 1}', '{"a":1}'], []),
        ("point", ["(1,2)", "(1,2)"], [("(1,2)",)]),
        ("box", ["(1,1),(0,0)", "(2,1),(1,0)"], []),
        # And the plain ones.
        ("bytea", [r"\xff00", r"\xff00"], [(r"\xff00",)]),
        ("uuid", ["a" * 32, "A" * 32], [("aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa",)]),
        ("timestamptz", ["2024-01-01 00:00+00", "2024-01-01 01:00+01"], [("2024-01-01 00:00:00+00",)]),
        ("date", ["2024-01-01", "2024-01-01"], [("2024-01-01",)]),
        ("boolean", ["t", "f", "t"], [("t",)]),
        ("text[]", ["{a,b}", "{a,b}"], [("{a,b}",)]),
        ("mood", ["ok", "ok", "sad"], [("ok",)]),
        ("text", ["", "", "x"], [("",)]),
    ],
)
def test_duplicates_are_keys_that_dynamodb_takes_for_one(
    schema: Schema, declared: str, values: list[str], expected: list[tuple[str, ...]]
) -> None:
    schema.execute(f"create type mood as enum ('sad', 'ok'); create table t (v {declared})")
    for value in values:
        schema.connection.execute(sql.SQL("insert into t values ({})").format(sql.Literal(value)))
    assert duplicates(schema.url, "t", ["v"]) == expected


@pytest.mark.parametrize("declared", ["citext", "text collate caseless"])
def test_what_ignores_case_makes_different_keys(contrib: str, declared: str) -> None:
    with psycopg.connect(contrib, autocommit=True) as connection:
        connection.execute("create extension citext")
        connection.execute(
            "create collation caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
        connection.execute(
            sql.SQL("create table t (v {}); insert into t values ('a'), ('A')").format(sql.SQL(declared))
        )
        assert connection.execute("select count(distinct v) from t").fetchone() == (1,)
        assert duplicates(contrib, "t", ["v"]) == []
        connection.execute("insert into t values ('A')")
        assert duplicates(contrib, "t", ["v"]) == [("A",)]


def test_xml(contrib: str) -> None:
    with psycopg.connect(contrib, autocommit=True) as connection:
        connection.execute("alter database contrib_test set xmloption = 'document'")
        connection.execute("create table t (v xml); insert into t values ('<a/>'), ('<a/>')")
    assert read(contrib, Selection("t", limit=1)) == [b"<a/>"]
    assert read(contrib, query("select 'a<b/>c'::xml as v")) == [b"a<b/>c"]  # content, no document
    assert duplicates(contrib, "t", ["v"]) == [("<a/>",)]


# ---- Rights ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def reader(schema: Schema) -> Iterator[tuple[Schema, str, str]]:
    """A role that may use the schema, and nothing in it."""
    schema.execute("create table t (id int primary key, a int, b int); insert into t values (1, 2, 3), (4, 5, 6)")
    with role(schema.url) as (name, url):
        schema.execute(f"grant usage on schema {schema.name} to {name}")
        yield schema, name, url


def test_no_right_to_the_table(reader: tuple[Schema, str, str]) -> None:
    _, _, url = reader
    with pytest.raises(SourceError, match="permission denied for table t") as caught:
        describe(url, "t")
    assert "GRANT SELECT" in (caught.value.hint or "").upper()
    with pytest.raises(SourceError, match="permission denied for table t"):
        describe(url, query("select a from t"))


def test_no_right_to_the_schema(reader: tuple[Schema, str, str]) -> None:
    schema, name, url = reader
    schema.execute(f"grant select on t to {name}; revoke usage on schema {schema.name} from {name}")
    with pytest.raises(SourceError, match="permission denied for schema"):
        describe(url, f"{schema.name}.t")


def test_a_right_to_some_columns(reader: tuple[Schema, str, str]) -> None:
    schema, name, url = reader
    schema.execute(f"grant select (id, a) on t to {name}")
    with pytest.raises(SourceError, match="permission denied for table t") as caught:
        describe(url, "t")
    assert "--columns" in (caught.value.hint or "")
    assert read(url, Selection("t", columns=("id", "a")), ["a", "id"], ["id"]) == [b"2\t1", b"5\t4"]
    with pytest.raises(SourceError, match="permission denied"):
        describe(url, Selection("t", columns=("id",), where="b = 3"))


def test_a_row_security_policy_is_an_error_and_hides_nothing(reader: tuple[Schema, str, str]) -> None:
    schema, name, url = reader
    schema.execute(f"grant select on t to {name}; alter table t enable row level security")
    schema.execute("create policy first_only on t using (id = 1)")
    for selection in (Selection("t"), query("select * from t"), query("select count(*) as n from t")):
        with pytest.raises(SourceError, match="row-level security") as caught:
            describe(url, selection)
        assert "a policy must not hide rows" in (caught.value.hint or "")
    schema.execute(f"alter role {name} bypassrls")
    assert len(read(url, "t")) == 2


# ---- The snapshot ---------------------------------------------------------------------------------------------------


def test_the_snapshot_has_postgresqls_name_and_a_time(stack: Stack) -> None:
    async def main() -> None:
        async with source(stack.postgres_url).snapshot() as snapshot:
            assert re.fullmatch(r"\d+:\d+:[\d,]*", snapshot.record.name)
            with psycopg.connect(stack.postgres_url) as connection:
                row = connection.execute("select extract(epoch from now())").fetchone()
            assert row is not None
            assert abs(float(str(row[0])) - snapshot.record.taken_at) < 60

    asyncio.run(main())


def test_after_a_refusal_the_next_snapshot_is_fine(numbers: Schema) -> None:
    async def main() -> None:
        wanted = source(numbers.url)
        async with wanted.snapshot() as snapshot:
            with pytest.raises(UsageError):
                await snapshot.describe(query("selct"))
        async with wanted.snapshot() as snapshot:
            assert len((await snapshot.describe(Selection("n"))).columns) == 3

    asyncio.run(main())


def test_a_reading_that_is_left_ends_the_snapshot(stack: Stack) -> None:
    async def main() -> None:
        selection = query("select generate_series(1, 100000) as i")
        async with source(stack.postgres_url).snapshot() as snapshot:
            await snapshot.describe(selection)
            async with closing(snapshot.read(Reading(selection, ("i",), ()))) as batches:
                assert len(await anext(batches)) == 1000
            with pytest.raises(SourceError, match=r"the snapshot of PostgreSQL at .* has ended"):
                await anext(snapshot.read(Reading(selection, ("i",), ())))
            with pytest.raises(SourceError, match="has ended"):
                await snapshot.duplicates(Reading(selection, ("i",), ()), ("i",))

    asyncio.run(main())
