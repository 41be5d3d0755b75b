"""Notes in the state table which chunks are in the destination, several with one write."""

from __future__ import annotations

import asyncio

from etlcli.ports import Progress

__all__ = ["ProgressKeeper"]


class ProgressKeeper:
    """One run's progress in one table.

    Args:
        progress: Where it is kept.
        job: The job's name.
        name: Names this run's progress in this table.
    """

    def __init__(self, progress: Progress, job: str, name: str) -> None:
        self._progress = progress
        self._job = job
        self._name = name
        self._waiting: set[int] = set()
        self._writing = asyncio.Lock()

    async def note(self, chunk: int) -> None:
        """Note that a chunk is in the destination; return once that is written.

        Whoever loads chunks waits here, so that what a killed run did and did not note is at most what was in flight.
        Those that come while a write is under way share the next one.

        Raises:
            EtlError: The state table failed.
        """
        self._waiting.add(chunk)
        async with self._writing:
            if chunk not in self._waiting:
                return  # an earlier one took it along
            taken, self._waiting = self._waiting, set()
            await self._progress.acknowledge(self._job, self._name, taken)

    async def hold_to(self, chunks: frozenset[int]) -> None:
        """Forget all but these: a chunk that the ledger does not know is read again, and gets its number again.

        Raises:
            EtlError: The state table failed.
        """
        if await self._progress.fetch_progress(self._job, self._name) - chunks:
            await self._progress.clear_progress(self._job, self._name)
            await self._progress.acknowledge(self._job, self._name, chunks)
