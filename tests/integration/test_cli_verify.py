"""``verify`` as its users have it: what it finds in a real table, what it says of it, and what it ends with."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine
from tests.integration.keeper import Keeper
from tests.integration.responder import Responder

MARK = "_momento_etl"
ROWS = 700


@pytest.fixture
def dynamodb(stack: Stack) -> Iterator[DynamoDBClient]:
    client = boto3.client(
        "dynamodb",
        endpoint_url=stack.dynamodb_url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    yield client
    client.close()


@pytest.fixture
def films(schema: Schema) -> None:
    """Numbers with zeros, binary, JSON, arrays, NULLs, and texts with whatever a text can have."""
    schema.execute(
        "create table films as select n as id, 'Film ' || n || E' \\u00e9\\t\"' as title,"
        " (n / 4.0)::numeric(12, 4) as w, decode(md5(n::text), 'hex') as digest,"
        " case when n % 7 = 0 then null else n % 2 = 0 end as seen,"
        " jsonb_build_object('cast', jsonb_build_array(n, jsonb_build_object('name', 'A' || n))) as info,"
        " array['x', n::text] as tags, now() + n * interval '1 hour' as at"
        f" from generate_series(1, {ROWS}) n; alter table films add primary key (id); analyze films"
    )


def to(name: str) -> tuple[str, ...]:
    return ("--table", "films", "--cache", name, "--destination", name)


def verified(command_line: CommandLine, *more: str, arguments: Sequence[str] = (), code: int = 0) -> dict[str, Any]:
    result = command_line("verify", *arguments, *more, "--output", "json", code=code)
    summary = result.json
    if code == 4:
        assert summary["status"] == "failed"
        assert summary["error"]["message"] in result.err.replace("error: ", "")
        assert summary["error"]["hint"]
    else:
        assert (summary["status"], summary["error"]) == ("succeeded", None)
    found = summary["verification"]
    assert isinstance(found, dict)
    return found


def harm(client: DynamoDBClient, table: str, **more: Any) -> None:
    """One item less, one that differs by a digit and within a document, one too many."""
    client.delete_item(TableName=table, Key={"id": {"N": "17"}})
    item = client.get_item(TableName=table, Key={"id": {"N": "400"}}, ConsistentRead=True)["Item"]
    assert item["w"]["N"].startswith("100")
    item["w"] = {"N": "100.0001"}
    item["info"]["M"]["cast"]["L"][1]["M"]["name"] = {"S": "somebody else"}
    client.put_item(TableName=table, Item=item)
    client.put_item(TableName=table, Item={"id": {"N": "99999"}, **more})


@pytest.mark.usefixtures("films")
def test_it_finds_what_is_wrong_and_nothing_where_nothing_is(
    command_line: CommandLine, dynamodb: DynamoDBClient, unique: str
) -> None:
    run = ("run", *to(unique), "--mode", "replace")
    verify = (*to(unique), "--extra")
    ways = {"cache": verify, "source": (*verify, "--source", "--mode", "replace")}

    def both(code: int) -> dict[str, dict[str, Any]]:
        found = command_line.at_once(*(partial(verified, code=code, arguments=way) for way in ways.values()))
        return dict(zip(ways, found, strict=True))

    command_line(*run)
    mark = dynamodb.get_item(TableName=unique, Key={"id": {"N": "1"}})["Item"][MARK]
    harm(dynamodb, unique, **{MARK: mark})
    for against, found in both(code=4).items():
        assert (found["against"], found["rows_compared"], found["rows"]) == (against, ROWS, ROWS)
        assert (found["missing"], found["different"], found["surplus"]) == (1, 1, 1)
        missing, different, surplus = found["differences"]
        assert missing == {"kind": "missing", "key": {"id": {"N": "17"}}, "attributes": []}
        assert (different["kind"], different["key"]) == ("different", {"id": {"N": "400"}})
        assert sorted(different["attributes"], key=lambda it: str(it["attribute"])) == [
            {
                "attribute": "info",
                "path": ["cast", 1, "name"],
                "expected": {"S": "A400"},
                "found": {"S": "somebody else"},
            },
            {"attribute": "w", "path": [], "expected": {"N": "100.0000"}, "found": {"N": "100.0001"}},
        ]
        assert surplus == {"kind": "surplus", "key": {"id": {"N": "99999"}}, "attributes": []}
    # What it is for: the same command again mends all of it.
    command_line(*run)
    for found in both(code=0).values():
        assert (found["missing"], found["different"], found["surplus"], found["differences"]) == (0, 0, 0, [])
        assert found["read_units"] > 0


@pytest.mark.usefixtures("films")
def test_people_see_where_it_differs(command_line: CommandLine, dynamodb: DynamoDBClient, unique: str) -> None:
    command_line("run", *to(unique))
    harm(dynamodb, unique)
    screen = command_line.terminal("verify", *to(unique), "--extra")
    assert screen.end() == 4
    lines = [line.rstrip() for line in screen.lines]
    assert all(len(line) <= 80 for line in lines)
    text = "\n".join(lines)
    assert "verify films: 3 differences in" in text
    assert re.search(r"^compared +700 rows with table etl-", text, re.MULTILINE)
    assert re.search(r"^missing +1$", text, re.MULTILINE)
    assert re.search(r"^400 +w +100\.0000 +100\.0001$", text, re.MULTILINE)
    assert re.search(r'^ +info\.cast\[1\]\.name +"A400" +"somebody else"$', text, re.MULTILINE)
    assert re.search(r"^Missing: rows that have no item\nid\n─+\n17$", text, re.MULTILINE)
    assert re.search(r"^Surplus: items that no row has\nid\n─+\n99999$", text, re.MULTILINE)
    assert "error: table etl-" in text


@pytest.mark.usefixtures("films")
def test_without_cached_rows_it_reads_the_source(command_line: CommandLine, unique: str) -> None:
    command_line("run", *to(unique), "--ttl", "24h")
    elsewhere = ("--table", "films", "--destination", unique, "--cache", f"{unique}-none")

    def from_the_source(cli: CommandLine) -> None:
        result = cli("verify", *elsewhere, "--output", "json")
        assert result.json["verification"]["against"] == "source"
        assert "source instead" in result.err

    def from_nowhere(cli: CommandLine) -> None:
        failed = cli.given(DATABASE_URL=None).fails("verify", *elsewhere, code=1)
        assert "there is no cache" in failed.json["error"]["message"]
        assert failed.json["verification"] is None

    def without_postgresql(cli: CommandLine) -> None:
        assert verified(cli.given(DATABASE_URL=None), *to(unique))["against"] == "cache"

    def without_momento(cli: CommandLine) -> None:
        assert verified(cli.given(MOMENTO_LOCAL=None), *to(unique), "--source")["against"] == "source"

    command_line.at_once(from_the_source, from_nowhere, without_postgresql, without_momento)


@pytest.mark.usefixtures("films")
def test_options_that_say_what_to_read_read_the_source(command_line: CommandLine, unique: str) -> None:
    part = ("--where", "id % 3 = 0", "--columns", "id,w,title")
    command_line("run", *to(unique), *part)

    def the_cached_part(cli: CommandLine) -> None:
        assert verified(cli, *to(unique))["rows_compared"] == ROWS // 3

    def that_part(cli: CommandLine) -> None:
        assert verified(cli, *to(unique), *part)["against"] == "source"

    def another_part(cli: CommandLine) -> None:
        assert verified(cli, *to(unique), "--limit", "10", "--columns", "id", code=4)["missing"] == 7

    def more_than_that_part(cli: CommandLine) -> None:
        refused = cli.fails("verify", *to(unique), "--extra", code=2)
        assert "took only some rows (--where)" in refused.json["error"]["message"]

    def another_key(cli: CommandLine) -> None:
        refused = cli.fails("verify", *to(unique), "--key", "title", code=2)
        assert "another key" in refused.json["error"]["message"]

    def no_table(cli: CommandLine) -> None:
        refused = cli.fails("verify", *to(unique), "--destination", f"{unique}-2", code=1)
        assert f"no DynamoDB table {unique}-2" in refused.json["error"]["message"]

    command_line.at_once(the_cached_part, that_part, another_part, more_than_that_part, another_key, no_table)


@pytest.mark.usefixtures("films")
def test_samples(command_line: CommandLine, unique: str) -> None:
    command_line("run", *to(unique))

    def a_share(cli: CommandLine) -> None:
        found = verified(cli, *to(unique), "--sample", "20%")
        assert found["sample"] == "20%"
        assert 70 <= found["rows_compared"] <= 220
        again = verified(cli, *to(unique), "--sample", "20%", "--seed", str(found["seed"]))
        assert again == found

    def a_number(cli: CommandLine) -> None:
        assert verified(cli, *to(unique), "--sample", "50", "--source")["rows_compared"] == 50

    def as_text(cli: CommandLine) -> None:
        calm = cli("verify", *to(unique), "--sample", "3", "--seed", "1", "--quiet")
        assert "no difference" in calm.out
        assert "--seed 1 " in calm.out
        assert calm.err == ""

    command_line.at_once(a_share, a_number, as_text)


@pytest.mark.usefixtures("films")
def test_what_goes_not_together_is_refused(command_line: CommandLine, unique: str) -> None:
    refusals = {
        ("--sample", "many"): "--sample has to be",
        ("--sample", "101%"): "--sample has to be",
        ("--sample", "0"): "compare nothing",
        ("--sample", "5", "--extra"): "exclude each other",
        ("--seed", "5"): "there is none",
        ("--source", "--run-id", "x"): "exclude each other",
        ("--where", "id > 1", "--extra"): "surplus",
    }

    def refused(cli: CommandLine, arguments: tuple[str, ...], words: str) -> None:
        assert words in cli.fails("verify", *to(unique), *arguments, code=2).json["error"]["message"]

    command_line.at_once(*(partial(refused, arguments=it, words=words) for it, words in refusals.items()))


@pytest.mark.usefixtures("films")
def test_a_signal_ends_it(command_line: CommandLine, unique: str) -> None:
    with Responder(BatchGetItem=2) as responder:
        cli = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url)
        cli("run", *to(unique))
        arguments = ("verify", *to(unique), "--output", "json")
        process = cli.start(*arguments)
        responder.wait_for("BatchGetItem", 3)
        process.send_signal(signal.SIGTERM)
        result = cli.finish(process, *arguments)
    assert result.code == 143
    assert (result.json["status"], result.json["verification"]) == ("interrupted", None)
    assert "Nothing was written" in result.json["error"]["hint"]


@pytest.mark.usefixtures("films")
def test_who_may_not_read_is_told_what_to_allow(command_line: CommandLine, unique: str) -> None:
    with Keeper() as keeper:
        cli = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=keeper.url)
        cli("run", *to(unique))
        for action in ("BatchGetItem", "Scan"):
            keeper.deny = {action}
            denied = cli.fails("verify", *to(unique), "--extra", code=1)
            assert f"dynamodb:{action}" in denied.json["error"]["hint"]


@pytest.mark.usefixtures("films")
def test_a_run_that_verifies_tells_what_somebody_else_changed_meanwhile(command_line: CommandLine, unique: str) -> None:
    with Keeper() as keeper:
        cli = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=keeper.url)
        keeper.overwrite = {"id": {"N": "400"}, "title": {"S": "another's"}}
        result = cli("run", *to(unique), "--verify", "--output", "json", code=4)
        found = result.json["verification"]
        assert (found["missing"], found["different"], found["surplus"], found["rows_compared"]) == (0, 1, None, ROWS)
        (difference,) = found["differences"]
        assert (difference["kind"], difference["key"]) == ("different", {"id": {"N": "400"}})
        assert (result.json["status"], result.json["rows_loaded"]) == ("failed", ROWS)
        assert "1 item is different" in result.json["error"]["message"]
        keeper.overwrite = None
        again = cli("run", *to(unique), "--verify")
        assert re.search(rf"^verified +{ROWS} items: no difference$", again.err, re.MULTILINE)


def test_of_100_000_items_each_that_is_wrong_is_found_and_no_other_is(
    command_line: CommandLine, schema: Schema, unique: str
) -> None:
    schema.execute(
        "create table films as select n as id, 'Film ' || n as title, (n / 4.0)::numeric(12, 4) as w,"
        " n % 3 = 0 as seen from generate_series(0, 99999) n; alter table films add primary key (id); analyze films"
    )
    with Keeper() as keeper:
        cli = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=keeper.url)
        found = cli("run", *to(unique), "--verify", "--output", "json").json["verification"]
        assert (found["against"], found["rows_compared"], found["differences"]) == ("cache", 100_000, [])
        assert (found["missing"], found["different"], found["surplus"]) == (0, 0, None)
        items = keeper.kept[unique]

        def place(number: int) -> bytes:
            return keeper.place_of(unique, {"id": {"N": str(number)}})

        del items[place(31_415)]
        assert items[place(92_653)]["w"] == {"N": "23163.2500"}
        items[place(92_653)]["w"] = {"N": "23163.2501"}
        items[place(100_000)] = {"id": {"N": "100000"}}
        found = verified(cli, *to(unique), "--extra", code=4)
        assert (found["missing"], found["different"], found["surplus"]) == (1, 1, 1)
        changed = {"attribute": "w", "path": [], "expected": {"N": "23163.2500"}, "found": {"N": "23163.2501"}}
        assert found["differences"] == [
            {"kind": "missing", "key": {"id": {"N": "31415"}}, "attributes": []},
            {"kind": "different", "key": {"id": {"N": "92653"}}, "attributes": [changed]},
            {"kind": "surplus", "key": {"id": {"N": "100000"}}, "attributes": []},
        ]
