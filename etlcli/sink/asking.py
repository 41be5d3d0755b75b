"""Single requests over the write path's own posts: made again until they are answered, whatever is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from etlcli.errors import Throttled
from etlcli.retry import retrying
from etlcli.sink.translate import Place, Verdict, error_for, judge, own_document, reasons_of, text_of, words_of
from etlcli.throttling import count_throttle

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from etlcli.progress import Counters
    from etlcli.retry import RetryPolicy
    from etlcli.sink.post import Answer, Poster
    from etlcli.sink.write_cap import WriteCap

__all__ = ["Asker"]

# As the writer: a chain without new credentials gives the old ones again, and DynamoDB is asked so often.
_RENEWALS = 3


class Asker:
    """Makes requests of one action.

    Args:
        poster: Sends them.
        action: The action's name in the API, for example ``DeleteItem``.
        place: The table, and where it is.
        counters: Kept up to date: throttles, retries, requests_in_flight.
        retry: The patience with each request.
        refusals: Error codes that are an answer like any other.
        member: What every good answer has; None where it may be empty.
        names_table: Whether requests of this action name the table at their top.
        cap: The bound on writes in a second, for an action that writes one item; None for none.
    """

    def __init__(
        self,
        poster: Poster,
        action: str,
        place: Place,
        counters: Counters,
        retry: RetryPolicy,
        *,
        refusals: Collection[str] = (),
        member: str | None = None,
        names_table: bool = True,
        cap: WriteCap | None = None,
    ) -> None:
        self._poster = poster
        self._action = action
        self._place = place
        self._counters = counters
        self._retry = retry
        self._refusals = refusals
        self._member = member
        self._cap = cap
        self._frame: dict[str, object] = {"TableName": place.table} if names_table else {}
        if cap is not None:
            # How large the item is that is there, only the answer tells.
            self._frame["ReturnConsumedCapacity"] = "TOTAL"

    async def ask(self, request: Mapping[str, object]) -> dict[str, Any] | None:
        """Make a request; None where DynamoDB refuses it with one of the expected codes.

        Args:
            request: All of it but the table's name at its top.

        Raises:
            SinkError: DynamoDB refuses it otherwise, or the table is gone.
            Throttled: DynamoDB throttles for longer than the policy is patient.
            Unavailable: Nothing usable was answered for as long.
        """
        body = orjson.dumps({**self._frame, **request})
        return await retrying(lambda: self._once(body), self._retry, self._counters)

    async def _once(self, body: bytes) -> dict[str, Any] | None:
        """Ask once; with expired credentials, again with new ones."""
        for renewals_left in range(_RENEWALS, -1, -1):
            if self._cap is not None:
                await self._cap.take(1)
            answer = await self._post(body)
            document = own_document(answer.status, answer.body)
            if answer.status == 200 and document is not None and (self._member is None or self._member in document):
                if self._cap is not None:
                    consumed = document.get("ConsumedCapacity") or {}
                    self._cap.owe(max(0.0, float(consumed.get("CapacityUnits", 1)) - 1))
                return document
            code, message = words_of(document or {})
            if code in self._refusals:
                return None
            verdict = judge(answer.status, code)
            if verdict is not Verdict.EXPIRED or not renewals_left:
                break
            await self._poster.renew(answer.signer)
            self._counters.retries += 1
        error = error_for(
            verdict,
            answer.status,
            code,
            message or text_of(answer.body),
            reasons_of(document or {}, self._place.table),
            place=self._place,
            action=self._action,
        )
        if isinstance(error, Throttled):
            count_throttle(self._counters, error)
        raise error

    async def _post(self, body: bytes) -> Answer:
        self._counters.requests_in_flight += 1
        try:
            return await self._poster.post(body)
        finally:
            self._counters.requests_in_flight -= 1
