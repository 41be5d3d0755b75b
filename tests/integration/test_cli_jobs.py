"""What a job can be: keys, columns, conditions, queries, names, and where each of these can be written."""

from __future__ import annotations

from typing import Any

import boto3
import pytest

from tests.conftest import Schema, Stack
from tests.integration import oracle
from tests.integration.command_line import CommandLine


def run(command_line: CommandLine, name: str, *arguments: str, code: int = 0) -> dict[str, Any]:
    """Run a job into a cache and a table of its own."""
    return command_line("run", "--cache", name, "--destination", name, *arguments, "--output", "json", code=code).json


def same(schema: Schema, stack: Stack, select: str, destination: str, rows: int) -> None:
    """Hold the destination against what a SELECT returns."""
    outcome = oracle.compare(schema.url, stack.dynamodb_url, select, destination)
    assert outcome == oracle.Outcome(rows, rows, 0, [])


def keys(stack: Stack, table: str) -> list[tuple[str, str]]:
    """The key attributes of a table, hash first, with their types."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    found = client.describe_table(TableName=table)["Table"]
    client.close()
    types = {it["AttributeName"]: it["AttributeType"] for it in found["AttributeDefinitions"]}
    return [
        (it["AttributeName"], types[it["AttributeName"]])
        for it in sorted(found["KeySchema"], key=lambda it: it["KeyType"])
    ]


@pytest.fixture
def orders(schema: Schema) -> None:
    schema.execute(
        "create table orders (region text, number integer, placed date, total numeric, primary key (region, number))"
    )
    schema.execute(
        "insert into orders select case n % 3 when 0 then 'north' when 1 then 'south' else 'eäst' end, n,"
        " '2026-01-01'::date + n, n * 1.25 from generate_series(1, 60) n"
    )


@pytest.mark.usefixtures("orders")
def test_keys_columns_conditions_and_limits(
    command_line: CommandLine, schema: Schema, stack: Stack, unique: str
) -> None:
    names = [f"{unique}-{letter}" for letter in "abcdef"]
    summaries = command_line.at_once(
        lambda cli: run(cli, names[0], "--table", "orders"),
        lambda cli: run(cli, names[1], "--table", "orders", "--key", "number"),
        lambda cli: run(
            cli, names[2], "--table", "orders", "--key", "placed,total", "--columns", "total,placed,region"
        ),
        lambda cli: run(cli, names[3], "--table", "orders", "--where", "total > 50 -- the larger ones"),
        lambda cli: run(cli, names[4], "--table", "orders", "--limit", "7"),
        lambda cli: run(
            cli, names[5], "--table", "o", "--query", "select number as n, region from orders where number < 9; "
        ),
        apart=True,
    )
    assert [summary["rows_loaded"] for summary in summaries] == [60, 60, 60, 20, 7, 8]
    assert [keys(stack, name) for name in names] == [
        [("region", "S"), ("number", "N")],
        [("number", "N")],
        [("placed", "S"), ("total", "N")],
        [("region", "S"), ("number", "N")],
        [("region", "S"), ("number", "N")],
        [("n", "N")],
    ]
    same(schema, stack, "select * from orders", names[0], 60)
    same(schema, stack, "select * from orders", names[1], 60)
    same(schema, stack, "select total, placed, region from orders", names[2], 60)
    same(schema, stack, "select * from orders where total > 50", names[3], 20)
    # The first rows in the key's order, which a collation decides: the database's, as it does for the index.
    same(schema, stack, "select * from orders order by region, number limit 7", names[4], 7)
    same(schema, stack, "select number as n, region from orders where number < 9", names[5], 8)
    assert [bool(summary["warnings"]) for summary in summaries] == [False] * 5 + [True]
    assert "first column, n, is the destination key" in summaries[5]["warnings"][0]


def test_names_of_every_kind(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    schema.execute(
        'create table "Order Details" ("Order ID" integer primary key, "select" text, "a.b" text, "ä\'""" text)'
    )
    schema.execute("""insert into "Order Details" values (1, 'x', 'y', 'z'), (2, null, '', 'w')""")
    schema.execute('create table "with.dot" (id integer primary key)')
    schema.execute('create table "фильмы" (id integer primary key)')
    schema.execute('insert into "with.dot" values (1); insert into "фильмы" values (1), (2)')
    whole = f'{schema.name}."Order Details"'
    command_line.at_once(
        lambda cli: run(cli, f"{unique}-1", "--table", "Order Details"),
        lambda cli: run(cli, f"{unique}-2", "--table", whole, "--columns", '"Order ID",select'),
        lambda cli: run(cli, f"{unique}-3", "--table", "with.dot"),
        lambda cli: run(cli, f"{unique}-4", "--table", "фильмы"),
        apart=True,
    )
    same(schema, stack, 'select * from "Order Details"', f"{unique}-1", 2)
    same(schema, stack, 'select "Order ID", "select" from "Order Details"', f"{unique}-2", 2)
    same(schema, stack, 'select * from "with.dot"', f"{unique}-3", 1)
    same(schema, stack, 'select * from "фильмы"', f"{unique}-4", 2)
    # With no names given, cache and destination are named after the job, and everything finds it again by that.
    summary = command_line("extract", "--table", whole, "--output", "json").json
    assert summary["job"] == f"{schema.name}.Order Details"
    assert summary["cache"] == f"{schema.name}.Order_Details"
    shown = command_line("inspect-cache", whole, "--row", "2", "--output", "json").json
    assert shown["row"]["a.b"] == {"S": ""}
    loaded = command_line("load", "--table", whole, "--output", "json").json
    assert loaded["destination"] == f"{schema.name}.Order_Details"
    same(schema, stack, 'select * from "Order Details"', loaded["destination"], 2)


def test_sources_that_are_no_plain_tables(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    schema.execute("create table empty (id integer primary key, t text)")
    schema.execute(
        "create table parts (id integer, k text, primary key (id, k)) partition by list (k);"
        " create table parts_a partition of parts for values in ('a');"
        " create table parts_b partition of parts for values in ('b');"
        " insert into parts select n, case n % 2 when 0 then 'a' else 'b' end from generate_series(1, 10) n"
    )
    schema.execute("create view seen as select id, k || '!' as k from parts where id > 4")
    schema.execute("create materialized view kept as select id, k from parts")
    names = {name: f"{unique}-{name}" for name in ("empty", "parts", "seen", "kept")}
    empty, _, seen, _ = command_line.at_once(
        *(lambda cli, name=name: run(cli, names[name], "--table", name) for name in names)
    )
    assert (empty["status"], empty["rows_extracted"], empty["destination_created"]) == ("succeeded", 0, True)
    assert keys(stack, names["empty"]) == [("id", "N")]
    shown = command_line("inspect-cache", "empty", "--cache", names["empty"], "--output", "json").json
    assert shown["current"] == empty["run_id"]
    assert shown["runs"][0]["status"] == "complete"
    again = command_line("load", "--table", "empty", "--cache", names["empty"], "--destination", names["empty"])
    assert "0 items" in again.err
    assert "first column, id, is the destination key" in seen["warnings"][0]
    for name, rows in (("empty", 0), ("parts", 10), ("seen", 6), ("kept", 10)):
        same(schema, stack, f"select * from {name}", names[name], rows)


@pytest.mark.usefixtures("orders")
def test_a_config_file_and_what_beats_it(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    config = command_line.folder / "momento-etl.toml"
    config.write_text(
        f"""
        [source]
        url = "env:WHERE_ROWS_ARE"
        [cache]
        local = "{stack.momento}"
        name = "{unique}"
        ttl = "1h"
        [destination]
        endpoint_url = "{stack.dynamodb_url}"
        region = "us-east-1"
        [tables.big]
        source = "orders"
        where = "total > 50"
        columns = ["number", "total"]
        key = ["number"]
        destination = "{unique}-file"
        [tables.asked]
        query = "select number, region from orders"
        destination = "{unique}-asked"
        """
    )
    filed = command_line.given(
        DATABASE_URL=None,
        MOMENTO_LOCAL=None,
        AWS_ENDPOINT_URL_DYNAMODB=None,
        AWS_REGION=None,
        WHERE_ROWS_ARE=schema.url,
    )
    by_file, asked, by_flag = filed.at_once(
        lambda cli: cli("run", "--table", "big", "--output", "json").json,
        lambda cli: cli("run", "--table", "asked", "--output", "json", "--config", str(config)).json,
        lambda cli: (
            cli(
                "run", "--table", "big", "--where", "total <= 50", "--destination", f"{unique}-flag", "--output", "json"
            ).json
        ),
        apart=True,
    )
    assert (by_file["cache"], by_file["destination"], by_file["job"]) == (unique, f"{unique}-file", "big")
    assert asked["rows_loaded"] == 60
    same(schema, stack, "select number, total from orders where total > 50", f"{unique}-file", 20)
    same(schema, stack, "select number, region from orders", f"{unique}-asked", 60)
    same(schema, stack, "select number, total from orders where total <= 50", f"{unique}-flag", 40)
    del by_flag

    # One cache holds both jobs, and the environment beats the file, by its own words and by those of others.
    shown = filed("inspect-cache", "asked", "--output", "json").json
    assert (shown["cache"], shown["runs"][0]["ttl_seconds"], shown["runs"][0]["job"]) == (unique, 3600, "asked")
    elsewhere = filed.given(
        MOMENTO_ETL_CACHE_NAME=f"{unique}-2", MOMENTO_ETL_CACHE_TTL="90s", MOMENTO_ETL_CONFIG=str(config)
    )
    extracted = elsewhere("extract", "--table", "big", "--output", "json").json
    assert extracted["cache"] == f"{unique}-2"
    shown = elsewhere("inspect-cache", "big", "--output", "json").json
    assert shown["runs"][0]["ttl_seconds"] == 90
    assert 0 < shown["runs"][0]["seconds_left"] <= 90
    beaten = filed.given(AWS_REGION="eu-west-1")("create-table", "big")
    assert "AWS_REGION overrides" in beaten.err


@pytest.mark.usefixtures("orders")
def test_create_table(command_line: CommandLine, stack: Stack, unique: str) -> None:
    (command_line.folder / "momento-etl.toml").write_text(
        '[destination]\ntags = { team = "data" }\npoint_in_time_recovery = true\nttl_attribute = "gone_at"\n'
        "deletion_protection = true\n"
    )
    made = command_line("create-table", "orders", "--destination", unique, "--output", "json").json
    assert (made["status"], made["created"], made["destination"]) == ("succeeded", True, unique)
    assert made["key"] == [{"name": "region", "type": "S"}, {"name": "number", "type": "N"}]
    again = command_line("create-table", "orders", "--destination", unique)
    assert again.out == f"Table {unique} is there already, with the same key: hash region (S), range number (N)\n"
    assert again.err == ""
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    table = client.describe_table(TableName=unique)["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["DeletionProtectionEnabled"]
    assert client.list_tags_of_resource(ResourceArn=table["TableArn"])["Tags"] == [{"Key": "team", "Value": "data"}]
    backups = client.describe_continuous_backups(TableName=unique)["ContinuousBackupsDescription"]
    assert backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    expiry = client.describe_time_to_live(TableName=unique)["TimeToLiveDescription"]
    assert (expiry["TimeToLiveStatus"], expiry["AttributeName"]) == ("ENABLED", "gone_at")
    client.update_table(TableName=unique, DeletionProtectionEnabled=False)
    client.close()
    differs = command_line.fails("create-table", "orders", "--destination", unique, "--key", "number", code=2)
    assert "hash region (S), range number (N)" in differs.json["error"]["message"]
    assert "hash number (N)" in differs.json["error"]["message"]
