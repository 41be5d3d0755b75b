"""A picture of a run at work: a bar for each stage, and what is known of speed, size and the time that is left."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from etlcli.cli.output import visible
from etlcli.cli.render import size
from etlcli.progress import Counters

__all__ = ["Bar", "View"]

Bar: TypeAlias = Literal["read", "cached", "written", "compared"]

# Rates are those of the last seconds: what a run did at its start says little of what is left.
_WINDOW_SECONDS = 10.0
# How long bars are, and whether there are rates and sizes: the first that fits into the width.
_SHAPES = ((30, True, True), (14, True, True), (0, True, True), (0, True, False), (0, False, False))

_ANY_WIDTH = 10_000

# Stages that the bars tell by themselves.
_MOVING = ("extracting", "loading", "comparing")


class View:
    """What a display shows, each time that it is drawn.

    Args:
        counters: The run's.
        bars: Which of its figures the command moves, in the order in which rows pass.
        title: Which of several jobs it is; None where there is one.
        clock: Seconds from an arbitrary start.
    """

    def __init__(
        self,
        counters: Counters,
        bars: Sequence[Bar],
        title: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._counters = counters
        self._bars = bars
        self._title = title
        self._clock = clock
        self._started = clock()
        self._seen: deque[tuple[float, dict[Bar, int]]] = deque([(self._started, self._figures())])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.look()
        if self._title is not None:
            yield Text(visible(self._title), style="bold", no_wrap=True, overflow="ellipsis")
        tables = [self._table(*shape) for shape in _SHAPES]
        anywhere = options.update(width=_ANY_WIDTH)
        fitting = (it for it in tables if console.measure(it, options=anywhere).maximum <= options.max_width)
        yield next(fitting, tables[-1])
        if (stage := self._stage()) is not None:
            yield Text(visible(stage), style="dim", no_wrap=True, overflow="ellipsis")
        yield Text(", ".join(self._beside(short=True)), style="dim", no_wrap=True, overflow="ellipsis")

    def line(self) -> str:
        """All of it in a line, for a log."""
        self.look()
        which = "" if self._title is None else f"{self._title}: "
        figures = self._figures()
        words = ", ".join(f"{figures[bar]:,} {bar}" for bar in self._bars)
        stage = self._stage() or self._counters.stage
        if not any(figures.values()):
            return f"{which}{self._seconds:.0f}s {stage}"
        rate = self._rate(self._bars[-1])
        told = [f"{rate:,.0f} rows/s"] if rate else []
        return f"{which}{self._seconds:.0f}s {stage}: rows {words}; {', '.join([*told, *self._beside(short=False)])}"

    def look(self) -> None:
        """Note how far the run has come by now."""
        now = self._clock()
        self._seen.append((now, self._figures()))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def _seconds(self) -> float:
        return self._clock() - self._started

    def _figures(self) -> dict[Bar, int]:
        counters = self._counters
        return {
            "read": counters.rows_extracted,
            "cached": counters.rows_cached,
            "written": counters.rows_loaded,
            "compared": counters.rows_compared,
        }

    def _totals(self) -> tuple[dict[Bar, int] | None, str]:
        """How far each bar has to come, and what marks it as an estimate; None where nobody knows."""
        counters = self._counters
        if counters.stage in ("loading", "comparing") and counters.rows_extracted:
            items = counters.rows_extracted - counters.rows_rejected - counters.rows_dropped
            totals: dict[Bar, int] = dict.fromkeys(self._bars, items)
            return totals | {"read": counters.rows_extracted}, ""
        expected = counters.rows_expected
        if expected is None or expected < counters.rows_extracted:
            return None, ""  # the planner's estimate was too low: no bar is better than a wrong one
        return dict.fromkeys(self._bars, expected), "~"

    def _table(self, bar: int, has_rates: bool, has_sizes: bool) -> Table:
        figures = self._figures()
        totals, about = self._totals()
        sizes: dict[Bar, int] = {"read": self._counters.bytes_encoded, "cached": self._counters.bytes_cached}
        table = Table.grid(padding=(0, 2, 0, 0))
        for name in self._bars:
            total = None if totals is None else totals[name]
            cells: list[ProgressBar | Text] = [Text(name)]
            if bar:
                cells.append(ProgressBar(total=total, completed=figures[name], width=bar, pulse=total is None))
            of = "" if total is None else f" of {about}{total:,}"
            cells.append(Text(f"{figures[name]:,}{of}", justify="right", style="progress.download"))
            if has_rates:
                rate = self._rate(name)
                words = f"{rate:,.0f} rows/s" if rate else ""
                cells.append(Text(words, justify="right", style="progress.data.speed"))
            if has_sizes:
                cells.append(Text(size(sizes[name]) if sizes.get(name) else "", justify="right"))
            table.add_row(*cells)
        for column in table.columns:
            column.no_wrap = True
        return table

    def _rate(self, bar: Bar) -> float:
        """Rows a second over the last seconds."""
        (before, then), (now, figures) = self._seen[0], self._seen[-1]
        return (figures[bar] - then[bar]) / (now - before) if now > before else 0.0

    def _seconds_left(self) -> float | None:
        totals, _ = self._totals()
        last = self._bars[-1]
        rate = self._rate(last)
        if totals is None or not rate:
            return None
        return max(0, totals[last] - self._figures()[last]) / rate

    def _stage(self) -> str | None:
        """What is done besides moving rows."""
        stage, deleted = self._counters.stage, self._counters.items_deleted
        if stage in _MOVING:
            return None
        return f"{stage} ({deleted:,} so far)" if deleted else stage

    def _beside(self, *, short: bool) -> list[str]:
        """What there is to know beside the bars.

        Args:
            short: Without what is nothing, and with the time that has passed.
        """
        counters = self._counters
        left = self._seconds_left()
        parts = [_clock_time(self._seconds)] if short else []
        if left is not None:
            parts.append(f"about {_clock_time(left)} left" if short else f"about {left:.0f}s left")
        if "written" in self._bars and (counters.requests_in_flight or not short):
            parts.append(f"{counters.requests_in_flight:,} requests in flight")
        if counters.throttles or not short:
            parts.append(f"{counters.throttles:,} throttles")
        if counters.rows_rejected:
            parts.append(f"{counters.rows_rejected:,} rejected")
        return parts


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
