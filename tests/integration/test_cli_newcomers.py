"""What newcomers get wrong, each told in a way that ends it: the words of the cure are in the message."""

from __future__ import annotations

import pytest

from tests.conftest import Schema
from tests.integration.command_line import CommandLine


@pytest.fixture
def films(schema: Schema) -> None:
    schema.execute("create table films (id int primary key, title text); insert into films values (1, 'Heat')")


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (("run", "films"), "A table is named by an option: momento-etl run --table films."),
        (("extract", "films"), "momento-etl extract --table films"),
        (("--local", "run", "--table", "films"), "Options follow the command: momento-etl run --table movies"),
        (("inspect-cache", "--table", "films"), "The name stands alone: momento-etl inspect-cache movies"),
        (("create-table", "--table", "films"), "The name stands alone: momento-etl create-table movies"),
        (("run", "--table", "films", "--json"), "Did you mean --output json?"),
        (("run", "--tabel", "films"), "Did you mean --table?"),
        (("runn", "--table", "films"), "Did you mean run?"),
        (("run", "--table", "film"), ".films?"),
        (("run", "--table", "films", "--columns", "id title"), "Columns have commas between them: id,title"),
        (("run", "--table", "films", "--where", "WHERE id > 0"), "Give the condition alone: --where 'id > 0'"),
        (("run", "--table", "films", "--key", "id,title,x"), "join columns in a template"),
        (("run", "--query", "select 1 as id"), "Add --table NAME"),
        (("run", "--table", "films", "--mode", "replace", "--limit", "10"), "Take mode upsert"),
        (("load", "--table", "films"), "Extract first: momento-etl extract --table films"),
        (("verify", "--table", "films"), "momento-etl run makes and fills it"),
    ],
)
@pytest.mark.usefixtures("films")
def test_a_mistake_is_told_its_cure(command_line: CommandLine, unique: str, words: tuple[str, ...], cure: str) -> None:
    away = ("--destination", unique) if words[0] in ("run", "verify") and "--table" in words else ()
    failed = command_line(*words, *away, code=1 if words[0] in ("load", "verify") else 2)
    assert cure in failed.err
    assert failed.err.count("hint: ") == 1


def test_who_has_configured_nothing_is_led_to_init(bare: CommandLine) -> None:
    assert "momento-etl init writes momento-etl.toml" in bare.fails("run", "--table", "films", code=2).err


def test_a_key_of_the_config_that_is_named_after_sql(bare: CommandLine) -> None:
    (bare.folder / "momento-etl.toml").write_text('[tables.films]\nprimary_key = ["id"]\n', encoding="utf-8")
    assert "unknown key `primary_key` in [tables.films]; did you mean `key`?" in bare.fails("plan", "--all", code=2).err
