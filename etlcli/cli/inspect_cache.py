"""``inspect-cache``: what the cache holds of a job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Annotated, Any, TypeAlias

import typer

from etlcli.cli import complete, options
from etlcli.cli.execute import answer, settle
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.render import item_table, rejects_table
from etlcli.cli.render_inspection import checked_text, inspection_text
from etlcli.cli.running import run_async
from etlcli.config import JobFlags, Settings, resolve_job
from etlcli.encoding import hint_of
from etlcli.errors import CacheError, UsageError
from etlcli.inspection import (
    Checked,
    Inspection,
    RunView,
    check_chunks,
    find_row,
    findings_text,
    inspect_job,
    list_rejects,
)
from etlcli.model import Job
from etlcli.ports import Cache
from etlcli.report import Report

__all__ = ["inspect_cache"]

_Ask: TypeAlias = Callable[[Callable[[Cache], Awaitable[Any]]], Any]


def inspect_cache(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A job; or, where none is called so, a cache.", autocompletion=complete.jobs
        ),
    ],
    row: Annotated[
        str | None, typer.Option("--row", metavar="KEY", help="One row, by its key: HASH, or HASH,RANGE.")
    ] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="The rows that DynamoDB cannot hold.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Ask the cache for every chunk, and check it.")] = False,
    run_id: options.RunId = None,
    cache: options.Cache = None,
    config: options.Config = None,
    local: options.Local = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Show what the cache holds: runs, chunks, time left, sizes, sample rows.

    Each look costs metered operations: --output json says how many.

    Examples:
      momento-etl inspect-cache movies
      momento-etl inspect-cache movies --row 42
      momento-etl inspect-cache movies --rejects --output json
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)

    def work(report: Report) -> dict[str, Any]:
        wanted = [
            flag for flag, given in (("--row", row is not None), ("--rejects", rejects), ("--check", check)) if given
        ]
        if len(wanted) > 1:
            raise UsageError(f"{' and '.join(wanted)} exclude each other", hint="Ask for one at a time.")
        settings = settle(speaker, config, local=local, cache=True)
        job = resolve_job(settings, name, JobFlags(cache=cache))
        report.job, report.cache = job.name, job.cache
        ask = _asking(settings, job, report, speaker)
        if row is not None:
            return _row(ask, job, row, run_id, report, speaker)
        if rejects:
            return _rejects(ask, job, run_id, report, speaker)
        if check:
            return _check(ask, job, run_id, report, speaker)
        return _all(ask, job, run_id, report, speaker)

    answer("inspect-cache", speaker, work, job=name)


def _all(ask: _Ask, job: Job, run_id: str | None, report: Report, speaker: Output) -> dict[str, Any]:
    inspection: Inspection = ask(lambda cache: inspect_job(job.name, cache))
    if run_id is not None:
        found = next((run for run in inspection.runs if run.manifest.run_id == run_id), None)
        if found is None:
            unreadable = next((damage for damage in inspection.damages if run_id in damage), None)
            raise CacheError(
                unreadable or f"cache {job.cache!r} holds no run {run_id} of {job.name}",
                hint="Without --run-id, this command lists the runs that it holds.",
            )
        inspection = replace(inspection, runs=(found,), sample=inspection.sample if found.current else ())
    told = inspection.current or (inspection.runs[0] if run_id is not None else None)
    report.run_id = told.manifest.run_id if told else None
    # Where none is complete yet, the one under way is what there is to see.
    speaker.data(inspection_text(inspection, told or next(iter(inspection.runs), None)))
    if inspection.is_lost and run_id is None:
        raise CacheError(
            "\n".join(inspection.damages), hint=f"Run again: momento-etl run --table {options.quoted(job.name)}"
        )
    report.warnings += inspection.damages
    for damage in inspection.damages:
        speaker.warn(damage)
    return {
        "current": inspection.current.manifest.run_id if inspection.current else None,
        "runs": [_run(run, chunks=True) for run in inspection.runs],
        "sample": list(inspection.sample),
    }


def _row(ask: _Ask, job: Job, key: str, run_id: str | None, report: Report, speaker: Output) -> dict[str, Any]:
    found = ask(lambda cache: find_row(job.name, cache, key, run_id))
    if found is None:
        raise CacheError(
            f"no row of {job.name} in cache {job.cache!r} has the key {key}",
            hint="The key is the destination's, as text: HASH, or HASH,RANGE. Rejected rows are under --rejects.",
        )
    run, item = found
    report.run_id = run.manifest.run_id
    speaker.data(item_table(item, run))
    return {"run": _run(run, chunks=False), "row": item}


def _rejects(ask: _Ask, job: Job, run_id: str | None, report: Report, speaker: Output) -> dict[str, Any]:
    run, rejects = ask(lambda cache: list_rejects(job.name, cache, run_id))
    report.run_id = run.manifest.run_id
    if rejects:
        speaker.data(rejects_table(rejects, len(rejects)))
    else:
        speaker.data(f"Run {run.manifest.run_id} has no rejected rows.")
    return {
        "run": _run(run, chunks=False),
        "types": run.manifest.types_read,
        "rejects": [{**asdict(reject), "hint": hint_of(reject.rule)} for reject in rejects],
    }


def _check(ask: _Ask, job: Job, run_id: str | None, report: Report, speaker: Output) -> dict[str, Any]:
    checked: Checked = ask(lambda cache: check_chunks(job.name, cache, run_id))
    run = checked.run
    report.run_id = run.manifest.run_id
    speaker.data(checked_text(checked))
    if checked.wrong:
        again = f"Run again: momento-etl run --table {options.quoted(job.name)}"
        raise CacheError(findings_text(checked.wrong), hint=again)
    return {"run": _run(run, chunks=False), "chunks_checked": len(run.chunks)}


def _asking(settings: Settings, job: Job, report: Report, speaker: Output) -> _Ask:
    """Make what asks the job's cache something."""

    def ask(question: Callable[[Cache], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            from etlcli import wiring

            async with wiring.open_cache(settings, job.cache, report.counters) as cache:
                return await question(cache)

        return run_async(main, speaker)

    return ask


def _run(run: RunView, *, chunks: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        **asdict(run.manifest),
        "current": run.current,
        "seconds_left": None if run.seconds_left is None else round(run.seconds_left, 1),
    }
    if chunks:
        shown["chunks"] = [chunk._asdict() for chunk in run.chunks]
    return shown
