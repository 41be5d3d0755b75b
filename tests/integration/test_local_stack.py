"""The embedded stack for real: its three servers are started, asked, killed and stopped, on loopback."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
import pytest

from etlcli.errors import ConfigError, TerminalError
from etlcli.local import parts, ports, postgres, postgres_home, process, stack
from etlcli.local.stack import Endpoints, PartState, PartStatus
from etlcli.local.state import FOLDER_VARIABLE, PartRecord, State, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mypy_boto3_dynamodb import DynamoDBClient

    from etlcli.local.process import Process

ROOT = os.geteuid() == 0
CHECKOUT = Path(__file__).parents[2]
NAMES = ["postgres", "momento", "dynamodb"]
UP = "from etlcli.local import stack; e = stack.up(); print(e.postgres_url, e.momento, e.dynamodb_url, flush=True)"
DEADLINE_SECONDS = 60.0


@contextmanager
def _folder(path: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER_VARIABLE, str(path))
        try:
            yield path
        finally:
            stack.down(purge=True, grace_seconds=5)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    with _folder(tmp_path / "local") as path:
        yield path


@dataclass(frozen=True)
class Running:
    """A stack for tests that only look."""

    folder: Path
    endpoints: Endpoints


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with _folder(tmp_path_factory.mktemp("stack") / "local") as path:
        yield Running(path, stack.up())


@pytest.fixture(autouse=True)
def where_it_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the module's stack again, which the cleaning of each test's environment has made unknown."""
    request.getfixturevalue("clean_environment")
    if "running" in request.fixturenames:
        monkeypatch.setenv("MOMENTO_ETL_LOCAL_DIR", str(request.getfixturevalue("running").folder))


def _status() -> dict[str, PartStatus]:
    return {part.name: part for part in stack.status()}


def _process(part: PartStatus) -> Process:
    assert part.pid is not None
    found = process.find(part.pid)
    assert found is not None
    return found


def _owner(pid: int) -> int:
    return int(process._ps(pid, "uid="))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"


def _kill(part: PartStatus) -> None:
    victim = _process(part)
    os.kill(victim.pid, signal.SIGKILL)
    _until(lambda: not process.is_alive(victim))


def _ask(endpoints: Endpoints, query: str) -> Any:
    with psycopg.connect(endpoints.postgres_url, autocommit=True) as connection:
        cursor = connection.execute(query)
        return cursor.fetchall() if cursor.description else None


def _dynamodb(endpoints: Endpoints) -> DynamoDBClient:
    return boto3.client(
        "dynamodb",
        endpoint_url=endpoints.dynamodb_url,
        region_name="eu-west-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )


def _child(code: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), **more}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextmanager
def _stranger() -> Iterator[Process]:
    """A program that is none of the stack's business."""
    with subprocess.Popen(["/bin/sleep", "600"]) as sleeper:
        found = process.find(sleeper.pid)
        assert found is not None
        yield found
        assert sleeper.poll() is None, "the stranger was ended"
        sleeper.kill()


# --- what is there ---


def test_all_parts_run_and_answer(running: Running) -> None:
    found = _status()
    assert list(found) == NAMES
    for part in found.values():
        assert part.state is PartState.RUNNING
        assert part.problem is None
        assert part.since is not None
        assert part.log.exists()
    assert running.endpoints.momento == f"127.0.0.1:{found['momento'].port}"
    assert running.endpoints.dynamodb_url == f"http://127.0.0.1:{found['dynamodb'].port}"
    assert running.endpoints.postgres_url.endswith(f"@127.0.0.1:{found['postgres'].port}/momento_etl")


def test_up_again_changes_nothing(running: Running) -> None:
    before = stack.status()
    started: list[str] = []
    assert stack.up(on_start=started.append) == running.endpoints
    assert started == []
    assert stack.status() == before


def test_the_sample_holds_real_films(running: Running) -> None:
    assert _ask(running.endpoints, "select count(*) from movies") == [(3201,)]
    assert _ask(
        running.endpoints,
        "select title, release_date::text, imdb_rating::text, genres, ratings from movies where movie_id in (1, 5, 401)"
        " order by movie_id",
    ) == [
        ("The Land Girls", "1998-06-12", "6.1", None, {"imdb": {"rating": 6.1, "votes": 1071}}),
        (
            "Slam",
            "1998-10-09",
            "3.4",
            ["Drama", "Contemporary Fiction"],
            {"imdb": {"rating": 3.4, "votes": 165}, "rotten_tomatoes": 62},
        ),
        (
            "Gone with the Wind",
            "1939-12-15",
            "8.2",
            ["Drama", "Historical Fiction"],
            {"imdb": {"rating": 8.2, "votes": 78947}, "rotten_tomatoes": 97},
        ),
    ]
    assert _ask(
        running.endpoints,
        "select count(*) filter (where title is null), count(*) filter (where title ~ '^[0-9]+$'),"
        " count(*) filter (where genres is null), max(release_date)::text, min(release_date)::text,"
        " count(*) filter (where title = '') from movies",
    ) == [(1, 9, 260, "2011-12-23", "1915-02-08", 0)]


def test_the_sample_has_the_columns_that_are_documented(running: Running) -> None:
    columns = _ask(
        running.endpoints,
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        " where attrelid = 'public.movies'::regclass and attnum > 0 order by attnum",
    )
    assert dict(columns) == {
        "movie_id": "integer",
        "title": "text",
        "release_date": "date",
        "us_gross": "bigint",
        "worldwide_gross": "bigint",
        "us_dvd_sales": "bigint",
        "production_budget": "bigint",
        "mpaa_rating": "text",
        "running_time_min": "smallint",
        "distributor": "text",
        "source": "text",
        "major_genre": "text",
        "creative_type": "text",
        "director": "text",
        "rotten_tomatoes_rating": "smallint",
        "imdb_rating": "numeric(3,1)",
        "imdb_votes": "integer",
        "genres": "text[]",
        "ratings": "jsonb",
    }


def test_the_database_speaks_utf8_and_asks_for_the_password(running: Running) -> None:
    assert _ask(
        running.endpoints,
        "select pg_encoding_to_char(encoding), datlocprovider::text, current_user::text, current_setting('fsync')"
        " from pg_database where datname = current_database()",
    ) == [("UTF8", "b", "momento_etl", "off")]
    port = _status()["postgres"].port
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(host="127.0.0.1", port=port, user="momento_etl", dbname="momento_etl", password="guess")


def test_dynamodb_takes_a_table_and_an_item(running: Running) -> None:
    client = _dynamodb(running.endpoints)
    client.create_table(
        TableName="films",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.put_item(TableName="films", Item={"id": {"N": "1"}, "title": {"S": "Alien³"}})
    assert client.get_item(TableName="films", Key={"id": {"N": "1"}})["Item"]["title"] == {"S": "Alien³"}
    client.delete_table(TableName="films")
    client.close()


def test_what_is_secret_is_private(running: Running) -> None:
    store = Store(running.folder)
    known = store.load().postgres
    assert known is not None
    assert stat.S_IMODE(running.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.file.stat().st_mode) == 0o600
    assert stat.S_IMODE((Path(known.folder) / "data").stat().st_mode) == 0o700
    assert known.password not in repr(running.endpoints)
    for part in _status().values():
        assert part.pid is not None
        assert known.password not in process.arguments(part.pid)
        assert known.password not in part.log.read_text(encoding="utf-8")
        assert stat.S_IMODE(part.log.stat().st_mode) == 0o600


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_nothing_listens_beyond_loopback(running: Running) -> None:
    wanted = {part.port for part in _status().values()}
    listening: dict[int, set[str]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        if not Path(table).exists():
            continue
        for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, _, port = local.partition(":")
            if state == "0A":  # LISTEN
                listening.setdefault(int(port, 16), set()).add(address)
    loopback = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}"
    # gRPC opens an IPv6 socket for an IPv4 address, bound to ::ffff:127.0.0.1.
    mapped = "0" * 16 + f"{int.from_bytes(bytes([0, 0, 255, 255]), sys.byteorder):08X}" + loopback
    for each in wanted:
        assert each is not None
        assert listening[each] <= {loopback, mapped}
    known = Store(running.folder).load().postgres
    assert known is not None
    assert not list(Path(known.folder).rglob(".s.PGSQL*"))


@pytest.mark.skipif(not ROOT, reason="only root has to become somebody else")
def test_root_runs_postgresql_as_somebody_else(running: Running) -> None:
    known = Store(running.folder).load().postgres
    assert known is not None
    home = Path(known.folder)
    assert (home.stat().st_uid, stat.S_IMODE(home.stat().st_mode)) == (0, 0o710)
    owner = (home / "data").stat().st_uid
    assert owner != 0
    pid = _status()["postgres"].pid
    assert pid is not None
    assert _owner(pid) == owner
    # Its programs are a copy that it cannot change: root's Python may be out of its reach.
    program = Path(process.arguments(pid).split()[0])
    assert program.is_relative_to(home)
    assert program.stat().st_uid == 0


# --- coming back ---


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_part_comes_back_alone(folder: Path, name: str) -> None:
    before = stack.up()
    _ask(before, "create table mine as select 42 as answer")
    _ask(before, "delete from movies where movie_id > 10")
    old = _status()
    _kill(old[name])
    assert _status()[name].state is PartState.STOPPED
    started: list[str] = []
    after = stack.up(on_start=started.append)
    assert started == [name]
    assert after == before
    new = _status()
    assert {part.name for part in new.values() if part.pid != old[part.name].pid} == {name}
    assert _ask(after, "select answer, (select count(*) from movies) from mine") == [(42, 10)]
    assert folder.is_dir()


def test_down_then_up_keeps_what_is_in_the_database(folder: Path) -> None:
    before = stack.up()
    _ask(before, "drop table movies")
    old = _status()
    stopped = stack.down()
    assert [(part.name, part.pid) for part in stopped] == [(name, old[name].pid) for name in NAMES]
    assert {part.how for part in stopped} == {process.Ended.STOPPED}
    assert {part.state for part in stack.status()} == {PartState.STOPPED}
    assert stack.down() == []
    after = stack.up()
    assert _ask(after, "select to_regclass('movies')") == [(None,)]
    assert folder.is_dir()


def test_purge_removes_everything_of_ours(folder: Path) -> None:
    stack.up()
    (folder / "letter.txt").touch()
    known = Store(folder).load().postgres
    assert known is not None
    assert len(stack.down(purge=True)) == len(NAMES)
    assert sorted(path.name for path in folder.iterdir()) == ["letter.txt", "lock"]
    assert not Path(known.folder).exists()
    assert stack.down(purge=True) == []


def test_down_and_status_are_harmless_where_nothing_ever_ran(folder: Path) -> None:
    assert stack.down() == []
    assert {part.state for part in stack.status()} == {PartState.STOPPED}
    assert not folder.exists()


def test_a_lost_state_file_loses_no_data(folder: Path) -> None:
    before = stack.up()
    _ask(before, "create table mine as select 42 as answer")
    left = [_process(part) for part in _status().values() if part.name != "postgres"]
    Store(folder).file.unlink()
    try:
        after = stack.up()
        assert after.postgres_url != before.postgres_url
        assert _ask(after, "select answer from mine") == [(42,)]
        stack.down()
    finally:
        for orphan in left:
            process.stop(orphan)


def test_a_half_made_data_folder_is_made_anew(folder: Path) -> None:
    store = Store(folder)
    store.prepare()
    home = postgres_home.settle(folder, None)
    home.data.mkdir(mode=0o700)
    (home.data / "PG_VERSION").write_text("18\n", encoding="ascii")
    (home.data / "base").mkdir()
    if home.account:
        shutil.chown(home.data, home.account.uid)
    assert _ask(stack.up(), "select count(*) from movies") == [(3201,)]


@pytest.mark.parametrize("moment", ["initdb", "started"])
def test_a_command_killed_midway_is_made_good_by_the_next(folder: Path, moment: str) -> None:
    store = Store(folder)

    def reached() -> bool:
        if moment == "started":
            return "postgres" in store.load().parts
        known = store.load().postgres
        return known is not None and (Path(known.folder) / "data" / "global").exists()

    with _child(UP) as child:
        _until(lambda: reached() or child.poll() is not None)
        child.kill()
    assert _ask(stack.up(), "select count(*) from movies") == [(3201,)]


def test_the_stack_outlives_the_command_that_started_it(folder: Path) -> None:
    with _child(UP + "\nimport signal; signal.pause()") as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        os.kill(child.pid, signal.SIGTERM)
    assert child.returncode == -signal.SIGTERM
    assert {part.state for part in stack.status()} == {PartState.RUNNING}
    assert " ".join(_addresses(stack.up())) == line.strip()
    assert folder.is_dir()


def _addresses(endpoints: Endpoints) -> tuple[str, str, str]:
    return endpoints.postgres_url, endpoints.momento, endpoints.dynamodb_url


def test_two_ups_at_once_make_one_stack(folder: Path) -> None:
    children = [_child(UP) for _ in range(3)]
    answers = [child.communicate(timeout=DEADLINE_SECONDS) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0], answers
    assert {out for out, _ in answers} == {" ".join(_addresses(stack.up())) + "\n"}
    assert folder.is_dir()


# --- other programs ---


def test_a_pid_that_is_somebody_elses_now_is_left_alone(folder: Path) -> None:
    store = Store(folder)
    store.prepare()
    with _stranger() as stranger:

        def confuse(state: State) -> None:
            for name in NAMES:
                stale = process.Process(stranger.pid, "another boot")
                state.parts[name] = PartRecord(stale, 1, datetime.now(UTC))

        store.update(confuse)
        assert {part.state for part in stack.status()} == {PartState.STOPPED}
        assert stack.down() == []
        store.update(confuse)
        started: list[str] = []
        stack.up(on_start=started.append)
        assert sorted(started) == sorted(NAMES)
        assert process.is_alive(stranger)


def test_postgresqls_own_pid_file_may_name_a_stranger(folder: Path) -> None:
    before = stack.up()
    _kill(_status()["postgres"])
    known = Store(folder).load().postgres
    assert known is not None
    file = Path(known.folder) / "data" / "postmaster.pid"
    with _stranger() as stranger:
        text = file.read_text(encoding="ascii").splitlines()
        file.write_text("\n".join([str(stranger.pid), *text[1:]]) + "\n", encoding="ascii")
        assert stack.up() == before
        assert process.is_alive(stranger)


def test_a_taken_port_gives_way(folder: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
        socket.create_server(("127.0.0.1", 0)) as third,
    ):
        taken = [server.getsockname()[1] for server in (first, second, third)]

        def crowded(store: Store) -> Sequence[parts.Part]:
            database, momento, dynamodb = stack.parts_of(store)
            assert isinstance(database, postgres.Postgres)
            assert isinstance(momento, parts.ModulePart)
            assert isinstance(dynamodb, parts.ModulePart)
            database.preferred_port = taken[0]
            return [
                database,
                replace(momento, preferred_port=taken[1]),
                replace(dynamodb, preferred_port=taken[2]),
            ]

        stack.up(make_parts=crowded)
    found = _status()
    assert {part.state for part in found.values()} == {PartState.RUNNING}
    assert not {part.port for part in found.values()} & set(taken)
    assert folder.is_dir()


def test_a_port_lost_between_choice_and_start_is_chosen_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose, asked = ports.choose, []

    def unlucky(*preferred: int) -> int:
        asked.append(preferred)
        return lost if len(asked) <= len(NAMES) else choose(*preferred)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        lost = taken.getsockname()[1]
        monkeypatch.setattr(ports, "choose", unlucky)
        stack.up()
    assert len(asked) == 2 * len(NAMES)
    assert {part.state for part in stack.status()} == {PartState.RUNNING}
    assert folder.is_dir()


# --- what cannot be ---


def test_a_part_that_does_not_start_is_named_with_its_log(folder: Path) -> None:
    def broken(store: Store) -> Sequence[parts.Part]:
        database, momento, dynamodb = stack.parts_of(store)
        assert isinstance(momento, parts.ModulePart)
        return [database, replace(momento, module="etlcli.local.no_such_module"), dynamodb]

    with pytest.raises(TerminalError, match="momento does not start") as caught:
        stack.up(make_parts=broken)
    assert str(folder / "momento.log") in caught.value.message
    assert "No module named" in caught.value.message
    assert "--purge" in str(caught.value.hint)
    found = _status()
    assert found["momento"].state is PartState.STOPPED
    assert found["postgres"].state is found["dynamodb"].state is PartState.RUNNING
    stack.up()
    assert _status()["momento"].state is PartState.RUNNING


def test_a_part_that_hangs_is_not_answering(folder: Path) -> None:
    stack.up()
    old = _process(_status()["momento"])
    os.kill(old.pid, signal.SIGSTOP)
    found = _status()["momento"]
    assert found.state is PartState.NOT_ANSWERING
    assert found.problem
    os.kill(old.pid, signal.SIGCONT)
    assert _status()["momento"].state is PartState.RUNNING
    assert folder.is_dir()


def test_without_the_extra_the_hint_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in {"moto", "grpc"} else name)
    with pytest.raises(ConfigError, match="missing: grpc, moto") as caught:
        stack.up()
    assert caught.value.hint == "pip install 'momento-etl[local]'"
    assert not folder.exists()


# --- another user ---


@pytest.mark.skipif(not ROOT, reason="only root can become somebody else")
def test_an_ordinary_user_with_an_empty_home() -> None:
    nobody = pwd.getpwnam("nobody")
    home = Path(tempfile.mkdtemp(prefix="momento-etl-test-"))
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    # This Python can be out of others' reach (under /root), where the system's own, of the same version, is not.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    environment = {
        "HOME": str(home),
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    def run(python: str, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-c", code],
            env=environment,
            cwd="/",
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=2 * DEADLINE_SECONDS,
            check=False,
        )

    def works(python: str) -> bool:
        with suppress(PermissionError, FileNotFoundError):
            return not run(python, "import etlcli, psycopg, moto, grpc").returncode
        return False

    try:
        name = f"python{sys.version_info.major}.{sys.version_info.minor}"
        python = next(filter(works, [sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"]), None)
        if python is None:
            pytest.skip("no Python with these packages is in an ordinary user's reach")
        try:
            done = run(python, UP)
            assert done.returncode == 0, done.stderr
            with psycopg.connect(done.stdout.split()[0]) as connection:
                row = connection.execute("select count(*) from movies").fetchone()
            assert row == (3201,)
            file = home / ".local/state/momento-etl/local/stack.json"
            kept = json.loads(file.read_text(encoding="utf-8"))
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert kept["postgres"]["folder"] == str(file.parent / "postgres")
            assert {_owner(part["pid"]) for part in kept["parts"].values()} == {nobody.pw_uid}
        finally:
            done = run(python, "from etlcli.local import stack; print(len(stack.down(purge=True)))")
        assert done.stdout == "3\n", done.stderr
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(not ROOT, reason="only root uses folders beside other users'")
def test_a_folder_that_another_user_made_beforehand_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(postgres_home, "_SHARED_PARENTS", (first, second))
    for parent in (first, second):
        parent.mkdir()
    wanted = postgres_home.settle(tmp_path / "local", None).folder
    assert wanted.parent == first
    wanted.rmdir()
    wanted.symlink_to(tmp_path)
    assert postgres_home.settle(tmp_path / "local", None).folder.parent == second
    wanted.unlink()
    wanted.mkdir()
    os.chown(wanted, pwd.getpwnam("nobody").pw_uid, 0)
    assert postgres_home.settle(tmp_path / "local", None).folder.parent == second
    assert postgres_home.find(tmp_path / "local", str(wanted)) == second / wanted.name
