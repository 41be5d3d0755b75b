"""The event loop that the core runs in, in a command and in a function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["loop_factory"]


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the fastest event loop there is, for ``asyncio.Runner``; None for asyncio's own."""
    try:
        import uvloop
    except ImportError:  # not on every platform; asyncio's own does the same work
        return None
    return uvloop.new_event_loop
