"""Rows that DynamoDB cannot hold: counted, shown, and kept in the cache beside the run."""

from __future__ import annotations

from collections.abc import Sequence

from etlcli.cache.staging import REJECTS_PAGE, Stage, Staging
from etlcli.model import Manifest, Reject
from etlcli.report import Report

__all__ = ["RejectKeeper"]

_SHOWN = 20
# A page is one cache entry; rows that are rejected for their size would make it too large for one.
_PAGE_BYTES = 1_000_000
_VALUE_BYTES = 300_000


class RejectKeeper:
    """Keeps one run's rejects.

    Args:
        staging: Where pages of them go.
        report: Gets the first few, and the count.
        manifest: The run, and how long they are kept.
        stage: Which half of it finds them.
    """

    def __init__(self, staging: Staging, report: Report, manifest: Manifest, stage: Stage) -> None:
        self._staging = staging
        self._stage = stage
        self._report = report
        self._run_id = manifest.run_id
        self._ttl_seconds = manifest.ttl_seconds
        self._page = 0
        self._waiting: list[Reject] = []
        self._bytes = 0

    async def add(self, rejects: Sequence[Reject]) -> None:
        """Count rejects, and store them once they fill a page."""
        self._report.counters.rows_rejected += len(rejects)
        self._report.rejects.extend(rejects[: max(0, _SHOWN - len(self._report.rejects))])
        for reject in rejects:
            self._waiting.append(reject)
            self._bytes += sum(len(name) + len(value) for name, value in reject.row.items())
            if len(self._waiting) >= REJECTS_PAGE or self._bytes >= _PAGE_BYTES:
                await self.flush()

    async def flush(self) -> None:
        """Store what waits."""
        if not self._waiting:
            return
        page, self._page = self._page, self._page + 1
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        bounded = [_bounded(reject) for reject in waiting]
        await self._staging.store_rejects(self._run_id, self._stage, page, bounded, self._ttl_seconds)


def _bounded(reject: Reject) -> Reject:
    """Cut values that would not fit into a page; the message says what the row was rejected for."""
    row = {
        name: value if len(value) <= _VALUE_BYTES else f"{value[:1000]}… ({len(value):,} characters)"
        for name, value in reject.row.items()
    }
    return Reject(reject.rule, reject.message, row)
