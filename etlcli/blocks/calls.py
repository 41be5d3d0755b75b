"""What one call is told of the run that it works on, and what it answers: all of it small enough for a payload."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Extracted", "Loaded", "Planned", "RunCall"]


@dataclass(frozen=True, slots=True)
class RunCall:
    """A run, as every call of it is told.

    Attributes:
        run_id: The run.
        execution: Under which name its calls share the job's lease.
        progress: Names its progress in its destination table.
        cached_bytes: What one block may store in the cache before it has to be loaded.
        kept_bytes: What one block may leave there once it is loaded, for whoever wants to look at it.
        max_writes: The most write units that one call may send in a second; None for as many as DynamoDB takes.
    """

    run_id: str
    execution: str
    progress: str
    cached_bytes: int
    kept_bytes: int
    max_writes: int | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A run that was planned.

    Attributes:
        call: What its calls are told.
        blocks: The numbers of the blocks that are left to do, in order.
        concurrency: So many of them may be worked on at once.
        ranges: The ranges of all its blocks.
        resumed: Whether it takes up a run that had not ended.
    """

    call: RunCall
    blocks: tuple[int, ...]
    concurrency: int
    ranges: int
    resumed: bool


@dataclass(frozen=True, slots=True)
class Extracted:
    """What one call of an extraction came to.

    Attributes:
        ledger: Names how far the block's ledger is; see ``place_in``.
        chunks: How many chunks of the block are stored.
        rows: How many of its rows were read.
        more: Whether there is more to read.
    """

    ledger: str
    chunks: int
    rows: int
    more: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """What one call of a load came to.

    Attributes:
        ledger: As in ``Extracted``.
        rows: How many items of the block are in the destination.
        more: Whether the block is not done.
        reads: Whether the source has to be read before there is more to load.
        lost: Chunks that the cache does not hold, and that are to be read again; some of them, where they are many.
    """

    ledger: str
    rows: int
    more: bool
    reads: bool
    lost: tuple[int, ...] = ()
