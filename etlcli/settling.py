"""What may only be done once every row is in place: the count, what mode ``replace`` removes, the watermark."""

from __future__ import annotations

from etlcli import incremental
from etlcli.cache.staging import Staging
from etlcli.errors import EtlError
from etlcli.model import ItemMark, Job, Manifest
from etlcli.ports import Sink, StateStore
from etlcli.replacing import remove_stale
from etlcli.report import Report

__all__ = ["UnaccountedRows", "account", "settle"]


class UnaccountedRows(EtlError):  # noqa: N818  what they are
    """Not every row that was extracted is loaded, rejected or dropped."""


def account(report: Report) -> None:
    """Check promise 1: every row that was extracted is loaded, rejected or dropped."""
    counters = report.counters
    found = counters.rows_loaded + counters.rows_rejected + counters.rows_dropped
    if counters.rows_extracted != found:
        raise UnaccountedRows(
            f"{counters.rows_extracted:,} rows were extracted, and {found:,} are accounted for:"
            f" {counters.rows_loaded:,} loaded, {counters.rows_rejected:,} rejected, {counters.rows_dropped:,} dropped",
            hint="Do not rely on this copy. Run again; if it happens again, it is a defect of momento-etl: report it.",
        )


async def settle(
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
