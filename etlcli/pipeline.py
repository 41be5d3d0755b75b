"""The story: extract, load, run. Read it first.

    extract   snapshot ─▶ plan ─▶ rows ─▶ items ─▶ chunks in the cache ─▶ pointer
    load      pointer ─▶ manifest ─▶ ledger ─▶ chunks ─▶ items in the destination
    run       both at once, chunk by chunk

It knows sources, caches and sinks by their ports only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

from etlcli import incremental
from etlcli.beginning import Begun, begin
from etlcli.cache.ledger import kept
from etlcli.cache.staging import Staging
from etlcli.chronicle import recorded
from etlcli.encoding import Recipe
from etlcli.errors import ChunkError, first_error
from etlcli.leasing import SendingRight, leased
from etlcli.loading import Loading
from etlcli.model import ChunkRecord, CreateOptions, ItemMark, Job, Key, Manifest
from etlcli.plan import make_plan, row_encoder
from etlcli.ports import Cache, Sink, Source, StateStore
from etlcli.preparing import (
    begin_at,
    find_run,
    hold_to_schema,
    open_and_plan,
    prepare_table,
    refuse_freed,
    refuse_oversize,
)
from etlcli.rejects import RejectKeeper, TooManyRejects
from etlcli.replacing import mark_of, prepare_mark
from etlcli.report import Report
from etlcli.resuming.earlier import EarlierRun
from etlcli.resuming.mending import Mender
from etlcli.resuming.progress import ProgressKeeper
from etlcli.resuming.unfinished import Unfinished, find_extraction, find_unfinished, progress_name
from etlcli.settling import UnaccountedRows, account, settle
from etlcli.stopping import Stopped
from etlcli.verification.chunks import ChunkChecks, checks_of

__all__ = ["create_table", "extract", "load", "run"]


async def extract(job: Job, recipe: Recipe, source: Source, cache: Cache, state: StateStore, report: Report) -> None:
    """Move a job's rows from the source into the cache. The state is asked only by a job that needs it.

    Raises:
        UsageError: What is to be read does not exist, or has no key that DynamoDB can have.
        EtlError: Source or cache failed; nothing points at what is half done.
        Stopped: It ended early, as asked.
    """
    with first_error():
        async with AsyncExitStack() as reading:
            snapshot, plan = await open_and_plan(reading, job, recipe, source, report)
            refuse_oversize(plan)
            await hold_to_schema(plan, state, report)
            plan, watermark = await begin_at(plan, snapshot, state, report)

            async def find(staging: Staging, earlier: Sequence[EarlierRun]) -> Unfinished | None:
                return await find_extraction(plan, watermark, earlier, staging, report)

            begun = await begin(plan, recipe, snapshot, watermark, cache, find, report, loading=False)
            await begun.leave_trace(report)
            for record in begun.found.records if begun.found is not None else ():
                await begun.budget.take_over(record.bytes_stored)
            async with kept(begun.ledger):
                with report.stop.heeding():
                    complete = await begun.extract(recipe, source, snapshot, report, _nothing)
                await begun.ledger.flush()
            if complete is None:
                raise Stopped
            report.manifest = complete


async def load(
    job: Job,
    run_id: str | None,
    create: CreateOptions,
    cache: Cache,
    sink: Sink,
    state: StateStore,
    report: Report,
) -> None:
    """Move an extraction's items from the cache into the destination.

    Args:
        job: The job.
        run_id: The extraction; None for the current one.
        create: What the table gets if it has to be made.
        cache: Where the chunks are.
        sink: The destination table.
        state: What outlives runs.
        report: Filled in as facts become known.

    Raises:
        LeaseHeld: Another run of this job is at work.
        CacheError: There is no such extraction, it is not complete, or a chunk is missing or damaged.
        EtlError: Cache or destination failed.
        Stopped: It ended early, as asked.
    """
    with first_error():
        async with (
            _leased("load", job, sink, state, report) as right,
            recorded("load", job, state, report) as chronicle,
        ):
            staging = Staging(cache, job.name)
            manifest = await find_run(staging, run_id)
            _note_manifest(manifest, report)
            await incremental.check(manifest, job, state)
            records = await staging.fetch_ledger(manifest)
            mark = await mark_of(job, manifest, state)
            await prepare_table(sink, manifest.key, create, report)
            name = progress_name(manifest.run_id, await sink.identity())
            progress = ProgressKeeper(state, job.name, name)
            blocks = tuple(block for block in await staging.fetch_blocks(manifest) if block is not None)
            loaded = await state.fetch_progress(job.name, name)
            found = Unfinished(manifest, tuple(records), loaded, blocks)
            if found.loaded and (job.restart or await _is_done(found, state, right)):
                await state.clear_progress(job.name, name)
                found = replace(found, loaded=frozenset())
            for block in blocks:
                told = block.told_of(found.loaded)
                if told != block:
                    await staging.store_block(manifest, told)
            if not found.loaded:
                refuse_freed(manifest)
            found.count_loaded(report)
            found.tell_loaded(report)
            chronicle.begin()
            chunks: asyncio.Queue[ChunkRecord | None] = asyncio.Queue()
            for record in found.to_load:
                chunks.put_nowait(record)
            chunks.put_nowait(None)
            report.counters.stage = "loading"
            checks = checks_of(job, staging, sink, manifest, mark, report)
            with report.stop.heeding():
                if checks is not None:
                    await checks.look_again(found.already_loaded)
                await _loading(job, staging, sink, manifest, mark, progress, report, checks=checks).run(
                    chunks, _nothing
                )
            report.stop.check()
            account(report)
            if checks is not None:
                await checks.conclude(job, progress)
            await settle(job, manifest, mark, staging, sink, state, report)


async def run(
    job: Job,
    recipe: Recipe,
    create: CreateOptions,
    source: Source,
    cache: Cache,
    sink: Sink,
    state: StateStore,
    report: Report,
) -> None:
    """Move a job's rows from the source through the cache into the destination, loading while it extracts.

    Raises:
        LeaseHeld: Another run of this job is at work.
        UsageError: What is to be read does not exist, or the destination has another key.
        EtlError: Source, cache or destination failed.
        Stopped: It ended early, as asked.
    """
    with first_error():
        async with (
            _leased("run", job, sink, state, report) as right,
            recorded("run", job, state, report) as chronicle,
            AsyncExitStack() as reading,
        ):
            snapshot, plan = await open_and_plan(reading, job, recipe, source, report)
            await hold_to_schema(plan, state, report)
            await prepare_mark(job, state)
            plan, watermark = await begin_at(plan, snapshot, state, report, sink)

            async def find(staging: Staging, earlier: Sequence[EarlierRun]) -> Unfinished | None:
                table = "" if await sink.key() is None else await sink.identity()
                return await find_unfinished(
                    plan, watermark, table, earlier, staging, state, report, after_death=right.after_death
                )

            begun = await begin(plan, recipe, snapshot, watermark, cache, find, report, loading=True)
            plan, manifest, staging, ledger = begun.plan, begun.ledger.manifest, begun.staging, begun.ledger
            await prepare_table(sink, plan.key, create, report)
            await begun.leave_trace(report)
            mark = await mark_of(job, manifest, state)
            chronicle.begin(plan.relation.columns)
            progress = ProgressKeeper(state, job.name, progress_name(manifest.run_id, await sink.identity()))
            if begun.found is not None:
                await progress.hold_to(begun.found.loaded)
            mender = Mender(plan, row_encoder(plan, recipe), source, staging, ledger, report)
            checks = checks_of(job, staging, sink, manifest, mark, report)
            loading = _loading(job, staging, sink, manifest, mark, progress, report, mender, checks)
            extract = partial(begun.extract, recipe, source, snapshot, report)
            await _extract_and_load(begun, extract, loading, checks, reading, report)
            if mender.mended:
                await ledger.complete()
            report.manifest = ledger.manifest
            if checks is not None:
                await checks.conclude(job, progress)
            await settle(job, ledger.manifest, mark, staging, sink, state, report)


async def create_table(
    job: Job, recipe: Recipe, create: CreateOptions, source: Source, sink: Sink, report: Report
) -> Key:
    """Make a job's destination table, with the key that the source gives it; harmless where it is there with the same.

    Returns:
        The table's key.

    Raises:
        UsageError: The source's table does not exist, or the destination's has another key.
        EtlError: Source or destination failed.
    """
    async with source.snapshot() as snapshot:
        plan = make_plan(job, await snapshot.describe(job.selection), source.description, recipe)
    report.warnings += plan.warnings
    await prepare_table(sink, plan.key, create, report)
    return plan.key


@asynccontextmanager
async def _leased(command: str, job: Job, sink: Sink, state: StateStore, report: Report) -> AsyncIterator[SendingRight]:
    """Hold the job's lease while the body works, and let the destination hear nothing without it."""
    report.counters.stage = "taking the lease"
    async with leased(
        job.name,
        f"momento-etl {command}",
        state,
        report,
        request_seconds=sink.request_seconds,
        wait_seconds=job.wait_seconds,
    ) as right:
        sink.heed(right.check)
        yield right


async def _extract_and_load(
    begun: Begun,
    extract: Callable[[Callable[[ChunkRecord], Awaitable[None]]], Awaitable[Manifest | None]],
    loading: Loading,
    checks: ChunkChecks | None,
    reading: AsyncExitStack,
    report: Report,
) -> None:
    """Load chunks while others are extracted; it ends with all of them loaded, or the first error of either side."""
    chunks: asyncio.Queue[ChunkRecord | None] = asyncio.Queue()
    staging, ledger, found = begun.staging, begun.ledger, begun.found

    async def free(record: ChunkRecord) -> None:
        await staging.free_chunk(ledger.manifest, record)
        # Room is made before a chunk is stored, so the manifest of the complete run has the final figure.
        ledger.note_freed()

    async def loaded(record: ChunkRecord) -> None:
        await begun.budget.release(record.bytes_stored, partial(free, record))

    async def extracting() -> None:
        if found is not None:
            if checks is not None:
                await checks.look_again(found.already_loaded)
            await found.offer(begun.budget, loaded, chunks)
        if found is not None and found.is_extracted:
            # It may have ended right before the pointer moved.
            await staging.move_current(ledger.manifest.run_id, ledger.manifest.ttl_seconds)
        else:
            await extract(chunks.put)
        chunks.put_nowait(None)
        report.counters.stage = "loading"
        await reading.aclose()  # the snapshot need not outlive the reading

    try:
        async with kept(ledger):
            with report.stop.heeding():
                async with asyncio.TaskGroup() as group:
                    group.create_task(extracting())
                    group.create_task(loading.run(chunks, loaded))
            await ledger.flush()
        report.stop.check()
        account(report)
    except BaseExceptionGroup as errors:
        if errors.subgroup((TooManyRejects, ChunkError)) is not None:
            # The rows have to be read again: those that were rejected, once somebody has mended them.
            await ledger.abandon()
        raise
    except UnaccountedRows:
        await ledger.abandon()
        raise


async def _is_done(found: Unfinished, state: StateStore, right: SendingRight) -> bool:
    """Whether an earlier load of this run came to its end, and only its progress is left."""
    record = await state.fetch_run(found.manifest.job, found.manifest.run_id)
    return record is not None and record.is_done and not right.after_death


def _loading(
    job: Job,
    staging: Staging,
    sink: Sink,
    manifest: Manifest,
    mark: ItemMark | None,
    progress: ProgressKeeper,
    report: Report,
    mender: Mender | None = None,
    checks: ChunkChecks | None = None,
) -> Loading:
    return Loading(
        staging=staging,
        sink=sink,
        manifest=manifest,
        # After those of the blocks, where there are any: each has been loaded by a function that kept its own.
        rejects=RejectKeeper(staging, report, manifest, "load", job.max_rejects, manifest.blocks),
        counters=report.counters,
        progress=progress,
        stop=report.stop,
        mend=mender.mend if mender is not None else None,
        mark=mark,
        checks=checks,
    )


def _note_manifest(manifest: Manifest, report: Report) -> None:
    """Take over what an extraction came to."""
    report.run_id, report.manifest = manifest.run_id, manifest
    report.mode = "upsert" if manifest.mark is None else "replace"
    report.watermark = manifest.watermark
    counters = report.counters
    counters.rows_extracted = manifest.totals.rows_extracted
    counters.rows_dropped = manifest.totals.rows_dropped
    counters.rows_rejected = manifest.totals.rows_rejected
    counters.chunks_stored = manifest.totals.chunks
    counters.bytes_cached = manifest.totals.bytes_stored
    counters.bytes_encoded = manifest.totals.bytes_encoded


async def _nothing(record: ChunkRecord) -> None:
    """Nobody waits for this chunk."""
