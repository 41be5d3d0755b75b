"""Where words go: data to stdout, everything else to stderr; with ``--output json``, exactly one object to stdout."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from etlcli import __version__
from etlcli.errors import EtlError
from etlcli.hidden import hide_environment, hide_within, masked
from etlcli.several import Failure

__all__ = ["Output", "OutputFormat", "StdoutError", "visible"]

# Control characters, and those that turn the direction of text: in a row's value they would move the terminal's cursor,
# colour its rest, or show other words than are there.
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class StdoutError(OSError):
    """What stdout is written to takes no more: its disk is full, for example."""


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
        log_file: Where all that is said beside the data is written too, tracebacks included; None for nowhere.

    Raises:
        UsageError: The log file cannot be opened.
    """

    def __init__(
        self,
        form: OutputFormat = OutputFormat.TEXT,
        *,
        quiet: bool = False,
        verbose: bool = False,
        log_file: str | None = None,
    ) -> None:
        self.form = form
        self.quiet = quiet
        self.verbose = verbose
        self._failure: OSError | None = None
        hide_environment(os.environ)
        self.stderr = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._stdout = Console(highlight=False, markup=False, emoji=False)
        self._log: Console | None = None
        if log_file is not None:
            from etlcli.cli.log_file import open_log

            self._log = open_log(log_file)
            hide_within(shlex.join(sys.argv))
            self.log(shlex.join(["momento-etl", __version__, *sys.argv[1:]]))

    @property
    def is_text(self) -> bool:
        """Whether a person reads stdout."""
        return self.form is OutputFormat.TEXT

    @property
    def shows_progress(self) -> bool:
        """Whether a moving display has a terminal to move on."""
        return self.stderr.is_terminal and not self.stderr.is_dumb_terminal and not self.quiet

    @property
    def is_logged(self) -> bool:
        """Whether what is said is written to a file too."""
        return self._log is not None

    def log(self, content: RenderableType) -> None:
        """Write something to the log file alone, where there is one."""
        if self._log is not None:
            _draw(self._log, Text(content, no_wrap=True, overflow="ignore") if isinstance(content, str) else content)

    def note(self, text: str | Text) -> None:
        """Say something in passing."""
        self._say(Text(text) if isinstance(text, str) else text, in_passing=True)

    def show(self, content: RenderableType) -> None:
        """Show something larger in passing."""
        self.log(content)
        if not self.quiet:
            _draw(self.stderr, content)

    def warn(self, text: str) -> None:
        """Warn."""
        self._say(Text.assemble(("warning: ", "yellow bold"), visible(text, lines=True)), in_passing=True)

    def error(self, error: BaseException) -> None:
        """Tell an error: what happened and where, and on a ``hint:`` line what to do."""
        if self.verbose or self.is_logged:
            # Without values of variables: they may hold secrets.
            trace = masked("".join(traceback.format_exception(error)))
            self.log(trace.rstrip("\n"))
            if self.verbose:
                self.stderr.print(trace, soft_wrap=True, end="")
        if not isinstance(error, EtlError):
            failure = masked(f"{type(error).__name__}: {error}")
            self._tell("error", "red bold", f"momento-etl itself failed: {failure}")
            self._tell("hint", "cyan", "This is a defect. Run again with --verbose, and report what it prints.")
            return
        self._tell("error", "red bold", error.message)
        if error.hint:
            self._tell("hint", "cyan", error.hint)

    def failure(self, failure: Failure) -> None:
        """Tell what some of several jobs failed with, and what to do about all of it."""
        for job, message in failure.errors:
            self._tell("error", "red bold", f"{job}: {message}")
        if failure.hint:
            self._tell("hint", "cyan", failure.hint)

    def _tell(self, label: str, style: str, text: str) -> None:
        lines = visible(text, lines=True).split("\n")
        indent = " " * (len(label) + 2)
        # From a section's header on it is a piece of a config: its lines are the terminal's to wrap, not ours to cut,
        # so that they are whole when they are copied.
        config = next((place for place, line in enumerate(lines) if line.startswith("[")), len(lines))
        self._say(Text.assemble((f"{label}: ", style), f"\n{indent}".join(lines[:config])))
        for line in lines[config:]:
            self.stderr.print(Text(indent + line), soft_wrap=True)
            self.log(indent + line)

    def _say(self, text: Text, *, in_passing: bool = False) -> None:
        # A terminal gets whole words on each line; a log gets lines as long as they are, which can be searched.
        self.log(text.plain)
        if not (self.quiet and in_passing):
            self.stderr.print(text, soft_wrap=not self.stderr.is_terminal)

    def data(self, content: RenderableType) -> None:
        """Print what the command was asked for, as text for people or scripts; nothing where JSON was asked for.

        Raises:
            BrokenPipeError: Whoever read stdout has gone.
            StdoutError: stdout does not take it.
        """
        if not self.is_text:
            return
        with _to_stdout():
            if isinstance(content, str):
                self._stdout.print(Text(visible(content, lines=True)), soft_wrap=True)
            else:
                _draw(self._stdout, content)
            sys.stdout.flush()

    def event(self, event: dict[str, Any]) -> None:
        """Print a progress event, where each is asked for.

        Where stdout takes it no more, nobody hears of that before the end: the rows are worth more than the telling.
        """
        if self.form is not OutputFormat.JSONL or self._failure is not None:
            return
        try:
            _print_json(event, indent=None)
        except OSError as error:
            self._failure = error

    def result(self, result: dict[str, Any]) -> None:
        """Print the one object that a command ends with, where JSON is asked for.

        Raises:
            BrokenPipeError: Whoever read stdout has gone.
            StdoutError: stdout does not take it, or did not take all events before it.
        """
        if self._failure is not None:
            raise self._failure
        if not self.is_text:
            _print_json(result, indent=2 if self.form is OutputFormat.JSON else None)

    def restore_terminal(self) -> None:
        """Give back what a moving display took, before the process ends in the middle of one."""
        if self.shows_progress:
            self.stderr.show_cursor()


def visible(text: str, *, lines: bool = False) -> str:
    r"""Write characters that a terminal would obey rather than show as escapes: ``\n``, ``\x1b``, ``\u202e``.

    Args:
        text: Any text.
        lines: Keep line breaks as they are.
    """
    return _INVISIBLE.sub(lambda found: "\n" if lines and found[0] == "\n" else repr(found[0])[1:-1], text)


def _draw(console: Console, content: RenderableType) -> None:
    """Print tables and the like; outside of a terminal without the blanks that pad their lines."""
    if console.is_terminal:
        console.print(content)
        return
    with console.capture() as captured:
        console.print(content, crop=False)
    lines = captured.get().removesuffix("\n").split("\n")
    console.file.write("".join(f"{line.rstrip()}\n" for line in lines))


def _print_json(content: dict[str, Any], indent: int | None) -> None:
    is_ascii = (sys.stdout.encoding or "").replace("-", "").lower() != "utf8"
    with _to_stdout():
        sys.stdout.write(json.dumps(content, indent=indent, ensure_ascii=is_ascii, default=str) + "\n")
        sys.stdout.flush()


@contextmanager
def _to_stdout() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StdoutError(error.errno, error.strerror) from error
