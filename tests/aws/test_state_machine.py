"""The functions under AWS's runtime emulator, driven by the state machine's own file, over the embedded servers."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.aws.lambdas import Functions, emulator_program, functions
from tests.aws.step_functions import StepFunctions, step_functions
from tests.conftest import Schema, Stack

pytestmark = pytest.mark.skipif(
    emulator_program() is None,
    reason="AWS's runtime emulator is not there: MOMENTO_ETL_TEST_SAM names an environment with aws-sam-cli",
)


@dataclass
class Aws:
    """Everything that an execution needs."""

    functions: Functions
    machine: StepFunctions
    schema: Schema
    stack: Stack
    destination: str

    def items(self) -> dict[int, dict[str, Any]]:
        client = boto3.client(
            "dynamodb",
            endpoint_url=self.stack.dynamodb_url,
            region_name="us-east-1",
            aws_access_key_id="x",
            aws_secret_access_key="x",
        )
        pages = client.get_paginator("scan").paginate(TableName=self.destination)
        found = {int(item["id"]["N"]): item for page in pages for item in page["Items"]}
        client.close()
        return found


def environment(stack: Stack, schema: Schema) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ["HOME"],
        "DATABASE_URL": schema.url,
        "MOMENTO_LOCAL": stack.momento,
        "AWS_ENDPOINT_URL_DYNAMODB": stack.dynamodb_url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "MOMENTO_ETL_STATE_TABLE": f"state-{uuid.uuid4().hex[:8]}",
    }


@contextmanager
def running(code: Path, stack: Stack, schema: Schema, folder: Path, **settings: Any) -> Iterator[Aws]:
    with ExitStack() as resources:
        containers = settings.pop("containers", {"FromDbToCache": 2, "FromCacheToDynamoDb": 2})
        lambdas = resources.enter_context(
            functions(code, environment(stack, schema), folder, containers, settings.pop("timeouts", None))
        )
        machine = resources.enter_context(step_functions(lambdas.port, folder))
        yield Aws(lambdas, machine, schema, stack, f"t{uuid.uuid4().hex[:10]}")


def make_rows(schema: Schema, table: str, count: int) -> None:
    schema.execute(
        f"create table {table} (id int primary key, title text, rating numeric);"
        f" insert into {table} select g, md5(g::text) || g, g * 1.5 from generate_series(1, {count}) g; analyze {table}"
    )


def expected(count: int) -> dict[int, dict[str, Any]]:
    import hashlib

    return {
        number: {
            "id": {"N": str(number)},
            "title": {"S": hashlib.md5(str(number).encode()).hexdigest() + str(number)},
            "rating": {"N": f"{number * 1.5:.1f}"},
        }
        for number in range(1, count + 1)
    }


def test_50_000_rows_in_many_ranges_two_at_once(
    built_artifact: Path, stack: Stack, schema: Schema, tmp_path: Path
) -> None:
    make_rows(schema, "films", 50_000)
    with running(built_artifact, stack, schema, tmp_path) as aws:
        event = {"table": "films", "destination": aws.destination, "ranges": 10, "concurrency": 2}
        ended = aws.machine.run(event)
        assert ended.status == "SUCCEEDED", ended
        assert ended.output["name"] == "films"
        assert (ended.output["rows"], ended.output["key"]) == (50_000, "id")
        assert aws.functions["FromDbToCache"].most_at_once == 2
        assert len({call["block"] for call in aws.functions["FromDbToCache"].calls}) == 10
        items = aws.items()
        assert len(items) == 50_000
        assert items == expected(50_000)
