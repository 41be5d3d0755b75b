"""Keeps a run's history: what changed since the last one, that it has begun, and how it ended.

All of it is optional. It never holds up the rows, and that it fails is worth a warning, not the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

from etlcli import drift
from etlcli.errors import EtlError, Unavailable, leading
from etlcli.model import Column, Job
from etlcli.ports import StateStore
from etlcli.report import Report
from etlcli.state import RunRecord, RunState, counts_of, schema_of
from etlcli.state.host import host_name
from etlcli.summary import summarize

__all__ = ["Chronicle", "recorded"]

# How long the last run is looked for.
_LOOK_SECONDS = 3.0

# What a run that fails or is interrupted may wait for its last entry: whoever interrupts it wants it to end.
_CLOSING_SECONDS = 2.0

_GOES_ON = (
    "This run goes on without it: it may be missing from the history, and columns that changed may go unnoticed. To"
    " switch both off: [state] enabled = false"
)


class Chronicle:
    """One run's entry in the history.

    Args:
        command: What was asked for, without any secret.
        job: The job.
        state: Where the history is.
        report: The run.
    """

    def __init__(self, command: str, job: Job, state: StateStore, report: Report) -> None:
        self._command = command
        self._job = job
        self._state = state
        self._report = report
        self._record: RunRecord | None = None
        self._beginning: asyncio.Task[bool] | None = None

    def begin(self, columns: Sequence[Column] = ()) -> None:
        """Compare the source's columns with the last run's, and write that this one has begun, while it goes on.

        Args:
            columns: All columns of the source; none where it is not read, which leaves those that were noted before.
        """
        assert self._report.run_id is not None, "a run has a name before it has a history"
        self._record = RunRecord(
            job=self._job.name,
            run_id=self._report.run_id,
            command=self._command,
            host=host_name(),
            status="running",
            started_at=time.time(),
            columns=schema_of(columns),
        )
        self._beginning = asyncio.create_task(self._begin(columns))

    async def has_begun(self) -> None:
        """Wait until that it has begun is written, or could not be."""
        if self._beginning is not None:
            await self._beginning

    async def take_up(self) -> bool:
        """Go on with what another process has begun to write of this run; answer whether there is anything."""
        assert self._report.run_id is not None, "a run has a name before it has a history"
        self._record = await self._state.fetch_run(self._job.name, self._report.run_id)
        self._beginning = asyncio.create_task(asyncio.sleep(0, result=True))
        return self._record is not None

    async def end(self, status: RunState, error: BaseException | None = None) -> None:
        """Write how it ended, after that it has begun; nothing where it never did."""
        if self._record is None or self._beginning is None:
            return
        works = await self._beginning
        with suppress(TimeoutError):
            # Where the first entry failed, nothing is lost but time by waiting for long.
            async with asyncio.timeout(None if works else _CLOSING_SECONDS):
                await self._write(self._ended(self._record, status, error))

    def _ended(self, record: RunRecord, status: RunState, error: BaseException | None) -> RunRecord:
        seconds = time.time() - record.started_at
        summary = summarize(self._command, self._report, seconds, error=error)
        said = summary["error"] or {}
        return replace(
            record,
            status=status,
            ended_at=record.started_at + seconds,
            counts=counts_of(summary),
            error=said.get("message"),
            hint=said.get("hint"),
        )

    async def _begin(self, columns: Sequence[Column]) -> bool:
        assert self._record is not None, "it has begun"
        try:
            async with asyncio.timeout(_LOOK_SECONDS):
                if columns:
                    await self._look(columns)
                else:
                    # Its extraction may have been recorded: what it saw is what the next one is compared with.
                    before = await self._state.fetch_run(self._record.job, self._record.run_id)
                    self._record = replace(self._record, columns=before.columns if before is not None else ())
        except EtlError as error:
            self._go_on_without(error)
        except TimeoutError:
            self._go_on_without(Unavailable(f"the state table does not answer in {_LOOK_SECONDS:g} seconds"))
        return await self._write(self._record)

    async def _look(self, columns: Sequence[Column]) -> None:
        if self._job.freezes_schema:
            return  # it was compared before anything else, and nothing has changed
        changes = await drift.look(self._job, columns, self._state)
        if changes:
            self._report.schema_changes += changes
            self._report.warnings.append(drift.warning(self._job, changes))

    async def _write(self, record: RunRecord) -> bool:
        try:
            await self._state.put_run(record)
        except EtlError as error:
            # What has failed or was interrupted does not go on, and has an error of its own to tell.
            if record.status not in ("failed", "interrupted"):
                self._go_on_without(error)
            return False
        return True

    def _go_on_without(self, error: EtlError) -> None:
        """Warn of it, once."""
        if not any(text.endswith(_GOES_ON) for text in self._report.warnings):
            self._report.warnings.append(f"{error.message}\n{_GOES_ON}")


@asynccontextmanager
async def recorded(command: str, job: Job, state: StateStore, report: Report) -> AsyncIterator[Chronicle]:
    """Keep a run's history while the body works: whoever knows its name and columns calls ``begin``.

    A run that fails before that, while it is planned, has no name yet and leaves no history: it has moved nothing. A
    run that is killed stays ``running``.
    """
    chronicle = Chronicle(command, job, state, report)
    try:
        yield chronicle
    except Exception as error:
        cause = leading(error) if isinstance(error, BaseExceptionGroup) else error
        await _close(chronicle, "failed", cause)
        raise
    except BaseException:
        await _close(chronicle, "interrupted")
        raise
    await chronicle.end("rejected_rows" if report.counters.rows_rejected else "succeeded")


async def _close(chronicle: Chronicle, status: RunState, error: BaseException | None = None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSING_SECONDS):
            await chronicle.end(status, error)
