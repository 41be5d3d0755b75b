"""``doctor``: each service, looked at before anything relies on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from etlcli.cli import options
from etlcli.cli.execute import answer, settle
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.render_doctor import CheckLine
from etlcli.cli.running import run_async
from etlcli.config import Choice, Connection, Half, Request, Settings, choose, connection, require, used
from etlcli.config.settings import HALVES
from etlcli.doctor import Check, Checkup, Endpoint, examine, failed_by, refuse_failures, summed_up
from etlcli.errors import ConfigError, EtlError, TransientError, UsageError
from etlcli.report import Report

__all__ = ["doctor"]

_STATE_OFF = "Nothing keeps two runs of a job apart, and a run that was stopped begins anew."


def doctor(
    table: options.Tables = None,
    source_url: options.SourceUrl = None,
    config: options.Config = None,
    local: options.Local = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    log_file: options.LogFile = None,
) -> None:
    """Look at each service: reachable, login, allowed, version, limits; and each failure's cure.

    It tries what runs of the config's jobs need, or those named by --table.
    Nothing is left behind: a value of a few bytes is stored in the cache and
    removed (in a cache made for it, where there is none yet), and of DynamoDB
    tables an item is removed that nobody has put. No table is made. The exit code
    is 1 if a check failed.

    Examples:
      momento-etl doctor
      momento-etl doctor --table movies --output json
      momento-etl doctor --local
    """
    speaker = Output(output, quiet=quiet, verbose=verbose, log_file=log_file)
    answered: dict[str, Any] = {}

    def work(report: Report) -> dict[str, Any]:
        settings = settle(speaker, config, local=local, source_url=source_url)
        if connection(settings) is Connection.NONE:
            require(settings, source=True, cache=True, destination=True)
        found: list[Check] = []
        answered["checks"] = found_dicts = []

        def tell(check: Check) -> None:
            found.append(check)
            found_dicts.append(asdict(check) | {"facts": dict(check.facts)})
            speaker.data(CheckLine(check))

        choices = _jobs(settings, tuple(table or ()), tell)
        checkups: dict[Endpoint, Checkup] = {}
        if settings.local:
            checkups["local"] = _embedded
        checkups.update(_checkups(settings, choices, report))
        run_async(lambda: examine(checkups, tell), speaker)
        speaker.note(summed_up(found))
        refuse_failures(found)
        return answered

    answer("doctor", speaker, work, failing=answered)


def _jobs(settings: Settings, names: tuple[str, ...], tell: Callable[[Check], None]) -> list[Choice]:
    """Resolve the jobs that are to be able to run: those that are named, or all of the config's."""
    from etlcli import wiring

    where = "the environment alone" if settings.config_path is None else str(settings.config_path)
    if not names and not settings.tables:
        hint = "Name a table with --table to have it looked at too."
        tell(Check("config", "jobs", "ok", f"{where}; no jobs are configured", hint, {"jobs": 0}))
        return []
    try:
        choices = choose(settings, Request(tables=names, every=not names))
        for choice in choices:
            wiring.recipe_of(choice.options)
    except UsageError as error:
        tell(failed_by("config", "jobs", error))
        return []
    count = "1 job" if len(choices) == 1 else f"{len(choices)} jobs"
    tell(Check("config", "jobs", "ok", f"{where}; {count}", facts={"jobs": len(choices)}))
    return choices


def _checkups(settings: Settings, choices: Sequence[Choice], report: Report) -> Iterator[tuple[Endpoint, Checkup]]:
    """Build what looks at each service that is configured; of the others, what says so."""
    from etlcli import wiring

    jobs = [choice.job for choice in choices]
    for half in HALVES:
        try:
            known = require(settings, source=half == "source", cache=half == "cache", destination=half == "destination")
            yield half, wiring.checkup_of(half, known, jobs, report.counters)
        except (ConfigError, TransientError) as error:
            yield half, _known(_unconfigured(settings, half, error))
    yield from _state_checkup(settings, report)


def _state_checkup(settings: Settings, report: Report) -> Iterator[tuple[Endpoint, Checkup]]:
    """Build what looks at the state table, where DynamoDB is configured."""
    from etlcli import wiring

    try:
        known = used(require(settings, destination=True), "state")
    except (ConfigError, TransientError):
        return  # the destination's checks tell
    if known.state.enabled:
        yield "state", wiring.state_checkup(known, report.counters)
    else:
        off = Check("state", "table", "warning", "switched off ([state] enabled = false)", _STATE_OFF)
        yield "state", _known(off)


def _unconfigured(settings: Settings, half: Half, error: EtlError) -> Check:
    if settings.connects(half):
        return failed_by(half, "configured", error)
    return Check(half, "configured", "warning", "not configured", error.hint)


def _known(check: Check) -> Checkup:
    """Make a checkup of what is known already."""

    async def checkup() -> AsyncIterator[Check]:
        yield check

    return checkup


async def _embedded() -> AsyncIterator[Check]:
    """Look at the parts of the embedded stack."""
    from etlcli.local import stack

    for part in stack.status():
        name = part.name
        if part.state is stack.PartState.RUNNING:
            words = f"runs on port {part.port}, process {part.pid}"
            yield Check("local", name, "ok", words, facts={"port": part.port, "pid": part.pid})
        else:
            words = f"{part.state.value}{f': {part.problem}' if part.problem else ''}"
            yield Check("local", name, "failed", words, f"momento-etl local up starts it; its log: {part.log}")
