"""All three services fail at once, again and again: a run slows down, and every row arrives (promise 5)."""

from __future__ import annotations

from typing import Any

import orjson

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine
from tests.integration.fault_proxy import fault_proxy, scheduled, with_host_port
from tests.integration.faulty_dynamodb import FaultyDynamoDB
from tests.integration.faulty_momento import faulty_momento_beside
from tests.integration.stateful_keeper import StatefulKeeper

ROWS = 100_000


def test_faults_at_a_fifth_of_all_calls(command_line: CommandLine, schema: Schema, stack: Stack, unique: str) -> None:
    schema.execute(
        "create table many (id integer primary key, a text, n numeric);"
        f" insert into many select n, md5(n::text), n / 8.0 from generate_series(1, {ROWS}) n"
    )
    with (
        fault_proxy(schema.url, scheduled(7, 1.0, ("cut", "reset"), 1_000_000, ("down",))) as postgres,
        faulty_momento_beside(rate=0.2, seed=7, delay_seconds=0.05) as momento,
        StatefulKeeper(stack.dynamodb_url) as keeper,
        FaultyDynamoDB(keeper.url) as dynamodb,
    ):
        dynamodb.faults(0.2, 7, stall_seconds=0.05)
        stormy = command_line.given(
            DATABASE_URL=with_host_port(schema.url, postgres),
            MOMENTO_LOCAL=momento.address,
            AWS_ENDPOINT_URL_DYNAMODB=dynamodb.url,
        )
        summary = stormy("run", "--table", "many", "--cache", unique, "--destination", unique, "--output", "json").json
        assert summary["rows_extracted"] == summary["rows_loaded"] == ROWS
        # It was a storm.
        assert summary["snapshots"] > 3
        assert summary["throttles"] > 10
        assert summary["retries"] > 100
        assert sum(dynamodb.made.values()) > 500
        found = {int(item["id"]["N"]): _values(item) for item in keeper.kept[unique].values()}
    expected = schema.connection.execute("select id, a, n from many").fetchall()
    assert found == {row[0]: (row[1], float(str(row[2]))) for row in expected}


def _values(item: dict[str, Any]) -> tuple[str, float]:
    assert set(item) == {"id", "a", "n"}, orjson.dumps(item)
    return item["a"]["S"], float(item["n"]["N"])
