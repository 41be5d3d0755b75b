"""Values that stand for others: ``env:NAME``, ``ssm:/name`` and ``secretsmanager:name[#field]``.

Here is what can be told of a reference by its form, and the environment is looked into. Whoever else is asked comes
from outside, as a ``Resolver``: this package knows no SDK.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from etlcli.errors import ConfigError

__all__ = [
    "Reference",
    "Resolver",
    "Surroundings",
    "is_reference",
    "is_remote",
    "of_environment",
    "parse",
    "refuse",
    "resolve",
]

Store: TypeAlias = Literal["ssm", "secretsmanager"]

_REMOTE: tuple[Store, ...] = ("ssm", "secretsmanager")
_EXAMPLES: Mapping[Store, str] = {
    "ssm": "ssm:/etl/database-url",
    "secretsmanager": "secretsmanager:etl/database#password",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference to a value that AWS keeps.

    Attributes:
        store: Where.
        name: The name or the ARN of a parameter (with its version or label, as SSM takes it: ``/name:3``) or a secret.
        field: The field of a secret that is a JSON object; None for all of it.
    """

    store: Store
    name: str
    field: str | None = None

    def __str__(self) -> str:
        """As it stands in the config."""
        return f"{self.store}:{self.name}" + ("" if self.field is None else f"#{self.field}")

    @property
    def region(self) -> str | None:
        """The region that an ARN names; None for a name."""
        parts = self.name.split(":")
        return parts[3] if parts[0] == "arn" and len(parts) > 5 and parts[3] else None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where AWS is asked, as the configuration says it; what is None is found as boto3 finds it.

    Attributes:
        region: ``region`` below [destination], or its variables.
        profile: ``profile`` below [destination], or its variables.
    """

    region: str | None = None
    profile: str | None = None


Resolver: TypeAlias = Callable[[Reference, Surroundings], str]
"""Finds what a reference stands for. It raises ``ConfigError``, whose message starts with the reference and holds no
value, for what stays until somebody does something; ``Unavailable``, worded alike, for what passes by itself."""


def is_reference(text: str) -> bool:
    """Whether a configured text stands for another value."""
    return text.startswith("env:") or is_remote(text)


def is_remote(text: str) -> bool:
    """Whether AWS has to be asked for the value that a configured text stands for."""
    return text.startswith(tuple(f"{store}:" for store in _REMOTE))


def of_environment(reference: str, environ: Mapping[str, str]) -> str:
    """Look up what ``env:NAME`` stands for. It is taken literally, even where it looks like a reference.

    Raises:
        ConfigError: The variable is missing or empty.
    """
    name = reference.partition(":")[2]
    if not name:
        raise ConfigError("env: names no environment variable", hint="Write env:NAME, for example env:DATABASE_URL.")
    value = environ.get(name, "")
    if not value.strip():
        raise ConfigError(
            f"{reference} refers to the environment variable {name}, which is not set",
            hint=f"Set {name} in the environment of this command.",
        )
    return value


def parse(text: str) -> Reference:
    """Read a reference to a value that AWS keeps.

    Raises:
        ConfigError: It names nothing.
    """
    kind, _, rest = text.partition(":")
    (store,) = (each for each in _REMOTE if each == kind)
    # Neither the name of a secret nor an ARN can have a # in it, and that of a field can.
    name, hash_sign, field = rest.partition("#") if store == "secretsmanager" else (rest, "", "")
    if not name.strip() or (hash_sign and not field):
        what = "field" if name.strip() else "parameter" if store == "ssm" else "secret"
        raise ConfigError(f"{text} names no {what}", hint=f"For example: {_EXAMPLES[store]}")
    if store == "ssm" and "#" in name:
        raise ConfigError(
            f"{text} has a #, which no parameter's name has",
            hint=f"Fields are for JSON in Secrets Manager: {_EXAMPLES['secretsmanager']}",
        )
    return Reference(store, name, field if hash_sign else None)


def refuse(reference: Reference, _: Surroundings) -> str:
    """The resolver where nobody was named that could ask AWS.

    Raises:
        ConfigError: Always.
    """
    raise ConfigError(
        f"{reference} cannot be looked up here",
        hint="Put the secret into an environment variable, and refer to it by env:NAME.",
    )


def resolve(text: str, environ: Mapping[str, str]) -> str:
    """Look up a reference outside of a config, where only the environment is asked.

    Raises:
        ConfigError: The variable is missing or empty, or it is AWS that would have to be asked.
    """
    return refuse(parse(text), Surroundings()) if is_remote(text) else of_environment(text, environ)
