"""``create-table``: the destination table."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from etlcli.cli import complete, options
from etlcli.cli.execute import answer, settle
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.running import run_async
from etlcli.config import JobFlags, create_options, resolve_job, resolve_options
from etlcli.model import Key
from etlcli.report import Report

__all__ = ["create_table"]


def create_table(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A job; or, where none is called so, a table.", autocompletion=complete.tables
        ),
    ],
    query: options.Query = None,
    columns: options.Columns = None,
    key: options.KeyColumns = None,
    destination: options.Destination = None,
    source_url: options.SourceUrl = None,
    config: options.Config = None,
    local: options.Local = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Make the destination table with the key that the source gives it, and wait until it is ACTIVE.

    Harmless where the table is there with the same key. Tags, point-in-time
    recovery, deletion protection and the TTL attribute come from the config's
    section on the destination. Billing is on demand.

    Example:
      momento-etl create-table movies
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)

    def work(report: Report) -> dict[str, Any]:
        settings = settle(speaker, config, local=local, source_url=source_url, source=True, sink=True)
        flags = JobFlags(query=query, columns=columns, key=key, destination=destination)
        job = resolve_job(settings, name, flags)
        encoding = resolve_options(settings, name, flags)
        report.job, report.destination = job.name, job.destination

        async def main() -> Key:
            from etlcli import pipeline, wiring

            source = wiring.open_source(settings, report.counters)
            async with wiring.open_sink(settings, job.destination, report.counters) as sink:
                return await pipeline.create_table(
                    job, wiring.recipe_of(encoding), create_options(settings), source, sink, report
                )

        made: Key = run_async(main, speaker)
        for warning in report.warnings:
            speaker.warn(warning)
        state = "is made, and ACTIVE" if report.table_created else "is there already, with the same key"
        speaker.data(f"Table {job.destination} {state}: {made}")
        return {
            "created": report.table_created,
            "key": [{"name": attribute.name, "type": attribute.type} for attribute in made.attributes],
        }

    answer("create-table", speaker, work, job=name)
