"""What every sink does: the in-memory one, and DynamoDB's over HTTP, against two servers.

One is moto's, in this process, unless ``MOMENTO_ETL_TEST_DYNAMODB`` names another, for example
``http://127.0.0.1:8000``. The other is dynalite.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from decimal import Decimal
from typing import Any, Protocol, TypeVar

import boto3
import orjson
import pytest

from etlcli.errors import SinkError, UsageError
from etlcli.model import CREATE_DEFAULTS, Key, KeyAttribute
from etlcli.ports import Sink
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.dynamodb import DynamoDBSink
from etlcli.sink.settings import DynamoDBSettings
from tests.contract.fakes.sink import FakeSink, FakeTable

T = TypeVar("T")

pytest_plugins = ["tests.contract.dynalite"]

BY_ID = Key(KeyAttribute("movie_id", "N"))
KEYS = [
    BY_ID,
    Key(KeyAttribute("name", "S")),
    Key(KeyAttribute("digest", "B"), KeyAttribute("at", "S")),
    Key(KeyAttribute("order_id", "N"), KeyAttribute("line", "N")),
]


class House(Protocol):
    """An implementation, and a look behind its back."""

    counters: Counters

    def sink(self, table: str) -> AbstractAsyncContextManager[Sink]: ...

    def items(self, table: str) -> list[dict[str, Any]]: ...


class FakeHouse:
    def __init__(self) -> None:
        self.counters = Counters()
        self.account: dict[str, FakeTable] = {}

    def sink(self, table: str) -> AbstractAsyncContextManager[Sink]:
        return FakeSink(table, self.counters, self.account)

    def items(self, table: str) -> list[dict[str, Any]]:
        return list(self.account[table].items.values())


class DynamoDBHouse:
    def __init__(self, endpoint: str) -> None:
        self.counters = Counters()
        self.settings = DynamoDBSettings(
            region="us-east-1", endpoint_url=endpoint, access_key_id="testing", secret_access_key="testing"
        )
        self.client = boto3.client(
            "dynamodb",
            region_name="us-east-1",
            endpoint_url=endpoint,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )

    def sink(self, table: str) -> AbstractAsyncContextManager[Sink]:
        return DynamoDBSink(self.settings, table, self.counters, RetryPolicy(patience=5.0, base=0.01))

    def items(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for page in self.client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
            found.extend(page["Items"])
        return found


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    named = os.environ.get("MOMENTO_ETL_TEST_DYNAMODB")
    if named:
        yield named
        return
    with warnings.catch_warnings():
        # moto's own dependencies, not ours: what they deprecate is theirs to mend.
        warnings.simplefilter("ignore", DeprecationWarning)
        from moto.server import ThreadedMotoServer

        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["fake", "endpoint", "dynalite"], ids=["fake", "dynamodb", "dynalite"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    if request.param == "fake":
        yield FakeHouse()
        return
    real = DynamoDBHouse(request.getfixturevalue(request.param))
    yield real
    real.client.close()


@pytest.fixture
def table(house: House) -> Iterator[str]:
    name = f"etl-test-{secrets.token_hex(6)}"
    yield name
    if isinstance(house, DynamoDBHouse):
        try:
            house.client.delete_table(TableName=name)
        except house.client.exceptions.ResourceNotFoundException:
            return


def within(house: House, table: str, use: Callable[[Sink], Awaitable[T]]) -> T:
    async def main() -> T:
        async with house.sink(table) as sink:
            return await use(sink)

    return asyncio.run(main())


def movie(number: int, title: str = "Metropolis") -> bytes:
    return orjson.dumps({"movie_id": {"N": str(number)}, "title": {"S": title}})


def ids(house: House, table: str) -> list[int]:
    return sorted(int(item["movie_id"]["N"]) for item in house.items(table))


def by_value(item: dict[str, Any]) -> dict[str, Any]:
    """An item whose numbers compare by value: a server writes them as it likes."""
    return {name: {"N": Decimal(value["N"])} if "N" in value else value for name, value in item.items()}


def test_it_says_its_table(house: House, table: str) -> None:
    async def use(sink: Sink) -> str:
        return sink.table

    assert within(house, table, use) == table


def test_a_missing_table_has_no_key(house: House, table: str) -> None:
    assert within(house, table, lambda sink: sink.key()) is None


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_created_table_has_its_key(house: House, table: str, key: Key) -> None:
    async def use(sink: Sink) -> Key | None:
        await sink.create(key, CREATE_DEFAULTS)
        return await sink.key()

    assert within(house, table, use) == key


def test_creating_what_is_there_is_harmless(house: House, table: str) -> None:
    async def use(sink: Sink) -> None:
        await asyncio.gather(sink.create(BY_ID, CREATE_DEFAULTS), sink.create(BY_ID, CREATE_DEFAULTS))
        await sink.put([movie(1)])
        await sink.create(BY_ID, CREATE_DEFAULTS)

    within(house, table, use)
    assert ids(house, table) == [1]


def test_a_table_made_meanwhile_with_another_key_is_an_error(house: House, table: str) -> None:
    async def use(sink: Sink) -> None:
        await sink.create(BY_ID, CREATE_DEFAULTS)
        await sink.create(Key(KeyAttribute("title", "S")), CREATE_DEFAULTS)

    with pytest.raises(SinkError, match="another key"):
        within(house, table, use)


@pytest.mark.parametrize("name", ["ab", "a" * 256, "no/slash", "", "mövies", "movies\n"])
def test_a_name_that_is_none_is_an_error(house: House, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        within(house, name, lambda sink: sink.create(BY_ID, CREATE_DEFAULTS))
    assert caught.value.hint


@pytest.mark.parametrize("count", [0, 1, 25, 26, 1103])
def test_every_item_arrives(house: House, table: str, count: int) -> None:
    async def use(sink: Sink) -> None:
        await sink.create(BY_ID, CREATE_DEFAULTS)
        assert await sink.put([movie(number) for number in range(count)]) == []

    within(house, table, use)
    assert ids(house, table) == list(range(count))
    assert house.counters.rows_loaded == count
    assert house.counters.requests_in_flight == 0


def test_items_arrive_as_they_are(house: House, table: str) -> None:
    item = {
        "movie_id": {"N": "12345678901234567890123456789012345678"},
        "small": {"N": "-1E-130"},
        "text": {"S": 'Amélie \u0001 "quoted" \\ 🎬'},
        "empty": {"S": ""},
        "poster": {"B": "AAECAw=="},
        "seen": {"BOOL": True},
        "nothing": {"NULL": True},
        "tree": {"M": {"cast": {"L": [{"S": "Audrey"}, {"N": "1"}, {"L": []}]}, "crew": {"M": {}}}},
    }

    async def use(sink: Sink) -> None:
        await sink.create(BY_ID, CREATE_DEFAULTS)
        assert await sink.put([orjson.dumps(item)]) == []

    within(house, table, use)
    (found,) = house.items(table)
    if isinstance(house, DynamoDBHouse):
        item["poster"] = {"B": b"\x00\x01\x02\x03"}
    assert by_value(found) == by_value(item)


def test_an_item_replaces_the_one_with_its_key(house: House, table: str) -> None:
    async def use(sink: Sink) -> None:
        await sink.create(BY_ID, CREATE_DEFAULTS)
        await sink.put([orjson.dumps({"movie_id": {"N": "1"}, "old": {"S": "x"}})])
        await sink.put([movie(1, "Nosferatu")])

    within(house, table, use)
    assert house.items(table) == [orjson.loads(movie(1, "Nosferatu"))]


def test_two_items_with_one_key_are_no_error(house: House, table: str) -> None:
    async def use(sink: Sink) -> None:
        await sink.create(BY_ID, CREATE_DEFAULTS)
        twice = [movie(number, title) for title in ("first", "second") for number in range(12)]
        assert await sink.put(twice) == []

    within(house, table, use)
    assert ids(house, table) == list(range(12))
    assert house.counters.rows_loaded == 24


def test_puts_side_by_side_all_arrive(house: House, table: str) -> None:
    async def use(sink: Sink) -> None:
        await sink.create(BY_ID, CREATE_DEFAULTS)
        await asyncio.gather(*(sink.put([movie(100 * part + it) for it in range(90)]) for part in range(7)))

    within(house, table, use)
    assert ids(house, table) == [100 * part + it for part in range(7) for it in range(90)]


def test_what_an_item_holds_may_be_refused_and_the_others_arrive(house: House, table: str) -> None:
    keyless = orjson.dumps({"title": {"S": "no key"}})
    other_type = orjson.dumps({"movie_id": {"S": "seven"}, "title": {"S": "wrong type"}})

    async def use(sink: Sink) -> None:
        await sink.create(BY_ID, CREATE_DEFAULTS)
        good = [movie(number) for number in range(60)]
        refusals = await sink.put([*good[:11], keyless, *good[11:40], other_type, *good[40:]])
        assert sorted(refusal.item for refusal in refusals) == sorted([keyless, other_type])
        assert all(refusal.message for refusal in refusals)

    within(house, table, use)
    assert ids(house, table) == list(range(60))
    assert house.counters.rows_loaded == 60


def test_an_item_over_the_limit_is_refused(house: House, table: str) -> None:
    large = movie(7, "x" * 420_000)

    async def use(sink: Sink) -> None:
        await sink.create(BY_ID, CREATE_DEFAULTS)
        refusals = await sink.put([movie(1), large, movie(2), movie(3, "x" * 390_000)])
        assert [refusal.item for refusal in refusals] == [large]

    within(house, table, use)
    assert ids(house, table) == [1, 2, 3]


def test_a_missing_table_takes_nothing(house: House, table: str) -> None:
    with pytest.raises(SinkError, match=table) as caught:
        within(house, table, lambda sink: sink.put([movie(number) for number in range(200)]))
    assert caught.value.hint
    assert house.counters.rows_loaded == 0
    assert house.counters.requests_in_flight == 0
