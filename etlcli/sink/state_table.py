"""The state table as a table: made when first needed, read with strong consistency, written one item at a time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from etlcli.errors import SinkError, Throttled, Unavailable, UsageError
from etlcli.model import CreateOptions, Key
from etlcli.retry import RetryPolicy, retrying
from etlcli.sink.calling import called
from etlcli.sink.table import Table
from etlcli.sink.translate import Place, from_boto
from etlcli.state.layout import EXPIRES, STATE_KEY
from etlcli.throttling import count_throttle

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

    from etlcli.progress import Counters
    from etlcli.sink.credentials import Credentials

__all__ = ["Answer", "Item", "StateTable"]

Item: TypeAlias = dict[str, Any]
"""An item in plain values: text, numbers, sets of whole numbers, and lists and dictionaries of these."""

_NO_SUCH_TABLE = "ResourceNotFoundException"
_CONDITION_FAILED = "ConditionalCheckFailedException"

_WITHOUT = (
    "extract, inspect-cache, create-table, plan and verify do not need it. Allow dynamodb:DescribeTable, GetItem,"
    " Query, PutItem, UpdateItem and DeleteItem on it, and CreateTable and UpdateTimeToLive, unless it is made"
    " beforehand (on demand, hash key job (S), range key entry (S)).\n"
    "[state] enabled = false does without: run and load then work, but nothing keeps two of them apart, a run that was"
    " stopped begins anew, there is no history, and incremental and replace runs are refused."
)


class Answer(NamedTuple):
    """What the table answered.

    Attributes:
        asked_at: By the steady clock: just before the request was sent that was answered.
        answered_at: By the same clock: just after.
        done: Whether the condition held and the write was made; True for what has no condition.
        item: What was read; None where there is no such item.
    """

    asked_at: float
    answered_at: float
    done: bool
    item: Item | None


class StateTable:
    """One table with the state's key.

    Expressions name attributes as ``#name`` and values as ``:name``; what is behind them is filled in here, so that no
    name is ever one of DynamoDB's reserved words.

    Args:
        client: A boto3 client with deadlines, which does not retry by itself.
        place: The table, and where it is.
        counters: Kept up to date: retries, throttles.
        retry: The patience with each call.
        credentials: What the client signs with; renewed where they have expired.
        clock: A steady clock, in seconds.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        place: Place,
        counters: Counters,
        retry: RetryPolicy,
        credentials: Credentials,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._place = place
        self._counters = counters
        self._retry = retry
        self._credentials = credentials
        self._clock = clock
        self._one_looks = asyncio.Lock()
        self._known = False

    async def ensure(self, *, hurry_seconds: float | None = None) -> bool:
        """See to it that the table is there and has the right key; answer whether it was made now.

        Args:
            hurry_seconds: The patience with each call, from its first failure on; None for that with every other call.
                A table that is being made is waited for all the same.

        Raises:
            UsageError: It has another key.
            SinkError: It cannot be made or looked up.
        """
        async with self._one_looks:
            if self._known or await self._look_up(hurry_seconds):
                return False
            await self._make(hurry_seconds)
            self._known = True
            return True

    async def is_there(self) -> bool:
        """Whether there is a table to read; once seen it is expected to stay.

        Raises:
            UsageError: It has another key.
            SinkError: It cannot be looked up.
        """
        async with self._one_looks:
            return self._known or await self._look_up()

    async def get(self, job: str, entry: str, *, hurry_seconds: float | None = None) -> Answer:
        """Read one item; ``hurry_seconds`` as in ``delete``."""
        arguments = {"Key": _encoded({"job": job, "entry": entry}), "ConsistentRead": True}
        return await self._call("GetItem", arguments, hurry_seconds)

    async def query(
        self,
        job: str,
        prefix: str = "",
        *,
        between: tuple[str, ...] = (),
        limit: int | None = None,
        backwards: bool = False,
    ) -> list[Item]:
        """Read the items of one hash value, in order.

        Args:
            job: The hash value.
            prefix: What the range values start with.
            between: In its place: the first and the last range value that are wanted.
            limit: At most so many items.
            backwards: The last one first.
        """
        condition, values = "#job = :job", {"job": job}
        if between:
            condition += " AND #entry BETWEEN :first AND :last"
            values |= {"first": between[0], "last": between[-1]}
        elif prefix:
            condition += " AND begins_with(#entry, :prefix)"
            values["prefix"] = prefix
        arguments = {
            "KeyConditionExpression": condition,
            **_placeholders([condition], values),
            "ConsistentRead": True,
            "ScanIndexForward": not backwards,
        }
        found: list[Item] = []
        while True:
            if limit is not None:
                arguments["Limit"] = limit - len(found)
            body = await self._request("Query", arguments)
            found += [_decoded(item) for item in body.get("Items", [])]
            # A page ends at 1 MB, whatever the limit.
            if "LastEvaluatedKey" not in body or (limit is not None and len(found) >= limit):
                return found
            arguments["ExclusiveStartKey"] = body["LastEvaluatedKey"]

    async def put(
        self,
        item: Item,
        when: str | None = None,
        values: Mapping[str, Any] | None = None,
        *,
        hurry_seconds: float | None = None,
    ) -> Answer:
        """Write one item in place of what is there, if the condition holds; ``hurry_seconds`` as in ``delete``."""
        arguments: dict[str, Any] = {"Item": _encoded(item)}
        if when is not None:
            arguments |= {"ConditionExpression": when, **_placeholders([when], values or {})}
        return await self._call("PutItem", arguments, hurry_seconds)

    async def update(
        self,
        job: str,
        entry: str,
        change: str,
        values: Mapping[str, Any],
        *,
        when: str,
        hurry_seconds: float | None = None,
    ) -> Answer:
        """Change one item, if the condition holds; make it where it is not there and the condition allows that.

        Args:
            job: The hash value.
            entry: The range value.
            change: The update expression.
            values: What both expressions name.
            when: The condition.
            hurry_seconds: As in ``delete``.
        """
        arguments = {
            "Key": _encoded({"job": job, "entry": entry}),
            "UpdateExpression": change,
            "ConditionExpression": when,
            **_placeholders([change, when], values),
        }
        return await self._call("UpdateItem", arguments, hurry_seconds)

    async def delete(
        self,
        job: str,
        entry: str,
        when: str | None = None,
        values: Mapping[str, Any] | None = None,
        *,
        hurry_seconds: float | None = None,
    ) -> Answer:
        """Remove one item, if the condition holds.

        Args:
            job: The hash value.
            entry: The range value.
            when: The condition.
            values: What it names.
            hurry_seconds: The deadline of one try, and the patience from the first failure on; None for the patience
                of every other call.
        """
        arguments: dict[str, Any] = {"Key": _encoded({"job": job, "entry": entry})}
        if when is not None:
            arguments |= {"ConditionExpression": when, **_placeholders([when], values or {})}
        return await self._call("DeleteItem", arguments, hurry_seconds)

    def _administration(self, hurry_seconds: float | None) -> Table:
        return Table(self._client, self._place, self._counters, self._patience(hurry_seconds), self._credentials)

    def _patience(self, hurry_seconds: float | None) -> RetryPolicy:
        retry = self._retry
        if hurry_seconds is None:
            return retry
        return RetryPolicy(min(hurry_seconds, retry.patience), retry.base, retry.ceiling)

    async def _look_up(self, hurry_seconds: float | None = None) -> bool:
        try:
            found = await self._administration(hurry_seconds).key()
        except SinkError as error:
            if error.of_service:
                raise
            raise _unusable("used", error) from error
        if found is None:
            return False
        self._check(found)
        self._known = True
        return True

    async def _make(self, hurry_seconds: float | None) -> None:
        administration = self._administration(hurry_seconds)
        try:
            await administration.create(STATE_KEY, CreateOptions(ttl_attribute=EXPIRES))
        except SinkError as error:
            # It may be there nevertheless: made by somebody else, or made by us without the right to set its expiry,
            # which only keeps it small.
            found = await administration.key()
            if found is None and error.of_service:
                raise
            if found is None:
                raise _unusable("made", error) from error
            self._check(found)

    def _check(self, found: Key) -> None:
        if found != STATE_KEY:
            raise UsageError(
                f"{self._place} is there with another key than the state needs\n"
                f"  the table's: {found}\n"
                f"  the state's: {STATE_KEY}",
                hint='Choose another table for the state: [state] table = "NAME", which is made when first needed.',
            )

    async def _call(self, action: str, arguments: dict[str, Any], hurry_seconds: float | None = None) -> Answer:
        # Of several tries only the times of the one that was answered count.
        asked_at = answered_at = 0.0

        async def once() -> dict[str, Any] | None:
            nonlocal asked_at, answered_at
            asked_at = self._clock()
            try:
                return await self._attempt(action, arguments, hurry_seconds)
            finally:
                answered_at = self._clock()

        body = await retrying(once, self._patience(hurry_seconds), self._counters)
        item = None if body is None else body.get("Item")
        return Answer(asked_at, answered_at, body is not None, None if item is None else _decoded(item))

    async def _request(self, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return await retrying(lambda: self._attempt(action, arguments), self._retry, self._counters) or {}

    async def _attempt(
        self, action: str, arguments: dict[str, Any], deadline_seconds: float | None = None
    ) -> dict[str, Any] | None:
        """Ask once; None where the condition does not hold."""
        methods: dict[str, Callable[..., Any]] = {
            "DeleteItem": self._client.delete_item,
            "GetItem": self._client.get_item,
            "PutItem": self._client.put_item,
            "Query": self._client.query,
            "UpdateItem": self._client.update_item,
        }
        try:
            async with asyncio.timeout(deadline_seconds):
                # A thread that misses the deadline goes on until the client's own: what it still does is harmless,
                # since it is conditional on what it knew.
                answer = await called(methods[action], self._credentials, TableName=self._place.table, **arguments)
        except TimeoutError as error:
            raise Unavailable(
                f"no answer to {action} on {self._place} in {deadline_seconds:g} seconds",
                hint="check that the endpoint can be reached from here",
            ) from error
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if code == _CONDITION_FAILED:
                return None
            if code == _NO_SUCH_TABLE:
                raise SinkError(
                    f"the state table is gone: {self._place} was deleted while it was in use",
                    hint="Run the same command: it makes the table anew. What it held is lost: progress, watermarks,"
                    " marks and history.",
                ) from error
            translated = self._translated(error, action)
            if isinstance(translated, SinkError) and not translated.of_service:
                translated = _unusable("used", translated)
            raise translated from error
        except (BotoCoreError, ResponseParserError) as error:
            raise self._translated(error, action) from error
        return answer

    def _translated(self, error: Any, action: str) -> Exception:
        translated = from_boto(error, place=self._place, action=action)
        if isinstance(translated, Throttled):
            count_throttle(self._counters, translated)
        return translated


def _unusable(what_for: str, error: SinkError) -> SinkError:
    """Say of a refusal that it is the state table's, and how to do without."""
    return SinkError(f"the state table cannot be {what_for}: {error.message}", hint=_WITHOUT)


def _placeholders(expressions: Iterable[str], values: Mapping[str, Any]) -> dict[str, Any]:
    names = {name for expression in expressions for name in re.findall(r"#(\w+)", expression)}
    arguments: dict[str, Any] = {"ExpressionAttributeNames": {f"#{name}": name for name in sorted(names)}}
    if values:
        arguments["ExpressionAttributeValues"] = {f":{name}": _attribute(value) for name, value in values.items()}
    return arguments


def _encoded(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _attribute(value) for name, value in item.items()}


def _decoded(item: Mapping[str, Any]) -> Item:
    return {name: _plain(attribute) for name, attribute in item.items()}


def _attribute(value: Any) -> dict[str, Any]:
    # boto3's own serializer refuses floats.
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, int | float):
        return {"N": repr(value)}
    if isinstance(value, set | frozenset):
        return {"NS": [str(number) for number in sorted(value)]}
    if isinstance(value, Mapping):
        return {"M": _encoded(value)}
    return {"L": [_attribute(part) for part in value]}


def _plain(attribute: Mapping[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "N":
            return _number(value)
        case "NS":
            return {_number(part) for part in value}
        case "M":
            return _decoded(value)
        case "L":
            return [_plain(part) for part in value]
        case _:
            return value


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
