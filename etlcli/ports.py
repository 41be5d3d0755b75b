"""What the core asks of a source, a cache and a sink. Each method says what it returns and what it raises.

Every implementation, real or fake, passes the contract suite of its port in ``tests/contract``. All of them raise
``Throttled`` or ``Unavailable`` only after they have tried again for as long as their retry policy allows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from etlcli.encoding.specs import AttributeSpec
from etlcli.model import CreateOptions, Key, Relation, Selection, SnapshotRecord
from etlcli.state import (
    Claim,
    Held,
    Lease,
    LeaseRecord,
    LeaseWatch,
    Lost,
    Mark,
    RunRecord,
    Taken,
    Watermark,
    WatermarkEntry,
)

__all__ = [
    "Cache",
    "History",
    "Leases",
    "Marks",
    "Progress",
    "Reading",
    "Refusal",
    "Sink",
    "Snapshot",
    "Source",
    "StateStore",
    "Watermarks",
]


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

    async def duplicates(self, reading: Reading, key: Sequence[str | AttributeSpec]) -> list[tuple[str | None, ...]]:
        """Find some values of ``key`` (at most 5, as text) that more than one of the rows has.

        Args:
            reading: The rows.
            key: The key's attributes; a name alone stands for a column as it is.
        """
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

    async def get_dictionary(self, key: str) -> dict[str, bytes] | None:
        """The fields of a dictionary, or None for a miss.

        Raises:
            CacheError: The cache does not exist, or Momento refuses.
        """
        ...

    async def set_dictionary(self, key: str, fields: Mapping[str, bytes], ttl_seconds: float) -> None:
        """Store a dictionary of at least one field, under a key that no dictionary has yet.

        Raises:
            TooLarge: A value is over the limit of an element (128 KB).
            CacheError: The cache does not exist, or Momento refuses.
        """
        ...

    async def delete(self, key: str) -> None:
        """Remove a key, of a value or a dictionary; harmless where it is not there."""
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


class Leases(Protocol):
    """The right to load for a job, one holder at a time."""

    async def acquire(self, job: str, claim: Claim, watch: LeaseWatch) -> Taken | Held:
        """Try once to take a job's lease. Waiting is the caller's: call again with the same claim and watch.

        Of any number of claims at once one is taken. A lease that is ours by its holder's name is renewed and ours.

        Args:
            job: The job's name.
            claim: Who wants it.
            watch: What was seen of it so far; a new one for the first attempt.

        Raises:
            SinkError: The table cannot be made, is gone, or has a lease of a newer format.
        """
        ...

    async def renew(self, lease: Lease) -> Lease | Lost:
        """Renew a lease; the answer takes the place of the old one.

        It tries for less than the period, so that its caller can tell in time that it is out of reach.

        Raises:
            SinkError: The table is gone, or DynamoDB refuses.
        """
        ...

    async def release(self, lease: Lease) -> bool:
        """Give a lease back; answer whether it was still ours."""
        ...

    async def fetch_lease(self, job: str) -> LeaseRecord | None:
        """Look at a job's lease; None where nobody has it."""
        ...


class Progress(Protocol):
    """Which chunks of a run are in the destination."""

    async def acknowledge(self, job: str, run_id: str, chunks: Iterable[int]) -> None:
        """Note that these chunks (by their numbers) are in the destination.

        One write for each page of ``CHUNKS_PER_PAGE`` numbers, so callers gather many. Nothing that another writer
        noted is lost, and noting twice is harmless.
        """
        ...

    async def fetch_progress(self, job: str, run_id: str) -> frozenset[int]:
        """The numbers of all chunks that were noted before this call."""
        ...

    async def clear_progress(self, job: str, run_id: str) -> None:
        """Forget a run's progress; harmless where there is none."""
        ...


class History(Protocol):
    """What became of earlier runs."""

    async def put_run(self, record: RunRecord) -> None:
        """Write a run's history, in place of what was known of this run: at its start, and when it is over."""
        ...

    async def fetch_run(self, job: str, run_id: str) -> RunRecord | None:
        """One run's history; None where there is none."""
        ...

    async def fetch_runs(self, job: str | None, limit: int) -> list[RunRecord]:
        """At most ``limit`` runs of one job, or of all of them, the newest first."""
        ...


class Watermarks(Protocol):
    """How far incremental runs have come."""

    async def fetch_watermark(self, job: str) -> WatermarkEntry:
        """A job's watermark, with the version that ``move_watermark`` wants to hear.

        Raises:
            ConfigError: There is no state table, by configuration.
        """
        ...

    async def move_watermark(self, job: str, watermark: Watermark, expected_version: int) -> bool:
        """Set a job's watermark, if nobody has set or reset it since it was read with ``expected_version``.

        Returns:
            Whether it was set. Where not, what is there is newer than what was read.

        Raises:
            ConfigError: As in ``fetch_watermark``.
        """
        ...

    async def reset_watermark(self, job: str) -> None:
        """Forget a job's watermark; a run that read it before cannot set it any more.

        Raises:
            ConfigError: As in ``fetch_watermark``.
        """
        ...


class Marks(Protocol):
    """What the items of ``replace`` runs carry."""

    async def fetch_mark(self, job: str) -> Mark | None:
        """A job's mark; None where it never ran in this mode.

        Raises:
            ConfigError: There is no state table, by configuration.
        """
        ...

    async def ensure_mark(self, job: str) -> Mark:
        """A job's mark, which is made where there is none. Two that make it at once get the same.

        Raises:
            ConfigError: As in ``fetch_mark``.
        """
        ...


class StateStore(Leases, Progress, History, Watermarks, Marks, Protocol):
    """The state table: everything above, for many jobs, read with strong consistency.

    What is only read does not make the table: without one there is nothing. What writes makes it when first needed. A
    table that was there and is gone is an error to both.

    Each method also raises ``SinkError`` where the table cannot be made or used, is gone, or has an entry that is
    damaged or of a newer format; and ``UsageError`` where there is a table of that name with another key.
    """

    @property
    def table(self) -> str | None:
        """The table's name; None where there is none by configuration."""
        ...

    async def prepare(self) -> bool:
        """See to it that the table is there and has the right key; answer whether it was made now."""
        ...
