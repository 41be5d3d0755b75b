"""The rehearsal of a run: the run's own code, over what stands in for its cache, its table and its state."""

from __future__ import annotations

from dataclasses import replace

from etlcli import pipeline
from etlcli.capacity import read_units
from etlcli.encoding import Recipe
from etlcli.errors import TerminalError
from etlcli.forecast.figures import Forecast, RejectTally, Usage, Verdict, scaled
from etlcli.forecast.reading import RehearsedSource
from etlcli.forecast.stand_ins import RehearsedCache, RehearsedSink, RehearsedState
from etlcli.model import CREATE_DEFAULTS, Job
from etlcli.plan import make_plan
from etlcli.ports import Cache, Sink, Source, StateStore
from etlcli.report import Report

__all__ = ["rehearse"]

# Mode replace counts first, and then removes (see etlcli.sink.sweep).
_SCANS = 2


async def rehearse(
    job: Job,
    recipe: Recipe,
    source: Source,
    cache: Cache | None,
    sink: Sink | None,
    state: StateStore,
    report: Report,
    *,
    exact: bool,
) -> Forecast:
    """Find out what a run would do, and write nothing anywhere.

    Args:
        job: The job.
        recipe: How its rows become items.
        source: Where the rows are.
        cache: The cache, which is asked what earlier runs left there; None where it cannot be looked at.
        sink: The destination table; None where it cannot be looked at.
        state: What outlives runs.
        report: Gets what a run's report gets before it writes (warnings, schema changes, the watermark, the manifest),
            and the rows read. All that is predicted is in the forecast alone.
        exact: Whether to read all rows rather than a sample.

    Raises:
        EtlError: What would end the run before all its rows are in place, but for too many rejects; or a service
            failed.
    """
    rehearsed = Report(job.name)
    rejects = RejectTally()
    rehearsed.hear_rejects = rejects.add
    reading = RehearsedSource(source, report.counters, exact=exact)
    staged = RehearsedCache(job.cache, cache, rehearsed.counters)
    table = RehearsedSink(job.destination, sink, rehearsed.counters)
    # Without a bound on rejects, since all of them are wanted; and all of the run, whatever an earlier one has done.
    unbounded = replace(job, max_rejects=None, restart=True)
    verdict = None
    try:
        await pipeline.run(unbounded, recipe, CREATE_DEFAULTS, reading, staged, table, RehearsedState(state), rehearsed)
    except TerminalError as error:
        if rehearsed.manifest is None or rehearsed.manifest.status != "complete":
            raise
        verdict = Verdict(error.message, error.hint)
    finally:
        report.warnings += rehearsed.warnings
        report.schema_changes += rehearsed.schema_changes
        if staged.problem is not None:
            report.warnings.append(f"what earlier runs left in the cache is taken for nothing: {staged.problem}")
        report.watermark, report.manifest, report.mode = rehearsed.watermark, rehearsed.manifest, rehearsed.mode
    sample = reading.sample
    usage = scaled(_usage(rehearsed, staged, table), sample, job.layout, job.max_cached_bytes)
    known = await table.estimate()
    relation = reading.relation
    assert relation is not None, "a run that came so far has described what it reads"
    return Forecast(
        exact=sample.is_whole,
        sample=sample,
        usage=usage,
        rejects=rejects.counts(sample.total / sample.rows if sample.rows else 1.0),
        checks_duplicates=reading.checks_duplicates,
        # A table that is new has nothing of earlier runs, and is not scanned.
        read_units=_read_units(known, usage) if job.mode == "replace" and not rehearsed.table_created else 0,
        table_exists=None if sink is None else not rehearsed.table_created,
        table_items=None if known is None else known[0],
        fits_extract=usage.bytes_stored <= job.max_cached_bytes,
        verdict=verdict or _too_many_rejects(job, usage),
        splits=make_plan(job, relation, source.description, recipe).resumes,
        table_rows=relation.estimated_rows,
    )


def _usage(rehearsed: Report, cache: RehearsedCache, table: RehearsedSink) -> Usage:
    counters = rehearsed.counters
    return Usage(
        rows_extracted=counters.rows_extracted,
        rows_loaded=counters.rows_loaded,
        rows_rejected=counters.rows_rejected,
        rows_dropped=counters.rows_dropped,
        chunks=counters.chunks_stored,
        chunks_freed=rehearsed.manifest.chunks_freed if rehearsed.manifest is not None else 0,
        bytes_encoded=counters.bytes_encoded,
        bytes_stored=counters.bytes_cached,
        momento=dict(cache.tallies),
        write_units=table.write_units,
        item_bytes=table.item_bytes,
    )


def _read_units(known: tuple[int, int] | None, usage: Usage) -> int:
    """Reckon what looking for stale items reads: a table that has this run's items too."""
    size = max(usage.item_bytes, known[1] if known is not None else 0)
    return _SCANS * read_units(size)


def _too_many_rejects(job: Job, usage: Usage) -> Verdict | None:
    most = job.max_rejects
    if most is None or not most.exceeded_by(usage.rows_rejected, usage.rows_extracted):
        return None
    return Verdict(
        f"{usage.rows_rejected:,} of {usage.rows_extracted:,} rows would be rejected, and at most {most} may be"
        " (max_rejects)",
        "Mend the rows or the job, or allow more: --max-rejects N or N%.",
    )
