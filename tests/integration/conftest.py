"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine
from tests.integration.faulty_dynamodb import FaultyDynamoDB
from tests.integration.mortal import Mortals
from tests.integration.world import nobody_waits, play_both, small_chunks

__all__ = ["nobody_waits", "play_both", "small_chunks"]


@pytest.fixture
def command_line(stack: Stack, schema: Schema, tmp_path: Path) -> CommandLine:
    """Commands that find the session's servers through the environment, and the test's own schema in PostgreSQL."""
    return CommandLine.on(stack, schema.url, tmp_path)


@pytest.fixture(scope="session")
def mortals() -> Iterator[Mortals]:
    """What forks commands that all need the same imports."""
    with Mortals() as running:
        yield running


@pytest.fixture
def forked(command_line: CommandLine, mortals: Mortals) -> CommandLine:
    """The same commands, forked instead of started."""
    return replace(command_line, mortals=mortals)


@pytest.fixture
def bare(stack: Stack, tmp_path: Path) -> CommandLine:
    """Commands without any configuration, but for where the session's embedded stack lives."""
    return CommandLine({"MOMENTO_ETL_LOCAL_DIR": str(stack.folder)}, tmp_path)


@pytest.fixture
def faulty_dynamodb(stack: Stack) -> Iterator[FaultyDynamoDB]:
    """A DynamoDB before the session's own, which is good until its ``faults(rate, seed)`` is called."""
    with FaultyDynamoDB(stack.dynamodb_url) as server:
        yield server
