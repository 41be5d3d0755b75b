"""Cache to destination: fetch chunks, check them, put their items, and tell who waits that they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from etlcli.cache.staging import Staging
from etlcli.errors import ChunkError
from etlcli.marking import key_of, marked
from etlcli.model import ChunkRecord, ItemMark, Manifest, Reject
from etlcli.ports import Sink
from etlcli.progress import Counters
from etlcli.rejects import RejectKeeper
from etlcli.resuming.progress import ProgressKeeper
from etlcli.stopping import Stop
from etlcli.verification.chunks import ChunkChecks

__all__ = ["CHUNKS_AT_ONCE", "Loading", "Mend"]

Mend: TypeAlias = Callable[[ChunkRecord, ChunkError], Awaitable[tuple[ChunkRecord, list[bytes]] | None]]

CHUNKS_AT_ONCE = 3
"""Chunks whose items are mixed in the requests in flight. Items that share a hash key sit next to each other, and one
partition takes 1,000 writes/s: several chunks at once spread the load (Developer Guide, "partition key design")."""


class Loading:
    """One run's way from the cache into the destination.

    Args:
        staging: Where the chunks are.
        sink: The destination table.
        manifest: The run.
        rejects: Takes the items that DynamoDB refuses.
        counters: The run's figures.
        progress: Notes which chunks are in the destination.
        stop: Whether to end early.
        mend: Makes the items of a chunk anew that the cache does not hold (any more), or leaves it out for now, with
            None; None where there is no source.
        mark: What is added to each item in mode ``replace``; None to put them as they are.
        checks: Compares what is in the destination with what was put; None where nobody asks for it.
        keep_refused: Keeps of which chunk DynamoDB refused how many items, before it counts as loaded; None where
            nobody does, and it is loaded again by whoever takes this run up.
        at_once: So many chunks are mixed.
    """

    def __init__(
        self,
        *,
        staging: Staging,
        sink: Sink,
        manifest: Manifest,
        rejects: RejectKeeper,
        counters: Counters,
        progress: ProgressKeeper,
        stop: Stop,
        mend: Mend | None = None,
        mark: ItemMark | None = None,
        checks: ChunkChecks | None = None,
        keep_refused: Callable[[int, int], Awaitable[None]] | None = None,
        at_once: int = CHUNKS_AT_ONCE,
    ) -> None:
        self._staging = staging
        self._sink = sink
        self._manifest = manifest
        self._rejects = rejects
        self._counters = counters
        self._progress = progress
        self._stop = stop
        self._mend = mend
        self._mark = mark
        self._checks = checks
        self._keep_refused = keep_refused
        self._at_once = at_once

    async def run(
        self, chunks: asyncio.Queue[ChunkRecord | None], loaded: Callable[[ChunkRecord], Awaitable[None]]
    ) -> None:
        """Load chunks as they are named, until None is; ``loaded`` hears of each once all of it is written.

        Where it is to end early, the chunks that were begun are loaded, and no others.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(self._at_once):
                group.create_task(self._work(chunks, loaded))
        if self._stop.requested:
            await self._rejects.flush()
            return
        await self._rejects.finish()
        await self._rejects.check()

    async def _work(
        self, chunks: asyncio.Queue[ChunkRecord | None], loaded: Callable[[ChunkRecord], Awaitable[None]]
    ) -> None:
        while (record := await self._stop.unless(chunks.get())) is not None:
            try:
                items = await self._staging.fetch_chunk(self._manifest, record)
            except ChunkError as error:
                if self._mend is None:
                    named = f"momento-etl inspect-cache {self._staging.job} --check names all that cannot be loaded."
                    raise ChunkError(error.message, hint=f"{error.hint or ''} {named}".lstrip()) from error
                made = await self._mend(record, error)
                if made is None:
                    continue
                record, items = made
            if self._mark is not None:
                items = marked(items, self._mark)
            refusals = await self._sink.put(items)
            is_as_put = self._checks is None or await self._checks.look_at(record, items, refusals)
            if refusals:
                await self._rejects.add(
                    [
                        Reject(
                            "refused-by-dynamodb",
                            refusal.message,
                            {"item": refusal.item.decode()},
                            key_of(refusal.item, self._manifest.key),
                        )
                        for refusal in refusals
                    ],
                    record.number,
                )
                if self._keep_refused is not None:
                    await self._keep_refused(record.number, len(refusals))
            if is_as_put and (not refusals or self._keep_refused is not None):
                # One with refusals that nobody keeps is loaded again by whoever takes this run up. So is one that is
                # not what was put.
                await self._progress.note(record.number)
            self._counters.chunks_loaded += 1
            await loaded(record)
            del items  # or this worker would hold them until it has the next chunk's, and all of them so
        await chunks.put(None)  # for the next worker
