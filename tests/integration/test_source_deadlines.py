"""PostgreSQL stalls: every wait has an end, and nothing is left behind at it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from etlcli import retry
from etlcli.config import load_settings
from etlcli.errors import SourceError, Unavailable
from etlcli.model import Selection
from etlcli.ports import Reading, Snapshot
from etlcli.progress import Counters
from etlcli.source.deadlines import DEFAULT_DEADLINES, Deadlines
from etlcli.source.postgres import PostgresSnapshot, PostgresSource
from etlcli.wiring import open_source
from tests.conftest import Schema, Stack
from tests.integration.fault_proxy import Fault, FaultProxy, fault_proxy, with_host_port
from tests.integration.source_helpers import (
    ONCE,
    PATIENT,
    bounded,
    closing,
    query,
    read,
    sessions,
    source,
    until,
    with_parameters,
)

ONE = query("select 1 as i, 'x' as v")
# More than any buffer on the way holds, so that a server has to wait for its reader.
ENDLESS = query("select generate_series(1, 100000000) as i, repeat('x', 1000) as v")
# A few batches, and then nothing more for an hour.
STALLING = query("select i, case when i > 5000 then pg_sleep(3600)::text end as v from generate_series(1, 10000) i")

# A day's work in vain.
IDLING = query("select 1 as i, pg_sleep(86400)::text as v")

SOON = 0.25
QUICK = replace(DEFAULT_DEADLINES, connect=2, read=SOON, parting=SOON)
# In this time a session has to be opened, too, on a machine that may be busy.
SHORT = replace(DEFAULT_DEADLINES, connect=2, statement=0.5, parting=SOON)
STALL = (Fault("stall", "down"), Fault("stall", "up"))


@pytest.fixture
def proxied(stack: Stack, unique: str) -> Iterator[tuple[FaultProxy, str]]:
    """The stack's server behind a proxy; no session of the test's is left there at the end."""
    with fault_proxy(stack.postgres_url) as proxy:
        yield proxy, with_parameters(with_host_port(stack.postgres_url, proxy), application_name=unique)
    gc.collect()  # what was not closed warns now
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        # What no request to cancel could reach works on.
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = %s and (wait_event = 'PgSleep' or wait_event_type = 'Lock')",
            (unique,),
        )
    until(lambda: sessions(stack.postgres_url, unique) == [], "the server to end all sessions")


async def failing(snapshot: Snapshot, selection: Selection) -> str:
    """Describe and read to the end, which does not come; what is said then."""
    with pytest.raises(Unavailable) as caught:
        await read_all(snapshot, selection)
    assert caught.value.hint
    return caught.value.message


async def read_all(snapshot: Snapshot, selection: Selection = ONE) -> int:
    await snapshot.describe(selection)
    return len([line async for batch in snapshot.read(Reading(selection, ("i", "v"), ())) for line in batch])


async def waiting(stack: Stack, name: str, what: str) -> None:
    """Wait until the server works, or waits for a lock, for this application."""

    def seen() -> bool:
        with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
            row = connection.execute(
                "select 1 from pg_stat_activity where application_name = %s and %s in (wait_event, wait_event_type)",
                (name, what),
            ).fetchone()
        return row is not None

    await asyncio.to_thread(until, seen, f"the server to come to {what}")


# ---- Connecting -----------------------------------------------------------------------------------------------------


def test_a_login_that_stalls(proxied: tuple[FaultProxy, str]) -> None:
    proxy, url = proxied
    # Before the first byte, in the challenge, before the last proof, in what follows the login.
    for after in (0, 20, 100, 200):
        proxy.script(Fault("stall", "down", after=after))

    async def attempt() -> None:
        with pytest.raises(Unavailable, match="cannot be reached: connection timeout expired"):
            async with source(url, deadlines=QUICK).snapshot():
                pass

    async def main() -> None:
        await asyncio.gather(*(attempt() for _ in range(4)))

    bounded(main())
    assert proxy.counts["stall"] == 4


def test_a_session_that_stalls_before_its_snapshot(proxied: tuple[FaultProxy, str]) -> None:
    proxy, url = proxied
    counters = Counters()
    wanted = source(url, PATIENT, counters, SHORT)
    proxy.script(Fault("stall", "down", after=login_bytes(proxy, url)))

    async def main() -> None:
        with pytest.raises(Unavailable, match=r"did not answer within 0\.5 s while opening a snapshot"):
            async with source(url, ONCE, deadlines=SHORT).snapshot():
                pass
        proxy.script(Fault("stall", "down", after=login_bytes(proxy, url)))
        async with wanted.snapshot() as snapshot:  # the next attempt finds it well
            await snapshot.describe(ONE)

    bounded(main())
    assert counters.retries >= 1


def login_bytes(proxy: FaultProxy, url: str) -> int:
    """How much the server sends until it is ready for a first statement."""
    before = proxy.passed["down"]
    psycopg.connect(url).close()
    return proxy.passed["down"] - before


def test_a_source_that_has_answered_is_waited_for_longer(
    proxied: tuple[FaultProxy, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_CONTACT_SECONDS", 0.0)
    proxy, url = proxied
    counters = Counters()
    wanted = source(url, PATIENT, counters)

    async def opened() -> None:
        async with wanted.snapshot():
            pass

    proxy.script(Fault("reset"))
    with pytest.raises(Unavailable, match="cannot be reached"):
        bounded(opened())
    assert counters.retries == 0
    bounded(opened())
    proxy.script(Fault("reset"), connections=3)
    bounded(opened())
    assert (counters.retries, counters.snapshots) == (3, 2)


def test_a_peer_that_vanishes_is_noticed_within_a_minute(stack: Stack) -> None:
    async def options(url: str) -> tuple[int, ...]:
        async with source(url).snapshot() as snapshot:
            with socket.socket(fileno=socket.dup(snapshot._connection.pgconn.socket)) as line:
                names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
                return tuple(line.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in names)

    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("these are Linux's names")
    assert bounded(options(stack.postgres_url)) == (30, 10, 3, 60_000)
    own = with_parameters(stack.postgres_url, keepalives_idle=7, tcp_user_timeout=9000)
    assert bounded(options(own)) == (7, 10, 3, 9000)  # the URL goes first


# ---- Short statements -----------------------------------------------------------------------------------------------


def test_a_table_that_is_locked(stack: Stack, schema: Schema, unique: str) -> None:
    schema.execute("create table t (i int, v text)")
    url = with_parameters(schema.url, application_name=unique)

    async def main() -> None:
        async with source(url, deadlines=SHORT).snapshot() as snapshot:
            message = await failing(snapshot, Selection("t"))
            assert "did not answer within 0.5 s while" in message
            # The server is well, so it was told to give up; the lock is held all the same.
            await asyncio.to_thread(until, lambda: sessions(stack.postgres_url, unique) == [], "the session to end")
            with pytest.raises(Unavailable, match="has ended: it did not answer in time"):
                await snapshot.describe(Selection("t"))

    with psycopg.connect(schema.url) as other:
        other.execute("lock table t in access exclusive mode")
        bounded(main())
    assert read(url, "t") == []


def test_a_catalog_query_that_stalls(proxied: tuple[FaultProxy, str]) -> None:
    proxy, url = proxied
    wanted = source(url, deadlines=SHORT)

    async def describing() -> None:
        async with wanted.snapshot() as snapshot:
            await snapshot.describe(ONE)

    async def main() -> None:
        async with source(url).snapshot():
            pass
        opening = proxy.passed["down"]
        for after in (10, 300):
            proxy.script(Fault("stall", "down", after=opening + after))
            with pytest.raises(Unavailable, match=r"did not answer within 0\.5 s while"):
                await describing()
        async with source(url).snapshot() as well:  # at once
            assert await read_all(well) == 1

    bounded(main())


# ---- Readings -------------------------------------------------------------------------------------------------------


def test_a_reading_that_stalls_in_a_row(proxied: tuple[FaultProxy, str]) -> None:
    proxy, url = proxied
    wanted = source(url, deadlines=QUICK)

    async def main() -> None:
        for after in (0, 3, 300_000):
            async with wanted.snapshot() as snapshot:
                await snapshot.describe(ENDLESS)
                proxy.strike(Fault("stall", "down", after=after))
                with pytest.raises(Unavailable, match=r"sent nothing for 0\.25 s while reading rows") as caught:
                    async for _ in snapshot.read(Reading(ENDLESS, ("i", "v"), ())):
                        pass
                assert "`read_timeout` below [source]" in str(caught.value.hint)
                with pytest.raises(Unavailable, match="it did not answer in time"):
                    await snapshot.has_nulls(ENDLESS, "i")
        async with source(url).snapshot() as well:
            assert await read_all(well) == 1

    bounded(main())


def test_a_statement_that_gives_nothing_for_too_long(
    proxied: tuple[FaultProxy, str], stack: Stack, unique: str
) -> None:
    _, url = proxied

    async def main() -> None:
        async with source(url, deadlines=QUICK).snapshot() as snapshot:
            assert "sent nothing for 0.25 s while reading rows" in await failing(snapshot, STALLING)
            # Nobody waits for it any more, so it is cancelled.
            await asyncio.to_thread(until, lambda: sessions(stack.postgres_url, unique) == [], "the session to end")

    bounded(main())


@pytest.mark.parametrize("question", ["duplicates", "newest", "has_nulls"])
def test_a_question_over_all_rows_has_the_readings_deadline(proxied: tuple[FaultProxy, str], question: str) -> None:
    _, url = proxied

    async def main() -> None:
        async with source(url, deadlines=QUICK).snapshot() as snapshot:
            await snapshot.describe(IDLING)
            questions: dict[str, Callable[[], Awaitable[object]]] = {
                "duplicates": lambda: snapshot.duplicates(Reading(IDLING, ("v",), ()), ("v",)),
                "newest": lambda: snapshot.newest(IDLING, "v"),
                "has_nulls": lambda: snapshot.has_nulls(IDLING, "v"),
            }
            with pytest.raises(Unavailable, match=r"sent nothing for 0\.25 s while looking for"):
                await questions[question]()

    bounded(main())


def test_the_deadline_is_for_silence_and_not_for_all_of_it(stack: Stack) -> None:
    """Each row fills more than the server gathers before it sends."""
    slow = query("select i, repeat('x', 10000) || pg_sleep(0.05) as v from generate_series(1, 25) i")

    async def main() -> int:
        async with source(stack.postgres_url, deadlines=replace(QUICK, read=1.0)).snapshot() as snapshot:
            return await read_all(snapshot, slow)

    assert bounded(main()) == 25


def test_the_readers_own_time_does_not_count(stack: Stack) -> None:
    async def main() -> None:
        async with source(stack.postgres_url, deadlines=replace(QUICK, read=1.0)).snapshot() as snapshot:
            await snapshot.describe(ENDLESS)
            async with closing(snapshot.read(Reading(ENDLESS, ("i", "v"), ()))) as batches:
                await anext(batches)
                await asyncio.sleep(1.1)
                for _ in range(5):
                    await anext(batches)

    bounded(main())


@pytest.mark.parametrize(("text", "seconds"), [("", 600), ("[source]\nread_timeout = '1s'\n", 1)])
def test_the_config_says_how_long(proxied: tuple[FaultProxy, str], tmp_path: Path, text: str, seconds: float) -> None:
    file = tmp_path / "momento-etl.toml"
    file.write_text(text)
    settings = load_settings(str(file), environ={"DATABASE_URL": proxied[1]}, folder=tmp_path)

    async def main() -> None:
        async with open_source(settings, Counters()).snapshot() as snapshot:
            assert isinstance(snapshot, PostgresSnapshot)
            assert snapshot._deadlines == Deadlines(read=seconds)

    bounded(main())


# ---- Leaving a server that does not answer --------------------------------------------------------------------------


class Work:
    """Something to do with a source, which never comes to an end by itself."""

    def __init__(self, wanted: PostgresSource, stage: str) -> None:
        self._wanted = wanted
        self._stage = stage
        self.idles = asyncio.Event()

    async def __call__(self) -> None:
        async with self._wanted.snapshot() as snapshot:
            if self._stage == "locked":
                await snapshot.describe(Selection("t"))
            if self._stage == "reading":
                await read_all(snapshot, STALLING)
            self.idles.set()
            await asyncio.Event().wait()


@pytest.mark.parametrize("stage", ["locked", "reading", "idle"])
@pytest.mark.parametrize("often", [1, 2])
def test_cancelled_while_the_server_stalls(
    proxied: tuple[FaultProxy, str],
    stack: Stack,
    schema: Schema,
    unique: str,
    caplog: pytest.LogCaptureFixture,
    stage: str,
    often: int,
) -> None:
    """Nothing passes any more, nor does the request to cancel: it is waited for no longer than leaving may take."""
    proxy, url = proxied
    schema.execute("create table t (i int, v text)")
    url = with_parameters(url, options=f"-csearch_path={schema.name}")
    # Who is cancelled a second time does not wait at all.
    wanted = source(url, deadlines=replace(QUICK, parting=SOON if often == 1 else 3600.0))

    async def main() -> None:
        work = Work(wanted, stage)
        task = asyncio.create_task(work())
        if stage == "idle":
            await work.idles.wait()
        else:
            await waiting(stack, unique, {"locked": "Lock", "reading": "PgSleep"}[stage])
        before = proxy.counts["connections"]
        proxy.script(*STALL)
        for fault in STALL:
            proxy.strike(fault)
        task.cancel()
        if often == 2:
            if stage == "idle":
                await asyncio.to_thread(proxy.wait_for, "stall", 2)
            else:
                await asyncio.to_thread(proxy.wait_for, "connections", before + 1)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with contextlib.ExitStack() as locks:
        if stage == "locked":
            other = locks.enter_context(psycopg.connect(schema.url))
            other.execute("lock table t in access exclusive mode")
        bounded(main())
    assert [record.message for record in caplog.records if record.name == "psycopg"] == []  # it would be shown


@pytest.mark.parametrize("after", [0, 100, None], ids=["greeting", "login", "settings"])
def test_cancelled_while_it_is_connecting(proxied: tuple[FaultProxy, str], after: int | None) -> None:
    proxy, url = proxied
    proxy.script(Fault("stall", "down", after=login_bytes(proxy, url) if after is None else after))

    async def main() -> None:
        task = asyncio.create_task(Work(source(url, PATIENT, deadlines=QUICK), "idle")())
        await asyncio.to_thread(proxy.wait_for, "stall")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    bounded(main())


def test_the_other_sides_error_is_not_held_up(proxied: tuple[FaultProxy, str], stack: Stack, unique: str) -> None:
    """As in a run: the first error cancels the rest, and is what is told."""
    proxy, url = proxied

    async def main() -> None:
        async def fail() -> None:
            await waiting(stack, unique, "PgSleep")
            proxy.script(*STALL)
            for fault in STALL:
                proxy.strike(fault)
            raise SourceError("the other side")

        async with asyncio.TaskGroup() as group:
            group.create_task(Work(source(url, deadlines=QUICK), "reading")())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        bounded(main())
    assert [str(error) for error in caught.value.exceptions] == ["the other side"]


def test_leaving_a_reading_early_while_the_server_stalls(proxied: tuple[FaultProxy, str]) -> None:
    proxy, url = proxied

    async def main() -> None:
        async with source(url, deadlines=QUICK).snapshot() as snapshot:
            await snapshot.describe(ENDLESS)
            batches: AsyncIterator[list[bytes]] = snapshot.read(Reading(ENDLESS, ("i", "v"), ()))
            async with closing(batches):
                await anext(batches)
                proxy.script(*STALL)
                for fault in STALL:
                    proxy.strike(fault)
            with pytest.raises(SourceError, match="left before its end"):
                await snapshot.describe(ONE)

    bounded(main())
