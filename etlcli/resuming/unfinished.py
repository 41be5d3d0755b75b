"""Finds the run that the same command left unfinished, and takes it up again (promise 2).

A run is taken up only where it would make the same items of the same rows: its fingerprint is compared, and where an
incremental run begins. What it stored and what it loaded are known from the ledger and from the progress; both are
written behind the work, so that what was in flight when it ended is done again, and nothing is left out. Progress
belongs to one very table: in another, or in one that was made anew under the same name, nothing is loaded yet.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from etlcli.block import Block, block_of, by_block, unbroken
from etlcli.budget import CacheBudget
from etlcli.cache.documents import UnreadableError
from etlcli.cache.staging import Stage, Staging
from etlcli.model import ChunkRecord, KeyRange, Manifest, WatermarkMove
from etlcli.plan import Plan
from etlcli.ports import StateStore
from etlcli.report import Report
from etlcli.resuming.earlier import EarlierRun
from etlcli.resuming.rereading import whole_key
from etlcli.state.host import HostProcesses

__all__ = ["Unfinished", "find_extraction", "find_unfinished", "progress_name", "refused_name"]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that can be taken up again.

    Attributes:
        manifest: Its manifest.
        records: Its chunks that the cache acknowledged, from the first on without a gap; so of each block.
        loaded: The numbers of the chunks that are in the destination.
        blocks: Its blocks, where many readers share it.
    """

    manifest: Manifest
    records: tuple[ChunkRecord, ...]
    loaded: frozenset[int] = frozenset()
    blocks: tuple[Block, ...] = ()

    @property
    def is_extracted(self) -> bool:
        """Whether all of its rows were read and stored."""
        return self.manifest.status == "complete"

    @property
    def to_load(self) -> list[ChunkRecord]:
        """The chunks that are not in the destination yet, in order."""
        return [record for record in self.records if record.number not in self.loaded]

    @property
    def already_loaded(self) -> list[ChunkRecord]:
        """The chunks that are, in order."""
        return [record for record in self.records if record.number in self.loaded]

    def take_up(self, plan: Plan, report: Report) -> Plan:
        """Count what was done before as done; what is left to read is behind the last stored row."""
        report.run_id, report.manifest, report.mode = self.manifest.run_id, self.manifest, plan.job.mode
        report.watermark = self.manifest.watermark
        self._count_extracted(report)
        self.count_loaded(report)
        stored = f"{len(self.records):,} chunks are stored"
        loaded = f", {len(self.loaded):,} of them loaded" if report.destination is not None else ""
        self._tell(report, f"takes up run {self.manifest.run_id}, which did not end: {stored}{loaded}")
        if self.is_extracted:
            return plan
        report.counters.rows_expected = None
        if self.blocks:
            return plan  # each tells what is left of it
        behind = whole_key(self.records[-1].last_key)
        return replace(plan, reading=plan.reading._replace(range=KeyRange(after=behind)))

    def count_loaded(self, report: Report) -> None:
        """Count what is in the destination as written."""
        for record in self.already_loaded:
            report.counters.chunks_loaded += 1
            report.counters.rows_loaded += record.rows
        # A function that loads a block keeps its refused items, and notes their chunk as loaded.
        refused = sum(count for block in self.blocks for chunk, count in block.refusals if chunk in self.loaded)
        report.counters.rows_loaded -= refused
        report.counters.rows_rejected += refused

    def tell_loaded(self, report: Report) -> None:
        """Say how much an earlier load of the same run has written."""
        if self.loaded:
            what = f"{len(self.loaded):,} of {len(self.records):,} chunks are loaded"
            self._tell(report, f"goes on with run {self.manifest.run_id}: {what}")

    async def offer(
        self,
        budget: CacheBudget,
        loaded: Callable[[ChunkRecord], Awaitable[None]],
        chunks: asyncio.Queue[ChunkRecord | None],
    ) -> None:
        """Hand on what is stored and not loaded; what is loaded may be freed.

        Args:
            budget: Counts what is stored.
            loaded: Hears of each chunk that is in the destination.
            chunks: Takes the others.
        """
        for record in self.records:
            await budget.take_over(record.bytes_stored)
            if record.number in self.loaded:
                await loaded(record)
        for record in self.to_load:
            chunks.put_nowait(record)

    def _count_extracted(self, report: Report) -> None:
        counters = report.counters
        for record in self.records:
            counters.rows_extracted += record.rows + record.rejected + record.dropped
            counters.rows_rejected += record.rejected
            counters.rows_dropped += record.dropped
            counters.rows_cached += record.rows
            counters.chunks_stored += 1
            counters.bytes_encoded += record.bytes_encoded
            counters.bytes_cached += record.bytes_stored

    @staticmethod
    def _tell(report: Report, what: str) -> None:
        report.resumed = True
        report.warnings.append(f"{what} (--restart begins anew)")


def refused_name(progress: str) -> str:
    """Name, beside a run's progress, which chunks had items that DynamoDB refused.

    How many, the blocks tell. The cache may give them as they were before: a chunk of which they do not tell it is
    loaded once more.
    """
    return f"{progress}!"


def progress_name(run_id: str, destination: str) -> str:
    """Name a run's progress in one table (see ``Sink.identity``)."""
    return f"{run_id}@{hashlib.blake2b(destination.encode(), digest_size=6).hexdigest()}"


async def find_unfinished(
    plan: Plan,
    watermark: WatermarkMove | None,
    destination: str,
    earlier: Sequence[EarlierRun],
    staging: Staging,
    state: StateStore,
    report: Report,
    *,
    after_death: bool,
) -> Unfinished | None:
    """Find the newest run of a job, where it did not end well and can be taken up again.

    Call it with the job's lease: whoever began that run and left it unfinished then works on it no more, unless it is
    an extraction alone, which takes no lease.

    Args:
        plan: What the command would do.
        watermark: Where it would begin, if it is incremental.
        destination: Names the very destination table (see ``Sink.identity``); empty where there is none yet.
        earlier: What the cache remembers, the newest first.
        staging: Where its rejects are.
        state: Where the run's progress and its end would be noted.
        report: Told why a run that did not end well is not taken up.
        after_death: Whether the lease was taken over from somebody who never gave it back: that may have been killed
            right after it noted that all was done, and before it could say so to anybody.

    Raises:
        EtlError: Cache or state table failed.
    """
    if not earlier:
        return None
    newest, name = earlier[0], progress_name(earlier[0].run_id, destination)
    loaded = await state.fetch_progress(plan.job.name, name) if destination else frozenset[int]()
    found = None
    if await _is_unfinished(newest, plan.job.name, state, after_death=after_death):
        found = await _take(plan, watermark, newest, staging, report)
    if found is not None and (loaded or not found.is_extracted):
        loaded &= {record.number for record in found.records}
        if found.blocks:
            loaded -= await state.fetch_progress(plan.job.name, refused_name(name)) - frozenset[int]().union(
                *(block.told for block in found.blocks)
            )
        return replace(found, loaded=loaded, blocks=tuple(block.told_of(loaded) for block in found.blocks))
    # Where nothing of a whole extraction is loaded, the rows as they are now are better than as they were.
    if loaded:
        await state.clear_progress(plan.job.name, name)
    return None


async def find_extraction(
    plan: Plan, watermark: WatermarkMove | None, earlier: Sequence[EarlierRun], staging: Staging, report: Report
) -> Unfinished | None:
    """Find the newest run of a job, where its extraction was killed on this machine and can be taken up again.

    Args:
        plan: What the command would do.
        watermark: Where it would begin, if it is incremental.
        earlier: What the cache remembers, the newest first.
        staging: Where its rejects are.
        report: Told why a run that was killed is not taken up.
    """
    if not earlier or not _has_lost_its_extractor(earlier[0]):
        return None
    found = await _take(plan, watermark, earlier[0], staging, report)
    return None if found is None or found.is_extracted else found


async def _take(
    plan: Plan, watermark: WatermarkMove | None, run: EarlierRun, staging: Staging, report: Report
) -> Unfinished | None:
    """Take a run up where that can be done; where it cannot, say why."""
    manifest = run.manifest
    if manifest is None or manifest.status == "abandoned":
        return None
    blocks = await _fetch_blocks(staging, manifest)
    if manifest.blocks:
        named = by_block(run.records)
        records = tuple(record for block in blocks for record in block.chunks_of(named.get(block.number, ())))
    else:
        records = unbroken(run.records)
    if not records:
        return None
    obstacle = _obstacle(plan, watermark, manifest, records, blocks)
    if obstacle is None and await _lacks_rejects(staging, manifest, records, blocks):
        obstacle = "some of its rejected rows are not in the cache (any more)"
    if obstacle is not None:
        what = f"run {run.run_id} of {plan.job.name} did not end, and is not taken up"
        report.warnings.append(f"{what}: {obstacle}. This run begins anew")
        return None
    numbers = Counter(block_of(record.number) for record in records)
    return Unfinished(manifest, records, blocks=tuple(block.with_only(numbers[block.number]) for block in blocks))


async def _fetch_blocks(staging: Staging, manifest: Manifest) -> list[Block]:
    """Fetch what can be read of a run's blocks."""
    try:
        return [block for block in await staging.fetch_blocks(manifest) if block is not None]
    except UnreadableError:
        return []


def _obstacle(
    plan: Plan,
    watermark: WatermarkMove | None,
    manifest: Manifest,
    records: Sequence[ChunkRecord],
    blocks: Sequence[Block],
) -> str | None:
    """Tell why a run cannot be taken up; None where it can."""
    if manifest.fingerprint != plan.fingerprint:
        return "the source's columns, or what is made of them, have changed since"
    if manifest.layout != plan.job.layout:
        return f"its layout is {manifest.layout}"
    if not _begins_alike(watermark, manifest.watermark):
        return "the watermark has moved since, or it was to begin elsewhere"
    if len(blocks) < manifest.blocks:
        return "the cache has not all of its blocks (any more)"
    if manifest.status == "complete":
        return "a page of its ledger has expired" if len(records) < manifest.totals.chunks else None
    return None if plan.resumes else "its rows have no unique order in which reading could go on"


async def _lacks_rejects(
    staging: Staging, manifest: Manifest, records: Sequence[ChunkRecord], blocks: Sequence[Block]
) -> bool:
    """Whether rejects that these chunks had cannot be read; nothing is asked where there were none."""
    known = {record.number for record in records}
    expected: dict[Stage, int] = {
        "extract": sum(record.rejected for record in records),
        "load": sum(block.refused for block in blocks),
    }
    for stage, count in expected.items():
        found = 0
        if count:
            with suppress(UnreadableError):
                async with aclosing(staging.fetch_reject_pages(manifest, stages=(stage,))) as pages:
                    async for page in pages:
                        found += sum(reject.chunk in known for reject in page)
        if found < count:
            return True
    return False


async def _is_unfinished(run: EarlierRun, job: str, state: StateStore, *, after_death: bool) -> bool:
    """Whether a run may have to be taken up, once nobody else can be at work on what the history knows."""
    record = await state.fetch_run(job, run.run_id)
    if record is None:
        # An extraction alone, which has been done, or is being done just now; or a run that was killed very early.
        return _has_lost_its_extractor(run)
    return after_death or not record.is_done


def _has_lost_its_extractor(run: EarlierRun) -> bool:
    """Whether the process that extracted a run surely runs no more."""
    manifest = run.manifest
    return manifest is not None and manifest.extractor is not None and HostProcesses().is_dead(manifest.extractor)


def _begins_alike(now: WatermarkMove | None, then: WatermarkMove | None) -> bool:
    """Whether two runs take the same rows, as far as the watermark decides that."""
    if now is None or then is None:
        return now is then
    return (now.column, now.since, now.overlap, now.moves) == (then.column, then.since, then.overlap, then.moves)
