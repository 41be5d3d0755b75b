"""The table of commands says what they say themselves, and what is not called is not imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from etlcli.cli.commands import COMMANDS

SDKS = {"momento", "psycopg", "boto3", "botocore", "aiohttp", "grpc", "moto", "momento_wire_types"}

NATIVE = {"orjson", "zstandard", "uvloop"}
"""No SDKs, and what mistyped words are answered with needs some of them."""

# Under this name a command line is run, and what it imported is told on a last line of stdout.
SCRIPT = """
import sys
from etlcli.cli.main import main
try:
    main()
finally:
    print()
    print(*sys.modules)
"""


def imported_by(*arguments: str, code: int) -> set[str]:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == code, ended
    modules = ended.stdout.splitlines()[-1].split()
    assert "etlcli.cli.main" in modules
    return set(modules)


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(("arguments", "code"), [(("--help",), 0), (("--version",), 0), ((), 2)])
def test_help_and_version_import_no_sdk_and_no_command(arguments: tuple[str, ...], code: int) -> None:
    modules = imported_by(*arguments, code=code)
    assert not packages(modules) & (SDKS | NATIVE)
    own = {name for name in modules if name.startswith("etlcli.")}
    assert own == {"etlcli.cli", "etlcli.cli.commands", "etlcli.cli.help", "etlcli.cli.main", "etlcli.errors"}


@pytest.mark.parametrize(
    "arguments", [("--halp",), ("ruin",), ("run", "--tabel", "films"), ("local", "upp"), ("inspect-cache",)]
)
def test_a_mistyped_command_line_imports_no_sdk(arguments: tuple[str, ...]) -> None:
    assert not packages(imported_by(*arguments, code=2)) & SDKS


@pytest.mark.parametrize("command", [("run",), ("plan",), ("local",), ("local", "up"), ("state", "show")])
def test_a_commands_own_help_imports_no_sdk(command: tuple[str, ...]) -> None:
    assert not packages(imported_by(*command, "--help", code=0)) & SDKS


@pytest.mark.parametrize("command", [("plan", "--table", "x"), ("extract", "--table", "x"), ("load", "--table", "x")])
def test_a_configuration_that_refers_to_no_secret_of_aws_is_settled_without_its_sdk(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "config.toml"
    # The last thing that is looked at; what AWS keeps for other sections is not looked up.
    file.write_text("[source]\nurl = 'env:NONE'\n[cache]\napi_key = 'env:NONE'\n[tables.y]\nmask_key = 'ssm:/x'\n")
    modules = imported_by(*command, "--config", str(file), code=2)
    assert "etlcli.secrets.store" in modules
    assert not packages(modules) & {"boto3", "botocore"}


@pytest.mark.parametrize("words", ["momento-etl ", "momento-etl run --", "momento-etl local "])
def test_a_completion_imports_no_sdk(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MOMENTO_ETL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    assert not packages(imported_by(code=0)) & SDKS


def leaves() -> Iterator[tuple[str, Any]]:
    """All commands that do something, by what they are called with."""
    for name in COMMANDS:
        command = COMMANDS[name].load(name)
        for called, each in getattr(command, "commands", {"": command}).items():
            yield f"{name} {called}".strip(), each


@pytest.mark.parametrize(("name", "command"), [pytest.param(*each, id=each[0]) for each in leaves()])
def test_every_command_has_examples_of_itself_and_a_word_on_each_option(name: str, command: Any) -> None:
    # What is longer is broken on a screen of 80 columns, in the middle of a paragraph.
    assert max(map(len, command.help.partition("\n\n")[2].splitlines())) <= 78, name
    _, _, examples = command.help.rpartition("Example")
    lines = [line.strip() for line in examples.splitlines()[1:] if line.strip()]
    assert lines, name
    for line in lines:
        assert line.startswith(f"momento-etl {name}"), line
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name


@pytest.mark.parametrize("name", COMMANDS)
def test_a_summary_is_what_the_commands_own_help_begins_with(name: str) -> None:
    command = COMMANDS[name].load(name)
    first, _, _ = command.help.partition("\n\n")
    assert COMMANDS[name].summary == first
    if not hasattr(command, "commands"):
        assert command.name == name
    # Completion is installed for the whole command line, not for one of its commands.
    assert not {parameter.name for parameter in command.params} & {"install_completion", "show_completion"}
