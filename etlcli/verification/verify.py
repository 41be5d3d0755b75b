"""A whole table against a job's rows.

    cached rows, or the source's read anew ─▶ 100 at a time ─▶ their items, read with strong consistency ─▶ compared
    all keys of the table ─▶ those that no row has

Rows are taken from the cache where it still has all of them: their checksums prove that they are what was extracted.
Where it has not, the source is read in a snapshot of its own: what changed there since the run is a difference, too.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeAlias

from etlcli.cache.documents import UnreadableError
from etlcli.cache.staging import Staging
from etlcli.encoding import Recipe
from etlcli.errors import CacheError, SinkError, UsageError, leading
from etlcli.model import ItemMark, Job, Key, Manifest
from etlcli.plan import make_plan, row_encoder
from etlcli.ports import Cache, Sink, Source, StateStore
from etlcli.preparing import find_run
from etlcli.report import Report
from etlcli.verification.comparer import Comparer, cut
from etlcli.verification.findings import Verification, Wanted, refuse_differences
from etlcli.verification.rows import CachedRows, Rows, SourceRows
from etlcli.verification.surplus import Surplus

__all__ = ["verify"]

# Requests at once. An answer may have 16 MB: more of them would fill a small machine's memory.
_READS_IN_FLIGHT = 8

_Step: TypeAlias = Callable[[], Awaitable[object]]


class _Table(NamedTuple):
    """What is verified, and for whom.

    Attributes:
        job: The job.
        wanted: What is to be compared.
        sink: The destination table.
        state: What outlives runs; asked for the job's mark in mode ``replace``.
        report: Filled in as facts become known.
    """

    job: Job
    wanted: Wanted
    sink: Sink
    state: StateStore
    report: Report


async def verify(
    job: Job,
    recipe: Callable[[], Recipe],
    wanted: Wanted,
    source: Source | None,
    cache: Cache | None,
    sink: Sink,
    state: StateStore,
    report: Report,
) -> None:
    """Compare a job's destination with its cached rows; where the cache has them not (any more), with the source.

    What it came to is in the report (``Report.verification``), also where it ends with the error that tells of it.

    Args:
        job: The job.
        recipe: Tells how its rows become items; called only where rows are read anew.
        wanted: What is to be compared.
        source: Where rows can be read anew; None where there is none at hand.
        cache: Where rows may be; None where only the source is wanted.
        sink: The destination table.
        state: What outlives runs; asked for the job's mark in mode ``replace``.
        report: Filled in as facts become known.

    Raises:
        DifferenceFound: The table is not what the rows make.
        UsageError: The table has another key than the job, or what is wanted does not go together.
        CacheError: The cache has not all of the rows, and there is no source at hand.
        EtlError: Source, cache or destination failed.
    """
    _refuse_contradictions(job, wanted)
    table = _Table(job, wanted, sink, state, report)
    found = manifest = transform = None
    if cache is not None and not wanted.from_source:
        staging = Staging(cache, job.name)
        report.counters.stage = "looking for the run"
        try:
            manifest = await _find(staging, wanted.run_id, report)
            found = await _against_cache(table, manifest, staging)
        except CacheError as error:
            # A run that is named is that run, or an error.
            if error.of_service or wanted.run_id is not None or source is None:
                raise
            report.warnings.append(f"{error.message}: compared with the source instead")
            report.run_id = report.manifest = None
    if found is None:
        assert source is not None, "there is a cache or a source"
        how = recipe()
        transform = None if how.transform is None else how.transform.reference
        found = await _against_source(table, how, source, manifest)
    report.verification = found
    refuse_differences(found, sink.table, _cures(job, found, transform))


async def _against_cache(table: _Table, manifest: Manifest, staging: Staging) -> Verification:
    """Compare the table with a run's cached rows.

    Raises:
        CacheError: The cache has not all of them.
    """
    wanted, report = table.wanted, table.report
    report.run_id, report.manifest = manifest.run_id, manifest
    report.mode = "upsert" if manifest.mark is None else "replace"
    if wanted.extra:
        _refuse_partial(manifest)
    await _check_key(table.sink, manifest.key)
    mark = await _mark_of(table, manifest.mark)
    found = Verification("cache", wanted)
    await _compare(table, found, CachedRows(manifest, staging, found), manifest.key, mark)
    return found


async def _against_source(table: _Table, recipe: Recipe, source: Source, manifest: Manifest | None) -> Verification:
    """Compare the table with all of the job's rows in the source.

    Args:
        table: What is verified.
        recipe: How rows become items.
        source: Where they are.
        manifest: The run whose rows were wanted, and are not in the cache (any more); None where none was.
    """
    job, report = table.job, table.report
    report.counters.stage, report.mode = "planning", job.mode
    async with source.snapshot() as snapshot:
        # Nothing goes through the cache: what its layout costs is nobody's worry.
        relation = await snapshot.describe(job.selection)
        plan = make_plan(replace(job, layout="packed"), relation, source.description, recipe)
        report.warnings += plan.warnings
        if manifest is not None and manifest.fingerprint != plan.fingerprint:
            report.warnings.append(
                f"run {manifest.run_id} did not read, or make of it, what this job would now: other options, another"
                " configuration, or other columns. That shows as differences"
            )
        await _check_key(table.sink, plan.key)
        mark = await _mark_of(table, job.mark if job.mode == "replace" else None)
        found = Verification("source", table.wanted)
        rows = SourceRows(plan, row_encoder(plan, recipe), snapshot, found)
        await _compare(table, found, rows, plan.key, mark)
    return found


async def _compare(table: _Table, found: Verification, rows: Rows, key: Key, mark: ItemMark | None) -> None:
    """Compare all rows, and then look for what none of them has."""
    report, counters = table.report, table.report.counters
    counters.stage, counters.rows_compared = "comparing", 0
    surplus = Surplus(found, key, mark) if table.wanted.extra else None
    comparer = Comparer(found, key, table.sink, counters, mark=mark, surplus=surplus)
    steps: asyncio.Queue[_Step | None] = asyncio.Queue(maxsize=2 * _READS_IN_FLIGHT)

    async def read() -> None:
        numbers = itertools.count()
        async with aclosing(rows.batches()) as batches:
            async for batch in batches:
                counters.rows_expected = rows.expected
                for piece in cut(batch.items):
                    await steps.put(partial(comparer.compare, piece, (next(numbers),)))
                for keys in cut(batch.spared) if surplus is not None else ():
                    await steps.put(partial(comparer.spare, keys))
        await steps.put(None)

    async def work() -> None:
        while (step := await steps.get()) is not None:
            await step()
        await steps.put(None)  # for the next worker

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            for _ in range(_READS_IN_FLIGHT):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        error = leading(errors)
        raise error from error.__cause__
    found.rows_compared = counters.rows_compared
    if surplus is not None:
        await surplus.look(table.sink, report)
        if rows.keyless and found.counts["surplus"]:
            report.warnings.append(
                f"of {rows.keyless:,} rejected rows nobody knows the key: items that earlier runs made of them are"
                " among the surplus ones"
            )


async def _find(staging: Staging, run_id: str | None, report: Report) -> Manifest:
    """Find a complete extraction in the cache: the one named, or the current one.

    Raises:
        CacheError: There is none.
    """
    try:
        manifest = await find_run(staging, run_id)
    except CacheError as error:
        if error.of_service or run_id is not None:
            raise
        source = f"Or compare with the source: momento-etl verify --table {staging.job} --source"
        raise CacheError(error.message, hint=f"{error.hint}\n{source}") from error
    if run_id is None:
        with suppress(UnreadableError):
            later = max(await staging.fetch_runs(), default="")
            if later > manifest.run_id:
                report.warnings.append(
                    f"run {later} began later and is not complete: what it has loaded already shows as differences"
                )
    return manifest


def _refuse_partial(manifest: Manifest) -> None:
    """Refuse to look for surplus items where the run has not seen all rows."""
    part = None
    if manifest.watermark is not None and manifest.watermark.since is not None:
        part = f"only what is new since {manifest.watermark.since}"
    elif narrowing := _narrowing(manifest.narrowed_by):
        part = f"only some rows ({narrowing})"
    if part is not None:
        raise UsageError(
            f"run {manifest.run_id} took {part}: it cannot tell which items have no row",
            hint=f"Read all rows from the source: momento-etl verify --table {manifest.job} --source --extra",
        )


async def _check_key(sink: Sink, key: Key) -> None:
    """See that the table is there, with this key.

    Raises:
        SinkError: It is not there.
        UsageError: It has another key.
    """
    existing = await sink.key()
    if existing is None:
        raise SinkError(
            f"there is no DynamoDB table {sink.table} to verify",
            hint="Is it another one (--destination)? momento-etl run makes and fills it.",
        )
    if existing != key:
        raise UsageError(
            f"the DynamoDB table {sink.table} has another key than this job\n"
            f"  the table's: {existing}\n"
            f"  the job's:   {key}",
            hint="Choose the table's key columns with --key, or another table with --destination.",
        )


async def _mark_of(table: _Table, attribute: str | None) -> ItemMark | None:
    """Find what the job's items carry; None in mode ``upsert``."""
    job, state, report = table.job, table.state, table.report
    if attribute is None:
        return None
    mark = await state.fetch_mark(job.name)
    if mark is None:
        if table.wanted.extra:
            raise SinkError(
                f"the state table {state.table} knows no mark of {job.name}: nobody can tell which items are its own",
                hint="Has the job never run in mode replace, or with another state table?",
            )
        report.warnings.append(f"the state table {state.table} knows no mark of {job.name}: any is taken for its own")
        return ItemMark(attribute, "", "")
    return ItemMark(attribute, mark.value(""), "")


def _refuse_contradictions(job: Job, wanted: Wanted) -> None:
    """Refuse what would tell too little, or falsely."""
    if wanted.sample is not None and not wanted.sample.figure:
        raise UsageError("--sample 0 would compare nothing", hint="For example: --sample 1000, or --sample 1%")
    if wanted.extra and wanted.sample is not None:
        raise UsageError(
            "--extra and --sample exclude each other: which items have no row, only all of the rows can tell",
            hint="Leave one of them out.",
        )
    if wanted.extra and (narrowing := _narrowing(job.narrowed_by)):
        raise UsageError(
            f"--extra and {narrowing}: every item outside of these rows would count as surplus",
            hint="Leave --extra out, or compare with all of the job's rows.",
        )


def _narrowing(options: Sequence[str]) -> str | None:
    """Name the options that leave rows out; ``--columns`` leaves none out."""
    return " and ".join(option for option in options if option != "--columns") or None


def _cures(job: Job, found: Verification, transform: str | None) -> str:
    """Tell what to do about differences.

    Args:
        job: The job.
        found: What differs.
        transform: The user's own function, where it was called anew for this.
    """
    cures = []
    if found.counts["missing"] or found.counts["different"]:
        all_rows = " --full-refresh" if job.incremental is not None else ""
        cures.append(f"momento-etl run --table {job.name}{all_rows} puts the items of all rows again.")
    if found.counts["different"] and transform is not None:
        cures.append(
            f"{transform} was called anew: what it does not make of a row each time (a time, a random number) differs."
        )
    if found.counts.get("surplus"):
        cures.append(
            "Mode replace removes items that the job wrote and that have no row any more; others are for you to judge."
        )
    return " ".join(cures)
