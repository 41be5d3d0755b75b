"""``local momento``: the server alone, as a person or a script starts it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from momento import CacheClient, Configurations, CredentialProvider
from momento.errors import MomentoErrorCode
from momento.responses import CacheGet, CacheSet, CreateCache

from tests.integration.command_line import PROGRAM

BOUND = 60  # seconds after which a test is given up
HOUR = timedelta(hours=1)
KEY = "PLANTED-momento-key"
LINE = re.compile(r"Momento server on (127\.0\.0\.1):(\d+), limits: (.*)\n")


class Running:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.line = process.stdout.readline()
        found = LINE.fullmatch(self.line)
        assert found, (self.line, process.stderr.read() if process.stderr and not self.line else "")
        self.port, self.limits = int(found[2]), found[3]

    def client(self, key: str = "") -> CacheClient:
        credentials = replace(CredentialProvider.for_momento_local("127.0.0.1", self.port), auth_token=key)
        return CacheClient(Configurations.Laptop.v1(), credentials, HOUR)

    def end(self, number: signal.Signals) -> tuple[int, str, str]:
        """Signals it; gives its exit code and what it said besides its first line."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=BOUND)
        return self.process.returncode, out, err


@contextmanager
def started(folder: Path, *arguments: str, **variables: str) -> Iterator[Running]:
    with subprocess.Popen(
        [*PROGRAM, "local", "momento", "--port", "0", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command that is not to stay."""
    return subprocess.run(
        [*PROGRAM, "local", "momento", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_serves_until_a_signal_and_ends_quietly(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with started(tmp_path) as server:
        assert server.limits == "none"
        with server.client() as client:
            assert isinstance(client.create_cache("cache"), CreateCache.Success)
            assert isinstance(client.set("cache", "key", "value"), CacheSet.Success)
            got = client.get("cache", "key")
            assert isinstance(got, CacheGet.Hit)
            assert server.end(number) == (code, "", "")
    assert list(tmp_path.iterdir()) == []


def test_documented_and_own_limits(tmp_path: Path) -> None:
    settings = ("--limits", "on-demand", "--limit", "caches=2", "--limit", "item-bytes=1KB")
    with started(tmp_path, *settings) as server, server.client() as client:
        assert server.limits == "on-demand, caches=2, item-bytes=1KB"
        assert isinstance(client.create_cache("one"), CreateCache.Success)
        assert isinstance(client.create_cache("two"), CreateCache.Success)
        third = client.create_cache("three")
        assert isinstance(third, CreateCache.Error)
        assert third.error_code is MomentoErrorCode.LIMIT_EXCEEDED_ERROR
        assert isinstance(client.set("one", "key", b"x" * 1000), CacheSet.Success)
        large = client.set("one", "key", b"x" * 1001)
        assert isinstance(large, CacheSet.Error)
        assert "Item size limit exceeded: 1,001 bytes" in large.inner_exception.message


def test_a_key_is_asked_for_and_never_shown(tmp_path: Path) -> None:
    with started(tmp_path, "--api-key", "env:LOCAL_KEY", "--api-key", "second", LOCAL_KEY=KEY) as server:
        with ExitStack() as clients:
            wrong, right, second = (clients.enter_context(server.client(key)) for key in ("", KEY, "second"))
            refused = wrong.create_cache("cache")
            assert isinstance(refused, CreateCache.Error)
            assert refused.error_code is MomentoErrorCode.AUTHENTICATION_ERROR
            assert isinstance(right.create_cache("cache"), CreateCache.Success)
            assert isinstance(second.create_cache("cache"), CreateCache.CacheAlreadyExists)
        code, out, err = server.end(signal.SIGINT)
    assert code == 130
    assert KEY not in server.line + out + err


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        refused = run(tmp_path, "--port", str(port))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        f"error: the Momento server cannot listen on 127.0.0.1:{port}: address already in use\n"
        "hint: Choose another port, or stop what listens there.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--port", "65536"], 2, "--port 65536 is no port"),
        (["--port", "-1"], 2, "--port -1 is no port"),
        (["--port", "web"], 2, "--port"),
        (["--latency-ms", "-1"], 2, "--latency-ms -1 is in the past"),
        (["--limits", "generous"], 2, "there are no limits 'generous'"),
        (["--limit", "item-byte=1KB"], 2, "Did you mean item-bytes?"),
        (["--api-key", "env:NO_SUCH_KEY_HERE"], 2, "NO_SUCH_KEY_HERE, which is not set"),
        (["--host", "192.0.2.1", "--port", "0"], 1, "192.0.2.1:0: cannot assign requested address"),
    ],
)
def test_what_it_refuses(tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    refused = run(tmp_path, *arguments)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert said in refused.stderr
    error, hint = refused.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")


def test_help_has_examples(tmp_path: Path) -> None:
    shown = run(tmp_path, "--help")
    assert shown.returncode == 0
    assert "momento-etl local momento --port 0 --limits on-demand" in shown.stdout
