"""The embedded stack's bookkeeping: its folder, its state, processes and ports. No server is started."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etlcli.errors import ConfigError, TerminalError, Unavailable
from etlcli.local import logs, ports, process, state
from etlcli.local.process import Command, Ended, Process
from etlcli.local.stack import Endpoints
from etlcli.local.state import PartRecord, PostgresRecord, State, Store

RECORD = PartRecord(Process(4711, "boot 1"), 54329, datetime(2026, 11, 23, 9, 0, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "local")
    made.prepare()
    return made


def _remember(kept: State) -> None:
    kept.parts["postgres"] = RECORD
    kept.postgres = PostgresRecord("/somewhere", "hush")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folder_is_chosen_by_the_variable_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv(state.FOLDER_VARIABLE, raising=False)
    assert state.state_folder() == tmp_path / ".local/state/momento-etl/local"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert state.state_folder() == tmp_path / ".local/state/momento-etl/local"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state.state_folder() == tmp_path / "xdg/momento-etl/local"
    monkeypatch.setenv(state.FOLDER_VARIABLE, str(tmp_path / "mine"))
    assert state.state_folder() == tmp_path / "mine"


def test_state_comes_back_as_it_was_written_and_is_private(store: Store) -> None:
    assert store.load() == State()
    old = os.umask(0)
    try:
        written = store.update(_remember)
    finally:
        os.umask(old)
    assert Store(store.folder).load() == written
    assert _mode(store.folder) == 0o700
    assert _mode(store.file) == 0o600
    assert [path.name for path in store.folder.iterdir()] == ["stack.json"]


def test_passwords_stay_out_of_reprs(store: Store) -> None:
    assert "hush" not in repr(store.update(_remember))
    assert "hush" not in repr(Endpoints("postgresql://u:hush@127.0.0.1:1/d", "127.0.0.1:2", "http://127.0.0.1:3"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "parts": {}, "postgres": null}', '{"version": 1}'])
def test_damaged_state_is_an_error_with_a_hint(store: Store, text: str) -> None:
    store.file.write_text(text, encoding="utf-8")
    with pytest.raises(TerminalError, match=r"stack\.json is damaged, or of another version of momento-etl") as caught:
        store.load()
    assert caught.value.hint


def test_state_is_replaced_not_rewritten(store: Store) -> None:
    store.update(_remember)
    with store.file.open(encoding="utf-8") as before:
        store.update(lambda kept: kept.parts.clear())
        assert json.load(before)["parts"]["postgres"]["pid"] == RECORD.process.pid


def test_a_folder_of_other_things_is_not_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    (folder / "letter.txt").touch()
    with pytest.raises(ConfigError, match="holds other things"):
        Store(folder).prepare()
    assert _mode(folder) == 0o755
    (folder / "letter.txt").unlink()
    Store(folder).prepare()
    assert _mode(folder) == 0o700


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"the embedded stack's folder .*/file/local cannot be written: Not a dir"
    ) as caught:
        Store(tmp_path / "file" / "local").prepare()
    assert state.FOLDER_VARIABLE in str(caught.value.hint)


def test_a_folder_of_another_user_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(ConfigError, match="/local belongs to another user") as caught:
        Store(tmp_path / "local").prepare()
    assert state.FOLDER_VARIABLE in str(caught.value.hint)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "local"
    folder.mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        Store(folder).prepare()


def test_the_lock_keeps_a_second_holder_out(store: Store) -> None:
    with store.locked():
        assert store.lock_fd is not None
        with pytest.raises(Unavailable, match="another command"), Store(store.folder).locked(timeout_seconds=0.0):
            pytest.fail("two holders")
    with Store(store.folder).locked(timeout_seconds=0.0):
        pass


def test_clearing_leaves_what_is_not_ours(store: Store) -> None:
    store.update(_remember)
    logs.begin(store.log("postgres")).close()
    logs.begin(store.log("postgres")).close()
    (store.folder / "notes.log").touch()
    store.clear(["postgres"])
    assert [path.name for path in store.folder.iterdir()] == ["notes.log"]


def test_a_log_begins_anew_and_the_old_one_is_kept(store: Store) -> None:
    log = store.log("postgres")
    for text in (b"first\n", b"second\n", b"third\nfourth\n"):
        with logs.begin(log) as file:
            file.write(text)
    assert logs.older(log).read_bytes() == b"second\n"
    assert logs.tail(log, lines=1) == "  fourth"
    assert _mode(log) == 0o600
    assert "cannot be read" in logs.tail(store.log("none"))


def test_a_process_is_known_by_its_start_not_by_its_pid_alone() -> None:
    me = process.find(os.getpid())
    assert me is not None
    assert process.is_alive(me)
    assert not process.is_alive(Process(me.pid, "another time"))
    assert process.stop(Process(me.pid, "another time")) is Ended.ABSENT
    assert Path(sys.executable).name in process.arguments(me.pid) or "pytest" in process.arguments(me.pid)


def test_a_dead_process_is_not_found_even_as_a_zombie() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "exit 0"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.read()
        # Nobody has waited for it, so its pid stays taken.
        while process.find(child.pid) is not None:
            pass
        os.kill(child.pid, 0)
    assert process.find(child.pid) is None
    assert process.arguments(child.pid) == ""


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="no ps here")
def test_ps_tells_the_same_where_there_is_no_proc() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as sleeper:
        found = process._find_with_ps(sleeper.pid)
        assert found is not None
        assert found == process._find_with_ps(sleeper.pid)
        assert "20" in found.started
        assert "sleep 60" in process._ps(sleeper.pid, "command=")
        sleeper.kill()
    assert process._find_with_ps(sleeper.pid) is None


def _spawn(store: Store, script: str, seen: list[Process]) -> Process:
    command = Command(["/bin/sh", "-c", script], {"PATH": os.defpath})
    with logs.begin(store.log("part")) as log:
        return process.spawn(command, log, seen.append)


def test_a_spawned_process_is_detached_recorded_and_stopped(store: Store) -> None:
    seen: list[Process] = []
    spawned = _spawn(store, "exec sleep 60", seen)
    try:
        assert seen == [spawned]
        assert process.is_alive(spawned)
        assert os.getsid(spawned.pid) != os.getsid(0)
    finally:
        ended = process.stop(spawned)
    assert ended is Ended.STOPPED
    assert process.stop(spawned) is Ended.ABSENT


def test_a_process_that_will_not_stop_is_killed(store: Store) -> None:
    spawned = _spawn(store, "trap '' TERM; echo deaf; while :; do sleep 1; done", [])
    while b"deaf" not in store.log("part").read_bytes():
        assert process.is_alive(spawned)
    assert process.stop(spawned, signal.SIGTERM, grace_seconds=0.1) is Ended.KILLED


def test_nothing_begins_that_was_not_recorded(store: Store, tmp_path: Path) -> None:
    held: list[Process] = []

    def refuse(started: Process) -> None:
        held.append(started)
        raise OSError("disk full")

    command = Command(["/bin/sh", "-c", f"touch {tmp_path}/begun"], {"PATH": os.defpath})
    with logs.begin(store.log("part")) as log, pytest.raises(OSError, match="disk full"):
        process.spawn(command, log, refuse)
    while process.is_alive(held[0]):
        pass
    assert not (tmp_path / "begun").exists()


def test_a_taken_port_gives_way_to_a_free_one() -> None:
    with socket.create_server((ports.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        assert not ports.is_free(port)
        assert ports.choose(port) != port
    assert ports.is_free(port)
    assert ports.choose(port) == port
