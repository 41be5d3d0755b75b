"""The state store: one small on-demand DynamoDB table behind the port ``etlcli.ports.StateStore``.

boto3 in a thread does here: a run makes some calls a second, each a read with strong consistency or one atomic write.
Every write can be repeated after a lost answer: it sets what it is told to, adds to a set, or is conditional on a name
or a version that tells whether the first try was carried out.
"""

from __future__ import annotations

import asyncio
import heapq
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import fields
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from etlcli.errors import EtlError, UsageError
from etlcli.retry import RetryPolicy
from etlcli.sink.connect import connect
from etlcli.sink.names import check_table_name
from etlcli.sink.state_table import StateTable
from etlcli.sink.translate import Place
from etlcli.state import Held, Lease, LeaseRecord, Lost, Mark, RunRecord, Standing, Taken, Watermark, WatermarkEntry
from etlcli.state.history import dump_run, load_run
from etlcli.state.host import HostProcesses, steady_clock
from etlcli.state.layout import (
    EXPIRES,
    FORMAT,
    JOBS,
    LEASE,
    MARK,
    RUN,
    WATERMARK,
    hash_value,
    newer,
    progress_entry,
    run_entry,
)
from etlcli.state.lease import dump_lease, judge, load_lease, seems_abandoned
from etlcli.state.mark import dump_mark, load_mark
from etlcli.state.progress import CHUNKS_PER_PAGE, PROGRESS_SECONDS, chunks_by_page, load_progress
from etlcli.state.watermark import dump_watermark, load_watermark

if TYPE_CHECKING:
    from etlcli.progress import Counters
    from etlcli.sink.settings import DynamoDBSettings
    from etlcli.state import Claim, LeaseWatch, Processes

__all__ = ["DynamoDBState"]

T = TypeVar("T")

_PATIENT = RetryPolicy()
_JOBS_AT_ONCE = 8

# The deadline of one call: each reads or writes one small item, or a page of them. Whoever gives up on one waits no
# longer than this for its thread when the process ends.
_ANSWER_SECONDS = 3.0

# No run is held up for long for the sake of its history.
_HISTORY_SECONDS = 2.0

_NOT_NEWER = "attribute_not_exists(#format) OR #format <= :format"
_ABSENT = "attribute_not_exists(#entry)"
_NOT_OVER = "attribute_not_exists(#ended_at) OR #started_at < :started_at"


class DynamoDBState:
    """The state of many jobs in one table; an asynchronous context manager, which makes and asks nothing by itself.

    Args:
        settings: Where DynamoDB is, and as whom to talk to it.
        table: The table's name.
        counters: Kept up to date: retries, throttles.
        retry: The patience with a request that gets nowhere.
        processes: What is known of this machine's processes.
        clock: Seconds that never go back and pass while the machine sleeps; the one that a ``Lease`` counts by.
        wall: Seconds since 1970, UTC; for what people read.
    """

    def __init__(
        self,
        settings: DynamoDBSettings,
        table: str,
        counters: Counters,
        retry: RetryPolicy = _PATIENT,
        *,
        processes: Processes | None = None,
        clock: Callable[[], float] = steady_clock,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._name = table
        self._counters = counters
        self._retry = retry
        self._processes = processes or HostProcesses()
        self._clock = clock
        self._wall = wall
        self._indexed: set[str] = set()
        self._place = Place(table, "")
        self._open: StateTable | None = None
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Check the name, and find region, endpoint and credentials.

        Raises:
            UsageError: The name is not a valid table name.
            ConfigError: No region, no credentials or half of them, no such profile.
        """
        try:
            check_table_name(self._name)
        except UsageError as error:
            raise UsageError(
                f"{error.message} ([state] table)",
                hint="a table's name has 3 to 255 characters of A-Z, a-z, 0-9, _, - and .",
            ) from error
        connection = await asyncio.to_thread(connect, self._settings, _ANSWER_SECONDS)
        self._resources.callback(connection.client.close)
        self._place = Place(self._name, connection.address)
        self._open = StateTable(
            connection.client, self._place, self._counters, self._retry, connection.credentials, self._clock
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = None
        await self._resources.aclose()

    @property
    def table(self) -> str:
        """The table's name."""
        return self._name

    async def prepare(self) -> bool:
        """See to it that the table is there and has the right key; answer whether it was made now.

        Raises:
            UsageError: It has another key.
            SinkError: It cannot be made; the message says what works without it.
        """
        return await self._table.ensure()

    # Leases

    async def acquire(self, job: str, claim: Claim, watch: LeaseWatch) -> Taken | Held:
        """Try once to take a job's lease; see the port."""
        await self._table.ensure()
        while True:
            seen = await self._table.get(hash_value(job), LEASE)
            record = None if seen.item is None else load_lease(seen.item, self._what("the lease", job))
            unchanged = 0.0
            if record is not None:
                unchanged = watch.look(record, asked_at=seen.asked_at, answered_at=seen.answered_at)
            standing = judge(record, claim, unchanged, dead=await self._is_dead(record))
            if standing is Standing.HELD:
                assert record is not None
                left = max(0.0, record.period_seconds - unchanged)
                return Held(job, record, left, seems_abandoned(record, watch, self._wall()))
            lease = await self._take(job, claim, record, standing)
            if lease is not None:
                return Taken(lease, standing, record)
            # Somebody was faster, or it was given back meanwhile: look again.

    async def renew(self, lease: Lease) -> Lease | Lost:
        """Renew a lease; see the port. It gives up after half of the lease's period at the latest."""
        renewed_at = await self._extend(lease.job, lease.holder, lease.period_seconds, hurry=True)
        if renewed_at is not None:
            return Lease(lease.job, lease.holder, lease.period_seconds, renewed_at)
        try:
            found = await self._table.get(hash_value(lease.job), LEASE, hurry_seconds=lease.period_seconds / 6)
            taken_by = None if found.item is None else load_lease(found.item, self._what("the lease", lease.job))
        except EtlError:
            taken_by = None  # it is lost all the same, and that must be known now
        return Lost(lease.job, taken_by)

    async def release(self, lease: Lease) -> bool:
        """Give a lease back; answer whether it was still ours. It gives up as early as ``renew``."""
        answer = await self._table.delete(
            hash_value(lease.job),
            LEASE,
            "#holder = :holder",
            {"holder": lease.holder},
            hurry_seconds=lease.period_seconds / 6,
        )
        return answer.done

    async def fetch_lease(self, job: str) -> LeaseRecord | None:
        """Look at a job's lease; None where nobody has it."""
        if not await self._table.is_there():
            return None
        found = await self._table.get(hash_value(job), LEASE)
        return None if found.item is None else load_lease(found.item, self._what("the lease", job))

    async def _is_dead(self, record: LeaseRecord | None) -> bool:
        if record is None or record.process is None:
            return False
        return await asyncio.to_thread(self._processes.is_dead, record.process)

    async def _take(self, job: str, claim: Claim, before: LeaseRecord | None, standing: Standing) -> Lease | None:
        """Carry out what was decided, if the lease is still as it was seen; None where it is not."""
        if standing is Standing.OURS:
            taken_at = await self._extend(job, claim.holder, claim.period_seconds, hurry=False)
        else:
            when, values = _ABSENT, {}
            if before is not None:
                when = "#holder = :holder AND #renewals = :renewals"
                values = {"holder": before.holder, "renewals": before.renewals}
            record = LeaseRecord.of(claim, self._wall())
            answer = await self._table.put({"job": hash_value(job), "entry": LEASE, **dump_lease(record)}, when, values)
            taken_at = answer.asked_at if answer.done else None
        return None if taken_at is None else Lease(job, claim.holder, claim.period_seconds, taken_at)

    async def _extend(self, job: str, holder: str, period_seconds: float, *, hurry: bool) -> float | None:
        """Renew; answer when the request was sent, or None where the lease is not this holder's."""
        answer = await self._table.update(
            hash_value(job),
            LEASE,
            "SET #expires_at = :expires_at ADD #renewals :one",
            {"expires_at": self._wall() + period_seconds, "one": 1, "holder": holder},
            when="#holder = :holder",
            hurry_seconds=period_seconds / 6 if hurry else None,
        )
        return answer.asked_at if answer.done else None

    # Progress

    async def acknowledge(self, job: str, run_id: str, chunks: Iterable[int]) -> None:
        """Note that these chunks are in the destination; see the port."""
        await self._table.ensure()
        expires = int(self._wall()) + PROGRESS_SECONDS
        for page, places in sorted(chunks_by_page(chunks).items()):
            answer = await self._table.update(
                hash_value(job),
                progress_entry(run_id, page),
                # Adding to a set is atomic and can be done twice: two writers lose nothing of each other's.
                f"SET #format = :format, #{EXPIRES} = :expires ADD #chunks :places",
                {"format": FORMAT, "expires": expires, "places": places},
                when=_NOT_NEWER,
            )
            if not answer.done:
                raise newer(self._what("the progress", job), f"over {FORMAT}")

    async def fetch_progress(self, job: str, run_id: str, among: range | None = None) -> frozenset[int]:
        """The numbers of all chunks that were noted before this call; see the port."""
        if not await self._table.is_there():
            return frozenset()
        if among is None:
            pages = await self._table.query(hash_value(job), progress_entry(run_id))
        else:
            ends = (progress_entry(run_id, among[place] // CHUNKS_PER_PAGE) for place in (0, -1))
            pages = await self._table.query(hash_value(job), between=tuple(ends))
        what = self._what("the progress", job)
        noted = frozenset(number for page in pages for number in load_progress(page, what))
        return noted if among is None else noted.intersection(among)

    async def clear_progress(self, job: str, run_id: str) -> None:
        """Forget a run's progress; harmless where there is none."""
        if not await self._table.is_there():
            return
        for page in await self._table.query(hash_value(job), progress_entry(run_id)):
            await self._table.delete(page["job"], page["entry"])

    # History

    async def put_run(self, record: RunRecord) -> None:
        """Write a run's history, in place of what was known of this run; see the port.

        It gives up early, for a run that is over waits for it.
        """
        await self._table.ensure(hurry_seconds=_HISTORY_SECONDS)
        if record.job not in self._indexed:
            # Before the run itself: a job without runs does no harm, a run that is in no list does.
            entry = {"job": JOBS, "entry": record.job, "format": FORMAT}
            await self._table.put(entry, hurry_seconds=_HISTORY_SECONDS)
            self._indexed.add(record.job)
        item = {"job": hash_value(record.job), "entry": run_entry(record.run_id), **dump_run(record)}
        when = _NOT_NEWER
        values: dict[str, int | float] = {"format": FORMAT}
        if record.ended_at is None:
            # A try that was given up may arrive late, after the run's end was written.
            when = f"({_NOT_NEWER}) AND ({_NOT_OVER})"
            values["started_at"] = record.started_at
        answer = await self._table.put(item, when, values, hurry_seconds=_HISTORY_SECONDS)
        if answer.done:
            return
        if record.ended_at is None and await self.fetch_run(record.job, record.run_id) is not None:
            return
        raise newer(self._what(f"run {record.run_id}", record.job), f"over {FORMAT}")

    async def fetch_run(self, job: str | None, run_id: str) -> RunRecord | None:
        """One run's history, of a job or of whichever has it; None where there is none."""
        if not await self._table.is_there():
            return None
        if job is not None:
            return await self._run_of(job, run_id)
        found = await self._of_all_jobs(lambda name: self._run_of(name, run_id))
        return next((run for run in found if run is not None), None)

    async def fetch_runs(self, job: str | None, limit: int) -> list[RunRecord]:
        """At most ``limit`` runs of one job, or of all of them, the newest first."""
        if limit < 1 or not await self._table.is_there():
            return []
        if job is not None:
            return await self._runs_of(job, limit)
        runs = [run for found in await self._of_all_jobs(lambda name: self._runs_of(name, limit)) for run in found]
        return heapq.nlargest(limit, runs, key=lambda run: (run.run_id, run.job))

    async def fetch_jobs(self) -> list[str]:
        """The names of all jobs that ever had a history, in order."""
        if not await self._table.is_there():
            return []
        return [entry["entry"] for entry in await self._table.query(JOBS)]

    async def _of_all_jobs(self, ask: Callable[[str], Awaitable[T]]) -> list[T]:
        gate = asyncio.Semaphore(_JOBS_AT_ONCE)

        async def within(name: str) -> T:
            async with gate:
                return await ask(name)

        return await asyncio.gather(*[within(name) for name in await self.fetch_jobs()])

    async def _run_of(self, job: str, run_id: str) -> RunRecord | None:
        found = await self._table.get(hash_value(job), run_entry(run_id))
        return None if found.item is None else load_run(found.item, job, self._what(f"run {run_id}", job))

    async def _runs_of(self, job: str, limit: int) -> list[RunRecord]:
        found = await self._table.query(hash_value(job), RUN, limit=limit, backwards=True)
        return [load_run(item, job, self._what(item["entry"].replace("#", " ", 1), job)) for item in found]

    # Watermarks

    async def fetch_watermark(self, job: str) -> WatermarkEntry:
        """A job's watermark, with the version that ``move_watermark`` wants to hear."""
        if not await self._table.is_there():
            return WatermarkEntry()
        found = await self._table.get(hash_value(job), WATERMARK)
        if found.item is None:
            return WatermarkEntry()
        return load_watermark(found.item, self._what("the watermark", job))

    async def move_watermark(self, job: str, watermark: Watermark, expected_version: int) -> bool:
        """Set a job's watermark, if it is still at that version; see the port."""
        await self._table.ensure()
        entry = WatermarkEntry(expected_version + 1, watermark)
        item = {"job": hash_value(job), "entry": WATERMARK, **dump_watermark(entry)}
        if expected_version:
            answer = await self._table.put(item, "#version = :version", {"version": expected_version})
        else:
            answer = await self._table.put(item, _ABSENT)
        # The answer to a try that was carried out may have been lost: the next one then finds its own work.
        return answer.done or await self.fetch_watermark(job) == entry

    async def reset_watermark(self, job: str) -> None:
        """Forget a job's watermark, but not how often it was moved."""
        if not await self._table.is_there():
            return
        answer = await self._table.update(
            hash_value(job),
            WATERMARK,
            f"SET #format = :format REMOVE {', '.join(f'#{it.name}' for it in fields(Watermark))} ADD #version :one",
            {"format": FORMAT, "one": 1},
            when=_NOT_NEWER,
        )
        if not answer.done:
            raise newer(self._what("the watermark", job), f"over {FORMAT}")

    # Marks

    async def fetch_mark(self, job: str) -> Mark | None:
        """A job's mark; None where it never ran in this mode."""
        if not await self._table.is_there():
            return None
        found = await self._table.get(hash_value(job), MARK)
        return None if found.item is None else load_mark(found.item, self._what("the mark", job))

    async def ensure_mark(self, job: str) -> Mark:
        """A job's mark, which is made where there is none."""
        await self._table.ensure()
        while (found := await self.fetch_mark(job)) is None:
            mark = Mark(secrets.token_hex(6), self._wall())
            await self._table.put({"job": hash_value(job), "entry": MARK, **dump_mark(mark)}, _ABSENT)
        return found

    @property
    def _table(self) -> StateTable:
        assert self._open is not None, "the state store is used outside of `async with`"
        return self._open

    def _what(self, entry: str, job: str) -> str:
        return f"{entry} of {job} in {self._place}"
