"""When to try again, and how long to wait first: full jitter under a ceiling, within the time the user allows."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from etlcli.errors import TransientError
from etlcli.progress import Counters

__all__ = ["DEFAULT_POLICY", "FIRST_CONTACT_SECONDS", "RetryPolicy", "retrying"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient an adapter is with one request.

    Attributes:
        patience: Seconds from the first failure after which the last error is final.
        base: Seconds: the first wait is drawn from 0 to this, and each later one from twice the range before.
        ceiling: Seconds: no wait is longer.
    """

    patience: float = 120.0
    base: float = 0.05
    ceiling: float = 5.0

    def wait(self, attempt: int) -> float:
        """Draw the seconds to wait after failed attempt number ``attempt`` (from 1)."""
        # Full jitter, so that many clients that failed together do not come back together.
        return random.uniform(0.0, min(self.ceiling, self.base * 2.0 ** min(attempt - 1, 30)))


DEFAULT_POLICY = RetryPolicy()

FIRST_CONTACT_SECONDS = 15.0
"""How long an endpoint that has never answered is tried: a wrong address should not take minutes to show."""


async def retrying(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    counters: Counters,
    *,
    is_known: Callable[[], bool] = lambda: True,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """Make a call, and make it again while it raises ``TransientError``, within the policy's patience.

    Args:
        call: Makes the call.
        policy: The waits, and the patience.
        counters: Where retries are counted.
        is_known: Whether the endpoint has ever answered; until then patience is ``FIRST_CONTACT_SECONDS`` at most.
        clock: Seconds that never go back.

    Raises:
        TransientError: The last one, once the patience has run out.
    """
    failed_at: float | None = None
    attempt = 0
    while True:
        try:
            return await call()
        except TransientError:
            attempt += 1
            now = clock()
            # Patience runs from the first failure: a first try that took long must not use it up by itself.
            failed_at = now if failed_at is None else failed_at
            pause = policy.wait(attempt)
            patience = policy.patience if is_known() else min(policy.patience, FIRST_CONTACT_SECONDS)
            if now - failed_at + pause > patience:
                raise
            counters.retries += 1
        await asyncio.sleep(pause)
