"""The PostgreSQL adapter: connect, open a snapshot, describe a selection, stream its rows."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg import conninfo, sql
from psycopg.rows import tuple_row

from etlcli.errors import ConfigError, UsageError
from etlcli.model import Relation, Selection, SnapshotRecord
from etlcli.ports import Reading
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy, retrying
from etlcli.source import catalog
from etlcli.source.translate import connection_error, statement_error

__all__ = ["PostgresSnapshot", "PostgresSource"]

# What decides how values look as text is pinned, so that no server's, database's or role's setting changes an item;
# what could cut a long read short is lifted; and a row security policy raises an error rather than hide rows. LOCAL,
# since a transaction pooler hands the session to others afterwards.
_PINNED = """
set local datestyle = 'ISO, YMD';
set local intervalstyle = 'iso_8601';
set local timezone = 'UTC';
set local extra_float_digits = 1;
set local bytea_output = 'hex';
set local client_encoding = 'UTF8';
set local xmloption = 'content';
set local row_security = off;
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
"""

_BEGIN = "begin isolation level repeatable read, read only;" + _PINNED

# Lines are handed on in batches: large enough that what is paid per batch does not show, small against a chunk.
_BATCH_ROWS = 1000
_BATCH_BYTES = 256 * 1024

_CONNECT_SECONDS = 10
_CONNECT_PATIENCE = RetryPolicy(patience=15.0, base=0.5, ceiling=3.0)


class PostgresSource:
    """A PostgreSQL database, read through one connection a snapshot.

    Args:
        url: A connection URL or string as libpq takes it; empty for libpq's own environment variables alone.
        counters: Where snapshots and retries are counted.
        retry: How long a database that does not answer yet is waited for.

    Raises:
        ConfigError: The URL is malformed.
    """

    def __init__(self, url: str, counters: Counters, retry: RetryPolicy = _CONNECT_PATIENCE) -> None:
        try:
            parameters = conninfo.conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # libpq's message quotes the URL, and with it a password: it stays out.
            raise ConfigError(
                "the source's URL is malformed",
                hint="Write postgresql://USER@HOST:PORT/DATABASE, with odd characters percent-encoded"
                " (a slash in a password is %2F).",
            ) from None
        parameters.setdefault("connect_timeout", _CONNECT_SECONDS)
        parameters.setdefault("application_name", "momento-etl")
        # Idle stretches are normal while the loader catches up; a peer that vanished is noticed all the same.
        parameters.setdefault("keepalives_idle", 30)
        self._parameters = parameters
        self._conninfo = conninfo.make_conninfo("", **parameters)
        self._counters = counters
        self._retry = retry

    @property
    def description(self) -> str:
        """Host, port and database, as far as the URL names them: ``db.example.org:5432/shop``."""
        named = self._parameters
        service = named.get("service")
        if service and not named.get("host"):
            return f"service {service}"
        host = named.get("host") or named.get("hostaddr") or "the default host"
        port = f":{named['port']}" if named.get("port") else ""
        database = f"/{named['dbname']}" if named.get("dbname") else ""
        return f"{host}{port}{database}"

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresSnapshot]:
        """Connect and open one read-only snapshot; both end with the context."""
        connection = await retrying(self._connect, self._retry, self._counters)
        try:
            try:
                await connection.execute(_BEGIN)
                cursor = await connection.execute("select txid_current_snapshot()::text")
                row = await cursor.fetchone()
            except psycopg.Error as error:
                raise statement_error(error, self.description, "opening a snapshot") from error
            assert row is not None
            self._counters.snapshots += 1
            yield PostgresSnapshot(connection, self.description, SnapshotRecord(row[0], time.time()))
        finally:
            # Closing ends the transaction, which has nothing to commit; a COPY left half-way needs no draining.
            await connection.close()

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        try:
            # autocommit: the BEGIN above says what the transaction is. Poolers forbid named prepared statements.
            return await psycopg.AsyncConnection.connect(
                self._conninfo, autocommit=True, prepare_threshold=None, row_factory=tuple_row
            )
        except psycopg.Error as error:
            raise connection_error(error, self.description) from error


class PostgresSnapshot:
    """One read-only, repeatable-read transaction.

    Attributes:
        record: PostgreSQL's name for the snapshot, and when it was opened.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], where: str, record: SnapshotRecord) -> None:
        self.record = record
        self._connection = connection
        self._where = where
        self._tables: dict[str, tuple[str, str]] = {}

    async def describe(self, selection: Selection) -> Relation:
        """Look up columns, types, keys and size of what is selected, and have PostgreSQL check the condition."""
        try:
            if selection.query is not None:
                relation = await catalog.describe_query(self._connection, _trimmed(selection.query))
            else:
                assert selection.table is not None
                relation, identity = await catalog.describe_table(self._connection, selection.table)
                self._tables[selection.table] = identity
        except psycopg.Error as error:
            raise statement_error(error, self._where, "looking at the table") from error
        if selection.query is not None or selection.where is not None:
            await self._check(selection)
        return relation

    async def read(self, reading: Reading) -> AsyncIterator[list[bytes]]:
        """Stream the rows with COPY, as lines of its text format, in batches of at most 1,000 or about 256 KiB."""
        statement = sql.SQL("copy ({}) to stdout").format(self._select(reading))
        batch: list[bytes] = []
        size = 0
        try:
            async with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
                async for row in copy:
                    line = bytes(row[:-1])
                    batch.append(line)
                    size += len(line)
                    if size >= _BATCH_BYTES or len(batch) >= _BATCH_ROWS:
                        yield batch
                        batch, size = [], 0
        except psycopg.Error as error:
            raise statement_error(error, self._where, "reading rows") from error
        if batch:
            yield batch

    async def duplicates(self, reading: Reading, key: Sequence[str]) -> list[tuple[str | None, ...]]:
        """Find at most 5 values of the key that more than one row has; rows with a NULL in it do not count."""
        names = [sql.Identifier(name) for name in key]
        statement = sql.SQL(
            "select {shown} from ({rows}) as q where {present} group by {key} having count(*) > 1 limit 5"
        )
        try:
            cursor = await self._connection.execute(
                statement.format(
                    shown=sql.SQL(", ").join(sql.SQL("{}::text").format(name) for name in names),
                    rows=self._select(
                        reading._replace(order_by=() if reading.selection.limit is None else reading.order_by)
                    ),
                    present=sql.SQL(" and ").join(sql.SQL("{} is not null").format(name) for name in names),
                    key=sql.SQL(", ").join(names),
                )
            )
            return await cursor.fetchall()
        except psycopg.Error as error:
            raise statement_error(error, self._where, "looking for duplicate keys") from error

    async def _check(self, selection: Selection) -> None:
        """Have PostgreSQL parse what would be read, so that a mistake shows before anything is written."""
        probe = self._select(Reading(selection, (), ()))
        try:
            await catalog.parse(self._connection, probe)
        except (psycopg.errors.SyntaxError, psycopg.errors.FeatureNotSupported) as error:
            if selection.query is None or selection.where is not None:
                raise statement_error(error, self._where, "checking the query") from error
            # It parsed by itself, so what PostgreSQL minds is that such a statement cannot stand where rows are read.
            raise UsageError("the query is not one that only reads", hint=catalog.ONLY_READS) from error
        except psycopg.Error as error:
            raise statement_error(error, self._where, "checking the query") from error

    def _select(self, reading: Reading) -> sql.Composed:
        """Compose the SELECT of a reading. Line breaks keep a user's trailing ``--`` comment from eating our text."""
        selection = reading.selection
        if selection.query is not None:
            rows: sql.Composable = sql.SQL("(\n{}\n) as q").format(_literally(_trimmed(selection.query)))
        else:
            assert selection.table is not None
            rows = sql.Identifier(*self._tables[selection.table])
        parts: list[sql.Composable] = [
            sql.SQL("select"),
            sql.SQL(", ").join(map(sql.Identifier, reading.columns)) if reading.columns else sql.SQL("*"),
            sql.SQL("from"),
            rows,
        ]
        if selection.where is not None:
            parts.append(sql.SQL("where (\n{}\n)").format(_literally(selection.where)))
        if reading.order_by:
            parts.append(sql.SQL("order by"))
            parts.append(sql.SQL(", ").join(map(sql.Identifier, reading.order_by)))
        if selection.limit is not None:
            parts.append(sql.SQL("limit {}").format(sql.Literal(selection.limit)))
        return sql.SQL(" ").join(parts)


def _literally(text: str) -> sql.SQL:
    """Take the user's own SQL as it stands. It runs with the user's rights, in a transaction that cannot write."""
    return sql.SQL(text)


def _trimmed(query: str) -> str:
    """Drop the semicolon that people end a statement with."""
    return query.strip().rstrip(";").rstrip()
