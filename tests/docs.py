"""What is written by the program about itself: the README's reference, the example config, the schemas.

python -m tests.docs            tells which of them are old
python -m tests.docs --write    writes them anew
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etlcli.cli.commands import COMMANDS
from etlcli.config import SECTIONS, Option, example_file
from etlcli.config.outline import header
from etlcli.config.schema import Section
from etlcli.json_schema import config_schema, summary_schema

__all__ = ["BEGIN", "END", "generated", "old"]

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- reference: written by python -m tests.docs --write -->", "<!-- reference: end -->"
_WIDTH = 100
_COLUMN = 30


def generated() -> dict[Path, str]:
    """Every file that has generated text in it, as it should be."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return {
        readme: f"{before}{BEGIN}\n\n{reference()}\n{END}{after}",
        ROOT / "config.example.toml": example_file(),
        ROOT / "tests" / "schemas" / "summary.json": _json(summary_schema()),
        ROOT / "tests" / "schemas" / "config.json": _json(config_schema()),
    }


def old() -> list[Path]:
    """The files that are not as they should be."""
    return [path for path, text in generated().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def reference() -> str:
    """The reference: each command's help, and each section of the config, folded."""
    blocks = ["### Commands\n"]
    blocks += [_folded(f"momento-etl {name}", f"```text\n{_help(name, command)}```\n") for name, command in _leaves()]
    blocks.append("### Configuration\n")
    blocks += [_folded(header(section), _table(section)) for section in SECTIONS.values()]
    return "\n".join(blocks)


def _folded(title: str, content: str) -> str:
    return f"<details><summary><code>{title}</code></summary>\n\n{content}\n</details>\n"


def _leaves() -> Iterator[tuple[str, Any]]:
    for name, entry in COMMANDS.items():
        command = entry.load(name)
        for called, each in getattr(command, "commands", {"": command}).items():
            yield f"{name} {called}".strip(), each


def _help(name: str, command: Any) -> str:
    """One command's help as plain text; it does not depend on what draws it on a screen."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    words = [each.metavar if each.required else f"[{each.metavar}]" for each in arguments]
    usage = " ".join(["momento-etl", name, *words, *(["[OPTIONS]"] if options else [])])
    lines = [usage, "", *command.help.strip().splitlines()]
    panels: dict[str, list[Any]] = {"Arguments": arguments} if arguments else {}
    for option in options:
        panels.setdefault(option.rich_help_panel or "Options", []).append(option)
    for panel, parameters in panels.items():
        lines += ["", f"{panel}:"]
        for parameter in parameters:
            lines += _described(parameter)
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _described(parameter: Any) -> list[str]:
    if parameter.param_type_name == "argument":
        label = str(parameter.metavar)
    else:
        names = ", ".join(sorted(parameter.opts, key=lambda name: not name.startswith("--")))
        label = names if parameter.is_flag else f"{names} {parameter.metavar}"
    about = (parameter.help or "").replace("\\[", "[")
    if (
        isinstance(parameter.default, int | str)
        and not getattr(parameter, "is_flag", False)
        and "[default" not in about
    ):
        about += f" [default: {parameter.default}]"
    wrapped = textwrap.wrap(about, _WIDTH - _COLUMN)
    if len(label) > _COLUMN - 4:
        return [f"  {label}", *(" " * _COLUMN + line for line in wrapped)]
    first, *rest = wrapped or [""]
    return [f"  {label.ljust(_COLUMN - 2)}{first}", *(" " * _COLUMN + line for line in rest)]


def _table(section: Section) -> str:
    lines = [section.doc, "", "| key | what it does | example | also by |", "|---|---|---|---|"]
    lines += [_row(option) for option in section.options.values()]
    return "\n".join(lines) + "\n"


def _row(option: Option) -> str:
    about = option.doc
    if option.default not in (None, ""):
        is_default = option.kind.of_toml(option.example_value()) == option.default
        shown = option.example if is_default else json.dumps(option.default, default=str)
        about += f" Default: `{shown}`."
    ways = [*([option.flag] if option.flag else []), *option.environment]
    cells = (f"`{option.name}`", about, f"`{option.example}`", " ".join(f"`{way}`" for way in ways))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _main() -> int:
    stale = old()
    if "--write" in sys.argv[1:]:
        for path, text in generated().items():
            path.write_text(text, encoding="utf-8")
    for path in stale:
        sys.stdout.write(f"{path.relative_to(ROOT)} {'is written' if '--write' in sys.argv[1:] else 'is old'}\n")
    return 0 if not stale or "--write" in sys.argv[1:] else 1


if __name__ == "__main__":
    sys.exit(_main())
