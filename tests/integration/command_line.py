"""The command line as its users have it: a process, with or without a terminal, asked and watched from outside."""

from __future__ import annotations

import codecs
import fcntl
import itertools
import json
import os
import pty
import re
import secrets
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tests.conftest import Stack
from tests.published import refuse_misfit

if TYPE_CHECKING:
    from tests.integration.mortal import Mortal, Mortals

__all__ = ["PLANTED", "SUMMARY_FIELDS", "CommandLine", "Result", "Terminal"]

PROGRAM = [sys.executable, "-W", "error", "-m", "etlcli"]
DEADLINE_SECONDS = 120.0

Process: TypeAlias = "subprocess.Popen[str] | Mortal"
_numbers = itertools.count(1)

SUMMARY_FIELDS = {
    "command",
    "status",
    "job",
    "run_id",
    "cache",
    "destination",
    "rows_extracted",
    "rows_loaded",
    "rows_rejected",
    "rows_dropped",
    "chunks",
    "bytes_cached",
    "momento_calls",
    "momento_operations",
    "throttles",
    "duration_seconds",
    "error",
}
"""What section 7 promises of every summary."""

PLANTED = ("PLANTED-aws-secret", "PLANTED-session-token")
"""Secrets that every process here is given, and that none may ever print."""


@dataclass(frozen=True)
class Result:
    """How a process ended.

    Attributes:
        arguments: What it was called with.
        code: Its exit code; negative for a signal.
        out: stdout.
        err: stderr.
    """

    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout, which has every field that was promised."""
        try:
            answer = json.loads(self.out)
        except ValueError as error:
            raise AssertionError(f"{error}, in {len(self.out)} characters that end so: {self.out[-200:]}") from None
        assert isinstance(answer, dict)
        assert answer.keys() >= SUMMARY_FIELDS, SUMMARY_FIELDS - answer.keys()
        refuse_misfit(answer)
        return answer

    def __str__(self) -> str:
        """All of it, for a failing test."""
        return f"momento-etl {' '.join(self.arguments)}\n[{self.code}]\n{self.out}\n{self.err}"


@dataclass(frozen=True)
class CommandLine:
    """An environment and a folder to run commands in.

    Attributes:
        environment: The variables, besides those of the test's own process.
        folder: Where commands run.
        secrets: What must not be in any output.
        more: Variables over those, None for what is not set.
        mortals: Forks commands, which costs a fraction of a start; None to start Python for each.
        changes: What is changed in the program of a command that is forked.
    """

    environment: Mapping[str, str]
    folder: Path
    secrets: tuple[str, ...] = PLANTED
    more: Mapping[str, str | None] = field(default_factory=dict)
    mortals: Mortals | None = None
    changes: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def on(cls, stack: Stack, postgres_url: str, folder: Path) -> CommandLine:
        """Configure all three services through the environment, and a state table that nobody else has."""
        password = re.search(r"//[^:/@]+:([^@]+)@", postgres_url)
        return cls(
            {
                "DATABASE_URL": postgres_url,
                "MOMENTO_LOCAL": stack.momento,
                "AWS_ENDPOINT_URL_DYNAMODB": stack.dynamodb_url,
                "AWS_REGION": "us-east-1",
                "MOMENTO_ETL_STATE_TABLE": f"state-{secrets.token_hex(6)}",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": PLANTED[0],
                "AWS_SESSION_TOKEN": PLANTED[1],
            },
            folder,
            (*PLANTED, password[1]) if password else PLANTED,
        )

    def given(self, **variables: str | None) -> CommandLine:
        """Set or, with None, unset variables."""
        return replace(self, more={**self.more, **variables})

    def variables(self) -> dict[str, str]:
        """The whole environment of a command."""
        merged: dict[str, str | None] = {**os.environ, **self.environment, **self.more}
        return {name: value for name, value in merged.items() if value is not None}

    def chosen(self) -> dict[str, str]:
        """The variables that the test itself set."""
        return {name: value for name, value in self.more.items() if value is not None}

    def changing(self, changes: Mapping[str, object]) -> CommandLine:
        """Change the program of commands that are forked: dotted names in its modules, and what is put there."""
        return replace(self, changes={**self.changes, **changes})

    def start(self, *arguments: str) -> Process:
        """Start a command, and leave it running."""
        if self.mortals is not None:
            streams = self.folder / f"streams-{next(_numbers)}"
            streams.mkdir()
            return self.mortals.start(
                self.variables(), self.folder, list(arguments), streams=streams, changes=self.changes
            )
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=self.folder,
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: Process, *arguments: str) -> Result:
        """Wait for a command, and look whether it kept its secrets."""
        try:
            out, err = process.communicate(timeout=DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        assert process.returncode is not None
        result = Result(arguments, process.returncode, out, err)
        for secret in self.secrets:
            assert secret not in out + err, f"{secret} in the output of {result}"
        return result

    def __call__(self, *arguments: str, code: int = 0) -> Result:
        """Run a command to its end, which has to come with this exit code."""
        result = self.finish(self.start(*arguments), *arguments)
        assert result.code == code, str(result)
        return result

    def fails(self, *arguments: str, code: int) -> Result:
        """Run a command that fails as it should: a message and a hint on stderr, and the same in one JSON object."""
        result = self(*arguments, "--output", "json", code=code)
        error = result.json["error"]
        assert result.json["status"] == "failed", str(result)
        assert error["message"], str(result)
        assert error["hint"], str(result)
        assert "Traceback" not in result.err, str(result)
        assert "itself failed" not in result.err, str(result)
        assert re.search(r"^error: ", result.err, re.MULTILINE), str(result)
        assert bool(error["hint"]) == bool(re.search(r"^hint: ", result.err, re.MULTILINE)), str(result)
        assert error["message"].splitlines()[0] in result.err, str(result)
        return result

    def at_once(self, *calls: Callable[[CommandLine], Any], apart: bool = False) -> list[Any]:
        """Make calls that have nothing to do with each other at the same time, as many as help.

        Args:
            calls: The calls.
            apart: Whether each has a state table of its own: of two that write for one job, one would be refused.
        """

        def make(call: Callable[[CommandLine], Any]) -> Any:
            return call(self.given(MOMENTO_ETL_STATE_TABLE=f"state-{secrets.token_hex(6)}") if apart else self)

        with ThreadPoolExecutor(max_workers=3) as threads:
            return list(threads.map(make, calls))

    def terminal(self, *arguments: str, width: int = 80, height: int = 40) -> Terminal:
        """Start a command at a terminal."""
        return Terminal(self, arguments, width, height)


class Terminal:
    """A command at a pseudo-terminal, which is all of its stdin, stdout and stderr."""

    def __init__(self, command_line: CommandLine, arguments: Sequence[str], width: int, height: int) -> None:
        self._secrets = command_line.secrets
        self.width = width
        self.text = ""
        # What is read may end in the middle of a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=command_line.folder,
            env={**command_line.variables(), "TERM": "xterm-256color", **command_line.chosen()},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  a terminal that Ctrl-C works on
        )
        os.close(theirs)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more came after:\n{self.text[-2000:]}"
        try:
            read = os.read(self._ours, 65536)
        except OSError:  # Linux's way to say that nobody holds the other end any more
            return False
        self.text += self._decoder.decode(read)
        return bool(read)

    def wait_for(self, pattern: str) -> None:
        """Wait until the screen has been sent something."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not re.search(pattern, self.text):
            assert self._read(deadline), f"{pattern} never came:\n{self.text[-2000:]}"

    def press(self, keys: bytes) -> None:
        """Type something."""
        os.write(self._ours, keys)

    def end(self) -> int:
        """Wait for the command, and answer its exit code."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while self._read(deadline):
            pass
        os.close(self._ours)
        code = self.process.wait(DEADLINE_SECONDS)
        for secret in self._secrets:
            assert secret not in self.text, self.text
        return code

    @property
    def lines(self) -> list[str]:
        """What was sent, without colours and cursor movements, line by line."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)
        return [line.rpartition("\r")[2] for line in plain.replace("\r\n", "\n").split("\n")]
