"""Rows that DynamoDB cannot hold: counted, shown, and kept in the cache beside the run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

import orjson

from etlcli.cache.staging import BLOCK_REJECT_PAGES, REJECTS_PAGE, Stage, Staging
from etlcli.errors import TerminalError
from etlcli.model import Manifest, Reject, Share
from etlcli.report import Report

__all__ = ["RejectKeeper", "TooManyRejects"]

_SHOWN = 20
# A page is one cache entry, and rows that are rejected for their size could make it too large for one.
_PAGE_BYTES = 1_000_000
_ROW_BYTES = 1_000_000
_ESCAPED_BYTES = 6  # what a character takes in JSON, at most


class TooManyRejects(TerminalError):  # noqa: N818  what it is
    """More rows were rejected than may be."""


class RejectKeeper:
    """Keeps one run's rejects.

    Args:
        staging: Where pages of them go.
        report: Gets the first few, and the count.
        manifest: The run, and how long they are kept.
        stage: Which half of it finds them.
        most: How many rows may be rejected; None for any number.
        block: The block of the run whose rejects these are; 0 where it has none.
    """

    def __init__(
        self,
        staging: Staging,
        report: Report,
        manifest: Manifest,
        stage: Stage,
        most: Share | None = None,
        block: int = 0,
    ) -> None:
        self._staging = staging
        self._stage = stage
        self._most = most
        self._report = report
        self._run_id = manifest.run_id
        self._ttl_seconds = manifest.document_ttl_seconds
        self._block = block
        self._page = block * BLOCK_REJECT_PAGES
        self._waiting: list[Reject] = []
        self._bytes = 0
        self._storing = asyncio.Lock()

    async def add(self, rejects: Sequence[Reject], chunk: int) -> None:
        """Count the rejects of a chunk's stretch, and store them once they fill a page.

        Raises:
            TerminalError: They are more than may be; a percentage is known to be exceeded only when all is read.
        """
        self._report.counters.rows_rejected += len(rejects)
        await self._keep([replace(reject, chunk=chunk) for reject in rejects])
        if self._most is not None and not self._most.is_percentage:
            await self.check()

    async def take_up(self, chunks: Mapping[int, int]) -> None:
        """Keep what an earlier attempt stored of these chunks' rejects; they are counted already.

        Args:
            chunks: How many rejects each of the chunks has, by their numbers.
        """
        if not any(chunks.values()):
            return
        # What is missing once pages are written again would be lost: first see that the cache gives all of it.
        await self._staging.wait_for_rejects(self._run_id, self._stage, self._block, chunks)
        found = self._staging.fetch_block_rejects(self._run_id, self._stage, self._block, chunks)
        async with aclosing(found) as pages:
            # A page is read before one with its number, or a smaller one, is written again.
            async for page in pages:
                await self._keep(page)

    async def _keep(self, rejects: Sequence[Reject]) -> None:
        """Show them to whoever listens, and store them once they fill a page."""
        if self._report.hear_rejects is not None:
            self._report.hear_rejects(rejects)
        self._report.rejects.extend(rejects[: max(0, _SHOWN - len(self._report.rejects))])
        for reject in rejects:
            bounded, size = _bounded(reject)
            self._waiting.append(bounded)
            self._bytes += size + len(reject.key or "")
            if len(self._waiting) >= REJECTS_PAGE or self._bytes >= _PAGE_BYTES:
                await self.flush()

    async def flush(self) -> None:
        """Store what waits; return once what others have begun to store is stored, too."""
        async with self._storing:
            if not self._waiting:
                return
            taken = len(self._waiting)
            size = self._bytes
            await self._staging.store_rejects(
                self._run_id, self._stage, self._page, self._waiting[:taken], self._ttl_seconds
            )
            # Only now: what could not be stored is the next one's to store.
            del self._waiting[:taken]
            self._bytes -= size
            self._page += 1

    async def finish(self) -> None:
        """Store what waits, and close the list: an earlier load of the same run may have stored more pages."""
        await self.flush()
        await self._staging.end_rejects(self._run_id, self._stage, self._page)

    async def check(self) -> None:
        """Hold the count against the bound, once all is read.

        Raises:
            TerminalError: More rows were rejected than may be.
        """
        most, counters = self._most, self._report.counters
        if most is not None and most.exceeded_by(counters.rows_rejected, counters.rows_extracted):
            await self.flush()  # whoever looks for the reason finds all of them
            raise TooManyRejects(
                f"{counters.rows_rejected:,} of {counters.rows_extracted:,} rows were rejected, and at most {most}"
                " may be (max_rejects)",
                hint=f"momento-etl inspect-cache {self._staging.job} --run-id {self._run_id} --rejects lists them. Mend"
                " the rows or the job, or allow more: --max-rejects N or N%.",
            )


def _bounded(reject: Reject) -> tuple[Reject, int]:
    """Cut values of a row that would not fit into a page; the message says what it was rejected for.

    Returns:
        The reject, and the bytes that its row takes.
    """
    size = len(orjson.dumps(reject.row))
    if size <= _ROW_BYTES:
        return reject, size
    # All values together count, not only each: a table can have 1,600 columns.
    kept = max(32, _ROW_BYTES // (2 * _ESCAPED_BYTES * len(reject.row)))
    row = {
        name: value if len(value) <= kept else f"{value[:kept]}… ({len(value):,} characters)"
        for name, value in reject.row.items()
    }
    return replace(reject, row=row), len(orjson.dumps(row))
