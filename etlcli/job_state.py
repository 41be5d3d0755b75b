"""What the state table holds of jobs: how far each has come, who loads for it now, how its last run ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from etlcli.errors import ConfigError, UsageError
from etlcli.ports import StateStore
from etlcli.state import LeaseRecord, Mark, RunRecord, Watermark

__all__ = ["JobState", "fetch_job", "fetch_jobs", "forget_watermark"]


@dataclass(frozen=True, slots=True)
class JobState:
    """What the state table holds of one job.

    Attributes:
        job: Its name.
        watermark: How far its incremental runs have come; None where it has none.
        mark: What the items of its ``replace`` runs carry; None where it never ran in this mode.
        lease: Who may load for it now; None where nobody has the lease.
        last_run: The newest run of its history; None where it has none.
    """

    job: str
    watermark: Watermark | None
    mark: Mark | None
    lease: LeaseRecord | None
    last_run: RunRecord | None

    @property
    def is_empty(self) -> bool:
        """Whether the table holds nothing of the job."""
        return (self.watermark, self.mark, self.lease, self.last_run) == (None, None, None, None)


async def fetch_job(job: str, state: StateStore) -> JobState:
    """Look up what the state table holds of a job; each of it may be missing.

    Raises:
        ConfigError: There is no state table, by configuration.
        EtlError: The state table failed.
    """
    _require_table(state)
    watermark, mark, lease, runs = await asyncio.gather(
        state.fetch_watermark(job), state.fetch_mark(job), state.fetch_lease(job), state.fetch_runs(job, 1)
    )
    return JobState(job, watermark.watermark, mark, lease, runs[0] if runs else None)


async def fetch_jobs(configured: Iterable[str], state: StateStore) -> list[JobState]:
    """Look up all jobs that have a history, and those of the configured ones of which something else is there.

    Raises:
        ConfigError: As in ``fetch_job``.
        EtlError: The same.
    """
    _require_table(state)
    names = sorted({*await state.fetch_jobs(), *configured})
    return [found for name in names if not (found := await fetch_job(name, state)).is_empty]


async def forget_watermark(job: str, state: StateStore) -> Watermark:
    """Forget a job's watermark; a run that is at work cannot set it any more.

    Returns:
        What it was.

    Raises:
        UsageError: It has none.
        ConfigError: As in ``fetch_job``.
        EtlError: The same.
    """
    _require_table(state)
    found = (await state.fetch_watermark(job)).watermark
    if found is None:
        raise UsageError(
            f"{job} has no watermark in table {state.table}: there is nothing to reset",
            hint="momento-etl state show lists the jobs and their watermarks.",
        )
    await state.reset_watermark(job)
    return found


def _require_table(state: StateStore) -> None:
    if state.table is None:
        raise ConfigError(
            "there is no state table: it is switched off ([state] enabled = false)",
            hint="Switch it on: [state] enabled = true. The table is made when first needed.",
        )
