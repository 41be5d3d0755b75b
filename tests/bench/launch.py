"""One command in a process of its own: how long it took, of how much processor and memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "launch"]

# A process's peak starts with that of the one that started it (Linux counts what was there before exec), so what starts
# it is a Python with nothing in it rather than this one.
_LAUNCHER = """
import os, sys, time
started = time.perf_counter()
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - started
with open(sys.argv[1], "w") as figures:
    figures.write(f"{seconds} {usage.ru_utime + usage.ru_stime} {usage.ru_maxrss}")
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Ended:
    """A command that came to its end.

    Attributes:
        out: Its stdout.
        seconds: From its start to its end.
        cpu_seconds: Processor time that it used, of all its threads.
        peak_bytes: The most memory that it had at once.
    """

    out: str
    seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def summary(self) -> dict[str, Any]:
        """The object that it printed."""
        summary: dict[str, Any] = json.loads(self.out)
        return summary


def launch(command: Sequence[str], environment: Mapping[str, str]) -> Ended:
    """Run a Python module with arguments, and wait for it.

    Args:
        command: The interpreter's arguments.
        environment: All of its environment.

    Raises:
        RuntimeError: It failed; its own words are on stderr.
    """
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(figures), sys.executable, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=dict(environment),
            cwd=folder,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise RuntimeError(f"python {' '.join(command)} ended with {ended.returncode}\n{ended.stdout}")
        seconds, cpu_seconds, peak = map(float, figures.read_text().split())
    # Kilobytes on Linux, bytes on macOS.
    return Ended(ended.stdout, seconds, cpu_seconds, int(peak) * (1 if sys.platform == "darwin" else 1024))
