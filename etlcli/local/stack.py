"""The embedded stack as a whole: up, down, status.

Its parts are PostgreSQL, a Momento-compatible server and DynamoDB. Each runs in the background, in a session of its
own, and listens on loopback only. No supervisor watches them: `up` looks at each, keeps what answers and starts
what does not.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from etlcli.errors import ConfigError, EtlError, TerminalError
from etlcli.local import dynamodb, logs, momento_probe, ports, postgres, postgres_home, process
from etlcli.local.parts import ModulePart, Part
from etlcli.local.state import PartRecord, State, Store, state_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from etlcli.local.process import Process

__all__ = ["Endpoints", "PartState", "PartStatus", "Stopped", "down", "parts_of", "status", "up"]

_POLL_SECONDS = 0.05
# One that lives may be in the middle of its start, or of another's work.
_PATIENCE_SECONDS = 5.0
_STARTS = 3


@dataclass(frozen=True)
class Endpoints:
    """Where the parts of a running stack are reached.

    Attributes:
        postgres_url: `postgresql://user:password@127.0.0.1:port/momento_etl`; kept out of repr for its password.
        momento: `127.0.0.1:port`, without TLS.
        dynamodb_url: `http://127.0.0.1:port`.
    """

    postgres_url: str = field(repr=False)
    momento: str
    dynamodb_url: str


class PartState(Enum):
    """How a part is."""

    RUNNING = "running"
    STOPPED = "stopped"
    NOT_ANSWERING = "not answering"


@dataclass(frozen=True)
class PartStatus:
    """What is known of a part.

    Attributes:
        name: `postgres`, `momento` or `dynamodb`.
        state: What asking it showed.
        pid: Its process; None when stopped.
        port: Where it listens on 127.0.0.1; None when stopped.
        since: When it was started, in UTC; None when stopped.
        log: Its output since it was last started; need not exist.
        problem: Why it does not answer; None when it does, or is stopped.
    """

    name: str
    state: PartState
    pid: int | None
    port: int | None
    since: datetime | None
    log: Path
    problem: str | None = None


@dataclass(frozen=True)
class Stopped:
    """What `down` did with a part.

    Attributes:
        name: `postgres`, `momento` or `dynamodb`.
        pid: Its process.
        how: `STOPPED`, or `KILLED` when it did not stop in time.
    """

    name: str
    pid: int
    how: process.Ended


def parts_of(store: Store) -> list[Part]:
    """Return the parts of the stack that this store remembers."""
    return [
        postgres.Postgres(store),
        ModulePart("momento", 8089, "etlcli.local.momento", ("grpc", "momento_wire_types"), momento_probe.ask),
        ModulePart("dynamodb", 8009, "etlcli.local.dynamodb", ("moto", "flask", "flask_cors"), dynamodb.ask),
    ]


def up(
    *,
    timeout_seconds: float = 60.0,
    on_start: Callable[[str], None] | None = None,
    make_parts: Callable[[Store], Sequence[Part]] = parts_of,
) -> Endpoints:
    """Start what does not run, keep what does; return when all parts answer.

    The first time, PostgreSQL is made with the sample table `movies` in it; later, what is in it is left alone.

    Args:
        timeout_seconds: How long each part may take to answer.
        on_start: Called with the name of each part that has to be started, from another thread.
        make_parts: Other parts, for tests; they must have the same names.

    Returns:
        Where the parts are reached.

    Raises:
        ConfigError: The extra `local` is not installed, or the state folder cannot be used.
        TerminalError: A part does not start; the others are left running.
        Unavailable: Another command was at work on this stack for too long.
    """
    store = Store(state_folder())
    parts = make_parts(store)
    _require(parts)
    store.prepare()
    with store.locked():
        given_up = threading.Event()
        starter = _Starter(store, timeout_seconds, on_start, given_up)
        with ThreadPoolExecutor(max_workers=len(parts)) as threads:
            started = [threads.submit(starter.ensure, part) for part in parts]
            try:
                failures = [error for error in (future.exception() for future in started) if error]
            except BaseException:
                # Interrupted: do not sit out the waits of the other threads.
                given_up.set()
                raise
        _raise(failures)
        return _endpoints(store.load())


def _require(parts: Iterable[Part]) -> None:
    missing = sorted({module for part in parts for module in part.needs if not importlib.util.find_spec(module)})
    if missing:
        raise ConfigError(
            "the embedded stack is not installed; missing: " + ", ".join(missing),
            hint="pip install 'momento-etl[local]'",
        )


def _raise(failures: list[BaseException]) -> None:
    if not failures:
        return
    known = [failure for failure in failures if isinstance(failure, EtlError)]
    if len(known) < len(failures):
        raise next(failure for failure in failures if failure not in known)
    if len(known) == 1:
        raise known[0]
    hints = [failure.hint for failure in known if failure.hint]
    raise TerminalError("\n".join(failure.message for failure in known), hint="\n".join(hints) or None)


def _endpoints(state: State) -> Endpoints:
    assert state.postgres is not None
    port = {name: part.port for name, part in state.parts.items()}
    return Endpoints(
        postgres_url=postgres.url(state.postgres.password, port["postgres"]),
        momento=f"{ports.HOST}:{port['momento']}",
        dynamodb_url=f"http://{ports.HOST}:{port['dynamodb']}",
    )


@dataclass(frozen=True)
class _Starter:
    """Brings one part after another to answer; each in a thread of its own."""

    store: Store
    timeout_seconds: float
    on_start: Callable[[str], None] | None
    given_up: threading.Event

    def ensure(self, part: Part) -> None:
        try:
            if self._is_up(part):
                return
            if self.on_start:
                self.on_start(part.name)
            part.prepare()
            self._start(part)
            part.complete(self.store.load().parts[part.name].port)
        except OSError as error:
            raise TerminalError(f"{part.name} could not be started: {error}", hint=self._hint(part)) from error

    def _is_up(self, part: Part) -> bool:
        """Tell whether it lives and answers; if it only lives, end it."""
        record = self.store.load().parts.get(part.name)
        if record and process.is_alive(record.process):
            if self._answers(record, _PATIENCE_SECONDS, lambda: part.probe(record.port)) is None:
                part.complete(record.port)
                return True
            process.stop(record.process, part.stop_signal)
        if stray := part.stray():
            process.stop(stray, part.stop_signal)
        return False

    def _answers(self, record: PartRecord, seconds: float, ask: Callable[[], str | None]) -> str | None:
        """Wait until it answers; return why it does not, None when it does."""
        deadline = time.monotonic() + seconds
        while not self.given_up.is_set():
            problem = ask()
            # Looked at after the answer: it counts only from one that lives.
            if not process.is_alive(record.process):
                return "it ended"
            if problem is None or time.monotonic() > deadline:
                return problem
            time.sleep(_POLL_SECONDS)
        return "interrupted"

    def _ask_starting(self, part: Part, port: int) -> str | None:
        if not part.is_announced(_text(self.store.log(part.name)), port):
            return "it did not say that it is ready"
        return part.probe(port)

    def _start(self, part: Part) -> None:
        before = self.store.load().parts.get(part.name)
        wanted = [*([before.port] if before else []), part.preferred_port]
        for attempt in range(1, _STARTS + 1):
            port = ports.choose(*wanted)
            record = self._spawn(part, port)
            problem = self._answers(record, self.timeout_seconds, partial(self._ask_starting, part, port))
            if problem is None:
                return
            ended = process.stop(record.process, part.stop_signal) is process.Ended.ABSENT
            if attempt == _STARTS or not ended or not self._passes(part, port):
                log = self.store.log(part.name)
                raise TerminalError(
                    f"{part.name} does not start: {problem}\nthe end of its log {log}:\n{logs.tail(log)}",
                    hint=self._hint(part),
                )

    def _passes(self, part: Part, port: int) -> bool:
        """Tell whether what kept it from starting passes with another try."""
        # Somebody took the port in the meantime; or PostgreSQL's processes outlived a killed server for a moment.
        return not ports.is_free(port) or "still in use" in _text(self.store.log(part.name))

    def _spawn(self, part: Part, port: int) -> PartRecord:
        records: list[PartRecord] = []

        def record(started: Process) -> None:
            records.append(PartRecord(started, port, datetime.now(UTC)))

            def change(state: State) -> None:
                state.parts[part.name] = records[0]

            self.store.update(change)

        with logs.begin(self.store.log(part.name)) as log:
            process.spawn(part.command(port), log, record)
        return records[0]

    def _hint(self, part: Part) -> str:
        return (
            f"its whole log: {self.store.log(part.name)}; to begin anew, without what the embedded stack holds: "
            "momento-etl local down --purge"
        )


def _text(log: Path) -> str:
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def down(
    *, purge: bool = False, grace_seconds: float = 10.0, make_parts: Callable[[Store], Sequence[Part]] = parts_of
) -> list[Stopped]:
    """Stop what runs. Harmless when nothing does.

    DynamoDB's tables and the cache are gone with their servers; PostgreSQL's data stays, unless it is purged.

    Args:
        purge: Also remove the database, the logs and the state. A user's files in the folder are not touched.
        grace_seconds: How long each part may take to end before it is killed.
        make_parts: Other parts, for tests.

    Returns:
        What was stopped.

    Raises:
        ConfigError: The state folder cannot be used.
        TerminalError: A part could not be stopped, or the data not removed.
        Unavailable: Another command was at work on this stack for too long.
    """
    store = Store(state_folder())
    if not store.folder.is_dir():
        return []
    store.prepare()
    with store.locked():
        parts = make_parts(store)
        with ThreadPoolExecutor(max_workers=len(parts)) as threads:
            ends = list(threads.map(lambda part: _stop(store, part, grace_seconds), parts))
        if purge:
            _purge(store, parts)
        return [end for end in ends if end is not None]


def _stop(store: Store, part: Part, grace_seconds: float) -> Stopped | None:
    record = store.load().parts.get(part.name)
    try:
        candidates = [record.process if record else None, part.stray()]
        ended = None
        for candidate in candidates:
            if (
                candidate
                and (how := process.stop(candidate, part.stop_signal, grace_seconds)) is not process.Ended.ABSENT
            ):
                ended = Stopped(part.name, candidate.pid, how)
    except OSError as error:
        raise TerminalError(f"{part.name} could not be stopped: {error}") from error

    def change(state: State) -> None:
        state.parts.pop(part.name, None)

    store.update(change)
    return ended


def _purge(store: Store, parts: Sequence[Part]) -> None:
    known = store.load().postgres
    try:
        postgres_home.remove(store.folder, known.folder if known else None)
        store.clear([part.name for part in parts])
    except OSError as error:
        raise TerminalError(f"the embedded stack's data could not be removed: {error}") from error


def status(*, make_parts: Callable[[Store], Sequence[Part]] = parts_of) -> list[PartStatus]:
    """Look at each part, and ask those that live whether they answer.

    Args:
        make_parts: Other parts, for tests.

    Returns:
        One entry per part, also where the stack was never started.

    Raises:
        ConfigError: There is nowhere for a state folder.
        TerminalError: The state is unreadable.
    """
    store = Store(state_folder())
    state = store.load()
    parts = make_parts(store)
    with ThreadPoolExecutor(max_workers=len(parts)) as threads:
        return list(threads.map(lambda part: _look(part, state.parts.get(part.name), store.log(part.name)), parts))


def _look(part: Part, record: PartRecord | None, log: Path) -> PartStatus:
    if record is None or not process.is_alive(record.process):
        return PartStatus(part.name, PartState.STOPPED, None, None, None, log)
    problem = part.probe(record.port)
    return PartStatus(
        part.name,
        PartState.NOT_ANSWERING if problem else PartState.RUNNING,
        record.process.pid,
        record.port,
        record.since,
        log,
        problem,
    )
