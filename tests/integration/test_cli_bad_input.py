"""What cannot be done: a message, a hint, the right exit code, and nothing half-done."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine, Result

UNSIGNED = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in ({"alg": "none"}, {"t": "g", "id": "PLANTED"}, {})
)
"""A v2 key by its form, which no Momento ever signed."""


@pytest.fixture
def dynamodb(stack: Stack) -> Iterator[Any]:
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield client
    client.close()


@pytest.fixture
def films(schema: Schema) -> None:
    schema.execute(
        "create table films (film_id integer primary key, title text, gross bigint, facts jsonb);"
        " insert into films select n, 'film ' || n / 2, n, '{}' from generate_series(1, 20) n"
    )


def tables(dynamodb: Any) -> set[str]:
    """All tables but those that are for the state: a lease is taken before anything else is looked at."""
    names = {name for page in dynamodb.get_paginator("list_tables").paginate() for name in page["TableNames"]}
    return {name for name in names if not name.startswith("state-")}


@pytest.mark.usefixtures("films")
def test_jobs_that_the_source_does_not_hold(
    command_line: CommandLine, schema: Schema, dynamodb: Any, unique: str
) -> None:
    schema.execute(
        "create sequence counting; create function boom() returns integer language plpgsql as 'begin return 1/0; end'"
    )
    command_line("extract", "--table", "films", "--cache", unique, "--quiet")
    in_cache = ("inspect-cache", "films", "--cache", unique, "--output", "json")
    before = command_line(*in_cache).json
    there = tables(dynamodb)

    def fails(code: int, *arguments: str, job: str = "films") -> Any:
        whole = ("run", "--table", job, "--cache", unique, "--destination", f"{unique}-gone", *arguments)

        def call(cli: CommandLine) -> Result:
            return cli.fails(*whole, code=code)

        return call

    calls = [
        (fails(2, job="flims"), "there is no table 'flims'", "Did you mean"),
        (fails(2, job="counting"), "is a sequence", "Name a table"),
        (fails(2, "--columns", "film_id,titel"), "'titel', named in --columns", "Did you mean title?"),
        (fails(2, "--key", "film_di"), "'film_di', named in --key", "Did you mean film_id?"),
        (fails(2, "--key", "title", "--columns", "film_id"), "the key column title", "--columns film_id,title"),
        (fails(2, "--key", "facts"), "jsonb, which cannot be a DynamoDB key", "--key"),
        (fails(2, "--where", "titel = 'x'"), '"titel" does not exist', "films.title"),
        (fails(2, "--where", "true) or ("), "syntax error", "--where"),
        (fails(2, "--query", "selec 1", job="q"), 'syntax error at or near "selec"', "--query"),
        (fails(2, "--query", "select 1 as a; select 2", job="q"), "", ""),
        (fails(2, "--query", "create table zzz ()", job="q"), "", "only reads"),
        (fails(2, "--query", "delete from films returning *", job="q"), "only reads", "only reads"),
        (fails(2, "--query", "with d as (delete from films returning *) select * from d", job="q"), "", ""),
        (fails(2, "--query", "select nextval('counting') as n", job="q"), "writes", "Nothing was changed"),
        (fails(1, "--query", "select boom() as n", job="q"), "division by zero", ""),
        (fails(1, "--key", "title"), "same destination key (title)", "--key"),
        (fails(2, "--limit", "none"), "--limit", "--limit 1000"),
        (fails(2, "--ttl", "25h"), "at most 24h", "--ttl"),
        (fails(2, "--mode", "mirror"), "mirror", "upsert"),
    ]
    results = command_line.at_once(*(call for call, _, _ in calls), apart=True)
    for (_, message, hint), result in zip(calls, results, strict=True):
        assert message in result.json["error"]["message"], str(result)
        assert hint in (result.json["error"]["hint"] or ""), str(result)

    # Nothing half-done: no table, nothing that points at another run, no row gone.
    assert tables(dynamodb) - there == set()
    after = command_line(*in_cache).json
    assert after["current"] == before["current"]
    count = schema.connection.execute("select count(*) from films").fetchone()
    assert count == (20,)


@pytest.mark.usefixtures("films")
def test_places_that_cannot_be_used(command_line: CommandLine, schema: Schema, dynamodb: Any, unique: str) -> None:
    user = f"u_{unique.replace('-', '_')}"
    there = tables(dynamodb)
    schema.execute(f"create role {user} login password 'PLANTED-role'")
    try:
        info = schema.connection.info

        def url(password: str = "PLANTED-role", database: str = info.dbname, port: int = info.port) -> str:
            place = f"{user}:{password}@{info.host}:{port}/{database}"
            return f"postgresql://{place}?options=-csearch_path%3D{schema.name}"

        calls = _places(url, unique)
        results = command_line.at_once(*(call for call, _, _ in calls), apart=True)
    finally:
        schema.execute(f"drop role {user}")
    for (_, message, hint), result in zip(calls, results, strict=True):
        assert message in result.json["error"]["message"], str(result)
        assert hint in (result.json["error"]["hint"] or ""), str(result)
        assert "PLANTED" not in result.out + result.err, str(result)
    assert tables(dynamodb) - there == set()


def _places(url: Callable[..., str], unique: str) -> list[tuple[Any, str, str]]:
    def fails(code: int, *arguments: str, job: str = "films", **variables: str | None) -> Any:
        def call(cli: CommandLine) -> Result:
            return cli.given(**variables).fails(
                "run", "--table", job, "--cache", unique, "--destination", unique, *arguments, code=code
            )

        return call

    return [
        (fails(1, DATABASE_URL=url(port=9)), "cannot be reached", "Is the server running"),  # waited for, so the first
        (fails(1, DATABASE_URL=url(password="PLANTED-wrong")), "refused the login", "password"),
        (fails(1, DATABASE_URL=url(database="nowhere")), '"nowhere" does not exist', "database"),
        (fails(2, DATABASE_URL=url()), "there is no table 'films'", "films?"),  # it may not see any
        (fails(2, DATABASE_URL="postgresql://u:PLANTED%zz@h/d"), "malformed", "postgresql://"),
        (fails(2, DATABASE_URL="mysql://u:PLANTED@h/d"), "DATABASE_URL", "postgresql://"),
        (fails(2, MOMENTO_LOCAL=None, MOMENTO_API_KEY="PLANTED-cut-off"), "MOMENTO_API_KEY does not hold", "console"),
        (fails(2, MOMENTO_LOCAL=None, MOMENTO_API_KEY=UNSIGNED), "without its endpoint", "MOMENTO_ENDPOINT"),
        (
            fails(2, MOMENTO_LOCAL=None, MOMENTO_ENDPOINT="cell-4-us-west-2-1.prod.a.momentohq.com"),
            "without an API key",
            "MOMENTO_API_KEY",
        ),
        (fails(2, MOMENTO_LOCAL=None), "no cache (Momento) is configured", "MOMENTO_LOCAL"),
        (fails(2, MOMENTO_LOCAL="nonsense"), "MOMENTO_LOCAL", "8080"),
        (fails(2, "--cache", "a b"), "--cache has to be", "--cache movies"),
        (fails(2, "--cache", "x" * 256), "--cache has to be", "--cache movies"),
        (fails(2, "--destination", "ab"), "--destination has to be", "--destination movies"),
        (fails(2, "--destination", "a/b"), "--destination has to be", "--destination movies"),
        (fails(2, AWS_REGION=None), "no AWS region", "region"),
        (
            fails(2, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_SESSION_TOKEN=None),
            "no AWS credentials",
            "AWS_ACCESS_KEY_ID",
        ),
        (fails(2, AWS_SECRET_ACCESS_KEY=None, AWS_SESSION_TOKEN=None), "half of the AWS credentials", "AWS_SECRET"),
        (fails(2, AWS_PROFILE="nobody"), "nobody", "profile"),
        (fails(2, DATABASE_URL=None), "no source (PostgreSQL) is configured", "DATABASE_URL"),
    ]


def test_a_cache_that_holds_nothing_to_load(
    command_line: CommandLine, schema: Schema, dynamodb: Any, unique: str
) -> None:
    # A million rows of one text: the read fails at the end, when chunks are stored already, and the run stays partial.
    schema.execute("create table t (id integer primary key); insert into t values (1)")
    schema.execute("create function late(n bigint) returns bigint language sql immutable as 'select 1 / (20000 - n)'")
    query = "select n as id, md5(n::text) || md5((-n)::text) as a, late(n) as b from generate_series(1, 20000) n"
    cut = command_line.fails("extract", "--table", "cut", "--query", query, "--cache", unique, code=1)
    run_id = cut.json["run_id"]
    assert cut.json["chunks"] > 0
    command_line("create-table", "t", "--destination", unique, "--quiet")

    to = ("--destination", unique)
    nothing, partial, none_current, expired, no_job = command_line.at_once(
        lambda cli: cli.fails("load", "--table", "cut", "--cache", f"{unique}-none", *to, code=1),
        lambda cli: cli.fails("load", "--table", "cut", "--cache", unique, "--run-id", run_id, *to, code=1),
        lambda cli: cli.fails("load", "--table", "cut", "--cache", unique, *to, code=1),
        lambda cli: cli.fails("load", "--table", "cut", "--cache", unique, "--run-id", "2026", *to, code=1),
        lambda cli: cli.fails("load", code=2),
        apart=True,
    )
    assert "there is no cache" in nothing.err
    assert "momento-etl extract --table cut" in nothing.err
    assert "not complete" in partial.err
    assert "holds no complete extraction of cut" in none_current.err
    assert "holds no run 2026 of cut" in expired.err
    assert "no table is named" in no_job.err
    assert dynamodb.scan(TableName=unique)["Count"] == 0
    shown = command_line("inspect-cache", "cut", "--cache", unique)
    assert "partial" in shown.out
    listed = command_line("inspect-cache", "cut", "--cache", unique, "--output", "json").json
    assert (listed["current"], listed["runs"][0]["status"]) == (None, "extracting")


def test_config_files_that_cannot_be_read(command_line: CommandLine) -> None:
    def written(name: str, text: str) -> str:
        path = command_line.folder / name
        path.write_text(text)
        return str(path)

    def fails(config: str) -> Any:
        return lambda cli: cli.fails("run", "--table", "t", "--config", config, code=2)

    calls = [
        (fails(written("a.toml", "[cache]\n\nttll = '80m'\n")), "a.toml, line 3: unknown key `ttll`", "ttl"),
        (
            fails(written("b.toml", "[cahce]\nttl = '80m'\n")),
            "line 1: unknown section [cahce]; did you mean `cache`",
            "",
        ),
        (fails(written("c.toml", "[cache]\nttl = true\n")), "line 2: `ttl` in [cache] has to be", ""),
        (fails(written("d.toml", "[cache\n")), "line 1, column 7: not TOML", "config.example.toml"),
        (fails(written("e.toml", "[source]\nurl = 'env:NOT_SET'\n[cache]\nname='x y'\n")), "line 4", ""),
        (fails(str(command_line.folder)), "cannot be read", "file"),
        (fails(str(command_line.folder / "none.toml")), "does not exist", "--config"),
        (
            lambda cli: cli.given(MOMENTO_ETL_CACHE_TLT="80m").fails("run", "--table", "t", code=2),
            "MOMENTO_ETL_CACHE_TLT",
            "variables",
        ),
    ]
    results = command_line.at_once(*(call for call, _, _ in calls), apart=True)
    for (_, message, hint), result in zip(calls, results, strict=True):
        assert message in result.json["error"]["message"], str(result)
        assert hint in (result.json["error"]["hint"] or ""), str(result)


def test_nothing_is_configured_and_nobody_is_there_to_see_it(bare: CommandLine) -> None:
    for result in bare.at_once(
        lambda cli: cli.fails("run", "--table", "movies", code=2),
        lambda cli: cli.fails("inspect-cache", "movies", code=2),
        lambda cli: cli.fails("create-table", "movies", code=2),
    ):
        assert "nothing is configured" in result.json["error"]["message"]
        assert "--local" in result.json["error"]["hint"]
        assert "embedded stack: a toy" not in result.err


def test_command_lines_that_say_nothing(command_line: CommandLine) -> None:
    calls = [
        (("rnu",), "no such command 'rnu'", "Did you mean run?"),
        (("run", "--tabel", "t"), "no such option: --tabel", "Did you mean --table?"),
        (("run", "movies"), "unexpected extra argument", "momento-etl run --help"),
        (("inspect-cache",), "missing argument", "momento-etl inspect-cache --help"),
        (("local", "stauts"), "no such command 'stauts'", "Did you mean status?"),
        (("--table", "t", "run"), "no such option: --table", "Options follow the command"),
        (("run",), "no table is named", "--table NAME"),
        (("run", "--query", "select 1"), "--query needs a name", "--table NAME"),
        (("run", "--table", ""), "no table is named", "--table NAME"),
        (("run", "--table", '"open'), "not well formed", "Quote"),
        (("run", "--table", "t", "--where", "\udcff"), "not UTF-8", "UTF-8"),
    ]
    results = command_line.at_once(*(lambda cli, words=words: cli.fails(*words, code=2) for words, _, _ in calls))
    for (_, message, hint), result in zip(calls, results, strict=True):
        assert message in result.json["error"]["message"], str(result)
        assert hint in (result.json["error"]["hint"] or ""), str(result)
        assert result.json["duration_seconds"] < 60
    wrong_form = command_line("run", "--table", "t", "--output", "xml", code=2)
    assert "'xml' is not one of 'text', 'json', 'jsonl'" in wrong_form.err
    assert wrong_form.out == ""
