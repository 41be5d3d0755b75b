"""rds-iam: a token of its own for each connection, over TLS, told to nobody else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from psycopg import conninfo

from etlcli.errors import AuthenticationError, ConfigError, SourceError, SourceLoginError
from etlcli.hidden import masked
from etlcli.progress import Counters
from etlcli.secrets.rds_iam import RdsTokens
from etlcli.source.login import Login
from etlcli.source.postgres import PostgresSource
from tests.conftest import Schema, Stack
from tests.integration.command_line import PLANTED, CommandLine
from tests.integration.momento_cell import certified
from tests.integration.rds_front import RdsFront, rds_front
from tests.integration.source_helpers import PATIENT

CONFIG = '[source]\nurl = "{}"\npassword = "rds-iam"\n'


async def opened(source: PostgresSource) -> None:
    async with source.snapshot():
        pass


@pytest.fixture
def front(stack: Stack, tmp_path: Path) -> Iterator[RdsFront]:
    with rds_front(stack.postgres_url, tmp_path) as running:
        yield running


@pytest.fixture
def url(front: RdsFront, stack: Stack, schema: Schema) -> str:
    """An address of the front's, without a password: its name is what is signed."""
    schema.execute("create table films (id integer primary key, title text); insert into films values (1, 'a')")
    database = conninfo.conninfo_to_dict(stack.postgres_url)["dbname"]
    there = f"localhost:{front.port}/{database}?hostaddr=127.0.0.1"
    return f"postgresql://etl@{there}&options=-csearch_path%3D{schema.name}"


@pytest.fixture
def line(forked: CommandLine, url: str, tmp_path: Path) -> CommandLine:
    (tmp_path / "momento-etl.toml").write_text(CONFIG.format(url))
    # No part of a token either: the session's, in the way that a URL has it, and the signature's name.
    made = forked.given(DATABASE_URL=None)
    secrets = (*made.secrets, quote(PLANTED[1]), "X-Amz-Signature")
    return CommandLine(made.environment, made.folder, secrets, made.more, made.mortals)


def test_a_run_logs_in_with_tokens(line: CommandLine, front: RdsFront, unique: str) -> None:
    to = ("--table", "films", "--cache", unique, "--destination", unique)
    summary = line("run", *to, "--verbose", "--output", "json").json
    assert summary["rows_loaded"] == 1
    assert front.shown
    assert front.in_clear == 0
    for user, token in front.shown:
        assert user == "etl"
        parts = urlsplit(f"//{token}")
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert parts.netloc == f"localhost:{front.port}"
        assert (asked["Action"], asked["DBUser"], asked["X-Amz-Expires"]) == ("connect", "etl", "900")
        assert re.fullmatch(r"test/\d{8}/us-east-1/rds-db/aws4_request", asked["X-Amz-Credential"])
        assert asked["X-Amz-Security-Token"] == PLANTED[1]
        assert re.fullmatch(r"[0-9a-f]{64}", asked["X-Amz-Signature"])


def test_each_connection_has_a_token_of_its_own(front: RdsFront, url: str) -> None:
    made: list[Login] = []

    def token(login: Login) -> str:
        made.append(login)
        return f"token {len(made)}"

    front.cuts = 1
    counters = Counters()
    source = PostgresSource(url, counters, PATIENT, password=token)
    asyncio.run(opened(source))
    asyncio.run(opened(source))
    # The first one broke once it was let in, and the second snapshot is a connection of its own.
    assert front.shown == [("etl", "token 1"), ("etl", "token 2"), ("etl", "token 3")]
    assert made == [Login("localhost", front.port, "etl")] * 3
    assert counters.retries == 1


def test_a_token_that_is_refused(line: CommandLine, front: RdsFront, url: str) -> None:
    front.refuses = 3
    for form in (("--verbose",), ("--output", "json")):
        said = line("plan", "--table", "films", *form, code=1).err
        assert "refused the login" in said
        assert "rds-db:connect" in said
    with pytest.raises(SourceLoginError, match="PAM authentication failed") as caught:
        asyncio.run(opened(PostgresSource(url, Counters(), PATIENT, password=lambda _: "PLANTED")))
    assert isinstance(caught.value, AuthenticationError)
    assert len(front.shown) == 3  # none of them was tried again


def test_the_servers_certificate_can_be_checked(front: RdsFront, url: str, tmp_path: Path) -> None:
    for mode in ("require", "verify-ca", "verify-full"):
        checked = f"{url}&sslmode={mode}&sslrootcert={tmp_path}/certificate.pem"
        asyncio.run(opened(PostgresSource(checked, Counters(), password=lambda _: "token")))
    assert len(front.shown) == 3
    # Another's certificate, which the front does not show.
    certified(tmp_path, "localhost")
    source = PostgresSource(checked, Counters(), password=lambda _: "token")
    with pytest.raises(SourceError, match="certificate verify failed"):
        asyncio.run(opened(source))
    assert len(front.shown) == 3


def test_no_token_goes_to_a_server_without_tls(line: CommandLine, stack: Stack, tmp_path: Path) -> None:
    parameters = conninfo.conninfo_to_dict(stack.postgres_url)
    address = f"postgresql://etl@{parameters['host']}:{parameters['port']}/{parameters['dbname']}"
    (tmp_path / "momento-etl.toml").write_text(CONFIG.format(address))
    error = line.fails("plan", "--table", "films", code=1).json["error"]
    assert "server does not support SSL" in error["message"]


def test_what_a_token_is_not_made_without(line: CommandLine, front: RdsFront, url: str, tmp_path: Path) -> None:
    # Which needs nothing else of AWS.
    extract = ("extract", "--table", "films")

    def said(with_url: str = url, **variables: str | None) -> str:
        (tmp_path / "momento-etl.toml").write_text(CONFIG.format(with_url))
        return str(line.given(**variables).fails(*extract, code=2).json["error"]["message"])

    assert "sslmode=prefer may do without" in said(f"{url}&sslmode=prefer")
    assert "sslmode=disable may do without" in said(PGSSLMODE="disable")
    assert "two passwords" in said(url.replace("etl@", "etl:PLANTED-password@"))
    assert "needs one host" in said("postgresql://etl@/shop")
    assert 'password = "rds-iam" for etl@localhost: no AWS region is set' in said(
        AWS_REGION=None, AWS_ENDPOINT_URL_DYNAMODB=None
    )
    anonymous = said(AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, AWS_SESSION_TOKEN=None)
    assert 'password = "rds-iam" for etl@localhost: no AWS credentials are found' in anonymous
    assert "for etl@localhost: no such AWS profile: nosuch" in said(AWS_PROFILE="nosuch")
    assert front.shown == []


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("shop.abc123.eu-west-3.rds.amazonaws.com", "eu-west-3"),
        ("shop.cluster-ro-abc123.EU-west-3.rds.amazonaws.com", "eu-west-3"),
        ("shop.proxy-abc123.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
        ("db.example.org", "us-east-2"),
    ],
)
def test_the_region_is_the_hosts_own(host: str, region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "PLANTED")
    token = RdsTokens("us-east-2")(Login(host, 5432, "odd user"))
    assert f"%2F{region}%2Frds-db%2F" in token
    assert "DBUser=odd%20user" in token
    assert masked(f"it was {token}!") == "it was ***!"


def test_without_a_region_none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "PLANTED")
    with pytest.raises(ConfigError, match="no AWS region is set"):
        RdsTokens()(Login("db.example.org", 5432, "etl"))
