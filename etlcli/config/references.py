"""Values that stand for others: ``env:NAME``, and later ``ssm:/name`` and ``secretsmanager:name[#field]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from etlcli.errors import ConfigError

__all__ = ["Resolver", "is_reference", "resolve"]

Resolver: TypeAlias = Callable[[str, Mapping[str, str]], str]
"""Turns a reference into what it stands for, given the environment; raises ``ConfigError``, whose message starts with
the reference and names no value."""

_KINDS = ("env:", "ssm:", "secretsmanager:")


def is_reference(text: str) -> bool:
    """Whether a configured text stands for another value."""
    return text.startswith(_KINDS)


def resolve(reference: str, environ: Mapping[str, str]) -> str:
    """Look up what a reference stands for. What is found is taken literally, even where it looks like a reference.

    Raises:
        ConfigError: The variable is missing or empty, or the kind of reference is not available.
    """
    kind, _, name = reference.partition(":")
    if kind != "env":
        raise ConfigError(
            f"{reference} is a reference that is not available in this version",
            hint="Put the secret into an environment variable, and refer to it by env:NAME.",
        )
    if not name:
        raise ConfigError("env: names no environment variable", hint="Write env:NAME, for example env:DATABASE_URL.")
    value = environ.get(name, "")
    if not value.strip():
        raise ConfigError(
            f"{reference} refers to the environment variable {name}, which is not set",
            hint=f"Set {name} in the environment of this command.",
        )
    return value
