"""What this machine knows of itself: its steady clock, and its processes. The one file here that asks the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from etlcli.state.lease import Process

__all__ = ["HostProcesses", "host_name", "steady_clock"]

# ps and sysctl answer in milliseconds; whoever waits for longer has other troubles, and is told "not known".
_TOOL_SECONDS = 5.0
_STEADY: int = getattr(time, "CLOCK_BOOTTIME", None) or time.CLOCK_MONOTONIC_RAW
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def steady_clock() -> float:
    """Seconds that never go back, and that also pass while the machine sleeps.

    ``time.monotonic`` stands still on a sleeping laptop, and its lease would seem good when it wakes up, long after
    another host took it over (clock_gettime(2), CLOCK_BOOTTIME; on macOS CLOCK_MONOTONIC_RAW goes on, as
    ``mach_continuous_time`` does).
    """
    return time.clock_gettime(_STEADY)


def host_name() -> str:
    """This machine's name, for people."""
    return platform.node() or "unknown host"


class HostProcesses:
    """This machine's processes: from /proc where there is one, else from ps and sysctl (macOS)."""

    def find(self, pid: int) -> Process | None:
        """Look a pid up: the process that has it, or None where it has none, is a zombie, or cannot be told apart."""
        boot, started = _boot(), _started(pid)
        return Process(boot, pid, started) if boot and started else None

    def current(self) -> Process | None:
        """This process, or None where it cannot be told apart from others: then nobody takes its lease over at once."""
        return self.find(os.getpid())

    def is_dead(self, process: Process) -> bool:
        """Whether a process of this very machine surely runs no more; False for those of others."""
        boot = _boot()
        if boot is None or boot != process.boot:
            return False
        started = _started(process.pid)
        if started is None:
            # Where /proc hides the processes of other users (hidepid), the kernel still tells them from none.
            return not _exists(process.pid)
        return started != process.started


def _boot() -> str | None:
    """Name this start of this machine, and the pid namespace: containers share the first and number their own pids."""
    try:
        return f"{_BOOT_ID.read_text(encoding='ascii').strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return _tool("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid") if sys.platform == "darwin" else None


def _started(pid: int) -> str | None:
    """When the process with a pid started; empty for a zombie, None where there is none or it cannot be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return _started_by_ps(pid) if sys.platform == "darwin" else None
    # The name in parentheses may hold spaces; after it come the state and, 19 fields on, the start in clock ticks
    # since boot (proc_pid_stat(5)).
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def _started_by_ps(pid: int) -> str | None:
    answer = _tool("/bin/ps", "-ww", "-o", "stat=", "-o", "lstart=", "-p", str(pid))
    if answer is None:
        return None
    state, _, started = answer.partition(" ")
    return "" if state.startswith("Z") else " ".join(started.split())


def _tool(*argv: str) -> str | None:
    try:
        done = subprocess.run(
            argv,
            env={"LC_ALL": "C", "TZ": "UTC"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TOOL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
