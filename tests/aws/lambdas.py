"""Lambda functions under AWS's own runtime emulator, called as Lambda's API is called.

The emulator takes one call at a time, so a function has several, and a router hands each call to a free one. Everything
is on loopback.
"""

from __future__ import annotations

import json
import os
import platform
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

__all__ = ["HANDLERS", "Emulator", "Function", "Functions", "emulator_program", "free_ports", "functions"]

HANDLERS = {
    "Plan": "plan",
    "FromDbToCache": "from_db_to_cache",
    "FromCacheToDynamoDb": "from_cache_to_dynamo_db",
    "Finish": "finish",
    "Abort": "abort",
}
"""The functions' names, and their handlers in ``etlcli.aws.handlers``."""

_PATH = "/2015-03-31/functions/function/invocations"
_START_SECONDS = 30.0


def emulator_program() -> Path | None:
    """Where the emulator is: aws-sam-cli's wheel carries it; None where that is not installed."""
    folder = os.environ.get("MOMENTO_ETL_TEST_SAM")
    kind = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine())
    if not folder or kind is None or sys.platform != "linux":
        return None
    found = sorted(Path(folder).glob(f"lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-{kind}"))
    return found[0] if found else None


@dataclass
class Emulator:
    """One emulator, and the container's process that it starts.

    Attributes:
        program: Where the emulator is.
        code: The function's folder.
        handler: Which handler of ``etlcli.aws.handlers`` it calls.
        environment: All of the container's environment.
        log: Where what it says goes.
        process: The emulator's, while it runs.
        url: Where it is called.
    """

    program: Path
    code: Path
    handler: str
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    url: str = ""

    def start(self) -> None:
        """Start it, and wait until it listens."""
        ports = free_ports(2)
        self.url = f"http://127.0.0.1:{ports[0]}{_PATH}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    str(self.program),
                    "--runtime-interface-emulator-address",
                    f"127.0.0.1:{ports[0]}",
                    "--runtime-api-address",
                    f"127.0.0.1:{ports[1]}",
                    "--log-level",
                    "error",
                    sys.executable,
                    "-m",
                    "awslambdaric",
                    f"etlcli.aws.handlers.{self.handler}",
                ],
                cwd=self.code,
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", ports[0]), timeout=1):
                return
            time.sleep(0.02)
        raise RuntimeError(f"the emulator of {self.handler} does not start: {self.log.read_text()[-2000:]}")

    def call(self, payload: bytes) -> bytes:
        """Call the function; the first call starts its container."""
        request = urllib.request.Request(self.url, data=payload, method="POST")
        with urllib.request.urlopen(request, timeout=900) as answer:
            body: bytes = answer.read()
        return body

    def stop(self) -> None:
        """End it, and its container."""
        if self.process is None:
            return
        # Its container too: both are of one session, which this test began.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def container_pids(self) -> list[int]:
        """The processes of its container."""
        assert self.process is not None
        return [pid for pid in _session(self.process.pid) if pid != self.process.pid]


@dataclass
class Function:
    """A function with so many containers.

    Attributes:
        calls: The payloads it was called with, in order.
        answers: What it answered to each.
        most_at_once: The most calls that were under way at once.
        busy: Which of its containers are at work.
        began: Whether it was called.
        fails: Answers an error in its place, for the payloads that it chooses.
        twice: Whether each call is delivered to two containers at once; the second answer is nobody's.
        echoes: Those answers.
    """

    name: str
    emulators: Sequence[Emulator]
    calls: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    most_at_once: int = 0
    busy: set[int] = field(default_factory=set)
    began: threading.Event = field(default_factory=threading.Event)
    fails: Callable[[Any], dict[str, Any] | None] = lambda _call: None
    twice: bool = False
    echoes: list[Any] = field(default_factory=list)
    _free: queue.Queue[int] = field(default_factory=queue.Queue)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        for place in range(len(self.emulators)):
            self._free.put(place)

    def invoke(self, payload: bytes) -> bytes:
        """Call it as Step Functions does."""
        call = json.loads(payload or b"null")
        with self._lock:
            self.calls.append(call)
        refused = self.fails(call)
        if refused is not None:
            return json.dumps(refused).encode()
        echo = threading.Thread(target=lambda: self.echoes.append(json.loads(self._call(payload))))
        if self.twice:
            echo.start()
        answer = self._call(payload)
        if self.twice:
            echo.join()
        with self._lock:
            self.answers.append(json.loads(answer or b"null"))
        return answer

    def _call(self, payload: bytes) -> bytes:
        """Call it, once one of its containers is free."""
        place = self._free.get()
        with self._lock:
            self.busy.add(place)
            self.most_at_once = max(self.most_at_once, len(self.busy))
        self.began.set()
        try:
            answer = self.emulators[place].call(payload)
        except OSError as error:  # the emulator itself ended
            answer = json.dumps({"errorType": "Runtime.ExitError", "errorMessage": str(error)}).encode()
            self.emulators[place].stop()
            self.emulators[place].start()
        finally:
            with self._lock:
                self.busy.discard(place)
            self._free.put(place)
        return answer

    def kill_one(self) -> bool:
        """Kill the container of a call that is under way; answer whether there was one."""
        with self._lock:
            pids = [pid for place in self.busy for pid in self.emulators[place].container_pids()]
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        """Look again and again until something is so."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                raise TimeoutError(f"{self.name}: it never came to that")
            time.sleep(0.05)

    def forget(self) -> None:
        """Forget what was noted of earlier calls, and what was planted."""
        self.calls.clear()
        self.answers.clear()
        self.echoes.clear()
        self.most_at_once = 0
        self.began.clear()
        self.fails = lambda _call: None
        self.twice = False


@dataclass
class Functions:
    """All functions, and where Lambda's API is served for them."""

    by_name: Mapping[str, Function]
    port: int

    def __getitem__(self, name: str) -> Function:
        return self.by_name[name]

    def invoke(self, name: str, event: object) -> Any:
        """Call one directly."""
        return json.loads(self.by_name[name].invoke(json.dumps(event).encode()))

    def forget(self) -> None:
        """Forget what earlier tests did."""
        for function in self.by_name.values():
            function.forget()

    def logged(self) -> list[str]:
        """Every line that the containers wrote."""
        return [
            line
            for function in self.by_name.values()
            for emulator in function.emulators
            for line in emulator.log.read_text(encoding="utf-8", errors="replace").splitlines()
        ]


@contextmanager
def functions(
    code: Path,
    environment: Mapping[str, str],
    folder: Path,
    containers: Mapping[str, int],
    timeouts: Mapping[str, int] | None = None,
) -> Iterator[Functions]:
    """Start functions.

    Args:
        code: The built function's folder.
        environment: Of every container.
        folder: For their logs.
        containers: How many containers each of them has.
        timeouts: Seconds that a call of each may take.
    """
    program = emulator_program()
    assert program is not None, "the emulator is there"
    with ExitStack() as stack:
        by_name: dict[str, Function] = {}
        for name, handler in HANDLERS.items():
            emulators = []
            for place in range(containers.get(name, 1)):
                emulator = Emulator(
                    program,
                    code,
                    handler,
                    {
                        **environment,
                        "AWS_LAMBDA_FUNCTION_NAME": name,
                        "AWS_LAMBDA_FUNCTION_TIMEOUT": str((timeouts or {}).get(name, 900)),
                        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
                    },
                    folder / f"{name}-{place}.log",
                )
                stack.callback(emulator.stop)
                emulator.start()
                emulators.append(emulator)
            by_name[name] = Function(name, emulators)
        server = stack.enter_context(_api(by_name))
        yield Functions(by_name, server.server_address[1])


class _Api(BaseHTTPRequestHandler):
    """Lambda's ``Invoke``, and nothing else of it."""

    by_name: ClassVar[Mapping[str, Function]]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        payload = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = unquote(self.path).split("/")
        if "functions" not in parts:
            self.send_error(404)
            return
        name = parts[parts.index("functions") + 1].rpartition(":")[2]
        answer = self.by_name[name].invoke(payload)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        if isinstance(json.loads(answer or b"null"), dict) and "errorType" in json.loads(answer):
            self.send_header("X-Amz-Function-Error", "Unhandled")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@contextmanager
def _api(by_name: Mapping[str, Function]) -> Iterator[ThreadingHTTPServer]:
    handler = type("Api", (_Api,), {"by_name": by_name})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _session(leader: int) -> list[int]:
    """The processes of a session (Linux)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == leader:
                    found.append(int(entry.name))
    return found
