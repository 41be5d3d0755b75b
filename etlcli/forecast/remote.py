"""What a run by the Lambda functions would do: ranges, blocks, calls, time, and what is paid for. Pure.

    rows ─▶ ranges ─▶ blocks (etlcli.blocks.planning decides, as in a run) ─▶ rounds of each block ─▶ time and use

A round is one call of ``FromDbToCache`` and one of ``FromCacheToDynamoDb``, as the state machine goes through its loop.
The figures are a lower bound, as those of a run by one process are: nothing is tried again, and the source keeps up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from etlcli.block import BLOCK_CHUNKS
from etlcli.blocks.planning import Shares, Spread, count_blocks, share_out
from etlcli.cache.packed import MAX_ENCODED_BYTES
from etlcli.forecast.figures import FULL_CHUNK_BYTES, Forecast, ledger_read, ledger_use
from etlcli.forecast.limits import Limits
from etlcli.model import Job

__all__ = [
    "BYTES_PER_SECOND",
    "CALL_LIMIT_SECONDS",
    "CALL_SECONDS",
    "COLD_SECONDS",
    "EXECUTION_SECONDS",
    "MEMORY_MB",
    "MOST_ROUNDS",
    "Remote",
    "Work",
    "remote_of",
    "work_of",
]

BYTES_PER_SECOND = 30_000_000
"""Bytes of encoded rows that one call reads, encodes and stores in a second, and as many that one fetches and writes.
One processor does it with twice as many (``python -m tests.bench stages``); one of Lambda's is taken for half of it."""

CALL_SECONDS = 0.5
"""What a call takes besides its rows: leases, a connection, manifest and ledger, and the step to the next call."""

COLD_SECONDS = 3.0
"""What the first call of each container takes on top: about twice what ``python -m tests.bench cold`` measures, since a
Lambda processor is taken for half of one."""

MEMORY_MB = 1769
"""The memory of a function, as the template has it: one whole processor (Lambda Developer Guide, "memory")."""

CALL_LIMIT_SECONDS = 880
"""A call ends in time: Lambda gives it 900 seconds, and the handler keeps 20 of them for its last words."""

EXECUTION_SECONDS = 86_400
"""The state machine ends an execution after a day."""

# A block is an execution of its own, with 25,000 events in its history at most (Step Functions Developer Guide,
# "service quotas"). A task has five of them, a choice two.
_MOST_EVENTS = 25_000
_EVENTS_PER_ROUND = 2 * 5 + 2
MOST_ROUNDS = _MOST_EVENTS // _EVENTS_PER_ROUND
"""So many rounds of one block fit into its execution's history."""

# Plan, Each block and Finish, and the execution's own start.
_TRANSITIONS = 4
# A block's start, and Block is in place.
_TRANSITIONS_PER_BLOCK = 2
# FromDbToCache, FromCacheToDynamoDb and More of this block?
_TRANSITIONS_PER_ROUND = 3
# The last two again, where a load takes more than one call.
_TRANSITIONS_PER_LOAD = 2

# Functions that are called once: Plan and Finish.
_SINGLE_CALLS = 2

# Metered operations of each call besides its rows: manifest, block, the end of the list of rejects, and a miss or a
# block that is written.
_OPERATIONS_PER_CALL = 4
# Of each block by Plan and Finish.
_OPERATIONS_PER_BLOCK = 3
_OPERATIONS_PER_RUN = 10

_GIGABYTE_MB = 1024


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be moved.

    Attributes:
        rows: Rows that are read.
        table_rows: PostgreSQL's estimate of the table's rows, which decides on the ranges; None where it has none.
        bytes_encoded: Bytes of encoded rows.
        bytes_stored: The same in the cache.
        chunks: The chunks that one reader would make of them.
        chunk_operations: Metered operations of storing, fetching and freeing these.
        write_units: DynamoDB's.
        read_units: The same.
        splits: Whether many readers can share the rows.
    """

    rows: int
    table_rows: int | None
    bytes_encoded: int
    bytes_stored: int
    chunks: int
    chunk_operations: int
    write_units: int
    read_units: int = 0
    splits: bool = True

    @property
    def full_chunk_bytes(self) -> float:
        """The stored bytes of a chunk that is as large as chunks become."""
        if not self.bytes_encoded:
            return FULL_CHUNK_BYTES
        return max(1.0, min(FULL_CHUNK_BYTES, MAX_ENCODED_BYTES * self.bytes_stored / self.bytes_encoded))


@dataclass(frozen=True, slots=True)
class Remote:
    """What a run by the functions would do.

    Attributes:
        work: What is moved.
        asked: How it was to be spread.
        shares: How it is spread: how many blocks at once, and what each call may take.
        ranges: Into how many ranges the rows are cut.
        blocks: In how many blocks these are.
        chunks: Chunks that are stored.
        rounds: Rounds of one block.
        loads: Calls of ``FromCacheToDynamoDb`` for one block: one each round, or more where one's time is up before.
        block_seconds: What one block takes where nothing but its own work holds it up.
        limits: What the services take in a second.
        momento_operations: Metered operations, of all calls.
        enough: So many blocks at once, or about so many, would keep the service busy that the run waits for; as many as
            there are where it waits for none.
    """

    work: Work
    asked: Spread
    shares: Shares
    ranges: int
    blocks: int
    chunks: int
    rounds: int
    loads: int
    block_seconds: float
    limits: Limits
    momento_operations: int
    enough: int

    @property
    def concurrency(self) -> int:
        """How many blocks are worked on at once."""
        return self.shares.concurrency

    @property
    def functions_seconds(self) -> float:
        """What the blocks take, so many at once, where no service holds them up."""
        return ceil(self.blocks / self.concurrency) * self.block_seconds

    @property
    def momento_seconds(self) -> float:
        """What Momento takes for the operations."""
        return self.momento_operations / self.limits.momento_operations

    @property
    def write_seconds(self) -> float:
        """What DynamoDB takes for the writes."""
        return self.work.write_units / self.limits.write_units

    @property
    def bounded_by(self) -> Literal["functions", "momento", "dynamodb"]:
        """What the run waits for."""
        if self.functions_seconds >= max(self.momento_seconds, self.write_seconds):
            return "functions"
        return "momento" if self.momento_seconds >= self.write_seconds else "dynamodb"

    @property
    def start_seconds(self) -> float:
        """What begins and ends it: Plan, the first container of either worker, and Finish, one after the other."""
        return 4 * COLD_SECONDS

    @property
    def seconds(self) -> float:
        """All of it, at least."""
        return max(self.functions_seconds, self.momento_seconds, self.write_seconds) + self.start_seconds

    @property
    def lambda_calls(self) -> int:
        """Calls of all functions."""
        return self.blocks * (self.rounds + self.loads) + _SINGLE_CALLS

    @property
    def lambda_seconds(self) -> float:
        """Seconds of all calls: their own work, and what they wait for a service meanwhile, which is paid too."""
        waited = self.concurrency * max(self.momento_seconds, self.write_seconds)
        containers = 2 * self.concurrency + _SINGLE_CALLS
        return max(self.blocks * self.block_seconds, waited) + containers * COLD_SECONDS

    @property
    def gb_seconds(self) -> float:
        """What Lambda charges them as."""
        return self.lambda_seconds * MEMORY_MB / _GIGABYTE_MB

    @property
    def transitions(self) -> int:
        """Step Functions' state transitions: each step that is entered, and each execution's start."""
        again = _TRANSITIONS_PER_LOAD * (self.loads - self.rounds)
        return _TRANSITIONS + self.blocks * (_TRANSITIONS_PER_BLOCK + _TRANSITIONS_PER_ROUND * self.rounds + again)

    @property
    def problems(self) -> list[str]:
        """What keeps such a run from its end, or from being shared; in words."""
        found = []
        one_call = self.shares.cached_bytes + self.shares.kept_bytes
        if not self.work.splits:
            found.append("the rows have no unique order (or a limit), so that one reader takes all of them")
            if self.rounds > 1:
                found.append(
                    f"one call has to read all of it, and may store {one_call:,} bytes of {self.work.bytes_stored:,}:"
                    " it would fail; raise [cache] max_cached_bytes, or use momento-etl run"
                )
        elif self.asked.ranges is None and self.work.table_rows is None:
            found.append(
                "PostgreSQL has no estimate of the rows, so that there is one range: ANALYZE it, or say --ranges"
            )
        if self.rounds > MOST_ROUNDS:
            found.append(
                f"a block takes {self.rounds:,} rounds, and Step Functions ends an execution after {_MOST_EVENTS:,}"
                f" events, which are {MOST_ROUNDS:,} rounds: raise [cache] max_cached_bytes, or lower --concurrency"
            )
        if self.chunks > BLOCK_CHUNKS * self.blocks:
            found.append(f"a block has more than {BLOCK_CHUNKS:,} chunks, which is as many as it can have")
        if self.seconds > EXECUTION_SECONDS:
            found.append("it takes more than a day, after which the execution ends: start another, and it goes on")
        return found


def work_of(forecast: Forecast) -> Work:
    """Take from the forecast of a run by one process what there is to move."""
    usage = forecast.usage
    return Work(
        rows=usage.rows_extracted,
        table_rows=forecast.table_rows,
        bytes_encoded=usage.bytes_encoded,
        bytes_stored=usage.bytes_stored,
        chunks=usage.chunks,
        chunk_operations=usage.momento["chunk"].operations,
        write_units=forecast.write_units,
        read_units=forecast.read_units,
        splits=forecast.splits,
    )


def remote_of(work: Work, job: Job, spread: Spread, limits: Limits) -> Remote:
    """Reckon what a run by the functions would do, with an empty cache.

    Args:
        work: What there is to move.
        job: The job, whose ``max_cached_bytes`` and ``max_writes`` bound it.
        spread: How it is to be spread.
        limits: What the services take in a second.
    """
    if job.max_writes is not None:
        limits = replace(limits, write_units=min(limits.write_units, job.max_writes))
    found = _spread_over(work, spread, limits, job.max_cached_bytes, job.max_writes)
    needed = max(found.momento_seconds, found.write_seconds)
    fewest, most = 1, found.concurrency
    while fewest < most:
        tried = (fewest + most) // 2
        other = replace(spread, concurrency=tried)
        if _spread_over(work, other, limits, job.max_cached_bytes, job.max_writes).functions_seconds <= needed:
            most = tried
        else:
            fewest = tried + 1
    return replace(found, enough=most)


def _spread_over(work: Work, spread: Spread, limits: Limits, room: int, max_writes: int | None) -> Remote:
    ranges = spread.ranges_for(work.table_rows) if work.splits else 1
    blocks = count_blocks(ranges)
    shares = share_out(spread, blocks, room, max_writes)
    # Each range ends with a chunk of its own, full or not.
    chunks = ranges * max(1, ceil(work.bytes_stored / ranges / work.full_chunk_bytes))
    extracting = work.bytes_encoded / blocks / BYTES_PER_SECOND
    loading = extracting
    if shares.max_writes is not None:
        loading = max(loading, work.write_units / blocks / shares.max_writes)
    rounds = max(
        _rounds(work.bytes_stored / chunks, ceil(chunks / blocks), shares), ceil(extracting / CALL_LIMIT_SECONDS)
    )
    block_seconds = 2 * rounds * CALL_SECONDS + extracting + loading
    operations = _operations(work, blocks, chunks, 2 * rounds * blocks)
    waited = max(operations / limits.momento_operations, work.write_units / limits.write_units)
    # A service that takes less than is sent makes calls last: mostly those that load.
    longest = CALL_SECONDS + (loading + max(0.0, waited * shares.concurrency / blocks - block_seconds)) / rounds
    return Remote(
        work=work,
        asked=spread,
        shares=shares,
        ranges=ranges,
        blocks=blocks,
        chunks=chunks,
        rounds=rounds,
        loads=rounds * ceil(longest / CALL_LIMIT_SECONDS),
        block_seconds=block_seconds,
        limits=limits,
        momento_operations=operations,
        enough=shares.concurrency,
    )


def _rounds(chunk_bytes: float, chunks: int, shares: Shares) -> int:
    """Reckon how many times a block of so many chunks fills its share of the cache, which always holds one of them.

    The first time it fills what it may keep, too.
    """
    if not chunk_bytes:
        return 1
    first = max(1, int((shares.cached_bytes + shares.kept_bytes) / chunk_bytes))
    others = max(1, int(shares.cached_bytes / chunk_bytes))
    return 1 + max(0, ceil((chunks - first) / others))


def _operations(work: Work, blocks: int, chunks: int, calls: int) -> int:
    """Reckon the metered operations: rows, and what is written and read of the ledger beside them."""
    # Of an entry's last operation about half is used, when it is stored and when it is fetched.
    moved = work.chunk_operations + max(0, chunks - work.chunks)
    per_block = ceil(chunks / blocks)
    written = ledger_use(per_block).operations
    # A call reads what its block's ledger has by then, half of it on average, and looks for one page more.
    whole = ledger_read(per_block)
    beside = calls * (_OPERATIONS_PER_CALL + 1 + whole // 2) + blocks * (_OPERATIONS_PER_BLOCK + written + 2 * whole)
    return moved + beside + _OPERATIONS_PER_RUN
