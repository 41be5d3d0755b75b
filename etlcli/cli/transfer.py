"""``run``, ``extract``, ``load``: the commands that move rows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from etlcli.cli import options
from etlcli.cli.execute import settle, transfer
from etlcli.cli.output import Output, OutputFormat
from etlcli.config import JobFlags, create_options, resolve_job, resolve_options
from etlcli.report import Report

__all__ = ["extract", "load", "run"]


def run(
    table: options.Table = None,
    query: options.Query = None,
    where: options.Where = None,
    columns: options.Columns = None,
    key: options.KeyColumns = None,
    limit: options.Limit = None,
    mode: options.Mode = None,
    on_unrepresentable: options.Unrepresentable = None,
    max_rejects: options.MaxRejects = None,
    cache: options.Cache = None,
    destination: options.Destination = None,
    ttl: options.Ttl = None,
    config: options.Config = None,
    local: options.Local = False,
    rejects_file: options.RejectsPath = None,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Extract and load, overlapped: table rows through the cache into DynamoDB.

    Whole items are put: attributes that others added to the same item are gone.
    The destination table is made where it is missing. Run it again, and it copies
    again.

    Examples:
      momento-etl run --local --table movies
      momento-etl run --table sales.orders --where "placed_on >= '2026-01-01'"
      momento-etl run --table movies --destination films --output json
    """
    speaker = Output(output, quiet=quiet, verbose=verbose)
    flags = JobFlags(
        query=query,
        where=where,
        columns=columns,
        key=key,
        limit=limit,
        mode=mode,
        on_unrepresentable=on_unrepresentable,
        max_rejects=max_rejects,
        cache=cache,
        destination=destination,
        ttl=ttl,
    )

    def work(report: Report) -> Callable[[], Awaitable[None]]:
        settings = settle(speaker, config, local=local, source=True, cache=True, sink=True)
        job = resolve_job(settings, table, flags)
        chosen = resolve_options(settings, table, flags)
        report.job, report.cache, report.destination = job.name, job.cache, job.destination

        async def main() -> None:
            from etlcli import pipeline, wiring

            counters = report.counters
            source = wiring.open_source(settings, counters)
            async with (
                wiring.open_cache(settings, job.cache, counters) as staged,
                wiring.open_sink(settings, job.destination, counters) as sink,
            ):
                await pipeline.run(
                    job, wiring.recipe_of(chosen), create_options(settings), source, staged, sink, report
                )

        return main

    transfer(
        "run",
        speaker,
        work,
        job=table or "",
        rejects_file=rejects_file,
        bars=("read", "cached", "written"),
        follow_up=lambda report: (
            f"momento-etl inspect-cache {options.quoted(report.job)}"
            + options.written(cache=cache, config=config, local=local)
        ),
    )


def extract(
    table: options.Table = None,
    query: options.Query = None,
    where: options.Where = None,
    columns: options.Columns = None,
    key: options.KeyColumns = None,
    limit: options.Limit = None,
    on_unrepresentable: options.Unrepresentable = None,
    max_rejects: options.MaxRejects = None,
    cache: options.Cache = None,
    ttl: options.Ttl = None,
    config: options.Config = None,
    local: options.Local = False,
    rejects_file: options.RejectsPath = None,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Read a table into the cache, and print the run_id on stdout.

    What load needs travels in the cache: load opens no PostgreSQL, extract needs no
    DynamoDB.

    Example:
      momento-etl extract --table movies && momento-etl load --table movies
    """
    speaker = Output(output, quiet=quiet, verbose=verbose)
    flags = JobFlags(
        query=query,
        where=where,
        columns=columns,
        key=key,
        limit=limit,
        on_unrepresentable=on_unrepresentable,
        max_rejects=max_rejects,
        cache=cache,
        ttl=ttl,
    )

    def work(report: Report) -> Callable[[], Awaitable[None]]:
        settings = settle(speaker, config, local=local, source=True, cache=True)
        job = resolve_job(settings, table, flags)
        chosen = resolve_options(settings, table, flags)
        report.job, report.cache = job.name, job.cache

        async def main() -> None:
            from etlcli import pipeline, wiring

            source = wiring.open_source(settings, report.counters)
            async with wiring.open_cache(settings, job.cache, report.counters) as staged:
                await pipeline.extract(job, wiring.recipe_of(chosen), source, staged, report)

        return main

    transfer(
        "extract",
        speaker,
        work,
        job=table or "",
        rejects_file=rejects_file,
        bars=("read", "cached"),
        follow_up=lambda report: (
            f"momento-etl load --table {options.quoted(report.job)}"
            + options.written(cache=cache, config=config, local=local)
        ),
        after=lambda report: speaker.data(str(report.run_id)),
    )


def load(
    table: options.Table = None,
    run_id: options.RunId = None,
    max_rejects: options.MaxRejects = None,
    cache: options.Cache = None,
    destination: options.Destination = None,
    config: options.Config = None,
    local: options.Local = False,
    rejects_file: options.RejectsPath = None,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Write a complete extraction from the cache into DynamoDB: the current one, or --run-id.

    Whole items are put: attributes that others added to the same item are gone.

    Example:
      momento-etl load --table movies --destination movies-copy
    """
    speaker = Output(output, quiet=quiet, verbose=verbose)

    def work(report: Report) -> Callable[[], Awaitable[None]]:
        settings = settle(speaker, config, local=local, cache=True, sink=True)
        job = resolve_job(settings, table, JobFlags(cache=cache, destination=destination, max_rejects=max_rejects))
        report.job, report.cache, report.destination = job.name, job.cache, job.destination

        async def main() -> None:
            from etlcli import pipeline, wiring

            async with (
                wiring.open_cache(settings, job.cache, report.counters) as staged,
                wiring.open_sink(settings, job.destination, report.counters) as sink,
            ):
                await pipeline.load(job, run_id, create_options(settings), staged, sink, report)

        return main

    transfer(
        "load",
        speaker,
        work,
        job=table or "",
        rejects_file=rejects_file,
        bars=("written",),
        follow_up=lambda report: (
            f"momento-etl inspect-cache {options.quoted(report.job)}"
            + options.written(cache=cache, config=config, local=local)
        ),
    )
