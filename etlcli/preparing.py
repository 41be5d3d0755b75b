"""What is settled before a row moves: what is read, where it begins, which extraction is loaded, the table."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import replace

from etlcli import drift, incremental
from etlcli.cache.staging import Staging
from etlcli.encoding import Recipe
from etlcli.errors import CacheError, TransientError, UsageError
from etlcli.model import CreateOptions, Job, Key, Manifest, WatermarkMove
from etlcli.plan import Plan, make_plan
from etlcli.ports import Sink, Snapshot, Source, StateStore
from etlcli.report import Report
from etlcli.resuming.rereading import refuse_duplicates
from etlcli.retry import DEFAULT_POLICY, RetryPolicy

__all__ = [
    "_plan_job",
    "begin_at",
    "find_manifest",
    "find_run",
    "hold_to_schema",
    "open_and_plan",
    "prepare_table",
    "refuse_freed",
    "refuse_oversize",
]

# A table's rows take at most about an eighth of their room on PostgreSQL's disk once they are encoded and compressed. A
# table that would not fit even so is refused before it is read; closer calls are left to the bound itself.
_BEST_COMPRESSION = 8


async def open_and_plan(
    reading: AsyncExitStack,
    job: Job,
    recipe: Recipe,
    source: Source,
    report: Report,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> tuple[Snapshot, Plan]:
    """Open a run's first snapshot, and plan the run in it; again in another one where the connection breaks.

    Args:
        reading: Closes the snapshot.
        job: The job.
        recipe: How its rows become items.
        source: Where they are.
        report: Takes the plan's warnings.
        retry: The waits, and the patience.

    Raises:
        UsageError: What is to be read does not exist, or has no key that DynamoDB can have.
        SourceError: Two rows have one destination key; or PostgreSQL refuses.
        Unavailable: The source cannot be reached, or its connections keep breaking.
    """
    attempts, failed_at, told = 0, 0.0, len(report.warnings)
    while True:
        snapshot = await reading.enter_async_context(source.snapshot())
        try:
            return snapshot, await _plan_job(job, recipe, source, snapshot, report)
        except TransientError:
            failed_at = failed_at if attempts else time.monotonic()
            attempts += 1
            pause = retry.wait(attempts)
            if time.monotonic() - failed_at + pause > retry.patience:
                raise
            report.counters.retries += 1
            del report.warnings[told:]
        await reading.aclose()
        await asyncio.sleep(pause)


async def _plan_job(job: Job, recipe: Recipe, source: Source, snapshot: Snapshot, report: Report) -> Plan:
    """Look at the source, decide, and refuse what two rows would fight over.

    Raises:
        UsageError: What is to be read does not exist, or has no key that DynamoDB can have.
        SourceError: Two rows have one destination key; or PostgreSQL refuses.
    """
    report.counters.stage = "planning"
    plan = make_plan(job, await snapshot.describe(job.selection), source.description, recipe)
    report.warnings += plan.warnings
    if job.selection.query is None and job.selection.where is None:
        estimates = [figure for figure in (plan.relation.estimated_rows, job.selection.limit) if figure is not None]
        report.counters.rows_expected = min(estimates, default=None)
    if plan.asks_for_duplicates:
        report.counters.stage = "looking for duplicate keys"
    await refuse_duplicates(plan, snapshot)
    return plan


async def hold_to_schema(plan: Plan, state: StateStore, report: Report) -> None:
    """Refuse what changed in the source's columns since the last run, where the job freezes them.

    Raises:
        UsageError: Something did.
        EtlError: The state table failed.
    """
    if plan.job.freezes_schema:
        report.schema_changes += await drift.look(plan.job, plan.relation.columns, state)
        drift.refuse(plan.job, report.schema_changes)


async def begin_at(
    plan: Plan, snapshot: Snapshot, state: StateStore, report: Report, sink: Sink | None = None
) -> tuple[Plan, WatermarkMove | None]:
    """Settle where an incremental run begins; others read all.

    Args:
        plan: What is read.
        snapshot: The run's first.
        state: Where the watermark is.
        report: Told of what is unusual.
        sink: The destination table; None for an extraction alone.

    Raises:
        EtlError: As ``incremental.begin``.
    """
    if plan.job.incremental is None:
        return plan, None
    made_anew = sink is not None and await sink.key() is None
    since, report.watermark = await incremental.begin(plan, snapshot, state, report, made_anew=made_anew)
    if since is not None:
        # How much is new, nobody knows before it is read. Duplicates were looked for in all rows: an old one counts.
        report.counters.rows_expected = None
    return replace(plan, reading=plan.reading._replace(since=since)), report.watermark


def refuse_oversize(plan: Plan) -> None:
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


def refuse_freed(manifest: Manifest) -> None:
    """Say so before it starts where some of an extraction was freed, after it had been loaded.

    Raises:
        CacheError: It was.
    """
    if manifest.chunks_freed:
        raise CacheError(
            f"run {manifest.run_id} was loaded already, and {manifest.chunks_freed} of its {manifest.totals.chunks}"
            " chunks were freed to stay under max_cached_bytes",
            hint=f"Run again: momento-etl run --table {manifest.job}",
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


async def find_manifest(staging: Staging, run_id: str) -> Manifest:
    """Find the manifest of a run that is under way.

    Raises:
        CacheError: The cache does not have it any more.
    """
    # It was written before this call, and may not have settled; that it is complete, nobody waits for.
    manifest = await staging.fetch_manifest(run_id) or await staging.fetch_manifest(run_id, settle=True)
    if manifest is None:
        raise CacheError(
            f"cache {staging.cache_name!r} holds no run {run_id} of {staging.job} (any more)",
            hint="It has expired, or the cache was flushed: run again. A longer --ttl keeps it for longer.",
        )
    return manifest


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
