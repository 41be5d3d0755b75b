import base64
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from etlcli.config import (
    SECTIONS,
    Connection,
    Settings,
    connect_embedded,
    connection,
    create_options,
    load_settings,
    local_notice,
    momento_access,
    require,
    resolve_job,
    use_embedded,
)
from etlcli.config.connections import _CURES
from etlcli.config.schema import LIBPQ_VARIABLES
from etlcli.errors import ConfigError


def jwt(claims: object) -> str:
    return ".".join(
        base64.urlsafe_b64encode(part).decode().rstrip("=")
        for part in (b'{"alg":"HS256"}', json.dumps(claims).encode(), b"signature")
    )


V2 = jwt({"t": "g", "id": "v2-key-of-the-test"})
LEGACY = jwt({"cp": "control.cell-1.example.com", "c": "cache.cell-1.example.com"})
V1 = base64.b64encode(json.dumps({"api_key": "x" * 20, "endpoint": "cell-1.example.com"}).encode()).decode()

SOURCE = {"DATABASE_URL": "postgresql://db"}
CACHE = {"MOMENTO_API_KEY": V2, "MOMENTO_ENDPOINT": "cell-1.example.com"}
DESTINATION = {"AWS_REGION": "eu-west-1"}


class Loader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *environs: Mapping[str, str], text: str | None = None, local: bool = False) -> Settings:
        if text is not None:
            (self.folder / "momento-etl.toml").write_text(text)
        environ = {"HOME": str(self.folder)}
        for more in environs:
            environ.update(more)
        return load_settings(local=local, environ=environ, folder=self.folder)


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


def refused(settings: Settings, *needed: str, terminal: bool = True) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        use_embedded(
            settings, is_terminal=terminal, **dict.fromkeys(needed or ("source", "cache", "destination"), True)
        )
    assert caught.value.hint
    return caught.value


# Which services.


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AWS_ACCESS_KEY_ID": "x", "PGPASSWORD": "x"},
        {"MOMENTO_ETL_CACHE_TTL": "1h", "MOMENTO_ETL_CACHE_NAME": "etl"},
        {"DATABASE_URL": "", "MOMENTO_API_KEY": " "},
    ],
)
def test_nothing_is_configured(load: Loader, environ: dict[str, str]) -> None:
    assert connection(load(environ)) is Connection.NONE


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": "mysql://for-another-program"},
        {"PGSERVICE": "x"},
        {"MOMENTO_AUTH_TOKEN": "x"},
        {"MOMENTO_ENDPOINT": "a.b"},
        {"MOMENTO_LOCAL": "h:1"},
        {"AWS_PROFILE": "x"},
        {"AWS_ENDPOINT_URL_DYNAMODB": "http://x"},
    ],
)
def test_anything_that_speaks_of_a_connection_is_a_configuration(load: Loader, environ: dict[str, str]) -> None:
    assert connection(load(environ)) is Connection.CONFIGURED


def test_a_config_file_is_a_configuration_even_without_connections(load: Loader) -> None:
    settings = load(text="[tables.movies]\n")
    assert connection(settings) is Connection.CONFIGURED
    error = refused(settings)
    assert error.message == (
        "no source (PostgreSQL) and no cache (Momento) and no destination (DynamoDB) are configured"
    )


def test_local_wins_and_says_what_is_not_used(load: Loader) -> None:
    settings = load(SOURCE, {"PGHOST": "x"}, text="[cache]\nlocal = 'h:1'\n", local=True)
    assert connection(settings) is Connection.LOCAL
    assert use_embedded(settings, is_terminal=False, source=True, cache=True, destination=True)
    assert local_notice(settings) == (
        f"--local: not used: DATABASE_URL, the connections in {settings.config_path}, PGHOST"
    )


def test_local_with_nothing_else_has_nothing_to_say(load: Loader) -> None:
    assert local_notice(load(local=True)) is None
    assert local_notice(load(SOURCE)) is None


def test_nothing_and_a_terminal_is_the_embedded_stack(load: Loader) -> None:
    assert use_embedded(load(), is_terminal=True, source=True, cache=True, destination=True)


def test_nothing_and_no_terminal_has_to_be_asked_for(load: Loader) -> None:
    error = refused(load(), terminal=False)
    assert "nothing is configured" in error.message
    hint = error.hint or ""
    for word in ("--local", "momento-etl.toml", "DATABASE_URL", "MOMENTO_API_KEY", "AWS_REGION"):
        assert word in hint


def test_an_aws_config_file_alone_is_nothing(load: Loader, tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[default]\nregion = eu-west-1\n")
    assert use_embedded(load(), is_terminal=True, destination=True)
    assert "nothing is configured" in refused(load(), "destination", terminal=False).message


def test_all_of_it(load: Loader) -> None:
    for terminal in (True, False):
        assert not use_embedded(
            load(SOURCE, CACHE, DESTINATION), is_terminal=terminal, source=True, cache=True, destination=True
        )


@pytest.mark.parametrize(
    ("environs", "missing", "given"),
    [
        ([SOURCE, DESTINATION], "no cache (Momento) is configured", "DATABASE_URL, AWS_REGION"),
        ([CACHE, DESTINATION], "no source (PostgreSQL) is configured", "MOMENTO_API_KEY, MOMENTO_ENDPOINT, AWS_REGION"),
        ([SOURCE, CACHE], "no destination (DynamoDB) is configured", "DATABASE_URL"),
        ([SOURCE], "no cache (Momento) and no destination (DynamoDB) are configured", "DATABASE_URL"),
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_half_a_configuration(
    load: Loader, environs: list[dict[str, str]], missing: str, given: str, terminal: bool
) -> None:
    error = refused(load(*environs), terminal=terminal)
    assert error.message.startswith(f"half a configuration: {missing}; there is only: {given}")
    assert "--local" in (error.hint or "")


def test_the_hint_tells_how_to_give_the_missing_half_only(load: Loader) -> None:
    hint = refused(load(SOURCE, DESTINATION, text="")).hint or ""
    assert str(load.folder / "momento-etl.toml") in hint
    assert "MOMENTO_API_KEY" in hint
    assert "DATABASE_URL" not in hint


def test_what_a_command_does_not_need_may_be_missing_or_wrong(load: Loader) -> None:
    settings = load(CACHE, DESTINATION, {"DATABASE_URL": "mysql://x"})
    require(settings, cache=True, destination=True)
    with pytest.raises(ConfigError, match="DATABASE_URL has to be a PostgreSQL address") as caught:
        require(settings, source=True)
    assert "MOMENTO_ETL_SOURCE_URL beats it" in (caught.value.hint or "")


def test_a_missing_reference_of_a_needed_half(load: Loader) -> None:
    settings = load(SOURCE, text="[cache]\napi_key = 'env:MY_KEY'\nendpoint = 'a.b'\n")
    require(settings, source=True)
    with pytest.raises(ConfigError, match=r"line 2: `api_key` in \[cache\]: env:MY_KEY .* MY_KEY, which is not set"):
        require(settings, cache=True)


def test_the_aws_config_file_gives_the_destination(load: Loader, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no destination \(DynamoDB\)"):
        require(load(SOURCE), destination=True)
    elsewhere = tmp_path / "aws-config"
    elsewhere.touch()
    require(load(SOURCE, {"AWS_CONFIG_FILE": str(elsewhere)}), destination=True)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").touch()
    settings = load(SOURCE)
    require(settings, destination=True)
    assert settings.aws_config == tmp_path / ".aws/config"


def test_the_cures_name_what_there_is() -> None:
    known = {
        name for section in SECTIONS.values() for option in section.options.values() for name in option.environment
    }
    for half, cure in _CURES.items():
        assert set(re.findall(r"`(\w+)`", cure)) <= {
            name for name, option in SECTIONS[half].options.items() if option.connects
        }
        assert set(re.findall(r"\b[A-Z]+[A-Z_]{3,}\b", cure)) <= known | set(LIBPQ_VARIABLES)


# Momento's kinds of access.


@pytest.mark.parametrize(
    ("environ", "text", "kind", "endpoint"),
    [
        (CACHE, None, "v2", "cell-1.example.com"),
        ({"MOMENTO_API_KEY": V2}, "[cache]\nendpoint = 'https://cache.cell-1.example.com'", "v2", "cell-1.example.com"),
        ({"MOMENTO_AUTH_TOKEN": LEGACY}, None, "legacy", None),
        ({"MOMENTO_AUTH_TOKEN": V1}, None, "legacy", None),
        ({"MOMENTO_API_KEY": V1}, None, "legacy", None),
        ({"MOMENTO_API_KEY": V1, "MOMENTO_ENDPOINT": "cell-1.example.com"}, None, "legacy", None),
        ({"K": V1}, "[cache]\napi_key = 'env:K'", "legacy", None),
    ],
)
def test_keys(load: Loader, environ: dict[str, str], text: str | None, kind: str, endpoint: str | None) -> None:
    access = momento_access(load(environ, text=text))
    assert (access.kind, access.endpoint, access.local) == (kind, endpoint, None)
    assert access.api_key in (V2, LEGACY, V1)


@pytest.mark.parametrize("local", ["127.0.0.1:8080", "[::1]:8080"])
def test_momento_local(load: Loader, local: str) -> None:
    access = momento_access(load({"MOMENTO_LOCAL": local}))
    assert (access.kind, access.local, access.api_key) == ("local", local, None)


@pytest.mark.parametrize(
    ("environ", "text", "expected"),
    [
        ({"MOMENTO_API_KEY": V2}, None, "half a configuration: a v2 Momento API key without its endpoint"),
        ({"MOMENTO_ENDPOINT": "a.b"}, None, "half a configuration: a Momento endpoint without an API key"),
        ({"MOMENTO_API_KEY": V2[:-30]}, None, "MOMENTO_API_KEY does not hold a Momento API key"),
        ({"MOMENTO_AUTH_TOKEN": "cut-off"}, None, "MOMENTO_AUTH_TOKEN does not hold a Momento API key"),
        ({}, "[cache]\napi_key = 'cut-off'", "line 2: `api_key` in [cache] does not hold a Momento API key"),
        (
            {"MOMENTO_API_KEY": V1, "MOMENTO_ENDPOINT": "x.y"},
            None,
            "carries its own endpoint (MOMENTO_API_KEY), and another",
        ),
        ({"MOMENTO_LOCAL": "8080"}, None, "MOMENTO_LOCAL has no port from 1 to 65535; it has to be host and port"),
        (
            {"MOMENTO_ENDPOINT": V2, "MOMENTO_API_KEY": V2},
            None,
            "MOMENTO_ENDPOINT is an API key; it has to be the endpoint",
        ),
        (
            {"MOMENTO_LOCAL": "h:1", "MOMENTO_API_KEY": V2},
            None,
            "two caches are configured: MOMENTO_API_KEY, and MOMENTO_L",
        ),
        ({}, f"[cache]\nlocal = 'h:1'\napi_key = '{V2}'", "two caches are configured"),
        ({}, None, "nothing is configured"),
    ],
)
def test_wrong_or_half_keys(load: Loader, environ: dict[str, str], text: str | None, expected: str) -> None:
    settings = load(environ, text=text)
    for check in (lambda: momento_access(settings), lambda: require(settings, cache=True)):
        with pytest.raises(ConfigError) as caught:
            check()
        assert expected in caught.value.message
        assert caught.value.hint
        for secret in (V2, V1, "cut-off", V2[:-30]):
            assert secret not in f"{caught.value.message}{caught.value.hint}"


def test_of_two_caches_the_one_from_the_environment(load: Loader) -> None:
    settings = load({"MOMENTO_LOCAL": "h:1"}, text=f"[cache]\napi_key = '{V2}'\nendpoint = 'a.b'\n")
    assert momento_access(settings).kind == "local"
    assert settings.notices == (f"MOMENTO_LOCAL overrides {settings.config_path}, line 2: `api_key` in [cache]",)
    settings = load(CACHE, text="[cache]\nlocal = 'h:1'\n")
    assert momento_access(settings).kind == "v2"
    assert settings.notices == (f"MOMENTO_API_KEY overrides {settings.config_path}, line 2: `local` in [cache]",)


def test_a_missing_reference_of_a_cache_that_does_not_count(load: Loader) -> None:
    settings = load({"MOMENTO_LOCAL": "h:1"}, text="[cache]\napi_key = 'env:MISSING'\nendpoint = 'a.b'\n")
    assert momento_access(settings).kind == "local"


# The embedded stack in place of what is configured.


def test_the_embedded_stack_takes_the_place_of_connections_only(load: Loader) -> None:
    settings = load(
        SOURCE,
        {"AWS_PROFILE": "prod", "PGHOST": "prod"},
        text=f"[source]\nread_timeout = '1h'\n[cache]\napi_key = '{V2}'\nttl = '2h'\nname = 'etl'\n"
        "[destination]\ntags = { a = 'b' }\n[tables.m]\n",
        local=True,
    )
    embedded = connect_embedded(
        settings,
        source_url="postgresql://me:pw@127.0.0.1:1/db",
        momento="127.0.0.1:2",
        dynamodb_url="http://127.0.0.1:3",
        region="us-east-1",
    )
    require(embedded, source=True, cache=True, destination=True)
    assert embedded.source is not None
    assert embedded.source.url == "postgresql://me:pw@127.0.0.1:1/db"
    assert embedded.source.read_timeout == 3600
    assert momento_access(embedded).local == "127.0.0.1:2"
    assert embedded.destination.profile is None
    assert embedded.destination.endpoint_url == "http://127.0.0.1:3"
    assert embedded.destination.region == "us-east-1"
    assert (embedded.cache.ttl, embedded.cache.name) == (7200, "etl")
    assert create_options(embedded).tags == {"a": "b"}
    assert list(embedded.tables) == ["m"]
    assert embedded.libpq == ()
    assert local_notice(embedded) is None
    assert "pw" not in repr(embedded)


def test_what_is_wrong_with_a_connection_does_not_matter_to_the_embedded_stack(load: Loader) -> None:
    text = "[cache]\napi_key = 'env:MISSING'\nttl = 'env:TTL'\n[tables.m]\nwhere = 'env:MISSING'\n"
    settings = load(text=text, local=True)
    embedded = connect_embedded(settings, source_url="x", momento="h:1", dynamodb_url="http://x", region="r")
    # What is not a connection still does.
    with pytest.raises(ConfigError, match="`ttl` in"):
        momento_access(embedded)
    with pytest.raises(ConfigError, match="`where` in"):
        resolve_job(embedded, "m")


def test_create_options(load: Loader) -> None:
    text = """
        [destination]
        tags = { a = 'b' }
        point_in_time_recovery = true
        deletion_protection = true
        ttl_attribute = 'x'
        """
    options = create_options(load(text=text))
    assert options.tags == {"a": "b"}
    assert options.point_in_time_recovery
    assert options.deletion_protection
    assert options.ttl_attribute == "x"
    assert create_options(load(text="")).tags == {}
