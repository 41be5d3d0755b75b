"""The right to load for a job: taken before anything is written, kept alive while the work goes on, and given back.

Whoever holds it asks before each request that writes whether it may still be sent. The answer is no from the moment on
at which a request's answer could come after the lease's end, so that of two holders the earlier one is silent before
the later one begins (promise 6).
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from etlcli.errors import EtlError, ExitCode, TerminalError, TransientError
from etlcli.ports import Leases
from etlcli.report import Report
from etlcli.state import LEASE_SECONDS, Claim, Held, Lease, LeaseWatch, Lost, Standing, Taken
from etlcli.state.host import HostProcesses, host_name, steady_clock

__all__ = ["LeaseHeld", "LeaseLost", "SendingRight", "leased", "release_shared", "sharing"]

# How often somebody who waits looks: a lease that is given back is taken within this time.
_LOOK_SECONDS = 2.0
_RELEASE_SECONDS = 5.0


class LeaseHeld(TerminalError):  # noqa: N818  the field's own word
    """Another run of the job holds the lease."""

    exit_code = ExitCode.LEASE_HELD


class LeaseLost(TerminalError):  # noqa: N818  the field's own word
    """The lease was taken over, or could not be renewed in time."""


class SendingRight:
    """Whether a request that writes may be sent now.

    Args:
        job: The job.
        request_seconds: The deadline of the longest request that writes.
        clock: The steady clock that leases count by.

    Attributes:
        after_death: Whether it was taken over from somebody who never gave it back.
    """

    def __init__(self, job: str, request_seconds: float, clock: Callable[[], float] = steady_clock) -> None:
        self.after_death = False
        self._job = job
        self._request_seconds = request_seconds
        self._clock = clock
        self._until = -math.inf

    def extend(self, lease: Lease) -> None:
        """Take note of a lease that was taken or renewed."""
        self._until = lease.safe_until(self._request_seconds)

    def revoke(self) -> None:
        """Nothing may be sent from now on."""
        self._until = -math.inf

    def seconds_left(self) -> float:
        """For how long requests may be sent still."""
        return self._until - self._clock()

    def check(self) -> None:
        """Ask, right before a request is sent.

        Raises:
            LeaseLost: It may not be sent.
        """
        if self._clock() >= self._until:
            raise LeaseLost(
                f"the lease of {self._job} could not be renewed in time, so nothing more is written",
                hint="Is DynamoDB's state table out of reach, or was this machine asleep? Run the same command again.",
            )


@asynccontextmanager
async def leased(
    job: str,
    command: str,
    leases: Leases,
    report: Report,
    *,
    request_seconds: float,
    wait_seconds: float = 0.0,
    clock: Callable[[], float] = steady_clock,
) -> AsyncIterator[SendingRight]:
    """Hold a job's lease while the body works.

    Args:
        job: The job's name.
        command: What is being done, for whoever finds the lease taken; without any secret.
        leases: Where leases are kept.
        report: Told of a lease that was taken over from somebody who is gone.
        request_seconds: The deadline of the longest request that writes.
        wait_seconds: For how long another run is waited for.
        clock: The steady clock that ``leases`` counts by.

    Raises:
        LeaseHeld: Another run has it.
        LeaseLost: It was lost while the body worked; the body was cancelled.
        EtlError: The state table failed.
    """
    claim = Claim(secrets.token_hex(8), host_name(), command, HostProcesses().current())
    taken = await _acquire(job, claim, leases, report, wait_seconds, clock)
    right = SendingRight(job, request_seconds, clock)
    right.after_death = taken.standing in (Standing.DEAD, Standing.EXPIRED)
    try:
        async with _renewed(taken.lease, leases, right, request_seconds, clock):
            yield right
    finally:
        await _release(taken.lease, leases, report)


@asynccontextmanager
async def sharing(
    job: str,
    holder: str,
    command: str,
    leases: Leases,
    report: Report,
    *,
    request_seconds: float,
    clock: Callable[[], float] = steady_clock,
) -> AsyncIterator[SendingRight]:
    """Hold a job's lease while the body works, under a name that several processes share; it is not given back.

    Args:
        job: The job's name.
        holder: The name; see ``Claim``.
        command: As in ``leased``.
        leases: As in ``leased``.
        report: As in ``leased``.
        request_seconds: As in ``leased``.
        clock: As in ``leased``.

    Raises:
        LeaseHeld: Somebody else has it.
        LeaseLost: It was lost while the body worked; the body was cancelled.
        EtlError: The state table failed.
    """
    taken = await _acquire(job, Claim(holder, host_name(), command), leases, report, 0.0, clock)
    right = SendingRight(job, request_seconds, clock)
    right.after_death = taken.standing in (Standing.DEAD, Standing.EXPIRED)
    async with _renewed(taken.lease, leases, right, request_seconds, clock):
        yield right


async def release_shared(job: str, holder: str, leases: Leases, report: Report) -> None:
    """Give a lease back that is held under a shared name; harmless where it is somebody else's."""
    await _release(Lease(job, holder, LEASE_SECONDS, steady_clock()), leases, report)


@asynccontextmanager
async def _renewed(
    lease: Lease, leases: Leases, right: SendingRight, request_seconds: float, clock: Callable[[], float]
) -> AsyncIterator[None]:
    """Renew a lease while the body works, and let nothing be sent after it."""
    right.extend(lease)
    try:
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(_renew(lease, leases, right, request_seconds, clock))
            yield
            keeper.cancel()
    finally:
        right.revoke()


async def _acquire(
    job: str, claim: Claim, leases: Leases, report: Report, wait_seconds: float, clock: Callable[[], float]
) -> Taken:
    """Take the lease, now or within the time that the caller waits."""
    watch = LeaseWatch()
    give_up_at = clock() + wait_seconds
    while True:
        answer = await leases.acquire(job, claim, watch)
        if isinstance(answer, Taken):
            _tell_taken_over(answer, report)
            return answer
        report.counters.stage = f"waiting: {answer}"
        left = give_up_at - clock()
        # What looks abandoned is watched for its period even by those who do not wait: it frees itself by then.
        if left <= 0 and not answer.seems_abandoned:
            raise _held(answer)
        pause = min(_LOOK_SECONDS, answer.seconds_left or _LOOK_SECONDS, left if left > 0 else math.inf)
        await asyncio.sleep(max(0.05, pause))


def _tell_taken_over(taken: Taken, report: Report) -> None:
    if taken.before is not None and taken.standing in (Standing.DEAD, Standing.EXPIRED):
        gone = "is dead" if taken.standing is Standing.DEAD else "has not renewed it"
        report.warnings.append(f"took over the lease of {taken.before.command}, on {taken.before.host}, which {gone}")


def _held(held: Held) -> LeaseHeld:
    return LeaseHeld(
        str(held),
        hint="Wait for it to end, or let this command wait: --wait-for-lease SECONDS. If it was killed on another host,"
        f" its lease ends {held.seconds_left:.0f} s from now.",
    )


async def _renew(
    lease: Lease, leases: Leases, right: SendingRight, request_seconds: float, clock: Callable[[], float]
) -> None:
    """Renew the lease again and again; ends with an error once it is lost, or may be."""
    while True:
        if math.isinf(lease.period_seconds):
            await asyncio.Event().wait()  # nobody else can have it: there is no state table
        await asyncio.sleep(max(0.0, lease.renew_from(request_seconds) - clock()))
        try:
            answer = await leases.renew(lease)
        except TransientError:
            right.check()  # once nothing may be sent, it is lost; until then there is time for another try
            await asyncio.sleep(min(1.0, max(0.05, right.seconds_left() / 4)))
            continue
        if isinstance(answer, Lost):
            right.revoke()
            by = f" by {answer.to.command} on {answer.to.host}" if answer.to is not None else ""
            raise LeaseLost(
                f"the lease of {answer.job} was taken over{by}, so nothing more is written",
                hint="Its chunks are known to the run that took over. Run the same command again once that has ended.",
            )
        lease = answer
        right.extend(answer)


async def _release(lease: Lease, leases: Leases, report: Report) -> None:
    """Give the lease back, even while this task is being cancelled; it ends by itself where that fails."""
    try:
        await asyncio.wait_for(asyncio.shield(leases.release(lease)), _RELEASE_SECONDS)
    except (EtlError, TimeoutError):
        report.warnings.append(f"the lease of {lease.job} could not be given back; it ends by itself within 30 s")
