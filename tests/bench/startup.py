"""How long ``momento-etl --help`` takes, beside the imports that it cannot do without."""

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
}


def startup(rounds: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure both, in turns.

    Returns:
        Seconds of each command, medians; and how many times as long as the bare imports the help takes.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    seconds: dict[str, list[float]] = {name: [] for name in _COMMANDS}
    for number in range(rounds + 1):
        for name, command in _COMMANDS.items():
            ended = launch(command, environment)
            if number:  # the first round warms the caches: its modules may have to be compiled
                seconds[name].append(ended.seconds)
    say(f"{rounds} rounds of {', '.join(_COMMANDS)}")
    return {
        "rounds": rounds,
        "seconds": {name: median(found) for name, found in seconds.items()},
        "help_times_imports": median(own / bare for own, bare in zip(seconds["help"], seconds["imports"], strict=True)),
    }
