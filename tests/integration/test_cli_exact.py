"""What arrives is what was there: an independent script compares every row with every item."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import boto3
import pytest
from psycopg import sql

from etlcli.local import stack as embedded
from tests.conftest import Schema, Stack
from tests.integration import oracle
from tests.integration.command_line import CommandLine

TYPES = {
    "t": "text",
    "v": "varchar(40)",
    "c": "char(5)",
    "i2": "smallint",
    "i4": "integer",
    "i8": "bigint",
    "o": "oid",
    "n": "numeric",
    "n2": "numeric(38,10)",
    "f4": "real",
    "f8": "double precision",
    "b": "boolean",
    "bin": "bytea",
    "d": "date",
    "ts": "timestamp",
    "tz": "timestamptz",
    "tm": "time",
    "ttz": "timetz",
    "iv": "interval",
    "u": "uuid",
    "j": "json",
    "jb": "jsonb",
    "ia": "integer[]",
    "ta": "text[]",
    "na": "numeric[]",
    "fa": "double precision[]",
    "ba": "boolean[]",
    "bina": "bytea[]",
    "tza": "timestamptz[]",
    "ja": "jsonb[]",
    "e": "mood",
    "p": "positive",
    "ip": "inet",
    "net": "cidr",
    "mac": "macaddr",
    "bits": "bit(3)",
    "cash": "money",
    "span": "int4range",
    "words": "tsvector",
    "point": "point",
}

TEXTS = [
    "",
    " ",
    "plain",
    "it's \"quoted\", 'twice'",
    "back\\slash \\N \\. \\\\ \\t",
    "tab\tnewline\nreturn\rfeed\fbell\x07back\x08",
    "\x01\x1b[31mred\x7f\x85",
    "ünïcödé ✓ 漢字 \U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 e\u0301 \u202eright to left\u202c",
    "\uffff\U0010ffff\ufeff\u2028\u2029",
    '{"S":"json"} [1] null NULL <a href=\'x\'>&amp;</a> %s ${x} `x` ; drop table x --',
    "long " + "0123456789abcdef" * 20_000,
]

VALUES: dict[str, Sequence[str]] = {
    "t": TEXTS,
    "v": [text[:40] for text in TEXTS],
    "c": ["", "a", "abcde", "é", "'\\\""],
    "i2": ["-32768", "32767", "0"],
    "i4": ["-2147483648", "2147483647", "0"],
    "i8": ["-9223372036854775808", "9223372036854775807", "0"],
    "o": ["0", "4294967295"],
    "n": [
        "0",
        "-0.000",
        "1.50",
        "100",
        "99999999999999999999999999999999999999",
        "-0.00000000000000000000000000000000000000000000000000000001234",
        "1e-130",
        "9.9999999999999999999999999999999999999e125",
        "-9.9999999999999999999999999999999999999e125",
        "12345678901234567890123456789012345678000000",
        "0.1000000000000000055511151231257827021",
    ],
    "n2": ["9999999999999999999999999999.9999999999", "-0.0000000001", "0"],
    "f4": ["0", "-0", "1e-45", "1.17549435e-38", "3.4028235e38", "0.1", "16777216", "-1.5"],
    "f8": ["0", "-0", "0.1", "1e-130", "9.9e125", "1.7976931348623157e125", "9007199254740993", "-1e22", "5e-100"],
    "b": ["true", "false"],
    "bin": ["\\x", "\\x00", "\\x" + bytes(range(256)).hex(), "\\x5c5c6e22"],
    "d": ["1970-01-01", "0044-03-15 BC", "infinity", "-infinity", "5874897-12-31", "4713-01-01 BC", "2024-02-29"],
    "ts": ["1970-01-01", "infinity", "-infinity", "0044-03-15 12:00:00.5 BC", "294276-12-31 23:59:59.999999"],
    "tz": [
        "2024-02-29 23:59:59.123456+05:30",
        "infinity",
        "-infinity",
        "0044-03-15 12:00:00.5+00 BC",
        "9999-12-31 23:59:59+14",
    ],
    "tm": ["00:00", "24:00", "23:59:59.999999"],
    "ttz": ["00:00+15:59", "23:59:59.999999-08"],
    "iv": ["0", "1 year -2 months 3 days -04:05:06.789", "-178000000 years", "00:00:00.000001"],
    "u": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff"],
    "j": [
        '{"a": 1, "b": [null, true, "x\\u0000y"]}',
        "null",
        '"\\ud83d\\ude00"',
        "[]",
        "{}",
        "1.50",
        "-0.0",
        "1E3",
    ],
    "jb": [
        '{"deep": {"er": [{"n": 12345678901234567890123456789012345678}, 1e125, -1e-100]}, "a b.c": {}, "ä": 1}',
        '[[], [[]], {}, "", "\\n\\t\\\\\\"", false]',
        "null",
        '"text"',
        "-1.10",
    ],
    "ia": ["{}", "{NULL,1,-2147483648}", "{{1,2},{3,NULL}}", "[1:2]={7,8}"],
    "ta": ["{}", '{NULL,"NULL","",a}', '{"a,b","{c}","\\"q\\"","back\\\\slash"," pad "}', '{{"ä","✓"},{"x\ny","\t"}}'],
    "na": ["{0,1.50,99999999999999999999999999999999999999,NULL}"],
    "fa": ["{0.1,-0,1e100}"],
    "ba": ["{true,false,NULL}"],
    "bina": ['{"\\\\x","\\\\x00ff",NULL}'],
    "tza": ['{"2024-02-29 12:00:00+01",infinity,"0044-03-15 12:00:00+00 BC"}'],
    "ja": ['{"{\\"a\\": [1, null]}","null",NULL}'],
    "e": ["fine", 'it\'s "so-so", \\really'],
    "p": ["1", "2147483647"],
    "ip": ["::1", "10.0.0.1/8"],
    "net": ["10.0.0.0/8"],
    "mac": ["08:00:2b:01:02:03"],
    "bits": ["101"],
    "cash": ["-1234.56"],
    "span": ["[1,5)", "empty", "(,)"],
    "words": ["'a':1 'it''s':2"],
    "point": ["(1.5,-2)"],
}

# What N, an item or a key cannot hold: each a row of its own.
REJECTED = [
    *(("n", text) for text in ("NaN", "Infinity", "-Infinity", "1e126", "1e-131", "0." + "123456789" * 5, "1" * 39)),
    *(("f8", text) for text in ("NaN", "Infinity", "1e308", "5e-324", "2.2250738585072014e-308")),
    ("f4", "-Infinity"),
    ("na", "{1,NaN}"),
    ("fa", "{1e200}"),
    ("ia", "[0:1]={7,8}"),
    ("jb", '{"n": [1, {"m": ' + "1" * 39 + "}]}"),
    ("j", "[1e126]"),
    ("jb", '{"a": {"": 1}}'),
    ("j", '{"a": 1, "a": 2}'),
    ("jb", "[" * 40 + "]" * 40),
    ("t", "x" * 410_000),
    ("bin", "\\x" + "00" * 410_000),
]


def fill(schema: Schema) -> int:
    """Make the table `hostile`; answer how many rows it has."""
    schema.execute("create type mood as enum ('fine', 'it''s \"so-so\", \\really')")
    schema.execute("create domain positive as integer check (value > 0)")
    columns = ", ".join(f"{name} {type_}" for name, type_ in TYPES.items())
    schema.execute(f"create table hostile (id bigint primary key, {columns})")
    rows: list[dict[str, str]] = [
        {name: values[number] for name, values in VALUES.items() if number < len(values)}
        for number in range(max(map(len, VALUES.values())))
    ]
    rows += [{}, *({name: text} for name, text in REJECTED)]
    for number, row in enumerate(rows):
        statement = sql.SQL("insert into hostile ({}) values ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, ["id", *row])),
            sql.SQL(", ").join([sql.Literal(number), *(sql.SQL(f"%s::{TYPES[name]}") for name in row)]),
        )
        schema.connection.execute(statement, list(row.values()))
    return len(rows)


def compared(schema: Schema, stack: Stack, select: str, destination: str) -> oracle.Outcome:
    """Compare, and have no difference."""
    outcome = oracle.compare(schema.url, stack.dynamodb_url, select, destination)
    assert not outcome.differences, "\n".join(text[:500] for text in outcome.differences[:20])
    return outcome


def test_hostile_values_arrive_exactly(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    rows = fill(schema)
    whole, halves = f"{unique}-1", f"{unique}-2"
    summary = command_line(
        "run", "--table", "hostile", "--cache", whole, "--destination", whole, "--output", "json", code=3
    ).json
    extracted = command_line("extract", "--table", "hostile", "--cache", halves, "--output", "json", code=3).json
    loaded = command_line(
        "load", "--table", "hostile", "--cache", halves, "--destination", halves, "--output", "json", code=3
    ).json
    outcomes = [compared(schema, stack, "select * from hostile", destination) for destination in (whole, halves)]
    assert outcomes[0] == outcomes[1] == oracle.Outcome(rows, rows - len(REJECTED), len(REJECTED), [])
    for figures in (summary, loaded):
        assert figures["status"] == "rejected_rows"
        assert (figures["rows_extracted"], figures["rows_loaded"], figures["rows_rejected"]) == (
            rows,
            rows - len(REJECTED),
            len(REJECTED),
        )
    assert loaded["run_id"] == extracted["run_id"]

    listed = command_line("inspect-cache", "hostile", "--cache", whole, "--rejects", "--output", "json").json
    assert sorted(int(reject["row"]["id"]) for reject in listed["rejects"]) == list(range(rows - len(REJECTED), rows))
    assert {reject["rule"] for reject in listed["rejects"]} >= {"number-not-finite", "item-too-large"}
    shown = command_line("inspect-cache", "hostile", "--cache", whole, "--rejects")
    assert "number-not-finite" in shown.out
    assert "NaN" in shown.out


def test_movies_arrive_exactly_in_one_process_and_in_two(
    bare: CommandLine, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOMENTO_ETL_LOCAL_DIR", bare.environment["MOMENTO_ETL_LOCAL_DIR"])
    endpoints = embedded.up()
    whole, halves = f"{unique}-1", f"{unique}-2"
    run = ("run", "--local", "--table", "movies", "--cache", unique, "--destination", whole, "--output", "json")
    first = bare(*run).json
    assert first["destination_created"]
    again = bare(*run).json
    assert not again["destination_created"]
    assert first["run_id"] < again["run_id"]
    for summary in (first, again):
        assert summary["status"] == "succeeded"
        assert summary["rows_extracted"] == summary["rows_loaded"] == 3201

    # moto takes 2 ms an item to read a table back, so that the other half of this is about every fourth film.
    extracted = bare("extract", "--local", "--table", "movies", "--where", "movie_id % 4 = 1", "--cache", unique)
    run_id = extracted.out.strip()
    assert run_id > again["run_id"]
    bare("load", "--local", "--table", "movies", "--cache", unique, "--destination", halves)
    for destination, select, count in (
        (whole, "select * from movies", 3201),
        (halves, "select * from movies where movie_id % 4 = 1", 801),
    ):
        outcome = oracle.compare(endpoints.postgres_url, endpoints.dynamodb_url, select, destination)
        assert outcome == oracle.Outcome(count, count, 0, [])


def test_keys_of_every_type_arrive_exactly(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str
) -> None:
    schema.execute("create table text_keys (k text primary key, n integer)")
    texts = [*(text[:2000] for text in TEXTS), "x" * 2048, "é" * 1024]
    too_long = ["x" * 2049, "é" * 1025]
    for number, text in enumerate([*texts, *too_long]):
        schema.connection.execute("insert into text_keys values (%s, %s)", (text, number))
    schema.execute("create table byte_keys (k bytea, r numeric, primary key (k, r))")
    schema.execute(
        "insert into byte_keys select decode(repeat('00', n), 'hex'), n / 4.0 from generate_series(0, 40) n"
        " union all select '\\x01', n from unnest('{1.0,1.5,-1,NaN,1e125}'::numeric[]) n"
    )
    # No primary key, and NULLs and repeated values in the column that is asked for.
    schema.execute("create table loose (k date, r time, primary_ integer)")
    schema.execute(
        "insert into loose select '2024-01-01'::date + n / 2, make_time(n % 2, 0, 0), n from generate_series(0, 9) n"
    )
    schema.execute("insert into loose values (null, '00:00', 10), ('2024-01-01', null, 11)")

    def move(table: str, *more: str) -> tuple[dict[str, object], oracle.Outcome]:
        destination = f"{unique}-{table}"
        arguments = ("run", "--table", table, "--cache", destination, "--destination", destination, *more)
        summary = command_line(*arguments, "--output", "json", code=3).json
        return summary, compared(schema, stack, f"select * from {table}", destination)

    (text_summary, text_keys), (byte_summary, byte_keys), (loose_summary, loose) = command_line.at_once(
        lambda _: move("text_keys"), lambda _: move("byte_keys"), lambda _: move("loose", "--key", "k,r")
    )
    assert (text_keys.rejected, text_keys.rows) == (3, len(texts) + 2)  # the empty one, and the two that are too long
    assert {reject["rule"] for reject in text_summary["rejects"]} == {"key-empty", "key-too-long"}
    assert (byte_keys.rejected, byte_keys.rows) == (2, 46)
    assert {reject["rule"] for reject in byte_summary["rejects"]} == {"key-empty", "number-not-finite"}
    assert (loose.rejected, loose.rows) == (2, 12)
    assert {reject["rule"] for reject in loose_summary["rejects"]} == {"key-null"}


def test_the_oracle_finds_what_differs(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    schema.execute("create table small (id integer primary key, t text, n numeric, b bytea, j jsonb, a text[])")
    schema.execute(
        "insert into small select n, 'x' || n, n + 0.10, '\\x00', '{\"a\": [1]}', '{a,NULL}'"
        " from generate_series(1, 8) n"
    )
    script = Path(oracle.__file__)
    arguments = [
        "--postgres",
        schema.url,
        "--dynamodb",
        stack.dynamodb_url,
        "--table",
        "small",
        "--destination",
        unique,
    ]
    command_line("run", "--table", "small", "--cache", unique, "--destination", unique)

    def asked() -> tuple[int, str]:
        ended = subprocess.run(
            [sys.executable, "-I", str(script), *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert not ended.stderr
        return ended.returncode, ended.stdout

    assert asked() == (0, "8 rows: 8 equal, 0 that DynamoDB cannot hold, 0 differences\n")
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )

    def change(number: int, name: str, value: dict[str, object] | None) -> None:
        action = {"Action": "DELETE"} if value is None else {"Action": "PUT", "Value": value}
        client.update_item(TableName=unique, Key={"id": {"N": str(number)}}, AttributeUpdates={name: action})  # type: ignore[dict-item]

    change(1, "n", {"N": "1.100"})  # the same number
    assert asked()[0] == 0
    change(1, "t", {"S": "x1 "})
    change(2, "n", {"N": "2.1000000000000000000000000000000000001"})
    change(3, "t", None)
    change(4, "more", {"S": ""})
    change(5, "j", {"M": {"a": {"L": [{"S": "1"}]}}})
    change(6, "a", {"L": [{"S": "a"}, {"S": "NULL"}]})
    client.delete_item(TableName=unique, Key={"id": {"N": "7"}})
    change(9, "t", {"S": "x9"})
    client.close()
    code, text = asked()
    assert code == 1
    assert text.endswith("8 rows: 1 equal, 0 that DynamoDB cannot hold, 8 differences\n")
    found = [line for line in text.splitlines() if line.startswith(("row", "item"))]
    assert [line.partition(" should")[0] for line in found] == [
        "row id='1': t",
        "row id='2': n",
        "row id='3': t",
        "row id='4': more",
        "row id='5': j",
        "row id='6': a",
        "row id='7': there is no item",
        "item id=('N', Decimal('9')): there is no row for it",
    ]
