"""Every option there is, each described once: parsing, messages, the example file and the docs are made from here.

A section of the file is a dataclass, an option a field made by ``option()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal

from etlcli.config.kinds import (
    Choice,
    Count,
    Duration,
    DynamoUrl,
    Endpoint,
    Flag,
    HostPort,
    Kind,
    NameList,
    PostgresAddress,
    ResourceName,
    Size,
    Tags,
    Text,
)

__all__ = [
    "LIBPQ_VARIABLES",
    "PREFIX",
    "SECTIONS",
    "CacheSettings",
    "DestinationSettings",
    "Option",
    "Section",
    "SourceSettings",
    "TableSettings",
    "option_named",
]

PREFIX = "MOMENTO_ETL_"
"""What this package's own environment variables start with: ``MOMENTO_ETL_<SECTION>_<KEY>``."""

LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE")
"""libpq's variables that name a server or a database, so that any of them configures the source. Others (PGPASSWORD,
PGSSLMODE, PGAPPNAME) only add to these."""

_METADATA = "etlcli.option"
_TTL = Duration(minimum=1, maximum=24 * 3600)


@dataclass(frozen=True, slots=True)
class Option:
    """One option, as its field describes it.

    Attributes:
        section: The section that it stands in.
        name: Its key in the file.
        kind: What it takes.
        doc: What it does, in a sentence or two.
        example: A value as TOML text, for the example file.
        default: What counts where nobody gives it.
        environment: The environment variables that give it, first one first; empty where none can.
        flag: The command line's option that gives it; None where there is none.
        secret: Whether its value must never be shown.
        connects: Whether it alone says that its section's service is meant to be used.
    """

    section: str
    name: str
    kind: Kind
    doc: str
    example: str
    default: object
    environment: tuple[str, ...]
    flag: str | None
    secret: bool
    connects: bool

    @property
    def path(self) -> str:
        """Section and key, as messages name it: ``cache.ttl``."""
        return f"{self.section}.{self.name}"

    def example_value(self) -> object:
        """The example as ``tomllib`` reads it."""
        import tomllib

        return tomllib.loads(f"example = {self.example}")["example"]

    def example_text(self) -> str:
        """The example as the command line takes it: quoted for a shell, a list with commas."""
        import shlex

        value = self.example_value()
        return shlex.quote(",".join(value) if isinstance(value, list) else str(value))


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the file.

    Attributes:
        name: Its name.
        settings: The dataclass that it becomes.
        doc: What it is about.
        named: Whether the file has one for each name (``[tables.movies]``) instead of one in all.
        options: Its options by key.
    """

    name: str
    settings: type
    doc: str
    named: bool
    options: Mapping[str, Option]


@dataclass(frozen=True, slots=True)
class _Description:
    """What ``option()`` keeps in a field's metadata."""

    kind: Kind
    doc: str
    example: str
    aliases: tuple[str, ...]
    flag: str | None
    secret: bool
    connects: bool


def option(
    kind: Kind,
    doc: str,
    *,
    example: str,
    default: object = None,
    aliases: tuple[str, ...] = (),
    flag: str | None = None,
    secret: bool = False,
    connects: bool = False,
) -> Any:
    """Make a dataclass field that describes an option; see ``Option`` for the parts.

    ``aliases`` are environment variables besides this package's own.
    """
    description = _Description(kind, doc, example, aliases, flag, secret, connects)
    return field(default=default, repr=not secret, metadata={_METADATA: description})


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """The PostgreSQL database that rows come from."""

    url: str = option(
        PostgresAddress(),
        "Where PostgreSQL is. Left out, libpq's own variables count (PGHOST, PGDATABASE, PGSERVICE, ...).",
        example='"postgresql://user@host:5432/database"',
        default="",
        aliases=("DATABASE_URL",),
        secret=True,
        connects=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """The Momento cache that rows pass through."""

    api_key: str | None = option(
        Text("a Momento API key", shown=False),
        "A Momento API key. A v2 key goes with `endpoint`; a legacy key carries its endpoint and goes alone.",
        example='"env:MY_MOMENTO_KEY"',
        aliases=("MOMENTO_API_KEY", "MOMENTO_AUTH_TOKEN"),
        secret=True,
        connects=True,
    )
    endpoint: str | None = option(
        Endpoint(),
        "The endpoint that goes with a v2 key, as the Momento console shows it.",
        example='"cell-4-us-west-2-1.prod.a.momentohq.com"',
        aliases=("MOMENTO_ENDPOINT",),
        connects=True,
    )
    local: str | None = option(
        HostPort(),
        "Host and port of a Momento Local, in place of `api_key` and `endpoint`.",
        example='"127.0.0.1:8080"',
        aliases=("MOMENTO_LOCAL",),
        connects=True,
    )
    name: str | None = option(
        ResourceName("a cache's name"),
        "One cache for all jobs. Left out, each job has a cache of its own, named after it.",
        example='"etl"',
    )
    ttl: int = option(
        _TTL,
        "How long entries stay in the cache: 1s to 24h.",
        example='"80m"',
        default=4800,
    )
    layout: Literal["packed"] = option(
        Choice("packed", later=("rows",)),
        "How rows are kept: many of them packed and compressed into each entry.",
        example='"packed"',
        default="packed",
    )
    max_cached_bytes: int = option(
        Size(minimum=1_000_000),
        "The most that a run keeps in the cache at one time: 1MB or more.",
        example='"80MB"',
        default=80_000_000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSettings:
    """DynamoDB, where rows go. Credentials are found as boto3 finds them."""

    region: str | None = option(
        Text("an AWS region's name"),
        "The AWS region of the tables.",
        example='"eu-west-1"',
        aliases=("AWS_REGION", "AWS_DEFAULT_REGION"),
        connects=True,
    )
    endpoint_url: str | None = option(
        DynamoUrl(),
        "Another address than AWS's own: for DynamoDB Local and the like.",
        example='"http://127.0.0.1:8000"',
        aliases=("AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"),
        connects=True,
    )
    profile: str | None = option(
        Text("a profile's name"),
        "The profile in ~/.aws that credentials and region come from.",
        example='"data-team"',
        aliases=("AWS_PROFILE", "AWS_DEFAULT_PROFILE"),
        connects=True,
    )
    tags: Mapping[str, str] | None = option(
        Tags(),
        "Tags of the tables that are created.",
        example='{ team = "data", stage = "test" }',
    )
    point_in_time_recovery: bool = option(
        Flag(),
        "Whether created tables keep continuous backups.",
        example="true",
        default=False,
    )
    deletion_protection: bool = option(
        Flag(),
        "Whether created tables refuse to be deleted.",
        example="true",
        default=False,
    )
    ttl_attribute: str | None = option(
        Text("an attribute's name"),
        "The attribute by which created tables expire items: seconds since 1970, as a number.",
        example='"expires_at"',
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSettings:
    """One job: a table or a query, and where it goes. Every key may be left out."""

    source: str | None = option(
        Text("a table's name"),
        "The table to read. Left out: the table that is called like this section.",
        example='"public.movies"',
    )
    query: str | None = option(
        Text("a query in SQL"),
        "What to read in place of a table: one SELECT.",
        example='"select * from movies where budget > 0"',
        flag="--query",
    )
    where: str | None = option(
        Text("a condition in SQL"),
        "Which rows to take: a condition in SQL.",
        example="\"release_date >= '2000-01-01'\"",
        flag="--where",
    )
    columns: tuple[str, ...] | None = option(
        NameList(),
        "The columns to take, in this order. Left out: all.",
        example='["movie_id", "title", "release_date"]',
        flag="--columns",
    )
    key: tuple[str, ...] | None = option(
        NameList(at_most=2, too_many="DynamoDB has a hash and a range attribute, no more: choose two columns."),
        "The columns of the destination's key: the hash, then the range attribute. Left out: the primary key.",
        example='["movie_id"]',
        flag="--key",
    )
    limit: int | None = option(
        Count(minimum=1),
        "The most rows to take.",
        example="1000",
        flag="--limit",
    )
    destination: str | None = option(
        ResourceName("a DynamoDB table's name"),
        "The DynamoDB table. Left out: named after the job.",
        example='"movies"',
        flag="--destination",
    )
    cache: str | None = option(
        ResourceName("a cache's name"),
        "The Momento cache. Left out: `name` under [cache], else named after the job.",
        example='"movies"',
        flag="--cache",
    )
    mode: Literal["upsert"] = option(
        Choice("upsert", later=("replace",)),
        "What happens to items that are there already. upsert: a row's item is replaced as a whole, others stay.",
        example='"upsert"',
        default="upsert",
        flag="--mode",
    )
    ttl: int | None = option(
        _TTL,
        "How long this job's entries stay in the cache. Left out: `ttl` under [cache].",
        example='"2h"',
        flag="--ttl",
    )
    on_unrepresentable: Literal["reject", "string", "fail"] = option(
        Choice("reject", "string", "fail"),
        "Numbers that DynamoDB cannot hold (NaN, infinities, over 38 digits): reject the row, keep the number as a"
        " string, or fail the run.",
        example='"reject"',
        default="reject",
        flag="--on-unrepresentable",
    )
    json: Literal["native", "string"] = option(
        Choice("native", "string"),
        "json and jsonb columns: as DynamoDB's own maps and lists, or as a string.",
        example='"native"',
        default="native",
    )


def _section(name: str, settings: type, *, named: bool = False) -> Section:
    options = {}
    for item in fields(settings):
        about: _Description = item.metadata[_METADATA]
        # A named section's variable would not tell where the name ends and the key begins.
        reachable = about.kind.scalar and not named
        options[item.name] = Option(
            section=name,
            name=item.name,
            kind=about.kind,
            doc=about.doc,
            example=about.example,
            default=item.default,
            environment=(f"{PREFIX}{name}_{item.name}".upper(), *about.aliases) if reachable else (),
            flag=about.flag,
            secret=about.secret,
            connects=about.connects,
        )
    return Section(name, settings, settings.__doc__ or "", named, MappingProxyType(options))


SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        section.name: section
        for section in (
            _section("source", SourceSettings),
            _section("cache", CacheSettings),
            _section("destination", DestinationSettings),
            _section("tables", TableSettings, named=True),
        )
    }
)
"""Every section by its name, in the order of the example file."""


def option_named(section: str, name: str) -> Option:
    """Look up an option, for help texts and docs."""
    return SECTIONS[section].options[name]
