"""The README: its configs are configs, its commands exist, and what it shows of exit codes and layout is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from etlcli.cli.commands import COMMANDS
from etlcli.config import load_settings
from etlcli.errors import ExitCode
from tests import docs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGS = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("config", CONFIGS)
def test_its_configs_are_configs(config: str, tmp_path: Path) -> None:
    (tmp_path / "momento-etl.toml").write_text(config, encoding="utf-8")
    environ = {"DATABASE_URL": "postgresql://host/shop", "MOMENTO_API_KEY": "key", "MASK_KEY": "key"}
    settings = load_settings(environ=environ, folder=tmp_path)
    assert settings.config_path == tmp_path / "momento-etl.toml"


def test_it_has_configs() -> None:
    assert len(CONFIGS) == 5


def test_its_exit_codes_are_the_programs() -> None:
    shown = re.findall(r"^\| ([\d, ]+) \| ", README, re.MULTILINE)
    codes = {int(code) for row in shown for code in row.split(",")}
    assert codes == {int(code) for code in ExitCode}


def test_each_message_that_it_explains_is_one_of_the_programs() -> None:
    (table,) = re.findall(r"\| it says \|.*?\n\n", README, re.DOTALL)
    said = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    assert len(said) >= 10
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "etlcli").rglob("*.py"))
    for message in said:
        assert message in code, message


def test_the_workflow_is_one_and_its_commands_are_commands() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    steps = yaml.safe_load(text)["jobs"]["copy"]["steps"]
    assert any("momento-etl run" in step.get("run", "") for step in steps)


LINES = re.findall(rf"momento-etl ((?:{'|'.join(COMMANDS)}) [^`|>#\n]*)", README.partition(docs.BEGIN)[0])


@pytest.mark.parametrize("line", LINES)
def test_its_command_lines_are_understood(line: str) -> None:
    # Up to where the listing of commands goes on with what each does.
    words = shlex.split(line.partition("  ")[0])
    if "|" in line or any(word in ("up|down|status", "show|reset") for word in words):
        return
    command: Any = COMMANDS[words[0]].load(words[0])
    for parameter in command.params:
        parameter.is_eager = False
    if not hasattr(command, "commands"):
        command.make_context(words[0], words[1:], resilient_parsing=False)


def test_the_files_it_names_exist() -> None:
    (layout,) = re.findall(r"```\netlcli/\n(.*?)```", README, re.DOTALL)
    named = re.findall(r"([a-z_]+(?:\.py|/))", layout)
    folders = {f"{path.parent.name}/" for path in (ROOT / "etlcli").glob("*/__init__.py")}
    assert folders <= set(named)
    assert len(named) > 10
    for name in named:
        assert (ROOT / "etlcli" / name).exists() or (ROOT / name).exists(), name


def test_what_the_program_says_of_itself_is_not_old() -> None:
    assert [path.name for path in docs.old()] == [], "renew them: python -m tests.docs --write"


def test_a_change_of_the_program_makes_it_old(monkeypatch: pytest.MonkeyPatch) -> None:
    command = COMMANDS["run"].load("run")
    monkeypatch.setattr(command.params[0], "help", "Something else.")
    monkeypatch.setattr(docs, "COMMANDS", {"run": SimpleNamespace(load=lambda _: command)})
    assert [path.name for path in docs.old()] == ["README.md"]


def test_its_commands_exist() -> None:
    from typer.main import get_command

    from etlcli.cli.main import app

    commands = getattr(get_command(app), "commands", {})
    named = set(re.findall(r"momento-etl ([a-z][a-z-]*)", README.partition(docs.BEGIN)[0]))
    assert named - {"itself"} <= set(commands), named
