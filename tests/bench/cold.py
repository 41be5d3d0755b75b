"""A function's cold start: from a container's start to the end of its first call, and the second call beside it.

The function is the one that is deployed, as ``sam build`` builds it, under AWS's own runtime emulator; it plans a run
over a table of one row. So much of the time is Python's imports and first connections. What AWS takes before that, to
fetch and unpack the code, is not in it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from tests.aws.lambdas import HANDLERS, Emulator, emulator_program
from tests.bench.running import DESTINATION, prepare
from tests.bench.servers import Servers
from tests.bench.table import make_table

__all__ = ["cold"]

_FUNCTION = "Plan"


def cold(servers: Servers, code: Path, rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure it.

    Args:
        servers: Where everything is.
        code: The built function's folder.
        rounds: In how many containers.
        say: Told what goes on.

    Returns:
        Seconds of the first and the second call, medians. The first round's are left out, where there are more: it
        compiles what is imported, which an artifact that is deployed brings along or not.
    """
    program = emulator_program()
    assert program is not None, "SAM's emulator is there"
    prepare(servers, ())
    found: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        tables = [f"cold_{number}_{call}" for call in (1, 2)]
        for table in tables:
            make_table(servers.postgres_url, table, 1)
        found.append(_round(servers, program, code, tables))
        say(f"container {number}/{rounds}  first call {found[-1][0]:5.2f} s, second {found[-1][1]:5.2f} s")
    first, second = zip(*found[1:], strict=True)
    return {"rounds": rounds, "first_call_seconds": median(first), "second_call_seconds": median(second)}


def _round(servers: Servers, program: Path, code: Path, tables: list[str]) -> tuple[float, float]:
    environment = {name: value for name, value in servers.environment().items() if name != "PYTHONPATH"}
    container = Emulator(
        program,
        code,
        HANDLERS[_FUNCTION],
        {
            **environment,
            "AWS_LAMBDA_FUNCTION_NAME": _FUNCTION,
            "AWS_LAMBDA_FUNCTION_TIMEOUT": "900",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
        },
        Path(os.devnull),
    )
    taken = []
    started = time.perf_counter()
    container.start()
    try:
        for table in tables:
            event = {"table": table, "cache": "cold", "destination": DESTINATION}
            answer = json.loads(container.call(json.dumps(event).encode()))
            if answer.get("name") != table:
                raise RuntimeError(f"the call failed: {answer}")
            taken.append(time.perf_counter() - started)
            started = time.perf_counter()
    finally:
        container.stop()
    first, second = taken
    return first, second
