"""The in-memory sink: what the core's tests load into. Held to the port by ``test_sink_contract.py``."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson

from etlcli.errors import EtlError, SinkError
from etlcli.model import CreateOptions, ItemMark, Key, Survey
from etlcli.ports import Refusal, StoredItem, TableSize
from etlcli.progress import Counters
from etlcli.sink.names import check_table_name

ITEM_BYTES = 400 * 1024
SCAN_PAGE = 1000


@dataclass
class FakeTable:
    key: Key
    options: CreateOptions = field(default_factory=CreateOptions)
    items: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)
    number: int = field(default_factory=itertools.count().__next__)
    written: int = 0  # items, as often as they were written


class FakeSink:
    """One table of an account of tables; sinks that share an account see each other's tables.

    ``errors`` are raised by the next calls of ``put``, one each, before anything is written. ``refuse`` says why an
    item is refused, or None. ``gate``, where it is set, holds every ``put`` until it opens. ``meanwhile``, where it is
    set, is called by ``sweep`` between its look at the table and the first item that it removes.
    """

    def __init__(
        self,
        table: str = "movies",
        counters: Counters | None = None,
        account: dict[str, FakeTable] | None = None,
        *,
        refuse: Callable[[dict[str, Any]], str | None] | None = None,
        errors: Sequence[EtlError] = (),
    ) -> None:
        self._table = table
        self.counters = counters if counters is not None else Counters()
        self.account = account if account is not None else {}
        self.refuse = refuse
        self.errors = list(errors)
        self.gate: asyncio.Event | None = None
        self.may_send: Callable[[], None] = lambda: None
        self.meanwhile: Callable[[], None] | None = None
        self.puts: list[int] = []

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

    @property
    def request_seconds(self) -> float:
        return 20.0

    @property
    def items(self) -> list[dict[str, Any]]:
        return list(self._existing().items.values())

    async def key(self) -> Key | None:
        table = self.account.get(self._table)
        return None if table is None else table.key

    async def estimate(self) -> TableSize | None:
        table = self.account.get(self._table)
        return (
            None
            if table is None
            else TableSize(len(table.items), sum(map(len, map(orjson.dumps, table.items.values()))))
        )

    async def identity(self) -> str:
        return f"{self._table} {self._existing().number}"

    def heed(self, may_send: Callable[[], None]) -> None:
        self.may_send = may_send

    async def create(self, key: Key, options: CreateOptions) -> None:
        check_table_name(self._table)
        table = self.account.setdefault(self._table, FakeTable(key, options))
        if table.key != key:
            raise SinkError(f"table {self._table} has been created meanwhile with another key", hint="choose another")

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        self.may_send()
        if self.errors:
            raise self.errors.pop(0)
        if not items:
            return []
        table = self._existing()
        self.puts.append(len(items))
        refusals = []
        for raw in items:
            item = orjson.loads(raw)
            reason = self._refusal(table.key, raw, item)
            if reason is None:
                table.items[_place(item, table.key)] = item
                table.written += 1
                self.counters.rows_loaded += 1
            else:
                refusals.append(Refusal(raw, reason))
        return refusals

    async def fetch(self, keys: Sequence[bytes]) -> list[StoredItem | None]:
        await asyncio.sleep(0)
        table = self._existing()
        documents = list(map(orjson.loads, keys))
        shape = {attribute.name: {attribute.type} for attribute in table.key.attributes}
        if any({name: set(value) for name, value in document.items()} != shape for document in documents):
            raise SinkError(f"DynamoDB refuses BatchGetItem on table {self._table} (ValidationException)")
        return [copy.deepcopy(table.items.get(_place(document, table.key))) for document in documents]

    async def scan_keys(self, mark: ItemMark | None = None) -> AsyncIterator[list[StoredItem]]:
        table = self._existing()
        names = [attribute.name for attribute in table.key.attributes]
        found = [item for item in table.items.values() if mark is None or _mark_of(item, mark) is not None]
        for start in range(0, len(found), SCAN_PAGE):
            await asyncio.sleep(0)
            yield [{name: item[name] for name in names} for item in found[start : start + SCAN_PAGE]]

    async def survey(self, mark: ItemMark) -> Survey:
        found = [_mark_of(item, mark) for item in self.items]
        await asyncio.sleep(0)
        return Survey(sum(it is not None for it in found), sum(it is not None and it < mark.value for it in found))

    async def spare(self, keys: Sequence[bytes], mark: ItemMark) -> int:
        await asyncio.sleep(0)
        table = self._existing()
        spared = 0
        for key in map(orjson.loads, keys):
            item = table.items.get(_place(key, table.key))
            seen = None if item is None else _mark_of(item, mark)
            if item is not None and seen is not None and seen < mark.value:
                table.items[_place(key, table.key)] = {**item, mark.attribute: {"S": mark.value}}
                spared += 1
        return spared

    async def sweep(self, mark: ItemMark) -> int:
        await asyncio.sleep(0)
        table = self._existing()
        seen = {place: _mark_of(item, mark) for place, item in table.items.items()}
        if self.meanwhile is not None:
            self.meanwhile()
        removed = 0
        for place, value in seen.items():
            if value is not None and value < mark.value and _mark_of(table.items.get(place, {}), mark) == value:
                del table.items[place]
                removed += 1
        self.counters.items_deleted += removed
        return removed

    def _existing(self) -> FakeTable:
        if self._table not in self.account:
            raise SinkError(f"table {self._table} does not exist", hint=f"momento-etl create-table {self._table}")
        return self.account[self._table]

    def _refusal(self, key: Key, raw: bytes, item: dict[str, Any]) -> str | None:
        for attribute in key.attributes:
            value = item.get(attribute.name)
            if value is None:
                return f"One of the required keys was not given a value: {attribute.name}"
            if attribute.type not in value:
                return f"Type mismatch for key {attribute.name}: expected {attribute.type}"
        if len(raw) > ITEM_BYTES:
            return "Item size has exceeded the maximum allowed size"
        return self.refuse(item) if self.refuse is not None else None


def _place(item: dict[str, Any], key: Key) -> tuple[str, ...]:
    return tuple(orjson.dumps(item[it.name]).decode() for it in key.attributes)


def _mark_of(item: dict[str, Any], mark: ItemMark) -> str | None:
    """An item's mark, where it is the job's."""
    found = item.get(mark.attribute, {}).get("S")
    return found if isinstance(found, str) and found.startswith(mark.prefix) else None
