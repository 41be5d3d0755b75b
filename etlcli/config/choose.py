"""Which jobs a command runs: one, several that are named, all of the config's, or a schema's tables. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar

from etlcli.config.jobs import IncrementalFlags, JobFlags, JobOptions, looked_up, resolve_job, resolve_options
from etlcli.config.names import default_name, job_name
from etlcli.config.outline import header
from etlcli.config.schema import SECTIONS, TableSettings
from etlcli.config.settings import Settings
from etlcli.config.suggest import listed
from etlcli.errors import UsageError
from etlcli.model import BaseTable, Job
from etlcli.source.names import candidates

__all__ = ["Choice", "Request", "check_request", "choose", "for_each"]

T = TypeVar("T")
R = TypeVar("R")

# What says something of one table: of its columns, or where it goes.
_OF_ONE = ("query", "where", "columns", "key", "destination")
_TABLES = SECTIONS["tables"]
_MOST = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Which jobs are asked for, and what the command line gave for them.

    Attributes:
        tables: What ``--table`` gave, each time.
        every: Whether ``--all`` was given.
        schema: What ``--schema`` gave.
        flags: What it gave for the jobs: for each of them, where there are several.
        incremental: What it gave on where incremental runs begin.
    """

    tables: tuple[str, ...] = ()
    every: bool = False
    schema: str | None = None
    flags: JobFlags = field(default_factory=JobFlags)
    incremental: IncrementalFlags = field(default_factory=IncrementalFlags)

    @property
    def is_single(self) -> bool:
        """Whether one job is asked for; ``--all`` asks for several, even where there is only one."""
        return len(self.tables) <= 1 and not self.every and self.schema is None


class Choice(NamedTuple):
    """A job, with how its rows are turned into items."""

    job: Job
    options: JobOptions


class _Wanted(NamedTuple):
    """A job to be resolved.

    Attributes:
        name: As ``resolve_job`` takes it.
        table: The schema's table that it reads; None where the job itself says what it reads.
    """

    name: str
    table: BaseTable | None = None


def check_request(request: Request) -> None:
    """Refuse what cannot be meant together, before anything is connected to.

    Raises:
        UsageError: It cannot.
    """
    if request.schema is not None and not request.every:
        raise UsageError(
            "--schema, without --all",
            hint="--all --schema NAME takes every base table of a schema; one table of it is --table SCHEMA.TABLE.",
        )
    if request.schema is not None and not request.schema.strip():
        raise UsageError("the schema's name is empty", hint="Name a schema: --all --schema sales.")
    if request.every and request.tables:
        raise UsageError(
            "--all and --table exclude each other", hint="Leave --all out, and give --table for each table."
        )
    if request.is_single:
        return
    for name in _OF_ONE:
        if getattr(request.flags, name) is not None:
            flag, example = _TABLES.options[name].flag, _TABLES.options[name].example
            raise UsageError(
                f"{flag} is for one job, and several are asked for",
                hint=f"Put it into the config, below the [tables.NAME] of each job that it is for: {name} = {example}",
            )
    if request.incremental.since is not None:
        raise UsageError(
            "--since is for one job, and several are asked for",
            hint="Run that job by itself: momento-etl run --table NAME --since VALUE",
        )


def choose(settings: Settings, request: Request, tables: Sequence[BaseTable] = ()) -> list[Choice]:
    """Fill in the jobs that are asked for: in the order of the command line, of the config, or of the tables' names.

    With ``--schema`` these are the jobs of the config that read one of the schema's base tables, and a job with every
    default for each table that none of them reads. They share a cache, named after the schema, unless flag or config
    name others.

    Args:
        settings: The configuration.
        request: What is asked for; ``check_request`` has let it pass.
        tables: The base tables of the schema, where one is named.

    Raises:
        UsageError: As ``resolve_job`` raises it for any of them; or they cannot run together.
    """
    if request.is_single:
        name = request.tables[0] if request.tables else None
        return [
            Choice(
                resolve_job(settings, name, request.flags, request.incremental),
                resolve_options(settings, name, request.flags),
            )
        ]
    settings = looked_up(settings, request.tables or settings.tables)
    if request.schema is not None:
        wanted = list(_of_schema(settings, tables))
        if settings.cache.name is None:
            shared = default_name(tables[0].schema, "cache")
            settings = replace(settings, cache=replace(settings.cache, name=shared))
    elif request.every:
        wanted = [_Wanted(name) for name in settings.tables]
        if not wanted:
            lacking = "there is no config" if settings.config_path is None else f"{settings.config_path} has none"
            raise UsageError(
                f"--all runs the jobs of the config, and {lacking}",
                hint="Describe each below a [tables.NAME] of its own. Or take the tables of a schema:"
                " --all --schema public.",
            )
    else:
        wanted = [_Wanted(name) for name in request.tables]
    choices = for_each(
        wanted,
        lambda each: each.table.typed if each.table is not None else each.name,
        lambda each: _resolved(settings, request, each),
    )
    if request.incremental.full_refresh and all(choice.job.incremental is None for choice in choices):
        raise UsageError(
            "--full-refresh, and none of the jobs is an incremental one",
            hint="Leave it out: they take all rows anyway.",
        )
    _refuse_same_name(wanted, choices)
    _refuse_same_destination(settings, choices)
    return choices


def for_each(each: Sequence[T], name_of: Callable[[T], str], make: Callable[[T], R]) -> list[R]:
    """Make something for each of several jobs; what is wrong with any of them is told at once.

    Args:
        each: What the jobs are made of.
        name_of: Names one of them.
        make: Makes it.

    Raises:
        UsageError: ``make`` raised it: the one error, or one of all of them.
    """
    made: list[R] = []
    failed: list[tuple[str, UsageError]] = []
    for one in each:
        try:
            made.append(make(one))
        except UsageError as error:
            failed.append((name_of(one), error))
    if len(failed) == 1:
        raise failed[0][1]
    if failed:
        lines = [f"{len(failed)} of {len(each)} jobs cannot run as they are:"]
        lines += [f"  {name}: {error.message}" for name, error in failed[:_MOST]]
        if len(failed) > _MOST:
            lines.append(f"  ... and {len(failed) - _MOST} more")
        hints = list(dict.fromkeys(error.hint for _, error in failed[:_MOST] if error.hint))
        raise UsageError("\n".join(lines), hint="\n".join(hints) or None)
    return made


def _resolved(settings: Settings, request: Request, wanted: _Wanted) -> Choice:
    section = settings.tables.get(wanted.name)
    if section is None and wanted.table is None:
        section = settings.tables.get(job_name(wanted.name))
    # To take all rows is what a job that is not incremental does anyway.
    full_refresh = request.incremental.full_refresh and section is not None and section.incremental_key is not None
    job = resolve_job(settings, wanted.name, request.flags, IncrementalFlags(full_refresh=full_refresh))
    if wanted.table is not None:
        job = replace(job, selection=replace(job.selection, table=wanted.table.typed))
    return Choice(job, resolve_options(settings, wanted.name, request.flags))


def _of_schema(settings: Settings, tables: Sequence[BaseTable]) -> Iterator[_Wanted]:
    """List the jobs that read a schema's tables: those of the config, and one for each table that has none."""
    readers: dict[BaseTable, list[str]] = {table: [] for table in tables}
    for name, section in settings.tables.items():
        table = _table_of(name, section, tables)
        if table is not None:
            readers[table].append(name)
    for table, names in readers.items():
        if names:
            yield from (_Wanted(name, table) for name in names)
        else:
            # In quotes throughout, so that it is not taken for the name of a section that reads something else.
            yield _Wanted(".".join('"' + part.replace('"', '""') + '"' for part in (table.schema, table.name)), table)


def _table_of(name: str, section: TableSettings, tables: Sequence[BaseTable]) -> BaseTable | None:
    """Find the table that a section reads, as the source itself would by its name; None where it reads another."""
    if section.query is not None:
        return None
    if section.source is None:
        # A job that has no section yet is named after its table: a section of this name is meant for it.
        meant = next((table for table in tables if job_name(table.typed) == name), None)
        if meant is not None:
            return meant
    try:
        guesses = candidates(section.source or name)
    except UsageError:
        return None
    for guess in guesses:
        for table in tables:
            if guess == (table.schema, table.name) or (table.is_visible and guess == (table.name,)):
                return table
    return None


def _refuse_same_name(wanted: Sequence[_Wanted], choices: Sequence[Choice]) -> None:
    named: dict[str, list[str]] = {}
    for each, choice in zip(wanted, choices, strict=True):
        named.setdefault(choice.job.name, []).append(each.name)
    for job, names in named.items():
        if len(names) > 1:
            raise UsageError(
                f"the job {job} is asked for more than once: {listed(names)}", hint="Name each job or table once."
            )


def _refuse_same_destination(settings: Settings, choices: Sequence[Choice]) -> None:
    """Refuse jobs that would write over each other's items; those that all name the table themselves mean to share it.

    Raises:
        UsageError: Some do not.
    """
    sharing: dict[str, list[str]] = {}
    for choice in choices:
        sharing.setdefault(choice.job.destination, []).append(choice.job.name)
    for destination, jobs in sharing.items():
        silent = [job for job in jobs if _destination_of(settings.tables, job) is None]
        if len(jobs) > 1 and silent:
            raise UsageError(
                f"the jobs {listed(jobs)} would all write to the table {destination}",
                hint=f"Name a table of its own, or this one, below {listed(header(_TABLES, job) for job in silent)}:"
                f' destination = "..."',
            )


def _destination_of(tables: Mapping[str, TableSettings], job: str) -> str | None:
    return tables[job].destination if job in tables else None
