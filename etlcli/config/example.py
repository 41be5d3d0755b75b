"""The example file, made from the schema: every option there is, with its description, commented out."""

from __future__ import annotations

from textwrap import wrap

from etlcli.config.document import CONFIG_VARIABLE, FILE_NAME
from etlcli.config.outline import header
from etlcli.config.schema import SECTIONS, Option

__all__ = ["example_file"]

_WIDTH = 118

_INTRODUCTION = f"""\
A config for momento-etl, with every option there is. Copy it to {FILE_NAME} and take the # from the lines you need.

It is looked for in this order: --config FILE; the variable {CONFIG_VARIABLE}; {FILE_NAME} in the current folder; \
momento-etl/config.toml in your config folder ($XDG_CONFIG_HOME, or ~/.config).

Options of the command line beat the environment, and the environment beats this file. Where an option can be given by \
environment variables, they are listed, the strongest first.

A text can stand for a value that is kept elsewhere; keep passwords and keys there, not here. "env:NAME": an \
environment variable. "ssm:/name": a parameter of AWS Systems Manager ("ssm:/name:3": a version of it). \
"secretsmanager:name": a secret, by name or ARN ("secretsmanager:name#field": a field of its JSON). AWS is asked once, \
when the value is needed.

Durations: "90s", "80m", "24h", or a number of seconds. Sizes: "256KB", "80MB", "1GiB", or a number of bytes. Shares: \
"50%", or a number.

Names of columns with spaces and the like stand in quotes where TOML wants it: cast = {{ "Unit Price" = "S" }}. In a \
template, a name with braces, a colon or outer spaces stands in quotes within the braces: '{{"odd: name"}}'."""


def example_file() -> str:
    """Write the example file."""
    blocks = [_comment(_INTRODUCTION)]
    for section in SECTIONS.values():
        blocks.append(f"{_comment(section.doc)}\n{header(section, 'movies')}")
        blocks += [_block(option) for option in section.options.values()]
    return "\n\n".join(blocks) + "\n"


def _block(option: Option) -> str:
    about = option.doc
    if option.default not in (None, ""):
        is_default = option.kind.of_toml(option.example_value()) == option.default
        about += f" Default: {option.example if is_default else _toml(option.default)}."
    if option.flag:
        about += f" On the command line: {option.flag}."
    lines = [_comment(about)]
    if option.environment:
        lines.append(_comment(f"Environment: {', '.join(option.environment)}"))
    # Without a space after the #: this is what a reader (and the test that parses the file) uncomments.
    lines.append(f"#{option.name} = {option.example}")
    return "\n".join(lines)


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"'


def _comment(text: str) -> str:
    lines = []
    for paragraph in text.split("\n"):
        lines += wrap(paragraph, _WIDTH) or [""]
    return "\n".join(f"# {line}".rstrip() for line in lines)
