"""The extractor's ledger: which chunks are stored, written to the cache as they arrive and again before it expires."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from etlcli.cache.staging import LEDGER_PAGE_CHUNKS, Staging
from etlcli.model import ChunkRecord, Manifest, SnapshotRecord, Totals

__all__ = ["Ledger"]

# The manifest, the pages and the list of runs are written again after this part of their time to live.
_REFRESH = 1 / 3


class Ledger:
    """One run's ledger and manifest.

    Args:
        staging: Where they are kept.
        manifest: The run's manifest as it starts, or as it was left.
        records: The chunks that are stored already.
        clock: Seconds from an arbitrary start.
    """

    def __init__(
        self,
        staging: Staging,
        manifest: Manifest,
        records: Iterable[ChunkRecord] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._staging = staging
        self._clock = clock
        self._pages: list[list[ChunkRecord]] = []
        self._unwritten: set[int] = set()
        self._freed = manifest.chunks_freed
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._manifest = manifest
        for record in records:
            self.add(record)

    @property
    def manifest(self) -> Manifest:
        """The run's manifest as it was last written."""
        return self._manifest

    def add(self, record: ChunkRecord) -> None:
        """Note a stored chunk; the page is written soon after. Chunks may arrive out of order."""
        page = record.number // LEDGER_PAGE_CHUNKS
        while len(self._pages) <= page:
            self._pages.append([])
        self._pages[page].append(record)
        self._unwritten.add(page)
        self._changed.set()

    def replace(self, record: ChunkRecord) -> None:
        """Note a chunk that was read and stored again, in place of what was known of it."""
        page = self._pages[record.number // LEDGER_PAGE_CHUNKS]
        page[:] = [record if known.number == record.number else known for known in page]
        self._unwritten.add(record.number // LEDGER_PAGE_CHUNKS)
        self._changed.set()

    def note_snapshot(self, snapshot: SnapshotRecord) -> None:
        """Note that more of the source was read, in another snapshot."""
        self._manifest = replace(self._manifest, snapshots=(*self._manifest.snapshots, snapshot))

    def note_freed(self) -> None:
        """Note that a chunk was removed after it had been loaded; the next manifest that is written says so."""
        self._freed += 1

    async def write_manifest(self) -> None:
        """Store the manifest, in place of the one before."""
        await self._write()

    async def complete(self) -> Manifest:
        """Write what is left of the pages, then the manifest of a run of which every chunk is stored.

        Again, once a chunk of it was replaced.
        """
        await self.flush()
        await self._write(status="complete", completed_at=time.time(), totals=self._totals())
        return self._manifest

    def _totals(self) -> Totals:
        rows = rejected = dropped = chunks = encoded = stored = 0
        for page in self._pages:
            chunks += len(page)
            for record in page:
                rows += record.rows
                rejected += record.rejected
                dropped += record.dropped
                encoded += record.bytes_encoded
                stored += record.bytes_stored
        return Totals(rows + rejected + dropped, rejected, dropped, chunks, encoded, stored)

    async def abandon(self) -> None:
        """Note that this run is not to be taken up again."""
        await self._write(status="abandoned")

    async def flush(self) -> None:
        """Write every page that changed since it was last written."""
        async with self._writing:
            self._changed.clear()
            for page in sorted(self._unwritten):
                self._unwritten.discard(page)
                records = sorted(self._pages[page])
                try:
                    await self._staging.store_ledger_page(
                        self._manifest.run_id, page, records, self._manifest.ttl_seconds
                    )
                except BaseException:
                    # Whoever flushes next must not take it for written: who waits for the lock gets it before the
                    # failure has cancelled anything, and would go on to call the run complete.
                    self._unwritten.add(page)
                    raise

    async def keep(self) -> None:
        """Write pages as chunks arrive, and all there is before it expires; until cancelled."""
        period = self._manifest.ttl_seconds * _REFRESH
        refresh_at = self._clock() + period
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, refresh_at - self._clock())):
                    await self._changed.wait()
            # Looked at every time, not only when nothing else happened: chunks may arrive faster than pages are
            # written, and then the wait never times out.
            if self._clock() >= refresh_at:
                refresh_at = self._clock() + period
                self._unwritten.update(range(len(self._pages)))
                await self.write_manifest()
                # Without its place in this list, what the run stores would be found by no later run.
                await self._staging.note_run(self._manifest.run_id, self._manifest.ttl_seconds)
            await self.flush()

    async def _write(self, **changes: Any) -> None:
        async with self._writing:
            manifest = replace(self._manifest, **changes, chunks_freed=self._freed, written_at=time.time())
            await self._staging.store_manifest(manifest)
            self._manifest = manifest
