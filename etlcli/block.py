"""A block: a stretch of the source that one reader takes at a time, and its share of the run's chunk numbers.

A run that many readers share is cut into blocks, each of some ranges that follow each other. What a block stores is
numbered within a share of its own, so that no two readers ever give two chunks one number, and a number tells whose it
is. Within a block chunks follow the source's key, so the last one tells where reading goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias

from etlcli.model import ChunkRecord, KeyRange

__all__ = ["BLOCK_CHUNKS", "MOST_BLOCKS", "Block", "BlockStatus", "block_of", "by_block", "place_in", "unbroken"]

BLOCK_CHUNKS = 64_000
"""Chunk numbers that belong to one block: whole pages of the ledger (64) and of the progress (1,000)."""

MOST_BLOCKS = 1_000
"""So many blocks' numbers travel in a payload of 256 KiB, and what comes back of each."""

BlockStatus: TypeAlias = Literal["waiting", "extracted"]
"""``extracted`` once every row of it is stored."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block as it is kept in the cache, beside the run's manifest.

    Attributes:
        number: Its number, from 0.
        edges: The keys between which its ranges lie, one more than there are ranges. A range is behind its first edge,
            up to and with its second; None is the source's start or its end.
        status: Whether all of it is stored.
        chunks: How many chunks it has; final once it is extracted.
        freed: How many of them were removed after they had been loaded.
        rejected: How many of its rows could not become items; final once it is extracted.
        refusals: Chunks of which DynamoDB refused items, and how many of each. One that is not in the destination yet
            may be among them: it counts once it is, and may be another figure by then.
        snapshots: How many snapshots were read.
        version: Counts up with each time that it is written.
        written_at: When this was last written: seconds since 1970, UTC.
    """

    number: int
    edges: tuple[tuple[str, ...] | None, ...] = (None, None)
    status: BlockStatus = "waiting"
    chunks: int = 0
    freed: int = 0
    rejected: int = 0
    refusals: tuple[tuple[int, int], ...] = ()
    snapshots: int = 0
    version: int = 0
    written_at: float = 0.0

    @property
    def first_chunk(self) -> int:
        """The number of its first chunk."""
        return self.number * BLOCK_CHUNKS

    @property
    def numbers(self) -> range:
        """The numbers that its chunks can have."""
        return range(self.first_chunk, self.first_chunk + BLOCK_CHUNKS)

    @property
    def refused(self) -> int:
        """How many of its items DynamoDB refused."""
        return sum(count for _, count in self.refusals)

    @property
    def told(self) -> frozenset[int]:
        """The chunks of which it tells how many items were refused."""
        return frozenset(chunk for chunk, _ in self.refusals)

    @property
    def is_extracted(self) -> bool:
        """Whether all of it is stored."""
        return self.status == "extracted"

    def chunks_of(self, records: Iterable[ChunkRecord]) -> tuple[ChunkRecord, ...]:
        """Take of what a ledger names in its place the unbroken chunks, and no more than it has."""
        mine = unbroken(records, self.first_chunk)
        return mine[: self.chunks] if self.is_extracted else mine

    def with_only(self, chunks: int) -> Block:
        """The same block, of whose chunks only so many are known any more: the rest is to be read again."""
        return replace(self, status="waiting") if self.is_extracted and chunks < self.chunks else self

    def told_of(self, loaded: Container[int]) -> Block:
        """The same block, with the refusals of those chunks alone that are loaded: of others they are told again."""
        return replace(self, refusals=tuple(it for it in self.refusals if it[0] in loaded))

    def ranges(self, last: tuple[str, ...] | None = None) -> list[KeyRange]:
        """Its ranges, in order; or what is left of them.

        Args:
            last: The key of the last row that is stored. Where that is an edge, the ranges behind it are left; else one
                from there to the end, for only PostgreSQL can tell in which range a key lies (collations).
        """
        edges = self.edges
        if last is not None:
            edges = edges[edges.index(last) :] if last in edges else (last, edges[-1])
        return [KeyRange(after=low, last=high) for low, high in pairwise(edges)]


def block_of(chunk: int) -> int:
    """The number of the block that a chunk belongs to."""
    return chunk // BLOCK_CHUNKS


def by_block(records: Iterable[ChunkRecord]) -> dict[int, list[ChunkRecord]]:
    """Group chunks by the block that they belong to."""
    grouped: dict[int, list[ChunkRecord]] = {}
    for record in records:
        grouped.setdefault(block_of(record.number), []).append(record)
    return grouped


def unbroken(records: Iterable[ChunkRecord], first: int = 0) -> tuple[ChunkRecord, ...]:
    """Take the chunks from number ``first`` on up to where one is missing: what is behind a gap is read again.

    So is one that does not begin where the one before it ends: a page of the ledger that was not written again yet, or
    that the cache gives as it was, is of an attempt whose chunks had other bounds.
    """
    kept: list[ChunkRecord] = []
    for record in sorted(records):
        if record.number != first + len(kept) or (kept and not record.follows(kept[-1])):
            break
        kept.append(record)
    return tuple(kept)


def place_in(records: Sequence[ChunkRecord]) -> str:
    """Name how far a ledger is: how many chunks, and a digest over what was stored of each.

    Who reads a block next is told this name, by whoever wrote the ledger: the cache may still give an earlier one.
    """
    digest = hashlib.blake2b(digest_size=8)
    for record in records:
        digest.update(f"{record.number}:{record.stored_digest}:{record.stored_at!r};".encode())
    return f"{len(records)}:{digest.hexdigest()}"
