"""A password that is given apart from the URL, and tokens in its place."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from psycopg import conninfo

from etlcli.errors import ConfigError, Unavailable
from etlcli.hidden import masked
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.source.deadlines import Deadlines
from etlcli.source.login import Login, login_of
from etlcli.source.postgres import PostgresSource

SECRET = "PLANTED-s3cret"


def no_token(login: Login) -> str:
    raise AssertionError(f"nobody connects to {login}")


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("postgresql://etl@db.example.org/shop", {}, Login("db.example.org", 5432, "etl")),
        ("postgresql://etl@db.example.org:6432/shop", {}, Login("db.example.org", 6432, "etl")),
        ("host=db.example.org user=etl hostaddr=10.0.0.1", {}, Login("db.example.org", 5432, "etl")),
        ("", {"PGHOST": "db", "PGPORT": "7", "PGUSER": "etl"}, Login("db", 7, "etl")),
        ("postgresql://me@/shop", {"PGHOST": "db", "PGUSER": "etl"}, Login("db", 5432, "me")),
        ("postgresql://odd%20user@db/shop", {}, Login("db", 5432, "odd user")),
    ],
)
def test_who_logs_in_where(url: str, environ: dict[str, str], expected: Login, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert login_of(conninfo.conninfo_to_dict(url)) == expected


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("postgresql://etl@/shop", "no host"),
        ("postgresql://etl@a,b/shop", "several hosts"),
        ("host=a,b port=1,2", "several hosts"),
        ("host=/var/run user=etl", "a socket"),
        ("hostaddr=10.0.0.1 user=etl", "no host"),
    ],
)
def test_a_token_needs_one_host_with_a_name(url: str, found: str) -> None:
    with pytest.raises(ConfigError, match=f"the source's address has {found}") as caught:
        PostgresSource(url, Counters(), password=no_token)
    assert caught.value.hint


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_a_token_goes_with_tls_only(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=f"sslmode={mode} may do without"):
        PostgresSource(f"postgresql://etl@db/shop?sslmode={mode}", Counters(), password=no_token)
    monkeypatch.setenv("PGSSLMODE", mode)
    with pytest.raises(ConfigError, match=f"sslmode={mode} may do without") as caught:
        PostgresSource("postgresql://etl@db/shop", Counters(), password=no_token)
    assert caught.value.hint
    PostgresSource("postgresql://etl@db/shop?sslmode=verify-full", Counters(), password=no_token)


def test_a_service_is_not_overruled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "services").write_text("[shop]\nhost=db.example.org\nuser=etl\nsslmode=verify-full\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    with pytest.raises(ConfigError, match="leaves sslmode to its service"):
        PostgresSource("postgresql://db.example.org/shop?service=shop", Counters(), password=no_token)
    monkeypatch.setenv("PGSERVICE", "shop")
    source = PostgresSource("", Counters(), password=no_token)
    assert "sslmode" not in conninfo.conninfo_to_dict(source._conninfo)
    assert login_of({}) == Login("db.example.org", 5432, "etl")


def test_tls_is_asked_for_unless_more_is(monkeypatch: pytest.MonkeyPatch) -> None:
    source = PostgresSource("postgresql://etl@db/shop", Counters(), password=no_token)
    assert conninfo.conninfo_to_dict(source._conninfo)["sslmode"] == "require"
    monkeypatch.setenv("PGSSLMODE", "verify-ca")
    source = PostgresSource("postgresql://etl@db/shop", Counters(), password=no_token)
    assert "sslmode" not in conninfo.conninfo_to_dict(source._conninfo)


@pytest.mark.parametrize("password", [SECRET, no_token])
@pytest.mark.parametrize(
    "url",
    [f"postgresql://me:{SECRET}-2@db/x", f"host=db password={SECRET}-2", f"postgresql://db/x?password={SECRET}-2"],
)
def test_two_passwords_are_one_too_many(url: str, password: str) -> None:
    with pytest.raises(ConfigError, match="two passwords") as caught:
        PostgresSource(url, Counters(), password=password)
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"
    assert masked(f"{SECRET}-2") == "***"


def test_a_password_apart_is_taken_as_it_stands() -> None:
    odd = "p@ss:w%rd \"quoted\" 'é'\\ "
    source = PostgresSource("postgresql://me@db/x", Counters(), password=odd)
    assert conninfo.conninfo_to_dict(source._conninfo)["password"] == odd
    assert "pass" not in repr(source) + source.description


def test_a_token_that_is_not_made_in_time() -> None:
    over = threading.Event()

    def token(_: Login) -> str:
        over.wait(60)
        return "late"

    source = PostgresSource(
        "postgresql://etl@127.0.0.1:1/shop",
        Counters(),
        RetryPolicy(patience=-1.0),
        Deadlines(statement=0.01),
        password=token,
    )

    async def main() -> None:
        try:
            with pytest.raises(Unavailable, match="no token to log in"):
                async with source.snapshot():
                    pass
        finally:
            over.set()

    asyncio.run(main())
