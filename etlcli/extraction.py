"""Source to cache: read a snapshot's rows in order, encode them once, pack them into chunks, store those."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

from etlcli.budget import CacheBudget
from etlcli.cache.ledger import Ledger
from etlcli.cache.packed import Packed, Packer
from etlcli.cache.staging import Staging
from etlcli.encoding import RowEncoder
from etlcli.model import ChunkRecord, Manifest, SnapshotRecord, Totals
from etlcli.plan import Plan
from etlcli.ports import Snapshot
from etlcli.progress import Counters
from etlcli.rejects import RejectKeeper

__all__ = ["Extraction", "new_manifest"]

# Chunks on their way to the cache at once. More would hide more latency, and hold more memory: each is about 256 KB.
_STORES_IN_FLIGHT = 4


@dataclass(frozen=True, slots=True)
class _Filled:
    """A packed chunk that waits to be stored."""

    number: int
    packed: Packed
    rejected: int
    first_key: tuple[str | None, ...]
    last_key: tuple[str | None, ...]


def new_manifest(plan: Plan, run_id: str, source: str, snapshot: SnapshotRecord) -> Manifest:
    """Write the manifest that a run starts with."""
    now = time.time()
    return Manifest(
        job=plan.job.name,
        run_id=run_id,
        status="extracting",
        source=f"{source} {plan.relation.name or 'query'}",
        fingerprint=plan.fingerprint,
        columns=plan.columns,
        key=plan.key,
        source_key=plan.source_key,
        layout="packed",
        ttl_seconds=plan.job.ttl_seconds,
        started_at=now,
        written_at=now,
        snapshots=(snapshot,),
    )


class Extraction:
    """One run's way from a snapshot into the cache.

    Args:
        plan: What is read, and what becomes of it.
        encoder: Turns rows into items.
        snapshot: Where they are read.
        staging: Where chunks go.
        ledger: Notes what is stored.
        budget: The bound on stored bytes.
        rejects: Takes the rows that cannot become items.
        counters: The run's figures.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        encoder: RowEncoder,
        snapshot: Snapshot,
        staging: Staging,
        ledger: Ledger,
        budget: CacheBudget,
        rejects: RejectKeeper,
        counters: Counters,
    ) -> None:
        self._plan = plan
        self._encoder = encoder
        self._snapshot = snapshot
        self._staging = staging
        self._ledger = ledger
        self._budget = budget
        self._rejects = rejects
        self._counters = counters

    async def run(self, stored: Callable[[ChunkRecord], Awaitable[None]]) -> Manifest:
        """Extract everything; ``stored`` hears of each chunk once the cache has acknowledged it.

        Returns:
            The manifest of a complete extraction. The pointer has moved to it.
        """
        filled: asyncio.Queue[_Filled | None] = asyncio.Queue(maxsize=_STORES_IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(filled))
            for _ in range(_STORES_IN_FLIGHT):
                group.create_task(self._store(filled, stored))
        await self._rejects.flush()
        await self._ledger.flush()
        counters = self._counters
        totals = Totals(
            rows_extracted=counters.rows_extracted,
            rows_rejected=counters.rows_rejected,
            rows_dropped=counters.rows_dropped,
            chunks=counters.chunks_stored,
            bytes_encoded=counters.bytes_encoded,
            bytes_stored=counters.bytes_cached,
        )
        await self._ledger.write_manifest(
            replace(self._ledger.manifest, status="complete", completed_at=time.time(), totals=totals)
        )
        # Only now: whoever follows the pointer finds a whole extraction.
        manifest = self._ledger.manifest
        await self._staging.move_current(manifest.run_id, manifest.ttl_seconds)
        return manifest

    async def _read(self, filled: asyncio.Queue[_Filled | None]) -> None:
        """Read, encode and pack; hand on each chunk as it fills. Waits while the storing side is behind."""
        number = 0
        packer = Packer()
        rejected = 0
        first_key: tuple[str | None, ...] | None = None
        last_line = b""
        async with aclosing(self._snapshot.read(self._plan.reading)) as batches:  # type: ignore[type-var]
            async for lines in batches:
                items, rejects = self._encoder.encode(lines)
                self._counters.rows_extracted += len(lines)
                if rejects:
                    rejected += len(rejects)
                    await self._rejects.add(rejects)
                if first_key is None:
                    first_key = self._encoder.key_text(lines[0])
                last_line = lines[-1]
                packer.add(items)
                if packer.full:
                    last_key = self._encoder.key_text(last_line)
                    await filled.put(_Filled(number, packer.finish(), rejected, first_key, last_key))
                    number, packer, rejected, first_key = number + 1, Packer(), 0, None
        if first_key is not None:
            last_key = self._encoder.key_text(last_line)
            await filled.put(_Filled(number, packer.finish(), rejected, first_key, last_key))
        for _ in range(_STORES_IN_FLIGHT):
            await filled.put(None)

    async def _store(
        self, filled: asyncio.Queue[_Filled | None], stored: Callable[[ChunkRecord], Awaitable[None]]
    ) -> None:
        """Store chunks as they come, one after the other."""
        manifest = self._ledger.manifest
        while (chunk := await filled.get()) is not None:
            packed = chunk.packed
            await self._budget.reserve(len(packed.entry))
            await self._staging.store_chunk(manifest.run_id, chunk.number, packed, manifest.ttl_seconds)
            record = ChunkRecord(
                number=chunk.number,
                rows=packed.rows,
                rejected=chunk.rejected,
                dropped=0,
                bytes_encoded=packed.bytes_encoded,
                bytes_stored=len(packed.entry),
                stored_digest=packed.stored_digest,
                rows_digest=packed.rows_digest,
                first_key=chunk.first_key,
                last_key=chunk.last_key,
                stored_at=time.time(),
            )
            self._counters.chunks_stored += 1
            self._counters.rows_cached += record.rows
            self._counters.bytes_encoded += record.bytes_encoded
            self._counters.bytes_cached += record.bytes_stored
            self._ledger.add(record)
            await stored(record)
