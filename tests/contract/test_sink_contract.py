"""What every sink does: the in-memory one, and DynamoDB's over HTTP, against two servers.

One is moto's, in this process, unless ``MOMENTO_ETL_TEST_DYNAMODB`` names another, for example
``http://127.0.0.1:8000``. The other is dynalite.
"""

from __future__ import annotations

import asyncio
import base64
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

from etlcli.comparison import attribute_differences
from etlcli.errors import SinkError, UsageError
from etlcli.marking import marked
from etlcli.model import CREATE_DEFAULTS, ItemMark, Key, KeyAttribute, Survey
from etlcli.ports import Sink, StoredItem, TableSize
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.asking import Asker
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

    def write(self, table: str, item: dict[str, Any]) -> None: ...


class FakeHouse:
    def __init__(self) -> None:
        self.counters = Counters()
        self.account: dict[str, FakeTable] = {}
        self.meanwhile: Callable[[], None] | None = None

    def sink(self, table: str) -> AbstractAsyncContextManager[Sink]:
        sink = FakeSink(table, self.counters, self.account)
        sink.meanwhile = self.meanwhile
        return sink

    def items(self, table: str) -> list[dict[str, Any]]:
        return list(self.account[table].items.values())

    def write(self, table: str, item: dict[str, Any]) -> None:
        key = tuple(orjson.dumps(item[it.name]).decode() for it in self.account[table].key.attributes)
        self.account[table].items[key] = item


class DynamoDBHouse:
    def __init__(self, endpoint: str) -> None:
        self.counters = Counters()
        self.max_in_flight = 64
        self.scan_items: int | None = None
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
        retry = RetryPolicy(patience=5.0, base=0.01)
        return DynamoDBSink(self.settings, table, self.counters, retry, self.max_in_flight, scan_items=self.scan_items)

    def items(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for page in self.client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
            found.extend(page["Items"])
        return found

    def write(self, table: str, item: dict[str, Any]) -> None:
        self.client.put_item(TableName=table, Item=item)


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


# What ``verify`` asks of it


def key_of(item: bytes, key: Key) -> bytes:
    document = orjson.loads(item)
    return orjson.dumps({it.name: document[it.name] for it in key.attributes})


@pytest.mark.parametrize("count", [0, 1, 100, 101, 450])
def test_each_key_gets_its_item_or_none(house: House, table: str, count: int) -> None:
    fill(house, table, BY_ID, [movie(number) for number in range(0, count, 2)])
    wanted = [movie(number) for number in reversed(range(count))]
    found = within(house, table, lambda sink: sink.fetch([key_of(item, BY_ID) for item in wanted]))
    assert found == [None if number % 2 else orjson.loads(movie(number)) for number in reversed(range(count))]
    assert house.counters.requests_in_flight == 0


def test_a_key_may_be_asked_for_twice(house: House, table: str) -> None:
    fill(house, table, BY_ID, [movie(1)])
    keys = [key_of(movie(number), BY_ID) for number in (1, 2, 1, 2)]
    there = orjson.loads(movie(1))
    assert within(house, table, lambda sink: sink.fetch(keys)) == [there, None, there, None]


def test_what_is_fetched_is_what_was_put(house: House, table: str) -> None:
    item: dict[str, dict[str, Any]] = {
        "movie_id": {"N": "12345678901234567890123456789012345678"},
        "text": {"S": 'Amélie \u0001 "quoted" \\ 🎬'},
        "empty": {"S": ""},
        "poster": {"B": "AAECAw=="},
        "seen": {"BOOL": True},
        "nothing": {"NULL": True},
        "names": {"SS": ["é", "b"]},
        "posters": {"BS": ["AAE=", "/w=="]},
        "figures": {"NS": ["1", "2"]},
        "tree": {"M": {"cast": {"L": [{"S": "Audrey"}, {"N": "1.5"}, {"L": []}]}, "crew": {"M": {}}}},
    }
    fill(house, table, BY_ID, [orjson.dumps(item)])
    (found,) = within(house, table, lambda sink: sink.fetch([orjson.dumps({"movie_id": item["movie_id"]})]))
    assert found is not None
    assert attribute_differences(item, found) == []


@pytest.mark.parametrize(
    "key",
    [*KEYS, Key(KeyAttribute("size", "S"), KeyAttribute("timestamp", "N")), Key(KeyAttribute("#a.b ü", "B"))],
    ids=str,
)
def test_keys_of_all_shapes_are_fetched_and_scanned(house: House, table: str, key: Key) -> None:
    def item(number: int) -> bytes:
        values = {"S": f'"é"\\{number}', "N": f"{number}.5", "B": base64.b64encode(bytes([0, number])).decode()}
        return orjson.dumps({**{it.name: {it.type: values[it.type]} for it in key.attributes}, "note": {"S": "x"}})

    made = [item(number) for number in range(7)]
    fill(house, table, key, made)
    keys = [key_of(it, key) for it in made]
    assert within(house, table, lambda sink: sink.fetch(keys)) == list(map(orjson.loads, made))
    assert within(house, table, scanned) == sorted(map(orjson.loads, keys), key=repr)


async def scanned(sink: Sink, mark: ItemMark | None = None) -> list[StoredItem]:
    return sorted([key async for page in sink.scan_keys(mark) for key in page], key=repr)


@pytest.mark.parametrize("scan_items", [1, 7, 100, None])
def test_all_keys_are_scanned_or_those_of_a_job(house: House, table: str, scan_items: int | None) -> None:
    if isinstance(house, DynamoDBHouse):
        house.scan_items = scan_items
    ours = [*left_by(EARLIER, *range(10)), *left_by(LATER, 11)]
    fill(house, table, BY_ID, [*ours, *left_by(ANOTHER_JOBS, 20, 21), movie(30)])
    for number, item in enumerate(NOT_THE_JOBS, 100):
        house.write(table, {"movie_id": {"N": str(number)}, **item})

    def numbers(mark: ItemMark | None) -> list[int]:
        found = within(house, table, lambda sink: scanned(sink, mark))
        assert all(key.keys() == {"movie_id"} for key in found)
        return sorted(int(key["movie_id"]["N"]) for key in found)

    assert numbers(None) == ids(house, table)
    assert numbers(THIS) == [*range(10), 11]


def test_large_items_are_fetched_and_scanned(house: House, table: str) -> None:
    # 100 of them are more than the 16 MB that one answer takes.
    large = [movie(number, "x" * 300_000) for number in range(100)]
    fill(house, table, BY_ID, large)
    found = within(house, table, lambda sink: sink.fetch([key_of(item, BY_ID) for item in large]))
    assert found == list(map(orjson.loads, large))
    assert len(within(house, table, scanned)) == 100


def test_an_empty_table_has_no_keys(house: House, table: str) -> None:
    fill(house, table, BY_ID, [])
    assert within(house, table, scanned) == []
    assert within(house, table, lambda sink: sink.fetch([key_of(movie(1), BY_ID)])) == [None]


def test_a_key_that_the_table_cannot_have_is_an_error_or_nobodys(house: House, table: str) -> None:
    fill(house, table, BY_ID, [movie(7)])
    try:
        found = within(house, table, lambda sink: sink.fetch([orjson.dumps({"movie_id": {"S": "7"}})]))
    except SinkError:
        return
    assert found == [None]  # moto does not look at its type


@pytest.mark.parametrize("what", ["fetch", "scan"])
def test_of_a_missing_table_nothing_is_read(house: House, table: str, what: str) -> None:
    async def use(sink: Sink) -> None:
        if what == "fetch":
            await sink.fetch([key_of(movie(1), BY_ID)])
        else:
            await scanned(sink)

    with pytest.raises(SinkError, match=table) as caught:
        within(house, table, use)
    assert caught.value.hint


# What mode ``replace`` asks of it


RUNS = ("20260101T000000000Z-aaaa", "20260102T000000000Z-0000", "20260103T000000000Z-ffff")
EARLIER, THIS, LATER = (ItemMark("_mark", "0123456789ab/", f"0123456789ab/{run}") for run in RUNS)
ANOTHER_JOBS = ItemMark("_mark", "0123456789ac/", f"0123456789ac/{RUNS[0]}")

NOT_THE_JOBS: list[dict[str, Any]] = [
    {"title": {"S": "without a mark"}},
    {"_mark": {"S": ""}},
    {"_mark": {"S": "0123456789ab"}},
    {"_mark": {"S": "0123456789aB/" + RUNS[0]}},
    {"_mark": {"S": "/0123456789ab/" + RUNS[0]}},
    {"_mark": {"N": "0"}},
    {"_mark": {"N": "12345"}},
    {"_mark": {"BOOL": True}},
    {"_mark": {"NULL": True}},
    {"_mark": {"M": {"S": {"S": EARLIER.value}}}},
    {"_mark": {"L": [{"S": EARLIER.value}]}},
    {"_mark": {"SS": [EARLIER.value]}},
    {"title": {"S": EARLIER.value}},
]


def left_by(mark: ItemMark, *numbers: int) -> list[bytes]:
    return marked([movie(number, f"of {mark.value}") for number in numbers], mark)


def fill(house: House, table: str, key: Key, items: list[bytes]) -> None:
    async def use(sink: Sink) -> None:
        await sink.create(key, CREATE_DEFAULTS)
        assert await sink.put(items) == []

    within(house, table, use)


def everything(house: House, table: str) -> dict[int, dict[str, Any]]:
    return {int(item["movie_id"]["N"]): item for item in house.items(table)}


def test_an_estimate_is_none_without_a_table_and_figures_with_one(house: House, table: str) -> None:
    assert within(house, table, lambda sink: sink.estimate()) is None
    fill(house, table, BY_ID, [movie(1), movie(2)])
    size = within(house, table, lambda sink: sink.estimate())
    assert size is not None
    # DynamoDB looks every six hours or so, and may know nothing yet.
    assert size == TableSize(*size)
    assert 0 <= size.items <= 2
    assert 0 <= size.bytes <= 1000


def test_only_what_an_earlier_run_of_the_job_left_is_stale(house: House, table: str) -> None:
    fill(
        house,
        table,
        BY_ID,
        [
            *left_by(EARLIER, 1, 2, 3),
            *left_by(THIS, 4, 5),
            *left_by(LATER, 6),
            *left_by(ANOTHER_JOBS, 7),
        ],
    )
    for number, item in enumerate(NOT_THE_JOBS, 100):
        house.write(table, {"movie_id": {"N": str(number)}, **item})
    before = everything(house, table)
    assert within(house, table, lambda sink: sink.survey(THIS)) == Survey(6, 3)
    assert everything(house, table) == before
    assert within(house, table, lambda sink: sink.sweep(THIS)) == 3
    assert everything(house, table) == {number: item for number, item in before.items() if number > 3}
    assert house.counters.items_deleted == 3
    assert within(house, table, lambda sink: sink.survey(THIS)) == Survey(3, 0)
    assert within(house, table, lambda sink: sink.sweep(THIS)) == 0
    assert house.counters.items_deleted == 3
    assert house.counters.requests_in_flight == 0


@pytest.mark.parametrize(
    "key",
    [
        *KEYS,
        Key(KeyAttribute("size", "S"), KeyAttribute("timestamp", "N")),
        Key(KeyAttribute("a.b", "B"), KeyAttribute("a b", "B")),
        Key(KeyAttribute("#more0", "S"), KeyAttribute("größe", "S")),
    ],
    ids=str,
)
@pytest.mark.parametrize("attribute", ["_momento_etl", "values", "a.c d", "#mark:value"])
def test_names_and_types_of_keys_do_not_matter(house: House, table: str, key: Key, attribute: str) -> None:
    marks = [ItemMark(attribute, mark.prefix, mark.value) for mark in (EARLIER, THIS)]

    def item(number: int) -> bytes:
        values = {"S": f'"é"\\{number}', "N": f"{number}.5", "B": base64.b64encode(bytes([0, number])).decode()}
        return orjson.dumps({it.name: {it.type: values[it.type]} for it in key.attributes})

    made = [item(number) for number in range(6)]
    fill(house, table, key, [*marked(made[:3], marks[0]), *marked(made[3:], marks[1])])
    assert within(house, table, lambda sink: sink.spare(made[:1], marks[1])) == 1
    assert within(house, table, lambda sink: sink.survey(marks[1])) == Survey(6, 2)
    assert within(house, table, lambda sink: sink.sweep(marks[1])) == 2
    assert len(house.items(table)) == 4
    assert all(item[attribute]["S"] == marks[1].value for item in house.items(table))


@pytest.mark.parametrize("scan_items", [1, 7, 100])
def test_pages_of_a_scan_do_not_matter(house: House, table: str, scan_items: int) -> None:
    if isinstance(house, DynamoDBHouse):
        house.scan_items = scan_items
    stale = [number for number in range(100) if number < 20 or number % 9 == 0]
    others = [number for number in range(100) if number not in stale]
    fill(house, table, BY_ID, [*left_by(EARLIER, *stale), *left_by(THIS, *others[::2]), *map(movie, others[1::2])])
    assert within(house, table, lambda sink: sink.survey(THIS)) == Survey(len(stale) + len(others[::2]), len(stale))
    assert within(house, table, lambda sink: sink.sweep(THIS)) == len(stale)
    assert ids(house, table) == others


def test_a_scan_goes_on_after_a_megabyte(house: House, table: str) -> None:
    large = "x" * 100_000
    fill(
        house,
        table,
        BY_ID,
        [
            *marked([movie(number, large) for number in range(0, 40, 2)], EARLIER),
            *marked([movie(number, large) for number in range(1, 40, 2)], THIS),
        ],
    )
    assert within(house, table, lambda sink: sink.survey(THIS)) == Survey(40, 20)
    assert within(house, table, lambda sink: sink.sweep(THIS)) == 20
    assert ids(house, table) == list(range(1, 40, 2))


def test_many_stale_items_all_go(house: House, table: str) -> None:
    fill(house, table, BY_ID, left_by(EARLIER, *range(300)))
    assert within(house, table, lambda sink: sink.sweep(THIS)) == 300
    assert ids(house, table) == []


def test_an_empty_table_has_nothing_to_remove(house: House, table: str) -> None:
    fill(house, table, BY_ID, [])
    assert within(house, table, lambda sink: sink.survey(THIS)) == Survey(0, 0)
    assert within(house, table, lambda sink: sink.sweep(THIS)) == 0


def test_what_is_written_after_it_was_seen_stays(house: House, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(house, table, BY_ID, left_by(EARLIER, *range(10)))
    noon = ItemMark("_mark", EARLIER.prefix, f"{EARLIER.prefix}20260101T120000000Z-0000")
    rewritten = [movie(1, "by hand"), *left_by(LATER, 2), *left_by(ANOTHER_JOBS, 3), *left_by(noon, 4)]

    def meanwhile() -> None:
        for item in rewritten:
            house.write(table, orjson.loads(item))

    if isinstance(house, DynamoDBHouse):
        asked = Asker.ask
        todo = [meanwhile]

        async def ask(self: Asker, request: dict[str, Any]) -> dict[str, Any] | None:
            # The first to be removed waits for it; all has been seen by then, and no other has been asked for.
            if "ConditionExpression" in request and todo:
                await asyncio.to_thread(todo.pop())
            return await asked(self, request)

        monkeypatch.setattr(Asker, "ask", ask)
        house.max_in_flight = 1
    else:
        assert isinstance(house, FakeHouse)
        house.meanwhile = meanwhile
    assert within(house, table, lambda sink: sink.sweep(THIS)) == 6
    assert everything(house, table) == {number: orjson.loads(item) for number, item in enumerate(rewritten, 1)}
    assert house.counters.items_deleted == 6


def test_spared_items_get_the_mark_and_nothing_else(house: House, table: str) -> None:
    fill(
        house,
        table,
        BY_ID,
        [*left_by(EARLIER, 1, 2, 3), *left_by(THIS, 4), *left_by(LATER, 5), *left_by(ANOTHER_JOBS, 6), movie(7)],
    )
    house.write(table, {"movie_id": {"N": "8"}, "_mark": {"N": "8"}})
    before = everything(house, table)

    def keys(*numbers: int) -> list[bytes]:
        return [orjson.dumps({"movie_id": {"N": str(number)}}) for number in numbers]

    async def use(sink: Sink) -> list[int]:
        return [
            await sink.spare([], THIS),
            await sink.spare(keys(1, 4, 5, 6, 7, 8, 9), THIS),
            await sink.spare(keys(1), THIS),
            # A key that the table cannot hold is nobody's.
            await sink.spare([orjson.dumps({"movie_id": {"S": "seven"}}), *keys(2)], THIS),
        ]

    assert within(house, table, use) == [0, 1, 0, 1]
    spared = {number: {**before[number], "_mark": {"S": THIS.value}} for number in (1, 2)}
    assert everything(house, table) == {**before, **spared}
    assert within(house, table, lambda sink: sink.sweep(THIS)) == 1
    assert everything(house, table).keys() == before.keys() - {3}


@pytest.mark.parametrize("what", ["survey", "spare", "sweep"])
def test_a_missing_table_is_an_error_to_all_of_them(house: House, table: str, what: str) -> None:
    async def use(sink: Sink) -> None:
        match what:
            case "survey":
                await sink.survey(THIS)
            case "spare":
                await sink.spare([orjson.dumps({"movie_id": {"N": "1"}})], THIS)
            case "sweep":
                await sink.sweep(THIS)

    with pytest.raises(SinkError, match=table) as caught:
        within(house, table, use)
    assert caught.value.hint


def test_a_table_that_is_not_there_says_what_was_to_be_done_to_it(house: House, table: str) -> None:
    if not isinstance(house, DynamoDBHouse):
        pytest.skip("the fake says it in its own words")
    with pytest.raises(SinkError, match=r"does not exist \(any more\), and there is nothing to read in it"):
        within(house, table, scanned)
    with pytest.raises(SinkError, match=r"does not exist \(any more\), and there is nothing to remove from it"):
        within(house, table, lambda sink: sink.sweep(THIS))


def test_indexes_of_the_table_stay_as_they_are(house: House, table: str) -> None:
    if not isinstance(house, DynamoDBHouse):
        pytest.skip("the fake has none")
    house.client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "movie_id", "KeyType": "HASH"}],
        AttributeDefinitions=[
            {"AttributeName": "movie_id", "AttributeType": "N"},
            {"AttributeName": "title", "AttributeType": "S"},
        ],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "by-title",
                "KeySchema": [{"AttributeName": "title", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )

    def indexes() -> Any:
        (found,) = house.client.describe_table(TableName=table)["Table"]["GlobalSecondaryIndexes"]
        return {name: found[name] for name in ("IndexName", "KeySchema", "Projection", "IndexStatus")}

    within(house, table, lambda sink: sink.key())  # it is ACTIVE after that
    before = indexes()
    fill(house, table, BY_ID, [*left_by(EARLIER, 1, 2), *left_by(THIS, 3), movie(4, "by hand")])
    assert within(house, table, lambda sink: sink.survey(THIS)) == Survey(3, 2)
    assert within(house, table, lambda sink: sink.sweep(THIS)) == 2
    assert indexes() == before
    assert ids(house, table) == [3, 4]
    for title, expected in ((f"of {EARLIER.value}", 0), (f"of {THIS.value}", 1), ("by hand", 1)):
        answer = house.client.query(
            TableName=table,
            IndexName="by-title",
            KeyConditionExpression="title = :title",
            ExpressionAttributeValues={":title": {"S": title}},
        )
        assert answer["Count"] == expected
