"""A first config: what the environment has is referred to, secrets are left out, and the program reads it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from etlcli.config import load_settings
from etlcli.config.initial import ASKED, found_in, initial_file, missing_variables, option_at, without_password

EVERYTHING = {
    "DATABASE_URL": "postgresql://u:p@h/d",
    "MOMENTO_API_KEY": "key",
    "MOMENTO_ENDPOINT": "cell-1.prod.a.momentohq.com",
    "AWS_REGION": "eu-west-1",
    "AWS_PROFILE": "team",
    "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:8000",
}


def test_what_the_environment_has_is_referred_to_and_reads_back(tmp_path: Path) -> None:
    values = found_in(EVERYTHING)
    assert set(values.values()) == {f"env:{name}" for name in EVERYTHING}
    text = initial_file(values, ["movies", 'sales."Order Details"'], EVERYTHING)
    for secret in ("postgresql://", "key"):
        assert secret not in text.replace("api_key", "")
    (tmp_path / "momento-etl.toml").write_text(text)
    settings = load_settings(environ=EVERYTHING, folder=tmp_path)
    assert list(settings.tables) == ["movies", 'sales."Order Details"']
    assert settings.source is not None
    assert settings.source.url == EVERYTHING["DATABASE_URL"]
    assert settings.cache.endpoint == "cell-1.prod.a.momentohq.com"
    assert settings.destination.profile == "team"
    assert dict(settings.deferred) == {}
    assert settings.notices == ()


def test_nothing_makes_a_file_of_suggestions_that_are_valid_too(tmp_path: Path) -> None:
    text = initial_file({}, [], {})
    assert tomllib.loads(text) == {"source": {}, "cache": {}, "destination": {}}
    assert "# [tables.movies]" in text
    uncommented = "\n".join(line[2:] if line[:2] == "# " and "=" in line else line for line in text.splitlines())
    (tmp_path / "momento-etl.toml").write_text(uncommented.replace("# [", "["))
    assert list(load_settings(environ=EVERYTHING, folder=tmp_path).tables) == ["movies"]


def test_libpqs_own_variables_stay_where_they_are() -> None:
    text = initial_file({}, [], {"PGHOST": "db", "PGSERVICE": "x"})
    assert "PGHOST, PGSERVICE" in text
    assert tomllib.loads(text)["source"] == {}


def test_a_key_comes_before_a_momento_local_and_a_weaker_variable_after_a_stronger() -> None:
    assert found_in({"MOMENTO_LOCAL": "h:1", "MOMENTO_AUTH_TOKEN": "k"}) == {"cache.api_key": "env:MOMENTO_AUTH_TOKEN"}
    assert found_in({"MOMENTO_LOCAL": "h:1"}) == {"cache.local": "env:MOMENTO_LOCAL"}
    both = {"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b", "DATABASE_URL": " "}
    assert found_in(both) == {"destination.region": "env:AWS_REGION"}


def test_variables_that_are_missing() -> None:
    values = {"source.url": "env:A", "cache.api_key": "env:B", "destination.region": "eu-west-1"}
    assert missing_variables(values, {"A": "x", "B": ""}) == ["B"]


def test_every_option_that_is_asked_for_exists() -> None:
    for path in ASKED:
        assert option_at(path).path == path


@pytest.mark.parametrize(
    ("address", "bare"),
    [
        ("postgresql://u:SECRET@h:5/d?sslmode=require", "postgresql://u@h:5/d?sslmode=require"),
        ("postgresql://u:SECRET@with-at@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?password=SECRET&sslmode=require", "postgresql://h/d?sslmode=require"),
        ("postgresql://u:SECRET@h/d?a=%20b&sslpassword=SECRET", "postgresql://u@h/d?a=+b"),
        ("host=h password=SECRET dbname=d", "host=h dbname=d"),
        ("host=h password = 'SE \\' CRET'  dbname=d", "host=h dbname=d"),
        ("password=SECRET", ""),
        ("postgresql://u@h/d?options=-csearch_path%3Dx", "postgresql://u@h/d?options=-csearch_path%3Dx"),
        ("env:DATABASE_URL", "env:DATABASE_URL"),
        ("host=h dbname=passwords", "host=h dbname=passwords"),
    ],
)
def test_passwords_are_taken_out(address: str, bare: str) -> None:
    assert without_password(address) == bare
