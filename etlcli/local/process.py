"""Processes that outlive the command that started them: start one, know it again, stop it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Account", "Command", "Ended", "Process", "arguments", "find", "is_alive", "spawn", "stop"]

POLL_SECONDS = 0.02
_PS = "/bin/ps"

# The shell leaves at once, so the program belongs to init: no zombie stays in a caller that lives on. The program
# waits for a line before it begins, so that none runs which is not written down; a caller that dies first closes the
# pipe, and nothing begins.
_HELD = 'exec 3<&0; (IFS= read -r go <&3 && exec 3<&- && exec "$@") </dev/null >&2 & echo $!'


@dataclass(frozen=True)
class Process:
    """A process, known again after its pid was given to another.

    Attributes:
        pid: Its number.
        started: When it started, in the system's own terms; only good for comparison.
    """

    pid: int
    started: str


@dataclass(frozen=True)
class Account:
    """Another user of this machine, under which root runs a program."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Command:
    """A program to start.

    Attributes:
        argv: The program and its arguments; every user of the machine can read these.
        environment: All of its environment.
        account: Whom it runs as; None for the caller.
    """

    argv: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    account: Account | None = None


class Ended(Enum):
    """How a process came to its end."""

    ABSENT = "was not running"
    STOPPED = "stopped"
    KILLED = "killed, since it did not stop in time"


def find(pid: int) -> Process | None:
    """Look a pid up.

    Returns:
        The process that has it now, or None: nobody, or one that is dead and not yet forgotten (a zombie).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _find_with_ps(pid)
    # The name in parentheses may hold spaces; after it come the state and, 19 fields on, the start in clock ticks
    # since boot (proc_pid_stat(5)), which a restart of the machine begins anew.
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else Process(pid, f"{boot} {rest[18]}")


def _find_with_ps(pid: int) -> Process | None:
    answer = _ps(pid, "stat=", "lstart=")
    state, _, started = answer.partition(" ")
    return Process(pid, " ".join(started.split())) if state and not state.startswith("Z") else None


def _ps(pid: int, *columns: str) -> str:
    done = subprocess.run(
        [_PS, "-ww", *(f"-o{column}" for column in columns), "-p", str(pid)],
        env={"LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout.strip()


def is_alive(process: Process) -> bool:
    """Tell whether this very process still runs."""
    return find(process.pid) == process


def arguments(pid: int) -> str:
    """Return a process's command line, joined by spaces; empty when there is none."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return text.replace("\0", " ").strip()
    return _ps(pid, "command=")


def spawn(command: Command, log: IO[bytes], record: Callable[[Process], None]) -> Process:
    """Start a program in a session of its own; it goes on when the caller and its terminal are gone.

    Args:
        command: What to start.
        log: Takes the program's stdout and stderr.
        record: Called with the new process before the program begins; where it raises, nothing begins.

    Raises:
        OSError: The shell could not be started, or not as that account.
    """
    account = command.account
    with subprocess.Popen(
        ["/bin/sh", "-c", _HELD, "sh", *command.argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd="/",
        env=dict(command.environment),
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        line = shell.stdout.readline()
        process = find(int(line)) if line.strip().isdigit() else None
        if process is None:
            raise ChildProcessError(f"{command.argv[0]} could not be started")
        record(process)
        shell.stdin.write(b"go\n")
    return process


def stop(process: Process, how: signal.Signals = signal.SIGTERM, grace_seconds: float = 10.0) -> Ended:
    """End a process, if it is still the one meant.

    Args:
        process: Whom to end.
        how: The signal that asks for it.
        grace_seconds: How long it may take over that before it is killed.

    Raises:
        PermissionError: It belongs to another user.
        TimeoutError: It did not go even when killed (it hangs in the kernel).
    """
    if not is_alive(process):
        return Ended.ABSENT
    with suppress(ProcessLookupError):
        os.kill(process.pid, how)
    if _gone_within(process, grace_seconds):
        return Ended.STOPPED
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    if not _gone_within(process, grace_seconds):
        raise TimeoutError(f"process {process.pid} does not go, even when killed")
    return Ended.KILLED


def _gone_within(process: Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
