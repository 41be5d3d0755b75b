"""A server shuts down, crashes, restarts or is a replica; a pooler has no room: what passes, and what stays."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import cast

import psycopg
import pytest

from etlcli.errors import EtlError, SourceError, Unavailable
from etlcli.model import Selection
from etlcli.ports import Reading
from etlcli.progress import Counters
from etlcli.source.deadlines import Deadlines
from etlcli.source.postgres import PostgresSource
from tests.integration.source_helpers import (
    PATIENT,
    Server,
    bounded,
    debian_binaries,
    pooler,
    query,
    server,
    sessions,
    source,
    standby,
    until,
    wheel_binaries,
    with_parameters,
)

# More than any buffer on the way holds, so that a server is still at it when something happens.
ENDLESS = query("select generate_series(1, 100000000) as i, repeat('x', 1000) as v")
ONE = query("select 1 as i, 'x' as v")


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    binaries = debian_binaries() or wheel_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL binaries are installed")
    with server(binaries) as started:
        yield started


async def rows_of(wanted: PostgresSource, selection: Selection, then: Callable[[], None] | None = None) -> int:
    """Read to the end; something happens once the first rows are there."""
    taken = 0
    async with wanted.snapshot() as snapshot:
        await snapshot.describe(selection)
        async for batch in snapshot.read(Reading(selection, ("i", "v"), ())):
            if then is not None and not taken:
                await asyncio.to_thread(then)
            taken += len(batch)
    return taken


async def ended(wanted: PostgresSource, selection: Selection, then: Callable[[], None] | None = None) -> EtlError:
    with pytest.raises(EtlError) as caught:
        await rows_of(wanted, selection, then)
    assert caught.value.hint
    return caught.value


# ---- Servers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def test_a_server_that_is_restarted(own_server: Server, how: signal.Signals) -> None:
    counters = Counters()
    wanted = source(own_server.url, PATIENT, counters)

    async def main() -> None:
        error = await ended(wanted, ENDLESS, lambda: own_server.stop(how))
        assert type(error) is Unavailable
        assert "broke while reading rows" in error.message
        again = asyncio.create_task(rows_of(wanted, ONE))
        await asyncio.to_thread(until, lambda: counters.retries > 0, "an attempt to fail")
        await asyncio.to_thread(own_server.start)
        assert await again == 1

    bounded(main())
    assert counters.snapshots == 2


def test_another_session_that_crashes(own_server: Server) -> None:
    """The server ends all sessions then, and replays its log before it takes others."""
    wanted = source(own_server.url, PATIENT)

    def crash() -> None:
        connection = psycopg.connect(own_server.url)
        os.kill(connection.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")
        connection.close()

    async def main() -> None:
        error = await ended(wanted, ENDLESS, crash)
        assert type(error) is Unavailable
        assert await rows_of(wanted, ONE) == 1

    bounded(main())


def test_a_replica_that_has_to_replay_what_is_read(own_server: Server) -> None:
    with (
        psycopg.connect(own_server.url, autocommit=True) as primary,
        standby(own_server, "max_standby_streaming_delay=0") as replica,
    ):
        # A session that an earlier test's pooler left asleep would keep rows from being removed, for ever.
        primary.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        primary.execute("create table t (i int, v text)")
        primary.execute("insert into t select i, 'x' from generate_series(1, 5000) i")
        # A server that waits for its reader, and not for itself, would be told only once that one reads on.
        stalling = query("select i, case when i > 4000 then pg_sleep(86400)::text else v end as v from t")

        def replayed() -> bool:
            with psycopg.connect(replica.url, autocommit=True) as connection:
                row = connection.execute("select pg_last_wal_replay_lsn()").fetchone()
            reached = primary.execute("select pg_current_wal_lsn() <= %s", row).fetchone()
            return reached is not None and cast("bool", reached[0])

        begun = threading.Event()

        def conflict() -> None:
            primary.execute("delete from t where i > (select max(i) - 10 from t)")
            primary.execute("vacuum t")
            until(replayed, "the replica to follow")

        until(replayed, "the replica to follow")
        wanted = source(replica.url)

        async def main() -> None:
            reading = asyncio.create_task(ended(wanted, stalling, begun.set))
            await asyncio.to_thread(begun.wait)
            while not reading.done():
                # Again, for whoever looks at this database just then (autovacuum does, to analyze) keeps rows from
                # being removed, and the replica from a conflict.
                await asyncio.to_thread(conflict)
                await asyncio.wait({reading}, timeout=2)
            error = await reading
            assert type(error) is Unavailable
            assert "conflict with recovery" in error.message
            assert "max_standby_streaming_delay" in str(error.hint)
            row = primary.execute("select count(*) from t").fetchone()
            assert row == (await rows_of(wanted, Selection("t")),)  # at once

        bounded(main())
        primary.execute("drop table t")


def test_a_database_that_is_dropped_while_it_is_read(own_server: Server) -> None:
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        connection.execute("create database doomed")
        wanted = source(with_parameters(own_server.url, dbname="doomed"), PATIENT)

        def drop() -> None:
            connection.execute("drop database doomed with (force)")

        async def main() -> None:
            assert type(await ended(wanted, ENDLESS, drop)) is Unavailable
            error = await ended(wanted, ONE)
            assert type(error) is SourceError
            assert 'database "doomed" does not exist' in error.message

        bounded(main())


# ---- Poolers --------------------------------------------------------------------------------------------------------


def test_a_pooler_whose_server_connection_ends(own_server: Server, unique: str) -> None:
    with pooler(own_server.url) as url:
        wanted = source(with_parameters(url, application_name=unique))

        def end() -> None:
            (pid,) = sessions(own_server.url, unique)
            with psycopg.connect(own_server.url) as connection:
                connection.execute("select pg_terminate_backend(%s)", (pid,))

        async def main() -> None:
            assert type(await ended(wanted, ENDLESS, end)) is Unavailable
            assert await rows_of(wanted, ONE) == 1  # at once

        bounded(main())


def test_a_pooler_without_a_free_connection(own_server: Server) -> None:
    with pooler(own_server.url, "query_wait_timeout = 1") as url, psycopg.connect(url) as other:
        other.execute("select 1")  # and the transaction stays open
        counters = Counters()
        wanted = source(url, PATIENT, counters)

        async def main() -> None:
            again = asyncio.create_task(rows_of(wanted, ONE))
            await asyncio.to_thread(until, lambda: counters.retries > 0, "an attempt to fail")
            other.rollback()
            assert await again == 1

        bounded(main())


def test_a_pooler_that_keeps_us_waiting(own_server: Server) -> None:
    with pooler(own_server.url) as url, psycopg.connect(url) as other:
        other.execute("select 1")

        async def main() -> None:
            error = await ended(source(url, deadlines=Deadlines(statement=0.3)), ONE)
            assert type(error) is Unavailable
            assert "did not answer within 0.3 s while opening a snapshot" in error.message

        bounded(main())


def test_a_poolers_limit_would_be_met_again(own_server: Server) -> None:
    with pooler(own_server.url, "query_timeout = 1") as url:

        async def main() -> None:
            error = await ended(source(url), query("select 1 as i, pg_sleep(86400)::text as v"))
            assert type(error) is SourceError
            assert "cancelled the statement while reading rows: query timeout" in error.message

        bounded(main())


def test_a_pooler_whose_server_is_away(own_server: Server) -> None:
    with pooler(own_server.url, "server_login_retry = 1", "query_wait_timeout = 1") as url:
        counters = Counters()
        wanted = source(url, PATIENT, counters)

        async def main() -> None:
            assert await rows_of(wanted, ONE) == 1
            own_server.stop()
            try:
                for _ in range(2):  # for what it says the second time is something else
                    assert type(await ended(source(url), ONE)) is Unavailable
            finally:
                await asyncio.to_thread(own_server.start)
            assert await rows_of(wanted, ONE) == 1

        bounded(main())
