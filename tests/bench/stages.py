"""Each stage of the path alone, with the product's own classes.

    python -m tests.bench.stages TABLE CACHE DESTINATION

All of a table is held in memory between two stages, so that a stage has nothing to wait for but its own service. What
signing takes is part of writing too.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, TypeVar

from etlcli import wiring
from etlcli.cache.packed import Packed, Packer, unpack
from etlcli.cli.output import Output
from etlcli.cli.running import run_async
from etlcli.config import JobFlags, load_settings, resolve_job
from etlcli.encoding import Encoded
from etlcli.extraction import _STORES_IN_FLIGHT
from etlcli.loading import CHUNKS_AT_ONCE
from etlcli.model import Job
from etlcli.plan import Plan, make_plan, row_encoder
from etlcli.ports import Source
from etlcli.progress import Counters
from etlcli.sink.batches import batches, request, spread
from etlcli.sink.dynamodb import DynamoDBSink
from tests.bench.launch import launch
from tests.bench.running import DESTINATION, prepare, table_of
from tests.bench.servers import Servers

__all__ = ["STAGES", "measure_stages"]

STAGES = ("read", "encode", "pack", "put", "get", "unpack", "sign", "write")
"""The stages in the order of a row's way. Signing is a part of writing."""

_TTL_SECONDS = 4800

T = TypeVar("T")


def measure_stages(servers: Servers, rows: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure each stage, in a process of its own each round.

    Returns:
        Of each stage rows a second and processor seconds for 100,000 rows; medians of the rounds.
    """
    prepare(servers, [rows])
    taken = []
    for number in range(1, rounds + 1):
        command = ["-m", "tests.bench.stages", table_of(rows), f"stages-{number}", DESTINATION]
        taken.append(launch(command, servers.environment()).summary)
        say(f"round {number}/{rounds}  each stage alone")
    return {
        "rows": rows,
        "rounds": rounds,
        "stages": {
            stage: {
                "rows_per_second": rows / median(figures[stage][0] for figures in taken),
                "cpu_seconds_per_100k": median(figures[stage][1] for figures in taken) / rows * 100_000,
            }
            for stage in STAGES
        },
    }


class _Watch:
    """Takes the time and the processor time of stages."""

    def __init__(self) -> None:
        self.taken: dict[str, tuple[float, float]] = {}

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Take those of the body."""
        seconds, cpu_seconds = time.perf_counter(), time.process_time()
        yield
        self.taken[stage] = (time.perf_counter() - seconds, time.process_time() - cpu_seconds)


async def _each_stage(table: str, cache: str, destination: str) -> dict[str, tuple[float, float]]:
    """Take a table along the whole way, stage by stage."""
    watch, counters = _Watch(), Counters()
    settings = load_settings(None, local=False)
    job = resolve_job(settings, table, JobFlags(cache=cache, destination=destination))
    plan, lines = await _read(job, wiring.open_source(settings, counters), watch)
    encoder = row_encoder(plan)
    with watch.on("encode"):
        encoded = [encoder.encode_batch(batch) for batch in lines]
    with watch.on("pack"):
        chunks = list(_packed(encoded))
    names = [f"chunk/{number}" for number in range(len(chunks))]
    async with wiring.open_cache(settings, job.cache, counters) as staged:
        await staged.ensure()
        with watch.on("put"):
            puts = zip(names, chunks, strict=True)
            await _some_at_once(_STORES_IN_FLIGHT, puts, lambda it: staged.set(it[0], it[1].entry, _TTL_SECONDS))
        with watch.on("get"):
            entries = await _some_at_once(CHUNKS_AT_ONCE, iter(names), staged.get)
    with watch.on("unpack"):
        items = [unpack(entry, "a chunk") for entry in entries if entry is not None]
    async with wiring.open_sink(settings, job.destination, counters) as sink:
        await _sign(sink, items, watch)
        with watch.on("write"):
            refused = await _some_at_once(CHUNKS_AT_ONCE, iter(items), sink.put)
    assert not any(refused), refused
    assert counters.rows_loaded == sum(map(len, lines)), counters
    return watch.taken


async def _read(job: Job, source: Source, watch: _Watch) -> tuple[Plan, list[list[bytes]]]:
    async with source.snapshot() as snapshot:
        plan = make_plan(job, await snapshot.describe(job.selection), source.description)
        with watch.on("read"):
            return plan, [batch async for batch in snapshot.read(plan.reading)]


def _packed(encoded: Sequence[Encoded]) -> Iterator[Packed]:
    packer = Packer()
    for batch in encoded:
        packer.add(batch.items)
        if packer.full:
            yield packer.finish()
            packer = Packer()
    yield packer.finish()


async def _sign(sink: DynamoDBSink, items: Sequence[list[bytes]], watch: _Watch) -> None:
    poster = sink._opened.writer._poster
    signer = await poster._connection.credentials.current()
    bodies = [request(sink.table, batch) for chunk in items for batch in batches(spread(chunk))]
    with watch.on("sign"):
        for body in bodies:
            poster._sign(body, signer)


async def _some_at_once(count: int, todo: Iterator[Any], call: Callable[[Any], Awaitable[T]]) -> list[T]:
    """Make calls, so many at once."""
    answers: list[T] = []

    async def work() -> None:
        for each in todo:
            answer = await call(each)
            answers.append(answer)

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(work())
    return answers


def main() -> None:
    """Print what each stage took: seconds, and processor seconds."""
    table, cache, destination = sys.argv[1:]
    taken = run_async(lambda: _each_stage(table, cache, destination), Output(quiet=True))
    sys.stdout.write(json.dumps(taken) + "\n")


if __name__ == "__main__":
    main()
