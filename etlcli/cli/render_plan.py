"""What people see of a forecast: a figure for each thing that a run takes, and the rows that would be rejected."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from etlcli.cli.blocks import Facts, Figures, plain_table
from etlcli.cli.output import visible
from etlcli.cli.render import size
from etlcli.config import format_duration, format_size
from etlcli.encoding import hint_of
from etlcli.forecast import DEFAULT_LIMITS, Bill, Forecast, RuleCount, Timing
from etlcli.incremental import TIMES
from etlcli.model import Job, Manifest, WatermarkMove

__all__ = ["duration", "money", "plan_text", "plans_text"]

_ROW_WIDTH = 60
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


def plan_text(
    job: Job, manifest: Manifest, forecast: Forecast, timing: Timing, bill: Bill, price_sources: dict[str, str]
) -> RenderableType:
    """Render what a run would do.

    Args:
        job: The job.
        manifest: The rehearsed run's.
        forecast: What is predicted.
        timing: How long it takes at least.
        bill: What it costs.
        price_sources: Where each price comes from.
    """
    words = _Words("" if forecast.exact else "~")
    usage = forecast.usage
    columns = "1 column" if len(manifest.columns) == 1 else f"{len(manifest.columns):,} columns"
    figures = [
        ("rows", words.count(usage.rows_extracted), f"to read from {manifest.source}, {columns}"),
        ("items", words.count(usage.rows_loaded), words.destination(forecast, job, manifest)),
    ]
    if usage.rows_rejected:
        figures.append(("rejected", words.count(usage.rows_rejected), "rows that DynamoDB cannot hold, see below"))
    if usage.rows_dropped:
        figures.append(("dropped", words.count(usage.rows_dropped), "rows that the transform leaves out"))
    figures += [
        ("chunks", words.count(usage.chunks), words.cache(forecast, job)),
        ("operations", words.count(forecast.momento_operations), words.momento(forecast)),
        ("write units", words.count(forecast.write_units), words.dynamodb(forecast)),
    ]
    if job.mode == "replace":
        figures.append(("read units", *words.replace(forecast, job)))
    figures += [
        ("time", f"{words.about}{duration(timing.seconds)}", words.time(forecast, timing)),
        ("cost", f"{words.about}{money(bill.total)}", words.cost(bill, price_sources)),
    ]
    parts: list[RenderableType] = [_head(job, forecast), Figures(figures)]
    if manifest.watermark is not None:
        parts += [Text(), Facts(_incremental(manifest.watermark))]
    if forecast.rejects:
        parts += [Text(), _rejects(forecast.rejects, words)]
    return Group(*parts)


def plans_text(summary: dict[str, Any]) -> RenderableType:
    """Render what several runs would do: a line for each, and one for all of them."""
    table = plain_table(f"{summary['command']} of {len(summary['jobs'])} jobs")
    table.add_column("job", overflow="fold")
    for name in ("rows", "rejected", "operations", "write units", "time", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for job in summary["jobs"]:
        if job["plan"] is None:
            table.add_row(visible(job["job"]), Text(job["status"], style="red"))
            continue
        table.add_row(visible(job["job"]), *_figures(job["plan"]))
    for name in summary["not_begun"]:
        table.add_row(visible(name), Text("not begun", style="dim"))
    if summary["plan"] is not None:
        table.add_section()
        table.add_row("all", *_figures(summary["plan"]), style="bold")
    return Group(Text(), table)


def duration(seconds: float) -> str:
    """Write a time for people: ``4.9 s``, ``8.2 min``, ``3.4 h``."""
    for unit, length in (("days", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s"


def money(amount: Decimal) -> str:
    """Write dollars for people: cents, or what less than a cent is, to two figures."""
    if not amount or amount >= Decimal("0.1"):
        return f"${amount:,.2f}"
    digits = max(2, 1 - amount.adjusted())
    return f"${amount:.{digits}f}" if digits <= 6 else "less than $0.000001"


class _Words:
    """Lines in which every figure is marked as what it is.

    Args:
        about: What stands before a figure that is an estimate: ``~``; empty where all rows were read.
    """

    def __init__(self, about: str) -> None:
        self.about = about

    def count(self, figure: int) -> str:
        return f"{self.about}{figure:,}"

    def destination(self, forecast: Forecast, job: Job, manifest: Manifest) -> str:
        return f"to write to table {job.destination} ({_existence(forecast)}): {manifest.key}, mode {job.mode}"

    def cache(self, forecast: Forecast, job: Job) -> str:
        usage = forecast.usage
        shrunk = f" ({size(usage.bytes_encoded)} before compression)" if usage.bytes_encoded else ""
        bound = format_size(job.max_cached_bytes)
        if forecast.fits_extract:
            fits = f"extract alone fits, too ({bound})"
        else:
            fits = f"over {bound} (max_cached_bytes): run frees chunks on the way, extract alone does not fit"
        kept = format_duration(job.ttl_seconds)
        return f"{self.about}{size(usage.bytes_stored)}{shrunk}, in cache {job.cache} for {kept}; {fits}"

    def momento(self, forecast: Forecast) -> str:
        return f"metered by Momento, in {self.about}{forecast.momento_calls:,} calls"

    def dynamodb(self, forecast: Forecast) -> str:
        larger = "" if forecast.table_exists is False else "; more where an item takes the place of a larger one"
        return f"of DynamoDB{larger}"

    def replace(self, forecast: Forecast, job: Job) -> tuple[str, str]:
        if not forecast.table_exists:
            return "0", "removes nothing: a new table has no items of earlier runs"
        removed = f"at most {job.max_deletes} of the job's items are removed, a write unit or more each"
        return self.count(math.ceil(forecast.read_units)), f"at most, to look for items whose rows are gone; {removed}"

    def time(self, forecast: Forecast, timing: Timing) -> str:
        limits = timing.limits
        waits = [
            (timing.momento_seconds, f"{forecast.momento_operations:,} operations", limits.momento_operations),
            (timing.write_seconds, f"{forecast.write_units:,} write units", limits.write_units),
        ]
        if timing.bounded_by == "dynamodb":
            waits.reverse()
        (_, most, most_limit), (seconds, other, limit) = waits
        whose = ", with the limits of new accounts" if limits == DEFAULT_LIMITS else ""
        return f"at least{whose}: {most} at {most_limit:,}/s ({other} at {limit:,}/s: {duration(seconds)})"

    def cost(self, bill: Bill, sources: dict[str, str]) -> str:
        parts = [f"writes {money(bill.dynamodb_write)}", f"Momento {money(bill.momento_transfer)}"]
        used = {"DynamoDB": [sources["dynamodb_write"]], "Momento": [sources["momento_transfer"]]}
        if bill.dynamodb_read:
            parts.insert(1, f"reads {money(bill.dynamodb_read)}")
            used["DynamoDB"].append(sources["dynamodb_read"])
        origins = "; ".join(f"{name} {' and '.join(dict.fromkeys(found))}" for name, found in used.items())
        return f"{', '.join(parts)} (prices: {origins})"


def _head(job: Job, forecast: Forecast) -> Text:
    sample = forecast.sample
    if not forecast.exact and forecast.usage.rows_extracted != sample.total:
        basis = ("an estimate", "yellow bold"), f" for other rows than there are, from {sample.rows:,} of these"
    elif not forecast.exact:
        basis = ("an estimate", "yellow bold"), f" from {sample.rows:,} rows (--exact reads all)"
    elif forecast.verdict is not None:
        basis = ("the run would fail", "red bold"), " (all rows were read)"
    else:
        basis = ("exact", "green bold"), ", all rows were read"
    return Text.assemble((visible(f"plan {job.name}"), "bold"), ": ", *basis)


def _existence(forecast: Forecast) -> str:
    if forecast.table_exists is None:
        return "not looked at: no destination is configured"
    if not forecast.table_exists:
        return "would be made"
    return "is there" if forecast.table_items is None else f"is there, about {forecast.table_items:,} items"


def _incremental(move: WatermarkMove) -> list[tuple[str, str]]:
    began = "all rows"
    if move.since is not None:
        overlap = format_duration(move.overlap) if move.type in TIMES else f"{move.overlap:,}"
        began = f"{move.column} from {move.since}" + (f" less {overlap}" if move.overlap else "")
    return [("taken", began), ("watermark", f"then {move.column} {move.value}" if move.moves else "stays")]


def _rejects(counts: Sequence[RuleCount], about: _Words) -> RenderableType:
    table = plain_table("Rows that would be rejected")
    table.add_column("rule", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("for example", overflow="fold")
    table.add_column("row", overflow="fold")
    for count in counts:
        example = count.examples[0]
        row = ", ".join(f"{name}={value}" for name, value in example.row.items())
        cut = row if len(row) <= _ROW_WIDTH else f"{row[: _ROW_WIDTH - 1]}…"
        table.add_row(count.rule, f"{about.about}{count.rows:,}", visible(example.message), visible(cut))
    hints = [(count.rule, hint) for count in counts if (hint := hint_of(count.rule))]
    return Group(table, Text(), Facts(hints)) if hints else table


def _figures(plan: dict[str, Any]) -> list[str]:
    about = "" if plan["exact"] else "~"
    return [
        f"{about}{plan['rows']['extracted']:,}",
        f"{about}{plan['rows']['rejected']:,}",
        f"{about}{plan['cache']['operations']:,}",
        f"{about}{plan['destination']['write_units']:,}",
        duration(plan["time"]["seconds"]),
        money(Decimal(str(plan["cost"]["total"]))),
    ]
