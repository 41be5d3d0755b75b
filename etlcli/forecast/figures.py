"""What is predicted of a run, and how a sample's figures become those of all rows. Pure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, NamedTuple, TypeAlias

from etlcli.cache.metering import METERED_BYTES, metered
from etlcli.cache.packed import MAX_ENCODED_BYTES, TARGET_STORED_BYTES
from etlcli.cache.rows import TARGET_ROWS
from etlcli.cache.staging import LEDGER_PAGE_CHUNKS, REJECTS_PAGE
from etlcli.model import Layout, Reject

__all__ = [
    "FULL_CHUNK_BYTES",
    "Forecast",
    "Kind",
    "RejectTally",
    "RuleCount",
    "Sample",
    "Tally",
    "Usage",
    "Verdict",
    "as_if",
    "ledger_read",
    "ledger_use",
    "scaled",
]

# Of each rule so many rows are kept as examples, and so much of each: a row can have 1,600 columns, or a gigabyte.
_EXAMPLES = 3
_EXAMPLE_COLUMNS = 50
_EXAMPLE_CHARACTERS = 200

FULL_CHUNK_BYTES = TARGET_STORED_BYTES * 13 // 12
"""What a full chunk stores: it is closed with the batch that fills it, a little after its target."""

# What the ledger's pages take: a record of a chunk, with its keys' bounds, and what stands around the records.
_RECORD_BYTES = 140
_PAGE_BYTES = 200

Kind: TypeAlias = Literal["chunk", "ledger", "rejects", "run"]
"""What an entry of the cache belongs to: rows, the ledger's pages, rejected rows, or the run as a whole."""


class Tally(NamedTuple):
    """Calls made to Momento, and what they cost."""

    calls: int = 0
    operations: int = 0


class RuleCount(NamedTuple):
    """Rows that break one rule.

    Attributes:
        rule: Its short name.
        rows: How many; of a sample, about how many of all.
        examples: The first few of them.
    """

    rule: str
    rows: int
    examples: tuple[Reject, ...]


class Verdict(NamedTuple):
    """Why a run would fail although every row was read."""

    message: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a rehearsed run came to.

    Attributes:
        rows_extracted: Rows that the source gave.
        rows_loaded: Items that would be put.
        rows_rejected: Rows that the destination cannot hold.
        rows_dropped: Rows that a transform left out.
        chunks: Chunks that would be stored.
        chunks_freed: Those of them that would be removed again, to stay under the bound on stored bytes.
        bytes_encoded: Bytes of encoded rows, before compression.
        bytes_stored: Bytes of the chunks.
        momento: Calls to Momento by what they are for.
        write_units: DynamoDB's write units of the items.
        item_bytes: Bytes of the items as DynamoDB JSON, which is more than DynamoDB counts.
    """

    rows_extracted: int
    rows_loaded: int
    rows_rejected: int
    rows_dropped: int
    chunks: int
    chunks_freed: int
    bytes_encoded: int
    bytes_stored: int
    momento: dict[Kind, Tally]
    write_units: int
    item_bytes: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Which rows were read.

    Attributes:
        rows: How many.
        is_whole: Whether these are all rows that the run would take.
        total: The estimate of all rows; where ``is_whole``, their number.
    """

    rows: int
    is_whole: bool
    total: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do.

    Attributes:
        exact: Whether every row was read: the figures are then what the run comes to, else they are estimates.
        sample: Which rows were read.
        usage: The figures.
        rejects: The rejected rows by rule, the most frequent first.
        checks_duplicates: Whether two rows with one destination key would have been found.
        read_units: DynamoDB's read units, at most: mode ``replace`` reads the table.
        table_exists: Whether the destination table is there; None where nobody looked.
        table_items: How many items DynamoDB says that it has; None where that is not known.
        fits_extract: Whether the chunks of an extraction alone stay under the bound on stored bytes.
        verdict: Why the run would fail; None where it would not.
        splits: Whether many readers could share the rows: each has a place in one order.
        table_rows: PostgreSQL's own estimate of the table's rows, whatever is taken of it; None where it has none.
    """

    exact: bool
    sample: Sample
    usage: Usage
    rejects: tuple[RuleCount, ...]
    checks_duplicates: bool
    read_units: int
    table_exists: bool | None
    table_items: int | None
    fits_extract: bool
    verdict: Verdict | None
    splits: bool
    table_rows: int | None

    @property
    def momento_calls(self) -> int:
        """Calls to Momento, of every kind."""
        return sum(tally.calls for tally in self.usage.momento.values())

    @property
    def momento_operations(self) -> int:
        """Metered operations, of every kind."""
        return sum(tally.operations for tally in self.usage.momento.values())

    @property
    def write_units(self) -> int:
        """DynamoDB's write units."""
        return self.usage.write_units


class RejectTally:
    """Counts rejects by rule as they are found, and keeps a few of each."""

    def __init__(self) -> None:
        self._rows: Counter[str] = Counter()
        self._examples: dict[str, list[Reject]] = {}

    def add(self, rejects: Sequence[Reject]) -> None:
        """Count them."""
        for reject in rejects:
            self._rows[reject.rule] += 1
            examples = self._examples.setdefault(reject.rule, [])
            if len(examples) < _EXAMPLES:
                examples.append(_shortened(reject))

    def counts(self, factor: float) -> tuple[RuleCount, ...]:
        """All rules that were broken, each count multiplied."""
        return tuple(
            RuleCount(rule, round(rows * factor), tuple(self._examples[rule]))
            for rule, rows in self._rows.most_common()
        )


def scaled(usage: Usage, sample: Sample, layout: Layout, max_cached_bytes: int) -> Usage:
    """Make of a sample's figures those of all rows.

    What belongs to the run as a whole stays as it is, rows and bytes grow with the rows, and chunks, the ledger and
    what is freed follow from the bytes.
    """
    if sample.is_whole or not sample.rows:
        return usage
    factor = sample.total / sample.rows
    bytes_encoded, bytes_stored = round(usage.bytes_encoded * factor), round(usage.bytes_stored * factor)
    rejected, dropped = round(usage.rows_rejected * factor), round(usage.rows_dropped * factor)
    loaded = sample.total - rejected - dropped
    if layout == "packed":
        chunks = max(ceil(bytes_stored / FULL_CHUNK_BYTES), ceil(bytes_encoded / MAX_ENCODED_BYTES))
        # Of an entry's last operation about half is used.
        moved = Tally(2 * chunks, 2 * bytes_stored // METERED_BYTES + chunks)
    else:
        chunks = max(ceil(loaded / TARGET_ROWS), ceil(bytes_encoded / TARGET_STORED_BYTES))
        moved = Tally(2 * loaded, round(usage.momento["chunk"].operations * factor))
    freed = ceil(chunks * max(0.0, 1 - max_cached_bytes / bytes_stored)) if bytes_stored else 0
    removed = freed if layout == "packed" else ceil(freed * loaded / chunks)
    rejects = usage.momento["rejects"]
    return Usage(
        rows_extracted=sample.total,
        rows_loaded=loaded,
        rows_rejected=rejected,
        rows_dropped=dropped,
        chunks=chunks,
        chunks_freed=freed,
        bytes_encoded=bytes_encoded,
        bytes_stored=bytes_stored,
        momento={
            "chunk": Tally(moved.calls + removed, moved.operations + removed),
            "ledger": ledger_use(chunks),
            # One of them only closes the list.
            "rejects": Tally(1 + ceil(rejected / REJECTS_PAGE), 1 + round((rejects.operations - 1) * factor)),
            "run": usage.momento["run"],
        },
        write_units=round(usage.write_units * factor),
        item_bytes=round(usage.item_bytes * factor),
    )


def ledger_use(chunks: int) -> Tally:
    """Reckon what the ledger's pages take: each is written again with every chunk that it gets."""
    sizes = (_PAGE_BYTES + _RECORD_BYTES * (number % LEDGER_PAGE_CHUNKS + 1) for number in range(chunks))
    return Tally(chunks, sum(map(metered, sizes)))


def ledger_read(chunks: int) -> int:
    """Reckon the metered operations of fetching every page of a ledger of so many chunks."""
    full, rest = divmod(chunks, LEDGER_PAGE_CHUNKS)
    pages = [LEDGER_PAGE_CHUNKS] * full + ([rest] if rest else [])
    return sum(metered(_PAGE_BYTES + _RECORD_BYTES * page) for page in pages)


def as_if(forecast: Forecast, rows: int, layout: Layout, max_cached_bytes: int) -> Forecast:
    """Make of a forecast that of so many rows of the same kind.

    Args:
        forecast: Over the rows that there are.
        rows: How many there should be.
        layout: The job's.
        max_cached_bytes: The job's bound on stored bytes.
    """
    sample = Sample(forecast.usage.rows_extracted, is_whole=False, total=rows)
    usage = scaled(forecast.usage, sample, layout, max_cached_bytes)
    factor = usage.rows_extracted / max(1, forecast.usage.rows_extracted)
    return replace(
        forecast,
        exact=False,
        usage=usage,
        rejects=tuple(count._replace(rows=round(count.rows * factor)) for count in forecast.rejects),
        read_units=round(forecast.read_units * factor),
        fits_extract=usage.bytes_stored <= max_cached_bytes,
        table_rows=usage.rows_extracted,
    )


def _shortened(reject: Reject) -> Reject:
    """Cut a row's long values: it is an example, and a few of each rule are held."""
    row = {
        name: value if len(value) <= _EXAMPLE_CHARACTERS else f"{value[:_EXAMPLE_CHARACTERS]}…"
        for name, value in itertools.islice(reject.row.items(), _EXAMPLE_COLUMNS)
    }
    return replace(reject, row=row)
