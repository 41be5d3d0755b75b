"""What a long run looks like while it works: a display that moves in a terminal, plain lines at intervals elsewhere.

Both only read the counters, at their own pace; the core does not know that anybody looks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from etlcli.cli.output import Output
from etlcli.progress import Counters

__all__ = ["shown"]

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 10.0
_EVENT_SECONDS = 1.0


@asynccontextmanager
async def shown(counters: Counters, output: Output, *, loads: bool) -> AsyncIterator[None]:
    """Show a run's progress while the body works.

    Args:
        counters: The run's figures.
        output: Where to show them.
        loads: Whether items are written, or only cached.
    """
    if output.is_text and output.shows_progress:
        display = _display(counters, output, loads=loads)
    elif output.is_text and not output.quiet:
        display = _lines(counters, output)
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


async def _display(counters: Counters, output: Output, *, loads: bool) -> None:
    columns: list[ProgressColumn] = [
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeElapsedColumn(),
    ]
    # transient: the summary says it all again once it is over.
    with Progress(*columns, console=output.stderr, transient=True) as progress:
        read = progress.add_task("read", total=None)
        cached = progress.add_task("cached", total=None)
        written = progress.add_task("written", total=None) if loads else None
        while True:
            done = counters.stage == "loading"
            total = counters.rows_extracted if done else counters.rows_expected
            if total is not None and total < counters.rows_extracted:
                total = None  # the planner's estimate was too low: no bar is better than a wrong one
            progress.update(read, completed=counters.rows_extracted, total=total)
            progress.update(cached, completed=counters.rows_cached, total=total)
            if written is not None:
                progress.update(written, completed=counters.rows_loaded, total=total)
            await asyncio.sleep(_REDRAW_SECONDS)


class _RateColumn(ProgressColumn):
    """Rows a second, over the last seconds."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} rows/s" if task.speed else "", style="progress.data.speed")


async def _lines(counters: Counters, output: Output) -> None:
    started = time.monotonic()
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        output.note(
            f"{time.monotonic() - started:.0f}s {counters.stage}: {counters.rows_extracted:,} rows read,"
            f" {counters.rows_cached:,} cached, {counters.rows_loaded:,} written, {counters.throttles:,} throttles"
        )


async def _events(counters: Counters, output: Output) -> None:
    while True:
        await asyncio.sleep(_EVENT_SECONDS)
        output.event({"event": "progress", **asdict(counters)})
