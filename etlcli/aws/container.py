"""What a function's container keeps from one call to the next: the configuration, the connections, the event loop.

A container takes one call at a time. Between two it is frozen, for minutes or for ever; a connection that was closed
meanwhile is made again by its adapter, as any that breaks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar

from etlcli import wiring
from etlcli.config import Settings, load_settings, require
from etlcli.event_loop import loop_factory
from etlcli.hidden import hide, hide_environment, hide_within
from etlcli.progress import Counters
from etlcli.secrets.store import AwsSecrets

if TYPE_CHECKING:
    from etlcli.model import Job
    from etlcli.ports import Cache, Sink, Source, StateStore

__all__ = ["Container"]

T = TypeVar("T")


class Container:
    """One container.

    Attributes:
        counters: What its adapters count, of the call that is under way.
    """

    def __init__(self) -> None:
        self.counters = Counters()
        self._secrets = AwsSecrets()
        self._settings: Settings | None = None
        self._open: dict[tuple[object, ...], Any] = {}
        self._closing = AsyncExitStack()
        self._runner: asyncio.Runner | None = None

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do one call's work in the container's event loop."""
        self.counters.reset()
        if self._runner is None:
            self._runner = asyncio.Runner(loop_factory=loop_factory())

        async def main() -> T:
            return await work()

        return self._runner.run(main())

    def close(self) -> None:
        """End its event loop; Lambda ends the process instead."""
        if self._runner is not None:
            self._runner.close()

    def settings(self, *, source: bool = False, cache: bool = False, destination: bool = False) -> Settings:
        """The configuration, read once; with these halves of it given.

        Raises:
            ConfigError: It is wrong, or one of these halves is missing.
        """
        if self._settings is None:
            hide_environment(os.environ)
            self._settings = load_settings(resolver=self._secrets)
        # What one function never uses, it never looks up either, and needs no right to.
        self._settings = require(self._settings, source=source, cache=cache, destination=destination)
        hide(self._settings.cache.api_key)
        hide_within(self._settings.source.url if self._settings.source is not None else None)
        return self._settings

    async def forget(self) -> None:
        """Close all connections, and read the configuration again when it is next asked for: a secret has changed."""
        self._settings = None
        self._secrets.forget()
        self._open.clear()
        closing, self._closing = self._closing, AsyncExitStack()
        await closing.aclose()

    def source(self) -> Source:
        """The source; it connects for each snapshot."""
        return wiring.open_source(self.settings(source=True), self.counters)

    async def cache(self, job: Job) -> Cache:
        """The cache of a job."""
        settings = self.settings(cache=True)
        return await self._opened(
            ("cache", job.cache), lambda: wiring.open_cache(settings, job.cache, self.counters, pings=False)
        )

    async def sink(self, job: Job, max_writes: int | None = None) -> Sink:
        """The destination table of a job, with a bound on write units a second."""
        settings = self.settings(destination=True)
        return await self._opened(
            ("sink", job.destination, max_writes),
            lambda: wiring.open_sink(settings, job.destination, self.counters, max_writes=max_writes),
        )

    async def state(self) -> StateStore:
        """The state table."""
        settings = self.settings(destination=True)
        return await self._opened(("state",), lambda: wiring.open_state(settings, self.counters))

    async def _opened(self, name: tuple[object, ...], make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        if name not in self._open:
            self._open[name] = await self._closing.enter_async_context(make())
        found: T = self._open[name]
        return found
