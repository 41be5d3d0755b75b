"""What every command prints with ``--output json|jsonl`` is as its published schema says: on success, on failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from etlcli.cli.commands import COMMANDS
from etlcli.cli.main import app
from tests.conftest import Schema
from tests.integration.command_line import CommandLine
from tests.integration.responder import Responder
from tests.published import refuse_misfit

CONFIG = """
[tables.small]
destination = "{name}"
cache = "{name}"
incremental_key = "n"
"""
SUCCEEDING: dict[str, list[list[str]]] = {
    "run": [["--table", "small"], ["--all"], ["--all", "--dry-run"], ["--table", "small", "--dry-run"]],
    "extract": [["--table", "small", "--full-refresh"]],
    "load": [["--table", "small", "--verify"]],
    "plan": [["--table", "small", "--exact", "--full-refresh"], ["--all"]],
    "verify": [["--table", "small", "--sample", "5"], ["--table", "small", "--source"]],
    "inspect-cache": [["small"], ["small", "--row", "3"], ["small", "--rejects"], ["small", "--check"]],
    "create-table": [["small"]],
    "history": [[], ["small"]],
    "doctor": [[]],
    "init": [["--yes", "--config", "new.toml"]],
    "state show": [[], ["small"]],
    "state reset": [["small"]],
    "local status": [[]],
    "local up": [[]],
    "local down": [[]],
    "deploy": [["--out", "aws", "--table", "small"]],
}
FAILING: dict[str, list[list[str]]] = {
    "run": [["--table", "nothing"], ["--table", "small", "--table", "nothing"], ["--tabel", "x"], []],
    "extract": [["--table", "nothing"]],
    "load": [["--table", "nothing"]],
    "plan": [["--table", "nothing"], ["--table", "nothing", "--table", "nobody"], ["--momento-limit", "0"]],
    "verify": [["--table", "nothing"], ["--seed", "1"]],
    "inspect-cache": [["nothing"], ["small", "--row", "x"]],
    "create-table": [["nothing"]],
    "history": [["--run-id", "x"]],
    "doctor": [["--table", "nothing"]],
    "init": [["--yes"]],
    "state show": [["nothing"]],
    "state reset": [["nothing"]],
    "local status": [["--nothing"]],
    "local up": [[]],
    "local down": [[]],
    "deploy": [[]],
}


def _called(command: Any) -> list[tuple[str, Any]]:
    return list(getattr(command, "commands", {"": command}).items())


def commands() -> Iterator[str]:
    """All commands that answer in JSON."""
    for name in COMMANDS:
        command = COMMANDS[name].load(name)
        for called, each in _called(command):
            if any(parameter.name == "output" for parameter in each.params):
                yield f"{name} {called}".strip()


def test_every_command_is_tried() -> None:
    assert set(SUCCEEDING) == set(FAILING) == set(commands())
    assert set(COMMANDS) == set(getattr(get_command(app), "commands", {}))


@pytest.fixture
def configured(forked: CommandLine, schema: Schema, unique: str, tmp_path: Path) -> CommandLine:
    schema.execute(
        "create table small (id integer primary key, n numeric);"
        " insert into small select n, n from generate_series(1, 9) n; insert into small values (10, 'NaN')"
    )
    (forked.folder / "momento-etl.toml").write_text(CONFIG.format(name=unique))
    return forked.given(MOMENTO_ETL_LOCAL_DIR=str(tmp_path / "nothing-runs-here"))


def test_what_succeeds(configured: CommandLine, bare: CommandLine) -> None:
    for command, calls in SUCCEEDING.items():
        for arguments in calls:
            line = bare if command == "local up" else configured
            process = line.start(*command.split(), *arguments, "--output", "json")
            result = line.finish(process, command, *arguments)
            assert result.code in (0, 3), result
            assert result.json["command"] == command
            assert result.json["status"] in ("succeeded", "rejected_rows")
    run = next(run for run in configured("history", "--output", "json").json["runs"] if run["columns"])
    one = configured("history", "--run-id", run["run_id"], "--output", "json").json
    assert [column["name"] for column in one["run"]["schema"]] == ["id", "n"]


def test_what_fails(configured: CommandLine, tmp_path: Path) -> None:
    configured("run", "--table", "small", code=3)
    (tmp_path / "file").write_text("")
    closed = configured.given(MOMENTO_ETL_LOCAL_DIR=str(tmp_path / "file" / "below"))
    for command, calls in FAILING.items():
        for arguments in calls:
            line = closed if command in ("local up", "local down") else configured
            result = line.finish(line.start(*command.split(), *arguments, "--output", "json"), command, *arguments)
            if command == "local down":
                continue  # there is nothing that could be stopped
            assert result.code in (1, 2), result
            assert result.json["status"] == "failed"
    for nonsense in (["ruin"], ["local", "upp"], ["--halp"]):
        assert configured(*nonsense, "--output", "json", code=2).json["status"] == "failed"


def test_events(configured: CommandLine) -> None:
    lines: list[dict[str, Any]] = []
    for arguments in (["plan", "--all"], ["run", "--all"], ["run", "--table", "small", "--table", "nothing"]):
        process = configured.start(*arguments, "--output", "jsonl")
        lines += map(json.loads, configured.finish(process, *arguments).out.splitlines())
    # Events of progress come by the second, so this run is held up until one has come.
    started = replace(configured, mortals=None)
    with Responder(BatchWriteItem=0) as responder:
        held = started.given(AWS_ENDPOINT_URL_DYNAMODB=responder.url)
        process = held.start("run", "--table", "small", "--full-refresh", "--output", "jsonl")
        assert process.stdout is not None
        lines.append(json.loads(process.stdout.readline()))
        responder.release()
        lines += map(json.loads, held.finish(process, "run").out.splitlines())
    assert {line.get("event") for line in lines} == {"progress", "job", None}
    for line in lines:
        refuse_misfit(line)
