"""Whether the destination holds what the rows make: each row's item, by its key, and by wish nothing else.

    cached rows, or the source's read anew ─▶ 100 at a time ─▶ their items, read with strong consistency ─▶ compared
    all keys of the table ─▶ those that no row has

Rows are taken from the cache where it still has them: their checksums prove that they are what was extracted. Where it
has not, the source is read in a snapshot of its own: what changed there since the run is a difference, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import itertools
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import orjson

from etlcli.cache.staging import Staging
from etlcli.comparison import AttributeDifference, AttributeValue, attribute_differences, key_bytes
from etlcli.encoding import Recipe, RowEncoder
from etlcli.errors import CacheError, ExitCode, SinkError, TerminalError, UsageError, leading
from etlcli.known_keys import KnownKeys
from etlcli.marking import key_of
from etlcli.model import ItemMark, Job, Key, Manifest, Share
from etlcli.plan import Plan, make_plan, row_encoder
from etlcli.ports import Cache, Sink, Snapshot, Source, StateStore, StoredItem
from etlcli.report import Report

__all__ = [
    "Against",
    "Difference",
    "DifferenceFound",
    "DifferenceKind",
    "Verification",
    "Wanted",
    "facts_of",
    "refuse_differences",
    "verify",
    "verify_run",
]

Against: TypeAlias = Literal["cache", "source"]
"""Where the rows came from that the items were compared with."""

DifferenceKind: TypeAlias = Literal["missing", "different", "surplus"]

_KINDS: tuple[DifferenceKind, ...] = ("missing", "different", "surplus")

# Requests at once, and what one of them asks for: DynamoDB's most, or less where the items are large.
_READS_IN_FLIGHT = 16
_PIECE_ROWS = 100
_PIECE_BYTES = 1_000_000

# Rows of the source that are encoded at once.
_ENCODED_ROWS = 256

# Rows of the source that a sample by number may have: they are held until all have been seen.
_MOST_HELD = 100_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a table is to be verified.

    Attributes:
        sample: How many of the rows are compared; None for all.
        seed: Decides which: the same seed takes the same ones.
        extra: Whether items are looked for that no row has.
        from_source: Whether rows are read from the source although the cache may have them.
        run_id: The run whose cached rows are wanted; None for the current one, or the source where there is none.
        shown: How many differences of each kind are kept.
    """

    sample: Share | None = None
    seed: int = 0
    extra: bool = False
    from_source: bool = False
    run_id: str | None = None
    shown: int = 20


class Difference(NamedTuple):
    """An item that is not as it should be.

    Attributes:
        kind: What is wrong.
        key: Its destination key, as DynamoDB JSON.
        attributes: What differs, where it is different.
    """

    kind: DifferenceKind
    key: Mapping[str, AttributeValue]
    attributes: tuple[AttributeDifference, ...] = ()


@dataclass(slots=True)
class Verification:
    """What a verification came to.

    Attributes:
        against: Where the rows came from.
        wanted: How it was to be done.
        source: What was read, now or by the run, in words.
        rows: Rows that should have an item.
        rows_compared: Those of them whose items were looked at.
        rows_rejected: Rows that DynamoDB cannot hold, of which no item is expected.
        rows_dropped: Rows that a transform leaves out.
        missing: Rows without an item.
        different: Items that are not what their rows make.
        surplus: Items without a row; None where none was looked for.
        differences: The first of each kind.
    """

    against: Against
    wanted: Wanted
    source: str = ""
    rows: int = 0
    rows_compared: int = 0
    rows_rejected: int = 0
    rows_dropped: int = 0
    missing: int = 0
    different: int = 0
    surplus: int | None = None
    differences: list[Difference] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many items are not as they should be."""
        return self.missing + self.different + (self.surplus or 0)


class DifferenceFound(TerminalError):  # noqa: N818  it says what it is
    """The destination is not what the rows make."""

    exit_code = ExitCode.DIFFERENCE


async def verify(
    job: Job,
    recipe: Callable[[], Recipe],
    wanted: Wanted,
    source: Source | None,
    cache: Cache | None,
    sink: Sink,
    state: StateStore,
    report: Report,
) -> Verification:
    """Compare a job's destination with its cached rows; where the cache has them not (any more), with the source.

    Args:
        job: The job.
        recipe: Tells how its rows become items; called only where rows are read anew.
        wanted: What is to be compared.
        source: Where rows can be read anew; None where there is none at hand.
        cache: Where rows may be; None where only the source is wanted.
        sink: The destination table.
        state: What outlives runs; asked for the job's mark in mode ``replace``.
        report: Filled in as facts become known.

    Raises:
        UsageError: The table has another key than the job, or what is wanted does not go together.
        CacheError: The cache has not all of the rows, and there is no source at hand.
        EtlError: Source, cache or destination failed.
    """
    _refuse_contradictions(job, wanted)
    if cache is None or wanted.from_source:
        assert source is not None, "there is a cache or a source"
        return await _against_source(job, recipe, wanted, source, sink, state, report)
    staging = Staging(cache, job.name)
    report.counters.stage = "looking for the run"
    try:
        manifest = await _find(staging, wanted.run_id)
    except CacheError as error:
        if error.of_service or wanted.run_id is not None or source is None:
            raise
        report.warnings.append(f"{error.message}: compared with the source instead")
        return await _against_source(job, recipe, wanted, source, sink, state, report)
    other = None if wanted.run_id is not None else source
    found = await verify_run(job, recipe, wanted, manifest, other, staging, sink, state, report)
    if found.against == "source":
        report.run_id, report.manifest = None, None  # no run's rows, but today's
    return found


async def verify_run(
    job: Job,
    recipe: Callable[[], Recipe],
    wanted: Wanted,
    manifest: Manifest,
    source: Source | None,
    staging: Staging,
    sink: Sink,
    state: StateStore,
    report: Report,
) -> Verification:
    """Compare the destination with a run's rows, the cache's or, where it lacks some, the source's.

    Args:
        job: The job.
        recipe: Tells how its rows become items; called only where rows are read anew.
        wanted: What is to be compared.
        manifest: The run, which is complete.
        source: Where rows can be read anew; None where there is none at hand.
        staging: Where its chunks are.
        sink: The destination table.
        state: As for ``verify``.
        report: Filled in as facts become known.

    Raises:
        UsageError: The table has another key than the run, or what is wanted does not go together.
        CacheError: The cache has not all of the rows, and there is no source at hand.
        EtlError: Source, cache or destination failed.
    """
    report.run_id, report.manifest = manifest.run_id, manifest
    report.mode = "upsert" if manifest.mark is None else "replace"
    try:
        with _first_error():
            await _check_key(sink, manifest.key)
            if wanted.extra and manifest.watermark is not None and manifest.watermark.since is not None:
                raise UsageError(
                    f"run {manifest.run_id} took only what is new since {manifest.watermark.since}: it cannot tell"
                    " which items have no row",
                    hint="Read all rows from the source: momento-etl verify --source --extra",
                )
            mark = await _mark_of(job, manifest.mark, wanted, state, report)
            comparing = _Comparing("cache", wanted, manifest.key, mark, sink, report)
            return await comparing.run(_CachedRows(manifest, staging, comparing.found))
    except CacheError as error:
        if error.of_service or source is None:
            raise
        report.warnings.append(f"{error.message}: compared with the source instead")
    return await _against_source(job, recipe, wanted, source, sink, state, report)


def refuse_differences(verification: Verification, job: str, table: str) -> None:
    """Raise the error that tells of differences, where there are any.

    Args:
        verification: What was found.
        job: The job's name.
        table: The destination table's.

    Raises:
        DifferenceFound: There are.
    """
    if not verification.count:
        return
    told = [
        f"{count:,} {'item is' if count == 1 else 'items are'} {kind}"
        for kind in _KINDS
        if (count := getattr(verification, kind))
    ]
    of = "source's" if verification.against == "source" else "cached"
    cures = []
    if verification.missing or verification.different:
        cures.append(f"momento-etl run --table {job} writes the items of all rows again.")
    if verification.surplus:
        cures.append(
            "Mode replace removes items that the job wrote and that have no row any more; others are for you to judge."
        )
    raise DifferenceFound(f"table {table} is not what the {of} rows make: {', '.join(told)}", hint=" ".join(cures))


def facts_of(verification: Verification, read_units: float) -> dict[str, Any]:
    """Write what a verification came to as the object that JSON output has."""
    wanted = verification.wanted
    return {
        "against": verification.against,
        "source": verification.source,
        "rows": verification.rows,
        "rows_compared": verification.rows_compared,
        "rows_rejected": verification.rows_rejected,
        "rows_dropped": verification.rows_dropped,
        "sampled": wanted.sample is not None,
        "sample": None if wanted.sample is None else str(wanted.sample),
        "seed": None if wanted.sample is None else wanted.seed,
        "missing": verification.missing,
        "different": verification.different,
        "surplus": verification.surplus,
        "read_units": read_units,
        "differences": [
            {
                "kind": difference.kind,
                "key": difference.key,
                "attributes": [attribute._asdict() for attribute in difference.attributes],
            }
            for difference in verification.differences
        ],
    }


class _Piece(NamedTuple):
    """Some items that are looked for with one request.

    Attributes:
        number: Its place among the pieces.
        items: What rows make; or keys alone, of rejected rows whose old items are to stay.
        is_spared: Whether they are such keys.
    """

    number: int
    items: list[bytes]
    is_spared: bool


class _Batch(NamedTuple):
    """Some rows that were read.

    Attributes:
        items: What those make that are to be compared.
        spared: The keys of rows that DynamoDB cannot hold: items that earlier runs made of them may be there, and are
            not surplus.
    """

    items: list[bytes]
    spared: list[bytes]


class _Rows(Protocol):
    """Where rows come from.

    Attributes:
        expected: How many there are, or should be; None where nobody knows.
    """

    expected: int | None

    def batches(self) -> AsyncGenerator[_Batch, None]:
        """All rows, or where only some are to be compared, perhaps no more than these."""
        ...


class _CachedRows:
    """A run's rows as the cache has them."""

    def __init__(self, manifest: Manifest, staging: Staging, found: Verification) -> None:
        self._manifest = manifest
        self._staging = staging
        self._found = found
        self._names = [attribute.name for attribute in manifest.key.attributes]
        self.expected: int | None = manifest.totals.rows_extracted

    async def batches(self) -> AsyncGenerator[_Batch, None]:
        manifest, found = self._manifest, self._found
        found.source = manifest.source
        if manifest.chunks_freed:
            raise CacheError(
                f"{manifest.chunks_freed} of the {manifest.totals.chunks} chunks of run {manifest.run_id} were freed"
                " once they were loaded, to stay under max_cached_bytes",
                hint=f"Compare with the source: momento-etl verify --table {manifest.job} --source",
            )
        records = await self._staging.fetch_ledger(manifest)
        found.rows = self.expected = sum(record.rows for record in records)
        found.rows_rejected, found.rows_dropped = manifest.totals.rows_rejected, manifest.totals.rows_dropped
        refused = await self._refused()
        chosen = self._chosen(found.rows)
        start = 0
        for record in records:
            places = None if chosen is None else chosen.within(start, start + record.rows)
            start += record.rows
            if places is not None and not places:
                continue  # a sample by number costs no more of the cache than its rows' chunks
            items = await self._staging.fetch_chunk(manifest, record)
            if places is not None:
                items = [items[place] for place in places]
            yield self._without(refused, items)
        if found.wanted.extra and found.rows_rejected:
            pages = self._staging.fetch_reject_pages(manifest.run_id, stages=("extract",))
            async with aclosing(pages):
                async for page in pages:
                    yield _Batch([], [reject.key.encode() for reject in page if reject.key is not None])

    def _chosen(self, rows: int) -> _ChosenPlaces | None:
        sample = self._found.wanted.sample
        if sample is None or sample.is_percentage or sample.figure >= rows:
            return None
        return _ChosenPlaces(rows, int(sample.figure), self._found.wanted.seed)

    async def _refused(self) -> set[bytes]:
        """The keys of items that DynamoDB refused when they were loaded: the cache has them all the same."""
        refused: set[bytes] = set()
        async with aclosing(self._staging.fetch_reject_pages(self._manifest.run_id, stages=("load",))) as pages:
            async for page in pages:
                refused.update(self._place(reject.row["item"].encode()) for reject in page)
        return refused

    def _without(self, refused: set[bytes], items: list[bytes]) -> _Batch:
        if not refused:
            return _Batch(items, [])
        batch = _Batch([], [])
        for item in items:
            if self._place(item) in refused:
                self._found.rows -= 1
                self._found.rows_rejected += 1
                batch.spared.append(key_of(item, self._manifest.key).encode())
            else:
                batch.items.append(item)
        return batch

    def _place(self, item: bytes) -> bytes:
        return key_bytes(orjson.loads(item), self._names)


class _ChosenPlaces:
    """So many of so many rows, chosen by their numbers, each with the same chance."""

    def __init__(self, rows: int, count: int, seed: int) -> None:
        self._places = sorted(random.Random(seed).sample(range(rows), count))
        self._next = 0

    def within(self, start: int, end: int) -> list[int]:
        """The chosen ones of a stretch, counted from its start; stretches are asked for in order."""
        first = self._next
        while self._next < len(self._places) and self._places[self._next] < end:
            self._next += 1
        return [place - start for place in self._places[first : self._next]]


class _SourceRows:
    """A job's rows as the source has them now."""

    def __init__(self, plan: Plan, encoder: RowEncoder, snapshot: Snapshot, found: Verification) -> None:
        self._plan = plan
        self._encoder = encoder
        self._snapshot = snapshot
        self._found = found
        found.source = plan.source
        selection = plan.job.selection
        known = selection.query is None and selection.where is None
        estimates = [it for it in (plan.relation.estimated_rows, selection.limit) if it is not None and known]
        self.expected: int | None = min(estimates, default=None)

    async def batches(self) -> AsyncGenerator[_Batch, None]:
        wanted = self._found.wanted
        encoded = self._encoded()
        if wanted.sample is not None and not wanted.sample.is_percentage:
            encoded = _fewest(encoded, int(wanted.sample.figure), wanted.seed, self._plan.key)
        async with aclosing(encoded):
            async for batch in encoded:
                yield batch

    async def _encoded(self) -> AsyncGenerator[_Batch, None]:
        """Read and encode all rows."""
        found = self._found
        async with aclosing(self._snapshot.read(self._plan.reading)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                for start in range(0, len(batch), _ENCODED_ROWS):
                    lines = batch[start : start + _ENCODED_ROWS]
                    encoded = self._encoder.encode_batch(lines)
                    found.rows += len(encoded.items)
                    found.rows_rejected += len(encoded.rejects)
                    found.rows_dropped += encoded.dropped
                    yield _Batch(encoded.items, [it.key.encode() for it in encoded.rejects if it.key is not None])


class _Comparing:
    """One comparison of a table with rows.

    Args:
        against: Where the rows come from.
        wanted: What is to be compared.
        key: The table's key.
        mark: The job's mark in mode ``replace``, which its items carry besides what their rows make; else None.
        sink: The table.
        report: Whose counters move.

    Attributes:
        found: What it came to.
    """

    def __init__(
        self, against: Against, wanted: Wanted, key: Key, mark: ItemMark | None, sink: Sink, report: Report
    ) -> None:
        self.found = Verification(against, wanted)
        self._wanted = wanted
        self._names = [attribute.name for attribute in key.attributes]
        self._mark = mark
        self._sink = sink
        self._report = report
        self._counters = report.counters
        self._chance = _Chance(wanted.sample, wanted.seed)
        self._known: KnownKeys | None = None
        self._accounted = 0
        self._kept: dict[DifferenceKind, list[tuple[tuple[int, int], Difference]]] = {kind: [] for kind in _KINDS}

    async def run(self, rows: _Rows) -> Verification:
        """Compare all rows, and then look for what none of them has."""
        counters = self._counters
        counters.stage, counters.rows_compared = "comparing", 0
        if self._wanted.extra:
            self._known = KnownKeys(None if rows.expected is None else 2 * rows.expected)
        pieces: asyncio.Queue[_Piece | None] = asyncio.Queue(maxsize=_READS_IN_FLIGHT // 4)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._cut(rows, pieces))
            for _ in range(_READS_IN_FLIGHT):
                group.create_task(self._work(pieces))
        if self._known is not None:
            await self._look_for_surplus(self._known)
        self.found.rows_compared = counters.rows_compared
        self.found.differences = [it for kind in _KINDS for _, it in self._first(kind)]
        return self.found

    async def _cut(self, rows: _Rows, pieces: asyncio.Queue[_Piece | None]) -> None:
        """Cut what rows make into pieces, and hand them on; waits while nobody is free to take one."""
        numbers = itertools.count()
        async with aclosing(rows.batches()) as batches:
            async for batch in batches:
                self._counters.rows_expected = self._expected(rows.expected)
                items = batch.items
                if not self._chance.is_certain:
                    items = [item for item in items if self._chance.takes(self._place(item))]
                for piece in _pieces(items):
                    await pieces.put(_Piece(next(numbers), piece, is_spared=False))
                if self._known is not None:
                    for piece in _pieces(batch.spared):
                        await pieces.put(_Piece(next(numbers), piece, is_spared=True))
        await pieces.put(None)

    def _expected(self, rows: int | None) -> int | None:
        """How many rows will be compared, as far as anybody knows."""
        sample = self._wanted.sample
        if sample is None or rows is None:
            return rows
        return None if sample.is_percentage else min(rows, int(sample.figure))

    async def _work(self, pieces: asyncio.Queue[_Piece | None]) -> None:
        while (piece := await pieces.get()) is not None:
            await self._look_at(piece)
        await pieces.put(None)  # for the next worker

    async def _look_at(self, piece: _Piece) -> None:
        """Read the items of a piece, and compare each."""
        rows: list[StoredItem] = [orjson.loads(item) for item in piece.items]
        keys = [{name: row[name] for name in self._names} for row in rows]
        items = await self._sink.fetch([orjson.dumps(key) for key in keys])
        for place, (key, row, item) in enumerate(zip(keys, rows, items, strict=True)):
            if self._known is not None:
                self._known.add(key_bytes(key, self._names))
                self._accounted += item is not None and (self._mark is None or self._is_the_jobs(item))
            if piece.is_spared:
                continue
            if item is None:
                self.found.missing += 1
                self._keep((piece.number, place), Difference("missing", key))
            elif differences := self._differences(row, item):
                self.found.different += 1
                self._keep((piece.number, place), Difference("different", key, tuple(differences)))
        self._counters.rows_compared += 0 if piece.is_spared else len(rows)

    def _differences(self, row: StoredItem, item: StoredItem) -> list[AttributeDifference]:
        if self._mark is None:
            return attribute_differences(row, item)
        content = {name: value for name, value in item.items() if name != self._mark.attribute}
        differences = attribute_differences(row, content)
        if not self._is_the_jobs(item):
            # Without it, a run in this mode would not know the item for its own once its row is gone.
            carried = item.get(self._mark.attribute)
            differences.append(AttributeDifference(self._mark.attribute, (), {"S": f"{self._mark.prefix}*"}, carried))
        return differences

    def _is_the_jobs(self, item: StoredItem) -> bool:
        assert self._mark is not None
        carried = item.get(self._mark.attribute, {}).get("S")
        return isinstance(carried, str) and carried.startswith(self._mark.prefix)

    async def _look_for_surplus(self, known: KnownKeys) -> None:
        """Read all keys of the table, and name those that no row has.

        A key that is not known has no row for certain. One that is may be taken for another, and then is counted: the
        table has more items than were found by their rows.
        """
        counters = self._counters
        counters.stage = "looking for surplus items"
        scanned = surplus = 0
        async with aclosing(self._sink.scan_keys(self._mark)) as pages:  # type: ignore[type-var]
            async for page in pages:
                for place, key in enumerate(page):
                    if key_bytes(key, self._names) not in known:
                        surplus += 1
                        self._keep((scanned, place), Difference("surplus", {name: key[name] for name in self._names}))
                scanned += len(page)
                counters.stage = f"looking for surplus items ({scanned:,} items so far)"
        hidden = max(0, scanned - self._accounted - surplus)
        if hidden:
            items = "1 surplus item" if hidden == 1 else f"{hidden:,} surplus items"
            self._report.warnings.append(
                f"{items} can only be counted: the table holds more items than were found by their rows. Was it being"
                " written to? Or the rows are too many to tell all keys apart"
            )
        self.found.surplus = surplus + hidden

    def _keep(self, place: tuple[int, int], difference: Difference) -> None:
        """Keep the first differences of each kind, in the order of the rows, whatever order answers come in."""
        kept = self._kept[difference.kind]
        kept.append((place, difference))
        if len(kept) > 2 * self._wanted.shown + 100:
            self._kept[difference.kind] = self._first(difference.kind)

    def _first(self, kind: DifferenceKind) -> list[tuple[tuple[int, int], Difference]]:
        return sorted(self._kept[kind], key=lambda it: it[0])[: self._wanted.shown]

    def _place(self, item: bytes) -> bytes:
        return key_bytes(orjson.loads(item), self._names)


class _Chance:
    """Takes some percent of the rows, by their keys: the same seed takes the same rows, wherever they come from."""

    def __init__(self, sample: Share | None, seed: int) -> None:
        self.is_certain = sample is None or not sample.is_percentage
        self._seed = seed
        self._below = 0 if sample is None else int(Fraction(sample.figure) / 100 * 2**64)

    def takes(self, key: bytes) -> bool:
        """Whether a row is taken."""
        return _lot(key, self._seed) < self._below


async def _against_source(
    job: Job,
    recipe: Callable[[], Recipe],
    wanted: Wanted,
    source: Source,
    sink: Sink,
    state: StateStore,
    report: Report,
) -> Verification:
    """Compare the destination with all of the job's rows in the source."""
    sample = wanted.sample
    if sample is not None and not sample.is_percentage and sample.figure > _MOST_HELD:
        raise UsageError(
            f"a sample of the source may have {_MOST_HELD:,} rows, and {sample} are asked for",
            hint="Ask for a percentage: --sample 1%",
        )
    report.counters.stage, report.mode = "planning", job.mode
    how = recipe()
    with _first_error():
        async with source.snapshot() as snapshot:
            relation = await snapshot.describe(job.selection)
            # Nothing goes through the cache: what its layout costs is nobody's worry.
            plan = make_plan(replace(job, layout="packed"), relation, source.description, how)
            report.warnings += [warning for warning in plan.warnings if warning not in report.warnings]
            await _check_key(sink, plan.key)
            mark = await _mark_of(job, job.mark if job.mode == "replace" else None, wanted, state, report)
            comparing = _Comparing("source", wanted, plan.key, mark, sink, report)
            return await comparing.run(_SourceRows(plan, row_encoder(plan, how), snapshot, comparing.found))


async def _find(staging: Staging, run_id: str | None) -> Manifest:
    """Find a complete extraction in the cache: the one named, or the current one.

    Raises:
        CacheError: There is none.
    """
    where = f"cache {staging.cache_name!r}"
    again = f"Extract again, or compare with the source: momento-etl verify --table {staging.job} --source"
    if not await staging.exists():
        raise CacheError(f"there is no {where}", hint=again)
    wanted = run_id or await staging.fetch_current(settle=True)
    if wanted is None:
        raise CacheError(f"{where} holds no complete extraction of {staging.job} (any more)", hint=again)
    manifest = await staging.fetch_manifest(wanted, settle=True)
    if manifest is None:
        raise CacheError(f"{where} holds no run {wanted} of {staging.job} (any more)", hint=again)
    if manifest.status != "complete":
        raise CacheError(f"run {wanted} of {staging.job} is not complete", hint=again)
    return manifest


async def _check_key(sink: Sink, key: Key) -> None:
    """See that the table is there, with this key.

    Raises:
        SinkError: It is not there.
        UsageError: It has another key.
    """
    existing = await sink.key()
    if existing is None:
        raise SinkError(
            f"there is no DynamoDB table {sink.table} to verify",
            hint="Is it another one (--destination)? momento-etl run makes and fills it.",
        )
    if existing != key:
        raise UsageError(
            f"the DynamoDB table {sink.table} has another key than this job\n"
            f"  the table's: {existing}\n"
            f"  the job's:   {key}",
            hint="Choose the table's key columns with --key, or another table with --destination.",
        )


async def _mark_of(
    job: Job, attribute: str | None, wanted: Wanted, state: StateStore, report: Report
) -> ItemMark | None:
    """Find what the job's items carry; None in mode ``upsert``."""
    if attribute is None:
        return None
    mark = await state.fetch_mark(job.name)
    if mark is None:
        if wanted.extra:
            raise SinkError(
                f"the state table {state.table} knows no mark of {job.name}: nobody can tell which items are its own",
                hint="Has the job never run in mode replace, or with another state table?",
            )
        report.warnings.append(f"the state table {state.table} knows no mark of {job.name}: any is taken for its own")
        return ItemMark(attribute, "", "")
    return ItemMark(attribute, mark.value(""), mark.value(report.run_id or ""))


def _refuse_contradictions(job: Job, wanted: Wanted) -> None:
    """Refuse what would tell too little, or falsely."""
    if wanted.sample is not None and not wanted.sample.figure:
        raise UsageError("--sample 0 would compare nothing", hint="For example: --sample 1000, or --sample 1%")
    if wanted.extra and wanted.sample is not None:
        raise UsageError(
            "--extra and --sample exclude each other: which items have no row, only all of the rows can tell",
            hint="Leave one of them out.",
        )
    if wanted.extra and job.narrowed_by:
        raise UsageError(
            f"--extra and {' and '.join(job.narrowed_by)}: every item outside of these rows would count as surplus",
            hint="Leave --extra out, or compare with all of the job's rows.",
        )


def _pieces(items: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Cut items into what one request asks for."""
    piece: list[bytes] = []
    size = 0
    for item in items:
        if len(piece) == _PIECE_ROWS or (piece and size + len(item) > _PIECE_BYTES):
            yield piece
            piece, size = [], 0
        piece.append(item)
        size += len(item)
    if piece:
        yield piece


async def _fewest(
    batches: AsyncGenerator[_Batch, None], count: int, seed: int, key: Key
) -> AsyncGenerator[_Batch, None]:
    """Take so many rows of a number that nobody knows: those whose lots are the smallest, in the rows' order."""
    names = [attribute.name for attribute in key.attributes]
    numbers = itertools.count()
    kept: list[tuple[int, int, bytes]] = []  # a heap, the largest lot first
    async with aclosing(batches):
        async for batch in batches:
            for item in batch.items:
                entry = (-_lot(key_bytes(orjson.loads(item), names), seed), next(numbers), item)
                if len(kept) < count:
                    heapq.heappush(kept, entry)
                elif entry > kept[0]:
                    heapq.heapreplace(kept, entry)
    yield _Batch([item for _, _, item in sorted(kept, key=lambda entry: entry[1])], [])


def _lot(key: bytes, seed: int) -> int:
    """Draw a row's lot, of 64 bits: by chance, and yet always the same."""
    return int.from_bytes(hashlib.blake2b(b"%d/%b" % (seed, key), digest_size=8).digest())


@contextmanager
def _first_error() -> Iterator[None]:
    """Raise the one error that ended the work, rather than the group of it and what it cancelled."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = leading(group)
        raise error from error.__cause__
