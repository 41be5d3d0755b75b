"""What stands before a database of RDS: TLS, and a password in clear that is a token; behind it, a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
from psycopg import conninfo

from tests.integration.beside import beside
from tests.integration.momento_cell import certified

__all__ = ["RdsFront", "rds_front"]

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_PIECE_BYTES = 1 << 16
_TOLD = (
    "server_version",
    "server_encoding",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "integer_datetimes",
    "standard_conforming_strings",
)


class RdsFront:
    """One that lets everybody in whose token it is not told to refuse.

    Args:
        url: The PostgreSQL behind it.
        tls: What it shows.

    Attributes:
        port: Where it listens.
        shown: The user and the password of each connection.
        in_clear: How many wanted to go on without TLS.
        refuses: How many more connections are refused, as RDS does.
        cuts: How many more connections break once they are let in.
    """

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        self.port = 0
        self.shown: list[tuple[str, str]] = []
        self.in_clear = 0
        self.refuses = 0
        self.cuts = 0
        self._url = url
        self._tls = tls

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection to its end."""
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # whoever connected has gone
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        encrypted = False
        while True:
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            packet = await reader.readexactly(length - 4)
            (code,) = struct.unpack("!i", packet[:4])
            if code == _SSL_REQUEST:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._tls)
                encrypted = True
            elif code == _GSS_REQUEST:
                writer.write(b"N")
            else:
                break
        words = packet[4:].rstrip(b"\0").split(b"\0")
        asked = {name.decode(): value.decode() for name, value in zip(words[::2], words[1::2], strict=True)}
        if not encrypted:
            self.in_clear += 1
            writer.write(_error("28000", "no pg_hba.conf entry, no encryption"))
            return
        writer.write(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
        kind, size = struct.unpack("!ci", await reader.readexactly(5))
        assert kind == b"p"
        password = (await reader.readexactly(size - 4)).rstrip(b"\0").decode()
        self.shown.append((asked["user"], password))
        if self.refuses:
            self.refuses -= 1
            writer.write(_error("28000", f'PAM authentication failed for user "{asked["user"]}"'))
            return
        await self._relay(asked, reader, writer)

    async def _relay(self, asked: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        url = conninfo.make_conninfo(self._url, dbname=asked["database"], options=asked.get("options", ""))
        with await asyncio.to_thread(lambda: psycopg.connect(url, autocommit=True)) as behind:
            pgconn = behind.pgconn
            greeting = b"R" + struct.pack("!ii", 8, 0)
            for name in _TOLD:
                value = pgconn.parameter_status(name.encode())
                assert value is not None
                body = name.encode() + b"\0" + value + b"\0"
                greeting += b"S" + struct.pack("!i", len(body) + 4) + body
            greeting += b"K" + struct.pack("!iii", 12, pgconn.backend_pid, 0) + b"Z" + struct.pack("!i", 5) + b"I"
            writer.write(greeting)
            inner = socket.socket(fileno=os.dup(pgconn.socket))
            inner.setblocking(False)  # noqa: FBT003  its only form
            inner_reader, inner_writer = await asyncio.open_connection(sock=inner)
            cut = self.cuts > 0
            self.cuts -= cut
            try:
                await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer, most=0 if cut else None))
            finally:
                inner_writer.close()
                with contextlib.suppress(OSError):
                    await inner_writer.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None = None) -> None:
    """Hand on what comes, to its end or so many bytes of it."""
    while most != 0 and (piece := await reader.read(_PIECE_BYTES)):
        writer.write(piece)
        await writer.drain()
    writer.close()


def _error(state: str, message: str) -> bytes:
    body = b"".join(kind + value.encode() + b"\0" for kind, value in ((b"S", "FATAL"), (b"C", state), (b"M", message)))
    return b"E" + struct.pack("!i", len(body) + 5) + body + b"\0"


@contextmanager
def rds_front(url: str, folder: Path) -> Iterator[RdsFront]:
    """Run one before a PostgreSQL, with a certificate that is left in a folder."""
    front = RdsFront(url, certified(folder, "localhost"))

    @asynccontextmanager
    async def serving() -> AsyncIterator[RdsFront]:
        async with await asyncio.start_server(front.connect, "127.0.0.1", 0) as server:
            front.port = server.sockets[0].getsockname()[1]
            yield front

    with beside(serving) as running:
        yield running
