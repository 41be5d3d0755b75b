"""What stands in for a run's cache, table and state while it is rehearsed: read where reading tells, never written."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import repeat

from etlcli.cache import documents
from etlcli.cache.metering import metered
from etlcli.capacity import write_units
from etlcli.errors import EtlError
from etlcli.forecast.figures import Kind, Tally
from etlcli.model import CreateOptions, ItemMark, Key, Reject, Survey
from etlcli.ports import Cache, Refusal, Sink, StateStore, StoredItem, TableSize
from etlcli.progress import Counters
from etlcli.state import (
    Claim,
    Lease,
    LeaseRecord,
    LeaseWatch,
    Mark,
    NullState,
    RunRecord,
    Taken,
    Watermark,
    WatermarkEntry,
)

__all__ = ["RehearsedCache", "RehearsedSink", "RehearsedState"]

_REJECT = Reject("", "", {})


class RehearsedCache:
    """A cache in memory, in front of one that is read only. It counts what Momento would, like the real one's adapter.

    A chunk is forgotten once it was read, and rejects are at once, but for their number: so what is held does not grow
    with the table.

    Args:
        name: The cache's name.
        cache: The cache itself, for what earlier runs left there; None where it cannot be looked at: then there is
            nothing.
        counters: Where calls and metered operations are counted.

    Attributes:
        tallies: The same, by what they are for.
        peak_bytes: The most that was held at once.
        problem: Why the cache itself could not be looked at; None where it could, or needed not.
    """

    def __init__(self, name: str, cache: Cache | None, counters: Counters) -> None:
        self._name = name
        self._cache = cache
        self._counters = counters
        self._values: dict[str, bytes] = {}
        self._dictionaries: dict[str, Mapping[str, bytes]] = {}
        self._rejects: dict[str, tuple[int, int]] = {}
        self._held = 0
        self.tallies: dict[Kind, Tally] = {"chunk": Tally(), "ledger": Tally(), "rejects": Tally(), "run": Tally()}
        self.peak_bytes = 0
        self.problem: str | None = None

    @property
    def name(self) -> str:
        """The cache's name."""
        return self._name

    async def ensure(self) -> bool:
        """It is there now; answer whether it would have been made."""
        await self._count("run", 1)
        try:
            is_there = self._cache is not None and await self._cache.exists()
        except EtlError as error:
            self.problem, is_there = error.message, False
        if not is_there:
            self._cache = None
        return not is_there

    async def exists(self) -> bool:
        """It is there."""
        await self._count("run", 1)
        return True

    async def get(self, key: str) -> bytes | None:
        """The value under a key, or None for a miss."""
        kind = _kind(key)
        if kind == "rejects" and key in self._rejects:
            count, size = self._rejects[key]
            await self._count(kind, metered(size))
            return documents.dump_rejects(list(repeat(_REJECT, count)))
        value = self._values.get(key)
        if value is None and self._cache is not None:
            value = await self._cache.get(key)
        await self._count(kind, metered(len(key.encode() if value is None else value)))
        if kind == "chunk" and key in self._values:
            self._hold(-len(self._values.pop(key)))
        return value

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:  # noqa: ARG002  the port's
        """Count a value, and hold it where somebody will read it."""
        kind = _kind(key)
        await self._count(kind, metered(len(value)))
        if kind == "rejects":
            self._rejects[key] = len(documents.load_rejects(value, key)), len(value)
        elif kind != "ledger":  # which a run does not read back
            self._hold(len(value) - len(self._values.get(key, b"")))
            self._values[key] = value

    async def get_dictionary(self, key: str) -> dict[str, bytes] | None:
        """The fields of a dictionary, or None for a miss."""
        fields = self._dictionaries.pop(key, None)
        if fields is None:
            await self._count(_kind(key), metered(len(key.encode())))
            return None
        await self._count(_kind(key), sum(metered(len(value)) for value in fields.values()))
        self._hold(-_size(fields))
        return dict(fields)

    async def set_dictionary(self, key: str, fields: Mapping[str, bytes], ttl_seconds: float) -> None:  # noqa: ARG002
        """Count a dictionary, and hold it until it is read."""
        await self._count(_kind(key), sum(metered(len(value)) for value in fields.values()))
        self._hold(_size(fields))
        self._dictionaries[key] = fields

    async def delete(self, key: str) -> None:
        """Count a removal; what could be removed here was read, and so is gone."""
        await self._count(_kind(key), metered(len(key.encode())))

    async def _count(self, kind: Kind, operations: int) -> None:
        calls, before = self.tallies[kind]
        self.tallies[kind] = Tally(calls + 1, before + operations)
        self._counters.momento_calls += 1
        self._counters.momento_operations += operations
        await asyncio.sleep(0)  # others get their turn, as with every call over a wire

    def _hold(self, size: int) -> None:
        self._held += size
        self.peak_bytes = max(self.peak_bytes, self._held)


class RehearsedSink:
    """A destination table that is looked at and not written.

    Args:
        table: The table's name.
        sink: The table itself; None where it cannot be looked at.
        counters: Where items are counted as loaded.

    Attributes:
        write_units: What the items would cost.
        item_bytes: Bytes of the items as DynamoDB JSON.
    """

    def __init__(self, table: str, sink: Sink | None, counters: Counters) -> None:
        self._table = table
        self._sink = sink
        self._counters = counters
        self.write_units = 0
        self.item_bytes = 0

    @property
    def table(self) -> str:
        """The table's name."""
        return self._table

    @property
    def request_seconds(self) -> float:
        """Nothing is sent."""
        return 0.0

    async def key(self) -> Key | None:
        """The key of the table itself."""
        return None if self._sink is None else await self._sink.key()

    async def identity(self) -> str:
        """The table's name: nothing is kept under it."""
        return self._table

    def heed(self, may_send: Callable[[], None]) -> None:
        """Nothing is sent."""

    async def create(self, key: Key, options: CreateOptions) -> None:
        """Make nothing."""

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        """Count what the items would cost: DynamoDB refuses none that was encoded."""
        await asyncio.sleep(0)
        self._counters.rows_loaded += len(items)
        self.item_bytes += sum(map(len, items))
        self.write_units += write_units(items)
        return []

    async def fetch(self, keys: Sequence[bytes]) -> list[StoredItem | None]:
        """Find nothing: what is there, an earlier run wrote."""
        return [None] * len(keys)

    async def scan_keys(self, mark: ItemMark | None = None) -> AsyncIterator[list[StoredItem]]:  # noqa: ARG002
        """Find nothing."""
        yield []

    async def survey(self, mark: ItemMark) -> Survey:  # noqa: ARG002
        """Find nothing: what an earlier run left, only a scan could tell."""
        return Survey(0, 0)

    async def spare(self, keys: Sequence[bytes], mark: ItemMark) -> int:  # noqa: ARG002
        """Mark nothing."""
        return 0

    async def sweep(self, mark: ItemMark) -> int:  # noqa: ARG002
        """Remove nothing."""
        return 0

    async def estimate(self) -> TableSize | None:
        """What DynamoDB says of the table itself."""
        return None if self._sink is None else await self._sink.estimate()


class RehearsedState:
    """A state store that is read and not written: every write succeeds, and is forgotten.

    Args:
        state: The store itself.
    """

    def __init__(self, state: StateStore) -> None:
        self._state = state
        self._nothing = NullState()

    @property
    def table(self) -> str | None:
        """The table's name."""
        return self._state.table

    async def prepare(self) -> bool:
        """Nothing is made."""
        return False

    async def acquire(self, job: str, claim: Claim, watch: LeaseWatch) -> Taken:
        """Grant a lease that means nothing: a rehearsal is in nobody's way."""
        return await self._nothing.acquire(job, claim, watch)

    async def renew(self, lease: Lease) -> Lease:
        """The same lease."""
        return lease

    async def release(self, lease: Lease) -> bool:
        """There is nothing to release."""
        return await self._nothing.release(lease)

    async def fetch_lease(self, job: str) -> LeaseRecord | None:
        """Who has the job's lease."""
        return await self._state.fetch_lease(job)

    async def fetch_progress(self, job: str, run_id: str, among: range | None = None) -> frozenset[int]:
        """The chunks of a run that are in the destination."""
        return await self._state.fetch_progress(job, run_id, among)

    async def acknowledge(self, job: str, run_id: str, chunks: Iterable[int]) -> None:
        """Forget it."""

    async def clear_progress(self, job: str, run_id: str) -> None:
        """Forget nothing."""

    async def put_run(self, record: RunRecord) -> None:
        """Forget it."""

    async def fetch_run(self, job: str | None, run_id: str) -> RunRecord | None:
        """One run's history."""
        return await self._state.fetch_run(job, run_id)

    async def fetch_runs(self, job: str | None, limit: int) -> list[RunRecord]:
        """The newest runs."""
        return await self._state.fetch_runs(job, limit)

    async def fetch_jobs(self) -> list[str]:
        """The jobs that have a history."""
        return await self._state.fetch_jobs()

    async def fetch_watermark(self, job: str) -> WatermarkEntry:
        """A job's watermark."""
        return await self._state.fetch_watermark(job)

    async def move_watermark(self, job: str, watermark: Watermark, expected_version: int) -> bool:  # noqa: ARG002
        """Forget it."""
        return True

    async def reset_watermark(self, job: str) -> None:
        """Reset nothing."""

    async def fetch_mark(self, job: str) -> Mark | None:
        """A job's mark."""
        return await self._state.fetch_mark(job)

    async def ensure_mark(self, job: str) -> Mark:
        """A job's mark, or one that is as long as the one that would be made."""
        return await self._state.fetch_mark(job) or Mark("0" * 12, time.time())


def _kind(key: str) -> Kind:
    """Tell by its name what an entry is: ``JOB/RUN/chunk/7`` (see ``etlcli.cache.staging``)."""
    match key.split("/", 3)[2:3]:
        case ["chunk"]:
            return "chunk"
        case ["ledger"]:
            return "ledger"
        case ["rejects"]:
            return "rejects"
        case _:
            return "run"


def _size(fields: Mapping[str, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in fields.items())
