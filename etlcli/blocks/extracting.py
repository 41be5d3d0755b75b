"""One call's part of reading a block: as much as its time and its share of the cache allow, from where the last ended.

A call that is killed leaves the chunks that its ledger names: the next one goes on behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from etlcli.beginning import set_up_extraction, take_up_rejects
from etlcli.block import Block
from etlcli.blocks.calls import Extracted, RunCall
from etlcli.blocks.ledger import BlockLedger, StaleLedger, fetch_place
from etlcli.blocks.rights import working
from etlcli.cache.ledger import kept
from etlcli.cache.staging import Staging
from etlcli.encoding import Recipe
from etlcli.errors import ChunkError, SourceError, TerminalError, first_error
from etlcli.model import ChunkRecord, Job, Manifest, Since
from etlcli.plan import Plan, make_plan, row_encoder
from etlcli.ports import Cache, Snapshot, Source, StateStore
from etlcli.preparing import find_manifest
from etlcli.rejects import RejectKeeper
from etlcli.report import Report
from etlcli.resuming.mending import Mender
from etlcli.resuming.rereading import whole_key

__all__ = ["extract_block"]

# Nothing is written to DynamoDB here but to the state table, whose calls take no longer than this.
_REQUEST_SECONDS = 5.0


class _Share:
    """One block's share of the cache: once it is taken up, the call ends, and the block is loaded before the next.

    Args:
        limit: Bytes.
        stored: Bytes that are stored already.
        waits: Whether some of it waits to be loaded.
    """

    def __init__(self, limit: int, stored: int, *, waits: bool) -> None:
        self._limit = limit
        self._stored = stored
        self._waits = waits

    def has_room(self, size: int) -> bool:
        """Count an entry as stored, if there is room for it; one entry always has room, or nothing would go on."""
        if self._waits and self._stored + size > self._limit:
            return False
        self._stored += size
        self._waits = True
        return True

    def begin_anew(self) -> None:
        """What was stored is stored over."""
        self._stored = 0
        self._waits = False

    async def reserve(self, size: int) -> None:
        """It was counted when it was asked for."""


async def extract_block(
    call: RunCall,
    number: int,
    told: str,
    lost: Sequence[int],
    job: Job,
    recipe: Recipe,
    source: Source,
    cache: Cache,
    state: StateStore,
    report: Report,
    *,
    wait_seconds: float = 0.0,
) -> Extracted:
    """Read of a block what this call can: it ends with the block, with its share of the cache, or as it is asked to.

    Args:
        call: The run.
        number: The block.
        told: How far its ledger is, as the call before named it; empty for the first one.
        lost: Chunks that are to be read again, since the cache does not hold them any more.
        job: The job.
        recipe: How its rows become items.
        source: Where they are.
        cache: Where chunks go.
        state: Where leases and progress are.
        report: Filled in as facts become known; ``report.stop`` ends the call.
        wait_seconds: For how long another call that works on the block is waited for.

    Raises:
        BlockBusy: Another call works on it.
        StaleLedger: The cache has not settled.
        EtlError: Source, cache or state table failed.
    """
    with first_error():
        async with working(
            job.name,
            call,
            number,
            "extracting block",
            state,
            report,
            request_seconds=_REQUEST_SECONDS,
            wait_seconds=wait_seconds,
        ):
            staging = Staging(cache, job.name)
            manifest = await find_manifest(staging, call.run_id)
            report.run_id, report.manifest = manifest.run_id, manifest
            block, records = await fetch_place(staging, manifest, number, told)
            loaded = await _loaded(block, records, job, call, state)
            ledger = BlockLedger(staging, manifest, block, records)
            await ledger.refresh()
            again = [record for record in records if record.number in set(lost) - loaded]
            if again or not block.is_extracted:
                stored = sum(record.bytes_stored for record in records[block.freed :])
                waits = any(record.number not in loaded for record in records)
                share = _Share(call.cached_bytes + call.kept_bytes, stored, waits=waits)
                async with kept(ledger):
                    with report.stop.heeding():
                        await _read(job, recipe, source, staging, ledger, share, again, report, number)
                    await ledger.flush()
            rows = sum(record.rows + record.rejected + record.dropped for record in ledger.records)
            return Extracted(ledger.place, len(ledger.records), rows, more=not ledger.block(number).is_extracted)


async def _read(
    job: Job,
    recipe: Recipe,
    source: Source,
    staging: Staging,
    ledger: BlockLedger,
    share: _Share,
    again: Sequence[ChunkRecord],
    report: Report,
    number: int,
) -> None:
    """Read what was lost, and then what is left of the block, range by range, each in a snapshot of its own."""
    block = ledger.block(number)
    rejects: RejectKeeper | None = None
    left = iter(()) if block.is_extracted else iter(block.ranges(_last_key(ledger.records)))
    first = True
    while True:
        stretch = next(left, None)
        if stretch is None and not (first and again):
            break
        async with AsyncExitStack() as reading:
            snapshot, plan = await _open(reading, job, recipe, source, ledger.manifest, report)
            ledger.note_snapshot(snapshot.record)
            if first and again:
                mender = Mender(plan, row_encoder(plan, recipe), source, staging, ledger, report, must_store=True)
                for record in again:
                    await mender.mend(record, ChunkError(f"chunk {record.number} is not in the cache any more"))
            first = False
            if stretch is None:
                break
            if ledger.records and not plan.resumes:
                # A call that was killed: nobody can tell which rows it has stored.
                ledger.forget()
                await ledger.flush()
                share.begin_anew()
            known = ledger.records
            if rejects is None:
                rejects = await take_up_rejects(job, staging, ledger, report, known, block=number)
            extraction = set_up_extraction(
                plan,
                recipe,
                source,
                snapshot,
                staging,
                ledger,
                share,
                rejects,
                report,
                stretch=stretch if plan.resumes else None,
                known=known,
                first=block.first_chunk + len(known),
            )
            if not await extraction.run(_nothing):
                if not plan.resumes:
                    raise TerminalError(
                        "the rows have no unique order, so that one call has to read all of them, and its time or its"
                        " share of the cache was up before",
                        hint="Give the table a primary key, raise [cache] max_cached_bytes, or use momento-etl run.",
                    )
                return
    if not block.is_extracted:
        await ledger.complete_block(number)


async def _open(
    reading: AsyncExitStack, job: Job, recipe: Recipe, source: Source, manifest: Manifest, report: Report
) -> tuple[Snapshot, Plan]:
    """Open a snapshot of what the run reads.

    Raises:
        SourceError: What is read, or what is made of it, is not what the run was planned for.
        EtlError: The source failed.
    """
    snapshot = await reading.enter_async_context(source.snapshot())
    plan = make_plan(job, await snapshot.describe(job.selection), source.description, recipe)
    if plan.fingerprint != manifest.fingerprint:
        raise SourceError(
            f"the columns of {plan.source}, or what is made of them, have changed since run {manifest.run_id} was"
            " planned",
            hint="Start another execution: it begins anew, with the columns as they are now.",
        )
    watermark = manifest.watermark
    if watermark is not None and watermark.since is not None:
        since = Since(watermark.column, watermark.since, watermark.overlap)
        plan = replace(plan, reading=plan.reading._replace(since=since))
    report.mode = job.mode
    return snapshot, plan


async def _loaded(
    block: Block, records: Sequence[ChunkRecord], job: Job, call: RunCall, state: StateStore
) -> frozenset[int]:
    """The block's chunks that are in the destination.

    Raises:
        StaleLedger: One is that the ledger does not name: its number must not be given to other rows.
    """
    known = {record.number for record in records}
    loaded = await state.fetch_progress(job.name, call.progress, block.numbers)
    if loaded - known and not block.is_extracted:
        raise StaleLedger(
            f"chunks of block {block.number} of run {call.run_id} are loaded that its ledger does not name"
            f" ({len(loaded - known)})",
            hint="The cache has not settled, or a page of the ledger has expired. Call again; if it does not help,"
            " start another execution.",
        )
    return loaded


def _last_key(records: Sequence[ChunkRecord]) -> tuple[str, ...] | None:
    return whole_key(records[-1].last_key) if records else None


async def _nothing(record: ChunkRecord) -> None:
    """Nobody waits for this chunk."""
