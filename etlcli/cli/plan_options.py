"""The options of ``plan`` alone."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

__all__ = ["Concurrency", "Exact", "MomentoLimit", "Ranges", "Remote", "Rows", "WriteLimit"]

_FORECAST = "Forecast"
_REMOTE = "In AWS"

Exact: TypeAlias = Annotated[
    bool,
    typer.Option("--exact", help="Read all rows, once, rather than a sample of them.", rich_help_panel=_FORECAST),
]
MomentoLimit: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--momento-limit",
        metavar="N",
        min=1,
        help="Metered operations that Momento takes in a second. \\[default: 100, an account's on demand]",
        rich_help_panel=_FORECAST,
    ),
]
WriteLimit: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--write-limit",
        metavar="N",
        min=1,
        help="Write units that DynamoDB takes in a second. \\[default: 4000, a new table's on demand]",
        rich_help_panel=_FORECAST,
    ),
]
Rows: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--rows",
        metavar="N",
        min=1,
        help="As if there were so many rows, of the kind that there are.",
        rich_help_panel=_FORECAST,
    ),
]
Remote: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--remote",
        help="Also what a run by the Lambda functions of `deploy` would do, and cost.",
        rich_help_panel=_REMOTE,
    ),
]
Concurrency: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--concurrency",
        metavar="N",
        min=1,
        max=10_000,
        help="With --remote: at most so many blocks of ranges at once. \\[default: 10]",
        rich_help_panel=_REMOTE,
    ),
]
Ranges: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--ranges",
        metavar="N",
        min=1,
        max=1_000_000,
        help="With --remote: about so many ranges. \\[default: one for each 50,000 rows]",
        rich_help_panel=_REMOTE,
    ),
]
