"""``plan`` as its users have it: what it says before a run is what the run says after, and it leaves no trace."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import boto3
import pytest

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine

TOLERANCE = 0.05
AWS = ("AWS_REGION", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def plan(command_line: CommandLine, *arguments: str, code: int = 0) -> dict[str, Any]:
    return command_line("plan", *arguments, "--output", "json", code=code).json


def run(command_line: CommandLine, *arguments: str, code: int = 0) -> dict[str, Any]:
    return command_line("run", *arguments, "--output", "json", code=code).json


def agrees(planned: dict[str, Any], ran: dict[str, Any]) -> None:
    """Hold a plan against the run that followed it."""
    found = planned["plan"]
    assert found["exact"]
    assert found["rows"] == {
        "extracted": ran["rows_extracted"],
        "loaded": ran["rows_loaded"],
        "rejected": ran["rows_rejected"],
        "dropped": ran["rows_dropped"],
    }
    assert sum(rule["rows"] for rule in found["rejects"]) == ran["rows_rejected"]
    assert {rule["rule"] for rule in found["rejects"]} >= {reject["rule"] for reject in ran["rejects"]}
    cache = found["cache"]
    assert (cache["chunks"], cache["bytes_encoded"], cache["bytes_stored"]) == (
        ran["chunks"],
        ran["bytes_encoded"],
        ran["bytes_cached"],
    )
    assert cache["operations"] == pytest.approx(ran["momento_operations"], rel=TOLERANCE)
    assert found["destination"]["exists"] != ran["destination_created"]
    # What it found is not what it did.
    assert (planned["rows_loaded"], planned["chunks"], planned["bytes_cached"], planned["run_id"]) == (0, 0, 0, None)


def tables_of(stack: Stack) -> set[str]:
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    names = {name for page in client.get_paginator("list_tables").paginate() for name in page["TableNames"]}
    client.close()
    return names


@pytest.fixture
def measures(schema: Schema) -> None:
    """Some rows that DynamoDB cannot hold, by three rules, in more than one chunk's worth of rows."""
    schema.execute(
        "create table measures as select n as id, case when n % 50 = 0 then 'NaN' else n / 7.0 end::float8 as v,"
        " case when n % 2001 = 0 then '1e200'::numeric else n end as w, md5(n::text) || md5((n * 7)::text) as t,"
        " case when n = 4000 then repeat('x', 450000) end as x from generate_series(1, 12000) n;"
        " alter table measures add primary key (id); analyze measures"
    )


@pytest.mark.usefixtures("measures")
def test_a_plan_and_the_run_after_it_agree(command_line: CommandLine, unique: str) -> None:
    to = ("--cache", unique, "--destination", unique)
    command_line.at_once(
        lambda cli: _twice(cli, to),
        lambda cli: _once(cli, unique, "rows", "--limit", "300"),
        lambda cli: _once(cli, unique, "part", "--where", "id % 3 = 0", "--columns", "id,v,t"),
        lambda cli: _once(cli, unique, "query", "--query", "select id, t from measures where id < 500 order by id"),
        lambda cli: _once(cli, unique, "string", "--on-unrepresentable", "string"),
        apart=True,
    )


def _twice(command_line: CommandLine, to: tuple[str, ...]) -> None:
    # Each run finds what those before it left.
    for _ in range(2):
        planned = plan(command_line, "--table", "measures", "--exact", *to, code=3)
        assert planned["status"] == "rejected_rows"
        assert planned["rows_rejected"] == 245
        agrees(planned, run(command_line, "--table", "measures", *to, code=3))


def _once(command_line: CommandLine, unique: str, what: str, *arguments: str) -> None:
    name = f"{unique}-{what}"
    wanted = ("--table", "measures", "--cache", name, "--destination", name, *arguments)
    if what == "rows":
        command_line = command_line.given(MOMENTO_ETL_CACHE_LAYOUT="rows")
    code = 0 if what == "query" else 3
    agrees(plan(command_line, *wanted, "--exact", code=code), run(command_line, *wanted, code=code))


@pytest.mark.usefixtures("measures")
def test_it_leaves_no_trace(command_line: CommandLine, stack: Stack, unique: str) -> None:
    before = tables_of(stack)
    state = f"{unique}-state"
    cli = command_line.given(MOMENTO_ETL_STATE_TABLE=state)
    for mode, exact in (("upsert", ()), ("replace", ("--exact",))):
        wanted = ("--table", "measures", "--cache", unique, "--destination", unique, "--mode", mode, *exact)
        planned = plan(cli, *wanted, code=3 if exact else 0)
        assert planned["plan"]["destination"]["exists"] is False
    assert tables_of(stack) == before
    assert (
        "there is no cache"
        in cli.fails("inspect-cache", "measures", "--cache", unique, code=1).json["error"]["message"]
    )
    assert list(cli.folder.iterdir()) == []


@pytest.mark.usefixtures("measures")
def test_without_exact_it_reads_a_sample(command_line: CommandLine, unique: str) -> None:
    # Without the one row that is large: a sample has it or has it not.
    wanted = ("--table", "measures", "--columns", "id,v,w,t", "--cache", unique, "--destination", unique)
    sampled, whole = plan(command_line, *wanted)["plan"], plan(command_line, *wanted, "--exact", code=3)["plan"]
    assert (sampled["exact"], whole["exact"]) == (False, True)
    assert 1000 < sampled["rows_read"] < 4000
    assert sampled["rows"]["extracted"] == pytest.approx(12_000, rel=0.1)
    assert sampled["rows"]["rejected"] == pytest.approx(245, rel=0.6)
    for part, name in (("cache", "bytes_encoded"), ("cache", "operations"), ("destination", "write_units")):
        assert sampled[part][name] == pytest.approx(whole[part][name], rel=0.4), name


def test_views_partitions_and_what_nobody_analysed(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute(
        "create table parts (id integer, k text, primary key (id, k)) partition by list (k);"
        " create table parts_a partition of parts for values in ('a');"
        " create table parts_b partition of parts for values in ('b');"
        " insert into parts select n, case n % 2 when 0 then 'a' else 'b' end from generate_series(1, 60000) n;"
        " create view seen as select id, k from parts where id > 4;"
        " create materialized view kept as select id, k from parts;"
        " create table few (id integer primary key); insert into few select generate_series(1, 7);"
        " create table none (id integer primary key)"
    )

    def planned(cli: CommandLine, name: str, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = plan(
            cli, "--table", name, "--cache", unique, "--destination", f"{unique}-{name}", *arguments
        )["plan"]
        return found

    parts, seen, kept, few, none = command_line.at_once(
        lambda cli: planned(cli, "parts"),
        lambda cli: planned(cli, "seen", "--key", "id"),
        lambda cli: planned(cli, "kept", "--key", "id"),
        lambda cli: planned(cli, "few"),
        lambda cli: planned(cli, "none"),
    )
    for found in (parts, seen, kept):
        assert not found["exact"]
        assert found["rows"]["extracted"] >= found["rows_read"] >= 500
        assert 3000 < found["rows"]["extracted"] < 300_000
    assert parts["duplicates_checked"]
    assert not seen["duplicates_checked"]
    assert (few["exact"], few["rows"]["extracted"], few["cache"]["chunks"]) == (True, 7, 1)
    assert (none["exact"], none["rows"]["extracted"], none["cache"]["chunks"]) == (True, 0, 0)
    exact = planned(command_line, "seen", "--key", "id", "--exact")
    assert (exact["exact"], exact["rows"]["extracted"], exact["duplicates_checked"]) == (True, 59_996, True)


@pytest.mark.usefixtures("measures")
def test_half_a_configuration_is_enough(command_line: CommandLine, unique: str) -> None:
    everything = command_line.given()
    source_only = command_line.given(MOMENTO_LOCAL=None, **dict.fromkeys(AWS))
    wanted = ("--table", "measures", "--cache", unique, "--destination", unique, "--exact")
    alone = plan(source_only, *wanted, code=3)
    with_all = plan(everything, *wanted, code=3)
    assert alone["plan"]["destination"].pop("exists") is None
    assert with_all["plan"]["destination"].pop("exists") is False
    assert alone["plan"] == with_all["plan"]
    assert (alone["momento_calls"], with_all["momento_calls"]) == (0, 1)
    text = source_only("plan", *wanted, code=3).out
    assert "not looked at: no destination is configured" in text
    # What has to be known of earlier runs is in the state table.
    source_only.fails("plan", *wanted, "--mode", "replace", code=2)
    # Half of one half stays an error.
    command_line.given(MOMENTO_LOCAL=None, MOMENTO_ENDPOINT="cell-1.example.org").fails("plan", *wanted, code=2)
    command_line.given(DATABASE_URL=None).fails("plan", *wanted, code=2)


@pytest.mark.usefixtures("measures")
def test_what_would_fail_fails_like_the_run(command_line: CommandLine, unique: str) -> None:
    to = ("--cache", unique, "--destination", unique)
    run(command_line, "--table", "measures", "--where", "id < 3", *to)
    other_key = command_line.fails("plan", "--table", "measures", "--key", "t", *to, code=2)
    assert "another key than this job" in other_key.json["error"]["message"]
    assert other_key.json["plan"] is None
    command_line.fails("plan", "--table", "measurs", *to, code=2)
    command_line.fails("plan", "--table", "measures", "--where", "nonsense", *to, code=2)
    twice = ("--table", "twice", "--query", "select 1 as id, t from measures where id < 3")
    assert "same destination key" in command_line.fails("plan", *twice, code=1).json["error"]["message"]
    bound = ("--table", "measures", "--max-rejects", "2%", "--exact", *to)
    failed = command_line.fails("plan", *bound, code=1).json
    assert "245 of 12,000 rows would be rejected, and at most 2% may be" in failed["error"]["message"]
    assert failed["plan"]["rows"]["rejected"] == 245
    assert failed["plan"]["would_fail"]["message"] in failed["error"]["message"]
    assert run(command_line, *bound[:4], *to, code=1)["rows_rejected"] == 245
    sampled = plan(command_line, "--table", "measures", "--max-rejects", "1%", *to)
    assert any("would probably fail" in warning for warning in sampled["warnings"])


@pytest.mark.usefixtures("measures")
def test_limits_and_prices(command_line: CommandLine, unique: str) -> None:
    wanted = ("--table", "measures", "--cache", unique, "--destination", unique, "--exact")
    usual, fast = (
        plan(command_line, *wanted, code=3)["plan"],
        plan(
            command_line.given(MOMENTO_ETL_PRICES_DYNAMODB_WRITE="100"),
            *(*wanted, "--momento-limit", "100000", "--write-limit", "1000"),
            code=3,
        )["plan"],
    )
    operations, units = usual["cache"]["operations"], usual["destination"]["write_units"]
    assert (usual["time"]["bounded_by"], usual["time"]["seconds"]) == (
        "momento",
        pytest.approx(operations / 100, abs=0.1),
    )
    assert (fast["time"]["bounded_by"], fast["time"]["seconds"]) == ("dynamodb", pytest.approx(units / 1000, abs=0.1))
    assert fast["cost"]["dynamodb_write"] == pytest.approx(units / 10_000)
    assert fast["cost"]["prices"]["dynamodb_write"] == "MOMENTO_ETL_PRICES_DYNAMODB_WRITE"
    command_line.fails("plan", *wanted, "--momento-limit", "0", code=2)
    command_line.fails("plan", *wanted, "--write-limit", "many", code=2)


@pytest.mark.usefixtures("measures")
def test_what_the_functions_would_do(command_line: CommandLine, unique: str) -> None:
    wanted = ("--table", "measures", "--cache", unique, "--destination", unique, "--exact")
    assert plan(command_line, *wanted, code=3)["plan"]["remote"] is None
    found = plan(command_line, *wanted, "--remote", "--ranges", "6", "--concurrency", "4", code=3)["plan"]
    remote = found["remote"]
    assert (remote["ranges"], remote["blocks"], remote["concurrency"]) == (6, 6, 4)
    assert remote["rows"] == found["rows"]["extracted"]
    assert remote["write_units"] == found["destination"]["write_units"]
    assert remote["lambda"]["calls"] == 2 + 6 * remote["calls_per_block"]
    parts = [name for name in remote["cost"] if name not in ("currency", "total", "prices")]
    assert remote["cost"]["total"] == pytest.approx(sum(remote["cost"][name] for name in parts), abs=1e-5)
    assert remote["cost"]["prices"].keys() == set(parts)
    shown = command_line("plan", *wanted, "--remote", "--rows", "1000000000", "--write-limit", "100").out
    assert "an estimate for other rows than there are" in shown
    assert re.search(r"^ranges +20,000 ", shown, re.MULTILINE), shown
    assert re.search(r"^time +113.4 days", shown, re.MULTILINE), shown
    failed = command_line.fails("plan", *wanted, "--concurrency", "4", code=2)
    assert "--concurrency without --remote" in str(failed)
    command_line.fails("plan", *wanted, "--remote", "--concurrency", "0", code=2)


def test_incremental_runs_and_drift(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute(
        "create table events (id integer primary key, at integer);"
        " insert into events select n, n from generate_series(1, 3000) n"
    )
    config = f'[cache]\nname = "{unique}"\n[tables.{unique}]\nsource = "events"\nincremental_key = "at"\noverlap = 10\n'
    (command_line.folder / "momento-etl.toml").write_text(config, encoding="utf-8")
    first = plan(command_line, "--table", unique, "--exact")
    assert (first["watermark"]["since"], first["watermark"]["value"], first["watermark"]["moved"]) == (
        None,
        "3000",
        False,
    )
    agrees(first, run(command_line, "--table", unique))
    schema.execute(
        "insert into events select n, n from generate_series(3001, 3100) n; alter table events add note text"
    )
    second = plan(command_line, "--table", unique, "--exact")
    assert second["watermark"]["since"] == "3000"
    assert second["schema_changes"] == [{"column": "note", "before": None, "now": "text"}]
    assert second["plan"]["rows"]["extracted"] == 111
    text = command_line("plan", "--table", unique)
    assert re.search(r"^taken +at from 3000 less 10$", text.out, re.MULTILINE), str(text)
    assert re.search(r"^watermark +then at 3100$", text.out, re.MULTILINE), str(text)
    assert "note (text) was added" in text.err
    agrees(second, run(command_line, "--table", unique))
    command_line("plan", "--table", unique, "--schema-contract", "freeze")
    schema.execute("alter table events drop column note")
    command_line.fails("plan", "--table", unique, "--schema-contract", "freeze", code=1)


def test_several_jobs_and_what_they_add_up_to(command_line: CommandLine, schema: Schema, unique: str) -> None:
    schema.execute(
        "create table good (id integer primary key); insert into good select generate_series(1, 100);"
        " create table bad (id integer primary key, v float8); insert into bad values (1, 'NaN'), (2, 2)"
    )
    tables = ("--table", "good", "--table", "bad", "--cache", unique)
    answer = plan(command_line, *tables, code=3)
    assert [job["job"] for job in answer["jobs"]] == ["good", "bad"]
    assert [job["plan"]["rows"]["loaded"] for job in answer["jobs"]] == [100, 1]
    assert answer["plan"]["rows"] == {"extracted": 102, "loaded": 101, "rejected": 1, "dropped": 0}
    assert answer["plan"]["cache"]["operations"] == sum(job["plan"]["cache"]["operations"] for job in answer["jobs"])
    with_a_wrong_one = command_line("plan", *tables, "--table", "nope", code=2)
    assert re.search(r"^all +102 +1 ", with_a_wrong_one.out, re.MULTILINE), str(with_a_wrong_one)
    assert "nope" in with_a_wrong_one.err
    lines = command_line("plan", *tables, "--output", "jsonl", code=3).out.splitlines()
    assert [json.loads(line).get("event") for line in lines if '"event": "progress"' not in line] == [
        "job",
        "job",
        None,
    ]
    command_line.fails("plan", *tables, "--where", "id > 1", code=2)


@pytest.mark.usefixtures("measures")
def test_on_a_terminal_it_fits_and_can_be_interrupted(command_line: CommandLine, schema: Schema, unique: str) -> None:
    to = ("--cache", unique, "--destination", unique)
    at_work = command_line.terminal("plan", "--table", "measures", "--columns", "id,t", *to, "--exact", width=80)
    assert at_work.end() == 0
    assert all(len(line) <= 80 for line in at_work.lines)
    assert any(line.startswith("plan measures: exact") for line in at_work.lines)
    # A source that takes ten minutes over its first row.
    schema.execute(
        "create function slow(n integer) returns integer language sql volatile as 'select pg_sleep(600); select n'"
    )
    query = ("--query", "select id, slow(id) as s from measures", "--exact")
    waiting = command_line.terminal("plan", "--table", "measures", *query, *to, width=80)
    waiting.wait_for("read ")
    waiting.press(b"\x03")
    assert waiting.end() == 128 + signal.SIGINT
    assert "Traceback" not in waiting.text
