"""Single requests over the write path's own posts: made again until they are answered, whatever is in the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from etlcli.errors import Throttled
from etlcli.retry import retrying
from etlcli.sink.translate import Place, Verdict, error_for, judge, words_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from etlcli.errors import EtlError
    from etlcli.progress import Counters
    from etlcli.retry import RetryPolicy
    from etlcli.sink.post import Answer, Poster

__all__ = ["Asker"]

# As the writer: a chain without new credentials gives the old ones again, and DynamoDB is asked so often.
_RENEWALS = 3
_SHOWN_BYTES = 400


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
    ) -> None:
        self._poster = poster
        self._action = action
        self._place = place
        self._counters = counters
        self._retry = retry
        self._refusals = refusals
        self._member = member
        self._frame = {"TableName": place.table} if names_table else {}

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
            answer = await self._post(body)
            document = _document(answer.body)
            if document is not None and answer.status == 200 and (self._member is None or self._member in document):
                return document
            code, message = words_of(document or {})
            if code in self._refusals:
                return None
            verdict = judge(answer.status, code)
            if verdict is not Verdict.EXPIRED or not renewals_left:
                break
            await self._poster.renew(answer.signer)
            self._counters.retries += 1
        said = message or answer.body[:_SHOWN_BYTES].decode(errors="replace") or "an empty answer"
        raise self._counted(error_for(verdict, answer.status, code, said, place=self._place, action=self._action))

    async def _post(self, body: bytes) -> Answer:
        self._counters.requests_in_flight += 1
        try:
            return await self._poster.post(body)
        finally:
            self._counters.requests_in_flight -= 1

    def _counted(self, error: EtlError) -> EtlError:
        if isinstance(error, Throttled):
            self._counters.throttles += 1
        return error


def _document(body: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None
