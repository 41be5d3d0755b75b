"""What the cache holds of a job: its runs, their chunks, the time they have left, and rows of the newest one."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple, TypeAlias

import orjson

from etlcli.cache.documents import UnreadableError
from etlcli.cache.shelf import each
from etlcli.cache.staging import Staging
from etlcli.errors import CacheError, ChunkError, LostChunk
from etlcli.model import ChunkRecord, Manifest, Reject
from etlcli.ports import Cache

__all__ = [
    "Checked",
    "ChunkState",
    "Finding",
    "Inspection",
    "Item",
    "RunView",
    "check_chunks",
    "chunk_states",
    "find_row",
    "findings_text",
    "inspect_job",
    "list_rejects",
]

Item: TypeAlias = dict[str, Any]
"""An item as DynamoDB JSON: attribute name to ``{"S": "..."}`` and the like."""

ChunkState: TypeAlias = Literal["stored", "freed", "expired", "missing", "damaged"]
"""What became of a chunk. ``freed``: removed once it was loaded. ``missing``: gone though its time is not up."""

_CHECKED_AT_ONCE = 1_000
_FINDINGS_TOLD = 5
# Whoever only looks does not ask for a thousand chunks that are gone.
_SAMPLE_CHUNKS = 4


@dataclass(frozen=True, slots=True)
class RunView:
    """One run as the cache shows it.

    Attributes:
        manifest: Its manifest.
        chunks: Its ledger.
        seconds_left: How long the first of its chunks to expire still has; None where it has no chunk.
        current: Whether it is the newest complete extraction.
    """

    manifest: Manifest
    chunks: tuple[ChunkRecord, ...]
    seconds_left: float | None
    current: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the cache holds of a job.

    Attributes:
        job: The job's name.
        cache: The cache's name.
        runs: The runs that the cache still knows, the newest first.
        sample: The first rows of the current run; empty where there is none, or its first chunks are gone.
        damages: What cannot be read, and so is not among the runs.
        is_lost: Whether that keeps the current run from being known.
    """

    job: str
    cache: str
    runs: tuple[RunView, ...]
    sample: tuple[Item, ...]
    damages: tuple[str, ...] = ()
    is_lost: bool = False

    @property
    def current(self) -> RunView | None:
        """The newest complete extraction."""
        return next((run for run in self.runs if run.current), None)


class Finding(NamedTuple):
    """What is wrong with a chunk.

    Attributes:
        number: The chunk.
        state: ``expired``, ``missing`` or ``damaged``.
        message: The same in words.
    """

    number: int
    state: ChunkState
    message: str


class Checked(NamedTuple):
    """A run whose chunks the cache was asked for.

    Attributes:
        run: The run.
        wrong: What is wrong with it, in order.
        freed: Chunks that are gone because they were removed once they had been loaded.
    """

    run: RunView
    wrong: list[Finding]
    freed: frozenset[int]


async def inspect_job(job: str, cache: Cache, *, sample_rows: int = 5) -> Inspection:
    """Look at a job's part of a cache. What cannot be read hides nothing else.

    Raises:
        CacheError: There is no such cache.
    """
    staging = Staging(cache, job)
    await _refuse_missing(staging)
    damages: list[str] = []
    current: str | None = None
    names: list[str] = []
    runs: list[RunView] = []
    try:
        current = await staging.fetch_current()
    except UnreadableError as error:
        damages.append(error.message)
    is_lost = bool(damages)
    try:
        names = await staging.fetch_runs()
    except UnreadableError as error:
        damages.append(error.message)
    if current is not None and current not in names:
        names.append(current)
    for name in names:
        try:
            view = await _view(staging, name, current)
        except UnreadableError as error:
            damages.append(error.message)
            is_lost = is_lost or name == current
        else:
            runs += [view] if view is not None else []
    sample: tuple[Item, ...] = ()
    newest = next((run for run in runs if run.current), None)
    if newest is not None and sample_rows:
        sample = await _sample(staging, newest, sample_rows)
    return Inspection(job, cache.name, tuple(runs), sample, tuple(damages), is_lost)


async def find_row(job: str, cache: Cache, key: str, run_id: str | None = None) -> tuple[RunView, Item] | None:
    """Find a row of a run by its destination key, written as ``HASH`` or ``HASH,RANGE``.

    Chunks are read one after the other until it is found: order is PostgreSQL's to judge (collations), so that bounds
    cannot tell here which chunk to open. Each costs its size in metered operations.

    Raises:
        CacheError: There is no such run, or a chunk of it is gone.
    """
    staging = Staging(cache, job)
    run = await _whole(staging, run_id)
    attributes = [attribute.name for attribute in run.manifest.key.attributes]
    for record in run.chunks:
        for line in await staging.fetch_chunk(run.manifest, record):
            item: Item = orjson.loads(line)
            values = [str(next(iter(item[name].values()))) for name in attributes]
            if key in (",".join(values), values[0] if len(values) == 1 else None):
                return run, item
    return None


async def list_rejects(job: str, cache: Cache, run_id: str | None = None) -> tuple[RunView, list[Reject]]:
    """List the rejects of a run.

    Raises:
        CacheError: There is no such run, or the cache does not hold all rows that its extraction rejected (any more).
    """
    staging = Staging(cache, job)
    run = await _chosen(staging, run_id)
    rejects = await staging.fetch_rejects(run.manifest, "extract")
    rejected = run.manifest.totals.rows_rejected
    if len(rejects) < rejected:
        raise CacheError(
            f"the extraction of run {run.manifest.run_id} rejected {rejected:,} rows, and cache {staging.cache_name!r}"
            f" tells only {len(rejects):,} of them (any more)",
            hint="They have expired, or the cache was flushed. The rejects file of the run has all of them.",
        )
    return run, rejects + await staging.fetch_rejects(run.manifest, "load")


async def check_chunks(job: str, cache: Cache, run_id: str | None = None) -> Checked:
    """Ask the cache for every chunk of a run, and check each.

    Raises:
        CacheError: There is no such run.
    """
    staging = Staging(cache, job)
    run = await _whole(staging, run_id)
    # A chunk of the rows layout is hundreds of calls by itself.
    at_once = 1 if run.manifest.layout == "rows" else _CHECKED_AT_ONCE
    findings: list[Finding] = []
    for first in range(0, len(run.chunks), at_once):
        records = run.chunks[first : first + at_once]
        found = await each(partial(_finding, staging, run.manifest, record) for record in records)
        findings += [finding for finding in found if finding is not None]
    missing = frozenset(finding.number for finding in findings if finding.state == "missing")
    # Which ones were freed is noted nowhere, how many is: as long as no more are missing, nothing is lost.
    freed = missing if len(missing) <= run.manifest.chunks_freed else frozenset[int]()
    return Checked(run, [finding for finding in findings if finding.number not in freed], freed)


def chunk_states(run: RunView, checked: Checked | None = None) -> list[ChunkState]:
    """Tell the state of each chunk of a run.

    Args:
        run: The run.
        checked: What asking for each has told; None to go by the ledger and the clock. Then so many as were freed are
            taken to be the first ones, which is the order in which they are loaded.
    """
    if checked is not None:
        states: dict[int, ChunkState] = dict.fromkeys(checked.freed, "freed")
        states |= {finding.number: finding.state for finding in checked.wrong}
        return [states.get(record.number, "stored") for record in run.chunks]
    now = time.time()
    return [
        "expired"
        if record.stored_at + run.manifest.ttl_seconds <= now
        else "freed"
        if place < run.manifest.chunks_freed
        else "stored"
        for place, record in enumerate(run.chunks)
    ]


def findings_text(wrong: list[Finding]) -> str:
    """Tell what is wrong: a line for each of the first chunks, and the numbers of all others in one."""
    lines = [finding.message for finding in wrong[:_FINDINGS_TOLD]]
    rest = [finding.number for finding in wrong[_FINDINGS_TOLD:]]
    if rest:
        chunks = "chunk" if len(rest) == 1 else "chunks"
        lines.append(f"and {len(rest):,} more like these: {chunks} {_stretches(rest)}")
    return "\n".join(lines)


def _stretches(numbers: Iterable[int]) -> str:
    """Write sorted numbers: ``7, 12 to 40``."""
    found = list(numbers)
    starts = [found[0], *(after for before, after in pairwise(found) if after != before + 1)]
    ends = [*(before for before, after in pairwise(found) if after != before + 1), found[-1]]
    return ", ".join(
        f"{start}" if start == end else f"{start} to {end}" for start, end in zip(starts, ends, strict=True)
    )


async def _finding(staging: Staging, manifest: Manifest, record: ChunkRecord) -> Finding | None:
    try:
        await staging.fetch_chunk(manifest, record)
    except ChunkError as error:
        if not isinstance(error, LostChunk):
            return Finding(record.number, "damaged", error.message)
        return Finding(record.number, "expired" if error.has_expired else "missing", error.message)
    return None


async def _chosen(staging: Staging, run_id: str | None) -> RunView:
    """Find the run that is named, or the current one; complete or not."""
    await _refuse_missing(staging)
    try:
        current = await staging.fetch_current()
    except UnreadableError:
        if run_id is None:
            raise
        current = None
    wanted = run_id or current
    run = None if wanted is None else await _view(staging, wanted, current)
    if run is None:
        what = f"run {wanted}" if wanted else "complete extraction"
        raise CacheError(
            f"cache {staging.cache_name!r} holds no {what} of {staging.job}",
            hint=f"momento-etl inspect-cache {staging.job} lists what it holds; momento-etl extract fills it.",
        )
    return run


async def _whole(staging: Staging, run_id: str | None) -> RunView:
    """The same, with all of its ledger: part of a run may be shown, but not searched or checked as if it were all."""
    run = await _chosen(staging, run_id)
    if run.manifest.status != "complete" or len(run.chunks) == run.manifest.totals.chunks:
        return run
    return replace(run, chunks=tuple(await staging.fetch_ledger(run.manifest)))


async def _refuse_missing(staging: Staging) -> None:
    if not await staging.exists():
        raise CacheError(
            f"there is no cache {staging.cache_name!r}",
            hint=f"momento-etl extract --table {staging.job} (or run) makes it; --cache names another.",
        )


async def _view(staging: Staging, run_id: str, current: str | None) -> RunView | None:
    manifest = await staging.fetch_manifest(run_id)
    if manifest is None:
        return None
    # The pages of the ledger expire one by one; an old run's must not hide the newer ones.
    chunks = await staging.fetch_known_chunks(manifest)
    # Momento has no call for an entry's TTL in its SDK: what is left is reckoned from when it was stored.
    oldest = min((record.stored_at for record in chunks), default=None)
    left = None if oldest is None else max(0.0, oldest + manifest.ttl_seconds - time.time())
    return RunView(manifest, tuple(chunks), left, run_id == current)


async def _sample(staging: Staging, run: RunView, rows: int) -> tuple[Item, ...]:
    there = [
        record for record, state in zip(run.chunks, chunk_states(run), strict=True) if record.rows and state == "stored"
    ]
    for record in there[:_SAMPLE_CHUNKS]:
        try:
            lines = await staging.fetch_chunk(run.manifest, record)
        except ChunkError:
            continue
        return tuple(orjson.loads(line) for line in lines[:rows])
    return ()
