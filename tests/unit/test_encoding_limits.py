"""DynamoDB's measures, against figures that were measured on the service."""

from __future__ import annotations

import base64
from decimal import Decimal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.encoding.limits import MAX_ITEM_BYTES, item_size, nesting_levels, number_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 1), ("-0", 1), ("0.000", 1), ("1", 2), ("12", 2), ("123", 3), ("1234", 3), ("1" * 38, 20), ("0042", 2),
        ("100", 2), ("1010", 3), ("0.0000001", 2), ("1E125", 2), ("1E-100", 2), ("1.5", 3), ("15", 2), ("1.200", 3),
        ("1.234", 4), ("3.14159", 5), ("123456", 4), ("100.5", 4), ("0.15", 2), ("-42", 3), ("1.5e+1", 2),
        ("1.234e2", 4),
    ],
)  # fmt: skip
def test_a_number_costs_what_dynamodb_charged(text: str, size: int) -> None:
    assert number_size(text) == size


def test_an_item_is_its_names_and_values() -> None:
    item = '{"id":{"S":"é"},"b":{"B":"AP8="},"l":{"L":[{"NULL":true},{"M":{"k":{"BOOL":true}}}]}}'
    assert item_size(item.encode()) == (2 + 2) + (1 + 2) + 1 + (3 + (1 + 1) + (1 + 3 + (1 + 1 + 1)))


values = st.recursive(
    st.one_of(
        st.text(max_size=8).map(lambda text: {"S": text}),
        st.decimals(allow_nan=False, allow_infinity=False).map(lambda number: {"N": str(number)}),
        st.binary(max_size=8).map(lambda data: {"B": base64.b64encode(data).decode()}),
        st.booleans().map(lambda value: {"BOOL": value}),
        st.just({"NULL": True}),
    ),
    lambda children: st.one_of(
        st.lists(children, max_size=4).map(lambda elements: {"L": elements}),
        st.dictionaries(st.text(max_size=4), children, max_size=4).map(lambda members: {"M": members}),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(min_size=1, max_size=4), values, min_size=1, max_size=5))
def test_an_item_is_never_larger_than_its_json(item: dict[str, dict[str, object]]) -> None:
    encoded = orjson.dumps(item)
    assert item_size(encoded) <= len(encoded)


@given(values)
def test_levels_are_counted_without_recursion(value: dict[str, object]) -> None:
    def levels(value: object) -> int:
        assert isinstance(value, dict)
        ((kind, content),) = value.items()
        inner = content if kind == "L" else list(content.values()) if kind == "M" else []
        return 1 + max(map(levels, inner), default=0)

    assert nesting_levels(orjson.dumps(value)) == levels(value)


def test_the_bound_is_400_kb() -> None:
    assert Decimal(MAX_ITEM_BYTES) / 1024 == 400
