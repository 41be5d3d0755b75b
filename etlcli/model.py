"""The words of the field as data: types, columns, keys, chunks, manifests, summaries. Pure, and without any I/O.

What travels in the cache (manifest, ledger pages) is built from these and read back by ``etlcli.cache.documents``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias

__all__ = [
    "CREATE_DEFAULTS",
    "DEFAULT_MARK",
    "DEFAULT_MAX_DELETES",
    "MOST_TTL_SECONDS",
    "AttributeType",
    "BaseTable",
    "ChunkRecord",
    "Column",
    "CreateOptions",
    "Incremental",
    "ItemMark",
    "Job",
    "Key",
    "KeyAttribute",
    "KeyRange",
    "Layout",
    "Manifest",
    "Mode",
    "Overlap",
    "PgType",
    "Process",
    "Reject",
    "Relation",
    "RunStatus",
    "SchemaChange",
    "Selection",
    "Share",
    "Since",
    "SnapshotRecord",
    "Survey",
    "Totals",
    "WatermarkMove",
    "new_run_id",
]

AttributeType: TypeAlias = Literal["S", "N", "B"]
"""The DynamoDB types that a key attribute can have."""

RunStatus: TypeAlias = Literal["extracting", "complete", "abandoned"]
"""How far an extraction is; an abandoned one is not taken up again."""

Layout: TypeAlias = Literal["packed", "rows"]
"""How rows are kept in the cache."""

Mode: TypeAlias = Literal["upsert", "replace"]
"""What becomes of items that are there already: put over, or removed too where the source no longer has them."""


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


class BaseTable(NamedTuple):
    """A table of the source, as a schema's list names it.

    Attributes:
        typed: Its name as it can be given back: with its schema, and quoted where it needs that.
        schema: Its schema's name.
        name: Its own name.
        is_visible: Whether its own name alone means it, on the connection's search path.
    """

    typed: str
    schema: str
    name: str
    is_visible: bool


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


MOST_TTL_SECONDS = 86_400
"""For how long Momento keeps an entry at most."""

DEFAULT_MARK = "_momento_etl"
"""The attribute that mode ``replace`` marks items with, where no other is named."""

DEFAULT_MAX_DELETES = Share(Decimal(50), is_percentage=True)
"""What mode ``replace`` may remove of a job's items, where nothing else is said."""


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
class Incremental:
    """How a job takes only what is new.

    Attributes:
        column: The column that grows with every change.
        overlap: How far a run reaches back behind the last one; None for the default of the column's type.
        since: Take rows from this value on, in PostgreSQL's text, instead of from the last run's; None for that.
        full_refresh: Whether all rows are taken this time.
    """

    column: str
    overlap: Overlap | None = None
    since: str | None = None
    full_refresh: bool = False


class KeyRange(NamedTuple):
    """A stretch of the source, by the key that orders its rows: PostgreSQL's text of each column, as the ledger has it.

    Attributes:
        after: Rows strictly behind this key; None for no such bound.
        first: Rows from this key on, it included.
        last: Rows up to this key, it included.
    """

    after: tuple[str, ...] | None = None
    first: tuple[str, ...] | None = None
    last: tuple[str, ...] | None = None


class Since(NamedTuple):
    """Where an incremental run begins: rows whose column is NULL, or at least the value less the overlap.

    Attributes:
        column: The column.
        value: The value, in PostgreSQL's text.
        overlap: Taken from it: seconds where the column holds times, else a number.
    """

    column: str
    value: str
    overlap: int


@dataclass(frozen=True, slots=True)
class WatermarkMove:
    """How an incremental run begins, and what it sets the watermark to once all of it is loaded.

    Attributes:
        column: The column that is followed.
        type: Its PostgreSQL type, as the catalog names it.
        since: Where the run begins, before the overlap is taken from it; None where it takes all.
        overlap: What is taken from it: seconds where the column holds times, else a number.
        value: The largest value in the run's first snapshot; None where there was none.
        version: The watermark's version as it was read: nobody else may have moved it meanwhile.
        moves: Whether it may be set by this run at all.
        destination: The table that holds the rows before ``since``.
    """

    column: str
    type: str
    since: str | None
    overlap: int
    value: str | None
    version: int
    moves: bool
    destination: str


@dataclass(frozen=True, slots=True)
class ItemMark:
    """What marks the items that one run of a job writes in mode ``replace``: an attribute of type S.

    Attributes:
        attribute: The attribute's name.
        prefix: What the marks of all of the job's runs start with.
        value: This run's. Of two runs, the mark of the one that started later is the larger text.
    """

    attribute: str
    prefix: str
    value: str


class Survey(NamedTuple):
    """What a destination table holds of a job in mode ``replace``.

    Attributes:
        items: Items with the job's mark, of any run.
        stale: Those of them that an earlier run wrote, and this one has not written again.
    """

    items: int
    stale: int


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """How a column of the source differs from what the last run saw.

    Attributes:
        column: Its name.
        before: Its type then; None where it was not there.
        now: Its type now; None where it is gone.
    """

    column: str
    before: str | None
    now: str | None

    def __str__(self) -> str:
        """As people read it: ``email (text) was added``."""
        if self.before is None:
            return f"{self.column} ({self.now}) was added"
        if self.now is None:
            return f"{self.column} ({self.before}) was removed"
        return f"{self.column} was {self.before} and is {self.now}"


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
        mode: What becomes of items that are there already.
        mark: The attribute that mode ``replace`` marks items with.
        max_deletes: The most items that mode ``replace`` may remove.
        incremental: How it takes only what is new; None to take all.
        narrowed_by: The options that make this one run take less than the job does (``--where``): what it has not seen
            is not behind the watermark.
        freezes_schema: Whether a run fails where columns changed since the last one.
        max_writes: The most write units that go to the destination in a second; None for as many as it takes.
        restart: Whether a run begins anew where an earlier one did not end.
        wait_seconds: For how long a run waits for another one of this job to end.
        verifies: Whether each chunk's items are read back, and compared with what was put.
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
    mode: Mode = "upsert"
    mark: str = DEFAULT_MARK
    max_deletes: Share = DEFAULT_MAX_DELETES
    incremental: Incremental | None = None
    narrowed_by: tuple[str, ...] = ()
    freezes_schema: bool = False
    max_writes: int | None = None
    restart: bool = False
    wait_seconds: float = 0.0
    verifies: bool = False


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
        unordered: The columns that no ``ORDER BY`` takes, since their types have no order: json, xml, point, ...
        unseekable: The columns by whose text a row cannot be found again: those that may be NULL, and those of types
            whose text another session may read otherwise (money, regclass, ...).
    """

    name: str | None
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[frozenset[str], ...] = ()
    estimated_rows: int | None = None
    stored_bytes: int | None = None
    unordered: frozenset[str] = frozenset()
    unseekable: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that DynamoDB cannot hold.

    Attributes:
        rule: A short, stable name of the rule that it breaks, for example ``number-not-finite``.
        message: What is wrong, with the column's name.
        row: The row as PostgreSQL wrote it: column name to text, NULL columns left out; or, where DynamoDB itself
            refused, the item's attributes as DynamoDB JSON text.
        key: The destination key that its item would have, as DynamoDB JSON text; None where it has none that DynamoDB
            could hold, or where a transform may have changed it.
        chunk: The chunk whose stretch of the source it is in.
    """

    rule: str
    message: str
    row: dict[str, str]
    key: str | None = None
    chunk: int = 0


class ChunkRecord(NamedTuple):
    """A chunk as the ledger knows it. A tuple, since a run can have a hundred thousand.

    Attributes:
        number: Its place in the run, from 0.
        rows: How many items it holds.
        rejected: How many rows of its stretch of the source were rejected.
        dropped: How many a transform left out.
        bytes_encoded: Bytes of its encoded rows before compression.
        bytes_stored: Bytes of its cache entry, of all its parts together.
        stored_digest: Hex digest of the entry, to see damage.
        rows_digest: Hex digest of the encoded rows, to see a re-extraction that differs.
        first_key: The source key of its first row, in PostgreSQL's text; empty where the source has no key.
        last_key: The same of its last row.
        stored_at: When it was stored: seconds since 1970, UTC.
        parts: In how many parts the entry is stored, since it was too large for the account's limit; 1 for a whole one.
        behind: Hex digest of the last key of the chunk that it follows; empty where it follows none.
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
    parts: int = 1
    behind: str = ""

    def follows(self, before: ChunkRecord) -> bool:
        """Whether its rows begin behind those of a chunk; what an earlier version wrote does not tell otherwise."""
        return self.behind in ("", place_behind(before.last_key))


def place_behind(key: Sequence[str | None]) -> str:
    """Name the place behind a source key, in few bytes: a chunk that is read again may end elsewhere than before."""
    return hashlib.blake2b(repr(tuple(key)).encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Process:
    """A process, known again after its pid, or its whole machine, began anew. Good for comparison only.

    Attributes:
        boot: Which start of which machine it lives in, and in which of its pid namespaces.
        pid: Its number there.
        started: When it started, in the system's own terms.
    """

    boot: str
    pid: int
    started: str


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
        other_types: The PostgreSQL types of columns that were read and became no attribute of their own name.
        transform: The user's own function, by its name; None where there is none.
        mark: The attribute that marks its items in mode ``replace``; None in mode ``upsert``.
        watermark: What an incremental run begins with, and leaves behind; None for a run that takes all.
        extractor: The process that stores its chunks; None where it cannot be told apart from others.
        narrowed_by: The options that made it take less than the job does.
        blocks: In how many blocks many readers share it (see ``etlcli.blocks``); 0 where one reader takes it all.
        block_chunks: How many chunks each block has; empty until all are stored.
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
    other_types: dict[str, str] = field(default_factory=dict)
    transform: str | None = None
    mark: str | None = None
    watermark: WatermarkMove | None = None
    extractor: Process | None = None
    narrowed_by: tuple[str, ...] = ()
    blocks: int = 0
    block_chunks: tuple[int, ...] = ()

    @property
    def document_ttl_seconds(self) -> int:
        """How long what is not rows stays in the cache: ledger, blocks, rejects, and this manifest itself.

        Of a run that one process keeps alive as long as its rows do, since it writes them again. Nobody does that with
        a block that is done while others are worked on: it stays for as long as Momento keeps anything.
        """
        return MOST_TTL_SECONDS if self.blocks else self.ttl_seconds

    @property
    def types_read(self) -> dict[str, str]:
        """The PostgreSQL types of the columns that were read, by name: what a rejected row's texts are."""
        return {column.name: column.type.name for column in self.columns} | self.other_types


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
