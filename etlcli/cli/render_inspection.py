"""What people see of a cache: its runs, a map of one run's chunks, and rows with their types, on one screen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from etlcli.block import BLOCK_CHUNKS, block_of
from etlcli.cli.blocks import Facts, item_values, plain_table, shortened
from etlcli.cli.output import visible
from etlcli.cli.render import age, roughly, size
from etlcli.inspection import Checked, ChunkState, Inspection, Item, RunView, chunk_states
from etlcli.model import ChunkRecord, Manifest

__all__ = ["checked_text", "inspection_text"]

# What a chunk looks like in the map, where the terminal has such characters and where not.
_MARKS: dict[ChunkState, tuple[str, str, str]] = {
    "damaged": ("!", "!", "red bold"),
    "missing": ("?", "?", "red bold"),
    "expired": ("x", "x", "red"),
    "stored": ("■", "#", "green"),
    "freed": ("·", ".", "dim"),
}
_MEANINGS: dict[ChunkState, str] = {
    "stored": "stored",
    "freed": "freed once loaded",
    "expired": "expired",
    "missing": "missing",
    "damaged": "damaged",
}
_MARKS_A_LINE = 40
_LEAST_MARKS = 10
_KEY_WIDTH = 24
_VALUE_WIDTH = 30
# The command itself or the embedded stack's banner, and the next prompt.
_LINES_BESIDE = 2


@dataclass(frozen=True, slots=True)
class _Room:
    """How much is shown.

    Attributes:
        runs: So many runs, the newest first.
        columns: Whether all columns are named.
        listed: A run of so many chunks has a line for each; one of more has a map.
        map_lines: So many lines the map has at most.
        rows: So many sample rows.
    """

    runs: int
    columns: bool
    listed: int
    map_lines: int
    rows: int


_WHOLE = _Room(runs=10, columns=True, listed=12, map_lines=4, rows=5)
# What goes first where the screen is too low.
_TIGHTER = (
    _Room(runs=10, columns=False, listed=12, map_lines=4, rows=5),
    _Room(runs=10, columns=False, listed=4, map_lines=4, rows=5),
    _Room(runs=10, columns=False, listed=4, map_lines=4, rows=3),
    _Room(runs=10, columns=False, listed=3, map_lines=3, rows=3),
    _Room(runs=5, columns=False, listed=3, map_lines=3, rows=3),
    _Room(runs=5, columns=False, listed=2, map_lines=3, rows=2),
    _Room(runs=3, columns=False, listed=2, map_lines=2, rows=2),
    _Room(runs=2, columns=False, listed=1, map_lines=2, rows=1),
    _Room(runs=1, columns=False, listed=1, map_lines=2, rows=1),
)


def inspection_text(inspection: Inspection, shown: RunView | None) -> RenderableType:
    """Render what the cache holds of a job, and one of its runs more closely.

    On a terminal it is as much as the screen takes; elsewhere all of it.
    """
    if not inspection.runs:
        return Text(visible(f"Cache {inspection.cache} holds no run of {inspection.job}."))
    return _Screen(inspection, shown)


def checked_text(checked: Checked) -> RenderableType:
    """Render a run after each of its chunks was asked for: a line on all, and the map where there is more to see."""
    run, wrong, freed = checked
    count = len(run.chunks)
    if not wrong and not freed:
        chunks = "1 chunk" if count == 1 else f"each of {count:,} chunks"
        return Text(f"Run {run.manifest.run_id}: {chunks} there, and undamaged.")
    there = f"{count - len(wrong) - len(freed):,} of {count:,} there, and undamaged"
    told = f"{there}; {len(freed):,} freed once they were loaded" if freed else there
    facts = Facts([("run", run.manifest.run_id), ("chunks", told)])
    return Group(facts, Text(), _chunk_map(run, chunk_states(run, checked), _WHOLE.map_lines))


class _Screen:
    """What the cache holds, as much of it as the screen takes."""

    def __init__(self, inspection: Inspection, shown: RunView | None) -> None:
        self._inspection = inspection
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        chosen = self._within(_WHOLE)
        if console.is_terminal:
            most = console.size.height - _LINES_BESIDE
            for room in _TIGHTER:
                if len(console.render_lines(chosen, options, pad=False)) <= most:
                    break
                chosen = self._within(room)
        yield chosen

    def _within(self, room: _Room) -> RenderableType:
        parts: list[RenderableType] = [_runs(self._inspection, self._shown, room)]
        shown = self._shown
        if shown is not None:
            is_one = min(len(self._inspection.runs), room.runs) == 1
            named = [] if is_one else [Text(f"Run {shown.manifest.run_id}", style="bold")]
            parts += [Text(), *named, _facts(shown, room)]
            if len(shown.chunks) > room.listed:
                parts += [Text(), _chunk_map(shown, chunk_states(shown), room.map_lines)]
            elif shown.chunks:
                parts += [Text(), _chunk_list(shown, chunk_states(shown))]
            if self._inspection.sample and shown.current:
                parts += [Text(), _Sample(self._inspection.sample, shown.manifest, room.rows)]
        return Group(*parts)


def _runs(inspection: Inspection, shown: RunView | None, room: _Room) -> RenderableType:
    table = plain_table(f"Runs of {inspection.job} in cache {inspection.cache}")
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("rows", "chunks", "stored", "age", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    newest = list(inspection.runs[: room.runs])
    if shown is not None and shown not in newest:
        newest[-1] = shown  # an extraction under way is newer than the current run
    for run in newest:
        table.add_row(
            run.manifest.run_id,
            _state(run),
            f"{sum(chunk.rows for chunk in run.chunks):,}",
            f"{len(run.chunks):,}",
            size(sum(chunk.bytes_stored for chunk in run.chunks)),
            age(run.manifest.started_at),
            _left(run.seconds_left),
        )
    more = len(inspection.runs) - len(newest)
    return Group(table, _aside(f"and {more} more (--output json has all)")) if more else table


def _facts(run: RunView, room: _Room) -> RenderableType:
    manifest = run.manifest
    count = "1 column" if len(manifest.columns) == 1 else f"{len(manifest.columns):,} columns"
    columns = ", ".join(f"{column.name} {column.type.name}" for column in manifest.columns)
    source = manifest.source if room.columns else f"{manifest.source}, {count}"
    facts: list[tuple[str, str | Text]] = [("source", source), ("key", str(manifest.key))]
    if room.columns:
        facts.append(("columns", columns))
    if room.runs > 1:
        facts.append(("layout", f"{manifest.layout}, {size(manifest.totals.bytes_encoded)} before compression"))
    if manifest.blocks:
        begun = len({block_of(chunk.number) for chunk in run.chunks})
        told = "" if manifest.status == "complete" else f", {begun:,} of them begun"
        facts.append(("blocks", f"{manifest.blocks:,}{told}"))
    rejected = manifest.totals.rows_rejected
    if rejected:
        facts.append(("rejected", f"{'1 row' if rejected == 1 else f'{rejected:,} rows'} (--rejects lists them)"))
    if manifest.chunks_freed:
        facts.append(("freed", f"{manifest.chunks_freed:,} chunks, after they had been loaded (--check tells which)"))
    return Facts(facts)


def _chunk_list(run: RunView, states: Sequence[ChunkState]) -> RenderableType:
    table = plain_table(None)
    for name in ("chunk", "rows", "stored"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("first key", overflow="ellipsis", no_wrap=True)
    table.add_column("last key", overflow="ellipsis", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    for chunk, state in zip(run.chunks, states, strict=True):
        table.add_row(
            _number(run, chunk),
            f"{chunk.rows:,}",
            size(chunk.bytes_stored),
            _key_text(chunk.first_key),
            _key_text(chunk.last_key),
            Text("freed", style="dim") if state == "freed" else _left(_seconds_left(run, [chunk])),
        )
    return table


def _chunk_map(run: RunView, states: Sequence[ChunkState], lines: int) -> RenderableType:
    """Draw the chunks, so many a mark that they fit into so many lines. A mark shows the worst of its chunks."""
    count = len(run.chunks)
    per_mark = -(-count // (lines * _MARKS_A_LINE))
    marks = -(-count // per_mark)
    per_line = per_mark * max(_LEAST_MARKS, -(-marks // lines))
    title = Text("Chunks", style="bold") if per_mark == 1 else Text(f"Chunks, {per_mark:,} to a mark", style="bold")
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis", style="dim")
    for start in range(0, count, per_line):
        chunks = run.chunks[start : start + per_line]
        table.add_row(
            _number(run, chunks[0]),
            _Marks(states[start : start + per_line], per_mark),
            _left(_seconds_left(run, chunks), " left"),
            shortened(f"from {_key_text(chunks[0].first_key)}", _KEY_WIDTH) if chunks[0].first_key else "",
        )
    return Group(title, table, _Legend(Counter(states)))


class _Marks:
    """A line of the map."""

    def __init__(self, states: Sequence[ChunkState], per_mark: int) -> None:
        groups = [states[start : start + per_mark] for start in range(0, len(states), per_mark)]
        self._states = [next(state for state in _MARKS if state in group) for group in groups]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text.assemble(*(_mark(state, options) for state in self._states))

    def __rich_measure__(self, _console: Console, _options: ConsoleOptions) -> Measurement:
        return Measurement(len(self._states), len(self._states))


class _Legend:
    """What the marks stand for, and how many chunks there are of each."""

    def __init__(self, counts: Counter[ChunkState]) -> None:
        self._counts = counts

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        text = Text()
        for state, words in _MEANINGS.items():
            if self._counts[state]:
                text.append("   " if text else "").append(*_mark(state, options))
                text.append(f" {self._counts[state]:,} {words}", style="dim")
        yield text


def _mark(state: ChunkState, options: ConsoleOptions) -> tuple[str, str]:
    mark, ascii_mark, style = _MARKS[state]
    return ascii_mark if options.ascii_only else mark, style


class _Sample:
    """Rows of a run: as many columns as fit whole into the width, the key's first."""

    def __init__(self, items: Sequence[Item], manifest: Manifest, most: int) -> None:
        self._items = items[:most]
        self._types = {column.name: column.type.typname for column in manifest.columns}
        names = [attribute.name for attribute in manifest.key.attributes]
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
            yield _aside(f"and {more} (--row KEY shows a row whole)")

    def _table(self, names: Sequence[str]) -> Table:
        table = plain_table("First rows")
        for name in names:
            kinds = {kind for item in self._items if name in item for kind in item[name]}
            # Only a key that is wider than the screen by itself is ever cut: whatever else does not fit is left out.
            table.add_column(
                Text.assemble(visible(name), "\n", (self._type(name, kinds), "dim not bold")),
                justify="right" if kinds == {"N"} else "left",
                no_wrap=True,
                overflow="ellipsis",
            )
        for item in self._items:
            table.add_row(*(_cell(item.get(name)) for name in names))
        return table

    def _type(self, name: str, kinds: set[str]) -> str:
        """Name an attribute's type in DynamoDB, and behind it its column's."""
        return " ".join(["/".join(sorted(kinds)), *([self._types[name]] if name in self._types else [])])


def _cell(value: Item | None) -> Text:
    if value is None:
        return Text("-", style="dim")
    kind, content = next(iter(value.items()))
    text = item_values(kind, content)
    return Text(text if kind == "N" else shortened(text, _VALUE_WIDTH))


def _state(run: RunView) -> Text:
    if run.manifest.status != "complete":
        return Text("partial", style="yellow")
    if run.current:
        return Text("current", style="green")
    return Text("complete")


def _number(run: RunView, chunk: ChunkRecord) -> str:
    """Write a chunk's number: that within its block, where a run has several."""
    if not run.manifest.blocks:
        return f"{chunk.number:,}"
    return f"block {block_of(chunk.number)}: {chunk.number % BLOCK_CHUNKS:,}"


def _seconds_left(run: RunView, chunks: Sequence[ChunkRecord]) -> float:
    """How long the first of them to expire still has."""
    return min(chunk.stored_at for chunk in chunks) + run.manifest.ttl_seconds - time.time()


def _left(seconds: float | None, unit: str = "") -> Text:
    if seconds is None:
        return Text("-")
    return Text(f"{roughly(int(seconds))}{unit}") if seconds > 0 else Text("expired", style="red")


def _key_text(values: tuple[str | None, ...]) -> str:
    return visible(", ".join("NULL" if value is None else value for value in values)) or "-"


def _aside(text: str) -> Text:
    return Text(text, style="dim italic")
