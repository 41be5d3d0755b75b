"""Looks up and creates the destination table, with boto3 in a thread: a few calls a run, whose cost does not count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from etlcli.errors import SinkError, Unavailable
from etlcli.model import AttributeType, CreateOptions, Key, KeyAttribute
from etlcli.ports import TableSize
from etlcli.retry import retrying
from etlcli.sink.calling import called
from etlcli.sink.names import check_table_name
from etlcli.sink.translate import ForeignAnswer, Place, from_boto

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import TableDescriptionTypeDef

    from etlcli.progress import Counters
    from etlcli.retry import RetryPolicy
    from etlcli.sink.credentials import Credentials

__all__ = ["SETTLE_SECONDS", "UPDATE_SECONDS", "Table"]

SETTLE_SECONDS = 300.0
"""How long a table may take to be created or deleted; it mostly takes 5 to 30 seconds."""

UPDATE_SECONDS = 30.0
"""How long an update of a table is waited for. One can take hours, and the table stays in use meanwhile."""

_FIRST_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 2.0
_WAITED_FOR = {"CREATING": SETTLE_SECONDS, "DELETING": SETTLE_SECONDS, "UPDATING": UPDATE_SECONDS}

_NO_SUCH_TABLE = "ResourceNotFoundException"
_TABLE_EXISTS = "ResourceInUseException"


class Table:
    """Administration of one table.

    Args:
        client: A boto3 client with deadlines, which does not retry by itself.
        place: The table, and where it is.
        counters: Kept up to date: retries.
        retry: The patience with each call.
        credentials: What the client signs with; renewed where they have expired.
        clock: Seconds that never go back.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        client: DynamoDBClient,
        place: Place,
        counters: Counters,
        retry: RetryPolicy,
        credentials: Credentials,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._place = place
        self._counters = counters
        self._retry = retry
        self._credentials = credentials
        self._clock = clock
        self._sleep = sleep
        self._answered = False

    async def key(self) -> Key | None:
        """The key of the table, which is waited for where it is being created or updated; None where there is none.

        Raises:
            SinkError: Not allowed, or another refusal.
            Unavailable: The table does not become ACTIVE in time, or nobody answers.
        """
        description = await self._settle()
        return None if description is None else _key_of(description)

    async def identity(self) -> str:
        """Name this very table, by what DynamoDB gives each one that is made.

        Raises:
            SinkError: There is none (any more), not allowed, or another refusal.
            Unavailable: Nobody answers.
        """
        answer = await self._call("DescribeTable")
        assert answer is not None, "a table that does not exist is an error"
        description: TableDescriptionTypeDef = answer["Table"]
        # Compatible servers do not all give an id of its own; when it was made tells most of two.
        made = description.get("TableId") or str(description.get("CreationDateTime", ""))
        return f"{description.get('TableArn', self._place.table)} {made}"

    async def estimate(self) -> TableSize | None:
        """How large the table was when DynamoDB last looked; None where there is none.

        Raises:
            SinkError: Not allowed, or another refusal.
            Unavailable: Nobody answers.
        """
        answer = await self._call("DescribeTable", expected=_NO_SUCH_TABLE)
        if answer is None:
            return None
        description: TableDescriptionTypeDef = answer["Table"]
        # A table that is being created has neither yet.
        return TableSize(description.get("ItemCount", 0), description.get("TableSizeBytes", 0))

    async def create(self, key: Key, options: CreateOptions) -> None:
        """Create the table and wait until it is ACTIVE and has its options.

        Raises:
            UsageError: The name is not a valid table name.
            SinkError: Not allowed, over the account's quota, or somebody made it meanwhile with another key.
            Unavailable: The table does not become ACTIVE in time, or nobody answers.
        """
        check_table_name(self._place.table)
        description = None
        while description is None:
            created = await self._call("CreateTable", expected=_TABLE_EXISTS, **_create_arguments(key, options))
            # What was in use and is gone after the wait was being deleted: there is room now.
            description = await self._settle(appearing=created is not None)
        if (found := _key_of(description)) != key:
            raise SinkError(
                f"{self._place} has been created meanwhile by somebody else, with another key: {found}, not {key}",
                hint="choose another destination, or delete that table",
            )
        if options.point_in_time_recovery:
            await self._call(
                "UpdateContinuousBackups", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
            )
        if options.ttl_attribute is not None:
            await self._expire_by(options.ttl_attribute)

    async def _expire_by(self, attribute: str) -> None:
        # Asked first, since switching on what is on already is an error.
        if await self._expires_by(attribute):
            return
        try:
            await self._call("UpdateTimeToLive", TimeToLiveSpecification={"Enabled": True, "AttributeName": attribute})
        except SinkError:
            # The answer to a first try may have been lost: then it is on by now.
            if not await self._expires_by(attribute):
                raise

    async def _expires_by(self, attribute: str) -> bool:
        answer = await self._call("DescribeTimeToLive") or {}
        found = answer.get("TimeToLiveDescription", {})
        return found.get("TimeToLiveStatus") in {"ENABLING", "ENABLED"} and found.get("AttributeName") == attribute

    async def _settle(self, *, appearing: bool = False) -> TableDescriptionTypeDef | None:
        """Describe the table once it is neither coming nor going.

        Args:
            appearing: The table has just been created: DescribeTable may not know it for a moment.
        """
        started = self._clock()
        pause = _FIRST_POLL_SECONDS
        while True:
            answer = await self._call("DescribeTable", expected=_NO_SUCH_TABLE)
            if answer is None and not appearing:
                return None
            description: TableDescriptionTypeDef | None = answer["Table"] if answer else None
            status = description["TableStatus"] if description else "CREATING"
            patience = _WAITED_FOR.get(status)
            if patience is None:
                return description
            if self._clock() + pause - started > patience:
                if status == "UPDATING":
                    return description
                raise Unavailable(
                    f"{self._place} is still {status} after {patience:.0f} seconds",
                    hint="run the same command once the table is ACTIVE",
                )
            await self._sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    async def _call(self, action: str, *, expected: str | None = None, **arguments: Any) -> dict[str, Any] | None:
        """Call the API, with retries; None where DynamoDB answers with the expected error code."""
        methods: dict[str, Callable[..., Any]] = {
            "CreateTable": self._client.create_table,
            "DescribeTable": self._client.describe_table,
            "DescribeTimeToLive": self._client.describe_time_to_live,
            "UpdateContinuousBackups": self._client.update_continuous_backups,
            "UpdateTimeToLive": self._client.update_time_to_live,
        }
        method = methods[action]

        async def once() -> dict[str, Any] | None:
            try:
                answer = await called(method, self._credentials, TableName=self._place.table, **arguments)
                if action == "DescribeTable" and "Table" not in answer:
                    raise ForeignAnswer(200, "an answer that describes no table")
            except ClientError as error:
                self._answered = True
                if error.response.get("Error", {}).get("Code") == expected:
                    return None
                raise from_boto(error, place=self._place, action=action) from error
            except (BotoCoreError, ResponseParserError) as error:
                raise from_boto(error, place=self._place, action=action) from error
            self._answered = True
            return answer

        return await retrying(once, self._retry, self._counters, is_known=lambda: self._answered)


def _create_arguments(key: Key, options: CreateOptions) -> dict[str, Any]:
    roles = ("HASH", "RANGE")
    arguments: dict[str, Any] = {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": it.name, "AttributeType": it.type} for it in key.attributes],
        "KeySchema": [
            {"AttributeName": it.name, "KeyType": role} for it, role in zip(key.attributes, roles, strict=False)
        ],
    }
    # Left out where not asked for, since not every DynamoDB-compatible server knows them.
    if options.tags:
        arguments["Tags"] = [{"Key": name, "Value": value} for name, value in options.tags.items()]
    if options.deletion_protection:
        arguments["DeletionProtectionEnabled"] = True
    return arguments


def _key_of(description: TableDescriptionTypeDef) -> Key:
    # AttributeDefinitions also has the keys of the table's indexes.
    types: dict[str, AttributeType] = {
        it["AttributeName"]: it["AttributeType"] for it in description["AttributeDefinitions"]
    }
    parts = {
        it["KeyType"]: KeyAttribute(it["AttributeName"], types[it["AttributeName"]]) for it in description["KeySchema"]
    }
    return Key(parts["HASH"], parts.get("RANGE"))
