"""What people see of a summary and of a cache: lines and tables, at any width, with or without colour."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from etlcli.cli.output import visible
from etlcli.config import format_duration
from etlcli.inspection import Inspection, Item, RunView
from etlcli.model import Key, Reject
from etlcli.report import Report

if TYPE_CHECKING:
    from etlcli.local.stack import PartStatus

__all__ = [
    "age",
    "inspection_text",
    "item_table",
    "item_values",
    "parts_table",
    "rejects_table",
    "size",
    "summary_text",
]

_STATUS_WORDS = {
    "succeeded": ("done", "green bold"),
    "rejected_rows": ("done, with rejected rows", "yellow bold"),
    "failed": ("failed", "red bold"),
    "interrupted": ("interrupted", "yellow bold"),
}
_REJECTS_SHOWN = 5
_VALUE_WIDTH = 60
_KILO = 1000


def summary_text(
    summary: dict[str, Any], report: Report, *, moving_seconds: float, follow_up: str | None = None
) -> RenderableType:
    """Render a summary: what was read, cached and written, what it took, and where to look next.

    Args:
        summary: The summary object.
        report: Where it comes from.
        moving_seconds: How long rows moved: without the start of an embedded stack, for example.
        follow_up: The command to go on with.
    """
    words, style = _STATUS_WORDS[summary["status"]]
    head = Text.assemble(
        (visible(f"{summary['command']} {summary['job']}"), "bold"), ": ", (words, style), f" in {_seconds(summary)}"
    )
    lines: list[tuple[str, str | Text]] = []
    manifest = report.manifest
    loads_only = summary["snapshots"] == 0
    if manifest is not None:
        times = "1 snapshot" if summary["snapshots"] == 1 else f"{summary['snapshots']} snapshots"
        how = f", extracted {age(manifest.started_at)} ago" if loads_only else f" ({times})"
        lines.append(("read", f"{_rows(summary['rows_extracted'])} from {manifest.source}{how}"))
    if summary["cache"]:
        kept = f" for {format_duration(manifest.ttl_seconds)}" if manifest else ""
        chunks = "1 chunk" if summary["chunks"] == 1 else f"{summary['chunks']:,} chunks"
        encoded = summary["bytes_encoded"]
        shrunk = f" ({size(encoded)} before compression)" if encoded else ""
        cached = f"{chunks}, {size(summary['bytes_cached'])}{shrunk}, in cache {summary['cache']}{kept}"
        lines.append(("cached", cached))
    if summary["destination"]:
        made = " (made now)" if summary["destination_created"] else ""
        lines.append(("written", f"{_items(summary['rows_loaded'])} to table {summary['destination']}{made}"))
    if summary["rows_rejected"]:
        lines.append(("rejected", Text(_rows(summary["rows_rejected"]), style="yellow")))
    if summary["rows_dropped"]:
        lines.append(("dropped", _rows(summary["rows_dropped"])))
    moved = summary["rows_loaded"] if summary["destination"] else summary["rows_extracted"]
    if moved and moving_seconds > 0:
        lines.append(("rate", f"{moved / moving_seconds:,.0f} rows/s"))
    slowed = f", {summary['throttles']:,} throttles" if summary["throttles"] else ""
    again = f", {summary['retries']:,} retries" if summary["retries"] else ""
    calls = f"{summary['momento_calls']:,} calls, {summary['momento_operations']:,} metered operations"
    lines.append(("momento", f"{calls}{slowed}{again}"))
    lines.append(("run", str(summary["run_id"])))
    if summary["rows_rejected"] and follow_up is not None:
        # A run that failed is not the current one, which is what inspect-cache shows unless it is told.
        which = f" --run-id {summary['run_id']}" if summary["status"] == "failed" else ""
        lines.append(("next", f"{follow_up}{which} --rejects" if "inspect-cache" in follow_up else follow_up))
    elif summary["status"] == "succeeded" and follow_up is not None:
        lines.append(("next", follow_up))
    parts: list[RenderableType] = [head, _Facts(lines)]
    if report.rejects:
        parts += [Text(), rejects_table(report.rejects[:_REJECTS_SHOWN], summary["rows_rejected"], _VALUE_WIDTH)]
    return Group(*parts)


def inspection_text(inspection: Inspection, shown: RunView | None) -> RenderableType:
    """Render what the cache holds of a job, and one of its runs more closely."""
    if not inspection.runs:
        return Text(visible(f"Cache {inspection.cache} holds no run of {inspection.job}."))
    runs = _table(f"Runs of {inspection.job} in cache {inspection.cache}")
    runs.add_column("run", no_wrap=True)
    runs.add_column("state", no_wrap=True)
    for name in ("rows", "chunks", "stored", "age", "left"):
        runs.add_column(name, justify="right", no_wrap=True)
    for run in inspection.runs:
        runs.add_row(
            run.manifest.run_id,
            _state(run),
            f"{sum(chunk.rows for chunk in run.chunks):,}",
            f"{len(run.chunks):,}",
            size(sum(chunk.bytes_stored for chunk in run.chunks)),
            age(run.manifest.started_at),
            _left(run),
        )
    parts: list[RenderableType] = [runs]
    if shown is not None:
        parts += [Text(), Text(f"Run {shown.manifest.run_id}", style="bold"), _facts(shown)]
        if shown.chunks:
            parts += [Text(), _chunk_table(shown)]
        if inspection.sample and shown.current:
            parts += [Text(), Text("First rows", style="bold"), _Sample(inspection.sample, shown.manifest.key)]
    return Group(*parts)


def item_table(item: Item, run: RunView) -> RenderableType:
    """Render one row: attribute, type, value, and the column's PostgreSQL type."""
    types = {column.name: column.type.name for column in run.manifest.columns}
    table = _table(f"Row of run {run.manifest.run_id}")
    table.add_column("attribute", overflow="fold")
    table.add_column("type", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", style="dim")
    names = [attribute.name for attribute in run.manifest.key.attributes]
    for name in dict.fromkeys([*names, *types, *item]):
        if name in item:
            kind, content = next(iter(item[name].items()))
            table.add_row(visible(name), kind, _content(kind, content), types.get(name, ""))
        else:
            table.add_row(visible(name), Text("absent", style="dim"), Text("NULL", style="dim"), types[name])
    return table


def item_values(kind: str, content: Any) -> str:
    """Write an attribute value of DynamoDB JSON for people: ``[1, "a"]`` rather than ``[{"N":"1"},{"S":"a"}]``."""
    match kind:
        case "L":
            return "[" + ", ".join(_nested(value) for value in content) + "]"
        case "M":
            return "{" + ", ".join(f"{visible(name)}: {_nested(value)}" for name, value in content.items()) + "}"
        case "NULL":
            return "NULL"
        case "BOOL":
            return "true" if content else "false"
        case _:
            return visible(str(content))


def rejects_table(rejects: Sequence[Reject], total: int, row_width: int = 2 * _VALUE_WIDTH) -> RenderableType:
    """Render rejected rows with their rules, each row cut after so many characters."""
    count = "1 rejected row" if total == 1 else f"{total:,} rejected rows"
    table = _table(f"{len(rejects)} of {count}" if total > len(rejects) else count)
    table.add_column("rule", no_wrap=True)
    table.add_column("why", overflow="fold")
    table.add_column("row", overflow="fold")
    for reject in rejects:
        row = ", ".join(f"{name}={value}" for name, value in reject.row.items())
        table.add_row(reject.rule, visible(reject.message), visible(_short(row, row_width)))
    return table


def parts_table(parts: Sequence[PartStatus]) -> RenderableType:
    """Render the embedded stack's parts: what answers, where, and why something does not."""
    table = _table(None)
    for name in ("part", "state", "port", "process", "since (UTC)"):
        table.add_column(name, justify="right" if name in ("port", "process") else "left", no_wrap=True)
    for part in parts:
        table.add_row(
            part.name,
            Text(part.state.value, style="green" if part.state.value == "running" else "yellow"),
            str(part.port or "-"),
            str(part.pid or "-"),
            f"{part.since:%Y-%m-%d %H:%M:%S}" if part.since else "-",
        )
    logs = sorted({str(part.log.parent) for part in parts})
    lines: list[tuple[str, str | Text]] = [
        (part.name, Text(visible(part.problem), style="yellow")) for part in parts if part.problem
    ]
    return Group(table, Text(), _Facts([*lines, *(("logs", f"{folder}/*.log") for folder in logs)]))


def size(count: int) -> str:
    """Write bytes for people: ``243 kB``, ``1.9 MB``."""
    if count < _KILO:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= _KILO
        # 999.6 kB would be written as 1e+03 kB.
        if value < _KILO - 0.5 or unit == "TB":
            break
    return f"{value:.3g} {unit}" if value < _KILO - 0.5 else f"{value:,.0f} {unit}"


def age(moment: float) -> str:
    """Write how long ago a moment (seconds since 1970) was: ``12s``, ``5m``, ``3h``."""
    seconds = max(0, int(time.time() - moment))
    return _roughly(seconds)


def _roughly(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _table(title: str | None) -> Table:
    """Start a table: one line below the head, and no more of a frame, which leaves the width to what it holds."""
    return Table(
        title=None if title is None else visible(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )


class _Facts:
    """Labels, each with a line or a paragraph that hangs beside it."""

    def __init__(self, lines: Iterable[tuple[str, str | Text]]) -> None:
        self._lines = [
            (label, text if isinstance(text, Text) else Text(visible(text), overflow="fold")) for label, text in lines
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        indent = max((len(label) for label, _ in self._lines), default=0) + 2
        if not console.is_terminal:
            # In a log, what belongs together stays on one line, however long.
            for label, text in self._lines:
                line = Text.assemble((label.ljust(indent), "dim"), text)
                line.no_wrap, line.overflow = True, "ignore"
                yield line
            return
        for label, text in self._lines:
            for number, line in enumerate(text.wrap(console, max(options.max_width - indent, 20), overflow="fold")):
                line.rstrip()
                yield Text.assemble((("" if number else label).ljust(indent), "dim"), line)


class _Sample:
    """Rows of a run: as many columns as fit whole into the width, the key's first."""

    def __init__(self, items: Sequence[Item], key: Key) -> None:
        self._items = items
        names = [attribute.name for attribute in key.attributes]
        self._names = list(dict.fromkeys([*names, *(name for item in items for name in item)]))
        self._keys = len(names)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self._keys
        while shown < len(self._names):
            wider = self._table(self._names[: shown + 1])
            if console.measure(wider, options=options.update(width=10_000)).maximum > options.max_width:
                break
            shown += 1
        yield self._table(self._names[:shown])
        if shown < len(self._names):
            rest = len(self._names) - shown
            more = "1 more attribute" if rest == 1 else f"{rest} more attributes"
            yield Text(f"and {more} (--row KEY shows a row whole)", style="dim italic")

    def _table(self, names: Sequence[str]) -> Table:
        table = _table(None)
        for name in names:
            kinds = {kind for item in self._items if name in item for kind in item[name]}
            # Only a key that is wider than the screen by itself is ever cut: whatever else does not fit is left out.
            table.add_column(
                visible(name), justify="right" if kinds == {"N"} else "left", no_wrap=True, overflow="ellipsis"
            )
        for item in self._items:
            table.add_row(*(_cell(item.get(name)) for name in names))
        return table


def _cell(value: Item | None) -> Text:
    if value is None:
        return Text("-", style="dim")
    kind, content = next(iter(value.items()))
    text = item_values(kind, content)
    return Text(text if kind == "N" else _short(text, _VALUE_WIDTH // 2))


def _state(run: RunView) -> Text:
    if run.manifest.status != "complete":
        return Text("partial", style="yellow")
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
    facts: list[tuple[str, str | Text]] = [
        ("source", manifest.source),
        ("key", str(manifest.key)),
        ("columns", ", ".join(f"{column.name} {column.type.name}" for column in manifest.columns)),
        ("layout", f"{manifest.layout}, {size(manifest.totals.bytes_encoded)} before compression"),
    ]
    if manifest.totals.rows_rejected:
        facts.append(("rejected", f"{_rows(manifest.totals.rows_rejected)} (--rejects lists them)"))
    if manifest.chunks_freed:
        facts.append(("freed", f"{manifest.chunks_freed:,} chunks, after they had been loaded"))
    return _Facts(facts)


_CHUNKS_SHOWN = 12


def _chunk_table(run: RunView) -> RenderableType:
    table = _table("Chunks")
    for name in ("chunk", "rows", "stored"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("first key", overflow="ellipsis", no_wrap=True)
    table.add_column("last key", overflow="ellipsis", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
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
    return visible(", ".join("NULL" if value is None else value for value in values)) or "-"


def _content(kind: str, content: Any) -> str:
    """Write a value that has a cell of its own: a long text keeps its line breaks."""
    return visible(str(content), lines=True) if kind == "S" else item_values(kind, content)


def _nested(value: Item) -> str:
    kind, content = next(iter(value.items()))
    return f'"{visible(content)}"' if kind == "S" else item_values(kind, content)


def _short(text: str, width: int) -> str:
    return text if cell_len(text) <= width else f"{text[: width - 1]}…"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count:,} items"


def _seconds(summary: dict[str, Any]) -> str:
    return f"{summary['duration_seconds']:.1f} s"
