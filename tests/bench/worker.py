"""One worker of a run in blocks, in a process of its own, as a function's container is one.

    python -m tests.bench.worker TABLE CACHE DESTINATION IN_FLIGHT

Each line on stdin asks for something, as JSON: to plan, to do a block as the state machine goes through it, call after
call, or to finish. The answer is a line on stdout. Connections stay open in between.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Any

from etlcli import wiring
from etlcli.blocks.calls import RunCall
from etlcli.blocks.extracting import extract_block
from etlcli.blocks.finishing import finish_run
from etlcli.blocks.loading import load_block
from etlcli.blocks.planning import Spread, plan_run
from etlcli.cli.output import Output
from etlcli.cli.running import run_async
from etlcli.config import JobFlags, load_settings, resolve_job
from etlcli.encoding import PLAIN
from etlcli.model import CREATE_DEFAULTS, Job
from etlcli.ports import Cache, Sink, Source, StateStore
from etlcli.progress import Counters
from etlcli.report import Report

__all__ = ["main"]


class _Worker:
    """What a container keeps from one call to the next.

    Args:
        job: The job.
        source: Its source.
        cache: Its cache.
        sink: Its destination, with a bound on the requests in flight.
        state: The state table.
        counters: What these count.
    """

    def __init__(
        self, job: Job, source: Source, cache: Cache, sink: Sink, state: StateStore, counters: Counters
    ) -> None:
        self._job = job
        self._source = source
        self._cache = cache
        self._sink = sink
        self._state = state
        self._counters = counters

    async def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Do one call."""
        self._counters.reset()
        report = Report(self._job.name, counters=self._counters)
        if "plan" in asked:
            return await self._plan(report, **asked["plan"])
        call = RunCall(**asked["call"])
        if "block" in asked:
            return await self._block(call, asked["block"], report)
        await finish_run(call, self._job, self._cache, self._sink, self._state, report)
        return {"rows": report.counters.rows_loaded}

    async def _plan(self, report: Report, execution: str, concurrency: int, ranges: int) -> dict[str, Any]:
        planned = await plan_run(
            self._job,
            PLAIN,
            CREATE_DEFAULTS,
            Spread(concurrency, ranges),
            execution,
            self._source,
            self._cache,
            self._sink,
            self._state,
            report,
        )
        return {"call": asdict(planned.call), "blocks": planned.blocks, "concurrency": planned.concurrency}

    async def _block(self, call: RunCall, number: int, report: Report) -> dict[str, Any]:
        job, cache, state = self._job, self._cache, self._state
        ledger, reads = "", True
        lost: tuple[int, ...] = ()
        while True:
            if reads:
                read = await extract_block(call, number, ledger, lost, job, PLAIN, self._source, cache, state, report)
                ledger = read.ledger
            done = await load_block(call, number, ledger, job, cache, self._sink, state, report)
            ledger, lost, reads = done.ledger, done.lost, done.reads
            if not done.more:
                return {"rows": done.rows}


async def _serve(table: str, cache: str, destination: str, in_flight: int) -> None:
    counters = Counters()
    settings = load_settings(None, local=False)
    job = resolve_job(settings, table, JobFlags(cache=cache, destination=destination))
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with AsyncExitStack() as opened:
        worker = _Worker(
            job,
            wiring.open_source(settings, counters),
            await opened.enter_async_context(wiring.open_cache(settings, job.cache, counters)),
            await opened.enter_async_context(
                wiring.open_sink(settings, job.destination, counters, max_in_flight=in_flight)
            ),
            await opened.enter_async_context(wiring.open_state(settings, counters)),
            counters,
        )
        while line := await lines.readline():
            sys.stdout.write(json.dumps(await worker.answer(json.loads(line))) + "\n")
            sys.stdout.flush()


def main() -> None:
    """Answer until stdin ends."""
    table, cache, destination, in_flight = sys.argv[1:]
    run_async(lambda: _serve(table, cache, destination, int(in_flight)), Output(quiet=True))


if __name__ == "__main__":
    main()
