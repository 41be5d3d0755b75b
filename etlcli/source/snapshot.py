"""One snapshot of a PostgreSQL database: describe what is selected, stream its rows, answer questions about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import orjson
import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from etlcli.encoding import AttributeSpec
from etlcli.errors import SourceError, Unavailable, UsageError
from etlcli.model import BaseTable, PgType, Relation, Selection, SnapshotRecord
from etlcli.ports import Reading
from etlcli.source import catalog, wire
from etlcli.source.deadlines import Deadlines
from etlcli.source.key_expressions import key_expressions
from etlcli.source.ranges import is_within
from etlcli.source.server import Server, describe_server
from etlcli.source.since import example_of, finite, is_since, typed
from etlcli.source.text import sendable, statement_of
from etlcli.source.translate import UNREADABLE, no_answer, silence, statement_error, unreadable

__all__ = ["PostgresSnapshot"]


class PostgresSnapshot:
    """One read-only, repeatable-read transaction.

    Attributes:
        record: PostgreSQL's name for the snapshot, and when it was opened.
    """

    def __init__(self, connection: wire.Connection, where: str, record: SnapshotRecord, deadlines: Deadlines) -> None:
        self.record = record
        self._connection = connection
        self._where = where
        self._deadlines = deadlines
        self._is_lost = False
        self._tables: dict[str, tuple[str, str]] = {}
        self._types: dict[tuple[str | None, str | None], dict[str, PgType]] = {}

    async def tables(self, schema: str) -> list[BaseTable]:
        """List a schema's base tables by name."""
        async with self._asking("looking at the schema", reading=False):
            return await catalog.list_tables(self._connection, sendable(schema, "the schema's name"), self._where)

    async def server(self) -> Server:
        """Ask the server about itself and this connection."""
        async with self._asking("asking about the server", reading=False):
            return await describe_server(self._connection)

    async def describe(self, selection: Selection) -> Relation:
        """Look up columns, types, keys and size of what is selected, and have PostgreSQL check that it can be read.

        That locks the table against being truncated or altered (not against writers) until the snapshot ends.
        """
        if selection.where is not None:
            sendable(selection.where, "the condition")
        async with self._asking("looking at the table", text=selection.query, reading=False):
            if selection.query is not None:
                query = statement_of(sendable(selection.query, "the query"))
                relation = await catalog.describe_query(self._connection, query)
            else:
                assert selection.table is not None
                table = sendable(selection.table, "the table's name")
                relation, self._tables[table] = await catalog.describe_table(self._connection, table)
        self._types[selection.table, selection.query] = {column.name: column.type for column in relation.columns}
        await self._check(selection, relation)
        return relation

    async def read(self, reading: Reading) -> AsyncIterator[list[bytes]]:
        """Stream the rows with COPY, as lines of its text format, in batches of at most 1,000 or about 256 KiB.

        Leaving it before its end ends the snapshot: the statement is cancelled and the connection closed.
        """
        doing = "reading rows"
        async with self._asking(doing):
            statement = self._bytes(sql.SQL("copy ({}) to stdout").format(await self._statement(reading)))
        try:
            async with aclosing(wire.copy_out(self._connection, statement, self._deadlines.read)) as batches:
                async for batch in batches:
                    yield batch
        except wire.Miscounted as error:
            # Not something that passes: whoever went on behind the last row would never see those that are missing.
            raise SourceError(
                f"rows of PostgreSQL at {self._where} were lost on their way: {error}",
                hint="Read all of them again: the same command with --restart, and sslmode=require in the URL.",
            ) from error
        except psycopg.Error as error:
            raise statement_error(error, self._where, doing) from error
        except TimeoutError as error:
            self._is_lost = True
            raise silence(self._where, doing, self._deadlines.read) from error
        finally:
            if self._connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await wire.hang_up(self._connection, self._deadlines.parting)

    async def estimate(self, reading: Reading) -> int | None:
        """About how many rows a reading gives: what EXPLAIN says, which scales with the table's size of today."""
        async with self._asking("estimating the rows"):
            explained = sql.SQL("explain (format json) {}").format(await self._statement(reading))
            plan = await self._answer(explained)
        return None if plan is None else int(orjson.loads(plan)[0]["Plan"]["Plan Rows"])

    async def duplicates(self, reading: Reading, key: Sequence[str | AttributeSpec]) -> list[tuple[str | None, ...]]:
        """Find at most 5 values of the key that more than one row has; rows with a NULL in it do not count."""
        compared = key_expressions(key, self._types[reading.selection.table, reading.selection.query])
        statement = sql.SQL(
            "select {shown} from ({rows}) as q where {present} group by {key} having count(*) > 1 limit 5"
        )
        async with self._asking("looking for duplicate keys", all_rows=True):
            composed = statement.format(
                shown=sql.SQL(", ").join(sql.SQL("concat({})").format(each) for each in compared),
                rows=await self._statement(reading, in_order=reading.selection.limit is not None),
                present=sql.SQL(" and ").join(sql.SQL("{} is not null").format(each) for each in compared),
                key=sql.SQL(", ").join(compared),
            )
            return await wire.run(self._connection, self._bytes(composed))

    async def split(self, reading: Reading, parts: int) -> list[tuple[str, ...]]:
        """Find keys that cut the rows into so many parts of about as many rows each."""
        key = [sql.Identifier(name) for name in reading.order_by]
        names = sql.SQL(", ").join(key)
        # Concat writes a value as COPY does, and as the ledger keeps it; a cast to text does not (boolean, char).
        statement = sql.SQL(
            "select {shown} from (select {key}, row_number() over (order by {key}) as {n}, count(*) over () as {all}"
            " from ({rows}) as q) as q where {n} < {all} and {n} * {parts} / {all} > ({n} - 1) * {parts} / {all}"
            " order by {n}"
        ).format(
            shown=sql.SQL(", ").join(sql.SQL("concat({})").format(each) for each in key),
            key=names,
            n=sql.Identifier(_unlike(reading.order_by, "n")),
            all=sql.Identifier(_unlike(reading.order_by, "all")),
            parts=sql.Literal(parts),
            rows=await self._statement(reading._replace(columns=reading.order_by), in_order=False),
        )
        async with self._asking("looking for keys between which to read", all_rows=True):
            found = await wire.run(self._connection, self._bytes(statement))
        return [tuple(str(value) for value in key) for key in found]

    async def newest(self, selection: Selection, column: str) -> str | None:
        """The largest finite value of a column among the selected rows, as text; an index on it tells it at once."""
        version = self._connection.info.server_version
        counts = finite(column, self._type(selection, column).typname, version)
        statement = sql.SQL("select max({}) {}").format(sql.Identifier(column), self._from(selection, counts))
        async with self._asking(f"looking for the newest {column}", all_rows=True):
            return await self._answer(statement)

    async def has_nulls(self, selection: Selection, column: str) -> bool:
        """Whether a column is NULL in some of the selected rows."""
        missing = sql.SQL("{} is null").format(sql.Identifier(column))
        statement = sql.SQL("select exists (select {})").format(self._from(selection, missing))
        async with self._asking(f"looking for rows without {column}", all_rows=True):
            return await self._answer(statement) == "t"

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
            async with self._asking(f"comparing values of {column}"):
                return await self._answer(question.format(*values))
        except SourceError as error:
            cause = error.__cause__
            if not isinstance(cause, psycopg.DataError):
                raise
            raise UsageError(
                f"{' or '.join(texts)} is no value of {column} ({pg_type.name}): {cause.diag.message_primary}",
                hint=example_of(pg_type.typname),
            ) from cause

    @asynccontextmanager
    async def _asking(
        self, doing: str, *, all_rows: bool = False, text: str | None = None, reading: bool = True
    ) -> AsyncIterator[None]:
        """Give PostgreSQL its time for what is asked within, and put what goes wrong into our words.

        Args:
            doing: In a few words, what for.
            all_rows: Whether it may have to look at every row.
            text: As for ``statement_error``.
            reading: As for ``statement_error``.
        """
        self._require_connection()
        seconds = self._deadlines.read if all_rows else self._deadlines.statement
        try:
            async with asyncio.timeout(seconds):
                yield
        except psycopg.Error as error:
            raise statement_error(error, self._where, doing, text=text, reading=reading) from error
        except TimeoutError as error:
            self._is_lost = True
            await wire.hang_up(self._connection, self._deadlines.parting)
            late = silence if all_rows else no_answer
            raise late(self._where, doing, seconds) from error
        except UNREADABLE as error:
            raise unreadable(error, self._where, doing) from error

    async def _answer(self, statement: sql.Composable) -> str | None:
        """Ask a question that has one answer."""
        ((answer,),) = await wire.run(self._connection, self._bytes(statement))
        return answer

    async def _check(self, selection: Selection, relation: Relation) -> None:
        """Have PostgreSQL judge what would be read, so that a mistake shows before anything is written."""
        async with self._asking("checking what is to be read", reading=False):
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
        if self._is_lost:
            raise Unavailable(
                f"the snapshot of PostgreSQL at {self._where} has ended: it did not answer in time",
                hint="Run the same command again.",
            )
        if self._connection.closed and not self._connection.broken:
            raise SourceError(
                f"the snapshot of PostgreSQL at {self._where} has ended: a reading of it was left before its end",
                hint="Open another snapshot.",
            )


def _unlike(names: Sequence[str], name: str) -> str:
    """Make a name that none of these is."""
    while name in names:
        name += "_"
    return name
