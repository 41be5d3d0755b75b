"""``run``: one job, several, all of the config's, or a schema's tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from etlcli.cli import options
from etlcli.cli.execute import settle, transfer
from etlcli.cli.jobs import jobs_to_run
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.plan import plan_jobs
from etlcli.cli.progress import Bar, with_checks
from etlcli.cli.running import seconds_of
from etlcli.cli.several import Step, transfer_several
from etlcli.config import (
    Choice,
    IncrementalFlags,
    JobFlags,
    Request,
    Settings,
    check_request,
    choose,
    create_options,
    for_each,
)
from etlcli.encoding import Recipe
from etlcli.model import Job
from etlcli.report import Report

if TYPE_CHECKING:
    from etlcli.leftovers import Leftovers

__all__ = ["run"]

_BARS: tuple[Bar, ...] = ("read", "cached", "written")


def run(
    table: options.Tables = None,
    every: options.Every = False,
    schema: options.SchemaName = None,
    query: options.Query = None,
    where: options.Where = None,
    columns: options.Columns = None,
    key: options.KeyColumns = None,
    limit: options.Limit = None,
    mode: options.Mode = None,
    max_deletes: options.MaxDeletes = None,
    since: options.Since = None,
    full_refresh: options.FullRefresh = False,
    schema_contract: options.SchemaContract = None,
    on_unrepresentable: options.Unrepresentable = None,
    max_rejects: options.MaxRejects = None,
    restart: options.Restart = False,
    wait_for_lease: options.WaitForLease = None,
    timeout: options.Timeout = None,
    verify: options.Verify = False,
    dry_run: options.DryRun = False,
    cache: options.Cache = None,
    destination: options.Destination = None,
    max_writes: options.MaxWrites = None,
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
    """Extract and load, overlapped: table rows through the cache into DynamoDB.

    Whole items are put: attributes that others added to the same item are gone.
    The destination table is made where it is missing. Run it again, and it copies
    again. Of several jobs, one that fails does not keep the others from running;
    the exit code is the worst one's.

    Examples:
      momento-etl run --local --table movies
      momento-etl run --table sales.orders --where "placed_on >= '2026-01-01'"
      momento-etl run --table movies --destination films --output json --verify
      momento-etl run --table movies --table actors
      momento-etl run --all --schema sales
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)
    request = Request(
        tables=tuple(table or ()),
        every=every,
        schema=schema,
        flags=JobFlags(
            query=query,
            where=where,
            columns=columns,
            key=key,
            limit=limit,
            mode=mode,
            max_deletes=max_deletes,
            schema_contract=schema_contract,
            on_unrepresentable=on_unrepresentable,
            max_rejects=max_rejects,
            cache=cache,
            destination=destination,
            max_writes=max_writes,
            ttl=ttl,
        ),
        incremental=IncrementalFlags(since=since, full_refresh=full_refresh),
    )

    if dry_run:
        plan_jobs("run", speaker, request, config=config, local=local, source_url=source_url)

    bars = with_checks(_BARS, verify=verify)

    def wanted(choice: Choice) -> Job:
        return replace(
            choice.job,
            restart=restart,
            wait_seconds=seconds_of(wait_for_lease, "--wait-for-lease", least=0) or 0,
            verifies=verify,
        )

    def settled() -> Settings:
        return settle(speaker, config, local=local, source_url=source_url, source=True, cache=True, sink=True)

    def follow_up(job: str, where: str | None) -> str:
        found = options.written(cache=where, config=config, local=local)
        return f"momento-etl inspect-cache {options.quoted(job)}{found}"

    def work(report: Report) -> Callable[[], Awaitable[None]]:
        settings = settled()
        (choice,) = choose(settings, request)
        job = wanted(choice)
        report.job, report.cache, report.destination = job.name, job.cache, job.destination
        return lambda: _move(settings, job, _recipe(choice), report)

    def work_of_several() -> Callable[[], Awaitable[Sequence[Step]]]:
        check_request(request)
        settings = settled()

        async def steps() -> Sequence[Step]:
            choices = await jobs_to_run(settings, request)
            recipes = for_each(choices, lambda choice: choice.job.name, _recipe)
            # A cache that is named after the schema is not where a job by itself would look.
            named = cache is not None or schema is not None
            left = _leftovers(settings)
            return [
                _step(
                    settings,
                    wanted(choice),
                    recipe,
                    left,
                    follow_up(choice.job.name, choice.job.cache if named else None),
                )
                for choice, recipe in zip(choices, recipes, strict=True)
            ]

        return steps

    if request.is_single:
        transfer(
            "run",
            speaker,
            work,
            job=request.tables[0] if request.tables else "",
            rejects_file=rejects_file,
            bars=bars,
            follow_up=lambda report: follow_up(report.job, cache),
            timeout=timeout,
        )
    transfer_several("run", speaker, work_of_several, rejects_file=rejects_file, bars=bars, timeout=timeout)


def _recipe(choice: Choice) -> Recipe:
    from etlcli import wiring

    return wiring.recipe_of(choice.options)


def _leftovers(settings: Settings) -> Leftovers:
    from etlcli import wiring
    from etlcli.leftovers import Leftovers

    return Leftovers(
        settings.cache.max_cached_bytes, lambda name, counters: wiring.open_cache(settings, name, counters)
    )


def _step(settings: Settings, job: Job, recipe: Recipe, left: Leftovers, follow_up: str) -> Step:
    async def main(report: Report) -> None:
        room = await left.make_room(report)
        try:
            await _move(settings, replace(job, max_cached_bytes=room), recipe, report)
        finally:
            left.note(report)

    return Step(job, main, follow_up)


async def _move(settings: Settings, job: Job, recipe: Recipe, report: Report) -> None:
    """Run one job."""
    from etlcli import pipeline, wiring

    counters = report.counters
    source = wiring.open_source(settings, counters)
    async with (
        wiring.open_cache(settings, job.cache, counters) as staged,
        wiring.open_sink(settings, job.destination, counters, max_writes=job.max_writes) as sink,
        wiring.open_state(settings, counters) as state,
    ):
        await pipeline.run(job, recipe, create_options(settings), source, staged, sink, state, report)
