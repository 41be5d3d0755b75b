"""What a slow DynamoDB costs: the product's rate where a write takes 50 ms, beside that where it takes 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from tests.bench.running import PRODUCT, Run, prepare, rates, run
from tests.bench.servers import Servers

__all__ = ["LATENCIES_MS", "latency"]

LATENCIES_MS = (5, 50)
"""The latencies that are compared."""


def latency(
    servers: Mapping[int, Servers], idle: Sequence[Run], rows: int, rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the product at each latency, in turns.

    Args:
        servers: Where everything is, by the milliseconds that a write takes.
        idle: Runs over one row.
        rows: The rows of the table.
        rounds: How often each is measured.
        say: Told what goes on.

    Returns:
        Rows a second at each, and the last one's share of the first one's, within a round.
    """
    runs: dict[int, list[Run]] = {ms: [] for ms in servers}
    for each in servers.values():
        prepare(each, [rows])
    for number in range(1, rounds + 1):
        for ms, each in servers.items():
            found = run(each, PRODUCT, rows, f"latency-{number}-{ms}")
            runs[ms].append(found)
            say(f"round {number}/{rounds}  {ms:>3} ms: {rows:,} rows in {found.ended.seconds:6.2f} s")
    speeds = {ms: rates(found, idle) for ms, found in runs.items()}
    first, *_, last = speeds.values()
    return {
        "rounds": rounds,
        "rows": rows,
        "rows_per_second": {str(ms): median(found) for ms, found in speeds.items()},
        "share": median(slow / fast for slow, fast in zip(last, first, strict=True)),
        "most_in_flight": {str(ms): each.dynamodb.counts()["most_in_flight"] for ms, each in servers.items()},
    }
