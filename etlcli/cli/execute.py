"""How every command runs: settle the configuration, run the core, render what came of it, answer with an exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

import typer

from etlcli.cli.output import Output
from etlcli.cli.progress import shown
from etlcli.cli.render import summary_text
from etlcli.config import Settings, connect_embedded, load_settings, local_notice, use_embedded
from etlcli.errors import EtlError, ExitCode
from etlcli.report import Report
from etlcli.summary import exit_code, summarize

__all__ = ["answer", "run_async", "settle", "transfer"]

_EMBEDDED_REGION = "us-east-1"


def settle(
    output: Output, config: str | None, *, local: bool, source: bool = False, cache: bool = False, sink: bool = False
) -> Settings:
    """Read the configuration for what a command needs, and start the embedded stack where it takes its place.

    Raises:
        ConfigError: It is wrong, or half is missing.
        EtlError: The embedded stack does not start.
    """
    settings = load_settings(config, local=local)
    for notice in settings.notices:
        output.note(notice)
    is_terminal = sys.stderr.isatty() and sys.stdin.isatty()
    if not use_embedded(settings, is_terminal=is_terminal, source=source, cache=cache, destination=sink):
        return settings
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
    return connect_embedded(
        settings,
        source_url=endpoints.postgres_url,
        momento=endpoints.momento,
        dynamodb_url=endpoints.dynamodb_url,
        region=_EMBEDDED_REGION,
    )


def transfer(
    command: str,
    output: Output,
    work: Callable[[Report], Callable[[], Awaitable[None]]],
    *,
    job: str,
    loads: bool = True,
    after: Callable[[Report], None] | None = None,
) -> NoReturn:
    """Run a command that moves rows, show it at work, print its summary, and exit.

    Args:
        command: Its name.
        output: How it speaks.
        work: Settles the configuration and fills in the report; gives what is to be run in the event loop.
        job: What it was called for, until the report knows better.
        loads: Whether it writes to the destination.
        after: Prints what else the command answers with, where it succeeded.
    """
    report = Report(job)
    started = time.monotonic()
    error: BaseException | None = None
    signal_number: int | None = None
    try:
        main = work(report)

        async def watched() -> None:
            async with shown(report.counters, output, loads=loads):
                await main()

        signal_number = _run(watched, output)
    except Exception as caught:  # noqa: BLE001  rendered below, with its traceback where --verbose asks for it
        error = _single(caught)
    interrupted = signal_number is not None
    summary = summarize(command, report, time.monotonic() - started, error=error, interrupted=interrupted)
    for warning in report.warnings:
        output.warn(warning)
    if report.run_id is not None and output.is_text:
        output.show(summary_text(summary, report))
    if error is not None:
        output.error(error)
    elif after is not None and not interrupted:
        after(report)
    output.result(summary)
    raise typer.Exit(exit_code(summary, error, signal_number))


def answer(command: str, output: Output, work: Callable[[], dict[str, Any]]) -> NoReturn:
    """Run a command that answers with an object of its own, or with an error, and exit.

    ``work`` prints the text for people itself; its result is printed where JSON is asked for.
    """
    try:
        result = work()
    except Exception as caught:  # noqa: BLE001  as above
        error = _single(caught)
        output.error(error)
        message, hint = (error.message, error.hint) if isinstance(error, EtlError) else (str(error), None)
        output.result({"command": command, "status": "failed", "error": {"message": message, "hint": hint}})
        raise typer.Exit(error.exit_code if isinstance(error, EtlError) else ExitCode.FAILED) from None
    output.result({"command": command, "status": "succeeded", **result, "error": None})
    raise typer.Exit(ExitCode.DONE)


def run_async(main: Callable[[], Awaitable[Any]]) -> Any:
    """Run a coroutine on the fastest event loop there is."""

    async def awaited() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(awaited())


def _run(main: Callable[[], Awaitable[None]], output: Output) -> int | None:
    """Run the core; a first SIGINT or SIGTERM cancels it in order, a second one ends the process.

    Returns:
        The signal that ended it, or None.
    """
    received: list[int] = []

    async def guarded() -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def stop(number: int) -> None:
            if received:
                os._exit(128 + number)
            received.append(number)
            output.note(f"{signal.Signals(number).name}: stopping")
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        try:
            await main()
        except asyncio.CancelledError:
            if not received:
                raise

    run_async(guarded)
    return received[0] if received else None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # not on every platform; asyncio's own does the same work
        return None
    return uvloop.new_event_loop


def _single(error: BaseException) -> BaseException:
    """Take the one error out of a group that holds one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
