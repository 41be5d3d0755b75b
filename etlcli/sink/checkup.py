"""What ``doctor`` asks of DynamoDB: who answers, as whom, the clock, the tables, and whether a run may do what it does.

Nothing is made and nothing is left: of a table that is there, an item is removed that nobody has put; of the state
table, items are written on a condition that cannot hold. Both are refused to those who may not, and do nothing.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from itertools import islice
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from etlcli.doctor import Check, Fact, failed_by, judge_clock
from etlcli.errors import EtlError, SinkError
from etlcli.model import Key, KeyAttribute, Mode
from etlcli.retry import RetryPolicy
from etlcli.sink.calling import called
from etlcli.sink.connect import Connection, connect
from etlcli.sink.names import check_table_name
from etlcli.sink.state_table import StateTable
from etlcli.sink.table import Table
from etlcli.sink.translate import Place, from_boto

if TYPE_CHECKING:
    from etlcli.progress import Counters
    from etlcli.sink.settings import DynamoDBSettings

__all__ = ["examine_sink", "examine_state"]

_PATIENCE = RetryPolicy(patience=8.0, base=0.1, ceiling=1.0)
_ANSWER_SECONDS = 10.0
_CONDITION_FAILED = "ConditionalCheckFailedException"
_PREFIX = "momento-etl-doctor-"
# Of more jobs' tables than these nobody wants a line each.
_MOST_TABLES = 10
_MADE_BY = "The first run makes it, which takes dynamodb:CreateTable; whether that is allowed shows then."
_CREATE_HINT = f"{_MADE_BY} Or make it beforehand: momento-etl create-table."


class _Service(Place):
    """An endpoint as a whole, where an answer is about no table."""

    def __str__(self) -> str:
        return self.endpoint


class _Clock:
    """Compares this machine's clock with the times at which DynamoDB says that it answers."""

    def __init__(self, connection: Connection) -> None:
        self.ahead_seconds: float | None = None
        connection.client.meta.events.register("before-parse.dynamodb", self._look)

    def _look(self, response_dict: Mapping[str, Any], **_: object) -> None:
        try:
            told = parsedate_to_datetime(response_dict["headers"]["date"])
        except (KeyError, TypeError, ValueError):
            return
        self.ahead_seconds = time.time() - told.timestamp()


async def examine_sink(
    settings: DynamoDBSettings, tables: Mapping[str, Mode], counters: Counters
) -> AsyncIterator[Check]:
    """Look at DynamoDB.

    Args:
        settings: Where it is, and as whom to talk to it.
        tables: The tables that the jobs write to, each with what becomes there of items whose rows are gone.
        counters: Where retries are counted.

    Raises:
        EtlError: It stopped answering in between.
    """
    try:
        connection = await asyncio.to_thread(connect, settings, _ANSWER_SECONDS)
    except EtlError as error:
        yield failed_by("destination", "login", error)
        return
    try:
        clock = _Clock(connection)
        let_in = True
        async for check in _let_in(connection):
            let_in = let_in and check.status != "failed"
            yield check
        if clock.ahead_seconds is not None:
            yield judge_clock("destination", clock.ahead_seconds)
        if let_in:
            yield await _limits(connection)
            for name, mode in islice(tables.items(), _MOST_TABLES):
                async for check in _table(connection, name, mode, counters):
                    yield check
    finally:
        connection.client.close()


async def examine_state(settings: DynamoDBSettings, table: str, counters: Counters) -> AsyncIterator[Check]:
    """Look at the state table.

    Args:
        settings: Where DynamoDB is, and as whom to talk to it.
        table: Its name.
        counters: Where retries are counted.
    """
    unseen = Check("state", "table", "warning", "not looked at: DynamoDB itself cannot be used")
    try:
        check_table_name(table)
        connection = await asyncio.to_thread(connect, settings, _ANSWER_SECONDS)
    except EtlError as error:
        yield unseen if error.of_service else failed_by("state", "table", error)
        return
    try:
        place = Place(table, connection.address)
        state = StateTable(connection.client, place, counters, _PATIENCE, connection.credentials)
        try:
            is_there = await state.is_there()
        except EtlError as error:
            yield unseen if error.of_service else failed_by("state", "table", error)
            return
        if not is_there:
            words = f"table {table} is not there yet"
            yield Check("state", "table", "warning", words, _MADE_BY, {"exists": False})
            return
        yield Check("state", "table", "ok", f"table {table} is there, with the right key", facts={"exists": True})
        yield await _keeps(state, table)
    finally:
        connection.client.close()


async def _let_in(connection: Connection) -> AsyncIterator[Check]:
    """Ask for something that needs no table; a refusal of that alone is an answer to whom it knows."""
    reachable = Check("destination", "reachable", "ok", f"DynamoDB at {connection.address} answers")
    boto3 = version("boto3")
    try:
        await _asked(connection, "ListTables", None, connection.client.list_tables, Limit=1)
    except SinkError as error:
        yield reachable
        if error.of_service:
            yield failed_by("destination", "login", error)
            return
    except EtlError as error:
        yield failed_by("destination", "reachable", error)
        return
    else:
        yield reachable
    words = f"the credentials are accepted, in region {connection.region}"
    yield Check("destination", "login", "ok", words, facts={"region": connection.region})
    yield Check("destination", "version", "ok", f"boto3 {boto3}", facts={"sdk_version": boto3})


async def _limits(connection: Connection) -> Check:
    """Ask for the account's limits, which needs a right of its own, and a server that is AWS's."""
    hint = "plan reckons with a new table's 4,000 writes a second; where yours takes more, tell it: --write-limit N."
    try:
        answer = await _asked(connection, "DescribeLimits", None, connection.client.describe_limits)
        units = int(answer["TableMaxWriteCapacityUnits"])
    except (EtlError, KeyError, TypeError, ValueError):
        words = "not told (dynamodb:DescribeLimits); by default a table takes 40,000 write units a second"
        return Check("destination", "limits", "ok", words, hint)
    words = f"a table takes up to {units:,} write units a second"
    return Check("destination", "limits", "ok", words, hint, {"table_write_units": units})


async def _table(connection: Connection, name: str, mode: Mode, counters: Counters) -> AsyncIterator[Check]:
    """Look at a table, and try whether it may be written to and read."""
    place = Place(name, connection.address)
    try:
        check_table_name(name)
        key = await Table(connection.client, place, counters, _PATIENCE, connection.credentials).key()
    except EtlError as error:
        yield failed_by("destination", "table", error)
        return
    if key is None:
        words = f"table {name} is not there yet"
        yield Check("destination", "table", "warning", words, _CREATE_HINT, {"table": name, "exists": False})
        return
    facts: dict[str, Fact] = {"table": name, "exists": True}
    yield Check("destination", "table", "ok", f"table {name} is there, with the key {key}", facts=facts)
    nobody = _unused(key)
    client = connection.client
    written = {"RequestItems": {name: [{"DeleteRequest": {"Key": nobody}}]}}
    read = {"RequestItems": {name: {"Keys": [nobody]}}}
    try:
        await _asked(connection, "BatchWriteItem", name, client.batch_write_item, **written)
        yield Check("destination", "allowed", "ok", f"may write to table {name}", facts={"table": name})
    except EtlError as error:
        yield failed_by("destination", "allowed", error)
    try:
        await _asked(connection, "BatchGetItem", name, client.batch_get_item, **read)
    except EtlError as error:
        yield Check("destination", "allowed", "warning", error.message, f"verify needs it: {error.hint}")
    if mode == "replace":
        yield await _removes(connection, name, key.hash.name, nobody)


async def _removes(connection: Connection, name: str, attribute: str, nobody: dict[str, Any]) -> Check:
    """Try what mode ``replace`` does besides, on an item that nobody has."""
    client = connection.client
    never = {
        "Key": nobody,
        "ConditionExpression": "attribute_exists(#key)",
        "ExpressionAttributeNames": {"#key": attribute},
    }
    changed = {**never, "UpdateExpression": "REMOVE #probe"}
    changed["ExpressionAttributeNames"] = {"#key": attribute, "#probe": f"{_PREFIX}probe"}
    try:
        await _asked(connection, "Scan", name, client.scan, TableName=name, Limit=1, Select="COUNT")
        await _asked(connection, "DeleteItem", name, client.delete_item, TableName=name, **never)
        await _asked(connection, "UpdateItem", name, client.update_item, TableName=name, **changed)
    except EtlError as error:
        hint = f"Mode replace needs dynamodb:Scan, UpdateItem and DeleteItem. {error.hint or ''}".strip()
        return Check("destination", "allowed", "failed", error.message, hint)
    return Check("destination", "allowed", "ok", f"may remove from table {name}", facts={"table": name})


async def _keeps(state: StateTable, table: str) -> Check:
    """Try all that a run does with the state table, on an item that nobody has."""
    job = f"{_PREFIX}{secrets.token_hex(8)}"
    never = "attribute_exists(#entry)"
    try:
        await state.get(job, job)
        await state.query(job, limit=1)
        await state.put({"job": job, "entry": job}, never)
        await state.update(job, job, "SET #probe = :probe", {"probe": 1}, when=never)
        await state.delete(job, job, never)
    except EtlError as error:
        return failed_by("state", "allowed", error)
    return Check("state", "allowed", "ok", f"may read and write table {table}", facts={"table": table})


def _unused(key: Key) -> dict[str, Any]:
    """Make a key that no item has."""
    return {attribute.name: _unused_value(attribute) for attribute in key.attributes}


def _unused_value(attribute: KeyAttribute) -> dict[str, Any]:
    match attribute.type:
        case "N":
            return {"N": str(secrets.randbelow(10**37))}
        case "B":
            return {"B": f"{_PREFIX}{secrets.token_hex(16)}".encode()}
        case _:
            return {"S": f"{_PREFIX}{secrets.token_hex(16)}"}


async def _asked(
    connection: Connection, action: str, table: str | None, method: Callable[..., Any], **arguments: Any
) -> dict[str, Any]:
    """Call the API once; a condition that does not hold is an answer."""
    place = _Service("", connection.address) if table is None else Place(table, connection.address)
    try:
        return await called(method, connection.credentials, **arguments)
    except (ClientError, BotoCoreError, ResponseParserError) as error:
        if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") == _CONDITION_FAILED:
            return {}
        raise from_boto(error, place=place, action=action) from error
