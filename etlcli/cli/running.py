"""The core in its event loop: until it is done, a signal comes, or its time is over."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from etlcli.cli.output import Output
from etlcli.config import format_duration, parse_duration
from etlcli.errors import TerminalError, UsageError
from etlcli.event_loop import loop_factory
from etlcli.hidden import masked
from etlcli.stopping import Stop

__all__ = ["Interrupted", "OutOfTime", "command_again", "interruptible", "run_async", "seconds_of"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

# GNU timeout, and shells around a pipeline, signal both the process and its group: that is one wish, not two.
_ONE_WISH_SECONDS = 0.3

# What is in flight gets so long to end by itself: Docker kills a container 10 seconds after it asked it to stop,
# Kubernetes and ECS after 30, unless they are told otherwise.
_GRACE_SECONDS = 8.0


class Interrupted(BaseException):
    """A signal asked the command to end. No ``Exception``: nothing on the way may take it for a failure."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class OutOfTime(TerminalError):  # noqa: N818  what it is
    """The time that the user gave is over."""


def run_async(
    main: Callable[[], Awaitable[Any]],
    output: Output,
    stop: Stop | None = None,
    timeout: float | None = None,
) -> Any:
    """Run the core on the fastest event loop there is.

    A first SIGINT or SIGTERM, or the end of the time, asks work that heeds it to end, and cancels all other work at
    once, and that which has not ended after some seconds. A second signal ends the process.

    Args:
        main: The core.
        output: How to speak.
        stop: What asks the core to end; None where nothing of it would be in flight.
        timeout: How many seconds it may take; None for any number.

    Returns:
        What it returns.

    Raises:
        Interrupted: A signal ended it.
        OutOfTime: Its time is over.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_Guard(output, stop, timeout).run(main))


class _Guard:
    """Ends the core early."""

    def __init__(self, output: Output, stop: Stop | None, timeout: float | None) -> None:
        self._output = output
        self._stop = stop
        self._timeout = timeout
        self._signal: tuple[int, float] | None = None
        self._is_late = False

    async def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._heed, number, task)
        if self._timeout is not None:
            loop.call_later(self._timeout, self._run_out, task)
        try:
            return await main()
        except BaseException:
            # Whatever else breaks while the work is torn down says nothing that the signal does not.
            if self._signal is None and not self._is_late:
                raise
        if self._signal is not None:
            raise Interrupted(self._signal[0])
        raise OutOfTime(
            f"not done after {format_duration(round(self._timeout or 0))} (--timeout)",
            hint=f"What was written so far stays. To go on: {command_again()}",
        )

    def _heed(self, number: int, task: asyncio.Task[Any]) -> None:
        now = time.monotonic()
        if self._signal is not None:
            if now - self._signal[1] < _ONE_WISH_SECONDS:
                return
            self._output.restore_terminal()
            os._exit(128 + number)
        self._signal = number, now
        self._output.note(f"{signal.Signals(number).name}: stopping (once more: at once)")
        self._end(task)

    def _run_out(self, task: asyncio.Task[Any]) -> None:
        self._is_late = True
        self._end(task)

    def _end(self, task: asyncio.Task[Any]) -> None:
        if self._stop is None or not self._stop.heeded:
            task.cancel()
        else:
            asyncio.get_running_loop().call_later(_GRACE_SECONDS, task.cancel)
        if self._stop is not None:
            self._stop.request()


def seconds_of(text: str | None, option: str, *, least: int) -> int | None:
    """Read a time that an option was given; None where it was not.

    Raises:
        UsageError: It is no time, or too short.
    """
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError:
        seconds = -1
    if seconds < least:
        raise UsageError(f"{option} has to be a time, found {text!r}", hint=f"For example: {option} 90s, 30m, 2h")
    return seconds


def command_again() -> str:
    """Write this command as it was called, so that it goes on where this one ended; without any secret in it."""
    return masked(shlex.join(["momento-etl", *(word for word in sys.argv[1:] if word != "--restart")]))


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise ``Interrupted`` where a signal comes while no event loop handles it."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
