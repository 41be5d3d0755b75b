"""What libraries log, where --verbose asks for it: without any secret."""

from __future__ import annotations

import logging
import sys

from etlcli.hidden import masked

__all__ = ["show_library_logs"]


class _Discreet(logging.Formatter):
    """Writes records, and the tracebacks in them, without any secret."""

    def format(self, record: logging.LogRecord) -> str:
        return masked(super().format(record))


def show_library_logs() -> None:
    """Let all that is logged from now on be written to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Discreet(logging.BASIC_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
