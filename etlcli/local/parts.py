"""What the embedded stack consists of, and what is asked of each part."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import etlcli
from etlcli.local.ports import HOST
from etlcli.local.process import Command, Process

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ModulePart", "Part"]


class Part(Protocol):
    """One server of the stack. The stack's lock is held in all calls but `probe`."""

    @property
    def name(self) -> str:
        """As the user sees it."""
        ...

    @property
    def preferred_port(self) -> int:
        """Where it listens unless the port is taken."""
        ...

    @property
    def stop_signal(self) -> signal.Signals:
        """What asks it to end."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """The importable modules without which it cannot run."""
        ...

    def stray(self) -> Process | None:
        """Return a process of this part that the state does not know and that would be in the way."""
        ...

    def prepare(self) -> None:
        """Do what has to be done before a start."""
        ...

    def command(self, port: int) -> Command:
        """Return what starts it on a port of loopback."""
        ...

    def is_announced(self, output: str, port: int) -> bool:
        """Tell from its output so far whether it may be asked: before that, somebody else could answer."""
        ...

    def probe(self, port: int) -> str | None:
        """Ask it something; return why it does not answer, None when it does."""
        ...

    def complete(self, port: int) -> None:
        """Do what can only be done once it answers."""
        ...


@dataclass(frozen=True)
class ModulePart:
    """A server that is a Python module, keeps nothing, and prints a line when it is ready.

    Attributes:
        name: As the user sees it.
        preferred_port: Where it listens unless the port is taken.
        module: Started as `python -m MODULE --port PORT`.
        needs: The importable modules without which it cannot run.
        ask: Asks the server on a port; returns why it does not answer, None when it does.
    """

    name: str
    preferred_port: int
    module: str
    needs: tuple[str, ...]
    ask: Callable[[int], str | None]
    stop_signal: signal.Signals = signal.SIGTERM

    def stray(self) -> Process | None:
        """Return None: one more server on another port is in nobody's way."""
        return None

    def prepare(self) -> None:
        """Do nothing."""

    def command(self, port: int) -> Command:
        """Return what starts it with this very Python."""
        environment = dict(os.environ)
        folder = Path(etlcli.__file__).resolve().parent.parent
        # In a checkout that is not installed, a Python started elsewhere would not find this package.
        if folder.name not in {"site-packages", "dist-packages"}:
            paths = [str(folder), *filter(None, [environment.get("PYTHONPATH")])]
            environment["PYTHONPATH"] = os.pathsep.join(paths)
        # -P: modules are not looked for in the folder it starts in.
        return Command([sys.executable, "-P", "-m", self.module, "--port", str(port)], environment)

    def is_announced(self, output: str, port: int) -> bool:
        """Tell whether it printed a whole line with its address in it, that is no error."""
        lines = [line for line in output.splitlines(keepends=True) if line.endswith("\n")]
        return any(f"{HOST}:{port}" in line and not line.startswith("error") for line in lines)

    def probe(self, port: int) -> str | None:
        """Ask it."""
        return self.ask(port)

    def complete(self, port: int) -> None:
        """Do nothing."""
