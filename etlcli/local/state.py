"""What the embedded stack remembers between commands: a private folder with `stack.json`, a lock and the logs."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etlcli.errors import ConfigError, TerminalError, Unavailable
from etlcli.local import logs
from etlcli.local.process import Process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PartRecord", "PostgresRecord", "State", "Store", "state_folder"]

FOLDER_VARIABLE = "MOMENTO_ETL_LOCAL_DIR"
_VERSION = 1
_LOCK_POLL_SECONDS = 0.05
_LOCK_FILE = "lock"


@dataclass(frozen=True)
class PartRecord:
    """A part that was started.

    Attributes:
        process: The process that was started for it.
        port: Where it listens, on loopback.
        since: When it was started, in UTC.
    """

    process: Process
    port: int
    since: datetime


@dataclass(frozen=True)
class PostgresRecord:
    """What must be known of the database between two commands.

    Attributes:
        folder: Where it lives.
        password: Of the user `momento_etl`.
    """

    folder: str
    password: str = field(repr=False)


@dataclass
class State:
    """All that `stack.json` holds."""

    parts: dict[str, PartRecord] = field(default_factory=dict)
    postgres: PostgresRecord | None = None


def state_folder() -> Path:
    """Return the folder of this user's stack, which need not exist.

    `$MOMENTO_ETL_LOCAL_DIR`, else `momento-etl/local` in `$XDG_STATE_HOME`, else in `~/.local/state` (the default
    of the XDG Base Directory Specification 0.8, which also says that a relative path is to be ignored).

    Raises:
        ConfigError: There is no home folder.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().resolve()
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):  # noqa: PTH117  an empty Path would be the current folder
        try:
            base = str(Path.home() / ".local" / "state")
        except RuntimeError:
            raise ConfigError(
                "the embedded stack has nowhere to live: this user has no home folder",
                hint=f"set {FOLDER_VARIABLE} to a private folder",
            ) from None
    # One name for one folder: processes are known by it.
    return (Path(base) / "momento-etl" / "local").resolve()


class Store:
    """The state folder of one user.

    Args:
        folder: Where it is, or is to be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock_fd: int | None = None
        self._guard = threading.Lock()

    @property
    def file(self) -> Path:
        """Where the state is written."""
        return self.folder / "stack.json"

    def log(self, part: str) -> Path:
        """Return where a part's output goes."""
        return self.folder / f"{part}.log"

    def exists(self) -> bool:
        """Tell whether anything was ever kept here."""
        return self.file.exists()

    def prepare(self) -> None:
        """Make the folder, for this user alone.

        Raises:
            ConfigError: It cannot be made or written, belongs to somebody else, or holds other things and is open
                to others.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.folder.stat()
            if found.st_uid != os.geteuid():
                raise ConfigError(
                    f"{self.folder} belongs to another user",
                    hint=f"set {FOLDER_VARIABLE} to a private folder of your own",
                )
            if stat.S_IMODE(found.st_mode) & 0o077:
                self._tighten()
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.folder))
        except OSError as error:
            raise ConfigError(
                f"the embedded stack's folder {self.folder} cannot be written: {error.strerror}",
                hint=f"set {FOLDER_VARIABLE} to a folder that you may write",
            ) from error

    def _tighten(self) -> None:
        # Somebody's own folder, named by mistake (the home, /tmp), must not be closed to others behind their back.
        if not self.exists() and any(self.folder.iterdir()):
            raise ConfigError(
                f"{self.folder} holds other things and is open to other users",
                hint=f"set {FOLDER_VARIABLE} to an empty or a private folder",
            )
        self.folder.chmod(0o700)

    @contextmanager
    def locked(self, timeout_seconds: float = 120.0) -> Iterator[None]:
        """Keep other commands on this stack waiting; wait for the one at work.

        Args:
            timeout_seconds: How long to wait.

        Raises:
            Unavailable: The other one is not done by then.
        """
        path = self.folder / _LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            deadline = time.monotonic() + timeout_seconds
            while not _try_lock(descriptor):
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"another command has been at work on the embedded stack for {timeout_seconds:.0f} s",
                        hint=f"wait for it or end it; it holds {path}",
                    )
                time.sleep(_LOCK_POLL_SECONDS)
            self.lock_fd = descriptor
            yield
        finally:
            self.lock_fd = None
            os.close(descriptor)

    def load(self) -> State:
        """Read the state; a new one where none was written.

        Raises:
            TerminalError: It cannot be read, or makes no sense.
        """
        try:
            text = self.file.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return State()
        except OSError as error:
            raise TerminalError(f"{self.file} cannot be read: {error.strerror}") from error
        try:
            return _decode(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TerminalError(
                f"{self.file} is damaged, or of another version of momento-etl",
                hint="remove this file; the database it speaks of is kept. Parts that still run must be ended by hand",
            ) from error

    def update(self, change: Callable[[State], None]) -> State:
        """Change the state and write it at once, whole. The lock must be held; threads of its holder may share it.

        Returns:
            What was written.
        """
        with self._guard:
            state = self.load()
            change(state)
            # Made anew with its mode, so that the password is never readable by others, and never half written.
            new = self.file.with_suffix(".json.new")
            new.unlink(missing_ok=True)
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(_encode(state), file, indent=2)
                file.write("\n")
            new.replace(self.file)
            return state

    def clear(self, parts: list[str]) -> None:
        """Remove the state and the logs of these parts; never anything that is not ours."""
        for part in parts:
            log = self.log(part)
            log.unlink(missing_ok=True)
            logs.older(log).unlink(missing_ok=True)
        self.file.with_suffix(".json.new").unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _encode(state: State) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "parts": {
            name: {**asdict(part.process), "port": part.port, "since": part.since.isoformat()}
            for name, part in state.parts.items()
        },
        "postgres": asdict(state.postgres) if state.postgres else None,
    }


def _decode(tree: Any) -> State:
    if tree["version"] != _VERSION:
        raise ValueError(tree["version"])
    parts = {
        name: PartRecord(
            Process(int(part["pid"]), str(part["started"])),
            int(part["port"]),
            datetime.fromisoformat(part["since"]),
        )
        for name, part in tree["parts"].items()
    }
    known = tree["postgres"]
    postgres = PostgresRecord(str(known["folder"]), str(known["password"])) if known else None
    return State(parts, postgres)
