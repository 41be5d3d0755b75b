"""The words of the field as data: types, columns, keys, chunks, manifests, summaries. Pure, and without any I/O.

What travels in the cache (manifest, ledger pages) is built from these and read back by ``etlcli.cache.documents``.
"""

from __future__ import annotations

import datetime as dt
import secrets
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias

__all__ = [
    "CREATE_DEFAULTS",
    "AttributeType",
    "ChunkRecord",
    "Column",
    "CreateOptions",
    "Job",
    "Key",
    "KeyAttribute",
    "Layout",
    "Manifest",
    "Overlap",
    "PgType",
    "Reject",
    "Relation",
    "RunStatus",
    "Selection",
    "Share",
    "SnapshotRecord",
    "Totals",
    "new_run_id",
]

AttributeType: TypeAlias = Literal["S", "N", "B"]
"""The DynamoDB types that a key attribute can have."""

RunStatus: TypeAlias = Literal["extracting", "complete"]

Layout: TypeAlias = Literal["packed", "rows"]
"""How rows are kept in the cache."""


@dataclass(frozen=True, slots=True)
class PgType:
    """A PostgreSQL type as the encoders need to know it; domains are already resolved to their base.

    Attributes:
        name: As PostgreSQL prints it to people, for example ``numeric(10,2)`` or ``citext[]``.
        typname: The catalog's name of the (base) type, for example ``int4``; what an encoder is chosen by.
        kind: ``base``, ``array``, ``enum``, ``composite``, ``range``, ``multirange`` or ``pseudo``.
        element: The element's type where ``kind`` is ``array``.
        delimiter: What separates the elements in an array's text: a comma for every type but ``box``.
        fields: The fields where ``kind`` is ``composite``, in the order of their text form.
        extension: The extension that owns the type, None for built-in and user-made types.
    """

    name: str
    typname: str
    kind: Literal["base", "array", "enum", "composite", "range", "multirange", "pseudo"] = "base"
    element: PgType | None = None
    delimiter: str = ","
    fields: tuple[Column, ...] = ()
    extension: str | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the source, or a field of a composite type."""

    name: str
    type: PgType


@dataclass(frozen=True, slots=True)
class KeyAttribute:
    """One attribute of a destination key."""

    name: str
    type: AttributeType

    def __str__(self) -> str:
        """Name and type, as people read them: ``movie_id (N)``."""
        return f"{self.name} ({self.type})"


@dataclass(frozen=True, slots=True)
class Key:
    """A destination key: a hash attribute and at most one range attribute (DynamoDB has no more)."""

    hash: KeyAttribute
    range: KeyAttribute | None = None

    @property
    def attributes(self) -> tuple[KeyAttribute, ...]:
        """The hash attribute, then the range attribute where there is one."""
        return (self.hash,) if self.range is None else (self.hash, self.range)

    def __str__(self) -> str:
        """Both attributes, as people read them: ``hash order_id (N), range line (N)``."""
        text = f"hash {self.hash}"
        return text if self.range is None else f"{text}, range {self.range}"


@dataclass(frozen=True, slots=True)
class Selection:
    """What a job reads of its source, as the user asked for it; nothing of it is checked yet.

    Attributes:
        table: A table's name as the user wrote it: ``movies``, ``sales.orders``, ``"Order Details"``. With a query it
            only names the job.
        query: One statement that only reads; None to read the table.
        where: A condition in SQL, added to either.
        columns: Names of the columns to take, in this order; None for all.
        limit: At most so many rows; None for all.
    """

    table: str | None = None
    query: str | None = None
    where: str | None = None
    columns: tuple[str, ...] | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A bound on a part of a whole: a number, or a percentage of the whole.

    Attributes:
        figure: The number, or the percentage.
        is_percentage: Which of them.
    """

    figure: Decimal
    is_percentage: bool

    def exceeded_by(self, part: int, whole: int) -> bool:
        """Whether so many of so many are more than the bound: exact, and just the bound is not more."""
        return part * 100 > Fraction(self.figure) * whole if self.is_percentage else part > self.figure

    def __str__(self) -> str:
        """As people write it."""
        return f"{self.figure}%" if self.is_percentage else str(self.figure)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How far an incremental run reaches back.

    Attributes:
        amount: Seconds, or a number.
        is_duration: Whether it was written with a unit of time. A plain number goes with either kind of column: it is
            seconds for times.
    """

    amount: int
    is_duration: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One table's copy, with every default filled in.

    Attributes:
        name: What its entries in the cache start with.
        selection: What it reads.
        cache: The Momento cache's name.
        destination: The DynamoDB table's name.
        key: The columns of the destination key as the user named them; None for the source's primary key.
        ttl_seconds: How long entries stay in the cache.
        max_cached_bytes: The bound on stored bytes.
        max_rejects: The most rows that may be rejected before the run fails; None for any number.
        layout: How its rows are kept in the cache.
    """

    name: str
    selection: Selection
    cache: str
    destination: str
    key: tuple[str, ...] | None = None
    ttl_seconds: int = 4800
    max_cached_bytes: int = 80_000_000
    max_rejects: Share | None = None
    layout: Layout = "packed"


@dataclass(frozen=True, slots=True)
class Relation:
    """What the source found behind a selection, in one snapshot.

    Attributes:
        name: The qualified, quoted name of the table, or None for a query.
        columns: All of its columns, in order, with their types.
        primary_key: The primary key's columns in the key's order; empty where there is none.
        unique_keys: The column sets of which no two rows share their values: primary key and unique constraints over
            NOT NULL columns.
        estimated_rows: The planner's figure; None where it has none.
        stored_bytes: What the table takes on PostgreSQL's disk, without indexes; None for views and queries.
    """

    name: str | None
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[frozenset[str], ...] = ()
    estimated_rows: int | None = None
    stored_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that DynamoDB cannot hold.

    Attributes:
        rule: A short, stable name of the rule that it breaks, for example ``number-not-finite``.
        message: What is wrong, with the column's name.
        row: The row as PostgreSQL wrote it: column name to text, NULL columns left out; or, where DynamoDB itself
            refused, the item's attributes as DynamoDB JSON text.
    """

    rule: str
    message: str
    row: dict[str, str]


class ChunkRecord(NamedTuple):
    """A chunk as the ledger knows it. A tuple, since a run can have a hundred thousand.

    Attributes:
        number: Its place in the run, from 0.
        rows: How many items it holds.
        rejected: How many rows of its stretch of the source were rejected.
        dropped: How many a transform left out.
        bytes_encoded: Bytes of its encoded rows before compression.
        bytes_stored: Bytes of its cache entry.
        stored_digest: Hex digest of the entry, to see damage.
        rows_digest: Hex digest of the encoded rows, to see a re-extraction that differs.
        first_key: The source key of its first row, in PostgreSQL's text; empty where the source has no key.
        last_key: The same of its last row.
        stored_at: When it was stored: seconds since 1970, UTC.
    """

    number: int
    rows: int
    rejected: int
    dropped: int
    bytes_encoded: int
    bytes_stored: int
    stored_digest: str
    rows_digest: str
    first_key: tuple[str | None, ...]
    last_key: tuple[str | None, ...]
    stored_at: float


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """One snapshot that a run read: PostgreSQL's name for it, and when it was taken (seconds since 1970, UTC)."""

    name: str
    taken_at: float


@dataclass(frozen=True, slots=True)
class Totals:
    """What an extraction came to."""

    rows_extracted: int = 0
    rows_rejected: int = 0
    rows_dropped: int = 0
    chunks: int = 0
    bytes_encoded: int = 0
    bytes_stored: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """A run's schema, source, fingerprint, snapshots and totals, as kept in the cache.

    Attributes:
        job: The job's name.
        run_id: The run's name.
        status: ``complete`` once every chunk and the ledger are stored.
        source: What was read, in words, without any secret: host, database, table or query.
        fingerprint: Hex digest of all that decides what the items look like; a run resumes only under the same.
        columns: The columns that became attributes, in order.
        key: The destination key.
        source_key: The columns that the chunks are ordered by; empty where the source has no key.
        layout: How rows are kept: ``packed`` or ``rows``.
        ttl_seconds: How long its entries stay in the cache.
        started_at: Seconds since 1970, UTC.
        written_at: When this manifest was last written: seconds since 1970, UTC.
        completed_at: The same; None while it is being extracted.
        chunks_freed: How many chunks were removed after they had been loaded, to stay under the bound on stored bytes.
        snapshots: The snapshots that were read.
        totals: Final figures once complete, those so far before that.
        kinds: The DynamoDB type that each attribute mostly has, by its name; without those that have any (json).
    """

    job: str
    run_id: str
    status: RunStatus
    source: str
    fingerprint: str
    columns: tuple[Column, ...]
    key: Key
    source_key: tuple[str, ...]
    layout: Layout
    ttl_seconds: int
    started_at: float
    written_at: float
    completed_at: float | None = None
    chunks_freed: int = 0
    snapshots: tuple[SnapshotRecord, ...] = ()
    totals: Totals = field(default_factory=Totals)
    kinds: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What a new destination table gets besides its key. Billing is always on demand.

    Attributes:
        tags: The table's tags.
        point_in_time_recovery: Continuous backups.
        deletion_protection: Whether the table refuses to be deleted.
        ttl_attribute: The attribute by which DynamoDB expires items; None for none.
    """

    tags: dict[str, str] = field(default_factory=dict)
    point_in_time_recovery: bool = False
    deletion_protection: bool = False
    ttl_attribute: str | None = None


CREATE_DEFAULTS = CreateOptions()


def new_run_id(now: dt.datetime | None = None) -> str:
    """Make a run's name: sortable by its start in UTC to the millisecond, and unique, ``20260814T101502123Z-7f3a``."""
    moment = (now or dt.datetime.now(dt.UTC)).astimezone(dt.UTC)
    return f"{moment:%Y%m%dT%H%M%S}{moment.microsecond // 1000:03d}Z-{secrets.token_hex(2)}"
