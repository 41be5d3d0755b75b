"""Mode ``replace``: once all that is new is in place, remove what the source no longer has (promise 9).

What a run writes carries its mark. A rejected row's old item gets this run's mark too, and so stays. What then carries
the job's mark of an earlier run has no row any more: it is counted, held against the bound, and removed item by item,
each only if its mark is still the one that was seen.
"""

from __future__ import annotations

from contextlib import aclosing

from etlcli.cache.staging import Staging
from etlcli.errors import CacheError, TerminalError
from etlcli.model import ItemMark, Job, Manifest
from etlcli.ports import Sink, StateStore
from etlcli.report import Report

__all__ = ["mark_of", "prepare_mark", "remove_stale"]


async def prepare_mark(job: Job, state: StateStore) -> None:
    """See to it that a job in this mode has a mark, before anything is made or written.

    Raises:
        ConfigError: There is no state table, by configuration.
        EtlError: The state table failed.
    """
    if job.mode == "replace":
        await state.ensure_mark(job.name)


async def mark_of(job: Job, manifest: Manifest, state: StateStore) -> ItemMark | None:
    """Find the mark that a run's items get; None in mode ``upsert``.

    Raises:
        ConfigError: There is no state table, by configuration.
        EtlError: The state table failed.
    """
    if manifest.mark is None:
        return None
    mark = await state.ensure_mark(job.name)
    return ItemMark(manifest.mark, mark.value(""), mark.value(manifest.run_id))


async def remove_stale(
    job: Job, manifest: Manifest, mark: ItemMark, staging: Staging, sink: Sink, report: Report
) -> None:
    """Remove the items whose rows are gone.

    Args:
        job: The job.
        manifest: The run, of which everything is loaded.
        mark: Its mark.
        staging: Where the rejects are.
        sink: The destination table; it counts what it removes.
        report: The run.

    Raises:
        TerminalError: More would be removed than may be, or nobody knows what is to be spared; none was removed.
        CacheError: The cache no longer holds all of the run's rejects; none was removed.
        EtlError: Destination or cache failed.
    """
    if report.table_created:
        return  # there is nothing in it from an earlier run
    counters = report.counters
    counters.stage = "looking for items whose rows are gone"
    if manifest.transform is not None and manifest.totals.rows_rejected:
        raise TerminalError(
            f"items whose rows are gone were not removed: {_rejected(manifest.totals.rows_rejected)}, and only"
            f" {manifest.transform} could tell which items earlier runs made of them",
            hint="What was loaded is in place. Mend the rows or the transform, and run again.",
        )
    if counters.rows_rejected:
        await _spare_rejected(manifest, mark, staging, sink, counters.rows_rejected)
    survey = await sink.survey(mark)
    if job.max_deletes.exceeded_by(survey.stale, survey.items):
        raise TerminalError(
            f"{survey.stale:,} of the {survey.items:,} items that {job.name} wrote to {sink.table} have no row any"
            f" more, and at most {job.max_deletes} may be removed (max_deletes): none was",
            hint="What was loaded is in place. If the source has all of its rows, allow it: --max-deletes N or N%.",
        )
    if survey.stale:
        counters.stage = f"removing {survey.stale:,} items whose rows are gone"
        await sink.sweep(mark)


async def _spare_rejected(manifest: Manifest, mark: ItemMark, staging: Staging, sink: Sink, rejected: int) -> None:
    """Give the old items of rejected rows this run's mark, page by page."""
    extracted = manifest.totals.rows_rejected
    found = 0
    async with aclosing(
        staging.fetch_reject_pages(manifest, {"extract": extracted, "load": rejected - extracted})
    ) as pages:
        async for page in pages:
            found += len(page)
            # Without a key there is no item: DynamoDB could not hold it.
            await sink.spare([reject.key.encode() for reject in page if reject.key is not None], mark)
    if found < rejected:
        raise CacheError(
            f"items whose rows are gone were not removed: {_rejected(rejected)}, the items that earlier runs made of"
            f" them are to stay, and the cache tells only {found:,} of them (any more)",
            hint="What was loaded is in place. Run again, with a longer --ttl if the run took longer than that.",
        )


def _rejected(rows: int) -> str:
    return "1 row was rejected" if rows == 1 else f"{rows:,} rows were rejected"
