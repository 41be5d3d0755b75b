"""The servers that all ways are measured against, and how a process finds them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["ROOT", "STATE_TABLE", "Server", "Servers", "embedded", "serving"]

ROOT = Path(__file__).parents[2]
"""Where ``tests`` is imported from."""

STATE_TABLE = "bench-state"
"""The state table of what is measured."""


class Server:
    """A server in a process of its own, which tells its counts; it ends with the context.

    Args:
        module: What is run.
        arguments: Its arguments.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()  # the end of its stdin

    def counts(self) -> dict[str, int]:
        """What it has counted since its start."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        counts: dict[str, int] = json.loads(self._line())
        return counts

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"{self._process.args!r} ended")
        return line


@dataclass(frozen=True)
class Servers:
    """Where everything is.

    Attributes:
        postgres_url: The source.
        momento: The Momento-compatible server.
        dynamodb: The endpoint that takes writes.
    """

    postgres_url: str
    momento: Server
    dynamodb: Server

    def environment(self) -> dict[str, str]:
        """The environment in which a measured process finds them, and nothing of the user's own."""
        foreign = ("PG", "AWS_", "MOMENTO_", "DATABASE_URL")
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(foreign)},
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": self.postgres_url,
            "MOMENTO_LOCAL": self.momento.address,
            "MOMENTO_ETL_STATE_TABLE": STATE_TABLE,
            "AWS_ENDPOINT_URL_DYNAMODB": self.dynamodb.address,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def serving(postgres_url: str, upstream: str, *, latency_ms: float = 5.0, limits: str = "none") -> Iterator[Servers]:
    """Start a Momento server and an endpoint of its own beside a PostgreSQL that is there.

    Args:
        postgres_url: The PostgreSQL.
        upstream: A whole DynamoDB, which answers what is not a write.
        latency_ms: How long the endpoint takes for a write.
        limits: What the Momento server allows: ``none`` or ``on-demand``.
    """
    with ExitStack() as stack:
        momento = stack.enter_context(Server("tests.bench.cache_server", "--limits", limits))
        dynamodb = stack.enter_context(
            Server("tests.bench.endpoint", upstream, "--state", STATE_TABLE, "--latency-ms", str(latency_ms))
        )
        yield Servers(postgres_url, momento, dynamodb)


@contextmanager
def embedded() -> Iterator[tuple[str, str]]:
    """Start an embedded stack in a folder of its own: the URLs of its PostgreSQL and its DynamoDB."""
    from etlcli.local import stack

    with tempfile.TemporaryDirectory() as folder:
        before = os.environ.get("MOMENTO_ETL_LOCAL_DIR")
        os.environ["MOMENTO_ETL_LOCAL_DIR"] = str(Path(folder) / "local")
        try:
            endpoints = stack.up()
            try:
                yield endpoints.postgres_url, endpoints.dynamodb_url
            finally:
                stack.down(purge=True)
        finally:
            del os.environ["MOMENTO_ETL_LOCAL_DIR"]
            if before is not None:
                os.environ["MOMENTO_ETL_LOCAL_DIR"] = before
