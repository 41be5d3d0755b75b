"""A configuration that was read: frozen, with where each value came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from etlcli.config.problems import Problem
from etlcli.config.references import Resolver, Surroundings, refuse
from etlcli.config.schema import (
    SECTIONS,
    CacheSettings,
    DestinationSettings,
    Option,
    PriceSettings,
    SourceSettings,
    StateSettings,
    TableSettings,
)
from etlcli.model import CreateOptions

__all__ = ["HALVES", "Half", "Open", "Origin", "Settings", "create_options"]

Half: TypeAlias = Literal["source", "cache", "destination"]
"""What a command can need to reach; the section of the same name says how."""

HALVES: tuple[Half, ...] = ("source", "cache", "destination")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    Attributes:
        level: The file, or what beats it.
        text: The place, in words for messages: ``MOMENTO_API_KEY``, ``momento-etl.toml, line 4: `ttl` in [cache]``.
        line: The line in the file, as far as it is known.
    """

    level: Literal["file", "environment", "flag", "embedded"]
    text: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """A value that AWS keeps, and that nobody has looked up yet.

    Attributes:
        option: What it is a value of.
        reference: What it was given as: ``ssm:/name``.
        origin: Where that stands.
    """

    option: Option
    reference: str
    origin: Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """File and environment, merged; what a command asks for beyond that is in its flags.

    Attributes:
        source: The database; None where none is configured, and with an empty ``url`` where libpq's own environment
            variables say where it is.
        cache: The cache; whether it can be reached with this is ``require``'s to say.
        destination: DynamoDB; the same.
        state: The table that outlives runs.
        prices: What costs are reckoned with.
        tables: The jobs by their section's name.
        config_path: The config file; None where there is none.
        local: Whether the embedded stack was asked for (``--local``).
        origins: Where each value that somebody gave came from, by ``section.key``.
        notices: What a person should be told: an environment variable that overrides the file, for example.
        deferred: What is wrong with values that only matter where their section is used (a reference to a variable
            that is missing, say), by ``section.key``.
        open_values: The values that AWS keeps, by ``section.key``, until ``lookup.used`` puts them where they belong.
        resolver: Who looks them up.
        surroundings: Where.
        libpq: The environment variables present by which libpq finds the database.
        aws_config: The AWS config file, where botocore may find region and profile; None where there is none.
    """

    source: SourceSettings | None
    cache: CacheSettings
    destination: DestinationSettings
    state: StateSettings
    prices: PriceSettings
    tables: Mapping[str, TableSettings]
    config_path: Path | None
    local: bool
    origins: Mapping[str, Origin]
    notices: tuple[str, ...]
    deferred: Mapping[str, Problem]
    libpq: tuple[str, ...]
    aws_config: Path | None
    open_values: Mapping[str, Open] = field(default_factory=dict)
    resolver: Resolver = field(default=refuse, repr=False, compare=False)
    surroundings: Surroundings = field(default_factory=Surroundings)

    def connects(self, half: Half) -> bool:
        """Whether file or environment say anything on how to reach this half."""
        if half == "source" and self.libpq:
            return True
        return any(option.connects and option.path in self.origins for option in SECTIONS[half].options.values())

    def problems(self, section: str) -> list[Problem]:
        """List what is wrong with a section's values, now that it is used: ``cache``, ``tables.movies``."""
        return [problem for path, problem in self.deferred.items() if path.rpartition(".")[0] == section]


def create_options(settings: Settings) -> CreateOptions:
    """Take out what a new destination table gets besides its key."""
    wanted = settings.destination
    return CreateOptions(
        tags=dict(wanted.tags or {}),
        point_in_time_recovery=wanted.point_in_time_recovery,
        deletion_protection=wanted.deletion_protection,
        ttl_attribute=wanted.ttl_attribute,
    )
