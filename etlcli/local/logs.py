"""The logs of the parts: one per start, and the one before."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["begin", "older", "tail"]


def older(log: Path) -> Path:
    """Return where the log of the start before is kept."""
    return log.with_name(f"{log.name}.old")


def begin(log: Path) -> IO[bytes]:
    """Open a log anew, for this user only; the old one is kept. So logs stay small without anybody's care."""
    with suppress(FileNotFoundError):
        log.replace(older(log))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    return os.fdopen(descriptor, "ab", buffering=0)


def tail(log: Path, lines: int = 10) -> str:
    """Return the last lines of a log, indented for an error message; a note where there are none."""
    try:
        found = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"  (its log cannot be read: {error.strerror})"
    return "\n".join(f"  {line}" for line in found[-lines:]) or "  (its log is empty)"
