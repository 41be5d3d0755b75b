"""``verify`` as its users have it: what it finds in a real table, what it says of it, and what it ends with."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine
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


def verified(command_line: CommandLine, *arguments: str, code: int = 0) -> dict[str, Any]:
    result = command_line("verify", *arguments, "--output", "json", code=code)
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
@pytest.mark.parametrize("mode", ["upsert", "replace"])
def test_it_finds_what_is_wrong_and_nothing_where_nothing_is(
    command_line: CommandLine, dynamodb: DynamoDBClient, unique: str, mode: str
) -> None:
    where = to(unique)
    command_line("run", *where, "--mode", mode)
    for more, against in (((), "cache"), (("--source", "--mode", mode), "source")):
        found = verified(command_line, *where, "--extra", *more)
        assert (found["against"], found["rows_compared"], found["rows"]) == (against, ROWS, ROWS)
        assert (found["missing"], found["different"], found["surplus"], found["differences"]) == (0, 0, 0, [])
        assert found["read_units"] > 0
    mark = dynamodb.get_item(TableName=unique, Key={"id": {"N": "1"}})["Item"].get(MARK)
    harm(dynamodb, unique, **({} if mark is None else {MARK: mark}))
    for more in ((), ("--source", "--mode", mode)):
        found = verified(command_line, *where, "--extra", *more, code=4)
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
    # What it is for: the same command again mends what is missing and different.
    command_line("run", *where, "--mode", mode)
    found = verified(command_line, *where, "--extra", code=0 if mode == "replace" else 4)
    assert (found["missing"], found["different"]) == (0, 0)


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
    calm = command_line("verify", *to(unique), "--sample", "3", "--seed", "1", "--quiet")
    assert "no difference" in calm.out
    assert "--seed 1 " in calm.out
    assert calm.err == ""


@pytest.mark.usefixtures("films")
def test_without_cached_rows_it_reads_the_source(command_line: CommandLine, unique: str) -> None:
    command_line("run", *to(unique), "--ttl", "24h")
    elsewhere = ("--table", "films", "--destination", unique, "--cache", f"{unique}-none")
    result = command_line("verify", *elsewhere, "--output", "json")
    assert result.json["verification"]["against"] == "source"
    assert "source instead" in result.err
    failed = command_line.given(DATABASE_URL=None).fails("verify", *elsewhere, code=1)
    assert "there is no cache" in failed.json["error"]["message"]
    assert failed.json["verification"] is None
    # With the cached rows nobody needs PostgreSQL.
    assert verified(command_line.given(DATABASE_URL=None), *to(unique))["against"] == "cache"
    # And with the source nobody needs Momento.
    assert verified(command_line.given(MOMENTO_LOCAL=None), *to(unique), "--source")["against"] == "source"


@pytest.mark.usefixtures("films")
def test_options_that_say_what_to_read_read_the_source(command_line: CommandLine, unique: str) -> None:
    part = ("--where", "id % 3 = 0", "--columns", "id,w,title")
    command_line("run", *to(unique), *part)
    assert verified(command_line, *to(unique))["rows_compared"] == ROWS // 3
    assert verified(command_line, *to(unique), *part)["against"] == "source"
    assert verified(command_line, *to(unique), "--limit", "10", "--columns", "id", code=4)["missing"] == 7


@pytest.mark.usefixtures("films")
def test_samples(command_line: CommandLine, unique: str) -> None:
    command_line("run", *to(unique))
    found = verified(command_line, *to(unique), "--sample", "20%")
    assert 70 <= found["rows_compared"] <= 220
    assert (found["sampled"], found["sample"]) == (True, "20%")
    again = verified(command_line, *to(unique), "--sample", "20%", "--seed", str(found["seed"]))
    assert again["rows_compared"] == found["rows_compared"]
    assert verified(command_line, *to(unique), "--sample", "50", "--source")["rows_compared"] == 50
    assert verified(command_line, *to(unique), "--sample", "0.5%")["seed"] != found["seed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--sample", "many"), "--sample has to be"),
        (("--sample", "101%"), "--sample has to be"),
        (("--sample", "0"), "compare nothing"),
        (("--sample", "5", "--extra"), "exclude each other"),
        (("--seed", "5"), "there is none"),
        (("--source", "--run-id", "x"), "exclude each other"),
        (("--where", "id > 1", "--extra"), "surplus"),
    ],
)
@pytest.mark.usefixtures("films")
def test_what_goes_not_together_is_refused(
    command_line: CommandLine, unique: str, arguments: tuple[str, ...], words: str
) -> None:
    assert words in command_line.fails("verify", *to(unique), *arguments, code=2).json["error"]["message"]


@pytest.mark.usefixtures("films")
def test_a_table_that_is_not_there_or_has_another_key(command_line: CommandLine, unique: str) -> None:
    command_line("extract", "--table", "films", "--cache", unique)
    gone = command_line.fails("verify", *to(unique), code=1)
    assert f"no DynamoDB table {unique}" in gone.json["error"]["message"]
    command_line("run", *to(unique), "--cache", f"{unique}-2", "--key", "title")
    other = command_line.fails("verify", *to(unique), code=2)
    assert "another key" in other.json["error"]["message"]


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
@pytest.mark.parametrize("action", ["BatchGetItem", "Scan"])
def test_who_may_not_read_is_told_what_to_allow(command_line: CommandLine, unique: str, action: str) -> None:
    with Responder(deny={action}) as responder:
        cli = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url)
        cli("run", *to(unique))
        arguments = ("--extra",) if action == "Scan" else ()
        denied = cli.fails("verify", *to(unique), *arguments, code=1)
        assert f"dynamodb:{action}" in denied.json["error"]["hint"]


def test_rejected_rows_are_not_expected_and_their_old_items_no_surplus(
    command_line: CommandLine, schema: Schema, unique: str
) -> None:
    schema.execute("create table films (id int primary key, v float8); insert into films values (1, 1), (2, 2), (3, 3)")
    where = (*to(unique), "--mode", "replace")
    command_line("run", *where)
    schema.execute("update films set v = 'NaN' where id = 2; delete from films where id = 3")
    command_line("run", *where, code=3)
    for more in ((), ("--source", "--mode", "replace")):
        found = verified(command_line, *to(unique), "--extra", *more)
        assert (found["rows"], found["rows_rejected"], found["surplus"]) == (1, 1, 0)
