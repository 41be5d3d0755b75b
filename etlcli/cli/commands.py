"""The commands by name. A command's module is imported when it is called, or asked for its own help: not before.

All modules together take several times as long to import as the help over them takes to print.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.main import get_command

from etlcli.cli.help import Command, Group

__all__ = ["COMMANDS", "Commands", "Entry"]


class Entry(NamedTuple):
    """A command that may not be imported yet.

    Args:
        module: Where it is, within ``etlcli.cli``.
        attribute: A function, or the ``typer.Typer`` of a command that has commands.
        summary: The first line of its help.
    """

    module: str
    attribute: str
    summary: str

    def load(self, name: str) -> Any:
        """Import it.

        Args:
            name: What it is called on the command line.

        Returns:
            A command of click's.
        """
        found = getattr(import_module(f"etlcli.cli.{self.module}"), self.attribute)
        if not isinstance(found, typer.Typer):
            function, found = found, typer.Typer(add_completion=False)
            found.command(name, cls=Command)(function)
        return get_command(found)


COMMANDS = {
    "run": Entry("run", "run", "Extract and load, overlapped: table rows through the cache into DynamoDB."),
    "extract": Entry("transfer", "extract", "Read a table into the cache, and print the run_id on stdout."),
    "load": Entry(
        "transfer",
        "load",
        "Write a complete extraction from the cache into DynamoDB: the current one, or --run-id.",
    ),
    "plan": Entry(
        "plan",
        "plan",
        "Say what a run would do, and write nothing: rows, operations, writes, time, cost, rejects.",
    ),
    "verify": Entry(
        "verify",
        "verify",
        "Compare each item with what its row makes, by key and by value: missing, different, surplus.",
    ),
    "inspect-cache": Entry(
        "inspect_cache", "inspect_cache", "Show what the cache holds: runs, chunks, time left, sizes, sample rows."
    ),
    "create-table": Entry(
        "create_table",
        "create_table",
        "Make the destination table with the key that the source gives it, and wait until it is ACTIVE.",
    ),
    "history": Entry(
        "history",
        "history",
        "Show past runs, the newest first: when, how long, how many rows, and how they ended.",
    ),
    "doctor": Entry(
        "doctor", "doctor", "Look at each service: reachable, login, allowed, version, limits; and each failure's cure."
    ),
    "init": Entry(
        "init", "init", "Write a config file: from what the environment has, and from what is answered or given."
    ),
    "state": Entry(
        "state", "app", "What outlives runs: watermarks of incremental jobs, leases, marks of replace jobs."
    ),
    "deploy": Entry(
        "deploy",
        "deploy_command",
        "Write what runs a job in AWS: Lambda functions, a state machine and a SAM template, ready to be built.",
    ),
    "schema": Entry(
        "schema",
        "app",
        "JSON Schemas (draft 2020-12): of what commands print with --output json, and of the config file.",
    ),
    "local": Entry(
        "local",
        "app",
        "The embedded stack: PostgreSQL with sample films, a Momento-compatible server and DynamoDB, on this machine.",
    ),
}
"""In the order of the help."""


class Commands(Group):
    """All commands. In a list of them stand their summaries, in the place of commands."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name, entry in COMMANDS.items():
            self.add_command(Command(name=name, help=entry.summary), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Find the command that is called, and import it."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None and name in COMMANDS:
            command = COMMANDS[name].load(name)
        return name, command, rest
