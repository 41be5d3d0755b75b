"""The user's own function over finished items."""

from __future__ import annotations

import base64
import datetime as dt
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.encoding import (
    EncodingOptions,
    RowEncoder,
    Transform,
    Unrepresentable,
    decode_fields,
    item_size,
    load_transform,
)
from etlcli.encoding.python_values import from_python, to_python
from etlcli.errors import ConfigError, SourceError
from etlcli.model import Column, Key, KeyAttribute, PgType, Reject

COLUMNS = tuple(
    Column(name, PgType(typname, typname))
    for name, typname in (("id", "int4"), ("name", "text"), ("raw", "bytea"), ("doc", "jsonb"))
)
KEY = Key(KeyAttribute("id", "N"), KeyAttribute("name", "S"))
LINE = rb'7	Heat	\\x00ff	{"n": 12345678901234567890.5, "l": [true, null]}'


def encoder(function: Callable[[dict[str, Any]], Any], **more: Any) -> RowEncoder:
    names = [column.name for column in COLUMNS]
    return RowEncoder(COLUMNS, names, KEY, transform=Transform("m:f", function, ""), **more)


def result(change: dict[str, Any], **more: Any) -> dict[str, Any] | Reject:
    """Change an item by a function; answer it as DynamoDB JSON, or the reject. A batch and one row agree."""
    made = encoder(lambda item: {name: value for name, value in (item | change).items() if value != "gone"}, **more)
    items, rejects, dropped = made.encode_batch([LINE])
    assert dropped == 0
    fields = decode_fields(LINE)
    if rejects:
        with pytest.raises(Unrepresentable) as caught:
            made.encode_fields(fields)
        assert [made.reject(fields, caught.value)] == rejects
        return rejects[0]
    assert [made.encode_fields(fields)] == items
    parsed: dict[str, Any] = json.loads(items[0])
    return parsed


def test_a_function_gets_exact_python_values() -> None:
    seen: list[dict[str, Any]] = []

    def function(item: dict[str, Any]) -> dict[str, Any]:
        seen.append(item)
        return item

    made = encoder(function)
    (item,), _, _ = made.encode_batch([LINE])
    assert seen == [
        {
            "id": Decimal(7),
            "name": "Heat",
            "raw": b"\x00\xff",
            "doc": {"n": Decimal("12345678901234567890.5"), "l": [True, None]},
        }
    ]
    assert item == (
        b'{"id":{"N":"7"},"name":{"S":"Heat"},"raw":{"B":"AP8="},"doc":{"M":{"n":{"N":"12345678901234567890.5"},'
        b'"l":{"L":[{"BOOL":true},{"NULL":true}]}}}}'
    )


def test_rows_are_changed_dropped_and_rejected_each_on_its_own() -> None:
    def function(item: dict[str, Any]) -> dict[str, Any] | None:
        if item["id"] == 2:
            return None
        if item["id"] == 3:
            raise ValueError("no\tthree")
        return {"new": 1, **item}

    lines = [b"%d\tx\t\\N\t\\N" % number for number in range(1, 5)]
    made = encoder(function)
    encoded = made.encode_batch(lines)
    assert encoded.items == [b'{"id":{"N":"%d"},"name":{"S":"x"},"new":{"N":"1"}}' % number for number in (1, 4)]
    assert encoded.rejects == [
        Reject("transform-error", "the transform m:f raised ValueError: 'no\\tthree'", {"id": "3", "name": "x"})
    ]
    assert encoded.dropped == 1
    assert made.encode_fields(decode_fields(lines[1])) is None
    with pytest.raises(AssertionError, match="encode_batch"):
        made.encode(lines)


def test_a_row_that_is_bad_already_never_gets_there() -> None:
    made = encoder(lambda _: pytest.fail("called"))
    items, rejects, dropped = made.encode_batch([rb"1	\N	\N	\N", rb'2	a	\N	{"": 1}'])
    assert (items, dropped) == ([], 0)
    assert [reject.rule for reject in rejects] == ["key-null", "json-empty-key"]


BERLIN = dt.timezone(dt.timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, {"N": "5"}),
        (10**37, {"N": "1" + "0" * 37}),
        (-(10**125), {"N": "-1E125"}),
        (0.1, {"N": "0.1"}),
        (1e100, {"N": "1e+100"}),
        (Decimal("1.50"), {"N": "1.50"}),
        (Decimal("-1E-130"), {"N": "-1E-130"}),
        ("", {"S": ""}),
        ('"\\\n\x00é🎬', {"S": '"\\\n\x00é🎬'}),
        (b"\x00", {"B": "AA=="}),
        (bytearray(b"\x00"), {"B": "AA=="}),
        (memoryview(b"\x00"), {"B": "AA=="}),
        (True, {"BOOL": True}),
        (False, {"BOOL": False}),
        (None, {"NULL": True}),
        ([], {"L": []}),
        ((1, "a"), {"L": [{"N": "1"}, {"S": "a"}]}),
        ({}, {"M": {}}),
        ({'k"': {"x": [None]}}, {"M": {'k"': {"M": {"x": {"L": [{"NULL": True}]}}}}}),
        ({"b", "a", ""}, {"SS": ["", "a", "b"]}),
        (frozenset({2, Decimal("1.5")}), {"NS": ["1.5", "2"]}),
        ({b"b", b"a"}, {"BS": ["YQ==", "Yg=="]}),
        (dt.datetime.fromisoformat("2024-02-29T10:15:00.5"), {"S": "2024-02-29T10:15:00.500000"}),
        (dt.datetime(2024, 2, 29, 10, 15, tzinfo=dt.UTC), {"S": "2024-02-29T10:15:00Z"}),
        (dt.datetime(2024, 2, 29, 10, 15, tzinfo=BERLIN), {"S": "2024-02-29T10:15:00+02:00"}),
        (dt.date(2024, 2, 29), {"S": "2024-02-29"}),
        (dt.time(10, 15), {"S": "10:15:00"}),
        (uuid.UUID(int=1), {"S": "00000000-0000-0000-0000-000000000001"}),
    ],
)
def test_python_values_and_what_they_become(value: Any, expected: object) -> None:
    changed = result({"new": value})
    assert isinstance(changed, dict)
    assert changed["new"] == expected


cyclic: list[Any] = []
cyclic.append(cyclic)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels - 1):
        value = [value]
    return value


def test_nesting_of_32_levels_is_taken() -> None:
    assert isinstance(result({"new": nested(32)}), dict)


@pytest.mark.parametrize(
    ("change", "rule", "message"),
    [
        ({"new": object()}, "transform-value", "attribute 'new': a value of type object is of a type"),
        ({"new": dt.timedelta(1)}, "transform-value", "of type datetime.timedelta"),
        ({"new": 1j}, "transform-value", "of type complex"),
        ({"new": [object()]}, "transform-value", "of type object"),
        ({"new": set()}, "transform-value", "an empty set"),
        ({"new": {1, "a"}}, "transform-value", "texts only, numbers only, or bytes only"),
        ({"new": {True}}, "transform-value", "texts only, numbers only, or bytes only"),
        ({"new": {(1,)}}, "transform-value", "texts only"),
        ({"new": {0.1, Decimal("0.1")}}, "transform-value", "a number twice"),
        ({"new": "\ud800"}, "transform-value", "half a surrogate pair"),
        ({"new": {1: 2}}, "transform-value", "a value of type int is no text, so it cannot be a name"),
        ({"new": {"": 2}}, "transform-value", "the name '' is not between 1 and 65535"),
        ({"": 2}, "transform-value", "the name '' is not between"),
        ({5: 2}, "transform-value", "cannot be a name"),
        ({"x" * 65_536: 2}, "transform-value", "is not between 1 and 65535"),
        ({"\ud800": 2}, "transform-value", "half a surrogate pair"),
        ({"new": float("nan")}, "number-not-finite", "nan is not a number"),
        ({"new": float("-inf")}, "number-not-finite", "-inf is not a number"),
        ({"new": Decimal("sNaN")}, "number-not-finite", "sNaN is not a number"),
        ({"new": 10**126}, "number-range", "outside"),
        ({"new": 10**6000}, "number-range", "outside"),
        ({"new": 1e200}, "number-range", "outside"),
        ({"new": 10**38 + 1}, "number-precision", "39 significant digits"),
        ({"new": nested(33)}, "nesting-depth", "over 32 levels"),
        ({"new": cyclic}, "nesting-depth", "over 32 levels"),
        ({"id": "gone"}, "key-null", "the key attribute id is missing"),
        ({"id": None}, "key-null", "the key attribute id is missing"),
        ({"id": "7"}, "key-type", "the key attribute id has to be of type N"),
        ({"id": [7]}, "key-type", "the key attribute id has to be of type N"),
        ({"id": {7}}, "key-type", "the key attribute id has to be of type N"),
        ({"name": 7}, "key-type", "the key attribute name has to be of type S"),
        ({"name": {"a"}}, "key-type", "the key attribute name has to be of type S"),
        ({"name": ""}, "key-empty", "the key attribute name: a key cannot be empty"),
        ({"name": "é" * 513}, "key-too-long", "1026 bytes, this key takes 1024"),
        ({"new": "x" * 409_600}, "item-too-large", "DynamoDB takes 409600"),
    ],
)
def test_what_an_item_cannot_be(change: dict[Any, Any], rule: str, message: str) -> None:
    rejected = result(change)
    assert isinstance(rejected, Reject)
    assert rejected.rule == rule
    assert message in rejected.message
    assert rejected.row["name"] == "Heat"
    assert rejected.message.isprintable()


@pytest.mark.parametrize("value", [5, "x", [], True, ({},)])
def test_a_function_has_to_return_a_dict_or_none(value: Any) -> None:
    _, (reject,), _ = encoder(lambda _: value).encode_batch([LINE])
    assert reject.rule == "transform-value"
    assert f"returned a {type(value).__name__}, neither a dict nor None" in reject.message


def test_a_coroutine_that_is_returned_is_a_reject_and_no_warning() -> None:
    async def late(item: dict[str, Any]) -> dict[str, Any]:
        return item

    _, (reject,), _ = encoder(late).encode_batch([LINE])
    assert "returned a coroutine" in reject.message


def test_an_exception_that_cannot_say_what_it_is() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    def function(_: dict[str, Any]) -> None:
        raise Mute

    _, (reject,), _ = encoder(function).encode_batch([LINE])
    assert reject.message == "the transform m:f raised Mute: (no message)"


def test_errors_of_a_transform_never_fail_the_run_but_by_its_numbers() -> None:
    fail = EncodingOptions(on_unrepresentable="fail")
    rejected = result({"new": object()}, options=fail)
    assert isinstance(rejected, Reject)
    with pytest.raises(SourceError, match="number-not-finite"):
        encoder(lambda item: item | {"x": float("nan")}, options=fail).encode_batch([LINE])


def test_a_reserved_attribute_and_its_room() -> None:
    rejected = result({"mark": 1}, reserved="mark", reserved_bytes=100)
    assert isinstance(rejected, Reject)
    assert "the attribute mark, which is momento-etl's own" in rejected.message
    room = 409_600 - 100 - item_size(json.dumps(result({})).encode()) - len("new")
    assert isinstance(result({"new": "x" * room}, reserved_bytes=100), dict)
    assert isinstance(result({"new": "x" * (room + 1)}, reserved_bytes=100), Reject)


def test_a_large_item_can_be_made_smaller() -> None:
    line = b"7\tHeat\t\\N\t" + json.dumps("x" * 409_600).encode()
    made = encoder(lambda item: {"id": item["id"], "name": item["name"]})
    assert made.encode_batch([line]).items == [b'{"id":{"N":"7"},"name":{"S":"Heat"}}']


scalars = (
    st.none()
    | st.booleans()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.integers(-(10**37), 10**37).map(Decimal)
    | st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-1000, max_value=1000)
)
trees = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=4), children),
    max_leaves=8,
)


@given(st.dictionaries(st.text(min_size=1, max_size=4), trees))
def test_python_values_come_back_as_they_were(item: dict[str, Any]) -> None:
    encoded = "{" + ",".join(f"{json.dumps(n)}:{from_python(n, v).decode()}" for n, v in item.items()) + "}"
    assert to_python(encoded.encode()) == item


@given(st.sets(st.text(max_size=3), min_size=1) | st.sets(st.binary(max_size=3), min_size=1))
def test_sets_do_not_depend_on_their_order(value: set[Any]) -> None:
    assert from_python("x", value) == from_python("x", frozenset(reversed(list(value))))
    ((kind, elements),) = json.loads(from_python("x", value)).items()
    assert {e if kind == "SS" else base64.b64decode(e) for e in elements} == value


def test_the_size_of_sets() -> None:
    assert item_size(b'{"s":{"SS":["ab","c"]}}') == 1 + 3 + 3 + 2
    assert item_size(b'{"s":{"NS":["12","3"]}}') >= 1 + 3 + 3
    assert item_size(b'{"s":{"BS":["AP8="]}}') == 1 + 3 + 2 + 1


# Finding the function.


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write a module into the current folder, under a name of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = f"hooks_{uuid.uuid4().hex}"

    def write(source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        return name

    yield write
    for loaded in [loaded for loaded in sys.modules if loaded.startswith(name)]:
        del sys.modules[loaded]


def test_a_function_in_the_current_folder(module: Callable[[str], str]) -> None:
    name = module("class Tools:\n    @staticmethod\n    def clean(item):\n        return item\n\nclean = Tools.clean\n")
    found = load_transform(f"{name}:clean")
    assert found.function({"a": 1}) == {"a": 1}
    assert found.reference == f"{name}:clean"
    nested = load_transform(f"{name}:Tools.clean")
    assert nested.digest == found.digest
    assert len(found.digest) == 32


def test_the_digest_is_that_of_the_code(module: Callable[[str], str]) -> None:
    name = module("def f(item): return item\n")
    before = load_transform(f"{name}:f").digest
    del sys.modules[name]
    module("def f(item): return None\n")
    assert load_transform(f"{name}:f").digest != before


def test_functions_of_any_form_are_taken(module: Callable[[str], str]) -> None:
    name = module(
        "import functools\n"
        "class Tool:\n    def __call__(self, item): return item\n"
        "def f(item, extra=1, *rest, **named): return item\n"
        "tool = Tool()\npartial = functools.partial(f, extra=2)\nanonymous = lambda item: item\n"
    )
    for path in ("tool", "partial", "anonymous", "f"):
        load_transform(f"{name}:{path}")
    load_transform("builtins:dict")


@pytest.mark.parametrize(
    ("source", "path", "problem", "hint"),
    [
        ("def clean(item): ...", "claen", "has no claen", "Did you mean clean?"),
        ("clean = 5", "clean", "it is not a function, but a value of type int", "module:function"),
        ("async def f(item): ...", "f", "the function is asynchronous", "without async"),
        ("async def f(item): yield", "f", "the function is asynchronous", "without async"),
        ("def f(item): yield", "f", "the function is a generator", "Return the item"),
        (
            "import functools\nasync def g(item): ...\nf = functools.partial(g)",
            "f",
            "the function is asynchronous",
            "without async",
        ),
        ("class T:\n    async def __call__(self, item): ...\nf = T()", "f", "is asynchronous", "without async"),
        ("def f(): ...", "f", "cannot be called with one item: too many", "one argument"),
        ("def f(a, b): ...", "f", "cannot be called with one item: missing", "one argument"),
        ("1/0", "f", "failed: ZeroDivisionError: 'division by zero'", "current folder"),
        ("def f(:", "f", "failed: SyntaxError:", "current folder"),
        ("import no_such_module_anywhere", "f", 'failed: ModuleNotFoundError: "No module', "sys.path"),
        ("raise SystemExit(3)", "f", "failed: SystemExit: '3'", "current folder"),
    ],
)
def test_functions_that_cannot_be_used(
    module: Callable[[str], str], source: str, path: str, problem: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_transform(f"{module(source)}:{path}")
    assert problem.replace('"No', "'No") in caught.value.message
    assert hint in (caught.value.hint or "")


def test_a_module_that_is_not_there_is_told_with_where_it_was_looked_for(module: Callable[[str], str]) -> None:
    module("")
    with pytest.raises(ConfigError, match="there is no module nowhere_to_be_found") as caught:
        load_transform("nowhere_to_be_found.deep:f")
    assert "sys.path" in (caught.value.hint or "")
    assert str(Path.cwd()) in (caught.value.hint or "")


def test_a_library_is_not_hidden_by_a_file_of_the_users(module: Callable[[str], str], tmp_path: Path) -> None:
    module("")
    (tmp_path / "zipapp.py").write_text("def f(item): return item")
    with pytest.raises(ConfigError, match="has no f"):
        load_transform("zipapp:f")


@pytest.mark.parametrize("reference", ["", "f", ":f", "m:", "a-b:c", "m:f()", "m:f:g", "1:2", "m.:f"])
def test_what_is_no_reference(reference: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a function in a module"):
        load_transform(reference)
