"""``python -m tests.bench cold`` in small: what it measures are calls that planned a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aws.lambdas import emulator_program
from tests.bench import figures
from tests.bench.cold import cold
from tests.bench.servers import serving
from tests.conftest import Schema, Stack

pytestmark = pytest.mark.skipif(
    emulator_program() is None,
    reason="AWS's runtime emulator is not there: MOMENTO_ETL_TEST_SAM names an environment with aws-sam-cli",
)


def test_a_cold_start_is_measured(built_artifact: Path, stack: Stack, schema: Schema) -> None:
    said: list[str] = []
    with serving(schema.url, stack.dynamodb_url) as servers:
        found = cold(servers, built_artifact, 1, said.append)
    assert len(said) == 2
    assert found["first_call_seconds"] > 0 < found["second_call_seconds"]
    assert "from a container's start" in figures.tables(figures.stamped({"cold": found}))


def test_a_call_that_fails_is_not_measured(
    built_artifact: Path, stack: Stack, schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.bench.cold.DESTINATION", "no name of a table")
    with serving(schema.url, stack.dynamodb_url) as servers, pytest.raises(RuntimeError, match="the call failed"):
        cold(servers, built_artifact, 1, lambda _: None)
