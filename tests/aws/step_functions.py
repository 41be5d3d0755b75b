"""The state machine's own file, executed by moto's interpreter of the Amazon States Language."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3

from tests.aws.lambdas import HANDLERS, free_ports

__all__ = ["STATE_MACHINE", "Execution", "StepFunctions", "rendered", "step_functions"]

STATE_MACHINE = Path(__file__).parents[2] / "etlcli" / "aws" / "state_machine.asl.json"
_ROLE = "arn:aws:iam::123456789012:role/etl"


class Execution(NamedTuple):
    """How an execution ended."""

    status: str
    output: Any
    error: str | None
    cause: str | None


def rendered(text: str | None = None) -> str:
    """The state machine's file with the functions' names in place of its substitutions."""
    text = STATE_MACHINE.read_text(encoding="utf-8") if text is None else text
    for name in HANDLERS:
        text = text.replace(f"${{{name}Arn}}", f"arn:aws:lambda:us-east-1:123456789012:function:{name}")
    return text


class StepFunctions:
    """Executes state machines."""

    def __init__(self, url: str) -> None:
        self._client: Any = boto3.client(
            "stepfunctions",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )

    def start(self, event: object, definition: str) -> str:
        """Start an execution; answer its name."""
        machine = self._client.create_state_machine(
            name=f"etl-{uuid.uuid4().hex[:8]}", definition=definition, roleArn=_ROLE
        )["stateMachineArn"]
        arn: str = self._client.start_execution(stateMachineArn=machine, input=json.dumps(event))["executionArn"]
        return arn

    def wait(self, arn: str, seconds: float = 300) -> Execution:
        """Wait for its end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = self._client.describe_execution(executionArn=arn)
            if found["status"] != "RUNNING":
                output = json.loads(found["output"]) if found.get("output") else None
                return Execution(found["status"], output, found.get("error"), found.get("cause"))
            time.sleep(0.1)
        raise TimeoutError(f"{arn} does not end")

    def run(self, event: object, definition: str | None = None) -> Execution:
        """Execute one to its end."""
        return self.wait(self.start_with(event, definition))

    def start_with(self, event: object, definition: str | None = None) -> str:
        """Start an execution of the state machine's file, or of another definition."""
        return self.start(event, rendered(definition))

    def history(self, arn: str) -> list[dict[str, Any]]:
        """What happened in it."""
        return list(self._client.get_execution_history(executionArn=arn)["events"])


@contextmanager
def step_functions(lambda_port: int, folder: Path) -> Iterator[StepFunctions]:
    """Start moto's server, whose interpreter calls functions at a port of this machine."""
    (port,) = free_ports(1)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MOTO_"))},
        "MOTO_PORT": str(lambda_port),  # where it believes that Lambda's API is
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    code = (
        "import sys; from moto.core.config import default_user_config as it;"
        "it['stepfunctions']['execute_state_machine'] = True;"
        "from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
    )
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", code, str(port)], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait_for(port, server)
        yield StepFunctions(f"http://127.0.0.1:{port}")
    finally:
        server.kill()
        server.wait()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    import socket

    until = time.monotonic() + 60
    while time.monotonic() < until and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("moto does not start")
