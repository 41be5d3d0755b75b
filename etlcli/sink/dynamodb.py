"""The sink: one DynamoDB table behind the port ``etlcli.ports.Sink``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from etlcli.errors import SinkError
from etlcli.retry import RetryPolicy
from etlcli.sink.connect import connect
from etlcli.sink.names import check_table_name
from etlcli.sink.post import REQUEST_SECONDS, Poster
from etlcli.sink.reader import ACTIONS as READING
from etlcli.sink.reader import Reader
from etlcli.sink.sweep import ACTIONS as SWEEPING
from etlcli.sink.sweep import Sweeper
from etlcli.sink.table import Table
from etlcli.sink.translate import Place
from etlcli.sink.width import FIRST
from etlcli.sink.write_cap import WriteCap
from etlcli.sink.writer import ACTION, Writer

if TYPE_CHECKING:
    from etlcli.model import CreateOptions, ItemMark, Key, Survey
    from etlcli.ports import Refusal, StoredItem, TableSize
    from etlcli.progress import Counters
    from etlcli.sink.settings import DynamoDBSettings

__all__ = ["MOST_IN_FLIGHT", "DynamoDBSink"]

MOST_IN_FLIGHT = 192
"""At most so many requests of one kind at once, unless somebody says otherwise."""

_PATIENT = RetryPolicy()


@dataclass(frozen=True, slots=True)
class _Open:
    """What there is while the sink is open."""

    table: Table
    writer: Writer
    reader: Reader
    sweeper: Sweeper
    posters: tuple[Poster, ...]
    resources: AsyncExitStack


class DynamoDBSink:
    """One table; an asynchronous context manager, which connects to nothing else than where credentials come from.

    Entering checks the name, the region and the credentials, so that all of them are known good before a row moves.

    Args:
        settings: Where DynamoDB is, and as whom to talk to it.
        table: The table's name.
        counters: Kept up to date: rows_loaded, items_deleted, read_units, throttles, retries, requests_in_flight.
        retry: The patience with a request that gets nowhere.
        max_in_flight: At most so many requests of one kind at once, and so many connections for them, each opened when
            one is missing. Writes are ``width.FIRST`` at once, and more only where answers are far away.
        request_seconds: The deadline of one request.
        scan_items: At most so many items are looked at in one page of a scan; None for DynamoDB's bound, 1 MB.
        max_writes: At most so many write units in a second; None for as many as DynamoDB takes.
    """

    def __init__(
        self,
        settings: DynamoDBSettings,
        table: str,
        counters: Counters,
        retry: RetryPolicy = _PATIENT,
        max_in_flight: int = MOST_IN_FLIGHT,
        *,
        request_seconds: float = REQUEST_SECONDS,
        scan_items: int | None = None,
        max_writes: int | None = None,
    ) -> None:
        self._settings = settings
        self._table = table
        self._counters = counters
        self._retry = retry
        self._max_in_flight = max_in_flight
        self._request_seconds = request_seconds
        self._scan_items = scan_items
        self._max_writes = max_writes
        self._open: _Open | None = None

    async def __aenter__(self) -> Self:
        """Check the name, and find region, endpoint and credentials.

        Raises:
            UsageError: The name is not a valid table name.
            ConfigError: No region, no credentials or half of them, no such profile.
        """
        check_table_name(self._table)
        connection = await asyncio.to_thread(connect, self._settings)
        place = Place(self._table, connection.address)
        cap = WriteCap(self._max_writes) if self._max_writes is not None else None
        async with AsyncExitStack() as stack:
            stack.callback(connection.client.close)
            posters = {
                action: await stack.enter_async_context(
                    Poster(
                        connection,
                        place,
                        action,
                        connections=self._max_in_flight,
                        request_seconds=self._request_seconds,
                    )
                )
                for action in dict.fromkeys((ACTION, *READING, *SWEEPING))
            }
            self._open = _Open(
                table=Table(connection.client, place, self._counters, self._retry, connection.credentials),
                writer=Writer(posters[ACTION], place, self._counters, self._retry, self._max_in_flight, cap),
                reader=Reader(posters, place, self._counters, self._retry, self._scan_items),
                sweeper=Sweeper(
                    posters, place, self._counters, self._retry, min(FIRST, self._max_in_flight), self._scan_items, cap
                ),
                posters=tuple(posters.values()),
                resources=stack.pop_all(),
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened, self._open = self._opened, None
        await opened.resources.aclose()

    @property
    def _opened(self) -> _Open:
        assert self._open is not None, "the sink is used outside of `async with`"
        return self._open

    @property
    def table(self) -> str:
        """The table's name."""
        return self._table

    @property
    def request_seconds(self) -> float:
        """The deadline of the longest request that writes."""
        return self._request_seconds

    async def key(self) -> Key | None:
        """The key of the existing table, or None where there is no such table.

        A table that is being created, updated or deleted is waited for.

        Raises:
            SinkError: Not allowed, or another refusal.
            Throttled: DynamoDB throttles for longer than the policy is patient.
            Unavailable: Nobody answers for as long, or the table does not become ACTIVE in ``SETTLE_SECONDS``.
        """
        return await self._opened.table.key()

    async def estimate(self) -> TableSize | None:
        """About how large the existing table is; None where there is no such table. It reads no items.

        Raises:
            SinkError: Not allowed, or another refusal.
            Throttled: As in ``key``.
            Unavailable: As in ``key``.
        """
        return await self._opened.table.estimate()

    async def identity(self) -> str:
        """Name this very table: one that is made anew under the same name is another.

        Raises:
            SinkError: Not allowed, or the table does not exist (any more).
            Throttled: As in ``key``.
            Unavailable: As in ``key``.
        """
        return await self._opened.table.identity()

    def heed(self, may_send: Callable[[], None]) -> None:
        """Call this before each request that writes from now on; it raises where nothing may be sent any more."""
        for poster in self._opened.posters:
            poster.may_send = may_send

    async def create(self, key: Key, options: CreateOptions) -> None:
        """Create the table, on demand, and wait until it is ACTIVE; harmless where it was created meanwhile.

        Raises:
            SinkError: Not allowed, over the account's quota, created meanwhile with another key, or another refusal.
            Throttled: As in ``key``.
            Unavailable: As in ``key``.
        """
        await self._opened.table.create(key, options)

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        """Put items, each as DynamoDB JSON, and return when each is acknowledged or refused.

        Returns:
            The items that DynamoDB refuses for what they hold.

        Raises:
            SinkError: The table does not exist (any more), or DynamoDB refuses all.
            Throttled: DynamoDB acknowledged nothing for as long as the policy is patient.
            Unavailable: Nothing usable was answered for as long.
        """
        return await self._opened.writer.put(items)

    async def fetch(self, keys: Sequence[bytes]) -> list[StoredItem | None]:
        """Read the items under some keys, with strong consistency.

        Returns:
            An item for each key, in the keys' order; None where there is none.

        Raises:
            SinkError: Not allowed, a key that the table cannot have, or the table does not exist (any more).
            Throttled: DynamoDB read nothing for as long as the policy is patient.
            Unavailable: Nothing usable was answered for as long.
        """
        return await self._opened.reader.fetch(keys)

    async def scan_keys(self, mark: ItemMark | None = None) -> AsyncIterator[list[StoredItem]]:
        """Read the keys of all items, or of those that carry a job's mark, with strong consistency, page by page.

        Raises:
            SinkError: Not allowed, or the table does not exist (any more).
            Throttled: As in ``fetch``.
            Unavailable: As in ``fetch``.
        """
        key = await self.key()
        if key is None:
            raise SinkError(
                f"table {self._table} does not exist (any more), and there is nothing to read in it",
                hint=f"momento-etl create-table {self._table}, or run, makes it.",
            )
        async with aclosing(self._opened.reader.keys(key, mark)) as pages:
            async for page in pages:
                yield page

    async def survey(self, mark: ItemMark) -> Survey:
        """Count the items that carry a job's mark, and those of them that an earlier run left.

        It reads the whole table, with strong consistency.

        Raises:
            SinkError: Not allowed, or the table does not exist (any more).
            Throttled: DynamoDB throttles a request for longer than the policy is patient.
            Unavailable: Nothing usable is answered to a request for as long.
        """
        return await self._opened.sweeper.survey(mark)

    async def spare(self, keys: Sequence[bytes], mark: ItemMark) -> int:
        """Give the items under these keys this run's mark, where they carry the job's of an earlier one.

        Returns:
            How many items it was given to.

        Raises:
            SinkError: As in ``survey``.
            Throttled: As in ``survey``.
            Unavailable: As in ``survey``.
        """
        return await self._opened.sweeper.spare(keys, mark)

    async def sweep(self, mark: ItemMark) -> int:
        """Remove the items that carry the job's mark of an earlier run, each only if its mark is still that one.

        Returns:
            How many were removed, as far as DynamoDB's answers arrived.

        Raises:
            SinkError: As in ``survey``.
            Throttled: As in ``survey``.
            Unavailable: As in ``survey``.
        """
        key = await self.key()
        if key is None:
            raise SinkError(
                f"table {self._table} does not exist (any more), and there is nothing to remove from it",
                hint="Run again: it is made anew.",
            )
        return await self._opened.sweeper.sweep(mark, key)
