"""What a command was asked to do, with the job's section and every default filled in. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Literal

from etlcli.config.kinds import BadValue
from etlcli.config.lookup import look_up
from etlcli.config.names import NAME_RULE, default_name, is_valid_name, job_name
from etlcli.config.outline import header
from etlcli.config.problems import as_error
from etlcli.config.schema import SECTIONS, TableSettings
from etlcli.config.settings import Settings
from etlcli.config.suggest import listed
from etlcli.errors import UsageError
from etlcli.model import Incremental, Job, Selection

__all__ = ["IncrementalFlags", "JobFlags", "JobOptions", "resolve_job", "resolve_options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFlags:
    """What the command line gave for one job, as text; None for what it did not give.

    The fields are the options of ``[tables.NAME]`` that have a flag: what they take is described there.
    """

    query: str | None = None
    where: str | None = None
    columns: str | None = None
    key: str | None = None
    limit: int | str | None = None
    destination: str | None = None
    max_writes: str | None = None
    cache: str | None = None
    mode: str | None = None
    ttl: str | None = None
    on_unrepresentable: str | None = None
    max_rejects: str | None = None
    max_deletes: str | None = None
    schema_contract: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IncrementalFlags:
    """What the command line gave on where an incremental run begins.

    Attributes:
        since: Take rows from this value on, instead of from where the last run ended.
        full_refresh: Take all rows.
    """

    since: str | None = None
    full_refresh: bool = False


_NO_FLAGS = JobFlags()
_NO_INCREMENTAL_FLAGS = IncrementalFlags()
# What makes one run take less than its job does, or other rows.
_NARROWING = ("query", "where", "columns", "limit")
_TABLES = SECTIONS["tables"]
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How a job's rows are turned into items.

    Attributes:
        on_unrepresentable: What becomes of numbers that DynamoDB cannot hold.
        json: How json and jsonb columns arrive.
        null: What a NULL becomes.
        timestamps: What a timestamp with time zone becomes.
        drop: Columns that become no attribute.
        rename: Columns to attribute names.
        cast: Columns to attribute types.
        attributes: Attributes to add: templates and constants.
        mask: Columns to what hides their values.
        mask_key: The secret key of ``hmac`` masks.
        transform: The user's own function, ``module:function``.
    """

    on_unrepresentable: Literal["reject", "string", "fail"] = "reject"
    json: Literal["native", "string"] = "native"
    null: Literal["absent", "null"] = "absent"
    timestamps: Literal["iso", "epoch"] = "iso"
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    cast: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    attributes: Mapping[str, str | bool | int | Decimal] = field(default_factory=lambda: _NOTHING)
    mask: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    mask_key: str | None = field(default=None, repr=False)
    transform: str | None = None


def resolve_job(
    settings: Settings,
    name: str | None,
    flags: JobFlags = _NO_FLAGS,
    incremental: IncrementalFlags = _NO_INCREMENTAL_FLAGS,
) -> Job:
    """Fill in a job: flags beat its section, and its section beats the defaults.

    ``name`` is a ``[tables.NAME]`` section if there is one, else a table's name as typed. The job is called like the
    section, or like the table without quotes and without a leading ``public.``; with ``--query`` alone, ``name`` is
    the job's name and the query is what is read. Cache and destination are called like the job where nothing else is
    said, with characters that may not be in their names replaced (see ``names.default_name``).

    Args:
        settings: The configuration.
        name: What ``--table`` (or the command's argument) gave.
        flags: What the command line gave besides.
        incremental: What it gave on where an incremental run begins.

    Raises:
        UsageError: A flag has a wrong value, or no job can be made of them.
        ConfigError: A value of the job's section refers to something that is missing.
        TransientError: It is with AWS, which does not answer just now.
    """
    name = _given_name(settings, name, flags)
    job, wanted = _wanted(settings, name, flags)
    _refuse_partial_replace(job, wanted)
    _refuse_keyword(wanted.where)
    selection = Selection(
        table=(wanted.source or name) if wanted.query is None else None,
        query=wanted.query,
        where=wanted.where,
        columns=wanted.columns,
        limit=wanted.limit,
    )
    return Job(
        name=job,
        selection=selection,
        cache=wanted.cache or settings.cache.name or _default(job, "cache"),
        destination=wanted.destination or _default(job, "table"),
        key=wanted.key,
        ttl_seconds=wanted.ttl or settings.cache.ttl,
        max_cached_bytes=settings.cache.max_cached_bytes,
        max_rejects=wanted.max_rejects,
        layout=settings.cache.layout,
        mode=wanted.mode,
        mark=wanted.mark,
        max_deletes=wanted.max_deletes,
        incremental=_incremental(job, wanted, incremental),
        narrowed_by=tuple(
            _TABLES.options[option].flag or option for option in _NARROWING if getattr(flags, option) is not None
        ),
        freezes_schema=wanted.schema_contract == "freeze",
        max_writes=wanted.max_writes or settings.destination.max_writes,
    )


def resolve_options(settings: Settings, name: str | None, flags: JobFlags = _NO_FLAGS) -> JobOptions:
    """Fill in how a job's rows are turned into items and put; the rest is as for ``resolve_job``.

    Raises:
        UsageError: As for ``resolve_job``.
        ConfigError: The same; or the key of masks, which only this needs, refers to something that is missing.
    """
    name = _given_name(settings, name, flags)
    settings = look_up(settings, _section(settings, name))
    job, wanted = _wanted(settings, name, flags)
    if problem := settings.deferred.get(_mask_key(job)):
        raise as_error([problem])
    return JobOptions(
        on_unrepresentable=wanted.on_unrepresentable,
        json=wanted.json,
        null=wanted.null,
        timestamps=wanted.timestamps,
        drop=wanted.drop or (),
        rename=wanted.rename or _NOTHING,
        cast=wanted.cast or _NOTHING,
        attributes=wanted.attributes or _NOTHING,
        mask=wanted.mask or _NOTHING,
        mask_key=wanted.mask_key,
        transform=wanted.transform,
    )


def _incremental(job: str, wanted: TableSettings, flags: IncrementalFlags) -> Incremental | None:
    """Put together how the job takes only what is new."""
    wanted_by = {"--since": flags.since is not None, "--full-refresh": flags.full_refresh}
    given = [name for name, is_given in wanted_by.items() if is_given]
    if len(given) > 1:
        raise UsageError("--since and --full-refresh exclude each other", hint="Give one of them.")
    if wanted.incremental_key is None:
        if given:
            raise UsageError(
                f"{given[0]}, and the job {job} is not an incremental one",
                hint=f"Name the column that grows with every change, below {header(_TABLES, job)}:"
                ' incremental_key = "updated_at"',
            )
        return None
    return Incremental(wanted.incremental_key, wanted.overlap, flags.since, flags.full_refresh)


def _refuse_keyword(where: str | None) -> None:
    """Refuse a condition that brings its WHERE along: PostgreSQL would only say that it is a mistake."""
    word, _, condition = (where or "").strip().partition(" ")
    if where is not None and word.lower() == "where":
        raise UsageError(
            "--where (or `where` in the config) begins with the word WHERE",
            hint=f"Give the condition alone: --where {shlex.quote(condition.strip())}",
        )


def _refuse_partial_replace(job: str, wanted: TableSettings) -> None:
    """Refuse mode ``replace`` where a run does not see all rows: it would remove those that it does not see."""
    partial = [
        f"{option} ({_TABLES.options[option].flag})" if _TABLES.options[option].flag else option
        for option in ("query", "where", "limit", "incremental_key")
        if getattr(wanted, option) is not None
    ]
    if wanted.mode == "replace" and partial:
        raise UsageError(
            f"mode replace of {job} does not go with {listed(partial)}",
            hint="It removes the items of rows that the source no longer has, and must see all of them. Take mode"
            " upsert, or read the whole table.",
        )


def _given_name(settings: Settings, name: str | None, flags: JobFlags) -> str:
    """Check that there is a name."""
    if name is not None and name.strip():
        return name.strip()
    if flags.query is not None:
        raise UsageError(
            "--query needs a name for its job",
            hint="Add --table NAME: cache and destination are called so, unless --cache and --destination are given.",
        )
    configured = f" Configured: {listed(list(settings.tables)[:10])}." if settings.tables else ""
    raise UsageError("no table is named", hint=f"Add --table NAME.{configured}")


def _wanted(settings: Settings, name: str, flags: JobFlags) -> tuple[str, TableSettings]:
    """Find the job's name, and put the flags over its section."""
    settings = looked_up(settings, [name])
    job, section = _job_and_section(settings, name)
    if not job.isprintable():
        raise UsageError(f"{job!a} cannot be a job's name", hint="Leave out line breaks and control characters.")
    given = _read(flags)
    if "query" in given and section.source is not None:
        raise UsageError(
            f"--query, and {header(_TABLES, job)} reads the table {section.source}",
            hint="Leave --query out, or name another job with --table.",
        )
    # The key of masks is for those who make items: ``load`` and others get along without it.
    problems = [
        problem
        for path, problem in settings.deferred.items()
        if path.rpartition(".")[0] == f"tables.{job}" and path != _mask_key(job)
    ]
    if problems:
        raise as_error(problems)
    return job, replace(section, **given)


def looked_up(settings: Settings, names: Iterable[str]) -> Settings:
    """Look up what AWS keeps of these jobs, but for the keys of masks.

    Args:
        settings: The configuration.
        names: Each as ``resolve_job`` takes it.

    Raises:
        TransientError: AWS does not answer just now.
    """
    if not settings.open_values:
        return settings
    without = [path for path in settings.open_values if path.endswith(".mask_key")]
    return look_up(settings, *(_section(settings, name) for name in names), without=without)


def _section(settings: Settings, name: str) -> str:
    """The section that a job is described in, if any is."""
    return f"tables.{name if name in settings.tables else job_name(name)}"


def _mask_key(job: str) -> str:
    return f"tables.{job}.mask_key"


def _job_and_section(settings: Settings, name: str) -> tuple[str, TableSettings]:
    if name in settings.tables:
        return name, settings.tables[name]
    job = job_name(name)
    section = settings.tables.get(job)
    if section is None:
        return job, TableSettings()
    if section.query is None and job_name(section.source or job) == job:
        # public.movies, and a section called movies that reads it: the same job.
        return job, section
    raise UsageError(
        f"the table {name} would be the job `{job}`, and {header(_TABLES, job)} reads something else under this name",
        hint=f"Take --table {job} for that job, or give the table a section of its own, with `source`.",
    )


def _read(flags: JobFlags) -> dict[str, Any]:
    given = {}
    for item in fields(flags):
        text = getattr(flags, item.name)
        if text is None:
            continue
        option = _TABLES.options[item.name]
        try:
            given[item.name] = option.kind.of_text(str(text))
        except BadValue as error:
            hint = error.hint or f"For example: {option.flag} {option.example_text()}"
            raise UsageError(f"{option.flag} {error.problem}", hint=hint) from None
    return given


def _default(job: str, what: Literal["cache", "table"]) -> str:
    name = default_name(job, what)
    if not is_valid_name(name):
        flag = "--cache" if what == "cache" else "--destination"
        raise UsageError(
            f"the job's name is too long to name its {what}: {len(name)} characters",
            hint=f"Name the {what} with {flag}: {NAME_RULE}.",
        )
    return name
