"""Checks as people see them: a line each, the word first, and the hint below."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from etlcli.cli.output import visible
from etlcli.doctor import Check

__all__ = ["CheckLine"]

_STYLES = {"ok": "green", "warning": "yellow bold", "failed": "red bold"}
_STATUS_WIDTH, _ENDPOINT_WIDTH, _NAME_WIDTH = 9, 13, 12


class CheckLine:
    """One check."""

    def __init__(self, check: Check) -> None:
        self._check = check

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        check = self._check
        head = Text.assemble(
            (check.status.ljust(_STATUS_WIDTH), _STYLES[check.status]),
            check.endpoint.ljust(_ENDPOINT_WIDTH),
            (check.name.ljust(_NAME_WIDTH), "dim"),
        )
        paragraphs = visible(check.message, lines=True).split("\n")
        if check.hint and check.status != "ok":
            first, *rest = visible(check.hint, lines=True).split("\n")
            paragraphs += [f"hint: {first}", *rest]
        if not console.is_terminal:
            for number, paragraph in enumerate(paragraphs):
                line = head + Text(paragraph) if number == 0 else Text(" " * len(head) + paragraph)
                line.no_wrap, line.overflow = True, "ignore"
                yield line
            return
        # A narrow terminal has the text below its head, indented, rather than in a column of two words.
        indent = len(head) if options.max_width >= 2 * len(head) else 4
        if indent < len(head):
            yield head
            head = Text(" " * indent)
        for paragraph in paragraphs:
            for line in Text(paragraph).wrap(console, max(options.max_width - indent, 20), overflow="fold"):
                line.rstrip()
                yield head + line
                head = Text(" " * indent)
