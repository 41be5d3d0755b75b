"""``init``: with options, at a terminal, without either; what it writes is read by ``doctor``."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command_line import CommandLine


def written(folder: Path, name: str = "momento-etl.toml") -> dict[str, Any]:
    return tomllib.loads((folder / name).read_text())


def test_what_it_writes_is_what_the_doctor_reads(command_line: CommandLine, tmp_path: Path) -> None:
    result = command_line("init", "--yes", "--output", "json")
    assert result.json["config_file"] == "momento-etl.toml"
    assert result.json["missing_variables"] == []
    config = written(tmp_path)
    assert config["source"] == {"url": "env:DATABASE_URL"}
    assert config["cache"] == {"local": "env:MOMENTO_LOCAL"}
    assert config["destination"] == {"region": "env:AWS_REGION", "endpoint_url": "env:AWS_ENDPOINT_URL_DYNAMODB"}
    for secret in command_line.secrets:
        assert secret not in (tmp_path / "momento-etl.toml").read_text()
    doctor = command_line("doctor")
    assert str(tmp_path / "momento-etl.toml") in doctor.out
    again = command_line.fails("init", "--yes", code=2)
    assert "--force" in again.json["error"]["hint"]
    assert command_line("init", "--yes", "--force", "--table", "movies", "--output", "json").json["overwritten"]
    assert written(tmp_path)["tables"] == {"movies": {}}


def test_options_alone_and_secrets_left_out(bare: CommandLine, tmp_path: Path) -> None:
    url = "postgresql://ada:PLANTED-in-url@db.example.org/shop?sslmode=require"
    shown = bare(
        *("init", "--source", url, "--momento-key", "PLANTED-key", "--momento-endpoint", "cell-1.x.momentohq.com"),
        *("--region", "eu-west-1", "--cache", "etl", "--table", "sales.orders", "--config", "other.toml"),
    )
    text = (tmp_path / "other.toml").read_text()
    assert "PLANTED" not in text + shown.out + shown.err
    assert written(tmp_path, "other.toml") == {
        "source": {"url": "postgresql://ada@db.example.org/shop?sslmode=require"},
        "cache": {"api_key": "env:MOMENTO_API_KEY", "endpoint": "cell-1.x.momentohq.com", "name": "etl"},
        "destination": {"region": "eu-west-1"},
        "tables": {"sales.orders": {}},
    }
    assert "PGPASSWORD" in shown.err
    assert "Not set yet: MOMENTO_API_KEY" in shown.err
    assert shown.out == "Wrote other.toml. Next: momento-etl doctor --config other.toml\n"
    assert stat.S_IMODE((tmp_path / "other.toml").stat().st_mode) == 0o600
    bare("init", "--source", url, "--momento-key", "PLANTED-key", "--write-secrets")
    assert written(tmp_path)["source"] == {"url": url}
    assert written(tmp_path)["cache"] == {"api_key": "PLANTED-key"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["momento-etl.toml", "other.toml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no terminal"),
        (["--source", "mysql://h/d"], "--source has to be a PostgreSQL address"),
        (["--momento-local", "nowhere"], "--momento-local"),
        (["--endpoint-url", "h:8000"], "--endpoint-url"),
        (["--yes", "--cache", "x"], "--cache"),
        (["--yes", "--table", 'a"b'], "not well formed"),
        (["--yes", "--config", "no/such/folder.toml"], "cannot be written"),
        (["--yes", "--config", "file/below.toml"], "cannot be written"),
    ],
)
def test_what_cannot_be_written(bare: CommandLine, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "file").write_text("")
    error = bare.fails("init", *arguments, code=2).json["error"]
    assert words in error["message"] + error["hint"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_questions_at_a_terminal(bare: CommandLine, tmp_path: Path) -> None:
    terminal = bare.given(AWS_REGION="eu-west-1").terminal("init")
    answers = [
        ("PostgreSQL's URL", "mysql://nonsense"),
        ("has to be a PostgreSQL address[^:]*.*PostgreSQL's URL", "postgresql://ada:PLANTED-typed@db/shop"),
        ("Environment variable with the Momento API key", "no such name"),
        ("no variable's name.*Environment variable with the Momento API key", "env:MY_KEY"),
        ("Momento's endpoint", "cell-1.x.momentohq.com"),
        (r"AWS region \[env:AWS_REGION\]", ""),
        ("Tables", "movies, sales.orders"),
    ]
    for question, typed in answers:
        terminal.wait_for(f"(?s){question}.*: $")
        terminal.text = ""
        terminal.press(f"{typed}\r".encode())
    assert terminal.end() == 0
    assert "Next: momento-etl doctor" in terminal.text
    assert written(tmp_path) == {
        "source": {"url": "postgresql://ada@db/shop"},
        "cache": {"api_key": "env:MY_KEY", "endpoint": "cell-1.x.momentohq.com"},
        "destination": {"region": "env:AWS_REGION"},
        "tables": {"movies": {}, "sales.orders": {}},
    }


def test_who_does_not_answer_gets_no_file(bare: CommandLine, tmp_path: Path) -> None:
    terminal = bare.terminal("init")
    terminal.wait_for("PostgreSQL's URL.*: $")
    terminal.press(b"\x04")
    assert terminal.end() == 2
    assert re.search("error: not all questions were answered", "\n".join(terminal.lines))
    assert re.search("hint: Nothing was written", "\n".join(terminal.lines))
    interrupted = bare.terminal("init")
    interrupted.wait_for("PostgreSQL's URL.*: $")
    # Python hears of a signal that comes just before it waits for a line once that line is there.
    interrupted.press(b"\x03\r")
    assert interrupted.end() == 130
    assert list(tmp_path.iterdir()) == []
