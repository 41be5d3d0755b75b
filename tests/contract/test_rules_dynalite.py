"""The writer's rules held against dynalite: it takes what our check lets through, and refuses what our check refuses.

Rows come in as PostgreSQL's text. What the encoder makes of them is put as it is; what it rejects is put in the form
that it would have had. Where dynalite is known to differ from the service, ``DIFFERENCES`` says so, with the reason.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import secrets
from binascii import a2b_base64
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import boto3
import orjson
import pytest
from botocore.exceptions import ClientError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from etlcli.encoding import EncodingOptions, RowEncoder, Transform, Unrepresentable, encoder_for, item_size
from etlcli.encoding.limits import (
    MAX_ATTRIBUTE_NAME_BYTES,
    MAX_HASH_KEY_BYTES,
    MAX_ITEM_BYTES,
    MAX_KEY_NAME_BYTES,
    MAX_NESTING_LEVELS,
    MAX_RANGE_KEY_BYTES,
)
from etlcli.errors import UsageError
from etlcli.model import AttributeType, Column, Key, KeyAttribute, PgType
from etlcli.ports import Refusal
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink import writer
from etlcli.sink.batches import BATCH_ITEMS, batches, request
from etlcli.sink.dynamodb import DynamoDBSink
from etlcli.sink.settings import DynamoDBSettings

pytest_plugins = ["tests.contract.dynalite"]

Item = dict[str, Any]  # DynamoDB JSON
Row = dict[str, tuple[PgType, str | None]]  # type and text of each column; an attribute has its column's name

INTEGER = PgType("integer", "int4")
NUMERIC = PgType("numeric", "numeric")
TEXT = PgType("text", "text")
BYTEA = PgType("bytea", "bytea")
BOOLEAN = PgType("boolean", "bool")
JSON = PgType("json", "json")
JSONB = PgType("jsonb", "jsonb")
HSTORE = PgType("hstore", "hstore", extension="hstore")
COMPOSITE = PgType("pair", "pair", "composite", fields=(Column("left", TEXT), Column("right", BOOLEAN)))


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array_of(element: PgType) -> PgType:
    return PgType(f"{element.name}[]", f"_{element.typname}", "array", element)


BY_ID = Key(KeyAttribute("id", "N"))
KEYS: dict[tuple[AttributeType, Literal["hash", "range"]], Key] = {
    ("S", "hash"): Key(KeyAttribute("k", "S")),
    ("B", "hash"): Key(KeyAttribute("k", "B")),
    ("N", "hash"): Key(KeyAttribute("k", "N")),
    ("S", "range"): Key(KeyAttribute("id", "N"), KeyAttribute("k", "S")),
    ("B", "range"): Key(KeyAttribute("id", "N"), KeyAttribute("k", "B")),
    ("N", "range"): Key(KeyAttribute("id", "N"), KeyAttribute("k", "N")),
}
KEY_LIMITS = {"hash": MAX_HASH_KEY_BYTES, "range": MAX_RANGE_KEY_BYTES}
PAYLOAD_BYTES = 16 * 1024 * 1024

few = settings(max_examples=30, deadline=None)
more = settings(max_examples=80, deadline=None)


# --- The two that are compared


def encode(row: Row, key: Key = BY_ID, options: EncodingOptions | None = None) -> bytes | str:
    """What our check says: the item, or the name of the rule that is broken."""
    columns = [Column(name, pg_type) for name, (pg_type, _) in row.items()]
    try:
        encoder = RowEncoder(columns, list(row), key, options=options or EncodingOptions())
    except UsageError:
        return "usage"
    fields = [None if text is None else text.encode() for _, text in row.values()]
    items, rejects = encoder.encode([b"\t".join(rb"\N" if text is None else escape(text) for text in fields)])
    alone: bytes | str | None
    try:
        alone = encoder.encode_fields(fields)
    except Unrepresentable as problem:
        alone = problem.rule
    assert alone is not None
    assert [alone] == [*items, *(reject.rule for reject in rejects)]
    return alone


def escape(text: bytes) -> bytes:
    """A field as COPY writes it."""
    for plain, escaped in ((b"\\", rb"\\"), (b"\t", rb"\t"), (b"\n", rb"\n"), (b"\r", rb"\r")):
        text = text.replace(plain, escaped)
    return text


def let_through(row: Row, key: Key = BY_ID, options: EncodingOptions | None = None) -> Item:
    item = encode(row, key, options)
    assert isinstance(item, bytes), item
    loaded: Item = orjson.loads(item)
    return loaded


class Dynalite:
    """dynalite, with a table for each key."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = boto3.client(
            "dynamodb", region_name="us-east-1", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b"
        )
        self.tables: dict[Key, str] = {}
        for key in (BY_ID, KEY_OF_A_LONG_NAME, *KEYS.values()):
            self.create(key)

    def create(self, key: Key) -> None:
        name = self.tables[key] = f"rules-{secrets.token_hex(6)}"
        self.client.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": it.name, "AttributeType": it.type} for it in key.attributes],
            KeySchema=[
                {"AttributeName": it.name, "KeyType": "RANGE" if it == key.range else "HASH"} for it in key.attributes
            ],
        )
        soon = self.client.get_waiter("table_exists")
        soon.wait(TableName=name, WaiterConfig={"Delay": 0, "MaxAttempts": 5000})

    def takes(self, item: Item | bytes, key: Key = BY_ID) -> bool:
        """Put an item, with boto3 or, where it is bytes, as these bytes."""
        if isinstance(item, bytes):
            status, answer = self.post("PutItem", b'{"TableName":"%b","Item":%b}' % (self.tables[key].encode(), item))
            assert status == 200 or b"ValidationException" in answer
            return status == 200
        try:
            self.client.put_item(TableName=self.tables[key], Item={name: to_boto(it) for name, it in item.items()})
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":
                raise
            return False
        return True

    def stored(self, item: Item, key: Key = BY_ID) -> Any:
        """What is there under the item's key, by value."""
        names = [it.name for it in key.attributes]
        answer = self.client.get_item(
            TableName=self.tables[key], Key={name: to_boto(item[name]) for name in names}, ConsistentRead=True
        )
        return {name: by_value(it) for name, it in answer["Item"].items()}

    def keeps(self, item: Item, key: Key = BY_ID) -> bool:
        """Put an item, and look whether it is there with its values."""
        return self.takes(item, key) and self.stored(item, key) == {
            name: by_value(to_boto(it)) for name, it in item.items()
        }

    def post(self, action: str, body: bytes) -> tuple[int, bytes]:
        """What boto3 cannot send, or would not."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            connection.request(
                "POST",
                "/",
                body,
                {
                    "Content-Type": "application/x-amz-json-1.0",
                    "X-Amz-Target": f"DynamoDB_20120810.{action}",
                    "X-Amz-Date": "20120810T000000Z",
                    "Authorization": "AWS4-HMAC-SHA256 Credential=a/20120810/us-east-1/dynamodb/aws4_request, "
                    "SignedHeaders=host, Signature=0",
                },
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def to_boto(value: Item) -> Any:
    """DynamoDB JSON to what boto3 takes: binaries as bytes."""
    ((kind, content),) = value.items()
    match kind:
        case "B":
            return {"B": base64.b64decode(content)}
        case "L":
            return {"L": [to_boto(element) for element in content]}
        case "M":
            return {"M": {name: to_boto(member) for name, member in content.items()}}
        case _:
            return value


def by_value(value: Any) -> Any:
    """What boto3 takes or gives, with numbers as numbers: servers write them as they like."""
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return Decimal(content)
        case "L":
            return [by_value(element) for element in content]
        case "M":
            return {name: by_value(member) for name, member in content.items()}
        case _:
            return (kind, content)


@pytest.fixture(scope="module")
def server(dynalite: str) -> Iterator[Dynalite]:
    made = Dynalite(dynalite)
    yield made
    made.client.close()


# --- Where dynalite is known to differ


class Difference(NamedTuple):
    """A row about which our check and dynalite do not agree.

    ours is the broken rule, or None where the check lets the row through; raw is what is put in place of a rejected
    row. dynalite takes, refuses, or takes and loses it.
    """

    row: Row
    ours: str | None
    raw: Item | bytes | None
    dynalite: Literal["takes", "refuses", "loses"]
    why: str
    key: Key = BY_ID


ONE: Row = {"id": (INTEGER, "1")}
RAW_ONE: Item = {"id": {"N": "1"}}
LONG_NAME = "n" * (MAX_ATTRIBUTE_NAME_BYTES + 1)
KEY_OF_A_LONG_NAME = Key(KeyAttribute("k" * (MAX_KEY_NAME_BYTES + 1), "S"))

NESTING = (
    "dynalite has no bound on nesting (validateAttributeValue in its validations/index.js recurses without a count). "
    "The service takes a leaf at level 32 and refuses one at level 33, in PutItem and BatchWriteItem alike: measured "
    "by paritysuite/dynamodb-conformance, tests/tier3/limits/nestingDepth.test.ts."
)
EMPTY_NAME = (
    "dynalite looks at no attribute's name. The developer guide asks of every name for one character at least, and "
    "nobody is known to have measured that the service takes an empty one, on top or within a map; so the check keeps "
    "to the guide: were it wrong, a row is set aside with its reason that could have gone in, and none is lost."
)
NAME_LENGTH = (
    "dynalite looks at no attribute's name. The service takes 65,535 bytes and refuses 65,536: "
    "test_limit_attribute_length_nonkey_good and _bad in scylladb's test/alternator/test_limits.py, which are held "
    "against AWS. ExtendDB/extenddb#347 says the same of names within maps."
)
KEY_NAME_LENGTH = (
    "dynalite looks at no attribute's name. The service refuses to make a table whose key's name has 256 bytes: "
    "test_limit_attribute_length_key_good and _bad in scylladb's test/alternator/test_limits.py."
)
UTF_16 = (
    "dynalite counts the length of JavaScript's strings, UTF-16 units, for strings, names and keys (val.length, "
    "attr.length and keyPiece.length in its db/index.js). The service counts bytes of UTF-8: the guide says so of "
    "strings, names and keys. There are never fewer bytes than units, so dynalite takes what the check lets through."
)
LOST_IN_JSON = (
    "Of two members with one name JSON.parse keeps the last, as most parsers do: nobody is left to refuse what is lost."
)
SURROGATE = (
    "Half a surrogate pair is a string to JavaScript. The guide says that strings are UTF-8, in which it is no "
    "text; whether the service would refuse, replace or keep it is not known to be measured."
)
PROTOTYPE = (
    "dynalite copies members one by one, and to assign __proto__ in JavaScript makes no member (checkTypes in its "
    "validations/index.js). To the service it is a name like any other."
)

DIFFERENCES = {
    "lists of 33 levels": Difference(
        ONE | {"v": (JSONB, "[" * 32 + "1" + "]" * 32)},
        "nesting-depth",
        b'{"id":{"N":"1"},"v":%b{"N":"1"}%b}' % (b'{"L":[' * 32, b"]}" * 32),
        "takes",
        NESTING,
    ),
    "maps of 33 levels": Difference(
        ONE | {"v": (JSONB, '{"m": ' * 32 + "1" + "}" * 32)},
        "nesting-depth",
        b'{"id":{"N":"1"},"v":%b{"N":"1"}%b}' % (b'{"M":{"m":' * 32, b"}}" * 32),
        "takes",
        NESTING,
    ),
    "documents in an array": Difference(
        ONE | {"v": (array_of(JSONB), '{"' + "[" * 31 + "1" + "]" * 31 + '"}')},
        "nesting-depth",
        b'{"id":{"N":"1"},"v":%b{"N":"1"}%b}' % (b'{"L":[' * 32, b"]}" * 32),
        "takes",
        NESTING,
    ),
    "an empty name in a document": Difference(
        ONE | {"v": (JSONB, '{"": 1}')},
        "json-empty-key",
        RAW_ONE | {"v": {"M": {"": {"N": "1"}}}},
        "takes",
        EMPTY_NAME,
    ),
    "an empty name in hstore": Difference(
        ONE | {"v": (HSTORE, '""=>"x"')},
        "hstore-empty-key",
        RAW_ONE | {"v": {"M": {"": {"S": "x"}}}},
        "takes",
        EMPTY_NAME,
    ),
    "an empty attribute name": Difference(
        ONE | {"": (TEXT, "x")}, "usage", RAW_ONE | {"": {"S": "x"}}, "takes", EMPTY_NAME
    ),
    "a name of 64 KB in a document": Difference(
        ONE | {"v": (JSONB, f'{{"{LONG_NAME}": 1}}')},
        "json-key-too-long",
        RAW_ONE | {"v": {"M": {LONG_NAME: {"N": "1"}}}},
        "takes",
        NAME_LENGTH,
    ),
    "a name of 64 KB in hstore": Difference(
        ONE | {"v": (HSTORE, f'"{LONG_NAME}"=>"x"')},
        "hstore-key-too-long",
        RAW_ONE | {"v": {"M": {LONG_NAME: {"S": "x"}}}},
        "takes",
        NAME_LENGTH,
    ),
    "an attribute name of 64 KB": Difference(
        ONE | {LONG_NAME: (TEXT, "x")}, "usage", RAW_ONE | {LONG_NAME: {"S": "x"}}, "takes", NAME_LENGTH
    ),
    "one name twice in json": Difference(
        ONE | {"v": (JSON, '{"a": 1, "a": 2}')},
        "json-duplicate-key",
        b'{"id":{"N":"1"},"v":{"M":{"a":{"N":"1"},"a":{"N":"2"}}}}',
        "takes",
        LOST_IN_JSON,
    ),
    "half a surrogate pair in json": Difference(
        ONE | {"v": (JSON, r'"\ud83c"')},
        "json-surrogate",
        rb'{"id":{"N":"1"},"v":{"S":"\ud83c"}}',
        "takes",
        SURROGATE,
    ),
    "a key's name of 256 bytes": Difference(
        {KEY_OF_A_LONG_NAME.hash.name: (TEXT, "x")},
        "usage",
        {KEY_OF_A_LONG_NAME.hash.name: {"S": "x"}},
        "takes",
        KEY_NAME_LENGTH,
        KEY_OF_A_LONG_NAME,
    ),
    "a hash key over 2,048 bytes, not units": Difference(
        {"k": (TEXT, "é" * 1025)}, "key-too-long", {"k": {"S": "é" * 1025}}, "takes", UTF_16, KEYS["S", "hash"]
    ),
    "a range key over 1,024 bytes, not units": Difference(
        ONE | {"k": (TEXT, "é" * 513)},
        "key-too-long",
        RAW_ONE | {"k": {"S": "é" * 513}},
        "takes",
        UTF_16,
        KEYS["S", "range"],
    ),
    "an item over 400 KB in bytes, not units": Difference(
        ONE | {"v": (TEXT, "é" * 204_798)}, "item-too-large", RAW_ONE | {"v": {"S": "é" * 204_798}}, "takes", UTF_16
    ),
    "names over 400 KB in bytes, not units": Difference(
        ONE | {"é" * 32_000 + str(number): (BOOLEAN, "t") for number in range(7)},
        "item-too-large",
        RAW_ONE | {"é" * 32_000 + str(number): {"BOOL": True} for number in range(7)},
        "takes",
        UTF_16,
    ),
    "an attribute named __proto__": Difference(ONE | {"__proto__": (TEXT, "x")}, None, None, "loses", PROTOTYPE),
    "a member named __proto__": Difference(
        ONE | {"v": (JSONB, '{"__proto__": 1}')}, None, None, "loses", PROTOTYPE
    ),
}  # fmt: skip


@pytest.mark.parametrize("difference", DIFFERENCES.values(), ids=DIFFERENCES)
def test_they_differ_where_it_is_written_down_and_nowhere_else(server: Dynalite, difference: Difference) -> None:
    said = encode(difference.row, difference.key)
    if difference.raw is not None:
        assert said == difference.ours
        assert server.takes(difference.raw, difference.key) == (difference.dynalite == "takes")
        return
    item = let_through(difference.row, difference.key)
    assert difference.ours is None
    assert server.takes(item, difference.key) == (difference.dynalite != "refuses")
    assert not server.keeps(item, difference.key)


# --- Numbers

NINES = "9" * 38
NUMBERS = {
    "0": None, "-0": None, "0.000": None, "-0.0": None, "1": None, "-1": None, "100": None, "0.5": None, "1.50": None,
    NINES: None, f"-{NINES}": None, "9" * 39: "number-precision", f"-{'9' * 39}": "number-precision",
    f"{NINES}0": None, f"{NINES}{'0' * 88}": None, f"{NINES}{'0' * 89}": "number-range",
    f"0.{NINES}": None, f"0.0{NINES}": None, f"0.{NINES}9": "number-precision", f"0.{NINES}0": None,
    f"1.{'0' * 36}1": None, f"1.{'0' * 37}1": "number-precision", f"{'1' * 19}.{'1' * 19}": None,
    f"{'1' * 20}.{'1' * 19}": "number-precision", f"{'1' * 20}.{'1' * 18}0": None,
    f"1{'0' * 125}": None, f"1{'0' * 126}": "number-range", f"1{'0' * 131_071}": "number-range",
    f"0.{'0' * 129}1": None, f"-0.{'0' * 129}1": None, f"0.{'0' * 130}1": "number-range",
    f"0.{'0' * 129}12": None, f"0.{'0' * 16_383}": None, f"1.{'0' * 16_383}": None,
    f"0.{'0' * 16_382}1": "number-range", f"{'1' * 131_072}.{'1' * 16_383}": "number-precision",
    # As float4, float8 and json have them.
    "1e-130": None, "-1e-130": None, "1e-131": "number-range", "9.99e-131": "number-range", "1e+125": None,
    f"9.{'9' * 37}e+125": None, f"-9.{'9' * 37}e+125": None, f"9.{'9' * 38}e+125": "number-precision",
    "1e+126": "number-range", "-1e+126": "number-range", "10e+125": "number-range", "0.1e+126": None,
    "3.4028235e+38": None, "1e-45": None, "1.7976931348623157e+308": "number-range", "5e-324": "number-range",
    "1E5": None, "1.50E-3": None, "1e0": None, "1e00000000000000000005": None,
    "1e99999999999": "number-range", "1e-99999999999": "number-range", "1e9223372036854775808": "number-range",
    "NaN": "number-not-finite", "Infinity": "number-not-finite", "-Infinity": "number-not-finite",
}  # fmt: skip


def places(text: str) -> Iterator[tuple[Row, Item, Key]]:
    """A number wherever there may be one, and the form it has there."""
    value = {"N": text}
    yield ONE | {"v": (NUMERIC, text)}, RAW_ONE | {"v": value}, BY_ID
    yield {"k": (NUMERIC, text)}, {"k": value}, KEYS["N", "hash"]
    yield ONE | {"k": (NUMERIC, text)}, RAW_ONE | {"k": value}, KEYS["N", "range"]
    yield ONE | {"v": (array_of(NUMERIC), f"{{1,{text}}}")}, RAW_ONE | {"v": {"L": [{"N": "1"}, value]}}, BY_ID
    if not text.endswith(("NaN", "Infinity")):
        yield ONE | {"v": (JSONB, f'{{"n": {text}}}')}, RAW_ONE | {"v": {"M": {"n": value}}}, BY_ID


@pytest.mark.parametrize(("text", "rule"), NUMBERS.items(), ids=lambda value: str(value)[:50])
def test_a_number_is_kept_or_refused(server: Dynalite, text: str, rule: str | None) -> None:
    for row, raw, key in places(text):
        said = encode(row, key)
        assert said == rule or rule is None
        assert server.takes(raw, key) == (rule is None)
        if rule is None:
            item = let_through(row, key)
            assert server.keeps(item, key)
            assert server.stored(item, key) == {name: by_value(value) for name, value in raw.items()}


@st.composite
def numerals(draw: st.DrawFn) -> str:
    """Numbers near all of the bounds, spelled in all of the ways."""
    digits = str(draw(st.sampled_from([1, 2, 37, 38, 39, 40]).flatmap(lambda n: st.integers(0, 10**n - 1))))
    exponent = draw(st.integers(-175, 130) | st.integers(-3, 3) | st.integers(80, 90) | st.integers(-170, -125))
    sign, zeros = draw(st.sampled_from(["", "-"])), "0" * draw(st.integers(0, 12))
    if draw(st.booleans()):
        plain = f"{Decimal(f'{digits}e{exponent}'):f}"
        return sign + (plain + zeros if "." in plain else f"{plain}.{zeros}" if zeros else plain)
    point = draw(st.integers(1, len(digits)))
    fraction = digits[point:] + zeros
    return f"{sign}{digits[:point]}{'.' if fraction else ''}{fraction}e{exponent + len(digits) - point:+}"


@more
@given(numerals())
def test_any_number_is_kept_or_refused(server: Dynalite, text: str) -> None:
    row, raw = ONE | {"v": (NUMERIC, text)}, RAW_ONE | {"v": {"N": text}}
    said = encode(row)
    if not Decimal(text):
        # The service looks at a zero's exponent, too, and refuses 0e126 (paritysuite/dynamodb-conformance,
        # tests/tier3/limits/numberExponent.test.ts); dynalite does not. The encoder must leave the exponent out.
        assert isinstance(said, bytes)
        assert "e" not in orjson.loads(said)["v"]["N"].lower()
    assert server.takes(raw) == isinstance(said, bytes)
    if isinstance(said, bytes):
        assert server.keeps(orjson.loads(said))
        assert server.stored(RAW_ONE)["v"] == Decimal(text)


# --- Keys


def spelled(kind: AttributeType, size: int) -> tuple[PgType, str, Item]:
    """A key's value of so many bytes: its type, its text, and what becomes of it."""
    if kind == "B":
        return BYTEA, rf"\x{'ab' * size}", {"B": base64.b64encode(b"\xab" * size).decode()}
    return TEXT, "k" * size, {"S": "k" * size}


@pytest.mark.parametrize(("kind", "role"), [key for key in KEYS if key[0] != "N"])
def test_a_key_is_neither_empty_nor_too_long(
    server: Dynalite, kind: AttributeType, role: Literal["hash", "range"]
) -> None:
    limit = KEY_LIMITS[role]
    rules = {0: "key-empty", 1: None, limit - 1: None, limit: None, limit + 1: "key-too-long", 4096: "key-too-long"}
    for size, rule in rules.items():
        pg_type, text, value = spelled(kind, size)
        row: Row = {"id": (INTEGER, "1"), "k": (pg_type, text), "v": (TEXT, "")}
        said = encode(row, KEYS[kind, role])
        assert said == rule or rule is None
        assert server.takes(RAW_ONE | {"k": value, "v": {"S": ""}}, KEYS[kind, role]) == (rule is None)
        assert rule is not None or server.keeps(let_through(row, KEYS[kind, role]), KEYS[kind, role])


@pytest.mark.parametrize(("kind", "role"), KEYS)
def test_a_key_is_not_null(server: Dynalite, kind: AttributeType, role: Literal["hash", "range"]) -> None:
    pg_type = {"S": TEXT, "B": BYTEA, "N": NUMERIC}[kind]
    for options in (EncodingOptions(), EncodingOptions(null_as="null")):
        assert encode(ONE | {"k": (pg_type, None)}, KEYS[kind, role], options) == "key-null"
    assert not server.takes(RAW_ONE, KEYS[kind, role])
    assert not server.takes(RAW_ONE | {"k": {"NULL": True}}, KEYS[kind, role])


@few
@given(role=st.sampled_from(["hash", "range"]), part=st.sampled_from(["k", "é", "€", "🎬"]), over=st.integers(-2, 3))
def test_a_key_of_any_characters(server: Dynalite, role: Literal["hash", "range"], part: str, over: int) -> None:
    size = KEY_LIMITS[role] + over
    text = part * (size // len(part.encode())) + "k" * (size % len(part.encode()))
    key, row = KEYS["S", role], ONE | {"k": (TEXT, text)}
    if size <= KEY_LIMITS[role]:
        assert server.keeps(let_through(row, key), key)
    else:
        assert encode(row, key) == "key-too-long"
        # See UTF_16.
        assert server.takes(RAW_ONE | {"k": {"S": text}}, key) == (not text.isascii())


@pytest.mark.parametrize("name", ["k" * MAX_KEY_NAME_BYTES, "é" * (MAX_KEY_NAME_BYTES // 2)])
def test_a_key_s_name(server: Dynalite, name: str) -> None:
    key = Key(KeyAttribute(name, "S"))
    server.create(key)
    assert server.keeps(let_through({name: (TEXT, "x")}, key), key)


# --- Sizes


def filled(row: Row, size: int) -> Row:
    """A row with one text more, so that the item has so many bytes by our count."""
    rest = size - item_size(orjson.dumps(let_through(row | {"w": (TEXT, "")})))
    return row | {"w": (TEXT, "x" * rest)}


def fits_to_the_byte(server: Dynalite, row: Row) -> None:
    """An item of 400 KB is taken, one with a byte more is not."""
    assert encode(filled(row, MAX_ITEM_BYTES + 1)) == "item-too-large"
    largest = let_through(filled(row, MAX_ITEM_BYTES))
    assert server.takes(largest)
    largest["w"]["S"] += "x"
    assert not server.takes(largest)


MANY = range(2000)
KINDS: dict[str, Row] = {
    "S": {"v": (TEXT, "x" * 9999)},
    "B of 3n bytes": {"v": (BYTEA, r"\x" + "00" * 9999)},
    "B of 3n+1 bytes": {"v": (BYTEA, r"\x" + "ff" * 10_000)},
    "N": {"v": (array_of(NUMERIC), "{" + ",".join(f"{number}.{number}" for number in MANY) + "}")},
    "BOOL": {"v": (array_of(BOOLEAN), "{" + ",".join("tf"[number % 2] for number in MANY) + "}")},
    "NULL": {"v": (array_of(TEXT), "{" + ",".join("NULL" for _ in MANY) + "}")},
    "L": {"v": (JSONB, "[" + ", ".join("[]" for _ in MANY) + "]")},
    "L in L": {"v": (array_of(TEXT), "{" + ",".join("{a,b}" for _ in MANY) + "}")},
    "M": {"v": (JSONB, "[" + ", ".join("{}" for _ in MANY) + "]")},
    "M of M": {"v": (JSONB, "{" + ", ".join(f'"{number}": {{"a": {{}}}}' for number in MANY) + "}")},
    "hstore": {"v": (HSTORE, ", ".join(f'"{number}"=>"x"' for number in MANY))},
    "composites": {"v": (array_of(COMPOSITE), "{" + ",".join('"(a,t)"' for _ in MANY) + "}")},
    "names": {f"{'n' * 190}{number}": (BOOLEAN, "t") for number in MANY},
    "long names": {"n" * 65_535: (TEXT, ""), "m" * 65_535: (BYTEA, r"\x"), "l" * 65_535: (INTEGER, "0")},
    "escapes": {"v": (TEXT, '"\\\n\t\x01/' * 1000)},
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_an_item_has_400_kb_at_most(server: Dynalite, kind: Row) -> None:
    fits_to_the_byte(server, ONE | kind)


@pytest.mark.parametrize("character", ["é", "€", "🎬"])
def test_an_item_of_any_characters_has_400_kb_at_most(server: Dynalite, character: str) -> None:
    row = ONE | {"v": (TEXT, character * 20_000)}
    assert encode(filled(row, MAX_ITEM_BYTES + 1)) == "item-too-large"
    assert server.keeps(let_through(filled(row, MAX_ITEM_BYTES)))
    # So many units that dynalite refuses them as well.
    assert not server.takes(RAW_ONE | {"v": {"S": character * MAX_ITEM_BYTES}})


@more
@given(numerals())
def test_a_number_has_the_same_size(server: Dynalite, text: str) -> None:
    row = ONE | {"v": (NUMERIC, text)}
    assume(isinstance(encode(row), bytes))
    fits_to_the_byte(server, row)


ascii_texts = st.text(st.characters(max_codepoint=127, exclude_characters="\0"), max_size=20)
names = st.text(st.characters(max_codepoint=127, exclude_characters="\0"), min_size=1, max_size=9).filter(
    lambda name: name != "__proto__"
)
documents = st.recursive(
    st.none() | st.booleans() | ascii_texts | st.integers(-999, 9999),
    lambda children: st.lists(children, max_size=5) | st.dictionaries(names, children, max_size=5),
    max_leaves=30,
)
binaries = st.binary(max_size=50).map(lambda data: rf"\x{data.hex()}")
rows = st.fixed_dictionaries(
    {"id": st.just((INTEGER, "1"))},
    optional={
        "document": documents.map(lambda value: (JSONB, orjson.dumps(value).decode())),
        "data": binaries.map(lambda text: (BYTEA, text)),
        "flag": st.sampled_from([(BOOLEAN, "t"), (BOOLEAN, "f"), (BOOLEAN, None)]),
        "hstore": st.lists(names.map(quoted), max_size=3, unique=True).map(
            lambda keys: (HSTORE, ", ".join(map("=>".join, zip(keys, ["NULL", *keys], strict=False))))
        ),
        "numbers": st.lists(st.integers(0, 10**9).map(lambda n: f"{n}.5"), max_size=5).map(
            lambda texts: (array_of(NUMERIC), "{" + ",".join(texts) + "}")
        ),
        "name" * 64: ascii_texts.map(lambda text: (TEXT, text)),
    },
)  # fmt: skip


@few
@given(rows, st.sampled_from(["absent", "null"]))
def test_any_row_is_kept_and_fits_to_the_byte(server: Dynalite, row: Row, null_as: Literal["absent", "null"]) -> None:
    item = let_through(row, options=EncodingOptions(null_as=null_as))
    assert server.keeps(item)
    fits_to_the_byte(server, row)


# --- Values


@pytest.mark.parametrize("levels", [1, 2, MAX_NESTING_LEVELS - 1, MAX_NESTING_LEVELS])
def test_values_may_be_nested(server: Dynalite, levels: int) -> None:
    deep = levels - 1
    for text in (
        "[" * deep + "1" + "]" * deep,
        '{"m": ' * deep + "true" + "}" * deep,
        '[{"m": ' * (deep // 2) + "null" + "}]" * (deep // 2),
    ):
        assert server.keeps(let_through(ONE | {"v": (JSONB, text)}))


EMPTY_OR_BARE: dict[str, tuple[PgType, str, Item]] = {
    "string": (TEXT, "", {"S": ""}),
    "binary": (BYTEA, r"\x", {"B": ""}),
    "list": (array_of(TEXT), "{}", {"L": []}),
    "list of an empty string": (array_of(TEXT), '{""}', {"L": [{"S": ""}]}),
    "list of an empty binary": (array_of(BYTEA), r'{"\\x"}', {"L": [{"B": ""}]}),
    "list of NULL": (array_of(INTEGER), "{NULL}", {"L": [{"NULL": True}]}),
    "document": (JSONB, "{}", {"M": {}}),
    "document of nothing": (JSONB, '{"a": [], "b": {}, "c": "", "d": null}', {
        "M": {"a": {"L": []}, "b": {"M": {}}, "c": {"S": ""}, "d": {"NULL": True}}
    }),
    "hstore": (HSTORE, "", {"M": {}}),
    "hstore of nothing": (HSTORE, '"a"=>"", "b"=>NULL', {"M": {"a": {"S": ""}, "b": {"NULL": True}}}),
    "composite": (COMPOSITE, "(,)", {"M": {}}),
    "composite of an empty string": (COMPOSITE, '("",f)', {"M": {"left": {"S": ""}, "right": {"BOOL": False}}}),
    "true": (BOOLEAN, "t", {"BOOL": True}),
    "false": (BOOLEAN, "f", {"BOOL": False}),
    "null in json": (JSONB, "null", {"NULL": True}),
}  # fmt: skip


@pytest.mark.parametrize(("pg_type", "text", "value"), EMPTY_OR_BARE.values(), ids=EMPTY_OR_BARE)
def test_a_value_may_be_empty(server: Dynalite, pg_type: PgType, text: str, value: Item) -> None:
    item = let_through(ONE | {"v": (pg_type, text)})
    assert item["v"] == value
    assert server.keeps(item)


def test_a_null_is_absent_or_a_null(server: Dynalite) -> None:
    row = ONE | {"v": (BOOLEAN, None), "w": (TEXT, None)}
    absent, null = let_through(row), let_through(row, options=EncodingOptions(null_as="null"))
    assert (absent, null) == (RAW_ONE, RAW_ONE | {"v": {"NULL": True}, "w": {"NULL": True}})
    assert server.keeps(absent)
    assert server.keeps(null)


@pytest.mark.parametrize("kind", ["SS", "NS", "BS"])
def test_no_set_is_ever_made_since_an_empty_one_is_refused(server: Dynalite, kind: str) -> None:
    assert not server.takes(orjson.dumps(RAW_ONE | {"v": {kind: []}}))
    for pg_type in (array_of(TEXT), array_of(NUMERIC), array_of(BYTEA)):
        assert encoder_for(pg_type)(b"{}") == b'{"L":[]}'


@pytest.mark.parametrize("name", ["n", "n" * 255, "n" * 256, "n" * MAX_ATTRIBUTE_NAME_BYTES, "é" * 32_767, '"\\.# '])
def test_an_attribute_s_name(server: Dynalite, name: str) -> None:
    assert server.keeps(let_through(ONE | {name: (TEXT, "x")}))
    for row in ({"v": (JSONB, f"{{{quoted(name)}: 1}}")}, {"v": (HSTORE, f"{quoted(name)}=>NULL")}):
        assert server.keeps(let_through(ONE | row))


# --- What a function of the user's makes


def returned(answer: dict[str, Any], key: Key = BY_ID) -> bytes | str:
    """What our check says of an item that a function returned: the item, or the name of the rule that is broken."""
    columns = [
        Column(attribute.name, {"S": TEXT, "B": BYTEA, "N": NUMERIC}[attribute.type]) for attribute in key.attributes
    ]
    texts = {"S": "1", "B": r"\\x01", "N": "1"}
    encoder = RowEncoder(
        columns, [column.name for column in columns], key, transform=Transform("m:f", lambda _: answer, "")
    )
    line = "\t".join(texts[attribute.type] for attribute in key.attributes).encode()
    items, rejects, dropped = encoder.encode_batch([line])
    assert len(items) + len(rejects) == 1 - dropped == 1
    return items[0] if items else rejects[0].rule


ANSWERS: dict[str, tuple[Any, str, Item | None]] = {
    "empty set": (set(), "transform-value", {"SS": []}),
    "set of a number twice": ({0.1, Decimal("0.1")}, "transform-value", {"NS": ["0.1", "0.10"]}),
    "set of texts and numbers": ({1, "1"}, "transform-value", None),
    "set with 39 digits": ({1, int("9" * 39)}, "number-precision", {"NS": ["1", "9" * 39]}),
    "set out of range": ({Decimal("1e126")}, "number-range", {"NS": ["1e126"]}),
    "NaN": (float("nan"), "number-not-finite", {"N": "NaN"}),
    "integer of 39 digits": (int("1" * 39), "number-precision", {"N": "1" * 39}),
    "float out of range": (1e300, "number-range", {"N": "1e+300"}),
    "Decimal out of range": (Decimal("-1e-131"), "number-range", {"N": "-1e-131"}),
    "number in a list": ([{"n": Decimal("1e126")}], "number-range", {"L": [{"M": {"n": {"N": "1e126"}}}]}),
    "too large": ("x" * MAX_ITEM_BYTES, "item-too-large", {"S": "x" * MAX_ITEM_BYTES}),
    "set too large": ({"x" * 200_000, "y" * 210_000}, "item-too-large", {"SS": ["x" * 200_000, "y" * 210_000]}),
}


@pytest.mark.parametrize(("value", "rule", "raw"), ANSWERS.values(), ids=ANSWERS)
def test_what_a_function_may_not_return(server: Dynalite, value: Any, rule: str, raw: Item | None) -> None:
    assert returned({"id": 1, "v": value}) == rule
    assert raw is None or not server.takes(orjson.dumps(RAW_ONE | {"v": raw}))


@pytest.mark.parametrize(("kind", "role"), KEYS)
def test_a_key_that_a_function_returns(server: Dynalite, kind: AttributeType, role: Literal["hash", "range"]) -> None:
    key, limit = KEYS[kind, role], KEY_LIMITS[role]
    rest: dict[str, Any] = {} if role == "hash" else {"id": 1}
    right: dict[AttributeType, Any] = {"S": "k" * limit, "B": b"k" * limit, "N": Decimal("1.5")}
    wrong: list[tuple[Any, str, Item]] = [
        (None, "key-null", {"NULL": True}),
        *((value, "key-type", {str(other): "1111"}) for other, value in right.items() if other != kind),
        (True, "key-type", {"BOOL": True}),
        ([right[kind]], "key-type", {"L": [{"S": "1"}]}),
    ]
    if kind != "N":
        wrong += [
            (right[kind][:0], "key-empty", {kind: ""}),
            (right[kind] * 2, "key-too-long", {kind: base64.b64encode(b"k" * 2 * limit).decode()}),
        ]
    for value, rule, raw in wrong:
        assert returned(rest | {"k": value}, key) == rule
        assert not server.takes(orjson.dumps((RAW_ONE if rest else {}) | {"k": raw}), key)
    item = returned(rest | {"k": right[kind], "v": {b"", b"x"}}, key)
    assert isinstance(item, bytes)
    assert keeps_sets(server, item, key)


def test_a_set_may_have_an_empty_member(server: Dynalite) -> None:
    for value in ({"", "x"}, {b"", b"x"}, {""}):
        item = returned({"id": 1, "v": value})
        assert isinstance(item, bytes)
        assert keeps_sets(server, item)


python_numbers = st.integers(-(10**38) + 1, 10**38 - 1) | st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=9
)
python_values = st.recursive(
    st.none()
    | st.booleans()
    | python_numbers
    | st.floats(-1e20, 1e20).map(lambda number: round(number, 9))
    | ascii_texts
    | st.binary(max_size=20)
    | st.sets(ascii_texts, min_size=1, max_size=5)
    | st.frozensets(st.binary(max_size=9), min_size=1, max_size=5)
    | st.sets(st.integers(-999, 999), min_size=1, max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(names, children, max_size=4),
    max_leaves=20,
)


@more
@given(st.dictionaries(names, python_values, max_size=6))
def test_whatever_a_function_returns_is_kept(server: Dynalite, answer: dict[str, Any]) -> None:
    item = returned({**answer, "id": 1})
    assert isinstance(item, bytes)
    assert keeps_sets(server, item)


def keeps_sets(server: Dynalite, item: bytes, key: Key = BY_ID) -> bool:
    """Put an item, and look whether it is there with its values; of sets, whether they have the same members."""
    if not server.takes(item, key):
        return False
    put = {name: by_members(to_boto(value)) for name, value in orjson.loads(item).items()}
    attributes = {it.name: to_boto(orjson.loads(item)[it.name]) for it in key.attributes}
    answer = server.client.get_item(TableName=server.tables[key], Key=attributes, ConsistentRead=True)
    return {name: by_members(value) for name, value in answer["Item"].items()} == put


def by_members(value: Any) -> Any:
    """What boto3 takes or gives, with numbers as numbers and sets as sets."""
    ((kind, content),) = value.items()
    match kind:
        case "SS":
            return kind, frozenset(content)
        case "BS":
            return kind, frozenset(a2b_base64(member) if isinstance(member, str) else member for member in content)
        case "NS":
            return kind, frozenset(map(Decimal, content))
        case "L":
            return [by_members(element) for element in content]
        case "M":
            return {name: by_members(member) for name, member in content.items()}
    return by_value(value)


# --- Batches


def puts(server: Dynalite, items: list[bytes], key: Key = BY_ID) -> tuple[int, bytes]:
    return server.post("BatchWriteItem", request(server.tables[key], items))


def in_sink(server: Dynalite, items: list[bytes], key: Key = BY_ID) -> tuple[list[Refusal], Counters]:
    counters = Counters()
    place = DynamoDBSettings("us-east-1", server.url, access_key_id="a", secret_access_key="b")

    async def main() -> list[Refusal]:
        async with DynamoDBSink(place, server.tables[key], counters, RetryPolicy(patience=5.0, base=0.01)) as sink:
            return await sink.put(items)

    return asyncio.run(main()), counters


def item_of(number: int, text: str = "") -> bytes:
    item = encode({"id": (INTEGER, str(number)), "v": (TEXT, text)})
    assert isinstance(item, bytes)
    return item


def test_what_a_batch_may_not_be(server: Dynalite) -> None:
    """dynalite refuses what the sink never sends; so where the sink is taken, it did not send it."""
    many = [item_of(number) for number in range(BATCH_ITEMS + 1)]
    assert puts(server, many[:-1])[0] == 200
    assert puts(server, many)[0] == 400
    for one in (b'{"id":{"N":"1"}}', b'{"id":{"N":"1.0"}}', b'{"id":{"N":"10e-1"}}'):
        status, answer = puts(server, [item_of(1), one])
        assert (status, b"duplicates" in answer) == (400, True)
    assert puts(server, [item_of(number, "\x01" * 120_000) for number in range(BATCH_ITEMS)])[0] == 413


def test_no_batch_is_too_large(server: Dynalite, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []

    def recorded(table: str, batch: list[bytes]) -> bytes:
        body = request(table, batch)
        sent.append((len(batch), len(body)))
        return body

    monkeypatch.setattr(writer, "request", recorded)
    # Every control character takes six bytes in JSON, so 25 of these would be 18 MB.
    rows = [item_of(number, "\x01" * 120_000) for number in range(BATCH_ITEMS)]
    # No item grows more on its way: a zero counts one byte of 400 KB, but keeps 48 characters.
    zeros = encode(ONE | {"v": (array_of(NUMERIC), "{" + ",".join([f"0.{'0' * 46}"] * 204_790) + "}")})
    assert isinstance(zeros, bytes)
    assert MAX_ITEM_BYTES - 20 < item_size(zeros) <= MAX_ITEM_BYTES
    small = [item_of(1000 + number) for number in range(3 * BATCH_ITEMS)]
    refusals, counters = in_sink(server, [*rows, zeros, *small])
    assert refusals == []
    # Nothing was halved: a batch that is refused comes again in parts.
    assert sum(count for count, _ in sent) == counters.rows_loaded == len(rows) + 1 + len(small)
    assert max(count for count, _ in sent) <= BATCH_ITEMS
    assert max(size for _, size in sent) <= PAYLOAD_BYTES


@few
@given(st.lists(st.integers(0, 5000) | st.sampled_from([399_990, 409_000, 1_000_000, 11_000_000]), max_size=120))
def test_no_batch_of_any_items_is_too_large(sizes: list[int]) -> None:
    items = [bytes(size) for size in sizes]
    made = list(batches(items))
    assert [item for batch in made for item in batch] == items
    assert all(0 < len(batch) <= BATCH_ITEMS for batch in made)
    assert all(sum(map(len, batch)) <= PAYLOAD_BYTES // 2 for batch in made if len(batch) > 1)


def test_two_items_with_one_key_in_a_batch_are_both_put(server: Dynalite) -> None:
    spellings = ["7", "7.0", "7.000", "70e-1", "0.7e1"]
    items = [encode({"k": (NUMERIC, text)}, KEYS["N", "hash"]) for text in spellings]
    refusals, counters = in_sink(server, [item for item in items if isinstance(item, bytes)], KEYS["N", "hash"])
    assert (refusals, counters.rows_loaded) == ([], len(spellings))


def test_the_sink_hands_back_what_the_check_would_have_rejected(server: Dynalite) -> None:
    good = [item_of(number) for number in range(100)]
    bad = [
        b'{"id":{"N":"1001"},"v":{"N":"%b"}}' % (b"9" * 39),
        b'{"id":{"N":"1002"},"v":{"L":[{"N":"1e126"}]}}',
        b'{"id":{"N":"1003"},"v":{"M":{"m":{"N":"NaN"}}}}',
        b'{"id":{"N":"1004"},"v":{"S":"%b"}}' % (b"x" * MAX_ITEM_BYTES),
        b'{"id":{"S":"1005"}}',
        b'{"v":{"S":"keyless"}}',
    ]
    refusals, counters = in_sink(server, [item for pair in zip(good, bad, strict=False) for item in pair] + good[6:])
    assert sorted(refusal.item for refusal in refusals) == sorted(bad)
    assert all(refusal.message for refusal in refusals)
    assert counters.rows_loaded == len(good)
