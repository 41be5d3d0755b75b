"""What everything that people see is made of: labelled lines, tables with next to no frame, and items' values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from etlcli.cli.output import visible

__all__ = ["Facts", "Figures", "item_values", "plain_table", "shortened"]


def plain_table(title: str | None) -> Table:
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


def shortened(text: str, width: int) -> str:
    """Cut a text that is longer than so many cells of the screen."""
    return text if cell_len(text) <= width else f"{set_cell_size(text, width - 1).rstrip()}…"


class Facts:
    """Labels, each with a line or a paragraph that hangs beside it.

    Args:
        lines: The labels and what is told of each.
        style: The labels' style.
    """

    def __init__(self, lines: Iterable[tuple[str, str | Text]], *, style: str = "dim") -> None:
        self._style = style
        self._lines = [
            (label, text if isinstance(text, Text) else Text(visible(text), overflow="fold")) for label, text in lines
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        indent = max((len(label) for label, _ in self._lines), default=0) + 2
        if not console.is_terminal:
            # In a log, what belongs together stays on one line, however long.
            for label, text in self._lines:
                line = Text.assemble((label.ljust(indent), self._style), text)
                line.no_wrap, line.overflow = True, "ignore"
                yield line
            return
        for label, text in self._lines:
            for number, line in enumerate(text.wrap(console, max(options.max_width - indent, 20), overflow="fold")):
                line.rstrip()
                yield Text.assemble((("" if number else label).ljust(indent), self._style), line)


class Figures:
    """Labels, each with a figure, and what hangs beside it says what it means."""

    def __init__(self, lines: Iterable[tuple[str, str, str]]) -> None:
        lines = list(lines)
        labels = max((len(label) for label, _, _ in lines), default=0)
        figures = max((len(figure) for _, figure, _ in lines), default=0)
        labelled = ((f"{label:<{labels}}  {figure:>{figures}}", words) for label, figure, words in lines)
        self._facts = Facts(labelled, style="")

    def __rich_console__(self, _console: Console, _options: ConsoleOptions) -> RenderResult:
        yield self._facts


def _nested(value: Mapping[str, Any]) -> str:
    kind, content = next(iter(value.items()))
    return f'"{visible(content)}"' if kind == "S" else item_values(kind, content)
