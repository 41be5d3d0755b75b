"""Mode replace from end to end: what is removed, what never is, and what is refused."""

from __future__ import annotations

import http.client
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import boto3
import pytest
from mypy_boto3_dynamodb import DynamoDBClient

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine

MARK = "_momento_etl"
ALONE = ("--rejects-file", "/dev/null", "--output", "json")


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


def items(client: DynamoDBClient, table: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        found.extend(page["Items"])
    return sorted(found, key=repr)


def numbers(client: DynamoDBClient, table: str) -> list[int]:
    return sorted(int(item["id"]["N"]) for item in items(client, table))


def configured(folder: Path, text: str) -> None:
    (folder / "momento-etl.toml").write_text(text)


class Gate:
    """Stands before DynamoDB, and lets only so many BatchWriteItem requests through; others wait for their end here."""

    def __init__(self, url: str, batches: int) -> None:
        self._host = urlsplit(url).netloc
        self._left = batches
        self._lock = threading.Lock()
        self.closed = threading.Event()
        self._over = threading.Event()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                gate.answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the name is the library's
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        if handler.headers["X-Amz-Target"].endswith("BatchWriteItem"):
            with self._lock:
                self._left -= 1
                passes = self._left >= 0
            if not passes:
                self.closed.set()
                self._over.wait()
                handler.close_connection = True
                return
        connection = http.client.HTTPConnection(self._host, timeout=60)
        connection.request("POST", "/", body, dict(handler.headers))
        response = connection.getresponse()
        answer = response.read()
        connection.close()
        handler.send_response(response.status)
        handler.send_header("Content-Type", "application/x-amz-json-1.0")
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)


SINGLE_TABLE = """
    [tables.films]
    source = "films"
    destination = "{table}"
    cache = "{table}"
    mode = "replace"
    key = ["pk", "sk"]
    attributes = {{ pk = "FILM#{{id}}", sk = "RELEASE#{{released:%Y-%m}}", gsi1pk = "{{title}}" }}

    [tables.people]
    source = "people"
    destination = "{table}"
    cache = "{table}"
    mode = "replace"
    key = ["pk", "sk"]
    attributes = {{ pk = "PERSON#{{id}}", sk = "PERSON", gsi1pk = "{{name}}" }}
"""


def single_table(client: DynamoDBClient, table: str) -> None:
    """Make the table as its owners would, with an index that no job knows of."""
    client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk", "gsi1pk")],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "gsi1",
                "KeySchema": [{"AttributeName": "gsi1pk", "KeyType": "HASH"}],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
        BillingMode="PAY_PER_REQUEST",
    )


def by_index(client: DynamoDBClient, table: str, value: str) -> int:
    answer = client.query(
        TableName=table,
        IndexName="gsi1",
        KeyConditionExpression="gsi1pk = :v",
        ExpressionAttributeValues={":v": {"S": value}},
    )
    return answer["Count"]


def test_two_jobs_in_one_table_leave_each_other_and_the_rest_alone(
    command_line: CommandLine, schema: Schema, dynamodb: DynamoDBClient, unique: str, tmp_path: Path
) -> None:
    schema.execute(
        "create table films (id int primary key, title text, released date);"
        "insert into films select i, 'Film ' || i, date '1990-01-01' + i from generate_series(1, 40) i;"
        "create table people (id int primary key, name text);"
        "insert into people select i, 'Person ' || i from generate_series(1, 30) i"
    )
    configured(tmp_path, SINGLE_TABLE.format(table=unique))
    single_table(dynamodb, unique)
    indexes = dynamodb.describe_table(TableName=unique)["Table"]["GlobalSecondaryIndexes"][0]["KeySchema"]
    by_hand: list[dict[str, Any]] = [
        {"pk": {"S": "FILM#41"}, "sk": {"S": "RELEASE#1990-02"}, "gsi1pk": {"S": "by hand"}},
        {"pk": {"S": "FILM#42"}, "sk": {"S": "x"}, MARK: {"N": "1"}, "gsi1pk": {"S": "by hand"}},
        {"pk": {"S": "FILM#43"}, "sk": {"S": "x"}, MARK: {"S": "somebody else's"}, "gsi1pk": {"S": "by hand"}},
        {"pk": {"S": "PERSON#1"}, "sk": {"S": "SETTINGS"}, "gsi1pk": {"S": "by hand"}},
    ]
    for item in by_hand:
        dynamodb.put_item(TableName=unique, Item=item)
    for job, rows in (("films", 40), ("people", 30)):
        summary = command_line("run", "--table", job, *ALONE).json
        assert (summary["mode"], summary["rows_loaded"], summary["items_deleted"]) == ("replace", rows, 0)
    people = [item for item in items(dynamodb, unique) if item["sk"] == {"S": "PERSON"}]

    schema.execute("delete from films where id % 4 = 0; update films set released = '2001-01-01' where id = 1")
    summary = command_line("run", "--table", "films", *ALONE).json
    # Ten films are gone, and one has another key: under the old one it has no row any more.
    assert (summary["rows_loaded"], summary["items_deleted"]) == (30, 11)
    left = items(dynamodb, unique)
    assert [item for item in left if item["sk"] == {"S": "PERSON"}] == people
    assert all(item in left for item in by_hand)
    films = {int(item["id"]["N"]) for item in left if "released" in item}
    assert films == {number for number in range(1, 41) if number % 4}
    assert len(left) == 30 + 30 + 4
    assert dynamodb.describe_table(TableName=unique)["Table"]["GlobalSecondaryIndexes"][0]["KeySchema"] == indexes
    found = {title: by_index(dynamodb, unique, title) for title in ("Film 4", "Film 5", "Person 4", "by hand")}
    assert found == {"Film 4": 0, "Film 5": 1, "Person 4": 1, "by hand": 4}

    schema.execute("delete from people where id > 20")
    shown = command_line("run", "--table", "people")
    assert "\ndeleted  10 items whose rows are gone" in shown.err
    assert len(items(dynamodb, unique)) == 54


@pytest.mark.parametrize("layout", ["packed", "rows"])
@pytest.mark.parametrize("commands", [("run",), ("extract", "load")], ids=" ".join)
def test_a_rejected_rows_old_item_stays(
    command_line: CommandLine,
    schema: Schema,
    dynamodb: DynamoDBClient,
    unique: str,
    tmp_path: Path,
    layout: str,
    commands: tuple[str, ...],
) -> None:
    schema.execute(
        "create table t (id int primary key, code text, amount numeric);"
        "insert into t select i, 'code \"' || i || '\"', i from generate_series(1, 200) i"
    )
    configured(
        tmp_path,
        f"""
        [cache]
        layout = "{layout}"
        [tables.t]
        cache = "{unique}"
        destination = "{unique}"
        mode = "replace"
        key = ["pk", "code"]
        attributes = {{ pk = "T#{{id:05d}}" }}
        mask = {{ code = "hash" }}
        """,
    )

    def transferred(code: int) -> dict[str, Any]:
        for command in commands:
            result = command_line(command, "--table", "t", *ALONE, code=code)
        return result.json

    assert transferred(0)["items_deleted"] == 0
    before = {item["id"]["N"]: item for item in items(dynamodb, unique)}
    schema.execute(
        "delete from t where id > 190; update t set amount = 'NaN' where id % 2 = 0; update t set amount = amount + 1"
    )
    summary = transferred(3)
    assert (summary["rows_rejected"], summary["rows_loaded"], summary["items_deleted"]) == (95, 95, 10)
    after = {item["id"]["N"]: item for item in items(dynamodb, unique)}
    assert after.keys() == {str(number) for number in range(1, 191)}
    for number in range(1, 191):
        amount = number if number % 2 == 0 else number + 1
        assert after[str(number)] == {
            **before[str(number)],
            "amount": {"N": str(amount)},
            MARK: {"S": after["1"][MARK]["S"]},
        }
    assert after["1"][MARK]["S"].endswith(summary["run_id"])
    assert after["1"][MARK] != before["1"][MARK]
    # Gone for good, they go too.
    schema.execute("delete from t where id = 2")
    assert transferred(3)["items_deleted"] == 1


def test_a_killed_run_and_then_a_whole_one(
    command_line: CommandLine, schema: Schema, stack: Stack, dynamodb: DynamoDBClient, unique: str
) -> None:
    schema.execute("create table t as select i as id, 'old' as v from generate_series(1, 3000) i")
    arguments = ("run", "--table", "t", "--key", "id", "--cache", unique, "--destination", unique, "--mode", "replace")
    command_line(*arguments, *ALONE)
    by_hand = {"id": {"N": "-1"}, "v": {"S": "by hand"}}
    dynamodb.put_item(TableName=unique, Item=by_hand)
    schema.execute("delete from t where id <= 500; insert into t select i, 'new' from generate_series(3001, 4000) i")
    with Gate(stack.dynamodb_url, 60) as gate:
        process = command_line.given(AWS_ENDPOINT_URL_DYNAMODB=gate.url).start(*arguments, *ALONE)
        assert gate.closed.wait(60)
        process.send_signal(signal.SIGKILL)
        killed = command_line.finish(process, *arguments)
    assert (killed.code, killed.out) == (-signal.SIGKILL, "")
    marks = {item[MARK]["S"] for item in items(dynamodb, unique) if MARK in item}
    assert len(marks) == 2, "it was killed before it wrote anything"
    assert len(items(dynamodb, unique)) > 3000, "what is gone is not removed before everything new is there"

    # Rows that the killed run wrote are gone by now, too.
    schema.execute("delete from t where id > 3900 or id % 10 = 0")
    expected = sorted(number for number in range(501, 3901) if number % 10)
    before = numbers(dynamodb, unique)
    summary = command_line(*arguments, *ALONE).json
    assert numbers(dynamodb, unique) == [-1, *expected]
    assert summary["items_deleted"] == len(set(before) - {-1, *expected})
    assert by_hand in items(dynamodb, unique)
    assert {item[MARK]["S"][-24:] for item in items(dynamodb, unique) if MARK in item} == {summary["run_id"]}


def test_never_more_than_may_be_removed(
    command_line: CommandLine, schema: Schema, dynamodb: DynamoDBClient, unique: str
) -> None:
    schema.execute("create table t as select i as id from generate_series(1, 10) i")
    arguments = ("--table", "t", "--cache", unique, "--destination", unique)
    run = ("run", *arguments, "--key", "id", "--mode", "replace", "--rejects-file", "/dev/null")
    command_line(*run)
    schema.execute("delete from t where id > 4")
    failed = command_line.fails(*run, code=1)
    message = failed.json["error"]["message"]
    assert f"6 of the 10 items that t wrote to {unique} have no row any more, and at most 50% may be" in message
    assert "--max-deletes" in failed.json["error"]["hint"]
    assert (failed.json["items_deleted"], failed.json["rows_loaded"]) == (0, 4)
    for most in ("5", "59.9%"):
        command_line.fails(*run, "--max-deletes", most, code=1)
    assert len(numbers(dynamodb, unique)) == 10
    # What was extracted is loaded once more, from the cache alone.
    command_line.fails("load", *arguments, code=1)
    assert command_line("load", *arguments, "--max-deletes", "60%", *ALONE).json["items_deleted"] == 6
    assert numbers(dynamodb, unique) == [1, 2, 3, 4]
    schema.execute("delete from t")
    assert command_line.fails(*run, code=1).json["items_deleted"] == 0
    assert command_line(*run, "--max-deletes", "4", "--output", "json").json["items_deleted"] == 4
    assert numbers(dynamodb, unique) == []
    for wrong in ("many", "-1", "101%", ""):
        assert "--max-deletes" in command_line.fails(*run, "--max-deletes", wrong, code=2).json["error"]["message"]


def test_modes_by_turns(command_line: CommandLine, schema: Schema, dynamodb: DynamoDBClient, unique: str) -> None:
    schema.execute("create table t as select i as id from generate_series(1, 10) i")
    run = ("run", "--table", "t", "--key", "id", "--cache", unique, "--destination", unique, *ALONE)
    assert command_line(*run).json["items_deleted"] is None
    schema.execute("delete from t where id = 1")
    # Nothing is known of who wrote what is there.
    assert command_line(*run, "--mode", "replace").json["items_deleted"] == 0
    schema.execute("delete from t where id in (2, 3)")
    assert command_line(*run, "--mode", "upsert").json["items_deleted"] is None
    assert len(numbers(dynamodb, unique)) == 10
    schema.execute("delete from t where id = 4")
    summary = command_line(*run, "--mode", "replace").json
    # 2 and 3 still had the mark; 4 had lost it to the run in mode upsert.
    assert summary["items_deleted"] == 2
    assert numbers(dynamodb, unique) == [1, 4, 5, 6, 7, 8, 9, 10]
    assert [MARK in item for item in items(dynamodb, unique)].count(True) == 6


def test_a_run_that_does_not_see_all_rows_is_refused(
    command_line: CommandLine, schema: Schema, dynamodb: DynamoDBClient, unique: str, tmp_path: Path
) -> None:
    schema.execute("create table t (id int primary key)")
    configured(
        tmp_path,
        f"""
        [cache]
        name = "{unique}"
        [tables.t]
        mode = "replace"
        destination = "{unique}"
        [tables.filtered]
        source = "t"
        mode = "replace"
        where = "id > 1"
        destination = "{unique}"
        [tables.newest]
        source = "t"
        mode = "replace"
        incremental_key = "id"
        destination = "{unique}"
        """,
    )

    def refused(command: str, job: str, *flags: str, named: str) -> None:
        message = command_line.fails(command, "--table", job, *flags, code=2).json["error"]["message"]
        assert f"mode replace of {job} does not go with" in message
        assert named in message

    command_line.at_once(
        lambda _: refused("run", "t", "--limit", "5", named="--limit"),
        lambda _: refused("run", "t", "--where", "id > 1", named="--where"),
        lambda _: refused("extract", "t", "--query", "select 1 as id", named="--query"),
        lambda _: refused("run", "filtered", named="--where"),
        lambda _: refused("extract", "newest", named="incremental_key"),
        lambda _: refused("run", "newest", "--full-refresh", named="incremental_key"),
    )
    assert unique not in dynamodb.list_tables()["TableNames"]
    # Fewer columns are not fewer rows.
    assert command_line("run", "--table", "t", "--columns", "id", *ALONE).json["items_deleted"] == 0


def test_without_a_state_table_it_is_refused_before_anything_is_made(
    command_line: CommandLine, schema: Schema, dynamodb: DynamoDBClient, unique: str, tmp_path: Path
) -> None:
    schema.execute("create table t as select 1 as id")
    configured(
        tmp_path,
        f'[state]\nenabled = false\n[tables.t]\nkey = ["id"]\nmode = "replace"\n'
        f'cache = "{unique}"\ndestination = "{unique}"\n',
    )
    failed = command_line.fails("run", "--table", "t", code=2)
    assert "[state] enabled = false" in failed.json["error"]["message"]
    assert f'"{unique}"' not in command_line("inspect-cache", "t", "--output", "json", code=1).err
    command_line("extract", "--table", "t")  # it needs none
    assert "[state]" in command_line.fails("load", "--table", "t", code=2).json["error"]["message"]
    assert unique not in dynamodb.list_tables()["TableNames"]
    assert command_line("run", "--table", "t", "--mode", "upsert", "--output", "json").json["rows_loaded"] == 1


def test_the_mark_is_none_of_the_jobs_own_attributes(
    command_line: CommandLine, schema: Schema, dynamodb: DynamoDBClient, unique: str, tmp_path: Path
) -> None:
    schema.execute(f"create table t as select 1 as id, 'x' as {MARK}, 2 as mine")
    run = ("run", "--table", "t", "--key", "id", "--cache", unique, "--destination", unique, "--mode", "replace")
    failed = command_line.fails(*run, code=2)
    assert MARK in failed.json["error"]["message"]
    assert "mark = " in failed.json["error"]["hint"]
    for mark in ("id", "mine"):
        configured(tmp_path, f'[tables.t]\nmark = "{mark}"\n')
        assert "mark" in command_line.fails(*run, code=2).json["error"]["message"]
    assert unique not in dynamodb.list_tables()["TableNames"]
    configured(tmp_path, '[tables.t]\nmark = "written by.größe"\n')
    assert command_line(*run, *ALONE).json["rows_loaded"] == 1
    schema.execute("update t set id = 2")
    assert command_line(*run, "--max-deletes", "50%", *ALONE).json["items_deleted"] == 1
    (item,) = items(dynamodb, unique)
    assert item.keys() == {"id", MARK, "mine", "written by.größe"}


def test_an_item_that_has_no_room_for_the_mark_is_rejected(
    command_line: CommandLine, schema: Schema, dynamodb: DynamoDBClient, unique: str
) -> None:
    # id takes 2 + 2 bytes, v its name and its text, the mark 12 + 37 bytes: the second has a byte more than 409,600.
    # The first is some way below, since moto takes 405,000 only.
    schema.execute(
        "create table t (id int primary key, v text);"
        "insert into t select i, repeat('x', 409601 - 4 - 1 - 49 - 5000 * (2 - i)) from generate_series(1, 2) i"
    )
    run = ("run", "--table", "t", "--cache", unique, "--destination", unique, *ALONE)
    summary = command_line(*run, "--mode", "replace", code=3).json
    assert (summary["rows_loaded"], summary["rows_rejected"]) == (1, 1)
    assert [(reject["rule"], reject["row"]["id"]) for reject in summary["rejects"]] == [("item-too-large", "2")]
    assert "49 of them for its mark" in summary["rejects"][0]["message"]
    assert [MARK in item for item in items(dynamodb, unique)] == [True]


def test_help_says_what_it_does(command_line: CommandLine) -> None:
    text = " ".join(command_line.given(COLUMNS="300")("run", "--help").out.split())
    assert "put whole items; attributes that others added to the same item are gone" in text
    assert "also remove items that this job wrote and whose rows are gone" in text
    assert "remove nothing and fail if more items would go. [default: 50%]" in text
