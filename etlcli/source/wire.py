"""What psycopg's cursors do not offer: to parse one statement without running it, and to take COPY's rows many at once.

All statements here go by the extended protocol, without a name: it takes one statement only, so that text which
smuggles in a second one is refused, and transaction poolers allow it.

Of psycopg it uses the documented ``psycopg.pq``, and ``generators.execute``, the same in 3.2 and 3.3, with and without
C. It waits by itself, for psycopg's cursors too: what is cancelled ends at once, where psycopg would first wait for the
server to take note, for ten seconds if need be. That is ``hang_up``'s, which has one deadline for all of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.waiting import Ready, Wait

__all__ = ["Connection", "Miscounted", "Parsed", "copy_out", "hang_up", "parse", "run"]

T = TypeVar("T")

# Lines are handed on in batches: large enough that what is paid per batch does not show, small against a chunk.
_BATCH_ROWS = 1000
_BATCH_BYTES = 256 * 1024


class Connection(psycopg.AsyncConnection[Any]):
    """A connection whose cursors wait as everything here does."""

    async def wait(self, gen: PQGen[T], *_: object, **__: object) -> T:
        """See psycopg's. All deadlines are the caller's."""
        return await _wait(self.pgconn, gen)


class Miscounted(psycopg.DataError):
    """All rows have arrived, and they are not as many as the server has sent."""


class Parsed(NamedTuple):
    """What PostgreSQL says of a statement that it parsed.

    Attributes:
        columns: Name, type and type modifier of each.
        parameters: How many parameters (``$1``) it asks for.
    """

    columns: list[tuple[str, int, int]]
    parameters: int


async def parse(connection: Connection, statement: bytes) -> Parsed:
    """Have PostgreSQL parse a statement and describe its columns; nothing is executed.

    Raises:
        psycopg.Error: It does not parse, names what does not exist, or is more than one statement.
    """
    pgconn = connection.pgconn
    pgconn.send_prepare(b"", statement)
    await _wait(pgconn, _answer(pgconn, ExecStatus.COMMAND_OK))
    pgconn.send_describe_prepared(b"")
    result = await _wait(pgconn, _answer(pgconn, ExecStatus.COMMAND_OK))
    columns = [((result.fname(n) or b"").decode(), result.ftype(n), result.fmod(n)) for n in range(result.nfields)]
    return Parsed(columns, result.nparams)


async def run(connection: Connection, statement: bytes) -> list[tuple[str | None, ...]]:
    """Execute one statement that returns few rows, and return those as PostgreSQL's text.

    Raises:
        psycopg.Error: It fails.
    """
    connection.pgconn.send_query_params(statement, None)
    result = await _wait(connection.pgconn, _answer(connection.pgconn, ExecStatus.TUPLES_OK))
    values = [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
    return [tuple(None if value is None else value.decode() for value in row) for row in values]


async def copy_out(connection: Connection, statement: bytes, patience: float) -> AsyncGenerator[list[bytes], None]:
    """Execute one COPY ... TO STDOUT, and stream its lines without their newlines.

    A batch has at most 1,000 lines, and ends with the line that brings it to 256 KiB. None is empty. What has ended
    without an error has given every line that the server sent; before an error comes each line that arrived whole.

    Args:
        connection: In a transaction.
        statement: The COPY.
        patience: Seconds that the server may stay silent for.

    Raises:
        Miscounted: Lines are missing, and nobody knows which.
        psycopg.Error: It fails, at its start or in the middle, or what comes next is damaged.
        TimeoutError: Nothing came for so long.
    """
    pgconn = connection.pgconn
    pgconn.send_query_params(statement, None)
    await _wait(pgconn, _answer(pgconn, ExecStatus.COPY_OUT), patience)
    taken = 0
    more = True
    while more:
        pieces: list[bytes | memoryview] = []
        failure: Exception | None = None
        try:
            more = await _wait(pgconn, _copied(pgconn, pieces), patience)
        except (psycopg.Error, TimeoutError) as error:
            # What came before it is of use: a slow source that breaks again and again is read in the end all the same.
            failure = error
        if pieces:
            # Within a line COPY escapes each newline, so what is left of them ends the lines. Joined and split again,
            # since that costs less than to cut the end off each line.
            lines = b"".join(pieces).split(b"\n")
            # Each message is one line: where a newline was hit on the way, two lines are not taken for one.
            if lines.pop() or len(lines) != len(pieces):
                raise psycopg.OperationalError("rows arrived damaged")
            taken += len(lines)
            yield lines
        if failure is not None:
            raise failure
        # A server that is always ahead would let nobody else work, nor a cancellation in.
        await asyncio.sleep(0)
    done = await _wait(pgconn, _answer(pgconn, ExecStatus.COMMAND_OK), patience)
    if done.command_tuples != taken:
        raise Miscounted(f"{taken} rows arrived, and the server sent {done.command_tuples}")


async def hang_up(connection: Connection, patience: float) -> None:
    """Close a connection, and leave nothing behind at the server.

    A statement that is still at work is cancelled, for the server may not notice for hours that nobody reads it. A
    transaction is ended in form, so that a pooler can hand its session to the next.

    Args:
        connection: In any state.
        patience: Seconds that the server is waited for; after that the connection is closed all the same.
    """
    pgconn = connection.pgconn
    status = pgconn.transaction_status
    try:
        async with asyncio.timeout(patience):
            if status == TransactionStatus.ACTIVE:
                await connection.cancel_safe(timeout=patience)
            elif status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
                pgconn.send_query_params(b"rollback", None)
                await _wait(pgconn, _answer(pgconn, ExecStatus.COMMAND_OK))
    except (psycopg.Error, OSError):
        pass  # of a server that is gone nothing is left
    finally:
        await connection.close()


def _answer(pgconn: PGconn, expected: ExecStatus) -> PQGen[PGresult]:
    """Send what was put into the queue, and wait for its one result."""
    results: list[PGresult] = yield from generators.execute(pgconn)
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(result)
    if [result.status for result in results] != [expected]:
        answered = ", ".join(ExecStatus(result.status).name for result in results) or "nothing"
        raise psycopg.OperationalError(f"the server answered {answered}, not {expected.name}")
    return results[0]


def _copied(pgconn: PGconn, pieces: list[bytes | memoryview]) -> PQGen[bool]:
    """Take lines until they fill a batch or the COPY has ended; answer whether there may be more."""
    take = pgconn.get_copy_data
    size = 0
    while len(pieces) < _BATCH_ROWS and size < _BATCH_BYTES:
        length, data = take(1)
        if length > 0:
            pieces.append(data)
            size += length
        elif length == 0:  # none has arrived as a whole
            yield Wait.R
            pgconn.consume_input()
        else:
            return False
    return True


async def _wait(pgconn: PGconn, steps: PQGen[T], patience: float | None = None) -> T:
    """Take a generator of psycopg's kind to its end: it says what it waits for, and is told what has come.

    Raises:
        TimeoutError: Nothing came for ``patience`` seconds.
    """
    try:
        wanted = next(steps)
        while True:
            wanted = steps.send(await _ready(pgconn.socket, wanted, patience))
    except StopIteration as end:
        result: T = end.value
        return result


async def _ready(fileno: int, wanted: int, patience: float | None) -> Ready:
    loop = asyncio.get_running_loop()
    state: asyncio.Future[Ready] = loop.create_future()

    def came(what: Ready) -> None:
        if not state.done():
            state.set_result(what)

    def stayed_away() -> None:
        if not state.done():
            state.set_exception(TimeoutError())

    if wanted & Wait.R:
        loop.add_reader(fileno, came, Ready.R)
    if wanted & Wait.W:
        loop.add_writer(fileno, came, Ready.W)
    alarm = loop.call_later(patience, stayed_away) if patience is not None else None
    try:
        return await state
    finally:
        loop.remove_reader(fileno)
        loop.remove_writer(fileno)
        if alarm is not None:
            alarm.cancel()
