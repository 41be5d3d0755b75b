"""A job between three servers that tests have in their hands: what is stored can be seen and lost, answers can be held.

Momento is a server in a thread, DynamoDB is a keeper before the session's own for the state; commands are forked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import boto3

from etlcli.local.momento.server import MomentoServer, serve
from etlcli.local.momento.store import Cache
from tests.conftest import Schema, Stack
from tests.integration.beside import beside
from tests.integration.command_line import CommandLine
from tests.integration.mortal import SMALL_CHUNKS, Mortal
from tests.integration.source_helpers import until
from tests.integration.stateful_keeper import StatefulKeeper

__all__ = ["Place", "place_for"]


@dataclass
class Place:
    """A table ``films``, and what its runs go through.

    Attributes:
        line: Commands that make many small chunks of it.
        schema: Where it is.
        momento: What they are stored in.
        keeper: What they are loaded into.
        to: The options that name the job, its cache and its table.
        dynamodb: A client of what keeps the state.
    """

    line: CommandLine
    schema: Schema
    momento: MomentoServer
    keeper: StatefulKeeper
    to: tuple[str, ...]
    dynamodb: Any

    @property
    def table(self) -> str:
        """The destination."""
        return self.to[-1]

    @property
    def state_table(self) -> str:
        """The state table."""
        return self.line.variables()["MOMENTO_ETL_STATE_TABLE"]

    @property
    def cache(self) -> Cache:
        """What the cache holds."""
        return self.momento.store.cache(self.to[3])

    def keys(self, part: str) -> list[str]:
        """The keys in the cache that have this in them, in order."""
        self.momento.store.sweep()
        return sorted(key.decode() for key in list(self.cache._entries) if part in key.decode())

    def known_as(self, access_key: str) -> CommandLine:
        """Commands whose writes the keeper tells from others'."""
        return self.line.given(AWS_ACCESS_KEY_ID=access_key)

    def start(self, *command: str, line: CommandLine | None = None) -> Mortal:
        """Start a command on the job, and leave it running."""
        process = (line or self.line).start(command[0], *self.to, *command[1:], "--output", "json")
        assert isinstance(process, Mortal)
        return process

    def stalled(self, *command: str, batches: int = 0) -> Mortal:
        """Start a command, and wait until it waits for an answer to a write: only so many are answered."""
        self.keeper.hold(BatchWriteItem=batches)
        before = self.keeper.calls["BatchWriteItem"]
        process = self.start(*command)
        until(lambda: self.keeper.calls["BatchWriteItem"] > before + batches or process.poll() is not None, "a write")
        assert process.poll() is None, process.err
        return process

    def assert_exact(self) -> None:
        """Every row as it is now is in the destination, and nothing else."""
        rows = self.schema.connection.execute("select id, title from films").fetchall()
        kept = self.keeper.kept.get(self.table, {}).values()
        assert {int(item["id"]["N"]): item["title"]["S"] for item in kept} == dict(rows)  # type: ignore[arg-type]


@contextmanager
def place_for(forked: CommandLine, schema: Schema, stack: Stack, unique: str, rows: int) -> Iterator[Place]:
    """Make a place with a table of so many rows."""
    schema.execute(
        "create table films (id integer primary key, title text);"
        f" insert into films select n, 'film ' || md5(n::text) from generate_series(1, {rows}) n"
    )
    client = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=stack.dynamodb_url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    with StatefulKeeper(stack.dynamodb_url) as keeper, beside(lambda: serve(port=0)) as momento:
        line = forked.given(AWS_ENDPOINT_URL_DYNAMODB=keeper.url, MOMENTO_LOCAL=momento.address)
        yield Place(
            replace(line, changes=SMALL_CHUNKS),
            schema,
            momento,
            keeper,
            ("--table", "films", "--cache", unique, "--destination", unique),
            client,
        )
    client.close()
