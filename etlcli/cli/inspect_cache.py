"""``inspect-cache``: what the cache holds of a job."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from etlcli.cli import options
from etlcli.cli.execute import answer, run_async, settle
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.render import inspection_text, item_table, rejects_table
from etlcli.config import JobFlags, Settings, resolve_job
from etlcli.errors import CacheError
from etlcli.inspection import RunView, check_chunks, find_row, inspect_job, list_rejects
from etlcli.model import Job
from etlcli.progress import Counters

__all__ = ["inspect_cache"]


def inspect_cache(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A job; or, where none is called so, a cache.")],
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
) -> None:
    """Show what the cache holds: runs, chunks, time left, sizes, sample rows.

    Examples:
      momento-etl inspect-cache movies

      momento-etl inspect-cache movies --row 42
    """
    speaker = Output(output, quiet=quiet, verbose=verbose)

    def work() -> dict[str, Any]:
        settings = settle(speaker, config, local=local, cache=True)
        job = resolve_job(settings, name, JobFlags(cache=cache))
        if row is not None:
            return _row(settings, job, row, run_id, speaker)
        if rejects:
            return _rejects(settings, job, run_id, speaker)
        if check:
            return _check(settings, job, run_id, speaker)
        return _all(settings, job, speaker)

    answer("inspect-cache", speaker, work)


def _all(settings: Settings, job: Job, speaker: Output) -> dict[str, Any]:
    inspection = _asked(settings, job, lambda cache: inspect_job(job.name, cache))
    speaker.data(inspection_text(inspection))
    return {
        "job": inspection.job,
        "cache": inspection.cache,
        "current": inspection.current.manifest.run_id if inspection.current else None,
        "runs": [_run(run, chunks=True) for run in inspection.runs],
        "sample": list(inspection.sample),
    }


def _row(settings: Settings, job: Job, key: str, run_id: str | None, speaker: Output) -> dict[str, Any]:
    found = _asked(settings, job, lambda cache: find_row(job.name, cache, key, run_id))
    if found is None:
        raise CacheError(
            f"no row of {job.name} in cache {job.cache!r} has the key {key}",
            hint="The key is the destination's, as text: HASH, or HASH,RANGE. Rejected rows are under --rejects.",
        )
    run, item = found
    speaker.data(item_table(item, run))
    return {"job": job.name, "cache": job.cache, "run": _run(run, chunks=False), "row": item}


def _rejects(settings: Settings, job: Job, run_id: str | None, speaker: Output) -> dict[str, Any]:
    run, rejects = _asked(settings, job, lambda cache: list_rejects(job.name, cache, run_id))
    speaker.data(
        rejects_table(rejects, len(rejects)) if rejects else f"Run {run.manifest.run_id} has no rejected rows."
    )
    return {
        "job": job.name,
        "cache": job.cache,
        "run": _run(run, chunks=False),
        "rejects": [asdict(reject) for reject in rejects],
    }


def _check(settings: Settings, job: Job, run_id: str | None, speaker: Output) -> dict[str, Any]:
    run, wrong = _asked(settings, job, lambda cache: check_chunks(job.name, cache, run_id))
    if wrong:
        raise CacheError("\n".join(wrong), hint=f"Run again: momento-etl run --table {job.name}")
    chunks = "1 chunk" if len(run.chunks) == 1 else f"each of {len(run.chunks):,} chunks"
    speaker.data(f"Run {run.manifest.run_id}: {chunks} there, and undamaged.")
    return {"job": job.name, "cache": job.cache, "run": _run(run, chunks=False), "chunks_checked": len(run.chunks)}


def _asked(settings: Settings, job: Job, ask: Any) -> Any:
    """Ask the job's cache something."""

    async def main() -> Any:
        from etlcli import wiring

        async with wiring.open_cache(settings, job.cache, Counters()) as cache:
            return await ask(cache)

    return run_async(main)


def _run(run: RunView, *, chunks: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {
        **asdict(run.manifest),
        "current": run.current,
        "seconds_left": None if run.seconds_left is None else round(run.seconds_left, 1),
    }
    if chunks:
        shown["chunks"] = [chunk._asdict() for chunk in run.chunks]
    return shown
