"""Peak memory and time a row for tables that differ two hundredfold: neither grows with the table.

What is measured is the peak resident set of the command's process, as the kernel counted it (``wait4``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from tests.bench.running import PRODUCT, Run, prepare, rates, run
from tests.bench.servers import Servers

__all__ = ["COUNTS", "LIMIT_BYTES", "memory"]

LIMIT_BYTES = 150_000_000
"""What a run may take at most, whatever the table's size."""

COUNTS = (10_000, 50_000, 2_000_000)
"""Rows of the tables."""

# A smaller table is over before its first chunks are written: what it takes says little of a row.
_LARGE_ENOUGH = 50_000


def memory(
    servers: Servers, idle: Sequence[Run], counts: Sequence[int], rounds: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure the product over tables of so many rows.

    Args:
        servers: Where everything is.
        idle: Runs over one row.
        counts: How many rows each table has.
        rounds: How often each is measured.
        say: Told what goes on.

    Returns:
        Peak bytes and microseconds a row of each, and how far the extremes of both are apart.
    """
    prepare(servers, counts)
    runs: dict[int, list[Run]] = {rows: [] for rows in counts}
    for number in range(1, rounds + 1):
        for rows in counts:
            found = run(servers, PRODUCT, rows, f"memory-{number}-{rows}")
            runs[rows].append(found)
            peak = found.ended.peak_bytes / 1e6
            say(f"round {number}/{rounds}  {rows:>9,} rows in {found.ended.seconds:6.2f} s, {peak:5.1f} MB at most")
    peaks = {rows: median(one.ended.peak_bytes for one in found) for rows, found in runs.items()}
    times = {rows: 1e6 / median(rates(found, idle)) for rows, found in runs.items()}
    steady = [seconds for rows, seconds in times.items() if rows >= _LARGE_ENOUGH] or [*times.values()]
    return {
        "rounds": rounds,
        "counts": {str(rows): {"peak_bytes": peaks[rows], "microseconds_per_row": times[rows]} for rows in counts},
        "largest_to_smallest_peak": max(peaks.values()) / min(peaks.values()),
        "slowest_to_fastest_row": max(steady) / min(steady),
    }
