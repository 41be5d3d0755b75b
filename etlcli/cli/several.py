"""Several jobs in one command: one after the other, each with its summary, and at the end what they came to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import typer

from etlcli.cli.execute import single
from etlcli.cli.output import Output
from etlcli.cli.progress import Bar, shown
from etlcli.cli.rejects_file import RejectsFile
from etlcli.cli.render import job_line, jobs_text, summary_text
from etlcli.cli.running import Interrupted, command_again, interruptible, run_async, seconds_of
from etlcli.errors import EtlError
from etlcli.model import Job
from etlcli.report import Report
from etlcli.several import Ended, combine, failures_of, warnings_of
from etlcli.stopping import Stop, Stopped
from etlcli.summary import exit_code, summarize

__all__ = ["Step", "transfer_several"]

# Of more jobs than these each gets a line when it is over, and no more.
_SHOWN_WHOLE = 3


@dataclass(frozen=True, slots=True)
class Step:
    """A job that is to be run.

    Attributes:
        job: The job.
        main: Runs it.
        follow_up: The command that shows what it did.
    """

    job: Job
    main: Callable[[Report], Awaitable[None]]
    follow_up: str


def transfer_several(
    command: str,
    output: Output,
    work: Callable[[], Callable[[], Awaitable[Sequence[Step]]]],
    *,
    rejects_file: str | None,
    bars: tuple[Bar, ...],
    timeout: str | None = None,
) -> NoReturn:
    """Run several jobs, show each at work, print its summary, then that of all, and exit with the worst code.

    A job that fails does not keep the others from being run, unless a service as a whole is what failed: the next job
    would only meet the same. A signal ends all of it.

    Args:
        command: Its name.
        output: How it speaks.
        work: Settles the configuration; gives what finds out, in the event loop, which jobs there are.
        rejects_file: Where rejected rows of all jobs are written; None for a file for each.
        bars: What its progress display shows.
        timeout: How long all of it may take, as it was written; None for any time.
    """
    started = time.monotonic()
    rejects = RejectsFile(rejects_file)
    batch = _Batch(command, output, rejects, bars)
    error: BaseException | None = None
    signal_number: int | None = None
    try:
        with interruptible():
            rejects.check()
            resolve = work()
            run_async(lambda: batch.run(resolve), output, batch.stop, seconds_of(timeout, "--timeout", least=1))
    except Interrupted as interrupted:
        signal_number = interrupted.number
        batch.interrupt(signal_number=signal_number)
    except Exception as caught:  # noqa: BLE001  rendered below, with its traceback where --verbose asks for it
        error = single(caught)
        batch.interrupt(error=error)
    rejects.close()
    summary, code = combine(
        command,
        batch.ended,
        time.monotonic() - started,
        not_begun=batch.not_begun,
        error=error,
        signal_number=signal_number,
    )
    if batch.ended and output.is_text:
        output.show(jobs_text(summary))
    if error is not None:
        output.error(error)
    else:
        for failure in failures_of(summary["jobs"]):
            output.failure(failure)
    if signal_number is not None:
        output.note(f"{summary['error']['message']}. {summary['error']['hint']}")
        output.note(f"to go on: {command_again()}")
    elif error is None and summary["error"] is not None:
        output.error(EtlError(summary["error"]["message"]))
    output.result(summary)
    raise typer.Exit(code)


class _Batch:
    """The jobs of one command.

    Attributes:
        ended: Those that are over.
        not_begun: The names of those to come.
        stop: Whether all of it is to end early.
    """

    def __init__(self, command: str, output: Output, rejects: RejectsFile, bars: tuple[Bar, ...]) -> None:
        self.ended: list[Ended] = []
        self.not_begun: list[str] = []
        self.stop = Stop()
        self._command = command
        self._output = output
        self._rejects = rejects
        self._bars = bars
        self._total = 0
        self._at_work: tuple[Step, Report, float] | None = None

    async def run(self, resolve: Callable[[], Awaitable[Sequence[Step]]]) -> None:
        """Find out which jobs there are, and run them."""
        steps = await resolve()
        self._total = len(steps)
        self.not_begun = [step.job.name for step in steps]
        for step in steps:
            self.stop.check()
            report = Report(step.job.name, step.job.cache, step.job.destination, stop=self.stop)
            self._rejects.listen(report)
            self._at_work = step, report, time.monotonic()
            del self.not_begun[0]
            error = await self._outcome(step, report)
            self._end(error=self._rejects.outcome(error))
            if isinstance(error, EtlError) and error.of_service:
                break

    def interrupt(self, *, error: BaseException | None = None, signal_number: int | None = None) -> None:
        """Note that a signal, or the end of the time, has ended the job at work."""
        if self._at_work is not None:
            self._end(error=error, signal_number=signal_number)

    async def _outcome(self, step: Step, report: Report) -> BaseException | None:
        """Run a job; answer with what it failed with."""
        # In a task of its own: whether it is this one that was cancelled could not be told from what breaks in there.
        work = asyncio.create_task(self._watched(step, report))
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait({work})
            if not work.cancelled():
                work.exception()  # all is to end: what broke while the job was torn down is no failure of its own
            raise
        error = work.exception()
        if isinstance(error, Stopped):
            raise error
        return None if error is None else single(error)

    async def _watched(self, step: Step, report: Report) -> None:
        async with shown(report, self._output, bars=self._bars, title=f"{self._place} {report.job}"):
            await step.main(report)

    @property
    def _place(self) -> str:
        return f"[{self._total - len(self.not_begun)}/{self._total}]"

    def _end(self, *, error: BaseException | None = None, signal_number: int | None = None) -> None:
        """Note that the job at work is over, and show what came of it."""
        assert self._at_work is not None
        step, report, started = self._at_work
        self._at_work = None
        seconds = time.monotonic() - started
        summary = summarize(self._command, report, seconds, error=error, signal_number=signal_number)
        self.ended.append(Ended(report, summary, exit_code(summary, error, signal_number)))
        output = self._output
        for warning in warnings_of(summary):
            output.warn(warning)
        if self._rejects.path is not None:
            output.note(f"rejected rows: {self._rejects.path}")
        if output.is_text and report.run_id is not None and self._total <= _SHOWN_WHOLE:
            output.show(summary_text(summary, report, moving_seconds=seconds, follow_up=step.follow_up))
        elif output.is_text:
            output.note(job_line(summary, self._place))
        if error is not None and (output.verbose or not isinstance(error, EtlError)):
            output.error(error)
        output.event({"event": "job", **summary})
