"""The story: extract, load, run. Read it first.

    extract   snapshot ─▶ plan ─▶ rows ─▶ items ─▶ chunks in the cache ─▶ pointer
    load      pointer ─▶ manifest ─▶ ledger ─▶ chunks ─▶ items in the destination
    run       both at once, chunk by chunk

It knows sources, caches and sinks by their ports only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial

from etlcli import drift, incremental
from etlcli.budget import CacheBudget
from etlcli.cache.documents import UnreadableError
from etlcli.cache.ledger import Ledger
from etlcli.cache.staging import RUNS_KEPT, Staging
from etlcli.chronicle import recorded
from etlcli.encoding import Recipe
from etlcli.errors import CacheError, EtlError, SourceError, UsageError, leading
from etlcli.extraction import Extraction, new_manifest
from etlcli.leasing import leased
from etlcli.loading import Loading
from etlcli.mending import Mender
from etlcli.model import (
    ChunkRecord,
    CreateOptions,
    ItemMark,
    Job,
    Key,
    KeyRange,
    Manifest,
    Since,
    WatermarkMove,
    new_run_id,
)
from etlcli.plan import Plan, make_plan, row_encoder
from etlcli.ports import Cache, Sink, Snapshot, Source, StateStore
from etlcli.progress_keeper import ProgressKeeper
from etlcli.rejects import RejectKeeper, TooManyRejects
from etlcli.replacing import mark_of, prepare_mark, remove_stale
from etlcli.report import Report
from etlcli.resume import Unfinished, find_unfinished, progress_name

__all__ = ["create_table", "extract", "find_run", "load", "prepare_table", "run"]

# A table's rows take at most about an eighth of their room on PostgreSQL's disk once they are encoded and compressed. A
# table that would not fit even so is refused before it is read; closer calls are left to the bound itself.
_BEST_COMPRESSION = 8

# The deadline of the longest request that writes to the destination: the lease is good for longer than that.
_REQUEST_SECONDS = 20.0


async def extract(job: Job, recipe: Recipe, source: Source, cache: Cache, state: StateStore, report: Report) -> None:
    """Move a job's rows from the source into the cache. The state is asked only by a job that needs it.

    Raises:
        UsageError: What is to be read does not exist, or has no key that DynamoDB can have.
        EtlError: Source or cache failed; nothing points at what is half done.
    """
    with _first_error():
        async with source.snapshot() as snapshot:
            plan = await _planned(job, recipe, source, snapshot, report)
            _refuse_oversize(plan)
            await _hold_to_schema(plan, state, report)
            plan, watermark = await _begun(plan, snapshot, state, report)
            staging = Staging(cache, job.name)
            await staging.ensure()
            budget = CacheBudget(job.max_cached_bytes, loading=False)
            await _hold_superseded(staging, budget, report)
            manifest = _new_run(plan, recipe, snapshot, watermark, report)
            ledger = Ledger(staging, manifest)
            await _leave_trace(staging, ledger, report)
            rejects = RejectKeeper(staging, report, manifest, "extract", job.max_rejects)
            extraction = _extraction(plan, recipe, snapshot, staging, ledger, budget, rejects, report)
            async with _kept(ledger):
                report.manifest = await extraction.run(_nothing)


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
        CacheError: There is no such extraction, it is not complete, or a chunk is missing or damaged.
        EtlError: Cache or destination failed.
    """
    with _first_error():
        async with (
            leased(
                job.name, "load", state, report, request_seconds=_REQUEST_SECONDS, wait_seconds=job.wait_seconds
            ) as right,
            recorded("load", job, state, report) as chronicle,
        ):
            sink.heed(right.check)
            staging = Staging(cache, job.name)
            manifest = await find_run(staging, run_id)
            _note_manifest(manifest, report)
            _refuse_freed(manifest)
            await incremental.check(manifest, job, state)
            records = await staging.fetch_ledger(manifest)
            mark = await mark_of(job, manifest, state)
            await prepare_table(sink, manifest.key, create, report)
            progress_in = progress_name(manifest.run_id, await sink.identity())
            progress = ProgressKeeper(state, job.name, progress_in)
            found = Unfinished(manifest, tuple(records), await state.fetch_progress(job.name, progress_in))
            if job.restart:
                await progress.clear()
                found = replace(found, loaded=frozenset())
            found.count_loaded(report)
            chronicle.begin()
            chunks: asyncio.Queue[ChunkRecord | None] = asyncio.Queue()
            for record in found.to_load:
                chunks.put_nowait(record)
            chunks.put_nowait(None)
            report.counters.stage = "loading"
            loading = _loading(job, staging, sink, manifest, mark, progress, report)
            await loading.run(chunks, _nothing)
            await _settle(job, manifest, mark, staging, sink, state, report)
            await progress.clear()


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
        UsageError: What is to be read does not exist, or the destination has another key.
        EtlError: Source, cache or destination failed.
    """
    with _first_error():
        async with (
            leased(
                job.name, "run", state, report, request_seconds=_REQUEST_SECONDS, wait_seconds=job.wait_seconds
            ) as right,
            recorded("run", job, state, report) as chronicle,
            AsyncExitStack() as reading,
        ):
            sink.heed(right.check)
            snapshot = await reading.enter_async_context(source.snapshot())
            plan = await _planned(job, recipe, source, snapshot, report)
            await _hold_to_schema(plan, state, report)
            await prepare_mark(job, state)
            staging = Staging(cache, job.name)
            await staging.ensure()
            found = await _unfinished(plan, staging, sink, state, report)
            if found is None:
                plan, watermark = await _begun(plan, snapshot, state, report, sink)
                manifest = _new_run(plan, recipe, snapshot, watermark, report)
            else:
                plan, manifest = _taken_up(plan, found, report), found.manifest
            await prepare_table(sink, plan.key, create, report)
            budget = CacheBudget(job.max_cached_bytes, loading=True)
            await _hold_superseded(staging, budget, report, but=manifest.run_id)
            ledger = Ledger(staging, manifest, found.records if found is not None else ())
            await _leave_trace(staging, ledger, report)
            rejects = RejectKeeper(staging, report, manifest, "extract", job.max_rejects)
            if found is not None:
                await rejects.take_up(len(found.records))
            mark = await mark_of(job, manifest, state)
            chronicle.begin(plan.relation.columns)
            progress = ProgressKeeper(state, job.name, progress_name(manifest.run_id, await sink.identity()))
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
                if found is not None:
                    await _offer(found, budget, loaded, chunks)
                if found is None or not found.is_extracted:
                    first = 0 if found is None else len(found.records)
                    extraction = _extraction(plan, recipe, snapshot, staging, ledger, budget, rejects, report, first)
                    await extraction.run(chunks.put)
                else:
                    await rejects.finish()
                chunks.put_nowait(None)
                report.counters.stage = "loading"
                await reading.aclose()  # the snapshot need not outlive the reading

            try:
                async with _kept(ledger), asyncio.TaskGroup() as group:
                    group.create_task(extracting())
                    group.create_task(loading.run(chunks, loaded))
            except* TooManyRejects:
                # Whoever mends the rows wants them to be read again.
                await ledger.abandon()
                raise
            if mender.mended:
                await ledger.complete()
            report.manifest = ledger.manifest
            await _settle(job, ledger.manifest, mark, staging, sink, state, report)
            await progress.clear()


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


async def prepare_table(sink: Sink, key: Key, create: CreateOptions, report: Report) -> None:
    """See to it that the destination table is there, with this key, before anything is written.

    Raises:
        UsageError: It is there with another key.
        SinkError: It cannot be made.
    """
    report.counters.stage = "preparing the table"
    existing = await sink.key()
    if existing is None:
        await sink.create(key, create)
        report.table_created = True
    elif existing != key:
        raise UsageError(
            f"the DynamoDB table {sink.table} has another key than this job\n"
            f"  the table's: {existing}\n"
            f"  the job's:   {key}",
            hint="Choose the table's key columns with --key, or another table with --destination.",
        )


async def find_run(staging: Staging, run_id: str | None) -> Manifest:
    """Find a complete extraction: the one named, or the current one.

    Raises:
        CacheError: There is none, or it is not complete.
    """
    where = f"cache {staging.cache_name!r}"
    if not await staging.exists():
        raise CacheError(f"there is no {where}", hint=f"Extract first: momento-etl extract --table {staging.job}")
    wanted = run_id or await staging.fetch_current(settle=True)
    if wanted is None:
        raise CacheError(
            f"{where} holds no complete extraction of {staging.job}",
            hint=f"Extract first: momento-etl extract --table {staging.job}. If there was one, it has expired (--ttl).",
        )
    manifest = await staging.fetch_manifest(wanted, settle=True)
    if manifest is None:
        raise CacheError(
            f"{where} holds no run {wanted} of {staging.job}",
            hint=f"It has expired, or the name is wrong: momento-etl inspect-cache {staging.job} lists the runs.",
        )
    if manifest.status != "complete":
        raise CacheError(
            f"run {wanted} of {staging.job} is not complete, and half an extraction is never loaded",
            hint=f"Extract again: momento-etl extract --table {staging.job}",
        )
    return manifest


async def _planned(job: Job, recipe: Recipe, source: Source, snapshot: Snapshot, report: Report) -> Plan:
    """Look at the source, decide, and refuse what two rows would fight over."""
    report.counters.stage = "planning"
    plan = make_plan(job, await snapshot.describe(job.selection), source.description, recipe)
    report.warnings += plan.warnings
    if job.selection.query is None and job.selection.where is None:
        estimates = [figure for figure in (plan.relation.estimated_rows, job.selection.limit) if figure is not None]
        report.counters.rows_expected = min(estimates, default=None)
    # What the user's own function makes of a key is not known before; the plan has warned of it.
    if not plan.keys_are_unique and recipe.transform is None:
        report.counters.stage = "looking for duplicate keys"
        twice = await snapshot.duplicates(plan.reading, plan.key_specs)
        if twice:
            names = ", ".join(attribute.name for attribute in plan.key.attributes)
            values = "; ".join(", ".join(map(str, values)) for values in twice)
            raise SourceError(
                f"more than one row has the same destination key ({names}): {values}",
                hint="One would overwrite the other. Choose columns that tell rows apart: --key COLUMN[,COLUMN]",
            )
    return plan


async def _hold_to_schema(plan: Plan, state: StateStore, report: Report) -> None:
    """Refuse what changed in the source's columns since the last run, where the job freezes them."""
    if plan.job.freezes_schema:
        report.schema_changes += await drift.look(plan.job, plan.relation.columns, state)
        drift.refuse(plan.job, report.schema_changes)


async def _begun(
    plan: Plan, snapshot: Snapshot, state: StateStore, report: Report, sink: Sink | None = None
) -> tuple[Plan, WatermarkMove | None]:
    """Settle where an incremental run begins; others read all."""
    if plan.job.incremental is None:
        return plan, None
    made_anew = sink is not None and await sink.key() is None
    since, report.watermark = await incremental.begin(plan, snapshot, state, report, made_anew=made_anew)
    if since is not None:
        # How much is new, nobody knows before it is read. Duplicates were looked for in all rows: an old one counts.
        report.counters.rows_expected = None
    return replace(plan, reading=plan.reading._replace(since=since)), report.watermark


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
    _account(report)
    if mark is not None:
        await remove_stale(job, manifest, mark, staging, sink, report)
    await incremental.move(manifest, job, state, report)


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


async def _unfinished(plan: Plan, staging: Staging, sink: Sink, state: StateStore, report: Report) -> Unfinished | None:
    """Find what the same command left unfinished, unless it is to begin anew."""
    if plan.job.restart:
        return None
    report.counters.stage = "looking for an unfinished run"
    # Nothing is in a table that is not there.
    destination = "" if await sink.key() is None else await sink.identity()
    return await find_unfinished(plan, destination, staging, state, report)


def _taken_up(plan: Plan, found: Unfinished, report: Report) -> Plan:
    """Take up an unfinished run: what it did counts, and reading goes on behind its last row."""
    manifest = found.manifest
    report.run_id, report.manifest, report.mode = manifest.run_id, manifest, plan.job.mode
    report.watermark, report.resumed = manifest.watermark, True
    found.count(report.counters)
    report.warnings.append(
        f"takes up run {manifest.run_id}, which did not end: {len(found.loaded):,} of"
        f" {len(found.records):,} chunks are loaded (--restart begins anew)"
    )
    since = manifest.watermark
    reading = plan.reading
    if since is not None and since.since is not None:
        reading = reading._replace(since=Since(since.column, since.since, since.overlap))
    if not found.is_extracted:
        reading = reading._replace(range=KeyRange(after=found.last_key))
        report.counters.rows_expected = None
    return replace(plan, reading=reading)


async def _offer(
    found: Unfinished,
    budget: CacheBudget,
    loaded: Callable[[ChunkRecord], Awaitable[None]],
    chunks: asyncio.Queue[ChunkRecord | None],
) -> None:
    """Hand on what an unfinished run has stored and not loaded; what it has loaded may be freed."""
    for record in found.records:
        await budget.take_over(record.bytes_stored)
        if record.number in found.loaded:
            await loaded(record)
    for record in found.to_load:
        chunks.put_nowait(record)


def _new_run(
    plan: Plan, recipe: Recipe, snapshot: Snapshot, watermark: WatermarkMove | None, report: Report
) -> Manifest:
    """Give a run its name."""
    manifest = new_manifest(
        plan,
        new_run_id(),
        snapshot.record,
        transform=recipe.transform.reference if recipe.transform is not None else None,
        watermark=watermark,
    )
    report.run_id, report.manifest, report.mode = manifest.run_id, manifest, plan.job.mode
    return manifest


async def _leave_trace(staging: Staging, ledger: Ledger, report: Report) -> None:
    """Write what the cache has to know of a run before its first chunk."""
    await ledger.write_manifest()
    await staging.note_run(ledger.manifest.run_id, ledger.manifest.ttl_seconds)
    report.counters.stage = "extracting"


def _extraction(
    plan: Plan,
    recipe: Recipe,
    snapshot: Snapshot,
    staging: Staging,
    ledger: Ledger,
    budget: CacheBudget,
    rejects: RejectKeeper,
    report: Report,
    first: int = 0,
) -> Extraction:
    """Set up a run's extraction, from its start or from where it ended."""
    return Extraction(
        plan=plan,
        encoder=row_encoder(plan, recipe),
        snapshot=snapshot,
        staging=staging,
        ledger=ledger,
        budget=budget,
        rejects=rejects,
        counters=report.counters,
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
        mend=mender.mend if mender is not None else None,
        mark=mark,
    )


async def _hold_superseded(staging: Staging, budget: CacheBudget, report: Report, *, but: str | None = None) -> None:
    """Count what earlier runs of this job still store: it goes first when room is needed, the oldest run's before all.

    Nothing that an earlier run left behind keeps a new one from starting: to run again is the way out of every damage.
    """
    try:
        runs = await staging.fetch_runs()
    except UnreadableError as error:
        report.warnings.append(f"{error.message}: what earlier runs still store is not counted")
        return
    for place, run_id in reversed(list(enumerate(runs))):
        if run_id == but:
            continue
        try:
            manifest = await staging.fetch_manifest(run_id)
            records = [] if manifest is None else await staging.fetch_known_chunks(manifest)
        except UnreadableError as error:
            report.warnings.append(f"{error.message}: what its run still stores is not counted")
            continue
        for record in records:
            assert manifest is not None
            if record.stored_at + manifest.ttl_seconds <= time.time():
                continue
            if place >= RUNS_KEPT - 1:
                # The run that starts now takes its place in the list: nobody could find it again.
                await staging.free_chunk(manifest, record)
            else:
                await budget.hold(record.bytes_stored, partial(staging.free_chunk, manifest, record))


def _refuse_oversize(plan: Plan) -> None:
    """Say so before it starts where an extraction alone cannot fit into the cache.

    Raises:
        CacheError: It cannot.
    """
    selection = plan.job.selection
    stored = plan.relation.stored_bytes
    partial = selection.where is not None or selection.limit is not None or selection.columns is not None
    if stored is None or partial or plan.job.incremental is not None:
        return
    if stored // _BEST_COMPRESSION > plan.job.max_cached_bytes:
        raise CacheError(
            f"{plan.relation.name} takes {stored:,} bytes in PostgreSQL, and cannot fit into the"
            f" {plan.job.max_cached_bytes:,} bytes that may be stored in the cache (max_cached_bytes)",
            hint="momento-etl run loads while it extracts, and so needs no room for the whole table.",
        )


def _refuse_freed(manifest: Manifest) -> None:
    if manifest.chunks_freed:
        raise CacheError(
            f"run {manifest.run_id} was loaded already, and {manifest.chunks_freed} of its {manifest.totals.chunks}"
            " chunks were freed to stay under max_cached_bytes",
            hint=f"Run again: momento-etl run --table {manifest.job}",
        )


def _account(report: Report) -> None:
    """Check promise 1: every row that was extracted is loaded, rejected or dropped."""
    counters = report.counters
    found = counters.rows_loaded + counters.rows_rejected + counters.rows_dropped
    if counters.rows_extracted != found:
        raise EtlError(
            f"{counters.rows_extracted:,} rows were extracted, and {found:,} are accounted for:"
            f" {counters.rows_loaded:,} loaded, {counters.rows_rejected:,} rejected, {counters.rows_dropped:,} dropped",
            hint="Do not rely on this copy. Run again; if it happens again, it is a defect of momento-etl: report it.",
        )


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
