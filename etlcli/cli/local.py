"""``local up|down|status``: the embedded stack; ``local momento``: one server of it alone."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from typing import Annotated, Any

import typer

from etlcli.cli import complete, options
from etlcli.cli.execute import answer
from etlcli.cli.help import Command, Group
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.render import parts_table
from etlcli.cli.running import run_async
from etlcli.config.references import is_reference, resolve
from etlcli.errors import UsageError
from etlcli.hidden import hide
from etlcli.report import Report

__all__ = ["app"]

_LAST_PORT = 65_535

app = typer.Typer(
    cls=Group,
    help="The embedded stack: PostgreSQL with sample films, a Momento-compatible server and DynamoDB, on this machine.",
    no_args_is_help=True,
    add_completion=False,  # of the whole command line
)


@app.command(cls=Command)
def up(
    output: options.OutputOption = OutputFormat.TEXT, quiet: options.Quiet = False, verbose: options.Verbose = False
) -> None:
    """Start what does not run, in the background. It stays until `local down`.

    Example:
      momento-etl local up
    """
    speaker = Output(output, quiet=quiet, verbose=verbose)

    def work(_report: Report) -> dict[str, Any]:
        from etlcli.local import stack

        stack.up(on_start=lambda part: speaker.note(f"starting {part}"))
        return _status(speaker)

    answer("local up", speaker, work)


@app.command(cls=Command)
def down(
    purge: Annotated[bool, typer.Option("--purge", help="Remove the database and the logs too.")] = False,
    output: options.OutputOption = OutputFormat.TEXT,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Stop what runs. Cache and DynamoDB tables are gone with it; PostgreSQL's data stays, but for --purge.

    Example:
      momento-etl local down --purge
    """
    speaker = Output(output, quiet=quiet, verbose=verbose)

    def work(_report: Report) -> dict[str, Any]:
        from etlcli.local import stack

        stopped = stack.down(purge=purge)
        for end in stopped:
            speaker.note(f"stopped {end.name} (process {end.pid})")
        if not stopped:
            speaker.note("Nothing was running.")
        return {"stopped": [{"part": end.name, "pid": end.pid} for end in stopped], "purged": purge}

    answer("local down", speaker, work)


@app.command(cls=Command)
def status(
    output: options.OutputOption = OutputFormat.TEXT, quiet: options.Quiet = False, verbose: options.Verbose = False
) -> None:
    """Show each part: whether it answers, its port, process and log.

    Example:
      momento-etl local status
    """
    speaker = Output(output, quiet=quiet, verbose=verbose)
    answer("local status", speaker, lambda _report: _status(speaker))


@app.command(cls=Command)
def momento(
    port: Annotated[int, typer.Option("--port", metavar="PORT", help="Where to listen; 0 for a free port.")] = 8080,
    host: Annotated[
        str,
        typer.Option(
            "--host", metavar="ADDRESS", help="Nothing is encrypted, so other than loopback only where that is fine."
        ),
    ] = "127.0.0.1",
    limits: Annotated[
        str,
        typer.Option(
            "--limits",
            metavar="WHICH",
            help="none, or on-demand: those of a new account.",
            autocompletion=complete.words("none", "on-demand"),
        ),
    ] = "none",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME=VALUE",
            help="One limit, over --limits: operations-per-second, bytes-per-second, control-calls-per-second,"
            " stored-bytes, caches, item-bytes, element-bytes, request-bytes, ttl. Can be repeated.",
        ),
    ] = None,
    latency_ms: Annotated[
        int, typer.Option("--latency-ms", metavar="N", help="What each call waits, as over a network.")
    ] = 0,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            "--api-key",
            metavar="KEY",
            help="Let in calls with this key only; env:NAME reads it from the environment. Can be repeated."
            " \\[default: anyone]",
        ),
    ] = None,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Run the Momento-compatible server alone, until Ctrl-C.

    It keeps everything in memory. Momento's SDKs reach it as they reach
    Momento Local; momento-etl by MOMENTO_LOCAL=127.0.0.1:8080.

    Examples:
      momento-etl local momento
      momento-etl local momento --port 0 --limits on-demand
      momento-etl local momento --limit operations-per-second=500
    """
    speaker = Output(quiet=quiet, verbose=verbose)

    def work(_report: Report) -> dict[str, Any]:
        from etlcli.local.momento.custom import read_limits

        allowed, named = read_limits(limits, limit or ()), ", ".join([limits, *(limit or ())])
        if not 0 <= port <= _LAST_PORT:
            raise UsageError(f"--port {port} is no port", hint=f"Give one from 1 to {_LAST_PORT}, or 0 for a free one.")
        if latency_ms < 0:
            raise UsageError(f"--latency-ms {latency_ms} is in the past", hint="Give milliseconds, 0 for none.")
        keys = [resolve(key, os.environ) if is_reference(key) else key for key in api_key or ()]
        hide(*keys)
        from etlcli.local.momento.api_keys import ApiKeys
        from etlcli.local.momento.faults import Faults
        from etlcli.local.momento.server import STOP_SECONDS, serve

        async def serving() -> None:
            async with serve(
                port,
                host=host,
                limits=allowed,
                faults=Faults(latency=latency_ms / 1000),
                api_keys=ApiKeys(frozenset(keys) or None),
                stop_seconds=STOP_SECONDS,
            ) as server:
                speaker.data(f"Momento server on {server.address}, limits: {named}")
                if not _is_loopback(host):
                    speaker.warn(f"{host} is not loopback: nothing is encrypted, and {_whom(keys)} is let in")
                await asyncio.Event().wait()

        # To be interrupted is how a server ends, and nothing to be remarked on.
        run_async(serving, Output(quiet=True))
        return {}

    answer("local momento", speaker, work)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _whom(keys: list[str]) -> str:
    return "whoever has the key" if keys else "anyone"


def _status(speaker: Output) -> dict[str, Any]:
    from etlcli.local import stack

    parts = stack.status()
    speaker.data(parts_table(parts))
    return {
        "parts": [
            {
                "part": part.name,
                "state": part.state.value,
                "port": part.port,
                "pid": part.pid,
                "since": part.since.isoformat() if part.since else None,
                "log": str(part.log),
                "problem": part.problem,
            }
            for part in parts
        ]
    }
