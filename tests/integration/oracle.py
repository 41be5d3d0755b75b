"""Compare every row of a PostgreSQL table with every item of a DynamoDB table, exactly.

    python tests/integration/oracle.py --postgres URL --dynamodb URL --table T --destination D

It shares no code with the package, and reads both sides another way: PostgreSQL's text through libpq, DynamoDB through
boto3's Scan. What becomes of each type (section 5 of the design) is written here anew, numbers are compared by value,
and what DynamoDB cannot hold has to be missing from it. Exit code 0: no difference; 1: differences, which are printed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Context, Decimal
from functools import cache
from typing import Any

import boto3
import psycopg
from psycopg.pq import ExecStatus

SETTINGS = """
set datestyle = 'ISO, YMD'; set intervalstyle = 'iso_8601'; set timezone = 'UTC';
set extra_float_digits = 1; set bytea_output = 'hex'; set client_encoding = 'UTF8'
"""
TYPE = """
select t.typname, t.typtype, t.typbasetype, t.typrelid, e.oid, e.typdelim,
       (select x.extname from pg_depend d join pg_extension x on x.oid = d.refobjid
         where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e')
  from pg_type t left join pg_type e on e.typarray = t.oid where t.oid = %s
"""
FIELDS = """
select attname, atttypid from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped order by attnum
"""
NUMBERS = {"int2", "int4", "int8", "oid", "numeric", "float4", "float8"}
EXACT = Context(prec=200)
LARGEST = Decimal("9.9999999999999999999999999999999999999e125")
SMALLEST = Decimal("1e-130")
KEY_BYTES = (2048, 1024)
NAME_BYTES = 65_535
ITEM_BYTES = 400 * 1024
LEVELS = 32

Value = tuple[str, Any]
"""An attribute's value: DynamoDB's letter for its type, and a Python value that `==` compares exactly."""


class Unrepresentable(Exception):  # noqa: N818  it says what is true of a row
    """DynamoDB cannot hold the row; the rule has the name that the tool gives it."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass
class Outcome:
    """What a comparison found.

    Attributes:
        rows: Rows in PostgreSQL.
        equal: Rows whose item is equal.
        rejected: Rows that DynamoDB cannot hold, and does not.
        differences: All else, in words.
        reasons: The rules that rejected rows break, by the text of the first column of the key.
    """

    rows: int = 0
    equal: int = 0
    rejected: int = 0
    differences: list[str] = field(default_factory=list)
    reasons: dict[str | None, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Kind:
    """A column's type, domains resolved."""

    name: str
    element: Kind | None = None
    delimiter: str = ","
    fields: tuple[tuple[str, Kind], ...] | None = None
    extension: str | None = None


def number(text: str) -> Value:
    """Read a number, or say that N cannot hold it."""
    value = Decimal(text)
    if not value.is_finite():
        raise Unrepresentable("number-not-finite", f"{text} is not finite")
    digits = "".join(map(str, value.as_tuple().digits)).strip("0")
    if len(digits) > 38:
        raise Unrepresentable("number-precision", f"{text} has {len(digits)} digits")
    if value and not SMALLEST <= value.copy_abs() <= LARGEST:
        raise Unrepresentable("number-range", f"{text} is out of range")
    return "N", value


def value_of(kind: Kind, text: str) -> Value:
    """Read one value of any type."""
    if kind.element is not None:
        return array(kind, text)
    if kind.fields is not None:
        return composite(kind.fields, text)
    match kind.extension, kind.name:
        case "hstore", "hstore":
            return hstore(text)
        case "vector", "vector" | "halfvec":
            return "L", [number(part) for part in text[1:-1].split(",")]
        case None, _:
            return scalar(kind.name, text)
    return "S", text


def scalar(name: str, text: str) -> Value:
    """Read one value of a built-in type that has no parts."""
    if name in NUMBERS:
        return number(text)
    if name == "bool":
        return "BOOL", {"t": True, "f": False}[text]
    if name == "bytea":
        assert text.startswith("\\x")
        return "B", bytes.fromhex(text[2:])
    if name in ("json", "jsonb"):
        return from_json(json.loads(text, parse_int=Number, parse_float=Number, object_pairs_hook=members))
    if name in ("timestamp", "timestamptz") and "infinity" not in text and not text.endswith("BC"):
        day, moment = text.split(" ")
        if name == "timestamptz":
            assert moment.endswith("+00"), text
            moment = moment[:-3] + "Z"
        return "S", f"{day}T{moment}"
    return "S", text


class Number(str):
    """A number of a JSON text, as it stands there."""


def members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Take an object whose members have each a name of their own."""
    named = dict(pairs)
    if len(named) < len(pairs):
        raise Unrepresentable("json-duplicate-key", "two members have one name")  # json keeps both, a map one of them
    return named


def from_json(value: object) -> Value:
    """Turn parsed JSON into an attribute's value."""
    match value:
        case Number():
            return number(value)
        case None:
            return "NULL", True
        case bool():
            return "BOOL", value
        case str():
            return "S", utf8(value)
        case list():
            return "L", [from_json(member) for member in value]
        case dict():
            if "" in value:
                raise Unrepresentable("json-empty-key", "a member has no name")
            if any(len(utf8(name).encode()) > NAME_BYTES for name in value):
                raise Unrepresentable("json-key-too-long", "a member's name is too long")
            return "M", {name: from_json(member) for name, member in value.items()}
    raise AssertionError(value)


def utf8(text: str) -> str:
    """Take a text that UTF-8 can write."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Unrepresentable("json-surrogate", "a text has half a surrogate pair")
    return text


class Characters:
    """A text that is read character by character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    @property
    def next(self) -> str:
        """The next character; nothing at the end."""
        return self.text[self.at : self.at + 1]

    def take(self, expected: str = "") -> str:
        """Take the next character, or a text that has to be next."""
        taken = self.text[self.at : self.at + max(1, len(expected))]
        assert taken == expected if expected else taken, (self.text, self.at)
        self.at += len(taken)
        return taken

    def quoted(self) -> str:
        """Take a text in quotes; a backslash, and a quote before a quote, stand for the next character."""
        self.take('"')
        taken = ""
        while True:
            character = self.take()
            if character == "\\":
                taken += self.take()
            elif character != '"':
                taken += character
            elif self.next == '"':
                taken += self.take()
            else:
                return taken

    def until(self, ends: str) -> str:
        """Take what comes before any of these characters."""
        taken = ""
        while self.next not in ends:
            taken += self.take()
        return taken


def composite(fields: tuple[tuple[str, Kind], ...], text: str) -> Value:
    """Read a row's text; a field that is NULL becomes nothing."""
    members: dict[str, Value] = {}
    characters = Characters(text)
    characters.take("(")
    for place, (name, kind) in enumerate(fields):
        if place:
            characters.take(",")
        if characters.next == '"':
            members[name] = value_of(kind, characters.quoted())
        elif plain := characters.until(",)"):
            members[name] = value_of(kind, plain)
    characters.take(")")
    assert not characters.next, text
    return "M", members


def hstore(text: str) -> Value:
    """Read an hstore's text."""
    members: dict[str, Value] = {}
    characters = Characters(text)
    while characters.next:
        if members:
            characters.take(", ")
        name = characters.quoted()
        characters.take("=>")
        if characters.next == '"':
            members[name] = ("S", characters.quoted())
        else:
            characters.take("NULL")
            members[name] = ("NULL", True)
        if not name:
            raise Unrepresentable("hstore-empty-key", "a pair has an empty key")
        if len(name.encode()) > NAME_BYTES:
            raise Unrepresentable("hstore-key-too-long", "a key is too long")
    return "M", members


def array(kind: Kind, text: str) -> Value:
    """Read an array's text."""
    assert kind.element is not None
    if text.startswith("["):
        raise Unrepresentable("array-bounds", f"{text} has bounds that do not start at 1")
    mark = re.escape(kind.delimiter)
    tokens = re.compile(
        rf'(?P<quoted>"(?:[^"\\]|\\.)*")|(?P<brace>[{{}}])|(?P<plain>[^{{}}"{mark}]+)|(?P<delimiter>{mark})', re.DOTALL
    )
    stack: list[list[Value]] = [[]]
    at = 0
    while at < len(text):
        token = tokens.match(text, at)
        assert token is not None, text
        at = token.end()
        if token["brace"] == "{":
            stack.append([])
        elif token["brace"] == "}":
            ended = stack.pop()
            stack[-1].append(("L", ended))
        elif token["quoted"] is not None:
            stack[-1].append(value_of(kind.element, re.sub(r"\\(.)", r"\1", token["quoted"][1:-1], flags=re.DOTALL)))
        elif token["plain"] is not None:
            null = token["plain"].upper() == "NULL"
            stack[-1].append(("NULL", True) if null else value_of(kind.element, token["plain"]))
    ((value,),) = stack
    return value


def from_dynamodb(value: Any) -> Value:
    """Read an attribute's value as boto3's client gives it."""
    ((letter, content),) = value.items()
    match letter:
        case "N":
            return "N", Decimal(content)
        case "L":
            return "L", [from_dynamodb(member) for member in content]
        case "M":
            return "M", {name: from_dynamodb(member) for name, member in content.items()}
        case _:
            return letter, content


def size(value: Value) -> int:
    """Reckon a value's bytes, roughly for numbers."""
    letter, content = value
    match letter:
        case "S":
            return len(content.encode())
        case "B":
            return len(content)
        case "N":
            return len(content.as_tuple().digits) // 2 + 2
        case "L":
            return 3 + sum(1 + size(member) for member in content)
        case "M":
            return 3 + sum(1 + len(name.encode()) + size(member) for name, member in content.items())
        case _:
            return 1


def levels(value: Value) -> int:
    """Count how deep a value is nested; 1 for a scalar."""
    letter, content = value
    members = content if letter == "L" else content.values() if letter == "M" else ()
    return 1 + max(map(levels, members), default=0)


def expected(cells: dict[str, str | None], kinds: dict[str, Kind], key: list[str]) -> dict[str, Value]:
    """Turn a row into the item it should be."""
    item: dict[str, Value] = {}
    for name, text in cells.items():
        if text is not None:
            item[name] = value_of(kinds[name], text)
            if levels(item[name]) > LEVELS:
                raise Unrepresentable("nesting-depth", f"{name} is nested too deep")
    for name, limit in zip(key, KEY_BYTES, strict=False):
        if name not in item:
            raise Unrepresentable("key-null", f"the key {name} is NULL")
        letter, content = item[name]
        length = 1 if letter == "N" else len(content.encode() if letter == "S" else content)
        if not 0 < length <= limit:
            raise Unrepresentable("key-too-long" if length else "key-empty", f"the key {name} has {length} bytes")
    if sum(len(name.encode()) + size(value) for name, value in item.items()) > ITEM_BYTES:
        raise Unrepresentable("item-too-large", "the item is too large")
    return item


def rows_of(postgres: str, select: str) -> tuple[dict[str, Kind], Iterator[dict[str, str | None]]]:
    """Read a query's rows as PostgreSQL's text, with the types of its columns."""
    connection = psycopg.connect(postgres, autocommit=True)
    connection.execute(SETTINGS)
    result = connection.pgconn.exec_(select.encode())
    assert result.status == ExecStatus.TUPLES_OK, result.error_message
    names = [(result.fname(place) or b"").decode() for place in range(result.nfields)]
    kind = kinds_of(connection)
    kinds = {name: kind(result.ftype(place)) for place, name in enumerate(names)}

    def rows() -> Iterator[dict[str, str | None]]:
        with connection:
            for row in range(result.ntuples):
                cells = [result.get_value(row, column) for column in range(len(names))]
                yield {name: None if cell is None else cell.decode() for name, cell in zip(names, cells, strict=True)}

    return kinds, rows()


def kinds_of(connection: psycopg.Connection[Any]) -> Callable[[int], Kind]:
    """Make what looks up types by their OIDs, down to what domains, arrays and composites stand on."""

    @cache
    def kind(oid: int) -> Kind:
        row = connection.execute(TYPE, [oid]).fetchone()
        assert row is not None
        name, typtype, base, relation, element, delimiter, extension = row
        if typtype == "d":
            return kind(base)
        if element:
            return Kind(name, kind(element), delimiter)
        if typtype == "c":
            fields = connection.execute(FIELDS, [relation]).fetchall()
            return Kind(name, fields=tuple((field, kind(field_type)) for field, field_type in fields))
        return Kind(name, extension=extension)

    return kind


def items_of(dynamodb: str, table: str) -> tuple[list[str], list[dict[str, Value]]]:
    """Read a table's key attributes, the hash first, and all of its items."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=dynamodb,
        region_name="us-east-1",
        aws_access_key_id="oracle",
        aws_secret_access_key="oracle",
    )
    schema = client.describe_table(TableName=table)["Table"]["KeySchema"]
    key = [part["AttributeName"] for part in sorted(schema, key=lambda part: part["KeyType"])]
    items = []
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        items += [{name: from_dynamodb(value) for name, value in item.items()} for item in page["Items"]]
    client.close()
    return key, items


def compare(postgres: str, dynamodb: str, select: str, destination: str) -> Outcome:
    """Compare what a SELECT (or TABLE) returns with a DynamoDB table."""
    key, items = items_of(dynamodb, destination)
    found = {repr([normal(item[name]) for name in key]): item for item in items}
    outcome = Outcome()
    if len(found) < len(items):
        outcome.differences.append("the destination has items with equal keys")
    kinds, rows = rows_of(postgres, select)
    for cells in rows:
        outcome.rows += 1
        where = ", ".join(f"{name}={cells[name]!r}" for name in key)
        try:
            wanted = expected(cells, kinds, key)
        except Unrepresentable as problem:
            outcome.rejected += 1
            outcome.reasons[cells[key[0]]] = problem.rule
            continue  # an item for it would be left over in the end, and is a difference then
        item = found.pop(repr([normal(wanted[name]) for name in key]), None)
        if item is None:
            outcome.differences.append(f"row {where}: there is no item")
        elif item == wanted:
            outcome.equal += 1
        else:
            for name in sorted(wanted.keys() | item.keys()):
                if wanted.get(name) != item.get(name):
                    outcome.differences.append(
                        f"row {where}: {name} should be {wanted.get(name, 'absent')}, and is {item.get(name, 'absent')}"
                    )
    outcome.differences += [
        f"item {', '.join(f'{name}={item[name]}' for name in key)}: there is no row for it" for item in found.values()
    ]
    return outcome


def normal(value: Value) -> Value:
    """Write equal keys equally: 1, 1.0 and 1E0 are one number."""
    letter, content = value
    return (letter, str(EXACT.add(content, 0).normalize(EXACT))) if letter == "N" else value


def main() -> int:
    """Compare, print, and answer with an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", required=True, metavar="URL")
    parser.add_argument("--dynamodb", required=True, metavar="URL")
    parser.add_argument("--destination", required=True, metavar="TABLE")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", help="a table, written as in SQL")
    what.add_argument("--select", help="a query in its place")
    arguments = parser.parse_args()
    select = arguments.select or f"select * from {arguments.table}"
    outcome = compare(arguments.postgres, arguments.dynamodb, select, arguments.destination)
    for difference in outcome.differences[:50]:
        sys.stdout.write(f"{difference[:1000]}\n")
    sys.stdout.write(
        f"{outcome.rows} rows: {outcome.equal} equal, {outcome.rejected} that DynamoDB cannot hold,"
        f" {len(outcome.differences)} differences\n"
    )
    return 1 if outcome.differences else 0


if __name__ == "__main__":
    sys.exit(main())
