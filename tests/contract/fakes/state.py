"""The in-memory state store, for the core's tests. Held to the port by ``test_state_contract.py``."""

from __future__ import annotations

import asyncio
import copy
import heapq
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from etlcli.errors import EtlError, SinkError, UsageError
from etlcli.model import Key
from etlcli.sink.names import check_table_name
from etlcli.state import (
    DEFAULT_STATE_TABLE,
    STATE_KEY,
    Claim,
    Held,
    Lease,
    LeaseRecord,
    LeaseWatch,
    Lost,
    Mark,
    Process,
    Processes,
    RunRecord,
    Standing,
    Taken,
    Watermark,
    WatermarkEntry,
)
from etlcli.state.history import dump_run, load_run
from etlcli.state.layout import (
    FORMAT,
    JOBS,
    LEASE,
    MARK,
    RUN,
    WATERMARK,
    hash_value,
    is_newer,
    newer,
    progress_entry,
    run_entry,
)
from etlcli.state.lease import dump_lease, judge, load_lease, seems_abandoned
from etlcli.state.mark import dump_mark, load_mark
from etlcli.state.progress import chunks_by_page, load_progress
from etlcli.state.watermark import dump_watermark, load_watermark

Item = dict[str, Any]


class Nobody:
    """A machine of which nothing is known."""

    def is_dead(self, process: Process) -> bool:  # noqa: ARG002
        return False


@dataclass
class FakeStateTable:
    key: Key = STATE_KEY
    items: dict[tuple[str, str], Item] = field(default_factory=dict)


class FakeState:
    """One table of an account of tables; stores that share an account see each other's entries.

    ``errors`` are raised by the next calls, one each, before anything is read or written. ``creatable`` says whether a
    missing table can be made.
    """

    def __init__(
        self,
        table: str = DEFAULT_STATE_TABLE,
        account: dict[str, FakeStateTable] | None = None,
        *,
        processes: Processes | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        creatable: bool = True,
        errors: Iterable[EtlError] = (),
    ) -> None:
        self._table = table
        self.account = account if account is not None else {}
        self.processes = processes or Nobody()
        self.clock = clock
        self.wall = wall
        self.creatable = creatable
        self.errors = list(errors)
        self._known = False

    async def __aenter__(self) -> Self:
        check_table_name(self._table)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def table(self) -> str:
        return self._table

    async def prepare(self) -> bool:
        if await self._is_there():
            return False
        if not self.creatable:
            raise SinkError("the state table cannot be made", hint="[state] enabled = false")
        self.account[self._table] = FakeStateTable()
        self._known = True
        return True

    async def acquire(self, job: str, claim: Claim, watch: LeaseWatch) -> Taken | Held:
        await self.prepare()
        while True:
            asked_at = self.clock()
            item = await self._get(job, LEASE)
            record = None if item is None else load_lease(item, f"the lease of {job}")
            unchanged = 0.0
            if record is not None:
                unchanged = watch.look(record, asked_at=asked_at, answered_at=self.clock())
            dead = record is not None and record.process is not None and self.processes.is_dead(record.process)
            standing = judge(record, claim, unchanged, dead=dead)
            if standing is Standing.HELD:
                assert record is not None
                left = max(0.0, record.period_seconds - unchanged)
                return Held(job, record, left, seems_abandoned(record, watch, self.wall()))
            await asyncio.sleep(0)  # here others come in between
            now = await self._get(job, LEASE)
            if now != item:
                continue
            lease = Lease(job, claim.holder, claim.period_seconds, self.clock())
            if standing is Standing.OURS:
                assert await self._extend(lease)
            else:
                self._put(job, LEASE, dump_lease(LeaseRecord.of(claim, self.wall())))
            return Taken(lease, standing, record)

    async def renew(self, lease: Lease) -> Lease | Lost:
        renewed_at = self.clock()
        if await self._extend(lease):
            return Lease(lease.job, lease.holder, lease.period_seconds, renewed_at)
        return Lost(lease.job, await self.fetch_lease(lease.job))

    async def release(self, lease: Lease) -> bool:
        item = await self._get(lease.job, LEASE)
        if item is None or item["holder"] != lease.holder:
            return False
        del self._items[hash_value(lease.job), LEASE]
        return True

    async def fetch_lease(self, job: str) -> LeaseRecord | None:
        item = await self._get(job, LEASE)
        return None if item is None else load_lease(item, f"the lease of {job}")

    async def acknowledge(self, job: str, run_id: str, chunks: Iterable[int]) -> None:
        await self.prepare()
        for page, places in chunks_by_page(chunks).items():
            entry = progress_entry(run_id, page)
            item = await self._get(job, entry, of_any_format=False) or {"format": FORMAT, "chunks": set()}
            self._put(job, entry, {**item, "chunks": item["chunks"] | places})

    async def fetch_progress(self, job: str, run_id: str, among: range | None = None) -> frozenset[int]:
        pages = await self._query(job, progress_entry(run_id))
        noted = frozenset(number for page in pages for number in load_progress(page, f"the progress of {job}"))
        return noted if among is None else noted.intersection(among)

    async def clear_progress(self, job: str, run_id: str) -> None:
        for page in await self._query(job, progress_entry(run_id)):
            del self._items[page["job"], page["entry"]]

    async def put_run(self, record: RunRecord) -> None:
        await self.prepare()
        known = await self._get(record.job, run_entry(record.run_id), of_any_format=False) or {}
        if record.ended_at is None and "ended_at" in known and known["started_at"] >= record.started_at:
            return
        self._items[JOBS, record.job] = {"job": JOBS, "entry": record.job, "format": FORMAT}
        self._put(record.job, run_entry(record.run_id), dump_run(record))

    async def fetch_run(self, job: str | None, run_id: str) -> RunRecord | None:
        if not await self._is_there():
            return None
        for name in self._jobs() if job is None else [job]:
            item = await self._get(name, run_entry(run_id))
            if item is not None:
                return load_run(item, name, f"run {run_id} of {name}")
        return None

    async def fetch_runs(self, job: str | None, limit: int) -> list[RunRecord]:
        if limit < 1 or not await self._is_there():
            return []
        jobs = self._jobs() if job is None else [job]
        runs = [load_run(item, name, f"a run of {name}") for name in jobs for item in await self._query(name, RUN)]
        return heapq.nlargest(limit, runs, key=lambda run: (run.run_id, run.job))

    async def fetch_jobs(self) -> list[str]:
        return sorted(self._jobs()) if await self._is_there() else []

    async def fetch_watermark(self, job: str) -> WatermarkEntry:
        item = await self._get(job, WATERMARK)
        return WatermarkEntry() if item is None else load_watermark(item, f"the watermark of {job}")

    async def move_watermark(self, job: str, watermark: Watermark, expected_version: int) -> bool:
        await self.prepare()
        if (await self.fetch_watermark(job)).version != expected_version:
            return False
        self._put(job, WATERMARK, dump_watermark(WatermarkEntry(expected_version + 1, watermark)))
        return True

    async def reset_watermark(self, job: str) -> None:
        if await self._is_there():
            entry = await self.fetch_watermark(job)
            self._put(job, WATERMARK, dump_watermark(WatermarkEntry(entry.version + 1)))

    async def fetch_mark(self, job: str) -> Mark | None:
        item = await self._get(job, MARK)
        return None if item is None else load_mark(item, f"the mark of {job}")

    async def ensure_mark(self, job: str) -> Mark:
        await self.prepare()
        found = await self.fetch_mark(job)
        if found is None:
            found = Mark(secrets.token_hex(6), self.wall())
            self._put(job, MARK, dump_mark(found))
        return found

    def _jobs(self) -> list[str]:
        return [entry for name, entry in self._items if name == JOBS]

    async def _extend(self, lease: Lease) -> bool:
        item = await self._get(lease.job, LEASE)
        if item is None or item["holder"] != lease.holder:
            return False
        expires_at = self.wall() + lease.period_seconds
        self._put(lease.job, LEASE, {**item, "renewals": item["renewals"] + 1, "expires_at": expires_at})
        return True

    @property
    def _items(self) -> dict[tuple[str, str], Item]:
        if self._table not in self.account:
            raise SinkError(
                f"the state table is gone: table {self._table} was deleted while it was in use", hint="Again"
            )
        return self.account[self._table].items

    async def _is_there(self) -> bool:
        await asyncio.sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        if self._known:
            return True
        table = self.account.get(self._table)
        if table is not None and table.key != STATE_KEY:
            raise UsageError(f"table {self._table} has another key: {table.key}, not {STATE_KEY}", hint="Another table")
        self._known = table is not None
        return self._known

    async def _get(self, job: str, entry: str, *, of_any_format: bool = True) -> Item | None:
        if not await self._is_there():
            return None
        item = self._items.get((hash_value(job), entry))
        if item is not None and is_newer(item) and not of_any_format:
            raise newer(f"{entry} of {job}", item["format"])
        return copy.deepcopy(item)

    async def _query(self, job: str, prefix: str) -> list[Item]:
        if not await self._is_there():
            return []
        wanted = hash_value(job)
        found = [
            copy.deepcopy(item)
            for (name, entry), item in self._items.items()
            if name == wanted and entry.startswith(prefix)
        ]
        return sorted(found, key=lambda item: item["entry"])

    def _put(self, job: str, entry: str, item: Item) -> None:
        self._items[hash_value(job), entry] = {**copy.deepcopy(item), "job": hash_value(job), "entry": entry}
