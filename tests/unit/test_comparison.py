"""Items against what their rows make: equal by value, and where not, at which place."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.comparison import AttributeDifference, attribute_differences, key_bytes

Value = dict[str, Any]


def differences(expected: Value, found: Value) -> list[AttributeDifference]:
    """Both ways: what is no difference one way is none the other."""
    there, back = attribute_differences(expected, found), attribute_differences(found, expected)
    swapped = [AttributeDifference(it.attribute, it.path, it.found, it.expected) for it in back]
    assert sorted(map(repr, there)) == sorted(map(repr, swapped))
    return there


SAME = [
    ({"N": "7.50"}, {"N": "7.5"}),
    ({"N": "1.0"}, {"N": "1"}),
    ({"N": "1"}, {"N": "1E0"}),
    ({"N": "10"}, {"N": "1E+1"}),
    ({"N": "0.00"}, {"N": "0"}),
    ({"N": "-0"}, {"N": "0"}),
    ({"N": "007"}, {"N": "7"}),
    ({"N": "-1.20"}, {"N": "-1.2"}),
    ({"N": "1E-130"}, {"N": "0." + "0" * 129 + "1"}),
    ({"N": "9.9E+125"}, {"N": "99" + "0" * 124}),
    ({"N": "0.10000000000000000000000000000000000001"}, {"N": "10000000000000000000000000000000000001E-38"}),
    ({"B": "AAEC"}, {"B": "AAEC\n"}),
    ({"B": ""}, {"B": ""}),
    ({"SS": ["a", "b"]}, {"SS": ["b", "a"]}),
    ({"NS": ["1.0", "2"]}, {"NS": ["2.00", "1"]}),
    ({"BS": ["AA==", "AQ=="]}, {"BS": ["AQ==", "AA=="]}),
    ({"M": {"a": {"N": "1.0"}, "b": {"S": "x"}}}, {"M": {"b": {"S": "x"}, "a": {"N": "1"}}}),
    ({"L": [{"N": "1.0"}, {"SS": ["a", "b"]}]}, {"L": [{"N": "1"}, {"SS": ["b", "a"]}]}),
    ({"NULL": True}, {"NULL": True}),
    ({"BOOL": False}, {"BOOL": False}),
]

OTHER = [
    ({"N": "7"}, {"N": "8"}),
    ({"N": "10000000000000000000000000000000000001"}, {"N": "10000000000000000000000000000000000002"}),
    ({"N": "12345678901234567890123456789012345678"}, {"N": "1.2345678901234567890123456789012345679E37"}),
    ({"N": "0"}, {"N": "1E-130"}),
    ({"N": "1"}, {"N": "-1"}),
    ({"N": "1"}, {"S": "1"}),
    ({"S": "AAEC"}, {"B": "AAEC"}),
    ({"S": "a"}, {"S": "a "}),
    ({"S": "é"}, {"S": "e\u0301"}),
    ({"S": ""}, {"NULL": True}),
    ({"B": "AAEC"}, {"B": "AAED"}),
    ({"BOOL": True}, {"BOOL": False}),
    ({"SS": ["1"]}, {"NS": ["1"]}),
    ({"SS": ["a"]}, {"SS": ["a", "b"]}),
    ({"SS": ["a"]}, {"L": [{"S": "a"}]}),
    ({"NS": ["1", "2"]}, {"NS": ["1", "3"]}),
    ({"L": []}, {"M": {}}),
]


@pytest.mark.parametrize(("expected", "found"), SAME)
def test_what_is_equal_by_value_is_no_difference(expected: Value, found: Value) -> None:
    assert differences({"a": expected}, {"a": found}) == []


@pytest.mark.parametrize(("expected", "found"), OTHER)
def test_what_is_not_is_one(expected: Value, found: Value) -> None:
    assert differences({"a": expected}, {"a": found}) == [AttributeDifference("a", (), expected, found)]


def test_an_attribute_less_and_an_attribute_more_are_differences() -> None:
    row = {"id": {"N": "1"}, "title": {"S": "Alien"}}
    item = {"id": {"N": "1.0"}, "note": {"S": "by hand"}}
    assert differences(row, item) == [
        AttributeDifference("title", (), {"S": "Alien"}, None),
        AttributeDifference("note", (), None, {"S": "by hand"}),
    ]


@pytest.mark.parametrize(
    ("expected", "found", "path", "there", "here"),
    [
        ({"M": {"a": {"L": [{"N": "1"}]}}}, {"M": {"a": {"L": [{"N": "2"}]}}}, ("a", 0), {"N": "1"}, {"N": "2"}),
        ({"L": [{"N": "1"}, {"N": "2"}]}, {"L": [{"N": "2"}, {"N": "1"}]}, (0,), {"N": "1"}, {"N": "2"}),
        ({"L": [{"N": "1"}]}, {"L": [{"N": "1.0"}, {"N": "2"}]}, (1,), None, {"N": "2"}),
        ({"L": [{"M": {"x": {"S": "a"}}}]}, {"L": [{"M": {}}]}, (0, "x"), {"S": "a"}, None),
        ({"M": {"": {"L": []}}}, {"M": {"": {"M": {}}}}, ("",), {"L": []}, {"M": {}}),
    ],
)
def test_a_difference_within_a_value_is_told_by_its_place(
    expected: Value, found: Value, path: tuple[str | int, ...], there: Value | None, here: Value | None
) -> None:
    assert differences({"a": expected}, {"a": found}) == [AttributeDifference("a", path, there, here)]


def test_each_attribute_has_at_most_one() -> None:
    row = {"a": {"L": [{"N": str(n)} for n in range(1000)]}, "b": {"S": "x"}}
    item = {"a": {"L": [{"N": str(n + 1)} for n in range(1000)]}, "b": {"S": "y"}}
    assert [(it.attribute, it.path) for it in differences(row, item)] == [("a", (0,)), ("b", ())]


def test_values_as_deep_as_dynamodb_takes_them_compare() -> None:
    def nested(leaf: str) -> Value:
        value: Value = {"S": leaf}
        for _ in range(31):
            value = {"L": [value]}
        return value

    assert differences({"a": nested("x")}, {"a": nested("x")}) == []
    (found,) = differences({"a": nested("x")}, {"a": nested("y")})
    assert found.path == (0,) * 31


def numbers() -> st.SearchStrategy[Decimal]:
    return st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30, places=8)


def spellings(number: Decimal) -> st.SearchStrategy[str]:
    return st.sampled_from([str(number), format(number, "f"), format(number, "E"), f"{number:.40f}"])


@given(st.data(), numbers(), numbers())
def test_keys_are_equal_bytes_where_they_are_equal_and_only_there(
    data: st.DataObject, first: Decimal, second: Decimal
) -> None:
    keys = [{"id": {"N": data.draw(spellings(number))}} for number in (first, second, first)]
    one, other, again = (key_bytes(key, ["id"]) for key in keys)
    assert one == again
    assert (one == other) == (first == second)


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_where_one_part_of_a_key_ends_is_part_of_it(first: tuple[str, str], second: tuple[str, str]) -> None:
    one, other = (key_bytes({"pk": {"S": pk}, "sk": {"S": sk}}, ["pk", "sk"]) for pk, sk in (first, second))
    assert (one == other) == (first == second)


def test_keys_of_other_types_are_others() -> None:
    text = base64.b64encode(b"1").decode()
    keys = [{"id": {"S": "1"}}, {"id": {"N": "1"}}, {"id": {"B": text}}, {"id": {"S": text}}]
    assert len({key_bytes(key, ["id"]) for key in keys}) == 4
    assert key_bytes({"id": {"N": "1"}, "more": {"S": "x"}}, ["id"]) == key_bytes({"id": {"N": "1"}}, ["id"])
