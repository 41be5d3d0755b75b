"""How commands look in help, and what a mistyped command line is told."""

from __future__ import annotations

import re
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from etlcli.errors import UsageError

__all__ = ["ClickError", "Command", "Group", "asks_for_help", "usage_error"]

# typer 0.26 and later carry a click of their own, earlier ones use the package: this is either's ClickException, the
# base of all that a command line can be wrong with.
ClickError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class Command(TyperCommand):
    """A command whose help does not say ``<bool>`` beside its flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters, flags without a metavar, and ``--help`` not in a panel of its own."""
        parameters = _plain(super().get_params(ctx))
        for parameter in parameters:
            if parameter.name == "help":
                parameter.rich_help_panel = "Output"
        return parameters


class Group(TyperGroup):
    """The same for commands that have commands."""

    def get_params(self, ctx: Any) -> list[Any]:
        """List the parameters, flags without a metavar."""
        return _plain(super().get_params(ctx))


def _plain(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


def asks_for_help(error: Exception) -> bool:
    """Whether this is no error, but the help that a bare ``momento-etl`` has printed already."""
    return type(error).__name__ == "NoArgsIsHelpError"


def usage_error(error: Exception) -> tuple[UsageError, str]:
    """Word a mistyped command line as our errors are: what is wrong, and what was probably meant.

    Returns:
        The error, and the command that it was meant for: ``local up``, or nothing where there is no such command.
    """
    context = getattr(error, "ctx", None)
    words = context.command_path.split() if context is not None else ["momento-etl"]
    text: str = error.format_message() if isinstance(error, ClickError) else str(error)  # type: ignore[attr-defined]
    text = text.replace("Value error, ", "").rstrip(".")  # pydantic's words, inside of typer's
    near = [str(option) for option in getattr(error, "possibilities", None) or ()][:1]
    text = re.sub(r" \(Possible options: .*\)$", "", text)
    text, _, commands = text.partition(". Did you mean ")
    near += re.findall(r"'([^']*)'", commands)
    hints = _meant(text, " ".join(words), context)
    if not hints and near:
        hints.append(f"Did you mean {' or '.join(near)}?")
    if not hints and len(words) == 1 and type(error).__name__ == "NoSuchOption":
        hints.append("Options follow the command: momento-etl run --table movies.")
    hints.append(f"{' '.join(words)} --help shows what there is.")
    return UsageError(text[:1].lower() + text[1:], hint=" ".join(hints)), " ".join(words[1:])


def _meant(text: str, command: str, context: Any) -> list[str]:
    """Tell what was meant where a name is near that was not: what people bring along from other programs."""
    parameters = context.command.params if context is not None else []
    options = {name for parameter in parameters for name in parameter.opts}
    if (stray := re.fullmatch(r"Got unexpected extra arguments? \((\S+)\)", text.replace("(s)", ""))) and (
        "--table" in options
    ):
        return [f"A table is named by an option: {command} --table {stray[1]}."]
    option = text.rpartition(" ")[2]
    if not text.lower().startswith("no such option"):
        return []
    if option == "--table" and "name" in options:
        return [f"The name stands alone: {command} movies."]
    if option in ("--json", "--jsonl") and "--output" in options:
        return [f"Did you mean --output {option[2:]}?"]
    return []
