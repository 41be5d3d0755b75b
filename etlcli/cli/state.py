"""``state show|reset``: what the state table holds of jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any

import typer

from etlcli.cli import complete, options
from etlcli.cli.execute import answer, settle
from etlcli.cli.help import Command, Group
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.render import job_state_text, job_states_table
from etlcli.cli.running import run_async
from etlcli.config import Settings, resolve_job
from etlcli.errors import UsageError
from etlcli.job_state import fetch_job, fetch_jobs, forget_watermark
from etlcli.ports import StateStore
from etlcli.report import Report

__all__ = ["app"]

app = typer.Typer(
    cls=Group,
    help="What outlives runs: watermarks of incremental jobs, leases, marks of replace jobs.",
    no_args_is_help=True,
    add_completion=False,  # of the whole command line
)


@app.command(cls=Command)
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="JOB", help="One job. Left out: all of them.", autocompletion=complete.jobs)
    ] = None,
    config: options.Config = None,
    local: options.Local = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Show how far jobs have come, who loads for them now, and their last runs.

    Examples:
      momento-etl state show
      momento-etl state show movies --output json
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)

    def work(report: Report) -> dict[str, Any]:
        settings = settle(speaker, config, local=local, sink=True)
        if name is None:
            found = _ask(lambda state: fetch_jobs(settings.tables, state), settings, report, speaker)
            speaker.data(job_states_table(found, settings.state.table))
        else:
            job = report.job = resolve_job(settings, name).name
            one = _ask(lambda state: fetch_job(job, state), settings, report, speaker)
            if one.is_empty:
                raise UsageError(
                    f"table {settings.state.table} holds nothing of {job}",
                    hint="momento-etl state show lists the jobs that it knows.",
                )
            speaker.data(job_state_text(one))
            found = [one]
        return {"state_table": settings.state.table, "jobs": [asdict(one) for one in found]}

    answer("state show", speaker, work, job=name or "")


@app.command(cls=Command)
def reset(
    name: Annotated[str, typer.Argument(metavar="JOB", help="The incremental job.", autocompletion=complete.jobs)],
    config: options.Config = None,
    local: options.Local = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Forget an incremental job's watermark: its next run takes all rows.

    Nothing is removed from the destination. A run at work cannot set the
    watermark any more.

    Example:
      momento-etl state reset movies
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)

    def work(report: Report) -> dict[str, Any]:
        settings = settle(speaker, config, local=local, sink=True)
        job = report.job = resolve_job(settings, name).name
        before = _ask(lambda state: forget_watermark(job, state), settings, report, speaker)
        speaker.data(
            f"The watermark of {job} is forgotten: {before.column} {before.value}. The next run takes all rows."
        )
        return {"state_table": settings.state.table, "forgotten": asdict(before)}

    answer("state reset", speaker, work, job=name)


def _ask(question: Callable[[StateStore], Awaitable[Any]], settings: Settings, report: Report, speaker: Output) -> Any:
    """Ask the state table something."""

    async def main() -> Any:
        from etlcli import wiring

        async with wiring.open_state(settings, report.counters) as state:
            return await question(state)

    return run_async(main, speaker)
