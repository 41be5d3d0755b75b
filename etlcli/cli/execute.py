"""How every command runs: settle the configuration, run the core, render what came of it, answer with an exit code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import typer

from etlcli.cli.output import Output, StdoutError
from etlcli.cli.progress import Bar, shown
from etlcli.cli.rejects_file import RejectsFile
from etlcli.cli.render import summary_text
from etlcli.cli.running import Interrupted, command_again, interruptible, run_async, seconds_of
from etlcli.config import (
    Settings,
    connect_embedded,
    load_settings,
    local_notice,
    require,
    use_embedded,
    with_source,
)
from etlcli.hidden import hide, hide_within
from etlcli.report import Report
from etlcli.secrets.store import AwsSecrets
from etlcli.summary import exit_code, summarize

__all__ = ["answer", "settle", "single", "transfer"]

_EMBEDDED_REGION = "us-east-1"


def settle(
    output: Output,
    config: str | None,
    *,
    local: bool,
    source_url: str | None = None,
    source: bool = False,
    cache: bool = False,
    sink: bool = False,
) -> Settings:
    """Read the configuration for what a command needs, and start the embedded stack where it takes its place.

    Args:
        output: How the command speaks.
        config: The config file; None to look for one.
        local: Whether the embedded stack was asked for.
        source_url: The source that the command line names; None for the configured one.
        source: Whether the command reads PostgreSQL.
        cache: Whether it needs Momento.
        sink: Whether it needs DynamoDB.

    Raises:
        ConfigError: It is wrong, or half is missing, or a secret that it refers to cannot be had.
        EtlError: The embedded stack does not start.
    """
    hide_within(source_url)
    settings = load_settings(config, local=local, resolver=AwsSecrets())
    if source_url is not None:
        settings = with_source(settings, source_url, os.environ)
    hide(settings.cache.api_key, *(table.mask_key for table in settings.tables.values()))
    if settings.source is not None:
        hide(settings.source.password)
        hide_within(settings.source.url)
    for notice in settings.notices:
        output.note(notice)
    is_terminal = sys.stderr.isatty() and sys.stdin.isatty()
    if not use_embedded(settings, is_terminal=is_terminal, source=source, cache=cache, destination=sink):
        return require(settings, source=source, cache=cache, destination=sink)
    from etlcli.local import stack

    unused = local_notice(settings)
    if unused:
        output.note(unused)
    if local:
        output.note("The embedded stack: a toy PostgreSQL, Momento and DynamoDB on this machine.")
    else:
        output.warn(
            "nothing is configured, so this works on the embedded stack: a toy PostgreSQL, Momento and DynamoDB"
            " on this machine (--local; momento-etl local down ends it)"
        )
    endpoints = stack.up(on_start=lambda part: output.note(f"starting {part}"))
    settings = connect_embedded(
        settings,
        source_url=endpoints.postgres_url,
        momento=endpoints.momento,
        dynamodb_url=endpoints.dynamodb_url,
        region=_EMBEDDED_REGION,
    )
    return require(settings, source=source, cache=cache, destination=sink)


def transfer(
    command: str,
    output: Output,
    work: Callable[[Report], Callable[[], Awaitable[None]]],
    *,
    job: str,
    rejects_file: str | None,
    bars: tuple[Bar, ...],
    follow_up: Callable[[Report], str],
    after: Callable[[Report], None] | None = None,
    timeout: str | None = None,
) -> NoReturn:
    """Run a command that moves rows, show it at work, print its summary, and exit.

    Args:
        command: Its name.
        output: How it speaks.
        work: Settles the configuration and fills in the report; gives what is to be run in the event loop.
        job: What it was called for, until the report knows better.
        rejects_file: Where rejected rows are written; None for a name made of job and run.
        bars: What its progress display shows.
        follow_up: The command that shows what it did, or goes on from there.
        after: Prints what else the command answers with, where it succeeded.
        timeout: How long it may take, as it was written; None for any time.
    """
    report = Report(job)
    rejects = RejectsFile(rejects_file)
    rejects.listen(report)
    started = moving = time.monotonic()
    error: BaseException | None = None
    signal_number: int | None = None
    try:
        with interruptible():
            rejects.check()
            main = work(report)
            moving = time.monotonic()

            async def watched() -> None:
                async with shown(report, output, bars=bars):
                    await main()

            run_async(watched, output, report.stop, seconds_of(timeout, "--timeout", least=1))
    except Interrupted as interrupted:
        signal_number = interrupted.number
    except Exception as caught:  # noqa: BLE001  rendered below, with its traceback where --verbose asks for it
        error = single(caught)
    ended = time.monotonic()
    rejects.close()
    error = rejects.outcome(error, interrupted=signal_number is not None)
    summary = summarize(command, report, ended - started, error=error, signal_number=signal_number)
    for warning in summary["warnings"]:
        output.warn(warning)
    if rejects.path is not None:
        output.note(f"rejected rows: {rejects.path}")
    if report.run_id is not None and output.is_text:
        output.show(summary_text(summary, report, moving_seconds=ended - moving, follow_up=follow_up(report)))
    if error is not None:
        output.error(error)
    elif signal_number is not None:
        output.note(f"{summary['error']['message']}. {summary['error']['hint']}")
        output.note(f"to go on: {command_again()}")
    elif after is not None:
        after(report)
    output.result(summary)
    raise typer.Exit(exit_code(summary, error, signal_number))


def answer(
    command: str,
    output: Output,
    work: Callable[[Report], dict[str, Any]],
    *,
    job: str = "",
    failing: dict[str, Any] | None = None,
) -> NoReturn:
    """Run a command that answers with an object of its own, or with an error, and exit.

    Args:
        command: Its name.
        output: How it speaks.
        work: Prints the text for people itself; what it returns is printed where JSON is asked for, over the fields
            that every command's object has.
        job: What it was called for, until the report knows better.
        failing: What is printed in its place where it fails, as far as it is there by then.
    """
    report = Report(job)
    started = time.monotonic()
    answered = failing if failing is not None else {}
    error: BaseException | None = None
    signal_number: int | None = None
    try:
        with interruptible():
            answered = work(report)
    except Interrupted as interrupted:
        signal_number = interrupted.number
    except (BrokenPipeError, StdoutError):
        raise
    except Exception as caught:  # noqa: BLE001  as above
        error = single(caught)
        output.error(error)
    summary = summarize(command, report, time.monotonic() - started, error=error, signal_number=signal_number)
    output.result(summary | answered)
    raise typer.Exit(exit_code(summary, error, signal_number))


def single(error: BaseException) -> BaseException:
    """Take the one error out of a group that holds one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
