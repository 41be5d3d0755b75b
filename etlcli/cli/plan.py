"""``plan``: what a run would do, before anything moves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from etlcli.blocks.planning import Spread
from etlcli.cli import options
from etlcli.cli.execute import settle, single
from etlcli.cli.jobs import jobs_to_run
from etlcli.cli.output import Output, OutputFormat, StdoutError
from etlcli.cli.plan_options import Concurrency, Exact, MomentoLimit, Ranges, Remote, Rows, WriteLimit
from etlcli.cli.progress import shown
from etlcli.cli.render_plan import plan_text, plans_text
from etlcli.cli.render_remote import remote_text
from etlcli.cli.running import Interrupted, interruptible, run_async
from etlcli.config import (
    Choice,
    IncrementalFlags,
    JobFlags,
    Request,
    Settings,
    check_request,
    require,
    used,
)
from etlcli.errors import ConfigError, EtlError, TerminalError, UsageError
from etlcli.forecast import (
    DEFAULT_LIMITS,
    Forecast,
    Limits,
    as_if,
    facts_of,
    make_bill,
    make_remote_bill,
    price_sources,
    rehearse,
    remote_facts,
    remote_of,
    sum_of,
    timing_of,
    work_of,
)
from etlcli.report import Report
from etlcli.several import Ended, combine, failures_of, warnings_of
from etlcli.summary import exit_code, summarize

if TYPE_CHECKING:
    from etlcli.ports import Cache, Sink

__all__ = ["plan", "plan_jobs"]

# Of more jobs than these each has a line in the table, and no more.
_SHOWN_WHOLE = 3


def plan(
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
    exact: Exact = False,
    momento_limit: MomentoLimit = None,
    write_limit: WriteLimit = None,
    rows: Rows = None,
    remote: Remote = False,
    concurrency: Concurrency = None,
    ranges: Ranges = None,
    cache: options.Cache = None,
    destination: options.Destination = None,
    ttl: options.Ttl = None,
    source_url: options.SourceUrl = None,
    config: options.Config = None,
    local: options.Local = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Say what a run would do, and write nothing: rows, operations, writes, time, cost, rejects.

    Without --exact it reads a sample, and all its figures are estimates; a table
    of a few thousand rows is read whole. Where all rows were read, the exit code
    is the run's: 3 if rows would be rejected, 1 if the run would fail. It needs
    the source alone; what it cannot look at it says.

    Examples:
      momento-etl plan --local --table movies
      momento-etl plan --table movies --exact --output json
      momento-etl plan --table movies --exact --momento-limit 1000
      momento-etl plan --table movies --remote --concurrency 20
    """
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
            ttl=ttl,
        ),
        incremental=IncrementalFlags(since=since, full_refresh=full_refresh),
    )
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)
    asks_how = [name for name, value in (("--concurrency", concurrency), ("--ranges", ranges)) if value is not None]
    if asks_how and not remote:
        raise UsageError(
            f"{' and '.join(asks_how)} without --remote", hint="A run by one process has no ranges: add --remote."
        )
    plan_jobs(
        "plan",
        speaker,
        request,
        config=config,
        local=local,
        source_url=source_url,
        exact=exact,
        spread=Spread(concurrency or Spread().concurrency, ranges) if remote else None,
        rows=rows,
        limits=Limits(momento_limit or DEFAULT_LIMITS.momento_operations, write_limit or DEFAULT_LIMITS.write_units),
    )


def plan_jobs(
    command: str,
    output: Output,
    request: Request,
    *,
    config: str | None,
    local: bool,
    source_url: str | None = None,
    exact: bool = False,
    spread: Spread | None = None,
    rows: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> NoReturn:
    """Forecast the jobs of a request, show what each would do, print one object, and exit.

    Args:
        command: What was called: ``plan``, or ``run`` with ``--dry-run``.
        output: How it speaks.
        request: Which jobs, as for ``run``.
        config: The config file; None to look for one.
        local: Whether the embedded stack takes the place of what is configured.
        source_url: The source that the command line names; None for the configured one.
        exact: Whether to read all rows.
        spread: How a run by the Lambda functions is to be spread; None not to forecast that.
        rows: As if there were so many rows; None for those that there are.
        limits: What the services take in a second.
    """
    started = time.monotonic()
    planner = _Planner(command, output, _Wanted(limits, exact=exact, spread=spread, rows=rows))
    error: BaseException | None = None
    signal_number: int | None = None
    try:
        with interruptible():
            check_request(request)
            settings = _settled(output, config, local=local, source_url=source_url)
            run_async(lambda: planner.run(settings, request), output)
    except Interrupted as interrupted:
        signal_number = interrupted.number
        planner.interrupt(signal_number)
    except (BrokenPipeError, StdoutError):
        raise
    except Exception as caught:  # noqa: BLE001  rendered below, with its traceback where --verbose asks for it
        error = single(caught)
    seconds = time.monotonic() - started
    if request.is_single:
        _answer_one(command, output, request, planner.ended, seconds, error, signal_number)
    summary, code = combine(
        command, planner.ended, seconds, not_begun=planner.not_begun, error=error, signal_number=signal_number
    )
    summary["plan"] = sum_of([job["plan"] for job in summary["jobs"] if job["plan"] is not None])
    if planner.ended:
        output.data(plans_text(summary))
    if error is not None:
        output.error(error)
    for failure in failures_of(summary["jobs"]):
        output.failure(failure)
    output.result(summary)
    raise typer.Exit(code)


def _answer_one(
    command: str,
    output: Output,
    request: Request,
    ended: Sequence[Ended],
    seconds: float,
    error: BaseException | None,
    signal_number: int | None,
) -> NoReturn:
    if ended:
        ((_, summary, code),) = ended
        output.result({**summary, "duration_seconds": round(seconds, 3)})
        raise typer.Exit(code)
    if error is not None:
        output.error(error)
    report = Report(request.tables[0] if request.tables else "")
    summary = summarize(command, report, seconds, error=error, signal_number=signal_number)
    output.result({**summary, "plan": None})
    raise typer.Exit(exit_code(summary, error, signal_number))


def _settled(output: Output, config: str | None, *, local: bool, source_url: str | None) -> Settings:
    """Settle the configuration: the source has to be there; of the others, what is there has to be right."""
    settings = settle(output, config, local=local, source_url=source_url, source=True)
    settings = require(settings, cache=settings.connects("cache"), destination=_has_destination(settings))
    return used(settings, "prices")


def _has_destination(settings: Settings) -> bool:
    # botocore finds a region and a profile in its own config file, too.
    return settings.connects("destination") or settings.aws_config is not None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be forecast; see ``plan_jobs``."""

    limits: Limits
    exact: bool
    spread: Spread | None
    rows: int | None


class _Planner:
    """Forecasts jobs, one after the other, and shows each.

    Attributes:
        ended: The jobs that are over.
        not_begun: The names of those to come.
    """

    def __init__(self, command: str, output: Output, wanted: _Wanted) -> None:
        self.ended: list[Ended] = []
        self.not_begun: list[str] = []
        self._command = command
        self._output = output
        self._wanted = wanted
        self._is_single = True
        self._shows_whole = True
        self._at_work: tuple[Report, float] | None = None

    async def run(self, settings: Settings, request: Request) -> None:
        """Find out which jobs there are, and forecast them."""
        # Here, since ``run`` itself calls this for --dry-run.
        choices = await jobs_to_run(settings, request)
        self._is_single = request.is_single
        self._shows_whole = len(choices) <= _SHOWN_WHOLE
        self.not_begun = [choice.job.name for choice in choices]
        for choice in choices:
            del self.not_begun[0]
            report = Report(choice.job.name, choice.job.cache, choice.job.destination)
            self._at_work = report, time.monotonic()
            found: dict[str, Any] = {"plan": None}
            error = await self._outcome(settings, choice, report, found)
            self._end(found, error=error)
            if isinstance(error, EtlError) and error.of_service:
                break

    def interrupt(self, signal_number: int) -> None:
        """Note that a signal has ended the job at work."""
        if self._at_work is not None:
            self._end({"plan": None}, signal_number=signal_number)

    async def _outcome(
        self, settings: Settings, choice: Choice, report: Report, found: dict[str, Any]
    ) -> BaseException | None:
        """Forecast a job; answer with what keeps a run of it from succeeding."""
        task = asyncio.current_task()
        assert task is not None
        try:
            title = None if self._is_single else report.job
            async with shown(report, self._output, bars=("read",), title=title):
                forecast = await _forecast(settings, choice, report, exact=self._wanted.exact)
        except Exception as error:
            if task.cancelling():
                # What broke while the job was torn down is no failure of its own: all is to end.
                raise asyncio.CancelledError from error
            return single(error)
        if self._wanted.rows is not None:
            forecast = as_if(forecast, self._wanted.rows, choice.job.layout, choice.job.max_cached_bytes)
        counters, usage, manifest = report.counters, forecast.usage, report.manifest
        assert manifest is not None, "what was rehearsed to its end has one"
        if forecast.exact:
            counters.rows_rejected, counters.rows_dropped = usage.rows_rejected, usage.rows_dropped
        limits = self._wanted.limits
        if choice.job.max_writes is not None:
            limits = replace(limits, write_units=min(limits.write_units, choice.job.max_writes))
        timing, bill = timing_of(forecast, limits), make_bill(forecast, settings.prices)
        about = choice.job, manifest, forecast, timing, bill, price_sources(settings)
        found["plan"] = facts_of(*about)
        if self._shows_whole:
            self._output.data(plan_text(*about))
        if self._wanted.spread is not None:
            found["plan"]["remote"] = self._remote(settings, choice, report, forecast, self._wanted.spread)
        if not forecast.checks_duplicates:
            report.warnings.append("rows that share a destination key are looked for with --exact only")
        verdict = forecast.verdict
        if verdict is None:
            return None
        if forecast.exact:
            return TerminalError(f"the run would fail: {verdict.message}", hint=verdict.hint)
        report.warnings.append(f"the run would probably fail: {verdict.message}")
        return None

    def _remote(
        self, settings: Settings, choice: Choice, report: Report, forecast: Forecast, spread: Spread
    ) -> dict[str, Any]:
        """Forecast a run by the Lambda functions, and show it."""
        remote = remote_of(work_of(forecast), choice.job, spread, self._wanted.limits)
        bill = make_remote_bill(remote, settings.prices)
        if self._shows_whole:
            self._output.data(remote_text(remote, bill, exact=forecast.exact))
        report.warnings += [f"in AWS: {problem}" for problem in remote.problems]
        return remote_facts(remote, bill, price_sources(settings))

    def _end(
        self, found: dict[str, Any], *, error: BaseException | None = None, signal_number: int | None = None
    ) -> None:
        """Note that the job at work is over, and say what else there is to say of it."""
        assert self._at_work is not None
        report, started = self._at_work
        self._at_work = None
        seconds = time.monotonic() - started
        summary = summarize(self._command, report, seconds, error=error, signal_number=signal_number) | found
        self.ended.append(Ended(report, summary, exit_code(summary, error, signal_number)))
        warnings = report.warnings if self._is_single else warnings_of(summary)
        for warning in warnings:
            self._output.warn(warning)
        if error is not None and (self._is_single or self._output.verbose or not isinstance(error, EtlError)):
            self._output.error(error)
        if not self._is_single:
            self._output.event({"event": "job", **summary})


async def _forecast(settings: Settings, choice: Choice, report: Report, *, exact: bool) -> Forecast:
    """Rehearse one job with what is configured of cache and destination."""
    from etlcli import wiring

    job, counters = choice.job, report.counters
    recipe = wiring.recipe_of(choice.options)
    has_destination = _has_destination(settings)
    async with AsyncExitStack() as opened:
        cache: Cache | None = None
        sink: Sink | None = None
        if settings.connects("cache"):
            cache = await opened.enter_async_context(wiring.open_cache(settings, job.cache, counters))
        if has_destination:
            try:
                sink = await opened.enter_async_context(wiring.open_sink(settings, job.destination, counters))
            except ConfigError as error:
                if settings.connects("destination"):
                    raise
                # Only an AWS config file by chance, which says too little.
                report.warnings.append(f"the table cannot be looked at: {error.message}")
                has_destination = False
        if job.incremental is not None or job.freezes_schema or job.mode == "replace":
            # These begin with what the state table knows.
            settings = require(settings, destination=True)
            has_destination = True
        state = await opened.enter_async_context(wiring.open_state(settings, counters, wanted=has_destination))
        source = wiring.open_source(settings, counters)
        return await rehearse(job, recipe, source, cache, sink, state, report, exact=exact)
