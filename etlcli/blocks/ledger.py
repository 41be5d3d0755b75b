"""One block's ledger: its pages, and the block in place of the run's manifest, which no single call may change."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from etlcli.block import BLOCK_CHUNKS, Block, place_in
from etlcli.cache.ledger import Ledger
from etlcli.cache.staging import Staging
from etlcli.errors import CacheError, TerminalError, TransientError
from etlcli.model import ChunkRecord, Manifest, SnapshotRecord

__all__ = ["BlockLedger", "StaleLedger", "fetch_place"]

# What is older than this part of its time to live is written again by the next call that comes by.
_REFRESH = 1 / 4


class StaleLedger(TransientError):  # noqa: N818  a state of a ledger
    """The cache still gives an earlier ledger than was written."""


class BlockLedger(Ledger):
    """The ledger of one block, as one call keeps it.

    Args:
        staging: Where it is kept.
        manifest: The run's manifest.
        block: The block.
        records: Its chunks that are stored already.
    """

    def __init__(self, staging: Staging, manifest: Manifest, block: Block, records: tuple[ChunkRecord, ...]) -> None:
        self._number = block.number
        super().__init__(staging, manifest, records, [block])
        self._snapshots = block.snapshots

    @property
    def place(self) -> str:
        """How far it is; see ``place_in``."""
        return f"{place_in(self.records)}:{self.block(self._number).version}"

    def add(self, record: ChunkRecord) -> None:
        """Note a stored chunk.

        Raises:
            TerminalError: The block has as many as can be numbered.
        """
        if record.number // BLOCK_CHUNKS != self._number:
            raise TerminalError(
                f"block {self._number} has more than {BLOCK_CHUNKS:,} chunks, which is as many as one block can have",
                hint="Cut the source into more ranges, or use momento-etl run with --restart.",
            )
        super().add(record)

    async def note_refused(self, chunk: int, count: int) -> None:
        """Store that DynamoDB refused so many items of a chunk."""
        refusals = dict(self.block(self._number).refusals) | {chunk: count}
        await self.write_block(self._number, refusals=tuple(refusals.items()))

    def note_snapshot(self, snapshot: SnapshotRecord) -> None:  # noqa: ARG002  the manifest is not this call's
        """Count that more of the source was read in another snapshot."""
        self._snapshots += 1

    async def write_manifest(self) -> None:
        """Write the run's manifest again, as it is: it belongs to all calls."""
        await self._staging.store_manifest(replace(self.manifest, written_at=time.time()))

    async def write_block(self, number: int, **changes: Any) -> Block:
        """Store the block with what has changed of it."""
        counts = {"snapshots": self._snapshots, "freed": self.freed}
        return await super().write_block(number, **(counts | changes))

    async def refresh(self) -> None:
        """Write all of it again where it would expire before the run may be over."""
        ttl_seconds = self.manifest.document_ttl_seconds * _REFRESH
        if time.time() - self.manifest.written_at >= ttl_seconds:
            # Many may do so at once: all of them write the same.
            await self.write_manifest()
        if time.time() - self.block(self._number).written_at >= ttl_seconds:
            await self.write_block(self._number)
            self.touch()
            await self.flush()


async def fetch_place(
    staging: Staging, manifest: Manifest, number: int, told: str
) -> tuple[Block, tuple[ChunkRecord, ...]]:
    """Fetch a block and its ledger, as the call before left them or as they were written since.

    Args:
        staging: Where they are.
        manifest: The run.
        number: The block.
        told: How far the ledger is at least, as the call before named it; empty for the first one.

    Raises:
        StaleLedger: The cache gives an earlier one.
        CacheError: The cache does not have the block any more.
    """
    if number >= manifest.blocks:
        raise StaleLedger(
            f"the cache gives run {manifest.run_id} as one of {manifest.blocks} blocks, and this is block {number}",
            hint="It has not settled. Call again.",
        )
    stored, _, version = told.rpartition(":")
    count = int(stored.partition(":")[0]) if told else 0
    least = int(version) if told else 0
    block = await staging.fetch_block(manifest.run_id, number, least)
    if block is None:
        raise CacheError(
            f"block {number} of run {manifest.run_id} is not in cache {staging.cache_name!r} any more",
            hint="It has expired, or the cache was flushed. Start another execution: it begins anew.",
        )
    records = block.chunks_of(await staging.fetch_block_chunks(manifest, number))
    behind = block.version < least or len(records) < count or (told and place_in(records[:count]) != stored)
    if behind or (block.is_extracted and len(records) < block.chunks):
        raise StaleLedger(
            f"the ledger of block {number} of run {manifest.run_id} names {len(records)} chunks, and {count} or more"
            " were stored",
            hint="The cache has not settled, or a page has expired. Call again; if it does not help, start another"
            " execution.",
        )
    return block, records
