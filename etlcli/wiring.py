"""The one place where sources, caches and sinks are built, for the command line and for Lambda.

Each SDK is imported only by what needs it: a ``load`` never pays for psycopg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

from etlcli.config import RDS_IAM, Half, JobOptions, Settings, SourceSettings, momento_access, used
from etlcli.doctor import Checkup
from etlcli.encoding import EncodingOptions, Recipe, ShapeOptions, load_transform
from etlcli.hidden import hide
from etlcli.model import Job, Selection
from etlcli.ports import Source, StateStore
from etlcli.progress import Counters

if TYPE_CHECKING:
    from etlcli.cache.momento import MomentoCache
    from etlcli.retry import RetryPolicy
    from etlcli.sink.dynamodb import DynamoDBSink
    from etlcli.sink.settings import DynamoDBSettings
    from etlcli.source.login import TokenMaker
    from etlcli.source.postgres import PostgresSource

__all__ = [
    "checkup_of",
    "open_cache",
    "open_sink",
    "open_source",
    "open_state",
    "recipe_of",
    "state_checkup",
    "tables_to_offer",
]

# moto takes any credentials, and botocore signs with none. Never the user's own, which are no toy's business. It is so
# short that nobody takes it for a secret which has to be hidden.
_EMBEDDED_CREDENTIAL = "toy"


def open_source(settings: Settings, counters: Counters) -> Source:
    """Build the source.

    Raises:
        ConfigError: The URL is malformed, or does not go with the password that is given apart from it.
    """
    from etlcli.source.postgres import CONNECT_PATIENCE

    return _source(settings, counters, CONNECT_PATIENCE)


def open_cache(
    settings: Settings, name: str, counters: Counters, *, pings: bool = True
) -> AbstractAsyncContextManager[MomentoCache]:
    """Build the cache of that name; it is connected within its context, and kept so by pings unless it may be frozen.

    Raises:
        ConfigError: The API key is malformed.
    """
    from etlcli.cache.momento import MomentoCache

    return MomentoCache(momento_access(used(settings, "cache")), name, counters, pings=pings)


def open_sink(
    settings: Settings,
    table: str,
    counters: Counters,
    *,
    max_writes: int | None = None,
    max_in_flight: int | None = None,
) -> AbstractAsyncContextManager[DynamoDBSink]:
    """Build the sink of that table; it is connected within its context.

    Args:
        settings: The configuration.
        table: The table.
        counters: The run's figures.
        max_writes: At most so many write units in a second; None for as many as DynamoDB takes.
        max_in_flight: At most so many requests at once; None for the sink's own bound.

    Raises:
        ConfigError: On entering the context, where region or credentials are missing.
    """
    from etlcli.sink.dynamodb import MOST_IN_FLIGHT, DynamoDBSink

    return DynamoDBSink(
        _dynamodb(settings), table, counters, max_in_flight=max_in_flight or MOST_IN_FLIGHT, max_writes=max_writes
    )


def open_state(
    settings: Settings, counters: Counters, *, wanted: bool = True
) -> AbstractAsyncContextManager[StateStore]:
    """Build the state store, beside the destination; it is connected within its context.

    Where it is switched off, or not wanted, there is one that keeps nothing.

    Raises:
        UsageError: On entering the context, where its name is not a valid table name.
        ConfigError: On entering the context, where region or credentials are missing.
    """
    settings = used(settings, "state")
    if not (settings.state.enabled and wanted):
        from etlcli.state import NullState

        return nullcontext(NullState())
    from etlcli.sink.state import DynamoDBState

    return DynamoDBState(_dynamodb(settings), settings.state.table, counters)


def checkup_of(half: Half, settings: Settings, jobs: Sequence[Job], counters: Counters) -> Checkup:
    """Build what ``doctor`` looks at one of the services with.

    Args:
        half: Which service.
        settings: The configuration, which has what it takes to reach it.
        jobs: The jobs that are to be able to run.
        counters: Where calls are counted.

    Raises:
        ConfigError: The source's URL is malformed.
    """
    match half:
        case "source":
            return _source_checkup(settings, {job.name: job.selection for job in jobs}, counters)
        case "cache":
            own = [] if settings.cache.name is None else [settings.cache.name]
            return _cache_checkup(settings, list(dict.fromkeys(job.cache for job in jobs)) or own, counters)
        case "destination":
            from etlcli.sink.checkup import examine_sink

            # Where several jobs share a table, what one of them asks for has to be allowed.
            ordered = sorted(jobs, key=lambda job: job.mode == "replace")
            tables = {job.destination: job.mode for job in ordered}
            return lambda: examine_sink(_dynamodb(settings), tables, counters)


def tables_to_offer(settings: Settings, seconds: float, at_most: int) -> list[str]:
    """List tables of the source for a shell to offer; whatever goes wrong is raised as it is."""
    from etlcli.source.offer import tables_to_offer as ask

    wanted = settings.source or SourceSettings()
    # AWS is not asked for anything while somebody waits at a prompt.
    if wanted.password == RDS_IAM or any(path.startswith("source.") for path in settings.open_values):
        return []
    return ask(wanted.url, wanted.password, seconds, at_most)


def state_checkup(settings: Settings, counters: Counters) -> Checkup:
    """Build what ``doctor`` looks at the state table with."""
    from etlcli.sink.checkup import examine_state

    return lambda: examine_state(_dynamodb(settings), settings.state.table, counters)


def _source_checkup(settings: Settings, selections: Mapping[str, Selection], counters: Counters) -> Checkup:
    from etlcli.source.checkup import PATIENCE, examine_source

    source = _source(settings, counters, PATIENCE)
    return lambda: examine_source(source, selections)


def _source(settings: Settings, counters: Counters, retry: RetryPolicy) -> PostgresSource:
    from etlcli.source.deadlines import Deadlines
    from etlcli.source.postgres import PostgresSource

    settings = used(settings, "source")
    wanted = settings.source or SourceSettings()
    password: str | TokenMaker | None = wanted.password
    if password == RDS_IAM:
        from etlcli.secrets.rds_iam import RdsTokens

        password = RdsTokens(settings.destination.region, settings.destination.profile)
    deadlines = Deadlines(read=wanted.read_timeout)
    return PostgresSource(wanted.url, counters, retry, deadlines=deadlines, password=password)


def _cache_checkup(settings: Settings, names: Sequence[str], counters: Counters) -> Checkup:
    from etlcli.cache.checkup import PATIENCE, ProbedCache, examine_cache

    access = momento_access(settings)
    return lambda: examine_cache(lambda name: ProbedCache(access, name, counters, PATIENCE), names)


def recipe_of(options: JobOptions) -> Recipe:
    """Take out of a job's options what decides how its rows become items; imports the user's own function.

    Raises:
        ConfigError: The function cannot be imported.
    """
    hide(options.mask_key)
    return Recipe(
        EncodingOptions(
            on_unrepresentable=options.on_unrepresentable,
            json_as=options.json,
            null_as=options.null,
            timestamps_as=options.timestamps,
        ),
        ShapeOptions(
            drop=options.drop,
            rename=options.rename,
            cast=options.cast,
            mask=options.mask,
            has_mask_key=options.mask_key is not None,
            attributes=options.attributes,
            transforms=options.transform is not None,
        ),
        mask_key=options.mask_key.encode() if options.mask_key is not None else None,
        transform=load_transform(options.transform) if options.transform is not None else None,
    )


def _dynamodb(settings: Settings) -> DynamoDBSettings:
    from etlcli.sink.settings import DynamoDBSettings

    settings = used(settings, "destination")
    wanted = settings.destination
    origin = settings.origins.get("destination.endpoint_url")
    credential = _EMBEDDED_CREDENTIAL if origin is not None and origin.level == "embedded" else None
    return DynamoDBSettings(
        region=wanted.region,
        endpoint_url=wanted.endpoint_url,
        profile=wanted.profile,
        access_key_id=credential,
        secret_access_key=credential,
    )
