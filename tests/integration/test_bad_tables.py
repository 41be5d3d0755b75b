"""Tables, rows and configs that few have: each moves exactly, or is refused with a message and a hint."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Schema, Stack
from tests.integration import oracle
from tests.integration.command_line import CommandLine, Result


def compared(schema: Schema, stack: Stack, select: str, destination: str) -> oracle.Outcome:
    outcome = oracle.compare(schema.url, stack.dynamodb_url, select, destination)
    assert not outcome.differences, "\n".join(text[:500] for text in outcome.differences[:20])
    return outcome


def refused(command_line: CommandLine, sections: Sequence[tuple[str, str, str]], unique: str, *, table: str) -> None:
    """Run a job with each of some config sections, which it has to be refused for before anything is made."""

    def call(number: int, section: str) -> Any:
        path = command_line.folder / f"{number}.toml"
        path.write_text(f"[tables.{table}]\n{section}\n")
        arguments = ("run", "--table", table, "--cache", unique, "--destination", unique, "--config", str(path))
        return lambda cli: cli.fails(*arguments, code=2)

    calls = [call(number, section) for number, (section, _, _) in enumerate(sections)]
    results = command_line.at_once(*calls, apart=True)
    for (section, message, hint), result in zip(sections, results, strict=True):
        assert message in result.json["error"]["message"], f"{section}\n{result}"
        assert hint in result.json["error"]["hint"], f"{section}\n{result}"
    missing = command_line.fails("load", "--table", table, "--cache", unique, "--destination", unique, code=1)
    assert "there is no cache" in missing.json["error"]["message"]


def test_sections_that_do_not_go_with_the_table(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute(
        'create table films (film_id int primary key, title text, "Gross" bigint, made date, facts jsonb, data bytea)'
    )
    sections = [
        ('attributes = { pk = "F#{film_di}" }', "names the column 'film_di'", "Did you mean film_id?"),
        ('attributes = { pk = "F#{film_id" }', "has a field that cannot be read", "{column}"),
        ('attributes = { pk = "{title:04d}" }', "zero padding is for integers", "{title}"),
        ('attributes = { pk = "{facts}" }', "jsonb, which has no text", "--query"),
        ('rename = { title = "name", Gross = "name" }', "would both become the attribute name", "Rename or drop one"),
        ('rename = { title = "film_id" }', "column film_id and column title would both", "Rename or drop one"),
        ('rename = { titel = "name" }', "'titel', named in `rename`", "Did you mean title?"),
        ('cast = { film_id = "BOOL" }', "cannot be a DynamoDB key", "cast"),
        ('drop = ["film_id"]', "the key column film_id", "`drop`"),
        ('key = ["pk"]\nattributes = { pk = "" }', "a key cannot be empty", "{COLUMN}"),
        ("attributes = { price = 1e200 }", "the attribute price cannot be constant", "number that DynamoDB holds"),
        ('mask = { title = "hmac" }', "no key for it", "mask_key"),
    ]
    refused(command_line, sections, unique, table="films")


MODULES = {
    "raising": "raise RuntimeError('PLANTED-aws-secret'[:7] + ' at import')",
    "leaving": "import sys\nsys.exit(7)",
    "wanting": "import a_module_that_nobody_has",
    "broken": "def change(item:\n    pass",
    "wrong": "value = 7\nasync def later(item): pass\ndef none(): pass\ndef every(item): yield item",
}


def test_transforms_that_cannot_be_called(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute("create table films as select 1 as id; alter table films add primary key (id)")
    for name, text in MODULES.items():
        (command_line.folder / f"{name}.py").write_text(text)
    sections = [
        ("nowhere:change", "there is no module nowhere", "current folder"),
        ("nowhere.at_all:change", "there is no module nowhere", "current folder"),
        ("raising:change", "RuntimeError: 'PLANTED at import'", "python -c 'import raising'"),
        ("leaving:change", "importing the module leaving failed: SystemExit", "python -c"),
        ("wanting:change", "No module named 'a_module_that_nobody_has'", "python -c"),
        ("broken:change", "SyntaxError", "python -c"),
        ("wrong:chnage", "has no chnage", "There are: "),
        ("wrong:value", "not a function, but a value of type int", "module:function"),
        ("wrong:later", "is asynchronous", "without async"),
        ("wrong:every", "is a generator", "Return the item"),
        ("wrong:none", "cannot be called with one item", "one argument"),
        ("wrong", 'found "wrong"', "my_transforms:clean"),
        ("wrong:", 'found "wrong:"', "my_transforms:clean"),
    ]
    given = [(f'transform = "{reference}"', message, hint) for reference, message, hint in sections]
    refused(command_line, given, unique, table="films")


NONSENSE = """
import sys

class Unspeakable(Exception):
    def __str__(self):
        raise ValueError("not even this")

def endless():
    item = []
    item.append(item)
    return item

ANSWERS = {
    1: lambda item: [item],
    2: lambda item: {**item, "tags": set()},
    3: lambda item: {**item, "odd": object()},
    4: lambda item: {},
    5: lambda item: {**item, "id": "5"},
    6: lambda item: {**item, "n": float("nan")},
    7: lambda item: {**item, "deep": endless()},
    8: lambda item: {**item, "": 1},
    9: lambda item: {**item, "text": "\\ud800"},
    10: lambda item: {**item, "large": "x" * 500_000},
    11: lambda item: 1 / 0,
    12: lambda item: (_ for _ in ()).throw(Unspeakable()),
    13: lambda item: {**item, "n": 10 ** 200},
    14: lambda item: {**item, "n": {1, "1"}},
    15: lambda item: item.clear(),
    16: lambda item: {**item, 17: "a name that is a number"},
    17: lambda item: {**item, "n": 1j},
    18: lambda item: sys.exit(7),
    19: lambda item: {"id": item["id"], "ok": True, "tags": {"b", "a"}},
}

def change(item):
    return ANSWERS[int(item["id"])](item)
"""
BROKEN = {
    1: "transform-value", 2: "transform-value", 3: "transform-value", 4: "key-null", 5: "key-type",
    6: "number-not-finite", 7: "nesting-depth", 8: "transform-value", 9: "transform-value", 10: "item-too-large",
    11: "transform-error", 12: "transform-error", 13: "number-range", 14: "transform-value", 16: "transform-value",
    17: "transform-value", 18: "transform-error",
}  # fmt: skip


def test_a_transform_that_returns_nonsense(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str
) -> None:
    schema.execute(
        "create table films as select id from generate_series(1, 19) id; alter table films add primary key (id)"
    )
    (command_line.folder / "nonsense.py").write_text(NONSENSE)
    (command_line.folder / "momento-etl.toml").write_text('[tables.films]\ntransform = "nonsense:change"\n')
    arguments = ("run", "--table", "films", "--cache", unique, "--destination", unique)
    result = command_line(*arguments, "--rejects-file", "rejects", code=3)
    assert "Traceback" not in result.err
    rejects = [json.loads(line) for line in (command_line.folder / "rejects").read_text().splitlines()]
    assert {int(reject["row"]["id"]): reject["rule"] for reject in rejects} == BROKEN
    assert all("nonsense:change" in reject["message"] or reject["rule"] == "item-too-large" for reject in rejects)
    assert all(reject["hint"] and reject["types"] == {"id": "integer"} for reject in rejects)
    _, items = oracle.items_of(stack.dynamodb_url, unique)
    (item,) = items
    assert sorted(item.pop("tags")[1]) == ["a", "b"]
    assert item == {"id": ("N", 19), "ok": ("BOOL", True)}


def test_a_cast_that_some_rows_cannot_take(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str
) -> None:
    schema.execute(
        "create table t (id int primary key, n text, b text);"
        "insert into t values (1, '1.50', 'yes'), (2, 'a lot', 'no'), (3, '1e999', null), (4, ' 7 ', 'perhaps'),"
        " (5, null, null), (6, '', 'on'), (7, 'NaN', 'off'), (8, '0x10', '1')"
    )
    section = '[tables.t]\ncast = { n = "N", b = "BOOL" }\n'
    (command_line.folder / "momento-etl.toml").write_text(section)
    arguments = ("run", "--table", "t", "--cache", unique, "--destination")
    result = command_line(*arguments, f"{unique}-1", "--output", "json", code=3)
    rules = {int(reject["row"]["id"]): reject["rule"] for reject in result.json["rejects"]}
    assert rules == {
        2: "cast-number", 3: "number-range", 4: "cast-boolean", 6: "cast-number", 7: "number-not-finite",
        8: "cast-number",
    }  # fmt: skip
    assert all('"string"' in reject["hint"] for reject in result.json["rejects"])
    # The way out that the hint names.
    command_line(*arguments, f"{unique}-2", "--on-unrepresentable", "string")
    _, items = oracle.items_of(stack.dynamodb_url, f"{unique}-2")
    shown = {int(item["id"][1]): (item.get("n"), item.get("b")) for item in items}
    assert shown[2] == (("S", "a lot"), ("BOOL", False))
    assert shown[4] == (("N", 7), ("S", "perhaps"))
    assert shown[5] == (None, None)
    # On a terminal's text each rule has its hint once.
    shown_rejects = command_line(
        "inspect-cache", "t", "--cache", unique, "--rejects", "--run-id", result.json["run_id"]
    )
    assert shown_rejects.out.count("take the column out of `cast`") == 2


def test_two_rows_with_one_key_however_far_apart(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute(
        "create table t as select n as id, md5(n::text) || repeat('x', n % 50) as v from generate_series(1, 30000) n;"
        "insert into t values (1, 'again'), (17, 'near'), (17, 'by');"
        "create table neighbours as select n / 2 as id from generate_series(1, 3) n"
    )
    for table, keys in (("t", {"1", "17"}), ("neighbours", {"1"})):
        arguments = ("run", "--table", table, "--cache", f"{unique}-{table}", "--destination", f"{unique}-{table}")
        failed = command_line.fails(*arguments, code=1)
        before, _, listed = failed.json["error"]["message"].partition(": ")
        assert before.endswith("same destination key (id)")
        assert set(listed.split("; ")) == keys
        assert (failed.json["rows_loaded"], failed.json["chunks"]) == (0, 0)
        assert (
            "there is no cache"
            in command_line.fails("inspect-cache", table, "--cache", f"{unique}-{table}", code=1).err
        )


NAMES = (
    "id", "ID", "Id", "select", "SIZE", "name", "Name", "year", "values", "ttl", "#name", ":v", "a.b", "a..b", ".",
    "a[0]", "a b", " lead", "trail ", '"', "'", "\\", "\n", "\t", "{}", "%s", "$1", "é", "e\u0301", "\U0001f600" * 15,
    "x" * 63, "null", "__proto__", "toString", "S", "N", "M",
)  # fmt: skip


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_columns_of_any_name(command_line: CommandLine, schema: Schema, stack: Stack, unique: str, layout: str) -> None:
    (command_line.folder / "momento-etl.toml").write_text(f'[cache]\nlayout = "{layout}"\n')
    quoted = ['"' + name.replace('"', '""') + '"' for name in NAMES]
    schema.execute(f'create table names ({", ".join(f"{name} int" for name in quoted)}, primary key ("#name", ":v"))')
    schema.execute(f"insert into names values ({', '.join(map(str, range(len(NAMES))))})")
    schema.execute('insert into names ("#name", ":v", "a.b") values (1, 1, 1)')
    command_line("run", "--table", "names", "--cache", unique, "--destination", unique, "--quiet")
    assert compared(schema, stack, "select * from names", unique) == oracle.Outcome(2, 2, 0, [])
    shown = command_line("inspect-cache", "names", "--cache", unique, "--row", "10,11", "--output", "json").json
    assert shown["row"].keys() == set(NAMES)
    text = command_line("inspect-cache", "names", "--cache", unique)
    assert "\t" not in text.out.replace("\n", "")


def test_1600_columns(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    columns = ", ".join(f"c{number} int" for number in range(1599))
    schema.execute(f"create table wide (id int primary key, {columns})")
    schema.execute(
        f"insert into wide select n, {', '.join(str(number) for number in range(1599))} from generate_series(1, 5) n"
    )
    schema.execute("insert into wide values (6)")

    def move(cli: CommandLine, layout: str) -> dict[str, Any]:
        path = command_line.folder / f"{layout}.toml"
        path.write_text(f'[cache]\nlayout = "{layout}"\n')
        arguments = ("run", "--table", "wide", "--cache", f"{unique}-{layout}", "--destination", f"{unique}-{layout}")
        return cli(*arguments, "--config", str(path), "--output", "json").json

    summaries = command_line.at_once(lambda cli: move(cli, "packed"), lambda cli: move(cli, "rows"), apart=True)
    for layout, summary in zip(("packed", "rows"), summaries, strict=True):
        assert summary["rows_loaded"] == 6
        assert compared(schema, stack, "select * from wide", f"{unique}-{layout}").equal == 6


def test_rows_that_are_too_large(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    schema.execute(
        "create table large (id int primary key, t text, b bytea);"
        "insert into large values (1, repeat('x', 921600), null), (2, null, decode(repeat('00', 921600), 'hex')),"
        " (3, repeat('é', 230400), decode(repeat('ff', 460800), 'hex')), (4, repeat('x', 400000), null),"
        " (5, repeat('x', 409596), null), (6, repeat('\"', 200000), null)"
    )
    arguments = ("run", "--table", "large", "--cache", unique, "--destination", unique, "--rejects-file", "rejects")
    summary = command_line(*arguments, "--output", "json", code=3).json
    assert compared(schema, stack, "select * from large", unique) == oracle.Outcome(6, 2, 4, [])
    assert {reject["rule"] for reject in summary["rejects"]} == {"item-too-large"}
    assert all("--columns" in reject["hint"] for reject in summary["rejects"])
    # The file has them whole, the cache as far as an entry goes.
    lines = [json.loads(line) for line in (command_line.folder / "rejects").read_text().splitlines()]
    _, rows = oracle.rows_of(schema.url, "select * from large where id in (1, 2, 3, 5) order by id")
    assert [line["row"] for line in lines] == [
        {name: text for name, text in row.items() if text is not None} for row in rows
    ]
    listed = command_line("inspect-cache", "large", "--cache", unique, "--rejects", "--output", "json").json["rejects"]
    assert listed[0]["row"] == lines[0]["row"]
    assert listed[1]["row"]["b"].endswith("… (1,843,202 characters)")
    # A screen is not flooded.
    assert len(command_line(*arguments, code=3).err) < 20_000


def test_a_table_without_columns(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute("create table nothing (); insert into nothing default values; create table gone (id int)")
    schema.execute("insert into gone values (1); alter table gone drop column id")
    for table in ("nothing", "gone"):
        failed = command_line.fails("run", "--table", table, "--cache", unique, "--destination", unique, code=2)
        assert "has no columns" in failed.json["error"]["message"]
        assert "nothing to copy" in failed.json["error"]["hint"]


def test_rows_of_nothing_but_null(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    schema.execute("create table t (a int, b text, c jsonb); insert into t select from generate_series(1, 3)")
    schema.execute("insert into t values (1)")
    result = command_line("run", "--table", "t", "--cache", unique, "--destination", unique, "--output", "json", code=3)
    assert compared(schema, stack, "select * from t", unique) == oracle.Outcome(4, 1, 3, [])
    assert [(reject["rule"], reject["row"]) for reject in result.json["rejects"]] == [("key-null", {})] * 3
    text = command_line("inspect-cache", "t", "--cache", unique, "--rejects")
    assert "a key cannot be NULL" in text.out
    # All of them once the key is none of theirs; the rest of an item may be nothing.
    schema.execute("alter table t add id serial")
    config = '[tables.t]\nkey = ["id"]\nnull = "null"\n'
    (command_line.folder / "momento-etl.toml").write_text(config)
    command_line("run", "--table", "t", "--cache", unique, "--destination", f"{unique}-2", "--quiet")
    _, items = oracle.items_of(stack.dynamodb_url, f"{unique}-2")
    assert sorted((item["id"][1], item["a"][0], item["b"], item["c"]) for item in items) == [
        (number, "N" if number == 4 else "NULL", ("NULL", True), ("NULL", True)) for number in (1, 2, 3, 4)
    ]


UNORDERED = {
    "point": "('(' || n || ',0)')::point",
    "circle": "('<(0,0),' || n || '>')::circle",
    "xid": "n::text::xid",
    "jsonpath": "('$.a' || n)::jsonpath",
    "aclitem": "makeaclitem(n::oid, 10, 'SELECT', false)",
}


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_a_first_column_without_an_order(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str, layout: str
) -> None:
    (command_line.folder / "momento-etl.toml").write_text(f'[cache]\nlayout = "{layout}"\n')

    def move(name: str, *more: str) -> Result:
        arguments = ("run", "--table", name, "--cache", f"{unique}-{name}", "--destination", f"{unique}-{name}")
        return command_line(*arguments, *more, "--output", "json")

    for name, expression in UNORDERED.items():
        schema.execute(f"create table u_{name} as select {expression} as k, n from generate_series(1, 25) n")
    schema.execute(
        "create table u_both as select n as r, ('(' || n % 5 || ',0)')::point as k from generate_series(1, 25) n"
    )
    results = command_line.at_once(
        *(lambda _, name=name: move(f"u_{name}") for name in UNORDERED), lambda _: move("u_both", "--key", "k,r")
    )
    assert all("first column, k, is the destination key" in result.json["warnings"][0] for result in results[:-1])
    for name in (*UNORDERED, "both"):
        outcome = compared(schema, stack, f"select * from u_{name}", f"{unique}-u_{name}")
        assert outcome == oracle.Outcome(25, 25, 0, [])
    # One key twice is found all the same.
    schema.execute("insert into u_point values ('(7,0)', 7)")
    arguments = ("run", "--table", "u_point", "--cache", unique, "--destination", unique)
    assert "same destination key (k): (7,0)" in command_line.fails(*arguments, code=1).err


def test_a_first_column_that_is_no_key(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    schema.execute(
        "create table docs (doc json, n int);"
        " insert into docs select json_build_object('n', n), n from generate_series(1, 5) n;"
        "create table lists (list point[], n int);"
        " insert into lists select array[point(n, 0)], n from generate_series(1, 5) n"
    )
    for name, column in (("docs", "doc"), ("lists", "list")):
        arguments = ("run", "--table", name, "--cache", f"{unique}-{name}", "--destination", f"{unique}-{name}")
        failed = command_line.fails(*arguments, code=2)
        assert "cannot be a DynamoDB key" in failed.json["error"]["message"]
        # The way out that the hint names, as it stands.
        way_out = f'cast = {{ {column} = "S" }}'
        assert way_out in failed.json["error"]["hint"]
        path: Path = command_line.folder / f"{name}.toml"
        path.write_text(textwrap.dedent(f"[tables.{name}]\n{way_out}\n"))
        command_line(*arguments, "--config", str(path), "--quiet")
        assert compared(schema, stack, f"select {column}::text, n from {name}", f"{unique}-{name}").equal == 5
