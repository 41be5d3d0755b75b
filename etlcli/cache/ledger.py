"""The extractor's ledger: which chunks are stored, written to the cache as they arrive and again before it expires."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from etlcli.block import Block, block_of
from etlcli.cache.staging import LEDGER_PAGE_CHUNKS, Staging
from etlcli.model import ChunkRecord, Manifest, SnapshotRecord, Totals

__all__ = ["Ledger", "kept"]

# The manifest, the pages and the list of runs are written again after this part of their time to live.
_REFRESH = 1 / 3


class Ledger:
    """One run's ledger and manifest.

    Args:
        staging: Where they are kept.
        manifest: The run's manifest as it starts, or as it was left.
        records: The chunks that are stored already.
        blocks: The run's blocks that are written here, where many readers share it.
        clock: Seconds from an arbitrary start.
    """

    def __init__(
        self,
        staging: Staging,
        manifest: Manifest,
        records: Iterable[ChunkRecord] = (),
        blocks: Iterable[Block] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._staging = staging
        self._clock = clock
        self._pages: dict[int, list[ChunkRecord]] = {}
        self._unwritten: set[int] = set()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._writing_block = asyncio.Lock()
        self._manifest = manifest
        self._blocks = {block.number: block for block in blocks}
        self._freed = sum(it.freed for it in self._blocks.values()) if self._blocks else manifest.chunks_freed
        for record in records:
            self.add(record)

    @property
    def manifest(self) -> Manifest:
        """The run's manifest as it was last written."""
        return self._manifest

    def block(self, number: int) -> Block:
        """A block of the run as it was last written."""
        return self._blocks[number]

    @property
    def records(self) -> list[ChunkRecord]:
        """The chunks that are stored, in order."""
        return sorted(record for page in self._pages.values() for record in page)

    def add(self, record: ChunkRecord) -> None:
        """Note a stored chunk; the page is written soon after. Chunks may arrive out of order."""
        page = record.number // LEDGER_PAGE_CHUNKS
        self._pages.setdefault(page, []).append(record)
        self._unwritten.add(page)
        self._changed.set()

    def replace(self, record: ChunkRecord) -> None:
        """Note a chunk that was read and stored again, in place of what was known of it."""
        page = self._pages[record.number // LEDGER_PAGE_CHUNKS]
        page[:] = [record if known.number == record.number else known for known in page]
        self._unwritten.add(record.number // LEDGER_PAGE_CHUNKS)
        self._changed.set()

    def forget(self) -> None:
        """Know of no chunk any more; the pages are written without them with the next ones."""
        self._pages = {page: [] for page in self._pages}
        self.touch()

    def note_snapshot(self, snapshot: SnapshotRecord) -> None:
        """Note that more of the source was read, in another snapshot."""
        self._manifest = replace(self._manifest, snapshots=(*self._manifest.snapshots, snapshot))

    def note_freed(self) -> None:
        """Note that a chunk was removed after it had been loaded; the next manifest that is written says so."""
        self._freed += 1

    @property
    def freed(self) -> int:
        """How many chunks of the run were removed, as far as is known here."""
        return self._freed

    def touch(self) -> None:
        """Have every page written again with the next ones."""
        self._unwritten.update(self._pages)

    async def write_manifest(self) -> None:
        """Store the manifest, in place of the one before."""
        await self._write()

    async def complete(self) -> Manifest:
        """Write what is left of the pages, then the manifest of a run of which every chunk is stored.

        Again, once a chunk of it was replaced.
        """
        await self.flush()
        chunks = Counter(block_of(record.number) for record in self.records)
        counts = tuple(chunks[block] for block in range(self._manifest.blocks))
        await self._write(status="complete", completed_at=time.time(), totals=self._totals(), block_chunks=counts)
        return self._manifest

    async def complete_block(self, number: int) -> Block:
        """Write what is left of the pages, then the block of which every chunk is stored."""
        await self.flush()
        mine = [record for record in self.records if block_of(record.number) == number]
        rejected = sum(record.rejected for record in mine)
        return await self.write_block(number, status="extracted", chunks=len(mine), rejected=rejected)

    async def write_block(self, number: int, **changes: Any) -> Block:
        """Store a block with what has changed of it."""
        self._blocks[number] = replace(self._blocks[number], **changes)
        async with self._writing_block:
            # As it is by now: whoever waited writes what others have changed meanwhile, too.
            block = self._blocks[number]
            block = replace(block, version=block.version + 1, written_at=time.time())
            self._blocks[number] = block
            await self._staging.store_block(self._manifest, block)
        return block

    def _totals(self) -> Totals:
        rows = rejected = dropped = chunks = encoded = stored = 0
        for record in self.records:
            chunks += 1
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
                        self._manifest.run_id, page, records, self._manifest.document_ttl_seconds
                    )
                except BaseException:
                    # Whoever flushes next must not take it for written: who waits for the lock gets it before the
                    # failure has cancelled anything, and would go on to call the run complete.
                    self._unwritten.add(page)
                    raise

    async def keep(self) -> None:
        """Write pages as chunks arrive, and all there is before it expires; until cancelled."""
        period = self._manifest.document_ttl_seconds * _REFRESH
        refresh_at = self._clock() + period
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, refresh_at - self._clock())):
                    await self._changed.wait()
            # Looked at every time, not only when nothing else happened: chunks may arrive faster than pages are
            # written, and then the wait never times out.
            if self._clock() >= refresh_at:
                refresh_at = self._clock() + period
                self.touch()
                await self.write_manifest()
                for number in self._blocks:
                    await self.write_block(number)
                # Without its place in this list, what the run stores would be found by no later run.
                await self._staging.note_run(self._manifest.run_id, self._manifest.document_ttl_seconds)
            await self.flush()

    async def _write(self, **changes: Any) -> None:
        async with self._writing:
            manifest = replace(self._manifest, **changes, chunks_freed=self._freed, written_at=time.time())
            await self._staging.store_manifest(manifest)
            self._manifest = manifest


@asynccontextmanager
async def kept(ledger: Ledger) -> AsyncIterator[None]:
    """Keep the ledger written while the body works."""
    async with asyncio.TaskGroup() as group:
        keeper = group.create_task(ledger.keep())
        yield
        keeper.cancel()
