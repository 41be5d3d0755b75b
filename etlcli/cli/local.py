"""``local up|down|status``: the embedded stack."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from etlcli.cli import options
from etlcli.cli.execute import answer
from etlcli.cli.help import Command, Group
from etlcli.cli.output import Output, OutputFormat
from etlcli.cli.render import parts_table
from etlcli.report import Report

__all__ = ["app"]

app = typer.Typer(
    cls=Group,
    help="The embedded stack: PostgreSQL with sample films, a Momento-compatible server and DynamoDB, on this machine.",
    no_args_is_help=True,
)


@app.command(cls=Command)
def up(
    output: options.OutputOption = OutputFormat.TEXT, quiet: options.Quiet = False, verbose: options.Verbose = False
) -> None:
    """Start what does not run, in the background. It stays until `local down`."""
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
    """Stop what runs. Cache and DynamoDB tables are gone with it; PostgreSQL's data stays, but for --purge."""
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
    """Show each part: whether it answers, its port, process and log."""
    speaker = Output(output, quiet=quiet, verbose=verbose)
    answer("local status", speaker, lambda _report: _status(speaker))


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
