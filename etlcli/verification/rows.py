"""The rows that a table is compared with, as items: a run's as the cache has them, or the source's as they are now."""

from __future__ import annotations

import hashlib
import time
from array import array
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import NamedTuple, Protocol

import orjson

from etlcli.cache.staging import Staging
from etlcli.comparison import key_bytes
from etlcli.encoding import RowEncoder
from etlcli.errors import CacheError
from etlcli.marking import key_of
from etlcli.model import ChunkRecord, Key, Manifest, Reject
from etlcli.plan import Plan
from etlcli.ports import Snapshot
from etlcli.verification.findings import Verification
from etlcli.verification.sampling import Chance, ChosenPlaces, Lottery

__all__ = ["Batch", "CachedRows", "Rows", "SourceRows"]

# Rows of the source that are encoded at once.
_ENCODED_ROWS = 256


class Batch(NamedTuple):
    """Some rows that were read.

    Attributes:
        items: What those make that are to be compared.
        spared: The keys of rows that DynamoDB cannot hold: items that earlier runs made of them may be there, and are
            not surplus.
    """

    items: list[bytes]
    spared: list[bytes]


class Rows(Protocol):
    """Where rows come from. As they are read, the verification learns how many there are.

    Attributes:
        expected: How many will be compared; None where nobody knows.
        keyless: Of how many rejected rows nobody knows the key.
    """

    expected: int | None
    keyless: int

    def batches(self) -> AsyncGenerator[Batch, None]:
        """All rows, or the sample of them that is wanted.

        Raises:
            CacheError: The cache has not all of them.
            EtlError: Cache or source failed.
        """
        ...


class CachedRows:
    """A run's rows as the cache has them. Their checksums prove that they are what was extracted."""

    def __init__(self, manifest: Manifest, staging: Staging, found: Verification) -> None:
        self._manifest = manifest
        self._staging = staging
        self._found = found
        self._place = _reader(manifest.key)
        self.expected: int | None = None
        self.keyless = 0

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """All rows, or the sample of them that is wanted; with ``extra`` then the keys of those that were rejected."""
        manifest, found, sample = self._manifest, self._found, self._found.wanted.sample
        records = await self._records()
        refused = await self._refused()
        cached = sum(record.rows for record in records)
        found.source = manifest.source
        found.rows, found.rows_dropped = cached - len(refused), manifest.totals.rows_dropped
        found.rows_rejected = manifest.totals.rows_rejected + len(refused)
        chance = chosen = None
        if sample is None:
            self.expected = found.rows
        elif sample.is_percentage:
            chance = Chance(sample, found.wanted.seed)
        else:
            chosen = ChosenPlaces(cached, int(sample.figure), found.wanted.seed)
            self.expected = min(cached, int(sample.figure))
        start = 0
        for record in records:
            places = None if chosen is None else chosen.within(start, start + record.rows)
            start += record.rows
            if places is not None and not places:
                continue  # a sample by number costs no more of the cache than its rows' chunks
            items = await self._staging.fetch_chunk(manifest, record)
            if places is not None:
                items = [items[place] for place in places]
            elif chance is not None:
                items = [item for item in items if chance.takes(self._place(item))]
            yield self._without(refused, items)
        if found.wanted.extra and manifest.totals.rows_rejected:
            self.keyless = manifest.totals.rows_rejected
            pages = self._staging.fetch_reject_pages(manifest, {"extract": self.keyless}, ("extract",))
            async with aclosing(pages):
                async for page in pages:
                    spared = _keys(page)
                    self.keyless -= len(spared)
                    yield Batch([], spared)

    async def _records(self) -> list[ChunkRecord]:
        """Fetch the ledger, and see before anything is compared that no chunk is known to be gone."""
        manifest = self._manifest
        chunks, of = f"chunks of run {manifest.run_id}", f"of {manifest.totals.chunks:,}"
        if manifest.chunks_freed:
            raise CacheError(
                f"{chunks} were freed once they were loaded, to stay under max_cached_bytes: {manifest.chunks_freed:,}"
                f" {of}",
                hint=f"Compare with the source: momento-etl verify --table {manifest.job} --source",
            )
        records = await self._staging.fetch_ledger(manifest)
        expired = sum(record.stored_at + manifest.ttl_seconds <= time.time() for record in records)
        if expired:
            raise CacheError(
                f"{chunks} have expired: {expired:,} {of}",
                hint=f"Compare with the source: momento-etl verify --table {manifest.job} --source. A longer --ttl"
                " keeps chunks for longer.",
            )
        return records

    async def _refused(self) -> _Digests:
        """Find the items that DynamoDB refused when they were loaded: the cache has them all the same."""
        found = array("Q")
        async with aclosing(self._staging.fetch_reject_pages(self._manifest, stages=("load",))) as pages:
            async for page in pages:
                found.extend(_digest(self._place(key)) for key in _keys(page))
        return _Digests(found)

    def _without(self, refused: _Digests, items: list[bytes]) -> Batch:
        if not refused:
            return Batch(items, [])
        batch = Batch([], [])
        for item in items:
            if self._place(item) in refused:
                batch.spared.append(key_of(item, self._manifest.key).encode())
            else:
                batch.items.append(item)
        return batch


class SourceRows:
    """A job's rows as the source has them now."""

    def __init__(self, plan: Plan, encoder: RowEncoder, snapshot: Snapshot, found: Verification) -> None:
        self._plan = plan
        self._encoder = encoder
        self._snapshot = snapshot
        self._found = found
        self._place = _reader(plan.key)
        selection, sample = plan.job.selection, found.wanted.sample
        known = selection.query is None and selection.where is None and (sample is None or not sample.is_percentage)
        bounds = (plan.relation.estimated_rows, selection.limit, None if sample is None else int(sample.figure))
        self.expected = min((bound for bound in bounds if bound is not None), default=None) if known else None
        self.keyless = 0

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """All rows, or the sample of them that is wanted."""
        sample, seed = self._found.wanted.sample, self._found.wanted.seed
        self._found.source = self._plan.source
        async with aclosing(self._encoded()) as encoded:
            if sample is None:
                async for batch in encoded:
                    yield batch
            elif sample.is_percentage:
                chance = Chance(sample, seed)
                async for batch in encoded:
                    yield Batch([item for item in batch.items if chance.takes(self._place(item))], [])
            else:
                lottery = Lottery(int(sample.figure), seed)
                async for batch in encoded:
                    for item in batch.items:
                        lottery.enter(self._place(item), item)
                yield Batch(lottery.taken(), [])

    async def _encoded(self) -> AsyncGenerator[Batch, None]:
        """Read and encode all rows."""
        found = self._found
        async with aclosing(self._snapshot.read(self._plan.reading)) as batches:  # type: ignore[type-var]
            async for batch in batches:
                for start in range(0, len(batch), _ENCODED_ROWS):
                    encoded = self._encoder.encode_batch(batch[start : start + _ENCODED_ROWS])
                    spared = _keys(encoded.rejects)
                    found.rows += len(encoded.items)
                    found.rows_rejected += len(encoded.rejects)
                    found.rows_dropped += encoded.dropped
                    self.keyless += len(encoded.rejects) - len(spared)
                    yield Batch(encoded.items, spared)


class _Digests:
    """Some keys, eight bytes each: however many rows were refused, they do not fill the memory."""

    def __init__(self, digests: Iterable[int]) -> None:
        self._sorted = array("Q", sorted(set(digests)))

    def __len__(self) -> int:
        return len(self._sorted)

    def __contains__(self, key: bytes) -> bool:
        digest = _digest(key)
        place = bisect_left(self._sorted, digest)
        return place < len(self._sorted) and self._sorted[place] == digest


def _digest(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())


def _reader(key: Key) -> Callable[[bytes], bytes]:
    """Make what reads an item's key (see ``key_bytes``)."""
    names = [attribute.name for attribute in key.attributes]
    return lambda item: key_bytes(orjson.loads(item), names)


def _keys(rejects: Sequence[Reject]) -> list[bytes]:
    """The destination keys of rejected rows, as far as anybody knows them."""
    return [reject.key.encode() for reject in rejects if reject.key is not None]
