"""The product beside other ways from PostgreSQL to DynamoDB, in turns, against the same servers.

What a way takes for a table of one row is its start-up, and left out of its rate. Ways that are slow get smaller
tables, and rates are compared. Each round runs all of them one after the other, so that what else the machine does
meets them alike, and ratios are taken within a round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from tests.bench.running import PRODUCT, Run, Way, prepare, rates, run
from tests.bench.servers import Servers

__all__ = ["WAYS", "compare"]

WAYS = (
    PRODUCT,
    Way("sketch", "a bare sketch of the same path, no promises", "tests.bench.ways.sketch"),
    Way("awswrangler", "awswrangler put_items, no cache", "tests.bench.ways.wrangler", 0.1, "awswrangler"),
    Way("batch_writer", "boto3 batch_writer, no cache", "tests.bench.ways.batch_writer", 0.1),
    Way("original", "the original's algorithm: a call a field, a put a row", "tests.bench.ways.original", 0.0025),
)
"""All ways, the fastest first. The slower a way, the fewer rows it gets, so that a round takes about a minute."""


def compare(servers: Servers, rows: int, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure all ways.

    Args:
        servers: Where everything is.
        rows: The rows of the table; slow ways get a part of them.
        rounds: How often each is measured.
        say: Told what goes on.

    Returns:
        The figures of each way, and how many times faster than the others the product is.
    """
    ways = [way for way in WAYS if way.is_there]
    left_out = [way.name for way in WAYS if not way.is_there]
    for name in left_out:
        say(f"{name} is left out, since it is not installed: pip install 'momento-etl[bench]'")
    sizes = {way.name: max(2, round(rows * way.share)) for way in ways}
    prepare(servers, sizes.values())
    runs: dict[str, list[Run]] = {way.name: [] for way in ways}
    idle: dict[str, list[Run]] = {way.name: [] for way in ways}
    for number in range(1, rounds + 1):
        for way in ways:
            cache = f"round-{number}-{way.name.replace('_', '-')}"
            idle[way.name].append(run(servers, way, 1, f"{cache}-idle"))
            found = run(servers, way, sizes[way.name], cache)
            runs[way.name].append(found)
            say(f"round {number}/{rounds}  {way.name:<12}  {found.rows:>9,} rows in {found.ended.seconds:6.2f} s")
    speeds = {way.name: rates(runs[way.name], idle[way.name]) for way in ways}
    return {
        "rounds": rounds,
        "ways": {way.name: {"label": way.label, **_figures(runs[way.name], idle[way.name])} for way in ways},
        "times_faster_than": {
            way.name: median(own / other for own, other in zip(speeds[PRODUCT.name], speeds[way.name], strict=True))
            for way in ways
            if way is not PRODUCT
        },
        "left_out": left_out,
    }


def _figures(runs: Sequence[Run], idle: Sequence[Run]) -> dict[str, float]:
    """What a way comes to: medians, but for the outermost rates."""
    speeds = rates(runs, idle)
    rows = runs[0].rows
    idle_cpu = median(one.ended.cpu_seconds for one in idle)
    return {
        "rows": rows,
        "rows_per_second": median(speeds),
        "slowest": min(speeds),
        "fastest": max(speeds),
        "start_up_seconds": median(one.ended.seconds for one in idle),
        "cpu_seconds_per_100k": median((one.ended.cpu_seconds - idle_cpu) / rows * 100_000 for one in runs),
        "momento_cpu_seconds_per_100k": median(one.momento["cpu_ms"] / rows * 100 for one in runs),
        "dynamodb_cpu_seconds_per_100k": median(one.dynamodb["cpu_ms"] / rows * 100 for one in runs),
        "momento_calls_per_1000": median(one.momento["calls"] / rows * 1000 for one in runs),
        "momento_operations_per_1000": median(one.momento["operations"] / rows * 1000 for one in runs),
        "peak_bytes": median(one.ended.peak_bytes for one in runs),
    }
