"""The story: extract, load, run. Read it first.

    extract   snapshot ─▶ plan ─▶ rows ─▶ items ─▶ chunks in the cache ─▶ pointer
    load      pointer ─▶ manifest ─▶ ledger ─▶ chunks ─▶ items in the destination
    run       both at once, chunk by chunk

It knows sources, caches and sinks by their ports only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial

from etlcli import incremental
from etlcli.budget import CacheBudget
from etlcli.cache.ledger import Ledger
from etlcli.cache.staging import Staging
from etlcli.chronicle import recorded
from etlcli.earlier import fetch_earlier, hold_superseded
from etlcli.encoding import Recipe
from etlcli.errors import ChunkError, EtlError, leading
from etlcli.extraction import Extraction, new_manifest
from etlcli.leasing import SendingRight, leased
from etlcli.loading import Loading
from etlcli.mending import Mender
from etlcli.model import ChunkRecord, CreateOptions, ItemMark, Job, Key, Manifest, WatermarkMove, new_run_id
from etlcli.plan import Plan, make_plan, row_encoder
from etlcli.ports import Cache, Sink, Snapshot, Source, StateStore
from etlcli.preparing import begin_at, find_run, hold_to_schema, plan_job, prepare_table, refuse_freed, refuse_oversize
from etlcli.progress_keeper import ProgressKeeper
from etlcli.rejects import RejectKeeper, TooManyRejects
from etlcli.replacing import mark_of, prepare_mark, remove_stale
from etlcli.report import Report
from etlcli.rereading import RowReader
from etlcli.resume import Unfinished, find_extraction, find_unfinished, progress_name
from etlcli.state.host import HostProcesses
from etlcli.stopping import Stopped

__all__ = ["create_table", "extract", "load", "run"]


async def extract(job: Job, recipe: Recipe, source: Source, cache: Cache, state: StateStore, report: Report) -> None:
    """Move a job's rows from the source into the cache. The state is asked only by a job that needs it.

    Raises:
        UsageError: What is to be read does not exist, or has no key that DynamoDB can have.
        EtlError: Source or cache failed; nothing points at what is half done.
        Stopped: It ended early, as asked.
    """
    with _first_error():
        async with source.snapshot() as snapshot:
            plan = await plan_job(job, recipe, source, snapshot, report)
            refuse_oversize(plan)
            await hold_to_schema(plan, state, report)
            plan, watermark = await begin_at(plan, snapshot, state, report)
            staging = Staging(cache, job.name)
            await staging.ensure()
            earlier = await fetch_earlier(staging, report)
            found = None if job.restart else await find_extraction(plan, watermark, earlier, staging, report)
            plan, manifest = _begun(plan, recipe, snapshot, watermark, found, report)
            budget = CacheBudget(job.max_cached_bytes, loading=False)
            await hold_superseded(earlier, staging, budget, but=manifest.run_id)
            for record in found.records if found is not None else ():
                await budget.take_over(record.bytes_stored)
            ledger = Ledger(staging, manifest, found.records if found is not None else ())
            await _leave_trace(staging, ledger, report)
            extraction = await _extraction(plan, recipe, source, snapshot, staging, ledger, budget, found, report)
            async with _kept(ledger):
                with report.stop.heeding():
                    complete = await extraction.run(_nothing)
                await ledger.flush()
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
    with _first_error():
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
            found = Unfinished(manifest, tuple(records), await state.fetch_progress(job.name, name))
            if found.loaded and (job.restart or await _is_done(found, state, right)):
                await state.clear_progress(job.name, name)
                found = replace(found, loaded=frozenset())
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
            with report.stop.heeding():
                await _loading(job, staging, sink, manifest, mark, progress, report).run(chunks, _nothing)
            report.stop.check()
            _account(report)
            await _settle(job, manifest, mark, staging, sink, state, report)


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
    with _first_error():
        async with (
            _leased("run", job, sink, state, report) as right,
            recorded("run", job, state, report) as chronicle,
        ):
            async with AsyncExitStack() as reading:
                snapshot = await reading.enter_async_context(source.snapshot())
                plan = await plan_job(job, recipe, source, snapshot, report)
                await hold_to_schema(plan, state, report)
                await prepare_mark(job, state)
                plan, watermark = await begin_at(plan, snapshot, state, report, sink)
                staging = Staging(cache, job.name)
                await staging.ensure()
                earlier = await fetch_earlier(staging, report)
                found = None
                if not job.restart:
                    table = "" if await sink.key() is None else await sink.identity()
                    found = await find_unfinished(
                        plan, watermark, table, earlier, staging, state, report, after_death=right.after_death
                    )
                plan, manifest = _begun(plan, recipe, snapshot, watermark, found, report)
                await prepare_table(sink, plan.key, create, report)
                budget = CacheBudget(job.max_cached_bytes, loading=True)
                await hold_superseded(earlier, staging, budget, but=manifest.run_id)
                ledger = Ledger(staging, manifest, found.records if found is not None else ())
                await _leave_trace(staging, ledger, report)
                mark = await mark_of(job, manifest, state)
                chronicle.begin(plan.relation.columns)
                progress = ProgressKeeper(state, job.name, progress_name(manifest.run_id, await sink.identity()))
                if found is not None:
                    await progress.hold_to(found.loaded)
                mender = Mender(plan, row_encoder(plan, recipe), source, staging, ledger, report)
                loading = _loading(job, staging, sink, manifest, mark, progress, report, mender)
                chunks: asyncio.Queue[ChunkRecord | None] = asyncio.Queue()

                async def free(record: ChunkRecord) -> None:
                    await staging.free_chunk(ledger.manifest, record)
                    # Room is made before a chunk is stored, so the manifest of the complete run has the final figure.
                    ledger.note_freed()

                async def loaded(record: ChunkRecord) -> None:
                    await budget.release(record.bytes_stored, partial(free, record))

                async def extracting() -> None:
                    extraction = await _extraction(
                        plan, recipe, source, snapshot, staging, ledger, budget, found, report
                    )
                    if found is not None:
                        await found.offer(budget, loaded, chunks)
                    if found is not None and found.is_extracted:
                        # It may have ended right before the pointer moved.
                        await staging.move_current(manifest.run_id, manifest.ttl_seconds)
                    else:
                        await extraction.run(chunks.put)
                    chunks.put_nowait(None)
                    report.counters.stage = "loading"
                    await reading.aclose()  # the snapshot need not outlive the reading

                try:
                    async with _kept(ledger):
                        with report.stop.heeding():
                            async with asyncio.TaskGroup() as group:
                                group.create_task(extracting())
                                group.create_task(loading.run(chunks, loaded))
                        await ledger.flush()
                    report.stop.check()
                    _account(report)
                except BaseExceptionGroup as errors:
                    if errors.subgroup((TooManyRejects, ChunkError)) is not None:
                        # The rows have to be read again: those that were rejected, once somebody has mended them.
                        await ledger.abandon()
                    raise
                except UnaccountedRows:
                    await ledger.abandon()
                    raise
            if mender.mended:
                await ledger.complete()
            report.manifest = ledger.manifest
            await _settle(job, ledger.manifest, mark, staging, sink, state, report)


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


class UnaccountedRows(EtlError):  # noqa: N818  what they are
    """Not every row that was extracted is loaded, rejected or dropped."""


@asynccontextmanager
async def _leased(command: str, job: Job, sink: Sink, state: StateStore, report: Report) -> AsyncIterator[SendingRight]:
    """Hold the job's lease while the body works, and let the destination hear nothing without it."""
    report.counters.stage = "taking the lease"
    async with leased(
        job.name, command, state, report, request_seconds=sink.request_seconds, wait_seconds=job.wait_seconds
    ) as right:
        sink.heed(right.check)
        yield right


def _begun(
    plan: Plan,
    recipe: Recipe,
    snapshot: Snapshot,
    watermark: WatermarkMove | None,
    found: Unfinished | None,
    report: Report,
) -> tuple[Plan, Manifest]:
    """Begin a run, or take up the one that was found."""
    extractor = HostProcesses().current()
    if found is not None:
        plan = found.take_up(plan, report)
        return plan, replace(
            found.manifest, extractor=extractor, snapshots=(*found.manifest.snapshots, snapshot.record)
        )
    manifest = new_manifest(
        plan,
        new_run_id(),
        snapshot.record,
        transform=recipe.transform.reference if recipe.transform is not None else None,
        watermark=watermark,
        extractor=extractor,
    )
    report.run_id, report.manifest, report.mode = manifest.run_id, manifest, plan.job.mode
    report.watermark = watermark
    return plan, manifest


async def _is_done(found: Unfinished, state: StateStore, right: SendingRight) -> bool:
    """Whether an earlier load of this run came to its end, and only its progress is left."""
    record = await state.fetch_run(found.manifest.job, found.manifest.run_id)
    return record is not None and record.is_done and not right.after_death


async def _leave_trace(staging: Staging, ledger: Ledger, report: Report) -> None:
    """Write what the cache has to know of a run before its first chunk."""
    await ledger.write_manifest()
    await staging.note_run(ledger.manifest.run_id, ledger.manifest.ttl_seconds)
    report.counters.stage = "extracting"


async def _extraction(
    plan: Plan,
    recipe: Recipe,
    source: Source,
    snapshot: Snapshot,
    staging: Staging,
    ledger: Ledger,
    budget: CacheBudget,
    found: Unfinished | None,
    report: Report,
) -> Extraction:
    """Set up a run's extraction, from its start or from where it ended."""
    first = len(found.records) if found is not None else 0
    encoder = row_encoder(plan, recipe)
    rejects = RejectKeeper(staging, report, ledger.manifest, "extract", plan.job.max_rejects)
    if found is not None:
        await rejects.take_up(first)
        await rejects.finish()
    return Extraction(
        plan=plan,
        encoder=encoder,
        rows=RowReader(plan, encoder, source, snapshot, ledger, report.counters),
        staging=staging,
        ledger=ledger,
        budget=budget,
        rejects=rejects,
        counters=report.counters,
        stop=report.stop,
        first=first,
    )


def _loading(
    job: Job,
    staging: Staging,
    sink: Sink,
    manifest: Manifest,
    mark: ItemMark | None,
    progress: ProgressKeeper,
    report: Report,
    mender: Mender | None = None,
) -> Loading:
    return Loading(
        staging=staging,
        sink=sink,
        manifest=manifest,
        rejects=RejectKeeper(staging, report, manifest, "load", job.max_rejects),
        counters=report.counters,
        progress=progress,
        stop=report.stop,
        mend=mender.mend if mender is not None else None,
        mark=mark,
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


def _account(report: Report) -> None:
    """Check promise 1: every row that was extracted is loaded, rejected or dropped."""
    counters = report.counters
    found = counters.rows_loaded + counters.rows_rejected + counters.rows_dropped
    if counters.rows_extracted != found:
        raise UnaccountedRows(
            f"{counters.rows_extracted:,} rows were extracted, and {found:,} are accounted for:"
            f" {counters.rows_loaded:,} loaded, {counters.rows_rejected:,} rejected, {counters.rows_dropped:,} dropped",
            hint="Do not rely on this copy. Run again; if it happens again, it is a defect of momento-etl: report it.",
        )


async def _settle(
    job: Job,
    manifest: Manifest,
    mark: ItemMark | None,
    staging: Staging,
    sink: Sink,
    state: StateStore,
    report: Report,
) -> None:
    """Do what may only be done once every row is in place."""
    if mark is not None:
        await remove_stale(job, manifest, mark, staging, sink, report)
    await incremental.move(manifest, job, state, report)


async def _nothing(record: ChunkRecord) -> None:
    """Nobody waits for this chunk."""


@asynccontextmanager
async def _kept(ledger: Ledger) -> AsyncIterator[None]:
    """Keep the ledger written while the body works."""
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(ledger.keep())
        yield
        keeper.cancel()


@contextmanager
def _first_error() -> Iterator[None]:
    """Raise the one error that ended the work, rather than the group of it and what it cancelled."""
    try:
        yield
    except BaseExceptionGroup as group:
        raise leading(group) from None
