"""``history``: past runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeAlias

import typer

from etlcli.cli import complete, options
from etlcli.cli.execute import answer, settle
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.render import history_table, past_run_text
from etlcli.cli.running import run_async
from etlcli.config import Settings
from etlcli.config.names import job_name
from etlcli.errors import ConfigError, UsageError
from etlcli.ports import StateStore
from etlcli.report import Report
from etlcli.state import RunRecord

__all__ = ["history"]

_Ask: TypeAlias = Callable[[Callable[[StateStore], Awaitable[Any]]], Any]


def history(
    name: Annotated[
        str | None, typer.Argument(metavar="JOB", help="One job. Left out: all of them.", autocompletion=complete.jobs)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most N runs.")] = 20,
    run_id: Annotated[
        str | None, typer.Option("--run-id", metavar="RUN", help="This run, with all that is known of it.")
    ] = None,
    config: options.Config = None,
    local: options.Local = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Show past runs, the newest first: when, how long, how many rows, and how they ended.

    `run` and `load` are recorded from the moment they move rows, in the state
    table, for 400 days. `extract` alone is not, since it needs no DynamoDB.

    Examples:
      momento-etl history
      momento-etl history movies --limit 5
      momento-etl history --run-id 20260814T101502123Z-7f3a
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)

    def work(report: Report) -> dict[str, Any]:
        settings = settle(speaker, config, local=local, sink=True)
        if not settings.state.enabled:
            raise ConfigError(
                "there is no history: the state table is switched off ([state] enabled = false)",
                hint="Switch it on: [state] enabled = true. Runs from then on are recorded.",
            )
        # No more of the job than its name: what is wrong with its section does not keep its history back.
        job = None if name is None else name if name in settings.tables else job_name(name)
        report.job = job or ""
        ask = _asking(settings, report, speaker)
        if run_id is not None:
            return _one(ask, job, run_id, report, speaker) | {"state_table": settings.state.table}
        runs: list[RunRecord] = ask(lambda state: state.fetch_runs(job, limit))
        if runs:
            speaker.data(history_table(runs, of_one_job=job is not None))
        else:
            which = "run" if job is None else f"run of {job}"
            speaker.data(f"No {which} is recorded in table {settings.state.table}, which the first one makes.")
        return {"state_table": settings.state.table, "runs": [_run(run, schema=False) for run in runs]}

    answer("history", speaker, work, job=name or "")


def _one(ask: _Ask, job: str | None, run_id: str, report: Report, speaker: Output) -> dict[str, Any]:
    found: RunRecord | None = ask(lambda state: state.fetch_run(job, run_id))
    if found is None:
        of_job = "" if job is None else f" of {job}"
        raise UsageError(
            f"no run {run_id}{of_job} is recorded",
            hint="Without --run-id, this command lists the runs. One that failed while it was planned has no record,"
            " nor has an extraction that was not loaded.",
        )
    report.job, report.run_id = found.job, found.run_id
    speaker.data(past_run_text(found))
    return {"run": _run(found, schema=True)}


def _asking(settings: Settings, report: Report, speaker: Output) -> _Ask:
    """Make what asks the state table something."""

    def ask(question: Callable[[StateStore], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            from etlcli import wiring

            async with wiring.open_state(settings, report.counters) as state:
                return await question(state)

        return run_async(main, speaker)

    return ask


def _run(record: RunRecord, *, schema: bool) -> dict[str, Any]:
    shown = asdict(record)
    del shown["hint"]
    shown["error"] = None if record.error is None else {"message": record.error, "hint": record.hint}
    shown["duration_seconds"] = None if record.ended_at is None else round(record.ended_at - record.started_at, 3)
    shown["columns"] = len(record.columns)
    if schema:
        shown["schema"] = [column._asdict() for column in record.columns]
    return shown
