"""What the core asks of a source, a cache and a sink. Each method says what it returns and what it raises.

Every implementation, real or fake, passes the contract suite of its port in ``tests/contract``. All of them raise
``Throttled`` or ``Unavailable`` only after they have tried again for as long as their retry policy allows.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias

from etlcli.encoding.specs import AttributeSpec
from etlcli.model import (
    BaseTable,
    CreateOptions,
    ItemMark,
    Key,
    KeyRange,
    Relation,
    Selection,
    Since,
    SnapshotRecord,
    Survey,
)
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
    "StoredItem",
    "TableSize",
    "Watermarks",
]


class Reading(NamedTuple):
    """One pass over the source, decided by the plan.

    Attributes:
        selection: What the user asked for.
        columns: The columns to read, in this order; they become the fields of each line.
        order_by: The columns that order the rows; empty for the source's own order.
        since: Where an incremental run begins; None to read all.
        sample: Read about so many percent of a table, in pages spread all over it, and nothing of the others; None to
            read all. Only what stores its rows itself can be sampled: ``Relation.stored_bytes`` is then known.
        range: Between which keys of ``order_by`` rows are read; None to read all.
    """

    selection: Selection
    columns: tuple[str, ...]
    order_by: tuple[str, ...]
    since: Since | None = None
    sample: float | None = None
    range: KeyRange | None = None


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

    async def estimate(self, reading: Reading) -> int | None:
        """About how many rows a reading gives, by the planner's statistics; None where it cannot tell. Reads no rows.

        Raises:
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

    async def split(self, reading: Reading, parts: int) -> list[tuple[str, ...]]:
        """Find keys of ``reading.order_by`` that cut the rows into so many parts of about as many rows each.

        With ``reading.sample`` it looks at a sample. No key is NULL in any part, since the order is unique.

        Returns:
            At most ``parts`` less one keys, in order, as PostgreSQL's text; fewer where there are fewer rows.

        Raises:
            SourceError: PostgreSQL refuses.
        """
        ...

    async def newest(self, selection: Selection, column: str) -> str | None:
        """The largest value of a column among the selected rows, as text; None where none has a finite one.

        The selection's limit does not count.

        Raises:
            SourceError: PostgreSQL refuses.
        """
        ...

    async def has_nulls(self, selection: Selection, column: str) -> bool:
        """Whether a column is NULL in some of the selected rows; as in ``newest``, the limit does not count.

        Raises:
            SourceError: PostgreSQL refuses.
        """
        ...

    async def value(self, selection: Selection, column: str, text: str) -> str:
        """A text as PostgreSQL writes it, taken for a value of a column's type.

        Raises:
            UsageError: It is none.
        """
        ...

    async def precedes(self, selection: Selection, column: str, first: str, second: str) -> bool:
        """Whether, as values of a column's type, ``first`` is not after ``second``.

        Raises:
            UsageError: One of them is no value of that type.
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

    async def tables(self, schema: str) -> list[BaseTable]:
        """List a schema's base tables by name: ordinary ones, and partitioned ones as a whole.

        Partitions are part of their parent. So is a table that inherits from another one in the schema and has no
        column of its own, since a read of the parent returns its rows whole. There are no views among them, and no
        foreign or temporary tables.

        Args:
            schema: The schema's name as people type it.

        Raises:
            UsageError: There is no such schema (near names are in the hint), or it has no such table.
            SourceError: The schema may not be used; or as in ``snapshot``.
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
            TooLarge: The value is over the limit of an item (5 MB, or the account's own).
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


class TableSize(NamedTuple):
    """How large a destination table is, as DynamoDB tells it: it looks about every six hours."""

    items: int
    bytes: int


StoredItem: TypeAlias = dict[str, Any]
"""An item of the destination, or its key, as DynamoDB JSON that was read: ``{"id": {"N": "1"}, ...}``."""


class Sink(Protocol):
    """One destination table."""

    @property
    def table(self) -> str:
        """The table's name."""
        ...

    @property
    def request_seconds(self) -> float:
        """The deadline of the longest request that writes."""
        ...

    async def key(self) -> Key | None:
        """The key of the existing table, or None where there is no such table.

        Raises:
            SinkError: Not allowed, or another refusal.
        """
        ...

    async def estimate(self) -> TableSize | None:
        """About how large the existing table is; None where there is no such table. It reads no items.

        Raises:
            SinkError: Not allowed, or another refusal.
        """
        ...

    async def identity(self) -> str:
        """Name this very table: one that is made anew under the same name is another.

        Raises:
            SinkError: Not allowed, or the table does not exist (any more).
        """
        ...

    def heed(self, may_send: Callable[[], None]) -> None:
        """Call this before each request that writes from now on; it raises where nothing may be sent any more."""
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

    async def fetch(self, keys: Sequence[bytes]) -> list[StoredItem | None]:
        """Read the items under some keys, with strong consistency.

        Args:
            keys: Destination keys, each as DynamoDB JSON, in any number; a key may be there twice.

        Returns:
            An item for each key, in the keys' order; None where there is none.

        Raises:
            SinkError: Not allowed, a key that the table cannot have, or the table does not exist (any more).
        """
        ...

    def scan_keys(self, mark: ItemMark | None = None) -> AsyncIterator[list[StoredItem]]:
        """Read the keys of all items, with strong consistency, page by page; a page may be empty.

        Args:
            mark: The job whose items are wanted, by the mark of any of its runs; None for every item.

        Raises:
            SinkError: Not allowed, or the table does not exist (any more).
        """
        ...

    async def survey(self, mark: ItemMark) -> Survey:
        """Count the items that carry a job's mark, and those of them that an earlier run left.

        It reads the whole table, with strong consistency.

        Raises:
            SinkError: Not allowed, or the table does not exist (any more).
        """
        ...

    async def spare(self, keys: Sequence[bytes], mark: ItemMark) -> int:
        """Give the items under these keys this run's mark, where they carry the job's of an earlier one.

        Nothing else of them changes.

        Args:
            keys: Destination keys, each as DynamoDB JSON. What is not there, or is not the job's, is left alone, and so
                is a key that DynamoDB could not hold.
            mark: This run's mark.

        Returns:
            How many items it was given to.

        Raises:
            SinkError: Not allowed, or the table does not exist (any more).
        """
        ...

    async def sweep(self, mark: ItemMark) -> int:
        """Remove the items that carry the job's mark of an earlier run, each only if its mark is still that one.

        Returns:
            How many were removed, as far as DynamoDB's answers arrived: one that was lost tells of an item less.

        Raises:
            SinkError: Not allowed, or the table does not exist (any more).
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

    async def fetch_progress(self, job: str, run_id: str, among: range | None = None) -> frozenset[int]:
        """The numbers of all chunks that were noted before this call.

        Args:
            job: The job's name.
            run_id: Names the progress.
            among: The numbers that are asked about, one after the other; None for all.
        """
        ...

    async def clear_progress(self, job: str, run_id: str) -> None:
        """Forget a run's progress; harmless where there is none."""
        ...


class History(Protocol):
    """What became of earlier runs."""

    async def put_run(self, record: RunRecord) -> None:
        """Write a run's history, in place of what was known of this run: at its start, and when it is over.

        What says that it is under way changes nothing of one that has ended and did not start earlier. It gives up
        after seconds, which is less than everything else here does.
        """
        ...

    async def fetch_run(self, job: str | None, run_id: str) -> RunRecord | None:
        """One run's history, of a job or of whichever has it; None where there is none."""
        ...

    async def fetch_runs(self, job: str | None, limit: int) -> list[RunRecord]:
        """At most ``limit`` runs of one job, or of all of them, the newest first."""
        ...

    async def fetch_jobs(self) -> list[str]:
        """The names of all jobs that ever had a history, in order."""
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
