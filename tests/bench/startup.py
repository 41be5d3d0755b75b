"""How long ``momento-etl --help`` and a Lambda handler take to start, beside imports that they cannot do without."""

from __future__ import annotations

import os
from collections.abc import Callable
from statistics import median
from typing import Any

from tests.bench.launch import launch
from tests.bench.servers import ROOT

__all__ = ["startup"]

_COMMANDS = {
    "help": ["-m", "etlcli", "--help"],
    "version": ["-m", "etlcli", "--version"],
    "imports": ["-c", "import typer, rich"],
    "python": ["-c", ""],
    "handlers": ["-c", "import etlcli.aws.handlers"],
    "adapters": [
        "-c",
        "import etlcli.aws.handlers, etlcli.source.postgres, etlcli.cache.momento, etlcli.sink.dynamodb",
    ],
    "sdks": ["-c", "import momento, psycopg, boto3"],
}


def startup(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure all, in turns.

    Returns:
        Seconds of each command, medians; how many times as long as the bare imports the help takes; and the same of the
        handlers' module, alone and with all that a first call imports, and the three SDKs.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seconds: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for number in range(rounds + 1):
        for name, command in _COMMANDS.items():
            ended = launch(command, environment)
            if number:  # the first round warms the caches: its modules may have to be compiled
                seconds[name].append(ended.seconds)
    say(f"{rounds} rounds of {', '.join(_COMMANDS)}")

    def times(name: str, bare: str) -> float:
        return median(own / other for own, other in zip(seconds[name], seconds[bare], strict=True))

    return {
        "rounds": rounds,
        "seconds": {name: median(found) for name, found in seconds.items()},
        "help_times_imports": times("help", "imports"),
        "handlers_times_sdks": times("handlers", "sdks"),
        "adapters_times_sdks": times("adapters", "sdks"),
    }
