import dataclasses
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from etlcli.config import SECTIONS, CacheSettings, Settings, TableSettings, load_settings
from etlcli.errors import ConfigError
from etlcli.model import Job, Selection

SECRET = "s3cr3t-Passw0rd"


class Loader:
    """Loads a config text under an environment, without anything of the real one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "momento-etl.toml"

    def __call__(
        self, text: str | None = None, environ: Mapping[str, str] | None = None, local: bool = False
    ) -> Settings:
        if text is not None:
            self.path.write_text(text, encoding="utf-8")
        return load_settings(local=local, environ=environ or {}, folder=self.path.parent)

    def error(self, text: str | None = None, environ: Mapping[str, str] | None = None) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            self(text, environ)
        return caught.value


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


def test_nothing_at_all(load: Loader) -> None:
    settings = load()
    assert settings.source is None
    assert settings.cache == CacheSettings()
    assert dict(settings.tables) == {}
    assert settings.config_path is None
    assert not settings.local
    assert settings.notices == ()


def test_defaults_are_those_of_the_model() -> None:
    job = Job("x", Selection(), "x", "x")
    assert CacheSettings().ttl == job.ttl_seconds
    assert CacheSettings().max_cached_bytes == job.max_cached_bytes


WHOLE = """
[source]
url = "postgresql://me@db/shop"
[cache]
api_key = "k"
endpoint = "https://cache.cell-1.example.com/"
name = "etl"
ttl = "90s"
layout = "packed"
max_cached_bytes = "1GiB"
[destination]
region = "eu-west-1"
endpoint_url = "http://127.0.0.1:8000/"
profile = "p"
tags = { team = "data", "a b" = "" }
point_in_time_recovery = true
deletion_protection = true
ttl_attribute = "expires"
[tables.movies]
source = "public.movies"
where = "a > 1"
columns = ["a", "B b"]
key = ["a"]
limit = 5
destination = "films"
cache = "other"
mode = "upsert"
ttl = 60
on_unrepresentable = "string"
json = "string"
[tables."Order Details"]
query = "select 1 as a"
"""


def test_every_key_of_a_file(load: Loader) -> None:
    settings = load(WHOLE)
    assert settings.source is not None
    assert settings.source.url == "postgresql://me@db/shop"
    assert dataclasses.asdict(settings.cache) == {
        "api_key": "k",
        "endpoint": "cell-1.example.com",
        "local": None,
        "name": "etl",
        "ttl": 90,
        "layout": "packed",
        "max_cached_bytes": 1 << 30,
    }
    assert settings.destination.tags == {"team": "data", "a b": ""}
    assert settings.destination.endpoint_url == "http://127.0.0.1:8000"
    assert settings.destination.point_in_time_recovery is True
    assert settings.destination.deletion_protection is True
    assert settings.destination.ttl_attribute == "expires"
    assert list(settings.tables) == ["movies", "Order Details"]
    given = dataclasses.asdict(settings.tables["movies"])
    untouched = dataclasses.asdict(TableSettings())
    assert {name: value for name, value in given.items() if name in WHOLE or value != untouched[name]} == {
        "source": "public.movies",
        "query": None,
        "where": "a > 1",
        "columns": ("a", "B b"),
        "key": ("a",),
        "limit": 5,
        "destination": "films",
        "cache": "other",
        "mode": "upsert",
        "ttl": 60,
        "on_unrepresentable": "string",
        "json": "string",
    }
    assert settings.tables["Order Details"].query == "select 1 as a"
    assert settings.config_path == load.path
    assert settings.origins["cache.ttl"].text == f"{load.path}, line 8: `ttl` in [cache]"


def test_settings_cannot_be_changed(load: Loader) -> None:
    settings = load(WHOLE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.cache.ttl = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.tables["x"] = settings.tables["movies"]  # type: ignore[index]


# Wrong files. What stands right of the arrow is in the message.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[cache]\nmax_cached_byte = 1",
            "line 2: unknown key `max_cached_byte` in [cache]; did you mean `max_cached_bytes`?",
        ),
        ("[cache]\nzzz = 1", "line 2: unknown key `zzz` in [cache]"),
        ("[cache]\nregion = 'x'", "line 2: unknown key `region` in [cache]; it belongs below [destination]"),
        ("[tables.'a b']\nquerry = 'x'", 'line 2: unknown key `querry` in [tables."a b"]; did you mean `query`?'),
        ("[tables.m]\nkey.hash = 'x'", "line 2: `key` in [tables.m] has to be a list of names such as"),
        ("[cashe]\nttl = 1", "line 1: unknown section [cashe]; did you mean `cache`?"),
        ("[stat]\ntable = 'x'", "line 1: unknown section [stat]; did you mean `state`?"),
        ("[state]\ntable = 'x'", "line 2: `table` in [state] has to be a DynamoDB table's name"),
        ("[prices]\nmomento_transfer = '0.5'", 'has to be a price in US dollars such as 0.625; found "0.5"'),
        ("[prices]\nmomento_transfer = -1", "has to be a price in US dollars"),
        ("[prices]\nmomento_transfer = nan", "has to be a price in US dollars"),
        ("[prices]\nmomento_transfer = 1e99999999999999999999", "is not a config: it has values that are too large"),
        ("ttl = 1", "line 1: `ttl` stands in no section; it belongs below [cache] or [tables.NAME]"),
        ("zzz = 1", "line 1: `zzz` stands in no section"),
        (f"source = 'postgresql://me:{SECRET}@db/x'", "line 1: `source` has to be a section; found a text"),
        ("[[cache]]\nttl = 1", "line 1: `cache` has to be a section; found a list"),
        ("[tables]\nmovies = 'x'", "line 2: `movies` has to be a section; found a text"),
        ("[tables.'']\nttl = 5", "is not a usable name for a job"),
        ('[tables."a\\nb"]\nttl = 5', "is not a usable name for a job"),
        ("[source]\nurl = 5", "line 2: `url` in [source] has to be a PostgreSQL address"),
        (f"[source]\nurl = 'mysql://me:{SECRET}@db/x'", "line 2: `url` in [source] has to be a PostgreSQL address"),
        (f"[source]\nurl = '{SECRET}'", "line 2: `url` in [source] has to be a PostgreSQL address"),
        ("[cache]\nttl = '80x'", 'line 2: `ttl` in [cache] has to be a duration such as "80m", "90s" or "24h"'),
        ("[cache]\nttl = '80x'", 'found "80x"'),
        ("[source]\nread_timeout = 0", "`read_timeout` in [source] has to be at least 1s; found 0"),
        ("[cache]\nttl = 0", "`ttl` in [cache] has to be at least 1s; found 0"),
        ("[cache]\nttl = '25h'", '`ttl` in [cache] has to be at most 24h; found "25h"'),
        ("[cache]\nttl = true", "found true"),
        ("[cache]\nttl = 1.5", "found 1.5"),
        ("[cache]\nttl = 1979-05-27", "found 1979-05-27"),
        ("[cache]\nttl = []", "found a list"),
        ("[cache]\nttl = {a = 1}", "found a section"),
        ("[cache]\nttl = ''", "found an empty text"),
        ("[cache]\nmax_cached_bytes = 1000", "has to be at least 1MB; found 1000"),
        ("[cache]\nmax_cached_bytes = '80M'", "has to be a size such as"),
        ("[cache]\nlayout = 'flat'", '`layout` in [cache] has to be "packed" or "rows"; found "flat"'),
        (f"[cache]\napi_key = ['{SECRET}']", "has to be a Momento API key, as a text; found a list"),
        ("[cache]\napi_key = ''", "`api_key` in [cache] is empty"),
        (f"[cache]\nendpoint = '{SECRET}'", "`endpoint` in [cache] is not a host name"),
        ("[cache]\nendpoint = 'ftp://a.b'", "has an unknown scheme"),
        (f"[cache]\nlocal = '{SECRET}'", "`local` in [cache] has no port from 1 to 65535"),
        ("[cache]\nname = 'a b'", "has to be a cache's name: 3 to 255 letters (a to z), digits, dots"),
        ("[cache]\nname = 'ab'", "has to be a cache's name"),
        (f"[destination]\nendpoint_url = 'http://me:{SECRET}@x'", "credentials are found as boto3 finds them"),
        ("[destination]\nendpoint_url = '127.0.0.1:8000'", 'has to be a URL such as "http://127.0.0.1:8000"'),
        ("[destination]\nendpoint_url = 'http://x:99999'", "has to be a URL"),
        ("[destination]\nendpoint_url = 'http://x/y'", "goes on after host and port"),
        ("[destination]\npoint_in_time_recovery = 'true'", 'has to be true or false, without quotes; found "true"'),
        ("[destination]\ntags = 'x'", "has to be a table of texts such as"),
        ("[destination]\ntags = { a = 1 }", "has to give the tag `a` a text in quotes; found 1"),
        ("[destination]\ntags = { 'aws:x' = 'y' }", "names that start with aws: are AWS's own"),
        (f"[destination]\ntags = {{ a = '{'x' * 257}' }}", "has the tag `a`, too long"),
        (
            "[destination]\n" + "\n".join(f"tags.t{n} = 'x'" for n in range(51)),
            "has 51 tags; DynamoDB takes at most 50",
        ),
        ("[tables.m]\nsource = 'a'\nquery = 'b'", "line 3: [tables.m] has both `source` and `query`"),
        ("[tables.m]\nwhere = '  '", "`where` in [tables.m] is empty"),
        ('[tables.m]\nwhere = "\\u0000"', "has a NUL character"),
        ("[tables.m]\nkey = 'a'", 'has to be a list of names such as ["movie_id", "title"]; found "a"'),
        ("[tables.m]\nkey = [1]", "found a list with 1 in it"),
        ("[tables.m]\nkey = []", "`key` in [tables.m] is an empty list"),
        ("[tables.m]\nkey = ['']", "has an empty name in it"),
        ("[tables.m]\nkey = ['a', 'b', 'c']", "names 3 columns; at most 2 are possible"),
        ("[tables.m]\ncolumns = ['a', 'b', 'a']", "names the column `a` twice"),
        ("[tables.m]\nlimit = 0", "`limit` in [tables.m] has to be at least 1; found 0"),
        ("[tables.m]\nlimit = 'ten'", 'has to be a whole number; found "ten"'),
        ("[tables.m]\nmode = 'merge'", 'has to be "upsert" or "replace"; found "merge"'),
        ("[tables.m]\nrename = ['a']", 'has to be a table of names such as { movie_id = "id" }; found a list'),
        ("[tables.m]\nrename = 'a'", "has to be a table of names such as"),
        ("[tables.m]\nrename = { a = 1 }", "`rename` in [tables.m] has to give `a` a name in quotes; found 1"),
        ("[tables.m]\nrename = { a = '' }", "gives `a` an empty name"),
        ("[tables.m]\nrename = { '' = 'a' }", "has an empty name in it"),
        ("[tables.m]\ncast = { a = 'n' }", 'has to give `a` "S" or "N" or "B" or "BOOL"; found "n"'),
        ("[tables.m.mask]\na = 'md5'", 'line 1: `mask` in [tables.m] has to give `a` "hash" or "redact" or "hmac"'),
        ("[tables.m]\nattributes = { a = [] }", "has to give `a` a text, a number, true or false; found a list"),
        ("[tables.m]\nattributes = { a = inf }", "has to give `a` a text, a number, true or false"),
        ("[tables.m]\nattributes = { a = 2020-01-01 }", "found 2020-01-01"),
        (f"[tables.m]\nmask_key = ['{SECRET}']", "has to be a secret key, as a text; found a list"),
        ("[tables.m]\ntransform = 'clean'", 'has to be a Python function such as "my_transforms:clean"; found "clean"'),
        ("[tables.m]\ntransform = 'a-b:c'", "has to be a Python function such as"),
        ("[tables.m]\nmax_rejects = 0.5", "has to be a number of rows, or a percentage such as"),
        ("[tables.m]\nmax_rejects = '101%'", "has to be a number of rows"),
        ("[tables.m]\nmax_rejects = -1", "has to be a number of rows"),
        ("[tables.m]\nmax_rejects = true", "has to be a number of rows"),
        (
            "[tables.m]\nmax_deletes = 'half'",
            'has to be a number of items, or a percentage such as "50%"; found "half"',
        ),
        ("[tables.m]\nmax_writes = 0", "has to be at least 1; found 0"),
        ("[destination]\nmax_writes = 'fast'", 'has to be a whole number; found "fast"'),
        ("[tables.m]\noverlap = '5 years'", 'has to be a duration such as "5m" for times, or a number for numbers'),
        ("[tables.m]\noverlap = -1", "has to be a duration such as"),
        ("[tables.m]\nschema_contract = 'strict'", 'has to be "evolve" or "freeze"; found "strict"'),
        ("[tables.m]\nnull = 'none'", 'has to be "absent" or "null"; found "none"'),
        ("[tables.m]\non_unrepresentable = 'drop'", 'has to be "reject" or "string" or "fail"; found "drop"'),
        ("[tables.m]\ndestination = 'a/b'", "has to be a DynamoDB table's name: 3 to 255 letters"),
    ],
)
def test_what_is_wrong_with_a_file(load: Loader, text: str, expected: str) -> None:
    error = load.error(text)
    assert expected in error.message
    assert error.message.startswith(str(load.path))
    assert error.hint
    assert error.exit_code == 2
    assert SECRET not in f"{error.message}{error.hint}"


def test_all_problems_are_told_at_once_in_the_order_of_the_file(load: Loader) -> None:
    error = load.error("[cache]\nttl = '1x'\nnmae = 'etl'\n[source]\nurl = 1\n[tables.m]\nlimit = 0\n[cashe]\n")
    header, *lines = error.message.split("\n")
    assert header == "5 problems in the configuration:"
    assert [line.split("line ")[1][0] for line in lines] == ["2", "3", "5", "7", "8"]


def test_of_very_many_problems_the_first_are_told(load: Loader) -> None:
    error = load.error("[cache]\n" + "\n".join(f"wrong{n} = 1" for n in range(25)))
    assert error.message.count("unknown key") == 10
    assert error.message.endswith("... and 15 more")


def test_unknown_keys_come_with_the_list_of_keys(load: Loader) -> None:
    assert "Keys of [cache]: api_key, endpoint, local, name, ttl" in (load.error("[cache]\nzzz = 1").hint or "")
    assert "[source], [cache], [destination], [state], [tables.NAME], [prices]" in (load.error("[zzz]\n").hint or "")


# The environment.


@pytest.mark.parametrize(
    ("section", "key", "text", "value"),
    [
        ("source", "url", "postgres://db", "postgres://db"),
        ("source", "read_timeout", "1h", 3600),
        ("source", "password", " as it stands \n", " as it stands "),
        ("cache", "api_key", " k\n", "k"),
        ("cache", "endpoint", "a.b", "a.b"),
        ("cache", "local", "[::1]:80", "[::1]:80"),
        ("cache", "name", "etl", "etl"),
        ("cache", "ttl", "2h", 7200),
        ("cache", "layout", "packed", "packed"),
        ("cache", "max_cached_bytes", "2MB", 2_000_000),
        ("destination", "region", "x", "x"),
        ("destination", "endpoint_url", "https://x", "https://x"),
        ("destination", "profile", "x", "x"),
        ("destination", "point_in_time_recovery", "yes", True),
        ("destination", "deletion_protection", "0", False),
        ("destination", "ttl_attribute", "x", "x"),
        ("destination", "max_writes", "250", 250),
        ("state", "table", "my-state", "my-state"),
        ("state", "enabled", "no", False),
        ("prices", "dynamodb_write", "1.25", Decimal("1.25")),
        ("prices", "dynamodb_read", "0", Decimal(0)),
        ("prices", "momento_transfer", "0.5", Decimal("0.5")),
        ("prices", "lambda_compute", "16.67", Decimal("16.67")),
        ("prices", "lambda_requests", "0", Decimal(0)),
        ("prices", "state_transitions", "0.0279", Decimal("0.0279")),
    ],
)
def test_a_variable_for_every_scalar_option(load: Loader, section: str, key: str, text: str, value: object) -> None:
    variable = f"MOMENTO_ETL_{section}_{key}".upper()
    assert variable in SECTIONS[section].options[key].environment
    settings = load(environ={variable: text})
    assert getattr(getattr(settings, section), key) == value
    assert settings.origins[f"{section}.{key}"].text == variable


def test_no_scalar_option_is_left_out_above() -> None:
    reachable = [option for section in SECTIONS.values() for option in section.options.values() if option.environment]
    assert len(reachable) == 25
    assert all(option.kind.scalar for option in reachable)
    assert not SECTIONS["tables"].options["where"].environment


@pytest.mark.parametrize(
    ("environ", "path", "value"),
    [
        ({"DATABASE_URL": "postgresql://a"}, "source.url", "postgresql://a"),
        (
            {"DATABASE_URL": "postgresql://a", "MOMENTO_ETL_SOURCE_URL": "postgresql://b"},
            "source.url",
            "postgresql://b",
        ),
        ({"DATABASE_URL": "host=a dbname=b"}, "source.url", "host=a dbname=b"),
        ({"MOMENTO_API_KEY": "a", "MOMENTO_AUTH_TOKEN": "b"}, "cache.api_key", "a"),
        ({"MOMENTO_API_KEY": "", "MOMENTO_AUTH_TOKEN": "b"}, "cache.api_key", "b"),
        ({"MOMENTO_ENDPOINT": "cache.a.b"}, "cache.endpoint", "a.b"),
        ({"MOMENTO_LOCAL": "127.0.0.1:8080"}, "cache.local", "127.0.0.1:8080"),
        ({"AWS_DEFAULT_REGION": "a", "AWS_REGION": "b"}, "destination.region", "b"),
        ({"AWS_DEFAULT_REGION": "a", "AWS_REGION": " "}, "destination.region", "a"),
        ({"AWS_PROFILE": "a"}, "destination.profile", "a"),
        (
            {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_DYNAMODB": "http://b"},
            "destination.endpoint_url",
            "http://b",
        ),
        ({"AWS_ENDPOINT_URL": "http://a"}, "destination.endpoint_url", "http://a"),
    ],
)
def test_variables_that_people_have_anyway(load: Loader, environ: dict[str, str], path: str, value: str) -> None:
    section, key = path.split(".")
    assert getattr(getattr(load(environ=environ), section), key) == value


@pytest.mark.parametrize("name", ["PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSERVICE"])
def test_libpqs_variables_configure_the_source(load: Loader, name: str) -> None:
    settings = load(environ={name: "x"})
    assert settings.source is not None
    assert settings.source.url == ""
    assert settings.libpq == (name,)


@pytest.mark.parametrize("name", ["PGPASSWORD", "PGSSLMODE", "PGAPPNAME"])
def test_variables_that_only_add_to_a_connection_do_not(load: Loader, name: str) -> None:
    assert load(environ={name: "x"}).source is None


def test_an_empty_url_leaves_it_to_libpq(load: Loader) -> None:
    assert load("[source]\nurl = ''").source is None
    source = load("[source]\nurl = ''", {"PGHOST": "db"}).source
    assert source is not None
    assert source.url == ""


def test_the_environment_beats_the_file_and_says_so(load: Loader) -> None:
    text = "[source]\nurl = 'postgresql://file'\n[cache]\nttl = 60\n[destination]\nregion = 'same'\n"
    settings = load(
        text, {"DATABASE_URL": "postgresql://variable", "MOMENTO_ETL_CACHE_TTL": "61", "AWS_REGION": "same"}
    )
    assert settings.source is not None
    assert settings.source.url == "postgresql://variable"
    assert settings.cache.ttl == 61
    # Only of variables that were perhaps not meant for us, and that say something else than the file.
    assert settings.notices == (f"DATABASE_URL overrides {load.path}, line 2: `url` in [source]",)


def test_no_notice_where_the_file_refers_to_that_variable(load: Loader) -> None:
    settings = load("[cache]\napi_key = 'env:MOMENTO_API_KEY'", {"MOMENTO_API_KEY": "k"})
    assert settings.notices == ()


def test_a_file_is_checked_where_it_does_not_count_too(load: Loader) -> None:
    assert "line 2: `ttl` in [cache]" in load.error("[cache]\nttl = []", {"MOMENTO_ETL_CACHE_TTL": "1m"}).message


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("MOMENTO_ETL_CACHE_TTL", "80x", "MOMENTO_ETL_CACHE_TTL has to be a duration such as"),
        ("MOMENTO_ETL_CACHE_LAYOUT", "row", 'MOMENTO_ETL_CACHE_LAYOUT has to be "packed" or "rows"; found "row"'),
        ("MOMENTO_ETL_PRICES_DYNAMODB_WRITE", "cheap", 'has to be a price in US dollars such as 0.625; found "cheap"'),
        ("MOMENTO_ETL_DESTINATION_DELETION_PROTECTION", "si", 'has to be true or false; found "si"'),
        ("MOMENTO_ETL_SOURCE_URL", f"mysql://{SECRET}", "MOMENTO_ETL_SOURCE_URL has to be a PostgreSQL address"),
        ("MOMENTO_ETL_CACHE_TLL", "5", "variable MOMENTO_ETL_CACHE_TLL; did you mean `MOMENTO_ETL_CACHE_TTL`?"),
        (
            "MOMENTO_ETL_CONFG",
            "x",
            "unknown environment variable MOMENTO_ETL_CONFG; did you mean `MOMENTO_ETL_CONFIG`?",
        ),
        ("MOMENTO_ETL_", SECRET, "unknown environment variable MOMENTO_ETL_"),
        ("MOMENTO_ETL_DESTINATION_TAGS", "a=b", "unknown environment variable MOMENTO_ETL_DESTINATION_TAGS"),
        ("MOMENTO_ETL_TABLES_MOVIES_KEY", "a", "unknown environment variable MOMENTO_ETL_TABLES_MOVIES_KEY"),
    ],
)
def test_wrong_variables(load: Loader, variable: str, text: str, expected: str) -> None:
    error = load.error(environ={variable: text})
    assert expected in error.message
    assert error.hint
    assert SECRET not in f"{error.message}{error.hint}"


def test_variables_that_are_no_options(load: Loader) -> None:
    load(
        environ={
            "MOMENTO_ETL_LOCAL_DIR": "x",
            "MOMENTO_ETL_TEST_X": "x",
            "MOMENTO_ETL_UNKNOWN": "",
            "MOMENTO_OTHER": "x",
        }
    )


def test_the_file_can_be_named_by_the_environment(load: Loader) -> None:
    load.path.with_name("other.toml").write_text("[cache]\nttl = 7\n")
    assert load(environ={"MOMENTO_ETL_CONFIG": "other.toml"}).cache.ttl == 7


def test_the_process_environment_and_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "momento-etl.toml").write_text("[cache]\nttl = 7\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOMENTO_ETL_CACHE_NAME", "from-environment")
    monkeypatch.delenv("MOMENTO_ETL_CONFIG", raising=False)
    settings = load_settings()
    assert (settings.cache.ttl, settings.cache.name) == (7, "from-environment")
    assert settings.config_path == tmp_path / "momento-etl.toml"


# References.


@pytest.mark.parametrize(
    ("text", "environ", "path", "value"),
    [
        ("[source]\nurl = 'env:X'", {"X": "postgresql://db"}, "source.url", "postgresql://db"),
        ("[cache]\nttl = 'env:X'", {"X": "2h"}, "cache.ttl", 7200),
        ("[destination]\ndeletion_protection = 'env:X'", {"X": "true"}, "destination.deletion_protection", True),
        ("", {"DATABASE_URL": "env:X", "X": "postgresql://db"}, "source.url", "postgresql://db"),
        # What a reference leads to is not followed again.
        ("[destination]\nregion = 'env:X'", {"X": "env:Y", "Y": "z"}, "destination.region", "env:Y"),
    ],
)
def test_references(load: Loader, text: str, environ: dict[str, str], path: str, value: object) -> None:
    section, key = path.split(".")
    assert getattr(getattr(load(text, environ), section), key) == value


@pytest.mark.parametrize(
    ("text", "environ", "expected"),
    [
        (
            "[source]\nurl = 'env:X'",
            {},
            "`url` in [source]: env:X refers to the environment variable X, which is not set",
        ),
        ("[source]\nurl = 'env:X'", {"X": " "}, "which is not set"),
        ("[source]\nurl = 'env:'", {}, "names no environment variable"),
        ("[source]\nurl = 'env:X'", {"X": SECRET}, "has to be a PostgreSQL address such as"),
        ("", {"DATABASE_URL": f"mysql://me:{SECRET}@db"}, "DATABASE_URL has to be a PostgreSQL address"),
        ("", {"DATABASE_URL": f"postgresql+asyncpg://me:{SECRET}@db"}, "DATABASE_URL has to be a PostgreSQL address"),
    ],
)
def test_what_depends_on_the_surroundings_waits_until_it_is_needed(
    load: Loader, text: str, environ: dict[str, str], expected: str
) -> None:
    settings = load(text, environ)
    assert settings.source is None
    assert settings.connects("source")
    (problem,) = settings.problems("source")
    assert expected in problem.message
    assert problem.hint
    assert settings.problems("cache") == []
    assert SECRET not in f"{settings!r}{problem}"


def test_a_problem_in_a_job_waits_until_that_job_is_run(load: Loader) -> None:
    settings = load("[tables.'a.b']\nwhere = 'env:X'\n[tables.m]\n")
    assert '`where` in [tables."a.b"]: env:X refers to' in settings.problems("tables.a.b")[0].message
    assert settings.problems("tables.m") == []


def test_a_list_and_tags_are_taken_literally(load: Loader) -> None:
    settings = load("[destination]\ntags = { stage = 'env:prod' }\n[tables.m]\ncolumns = ['env:x']")
    assert settings.destination.tags == {"stage": "env:prod"}
    assert settings.tables["m"].columns == ("env:x",)


# Secrets.


def test_no_repr_shows_a_secret(load: Loader) -> None:
    text = f"[source]\nurl = 'postgresql://me:{SECRET}@db/x'\n[cache]\napi_key = '{SECRET}'\n"
    for settings in (
        load(text),
        load("", {"DATABASE_URL": f"postgresql://me:{SECRET}@db/x", "MOMENTO_API_KEY": SECRET}),
        load("[source]\nurl = 'env:X'\n[cache]\napi_key = 'env:X'", {"X": f"host={SECRET}"}),
    ):
        assert settings.source is not None
        assert SECRET in settings.source.url
        for value in (settings, settings.source, settings.cache, settings.origins, settings.notices):
            assert SECRET not in f"{value!r}{value!s}"
