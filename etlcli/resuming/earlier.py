"""What the cache still holds of a job's earlier runs: to be taken up again, or to be freed before anything else."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from etlcli.budget import CacheBudget
from etlcli.cache.documents import UnreadableError
from etlcli.cache.staging import RUNS_KEPT, Staging
from etlcli.model import ChunkRecord, Manifest
from etlcli.report import Report

__all__ = ["EarlierRun", "fetch_earlier", "hold_superseded"]


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run that the cache remembers.

    Attributes:
        run_id: Its name.
        manifest: Its manifest; None where that has expired, or cannot be read.
        records: What the ledger still tells of its chunks, in order.
    """

    run_id: str
    manifest: Manifest | None = None
    records: tuple[ChunkRecord, ...] = ()


async def fetch_earlier(staging: Staging, report: Report) -> list[EarlierRun]:
    """Look at what earlier runs of a job have left, the newest first.

    Nothing that an earlier run left behind keeps a new one from starting: to run again is the way out of every damage.

    Raises:
        EtlError: The cache failed.
    """
    try:
        run_ids = await staging.fetch_runs()
    except UnreadableError as error:
        report.warnings.append(f"{error.message}: what earlier runs still store is not counted")
        return []
    return [await _fetch(staging, run_id, report) for run_id in run_ids]


async def _fetch(staging: Staging, run_id: str, report: Report) -> EarlierRun:
    try:
        manifest = await staging.fetch_manifest(run_id)
        records = [] if manifest is None else await staging.fetch_known_chunks(manifest)
    except UnreadableError as error:
        report.warnings.append(f"{error.message}: what its run still stores is not counted, and not taken up")
        return EarlierRun(run_id)
    return EarlierRun(run_id, manifest, tuple(records))


async def hold_superseded(
    earlier: Sequence[EarlierRun], staging: Staging, budget: CacheBudget, *, but: str | None = None
) -> None:
    """Count what earlier runs still store: it goes first when room is needed, the oldest run's before all.

    Args:
        earlier: The runs, the newest first.
        staging: Where they are.
        budget: Counts them.
        but: The run that goes on, if one of them does.
    """
    for place, run in reversed(list(enumerate(earlier))):
        if run.manifest is None or run.run_id == but:
            continue
        for record in run.records:
            if record.stored_at + run.manifest.ttl_seconds <= time.time():
                continue
            if place >= RUNS_KEPT - 1:
                # The run that starts now takes its place in the list: nobody could find it again.
                await staging.free_chunk(run.manifest, record)
            else:
                await budget.hold(record.bytes_stored, partial(staging.free_chunk, run.manifest, record))
