"""Processes that run the command line and kill themselves with SIGKILL at a named instant.

One process imports the program and then forks a child for each command, which saves most of what a start costs. It
reads one JSON object a line from stdin, and answers each with the child's exit code: negative for a signal.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from etlcli import extraction
from etlcli.cache import packed
from etlcli.cache.momento import MomentoCache
from etlcli.cli import main as command_line
from etlcli.sink.post import Poster
from etlcli.sink.state import DynamoDBState
from etlcli.source.snapshot import PostgresSnapshot

__all__ = ["PHASES", "Instant", "Mortals", "When"]

When = Literal["before", "during", "after"]

# Chunks are made small, so that a few thousand rows fill hundreds.
CHUNK_BYTES = 2000

_KEYS = {"storing a chunk": "/chunk/", "writing the ledger": "/ledger/", "moving the pointer": "/current"}
PHASES = (
    "reading",
    *_KEYS,
    "writing a batch",
    "recording progress",
    "finishing",
)
"""What a run can be killed in."""


@dataclass(frozen=True)
class Instant:
    """When a process ends.

    Attributes:
        phase: What it does then.
        number: For the so many-th time, from 1.
        when: Before the call is made, after it was answered, or in between.
        delay_seconds: How long after the call was made, where it is in between.
    """

    phase: str
    number: int
    when: When
    delay_seconds: float = 0.0


class Mortals:
    """Runs commands in processes of their own while its context lasts."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.integration.mortal"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def run(self, environment: dict[str, str], folder: Path, arguments: list[str], instant: Instant | None) -> int:
        """Run a command to its end.

        Args:
            environment: All of its variables.
            folder: Where it runs; ``out`` and ``err`` are left there.
            arguments: What follows the program's name.
            instant: When it kills itself; None for never.

        Returns:
            Its exit code; negative for a signal.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        wanted = {
            "environment": environment,
            "folder": str(folder),
            "arguments": arguments,
            "instant": None if instant is None else asdict(instant),
        }
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def main() -> None:
    """Fork a child for each line that is read."""
    for line in sys.stdin:
        wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            live(wanted)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  its answer


def live(wanted: dict[str, Any]) -> None:
    """Be the child: run one command, and end."""
    folder = Path(wanted["folder"])
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    packed.MAX_ENCODED_BYTES = CHUNK_BYTES
    extraction._PIECE_BYTES = CHUNK_BYTES // 4
    if wanted["instant"] is not None:
        Fate(Instant(**wanted["instant"])).await_it()
    sys.argv = ["momento-etl", *wanted["arguments"]]
    try:
        command_line.main()
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(ended.code or 0))


class Fate:
    """Ends this process at an instant."""

    def __init__(self, instant: Instant) -> None:
        self._instant = instant
        self._seen = 0

    def await_it(self) -> None:
        """Watch what the instant's phase does."""
        phase = self._instant.phase
        if phase in _KEYS:
            part = _KEYS[phase]
            self._watch(MomentoCache, "set", lambda _self, key, *_more: part in key)
        elif phase == "writing a batch":
            self._watch(Poster, "post", lambda poster, _body: poster._action == "BatchWriteItem")
        elif phase == "recording progress":
            self._watch(DynamoDBState, "acknowledge", lambda *_any: True)
        elif phase == "finishing":
            # Once the lease is given back the run is over, and the same command is another run.
            self._watch(DynamoDBState, "put_run", lambda _self, record: record.ended_at is not None)
        else:
            self._watch_reading()

    def _watch(self, kind: type[Any], name: str, is_it: Callable[..., bool]) -> None:
        plain = getattr(kind, name)

        async def watched(*arguments: Any, **named: Any) -> Any:
            self._seen += is_it(*arguments)
            if not is_it(*arguments) or self._seen != self._instant.number:
                return await plain(*arguments, **named)
            if self._instant.when == "before":
                kill()
            if self._instant.when == "during":
                # From another thread: the call goes on until the very instant.
                threading.Timer(self._instant.delay_seconds, kill).start()
            answer = await plain(*arguments, **named)
            if self._instant.when == "after":
                kill()
            return answer

        setattr(kind, name, watched)

    def _watch_reading(self) -> None:
        plain = PostgresSnapshot.read

        async def watched(snapshot: Any, reading: Any) -> Any:
            async for batch in plain(snapshot, reading):
                self._seen += 1
                if self._seen == self._instant.number:
                    if self._instant.when == "before":
                        kill()
                    if self._instant.when == "during":
                        threading.Timer(self._instant.delay_seconds, kill).start()
                yield batch
                if self._seen == self._instant.number and self._instant.when == "after":
                    await asyncio.sleep(0)
                    kill()

        setattr(PostgresSnapshot, "read", watched)  # noqa: B010  mypy wants a method's own type here


def kill() -> None:
    """Do as ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
