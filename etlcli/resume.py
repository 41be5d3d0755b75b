"""Finds the run that the same command left unfinished, and tells what of it is left to do (promise 2).

A run is taken up again only where it would make the same items of the same rows: its fingerprint is compared. What it
stored and what it loaded are known from the ledger and from the progress; both are written behind the work, so that
what was in flight when it ended is done again, and nothing is left out. Progress belongs to one very table: in another,
or in one that was made anew under the same name, nothing is loaded yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from etlcli.cache.documents import UnreadableError
from etlcli.cache.staging import Staging
from etlcli.model import ChunkRecord, Manifest
from etlcli.plan import Plan
from etlcli.ports import StateStore
from etlcli.progress import Counters
from etlcli.report import Report

__all__ = ["Unfinished", "find_unfinished", "progress_name", "unbroken"]

_ENDED = ("succeeded", "rejected_rows")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that can be taken up again.

    Attributes:
        manifest: Its manifest.
        records: Its chunks that the cache acknowledged, from the first on without a gap.
        loaded: The numbers of the chunks that are in the destination.
    """

    manifest: Manifest
    records: tuple[ChunkRecord, ...]
    loaded: frozenset[int]

    @property
    def is_extracted(self) -> bool:
        """Whether all of its rows were read and stored."""
        return self.manifest.status == "complete"

    @property
    def to_load(self) -> list[ChunkRecord]:
        """The chunks that are not in the destination yet, in order."""
        return [record for record in self.records if record.number not in self.loaded]

    @property
    def last_key(self) -> tuple[str, ...]:
        """The source key of the last row that is stored; the rows have a unique order, and so it has no NULL."""
        return tuple(part for part in self.records[-1].last_key if part is not None)

    def count_loaded(self, report: Report) -> None:
        """Count what an earlier load of the same run wrote as written."""
        done = [record for record in self.records if record.number in self.loaded]
        if not done:
            return
        report.resumed = True
        report.counters.chunks_loaded += len(done)
        report.counters.rows_loaded += sum(record.rows for record in done)
        report.warnings.append(
            f"goes on with run {self.manifest.run_id}: {len(done):,} of {len(self.records):,} chunks are loaded"
            " (--restart loads all of it)"
        )

    def count(self, counters: Counters) -> None:
        """Count what was done before as done."""
        for record in self.records:
            counters.rows_extracted += record.rows + record.rejected + record.dropped
            counters.rows_rejected += record.rejected
            counters.rows_dropped += record.dropped
            counters.rows_cached += record.rows
            counters.chunks_stored += 1
            counters.bytes_encoded += record.bytes_encoded
            counters.bytes_cached += record.bytes_stored
            if record.number in self.loaded:
                counters.chunks_loaded += 1
                counters.rows_loaded += record.rows


def unbroken(records: Sequence[ChunkRecord]) -> tuple[ChunkRecord, ...]:
    """Take the chunks from the first on up to where one is missing: what is behind a gap is read again."""
    kept: list[ChunkRecord] = []
    for record in sorted(records):
        if record.number != len(kept):
            break
        kept.append(record)
    return tuple(kept)


def progress_name(run_id: str, destination: str) -> str:
    """Name a run's progress in one table (see ``Sink.identity``)."""
    return f"{run_id}@{hashlib.blake2b(destination.encode(), digest_size=6).hexdigest()}"


async def find_unfinished(
    plan: Plan, destination: str, staging: Staging, state: StateStore, report: Report
) -> Unfinished | None:
    """Find the newest run of a job, where it did not end well and can be taken up again.

    Args:
        plan: What the command would do.
        destination: Names the very destination table (see ``Sink.identity``).
        staging: Where its chunks would be.
        state: Where its progress and its end would be noted.
        report: Told why a run that did not end well is not taken up.

    Raises:
        EtlError: Cache or state table failed.
    """
    newest = await state.fetch_runs(plan.job.name, 1)
    if not newest or newest[0].status in _ENDED:
        return None
    record = newest[0]
    what = f"run {record.run_id} of {plan.job.name} did not end, and is not taken up"
    try:
        manifest = await staging.fetch_manifest(record.run_id, settle=False)
        records = () if manifest is None else unbroken(await staging.fetch_known_chunks(manifest))
    except UnreadableError as error:
        report.warnings.append(f"{what}: {error.message}")
        return None
    if manifest is not None and (manifest.status == "abandoned" or not records):
        return None
    obstacle = "the cache holds nothing of it (any more)" if manifest is None else _obstacle(plan, manifest, records)
    if manifest is None or obstacle is not None:
        report.warnings.append(f"{what}: {obstacle}. This run begins anew")
        return None
    loaded = await state.fetch_progress(plan.job.name, progress_name(record.run_id, destination))
    return Unfinished(manifest, records, loaded)


def _obstacle(plan: Plan, manifest: Manifest, records: Sequence[ChunkRecord]) -> str | None:
    """Tell why a run cannot be taken up; None where it can."""
    if manifest.fingerprint != plan.fingerprint:
        return "the source's columns, or what is made of them, have changed since"
    if manifest.status == "complete":
        return "a page of its ledger has expired" if len(records) < manifest.totals.chunks else None
    return None if plan.resumes else "its rows have no unique order in which reading could go on"
