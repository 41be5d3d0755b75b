"""What the cache holds of a job: its runs, their chunks, the time they have left, and rows of the newest one."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import orjson

from etlcli.cache.documents import UnreadableError
from etlcli.cache.staging import Staging
from etlcli.errors import CacheError, ChunkError
from etlcli.model import ChunkRecord, Manifest, Reject
from etlcli.ports import Cache

__all__ = ["Inspection", "Item", "RunView", "check_chunks", "find_row", "inspect_job", "list_rejects"]

Item: TypeAlias = dict[str, Any]
"""An item as DynamoDB JSON: attribute name to ``{"S": "..."}`` and the like."""


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
        sample: The first rows of the current run; empty where there is none, or its first chunk is gone.
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


async def check_chunks(job: str, cache: Cache, run_id: str | None = None) -> tuple[RunView, list[str]]:
    """Ask the cache for every chunk of a run, and check each.

    Returns:
        The run, and what is wrong with it, a line a chunk.

    Raises:
        CacheError: There is no such run.
    """
    staging = Staging(cache, job)
    run = await _whole(staging, run_id)
    wrong = []
    for record in run.chunks:
        try:
            await staging.fetch_chunk(run.manifest, record)
        except ChunkError as error:
            wrong.append(error.message)
    return run, wrong


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
    for record in run.chunks:
        if not record.rows:
            continue
        try:
            lines = await staging.fetch_chunk(run.manifest, record)
        except ChunkError:
            continue  # freed or expired: the chunk map says so
        return tuple(orjson.loads(line) for line in lines[:rows])
    return ()
