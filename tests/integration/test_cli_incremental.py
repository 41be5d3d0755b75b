"""Incremental jobs and ``state``, as their users have them. The schema's clock is PostgreSQL's own: ``now()``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import boto3
import psycopg
import pytest

from tests.conftest import Schema, Stack
from tests.integration import oracle
from tests.integration.command_line import CommandLine

JSON = ("--output", "json")
NOW = 1_786_700_000


@pytest.fixture
def events(schema: Schema) -> None:
    schema.execute(
        "create table events (id integer primary key, v text, updated_at timestamptz default now());"
        " insert into events select n, 'v' || n, now() - interval '1 day' + n * interval '1 minute'"
        " from generate_series(1, 100) n"
    )


@pytest.fixture
def job(command_line: CommandLine, unique: str, request: pytest.FixtureRequest) -> str:
    """An incremental job. Of the table's rows, a minute apart, five and the newest lie within the overlap."""
    request.getfixturevalue("events")
    configure(command_line.folder, unique)
    return unique


def configure(folder: Path, job: str, *lines: str, key: str = "updated_at", source: str = 'source = "events"') -> None:
    text = [f"[tables.{job}]", source, f'incremental_key = "{key}"', *lines]
    (folder / "momento-etl.toml").write_text("\n".join(text) + "\n", encoding="utf-8")


def run(command_line: CommandLine, job: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    return command_line("run", "--table", job, *arguments, *JSON, code=code).json


def shown(command_line: CommandLine, job: str) -> dict[str, Any]:
    (found,) = command_line("state", "show", job, *JSON).json["jobs"]
    assert found["job"] == job
    return dict(found)


def client(stack: Stack) -> Any:
    return boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )


def watermark(command_line: CommandLine, stack: Stack, job: str) -> dict[str, str]:
    """A job's watermark as the state table has it; empty where there is none."""
    table = command_line.environment["MOMENTO_ETL_STATE_TABLE"]
    answer = client(stack).get_item(TableName=table, Key={"job": {"S": job}, "entry": {"S": "watermark"}})
    return {name: next(iter(value.values())) for name, value in answer.get("Item", {}).items()}


def same(schema: Schema, stack: Stack, job: str, rows: int, select: str = "select * from events") -> None:
    assert oracle.compare(schema.url, stack.dynamodb_url, select, job) == oracle.Outcome(rows, rows, 0, [])


def newest(schema: Schema) -> str:
    schema.execute("set timezone = 'UTC'")
    row = schema.connection.execute("select max(updated_at)::text from events").fetchone()
    assert row is not None
    return str(row[0])


def test_updates_and_late_commits_between_runs(
    command_line: CommandLine, schema: Schema, stack: Stack, job: str
) -> None:
    with psycopg.connect(schema.url) as late:
        # Both rows have their time from before the first run, and are seen only after it.
        late.execute("insert into events (id, v) values (500, 'late')")
        late.execute("update events set v = 'late', updated_at = now() where id = 7")
        schema.execute("insert into events (id, v) values (501, 'in time')")
        summary = run(command_line, job)
        assert summary["rows_loaded"] == 101
        assert summary["watermark"] == {
            "column": "updated_at",
            "since": None,
            "overlap": 300,
            "value": newest(schema),
            "moved": True,
        }
        first = newest(schema)
        late.commit()
    row = schema.connection.execute("select updated_at < %s from events where id = 500", (first,)).fetchone()
    assert row == (True,), "it is behind the watermark"
    schema.execute("update events set v = 'new', updated_at = now() where id in (1, 2)")
    schema.execute("insert into events (id, v) values (502, 'new')")
    summary = run(command_line, job)
    assert summary["rows_loaded"] == 6  # 1, 2, 7, 500, 501 by the overlap, 502
    assert (summary["watermark"]["since"], summary["watermark"]["value"]) == (first, newest(schema))
    same(schema, stack, job, 103)
    # Nothing new: the same rows once more, and the watermark as it was.
    before = watermark(command_line, stack, job)
    assert run(command_line, job)["rows_loaded"] == 6
    assert watermark(command_line, stack, job)["value"] == before["value"] == newest(schema)
    # Deleted rows are not seen, and their items stay.
    schema.execute("delete from events where id = 3")
    assert run(command_line, job, "--full-refresh")["rows_loaded"] == 102
    outcome = oracle.compare(schema.url, stack.dynamodb_url, "select * from events", job)
    assert [outcome.rows, len(outcome.differences)] == [102, 1]
    assert "3" in outcome.differences[0]


def test_without_an_overlap_what_is_committed_late_is_lost(
    command_line: CommandLine, schema: Schema, stack: Stack, job: str
) -> None:
    configure(command_line.folder, job, "overlap = 0")
    with psycopg.connect(schema.url) as late:
        late.execute("insert into events (id, v) values (500, 'late')")
        schema.execute("insert into events (id, v) values (501, 'in time')")
        run(command_line, job)
        late.commit()
    assert run(command_line, job)["rows_loaded"] == 1
    same(schema, stack, job, 101, "select * from events where id <> 500")


def test_a_part_never_moves_the_watermark(command_line: CommandLine, schema: Schema, stack: Stack, job: str) -> None:
    run(command_line, job)
    before = watermark(command_line, stack, job)
    schema.execute("update events set v = 'new', updated_at = now() where id < 10")
    for arguments in (
        ("--limit", "2"),
        ("--where", "id = 5"),
        ("--columns", "id,v"),
        ("--since", "tomorrow"),
    ):
        summary = run(command_line, job, *arguments)
        assert not summary["watermark"]["moved"], arguments
        assert any("so the watermark stays where it is" in warning for warning in summary["warnings"]), arguments
        assert watermark(command_line, stack, job) == before, arguments
    summary = run(command_line, job)
    assert (summary["rows_loaded"], summary["watermark"]["moved"]) == (9 + 6, True)
    same(schema, stack, job, 100)


def test_extract_and_load_in_two_processes(command_line: CommandLine, schema: Schema, stack: Stack, job: str) -> None:
    first = command_line("extract", "--table", job, *JSON).json
    assert first["watermark"]["moved"] is False
    loaded = command_line("load", "--table", job, *JSON).json
    assert loaded["watermark"] == {**first["watermark"], "moved": True}
    assert watermark(command_line, stack, job)["run_id"] == first["run_id"]
    again = command_line("load", "--table", job, *JSON).json
    assert (again["watermark"]["moved"], again["warnings"]) == (True, [])
    # A second extraction takes what is new, and the first one, loaded after it, does not bring the old days back.
    schema.execute("update events set v = 'new', updated_at = now() where id = 1")
    second = command_line("extract", "--table", job, *JSON).json
    assert second["rows_extracted"] == 1 + 6
    assert command_line("load", "--table", job, *JSON).json["watermark"]["moved"]
    old = command_line("load", "--table", job, "--run-id", first["run_id"], *JSON).json
    assert not old["watermark"]["moved"]
    assert "is newer, and was loaded before this one" in old["warnings"][0]
    assert watermark(command_line, stack, job)["run_id"] == second["run_id"]
    run(command_line, job, "--full-refresh")
    same(schema, stack, job, 100)


def test_a_column_that_becomes_no_attribute(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str
) -> None:
    schema.execute(
        "create table events (id integer primary key, v text, number bigint generated always as identity);"
        " insert into events (id, v) select n, 'v' || n from generate_series(1, 50) n;"
        " create view seen as select id, v as w, number from events where id % 2 = 0"
    )
    jobs = [f"{unique}-{name}" for name in ("dropped", "chosen", "query", "view")]
    sections = [
        f'[tables.{jobs[0]}]\nsource = "events"\ndrop = ["number"]',
        f'[tables.{jobs[1]}]\nsource = "events"\ncolumns = ["v", "id"]\nwhere = "id > 0"',
        f'[tables.{jobs[2]}]\nquery = "select id, v, number from events -- all"\nkey = ["id"]\ncolumns = ["id", "v"]',
        f'[tables.{jobs[3]}]\nsource = "seen"\nkey = ["id"]\ndrop = ["number"]',
    ]
    text = "\n".join(f'{section}\nincremental_key = "number"\noverlap = 0' for section in sections)
    (command_line.folder / "momento-etl.toml").write_text(text, encoding="utf-8")
    selects = ["select id, v from events"] * 3 + ["select id, w from seen"]
    totals = [50, 50, 50, 25]
    for summary, total in zip(
        command_line.at_once(*(lambda cli, name=name: run(cli, name) for name in jobs)), totals, strict=True
    ):
        assert (summary["rows_loaded"], summary["watermark"]["moved"]) == (total, True)
    schema.execute("insert into events (id, v) select n, 'w' || n from generate_series(51, 54) n")
    for summary, new in zip(
        command_line.at_once(*(lambda cli, name=name: run(cli, name) for name in jobs)), [5, 5, 5, 3], strict=True
    ):
        assert (summary["rows_loaded"], summary["watermark"]["since"]) == (new, "50")
    for name, select, total in zip(jobs, selects, [54, 54, 54, 27], strict=True):
        same(schema, stack, name, total, select)


def test_rejected_rows_are_accounted_for(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    schema.execute(
        "create table events (id integer primary key, at timestamptz default now(), n numeric);"
        " insert into events (id, n) values (1, 1), (2, 'NaN'), (3, 3)"
    )
    configure(command_line.folder, unique, 'overlap = "1s"', key="at")
    failed = run(command_line, unique, "--max-rejects", "0", code=1)
    assert not failed["watermark"]["moved"]
    assert watermark(command_line, stack, unique) == {}
    summary = run(command_line, unique, code=3)
    assert (summary["rows_rejected"], summary["watermark"]["moved"]) == (1, True)


def test_duplicates_are_looked_for_in_old_rows_too(command_line: CommandLine, schema: Schema, job: str) -> None:
    configure(command_line.folder, job, 'key = ["v"]', "overlap = 0")
    run(command_line, job)
    schema.execute("insert into events (id, v) values (600, 'v5')")
    refused = command_line.fails("run", "--table", job, code=1)
    assert "more than one row has the same destination key (v): v5" in refused.json["error"]["message"]


@pytest.mark.usefixtures("events")
def test_what_cannot_be_followed(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute("create domain moment as timestamptz; alter table events add a timestamptz[], add moment moment")
    for column, message, hint in [
        ("updated_on", "there is no column 'updated_on', named as incremental_key", "Did you mean updated_at?"),
        ("a", "a is timestamp with time zone[], and cannot be the incremental_key", "a time (timestamp, date)"),
    ]:
        configure(command_line.folder, unique, key=column)
        error = command_line.fails("run", "--table", unique, code=2).json["error"]
        assert message in error["message"]
        assert hint in error["hint"]
    configure(command_line.folder, unique)
    error = command_line.fails("run", "--table", unique, "--since", "a while ago", code=2).json["error"]
    assert error["message"].startswith("a while ago is no value of updated_at (timestamp with time zone): ")
    assert error["hint"] == "For example: 2026-08-14T10:00:00Z"
    configure(command_line.folder, unique, key="moment")
    summary = run(command_line, unique)
    assert summary["watermark"]["value"] is None
    assert summary["warnings"] == ["rows whose moment is NULL are taken by every run"]


def test_a_column_of_another_type(command_line: CommandLine, schema: Schema, stack: Stack, job: str) -> None:
    run(command_line, job)
    schema.execute("alter table events alter updated_at type timestamp using updated_at at time zone 'UTC'")
    error = command_line.fails("run", "--table", job, code=2).json["error"]
    assert "followed the column updated_at (timestamptz)" in error["message"]
    assert "would follow updated_at (timestamp)" in error["message"]
    assert "--full-refresh" in error["hint"]
    assert run(command_line, job, "--full-refresh")["watermark"]["moved"]
    assert watermark(command_line, stack, job)["type"] == "timestamp"
    same(schema, stack, job, 100)


def test_since_in_several_spellings(command_line: CommandLine, schema: Schema, job: str) -> None:
    run(command_line, job)
    row = schema.connection.execute(
        "select to_char(updated_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from events where id = 90"
    ).fetchone()
    assert row is not None
    summary = run(command_line, job, "--since", str(row[0]))
    assert summary["rows_loaded"] == 11 + 5  # and five minutes before
    assert summary["watermark"]["moved"]
    assert run(command_line, job, "--since", "-infinity")["rows_loaded"] == 100
    refused = command_line.fails("run", "--table", job, "--since", "x", "--full-refresh", code=2)
    assert "exclude each other" in refused.json["error"]["message"]


def test_flags_for_a_job_that_takes_all(command_line: CommandLine, schema: Schema) -> None:
    schema.execute("create table plain (id integer primary key)")
    for flag in (("--since", "1"), ("--full-refresh",)):
        error = command_line.fails("run", "--table", "plain", *flag, code=2).json["error"]
        assert "the job plain is not an incremental one" in error["message"]
        assert "[tables.plain]: incremental_key" in error["hint"]


def test_the_screen_says_where_a_run_began(command_line: CommandLine, schema: Schema, job: str) -> None:
    text = command_line("extract", "--table", job).err
    assert re.search(
        rf"^taken +all rows$\n^watermark +updated_at {re.escape(newest(schema))} \(once it is loaded\)$",
        text,
        re.MULTILINE,
    ), text
    text = command_line("load", "--table", job).err
    assert re.search(r"^watermark +updated_at .* \(moved\)$", text, re.MULTILINE), text
    terminal = command_line.terminal("run", "--table", job)
    assert terminal.end() == 0
    assert any(
        re.search(rf"^taken +updated_at from {re.escape(newest(schema))} less 5m", line) for line in terminal.lines
    )
    assert any(re.search(r"^watermark +updated_at .*\(nothing newer\)", line) for line in terminal.lines)
    assert all(len(line.rstrip()) <= 80 for line in terminal.lines)
    text = command_line("run", "--table", job, "--limit", "1").err
    assert re.search(r"^watermark +stays$", text, re.MULTILINE), text


def test_help_says_what_is_not_seen(command_line: CommandLine) -> None:
    text = " ".join(command_line.given(COLUMNS="200")("run", "--help").out.split())
    assert "Deleted rows are not seen." in text
    example = (Path(__file__).parents[2] / "config.example.toml").read_text(encoding="utf-8")
    assert "Deleted rows are" in example


def test_state_shows_and_resets(command_line: CommandLine, schema: Schema, job: str) -> None:
    summary = run(command_line, job)
    found = shown(command_line, job)
    mark = found["watermark"]
    assert (mark["column"], mark["type"], mark["value"]) == ("updated_at", "timestamptz", newest(schema))
    assert (mark["run_id"], mark["destination"]) == (summary["run_id"], job)
    assert mark["source"].endswith(f"{schema.name}.events")
    assert (found["lease"], found["mark"]) == (None, None)
    assert (found["last_run"]["run_id"], found["last_run"]["status"]) == (summary["run_id"], "succeeded")
    everything = command_line("state", "show", *JSON).json
    assert found["job"] in [one["job"] for one in everything["jobs"]]
    assert everything["state_table"] == command_line.environment["MOMENTO_ETL_STATE_TABLE"]

    text = command_line("state", "show", job).out
    assert f"updated_at {newest(schema)} (timestamptz)" in text
    assert summary["run_id"] in text
    terminal = command_line.terminal("state", "show")
    assert terminal.end() == 0
    assert any(line.startswith("job ") for line in terminal.lines)
    assert all(len(line.rstrip()) <= 80 for line in terminal.lines)
    one = command_line.terminal("state", "show", job)
    assert one.end() == 0
    assert all(len(line.rstrip()) <= 80 for line in one.lines)

    forgotten = command_line("state", "reset", job, *JSON).json["forgotten"]
    assert forgotten == mark
    assert shown(command_line, job)["watermark"] is None
    refused = command_line.fails("state", "reset", job, code=2)
    assert "has no watermark" in refused.json["error"]["message"]
    assert "state show" in refused.json["error"]["hint"]
    assert run(command_line, job)["rows_loaded"] == 100
    text = command_line("state", "reset", job).out
    assert text == f"The watermark of {job} is forgotten: updated_at {newest(schema)}. The next run takes all rows.\n"


def test_state_of_nothing_and_without_a_table(command_line: CommandLine, unique: str) -> None:
    table = command_line.environment["MOMENTO_ETL_STATE_TABLE"]
    assert command_line("state", "show").out == f"Table {table} holds nothing of any job.\n"
    error = command_line.fails("state", "show", unique, code=2).json["error"]
    assert error["message"] == f"table {table} holds nothing of {unique}"
    command_line.fails("state", "reset", unique, code=2)
    (command_line.folder / "momento-etl.toml").write_text("[state]\nenabled = false\n", encoding="utf-8")
    for arguments in (("show",), ("show", "movies"), ("reset", "movies")):
        error = command_line.fails("state", *arguments, code=2).json["error"]
        assert "[state] enabled = false" in error["message"]
        assert "enabled = true" in error["hint"]


def test_incremental_without_a_state_table(command_line: CommandLine, job: str) -> None:
    configure(command_line.folder, job, "[state]", "enabled = false")
    for command in ("run", "extract"):
        error = command_line.fails(command, "--table", job, code=2).json["error"]
        assert "needs the state table" in error["message"]


def test_a_job_without_a_history_is_shown_when_it_is_named(command_line: CommandLine, stack: Stack) -> None:
    table = command_line.environment["MOMENTO_ETL_STATE_TABLE"]
    dynamodb = client(stack)
    dynamodb.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "job", "KeyType": "HASH"}, {"AttributeName": "entry", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("job", "entry")],
        BillingMode="PAY_PER_REQUEST",
    )
    entries: list[dict[str, Any]] = [
        {
            "entry": "watermark",
            "version": 3,
            "column": "id",
            "type": "int4",
            "value": "7",
            "run_id": "r",
            "set_at": NOW,
        },
        {
            "entry": "lease",
            "holder": "h",
            "host": "ada",
            "command": "momento-etl run --table old",
            "period_seconds": 30,
            "renewals": 1,
            "since": NOW,
            "expires_at": NOW + 30,
        },
    ]
    for entry in entries:
        item = {"job": "old", "format": 1, **entry}
        written = {name: {"S": it} if isinstance(it, str) else {"N": str(it)} for name, it in item.items()}
        dynamodb.put_item(TableName=table, Item=written)
    assert command_line("state", "show", *JSON).json["jobs"] == []
    found = shown(command_line, "old")
    assert (found["watermark"]["value"], found["watermark"]["source"], found["last_run"]) == ("7", "", None)
    text = command_line("state", "show", "old").out
    assert "id 7 (int4)" in text
    assert "run out" in text
    # A configured job is listed as well.
    config = command_line.folder / "momento-etl.toml"
    config.write_text("[tables.old]\n[tables.never]\n", encoding="utf-8")
    assert [one["job"] for one in command_line("state", "show", *JSON).json["jobs"]] == ["old"]
