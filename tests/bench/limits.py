"""How near a run comes to the time that an account's allowance makes inevitable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from statistics import median
from typing import Any

from etlcli.local.momento.limits import ON_DEMAND
from tests.bench.running import PRODUCT, Run, prepare, run
from tests.bench.servers import Servers

__all__ = ["limits"]


def limits(
    limited: Callable[[], AbstractContextManager[Servers]],
    idle: Sequence[Run],
    rows: int,
    rounds: int,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure the product under the limits of an account on demand.

    Args:
        limited: Starts servers with them, whose account is at rest.
        idle: Runs over one row, without limits.
        rows: The rows of the table.
        rounds: How often it is measured.
        say: Told what goes on.

    Returns:
        What it took, what it had to take, and how many times that it took. An account saves up a second's allowance,
        so that one goes first for free.
    """
    allowance = ON_DEMAND.operations_per_second
    assert allowance is not None
    runs: list[Run] = []
    for number in range(1, rounds + 1):
        with limited() as servers:
            prepare(servers, [rows])
            found = run(servers, PRODUCT, rows, f"limits-{number}")
        runs.append(found)
        say(
            f"round {number}/{rounds}  {rows:,} rows, {found.momento['operations']:,} operations,"
            f" in {found.ended.seconds:6.2f} s"
        )
    start_up = median(one.ended.seconds for one in idle)
    seconds = median(one.ended.seconds - start_up for one in runs)
    operations = median(one.momento["operations"] for one in runs)
    inevitable = max(operations - allowance, 0) / allowance
    return {
        "rounds": rounds,
        "rows": rows,
        "operations": operations,
        "seconds": seconds,
        "inevitable_seconds": inevitable,
        "times_inevitable": seconds / inevitable if inevitable else None,
    }
