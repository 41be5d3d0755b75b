"""The last steps of a run in blocks: see that every block is in place, count, settle, and give the lease back.

What failed is named, and what worked is kept: the next execution takes the run up with what is left of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from etlcli import incremental
from etlcli.blocks.block import Block, block_of
from etlcli.blocks.calls import RunCall
from etlcli.cache.ledger import Ledger
from etlcli.cache.staging import Staging
from etlcli.chronicle import Chronicle
from etlcli.errors import EtlError, TerminalError, first_error
from etlcli.leasing import release_shared, sharing
from etlcli.model import ChunkRecord, Job
from etlcli.ports import Cache, Sink, StateStore
from etlcli.preparing import find_manifest
from etlcli.rejects import RejectKeeper
from etlcli.replacing import mark_of
from etlcli.report import Report
from etlcli.settling import account, settle

__all__ = ["UnfinishedBlocks", "abort_run", "finish_run"]

# So many blocks are named one by one.
_NAMED = 5


class UnfinishedBlocks(TerminalError):  # noqa: N818  what they are
    """Not every block of a run is in the destination."""


async def finish_run(call: RunCall, job: Job, cache: Cache, sink: Sink, state: StateStore, report: Report) -> None:
    """End a run of which every block was worked on. The report then has the figures of the whole run.

    Args:
        call: The run.
        job: The job.
        cache: Where its chunks are.
        sink: The destination table.
        state: What outlives runs.
        report: Filled in.

    Raises:
        UnfinishedBlocks: Blocks are not done; they are named. The run can be taken up.
        TerminalError: More rows were rejected than may be, or more items would be removed.
        EtlError: Cache, destination or state table failed.
    """
    async with _over(call, job, state, report):
        with first_error():
            async with sharing(
                job.name,
                call.execution,
                f"finishing of run {call.run_id}",
                state,
                report,
                request_seconds=sink.request_seconds,
            ) as right:
                sink.heed(right.check)
                staging = Staging(cache, job.name)
                manifest = await find_manifest(staging, call.run_id)
                report.manifest, report.watermark = manifest, manifest.watermark
                report.mode = "upsert" if manifest.mark is None else "replace"
                blocks = await staging.fetch_blocks(manifest)
                records = await staging.fetch_known_chunks(manifest)
                loaded = await state.fetch_progress(job.name, call.progress)
                _refuse_unfinished(blocks, records, loaded, report)
                known = [block for block in blocks if block is not None]
                _count(known, records, report)
                await incremental.check(manifest, job, state)
                await RejectKeeper(staging, report, manifest, "load", job.max_rejects).check()
                account(report)
                ledger = Ledger(staging, manifest, records, known)
                report.manifest = await ledger.complete()
                await staging.move_current(manifest.run_id, manifest.ttl_seconds)
                mark = await mark_of(job, manifest, state)
                await settle(job, report.manifest, mark, staging, sink, state, report)


async def abort_run(call: RunCall, job: Job, state: StateStore, report: Report, error: EtlError) -> None:
    """Note that a run has failed, and give the lease back. What it stored and loaded stays: it can be taken up.

    Args:
        call: The run.
        job: The job.
        state: What outlives runs.
        report: The run.
        error: Why.
    """
    report.run_id = call.run_id
    chronicle = Chronicle("run", job, state, report)
    if await chronicle.take_up():
        await chronicle.end("failed", error)
    await release_shared(job.name, call.execution, state, report)


@asynccontextmanager
async def _over(call: RunCall, job: Job, state: StateStore, report: Report) -> AsyncIterator[None]:
    """Write how a run has ended, and give the lease back; what may pass is left to the next try."""
    report.run_id = call.run_id
    chronicle = Chronicle("run", job, state, report)
    await chronicle.take_up()
    yield
    await chronicle.end("rejected_rows" if report.counters.rows_rejected else "succeeded")
    await release_shared(job.name, call.execution, state, report)


def _refuse_unfinished(
    blocks: Sequence[Block | None], records: Sequence[ChunkRecord], loaded: frozenset[int], report: Report
) -> None:
    """See that every block is stored and loaded.

    Raises:
        UnfinishedBlocks: Some are not.
    """
    left: dict[int, int] = {}
    for record in records:
        if record.number not in loaded:
            left[block_of(record.number)] = left.get(block_of(record.number), 0) + 1
    unfinished = [
        f"block {number} ({_what_is_missing(block, left.get(number, 0))})"
        for number, block in enumerate(blocks)
        if block is None or not block.is_extracted or number in left
    ]
    if unfinished:
        more = f" and {len(unfinished) - _NAMED:,} more" if len(unfinished) > _NAMED else ""
        raise UnfinishedBlocks(
            f"{len(unfinished):,} of {len(blocks):,} blocks of run {report.run_id} failed:"
            f" {', '.join(unfinished[:_NAMED])}{more}",
            hint="What the others did is kept. Why they failed, their own executions tell. Once that is mended, start"
            " another execution, or momento-etl run: it does what is left.",
        )


def _what_is_missing(block: Block | None, to_load: int) -> str:
    if block is None:
        return "not in the cache any more"
    if not block.is_extracted:
        behind = f"from {', '.join(block.edges[0])} on" if block.edges[0] is not None else "from the first row on"
        return f"not all of it was read: {behind}"
    return f"{to_load:,} chunks are not loaded"


def _count(blocks: Sequence[Block], records: Sequence[ChunkRecord], report: Report) -> None:
    """Add the whole run's figures up."""
    counters = report.counters
    for record in records:
        counters.rows_extracted += record.rows + record.rejected + record.dropped
        counters.rows_loaded += record.rows
        counters.rows_cached += record.rows
        counters.rows_rejected += record.rejected
        counters.rows_dropped += record.dropped
        counters.chunks_stored += 1
        counters.chunks_loaded += 1
        counters.bytes_encoded += record.bytes_encoded
        counters.bytes_cached += record.bytes_stored
    refused = sum(block.refused for block in blocks)
    counters.rows_loaded -= refused
    counters.rows_rejected += refused
    counters.snapshots += 1 + sum(block.snapshots for block in blocks)
