"""The options that commands share, each described once."""

from __future__ import annotations

import shlex
from typing import Annotated, TypeAlias

import typer

from etlcli.cli import complete
from etlcli.cli.output import OutputFormat

__all__ = [
    "Cache",
    "Columns",
    "Config",
    "Destination",
    "DryRun",
    "Every",
    "FullRefresh",
    "KeyColumns",
    "Limit",
    "Local",
    "LogFile",
    "MaxDeletes",
    "MaxRejects",
    "MaxWrites",
    "Mode",
    "OutputOption",
    "Query",
    "Quiet",
    "RejectsPath",
    "Restart",
    "RunId",
    "SchemaContract",
    "SchemaName",
    "Since",
    "SourceUrl",
    "SourceUrlBesides",
    "Table",
    "Tables",
    "Timeout",
    "Ttl",
    "Unrepresentable",
    "Verbose",
    "Verify",
    "WaitForLease",
    "Where",
    "quoted",
    "written",
]

# In help texts a bracket is escaped, since typer takes what is in brackets for rich's markup.
_JOB = "Job"
_PLACES = "Where"
_OUTPUT = "Output"

Table: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--table",
        "-t",
        metavar="NAME",
        help="The table, or a job of the config.",
        autocompletion=complete.tables,
        rich_help_panel=_JOB,
    ),
]
Tables: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--table",
        "-t",
        metavar="NAME",
        help="The table, or a job of the config. Several: one after the other.",
        autocompletion=complete.tables,
        rich_help_panel=_JOB,
    ),
]
Every: TypeAlias = Annotated[
    bool, typer.Option("--all", help="All jobs of the config, one after the other.", rich_help_panel=_JOB)
]
SchemaName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--schema",
        metavar="NAME",
        help="With --all: every base table of this schema. They share one cache. \\[default: named after the schema]",
        rich_help_panel=_JOB,
    ),
]
Query: TypeAlias = Annotated[
    str | None,
    typer.Option("--query", metavar="SQL", help="Read this SELECT; --table then names the job.", rich_help_panel=_JOB),
]
Where: TypeAlias = Annotated[
    str | None,
    typer.Option("--where", metavar="SQL", help="Only rows that meet this condition.", rich_help_panel=_JOB),
]
Columns: TypeAlias = Annotated[
    str | None,
    typer.Option("--columns", metavar="A,B,...", help="Only these columns.", rich_help_panel=_JOB),
]
KeyColumns: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--key",
        metavar="HASH[,RANGE]",
        help="Columns of the destination key. \\[default: the primary key]",
        rich_help_panel=_JOB,
    ),
]
Limit: TypeAlias = Annotated[
    str | None, typer.Option("--limit", metavar="N", help="At most N rows.", rich_help_panel=_JOB)
]
Mode: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--mode",
        metavar="MODE",
        help="upsert: put whole items; attributes that others added to the same item are gone. replace: also remove"
        " items that this job wrote and whose rows are gone. \\[default: upsert]",
        autocompletion=complete.words("upsert", "replace"),
        rich_help_panel=_JOB,
    ),
]
MaxDeletes: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-deletes",
        metavar="N|N%",
        help="Mode replace: remove nothing and fail if more items would go. \\[default: 50%]",
        rich_help_panel=_JOB,
    ),
]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since",
        metavar="VALUE",
        help="Incremental jobs: rows from this value on, not from the last run's. Deleted rows are not seen.",
        rich_help_panel=_JOB,
    ),
]
FullRefresh: TypeAlias = Annotated[
    bool, typer.Option("--full-refresh", help="Incremental jobs: all rows, once.", rich_help_panel=_JOB)
]
Restart: TypeAlias = Annotated[
    bool,
    typer.Option("--restart", help="Begin anew, where an earlier run did not end.", rich_help_panel=_JOB),
]
WaitForLease: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--wait-for-lease",
        metavar="SECONDS",
        help="Wait so long where another run of this job is at work. \\[default: 0]",
        rich_help_panel=_JOB,
    ),
]
Timeout: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        metavar="TIME",
        help="End after so long, as SIGTERM does: 90s, 30m, 2h. \\[default: any time]",
        rich_help_panel=_JOB,
    ),
]
Verify: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read back what was written, chunk by chunk, and compare. The exit code is 4 if anything differs.",
        rich_help_panel=_JOB,
    ),
]
DryRun: TypeAlias = Annotated[
    bool,
    typer.Option("--dry-run", help="Only tell what would be done, as momento-etl plan does.", rich_help_panel=_JOB),
]
SchemaContract: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--schema-contract",
        metavar="CONTRACT",
        help="Where columns changed since the last run: evolve goes on, freeze fails. \\[default: evolve]",
        autocompletion=complete.words("evolve", "freeze"),
        rich_help_panel=_JOB,
    ),
]
Unrepresentable: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--on-unrepresentable",
        metavar="ACTION",
        help="Numbers that DynamoDB cannot hold: reject the row, write a string, or fail. \\[default: reject]",
        autocompletion=complete.words("reject", "string", "fail"),
        rich_help_panel=_JOB,
    ),
]
MaxRejects: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-rejects",
        metavar="N|N%",
        help="Fail if more rows are rejected. \\[default: any number may be]",
        rich_help_panel=_JOB,
    ),
]
RejectsPath: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--rejects-file",
        metavar="FILE",
        help="Where rejected rows go. \\[default: JOB-RUN.rejects.jsonl here]",
        rich_help_panel=_OUTPUT,
    ),
]
RunId: TypeAlias = Annotated[
    str | None,
    typer.Option("--run-id", metavar="RUN", help="This run. \\[default: the current one]", rich_help_panel=_JOB),
]
Cache: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--cache",
        metavar="NAME",
        help="The Momento cache. \\[default: named after the job]",
        rich_help_panel=_PLACES,
    ),
]
Destination: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--destination",
        metavar="NAME",
        help="The DynamoDB table. \\[default: named after the job]",
        rich_help_panel=_PLACES,
    ),
]
MaxWrites: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--max-writes",
        metavar="N",
        help="At most so many DynamoDB write units a second. \\[default: as many as it takes]",
        rich_help_panel=_PLACES,
    ),
]
Ttl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ttl",
        metavar="TIME",
        help="How long entries stay in the cache: 90s, 80m, 24h. \\[default: 80m]",
        rich_help_panel=_PLACES,
    ),
]
Config: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The config file. \\[default: momento-etl.toml here, then the user's]",
        rich_help_panel=_PLACES,
    ),
]
Local: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--local",
        help="The embedded stack: PostgreSQL with sample films, Momento and DynamoDB on this machine.",
        rich_help_panel=_PLACES,
    ),
]
SourceUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--source",
        "--source-url",
        metavar="URL",
        help="This PostgreSQL, for once: a URL, libpq's keywords, or env:NAME. Others on this machine can see a"
        " password in it.",
        rich_help_panel=_PLACES,
    ),
]
SourceUrlBesides: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--source-url",
        metavar="URL",
        help="This PostgreSQL, for once: a URL, libpq's keywords, or env:NAME.",
        rich_help_panel=_PLACES,
    ),
]
OutputOption: TypeAlias = Annotated[
    OutputFormat,
    typer.Option(
        "--output",
        metavar="FORMAT",
        help="text, json (one object at the end) or jsonl (events, then that object).",
        rich_help_panel=_OUTPUT,
    ),
]
Quiet: TypeAlias = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only errors on stderr.", rich_help_panel=_OUTPUT)
]
LogFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--log-file",
        metavar="FILE",
        help="Write all that is said on stderr, and what --verbose adds, to this file too.",
        rich_help_panel=_OUTPUT,
    ),
]
Verbose: TypeAlias = Annotated[
    bool,
    typer.Option("--verbose", "-v", help="Tracebacks, and what the libraries log.", rich_help_panel=_OUTPUT),
]


quoted = shlex.quote


def written(*, local: bool = False, **given: str | None) -> str:
    """Write the options that another command needs to find the same places, ready to be pasted behind it."""
    words = ["--local"] if local else []
    for name, value in given.items():
        words += [f"--{name}", shlex.quote(value)] if value is not None else []
    return "".join(f" {word}" for word in words)
