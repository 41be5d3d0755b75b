"""The PostgreSQL adapter: connect, open a snapshot, describe a selection, stream its rows."""

from __future__ import annotations

import os
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import orjson
import psycopg
from psycopg import conninfo, sql
from psycopg.abc import ConnDict
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from etlcli.encoding import AttributeSpec
from etlcli.errors import ConfigError, SourceError, Unavailable, UsageError
from etlcli.model import BaseTable, PgType, Relation, Selection, SnapshotRecord
from etlcli.ports import Reading
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy, retrying
from etlcli.source import catalog, wire
from etlcli.source.key_expressions import key_expressions
from etlcli.source.ranges import is_within
from etlcli.source.since import example_of, finite, is_since, typed
from etlcli.source.text import sendable, statement_of
from etlcli.source.translate import connection_error, statement_error

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

_CONNECT_SECONDS = 10
_CONNECT_PATIENCE = RetryPolicy(patience=15.0, base=0.5, ceiling=3.0)

# What libpq takes from the environment where the URL does not say it.
_ENVIRONMENT = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "service": "PGSERVICE",
}


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
        parameters = _parameters(url)
        if "PGCONNECT_TIMEOUT" not in os.environ:
            parameters.setdefault("connect_timeout", _CONNECT_SECONDS)
        parameters.setdefault("fallback_application_name", "momento-etl")
        # Idle stretches are normal while the loader catches up; a peer that vanished is noticed all the same.
        parameters.setdefault("keepalives_idle", 30)
        self._description = _description(parameters)
        self._conninfo = conninfo.make_conninfo("", **parameters)
        self._counters = counters
        self._retry = retry

    @property
    def description(self) -> str:
        """Host, port and database, as far as URL and environment name them: ``db.example.org:5432/shop``."""
        return self._description

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresSnapshot]:
        """Connect and open one read-only snapshot; both end with the context."""
        connection, record = await retrying(self._open, self._retry, self._counters)
        try:
            self._counters.snapshots += 1
            yield PostgresSnapshot(connection, self.description, record)
        finally:
            await wire.hang_up(connection)

    async def tables(self, schema: str) -> list[BaseTable]:
        """List a schema's base tables by name, in a snapshot of its own."""
        async with self.snapshot() as snapshot:
            return await snapshot.tables(schema)

    async def _open(self) -> tuple[wire.Connection, SnapshotRecord]:
        # One attempt, from the connection to the snapshot: a pooler answers first, and reaches its database only then.
        connection = await self._connect()
        try:
            begin = _BEGIN
            if connection.info.server_version >= _VERSION_17:
                begin += _PINNED_FROM_17
            await connection.execute(begin)
            cursor = await connection.execute("select txid_current_snapshot()::text")
            row = await cursor.fetchone()
        except psycopg.errors.QueryCanceled as error:
            # Until it is lifted, a statement_timeout of the role's own holds for the first statements too.
            await wire.hang_up(connection)
            raise Unavailable(
                f"PostgreSQL at {self.description} cancelled the start of a snapshot: {error.diag.message_primary}",
                hint="Give this user a longer statement_timeout: ALTER ROLE ... SET statement_timeout = ...",
            ) from error
        except psycopg.Error as error:
            await wire.hang_up(connection)
            raise statement_error(error, self.description, "opening a snapshot") from error
        except BaseException:
            await wire.hang_up(connection)
            raise
        assert row is not None
        return connection, SnapshotRecord(row[0], time.time())

    async def _connect(self) -> wire.Connection:
        try:
            # autocommit: the BEGIN above says what the transaction is. Poolers forbid named prepared statements.
            return await psycopg.AsyncConnection.connect(
                self._conninfo, autocommit=True, prepare_threshold=None, row_factory=tuple_row
            )
        except psycopg.Error as error:
            refusal = connection_error(error, self.description)
        # Out here, so that nothing refers to psycopg's error: it holds the connection's parameters, password and all.
        raise refusal


class PostgresSnapshot:
    """One read-only, repeatable-read transaction.

    Attributes:
        record: PostgreSQL's name for the snapshot, and when it was opened.
    """

    def __init__(self, connection: wire.Connection, where: str, record: SnapshotRecord) -> None:
        self.record = record
        self._connection = connection
        self._where = where
        self._tables: dict[str, tuple[str, str]] = {}
        self._types: dict[tuple[str | None, str | None], dict[str, PgType]] = {}

    async def tables(self, schema: str) -> list[BaseTable]:
        """List a schema's base tables by name."""
        try:
            return await catalog.list_tables(self._connection, sendable(schema, "the schema's name"), self._where)
        except psycopg.Error as error:
            raise statement_error(error, self._where, "looking at the schema", reading=False) from error

    async def describe(self, selection: Selection) -> Relation:
        """Look up columns, types, keys and size of what is selected, and have PostgreSQL check that it can be read.

        That locks the table against being truncated or altered (not against writers) until the snapshot ends.
        """
        if selection.where is not None:
            sendable(selection.where, "the condition")
        try:
            if selection.query is not None:
                query = statement_of(sendable(selection.query, "the query"))
                relation = await catalog.describe_query(self._connection, query)
            else:
                assert selection.table is not None
                table = sendable(selection.table, "the table's name")
                relation, self._tables[table] = await catalog.describe_table(self._connection, table)
        except psycopg.Error as error:
            raise statement_error(
                error, self._where, "looking at the table", text=selection.query, reading=False
            ) from error
        self._types[selection.table, selection.query] = {column.name: column.type for column in relation.columns}
        await self._check(selection, relation)
        return relation

    async def read(self, reading: Reading) -> AsyncIterator[list[bytes]]:
        """Stream the rows with COPY, as lines of its text format, in batches of at most 1,000 or about 256 KiB.

        Leaving it before its end ends the snapshot: the statement is cancelled and the connection closed.
        """
        self._require_connection()
        try:
            statement = self._bytes(sql.SQL("copy ({}) to stdout").format(await self._statement(reading)))
            async with aclosing(wire.copy_out(self._connection, statement)) as batches:
                async for batch in batches:
                    yield batch
        except psycopg.Error as error:
            raise statement_error(error, self._where, "reading rows") from error
        finally:
            if self._connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await wire.hang_up(self._connection)

    async def estimate(self, reading: Reading) -> int | None:
        """About how many rows a reading gives: what EXPLAIN says, which scales with the table's size of today."""
        self._require_connection()
        doing = "estimating the rows"
        try:
            explained = sql.SQL("explain (format json) {}").format(await self._statement(reading))
        except psycopg.Error as error:
            raise statement_error(error, self._where, doing) from error
        plan = await self._answer(explained, doing)
        return None if plan is None else int(orjson.loads(plan)[0]["Plan"]["Plan Rows"])

    async def duplicates(self, reading: Reading, key: Sequence[str | AttributeSpec]) -> list[tuple[str | None, ...]]:
        """Find at most 5 values of the key that more than one row has; rows with a NULL in it do not count."""
        self._require_connection()
        compared = key_expressions(key, self._types[reading.selection.table, reading.selection.query])
        statement = sql.SQL(
            "select {shown} from ({rows}) as q where {present} group by {key} having count(*) > 1 limit 5"
        )
        try:
            composed = statement.format(
                shown=sql.SQL(", ").join(sql.SQL("concat({})").format(each) for each in compared),
                rows=await self._statement(reading, in_order=reading.selection.limit is not None),
                present=sql.SQL(" and ").join(sql.SQL("{} is not null").format(each) for each in compared),
                key=sql.SQL(", ").join(compared),
            )
            return await wire.run(self._connection, self._bytes(composed))
        except psycopg.Error as error:
            raise statement_error(error, self._where, "looking for duplicate keys") from error

    async def newest(self, selection: Selection, column: str) -> str | None:
        """The largest finite value of a column among the selected rows, as text; an index on it tells it at once."""
        version = self._connection.info.server_version
        counts = finite(column, self._type(selection, column).typname, version)
        statement = sql.SQL("select max({}) {}").format(sql.Identifier(column), self._from(selection, counts))
        return await self._answer(statement, f"looking for the newest {column}")

    async def has_nulls(self, selection: Selection, column: str) -> bool:
        """Whether a column is NULL in some of the selected rows."""
        missing = sql.SQL("{} is null").format(sql.Identifier(column))
        statement = sql.SQL("select exists (select {})").format(self._from(selection, missing))
        return await self._answer(statement, f"looking for rows without {column}") == "t"

    async def value(self, selection: Selection, column: str, text: str) -> str:
        """A text as PostgreSQL writes it, taken for a value of a column's type."""
        written = await self._compute(selection, column, sql.SQL("select {}"), text)
        assert written is not None
        return written

    async def precedes(self, selection: Selection, column: str, first: str, second: str) -> bool:
        """Whether, as values of a column's type, ``first`` is not after ``second``."""
        return await self._compute(selection, column, sql.SQL("select {} <= {}"), first, second) == "t"

    async def _compute(self, selection: Selection, column: str, question: sql.SQL, *texts: str) -> str | None:
        """Have something computed of texts that are values of a column's type."""
        pg_type = self._type(selection, column)
        values = [typed(sendable(text, f"the value of {column}"), pg_type.typname) for text in texts]
        try:
            return await self._answer(question.format(*values), f"comparing values of {column}")
        except SourceError as error:
            cause = error.__cause__
            if not isinstance(cause, psycopg.DataError):
                raise
            raise UsageError(
                f"{' or '.join(texts)} is no value of {column} ({pg_type.name}): {cause.diag.message_primary}",
                hint=example_of(pg_type.typname),
            ) from cause

    async def _answer(self, statement: sql.Composable, doing: str) -> str | None:
        """Ask a question that has one answer."""
        self._require_connection()
        try:
            ((answer,),) = await wire.run(self._connection, self._bytes(statement))
        except psycopg.Error as error:
            raise statement_error(error, self._where, doing) from error
        return answer

    async def _check(self, selection: Selection, relation: Relation) -> None:
        """Have PostgreSQL judge what would be read, so that a mistake shows before anything is written."""
        try:
            if selection.query is not None:
                await self._check_query(selection)
            if selection.where is not None:
                await self._check_condition(selection)
            # Columns that do not exist are the plan's to name; it knows what was meant.
            if {*(selection.columns or ())} <= {column.name for column in relation.columns}:
                # Started, but asked for no row: shows missing rights, policies, a view without data. It also takes the
                # locks of a read, on partitions and what views stand on too, without which a TRUNCATE that commits
                # between here and there would leave nothing to read, snapshot or no snapshot.
                probe = Reading(replace(selection, limit=0), selection.columns or (), ())
                await wire.run(self._connection, self._bytes(self._select(probe)))
        except psycopg.Error as error:
            raise statement_error(error, self._where, "checking what is to be read", reading=False) from error

    async def _check_query(self, selection: Selection) -> None:
        try:
            await wire.parse(
                self._connection, self._bytes(self._select(Reading(Selection(query=selection.query), (), ())))
            )
        except (psycopg.errors.SyntaxError, psycopg.errors.FeatureNotSupported) as error:
            # It parsed by itself, so what PostgreSQL minds is that such a statement cannot stand where rows are read.
            raise UsageError("the query is not one that only reads", hint=catalog.ONLY_READS) from error

    async def _check_condition(self, selection: Selection) -> None:
        """Have PostgreSQL parse the condition in two places: text that closes our parenthesis fits one at most."""
        parsed = await wire.parse(self._connection, self._bytes(self._select(Reading(selection, (), ()))))
        catalog.refuse_parameters(parsed, "the condition")
        assert selection.where is not None
        statement = sql.SQL("select case when (\n{}\n) then 1 end from {}").format(
            sql.SQL(selection.where), self._rows_of(selection)
        )
        await wire.parse(self._connection, self._bytes(statement))

    async def _statement(self, reading: Reading, *, in_order: bool = True) -> sql.Composed:
        """Compose the SELECT of a reading, for which PostgreSQL may have to be asked how its keys compare."""
        within = None
        if reading.range is not None:
            key = self._select(Reading(reading.selection, reading.order_by, ()))
            parsed = await wire.parse(self._connection, self._bytes(key))
            within = is_within(reading.range, await catalog.describe_key(self._connection, parsed))
        return self._select(reading if in_order else reading._replace(order_by=()), within)

    def _select(self, reading: Reading, within: sql.Composable | None = None) -> sql.Composed:
        """Compose the SELECT of a reading, but for its range, whose condition is ``within``.

        Line breaks keep a user's trailing ``--`` comment from eating our text.
        """
        selection = reading.selection
        conditions: list[sql.Composable] = []
        if reading.since is not None:
            conditions.append(is_since(reading.since, self._type(selection, reading.since.column).typname))
        if within is not None:
            conditions.append(within)
        parts: list[sql.Composable] = [
            sql.SQL("select"),
            sql.SQL(", ").join(map(sql.Identifier, reading.columns)) if reading.columns else sql.SQL("*"),
            self._from(selection, sql.SQL(" and ").join(conditions) if conditions else None, reading.sample),
        ]
        if reading.order_by:
            parts.append(sql.SQL("order by"))
            parts.append(sql.SQL(", ").join(map(sql.Identifier, reading.order_by)))
        if selection.limit is not None:
            parts.append(sql.SQL("limit {}").format(sql.Literal(selection.limit)))
        return sql.SQL(" ").join(parts)

    def _from(
        self, selection: Selection, besides: sql.Composable | None = None, sample: float | None = None
    ) -> sql.Composable:
        """Compose where the selected rows come from, and which of them; ``besides`` is a condition of our own."""
        conditions = [] if besides is None else [besides]
        if selection.where is not None:
            # The user's own SQL, as it stands: it runs with the user's rights, in a transaction that cannot write.
            conditions.insert(0, sql.SQL("(\n{}\n)").format(sql.SQL(selection.where)))
        parts: list[sql.Composable] = [sql.SQL("from"), self._rows_of(selection)]
        if sample is not None:
            parts.append(sql.SQL("tablesample system ({}) repeatable (0)").format(sql.Literal(sample)))
        if conditions:
            parts += [sql.SQL("where"), sql.SQL(" and ").join(conditions)]
        return sql.SQL(" ").join(parts)

    def _rows_of(self, selection: Selection) -> sql.Composable:
        if selection.query is not None:
            return sql.SQL("(\n{}\n) as q").format(sql.SQL(statement_of(selection.query)))
        assert selection.table is not None
        return sql.Identifier(*self._tables[selection.table])

    def _type(self, selection: Selection, column: str) -> PgType:
        """Tell a column's type, as ``describe`` found it."""
        return self._types[selection.table, selection.query][column]

    def _bytes(self, statement: sql.Composable) -> bytes:
        return statement.as_bytes(self._connection)

    def _require_connection(self) -> None:
        if self._connection.closed and not self._connection.broken:
            raise SourceError(
                f"the snapshot of PostgreSQL at {self._where} has ended: a reading of it was left before its end",
                hint="Open another snapshot.",
            )


def _parameters(url: str) -> ConnDict:
    """Take a URL or a connection string apart, and refuse what libpq takes but cannot have been meant.

    What goes wrong with a URL is mostly a password whose odd characters are not percent-encoded: libpq then takes
    part of it for the host, the port or the database, and would show it. So none of it is shown here.
    """
    try:
        parameters = conninfo.conninfo_to_dict(sendable(url, "the source's URL"))
    except psycopg.ProgrammingError:
        parameters = None  # libpq's message quotes the URL, so it stays out
    if parameters is not None:
        hosts = str(parameters.get("host") or parameters.get("hostaddr") or "").split(",")
        ports = str(parameters.get("port") or "").split(",")
        path = re.match(r"postgres(?:ql)?://(?:[^@/]*@)?[^/?]*/([^?]*)", url)
        if (
            all("@" not in host[1:] for host in hosts)  # at the start it names an abstract Unix socket
            and all(not port or port.isdecimal() for port in ports)
            and len(ports) in (1, len(hosts))
            and not (path and "@" in path[1])
        ):
            return parameters
    raise ConfigError(
        "the source's URL is malformed",
        hint="Write postgresql://USER@HOST:PORT/DATABASE, with odd characters percent-encoded"
        " (a slash in a password is %2F, an @ is %40).",
        of_service=True,
    )


def _description(parameters: ConnDict) -> str:
    """Say where a source is, from the parameters and from the environment, which libpq asks for the others."""

    def named(keyword: str) -> str:
        return str(parameters.get(keyword) or os.environ.get(_ENVIRONMENT[keyword]) or "")

    database = f"/{named('dbname')}" if named("dbname") else ""
    addresses = named("host") or named("hostaddr")
    if named("service") and not parameters.get("host"):
        return f"service {named('service')}{database}"
    hosts = (
        [f"[{host}]" if ":" in host else host for host in addresses.split(",")] if addresses else ["the default host"]
    )
    ports = named("port").split(",")
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    return ",".join(f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)) + database
