"""Time that passes only while everybody waits for it, and then at once."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["SimulatedLoop", "simulate"]


class _NoWaiting(selectors.SelectSelector):
    """Moves its loop's clock on instead of waiting."""

    loop: SimulatedLoop

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for ever"
        self.loop.now += timeout
        return super().select(0)


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop in which time passes only while everybody waits for it."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _NoWaiting()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


def simulate(body: Callable[[], Awaitable[None]]) -> None:
    """Run a body in simulated time."""
    loop = SimulatedLoop()
    try:
        loop.run_until_complete(asyncio.ensure_future(body(), loop=loop))
    finally:
        loop.close()
