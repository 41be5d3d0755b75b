"""What the core asks of a source, a cache and a sink. Each method says what it returns and what it raises.

Every implementation, real or fake, passes the contract suite of its port in ``tests/contract``. All of them raise
``Throttled`` or ``Unavailable`` only after they have tried again for as long as their retry policy allows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from etlcli.model import CreateOptions, Key, Relation, Selection, SnapshotRecord

__all__ = ["Cache", "Reading", "Refusal", "Sink", "Snapshot", "Source"]


class Reading(NamedTuple):
    """One pass over the source, decided by the plan.

    Attributes:
        selection: What the user asked for.
        columns: The columns to read, in this order; they become the fields of each line.
        order_by: The columns that order the rows; empty for the source's own order.
    """

    selection: Selection
    columns: tuple[str, ...]
    order_by: tuple[str, ...]


class Snapshot(Protocol):
    """One read-only snapshot of the source."""

    record: SnapshotRecord

    async def describe(self, selection: Selection) -> Relation:
        """Look up what a selection stands for, without reading rows.

        Raises:
            UsageError: The table or the query does not exist or is not one that only reads; near names are in the hint.
            SourceError: PostgreSQL refuses.
        """
        ...

    def read(self, reading: Reading) -> AsyncIterator[list[bytes]]:
        """Stream rows as lines of PostgreSQL's COPY text format, without their newline, in batches.

        Raises:
            UsageError: A condition or a query is wrong.
            SourceError: PostgreSQL refuses, or fails in the middle.
            Unavailable: The connection broke.
        """
        ...

    async def duplicates(self, reading: Reading, key: Sequence[str]) -> list[tuple[str | None, ...]]:
        """Find some values of ``key`` (at most 5, as PostgreSQL's text) that more than one of the rows has."""
        ...


class Source(Protocol):
    """Where rows come from."""

    @property
    def description(self) -> str:
        """Where it is, in words, without any secret: ``127.0.0.1:5432/shop``."""
        ...

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """Connect and open one read-only snapshot.

        Raises:
            SourceError: Wrong password, no such database.
            Unavailable: Nobody answers.
        """
        ...


class Cache(Protocol):
    """A named cache of values under keys, each with a time to live."""

    @property
    def name(self) -> str:
        """The cache's name."""
        ...

    async def ensure(self) -> bool:
        """Make the cache if it is missing; answer whether it was made now.

        Raises:
            UsageError: The name is not a valid cache name.
            CacheError: The key is refused, or the account has no room for another cache.
        """
        ...

    async def exists(self) -> bool:
        """Whether the cache is there."""
        ...

    async def get(self, key: str) -> bytes | None:
        """The value under a key, or None for a miss.

        Raises:
            CacheError: The cache does not exist, or Momento refuses.
        """
        ...

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store a value.

        Raises:
            TooLarge: The value is over the limit of an item (5 MB).
            CacheError: The cache does not exist, or Momento refuses.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove a key; harmless where it is not there."""
        ...


class Refusal(NamedTuple):
    """An item that DynamoDB refused, with its words."""

    item: bytes
    message: str


class Sink(Protocol):
    """One destination table."""

    @property
    def table(self) -> str:
        """The table's name."""
        ...

    async def key(self) -> Key | None:
        """The key of the existing table, or None where there is no such table.

        Raises:
            SinkError: Not allowed, or another refusal.
        """
        ...

    async def create(self, key: Key, options: CreateOptions) -> None:
        """Create the table, on demand, and wait until it is ACTIVE; harmless where it was created meanwhile.

        Raises:
            UsageError: The name is not a valid table name.
            SinkError: Not allowed, over the account's quota, or another refusal.
        """
        ...

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        """Put items, each as DynamoDB JSON (``{"id":{"N":"1"},...}``), and return when each is acknowledged or refused.

        Any number of items; of two with one key none is promised to win.

        Returns:
            The items that DynamoDB refuses for what they hold.

        Raises:
            SinkError: The table does not exist (any more), or DynamoDB refuses all.
        """
        ...
