"""A Momento that fails on purpose, for whole runs: errors, throttles and delays at random, and connections cut.

async with faulty_momento(rate=0.2, seed=1) as momento:     # in the test's own event loop
    async with momento.open("movies", counters) as cache: ...

with faulty_momento_beside(seed=1) as momento:              # in a thread, for commands in processes of their own
    cli.given(MOMENTO_LOCAL=momento.address)("run", "--table", "movies")
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from etlcli.cache.momento import MomentoCache
from etlcli.config.momento import MomentoAccess
from etlcli.local.momento.faults import Disturbance
from etlcli.local.momento.limits import NO_LIMITS, Limits
from etlcli.local.momento.server import MomentoServer, serve
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from tests.integration.beside import beside
from tests.integration.fault_proxy import FaultProxy, Kind, fault_proxy, scheduled

__all__ = ["CALL_SECONDS", "PATIENT", "FaultyMomento", "faulty_momento", "faulty_momento_beside"]

CALL_SECONDS = 0.5
"""The deadline of a call of ``FaultyMomento.open``: short, so that calls which wait past it cost a test little."""

PATIENT = RetryPolicy(patience=60.0, base=0.005, ceiling=0.05)
"""Tries again at once, more or less, and for as long as it takes."""


@dataclass(frozen=True)
class FaultyMomento:
    """Where it is, and what befell whom.

    Attributes:
        server: The server behind it: what it holds, its meter, more faults.
        proxy: What cuts connections.
        disturbance: Counts the errors, throttles and delays.
    """

    server: MomentoServer
    proxy: FaultProxy
    disturbance: Disturbance

    @property
    def address(self) -> str:
        """host:port, by way of the proxy."""
        return self.proxy.address

    def open(
        self, name: str, counters: Counters, retry: RetryPolicy = PATIENT, call_seconds: float = CALL_SECONDS
    ) -> MomentoCache:
        """Make the adapter of a cache."""
        access = MomentoAccess("local", local=self.address)
        return MomentoCache(access, name, counters, retry, call_seconds=call_seconds)


@asynccontextmanager
async def faulty_momento(
    rate: float = 0.2,
    seed: int = 1,
    *,
    limits: Limits = NO_LIMITS,
    delay_seconds: float = 2 * CALL_SECONDS,
    cuts: Sequence[Kind] = ("cut", "reset", "half_close"),
    cut_within: int = 2_000_000,
) -> AsyncIterator[FaultyMomento]:
    """Run one in this event loop.

    Args:
        rate: The share of calls that fail, are throttled, or wait.
        seed: What the draws depend on.
        limits: What the account is allowed.
        delay_seconds: How long calls wait that do; 0 for none.
        cuts: How connections end.
        cut_within: Each after at most so many bytes.
    """
    async with serve(port=0, limits=limits) as server:
        disturbance = server.faults.disturbance = Disturbance(rate, seed, delay_seconds)
        with fault_proxy(server.address, scheduled(seed, 1.0, cuts, cut_within)) as proxy:
            yield FaultyMomento(server, proxy, disturbance)


@contextmanager
def faulty_momento_beside(
    rate: float = 0.2,
    seed: int = 1,
    *,
    limits: Limits = NO_LIMITS,
    delay_seconds: float = 0.2,
    cut_within: int = 2_000_000,
) -> Iterator[FaultyMomento]:
    """Run one in a thread of its own; its arguments are those of ``faulty_momento``."""
    with beside(
        lambda: faulty_momento(rate, seed, limits=limits, delay_seconds=delay_seconds, cut_within=cut_within)
    ) as momento:
        yield momento
