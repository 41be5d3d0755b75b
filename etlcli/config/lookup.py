"""Looking up what AWS keeps for the configuration, once it is clear that it is needed.

``load`` leaves such values open. Whoever uses a section has its open values looked up first, so that a ``load`` neither
waits for a password that only ``extract`` needs, nor asks for the right to read it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from etlcli.config.kinds import BadValue
from etlcli.config.problems import Problem, as_error
from etlcli.config.references import parse
from etlcli.config.schema import SECTIONS, Option, SourceSettings, TableSettings
from etlcli.config.settings import Open, Origin, Settings
from etlcli.errors import ConfigError, TransientError
from etlcli.hidden import hide, hide_within

__all__ = ["look_up", "misfit", "read_text", "used"]


def used(settings: Settings, *sections: str) -> Settings:
    """Look up all that is open in these sections, now that they are used: ``source``, ``tables.movies``.

    Raises:
        ConfigError: Their values are wrong.
        TransientError: AWS does not answer just now.
    """
    settings = look_up(settings, *sections)
    problems = [problem for section in sections for problem in settings.problems(section)]
    if problems:
        raise as_error(problems)
    return settings


def look_up(settings: Settings, *sections: str, without: Collection[str] = ()) -> Settings:
    """Do the same, and leave what is wrong to whoever asks for it (``Settings.problems``).

    Args:
        settings: The configuration.
        sections: What is about to be used.
        without: Options, by ``section.key``, that stay open.

    Raises:
        TransientError: AWS does not answer just now.
    """
    values: dict[str, dict[str, Any]] = {}
    deferred = dict(settings.deferred)
    found = [path for path in settings.open_values if path.rpartition(".")[0] in sections and path not in without]
    for path in found:
        outcome = _value_of(settings.open_values[path], settings)
        section, _, key = path.rpartition(".")
        if isinstance(outcome, Problem):
            deferred[path] = outcome
        elif outcome is not None:
            values.setdefault(section, {})[key] = outcome
    if not found:
        return settings
    return replace(
        settings,
        **_filled(settings, values),
        deferred=MappingProxyType(deferred),
        open_values=MappingProxyType(
            {path: value for path, value in settings.open_values.items() if path not in found}
        ),
    )


def _filled(settings: Settings, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Put values into the sections that they belong to."""
    filled: dict[str, Any] = {}
    tables = dict(settings.tables)
    for section, given in values.items():
        kind, _, name = section.partition(".")
        if SECTIONS[kind].named:
            tables[name] = replace(tables.get(name, TableSettings()), **given)
        elif kind == "source":
            filled[kind] = replace(settings.source or SourceSettings(), **given)
        else:
            filled[kind] = replace(getattr(settings, kind), **given)
    return {**filled, "tables": MappingProxyType(tables)}


def _value_of(wanted: Open, settings: Settings) -> object:
    """Look up one value; a ``Problem`` where it cannot be had, or is of no use."""
    option, origin = wanted.option, wanted.origin
    try:
        text = settings.resolver(parse(wanted.reference), settings.surroundings)
        return read_text(option, wanted.reference, text)
    except BadValue as error:
        return misfit(option, origin, error)
    except ConfigError as error:
        return Problem(f"{origin.text}: {error.message}", error.hint, origin.line)
    except TransientError as error:
        raise type(error)(f"{origin.text}: {error.message}", hint=error.hint) from error


def read_text(option: Option, reference: str, text: str) -> object:
    """Read what a reference led to.

    Raises:
        BadValue: It does not fit. Whatever it is stays out of messages: it may be the wrong secret.
    """
    if option.secret:
        hide(text)
        hide_within(text)
    try:
        return option.kind.of_text(text)
    except BadValue as error:
        raise BadValue(f"has to be {option.kind.expects}; {reference} is something else", error.hint) from None


def misfit(option: Option, origin: Origin, error: BadValue) -> Problem:
    """Make a problem of a value that does not fit."""
    if origin.level == "file":
        hint = error.hint or f"For example: {option.name} = {option.example}"
    else:
        hint = error.hint or f"For example: {origin.text}={option.example_text()}"
        if not option.is_own(origin.text):
            hint += f"\nWhere {origin.text} is meant for another program, {option.environment[0]} beats it."
    return Problem(f"{origin.text} {error.problem}", hint, origin.line)
