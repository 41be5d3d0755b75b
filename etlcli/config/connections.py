"""What is configured, what a command needs of it, and whether the embedded stack takes its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from types import MappingProxyType
from typing import TypeVar

from etlcli.config.document import FILE_NAME
from etlcli.config.kinds import BadValue
from etlcli.config.lookup import used
from etlcli.config.momento import MomentoAccess, key_form, legacy_endpoint
from etlcli.config.problems import as_error
from etlcli.config.references import is_reference, is_remote, of_environment
from etlcli.config.schema import PREFIX, SECTIONS, Option, SourceSettings
from etlcli.config.settings import HALVES, Half, Open, Origin, Settings
from etlcli.config.suggest import listed
from etlcli.errors import ConfigError, UsageError

__all__ = [
    "Connection",
    "connect_embedded",
    "connection",
    "local_notice",
    "momento_access",
    "require",
    "use_embedded",
    "with_source",
]

T = TypeVar("T")

_CACHE = SECTIONS["cache"].options
_SERVICES: Mapping[Half, str] = {"source": "PostgreSQL", "cache": "Momento", "destination": "DynamoDB"}
# How people mostly give each; a test holds the names against the schema.
_CURES: Mapping[Half, str] = {
    "source": "`url` below [source], or DATABASE_URL, or PGHOST, PGDATABASE and the like",
    "cache": "`api_key` and `endpoint` below [cache], or MOMENTO_API_KEY and MOMENTO_ENDPOINT; a Momento Local: `local`"
    " below [cache], or MOMENTO_LOCAL",
    "destination": "`region` below [destination], or AWS_REGION, or AWS_PROFILE; another server: `endpoint_url` below"
    " [destination], or AWS_ENDPOINT_URL_DYNAMODB",
}
_CONNECTING = {option.path for half in HALVES for option in SECTIONS[half].options.values() if option.connects}
# What the embedded stack's own addresses take the place of.
_REPLACED = {*_CONNECTING, "source.password"}


class Connection(Enum):
    """Which services a command would work with."""

    NONE = "none"
    """There is no config file, and the environment has no connection settings."""

    CONFIGURED = "configured"
    """File or environment say something; whether enough is for ``require`` to find out."""

    LOCAL = "local"
    """The embedded stack, asked for with ``--local``."""


def connection(settings: Settings) -> Connection:
    """Decide which services file, environment and ``--local`` speak of."""
    if settings.local:
        return Connection.LOCAL
    if settings.config_path is None and not any(settings.connects(half) for half in HALVES):
        return Connection.NONE
    return Connection.CONFIGURED


def use_embedded(
    settings: Settings, *, is_terminal: bool, source: bool = False, cache: bool = False, destination: bool = False
) -> bool:
    """Decide between the embedded stack and the configured services, as the design's section 7 has it.

    Args:
        settings: What is configured.
        is_terminal: Whether a person at a terminal would see the banner that says so.
        source: Whether the command reads PostgreSQL.
        cache: Whether it needs Momento.
        destination: Whether it needs DynamoDB.

    Returns:
        True for the embedded stack; False for the configured services, of which nothing that is needed is missing.
        Whether it is right, too, is for ``require`` to find out.

    Raises:
        ConfigError: Nothing is configured and nobody is there to see it, or half a configuration.
    """
    kind = connection(settings)
    if kind is Connection.LOCAL or (kind is Connection.NONE and is_terminal):
        return True
    needed = _needed(source=source, cache=cache, destination=destination)
    if kind is Connection.NONE and needed:
        # All of it: an AWS config file by chance does not make half a configuration.
        raise _missing(settings, needed)
    _refuse_half(settings, needed)
    return False


def require(settings: Settings, *, source: bool = False, cache: bool = False, destination: bool = False) -> Settings:
    """Check that what a command needs is configured, and look up what AWS keeps of it.

    A region that is missing altogether is found later, by botocore.

    Returns:
        The settings, complete in what is needed.

    Raises:
        ConfigError: A half is missing (it is named, with the ways to give it), or its values are wrong.
        TransientError: AWS does not answer just now.
    """
    needed = _needed(source=source, cache=cache, destination=destination)
    _refuse_half(settings, needed)
    # What is kept between runs is kept beside the destination.
    settings = used(settings, *needed, *(("state",) if destination else ()))
    if cache:
        momento_access(settings)
    return settings


def momento_access(settings: Settings) -> MomentoAccess:
    """Work out how Momento is reached.

    Raises:
        ConfigError: A key is malformed (its origin is named, it is not shown), or its other half is missing.
    """
    cache, origins = settings.cache, settings.origins
    problems = settings.problems("cache")
    if problems:
        raise as_error(problems)
    if cache.local is not None:
        return MomentoAccess("local", local=cache.local)
    if cache.api_key is None:
        if cache.endpoint is None:
            raise _missing(settings, ["cache"])
        raise ConfigError(
            f"half a configuration: a Momento endpoint without an API key ({origins['cache.endpoint'].text})",
            hint=f"Give the key that goes with it: {_ways(_CACHE['api_key'])}.",
        )
    origin = origins["cache.api_key"].text
    form = key_form(cache.api_key)
    if form is None:
        raise ConfigError(
            f"{origin} does not hold a Momento API key",
            hint="Copy the key again from the Momento console, whole and without spaces.",
        )
    if form == "legacy":
        if cache.endpoint not in (None, legacy_endpoint(cache.api_key)):
            raise ConfigError(
                f"a legacy Momento key, which carries its own endpoint ({origin}),"
                f" and another endpoint ({origins['cache.endpoint'].text})",
                hint="Take the endpoint away, or give the v2 key that goes with it.",
            )
        return MomentoAccess("legacy", api_key=cache.api_key)
    if cache.endpoint is None:
        raise ConfigError(
            f"half a configuration: a v2 Momento API key without its endpoint ({origin})",
            hint=f"Give the endpoint that the Momento console shows beside the key: {_ways(_CACHE['endpoint'])}.",
        )
    return MomentoAccess("v2", api_key=cache.api_key, endpoint=cache.endpoint)


def connect_embedded(settings: Settings, *, source_url: str, momento: str, dynamodb_url: str, region: str) -> Settings:
    """Put the embedded stack's addresses in place of all that is configured; everything else stays.

    Args:
        settings: What is configured.
        source_url: PostgreSQL's URL, complete, so that libpq's environment variables add nothing.
        momento: ``host:port`` of the Momento-compatible server.
        dynamodb_url: The URL of its DynamoDB.
        region: The region to sign requests with.
    """
    origins = {path: origin for path, origin in settings.origins.items() if path not in _REPLACED}
    embedded = Origin("embedded", "the embedded stack")
    given = ("source.url", "cache.local", "destination.endpoint_url", "destination.region")
    return replace(
        settings,
        source=replace(settings.source or SourceSettings(), url=source_url, password=None),
        cache=replace(settings.cache, api_key=None, endpoint=None, local=momento),
        destination=replace(settings.destination, region=region, endpoint_url=dynamodb_url, profile=None),
        local=True,
        origins=MappingProxyType(origins | dict.fromkeys(given, embedded)),
        deferred=MappingProxyType(
            {path: problem for path, problem in settings.deferred.items() if path not in _REPLACED}
        ),
        open_values=MappingProxyType(
            {path: value for path, value in settings.open_values.items() if path not in _REPLACED}
        ),
        libpq=(),
        aws_config=None,
    )


def with_source(settings: Settings, address: str, environ: Mapping[str, str]) -> Settings:
    """Put a source that the command line names (``--source``) in place of what is configured.

    Raises:
        UsageError: It is no address of PostgreSQL's, or the embedded stack was asked for.
        ConfigError: It is a reference that leads nowhere.
    """
    if settings.local:
        raise UsageError("--source and --local exclude each other", hint="--local brings a source of its own.")
    option, origin, text = SECTIONS["source"].options["url"], Origin("flag", "--source"), address.strip()
    settings = _without_source(settings, origin)
    if is_remote(text):
        return replace(
            settings,
            open_values=MappingProxyType({**settings.open_values, option.path: Open(option, text, origin)}),
        )
    try:
        url = option.kind.of_text(of_environment(text, environ) if is_reference(text) else text)
    except BadValue as error:
        raise UsageError(
            f"--source {error.problem}", hint=error.hint or "For example: --source postgresql://user@host:5432/database"
        ) from None
    if not isinstance(url, str):
        raise UsageError("--source is empty", hint="Give a URL, or leave it out.")
    return replace(settings, source=replace(settings.source or SourceSettings(), url=url))


def _without_source(settings: Settings, origin: Origin) -> Settings:
    """Take out how the configured source is reached; its password is no other server's business."""
    theirs = ("source.url", "source.password")

    def others(values: Mapping[str, T]) -> Mapping[str, T]:
        return MappingProxyType({path: value for path, value in values.items() if path not in theirs})

    return replace(
        settings,
        source=replace(settings.source or SourceSettings(), url="", password=None),
        origins=MappingProxyType({**others(settings.origins), "source.url": origin}),
        deferred=others(settings.deferred),
        open_values=others(settings.open_values),
        notices=tuple(notice for notice in settings.notices if "`url` in [source]" not in notice),
    )


def local_notice(settings: Settings) -> str | None:
    """Say what ``--local`` leaves unused; None where nothing is configured that it could."""
    if not settings.local:
        return None
    unused = _givers(settings)
    return f"--local: not used: {listed(unused)}" if unused else None


def _givers(settings: Settings) -> list[str]:
    """Name what gives connection settings: variables, and the file."""
    givers = []
    for path, origin in settings.origins.items():
        if path in _CONNECTING and origin.level != "embedded":
            givers.append(f"the connections in {settings.config_path}" if origin.level == "file" else origin.text)
    return list(dict.fromkeys([*givers, *settings.libpq]))


def _refuse_half(settings: Settings, needed: Sequence[Half]) -> None:
    missing = [half for half in needed if not _is_given(settings, half)]
    if missing:
        raise _missing(settings, missing)


def _needed(*, source: bool, cache: bool, destination: bool) -> list[Half]:
    return [half for half, wanted in zip(HALVES, (source, cache, destination), strict=True) if wanted]


def _is_given(settings: Settings, half: Half) -> bool:
    # botocore finds a region and a profile in its own config file, too.
    return settings.connects(half) or (half == "destination" and settings.aws_config is not None)


def _missing(settings: Settings, halves: Sequence[Half]) -> ConfigError:
    """Make the error that names what is missing and how to give it."""
    ways = [f"{half}: {_CURES[half]}" for half in halves]
    if connection(settings) is Connection.NONE:
        first = (
            f"momento-etl init writes {FILE_NAME} (or config.example.toml shows how); or set the environment, or ask"
            " for the embedded stack with --local."
        )
        return ConfigError(
            "nothing is configured: there is no config file, and the environment has no connection settings",
            hint="\n".join([first, *ways]),
        )
    names = " and ".join(f"no {half} ({_SERVICES[half]})" for half in halves)
    message = f"{names} {'is' if len(halves) == 1 else 'are'} configured"
    givers = _givers(settings)
    if givers:
        message = f"half a configuration: {message}; there is only: {listed(givers)}"
    first = f"Add to {settings.config_path or FILE_NAME} or to the environment, or use --local for the embedded stack."
    return ConfigError(message, hint="\n".join([first, *ways]))


def _ways(option: Option) -> str:
    # The variables that people have anyway, not this package's own.
    variables = [name for name in option.environment if not name.startswith(PREFIX)]
    return f"`{option.name}` below [{option.section}], or {listed(variables)}"
