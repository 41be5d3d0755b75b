"""Source to cache: read a snapshot's rows in order, encode them once, pack them into chunks, store those."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from etlcli.budget import Room
from etlcli.cache.ledger import Ledger
from etlcli.cache.packed import Packer
from etlcli.cache.rows import RowsPacker
from etlcli.cache.staging import Chunk, Staging
from etlcli.encoding import Encoded, RowEncoder
from etlcli.model import ChunkRecord, Manifest, Process, SnapshotRecord, WatermarkMove, place_behind
from etlcli.plan import Plan
from etlcli.progress import Counters
from etlcli.rejects import RejectKeeper
from etlcli.resuming.rereading import RowReader
from etlcli.stopping import Stop

__all__ = ["Extraction", "new_manifest"]

# Chunks on their way to the cache at once. More would hide more latency, and hold more memory: each is about 256 KB.
_STORES_IN_FLIGHT = 4

# Rows are encoded in pieces of at most about this many bytes, so that a chunk can be closed near its bounds. A wide
# row of small numbers takes thirty times its room once every value stands under its attribute's name.
_PIECE_BYTES = 1024 * 1024
_PIECE_ROWS = 1024


@dataclass(frozen=True, slots=True)
class _Filled:
    """A packed chunk that waits to be stored."""

    number: int
    chunk: Chunk
    rejected: int
    dropped: int
    first_key: tuple[str | None, ...]
    last_key: tuple[str | None, ...]
    behind: str


class _Filling:
    """A chunk that rows are still added to."""

    def __init__(self, number: int, packer: Packer | RowsPacker, behind: str) -> None:
        self.number = number
        self._behind = behind
        self.packer = packer
        self.first_line: bytes | None = None
        self._last_line = b""
        self._rejected = 0
        self._dropped = 0

    def add(self, lines: list[bytes], encoded: Encoded) -> None:
        """Add a stretch of the source: its lines, and what became of them."""
        self.first_line = lines[0] if self.first_line is None else self.first_line
        self._last_line = lines[-1]
        self._rejected += len(encoded.rejects)
        self._dropped += encoded.dropped
        self.packer.add(encoded.items)

    def finish(self, encoder: RowEncoder) -> _Filled:
        """Close it; there is at least one line in it."""
        assert self.first_line is not None
        return _Filled(
            number=self.number,
            chunk=self.packer.finish(),
            rejected=self._rejected,
            dropped=self._dropped,
            first_key=encoder.key_text(self.first_line),
            last_key=encoder.key_text(self._last_line),
            behind=self._behind,
        )


def new_manifest(
    plan: Plan,
    run_id: str,
    snapshot: SnapshotRecord,
    *,
    transform: str | None = None,
    watermark: WatermarkMove | None = None,
    extractor: Process | None = None,
) -> Manifest:
    """Write the manifest that a run starts with."""
    now = time.time()
    return Manifest(
        job=plan.job.name,
        run_id=run_id,
        status="extracting",
        source=plan.source,
        fingerprint=plan.fingerprint,
        columns=plan.columns,
        key=plan.key,
        source_key=plan.source_key,
        layout=plan.job.layout,
        kinds=dict(plan.shape.kinds),
        other_types=_other_types(plan),
        ttl_seconds=plan.job.ttl_seconds,
        started_at=now,
        written_at=now,
        snapshots=(snapshot,),
        transform=transform,
        mark=plan.job.mark if plan.job.mode == "replace" else None,
        watermark=watermark,
        extractor=extractor,
        narrowed_by=plan.job.narrowed_by,
    )


def _other_types(plan: Plan) -> dict[str, str]:
    """Name the types of what is read under another name, for a template, or for its order alone."""
    types = {column.name: column.type for column in plan.relation.columns}
    attributes = {column.name: column.type for column in plan.columns}
    return {name: types[name].name for name in plan.reading.columns if attributes.get(name) != types[name]}


class Extraction:
    """One run's way from a snapshot into the cache.

    Args:
        plan: What is read, and what becomes of it.
        encoder: Turns rows into items.
        rows: Where they come from.
        staging: Where chunks go.
        ledger: Notes what is stored.
        room: The bound on stored bytes.
        rejects: Takes the rows that cannot become items.
        counters: The run's figures.
        stop: Whether to end early.
        first: The number of the first chunk; what is before it was stored by an earlier attempt.
        behind: The last key of the chunk before it; None where there is none.
    """

    def __init__(
        self,
        *,
        plan: Plan,
        encoder: RowEncoder,
        rows: RowReader,
        staging: Staging,
        ledger: Ledger,
        room: Room,
        rejects: RejectKeeper,
        counters: Counters,
        stop: Stop,
        first: int = 0,
        behind: Sequence[str | None] | None = None,
    ) -> None:
        self._plan = plan
        self._encoder = encoder
        self._rows = rows
        self._staging = staging
        self._ledger = ledger
        self._room = room
        self._is_full = False
        self._rejects = rejects
        self._counters = counters
        self._stop = stop
        self._piece_rows = _PIECE_ROWS
        self._first = first
        self._behind = "" if behind is None else place_behind(behind)

    async def run(self, stored: Callable[[ChunkRecord], Awaitable[None]]) -> bool:
        """Extract everything; ``stored`` hears of each chunk once the cache has acknowledged it.

        Returns:
            Whether all of it was read and is stored. Else it ended early, as asked or since there is no more room: what
            was on its way to the cache is stored.

        Raises:
            TerminalError: More rows were rejected than may be.
            EtlError: Source or cache failed.
        """
        filled: asyncio.Queue[_Filled | None] = asyncio.Queue(maxsize=_STORES_IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stop.unless(self._read(filled)))
            for _ in range(_STORES_IN_FLIGHT):
                group.create_task(self._store(filled, stored))
        if self._stop.requested or self._is_full:
            await self._rejects.flush()
            return False
        await self._rejects.finish()
        await self._rejects.check()
        return True

    async def _read(self, filled: asyncio.Queue[_Filled | None]) -> None:
        """Read, encode and pack; hand on each chunk as it fills. Waits while the storing side is behind."""
        chunk = self._filling(self._first)
        async with aclosing(self._rows.batches()) as batches:
            async for batch in batches:
                for lines, encoded, size in self._pieces(batch):
                    if not chunk.packer.has_room(size):
                        if not await self._hand_on(chunk, filled):
                            return
                        chunk = self._filling(chunk.number + 1)
                    self._counters.rows_extracted += len(lines)
                    if encoded.rejects:
                        await self._rejects.add(encoded.rejects, chunk.number)
                    self._counters.rows_dropped += encoded.dropped
                    chunk.add(lines, encoded)
                    if chunk.packer.full:
                        if not await self._hand_on(chunk, filled):
                            return
                        chunk = self._filling(chunk.number + 1)
        if chunk.first_line is None or await self._hand_on(chunk, filled):
            await self._end(filled)

    async def _hand_on(self, chunk: _Filling, filled: asyncio.Queue[_Filled | None]) -> bool:
        """Hand a chunk on to be stored; where there is no room for it, end with the ones before it."""
        packed = chunk.finish(self._encoder)
        if self._room.has_room(packed.chunk.bytes_stored):
            self._behind = place_behind(packed.last_key)
            await filled.put(packed)
            return True
        self._is_full = True
        await self._end(filled)
        return False

    @staticmethod
    async def _end(filled: asyncio.Queue[_Filled | None]) -> None:
        for _ in range(_STORES_IN_FLIGHT):
            await filled.put(None)

    def _filling(self, number: int) -> _Filling:
        packer = RowsPacker(self._plan.shape.kinds) if self._plan.job.layout == "rows" else Packer()
        return _Filling(number, packer, self._behind)

    def _pieces(self, batch: list[bytes]) -> Iterator[tuple[list[bytes], Encoded, int]]:
        """Encode a batch in pieces, small beside a chunk: lines, what became of them, bytes that the items take."""
        start = 0
        while start < len(batch):
            lines = batch[start : start + self._piece_rows]
            encoded = self._encoder.encode_batch(lines)
            size = sum(map(len, encoded.items)) + len(encoded.items)
            if size > _PIECE_BYTES and len(lines) > 1:
                # Again in smaller pieces, and so are the rows to come, which will be much alike.
                self._piece_rows = max(1, len(lines) * _PIECE_BYTES // (2 * size))
                continue
            if len(lines) == self._piece_rows and size < _PIECE_BYTES // 4:
                self._piece_rows = min(_PIECE_ROWS, self._piece_rows * 2)
            start += len(lines)
            yield lines, encoded, size

    async def _store(
        self, filled: asyncio.Queue[_Filled | None], stored: Callable[[ChunkRecord], Awaitable[None]]
    ) -> None:
        """Store chunks as they come, one after the other, until there are no more or it is to end early."""
        manifest = self._ledger.manifest
        while (filling := await self._stop.unless(filled.get())) is not None:
            packed = filling.chunk
            await self._stop.unless(self._room.reserve(packed.bytes_stored))
            if self._stop.requested:
                break
            parts = await self._staging.store_chunk(manifest.run_id, filling.number, packed, manifest.ttl_seconds)
            if filling.rejected:
                # Whoever takes this run up again finds in the ledger what need not be read again.
                await self._rejects.flush()
            record = ChunkRecord(
                number=filling.number,
                rows=packed.rows,
                rejected=filling.rejected,
                dropped=filling.dropped,
                bytes_encoded=packed.bytes_encoded,
                bytes_stored=packed.bytes_stored,
                stored_digest=packed.stored_digest,
                rows_digest=packed.rows_digest,
                first_key=filling.first_key,
                last_key=filling.last_key,
                stored_at=time.time(),
                parts=parts,
                behind=filling.behind,
            )
            self._counters.chunks_stored += 1
            self._counters.rows_cached += record.rows
            self._counters.bytes_encoded += record.bytes_encoded
            self._counters.bytes_cached += record.bytes_stored
            self._ledger.add(record)
            del filling, packed  # or this worker would hold the entry until it has the next one
            await stored(record)
