"""What people see of a summary, of past runs and of what is kept: lines and tables, at any width."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from etlcli.cli.blocks import Facts, item_values, plain_table, shortened
from etlcli.cli.output import visible
from etlcli.cli.render_differences import difference_count, differences_text
from etlcli.config import format_duration
from etlcli.encoding import hint_of
from etlcli.incremental import TIMES
from etlcli.inspection import Item, RunView
from etlcli.job_state import JobState
from etlcli.model import Reject, WatermarkMove
from etlcli.report import Report
from etlcli.state import LeaseRecord, RunRecord
from etlcli.verification.findings import Verification

if TYPE_CHECKING:
    from etlcli.local.stack import PartStatus

__all__ = [
    "age",
    "history_table",
    "item_table",
    "job_line",
    "job_state_text",
    "job_states_table",
    "jobs_text",
    "parts_table",
    "past_run_text",
    "rejects_table",
    "roughly",
    "size",
    "summary_text",
]

_STATUS_WORDS = {
    "succeeded": ("done", "green bold"),
    "rejected_rows": ("done, with rejected rows", "yellow bold"),
    "failed": ("failed", "red bold"),
    "interrupted": ("interrupted", "yellow bold"),
}
# A table has room for one word.
_RUN_STATES = {
    "running": ("running", "cyan"),
    "succeeded": ("done", "green"),
    "rejected_rows": ("rejects", "yellow"),
    "failed": ("failed", "red"),
    "interrupted": ("interrupted", "yellow"),
}
_SHORT_WORDS = {"succeeded": "done", "rejected_rows": "rejected rows"}
# With the figures above them they fit a screen of 24 lines.
_REJECTS_SHOWN = 3
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
    if report.watermark is not None:
        lines += _watermark(report.watermark, moved=report.watermark_moved, loads=bool(summary["destination"]))
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
    if summary["items_deleted"] is not None and summary["destination"]:
        gone = "row is gone" if summary["items_deleted"] == 1 else "rows are gone"
        lines.append(("deleted", f"{_items(summary['items_deleted'])} whose {gone}"))
    if summary["rows_rejected"]:
        lines.append(("rejected", Text(_rows(summary["rows_rejected"]), style="yellow")))
    if summary["rows_dropped"]:
        lines.append(("dropped", _rows(summary["rows_dropped"])))
    lines += _verified(report.verification)
    moved = summary["rows_loaded"] if summary["destination"] else summary["rows_extracted"]
    if moved and moving_seconds > 0 and not summary["resumed"]:  # of which an earlier attempt moved some
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
    parts: list[RenderableType] = [head, Facts(lines)]
    if report.rejects:
        parts += [Text(), rejects_table(report.rejects[:_REJECTS_SHOWN], summary["rows_rejected"], _VALUE_WIDTH)]
    return Group(*parts, *differences_text(report.verification))


def job_line(summary: dict[str, Any], place: str) -> Text:
    """Render what came of one of many jobs, in a line, its error's first line included.

    Args:
        summary: The job's summary object.
        place: Which of them it is: ``[3/60]``.
    """
    words, style = _STATUS_WORDS[summary["status"]]
    text = Text.assemble(
        (f"{place} ", "dim"), (visible(str(summary["job"])), "bold"), ": ", (words, style), f" in {_seconds(summary)}"
    )
    if summary["run_id"] is not None:
        text.append(f", {_items(summary['rows_loaded'])}")
    if summary["rows_rejected"]:
        text.append(f", {_rows(summary['rows_rejected'])} rejected")
    if summary["status"] == "failed":
        text.append(f": {visible(summary['error']['message'].partition(chr(10))[0])}")
    return text


def jobs_text(summary: dict[str, Any]) -> RenderableType:
    """Render what several jobs came to: a line on all, and a line for each."""
    words, style = _STATUS_WORDS[summary["status"]]
    count = len(summary["jobs"]) + len(summary["not_begun"])
    head = Text.assemble(
        (f"{summary['command']} of {'1 job' if count == 1 else f'{count} jobs'}", "bold"),
        ": ",
        (words, style),
        f" in {_seconds(summary)}, {_items(summary['rows_loaded'])}",
    )
    table = plain_table(None)
    table.add_column("job", overflow="fold")
    table.add_column("status", no_wrap=True)
    deletes = summary["items_deleted"] is not None
    for name in ("items", "rejected", *(("deleted",) if deletes else ()), "took"):
        table.add_column(name, justify="right", no_wrap=True)
    for job in summary["jobs"]:
        deleted = "-" if job["items_deleted"] is None else f"{job['items_deleted']:,}"
        table.add_row(
            visible(job["job"]),
            Text(_SHORT_WORDS.get(job["status"], job["status"]), style=_STATUS_WORDS[job["status"]][1]),
            f"{job['rows_loaded']:,}",
            f"{job['rows_rejected']:,}",
            *((deleted,) if deletes else ()),
            _seconds(job),
        )
    for name in summary["not_begun"]:
        table.add_row(visible(name), Text("not begun", style="dim"))
    return Group(Text(), head, table, Text())


def item_table(item: Item, run: RunView) -> RenderableType:
    """Render one row: attribute, type, value, and the column's PostgreSQL type."""
    types = {column.name: column.type.name for column in run.manifest.columns}
    table = plain_table(f"Row of run {run.manifest.run_id}")
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


def rejects_table(rejects: Sequence[Reject], total: int, row_width: int = 2 * _VALUE_WIDTH) -> RenderableType:
    """Render rejected rows with their rules, each row cut after so many characters; then what to do about each rule."""
    count = "1 rejected row" if total == 1 else f"{total:,} rejected rows"
    table = plain_table(f"{len(rejects)} of {count}" if total > len(rejects) else count)
    table.add_column("rule", no_wrap=True)
    table.add_column("why", overflow="fold")
    table.add_column("row", overflow="fold")
    for reject in rejects:
        row = ", ".join(f"{name}={value}" for name, value in reject.row.items())
        table.add_row(reject.rule, visible(reject.message), visible(shortened(row, row_width)))
    rules: dict[str, list[str]] = {}
    for rule in dict.fromkeys(reject.rule for reject in rejects):
        if hint := hint_of(rule):
            rules.setdefault(hint, []).append(rule)
    hints = [("hint", f"{', '.join(named)}: {hint}") for hint, named in rules.items()]
    return Group(table, Text(), Facts(hints)) if hints else table


def history_table(runs: Sequence[RunRecord], *, of_one_job: bool) -> RenderableType:
    """Render past runs, as much of each as fits into a line."""
    parts: list[RenderableType] = [_History(runs, of_one_job=of_one_job)]
    notes = []
    if any(run.status == "running" for run in runs):
        notes.append("running: or killed, since a run that is killed cannot write its end")
    if any(run.status == "failed" for run in runs):
        notes.append("--run-id RUN tells why a run failed")
    if notes:
        parts += [Text(), *(Text(note, style="dim italic") for note in notes)]
    return Group(*parts)


def past_run_text(run: RunRecord) -> RenderableType:
    """Render all that is known of a past run."""
    words, style = _run_state(run)
    took = "" if run.ended_at is None else f" in {_took(run)}"
    head = Text.assemble((visible(f"{run.command} {run.job}"), "bold"), ": ", (words, style), took)
    lines: list[tuple[str, str | Text]] = [
        ("run", run.run_id),
        ("started", f"{_moment(run.started_at)} UTC, on {run.host}"),
    ]
    if run.ended_at is not None:
        lines.append(("ended", f"{_moment(run.ended_at)} UTC"))
    if run.counts:
        lines += _figures(run.counts)
    if run.error is not None:
        lines.append(("error", Text(visible(run.error, lines=True), style="red", overflow="fold")))
    if run.hint is not None:
        lines.append(("hint", Text(visible(run.hint, lines=True), overflow="fold")))
    if run.columns:
        lines.append(("columns", ", ".join(f"{column.name} {column.type}" for column in run.columns)))
    lines += [("note", note) for note in run.notes]
    return Group(head, Facts(lines))


def parts_table(parts: Sequence[PartStatus]) -> RenderableType:
    """Render the embedded stack's parts: what answers, where, and why something does not."""
    table = plain_table(None)
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
    return Group(table, Text(), Facts([*lines, *(("logs", f"{folder}/*.log") for folder in logs)]))


def job_states_table(states: Sequence[JobState], table_name: str) -> RenderableType:
    """Render what the state table holds, a job a line."""
    if not states:
        return Text(visible(f"Table {table_name} holds nothing of any job."))
    table = plain_table(f"Jobs in table {table_name}")
    table.add_column("job", overflow="fold")
    table.add_column("watermark", overflow="fold")
    table.add_column("lease", overflow="fold")
    table.add_column("last run", overflow="fold")
    for state in states:
        mark = state.watermark
        table.add_row(
            visible(state.job),
            "-" if mark is None else visible(f"{mark.column} {mark.value}"),
            "-" if state.lease is None else _lease(state.lease),
            "-" if state.last_run is None else _last_run(state.last_run),
        )
    return table


def job_state_text(state: JobState) -> RenderableType:
    """Render what the state table holds of one job."""
    facts: list[tuple[str, str | Text]] = []
    watermark, lease, run = state.watermark, state.lease, state.last_run
    if watermark is not None:
        facts.append(("watermark", f"{watermark.column} {watermark.value} ({watermark.type})"))
        facts.append(("", f"set {age(watermark.set_at)} ago by run {watermark.run_id}"))
        places = [("from", watermark.source), ("to table", watermark.destination)]
        facts += [("", " ".join(place)) for place in places if place[1]]
    if state.mark is not None:
        facts.append(("mark", f"{state.mark.id}, made {age(state.mark.made_at)} ago"))
    if lease is not None:
        facts.append(("lease", Text.assemble(_lease(lease), visible(f": {lease.command}"))))
    if run is not None:
        facts.append(("last run", Text.assemble(run.run_id, ", ", run.command, ": ", _last_run(run))))
    return Group(Text(visible(state.job), style="bold"), Facts(facts))


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
    return roughly(seconds)


def roughly(seconds: int) -> str:
    """Write a time in its largest unit: ``119s``, ``79m``, ``3h``, ``2d``."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


class _History:
    """Past runs: as many columns as fit whole into the width. Outside of a terminal all of them do."""

    # The first to go where there is no room: the run's name tells its start, its state that rows were rejected.
    _LEAST = ("host", "rejected", "started (UTC)", "took", "loaded")

    def __init__(self, runs: Sequence[RunRecord], *, of_one_job: bool) -> None:
        self._runs = runs
        self._of_one_job = of_one_job

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.update(width=10_000)
        without = {"job"} if self._of_one_job else set()
        if not any(run.counts.get("rows_rejected") for run in self._runs):
            without.add("rejected")
        if not console.is_terminal:
            yield from console.render(self._table(without), wide)
            return
        for name in self._LEAST:
            if console.measure(self._table(without), options=wide).maximum <= options.max_width:
                break
            without.add(name)
        yield self._table(without)

    def _table(self, without: Collection[str]) -> Table:
        table = plain_table(None)
        figures = ("took", "loaded", "rejected")
        for name in self._cells(self._runs[0]):
            if name not in without:
                table.add_column(name, justify="right" if name in figures else "left", no_wrap=True)
        for run in self._runs:
            table.add_row(*(cell for name, cell in self._cells(run).items() if name not in without))
        return table

    def _cells(self, run: RunRecord) -> dict[str, str | Text]:
        return {
            "run": visible(run.run_id),
            "job": visible(run.job),
            "status": Text(*_run_state(run)),
            "started (UTC)": _moment(run.started_at),
            "took": _took(run),
            "loaded": _figure(run.counts.get("rows_loaded")),
            "rejected": _figure(run.counts.get("rows_rejected")),
            "host": visible(run.host),
        }


def _run_state(run: RunRecord) -> tuple[str, str]:
    # A later version may know of more.
    return _RUN_STATES.get(run.status, (visible(run.status), ""))


def _figures(counts: Mapping[str, int | float]) -> list[tuple[str, str | Text]]:
    """Tell a past run's figures, as far as they say something: JSON has all."""

    def told(*names: str) -> str:
        return ", ".join(f"{_figure(counts.get(f'{names[0]}_{name}'))} {name}" for name in names[1:])

    deleted = counts.get("items_deleted")
    slowed = [f"{_figure(counts[name])} {name}" for name in ("throttles", "retries") if counts.get(name)]
    momento = f"{told('momento', 'calls')}, {_figure(counts.get('momento_operations'))} metered operations"
    chunks = "1 chunk" if counts.get("chunks") == 1 else f"{_figure(counts.get('chunks'))} chunks"
    return [
        ("rows", told("rows", "extracted", "loaded", "rejected", "dropped")),
        *([("removed", _items(int(deleted)))] if deleted is not None else []),
        ("cached", f"{chunks}, {size(int(counts.get('bytes_cached', 0)))}"),
        ("momento", ", ".join([momento, *slowed])),
    ]


def _moment(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M:%S}"


def _took(run: RunRecord) -> str:
    if run.ended_at is None:
        return "-"
    seconds = max(0.0, run.ended_at - run.started_at)
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,}"


def _watermark(move: WatermarkMove, *, moved: bool, loads: bool) -> list[tuple[str, str]]:
    """Tell where an incremental run began, and what became of the watermark."""
    if move.since is None:
        began = "all rows"
    else:
        overlap = format_duration(move.overlap) if move.type in TIMES else f"{move.overlap:,}"
        began = f"{move.column} from {move.since}" + (f" less {overlap}" if move.overlap else "")
    if moved:
        now = f"{move.column} {move.value} ({'nothing newer' if move.value == move.since else 'moved'})"
    elif move.moves and not loads:
        now = f"{move.column} {move.value} (once it is loaded)"
    else:
        now = "stays"
    return [("taken", began), ("watermark", now)]


def _verified(found: Verification | None) -> list[tuple[str, Text]]:
    if found is None:
        return []
    compared = "" if found.rows_compared == found.rows else f"{found.rows_compared:,} of "
    return [("verified", Text.assemble(f"{compared}{_items(found.rows)}: ", difference_count(found)))]


def _lease(lease: LeaseRecord) -> Text:
    process = f" (pid {lease.process.pid})" if lease.process else ""
    who = Text(visible(f"{lease.host}{process} for {age(lease.since)}"))
    # By its holder's clock, which need not be this one's.
    return Text.assemble(who, ", ", ("run out", "yellow")) if lease.expires_at < time.time() else who


def _last_run(run: RunRecord) -> Text:
    words, style = {"running": ("running", "cyan"), **_STATUS_WORDS}[run.status]
    return Text.assemble((words, style), f", {age(run.started_at)} ago")


def _content(kind: str, content: Any) -> str:
    """Write a value that has a cell of its own: a long text keeps its line breaks."""
    return visible(str(content), lines=True) if kind == "S" else item_values(kind, content)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count:,} items"


def _seconds(summary: dict[str, Any]) -> str:
    return f"{summary['duration_seconds']:.1f} s"
