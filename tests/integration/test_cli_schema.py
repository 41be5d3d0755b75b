"""A schema as real ones are, copied whole: with no special care but the templates that long keys need."""

from __future__ import annotations

import re
import secrets
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest
from psycopg import sql

from tests.conftest import Stack
from tests.integration import oracle
from tests.integration.command_line import CommandLine
from tests.integration.source_helpers import debian_binaries, server, with_parameters

TYPES = """
create type rating as enum ('G', 'PG', 'PG-13', 'R', 'NC-17');
create domain release_year as integer check (value between 1888 and 2155);
create domain positive as numeric(10, 2) check (value > 0);
create type address as (street text, "Post Code" varchar(10), places point[]);
"""
TABLES = """
create table country (country_id serial primary key, name text not null unique);
insert into country (name) select 'Country ' || n from generate_series(1, 109) n;

create table staff (
    staff_id smallint generated always as identity primary key, "First Name" text not null, picture bytea,
    active boolean not null default true, home address, hired date, pay money, manager smallint references staff
);
insert into staff ("First Name", picture, active, home, hired, pay, manager) values
    ('Mike', decode(repeat('89504e470d0a1a0a00', 4000), 'hex'), true,
     row('1 "A" Street, (rear)', 'AB 1', '{"(1,2)","(3,4)"}')::address, '0044-03-15 BC', 1234.50, null),
    ('Jon', ''::bytea, false, row(null, null, null)::address, 'infinity', -0.01, 1),
    ('Éowyn', null, true, null, null, null, 1);

create table film (
    film_id integer primary key, title varchar(255) not null, description text, released release_year,
    rate positive, rated rating default 'G', features text[], words tsvector, meta jsonb, runs interval,
    prices numrange, shown timestamptz, id uuid not null unique, slug text generated always as (lower(title)) stored
);
insert into film (film_id, title, description, released, rate, rated, features, words, meta, runs, prices, shown, id)
select n, 'Film ' || n, nullif(repeat('x', n % 50), ''), 1900 + n % 120, n * 0.37,
       (enum_range(null::rating))[1 + n % 5], case n % 3 when 0 then array['Trailers', null, 'a "b", {c}'] end,
       to_tsvector('simple', 'film number ' || n), jsonb_build_object('n', n, 'deep', jsonb_build_array(n, null, '')),
       make_interval(mins => n), numrange(n, n + 1), '2020-01-01 00:00+00'::timestamptz + n * interval '1 h',
       md5(n::text)::uuid
  from generate_series(1, 1000) n;

create table actor (actor_id integer primary key, name text not null);
insert into actor select n, 'Actor ' || n from generate_series(1, 200) n;
create table film_actor (
    actor_id integer references actor, film_id integer references film, primary key (actor_id, film_id)
);
insert into film_actor select a, f from generate_series(1, 200) a, generate_series(1, 1000, 77) f;

create table "Film Texts" (
    "Film ID" integer references film, "Language" char(2), "Body Text" text, primary key ("Film ID", "Language")
);
insert into "Film Texts" select n, l, 'Text ' || n from generate_series(1, 100) n, unnest(array['en', 'de', 'e']) l;

create table inventory (
    store_id integer, film_id integer references film, counted_on date, amount integer,
    primary key (store_id, film_id, counted_on)
);
insert into inventory select s, f, '2026-01-01'::date + d, s * f * d
  from generate_series(1, 2) s, generate_series(1, 30) f, generate_series(0, 5) d;

create table "Price List" (
    region text, film_id integer references film, "Valid From" timestamptz, price positive,
    primary key (region, film_id, "Valid From")
);
insert into "Price List" select r, f, '2026-03-29 00:30+00'::timestamptz + d * interval '1 day', f
  from unnest(array['north', 'süd', 'a#b']) r, generate_series(1, 20) f, generate_series(0, 3) d;

create table showing (
    hall smallint, day date, start time, seat varchar(4), film_id integer not null references film,
    primary key (hall, day, start, seat)
);
insert into showing select h, '2026-05-01'::date + d, make_time(12 + d, 30, 0), 'A' || s, 1 + h * s
  from generate_series(1, 3) h, generate_series(0, 3) d, generate_series(1, 20) s;

create table payment (
    payment_id bigint, paid_at timestamp, amount numeric(12, 4), primary key (payment_id, paid_at)
) partition by range (paid_at);
create table "payment 2025" partition of payment for values from ('2025-01-01') to ('2026-01-01');
create table payment_2026 partition of payment for values from ('2026-01-01') to ('2027-01-01')
    partition by list (payment_id);
create table payment_2026_rest partition of payment_2026 default;
create table payment_rest partition of payment default;
insert into payment select n, '2024-06-01'::timestamp + n * interval '1 day 1 s', n * 1.0001
  from generate_series(1, 900) n;

create table audit (happened timestamptz, who text, what json);
insert into audit select '2026-01-01 00:00+00'::timestamptz + n * interval '1 ms', case when n % 2 = 0 then 'x' end,
       json_build_object('n', n) from generate_series(1, 300) n;

create table events (event_id integer primary key, kind text);
create table events_2025 (primary key (event_id)) inherits (events);
create table clicks (x integer, y integer, primary key (event_id)) inherits (events);
insert into events values (1, 'start'); insert into events_2025 values (2, 'stop');
insert into clicks values (3, 'click', 10, 20);

create table empty (id uuid primary key, v text);
create table "ЗАКАЗЫ" ("№" integer primary key, "имя" text);
insert into "ЗАКАЗЫ" values (1, 'Анна'), (2, null);
create table "select" (id integer primary key, "from" text, "a.b" text, "it's" text);
insert into "select" values (1, 'x', 'y', 'z');

create view film_list as select film_id, title from film;
create materialized view rentals_by_day as select 1 as id;
create sequence counter;
"""
EXTENSIONS = """
create extension if not exists hstore with schema public; create extension if not exists citext with schema public;
create domain email as public.citext check (value like '%@%');
create table customer (address email primary key, settings public.hstore, tags public.citext[]);
insert into customer select 'User' || n || '@Example.ORG', public.hstore(array['a', 'b "q"'], array[n::text, null]),
       array['X', 'y']::public.citext[] from generate_series(1, 120) n;
"""
NAMES = {
    "Film Texts", "Price List", "actor", "audit", "clicks", "country", "empty", "events", "film", "film_actor",
    "inventory", "payment", "select", "showing", "staff", "ЗАКАЗЫ",
}  # fmt: skip
TEXTS = {"Valid From": """to_char("Valid From" at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""}
"""Columns whose text within a template is that of an attribute, rather than PostgreSQL's."""
LONG_KEYS = {"Price List", "inventory", "showing"}


@dataclass(frozen=True)
class Store:
    """A database with the schema.

    Attributes:
        url: Whose search path is the schema.
        name: The schema's name, which needs quotes.
        tables: Its base tables.
    """

    url: str
    name: str
    tables: set[str]


def build(url: str, *, extensions: bool) -> Store:
    name = f"Video Store {secrets.token_hex(4)}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL("set search_path = {}").format(sql.Identifier(name)))
        connection.execute(TYPES)
        connection.execute(TABLES)
        if extensions:
            connection.execute(EXTENSIONS)
    return Store(url, name, {*NAMES, "customer"} if extensions else NAMES)


@pytest.fixture(params=["embedded", "debian"])
def store(request: pytest.FixtureRequest, stack: Stack) -> Iterator[Store]:
    """The schema in the embedded PostgreSQL, and with more types in Debian's."""
    if request.param == "embedded":
        built = build(stack.postgres_url, extensions=False)
        yield built
        with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(built.name)))
        return
    binaries = debian_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL of Debian's is installed (apt-get install postgresql)")
    with server(binaries) as started:
        yield build(started.url, extensions=True)


def dynamodb(stack: Stack) -> Any:
    return boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def tables_of(stack: Stack, prefix: str) -> set[str]:
    """The DynamoDB tables whose names start so."""
    client = dynamodb(stack)
    pages = client.get_paginator("list_tables").paginate()
    found = {name for page in pages for name in page["TableNames"] if name.startswith(prefix)}
    client.close()
    return found


def expression(template: str) -> str:
    """Write a template as SQL."""
    pieces = re.findall(r"\{([^}]+)\}|([^{]+)", template)
    return " || ".join(
        TEXTS.get(column, f'"{column}"::text') if column else f"'{literal}'" for column, literal in pieces
    )


def select_of(table: str, section: dict[str, Any]) -> str:
    """Write the SELECT whose rows the items of a job should be."""
    added = "".join(f', {expression(text)} as "{name}"' for name, text in section.get("attributes", {}).items())
    return f'select *{added} from "{table}"'


def test_a_schema_as_real_ones_are(store: Store, stack: Stack, tmp_path: Path) -> None:
    # Not its search path: names have to lead to it all the same.
    command_line = CommandLine.on(stack, store.url, tmp_path)
    arguments = ("run", "--all", "--schema", f'"{store.name}"')
    job = {table: f"{store.name}.{table}" for table in store.tables}

    # The first time, what cannot be decided for the user is said, and the rest is done.
    first = command_line(*arguments, code=2)
    failed = set(re.findall(r"^error: (.*?): the primary key has [34] columns", first.err, re.MULTILINE))
    assert failed == {job[table] for table in LONG_KEYS}, first
    assert first.err.count("\nerror: ") == len(LONG_KEYS) + 1, first

    # The config that it says is pasted as it stands on the screen.
    pasted = "".join(re.findall(r"^hint: Put this into the config.*\n((?: {6}.*\n)+)", first.err, re.MULTILINE))
    (tmp_path / "momento-etl.toml").write_text(pasted, encoding="utf-8")
    sections = tomllib.loads(pasted)["tables"]
    assert sections.keys() == failed

    second = command_line(*arguments, "--output", "json").json
    assert second["status"] == "succeeded"
    assert second["rows_extracted"] == second["rows_loaded"] > 4000
    assert {entry["job"] for entry in second["jobs"]} == set(job.values())
    assert second["cache"] == store.name.replace(" ", "_")
    assert {entry["cache"] for entry in second["jobs"]} == {second["cache"]}

    escaped = store.name.replace(" ", "\\ ")
    within = with_parameters(store.url, options=f'-c search_path="{escaped}",public')
    destinations = {entry["job"]: entry["destination"] for entry in second["jobs"]}
    assert len(set(destinations.values())) == len(destinations)
    rows = 0
    for table in store.tables:
        select = select_of(table, sections.get(job[table], {}))
        outcome = oracle.compare(within, stack.dynamodb_url, select, destinations[job[table]])
        assert (outcome.differences, outcome.rejected) == ([], 0), table
        rows += outcome.rows
    assert rows == second["rows_loaded"]
    # Nothing was made for partitions, views and the like.
    assert tables_of(stack, store.name.replace(" ", "_")) == set(destinations.values())
    # A table that inherits, without a column of its own, is with its parent; one that has some is there as well.
    loaded = {entry["job"]: entry["rows_loaded"] for entry in second["jobs"]}
    assert (loaded[job["events"]], loaded[job["clicks"]], loaded[job["payment"]]) == (3, 1, 900)

    # One of them by itself is the job that it was.
    again = command_line("run", "--table", job["Price List"], "--output", "json").json
    assert again["destination"] == destinations[job["Price List"]]
    assert again["rows_loaded"] == loaded[job["Price List"]]
