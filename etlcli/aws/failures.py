"""The two classes that handlers raise. Step Functions matches errors by their class's name, not by inheritance."""

from __future__ import annotations

import asyncio

from etlcli.errors import EtlError, TransientError
from etlcli.hidden import masked
from etlcli.leasing import LeaseHeld, LeaseLost

__all__ = ["EtlTerminal", "EtlTransient", "failure_of"]


class EtlTransient(Exception):  # noqa: N818  the name that the state machine knows
    """It may pass: call again, after a while."""


class EtlTerminal(Exception):  # noqa: N818  the name that the state machine knows
    """It stays until somebody does something about it, which the message says."""


def failure_of(error: BaseException) -> EtlTransient | EtlTerminal:
    """Turn what went wrong into one of the two classes, with a message that says what, where, and what to do."""
    if isinstance(error, EtlError):
        message = masked(error.message if error.hint is None else f"{error.message} hint: {error.hint}")
        # A lease that was lost is taken again by the next call, unless somebody else has it by then.
        passing = isinstance(error, TransientError | LeaseLost) and not isinstance(error, LeaseHeld)
        return EtlTransient(message) if passing else EtlTerminal(message)
    if isinstance(error, asyncio.CancelledError | TimeoutError):
        return EtlTransient("the function's time was up in the middle of it. What it stored and loaded is kept")
    return EtlTerminal(masked(f"momento-etl itself failed: {type(error).__name__}: {error}"))
