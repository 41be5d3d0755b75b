"""``extract`` and ``load``: the two halves of ``run``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from etlcli.cli import options
from etlcli.cli.execute import settle, transfer
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.progress import with_checks
from etlcli.cli.running import seconds_of
from etlcli.config import IncrementalFlags, JobFlags, create_options, resolve_job, resolve_options
from etlcli.report import Report

__all__ = ["extract", "load"]


def extract(
    table: options.Table = None,
    query: options.Query = None,
    where: options.Where = None,
    columns: options.Columns = None,
    key: options.KeyColumns = None,
    limit: options.Limit = None,
    mode: options.Mode = None,
    since: options.Since = None,
    full_refresh: options.FullRefresh = False,
    schema_contract: options.SchemaContract = None,
    on_unrepresentable: options.Unrepresentable = None,
    max_rejects: options.MaxRejects = None,
    restart: options.Restart = False,
    timeout: options.Timeout = None,
    cache: options.Cache = None,
    ttl: options.Ttl = None,
    source_url: options.SourceUrl = None,
    config: options.Config = None,
    local: options.Local = False,
    rejects_file: options.RejectsPath = None,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Read a table into the cache, and print the run_id on stdout.

    What load needs travels in the cache: load opens no PostgreSQL, and extract
    needs no DynamoDB.

    Example:
      momento-etl extract --table movies && momento-etl load --table movies
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)
    flags = JobFlags(
        query=query,
        where=where,
        columns=columns,
        key=key,
        limit=limit,
        mode=mode,
        schema_contract=schema_contract,
        on_unrepresentable=on_unrepresentable,
        max_rejects=max_rejects,
        cache=cache,
        ttl=ttl,
    )

    def work(report: Report) -> Callable[[], Awaitable[None]]:
        settings = settle(speaker, config, local=local, source_url=source_url, source=True, cache=True)
        job = resolve_job(settings, table, flags, IncrementalFlags(since=since, full_refresh=full_refresh))
        job = replace(job, restart=restart)
        chosen = resolve_options(settings, table, flags)
        report.job, report.cache = job.name, job.cache

        async def main() -> None:
            from etlcli import pipeline, wiring

            source = wiring.open_source(settings, report.counters)
            async with (
                wiring.open_cache(settings, job.cache, report.counters) as staged,
                wiring.open_state(
                    settings, report.counters, wanted=job.incremental is not None or job.freezes_schema
                ) as state,
            ):
                await pipeline.extract(job, wiring.recipe_of(chosen), source, staged, state, report)

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
        timeout=timeout,
    )


def load(
    table: options.Table = None,
    run_id: options.RunId = None,
    max_deletes: options.MaxDeletes = None,
    max_rejects: options.MaxRejects = None,
    restart: options.Restart = False,
    wait_for_lease: options.WaitForLease = None,
    timeout: options.Timeout = None,
    verify: options.Verify = False,
    cache: options.Cache = None,
    destination: options.Destination = None,
    max_writes: options.MaxWrites = None,
    config: options.Config = None,
    local: options.Local = False,
    rejects_file: options.RejectsPath = None,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Write a complete extraction from the cache into DynamoDB: the current one, or --run-id.

    Whole items are put: attributes that others added to the same item are gone.

    Example:
      momento-etl load --table movies --destination movies-copy
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)

    def work(report: Report) -> Callable[[], Awaitable[None]]:
        settings = settle(speaker, config, local=local, cache=True, sink=True)
        flags = JobFlags(
            cache=cache,
            destination=destination,
            max_writes=max_writes,
            max_rejects=max_rejects,
            max_deletes=max_deletes,
        )
        job = resolve_job(settings, table, flags)
        job = replace(
            job,
            restart=restart,
            wait_seconds=seconds_of(wait_for_lease, "--wait-for-lease", least=0) or 0,
            verifies=verify,
        )
        report.job, report.cache, report.destination = job.name, job.cache, job.destination

        async def main() -> None:
            from etlcli import pipeline, wiring

            async with (
                wiring.open_cache(settings, job.cache, report.counters) as staged,
                wiring.open_sink(settings, job.destination, report.counters, max_writes=job.max_writes) as sink,
                wiring.open_state(settings, report.counters) as state,
            ):
                await pipeline.load(job, run_id, create_options(settings), staged, sink, state, report)

        return main

    transfer(
        "load",
        speaker,
        work,
        job=table or "",
        rejects_file=rejects_file,
        bars=with_checks(("written",), verify=verify),
        follow_up=lambda report: (
            f"momento-etl inspect-cache {options.quoted(report.job)}"
            + options.written(cache=cache, config=config, local=local)
        ),
        timeout=timeout,
    )
