"""``verify``: the destination, item by item, against the cached rows or the source."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, TypeAlias

import typer

from etlcli.cli import options
from etlcli.cli.execute import settle, single
from etlcli.cli.output import Output, OutputFormat, StdoutError
from etlcli.cli.progress import shown
from etlcli.cli.render_verify import verification_text
from etlcli.cli.running import Interrupted, interruptible, run_async
from etlcli.config import JobFlags, Settings, look_up, parse_share, resolve_job, resolve_options
from etlcli.encoding import Recipe
from etlcli.errors import UsageError
from etlcli.model import Job, Share
from etlcli.report import Report
from etlcli.summary import exit_code, summarize
from etlcli.verification.findings import Wanted

__all__ = ["verify"]

_PANEL = "Verification"
_SEEDS = 2**32

FromSource: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--source", help="Compare with the source, read now, not with the cached rows.", rich_help_panel=_PANEL
    ),
]
Sample: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--sample", metavar="N|N%", help="Compare only so many rows, chosen by chance.", rich_help_panel=_PANEL
    ),
]
Seed: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        help="Choose the rows that this seed chose before. \\[default: others each time]",
        rich_help_panel=_PANEL,
    ),
]
Extra: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--extra",
        help="Also look for items that no row has, by reading all keys of the table. Mode replace: among the items"
        " that this job wrote.",
        rich_help_panel=_PANEL,
    ),
]
Show: TypeAlias = Annotated[
    int,
    typer.Option(
        "--show",
        metavar="N",
        min=0,
        help="Tell at most so many differences of each kind; all are counted.",
        rich_help_panel=_PANEL,
    ),
]


def verify(
    table: options.Table = None,
    query: options.Query = None,
    where: options.Where = None,
    columns: options.Columns = None,
    key: options.KeyColumns = None,
    limit: options.Limit = None,
    mode: options.Mode = None,
    on_unrepresentable: options.Unrepresentable = None,
    run_id: options.RunId = None,
    source: FromSource = False,
    sample: Sample = None,
    seed: Seed = None,
    extra: Extra = False,
    show: Show = 20,
    cache: options.Cache = None,
    destination: options.Destination = None,
    source_url: options.SourceUrlBesides = None,
    config: options.Config = None,
    local: options.Local = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Compare each item with what its row makes, by key and by value: missing, different, surplus.

    The rows are the cached ones of the current run, or of --run-id. Where the
    cache has them no more, the source is read anew: what changed there since the
    run is a difference then. --source reads it at once, and so do the options
    that say what to read: --query, --where, --columns, --key, --limit, --mode and
    --on-unrepresentable. Nothing is written. The exit code is 4 if anything
    differs.

    Examples:
      momento-etl verify --local --table movies
      momento-etl verify --table movies --sample 1% --output json
      momento-etl verify --table movies --source --extra
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)
    flags = JobFlags(
        query=query,
        where=where,
        columns=columns,
        key=key,
        limit=limit,
        mode=mode,
        on_unrepresentable=on_unrepresentable,
        cache=cache,
        destination=destination,
    )
    given = {
        "--source": source or None,
        "--query": query,
        "--where": where,
        "--columns": columns,
        "--key": key,
        "--limit": limit,
        "--mode": mode,
        "--on-unrepresentable": on_unrepresentable,
    }
    reads_source = [name for name, value in given.items() if value is not None]

    def work(report: Report) -> Callable[[], Awaitable[None]]:
        if reads_source and run_id is not None:
            raise UsageError(
                f"{reads_source[0]} and --run-id exclude each other",
                hint="--run-id compares with what the cache has of a run, as it was read then.",
            )
        if seed is not None and sample is None:
            raise UsageError("--seed chooses the rows of a sample, and there is none", hint="Add --sample N or N%.")
        settings = settle(
            speaker,
            config,
            local=local,
            source_url=source_url,
            source=bool(reads_source),
            cache=not reads_source,
            sink=True,
        )
        # Where it is there, it helps out with rows that the cache has lost; where not, the cache may do.
        settings = look_up(settings, "source")
        job = resolve_job(settings, table, flags)
        report.job, report.destination, report.mode = job.name, job.destination, job.mode
        wanted = Wanted(
            sample=_share(sample),
            seed=seed if seed is not None else random.randrange(_SEEDS),
            extra=extra,
            from_source=bool(reads_source),
            run_id=run_id,
            shown=show,
        )
        return lambda: _verify(settings, job, table, flags, wanted, report)

    _answer(speaker, work, table or "")


def _answer(output: Output, work: Callable[[Report], Callable[[], Awaitable[None]]], job: str) -> None:
    """Verify, show it at work, tell what it came to, and exit."""
    report = Report(job)
    started = time.monotonic()
    error: BaseException | None = None
    signal_number: int | None = None
    try:
        with interruptible():
            main = work(report)

            async def watched() -> None:
                async with shown(report, output, bars=("compared",)):
                    await main()

            run_async(watched, output)
    except Interrupted as interrupted:
        signal_number = interrupted.number
    except (BrokenPipeError, StdoutError):
        raise
    except Exception as caught:  # noqa: BLE001  rendered below, with its traceback where --verbose asks for it
        error = single(caught)
    summary = summarize("verify", report, time.monotonic() - started, error=error, signal_number=signal_number)
    if signal_number is not None:
        summary["error"]["hint"] = "Nothing was written. Run the same command again."
    for warning in summary["warnings"]:
        output.warn(warning)
    if report.verification is not None:
        output.data(verification_text(summary, report.verification, report))
    if error is not None:
        output.error(error)
    elif signal_number is not None:
        output.note(f"{summary['error']['message']}. {summary['error']['hint']}")
    output.result(summary)
    raise typer.Exit(exit_code(summary, error, signal_number))


async def _verify(
    settings: Settings, job: Job, table: str | None, flags: JobFlags, wanted: Wanted, report: Report
) -> None:
    """Open what is there of source and cache, and compare."""
    from etlcli import wiring
    from etlcli.verification.verify import verify as compare

    counters = report.counters
    has_source = settings.connects("source") and not settings.problems("source")

    def recipe() -> Recipe:
        return wiring.recipe_of(resolve_options(settings, table, flags))

    async with AsyncExitStack() as opened:
        staged = None
        if not wanted.from_source:
            report.cache = job.cache
            staged = await opened.enter_async_context(wiring.open_cache(settings, job.cache, counters))
        sink = await opened.enter_async_context(wiring.open_sink(settings, job.destination, counters))
        state = await opened.enter_async_context(wiring.open_state(settings, counters))
        source = wiring.open_source(settings, counters) if has_source else None
        await compare(job, recipe, wanted, source, staged, sink, state, report)


def _share(text: str | None) -> Share | None:
    if text is None:
        return None
    try:
        return parse_share(text)
    except ValueError:
        raise UsageError(
            f"--sample has to be a number of rows, or a percentage of them, found {text!r}",
            hint="For example: --sample 1000, or --sample 1%",
        ) from None
