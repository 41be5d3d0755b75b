"""What people see of a summary and of a cache: lines and tables, at any width, with or without colour."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from etlcli.config import format_duration
from etlcli.inspection import Inspection, Item, RunView
from etlcli.model import Key, Reject
from etlcli.report import Report

__all__ = ["age", "inspection_text", "item_table", "item_values", "rejects_table", "size", "summary_text"]

_STATUS_WORDS = {
    "succeeded": ("done", "green bold"),
    "rejected_rows": ("done, with rejected rows", "yellow bold"),
    "failed": ("failed", "red bold"),
    "interrupted": ("interrupted", "yellow bold"),
}
_REJECTS_SHOWN = 5
_VALUE_WIDTH = 60
_KILO = 1000


def summary_text(summary: dict[str, Any], report: Report) -> RenderableType:
    """Render a summary: what was read, cached and written, and what it took."""
    words, style = _STATUS_WORDS[summary["status"]]
    head = Text.assemble(
        (f"{summary['command']} {summary['job']}", "bold"), ": ", (words, style), f" in {_seconds(summary)}"
    )
    lines = Table.grid(padding=(0, 2))
    lines.add_column(no_wrap=True, style="dim")
    lines.add_column(overflow="fold")
    manifest = report.manifest
    if manifest is not None:
        times = "1 snapshot" if summary["snapshots"] == 1 else f"{summary['snapshots']} snapshots"
        read = f" ({times})" if summary["snapshots"] else f", extracted {age(manifest.started_at)} ago"
        lines.add_row("read", f"{_rows(summary['rows_extracted'])} from {manifest.source}{read}")
    if summary["cache"]:
        kept = f" for {format_duration(manifest.ttl_seconds)}" if manifest else ""
        chunks = "1 chunk" if summary["chunks"] == 1 else f"{summary['chunks']:,} chunks"
        lines.add_row("cached", f"{chunks}, {size(summary['bytes_cached'])}, in cache {summary['cache']}{kept}")
    if summary["destination"]:
        made = " (made now)" if summary["destination_created"] else ""
        lines.add_row("written", f"{_items(summary['rows_loaded'])} to table {summary['destination']}{made}")
    if summary["rows_rejected"]:
        lines.add_row("rejected", Text(_rows(summary["rows_rejected"]), style="yellow"))
    if summary["rows_dropped"]:
        lines.add_row("dropped", _rows(summary["rows_dropped"]))
    slowed = f", {summary['throttles']:,} throttles" if summary["throttles"] else ""
    again = f", {summary['retries']:,} retries" if summary["retries"] else ""
    lines.add_row(
        "momento",
        f"{summary['momento_calls']:,} calls, {summary['momento_operations']:,} metered operations{slowed}{again}",
    )
    lines.add_row("run", str(summary["run_id"]))
    parts: list[RenderableType] = [head, lines]
    if report.rejects:
        parts.append(rejects_table(report.rejects[:_REJECTS_SHOWN], summary["rows_rejected"]))
        parts.append(Text(f"All of them: momento-etl inspect-cache {summary['job']} --rejects", style="dim"))
    return Group(*parts)


def inspection_text(inspection: Inspection) -> RenderableType:
    """Render what the cache holds of a job."""
    if not inspection.runs:
        return Text(f"Cache {inspection.cache} holds no run of {inspection.job}.")
    runs = Table(
        title=f"Runs of {inspection.job} in cache {inspection.cache}", title_justify="left", title_style="bold"
    )
    runs.add_column("run", overflow="fold")
    runs.add_column("state")
    for name in ("rows", "chunks", "stored", "extracted", "time left"):
        runs.add_column(name, justify="right")
    for run in inspection.runs:
        runs.add_row(
            run.manifest.run_id,
            _state(run),
            f"{sum(chunk.rows for chunk in run.chunks):,}",
            f"{len(run.chunks):,}",
            size(sum(chunk.bytes_stored for chunk in run.chunks)),
            f"{age(run.manifest.started_at)} ago",
            _left(run),
        )
    parts: list[RenderableType] = [runs]
    current = inspection.current
    if current is not None:
        parts += [Text(), _facts(current), Text(), _chunk_table(current)]
        if inspection.sample:
            parts += [
                Text(),
                Text(f"First rows of {current.manifest.run_id}", style="bold"),
                _sample_table(inspection.sample, current.manifest.key),
            ]
    return Group(*parts)


def item_table(item: Item, run: RunView) -> RenderableType:
    """Render one row: attribute, type, value, and the column's PostgreSQL type."""
    types = {column.name: column.type.name for column in run.manifest.columns}
    table = Table(title=f"Row of run {run.manifest.run_id}", title_justify="left", title_style="bold")
    table.add_column("attribute")
    table.add_column("type")
    table.add_column("value", overflow="fold")
    table.add_column("from", style="dim")
    for name, value in item.items():
        kind, content = next(iter(value.items()))
        table.add_row(name, kind, item_values(kind, content), types.get(name, ""))
    for name in types.keys() - item.keys():
        table.add_row(name, Text("absent", style="dim"), Text("NULL", style="dim"), types[name])
    return table


def item_values(kind: str, content: Any) -> str:
    """Write an attribute value of DynamoDB JSON for people: ``[1, "a"]`` rather than ``[{"N":"1"},{"S":"a"}]``."""
    match kind:
        case "L":
            return "[" + ", ".join(_nested(value) for value in content) + "]"
        case "M":
            return "{" + ", ".join(f"{name}: {_nested(value)}" for name, value in content.items()) + "}"
        case "NULL":
            return "NULL"
        case "BOOL":
            return "true" if content else "false"
        case _:
            return str(content)


def rejects_table(rejects: Sequence[Reject], total: int) -> RenderableType:
    """Render rejected rows with their rules."""
    shown = f"{len(rejects)} of {total:,} rejected rows" if total > len(rejects) else f"{total:,} rejected rows"
    table = Table(title=shown, title_justify="left", title_style="bold")
    table.add_column("rule", no_wrap=True)
    table.add_column("why", overflow="fold")
    table.add_column("row", overflow="fold")
    for reject in rejects:
        row = ", ".join(f"{name}={value}" for name, value in reject.row.items())
        table.add_row(reject.rule, reject.message, _short(row, 2 * _VALUE_WIDTH))
    return table


def size(count: int) -> str:
    """Write bytes for people: ``243 kB``, ``1.9 MB``."""
    if count < _KILO:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= _KILO
        if value < _KILO or unit == "TB":
            break
    return f"{value:.3g} {unit}" if value < _KILO else f"{value:,.0f} {unit}"


def age(moment: float) -> str:
    """Write how long ago a moment (seconds since 1970) was: ``12s``, ``5m``, ``3h``."""
    seconds = max(0, int(time.time() - moment))
    return _roughly(seconds)


def _roughly(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _state(run: RunView) -> Text:
    if run.manifest.status != "complete":
        return Text("not complete", style="yellow")
    if run.current:
        return Text("current", style="green")
    return Text("complete")


def _left(run: RunView) -> Text:
    if run.seconds_left is None:
        return Text("-")
    if run.seconds_left <= 0:
        return Text("expired", style="red")
    return Text(_roughly(int(run.seconds_left)))


def _facts(run: RunView) -> RenderableType:
    manifest = run.manifest
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim")
    facts.add_column(overflow="fold")
    facts.add_row("source", manifest.source)
    facts.add_row("key", str(manifest.key))
    facts.add_row("columns", ", ".join(f"{column.name} {column.type.name}" for column in manifest.columns))
    facts.add_row("layout", f"{manifest.layout}, {size(manifest.totals.bytes_encoded)} before compression")
    if manifest.totals.rows_rejected:
        facts.add_row("rejected", f"{manifest.totals.rows_rejected:,} rows (--rejects lists them)")
    if manifest.chunks_freed:
        facts.add_row("freed", f"{manifest.chunks_freed:,} chunks, after they had been loaded")
    return facts


_CHUNKS_SHOWN = 12


def _chunk_table(run: RunView) -> RenderableType:
    table = Table(title="Chunks", title_justify="left", title_style="bold")
    for name in ("chunk", "rows", "stored"):
        table.add_column(name, justify="right")
    table.add_column("first key", overflow="ellipsis", no_wrap=True)
    table.add_column("last key", overflow="ellipsis", no_wrap=True)
    table.add_column("time left", justify="right")
    for chunk in run.chunks[:_CHUNKS_SHOWN]:
        left = int(chunk.stored_at + run.manifest.ttl_seconds - time.time())
        table.add_row(
            str(chunk.number),
            f"{chunk.rows:,}",
            size(chunk.bytes_stored),
            _key_text(chunk.first_key),
            _key_text(chunk.last_key),
            _roughly(left) if left > 0 else Text("expired", style="red"),
        )
    if len(run.chunks) > _CHUNKS_SHOWN:
        table.caption = f"and {len(run.chunks) - _CHUNKS_SHOWN:,} more (--output json has all)"
        table.caption_justify = "left"
    return table


def _key_text(values: tuple[str | None, ...]) -> str:
    return ", ".join("NULL" if value is None else value for value in values) or "-"


def _sample_table(sample: Sequence[Item], key: Key) -> RenderableType:
    names = [attribute.name for attribute in key.attributes]
    names += [name for name in dict.fromkeys(name for item in sample for name in item) if name not in names]
    # As many columns as stay readable at 80 characters; --row shows a row whole.
    shown = names[:6]
    table = Table()
    for name in shown:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for item in sample:
        table.add_row(
            *(
                _short(item_values(*next(iter(item[name].items()))), _VALUE_WIDTH) if name in item else ""
                for name in shown
            )
        )
    if len(names) > len(shown):
        table.caption = f"and {len(names) - len(shown)} more attributes (--row KEY shows a row whole)"
        table.caption_justify = "left"
    return table


def _nested(value: Item) -> str:
    kind, content = next(iter(value.items()))
    return f'"{content}"' if kind == "S" else item_values(kind, content)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count:,} items"


def _seconds(summary: dict[str, Any]) -> str:
    return f"{summary['duration_seconds']:.1f} s"
