"""The wire to PostgreSQL is cut, reset, half-closed, or damages what passes: never a row too few, or another one."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg import conninfo

from etlcli.errors import EtlError, SourceError, Unavailable
from etlcli.model import Selection
from etlcli.ports import Reading, Snapshot
from etlcli.source.deadlines import DEFAULT_DEADLINES, Deadlines
from tests.conftest import Schema, Stack
from tests.integration.fault_proxy import Direction, Fault, FaultProxy, Kind, fault_proxy, with_host_port
from tests.integration.source_helpers import (
    bounded,
    debian_binaries,
    server,
    sessions,
    source,
    unprivileged,
    until,
    with_parameters,
)

STAGES = ("login", "describe", "read")
# Only what is damaged so that it seems to be longer than it is has to be waited for: the rest never comes.
QUICK = replace(DEFAULT_DEADLINES, connect=2, statement=0.5, read=0.5, parting=0.5)
ROWS = 2000


@dataclass
class Scene:
    """A table behind a proxy.

    Attributes:
        proxy: Every connection goes through it.
        url: The way through it.
        lines: What an undisturbed reading gives.
        marks: How many bytes have passed by the end of each stage, in each direction.
    """

    proxy: FaultProxy
    url: str
    lines: list[bytes] = field(default_factory=list)
    marks: dict[str, dict[Direction, int]] = field(default_factory=dict)

    async def measure(self) -> None:
        """Read it undisturbed."""
        self.lines = await self._taken(DEFAULT_DEADLINES)

    async def meet(self, *faults: Fault) -> list[bytes] | EtlError:
        """Read the table on a connection that meets these faults: its lines, or how it ends."""
        self.proxy.script(*faults)
        return await self.take()

    async def take(self) -> list[bytes] | EtlError:
        try:
            return await self._taken(QUICK)
        except EtlError as error:
            return error

    async def _taken(self, deadlines: Deadlines) -> list[bytes]:
        async with source(self.url, deadlines=deadlines).snapshot() as snapshot:
            self._mark("login")
            selection = Selection("t")
            relation = await snapshot.describe(selection)
            self._mark("describe")
            names = tuple(column.name for column in relation.columns)
            lines = [line async for batch in snapshot.read(Reading(selection, names, ("id",))) for line in batch]
            self._mark("read")
        return lines

    def _mark(self, stage: str) -> None:
        # The first reading tells, for all of them are alike.
        self.marks.setdefault(stage, {"up": self.proxy.passed["up"], "down": self.proxy.passed["down"]})

    def places(self, stage: str, direction: Direction, number: int) -> list[int]:
        """Some places within a stage, spread over it: its first byte and its last among them."""
        ends = [0, *(self.marks[name][direction] for name in STAGES)]
        start, end = ends[STAGES.index(stage)], ends[STAGES.index(stage) + 1]
        return [start + (end - 1 - start) * step // (number - 1) for step in range(number)]


@pytest.fixture
def scene(stack: Stack, schema: Schema, unique: str) -> Iterator[Scene]:
    schema.execute(
        "create table t (id int primary key, v text, w numeric[]);"
        f" insert into t select i, repeat('v', i % 70), array[i, 2.5] from generate_series(1, {ROWS}) i"
    )
    with fault_proxy(schema.url) as proxy:
        url = with_parameters(with_host_port(schema.url, proxy), application_name=unique)
        made = Scene(proxy, url)
        bounded(made.measure())
        assert len(made.lines) == ROWS
        yield made
    gc.collect()  # what was not closed warns now
    until(lambda: sessions(stack.postgres_url, unique) == [], "the server to end all sessions")


@pytest.mark.parametrize(
    ("kind", "directions"), [("cut", ("down", "up")), ("reset", ("down",)), ("half_close", ("down",))]
)
@pytest.mark.parametrize("stage", STAGES)
def test_a_broken_wire_passes(scene: Scene, kind: Kind, directions: Sequence[Direction], stage: str) -> None:
    async def main() -> None:
        for direction in directions:
            for after in scene.places(stage, direction, 6):
                error = await scene.meet(Fault(kind, direction, after))
                assert type(error) is Unavailable, (direction, after, error)
                assert error.hint
        assert await scene.take() == scene.lines  # at once

    bounded(main())
    assert scene.proxy.counts[kind] == 6 * len(directions)


def test_a_server_that_does_not_hear_us_any_more(scene: Scene) -> None:
    """Who has heard the whole question can answer it; who has not takes it that we are gone."""

    async def main() -> None:
        for after in scene.places("describe", "up", 6):
            assert type(await scene.meet(Fault("half_close", "up", after))) is Unavailable
        assert await scene.meet(Fault("half_close", "up", scene.marks["read"]["up"])) == scene.lines

    bounded(main())


def test_what_came_before_a_cut_is_handed_on(scene: Scene) -> None:
    """Rows that do not fill a batch, too: whoever goes on behind them gets on, however often the wire is cut."""

    async def main() -> set[int]:
        numbers = set()
        for after in scene.places("read", "down", 5)[1:]:
            taken: list[bytes] = []
            scene.proxy.script(Fault("cut", "down", after))
            async with source(scene.url).snapshot() as snapshot:
                await snapshot.describe(Selection("t"))
                with pytest.raises(Unavailable):
                    await taking(snapshot, taken)
            assert taken == scene.lines[: len(taken)]
            numbers.add(len(taken) % 1000)
        return numbers

    async def taking(snapshot: Snapshot, taken: list[bytes]) -> None:
        async for batch in snapshot.read(Reading(Selection("t"), ("id", "v", "w"), ("id",))):
            taken += batch

    assert bounded(main()) - {0}


def test_no_row_is_lost_where_one_is_damaged(scene: Scene) -> None:
    """Without TLS nobody can tell that a value was hit on its way, but all else can be told."""
    rng = random.Random(7)

    async def main() -> int:
        hit = 0
        for _ in range(40):
            after = rng.randrange(scene.marks["describe"]["down"], scene.marks["read"]["down"])
            taken = await scene.meet(Fault("corrupt", "down", after, bit=rng.randrange(8)))
            if isinstance(taken, list):
                ours, theirs = b"\n".join(taken), b"\n".join(scene.lines)
                assert (len(taken), len(ours)) == (ROWS, len(theirs))
                assert sum(one != other for one, other in zip(ours, theirs, strict=True)) <= 1
                hit += ours != theirs
            else:
                assert type(taken) is Unavailable
        return hit

    assert bounded(main()) > 0


def test_the_last_bytes_of_a_reading(scene: Scene) -> None:
    """Its end, the count of its rows, and that the server is ready: a reading that ends without them has not ended."""
    end = scene.marks["read"]["down"]

    async def main() -> None:
        for after in range(end - 29, end, 2):
            error = await scene.meet(Fault("cut", "down", after))
            assert type(error) is Unavailable, after
        # COPY 2000: with any bit of it flipped, it is not the number of rows that came.
        for place in range(4):
            for bit in (0, 1, 6):
                error = await scene.meet(Fault("corrupt", "down", end - 11 + place, bit))
                assert type(error) is SourceError, place
                assert "lost on their way: 2000 rows arrived" in error.message
                assert "--restart" in str(error.hint)

    bounded(main())


def test_a_damaged_answer_has_its_message(scene: Scene) -> None:
    """Whatever the catalog's answer becomes, it is an error of ours or makes no difference to the rows."""
    rng = random.Random(8)

    async def main() -> set[str]:
        said = set()
        for stage, number in (("login", 30), ("describe", 60)):
            low, high = scene.places(stage, "down", 2)
            for _ in range(number):
                scene.proxy.script(Fault("corrupt", "down", rng.randrange(low, high), bit=rng.randrange(8)))
            for taken in await asyncio.gather(*(scene.take() for _ in range(number))):
                if isinstance(taken, EtlError):
                    assert taken.hint
                    said.add(taken.message)
                else:
                    assert taken == scene.lines
        return said

    assert any("cannot be read" in message for message in bounded(main()))


# ---- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encrypted() -> Iterator[str]:
    """A server that speaks TLS, with a table."""
    binaries = debian_binaries()
    if binaries is None:
        pytest.skip("Debian's PostgreSQL is not installed, and the embedded one has no TLS")
    with server(binaries) as started:
        for path in certificate(started.folder):
            path.chmod(0o600)
            if user := unprivileged():
                shutil.chown(path, user)
        with psycopg.connect(started.url, autocommit=True) as connection:
            connection.execute(f"alter system set ssl_cert_file = '{started.folder}/cert.pem'")
            connection.execute(f"alter system set ssl_key_file = '{started.folder}/key.pem'")
            connection.execute("alter system set ssl = on")
            connection.execute("select pg_reload_conf()")
            connection.execute("create table t (id int primary key, v text)")
            connection.execute(f"insert into t select i, repeat('v', i % 70) from generate_series(1, {ROWS}) i")
        until(lambda: speaks_tls(started.url), "the server to speak TLS")
        yield started.url


def certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def speaks_tls(url: str) -> bool:
    try:
        psycopg.connect(url, sslmode="require").close()
    except psycopg.OperationalError:
        return False
    return True


def test_under_tls_nothing_arrives_damaged(encrypted: str) -> None:
    rng = random.Random(9)
    with fault_proxy(encrypted) as proxy:
        made = Scene(proxy, with_parameters(with_host_port(encrypted, proxy), sslmode="require"))

        async def main() -> None:
            await made.measure()
            assert len(made.lines) == ROWS
            end = made.marks["read"]["down"]
            for _ in range(40):
                taken = await made.meet(Fault("corrupt", "down", rng.randrange(end), bit=rng.randrange(8)))
                assert isinstance(taken, EtlError) or taken == made.lines
            for stage in ("describe", "read"):
                # Not its last byte: signatures differ in length, and so do handshakes.
                for after in made.places(stage, "down", 6)[:-1]:
                    assert type(await made.meet(Fault("corrupt", "down", after))) is Unavailable
                    assert type(await made.meet(Fault("cut", "down", after))) is Unavailable

        bounded(main())


def test_a_tls_handshake_that_stalls(encrypted: str) -> None:
    with fault_proxy(encrypted) as proxy:
        url = with_parameters(with_host_port(encrypted, proxy), sslmode="require")
        assert conninfo.conninfo_to_dict(url)["port"] == str(proxy.port)

        async def attempt() -> None:
            with pytest.raises(Unavailable, match="connection timeout expired"):
                async with source(url, deadlines=QUICK).snapshot():
                    pass

        async def main() -> None:
            for after in (0, 1, 200):
                proxy.script(Fault("stall", "down", after))
            await asyncio.gather(*(attempt() for _ in range(3)))

        bounded(main())
