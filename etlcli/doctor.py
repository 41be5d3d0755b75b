"""What ``doctor`` looks at: checks of each service, one after the other for one service, all services at once.

What a check asks is the adapters' (``checkup.py`` in ``source``, ``cache`` and ``sink``); here is what a check is, and
what figures mean that need no service to be judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from etlcli.errors import EtlError, TerminalError, Unavailable

__all__ = [
    "Check",
    "Checkup",
    "Endpoint",
    "Fact",
    "Status",
    "examine",
    "failed_by",
    "judge_clock",
    "refuse_failures",
    "summed_up",
]

Endpoint: TypeAlias = Literal["config", "local", "source", "cache", "destination", "state"]
Status: TypeAlias = Literal["ok", "warning", "failed"]
Fact: TypeAlias = str | int | float | bool | None

_PATIENCE_SECONDS = 60.0
"""How long all checks of one service may take."""

# How far a request's time may be off: Signature Version 4 refuses more (IAM's user guide, "Troubleshoot Signature
# Version 4": 5 minutes).
_TOLERATED_SECONDS = 300.0
_NOTEWORTHY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Check:
    """Something that was looked at.

    Attributes:
        endpoint: Of which service.
        name: What, in a word or two: ``reachable``.
        status: How it is. A warning keeps no run from working.
        message: What was found.
        hint: What to do about it; None where there is nothing to be done.
        facts: The figures in it, for programs.
    """

    endpoint: Endpoint
    name: str
    status: Status
    message: str
    hint: str | None = None
    facts: Mapping[str, Fact] = field(default_factory=dict)


Checkup: TypeAlias = Callable[[], AsyncIterator[Check]]
"""Looks at one service, and gives each check as it is made. It raises ``EtlError`` where nothing more can be asked."""


async def examine(
    checkups: Mapping[Endpoint, Checkup],
    tell: Callable[[Check], None],
    patience_seconds: float = _PATIENCE_SECONDS,
) -> list[Check]:
    """Look at all services at once, and tell of them in order.

    Args:
        checkups: What looks at each.
        tell: Told of each check, those of one service together.
        patience_seconds: How long all checks of one service may take.

    Returns:
        All checks, in the order in which they were told.
    """
    async with asyncio.TaskGroup() as group:
        running = [
            group.create_task(_examine_one(endpoint, checkup, patience_seconds))
            for endpoint, checkup in checkups.items()
        ]
        found: list[Check] = []
        for task in running:
            for check in await task:
                tell(check)
                found.append(check)
    return found


async def _examine_one(endpoint: Endpoint, checkup: Checkup, patience_seconds: float) -> list[Check]:
    found: list[Check] = []
    try:
        async with asyncio.timeout(patience_seconds):
            async for check in checkup():
                found.append(check)  # noqa: PERF401  what was found before an error counts
    except TimeoutError:
        late = Unavailable(
            f"the checks were not done within {patience_seconds:g} seconds",
            hint="Look at the network between here and there, and run the same command again.",
        )
        found.append(failed_by(endpoint, "reachable", late))
    except EtlError as error:
        name = "reachable" if isinstance(error, Unavailable) or not found else "allowed"
        found.append(failed_by(endpoint, name, error))
    return found


def failed_by(endpoint: Endpoint, name: str, error: EtlError) -> Check:
    """Make the check that an error is the result of."""
    return Check(endpoint, name, "failed", error.message, error.hint)


def judge_clock(endpoint: Endpoint, ahead_seconds: float) -> Check:
    """Judge how far this machine's clock is off.

    Args:
        endpoint: By whose clock.
        ahead_seconds: How far this machine's is ahead; negative where it is behind.
    """
    off = abs(ahead_seconds)
    # The other clock tells whole seconds, and its answer took a moment.
    which = f"{off:.0f} seconds {'ahead of' if ahead_seconds > 0 else 'behind'} the service's"
    facts = {"clock_ahead_seconds": round(ahead_seconds)}
    cure = "Set this machine's clock, and keep it right with NTP (timedatectl set-ntp true)."
    if off >= _TOLERATED_SECONDS:
        message = f"this machine's clock is {which}; requests are refused from {_TOLERATED_SECONDS:.0f} on"
        return Check(endpoint, "clock", "failed", message, cure, facts)
    if off >= _NOTEWORTHY_SECONDS:
        message = f"this machine's clock is {which}; requests are refused from {_TOLERATED_SECONDS:.0f} on"
        return Check(endpoint, "clock", "warning", message, cure, facts)
    return Check(endpoint, "clock", "ok", "this machine's clock agrees with the service's", facts=facts)


def summed_up(checks: Sequence[Check]) -> str:
    """Say in a line how many checks there were, and how they went."""
    warnings = sum(check.status == "warning" for check in checks)
    failed = sum(check.status == "failed" for check in checks)
    told = "no warning" if not warnings else "1 warning" if warnings == 1 else f"{warnings} warnings"
    return f"{len(checks)} checks: {failed or 'none'} failed, {told}"


def refuse_failures(checks: Sequence[Check]) -> None:
    """Raise an error that names what failed.

    Raises:
        TerminalError: Something did.
    """
    failed = [check for check in checks if check.status == "failed"]
    if failed:
        names = ", ".join(dict.fromkeys(f"{check.endpoint} {check.name}" for check in failed))
        count = "1 check" if len(failed) == 1 else f"{len(failed)} checks"
        raise TerminalError(f"{count} failed: {names}", hint="Do what the hints of these checks say, from the top.")
