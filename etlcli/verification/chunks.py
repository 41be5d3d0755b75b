"""A run that verifies: each chunk's items are read back once they are put, and compared with what was put.

That comes before the chunk counts as loaded, and before it may be freed. What differs is told at the end; the chunk it
is in does not count as loaded, so that the same command puts it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence

from etlcli.cache.staging import Staging
from etlcli.errors import ChunkError
from etlcli.marking import marked
from etlcli.model import ChunkRecord, ItemMark, Job, Manifest
from etlcli.ports import Refusal, Sink
from etlcli.report import Report
from etlcli.resuming.progress import ProgressKeeper
from etlcli.verification.comparer import Comparer, cut
from etlcli.verification.findings import Verification, Wanted, refuse_differences

__all__ = ["ChunkChecks", "checks_of"]

# Requests at once for one chunk; several chunks are looked at in parallel.
_READS_IN_FLIGHT = 4


class ChunkChecks:
    """Compares the chunks of one run.

    Args:
        staging: Where chunks are that were put by an earlier attempt.
        sink: The destination table.
        manifest: The run.
        mark: What is added to each item in mode ``replace``; None to put them as they are.
        report: Gets what it comes to.
    """

    def __init__(self, staging: Staging, sink: Sink, manifest: Manifest, mark: ItemMark | None, report: Report) -> None:
        self._staging = staging
        self._sink = sink
        self._manifest = manifest
        self._mark = mark
        self._report = report
        self._found = Verification("cache", Wanted(), manifest.source)
        # What is compared is what was put, its mark included.
        self._comparer = Comparer(self._found, manifest.key, sink, report.counters)
        self._chunks_gone = self._rows_gone = 0
        self._is_undone = False

    async def look_at(self, record: ChunkRecord, items: Sequence[bytes], refused: Collection[Refusal] = ()) -> bool:
        """Compare a chunk's items, but for those that DynamoDB refused, with what the table has of them.

        Returns:
            Whether nothing differs.

        Raises:
            EtlError: The destination failed.
        """
        if refused:
            left_out = {refusal.item for refusal in refused}
            items = [item for item in items if item not in left_out]
        pieces = enumerate(cut(items))  # shared by the workers: each takes the next

        async def work() -> bool:
            return all([await self._comparer.compare(piece, (record.number, number)) for number, piece in pieces])

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(work()) for _ in range(_READS_IN_FLIGHT)]
        return all(worker.result() for worker in workers)

    async def look_again(self, records: Iterable[ChunkRecord]) -> None:
        """The same of chunks that an earlier attempt put, where the cache still has them.

        Raises:
            EtlError: Cache or destination failed.
        """
        for record in records:
            try:
                items = await self._staging.fetch_chunk(self._manifest, record)
            except ChunkError:
                self._chunks_gone += 1
                self._rows_gone += record.rows
                continue
            if self._mark is not None:
                items = marked(items, self._mark)
            self._is_undone |= not await self.look_at(record, items)

    async def conclude(self, job: Job, progress: ProgressKeeper) -> None:
        """Tell what it came to, once all chunks are loaded.

        Raises:
            DifferenceFound: The table does not hold what was put.
            EtlError: The state table failed.
        """
        counters = self._report.counters
        found = self._report.verification = self._found
        found.rows, found.rows_compared = counters.rows_loaded, counters.rows_compared
        found.rows_rejected, found.rows_dropped = counters.rows_rejected, counters.rows_dropped
        if self._chunks_gone:
            chunks = "1 chunk" if self._chunks_gone == 1 else f"{self._chunks_gone:,} chunks"
            self._report.warnings.append(
                f"{chunks} of {self._rows_gone:,} rows in all, loaded by an earlier attempt, could not be verified: the"
                f" cache does not hold them any more (momento-etl verify --table {job.name} --source)"
            )
        if self._is_undone:
            # What an earlier attempt noted as loaded would be left out again.
            await progress.hold_to(frozenset())
        refuse_differences(
            found,
            self._sink.table,
            "Does something else write to it, or was it changed meanwhile? The same command puts what differs again.",
        )


def checks_of(
    job: Job, staging: Staging, sink: Sink, manifest: Manifest, mark: ItemMark | None, report: Report
) -> ChunkChecks | None:
    """Set up the checks of a run, where its job verifies."""
    return ChunkChecks(staging, sink, manifest, mark, report) if job.verifies else None
