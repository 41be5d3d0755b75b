"""What a long run looks like while it works: a display that moves in a terminal, plain lines at intervals elsewhere.

Both only read the counters, at their own pace; the core does not know that anybody looks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict

from rich.live import Live

from etlcli.cli.output import Output
from etlcli.cli.progress_view import Bar, View
from etlcli.report import Report

__all__ = ["Bar", "shown", "with_checks"]

_REDRAW_SECONDS = 0.1
_LINE_SECONDS = 10.0
_EVENT_SECONDS = 1.0


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
        displays.append(_display(View(report.counters, bars, title), output))
    if output.is_text and not output.shows_progress:
        displays.append(_lines(View(report.counters, bars, title), output.note))
    elif output.is_logged:
        displays.append(_lines(View(report.counters, bars, title), output.log))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(display) for display in displays]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _display(view: View, output: Output) -> None:
    # It goes when it is over: the summary says it all again.
    with Live(view, console=output.stderr, transient=True, auto_refresh=False) as live:
        while True:
            live.refresh()
            await asyncio.sleep(_REDRAW_SECONDS)


async def _lines(view: View, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_LINE_SECONDS)
        say(view.line())


async def _events(report: Report, output: Output) -> None:
    while True:
        await asyncio.sleep(_EVENT_SECONDS)
        output.event({"event": "progress", "job": report.job, **asdict(report.counters)})
