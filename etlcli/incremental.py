"""Incremental runs: where one begins, and what it leaves behind for the next (promise 10).

The watermark is the largest finite value of the incremental key in the run's first snapshot, read before any row. The
next run takes what is not less than it, less an overlap, for transactions that were open then and had taken their time,
or their number, before. It moves only once everything is loaded; rows that are rejected within bounds are accounted
for, and so count as loaded. It belongs to one destination table: another has not seen what lies before it.

What that means for rows without a place in the order: those whose column is NULL, infinite or NaN are taken every time;
those at minus infinity only by a run that takes all. Rows that were deleted are not seen.
"""

from __future__ import annotations

import time

from etlcli.encoding import near_names
from etlcli.errors import UsageError
from etlcli.model import Incremental, Job, Manifest, PgType, Since, WatermarkMove
from etlcli.plan import Plan
from etlcli.ports import Snapshot, StateStore
from etlcli.report import Report
from etlcli.state import Watermark

__all__ = ["TIMES", "begin", "check", "move"]

TIMES = frozenset({"timestamptz", "timestamp", "date"})
"""The types of an incremental key whose overlap is a time."""

_NUMBERS = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8", "oid"})

# Rows are stamped when their transaction begins, and seen once it has ended.
_OVERLAP_SECONDS = 300
_OVERLAP_NUMBERS = 1000
_MOST_OVERLAP = 2**63 - 1

_STAYS = "so the watermark stays where it is"


async def begin(
    plan: Plan, snapshot: Snapshot, state: StateStore, report: Report, *, made_anew: bool = False
) -> tuple[Since | None, WatermarkMove]:
    """Decide where an incremental run begins, and capture what it will leave behind, before any row is read.

    It writes nothing but warnings into the report.

    Args:
        plan: The run; its job is incremental.
        snapshot: Its first.
        state: Where the watermark is.
        report: Takes the warnings.
        made_anew: Whether the destination table is not there yet, so that no earlier run's rows are in it.

    Raises:
        UsageError: The column is none that grows, or is not there; or the watermark is another column's.
        ConfigError: There is no state table, by configuration.
        EtlError: Source or state table failed.
    """
    job, wanted = plan.job, plan.job.incremental
    assert wanted is not None, "the job is incremental"
    column_type = _column_type(plan, wanted)
    overlap = _overlap(wanted, column_type)
    entry = await state.fetch_watermark(job.name)
    last = None if wanted.full_refresh else entry.watermark
    if last is not None:
        _refuse_another_column(job, last, wanted, column_type)
        if made_anew or last.destination not in ("", job.destination):
            where = "is not there yet" if made_anew else f"is not {last.destination}, which earlier runs wrote to"
            report.warnings.append(f"table {job.destination} {where}: this run takes all rows")
            last = None
    newest = await snapshot.newest(job.selection, wanted.column)
    if await snapshot.has_nulls(job.selection, wanted.column):
        report.warnings.append(f"rows whose {wanted.column} is NULL are taken by every run")
    partial = _partial(job)
    if last is not None and not partial:
        report.warnings += await _doubts(plan, last, newest, snapshot)
    start = None if last is None else last.value
    moves = newest is not None and not partial
    if partial:
        report.warnings.append(f"{' and '.join(partial)}: this run takes only a part, {_STAYS}")
    if wanted.since is not None:
        start = await snapshot.value(job.selection, wanted.column, wanted.since)
        if last is None or not await snapshot.precedes(job.selection, wanted.column, start, last.value):
            moves = False
            report.warnings.append(f"--since {start} leaves out rows that no run has taken, {_STAYS}")
    captured = WatermarkMove(
        column=wanted.column,
        type=column_type.typname,
        since=start,
        overlap=overlap,
        value=newest,
        version=entry.version,
        moves=moves,
        destination=job.destination,
    )
    return Since(wanted.column, start, overlap) if start is not None else None, captured


async def check(manifest: Manifest, job: Job, state: StateStore) -> None:
    """See, before an extraction is loaded, that the watermark can be set after it.

    Raises:
        ConfigError: There is no state table, by configuration.
        EtlError: The state table failed.
    """
    if manifest.watermark is not None and manifest.watermark.moves:
        await state.fetch_watermark(job.name)


async def move(manifest: Manifest, job: Job, state: StateStore, report: Report) -> None:
    """Set the watermark to what a run captured, now that all of it is loaded.

    Raises:
        EtlError: The state table failed: the next run takes the same rows again, and more.
    """
    captured = manifest.watermark
    if captured is None or not captured.moves or captured.value is None:
        return
    if captured.since is not None and (report.table_created or job.destination != captured.destination):
        report.warnings.append(
            f"this extraction holds only what is new since {captured.since}, and table {job.destination} has not seen"
            f" what came before, {_STAYS}. All rows: momento-etl run, with --full-refresh and this destination"
        )
        return
    watermark = Watermark(
        column=captured.column,
        type=captured.type,
        value=captured.value,
        run_id=manifest.run_id,
        set_at=time.time(),
        source=manifest.source,
        destination=job.destination,
        fingerprint=manifest.fingerprint,
    )
    report.watermark_moved = await state.move_watermark(job.name, watermark, captured.version)
    if not report.watermark_moved:
        await _look_who_moved(manifest, job, state, report)


async def _look_who_moved(manifest: Manifest, job: Job, state: StateStore, report: Report) -> None:
    """Tell why the watermark is not the one that was read before this run."""
    found = (await state.fetch_watermark(job.name)).watermark
    if found is None:
        report.warnings.append("the watermark was reset meanwhile: the next run takes all rows")
    elif found.run_id == manifest.run_id:
        # This extraction was loaded before.
        report.watermark_moved = True
    elif found.run_id > manifest.run_id:
        report.warnings.append(
            f"run {found.run_id} is newer, and was loaded before this one: rows that changed in between may be old"
            f" again in table {job.destination}. The watermark stays; --full-refresh takes all rows anew"
        )
    else:
        report.warnings.append(f"run {found.run_id} has set the watermark meanwhile: it stays as it is")


def _column_type(plan: Plan, wanted: Incremental) -> PgType:
    """Find the column's type.

    Raises:
        UsageError: There is no such column, or it cannot tell what is new.
    """
    types = {column.name: column.type for column in plan.relation.columns}
    if wanted.column not in types:
        raise UsageError(
            f"there is no column {wanted.column!r}, named as incremental_key",
            hint=near_names(wanted.column, list(types)),
        )
    found = types[wanted.column]
    if found.kind != "base" or found.typname not in TIMES | _NUMBERS:
        raise UsageError(
            f"{wanted.column} is {found.name}, and cannot be the incremental_key",
            hint="It has to grow with every change, and to be a time (timestamp, date) or a number.",
        )
    return found


def _overlap(wanted: Incremental, column_type: PgType) -> int:
    """Tell how far the run reaches back: seconds, or a number.

    Raises:
        UsageError: It is a time, and the column holds numbers; or it is too large to be kept.
    """
    is_time = column_type.typname in TIMES
    if wanted.overlap is None:
        return _OVERLAP_SECONDS if is_time else _OVERLAP_NUMBERS
    if wanted.overlap.is_duration and not is_time:
        raise UsageError(
            f"the overlap is a time, and {wanted.column} holds numbers", hint="Write a number: overlap = 1000"
        )
    if wanted.overlap.amount > _MOST_OVERLAP:
        raise UsageError(f"the overlap is over {_MOST_OVERLAP:,}", hint="To take all rows, give --full-refresh.")
    return wanted.overlap.amount


def _refuse_another_column(job: Job, last: Watermark, wanted: Incremental, column_type: PgType) -> None:
    if (last.column, last.type) != (wanted.column, column_type.typname):
        raise UsageError(
            f"the last incremental run of {job.name} followed the column {last.column} ({last.type}), and this one"
            f" would follow {wanted.column} ({column_type.typname})",
            hint="Take all rows once: --full-refresh",
        )


def _partial(job: Job) -> list[str]:
    """Name what makes the run take less than all that is new, on the command line or in the job's section."""
    limit = job.selection.limit is not None and "--limit" not in job.narrowed_by
    return [*job.narrowed_by, *(["limit"] if limit else [])]


async def _doubts(plan: Plan, last: Watermark, newest: str | None, snapshot: Snapshot) -> list[str]:
    """Tell what may make the watermark a wrong place to begin."""
    doubts = []
    if last.source and last.source != plan.source:
        doubts.append(
            f"the watermark was taken from {last.source}, and this run reads {plan.source}. If that is not the same"
            " table, take all rows once: --full-refresh"
        )
    elif last.fingerprint and last.fingerprint != plan.fingerprint:
        doubts.append(
            "what this job reads, or makes of it, has changed since the watermark was set: rows that are not new stay"
            " as they are. All rows once: --full-refresh"
        )
    if newest is None or not await snapshot.precedes(plan.job.selection, last.column, last.value, newest):
        found = f"no {last.column} is left" if newest is None else f"the newest {last.column} is {newest}"
        doubts.append(
            f"{found}, and the watermark {last.value}: rows were removed, or the source is another. If it was restored,"
            " or its numbers began anew, take all rows once: --full-refresh"
        )
    return doubts
