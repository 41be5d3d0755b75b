"""Writes items in batches, and stays with each batch until every item of it is acknowledged or refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from etlcli.capacity import write_units
from etlcli.errors import EtlError, Throttled, TransientError, Unavailable, leading
from etlcli.ports import Refusal
from etlcli.sink.batches import Accepted, Problem, batches, halves, read_answer, request, spread
from etlcli.sink.gate import Gate
from etlcli.sink.translate import Place, Verdict, error_for
from etlcli.sink.width import Width
from etlcli.throttling import count_throttle

if TYPE_CHECKING:
    from etlcli.progress import Counters
    from etlcli.retry import RetryPolicy
    from etlcli.sink.post import Poster
    from etlcli.sink.write_cap import WriteCap

__all__ = ["ACTION", "Writer"]

ACTION = "BatchWriteItem"
"""The API's name of what the writer asks for."""

_BYTES_IN_FLIGHT = 8_000_000
# A chain without new credentials gives the old ones again; DynamoDB is asked so often whether they are still too old.
_RENEWALS = 3
# DynamoDB tells which items it did not get to, and not why.
_UNPROCESSED = Problem(Verdict.THROTTLED, 200, "UnprocessedItems", "")


class Writer:
    """Puts items into one table.

    Args:
        poster: Sends BatchWriteItem requests.
        place: The table, and where it is.
        counters: Kept up to date: rows_loaded, throttles, retries, requests_in_flight.
        retry: The waits, and the patience: seconds in which nothing at all was acknowledged.
        max_in_flight: At most so many requests at once, over all calls of ``put``; ``Width`` says how many it is now.
        cap: The bound on writes in a second; None for none.
        clock: Seconds that never go back.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        poster: Poster,
        place: Place,
        counters: Counters,
        retry: RetryPolicy,
        max_in_flight: int,
        cap: WriteCap | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._poster = poster
        self._place = place
        self._counters = counters
        self._retry = retry
        self._cap = cap
        self._clock = clock
        self._sleep = sleep
        self._width = Width(max_in_flight)
        self._gate = Gate(self._width.requests, _BYTES_IN_FLIGHT)
        self._acknowledged_at = float("-inf")

    async def put(self, items: Sequence[bytes]) -> list[Refusal]:
        """Put items, and return those that DynamoDB refuses once all others are acknowledged.

        Raises:
            SinkError: DynamoDB refuses all, or the table is gone.
            Throttled: DynamoDB took nothing for as long as the policy is patient.
            Unavailable: DynamoDB answered nothing usable for as long.
        """
        refusals: list[Refusal] = []
        made = list(batches(spread(items), self._cap.most if self._cap is not None else None))
        todo = iter(made)  # shared by the workers: each takes the next
        workers = min(self._width.requests, len(made))
        if workers == 1:
            await self._work(todo, refusals)
            return refusals
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(todo, refusals))
        except BaseExceptionGroup as errors:
            error = leading(errors)
            raise error from error.__cause__
        return refusals

    async def _work(self, todo: Iterator[list[bytes]], refusals: list[Refusal]) -> None:
        for batch in todo:
            size = sum(map(len, batch))
            await self._gate.enter(size)
            try:
                # The room is kept while waiting to try again: the fewer requests go out, the sooner a throttle ends.
                await self._write(batch, refusals)
            finally:
                self._gate.leave(size)

    async def _write(self, batch: list[bytes], refusals: list[Refusal]) -> None:
        """Send a batch, and then what is left of it, until nothing is."""
        pending = [batch]
        stall = _Stall()
        while pending:
            batch = pending.pop()
            try:
                outcome, seconds = await self._send(batch, stall)
            except Unavailable as error:
                pending.append(batch)
                await self._wait(stall, error)
                continue
            if isinstance(outcome, Accepted):
                self._acknowledge(len(batch) - len(outcome.unprocessed), stall)
                if outcome.unprocessed:
                    pending.append(outcome.unprocessed)
                    await self._wait(stall, self._error(_UNPROCESSED))
                else:
                    self._width.note_answer(seconds, some_wait=self._gate.is_waited_for)
                    self._gate.requests = self._width.requests
            elif outcome.verdict is not Verdict.SPLIT:
                pending.append(batch)
                await self._wait(stall, self._error(outcome))
            elif len(batch) > 1:
                # One bad item, or two with one key, and all are refused: down to single items it shows which.
                pending.extend(halves(batch))
            else:
                refusals.append(Refusal(batch[0], outcome.message or outcome.code))

    async def _send(self, batch: list[bytes], stall: _Stall) -> tuple[Accepted | Problem, float]:
        """Make one request and read its answer; with expired credentials, again with new ones.

        Returns:
            What came of it, and the seconds that the answer took.
        """
        body = request(self._place.table, batch)
        for renewals_left in range(_RENEWALS, -1, -1):
            if self._cap is not None:
                # What the user's own bound takes is no time in which DynamoDB did nothing.
                stall.since += await self._cap.take(write_units(batch))
            self._counters.requests_in_flight += 1
            sent_at = self._clock()
            try:
                answer = await self._poster.post(body)
            finally:
                self._counters.requests_in_flight -= 1
            seconds = self._clock() - sent_at
            outcome = read_answer(answer.status, answer.body, table=self._place.table, sent=len(batch))
            if isinstance(outcome, Accepted) or outcome.verdict is not Verdict.EXPIRED or not renewals_left:
                break
            await self._poster.renew(answer.signer)
            self._counters.retries += 1
        return outcome, seconds

    def _acknowledge(self, count: int, stall: _Stall) -> None:
        if count:
            self._counters.rows_loaded += count
            self._acknowledged_at = self._clock()
            stall.end()

    async def _wait(self, stall: _Stall, error: EtlError) -> None:
        """Wait before the next try; where there should be none, raise the error."""
        if not isinstance(error, TransientError):
            raise error
        now = self._clock()
        pause = stall.pause(self._retry, now)
        # Of the whole sink, since a table that is slow to take everybody's items still takes this batch's in its turn.
        if now + pause - max(stall.since, self._acknowledged_at) > self._retry.patience:
            raise error
        self._width.note_trouble()
        self._gate.requests = self._width.requests
        if isinstance(error, Throttled):
            count_throttle(self._counters, error)
        else:
            self._counters.retries += 1
        await self._sleep(pause)

    def _error(self, problem: Problem) -> EtlError:
        return error_for(*problem, place=self._place, action=ACTION)


class _Stall:
    """The time and the tries since a batch last got somewhere."""

    def __init__(self) -> None:
        self.since = 0.0
        self._attempts = 0

    def pause(self, retry: RetryPolicy, now: float) -> float:
        """Note a failed try, and say how long to wait before the next."""
        if not self._attempts:
            self.since = now
        self._attempts += 1
        return retry.wait(self._attempts)

    def end(self) -> None:
        """Note that the batch got somewhere."""
        self._attempts = 0
