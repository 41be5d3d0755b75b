"""Processes that run the command line, and if they are told to kill themselves with SIGKILL at a named instant.

One process imports the program and then forks a child for each command, which saves most of what a start costs. It
reads one JSON object a line from stdin, and answers with two lines for each, which come when they are known: the
child's process id, and then that again with its exit code, negative for a signal.
"""

from __future__ import annotations

import asyncio
import json
import os
import pydoc
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NoReturn, Self

from etlcli import pipeline, wiring  # noqa: F401  what runs import late is here before the forks
from etlcli.cache.momento import MomentoCache
from etlcli.cli import main as command_line
from etlcli.sink.dynamodb import DynamoDBSink  # noqa: F401  the same
from etlcli.sink.post import Poster
from etlcli.sink.state import DynamoDBState
from etlcli.source.postgres import PostgresSource  # noqa: F401  the same
from etlcli.source.snapshot import PostgresSnapshot

__all__ = ["PHASES", "SMALL_CHUNKS", "Instant", "Mortal", "Mortals", "When"]

When = Literal["before", "during", "after"]

_BEGIN_SECONDS = 60.0
_END_SECONDS = 60.0

# What a child answers that does not end as the command line does.
_BROKEN = 99

# What makes chunks so small that a few thousand rows fill hundreds.
_CHUNK_BYTES = 2000
SMALL_CHUNKS = {
    "etlcli.cache.packed.MAX_ENCODED_BYTES": _CHUNK_BYTES,
    "etlcli.extraction._PIECE_BYTES": _CHUNK_BYTES // 4,
}

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


class Mortal:
    """A command that runs in a process of its own; it has what is used here of ``subprocess.Popen``.

    Attributes:
        pid: Its process id.
        returncode: How it ended; None while nobody has waited for it.
        stdout: None: what it writes is in files.
        stderr: The same.
    """

    stdout: IO[str] | None = None
    stderr: IO[str] | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._begun = threading.Event()
        self._ended = threading.Event()
        self._code = 0
        self.pid = 0
        self.returncode: int | None = None

    def begin(self, pid: int) -> None:
        """Hear that it runs."""
        self.pid = pid
        self._begun.set()

    def end(self, code: int) -> None:
        """Hear that it does no more."""
        self._code = code
        self._ended.set()

    def await_begin(self) -> None:
        """Wait until it runs."""
        assert self._begun.wait(_BEGIN_SECONDS), "the process that forks others does not answer"

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        if self._ended.is_set():
            self.returncode = self._code
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; answer its exit code."""
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("momento-etl", timeout or 0.0)
        self.returncode = self._code
        return self._code

    def send_signal(self, number: int) -> None:
        """Send it a signal; harmless where it has ended."""
        # One that never began has no id yet, and 0 would be everybody in this group.
        if self.pid and self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for its end; answer stdout and stderr."""
        self.wait(timeout)
        return self.out, self.err

    @property
    def out(self) -> str:
        """What it has written to stdout so far."""
        return (self._folder / "out").read_text()

    @property
    def err(self) -> str:
        """What it has written to stderr so far."""
        return (self._folder / "err").read_text()


class Mortals:
    """Runs commands in processes of their own while its context lasts."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.integration.mortal"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._asking = threading.Lock()
        self._ending = threading.Condition()
        self._started: list[Mortal] = []
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for mortal in self._started:
            mortal.kill()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._listener.join(30)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            number, pid, code = json.loads(line)
            if code is None:
                self._started[number].begin(pid)
                continue
            with self._ending:
                self._started[number].end(code)
                self._ending.notify_all()

    def start(
        self,
        environment: dict[str, str],
        folder: Path,
        arguments: list[str],
        instant: Instant | None = None,
        *,
        streams: Path | None = None,
        changes: Mapping[str, object] | None = None,
    ) -> Mortal:
        """Start a command, and leave it running.

        Args:
            environment: All of its variables.
            folder: Where it runs.
            arguments: What follows the program's name.
            instant: When it kills itself; None for never.
            streams: Where its ``out`` and ``err`` are left; None for the same folder.
            changes: Names in the program's modules, dotted, and what is put there instead.
        """
        wanted = {
            "environment": environment,
            "folder": str(folder),
            "streams": str(streams or folder),
            "arguments": arguments,
            "instant": None if instant is None else asdict(instant),
            "changes": dict(changes or {}),
        }
        assert self._process.stdin is not None
        mortal = Mortal(streams or folder)
        with self._asking:
            self._started.append(mortal)
            self._process.stdin.write(json.dumps([len(self._started) - 1, wanted]) + "\n")
            self._process.stdin.flush()
            mortal.await_begin()
        return mortal

    def wait_for_one(self, mortals: Collection[Mortal]) -> None:
        """Wait until one of these has ended."""
        with self._ending:
            ended = self._ending.wait_for(lambda: any(it.poll() is not None for it in mortals), _END_SECONDS)
        assert ended, "all of them go on"

    def run(self, environment: dict[str, str], folder: Path, arguments: list[str], instant: Instant | None) -> int:
        """Run a command to its end, with chunks so small that a few thousand rows fill hundreds.

        Args:
            environment: All of its variables.
            folder: Where it runs; ``out`` and ``err`` are left there.
            arguments: What follows the program's name.
            instant: When it kills itself; None for never.

        Returns:
            Its exit code; negative for a signal.
        """
        return self.start(environment, folder, arguments, instant, changes=SMALL_CHUNKS).wait()


def main() -> None:
    """Fork a child for each line that is read, and tell of each that has ended."""
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([sys.stdin, wake], [], [])
        if wake in ready:
            os.read(wake, 512)
        while children and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            _tell(children.pop(ended[0]), ended[0], os.waitstatus_to_exitcode(ended[1]))
        if sys.stdin not in ready:
            continue
        line = sys.stdin.readline()
        if not line:
            return
        number, wanted = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            live(wanted)
        children[child] = number
        _tell(number, child, None)


def _tell(number: int, pid: int, code: int | None) -> None:
    print(json.dumps([number, pid, code]), flush=True)  # noqa: T201  its answer


def live(wanted: dict[str, Any]) -> NoReturn:
    """Be the child: run one command, and end."""
    folder = Path(wanted["folder"])
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in ((1, "out"), (2, "err")):
        path = Path(wanted["streams"]) / name
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    code = _BROKEN
    try:
        for name, value in wanted["changes"].items():
            change(name, value)
        if wanted["instant"] is not None:
            Fate(Instant(**wanted["instant"])).await_it()
        sys.argv = ["momento-etl", *wanted["arguments"]]
        command_line.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:  # noqa: BLE001  no child may go on as if it were the one that forks
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def change(name: str, value: object) -> None:
    """Put something else in the place of what a dotted name stands for; a list stands for a tuple."""
    path, _, attribute = name.rpartition(".")
    place = pydoc.locate(path)
    assert hasattr(place, attribute), f"there is no {name}"
    setattr(place, attribute, tuple(value) if isinstance(value, list) else value)


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
            if self._instant.when == "during":
                # On a busy machine the call may be over first. What would follow it is another instant's.
                await asyncio.Event().wait()
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
