"""A run's first steps in the cache: its name, what an earlier attempt left of it, and then its extraction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from etlcli.block import block_of, by_block
from etlcli.budget import CacheBudget, Room
from etlcli.cache.ledger import Ledger
from etlcli.cache.staging import Staging
from etlcli.encoding import Recipe
from etlcli.extraction import Extraction, new_manifest
from etlcli.model import ChunkRecord, Job, KeyRange, Manifest, WatermarkMove, new_run_id
from etlcli.plan import Plan, row_encoder
from etlcli.ports import Cache, Snapshot, Source
from etlcli.rejects import RejectKeeper
from etlcli.report import Report
from etlcli.resuming.earlier import EarlierRun, fetch_earlier, hold_superseded
from etlcli.resuming.rereading import RowReader, whole_key
from etlcli.resuming.unfinished import Unfinished
from etlcli.state.host import HostProcesses

__all__ = ["Begun", "begin", "set_up_extraction", "take_up_rejects"]


class _Stretch(NamedTuple):
    """Rows that are still to be read.

    Attributes:
        block: Which block they are of; 0 in a run without blocks.
        range: Where they are; None for all.
        known: The chunks that are stored already of the same block, in order.
        first: The number of the first chunk.
    """

    block: int
    range: KeyRange | None
    known: Sequence[ChunkRecord]
    first: int


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that has a name, and has written nothing yet.

    Attributes:
        plan: What is left to read, and what becomes of it.
        staging: Its place in the cache.
        ledger: Its chunks, those of an earlier attempt included.
        budget: The bound on what it stores.
        earlier: What the cache holds of the runs before.
        found: Itself as an earlier attempt left it; None where there was none.
    """

    plan: Plan
    staging: Staging
    ledger: Ledger
    budget: CacheBudget
    earlier: Sequence[EarlierRun]
    found: Unfinished | None

    async def leave_trace(self, report: Report) -> None:
        """Count what is stored already, and write what the cache has to know of a run before its first chunk."""
        run_id = self.ledger.manifest.run_id
        await hold_superseded(self.earlier, self.staging, self.budget, but=run_id)
        await self.ledger.write_manifest()
        await self.staging.note_run(run_id, self.ledger.manifest.document_ttl_seconds)
        for block in sorted(by_block(self.found.to_load)) if self.ledger.manifest.blocks and self.found else ():
            # Without what it tells of chunks that are loaded again.
            await self.ledger.write_block(block)
        report.counters.stage = "extracting"

    async def extract(
        self,
        recipe: Recipe,
        source: Source,
        snapshot: Snapshot,
        report: Report,
        stored: Callable[[ChunkRecord], Awaitable[None]],
    ) -> Manifest | None:
        """Extract everything, from the start or from where it ended; ``stored`` hears of each chunk.

        Returns:
            The manifest of a complete extraction, with the pointer moved to it; None where it ended early.
        """
        for stretch in self._left():
            rejects = await take_up_rejects(
                self.plan.job, self.staging, self.ledger, report, stretch.known, block=stretch.block
            )
            extraction = set_up_extraction(
                self.plan,
                recipe,
                source,
                snapshot,
                self.staging,
                self.ledger,
                self.budget,
                rejects,
                report,
                stretch=stretch.range,
                known=stretch.known,
                first=stretch.first,
            )
            if not await extraction.run(stored):
                return None
            if self.ledger.manifest.blocks:
                await self.ledger.complete_block(stretch.block)
        manifest = await self.ledger.complete()
        # Only now: whoever follows the pointer finds a whole extraction.
        await self.staging.move_current(manifest.run_id, manifest.ttl_seconds)
        return manifest

    def _left(self) -> Iterator[_Stretch]:
        """What is still to be read, in the source's order."""
        records = self.found.records if self.found is not None else ()
        if not self.ledger.manifest.blocks:
            yield _Stretch(0, self.plan.reading.range, records, len(records))
            return
        assert self.found is not None, "only functions begin a run in blocks"
        for block in self.found.blocks:
            if block.is_extracted:
                continue
            known = [record for record in records if block_of(record.number) == block.number]
            last = whole_key(known[-1].last_key) if known else block.edges[0]
            yield _Stretch(
                block.number,
                KeyRange(after=last, last=block.edges[-1]),
                known,
                block.first_chunk + len(known),
            )


async def take_up_rejects(
    job: Job, staging: Staging, ledger: Ledger, report: Report, known: Sequence[ChunkRecord], *, block: int
) -> RejectKeeper:
    """Make what takes the rejects of a block; it keeps those of its chunks that are stored already.

    Args:
        job: The job.
        staging: Where they are.
        ledger: The run's.
        report: The run.
        known: The block's chunks that are stored already.
        block: The block.
    """
    most = job.max_rejects
    if ledger.manifest.blocks and most is not None and most.is_percentage:
        most = None  # of all rows, which one block does not tell; it is asked at the end
    rejects = RejectKeeper(staging, report, ledger.manifest, "extract", most, block)
    if known:
        await rejects.take_up({record.number: record.rejected for record in known})
        await rejects.finish()
    return rejects


def set_up_extraction(
    plan: Plan,
    recipe: Recipe,
    source: Source,
    snapshot: Snapshot,
    staging: Staging,
    ledger: Ledger,
    room: Room,
    rejects: RejectKeeper,
    report: Report,
    *,
    stretch: KeyRange | None,
    known: Sequence[ChunkRecord],
    first: int,
) -> Extraction:
    """Set up an extraction of a stretch of the source.

    Args:
        plan: What is read, and what becomes of it.
        recipe: How rows become items.
        source: Where they are read again after a broken connection.
        snapshot: Where they are read.
        staging: Where chunks go.
        ledger: Notes what is stored.
        room: The bound on stored bytes.
        rejects: Takes the rows that cannot become items.
        report: The run.
        stretch: Where the rows are; None for all.
        known: The chunks of the same block that are stored already.
        first: The number of the first chunk.
    """
    plan = replace(plan, reading=plan.reading._replace(range=stretch))
    encoder = row_encoder(plan, recipe)
    return Extraction(
        plan=plan,
        encoder=encoder,
        rows=RowReader(plan, encoder, source, snapshot, ledger, report.counters),
        staging=staging,
        ledger=ledger,
        room=room,
        rejects=rejects,
        counters=report.counters,
        stop=report.stop,
        first=first,
        behind=known[-1].last_key if known else None,
    )


async def begin(
    plan: Plan,
    recipe: Recipe,
    snapshot: Snapshot,
    watermark: WatermarkMove | None,
    cache: Cache,
    find: Callable[[Staging, Sequence[EarlierRun]], Awaitable[Unfinished | None]],
    report: Report,
    *,
    loading: bool,
) -> Begun:
    """Begin a run, or take up one that did not end."""
    job = plan.job
    staging = Staging(cache, job.name)
    await staging.ensure()
    earlier = await fetch_earlier(staging, report)
    found = None if job.restart else await find(staging, earlier)
    extractor = HostProcesses().current()
    if found is not None:
        plan = found.take_up(plan, report)
        snapshots = (*found.manifest.snapshots, snapshot.record)
        manifest = replace(found.manifest, extractor=extractor, snapshots=snapshots)
    else:
        manifest = new_manifest(
            plan,
            new_run_id(),
            snapshot.record,
            transform=recipe.transform.reference if recipe.transform is not None else None,
            watermark=watermark,
            extractor=extractor,
        )
        report.run_id, report.manifest, report.mode = manifest.run_id, manifest, job.mode
        report.watermark = watermark
    ledger = Ledger(
        staging,
        manifest,
        found.records if found is not None else (),
        found.blocks if found is not None else (),
    )
    return Begun(plan, staging, ledger, CacheBudget(job.max_cached_bytes, loading=loading), earlier, found)
