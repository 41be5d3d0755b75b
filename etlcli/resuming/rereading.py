"""Reading the source once more, in a newer snapshot: behind a broken connection, or a stretch of it again.

A newer snapshot may show other rows: every one that was read is noted in the manifest, and counted in the summary.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

from etlcli.cache.ledger import Ledger
from etlcli.encoding import RowEncoder
from etlcli.errors import SourceError, TransientError, UsageError
from etlcli.model import KeyRange
from etlcli.plan import Plan
from etlcli.ports import Snapshot, Source
from etlcli.progress import Counters
from etlcli.retry import DEFAULT_POLICY, RetryPolicy

__all__ = ["RowReader", "newer_snapshot", "refuse_duplicates", "whole_key"]


async def refuse_duplicates(plan: Plan, snapshot: Snapshot) -> None:
    """Ask PostgreSQL whether two rows have one destination key, where that has to be asked.

    Raises:
        SourceError: Two rows have; some of the keys are named.
    """
    if not plan.asks_for_duplicates:
        return
    twice = await snapshot.duplicates(plan.reading, plan.key_specs)
    if twice:
        names = ", ".join(attribute.name for attribute in plan.key.attributes)
        values = "; ".join(", ".join(map(str, values)) for values in twice)
        raise SourceError(
            f"more than one row has the same destination key ({names}): {values}",
            hint="One would overwrite the other. Choose columns that tell rows apart: --key COLUMN[,COLUMN]",
        )


@asynccontextmanager
async def newer_snapshot(plan: Plan, source: Source, ledger: Ledger) -> AsyncIterator[Snapshot]:
    """Open another snapshot of what a run reads, and note it.

    Raises:
        SourceError: What is read is gone, its columns have changed since the run was planned, or rows that could not
            have one key now can.
        EtlError: The source failed.
    """
    async with source.snapshot() as snapshot:
        try:
            relation = await snapshot.describe(plan.job.selection)
        except UsageError as error:
            # It was right when the run began.
            raise SourceError(
                f"{plan.source} changed while it was read: {error.message}",
                hint=f"{error.hint or ''} Run the same command again once it is as it was.".lstrip(),
            ) from error
        if relation.columns != plan.relation.columns:
            raise SourceError(
                f"the columns of {plan.source} changed while it was read",
                hint="Run the same command again: it begins anew, with the columns as they are now.",
            )
        if not set(plan.relation.unique_keys) <= set(relation.unique_keys):
            raise SourceError(
                f"a primary key or a unique constraint of {plan.source} was dropped while it was read",
                hint="Run the same command again: it first looks for rows that have one destination key.",
            )
        ledger.note_snapshot(snapshot.record)
        yield snapshot


class RowReader:
    """Reads a run's rows, all of them once: where the connection breaks, it goes on behind the last row.

    Args:
        plan: What is read.
        encoder: Knows the key of a row.
        source: Where a newer snapshot comes from.
        snapshot: The first one.
        ledger: Notes newer ones.
        counters: Where retries are counted.
        retry: The waits, and the patience: seconds in which no row came.
    """

    def __init__(
        self,
        plan: Plan,
        encoder: RowEncoder,
        source: Source,
        snapshot: Snapshot,
        ledger: Ledger,
        counters: Counters,
        retry: RetryPolicy = DEFAULT_POLICY,
    ) -> None:
        self._plan = plan
        self._encoder = encoder
        self._source = source
        self._snapshot = snapshot
        self._ledger = ledger
        self._counters = counters
        self._retry = retry

    async def batches(self) -> AsyncGenerator[list[bytes], None]:
        """Give the rows as COPY lines, in batches.

        Raises:
            TransientError: The source could not be read for as long as the policy is patient, or in the middle of rows
                that have no unique order, so that nobody could tell which of them were read.
            SourceError: The columns have changed meanwhile, or two rows now have one destination key.
            EtlError: The source refuses.
        """
        snapshot, reading = self._snapshot, self._plan.reading
        last: bytes | None = None
        attempts, failed_at = 0, 0.0
        async with AsyncExitStack() as stack:
            while True:
                try:
                    if attempts:
                        await stack.aclose()
                        snapshot = await stack.enter_async_context(
                            newer_snapshot(self._plan, self._source, self._ledger)
                        )
                        await refuse_duplicates(self._plan, snapshot)
                        if last is not None:
                            behind = whole_key(self._encoder.key_text(last))
                            within = reading.range or KeyRange()
                            reading = reading._replace(range=within._replace(after=behind, first=None))
                    async with aclosing(snapshot.read(reading)) as batches:  # type: ignore[type-var]
                        async for batch in batches:
                            last, attempts = batch[-1], 0
                            yield batch
                    return
                except TransientError:
                    if last is not None and not self._plan.resumes:
                        raise
                    failed_at = failed_at if attempts else time.monotonic()
                    attempts += 1
                    pause = self._retry.wait(attempts)
                    if time.monotonic() - failed_at + pause > self._retry.patience:
                        raise
                    self._counters.retries += 1
                await asyncio.sleep(pause)


def whole_key(key: tuple[str | None, ...]) -> tuple[str, ...]:
    """A key of a source whose rows have a unique order: no part of it is NULL."""
    assert None not in key, "a unique order has no NULL in it"
    return tuple(part for part in key if part is not None)
