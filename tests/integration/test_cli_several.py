"""Several jobs in one command: each with its summary, one object in all, and the exit code of the worst."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

import boto3
import pytest
from rich.cells import cell_len

from tests.conftest import Schema, Stack
from tests.integration import oracle
from tests.integration.command_line import SUMMARY_FIELDS, CommandLine, Result
from tests.integration.responder import Responder
from tests.integration.source_helpers import role


@pytest.fixture
def shop(schema: Schema, command_line: CommandLine, unique: str) -> dict[str, str]:
    """Tables with a job each, and where these write: tables of this test's own."""
    schema.execute(
        "create table good (id int primary key, v text); insert into good select n, md5(n::text) from"
        " generate_series(1, 40) n;"
        "create table odd (id int primary key, v numeric); insert into odd select n, case n when 3 then 'NaN'::numeric"
        " else n end from generate_series(1, 10) n;"
        "create table wide (a int, b int, c int, primary key (a, b, c)); insert into wide values (1, 2, 3);"
        "create table last (id int primary key); insert into last values (1), (2)"
    )
    tables = {name: f"{unique}-{name}" for name in ("good", "odd", "wide", "last")}
    sections = "".join(f'[tables.{name}]\ndestination = "{table}"\n' for name, table in tables.items())
    (command_line.folder / "momento-etl.toml").write_text(f'[cache]\nname = "{unique}"\n{sections}')
    return tables


def count(stack: Stack, table: str) -> int | None:
    """The items of a table; None where there is none."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    try:
        found: int = client.scan(TableName=table, Select="COUNT")["Count"]
    except client.exceptions.ResourceNotFoundException:
        return None
    finally:
        client.close()
    return found


def statuses(summary: dict[str, Any]) -> dict[str, str]:
    return {job["job"]: job["status"] for job in summary["jobs"]}


def several(command_line: CommandLine, *arguments: str, code: int) -> dict[str, Any]:
    """Run jobs, and hold their object against what each of them says, and what was promised of each."""
    summary = command_line("run", *arguments, "--output", "json", code=code).json
    for job in summary["jobs"]:
        assert job.keys() >= SUMMARY_FIELDS
    for field in ("extracted", "loaded", "rejected", "dropped"):
        assert summary[f"rows_{field}"] == sum(job[f"rows_{field}"] for job in summary["jobs"])
    assert (summary["job"], summary["run_id"]) == (None, None)
    return summary


def test_named_jobs(command_line: CommandLine, shop: dict[str, str], schema: Schema, stack: Stack) -> None:
    summary = several(command_line, "--table", "last", "--table", "good", code=0)
    assert statuses(summary) == {"last": "succeeded", "good": "succeeded"}
    assert (summary["status"], summary["error"], summary["rows_loaded"]) == ("succeeded", None, 42)
    for name in ("last", "good"):
        outcome = oracle.compare(schema.url, stack.dynamodb_url, f"table {name}", shop[name])
        assert (outcome.differences, outcome.rejected) == ([], 0)
    # One job of each is found again by itself.
    assert command_line("load", "--table", "good", "--output", "json").json["rows_loaded"] == 40


def test_one_that_fails_keeps_no_other_from_running(
    command_line: CommandLine, shop: dict[str, str], stack: Stack
) -> None:
    result = command_line.fails("run", "--all", code=2)
    summary = result.json
    assert statuses(summary) == {
        "good": "succeeded",
        "odd": "rejected_rows",
        "wide": "failed",
        "last": "succeeded",
    }
    assert [count(stack, shop[name]) for name in ("good", "odd", "wide", "last")] == [40, 9, None, 2]
    assert summary["error"]["message"] == "1 of 4 jobs failed: wide"
    assert "[tables.wide]" in summary["error"]["hint"]
    assert "[tables.wide]" in summary["jobs"][2]["error"]["hint"]
    assert summary["cache"] == command_line.folder.joinpath("momento-etl.toml").read_text().split('"')[1]
    assert summary["destination"] is None
    # The rejected rows of each go to a file of its own.
    (file,) = command_line.folder.glob("*.rejects.jsonl")
    assert file.name.startswith(f"odd-{summary['jobs'][1]['run_id']}")


@pytest.mark.usefixtures("shop")
def test_the_exit_code_is_the_worst(command_line: CommandLine) -> None:
    assert several(command_line, "-t", "good", "-t", "odd", code=3)["status"] == "rejected_rows"
    worse = several(command_line, "-t", "wide", "-t", "odd", "-t", "good", "--max-rejects", "0", code=1)
    assert statuses(worse) == {"wide": "failed", "odd": "failed", "good": "succeeded"}
    assert "1 of 10 rows were rejected" in worse["jobs"][1]["error"]["message"]
    assert worse["error"]["message"] == "2 of 3 jobs failed: wide, odd"


@pytest.mark.usefixtures("shop")
def test_flags_are_for_each_job(command_line: CommandLine, unique: str) -> None:
    other = f"{unique}-other"
    arguments = ("--table", "good", "--table", "last", "--limit", "1", "--cache", other, "--ttl", "90s")
    summary = several(command_line, *arguments, code=0)
    assert [(job["rows_loaded"], job["cache"]) for job in summary["jobs"]] == [(1, other), (1, other)]
    assert summary["cache"] == other
    shown = command_line("inspect-cache", "good", "--cache", other, "--output", "json").json
    assert shown["runs"][0]["ttl_seconds"] == 90


def test_what_is_wrong_is_found_before_anything_moves(
    command_line: CommandLine, shop: dict[str, str], schema: Schema, stack: Stack
) -> None:
    config = command_line.folder / "momento-etl.toml"
    good = config.read_text()
    config.write_text(f'{good}transform = "no_such_module:change"\n')  # of the last one
    failed = command_line.fails("run", "--all", code=2)
    assert "no_such_module" in failed.json["error"]["message"]
    assert (failed.json["jobs"], failed.json["not_begun"]) == ([], [])
    config.write_text(good)
    assert [count(stack, table) for table in shop.values()] == [None] * 4
    refusals = {
        ("--all", "--table", "good"): "--all and --table exclude each other",
        ("--schema", schema.name): "--schema, without --all",
        ("--table", "good", "--table", "good"): "is asked for more than once",
        ("--all", "--where", "id = 1"): "--where is for one job",
        ("--all", "--full-refresh"): "none of the jobs is an incremental one",
        ("--all", "--schema", f"{schema.name}x"): "there is no schema",
        ("--all", "--limit", "0"): "jobs cannot run as they are",
    }
    results = command_line.at_once(
        *(lambda cli, arguments=arguments: cli.fails("run", *arguments, code=2) for arguments in refusals)
    )
    for result, message in zip(results, refusals.values(), strict=True):
        assert message in result.json["error"]["message"], result
        assert result.json["jobs"] == []
    assert [count(stack, table) for table in shop.values()] == [None] * 4


def test_jobs_that_would_share_a_table_unasked(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str
) -> None:
    schema.execute(
        "create table people (id int primary key); insert into people values (1), (2);"
        "create table firms (id int primary key); insert into firms values (1), (2), (3)"
    )
    config = command_line.folder / "momento-etl.toml"
    section = '[tables.{name}]\nkey = ["pk"]\nattributes = {{ pk = "{name}#{{id}}" }}\n'
    firms, people = section.format(name="firms"), section.format(name="people")
    config.write_text(f'{firms}destination = "people"\n{people}')
    failed = command_line.fails("run", "--all", code=2)
    assert failed.json["error"]["message"] == "the jobs firms, people would all write to the table people"
    # A single-table design is one where both say so.
    config.write_text(
        f'[cache]\nname = "{unique}"\n{firms}destination = "{unique}"\n{people}destination = "{unique}"\n'
    )
    summary = several(command_line, "--all", code=0)
    assert summary["destination"] == unique
    assert count(stack, unique) == 5


@pytest.mark.usefixtures("shop")
def test_events_and_the_object_that_comes_last(command_line: CommandLine) -> None:
    result = command_line("run", "--all", "--output", "jsonl", code=2)
    *events, last = [json.loads(line) for line in result.out.splitlines()]
    ended = [event for event in events if event["event"] == "job"]
    assert [event["job"] for event in ended] == ["good", "odd", "wide", "last"]
    assert [{**event, "event": None} for event in ended] == [{**job, "event": None} for job in last["jobs"]]
    assert "event" not in last
    assert all("job" in event for event in events)


@pytest.mark.usefixtures("shop")
def test_what_people_see(command_line: CommandLine) -> None:
    whole = command_line("run", "--table", "good", "--table", "wide", "--table", "odd", code=2)
    assert whole.out == ""
    assert re.search(r"^run good: done in .*\nread +40 rows from", whole.err, re.MULTILINE), whole
    assert re.search(r"^\[2/3\] wide: failed in .*: the primary key has 3 columns", whole.err, re.MULTILINE), whole
    assert re.search(r"^run odd: done, with rejected rows", whole.err, re.MULTILINE), whole
    assert re.search(r"^run of 3 jobs: failed in [\d.]+ s, 49 items\njob +status ", whole.err, re.MULTILINE), whole
    # What failed comes last, with what to do.
    end = whole.err[whole.err.index("run of 3 jobs") :].splitlines()
    assert end[-1] == "error: 1 of 3 jobs failed: wide"
    assert any(line.startswith("error: wide: the primary key has 3 columns") for line in end)
    assert any(line.startswith("hint: Put this into the config") for line in end)

    compact = command_line("run", "--all", code=2)
    assert "metered operations" not in compact.err
    assert [line[:10] for line in compact.err.splitlines() if line.startswith("[")] == [
        "[1/4] good",
        "[2/4] odd:",
        "[3/4] wide",
        "[4/4] last",
    ]
    assert not re.search(r" $", compact.err, re.MULTILINE)
    quiet = command_line("run", "--all", "--quiet", code=2)
    assert (quiet.out, quiet.err.splitlines()[0][:12]) == ("", "error: wide:")


def test_sixty_tables_on_a_screen(command_line: CommandLine, schema: Schema) -> None:
    for number in range(60):
        schema.execute(f"create table a_table_{number:02d} (id int primary key)")
    schema.execute("create table b (one int, two int, three int, primary key (one, two, three))")
    with Responder() as responder:
        terminal = command_line.given(
            AWS_ENDPOINT_URL_DYNAMODB=responder.url, MOMENTO_ETL_STATE_ENABLED="false"
        ).terminal("run", "--all", "--schema", schema.name)
        assert terminal.end() == 2, terminal.text
    text = "\n".join(terminal.lines)
    for line in terminal.lines:
        assert cell_len(line) <= terminal.width, f"{line!r} in\n{text}"
    assert len(re.findall(r"^\[\d+/61\] \S+: (?:done|failed) in ", text, re.MULTILINE)) == 61
    assert len(re.findall(r"^\S+a_table_\d\d +done +0 +0 +[\d.]+ s$", text, re.MULTILINE)) == 60, text
    # The config that one of them needs is on the screen when all is over, in lines that are whole when they are copied.
    assert re.search(r"^ +attributes = \{ sk = \"\{two\}#\{three\}\" \}$", text, re.MULTILINE), text
    assert terminal.text.rindex("\x1b[?25h") > terminal.text.rindex("\x1b[?25l")


def test_a_schemas_tables_and_the_jobs_that_read_them(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str
) -> None:
    schema.execute(
        "create table orders (id int primary key, total int); insert into orders select n, n from"
        " generate_series(1, 30) n;"
        'create table "Order Details" (id int primary key); insert into "Order Details" values (1), (2);'
        "create view seen as select 1 as id"
    )
    (command_line.folder / "momento-etl.toml").write_text(
        f'[tables.orders]\nwhere = "total > 10"\ndestination = "{unique}"\n'
        '[tables.elsewhere]\nsource = "public.movies"\n'
    )
    summary = several(command_line, "--all", "--schema", schema.name, code=0)
    assert [(job["job"], job["cache"], job["destination"], job["rows_loaded"]) for job in summary["jobs"]] == [
        (f"{schema.name}.Order Details", schema.name, f"{schema.name}.Order_Details", 2),
        ("orders", schema.name, unique, 20),
    ]
    assert summary["cache"] == schema.name
    outcome = oracle.compare(schema.url, stack.dynamodb_url, "select * from orders where total > 10", unique)
    assert outcome == oracle.Outcome(20, 20, 0, [])
    # What to look at next is found where it says.
    shown = command_line("run", "--all", "--schema", schema.name)
    for command in re.findall(r"^next +momento-etl (.*)$", shown.err, re.MULTILINE):
        name, cache = re.fullmatch(r"inspect-cache '?([^']*?)'? --cache (\S+)", command).groups()  # type: ignore[union-attr]
        assert "current" in command_line("inspect-cache", name, "--cache", cache).out


def test_a_table_that_may_not_be_read(command_line: CommandLine, schema: Schema) -> None:
    schema.execute(
        "create table open (id int primary key); create table closed (id int primary key);"
        " create table next (id int primary key)"
    )
    with role(schema.url) as (name, url):
        schema.execute(f"grant usage on schema {schema.name} to {name}; grant select on open, next to {name}")
        limited = command_line.given(DATABASE_URL=url)
        summary = several(limited, "--all", "--schema", schema.name, code=1)
    assert [job["status"] for job in summary["jobs"]] == ["failed", "succeeded", "succeeded"]
    assert "permission denied for table closed" in summary["jobs"][0]["error"]["message"]


@pytest.mark.usefixtures("shop")
def test_what_all_jobs_would_meet_is_met_once(command_line: CommandLine, schema: Schema) -> None:
    wrong = re.sub(r"//([^:/@]+):[^@]+@", r"//\1:not-this-one@", schema.url)
    refused = command_line.given(DATABASE_URL=wrong).fails("run", "--all", code=1)
    assert statuses(refused.json) == {"good": "failed"}
    assert refused.json["not_begun"] == ["odd", "wide", "last"]
    assert refused.err.count("refused the login") == 1
    assert "not begun, since they would meet the same: odd, wide, last" in refused.json["error"]["message"]
    halved = command_line.given(AWS_SECRET_ACCESS_KEY=None, AWS_SESSION_TOKEN=None).fails("run", "--all", code=2)
    assert statuses(halved.json) == {"good": "failed"}
    assert "half of the AWS credentials" in halved.json["error"]["hint"] + halved.json["jobs"][0]["error"]["message"]
    # A malformed address is found before there is any job.
    malformed = command_line.given(DATABASE_URL="postgresql://u:p@ss@h/d").fails("run", "--all", code=2)
    assert malformed.json["jobs"] == []


def interrupted(command_line: CommandLine, *arguments: str) -> Result:
    """Interrupt a run of jobs once rows of the second one are under way, which never arrive."""
    with Responder(BatchWriteItem=2) as responder:
        process = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url, MOMENTO_ETL_STATE_ENABLED="false").start(
            "run", *arguments
        )
        responder.wait_for("BatchWriteItem", 3)
        process.send_signal(signal.SIGTERM)
        return command_line.finish(process, "run", *arguments)


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("output", ["json", "text"])
def test_a_signal_ends_all_of_it(command_line: CommandLine, output: str) -> None:
    # Forty rows are two requests; the third is another job's.
    result = interrupted(command_line, "--all", "--output", output)
    assert result.code == 143, str(result)
    for noise in ("Traceback", "never retrieved", "itself failed", "Unclosed"):
        assert noise not in result.err, str(result)
    if output == "json":
        summary = result.json
        assert statuses(summary) == {"good": "succeeded", "odd": "interrupted"}
        assert (summary["status"], summary["not_begun"]) == ("interrupted", ["wide", "last"])
        assert summary["error"]["message"] == "interrupted by SIGTERM; not begun: wide, last"
        assert summary["jobs"][1]["error"]["message"] == "interrupted by SIGTERM"
    else:
        assert re.search(r"^wide +not begun$", result.err, re.MULTILINE), result
        assert "interrupted by SIGTERM; not begun: wide, last. What was written so far stays" in result.err


@pytest.mark.usefixtures("shop")
def test_a_signal_before_there_is_any_job(command_line: CommandLine) -> None:
    with Responder(DescribeTable=0) as responder:
        process = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url).start("run", "--all", "--output", "json")
        responder.wait_for("DescribeTable", 1)
        process.send_signal(signal.SIGINT)
        responder.release()
        result = command_line.finish(process, "run", "--all")
    assert result.code == 130, str(result)
    assert [job["status"] for job in result.json["jobs"]] == ["interrupted"]
    assert result.json["not_begun"] == ["odd", "wide", "last"]


def test_what_jobs_leave_stays_under_one_bound(command_line: CommandLine, schema: Schema, unique: str) -> None:
    names = ["one", "two", "three", "four"]
    for name in names:
        schema.execute(
            f"create table {name} (id int primary key, v text); insert into {name}"
            f" select n, string_agg(md5((n * 100 + m)::text), '') from generate_series(1, 800) n,"
            f" generate_series(1, 40) m group by n"
        )
    # Each stores some 600 kB, which is more than half of what all may store together.
    (command_line.folder / "momento-etl.toml").write_text(f'[cache]\nname = "{unique}"\nmax_cached_bytes = "1MB"\n')
    with Responder() as responder:
        bound = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url, MOMENTO_ETL_STATE_ENABLED="false")
        arguments = [word for name in names for word in ("--table", name)]
        summary = several(bound, *arguments, code=0)
        assert all(job["bytes_cached"] > 500_000 for job in summary["jobs"])
        assert responder.items == 3200
        checks = bound.at_once(
            *(lambda cli, name=name: cli("inspect-cache", name, "--output", "json") for name in names)
        )
        kept = [check.json["runs"][0]["chunks_freed"] == 0 for check in checks]
        assert kept == [False, False, False, True]
        # Whoever wants to load one of the others hears why it is gone.
        gone = bound.fails("load", "--table", "one", code=1)
    assert "was loaded already" in gone.json["error"]["message"]
