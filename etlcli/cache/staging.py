"""The staging area of one job: its chunks, manifests and ledgers, under the names they have in the cache.

    JOB/current               the run_id of the newest complete extraction
    JOB/runs                  the run_ids of the newest runs, complete or not
    JOB/RUN/manifest          schema, source, key, totals
    JOB/RUN/ledger/PAGE       64 chunks a page: bounds, rows, bytes, checksums
    JOB/RUN/block/NUMBER      a part of a run that many readers share: its bounds, whether it is stored
    JOB/RUN/chunk/NUMBER      the rows; in the rows layout JOB/RUN/chunk/NUMBER/ROW, a dictionary each
    JOB/RUN/rejects/STAGE/N   rows that DynamoDB cannot hold, found by ``extract`` or by ``load``

Each block of a run has its own numbers of chunks, and so of ledger pages, and its own numbers of pages of rejects.

What is too large for the account's limit of an item is stored in parts, below the same name (see ``shelf``).
Momento cannot list keys, so whatever is to be found again is named by something above it.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal, TypeAlias, TypeVar, get_args

from etlcli.block import BLOCK_CHUNKS, Block
from etlcli.cache import documents
from etlcli.cache.packed import Packed, unpack
from etlcli.cache.rows import PACKED_HINT, RowsChunk, restore
from etlcli.cache.shelf import Shelf, each
from etlcli.errors import CacheError, ChunkError, LostChunk, TooLarge
from etlcli.model import ChunkRecord, Manifest, Reject
from etlcli.ports import Cache
from etlcli.retry import RetryPolicy

__all__ = ["BLOCK_REJECT_PAGES", "LEDGER_PAGE_CHUNKS", "REJECTS_PAGE", "RUNS_KEPT", "Chunk", "Stage", "Staging"]

T = TypeVar("T")

Chunk: TypeAlias = Packed | RowsChunk
"""A chunk ready to be stored, in either layout."""

LEDGER_PAGE_CHUNKS = 64
"""Chunks a ledger page. The open page is written again as chunks arrive, so it must stay small beside them."""

REJECTS_PAGE = 100
"""Rejects a page, at most."""

BLOCK_REJECT_PAGES = 1_000_000
"""Numbers of pages of rejects that belong to one block."""

Stage: TypeAlias = Literal["extract", "load"]
"""Which half of a run found a reject."""

RUNS_KEPT = 10
"""Runs that the cache remembers; what an older one still stores could not be found any more."""

_BLOCK_PAGES = BLOCK_CHUNKS // LEDGER_PAGE_CHUNKS

# Reads are eventually consistent: a miss this soon after somebody else's write may not be one, and what is found may
# be what was there before.
_SETTLING_SECONDS = 5.0
_SETTLING = RetryPolicy(patience=_SETTLING_SECONDS, base=0.1, ceiling=1.0)


class Staging:
    """One job's part of a cache.

    Args:
        cache: The cache, which may hold other jobs too.
        job: The job's name.
        settling_seconds: For how long a miss is asked again where a value must have been written lately.
    """

    def __init__(self, cache: Cache, job: str, *, settling_seconds: float = _SETTLING_SECONDS) -> None:
        self._cache = cache
        self._shelf = Shelf(cache)
        self._job = job
        self._settling_seconds = settling_seconds

    @property
    def cache_name(self) -> str:
        """The cache's name."""
        return self._cache.name

    @property
    def job(self) -> str:
        """The job's name."""
        return self._job

    async def ensure(self) -> bool:
        """Make the cache if it is missing; answer whether it was made now."""
        return await self._cache.ensure()

    async def exists(self) -> bool:
        """Whether the cache is there."""
        return await self._cache.exists()

    # Chunks

    async def store_chunk(self, run_id: str, number: int, chunk: Chunk, ttl_seconds: float) -> int:
        """Store a chunk: one entry, or a dictionary a row.

        Returns:
            In how many parts its entry is stored, which is for its record in the ledger.

        Raises:
            TooLarge: A row of the rows layout is over a limit; or the account takes not even small parts of an entry.
        """
        key = self._chunk(run_id, number)
        if isinstance(chunk, Packed):
            return await self._shelf.store(key, chunk.entry, ttl_seconds)
        try:
            await each(
                partial(self._cache.set_dictionary, f"{key}/{row}", fields, ttl_seconds)
                for row, fields in enumerate(chunk.dictionaries)
            )
        except TooLarge as error:
            raise TooLarge(error.message, hint=f"In the rows layout a row is one entry. {PACKED_HINT}") from error
        return 1

    async def fetch_chunk(self, manifest: Manifest, record: ChunkRecord) -> list[bytes]:
        """Fetch a chunk's rows, each an item as DynamoDB JSON, checked against the ledger.

        Raises:
            ChunkError: It is missing, expired or damaged, or is not the one that the ledger knows.
        """
        what = f"chunk {record.number} of run {manifest.run_id}"
        key = self._chunk(manifest.run_id, record.number)
        until = record.stored_at + self._settling_seconds
        if manifest.layout == "rows":
            names = [f"{key}/{row}" for row in range(record.rows)]
            reads = [partial(self._cache.get_dictionary, name) for name in names]
            found = await each(partial(self._settled, read, until) for read in reads)
            rows = [row for row in found if row is not None]
            if len(rows) < record.rows:
                raise self._missing(manifest, record, what)
            return restore(rows, manifest.kinds, record, what)

        def known(entry: bytes) -> bool:
            return len(entry) == record.bytes_stored and entry[-8:].hex() == record.stored_digest

        entry = await self._settled(partial(self._shelf.fetch, key, record.parts), until, known)
        if entry is None:
            raise self._missing(manifest, record, what)
        if not known(entry):
            raise ChunkError(
                f"{what} is not what the ledger says was stored",
                hint="Run momento-etl run (or extract) again: it reads the rows anew.",
            )
        return unpack(entry, what)

    async def free_chunk(self, manifest: Manifest, record: ChunkRecord) -> None:
        """Remove a chunk; harmless where it is gone."""
        key = self._chunk(manifest.run_id, record.number)
        if manifest.layout == "rows":
            await each(partial(self._cache.delete, f"{key}/{row}") for row in range(record.rows))
        else:
            await self._shelf.remove(key, record.parts)

    def _missing(self, manifest: Manifest, record: ChunkRecord, what: str) -> LostChunk:
        what = f"{what} is not in cache {self._cache.name!r} any more"
        if record.stored_at + manifest.ttl_seconds <= time.time():
            hint = f"{_EXTRACT_AGAIN} A longer --ttl keeps chunks for longer."
            return LostChunk(f"{what}: it has expired", hint=hint, has_expired=True)
        what = f"{what}, though its time is not up: the cache was flushed, or the account is full"
        return LostChunk(what, hint=_EXTRACT_AGAIN, has_expired=False)

    # Ledger

    async def store_ledger_page(
        self, run_id: str, page: int, records: Sequence[ChunkRecord], ttl_seconds: float
    ) -> None:
        """Store a page of the ledger, in place of the one before."""
        document = documents.dump_ledger_page(list(records))
        await self._shelf.store_document(self._name(run_id, "ledger", page), document, ttl_seconds)

    async def fetch_ledger(self, manifest: Manifest) -> list[ChunkRecord]:
        """Fetch the ledger of a complete run, in order.

        Raises:
            CacheError: A page is missing or damaged, or lacks a chunk.
        """
        run_id = manifest.run_id
        until = manifest.written_at + self._settling_seconds  # the pages were written before
        records: list[ChunkRecord] = []
        for page, numbers in _pages_of(manifest):

            def whole(found: list[ChunkRecord], numbers: list[int] = numbers) -> bool:
                # A page is written again as its chunks arrive: one that lacks some may be an earlier one.
                return [record.number for record in found] == numbers

            found = await self._settled(partial(self._fetch_ledger_page, run_id, page), until, whole)
            if found is None:
                raise CacheError(f"page {page} of the ledger of run {run_id} is not in the cache", hint=_EXTRACT_AGAIN)
            if not whole(found):
                raise CacheError(
                    f"page {page} of the ledger of run {run_id} does not name chunks {numbers[0]} to {numbers[-1]}, as"
                    f" it should: the run has {manifest.totals.chunks}",
                    hint=_EXTRACT_AGAIN,
                )
            records += found
        return records

    async def fetch_known_chunks(self, manifest: Manifest) -> list[ChunkRecord]:
        """Fetch what the cache still knows of a run's ledger, in order.

        Of a run that is not complete that is what it names so far; of one that is, all but the pages that have expired.

        Raises:
            CacheError: A page is damaged.
        """
        if manifest.status == "complete":
            found = await each(
                partial(self._fetch_ledger_page, manifest.run_id, page) for page, _ in _pages_of(manifest)
            )
            return [record for page in found if page is not None for record in page]
        blocks = await each(
            partial(self.fetch_block_chunks, manifest, number) for number in range(max(1, manifest.blocks))
        )
        return [record for block in blocks for record in block]

    async def fetch_block_chunks(self, manifest: Manifest, block: int) -> list[ChunkRecord]:
        """Fetch what the ledger names so far of a block of a run, in order; of a run without blocks, of block 0.

        Raises:
            CacheError: A page is damaged.
        """
        records: list[ChunkRecord] = []
        own = range(block * _BLOCK_PAGES, (block + 1) * _BLOCK_PAGES)
        for page in own if manifest.blocks else itertools.count():
            found = await self._fetch_ledger_page(manifest.run_id, page)
            if found is None:
                break
            records += found
        return records

    async def store_block(self, manifest: Manifest, block: Block) -> None:
        """Store a block, in place of what was known of it."""
        name = self._name(manifest.run_id, "block", block.number)
        await self._shelf.store_document(name, documents.dump_block(block), manifest.document_ttl_seconds)

    async def fetch_block(self, run_id: str, number: int, version: int | None = None) -> Block | None:
        """Fetch a block; None where the cache has none (any more).

        Args:
            run_id: The run.
            number: The block.
            version: Ask again for some seconds before a miss counts, or an earlier version than this one; None to take
                what there is.

        Raises:
            CacheError: It is damaged.
        """
        key = self._name(run_id, "block", number)

        async def fetch() -> Block | None:
            document = await self._shelf.fetch_document(key)
            return None if document is None else documents.load_block(document, key)

        until = self._until(settle=version is not None)
        return await self._settled(fetch, until, lambda found: found.version >= (version or 0))

    async def fetch_blocks(self, manifest: Manifest) -> list[Block | None]:
        """Fetch all blocks of a run, in order; None for those that the cache does not have (any more).

        Raises:
            CacheError: One is damaged.
        """
        return await each(partial(self.fetch_block, manifest.run_id, number) for number in range(manifest.blocks))

    async def _fetch_ledger_page(self, run_id: str, page: int) -> list[ChunkRecord] | None:
        key = self._name(run_id, "ledger", page)
        document = await self._shelf.fetch_document(key)
        return None if document is None else documents.load_ledger_page(document, key)

    # Manifest, pointer, list of runs

    async def store_manifest(self, manifest: Manifest) -> None:
        """Store a run's manifest, in place of the one before."""
        await self._shelf.store_document(
            self._name(manifest.run_id, "manifest"), documents.dump_manifest(manifest), manifest.document_ttl_seconds
        )

    async def fetch_manifest(self, run_id: str, *, settle: bool = False) -> Manifest | None:
        """Fetch a run's manifest; None where there is none (any more).

        Args:
            run_id: The run.
            settle: Ask again for some seconds before it counts that there is none, or that it is not complete.

        Raises:
            CacheError: It is damaged, or was written by a newer version.
        """
        key = self._name(run_id, "manifest")

        async def fetch() -> Manifest | None:
            document = await self._shelf.fetch_document(key)
            return None if document is None else documents.load_manifest(document, key)

        return await self._settled(fetch, self._until(settle=settle), lambda found: found.status == "complete")

    async def move_current(self, run_id: str, ttl_seconds: float) -> None:
        """Point at the newest complete extraction. One write, made after all that it stands for is stored."""
        await self._shelf.store_document(self._name("current"), documents.dump_pointer(run_id), ttl_seconds)

    async def fetch_current(self, *, settle: bool = False) -> str | None:
        """Name the newest complete extraction; None where there is none.

        Args:
            settle: Ask again for some seconds before a miss counts.
        """
        key = self._name("current")
        document = await self._settled(partial(self._shelf.fetch_document, key), self._until(settle=settle))
        return None if document is None else documents.load_pointer(document, key)

    async def note_run(self, run_id: str, ttl_seconds: float) -> None:
        """Add a run to the list of the newest ones, or renew the list it is in. One that cannot be read is replaced."""
        try:
            known = await self.fetch_runs()
        except documents.UnreadableError:
            known = []
        newest = sorted({run_id, *known}, reverse=True)[:RUNS_KEPT]  # their names sort by their start
        await self._shelf.store_document(self._name("runs"), documents.dump_runs(newest), ttl_seconds)

    async def fetch_runs(self) -> list[str]:
        """List the newest runs that the cache remembers, the newest first."""
        key = self._name("runs")
        document = await self._shelf.fetch_document(key)
        return [] if document is None else documents.load_runs(document, key)

    # Rejects

    async def store_rejects(
        self, run_id: str, stage: Stage, page: int, rejects: Sequence[Reject], ttl_seconds: float
    ) -> None:
        """Store a page of rejects, in place of the one before."""
        document = documents.dump_rejects(list(rejects))
        await self._shelf.store_document(self._name(run_id, "rejects", stage, page), document, ttl_seconds)

    async def end_rejects(self, run_id: str, stage: Stage, pages: int) -> None:
        """Say how many pages there are: what an earlier attempt stored after them is no longer found.

        Pages of a block's own start at ``BLOCK_REJECT_PAGES`` times its number.
        """
        await self._cache.delete(self._name(run_id, "rejects", stage, pages))

    async def fetch_rejects(self, manifest: Manifest, *stages: Stage) -> list[Reject]:
        """Fetch all of a run's rejects, those of its extraction first; or those of some halves of it only."""
        pages = self.fetch_reject_pages(manifest, stages=stages or get_args(Stage))
        return [reject async for page in pages for reject in page]

    async def fetch_reject_pages(
        self,
        manifest: Manifest,
        expected: Mapping[Stage, int] | None = None,
        stages: Sequence[Stage] = get_args(Stage),
    ) -> AsyncGenerator[list[Reject], None]:
        """Fetch a run's rejects page by page, those of its extraction first.

        Args:
            manifest: The run.
            expected: How many each half of it found. Those that are missing are asked for again for some seconds before
                they count as such. None where nobody knows. The blocks of a run know their own.
            stages: The halves whose rejects are wanted.
        """
        blocks = await self.fetch_blocks(manifest)
        for stage in stages:
            if not manifest.blocks:
                counts: dict[int, int | Mapping[int, int] | None] = {
                    0: expected.get(stage, 0) if expected is not None else None
                }
            else:
                counts = {block.number: _rejects_of(block, stage) for block in blocks if block is not None}
                if stage == "load":
                    counts[manifest.blocks] = None  # by one loader, that took them all
            for block, count in counts.items():
                async for page in self.fetch_block_rejects(manifest.run_id, stage, block, count):
                    yield page

    async def fetch_block_rejects(
        self, run_id: str, stage: Stage, block: int = 0, expected: int | Mapping[int, int] | None = None
    ) -> AsyncGenerator[list[Reject], None]:
        """Fetch the rejects of one block of a run page by page; of a run without blocks, of block 0.

        Args:
            run_id: The run.
            stage: Which half of it found them.
            block: The block.
            expected: How many there are, as above; or how many of each chunk: then no others are given, for what a call
                that was killed has stored may stand between them, and behind them.
        """
        left = dict(expected) if isinstance(expected, Mapping) else expected
        for page in itertools.count(block * BLOCK_REJECT_PAGES):
            if left is not None and _sum(left) <= 0:
                break
            key = self._name(run_id, "rejects", stage, page)
            fetch = partial(self._shelf.fetch_document, key)
            document = await self._settled(fetch, self._until(settle=left is not None))
            if document is None:
                break
            rejects = documents.load_rejects(document, key)
            if isinstance(left, dict):
                rejects = _taken_from(left, rejects)
            elif left is not None:
                left -= len(rejects)
            yield rejects

    async def wait_for_rejects(self, run_id: str, stage: Stage, block: int, chunks: Mapping[int, int]) -> None:
        """Wait for some seconds until the cache gives all rejects of chunks; what it does not give by then is gone.

        Args:
            run_id: The run.
            stage: Which half of it found them.
            block: The block.
            chunks: How many each chunk has.
        """

        async def count() -> int:
            return sum([len(page) async for page in self.fetch_block_rejects(run_id, stage, block, chunks)])

        await self._settled(count, self._until(settle=True), lambda found: found == sum(chunks.values()))

    def _name(self, *parts: str | int) -> str:
        # A job's name may hold a slash; inside a key it must not look like a level of its own.
        return "/".join([self._job.replace("%", "%25").replace("/", "%2F"), *map(str, parts)])

    def _chunk(self, run_id: str, number: int) -> str:
        return self._name(run_id, "chunk", number)

    def _until(self, *, settle: bool) -> float:
        return time.time() + self._settling_seconds if settle else 0.0

    async def _settled(
        self,
        fetch: Callable[[], Awaitable[T | None]],
        until: float,
        accept: Callable[[T], bool] = lambda _found: True,
    ) -> T | None:
        """Fetch; after a miss, or what is not acceptable, again until a time (seconds since 1970) has come."""
        attempt = 0
        while (found := await fetch()) is None or not accept(found):
            attempt += 1
            left = until - time.time()
            if left <= 0:
                break
            await asyncio.sleep(min(_SETTLING.wait(attempt), left))
        return found


def _rejects_of(block: Block, stage: Stage) -> int | Mapping[int, int] | None:
    """How many rejects of a block there are; None while nobody knows."""
    if stage == "load":
        return dict(block.refusals)
    return block.rejected if block.is_extracted else None


def _sum(left: int | Mapping[int, int]) -> int:
    return left if isinstance(left, int) else sum(left.values())


def _taken_from(left: dict[int, int], rejects: Sequence[Reject]) -> list[Reject]:
    """Choose of some rejects those that are still missing of their chunk."""
    taken = []
    for reject in rejects:
        if left.get(reject.chunk, 0) > 0:
            left[reject.chunk] -= 1
            taken.append(reject)
    return taken


def _pages_of(manifest: Manifest) -> Iterator[tuple[int, list[int]]]:
    """The pages of a complete run's ledger, each with the numbers of its chunks."""
    counts = manifest.block_chunks if manifest.blocks else (manifest.totals.chunks,)
    for block, count in enumerate(counts):
        start = block * BLOCK_CHUNKS
        for first in range(start, start + count, LEDGER_PAGE_CHUNKS):
            yield first // LEDGER_PAGE_CHUNKS, list(range(first, min(first + LEDGER_PAGE_CHUNKS, start + count)))


_EXTRACT_AGAIN = "Run momento-etl run (or extract) again."
