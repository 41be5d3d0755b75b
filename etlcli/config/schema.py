"""Every option there is, each described once: parsing, messages, the example file and the docs are made from here.

A section of the file is a dataclass, an option a field made by ``option()``.
"""

# ruff: noqa: RUF009  option() makes a field, as field() does

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

from etlcli.config.kinds import (
    Attributes,
    Choice,
    ChoiceMap,
    Count,
    Duration,
    DynamoUrl,
    Endpoint,
    Flag,
    FunctionName,
    HostPort,
    Kind,
    NameList,
    NameMap,
    OverlapAmount,
    Password,
    PostgresAddress,
    Price,
    ResourceName,
    ShareOf,
    Size,
    Tags,
    Text,
)
from etlcli.model import DEFAULT_MARK, DEFAULT_MAX_DELETES, Overlap, Share

__all__ = [
    "LIBPQ_VARIABLES",
    "PREFIX",
    "RDS_IAM",
    "SECTIONS",
    "CacheSettings",
    "DestinationSettings",
    "Option",
    "PriceSettings",
    "Section",
    "SourceSettings",
    "StateSettings",
    "TableSettings",
    "option_named",
]

PREFIX = "MOMENTO_ETL_"
"""What this package's own environment variables start with: ``MOMENTO_ETL_<SECTION>_<KEY>``."""

RDS_IAM = "rds-iam"
"""The password of the source that stands for a token of AWS's IAM, new for each connection."""

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

    @staticmethod
    def is_own(variable: str) -> bool:
        """Whether an environment variable is this package's own, which no other program can be meant by."""
        return variable.startswith(PREFIX)

    def example_value(self) -> object:
        """The example as ``tomllib`` reads it."""
        import tomllib

        return tomllib.loads(f"example = {self.example}", parse_float=Decimal)["example"]

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
    password: str | None = option(
        Password(),
        "The password, apart from `url`, which then has none. Or rds-iam: each connection gets a new token of AWS's IAM"
        " in its place, for the user and the host of `url`, and TLS is used.",
        example='"env:MY_PASSWORD"',
        secret=True,
    )
    read_timeout: int = option(
        Duration(minimum=1),
        "How long PostgreSQL may send nothing while it is read: a sort, or a search for the first row, can take"
        " minutes. However long the reading takes in all does not count.",
        example='"10m"',
        default=600,
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
    layout: Literal["packed", "rows"] = option(
        Choice("packed", "rows"),
        "How rows are kept. packed: many of them compressed into each entry. rows: a dictionary for each row, which"
        " Momento's console shows; for small tables, as it takes many more operations.",
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
    max_writes: int | None = option(
        Count(minimum=1),
        "The most that is written to a table in a second, in write units: an item takes one for each started KB. Left"
        " out: as much as DynamoDB takes.",
        example="1000",
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
        NameList(
            at_most=2,
            too_many="DynamoDB has a hash and a range attribute, no more: choose two, or join columns in a template"
            " below `attributes`.",
        ),
        "The destination's key: the hash, then the range attribute. Each is an attribute (of `attributes`, too) or a"
        " column. Left out: the primary key.",
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
    max_writes: int | None = option(
        Count(minimum=1),
        "The most that is written to the table in a second, in write units. Left out: `max_writes` under"
        " [destination].",
        example="1000",
        flag="--max-writes",
    )
    cache: str | None = option(
        ResourceName("a cache's name"),
        "The Momento cache. Left out: `name` under [cache], else named after the job.",
        example='"movies"',
        flag="--cache",
    )
    mode: Literal["upsert", "replace"] = option(
        Choice("upsert", "replace"),
        "What happens to items that are there already. upsert: a row's item is replaced as a whole, others stay."
        " replace: items that this job wrote in earlier runs, and whose rows are gone, are deleted, too.",
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
    null: Literal["absent", "null"] = option(
        Choice("absent", "null"),
        "NULL: no attribute at all, or an attribute of type NULL.",
        example='"absent"',
        default="absent",
    )
    timestamps: Literal["iso", "epoch"] = option(
        Choice("iso", "epoch"),
        "Timestamps with time zone: as text in ISO 8601, or as seconds since 1970, a number.",
        example='"iso"',
        default="iso",
    )
    drop: tuple[str, ...] | None = option(
        NameList(),
        "Columns that become no attribute. Templates can use them all the same.",
        example='["internal_note"]',
    )
    rename: Mapping[str, str] | None = option(
        NameMap(),
        "Columns whose attribute has another name.",
        example='{ movie_id = "id" }',
    )
    cast: Mapping[str, str] | None = option(
        ChoiceMap("S", "N", "B", "BOOL"),
        "Columns whose attribute has another type: S (PostgreSQL's text), N (of a text that is a number; of a timestamp"
        " with time zone the seconds since 1970), B (the text's bytes) or BOOL. Rows whose value does not fit are"
        " rejected.",
        example='{ rating = "S" }',
    )
    attributes: Mapping[str, str | bool | int | Decimal] | None = option(
        Attributes(),
        "Attributes to add: constants, or templates with columns in braces. {id:010d} pads an integer with zeros,"
        " {day:%Y-%m} takes parts of a date (%Y %m %d %H %M %S), and a brace itself is doubled.",
        example='{ pk = "MOVIE#{movie_id}", sk = "RELEASE#{release_date:%Y-%m}", version = 1 }',
    )
    mask: Mapping[str, str] | None = option(
        ChoiceMap("hash", "redact", "hmac"),
        "Columns whose values are hidden: hash (SHA-256 of the text), redact (***), or hmac (HMAC-SHA-256 under"
        " `mask_key`, so that nobody else can try out values).",
        example='{ email = "hmac" }',
    )
    mask_key: str | None = option(
        Text("a secret key", shown=False),
        "The secret key of hmac masks.",
        example='"env:MY_MASK_KEY"',
        secret=True,
    )
    transform: str | None = option(
        FunctionName(),
        "A Python function that gets each finished item as a dict and returns it changed, or None to leave the row out."
        " Its module is looked for in the current folder, too.",
        example='"my_transforms:clean"',
    )
    max_rejects: Share | None = option(
        ShareOf("rows"),
        "The most rows that may be rejected, as a number or a percentage of all; with more the run fails. Left out: any"
        " number.",
        example='"1%"',
        flag="--max-rejects",
    )
    max_deletes: Share = option(
        ShareOf("items"),
        "Mode replace: the most items that may be deleted, as a number or a percentage of this job's items; with more"
        " nothing is deleted, and the run fails.",
        example='"50%"',
        default=DEFAULT_MAX_DELETES,
        flag="--max-deletes",
    )
    mark: str = option(
        Text("an attribute's name"),
        "Mode replace: the attribute that marks the items which this job wrote.",
        example='"_momento_etl"',
        default=DEFAULT_MARK,
    )
    incremental_key: str | None = option(
        Text("a column's name"),
        "A column that grows with every change: a run then takes only what the last one has not seen. Deleted rows are"
        " not seen.",
        example='"updated_at"',
    )
    overlap: Overlap | None = option(
        OverlapAmount(),
        "How far an incremental run reaches back behind the last one, for what was committed late. Left out: 5 minutes"
        " for times, 1000 for numbers.",
        example='"5m"',
    )
    schema_contract: Literal["evolve", "freeze"] = option(
        Choice("evolve", "freeze"),
        "What happens when columns were added or removed, or changed their type, since the last run. evolve: the run"
        " says so, and goes on. freeze: it fails.",
        example='"evolve"',
        default="evolve",
        flag="--schema-contract",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSettings:
    """The DynamoDB table where runs keep what outlives them: leases, progress, watermarks, history."""

    table: str = option(
        ResourceName("a DynamoDB table's name"),
        "Its name. It is made when it is first needed.",
        example='"momento-etl-state"',
        default="momento-etl-state",
    )
    enabled: bool = option(
        Flag(),
        "Whether there is one. Without it nothing keeps two runs of a job apart, and there are no incremental runs.",
        example="true",
        default=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceSettings:
    """What `plan` reckons costs with, in US dollars and without free tiers. Prices differ by region, and change."""

    dynamodb_write: Decimal = option(
        Price(),
        "A million write request units, on demand, in us-east-1 (aws.amazon.com/dynamodb/pricing/on-demand, as quoted"
        " on 2026-10-04).",
        example="0.625",
        default=Decimal("0.625"),
    )
    dynamodb_read: Decimal = option(
        Price(),
        "A million read request units (the same page, as quoted on 2026-10-04); mode replace scans the table.",
        example="0.125",
        default=Decimal("0.125"),
    )
    momento_transfer: Decimal = option(
        Price(),
        "A gigabyte sent to Momento or received from it (gomomento.com/pricing, as quoted on 2026-09-04: $0.05 per GiB"
        " beyond 200 GiB a month; older accounts may pay $0.15 or $0.50).",
        example="0.05",
        default=Decimal("0.05"),
    )
    lambda_compute: Decimal = option(
        Price(),
        "A million GB-seconds of Lambda functions on arm64, in us-east-1 (aws.amazon.com/lambda/pricing, as quoted on"
        " 2026-11-26: $0.0000133334 per GB-second); for plan --remote, as the next two.",
        example="13.3334",
        default=Decimal("13.3334"),
    )
    lambda_requests: Decimal = option(
        Price(),
        "A million calls of Lambda functions (the same page, as quoted on 2026-11-26).",
        example="0.20",
        default=Decimal("0.20"),
    )
    state_transitions: Decimal = option(
        Price(),
        "A thousand state transitions of Step Functions' standard workflows, in us-east-1"
        " (aws.amazon.com/step-functions/pricing, as quoted on 2026-11-26).",
        example="0.025",
        default=Decimal("0.025"),
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
            _section("state", StateSettings),
            _section("tables", TableSettings, named=True),
            _section("prices", PriceSettings),
        )
    }
)
"""Every section by its name, in the order of the example file."""


def option_named(section: str, name: str) -> Option:
    """Look up an option, for help texts and docs."""
    return SECTIONS[section].options[name]
