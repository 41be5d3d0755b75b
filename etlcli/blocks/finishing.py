"""The last steps of a run in blocks: see that every block is in place, count, settle, and give the lease back.

What failed is named, and what worked is kept: the next execution takes the run up with what is left of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from etlcli import incremental
from etlcli.block import Block, by_block
from etlcli.blocks.calls import RunCall
from etlcli.blocks.ledger import StaleLedger
from etlcli.cache.ledger import Ledger
from etlcli.cache.staging import Staging
from etlcli.chronicle import Chronicle
from etlcli.errors import EtlError, TerminalError, first_error
from etlcli.leasing import release_shared, sharing
from etlcli.model import ChunkRecord, Job, Manifest
from etlcli.ports import Cache, Sink, StateStore
from etlcli.preparing import find_manifest
from etlcli.rejects import RejectKeeper, TooManyRejects
from etlcli.replacing import mark_of
from etlcli.report import Report
from etlcli.resuming.unfinished import refused_name
from etlcli.retry import RetryPolicy
from etlcli.settling import UnaccountedRows, account, settle

__all__ = ["UnfinishedBlocks", "abort_run", "finish_run"]

# What was written lately the cache may give as it was before: that is no reason to call a block unfinished.
_SETTLING = RetryPolicy(patience=5.0, base=0.2, ceiling=1.0)

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
                known, records = await _all_of(staging, manifest, call, job, state)
                _count(known, records, report)
                await incremental.check(manifest, job, state)
                ledger = Ledger(staging, manifest, records, known)
                try:
                    await RejectKeeper(staging, report, manifest, "load", job.max_rejects).check()
                    account(report)
                except (TooManyRejects, UnaccountedRows):
                    # The rows have to be read again: those that were rejected, once somebody has mended them.
                    await ledger.abandon()
                    raise
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


async def _all_of(
    staging: Staging, manifest: Manifest, call: RunCall, job: Job, state: StateStore
) -> tuple[list[Block], list[ChunkRecord]]:
    """Fetch all blocks and their chunks, and see that every one is stored and loaded.

    Raises:
        StaleLedger: The cache gives the run as it was before it was cut into blocks.
        UnfinishedBlocks: Some are not; the cache had its time to settle.
    """
    if not manifest.blocks:
        raise StaleLedger(
            f"the cache gives run {manifest.run_id} as one that has no blocks", hint="It has not settled. Call again."
        )
    loaded = await state.fetch_progress(job.name, call.progress)
    refused = await state.fetch_progress(job.name, refused_name(call.progress)) & loaded
    until, attempt = time.monotonic() + _SETTLING.patience, 0
    while True:
        blocks = await staging.fetch_blocks(manifest)
        known = [block for block in blocks if block is not None]
        named = by_block(await staging.fetch_known_chunks(manifest))
        mine = {block.number: block.chunks_of(named.get(block.number, ())) for block in known}
        unfinished = {
            number: what
            for number, block in enumerate(blocks)
            if (what := _what_is_missing(block, mine.get(number, ()), loaded, refused)) is not None
        }
        if not unfinished:
            return known, [record for records in mine.values() for record in records]
        if time.monotonic() >= until:
            raise _unfinished(unfinished, manifest)
        attempt += 1
        await asyncio.sleep(_SETTLING.wait(attempt))


def _unfinished(unfinished: Mapping[int, str], manifest: Manifest) -> UnfinishedBlocks:
    named = [f"block {number} ({what})" for number, what in unfinished.items()]
    more = f" and {len(named) - _NAMED:,} more" if len(named) > _NAMED else ""
    return UnfinishedBlocks(
        f"{len(named):,} of {manifest.blocks:,} blocks of run {manifest.run_id} failed:"
        f" {', '.join(named[:_NAMED])}{more}",
        hint="What the others did is kept. Why they failed, their own executions tell. Once that is mended, start"
        " another execution, or momento-etl run: it does what is left.",
    )


def _what_is_missing(
    block: Block | None, records: Sequence[ChunkRecord], loaded: frozenset[int], refused: frozenset[int]
) -> str | None:
    """Tell what of a block is not in place; None where all is."""
    if block is None:
        return "not in the cache any more"
    if not block.is_extracted:
        behind = f"from {', '.join(block.edges[0])} on" if block.edges[0] is not None else "from the first row on"
        return f"not all of it was read: {behind}"
    if len(records) < block.chunks:
        return f"{block.chunks - len(records):,} of its chunks are not in the ledger any more"
    untold = refused - block.told
    to_load = sum(record.number not in loaded or record.number in untold for record in records)
    return f"{to_load:,} chunks are not loaded" if to_load else None


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
    refused = sum(block.refused for block in blocks)  # all of their chunks are loaded
    counters.rows_loaded -= refused
    counters.rows_rejected += refused
    counters.snapshots += 1 + sum(block.snapshots for block in blocks)
