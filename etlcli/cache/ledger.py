"""The extractor's ledger: which chunks are stored, written to the cache as they arrive and again before it expires."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from etlcli.cache.staging import LEDGER_PAGE_CHUNKS, Staging
from etlcli.model import ChunkRecord, Manifest

__all__ = ["Ledger"]

# The manifest and the pages are written again after this part of their time to live.
_REFRESH = 1 / 3


class Ledger:
    """One run's ledger and manifest.

    Args:
        staging: Where they are kept.
        manifest: The run's manifest so far.
    """

    def __init__(self, staging: Staging, manifest: Manifest) -> None:
        self._staging = staging
        self._pages: list[list[ChunkRecord]] = []
        self._unwritten: set[int] = set()
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self.manifest = manifest

    def add(self, record: ChunkRecord) -> None:
        """Note a stored chunk; the page is written soon after. Chunks may arrive out of order."""
        page = record.number // LEDGER_PAGE_CHUNKS
        while len(self._pages) <= page:
            self._pages.append([])
        self._pages[page].append(record)
        self._unwritten.add(page)
        self._changed.set()

    async def write_manifest(self, manifest: Manifest) -> None:
        """Store a new manifest in place of the one before."""
        async with self._writing:
            self.manifest = replace(manifest, written_at=time.time())
            await self._staging.store_manifest(self.manifest)

    async def flush(self) -> None:
        """Write every page that changed since it was last written."""
        async with self._writing:
            self._changed.clear()
            pages, self._unwritten = sorted(self._unwritten), set()
            for page in pages:
                records = sorted(self._pages[page])
                await self._staging.store_ledger_page(self.manifest.run_id, page, records, self.manifest.ttl_seconds)

    async def keep(self) -> None:
        """Write pages as chunks arrive, and all of them, with the manifest, before they expire; until cancelled."""
        period = self.manifest.ttl_seconds * _REFRESH
        refresh_at = time.monotonic() + period
        while True:
            try:
                async with asyncio.timeout(max(0.0, refresh_at - time.monotonic())):
                    await self._changed.wait()
            except TimeoutError:
                self._unwritten.update(range(len(self._pages)))
                await self.write_manifest(self.manifest)
                refresh_at = time.monotonic() + period
            await self.flush()
