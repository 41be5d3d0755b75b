"""What shells are offered: options, jobs of the config, tables of the source; and silence where something is wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Schema
from tests.integration.command_line import CommandLine
from tests.integration.source_helpers import role

CONFIG = """
[tables.movies]
[tables."odd name"]
[tables.actors]
"""


def offered(command_line: CommandLine, words: str) -> list[str]:
    """Ask as bash does. Nothing may be said beside the answer."""
    completing = command_line.given(
        _MOMENTO_ETL_COMPLETE="complete_bash",
        COMP_WORDS=f"momento-etl {words}",
        COMP_CWORD=str(len(words.split(" "))),
    )
    result = completing()
    assert result.err == ""
    return result.out.split("\n")[:-1] if result.out.strip() else []


@pytest.fixture
def configured(command_line: CommandLine) -> CommandLine:
    (command_line.folder / "momento-etl.toml").write_text(CONFIG)
    return command_line


def test_commands_options_and_words(bare: CommandLine) -> None:
    assert offered(bare, "insp") == ["inspect-cache"]
    assert offered(bare, "local st") == ["status"]
    assert offered(bare, "run --max") == ["--max-deletes", "--max-rejects", "--max-writes"]
    assert offered(bare, "run --mode ") == ["upsert", "replace"]
    assert offered(bare, "run --output json") == ["json", "jsonl"]
    assert offered(bare, "run --on-unrepresentable r") == ["reject"]


def test_jobs_and_tables(configured: CommandLine, schema: Schema) -> None:
    schema.execute(
        'create table films (id int); create table "Order Details" (id int); create view seen as select 1;'
        " create table parts (id int) partition by list (id); create table part_1 partition of parts default;"
        " create table secret (id int)"
    )
    with role(schema.url) as (name, url):
        schema.execute(f"grant usage on schema {schema.name} to {name}")
        schema.execute(f"grant select on all tables in schema {schema.name} to {name}")
        schema.execute(f"revoke select on secret from {name}")
        reader = configured.given(DATABASE_URL=url)
        found = offered(reader, "run --table ")
    assert found[:3] == ["movies", "odd name", "actors"]
    assert found[3:7] == ['"Order Details"', "films", "parts", "seen"]
    assert not {"secret", "part_1"} & set(found)
    assert offered(configured, "plan --table fil") == ["films"]
    assert offered(configured, "create-table fil") == ["films"]
    # A job that the cache or the state table may know is one of the config's.
    for command in ("inspect-cache", "history", "state show", "state reset"):
        assert offered(configured, f"{command} ") == ["movies", "odd name", "actors"], command


def test_the_config_that_is_named_and_the_embedded_stack(configured: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[tables.planets]\n")
    assert offered(configured, "inspect-cache --config other.toml ") == ["planets"]
    assert offered(configured, "run --local --table ") == ["movies", "odd name", "actors"]


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/d"


def test_what_is_wrong_is_passed_over(configured: CommandLine, silent: str, tmp_path: Path) -> None:
    jobs = ["movies", "odd name", "actors"]
    for url in ("postgresql://u@127.0.0.1:9/d", "postgresql://u:x%zz@h/d", "nonsense", silent):
        assert offered(configured.given(DATABASE_URL=url), "run --table ") == jobs, url
    (tmp_path / "momento-etl.toml").write_text("not TOML")
    assert offered(configured, "inspect-cache ") == []
    assert offered(configured, "inspect-cache --config no-such-file.toml ") == []
    assert offered(configured, "run --no-such-option --table x --") != []


def test_scripts_for_shells(bare: CommandLine) -> None:
    for shell, mark in (("bash", "complete "), ("zsh", "compdef"), ("fish", "complete --command")):
        shown = bare.given(_MOMENTO_ETL_COMPLETE=f"source_{shell}")()
        assert mark in shown.out, shown
        assert "momento-etl" in shown.out
    zsh = bare.given(_MOMENTO_ETL_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="momento-etl insp")()
    assert json.dumps("inspect-cache") in zsh.out
