"""The in-memory cache: what the core's tests stage in. Held to the port by ``test_cache_contract.py``."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Self

from etlcli.config.names import NAME_RULE, is_valid_name
from etlcli.errors import CacheError, EtlError, TooLarge, UsageError

ITEM_BYTES = 5_000_000
ELEMENT_BYTES = 128 * 1024
TTL_SECONDS = 24 * 60 * 60


class Entry(NamedTuple):
    """A value, when it expires, and for how many reads what was there before is still found."""

    value: bytes
    expires_at: float
    lag: int
    before: bytes | None


class Call(NamedTuple):
    """A call, as a test looks at it: ``set``, ``get``, ``delete``, ``ensure``, and the key."""

    name: str
    key: str


@dataclass
class FakeAccount:
    """Caches by name, and what befalls all calls to them.

    Attributes:
        caches: What they hold.
        clock: The time that entries expire by.
        lag: How many reads of a newly written key still find what was there before: eventual consistency.
        fault: Asked before each call; what it returns is raised.
        loses_answers: Whether a write that fails was carried out all the same, and only its answer lost.
        item_bytes: What one value may take.
        calls: All calls, in order.
        in_flight: Calls that are being answered just now.
        peak: The most that there were at once.
        peak_bytes: The most bytes of values that were stored at once.
    """

    caches: dict[str, dict[str, Entry]] = field(default_factory=dict)
    clock: Callable[[], float] = time.time
    lag: int = 0
    fault: Callable[[Call], EtlError | None] | None = None
    loses_answers: bool = False
    item_bytes: int = ITEM_BYTES
    calls: list[Call] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    peak_bytes: int = 0

    def named(self, name: str) -> list[str]:
        """The keys of all calls of this name, in order."""
        return [call.key for call in self.calls if call.name == name]

    def values(self, cache: str) -> dict[str, bytes]:
        """What a cache holds, as a reader who waits long enough finds it."""
        return {key: entry.value for key, entry in self.caches[cache].items() if entry.expires_at > self.clock()}


class FakeCache:
    """One cache of an account; caches that share an account see each other's entries."""

    def __init__(self, name: str = "movies", account: FakeAccount | None = None) -> None:
        self._name = name
        self.account = account if account is not None else FakeAccount()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    @property
    def name(self) -> str:
        return self._name

    async def ensure(self) -> bool:
        await self._called("ensure", "")
        if not is_valid_name(self._name):
            raise UsageError(f"{self._name!r} is no name of a cache", hint=f"A cache's name has {NAME_RULE}.")
        made = self._name not in self.account.caches
        self.account.caches.setdefault(self._name, {})
        return made

    async def exists(self) -> bool:
        await self._called("exists", "")
        return self._name in self.account.caches

    async def get(self, key: str) -> bytes | None:
        await self._called("get", key)
        entries = self._entries()
        entry = entries.get(key)
        if entry is None:
            return None
        if entry.lag:
            entries[key] = entry._replace(lag=entry.lag - 1)
            return entry.before
        return entry.value if entry.expires_at > self.account.clock() else None

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        lost = await self._called("set", key)
        entries = self._entries()
        if len(value) > self.account.item_bytes:
            raise TooLarge(f"{key} in cache {self._name!r} has {len(value):,} bytes", hint="Split it.")
        if not 0 < ttl_seconds <= TTL_SECONDS:
            raise CacheError(f"a time to live of {ttl_seconds} s is not possible", hint="At most 24 hours.")
        before = entries.get(key)
        entries[key] = Entry(
            value, self.account.clock() + ttl_seconds, self.account.lag, None if before is None else before.value
        )
        stored = sum(len(entry.value) for entry in entries.values())
        self.account.peak_bytes = max(self.account.peak_bytes, stored)
        if lost is not None:
            raise lost

    async def get_dictionary(self, key: str) -> dict[str, bytes] | None:
        value = await self.get(key)
        return None if value is None else {name: bytes.fromhex(text) for name, text in json.loads(value).items()}

    async def set_dictionary(self, key: str, fields: Mapping[str, bytes], ttl_seconds: float) -> None:
        if any(len(value) > ELEMENT_BYTES for value in fields.values()):
            raise TooLarge(f"a field of {key} is over {ELEMENT_BYTES:,} bytes", hint="Split it.")
        # As one value: what matters to the core is that all of it is there or none.
        await self.set(key, json.dumps({name: value.hex() for name, value in fields.items()}).encode(), ttl_seconds)

    async def delete(self, key: str) -> None:
        lost = await self._called("delete", key)
        self._entries().pop(key, None)
        if lost is not None:
            raise lost

    def _entries(self) -> dict[str, Entry]:
        if self._name not in self.account.caches:
            raise CacheError(f"there is no cache {self._name!r}", hint="momento-etl extract makes it.")
        return self.account.caches[self._name]

    async def _called(self, name: str, key: str) -> EtlError | None:
        account = self.account
        call = Call(name, key)
        account.calls.append(call)
        account.in_flight += 1
        account.peak = max(account.peak, account.in_flight)
        try:
            await asyncio.sleep(0)  # others get their turn, as with every call over a wire
        finally:
            account.in_flight -= 1
        error = None if account.fault is None else account.fault(call)
        if error is not None and not (account.loses_answers and name in ("set", "delete")):
            raise error
        return error
