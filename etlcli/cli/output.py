"""Where words go: data to stdout, everything else to stderr; with ``--output json``, exactly one object to stdout."""

from __future__ import annotations

import json
import sys
import traceback
from enum import StrEnum
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from etlcli.errors import EtlError

__all__ = ["Output", "OutputFormat"]


class OutputFormat(StrEnum):
    """How a command answers."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


class Output:
    """One command's way to speak.

    Args:
        form: Text for people, or JSON for programs.
        quiet: Nothing to stderr but errors.
        verbose: Tracebacks, and what libraries log.
    """

    def __init__(self, form: OutputFormat = OutputFormat.TEXT, *, quiet: bool = False, verbose: bool = False) -> None:
        self.form = form
        self.quiet = quiet
        self.verbose = verbose
        self.stderr = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._stdout = Console(highlight=False, markup=False, emoji=False)

    @property
    def is_text(self) -> bool:
        """Whether a person reads stdout."""
        return self.form is OutputFormat.TEXT

    @property
    def shows_progress(self) -> bool:
        """Whether a moving display has a terminal to move on."""
        return self.stderr.is_terminal and not self.stderr.is_dumb_terminal and not self.quiet

    def note(self, text: str) -> None:
        """Say something in passing."""
        if not self.quiet:
            self.stderr.print(text, soft_wrap=True)

    def show(self, content: RenderableType) -> None:
        """Show something larger in passing."""
        if not self.quiet:
            self.stderr.print(content)

    def warn(self, text: str) -> None:
        """Warn."""
        if not self.quiet:
            self.stderr.print(Text.assemble(("warning: ", "yellow bold"), text), soft_wrap=True)

    def error(self, error: BaseException) -> None:
        """Tell an error: what happened and where, and on a ``hint:`` line what to do."""
        if self.verbose:
            # Without values of variables: they may hold secrets.
            self.stderr.print("".join(traceback.format_exception(error)), soft_wrap=True, end="")
        if not isinstance(error, EtlError):
            self._tell("error", "red bold", f"momento-etl itself failed: {type(error).__name__}: {error}")
            self._tell("hint", "cyan", "This is a defect. Run again with --verbose, and report what it prints.")
            return
        self._tell("error", "red bold", error.message)
        if error.hint:
            self._tell("hint", "cyan", error.hint)

    def _tell(self, label: str, style: str, text: str) -> None:
        indented = text.replace("\n", "\n" + " " * (len(label) + 2))
        self.stderr.print(Text.assemble((f"{label}: ", style), indented), soft_wrap=True)

    def data(self, content: RenderableType) -> None:
        """Print what the command was asked for, as text for people or scripts; nothing where JSON was asked for."""
        if self.is_text:
            self._stdout.print(content, soft_wrap=isinstance(content, str))

    def event(self, event: dict[str, Any]) -> None:
        """Print a progress event, where each is asked for."""
        if self.form is OutputFormat.JSONL:
            _print_json(event, indent=None)

    def result(self, result: dict[str, Any]) -> None:
        """Print the one object that a command ends with, where JSON is asked for."""
        if not self.is_text:
            _print_json(result, indent=2 if self.form is OutputFormat.JSON else None)


def _print_json(content: dict[str, Any], indent: int | None) -> None:
    sys.stdout.write(json.dumps(content, indent=indent, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()
