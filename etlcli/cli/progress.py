"""What a long run looks like while it works: a display that moves in a terminal, plain lines at intervals elsewhere.

Both only read the counters, at their own pace; the core does not know that anybody looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Literal, TypeAlias

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from etlcli.cli.output import Output, visible
from etlcli.progress import Counters
from etlcli.report import Report

__all__ = ["Bar", "shown", "with_checks"]

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 10.0
_EVENT_SECONDS = 1.0

# Stages in which the bars move.
_MOVING = ("extracting", "loading", "comparing")

Bar: TypeAlias = Literal["read", "cached", "written", "compared"]


def with_checks(bars: tuple[Bar, ...], *, verify: bool) -> tuple[Bar, ...]:
    """Add what is compared, where a command that moves rows reads them back."""
    return (*bars, "compared") if verify else bars


@asynccontextmanager
async def shown(
    report: Report, output: Output, *, bars: tuple[Bar, ...], title: str | None = None
) -> AsyncIterator[None]:
    """Show a run's progress while the body works.

    Args:
        report: The run.
        output: Where to show its figures.
        bars: Which of them the command moves.
        title: Which of several jobs it is; None where there is one.
    """
    displays = []
    if not output.is_text:
        displays.append(_events(report, output))
    elif output.shows_progress:
        displays.append(_display(report.counters, output, bars, title))
    if output.is_text and not output.shows_progress:
        displays.append(_lines(report.counters, output.note, bars, title))
    elif output.is_logged:
        displays.append(_lines(report.counters, output.log, bars, title))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(display) for display in displays]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


def _figures(counters: Counters) -> dict[Bar, int]:
    return {
        "read": counters.rows_extracted,
        "cached": counters.rows_cached,
        "written": counters.rows_loaded,
        "compared": counters.rows_compared,
    }


def _stage(counters: Counters) -> str:
    return counters.stage + (f" ({counters.items_deleted:,} so far)" if counters.items_deleted else "")


async def _display(counters: Counters, output: Output, bars: tuple[Bar, ...], title: str | None) -> None:
    columns: list[ProgressColumn] = [
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
    ]
    # It goes when it is over: the summary says it all again.
    with _Titled(*columns, title=title, console=output.stderr) as progress:
        tasks = {bar: progress.add_task(bar, total=None) for bar in bars}
        done = False
        while True:
            done = done or counters.stage == "loading"
            progress.stage = _stage(counters)
            total = counters.rows_extracted if done else counters.rows_expected
            if total is not None and total < counters.rows_extracted:
                total = None  # the planner's estimate was too low: no bar is better than a wrong one
            figures = _figures(counters)
            for bar, task in tasks.items():
                progress.update(task, completed=figures[bar], total=total)
            await asyncio.sleep(_REDRAW_SECONDS)


class _Titled(Progress):
    """Bars below a title, and what is done besides moving rows."""

    def __init__(self, *columns: ProgressColumn, title: str | None, console: Console) -> None:
        self._title = title  # first, since the display starts at once
        self.stage = _MOVING[0]
        super().__init__(*columns, console=console, transient=True)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The title, then the bars, then the stage where the bars do not tell it."""
        if self._title is not None:
            yield Text(visible(self._title), style="bold", no_wrap=True, overflow="ellipsis")
        yield from super().get_renderables()
        if self.stage not in _MOVING:
            yield Text(visible(self.stage), style="dim", no_wrap=True, overflow="ellipsis")


class _RateColumn(ProgressColumn):
    """Rows a second, over the last seconds."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} rows/s" if task.speed else "", style="progress.data.speed")


async def _lines(counters: Counters, say: Callable[[str], None], bars: tuple[Bar, ...], title: str | None) -> None:
    which = "" if title is None else f"{title}: "
    started = time.monotonic()
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        figures = _figures(counters)
        words = ", ".join(f"{figures[bar]:,} {bar}" for bar in bars)
        say(
            f"{which}{time.monotonic() - started:.0f}s {_stage(counters)}: rows {words};"
            f" {counters.throttles:,} throttles"
        )


async def _events(report: Report, output: Output) -> None:
    while True:
        await asyncio.sleep(_EVENT_SECONDS)
        output.event({"event": "progress", "job": report.job, **asdict(report.counters)})
