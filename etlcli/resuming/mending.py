"""Makes a chunk anew that the cache does not hold (any more): its stretch of the source is read again (promise 4)."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing, suppress

from etlcli.cache.ledger import Ledger
from etlcli.cache.packed import Packer
from etlcli.cache.rows import RowsPacker
from etlcli.cache.staging import Staging
from etlcli.encoding import RowEncoder
from etlcli.errors import ChunkError, TooLarge
from etlcli.model import ChunkRecord, KeyRange, Reject
from etlcli.plan import Plan
from etlcli.ports import Snapshot, Source
from etlcli.report import Report
from etlcli.resuming.rereading import newer_snapshot, refuse_duplicates, whole_key

__all__ = ["Mender"]

# So many chunks are named one by one: a cache that was flushed lost thousands.
_TOLD = 3


class Mender:
    """Reads chunks of one run again, one at a time.

    Args:
        plan: What the run reads, and what becomes of it.
        encoder: Turns rows into items.
        source: Where they are read again, in a snapshot of its own.
        staging: Where the chunk is stored again.
        ledger: Gets its new record.
        report: Told of it, and of a source that has moved on.
        must_store: Whether somebody else loads it, so that it has to be in the cache.

    Attributes:
        mended: How many chunks were read again.
    """

    def __init__(
        self,
        plan: Plan,
        encoder: RowEncoder,
        source: Source,
        staging: Staging,
        ledger: Ledger,
        report: Report,
        *,
        must_store: bool = False,
    ) -> None:
        self._must_store = must_store
        self._plan = plan
        self._encoder = encoder
        self._source = source
        self._staging = staging
        self._ledger = ledger
        self._report = report
        self._one = asyncio.Lock()
        self._changed = 0
        self._line: int | None = None  # which warning is that of all of them
        self.mended = 0

    async def mend(self, record: ChunkRecord, error: ChunkError) -> tuple[ChunkRecord, list[bytes]]:
        """Read a chunk's rows again.

        Returns:
            What the ledger now knows of it, and its items.

        Raises:
            ChunkError: Its rows have no unique order, so that nobody can tell which they were.
            EtlError: Source or cache failed.
        """
        if not self._plan.resumes:
            raise ChunkError(
                f"{error.message}; it cannot be read again, since its rows have no unique order",
                hint="Run the same command again: it begins anew. A longer --ttl keeps chunks for longer.",
            ) from error
        async with self._one:
            async with newer_snapshot(self._plan, self._source, self._ledger) as snapshot:
                items, rejects, rows = await self._read(record, snapshot)
                packer = RowsPacker(self._plan.shape.kinds) if self._plan.job.layout == "rows" else Packer()
                packer.add(items)
                packed = packer.finish()
                if packed.rows_digest != record.rows_digest:
                    await refuse_duplicates(self._plan, snapshot)
            manifest = self._ledger.manifest
            parts = record.parts
            # A row that has grown too large for its layout is loaded all the same, where that is done here and now.
            with suppress(*() if self._must_store else (TooLarge,)):
                parts = await self._staging.store_chunk(manifest.run_id, record.number, packed, manifest.ttl_seconds)
            mended = record._replace(
                parts=parts,
                rows=packed.rows,
                rejected=len(rejects),
                dropped=rows - packed.rows - len(rejects),
                bytes_encoded=packed.bytes_encoded,
                bytes_stored=packed.bytes_stored,
                stored_digest=packed.stored_digest,
                rows_digest=packed.rows_digest,
                stored_at=time.time(),
            )
            self._account(record, mended, rejects, error)
            self._ledger.replace(mended)
            return mended, items

    async def _read(self, record: ChunkRecord, snapshot: Snapshot) -> tuple[list[bytes], list[Reject], int]:
        """Read and encode the rows between a chunk's bounds."""
        first, last = whole_key(record.first_key), whole_key(record.last_key)
        reading = self._plan.reading._replace(range=KeyRange(first=first, last=last))
        items: list[bytes] = []
        rejects: list[Reject] = []
        rows = 0
        async with aclosing(snapshot.read(reading)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                encoded = self._encoder.encode_batch(batch)
                items += encoded.items
                rejects += encoded.rejects
                rows += len(batch)
        return items, rejects, rows

    def _account(self, before: ChunkRecord, now: ChunkRecord, rejects: list[Reject], error: ChunkError) -> None:
        """Count what is different, and say so."""
        counters = self._report.counters
        counters.rows_extracted += (
            now.rows + now.rejected + now.dropped - before.rows - before.rejected - before.dropped
        )
        counters.rows_cached += now.rows - before.rows
        counters.rows_rejected += now.rejected - before.rejected
        counters.rows_dropped += now.dropped - before.dropped
        is_same = now.rows_digest == before.rows_digest
        self._tell(f"{error.message}: its rows were read again, and", before, now, is_same=is_same)
        if not is_same and self._report.hear_rejects is not None and rejects:
            self._report.hear_rejects(rejects)

    def _tell(self, what: str, before: ChunkRecord, now: ChunkRecord, *, is_same: bool) -> None:
        """Say what became of a chunk; of more than a few, in one line for all of them."""
        self.mended += 1
        self._changed += not is_same
        warnings = self._report.warnings
        if self.mended <= _TOLD:
            changed = f"the source has changed there since: {now.rows:,} items, {before.rows:,} before"
            warnings.append(f"{what} {'are the same' if is_same else changed}")
            return
        where = f"in {self._changed:,} of them the source has changed since" if self._changed else "they are the same"
        line = f"{self.mended:,} chunks in all were read again, and {where}"
        if self._line is None:
            self._line = len(warnings)
            warnings.append(line)
        warnings[self._line] = line
