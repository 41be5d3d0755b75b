"""What the PostgreSQL source does when things go wrong: connecting, staying connected, stopping early, poolers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, sql

from etlcli.errors import ConfigError, EtlError, SourceError, Unavailable, UsageError
from etlcli.model import Selection
from etlcli.ports import Reading
from etlcli.progress import Counters
from etlcli.source.postgres import PostgresSource
from tests.conftest import Schema, Stack
from tests.integration.source_helpers import (
    PATIENT,
    Server,
    closing,
    debian_binaries,
    describe,
    free_port,
    pooler,
    query,
    read,
    refusal,
    role,
    server,
    sessions,
    source,
    until,
    wheel_binaries,
    wire_to,
    with_parameters,
)

ONE = query("select 1 as a")
# More than any buffer on the way holds, so that a server has to wait for its reader.
ENDLESS = query("select generate_series(1, 100000000) as i, repeat('x', 1000) as v")
# A few batches, and then nothing more for an hour.
STALLING = query("select i, case when i > 5000 then pg_sleep(3600)::text end as v from generate_series(1, 10000) i")


def everything_said(error: BaseException, url: str) -> str:
    """All that may come to be shown of an error, those that it was made from included."""
    said = [*traceback.format_exception(error)]
    chain: BaseException | None = error
    while chain is not None:
        said += [str(chain), repr(chain), repr(vars(chain)), str(getattr(chain, "hint", ""))]
        chain = chain.__cause__ or chain.__context__
    # Such text would be in the trace, since the test has the URL in a literal of its own.
    return "\n".join(said).replace(url, "")


def fails(url: str, expected: type[EtlError], *said: str, selection: Selection = ONE) -> EtlError:
    with pytest.raises(expected) as caught:
        read(url, selection)
    for text in said:
        assert text in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    """A server that trusts everybody, also on IPv6 and on a Unix socket."""
    binaries = debian_binaries() or wheel_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL binaries are installed")
    with server(binaries) as started:
        yield started


# ---- Connecting -----------------------------------------------------------------------------------------------------


def test_a_wrong_password(stack: Stack) -> None:
    url = with_parameters(stack.postgres_url, password="planted-s3cret")
    error = fails(url, SourceError, "refused the login", "password authentication failed")
    assert "planted-s3cret" not in everything_said(error, url)
    assert "PGPASSWORD" in (error.hint or "")


def test_no_password(stack: Stack) -> None:
    parameters = conninfo.conninfo_to_dict(stack.postgres_url)
    del parameters["password"]
    counters = Counters()
    with pytest.raises(SourceError, match=r"refused the login.*no password supplied"):
        asyncio.run(opened(PostgresSource(conninfo.make_conninfo("", **parameters), counters, PATIENT)))
    assert counters.retries == 0  # waiting would not bring one


def test_a_password_from_the_environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = conninfo.conninfo_to_dict(stack.postgres_url)
    monkeypatch.setenv("PGPASSWORD", str(parameters.pop("password")))
    assert read(conninfo.make_conninfo("", **parameters), ONE) == [b"1"]


def test_a_password_from_the_password_file(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parameters = conninfo.conninfo_to_dict(stack.postgres_url)
    file = tmp_path / "pgpass"
    file.write_text(f"*:*:*:*:{parameters.pop('password')}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert read(conninfo.make_conninfo("", **parameters), ONE) == [b"1"]


def test_an_unknown_database(stack: Stack) -> None:
    fails(with_parameters(stack.postgres_url, dbname="nosuch"), SourceError, 'database "nosuch" does not exist')


def test_an_unknown_user(stack: Stack, own_server: Server) -> None:
    fails(with_parameters(stack.postgres_url, user="nosuch"), SourceError, "refused the login")
    fails(with_parameters(own_server.url, user="nosuch"), SourceError, 'role "nosuch" does not exist')


def test_a_role_that_may_not_connect(stack: Stack) -> None:
    with role(stack.postgres_url) as (name, url):
        with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
            connection.execute(sql.SQL("alter role {} nologin").format(sql.Identifier(name)))
        fails(url, SourceError, "is not permitted to log in")


def test_nobody_listens() -> None:
    error = fails(f"postgresql://u:planted-s3cret@127.0.0.1:{free_port()}/x", Unavailable, "Connection refused")
    assert "Is the server running" in (error.hint or "")


def test_a_name_that_does_not_resolve() -> None:
    fails("postgresql://u@no-such-host.invalid/x", Unavailable, "no-such-host.invalid")


def test_a_server_that_accepts_and_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # psycopg makes at least 2 seconds of it.
        fails(f"postgresql://u@127.0.0.1:{port}/x?connect_timeout=1", Unavailable, "timeout expired")


def test_a_server_that_hangs_up_at_once(stack: Stack) -> None:
    with wire_to(stack.postgres_url, [b""]) as (_, url):
        fails(url, Unavailable, "cannot be reached")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("57P03", "the database system is starting up"),
        ("57P03", "the database system is not yet accepting connections"),
        ("57P03", "the database system is shutting down"),
        ("53300", "sorry, too many clients already"),
    ],
)
def test_not_yet_is_tried_again(stack: Stack, state: str, message: str) -> None:
    with wire_to(stack.postgres_url, [refusal(state, message)] * 3) as (wire, url):
        counters = Counters()
        asyncio.run(opened(PostgresSource(url, counters, PATIENT)))
        assert (wire.connections, counters.retries, counters.snapshots) == (4, 3, 1)
    with wire_to(stack.postgres_url, [refusal(state, message)]) as (wire, url):
        fails(url, Unavailable, "cannot be reached", message)
        assert wire.connections == 1


def test_no_is_not_tried_again(stack: Stack) -> None:
    with wire_to(stack.postgres_url, [refusal("28000", "no pg_hba.conf entry")] * 3) as (wire, url):
        with pytest.raises(SourceError, match=r"no pg_hba\.conf entry"):
            asyncio.run(opened(PostgresSource(url, Counters(), PATIENT)))
        assert wire.connections == 1


def test_too_many_connections_of_a_role(stack: Stack) -> None:
    with role(stack.postgres_url) as (name, url):
        with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
            connection.execute(sql.SQL("alter role {} connection limit 0").format(sql.Identifier(name)))
        fails(url, Unavailable, "too many connections for role")


# Passwords as people paste them into a URL. Each of these libpq would take apart wrongly, or refuse and quote.
PLANTED = "s3cret"
MALFORMED = [
    f"postgresql://u:p@{PLANTED}@127.0.0.1/db",
    f"postgresql://u:{PLANTED}/x@127.0.0.1/db",
    f"postgresql://u:12/{PLANTED}@127.0.0.1/db",
    f"postgresql://u:{PLANTED}%@127.0.0.1/db",
    f"postgresql://u:{PLANTED}%zz@127.0.0.1/db",
    f"postgresql://u:{PLANTED}@[::1/db",
    f"postgresql://u:{PLANTED}@127.0.0.1:port/db",
    f"host=a,b port=1,2,3 password={PLANTED}",
    f"postgresql://u:12?/{PLANTED}@127.0.0.1/db",
    f"postgresql://u:{PLANTED}@127.0.0.1/db?nosuch=1",
    f"postgresql://u:{PLANTED}@127.0.0.1/db?sslmode",
    f"postgres:/u:{PLANTED}@127.0.0.1/db",
    f"mysql://u:{PLANTED}@127.0.0.1/db",
    f"host=127.0.0.1 password={PLANTED} x",
    f"host=127.0.0.1 password='{PLANTED}",
    f"host=127.0.0.1 nosuch={PLANTED}",
    f"postgresql://u:{PLANTED}\0@127.0.0.1/db",
    f"postgresql://u:{PLANTED}\udce9@127.0.0.1/db",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_a_malformed_url_does_not_show_its_password(url: str) -> None:
    with pytest.raises(UsageError, match="the source's URL") as caught:
        PostgresSource(url, Counters())
    assert caught.value.hint
    assert PLANTED not in everything_said(caught.value, repr(url)[1:-1])


@pytest.mark.parametrize(
    "parameters",
    [
        "port=70000",
        "sslmode=bogus",
        "connect_timeout=soon",
        "service=nosuch",
        "keepalives_idle=soon",
        "sslmode=require",
        "options=-cnosuch%3D1",
        "sslmode=verify-full&sslrootcert=/nosuch",
    ],
)
def test_a_wrong_parameter_does_not_show_the_password(stack: Stack, parameters: str) -> None:
    separator = "&" if "?" in stack.postgres_url else "?"
    url = f"{stack.postgres_url}{separator}{parameters}"
    password = str(conninfo.conninfo_to_dict(stack.postgres_url)["password"])
    counters = Counters()
    wanted = PostgresSource(url, counters, PATIENT)
    assert password not in f"{wanted!r} {wanted.description}"
    with pytest.raises((ConfigError, SourceError)) as caught:
        asyncio.run(opened(wanted))
    assert caught.value.hint
    assert counters.retries == 0
    assert password not in everything_said(caught.value, "\0")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:planted-s3cret@127.0.0.1:1/x",
        "host=no-such-host.invalid user=u password=planted-s3cret dbname=x",
    ],
)
def test_a_password_does_not_show_where_nobody_answers(url: str) -> None:
    error = fails(url, Unavailable)
    assert "planted-s3cret" not in everything_said(error, url)


def test_a_password_with_odd_characters_encoded(stack: Stack) -> None:
    with role(stack.postgres_url) as (name, url):
        odd = "p@ss/w:o?r#d %s'\\é"
        with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
            connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(name), sql.Literal(odd)))
        parts = conninfo.conninfo_to_dict(url)
        encoded = "".join(f"%{byte:02X}" for byte in odd.encode())
        assert read(f"postgresql://{name}:{encoded}@{parts['host']}:{parts['port']}/{parts['dbname']}", ONE) == [b"1"]
        assert read(with_parameters(url, password=odd), ONE) == [b"1"]


def test_an_empty_url_takes_all_from_the_environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = conninfo.conninfo_to_dict(stack.postgres_url)
    for keyword, variable in (
        ("host", "PGHOST"),
        ("port", "PGPORT"),
        ("user", "PGUSER"),
        ("password", "PGPASSWORD"),
        ("dbname", "PGDATABASE"),
    ):
        monkeypatch.setenv(variable, str(parts[keyword]))
    assert read("", ONE) == [b"1"]
    assert source("").description == f"{parts['host']}:{parts['port']}/{parts['dbname']}"


@pytest.mark.parametrize("how", ["url", "environment"])
def test_a_service_file(stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str) -> None:
    parts = conninfo.conninfo_to_dict(stack.postgres_url)
    file = tmp_path / "services"
    kept = "\n".join(f"{name}={parts[name]}" for name in ("host", "port", "user", "password", "dbname"))
    file.write_text(f"[shop]\n{kept}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    if how == "environment":
        monkeypatch.setenv("PGSERVICE", "shop")
    url = "service=shop" if how == "url" else ""
    assert read(url, ONE) == [b"1"]
    assert source(url).description == "service shop"


def test_the_environment_says_how_long_connecting_may_take(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "soon")
    fails(stack.postgres_url, ConfigError, "'soon'")
    assert read(with_parameters(stack.postgres_url, connect_timeout=10), ONE) == [b"1"]  # the URL goes first


def test_the_application_has_a_name_unless_the_user_gives_one(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = query("select current_setting('application_name') as a")
    assert read(stack.postgres_url, shown) == [b"momento-etl"]
    assert read(with_parameters(stack.postgres_url, application_name="mine"), shown) == [b"mine"]
    monkeypatch.setenv("PGAPPNAME", "theirs")
    assert read(stack.postgres_url, shown) == [b"theirs"]


def test_an_ipv6_host(own_server: Server) -> None:
    if not socket.has_ipv6 or not ipv6_works():
        pytest.skip("this machine has no IPv6 loopback")
    url = f"postgresql://postgres@[::1]:{own_server.port}/postgres"
    assert read(url, ONE) == [b"1"]
    assert source(url).description == f"[::1]:{own_server.port}/postgres"


def ipv6_works() -> bool:
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


@pytest.mark.parametrize("form", ["query", "authority", "keywords"])
def test_a_unix_socket(own_server: Server, form: str) -> None:
    folder, port = own_server.folder, own_server.port
    url = {
        "query": f"postgresql://postgres@/postgres?host={folder}&port={port}",
        "authority": f"postgresql://postgres@{str(folder).replace('/', '%2F')}:{port}/postgres",
        "keywords": f"host={folder} port={port} user=postgres dbname=postgres",
    }[form]
    assert read(url, ONE) == [b"1"]
    assert source(url).description == f"{folder}:{port}/postgres"


def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    fails(f"postgresql://u@/x?host={tmp_path}", Unavailable, "No such file or directory")


def test_several_hosts(own_server: Server) -> None:
    dead = free_port()
    url = f"postgresql://postgres@127.0.0.1:{dead},127.0.0.1:{own_server.port}/postgres"
    assert read(url, ONE) == [b"1"]
    assert source(url).description == f"127.0.0.1:{dead},127.0.0.1:{own_server.port}/postgres"
    error = fails(f"postgresql://postgres@127.0.0.1:{dead},localhost:{dead}/postgres", Unavailable)
    assert "Connection refused" in error.message


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("postgresql://u:s3cret@db.example.org:5432/shop", {}, "db.example.org:5432/shop"),
        ("postgresql://u:s3cret@db.example.org/shop", {}, "db.example.org/shop"),
        ("postgresql://db.example.org", {}, "db.example.org"),
        ("host=h port=1 dbname=d password=s3cret", {}, "h:1/d"),
        ("postgresql://a:1,b:2/d", {}, "a:1,b:2/d"),
        ("postgresql://a,b/d?port=7", {}, "a:7,b:7/d"),
        ("postgresql://a,b/d", {}, "a,b/d"),
        ("postgresql://[2001:db8::1]:5432/d", {}, "[2001:db8::1]:5432/d"),
        ("hostaddr=10.0.0.1 dbname=d", {}, "10.0.0.1/d"),
        ("host=@abstract dbname=d", {}, "@abstract/d"),
        ("postgresql:///d", {}, "the default host/d"),
        ("", {}, "the default host"),
        ("", {"PGHOST": "h", "PGPORT": "7", "PGDATABASE": "d", "PGPASSWORD": "s3cret"}, "h:7/d"),
        ("postgresql://other/mine", {"PGHOST": "h", "PGDATABASE": "d"}, "other/mine"),
        ("postgresql:///mine", {"PGHOST": "h"}, "h/mine"),
        ("", {"PGSERVICE": "shop"}, "service shop"),
        ("service=shop dbname=other", {}, "service shop/other"),
        ("postgresql://u:s3cret@h/d%40x", {}, "h/d@x"),
    ],
)
def test_descriptions(monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], expected: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert PostgresSource(url, Counters()).description == expected


# ---- Staying connected ----------------------------------------------------------------------------------------------


async def opened(wanted: PostgresSource) -> None:
    async with wanted.snapshot() as snapshot:
        await snapshot.describe(ONE)


def broken_while_reading(url: str, breaking: Callable[[], None]) -> EtlError:
    """Take a batch, have something happen, and read on until it shows."""

    async def main() -> EtlError:
        async with source(url).snapshot() as snapshot:
            await snapshot.describe(ENDLESS)
            async with closing(snapshot.read(Reading(ENDLESS, ("i", "v"), ()))) as batches:
                await anext(batches)
                breaking()
                try:
                    async for _ in batches:
                        pass
                except EtlError as error:
                    return error
        raise AssertionError("it read to the end")

    error = asyncio.run(main())
    gc.collect()
    return error


def test_a_connection_that_an_administrator_ends(stack: Stack, unique: str) -> None:
    def breaking() -> None:
        (pid,) = sessions(stack.postgres_url, unique)
        with psycopg.connect(stack.postgres_url) as connection:
            connection.execute("select pg_terminate_backend(%s)", (pid,))

    error = broken_while_reading(with_parameters(stack.postgres_url, application_name=unique), breaking)
    assert type(error) is Unavailable
    assert "broke while reading rows" in error.message


def test_a_statement_that_somebody_cancels(stack: Stack, unique: str) -> None:
    def breaking() -> None:
        (pid,) = sessions(stack.postgres_url, unique)
        with psycopg.connect(stack.postgres_url) as connection:
            connection.execute("select pg_cancel_backend(%s)", (pid,))

    error = broken_while_reading(with_parameters(stack.postgres_url, application_name=unique), breaking)
    assert type(error) is SourceError
    assert "cancelled the statement while reading rows" in error.message


def test_a_wire_that_is_cut(stack: Stack) -> None:
    with wire_to(stack.postgres_url) as (wire, url):
        error = broken_while_reading(url, wire.cut)
    assert type(error) is Unavailable
    assert "broke while reading rows" in error.message


def test_a_server_that_stops() -> None:
    binaries = debian_binaries() or wheel_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL binaries are installed")
    with server(binaries) as started:
        error = broken_while_reading(started.url, started.stop)
        assert type(error) is Unavailable
        fails(started.url, Unavailable, "Connection refused")


def test_a_connection_that_is_gone_before_the_next_question(schema: Schema) -> None:
    schema.execute("create table t (id int)")
    with wire_to(schema.url) as (wire, url):

        async def main() -> None:
            async with source(url).snapshot() as snapshot:
                await snapshot.describe(Selection("t"))
                wire.cut()
                with pytest.raises(Unavailable, match="broke while looking for duplicate keys"):
                    await snapshot.duplicates(Reading(Selection("t"), ("id",), ()), ("id",))
                with pytest.raises(Unavailable, match="broke while reading rows"):
                    await anext(snapshot.read(Reading(Selection("t"), ("id",), ())))
                with pytest.raises(Unavailable, match="broke while looking at the table"):
                    await snapshot.describe(Selection("t"))

        asyncio.run(main())


# ---- Stopping early -------------------------------------------------------------------------------------------------


async def first_batch(url: str, selection: Selection, then: Callable[[], None] | None = None) -> None:
    async with source(url).snapshot() as snapshot:
        await snapshot.describe(selection)
        async with closing(snapshot.read(Reading(selection, ("i", "v"), ()))) as batches:
            assert len(await anext(batches)) > 0
            if then is not None:
                then()


def no_session_is_left(url: str, name: str) -> None:
    gc.collect()  # what was not closed warns now
    until(lambda: sessions(url, name) == [], "the server to end the session")


@pytest.mark.parametrize("selection", [ENDLESS, STALLING], ids=["endless", "stalling"])
def test_leaving_a_reading_leaves_no_session(stack: Stack, unique: str, selection: Selection) -> None:
    url = with_parameters(stack.postgres_url, application_name=unique)
    asyncio.run(first_batch(url, selection, lambda: assert_one(sessions(stack.postgres_url, unique))))
    no_session_is_left(stack.postgres_url, unique)


def assert_one(found: list[int]) -> None:
    assert len(found) == 1


def test_an_error_of_the_readers_own_leaves_no_session(stack: Stack, unique: str) -> None:
    def then() -> None:
        raise RuntimeError("the reader's own")

    url = with_parameters(stack.postgres_url, application_name=unique)
    with pytest.raises(RuntimeError, match="the reader's own"):
        asyncio.run(first_batch(url, STALLING, then))
    no_session_is_left(stack.postgres_url, unique)


def sleeping(url: str, name: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "select 1 from pg_stat_activity where application_name = %s and wait_event = 'PgSleep'", (name,)
        ).fetchall()
    return len(rows) == 1


@pytest.mark.parametrize("reading", [True, False], ids=["read", "describe"])
def test_cancellation_leaves_no_session(stack: Stack, unique: str, reading: bool) -> None:
    url = with_parameters(stack.postgres_url, application_name=unique)
    # An immutable function of nothing is worked out when the statement is planned, which is before any row is read.
    with psycopg.connect(stack.postgres_url, autocommit=True) as connection:
        name = sql.Identifier(f"slow {unique}")
        connection.execute(
            sql.SQL("create function {}() returns text immutable language sql as 'select pg_sleep(3600)::text'").format(
                name
            )
        )
        slow = query(f'select 1 as i, "slow {unique}"() as v')

        async def main() -> None:
            async def take_all() -> None:
                async with source(url).snapshot() as snapshot:
                    selection = STALLING if reading else slow
                    await snapshot.describe(selection)
                    async for _ in snapshot.read(Reading(selection, ("i", "v"), ())):
                        pass

            task = asyncio.create_task(take_all())
            while not await asyncio.to_thread(sleeping, stack.postgres_url, unique):
                assert not task.done(), "it was to wait for ever"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        no_session_is_left(stack.postgres_url, unique)
        connection.execute(sql.SQL("drop function {}()").format(name))


def test_cancellation_while_connecting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def main() -> None:
            task = asyncio.create_task(opened(source(f"postgresql://u@127.0.0.1:{listener.getsockname()[1]}/x")))
            client, _ = await asyncio.to_thread(listener.accept)
            with client:
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                gc.collect()
                assert await asyncio.to_thread(ended, client)

        asyncio.run(main())


def ended(client: socket.socket) -> bool:
    """Wait for the other side to close."""
    client.settimeout(60)
    while client.recv(4096):
        pass
    return True


def test_an_error_beside_the_reading_leaves_no_session(stack: Stack, unique: str) -> None:
    """The first error cancels the rest, as in a run."""
    url = with_parameters(stack.postgres_url, application_name=unique)

    async def main() -> None:
        async def fail_later() -> None:
            while not await asyncio.to_thread(sleeping, stack.postgres_url, unique):
                pass
            raise RuntimeError("beside it")

        async def take_all() -> None:
            async with source(url).snapshot() as snapshot:
                await snapshot.describe(STALLING)
                batches: AsyncIterator[list[bytes]] = snapshot.read(Reading(STALLING, ("i", "v"), ()))
                async for _ in batches:
                    pass

        async with asyncio.TaskGroup() as group:
            group.create_task(take_all())
            group.create_task(fail_later())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert [str(error) for error in caught.value.exceptions] == ["beside it"]
    no_session_is_left(stack.postgres_url, unique)


def test_a_snapshot_that_was_not_used_leaves_no_session(stack: Stack, unique: str) -> None:
    url = with_parameters(stack.postgres_url, application_name=unique)

    async def main() -> None:
        async with source(url).snapshot():
            assert len(sessions(stack.postgres_url, unique)) == 1

    asyncio.run(main())
    no_session_is_left(stack.postgres_url, unique)


# ---- A pooler -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pooled(stack: Stack) -> Iterator[str]:
    """The stack's server behind PgBouncer."""
    with pooler(stack.postgres_url) as url:
        yield url


SETTINGS = (
    "select name, setting from pg_settings where name <> 'application_name'"
    " and name not like 'log%' and source <> 'override' order by name"
)


def test_behind_a_pooler_the_session_is_left_as_it_was(pooled: str, schema: Schema) -> None:
    schema.execute(
        "create table t (id int primary key, v text); insert into t select i, 'v' from generate_series(1, 3000) i"
    )
    table = f"{schema.name}.t"
    with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as other:
        pid = other.execute("select pg_backend_pid()").fetchone()
        before = other.execute(SETTINGS).fetchall()
        assert len(read(pooled, Selection(table, where="id > 1000"), order_by=["id"])) == 2000
        assert len(read(pooled, query(f"select * from {table}"), order_by=["id"])) == 3000
        with pytest.raises(UsageError):
            describe(pooled, query("selct"))
        with pytest.raises(UsageError):
            describe(pooled, Selection(table, where="nothing"))
        asyncio.run(duplicates_of(pooled, table))
        assert other.execute("select pg_backend_pid()").fetchone() == pid  # it is one session that all of them had
        assert other.execute(SETTINGS).fetchall() == before
        assert other.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)


async def duplicates_of(url: str, table: str) -> None:
    async with source(url).snapshot() as snapshot:
        selection = Selection(table)
        await snapshot.describe(selection)
        assert await snapshot.duplicates(Reading(selection, ("v",), ()), ("v",)) == [("v",)]


def test_behind_a_pooler_a_reading_that_is_left_leaves_no_statement(pooled: str, stack: Stack, unique: str) -> None:
    url = with_parameters(pooled, application_name=unique)
    asyncio.run(first_batch(url, STALLING, lambda: until(lambda: sleeping(stack.postgres_url, unique), "it to stall")))
    until(lambda: not sleeping(stack.postgres_url, unique), "the statement to be cancelled")
    assert read(url, ONE) == [b"1"]


def test_a_pooler_whose_database_does_not_answer(pooled: str) -> None:
    error = fails(with_parameters(pooled, dbname="nosuch"), EtlError)
    assert "nosuch" in error.message
