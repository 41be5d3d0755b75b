"""Who may work on a block: those that share the job's lease, and of them only one at a time.

The job's lease is held under the name of the whole execution, and renewed by each of its calls. A block has a lease of
its own besides: a call that is delivered twice, or begins while the one before it is not quite dead, waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from etlcli.blocks.calls import RunCall
from etlcli.errors import TransientError
from etlcli.leasing import LeaseHeld, leased, sharing
from etlcli.ports import Leases
from etlcli.report import Report

__all__ = ["BlockBusy", "working"]


class BlockBusy(TransientError):  # noqa: N818  a state of a block
    """Another call works on the block just now."""


@asynccontextmanager
async def working(
    job: str,
    call: RunCall,
    block: int,
    doing: str,
    leases: Leases,
    report: Report,
    *,
    request_seconds: float,
    wait_seconds: float,
) -> AsyncIterator[Callable[[], None]]:
    """Hold the right to work on a block while the body does.

    Args:
        job: The job's name.
        call: The run.
        block: The block.
        doing: What is done with it, for whoever finds it taken.
        leases: Where leases are kept.
        report: Told of a lease that was taken over.
        request_seconds: The deadline of the longest request that writes.
        wait_seconds: For how long another call is waited for.

    Returns:
        What is asked right before a request that writes; it raises where nothing may be sent any more.

    Raises:
        LeaseHeld: Another run has the job.
        BlockBusy: Another call has the block.
        LeaseLost: One of both was lost; the body was cancelled.
        EtlError: The state table failed.
    """
    command = f"{doing} of run {call.run_id}"
    async with sharing(job, call.execution, command, leases, report, request_seconds=request_seconds) as shared:
        try:
            async with leased(
                f"{job}#{call.run_id}#{block}",
                f"{doing} {block}",
                leases,
                report,
                request_seconds=request_seconds,
                wait_seconds=wait_seconds,
            ) as own:

                def may_send() -> None:
                    shared.check()
                    own.check()

                yield may_send
        except LeaseHeld as error:
            raise BlockBusy(
                f"block {block} of run {call.run_id} is worked on already: {error.message}",
                hint="It was called twice. Call again: once the other call has ended, there may be nothing left to do.",
            ) from error
