"""What a long run looks like while it works: a display that moves in a terminal, plain lines at intervals elsewhere.

Both only read the counters, at their own pace; the core does not know that anybody looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Literal, TypeAlias

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from etlcli.cli.output import Output
from etlcli.progress import Counters

__all__ = ["Bar", "shown"]

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 10.0
_EVENT_SECONDS = 1.0

Bar: TypeAlias = Literal["read", "cached", "written"]


@asynccontextmanager
async def shown(counters: Counters, output: Output, *, bars: tuple[Bar, ...]) -> AsyncIterator[None]:
    """Show a run's progress while the body works.

    Args:
        counters: The run's figures.
        output: Where to show them.
        bars: Which of them the command moves.
    """
    if output.is_text and output.shows_progress:
        display = _display(counters, output, bars)
    elif output.is_text and not output.quiet:
        display = _lines(counters, output, bars)
    elif not output.is_text:
        display = _events(counters, output)
    else:
        yield
        return
    async with asyncio.TaskGroup() as group:
        task = group.create_task(display)
        try:
            yield
        finally:
            task.cancel()


def _figures(counters: Counters) -> dict[Bar, int]:
    return {"read": counters.rows_extracted, "cached": counters.rows_cached, "written": counters.rows_loaded}


async def _display(counters: Counters, output: Output, bars: tuple[Bar, ...]) -> None:
    columns: list[ProgressColumn] = [
        TextColumn("{task.description:<7}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
    ]
    # transient: the summary says it all again once it is over.
    with Progress(*columns, console=output.stderr, transient=True) as progress:
        tasks = {bar: progress.add_task(bar, total=None) for bar in bars}
        while True:
            done = counters.stage == "loading"
            total = counters.rows_extracted if done else counters.rows_expected
            if total is not None and total < counters.rows_extracted:
                total = None  # the planner's estimate was too low: no bar is better than a wrong one
            figures = _figures(counters)
            for bar, task in tasks.items():
                progress.update(task, completed=figures[bar], total=total)
            await asyncio.sleep(_REDRAW_SECONDS)


class _RateColumn(ProgressColumn):
    """Rows a second, over the last seconds."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} rows/s" if task.speed else "", style="progress.data.speed")


async def _lines(counters: Counters, output: Output, bars: tuple[Bar, ...]) -> None:
    started = time.monotonic()
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        figures = _figures(counters)
        words = ", ".join(f"{figures[bar]:,} {bar}" for bar in bars)
        output.note(
            f"{time.monotonic() - started:.0f}s {counters.stage}: rows {words}; {counters.throttles:,} throttles"
        )


async def _events(counters: Counters, output: Output) -> None:
    while True:
        await asyncio.sleep(_EVENT_SECONDS)
        try:
            output.event({"event": "progress", **asdict(counters)})
        except BrokenPipeError:
            return  # Nobody listens any more; the rows are worth more than the telling.
