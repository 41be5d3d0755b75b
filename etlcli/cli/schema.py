"""``schema summary|config``: the JSON Schemas, for programs that read or write what this one writes and reads."""

from __future__ import annotations

import json

import typer

from etlcli.cli.help import Command, Group
from etlcli.cli.output import Output

__all__ = ["app"]

app = typer.Typer(
    cls=Group,
    help="JSON Schemas (draft 2020-12): of what commands print with --output json, and of the config file.",
    no_args_is_help=True,
    add_completion=False,  # of the whole command line
)


@app.command(cls=Command)
def summary() -> None:
    """Print the schema of the object that every command ends with, and of the lines of --output jsonl.

    No object has a field that is not described, so that what is checked against
    it today has no other names tomorrow.

    Example:
      momento-etl schema summary > summary.schema.json
    """
    from etlcli.json_schema import summary_schema

    _print(summary_schema())


@app.command(cls=Command)
def config() -> None:
    """Print the schema of the config file, for editors that check TOML by one.

    Example:
      momento-etl schema config > momento-etl.schema.json
    """
    from etlcli.json_schema import config_schema

    _print(config_schema())


def _print(schema: dict[str, object]) -> None:
    Output().data(json.dumps(schema, indent=2, ensure_ascii=False))
