"""The PostgreSQL adapter: connect, open a snapshot, and end both."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import psycopg
from psycopg import conninfo
from psycopg.rows import tuple_row

from etlcli.errors import AuthenticationError, Unavailable
from etlcli.hidden import hide
from etlcli.model import BaseTable, SnapshotRecord
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy, retrying
from etlcli.source import wire
from etlcli.source.address import described, parameters_of
from etlcli.source.deadlines import DEFAULT_DEADLINES, KEEPALIVE, Deadlines
from etlcli.source.login import TokenMaker, login_of, refuse_second_password, with_tls
from etlcli.source.snapshot import PostgresSnapshot
from etlcli.source.translate import UNREADABLE, connection_error, no_answer, statement_error, unreadable

__all__ = ["PostgresSnapshot", "PostgresSource"]

# What decides how values look as text, and how a query's own text is read, is pinned, so that no server's, database's
# or role's setting changes an item; what could cut a long read short is lifted, first of all; a row security policy
# raises an error rather than hide rows; and rows without an order come from the table's start (of parallel scans each
# would start where another is). LOCAL, since a transaction pooler hands the session to others afterwards.
# Not lc_monetary: it alone tells a database's currency, and how many of an amount's digits are cents.
_PINNED = """
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
set local datestyle = 'ISO, YMD';
set local intervalstyle = 'iso_8601';
set local timezone = 'UTC';
set local extra_float_digits = 1;
set local bytea_output = 'hex';
set local client_encoding = 'UTF8';
set local xmloption = 'content';
set local quote_all_identifiers = off;
set local standard_conforming_strings = on;
set local row_security = off;
set local synchronize_seqscans = off;
"""
_PINNED_FROM_17 = "set local transaction_timeout = 0;"
_VERSION_17 = 170_000

_BEGIN = "begin isolation level repeatable read, read only;" + _PINNED

# A server that restarts replays its log first. One that never answered is waited for no longer than anything new is.
CONNECT_PATIENCE = RetryPolicy(patience=120.0, base=0.5, ceiling=3.0)


_HINT_FOR_IAM = (
    "A token of IAM was shown (rds-iam). Is IAM authentication switched on for the database, does the role have"
    " rds_iam (GRANT rds_iam TO ...), and may the AWS identity in use rds-db:connect as it?"
)


class PostgresSource:
    """A PostgreSQL database, read through one connection a snapshot.

    Args:
        url: A connection URL or string as libpq takes it; empty for libpq's own environment variables alone.
        counters: Where snapshots and retries are counted.
        retry: How long a database that does not answer (any more) is waited for; one that never did, for 15 seconds at
            most.
        deadlines: How long it is waited for within one attempt, and once connected. What the URL or the environment say
            of connecting goes first.
        password: The password, where it is not in the URL; or what makes one for each connection, which then is sent
            over TLS only.

    Raises:
        ConfigError: The URL is malformed, or does not go with the password.
    """

    def __init__(
        self,
        url: str,
        counters: Counters,
        retry: RetryPolicy = CONNECT_PATIENCE,
        deadlines: Deadlines = DEFAULT_DEADLINES,
        password: str | TokenMaker | None = None,
    ) -> None:
        parameters = parameters_of(url)
        hide(str(parameters.get("password") or ""))
        self._token: Callable[[], str] | None = None
        if password is not None:
            refuse_second_password(parameters)
        if isinstance(password, str):
            hide(password)
            parameters["password"] = password
        elif password is not None:
            with_tls(parameters)
            self._token = partial(password, login_of(parameters))
        if "PGCONNECT_TIMEOUT" not in os.environ:
            parameters.setdefault("connect_timeout", deadlines.connect)
        parameters.setdefault("fallback_application_name", "momento-etl")
        for parameter, value in KEEPALIVE.items():
            parameters.setdefault(parameter, value)
        self._description = described(parameters)
        self._conninfo = conninfo.make_conninfo("", **parameters)
        self._counters = counters
        self._retry = retry
        self._deadlines = deadlines
        self._is_known = False

    @property
    def description(self) -> str:
        """Host, port and database, as far as URL and environment name them: ``db.example.org:5432/shop``."""
        return self._description

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresSnapshot]:
        """Connect and open one read-only snapshot; both end with the context."""
        connection, record = await retrying(self._open, self._retry, self._counters, is_known=lambda: self._is_known)
        self._is_known = True
        try:
            self._counters.snapshots += 1
            yield PostgresSnapshot(connection, self.description, record, self._deadlines)
        finally:
            await wire.hang_up(connection, self._deadlines.parting)

    async def tables(self, schema: str) -> list[BaseTable]:
        """List a schema's base tables by name, in a snapshot of its own."""
        async with self.snapshot() as snapshot:
            return await snapshot.tables(schema)

    async def pools_transactions(self) -> bool:
        """Whether connections share a server's session, each for one transaction at a time, as poolers let them.

        Two connections are made, and each asks which process of the server works for it. A server has one for each; a
        pooler that hands out whole sessions, too; one that hands them out by the transaction takes the one that was
        used last, which is the same. True is certain, then; False is not, where others use the pooler too.
        """
        processes = []
        async with AsyncExitStack() as opened:
            for _ in range(2):
                connection = await self._connect()
                opened.push_async_callback(wire.hang_up, connection, self._deadlines.parting)
                try:
                    async with asyncio.timeout(self._deadlines.parting):
                        processes.append(await wire.run(connection, b"select pg_backend_pid()"))
                except psycopg.Error as error:
                    raise statement_error(error, self.description, "looking for a pooler") from error
                except TimeoutError:
                    return False  # a pool of sessions that has none left
        return processes[0] == processes[1]

    async def _open(self) -> tuple[wire.Connection, SnapshotRecord]:
        # One attempt, from the connection to the snapshot: a pooler answers first, and reaches its database only then.
        connection = await self._connect()
        doing = "opening a snapshot"
        async with AsyncExitStack() as undone:
            undone.push_async_callback(wire.hang_up, connection, self._deadlines.parting)
            try:
                async with asyncio.timeout(self._deadlines.statement):
                    begin = _BEGIN
                    if connection.info.server_version >= _VERSION_17:
                        begin += _PINNED_FROM_17
                    await connection.execute(begin)
                    cursor = await connection.execute("select txid_current_snapshot()::text")
                    row = await cursor.fetchone()
            except psycopg.errors.QueryCanceled as error:
                # Until it is lifted, a statement_timeout of the role's own holds for the first statements too.
                raise Unavailable(
                    f"PostgreSQL at {self.description} cancelled the start of a snapshot: {error.diag.message_primary}",
                    hint="Give this user a longer statement_timeout: ALTER ROLE ... SET statement_timeout = ...",
                ) from error
            except psycopg.Error as error:
                raise statement_error(error, self.description, doing) from error
            except TimeoutError as error:
                raise no_answer(self.description, doing, self._deadlines.statement) from error
            except UNREADABLE as error:
                raise unreadable(error, self.description, doing) from error
            undone.pop_all()
        assert row is not None
        return connection, SnapshotRecord(row[0], time.time())

    async def _made(self, token: Callable[[], str]) -> str:
        try:
            async with asyncio.timeout(self._deadlines.statement):
                return await asyncio.to_thread(token)
        except TimeoutError as error:
            raise Unavailable(
                f"no token to log in to PostgreSQL at {self.description} was made"
                f" within {self._deadlines.statement:g} s",
                hint="See to what gives the AWS credentials (credential_process, the metadata service).",
                of_service=True,
            ) from error

    async def _connect(self) -> wire.Connection:
        address = self._conninfo
        if self._token is not None:
            address = conninfo.make_conninfo(address, password=await self._made(self._token))
        try:
            # autocommit: the BEGIN above says what the transaction is. Poolers forbid named prepared statements.
            return await wire.Connection.connect(
                address, autocommit=True, prepare_threshold=None, row_factory=tuple_row
            )
        except psycopg.Error as error:
            refusal = connection_error(error, self.description)
        if self._token is not None and isinstance(refusal, AuthenticationError):
            refusal.hint = _HINT_FOR_IAM
        # Out here, so that nothing refers to psycopg's error: it holds the connection's parameters, password and all.
        raise refusal
