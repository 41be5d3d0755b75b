"""Whether a run in blocks grows with the blocks that are at work: 1, 2, 4 and 8 at once.

Each worker is a process of its own, as a function's container is, and has a few requests in flight, to a DynamoDB that
takes long for each. So what bounds a worker is the wait, as it is in AWS, and not the two processors that all of them
share here. What they share there as well is real: the lease, the ledger, the progress in the state table, the cache.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from statistics import median
from types import TracebackType
from typing import Any, Self

from tests.bench.running import DESTINATION, prepare, table_of
from tests.bench.servers import ROOT, Servers

__all__ = ["AT_ONCE", "BLOCKS", "IN_FLIGHT", "LATENCY_MS", "scale"]

AT_ONCE = (1, 2, 4, 8)
"""So many blocks at once are compared."""

BLOCKS = max(AT_ONCE)
"""The table is cut into so many blocks of one range, whatever the number at once."""

LATENCY_MS = 250
"""How long DynamoDB takes for each request."""

IN_FLIGHT = 4
"""The requests that one worker has in flight, at most."""


def scale(servers: Servers, rows: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure a run in blocks with more and more of them at once.

    Args:
        servers: Where everything is; DynamoDB takes ``LATENCY_MS`` for a write.
        rows: The rows of the table.
        rounds: How often each is measured.
        say: Told what goes on.

    Returns:
        Rows a second for each number at once, from when the first block is begun to when the last one is in place; and
        what part that is of so many times the rate of a single one, within a round.
    """
    prepare(servers, [rows])
    found: dict[int, list[float]] = {at_once: [] for at_once in AT_ONCE}
    with ExitStack() as stack:
        command = [table_of(rows), "scale", DESTINATION, str(IN_FLIGHT)]
        workers = [stack.enter_context(_Worker(command, servers.environment())) for _ in range(BLOCKS)]
        _run(servers, workers, rows, "warm")
        for number in range(1, rounds + 1):
            for at_once in AT_ONCE:
                seconds = _run(servers, workers[:at_once], rows, f"{number}-{at_once}")
                found[at_once].append(rows / seconds)
                say(f"round {number}/{rounds}  {at_once} at once: {rows:,} rows in {seconds:6.2f} s")
    return {
        "rounds": rounds,
        "rows": rows,
        "blocks": BLOCKS,
        "latency_ms": LATENCY_MS,
        "in_flight": IN_FLIGHT,
        "most_in_flight": servers.dynamodb.counts()["most_in_flight"],
        "rows_per_second": {str(at_once): median(rates) for at_once, rates in found.items()},
        "share_of_linear": {
            str(at_once): median(
                rate / (at_once * single) for rate, single in zip(rates, found[AT_ONCE[0]], strict=True)
            )
            for at_once, rates in found.items()
        },
    }


class _Worker:
    """A worker in a process of its own; it ends with the context.

    Args:
        arguments: Of ``tests.bench.worker``.
        environment: All of its environment.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.worker", *arguments],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # the end of its stdin

    def ask(self, **call: Any) -> dict[str, Any]:
        """Have one call done.

        Raises:
            RuntimeError: It failed; its own words are on stderr.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker ended at {call}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _run(servers: Servers, workers: Sequence[_Worker], rows: int, execution: str) -> float:
    """Run the table through, each block by a worker that is free; answer the seconds that the blocks took.

    Raises:
        RuntimeError: A worker failed, or not every row arrived.
    """
    before = servers.dynamodb.counts()["items"]
    planned = workers[0].ask(plan={"execution": execution, "concurrency": len(workers), "ranges": BLOCKS})
    if (len(planned["blocks"]), planned["concurrency"]) != (BLOCKS, len(workers)):
        raise RuntimeError(f"it was not planned as {len(workers)} of {BLOCKS} blocks at once: {planned}")
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    for block in planned["blocks"]:
        todo.put(block)
    failed: list[Exception] = []

    def work(worker: _Worker) -> None:
        try:
            while True:
                worker.ask(call=planned["call"], block=todo.get_nowait())
        except queue.Empty:
            pass
        except Exception as error:  # noqa: BLE001  raised below, in the thread that waits
            failed.append(error)

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failed:
        raise failed[0]
    loaded = workers[0].ask(call=planned["call"])["rows"]
    arrived = servers.dynamodb.counts()["items"] - before
    if not loaded == arrived == rows:
        raise RuntimeError(f"{arrived:,} of {rows:,} rows arrived, and {loaded:,} were counted")
    return seconds
