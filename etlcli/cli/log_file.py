"""``--log-file``: all that is said beside the data, with times, for whoever looks later."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
from typing import IO, TextIO, cast

from rich.console import Console

from etlcli.errors import UsageError
from etlcli.hidden import masked

__all__ = ["open_log"]

# As wide as a line of a log may be before a table in it is broken.
_WIDTH = 160


class _Stamped(io.TextIOBase):
    """Writes whole lines, each with its time and without any secret, until the file takes no more.

    Args:
        file: The log.
        name: What it is called.
    """

    def __init__(self, file: TextIO, name: str) -> None:
        super().__init__()
        self._file: TextIO | None = file
        self._name = name
        self._rest = ""

    def writable(self) -> bool:
        """See the base."""
        return True

    def write(self, text: str) -> int:
        """Take some text; what is no whole line yet waits for its rest."""
        *lines, self._rest = (self._rest + text).split("\n")
        if lines and self._file is not None:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            try:
                # All of it at once, so that lines of several commands that write here are not mixed.
                self._file.write("".join(f"{now} {masked(line.rstrip())}".rstrip() + "\n" for line in lines))
                self._file.flush()
            except OSError as error:
                self._give_up(error)
        return len(text)

    def _give_up(self, error: OSError) -> None:
        # Words in passing: what a run moves is worth more. It is said once, where somebody may see it.
        self._file = None
        sys.stderr.write(f"warning: the log file {self._name} takes no more: {error.strerror or error}\n")


def open_log(name: str) -> Console:
    """Open a log to write behind what is there, and have what libraries log written to it too.

    Raises:
        UsageError: It cannot be opened.
    """
    try:
        # Line by line to the system, which puts each behind what others wrote meanwhile.
        file = open(os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8")  # noqa: PTH123, SIM115
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a file's name"
        raise UsageError(
            f"--log-file {name} cannot be written: {reason}", hint="Name a file in a folder that is there."
        ) from None
    file.reconfigure(errors="backslashreplace")
    stamped = _Stamped(file, name)
    handler = logging.StreamHandler(stamped)
    handler.setFormatter(logging.Formatter(logging.BASIC_FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(min(root.level or logging.INFO, logging.INFO))
    return Console(
        file=cast("IO[str]", stamped),
        width=_WIDTH,
        no_color=True,
        force_terminal=False,
        highlight=False,
        markup=False,
        emoji=False,
    )
