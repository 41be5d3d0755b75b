from __future__ import annotations

import itertools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.errors import UsageError
from etlcli.sink.batches import (
    BATCH_BYTES,
    BATCH_ITEMS,
    Accepted,
    Problem,
    batches,
    halves,
    read_answer,
    request,
    spread,
)
from etlcli.sink.names import check_table_name
from etlcli.sink.settings import DynamoDBSettings
from etlcli.sink.translate import Verdict

sizes = st.lists(st.sampled_from([1, 400, 90_000, 400_000, 2_400_000]), max_size=120)


@given(st.integers(0, 3000))
def test_spreading_keeps_every_item(count: int) -> None:
    items = [b"%d" % number for number in range(count)]
    assert sorted(spread(items)) == sorted(items)


@given(st.integers(26, 3000))
def test_spreading_parts_neighbours(count: int) -> None:
    items = [b"%d" % number for number in range(count)]
    place = {item: position for position, item in enumerate(spread(items))}
    nearest = min(abs(place[one] - place[other]) for one, other in itertools.pairwise(items))
    assert nearest >= count // 3


@given(st.integers(26, 3000))
def test_a_batch_has_no_two_rows_that_were_near(count: int) -> None:
    items = [b"%d" % number for number in range(count)]
    for batch in batches(spread(items)):
        numbers = sorted(map(int, batch))
        assert all(later - earlier >= count // 60 for earlier, later in itertools.pairwise(numbers))


@given(sizes)
def test_batches_keep_order_and_bounds(lengths: list[int]) -> None:
    items = [bytes(length) for length in lengths]
    made = list(batches(items))
    assert [item for batch in made for item in batch] == items
    for batch in made:
        assert 1 <= len(batch) <= BATCH_ITEMS
        assert len(batch) == 1 or sum(map(len, batch)) <= BATCH_BYTES


@given(st.integers(2, 25))
def test_halves_are_smaller_and_whole(count: int) -> None:
    batch = [b"%d" % number for number in range(count)]
    first, second = halves(batch)
    assert first
    assert second
    assert first + second == batch


@pytest.mark.parametrize("count", [1, 2, 25])
def test_a_request_is_json_and_leaves_the_items_alone(count: int) -> None:
    batch = [orjson.dumps({"id": {"N": str(number)}}) for number in range(count)]
    before = list(batch)
    puts = [{"PutRequest": {"Item": {"id": {"N": str(number)}}}} for number in range(count)]
    assert orjson.loads(request("my.Table-1_x", batch)) == {"RequestItems": {"my.Table-1_x": puts}}
    assert batch == before


def test_an_answer_of_nothing_unprocessed() -> None:
    assert read_answer(200, b'{"UnprocessedItems":{}}', table="t", sent=3) == Accepted([])
    assert read_answer(200, b'{ "UnprocessedItems": {} }', table="t", sent=3) == Accepted([])


@pytest.mark.parametrize(
    ("status", "body", "verdict", "code"),
    [
        (400, b'{"__type":"com.amazon.coral.validate#ValidationException"}', Verdict.SPLIT, "ValidationException"),
        (400, b'{"__type":"ThrottlingException","Message":"slow"}', Verdict.THROTTLED, "ThrottlingException"),
        (400, b'{"__type":"x#ResourceNotFoundException"}', Verdict.FINAL, "ResourceNotFoundException"),
        (500, b'{"__type":"x#NeverHeardOf"}', Verdict.PASSING, "NeverHeardOf"),
        (503, b"", Verdict.PASSING, ""),
        (429, b"slow down", Verdict.THROTTLED, ""),
        (413, b"too large", Verdict.SPLIT, ""),
        # Not DynamoDB's own: it passes, unless whoever stands before it says no.
        (302, b"", Verdict.PASSING, ""),
        (400, b"", Verdict.PASSING, ""),
        (400, b"{}", Verdict.PASSING, ""),
        (400, b'{"__type":"com.amazonaws.dyn', Verdict.PASSING, ""),
        (400, b'["__type"]', Verdict.PASSING, ""),
        (404, b"<html>default backend</html>", Verdict.PASSING, ""),
        (504, b"<html>", Verdict.PASSING, ""),
        (401, b"", Verdict.FINAL, ""),
        (403, b"<html>", Verdict.FINAL, ""),
        (403, b'{"message":"Forbidden"}', Verdict.FINAL, ""),
        (407, b"<html>", Verdict.FINAL, ""),
    ],
)
def test_an_error_answer(status: int, body: bytes, verdict: Verdict, code: str) -> None:
    outcome = read_answer(status, body, table="t", sent=1)
    assert isinstance(outcome, Problem)
    assert (outcome.verdict, outcome.code) == (verdict, code)


@pytest.mark.parametrize("name", ["abc", "a" * 255, "A_b-c.9", "..."])
def test_table_names(name: str) -> None:
    check_table_name(name)


def test_a_wrong_name_gets_a_near_one() -> None:
    with pytest.raises(UsageError, match="sales/orders") as caught:
        check_table_name("sales/orders 2024")
    assert caught.value.hint is not None
    assert "sales-orders-2024" in caught.value.hint


def test_settings_do_not_print_their_secrets() -> None:
    shown = repr(DynamoDBSettings("eu-west-1", None, None, "AKIDSHOWN", "hush"))
    assert "AKIDSHOWN" not in shown
    assert "hush" not in shown
