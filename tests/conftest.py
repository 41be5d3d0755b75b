"""What every test stands on: a clean environment, and one embedded stack for the whole session.

Real services can take the stack's place, part by part, through the environment:

    MOMENTO_ETL_TEST_POSTGRES   a PostgreSQL URL whose user may create schemas
    MOMENTO_ETL_TEST_MOMENTO    host:port of a Momento Local
    MOMENTO_ETL_TEST_DYNAMODB   the URL of a DynamoDB Local or the like
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from etlcli import hidden

# Settings of whoever runs the tests must not decide how they end.
_FOREIGN = ("PG", "AWS_", "MOMENTO_", "DATABASE_URL", "XDG_", "NO_COLOR", "FORCE_COLOR", "COLUMNS")
_KEPT = ("MOMENTO_ETL_TEST_", "AWS_CA_BUNDLE")

_postgres_given = os.environ.get("MOMENTO_ETL_TEST_POSTGRES")
_momento_given = os.environ.get("MOMENTO_ETL_TEST_MOMENTO")
_dynamodb_given = os.environ.get("MOMENTO_ETL_TEST_DYNAMODB")


@dataclass(frozen=True)
class Stack:
    """Where the session's servers are.

    Attributes:
        folder: The embedded stack's folder, for MOMENTO_ETL_LOCAL_DIR.
        postgres_url: With a password that is worth nothing.
        momento: host:port.
        dynamodb_url: Any credentials will do.
    """

    folder: Path
    postgres_url: str
    momento: str
    dynamodb_url: str


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in os.environ:
        if name.startswith(_FOREIGN) and not name.startswith(_KEPT):
            monkeypatch.delenv(name)
    # What one test plants must not be hidden from what another one reads.
    monkeypatch.setattr(hidden, "_patterns", {})
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    from etlcli.local import stack as embedded

    folder = tmp_path_factory.mktemp("embedded") / "local"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOMENTO_ETL_LOCAL_DIR", str(folder))
        endpoints = embedded.up()
    yield Stack(
        folder,
        _postgres_given or endpoints.postgres_url,
        _momento_given or endpoints.momento,
        _dynamodb_given or endpoints.dynamodb_url,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOMENTO_ETL_LOCAL_DIR", str(folder))
        embedded.down(purge=True)


@dataclass(frozen=True)
class Schema:
    """A schema of a test's own, gone when the test is over.

    Attributes:
        name: Its name.
        url: A URL under which it is the search path, so that its tables need no schema in front.
        connection: Autocommitting, with the same search path.
    """

    name: str
    url: str
    connection: psycopg.Connection[tuple[object, ...]]

    def execute(self, statement: str) -> None:
        """Run one or more statements."""
        self.connection.execute(sql.SQL(statement))


@pytest.fixture
def schema(stack: Stack) -> Iterator[Schema]:
    name = f"t_{secrets.token_hex(5)}"
    separator = "&" if "?" in stack.postgres_url else "?"
    url = f"{stack.postgres_url}{separator}options=-csearch_path%3D{name}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("create schema {}").format(sql.Identifier(name)))
        yield Schema(name, url, connection)
        connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(name)))


@pytest.fixture
def unique() -> str:
    """A name that no other test has, good for caches and tables."""
    return f"etl-{secrets.token_hex(6)}"
