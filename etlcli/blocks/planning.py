"""Begins a run in blocks: decides who reads what, and writes that down before any row moves.

A run that did not end is taken up as ``etlcli.pipeline`` does, whoever began it. What one reader has stored of it by
then becomes its first block; the rest is cut into more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

from etlcli.block import BLOCK_CHUNKS, MOST_BLOCKS, Block, block_of, by_block
from etlcli.blocks.calls import Planned, RunCall
from etlcli.cache.ledger import Ledger
from etlcli.cache.shelf import each
from etlcli.cache.staging import BLOCK_REJECT_PAGES, Staging
from etlcli.chronicle import Chronicle
from etlcli.encoding import Recipe
from etlcli.errors import first_error
from etlcli.extraction import new_manifest
from etlcli.leasing import sharing
from etlcli.model import CreateOptions, Job, KeyRange, Manifest, new_run_id
from etlcli.plan import Plan
from etlcli.ports import Cache, Sink, Snapshot, Source, StateStore
from etlcli.preparing import begin_at, hold_to_schema, open_and_plan, prepare_table
from etlcli.rejects import RejectKeeper
from etlcli.replacing import prepare_mark
from etlcli.report import Report
from etlcli.resuming.earlier import EarlierRun, fetch_earlier
from etlcli.resuming.progress import ProgressKeeper
from etlcli.resuming.rereading import whole_key
from etlcli.resuming.unfinished import Unfinished, find_unfinished, progress_name, refused_name

__all__ = ["ROWS_PER_RANGE", "Shares", "Spread", "count_blocks", "cut", "plan_run", "share_out"]

ROWS_PER_RANGE = 50_000
"""About so many rows a range has, where nobody says how many ranges there are: some seconds of one reader's work."""

# What one call at work needs in the cache at the least: two chunks.
_LEAST_SHARE_BYTES = 600_000

# Write units a second: a chunk of the smallest rows has some 100,000 of them, and is to be loaded within one call, that
# Lambda gives 900 seconds.
_LEAST_WRITES = 250

# Rows that are looked at for each range, and for each block. PostgreSQL samples whole pages, and the rows of a page
# mostly follow each other: a thousand of them are some thirty pages, so that blocks differ by a sixth of their size.
_SAMPLED_PER_RANGE = 100
_SAMPLED_PER_BLOCK = 1000
_MOST_SAMPLED_SHARE = 0.5

_MOST_RANGES = 1_000_000


@dataclass(frozen=True, slots=True)
class Spread:
    """How a run is to be spread.

    Attributes:
        concurrency: At most so many blocks at once.
        ranges: About so many ranges; None to go by the table's size.
    """

    concurrency: int = 10
    ranges: int | None = None

    def ranges_for(self, rows: int | None) -> int:
        """How many ranges there are to be, for about so many rows; None where nobody knows how many there are."""
        if self.ranges is not None:
            return self.ranges
        return max(1, min(_MOST_RANGES, math.ceil((rows or 0) / ROWS_PER_RANGE)))


@dataclass(frozen=True, slots=True)
class Shares:
    """What each call of a run may take, so that all that are at work at once stay under the job's bounds.

    Attributes:
        concurrency: So many blocks may be worked on at once.
        cached_bytes: What one block may store in the cache before it has to be loaded.
        kept_bytes: What one block may leave there once it is loaded.
        max_writes: The most write units that one call may send in a second; None for as many as DynamoDB takes.
    """

    concurrency: int
    cached_bytes: int
    kept_bytes: int
    max_writes: int | None


def share_out(spread: Spread, blocks: int, room: int, max_writes: int | None) -> Shares:
    """Decide how many blocks are worked on at once, and share out what there is: half of the room to those at work.

    Args:
        spread: How the run is to be spread.
        blocks: How many blocks it has.
        room: The bytes that the run may store in the cache.
        max_writes: The most write units a second of all of it.
    """
    concurrency = _concurrency(spread, blocks, room, max_writes)
    return Shares(
        concurrency,
        cached_bytes=room // (2 * concurrency),
        kept_bytes=room // (2 * blocks),
        max_writes=None if max_writes is None else max(1, max_writes // concurrency),
    )


def cut(edges: Sequence[tuple[str, ...] | None], first: int = 0, most: int = MOST_BLOCKS) -> list[Block]:
    """Group ranges that follow each other into blocks, about as many ranges each.

    Args:
        edges: The keys between which the ranges lie; see ``Block``.
        first: The first block's number.
        most: At most so many blocks.
    """
    ranges = len(edges) - 1
    each = _ranges_per_block(ranges, most)
    starts = range(0, ranges, each)
    return [Block(first + place, tuple(edges[start : start + each + 1])) for place, start in enumerate(starts)]


def count_blocks(ranges: int, most: int = MOST_BLOCKS) -> int:
    """How many blocks ``cut`` makes of so many ranges."""
    return math.ceil(ranges / _ranges_per_block(ranges, most))


def _ranges_per_block(ranges: int, most: int) -> int:
    return math.ceil(ranges / most)


async def plan_run(
    job: Job,
    recipe: Recipe,
    create: CreateOptions,
    spread: Spread,
    execution: str,
    source: Source,
    cache: Cache,
    sink: Sink,
    state: StateStore,
    report: Report,
) -> Planned:
    """Begin a run in blocks, or take up one that did not end.

    Args:
        job: The job.
        recipe: How its rows become items.
        create: What the destination table gets if it has to be made.
        spread: How it is to be spread.
        execution: Under which name its calls share the job's lease. The lease stays taken.
        source: Where its rows are.
        cache: Where its chunks go.
        sink: The destination table.
        state: What outlives runs.
        report: Filled in as facts become known.

    Raises:
        LeaseHeld: Another run of this job is at work.
        UsageError: What is to be read does not exist, or the destination has another key.
        EtlError: Source, cache or destination failed.
    """
    command = f"execution {execution}"
    with first_error():
        async with (
            sharing(job.name, execution, command, state, report, request_seconds=sink.request_seconds) as right,
            AsyncExitStack() as reading,
        ):
            snapshot, plan = await open_and_plan(reading, job, recipe, source, report)
            await hold_to_schema(plan, state, report)
            await prepare_mark(job, state)
            plan, watermark = await begin_at(plan, snapshot, state, report, sink)
            staging = Staging(cache, job.name)
            await staging.ensure()
            earlier = await fetch_earlier(staging, report)
            found = None
            table = "" if await sink.key() is None else await sink.identity()
            if not job.restart:
                found = await find_unfinished(
                    plan, watermark, table, earlier, staging, state, report, after_death=right.after_death
                )
            if found is None:
                transform = recipe.transform.reference if recipe.transform is not None else None
                manifest = new_manifest(plan, new_run_id(), snapshot.record, transform=transform, watermark=watermark)
                report.run_id, report.manifest, report.mode = manifest.run_id, manifest, job.mode
                report.watermark = watermark
                blocks = cut(await _edges(plan, spread, snapshot, None))
            else:
                found.take_up(plan, report)
                manifest, blocks = await _spread_rest(found, plan, spread, snapshot)
                # Of an attempt whose ledger the cache does not give any more numbers may be loaded.
                name = progress_name(manifest.run_id, table)
                await ProgressKeeper(state, job.name, name).hold_to(found.loaded)
                refused = frozenset[int]().union(*(block.told for block in blocks))
                await ProgressKeeper(state, job.name, refused_name(name)).hold_to(refused)
            await prepare_table(sink, plan.key, create, report)
            room = await _make_room(earlier, staging, job.max_cached_bytes, but=manifest.run_id)
            if found is not None:
                blocks, held = await _hold_own(staging, manifest, blocks, found, room)
                # What is left to load goes soon; nothing would go on without any room.
                room = max(job.max_cached_bytes // 4, room - held)
            manifest = replace(manifest, blocks=len(blocks), extractor=None)
            await _write(staging, manifest, blocks, found, report)
            report.manifest = manifest
            progress = progress_name(manifest.run_id, await sink.identity())
            chronicle = Chronicle("run", job, state, report)
            chronicle.begin(plan.relation.columns)
            await chronicle.has_begun()
            shares = share_out(spread, len(blocks), room, job.max_writes)
            return Planned(
                RunCall(
                    run_id=manifest.run_id,
                    execution=execution,
                    progress=progress,
                    cached_bytes=shares.cached_bytes,
                    kept_bytes=shares.kept_bytes,
                    max_writes=shares.max_writes,
                ),
                _to_do(blocks, found),
                shares.concurrency,
                sum(len(block.edges) - 1 for block in blocks),
                resumed=found is not None,
            )


def _concurrency(spread: Spread, blocks: int, room: int, max_writes: int | None) -> int:
    """How many blocks may be worked on at once, so that each call has a share that it gets somewhere with."""
    bounds = [spread.concurrency, blocks, room // (2 * _LEAST_SHARE_BYTES)]
    if max_writes is not None:
        bounds.append(max_writes // _LEAST_WRITES)
    return max(1, min(bounds))


async def _edges(
    plan: Plan, spread: Spread, snapshot: Snapshot, after: tuple[str, ...] | None
) -> list[tuple[str, ...] | None]:
    """Find the keys between which the ranges lie, of all rows or of those behind a key."""
    if not plan.resumes:
        return [after, None]  # nobody could tell where one reader ends and another begins
    ranges = spread.ranges_for(plan.relation.estimated_rows)
    if ranges <= 1:
        return [after, None]
    reading = plan.reading._replace(range=None if after is None else KeyRange(after=after))
    share = _sampled_share(plan, ranges)
    keys = await snapshot.split(reading._replace(sample=share), ranges)
    if share is not None and len(keys) < ranges - 1:
        # The sample has too few pages of what is left, or the planner's figure is an old one.
        keys = await snapshot.split(reading, ranges)
    return [after, *keys, None]


def _sampled_share(plan: Plan, ranges: int) -> float | None:
    """How many percent of a table are looked at for so many ranges; None for all of it."""
    rows = plan.relation.estimated_rows
    if plan.relation.stored_bytes is None or not rows:
        return None
    share = max(ranges * _SAMPLED_PER_RANGE, count_blocks(ranges) * _SAMPLED_PER_BLOCK) / rows
    return None if share > _MOST_SAMPLED_SHARE else 100 * share


async def _spread_rest(
    found: Unfinished, plan: Plan, spread: Spread, snapshot: Snapshot
) -> tuple[Manifest, list[Block]]:
    """Go on with the blocks of a run that did not end; one that a single reader began becomes the first of them."""
    if found.manifest.blocks:
        return found.manifest, list(found.blocks)
    stored = [*_stored_blocks(found)]
    if found.is_extracted:
        return replace(found.manifest, block_chunks=tuple(block.chunks for block in stored)), stored
    rest = await _edges(plan, spread, snapshot, stored[-1].edges[-1])
    return found.manifest, [*stored, *cut(rest, len(stored), MOST_BLOCKS - len(stored))]


def _stored_blocks(found: Unfinished) -> Iterator[Block]:
    """What a single reader stored as blocks: one, unless it has more chunks than belong to one."""
    edge: tuple[str, ...] | None = None
    rejected = sum(record.rejected for record in found.records)  # all their pages have been numbered as the first's
    for start in range(0, len(found.records), BLOCK_CHUNKS):
        records = found.records[start : start + BLOCK_CHUNKS]
        is_end = found.is_extracted and start + len(records) == len(found.records)
        # Rows without a key are read by nobody again: where one of these blocks ends does not matter.
        end = None if is_end or None in records[-1].last_key else whole_key(records[-1].last_key)
        freed = min(len(records), max(0, found.manifest.chunks_freed - start))
        yield Block(
            block_of(start),
            (edge, end),
            "extracted",
            chunks=len(records),
            rejected=0 if start else rejected,
            freed=freed,
        )
        edge = end


def _to_do(blocks: Sequence[Block], found: Unfinished | None) -> tuple[int, ...]:
    """The blocks of which not everything is in the destination already."""
    left = by_block(found.to_load) if found is not None else {}
    return tuple(block.number for block in blocks if not block.is_extracted or block.number in left)


async def _write(
    staging: Staging, manifest: Manifest, blocks: Sequence[Block], found: Unfinished | None, report: Report
) -> None:
    """Write what every call looks for."""
    if found is not None:
        await _tidy_rejects(staging, manifest, found, report)
    ledger = Ledger(staging, manifest, found.records if found is not None else (), blocks)
    await ledger.flush()
    await each(partial(ledger.write_block, block.number) for block in blocks)
    # The manifest after what it counts.
    await ledger.write_manifest()
    await staging.note_run(manifest.run_id, manifest.document_ttl_seconds)


async def _tidy_rejects(staging: Staging, manifest: Manifest, found: Unfinished, report: Report) -> None:
    """Leave only the rejects of chunks that are not read or loaded again: those are told again."""
    if not found.manifest.blocks and any(record.rejected for record in found.records):
        rejects = RejectKeeper(staging, report, manifest, "extract")
        await rejects.take_up({record.number: record.rejected for record in found.records})
        await rejects.finish()
    # Where there is one loader for all, what it could not load it does not note as loaded.
    await staging.end_rejects(manifest.run_id, "load", manifest.blocks * BLOCK_REJECT_PAGES)


async def _hold_own(
    staging: Staging, manifest: Manifest, blocks: Sequence[Block], found: Unfinished, room: int
) -> tuple[list[Block], int]:
    """Free what is loaded of a run that is taken up, where all that it stores takes more than half of the room.

    Returns:
        Its blocks, and the bytes that it still stores.
    """
    named = by_block(found.records)
    alive = {block.number: named.get(block.number, [])[block.freed :] for block in blocks}
    stored = sum(record.bytes_stored for records in alive.values() for record in records)
    if stored <= room // 2:
        return list(blocks), stored
    left = []
    for block in blocks:
        # From the first one on without a gap: which are gone is kept as their number alone.
        loaded = list(takewhile(lambda record: record.number in found.loaded, alive[block.number]))
        for record in loaded:
            await staging.free_chunk(manifest, record)
        stored -= sum(record.bytes_stored for record in loaded)
        left.append(replace(block, freed=block.freed + len(loaded)))
    return left, stored


async def _make_room(earlier: Sequence[EarlierRun], staging: Staging, limit: int, *, but: str) -> int:
    """Free chunks of superseded runs, the oldest run's first, until they take at most half of what may be stored.

    Returns:
        The bytes that are left for this run.
    """
    stored = 0
    held: list[tuple[EarlierRun, int]] = []
    for run in earlier:
        manifest = run.manifest
        if manifest is None or run.run_id == but:
            continue
        alive = [record for record in run.records if record.stored_at + manifest.ttl_seconds > time.time()]
        held.append((run, sum(record.bytes_stored for record in alive)))
        stored += held[-1][1]
    while held and stored > limit // 2:
        run, size = held.pop()
        assert run.manifest is not None, "it was looked at above"
        for record in run.records:
            await staging.free_chunk(run.manifest, record)
        stored -= size
    return limit - stored
