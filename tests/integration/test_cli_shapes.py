"""What the config makes of a job's items, in both layouts, and what becomes of rows that cannot be items."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.conftest import Schema, Stack
from tests.integration import oracle
from tests.integration.command_line import CommandLine


def items(stack: Stack, table: str) -> list[dict[str, Any]]:
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    found: list[dict[str, Any]] = client.scan(TableName=table, ConsistentRead=True)["Items"]
    client.close()
    return found


@pytest.mark.parametrize("layout", ["packed", "rows"])
def test_items_look_as_the_config_says(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str, tmp_path: Path, layout: str
) -> None:
    schema.execute(
        "create table people (id int primary key, name text, email text, born date, score numeric, secret text);"
        "insert into people values (1, 'Ada', 'ada@example.org', '1815-12-10', 1.50, 'x'),"
        " (2, 'Kurt', null, '1906-04-28', null, 'y'), (3, 'drop me', 'z@example.org', null, 7, 'z')"
    )
    (tmp_path / "momento-etl.toml").write_text(
        f"""
        [cache]
        layout = "{layout}"
        [tables.people]
        cache = "{unique}"
        destination = "{unique}"
        key = ["pk", "born"]
        drop = ["secret"]
        rename = {{ name = "called" }}
        cast = {{ score = "S" }}
        mask = {{ email = "hash" }}
        attributes = {{ pk = "PERSON#{{id:04d}}", kind = "person", version = 2 }}
        """
    )
    summary = command_line("run", "--table", "people", "--output", "json", code=3).json
    assert (summary["rows_extracted"], summary["rows_loaded"], summary["rows_rejected"]) == (3, 2, 1)
    assert summary["rejects"][0]["rule"] == "key-null"
    (file,) = tmp_path.glob("people-*.jsonl")
    rejected = json.loads(file.read_text())
    # What was read, under the names of its columns: neither renamed nor cast, but masked.
    assert rejected["row"] == {"id": "3", "name": "drop me", "email": "***", "score": "7"}
    assert rejected["types"] == {"id": "integer", "name": "text", "email": "text", "score": "numeric"}
    assert "--where" in rejected["hint"]
    hashed = hashlib.sha256(b"ada@example.org").hexdigest()
    ada = {
        "pk": {"S": "PERSON#0001"},
        "born": {"S": "1815-12-10"},
        "id": {"N": "1"},
        "called": {"S": "Ada"},
        "email": {"S": hashed},
        "score": {"S": "1.50"},
        "kind": {"S": "person"},
        "version": {"N": "2"},
    }
    kurt = {
        "pk": {"S": "PERSON#0002"},
        "born": {"S": "1906-04-28"},
        "id": {"N": "2"},
        "called": {"S": "Kurt"},
        "kind": {"S": "person"},
        "version": {"N": "2"},
    }
    assert sorted(items(stack, unique), key=lambda item: str(item["pk"])) == [ada, kurt]
    # The same again from the cache alone, into another table.
    command_line("load", "--table", "people", "--destination", f"{unique}-2", code=3)
    assert sorted(items(stack, f"{unique}-2"), key=lambda item: str(item["pk"])) == [ada, kurt]
    shown = command_line("inspect-cache", "people", "--row", "PERSON#0001,1815-12-10", "--output", "json").json
    assert shown["row"] == ada


@pytest.mark.usefixtures("command_line")
def test_a_function_of_the_users_own(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str, tmp_path: Path
) -> None:
    schema.execute("create table t as select i as id, i * 1.5 as price from generate_series(1, 5) i")
    (tmp_path / "mine.py").write_text(
        "def change(item):\n"
        "    if item['id'] == 2:\n        return None\n"
        "    if item['id'] == 3:\n        raise ValueError('not this one')\n"
        "    return {**item, 'double': item['price'] * 2}\n"
    )
    (tmp_path / "momento-etl.toml").write_text(
        f'[tables.t]\ndestination = "{unique}"\ncache = "{unique}"\nkey = ["id"]\ntransform = "mine:change"\n'
    )
    summary = command_line("run", "--table", "t", "--output", "json", code=3).json
    assert [summary[f"rows_{what}"] for what in ("extracted", "loaded", "rejected", "dropped")] == [5, 3, 1, 1]
    assert "not this one" in summary["rejects"][0]["message"]
    assert any("mine:change may change keys" in warning for warning in summary["warnings"])
    found = {item["id"]["N"]: item["double"]["N"] for item in items(stack, unique)}
    assert {key: float(value) for key, value in found.items()} == {"1": 3.0, "4": 12.0, "5": 15.0}


def test_movies_through_the_rows_layout_are_exact(
    command_line: CommandLine, stack: Stack, unique: str, tmp_path: Path
) -> None:
    (tmp_path / "momento-etl.toml").write_text('[cache]\nlayout = "rows"\n')
    films = command_line.given(DATABASE_URL=stack.postgres_url)
    arguments = ("--table", "movies", "--cache", unique, "--destination", unique, "--where", "movie_id <= 400")
    summary = films("run", *arguments, "--output", "json").json
    assert summary["rows_loaded"] == 400
    assert any("rows layout costs" in warning for warning in summary["warnings"])
    outcome = oracle.compare(
        stack.postgres_url, stack.dynamodb_url, "select * from movies where movie_id <= 400", unique
    )
    assert outcome == oracle.Outcome(400, 400, 0, [])
    assert "undamaged" in films("inspect-cache", "movies", "--cache", unique, "--check").out


def test_a_value_that_the_rows_layout_cannot_hold(
    command_line: CommandLine, schema: Schema, unique: str, tmp_path: Path
) -> None:
    schema.execute("create table t as select 1 as id, repeat('x', 200000) as v; alter table t add primary key (id)")
    (tmp_path / "momento-etl.toml").write_text('[cache]\nlayout = "rows"\n')
    arguments = ("run", "--table", "t", "--cache", unique, "--destination", unique)
    failed = command_line.fails(*arguments, code=1)
    assert 'layout = "packed"' in failed.json["error"]["hint"]


def test_rejected_rows_are_kept_in_a_file_and_have_a_bound(
    command_line: CommandLine, schema: Schema, unique: str, tmp_path: Path
) -> None:
    schema.execute(
        "create table t (id int primary key, v numeric);"
        "insert into t select i, case when i % 4 = 0 then 'NaN'::numeric else i end from generate_series(1, 12) i"
    )
    arguments = ("run", "--table", "t", "--cache", unique, "--destination", unique)
    summary = command_line(*arguments, "--output", "json", code=3).json
    (file,) = tmp_path.glob("*.jsonl")
    assert file.name == f"t-{summary['run_id']}.rejects.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["row"] for line in lines] == [{"id": str(number), "v": "NaN"} for number in (4, 8, 12)]
    assert {line["rule"] for line in lines} == {"number-not-finite"}
    assert lines[0]["types"] == {"id": "integer", "v": "numeric"}
    before = command_line("inspect-cache", "t", "--cache", unique, "--output", "json").json["current"]
    for most in ("2", "24%"):
        failed = command_line.fails(*arguments, "--max-rejects", most, "--rejects-file", f"{most}.jsonl", code=1)
        assert f"3 of 12 rows were rejected, and at most {most} may be" in failed.json["error"]["message"]
        assert len((tmp_path / f"{most}.jsonl").read_text().splitlines()) == 3
    # A run that failed is not what a load would take.
    assert command_line("inspect-cache", "t", "--cache", unique, "--output", "json").json["current"] == before
    for most in ("3", "25%"):
        command_line(*arguments, "--max-rejects", most, "--rejects-file", "/dev/null", code=3)
    full = command_line(*arguments, "--rejects-file", "/dev/full", code=1)
    assert full.err.count("No space left on device") == 1
