"""One way from PostgreSQL to DynamoDB, run once in a process of its own; what it took, and what it asked of whom."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from statistics import median

import boto3

from tests.bench.launch import Ended, launch
from tests.bench.servers import Servers
from tests.bench.table import KEY, make_table

__all__ = ["DESTINATION", "PRODUCT", "Run", "Way", "prepare", "rates", "run", "table_of"]

DESTINATION = "bench"
"""The table that all ways write into."""


@dataclass(frozen=True)
class Way:
    """A way to move a table.

    Attributes:
        name: What it is called in figures.
        label: The same for people.
        module: Run as ``python -m MODULE TABLE CACHE DESTINATION``; None for the product's own command.
        share: The part of a comparison's rows that it gets.
        needs: A package that may not be there.
    """

    name: str
    label: str
    module: str | None
    share: float = 1.0
    needs: str | None = None

    @property
    def is_there(self) -> bool:
        """Whether it can be run."""
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


PRODUCT = Way("product", "momento-etl run, all promises kept", None)


@dataclass(frozen=True)
class Run:
    """A way over a table.

    Attributes:
        rows: The rows of the table.
        ended: How its process ended.
        momento: What it asked of Momento: ``calls``, ``operations``, and the server's ``cpu_ms``.
        dynamodb: What it sent to DynamoDB: ``requests``, ``items``, ``bytes``, and the server's ``cpu_ms``.
    """

    rows: int
    ended: Ended
    momento: Mapping[str, int]
    dynamodb: Mapping[str, int]


def prepare(servers: Servers, sizes: Iterable[int]) -> None:
    """Make the source's tables, one for each count of rows, and the destination."""
    for rows in sorted({1, *sizes}):
        make_table(servers.postgres_url, table_of(rows), rows)
    access = servers.environment()
    client = boto3.client(
        "dynamodb",
        region_name=access["AWS_REGION"],
        endpoint_url=access["AWS_ENDPOINT_URL_DYNAMODB"],
        aws_access_key_id=access["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=access["AWS_SECRET_ACCESS_KEY"],
    )
    with closing(client), suppress(client.exceptions.ResourceInUseException):  # there already
        client.create_table(
            TableName=DESTINATION,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": KEY, "AttributeType": "N"}],
            KeySchema=[{"AttributeName": KEY, "KeyType": "HASH"}],
        )


def run(servers: Servers, way: Way, rows: int, cache: str) -> Run:
    """Run a way over the table of so many rows, which ``prepare`` has made.

    Raises:
        RuntimeError: It failed, or not every row arrived.
    """
    momento, dynamodb = servers.momento.counts(), servers.dynamodb.counts()
    ended = launch(_command(way, rows, cache), servers.environment())
    found = Run(rows, ended, _since(momento, servers.momento.counts()), _since(dynamodb, servers.dynamodb.counts()))
    if not found.dynamodb["items"] == ended.summary["rows_loaded"] == rows:
        raise RuntimeError(f"{way.name}: {found.dynamodb['items']:,} of {rows:,} rows arrived")
    return found


def rates(runs: Sequence[Run], idle: Sequence[Run]) -> list[float]:
    """Rows a second of each run, without the start-up: what runs over a single row take, in the median."""
    start_up = median(one.ended.seconds for one in idle)
    # So few rows that a start's own ups and downs hide what they take have no rate worth the name.
    return [one.rows / max(one.ended.seconds - start_up, 0.001) for one in runs]


def table_of(rows: int) -> str:
    """Name the table of so many rows."""
    return f"bench_{rows}"


def _command(way: Way, rows: int, cache: str) -> list[str]:
    if way.module is not None:
        return ["-m", way.module, table_of(rows), cache, DESTINATION]
    options = ("--cache", cache, "--destination", DESTINATION, "--output", "json", "--quiet")
    return ["-m", "etlcli", "run", "--table", table_of(rows), *options]


def _since(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {name: count - before[name] for name, count in now.items()}
