"""``--source``: another PostgreSQL for once, over environment and file, in every form that libpq knows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from psycopg import conninfo

from tests.conftest import Schema
from tests.integration.command_line import CommandLine

NOWHERE = "postgresql://nobody@127.0.0.1:9/nothing?connect_timeout=2"


@pytest.fixture
def elsewhere(forked: CommandLine, schema: Schema, tmp_path: Path) -> CommandLine:
    """Environment and file name other sources, which do not answer."""
    schema.execute("create table small (id integer primary key); insert into small select generate_series(1, 9)")
    (tmp_path / "momento-etl.toml").write_text(f'[source]\nurl = "{NOWHERE}"\n')
    return forked.given(DATABASE_URL=f"{NOWHERE}&application_name=x")


def test_every_command_that_reads_the_source_has_it(elsewhere: CommandLine, schema: Schema, unique: str) -> None:
    to = ("--table", "small", "--cache", unique, "--destination", unique)
    where = ("--source", schema.url)
    run = elsewhere("run", *to, *where)
    assert re.search(r"^read +9 rows", run.err, re.MULTILINE), run
    assert "overrides" not in run.err
    elsewhere("extract", *to[:4], *where)
    elsewhere("plan", *to, *where)
    elsewhere("run", *to, *where, "--dry-run")
    elsewhere("verify", *to, "--source-url", schema.url, "--source")
    elsewhere("create-table", "small", "--destination", unique, *where)
    checks = elsewhere("doctor", "--table", "small", *where, "--output", "json").json["checks"]
    assert [check["status"] for check in checks if check["endpoint"] == "source"] == ["ok"] * 7


def test_keywords_services_and_references(elsewhere: CommandLine, schema: Schema, unique: str, tmp_path: Path) -> None:
    to = ("--table", "small", "--cache", unique, "--destination", unique)
    parts = conninfo.conninfo_to_dict(schema.url)
    elsewhere("run", *to, "--source", conninfo.make_conninfo("", **parts))
    service = "".join(f"{name}={value}\n" for name, value in parts.items())
    (tmp_path / "services").write_text(f"[shop]\n{service}")
    given = elsewhere.given(PGSERVICEFILE=str(tmp_path / "services"), SHOP=schema.url)
    for address in ("service=shop", "postgresql://?service=shop", "env:SHOP"):
        given("run", *to, "--source", address)


def test_what_it_does_not_take(elsewhere: CommandLine, bare: CommandLine) -> None:
    for address, words in (
        ("mysql://h/d", "--source has to be a PostgreSQL address"),
        (" ", "--source is empty"),
        ("env:NO_SUCH_VARIABLE", "NO_SUCH_VARIABLE"),
        ("postgresql://u:PLANTED-odd/@h/d", "malformed"),
    ):
        failed = elsewhere.fails("run", "--table", "small", "--source", address, code=2)
        assert words in failed.json["error"]["message"]
        assert "PLANTED" not in failed.out + failed.err
    both = bare.fails("run", "--table", "movies", "--local", "--source", NOWHERE, code=2)
    assert "--source and --local exclude each other" in both.json["error"]["message"]


def test_its_password_is_shown_nowhere(elsewhere: CommandLine, unique: str) -> None:
    url = "postgresql://ada:PLANTED-password@127.0.0.1:9/d?connect_timeout=2"
    for more in (("--output", "json"), ("--verbose",)):
        failed = elsewhere("run", "--table", unique, "--source", url, "--timeout", "1s", *more, code=1)
        assert "PLANTED-password" not in failed.out + failed.err
    assert "not done after 1s (--timeout)" in failed.err
    assert "--source 'postgresql://ada:***@127.0.0.1:9/d?connect_timeout=2'" in failed.err
