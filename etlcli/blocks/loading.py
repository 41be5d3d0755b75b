"""One call's part of loading a block: what is stored of it and not in the destination yet, as far as time allows."""

from __future__ import annotations

import asyncio
from itertools import takewhile

from etlcli.blocks.calls import Loaded, RunCall
from etlcli.blocks.ledger import BlockLedger, fetch_place
from etlcli.blocks.rights import working
from etlcli.cache.ledger import kept
from etlcli.cache.staging import Staging
from etlcli.errors import ChunkError, first_error
from etlcli.loading import CHUNKS_AT_ONCE, Loading
from etlcli.model import ChunkRecord, ItemMark, Job
from etlcli.ports import Cache, Sink, StateStore
from etlcli.preparing import find_manifest
from etlcli.rejects import RejectKeeper
from etlcli.replacing import mark_of
from etlcli.report import Report
from etlcli.resuming.progress import ProgressKeeper
from etlcli.resuming.unfinished import refused_name

__all__ = ["load_block"]

# So many chunks are named that are to be read again; the next round names others.
_MOST_LOST = 100


async def load_block(
    call: RunCall,
    number: int,
    told: str,
    job: Job,
    cache: Cache,
    sink: Sink,
    state: StateStore,
    report: Report,
    *,
    wait_seconds: float = 0.0,
) -> Loaded:
    """Load of a block what is stored of it.

    Args:
        call: The run.
        number: The block.
        told: How far its ledger is, as the call before named it.
        job: The job.
        cache: Where the chunks are.
        sink: The destination table.
        state: Where leases and progress are.
        report: Filled in as facts become known; ``report.stop`` ends the call.
        wait_seconds: For how long another call that works on the block is waited for.

    Raises:
        BlockBusy: Another call works on it.
        StaleLedger: The cache has not settled.
        EtlError: Cache, destination or state table failed.
    """
    with first_error():
        async with working(
            job.name,
            call,
            number,
            "loading block",
            state,
            report,
            request_seconds=sink.request_seconds,
            wait_seconds=wait_seconds,
        ) as may_send:
            sink.heed(may_send)
            staging = Staging(cache, job.name)
            manifest = await find_manifest(staging, call.run_id)
            report.run_id, report.manifest = manifest.run_id, manifest
            block, records = await fetch_place(staging, manifest, number, told)
            ledger = BlockLedger(staging, manifest, block, records)
            await ledger.refresh()
            refused = await state.fetch_progress(job.name, refused_name(call.progress), block.numbers)
            # One whose refusals the cache does not tell (yet) is loaded again, which tells them again.
            done = await state.fetch_progress(job.name, call.progress, block.numbers) - (refused - block.told)
            to_load = [record for record in records if record.number not in done]
            mark = await mark_of(job, manifest, state)
            work = _Work(call, job, staging, sink, state, ledger, number, mark, report)
            async with kept(ledger):
                with report.stop.heeding():
                    await work.load(to_load, {record.number for record in records if record.number in done}, refused)
                await work.free(records, done)
                await ledger.flush()
            loaded = sum(record.rows for record in records if record.number in done or record.number in work.loaded)
            left = len(to_load) - len(work.loaded)
            reads = bool(work.lost) or (not left and not block.is_extracted)
            return Loaded(
                ledger=ledger.place,
                rows=loaded - ledger.block(number).refused,
                more=bool(left) or not block.is_extracted,
                reads=reads,
                lost=tuple(sorted(work.lost)[:_MOST_LOST]),
            )


class _Work:
    """What one call does, and what came of it.

    Attributes:
        loaded: The chunks that were loaded now.
        lost: Those that the cache does not hold.
    """

    def __init__(
        self,
        call: RunCall,
        job: Job,
        staging: Staging,
        sink: Sink,
        state: StateStore,
        ledger: BlockLedger,
        number: int,
        mark: ItemMark | None,
        report: Report,
    ) -> None:
        self._call = call
        self._job = job
        self._staging = staging
        self._sink = sink
        self._state = state
        self._ledger = ledger
        self._number = number
        self._mark = mark
        self._report = report
        self.loaded: set[int] = set()
        self.lost: set[int] = set()

    async def load(self, records: list[ChunkRecord], before: set[int], refused: frozenset[int]) -> None:
        """Load chunks, until the call is to end.

        Args:
            records: The chunks.
            before: Those that earlier calls have loaded.
            refused: Those of which DynamoDB has refused items before.
        """
        if not records:
            return
        manifest = self._ledger.manifest
        rejects = RejectKeeper(self._staging, self._report, manifest, "load", block=self._number)
        # Of a chunk that is loaded again it is told again.
        refusals = tuple(it for it in self._ledger.block(self._number).refusals if it[0] in before)
        await rejects.take_up(dict(refusals))
        refusals += tuple((record.number, 0) for record in records if record.number in refused)
        if refusals != self._ledger.block(self._number).refusals:
            await self._ledger.write_block(self._number, refusals=refusals)
        chunks: asyncio.Queue[ChunkRecord | None] = asyncio.Queue()
        for record in records:
            chunks.put_nowait(record)
        chunks.put_nowait(None)

        note_chunk = ProgressKeeper(self._state, self._job.name, refused_name(self._call.progress))

        async def keep_refused(chunk: int, count: int) -> None:
            # In this order: once the chunk counts as loaded, nobody looks at its items again.
            await rejects.flush()
            await note_chunk.note(chunk)
            await self._ledger.note_refused(chunk, count)

        async def leave(record: ChunkRecord, _error: ChunkError) -> None:
            self.lost.add(record.number)

        async def note(record: ChunkRecord) -> None:
            self.loaded.add(record.number)

        await Loading(
            staging=self._staging,
            sink=self._sink,
            manifest=manifest,
            rejects=rejects,
            counters=self._report.counters,
            progress=ProgressKeeper(self._state, self._job.name, self._call.progress),
            stop=self._report.stop,
            mend=leave,
            mark=self._mark,
            keep_refused=keep_refused,
            # Under a bound chunk after chunk: where many are begun at once, a call may end before any is done.
            at_once=CHUNKS_AT_ONCE if self._call.max_writes is None else 1,
        ).run(chunks, note)

    async def free(self, records: tuple[ChunkRecord, ...], done: frozenset[int]) -> None:
        """Remove what is loaded, the oldest first, until the block keeps no more than it may.

        What is loaded behind a chunk that is not has to wait: which ones are gone is kept as their number alone.
        """
        loaded = done | self.loaded
        alive = list(takewhile(lambda record: record.number in loaded, records))
        kept_bytes = sum(record.bytes_stored for record in alive)
        freed = self._ledger.block(self._number).freed
        for place, record in enumerate(alive):
            if place < freed:
                kept_bytes -= record.bytes_stored  # by an earlier call
                continue
            if kept_bytes <= self._call.kept_bytes:
                break
            await self._staging.free_chunk(self._ledger.manifest, record)
            self._ledger.note_freed()
            kept_bytes -= record.bytes_stored
        if self._ledger.freed > freed:
            await self._ledger.write_block(self._number)
