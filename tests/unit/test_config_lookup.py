"""What AWS keeps for the configuration: asked for once a section is used, never before, and never told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from etlcli.config import (
    JobFlags,
    Reference,
    Request,
    Settings,
    Surroundings,
    choose,
    connect_embedded,
    load_settings,
    look_up,
    momento_access,
    require,
    resolve_job,
    resolve_options,
    use_embedded,
    used,
)
from etlcli.config.references import is_reference, is_remote, parse
from etlcli.config.references import resolve as resolve_here
from etlcli.errors import ConfigError, Unavailable
from etlcli.hidden import masked

SECRET = "s3cr3t-Passw0rd"


class Keeper:
    """Knows values by their references, and keeps count of who asks."""

    def __init__(self, values: Mapping[str, str | Exception]) -> None:
        self.values = values
        self.asked: list[str] = []
        self.surroundings: list[Surroundings] = []

    def __call__(self, reference: Reference, surroundings: Surroundings) -> str:
        self.asked.append(str(reference))
        self.surroundings.append(surroundings)
        value = self.values.get(str(reference))
        if value is None:
            raise ConfigError(f"{reference}: there is no such thing", hint="Make it.")
        if isinstance(value, Exception):
            raise value
        return value


class Loader:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, text: str, keeper: Keeper, environ: Mapping[str, str] | None = None) -> Settings:
        (self.folder / "momento-etl.toml").write_text(text)
        return load_settings(environ=environ or {}, folder=self.folder, resolver=keeper)


@pytest.fixture
def load(tmp_path: Path) -> Loader:
    return Loader(tmp_path)


# What a reference looks like.


@pytest.mark.parametrize(
    ("text", "store", "name", "field", "region"),
    [
        ("ssm:/etl/url", "ssm", "/etl/url", None, None),
        ("ssm:plain", "ssm", "plain", None, None),
        ("ssm:/etl/url:3", "ssm", "/etl/url:3", None, None),
        ("ssm:/etl/url:live", "ssm", "/etl/url:live", None, None),
        ("ssm:arn:aws:ssm:eu-west-3:1:parameter/a", "ssm", "arn:aws:ssm:eu-west-3:1:parameter/a", None, "eu-west-3"),
        ("secretsmanager:prod/db", "secretsmanager", "prod/db", None, None),
        ("secretsmanager:prod/db#password", "secretsmanager", "prod/db", "password", None),
        ("secretsmanager:prod/db#a#b", "secretsmanager", "prod/db", "a#b", None),
        (
            "secretsmanager:arn:aws-cn:secretsmanager:cn-north-1:1:secret:db-AbCdEf#x",
            "secretsmanager",
            "arn:aws-cn:secretsmanager:cn-north-1:1:secret:db-AbCdEf",
            "x",
            "cn-north-1",
        ),
    ],
)
def test_references_are_read(text: str, store: str, name: str, field: str | None, region: str | None) -> None:
    found = parse(text)
    assert (found.store, found.name, found.field, found.region) == (store, name, field, region)
    assert str(found) == text
    assert is_reference(text)
    assert is_remote(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ssm:", "names no parameter"),
        ("ssm: ", "names no parameter"),
        ("secretsmanager:", "names no secret"),
        ("secretsmanager:#x", "names no secret"),
        ("secretsmanager:db#", "names no field"),
        ("ssm:/db#password", "has a #"),
    ],
)
def test_references_that_name_nothing(load: Loader, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse(text)
    assert caught.value.hint
    keeper = Keeper({})
    with pytest.raises(ConfigError, match=rf"line 2: `url` in \[source\]: {text}.*{said}"):
        used(load(f"[source]\nurl = '{text}'\n", keeper), "source")
    assert keeper.asked == []


@pytest.mark.parametrize("text", ["SSM:/x", "ssm/x", "secretmanager:x", "postgresql://ssm:x@db", "aws:x"])
def test_what_only_looks_like_one(text: str) -> None:
    assert not is_remote(text)


def test_where_nobody_can_ask_aws_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "momento-etl.toml").write_text("[source]\nurl = 'ssm:/pg'\n")
    with pytest.raises(ConfigError, match=r"`url` in \[source\]: ssm:/pg cannot be looked up here") as caught:
        require(load_settings(environ={}, folder=tmp_path), source=True)
    assert caught.value.hint
    assert resolve_here("env:X", {"X": "x"}) == "x"
    with pytest.raises(ConfigError, match="cannot be looked up here"):
        resolve_here("ssm:/x", {})


# When they are asked for.

WHOLE = """
[source]
url = "ssm:/url"
password = "secretsmanager:db#password"
[cache]
api_key = "secretsmanager:momento#key"
endpoint = "secretsmanager:momento#endpoint"
ttl = "ssm:/ttl"
[destination]
region = "ssm:/region"
[state]
table = "ssm:/state"
[tables.a]
mask_key = "ssm:/mask"
where = "ssm:/where"
[tables."b.c"]
limit = "ssm:/limit"
[prices]
dynamodb_read = "ssm:/price"
"""
LEGACY = "eyJhbGciOiJIUzI1NiJ9.eyJjcCI6ICJjb250cm9sLmNlbGwtMS5leGFtcGxlLmNvbSIsICJjIjogImNhY2hlLmNlbGwtMS5leGFtcGxlLmNvbSJ9.x"  # noqa: E501  a key that was made for tests
VALUES = {
    "ssm:/url": "postgresql://me@db/shop",
    "secretsmanager:db#password": SECRET,
    "secretsmanager:momento#key": LEGACY,
    "secretsmanager:momento#endpoint": "cell-1.example.com",
    "ssm:/ttl": "2h",
    "ssm:/region": "eu-west-3",
    "ssm:/state": "the-state",
    "ssm:/mask": "the mask's key",
    "ssm:/where": "id > 3",
    "ssm:/limit": "7",
    "ssm:/price": "0.5",
}
SOURCE = ["ssm:/url", "secretsmanager:db#password"]
CACHE = ["secretsmanager:momento#key", "secretsmanager:momento#endpoint", "ssm:/ttl"]
DESTINATION = ["ssm:/region", "ssm:/state"]


def test_loading_asks_for_nothing(load: Loader) -> None:
    keeper = Keeper({})
    settings = load(WHOLE, keeper)
    assert all(settings.connects(half) for half in ("source", "cache", "destination"))
    assert not use_embedded(settings, is_terminal=True, source=True, cache=True, destination=True)
    assert keeper.asked == []


def test_each_half_is_asked_for_alone(load: Loader) -> None:
    for wanted, expected in (
        ({"source": True}, SOURCE),
        ({"cache": True}, CACHE),
        ({"destination": True}, DESTINATION),
        ({"source": True, "cache": True, "destination": True}, SOURCE + CACHE + DESTINATION),
        ({}, []),
    ):
        keeper = Keeper(VALUES)
        settings = require(load(WHOLE, keeper), **wanted)
        assert keeper.asked == expected
        require(settings, **wanted)
        assert keeper.asked == expected


def test_what_is_found_arrives_as_if_it_stood_there(load: Loader) -> None:
    settings = require(load(WHOLE, Keeper(VALUES)), source=True, cache=True, destination=True)
    assert settings.source is not None
    assert (settings.source.url, settings.source.password) == ("postgresql://me@db/shop", SECRET)
    assert settings.cache.ttl == 7200
    assert momento_access(settings).kind == "legacy"
    assert settings.destination.region == "eu-west-3"
    assert settings.state.table == "the-state"
    assert used(settings, "prices").prices.dynamodb_read.as_tuple().digits == (5,)
    assert settings.origins["source.password"].line == 4
    # What does not belong to them is still open.
    assert sorted(settings.open_values) == [
        "prices.dynamodb_read",
        "tables.a.mask_key",
        "tables.a.where",
        "tables.b.c.limit",
    ]
    assert SECRET not in repr(settings)
    assert masked(f"it is {SECRET}, {LEGACY}") == "it is ***, ***"


def test_a_job_asks_for_its_own_and_for_its_mask_key_last(load: Loader) -> None:
    keeper = Keeper(VALUES)
    settings = load(WHOLE, keeper)
    assert resolve_job(settings, "a").selection.where == "id > 3"
    assert keeper.asked == ["ssm:/where"]
    assert resolve_options(settings, "public.a").mask_key == "the mask's key"
    assert keeper.asked == ["ssm:/where", "ssm:/mask", "ssm:/where"]
    assert resolve_job(settings, "b.c").selection.limit == 7
    assert resolve_job(settings, "other").selection.limit is None
    assert keeper.asked[3:] == ["ssm:/limit"]


def test_several_jobs(load: Loader) -> None:
    keeper = Keeper(VALUES)
    choices = choose(load(WHOLE, keeper), Request(every=True))
    assert [(one.job.selection.where, one.job.selection.limit) for one in choices] == [("id > 3", None), (None, 7)]
    assert [one.options.mask_key for one in choices] == ["the mask's key", None]


def test_a_mask_key_that_is_missing_is_no_problem_of_a_load(load: Loader) -> None:
    settings = load("[tables.a]\nmask = { x = 'hmac' }\nmask_key = 'ssm:/none'\n", Keeper({}))
    assert resolve_job(settings, "a", JobFlags()).name == "a"
    with pytest.raises(ConfigError, match=r"line 3: `mask_key` in \[tables.a\]: ssm:/none: there is no such thing"):
        resolve_options(settings, "a")


def test_region_and_profile_are_those_of_the_destination(load: Loader) -> None:
    keeper = Keeper(VALUES)
    text = "[source]\nurl = 'ssm:/url'\n[destination]\nregion = 'eu-west-2'\nprofile = 'p'\n"
    require(load(text, keeper), source=True)
    require(load(text, keeper, {"AWS_REGION": "eu-west-1"}), source=True)
    require(load(WHOLE, keeper), source=True)
    assert keeper.surroundings == [
        Surroundings("eu-west-2", "p"),
        Surroundings("eu-west-1", "p"),
        Surroundings(),  # one that is a reference itself cannot be asked in
        Surroundings(),
    ]


def test_the_environment_beats_a_reference_without_asking(load: Loader) -> None:
    keeper = Keeper({})
    settings = load("[source]\nurl = 'ssm:/none'\n", keeper, {"DATABASE_URL": "postgresql://db"})
    assert require(settings, source=True).source is not None
    assert keeper.asked == []
    assert settings.notices == (f"DATABASE_URL overrides {settings.config_path}, line 2: `url` in [source]",)


def test_a_variable_can_be_a_reference(load: Loader) -> None:
    settings = load("", Keeper(VALUES), {"DATABASE_URL": "ssm:/url"})
    found = require(settings, source=True).source
    assert found is not None
    assert found.url == "postgresql://me@db/shop"


def test_of_two_caches_the_one_that_does_not_count_is_not_asked_for(load: Loader) -> None:
    keeper = Keeper({})
    settings = load("[cache]\napi_key = 'ssm:/none'\nendpoint = 'ssm:/none'\n", keeper, {"MOMENTO_LOCAL": "h:1"})
    assert momento_access(require(settings, cache=True)).kind == "local"
    assert keeper.asked == []


def test_the_embedded_stack_asks_for_what_is_not_a_connection_only(load: Loader) -> None:
    keeper = Keeper(VALUES)
    embedded = connect_embedded(
        load(WHOLE, keeper), source_url="postgresql://x", momento="h:1", dynamodb_url="http://x", region="r"
    )
    embedded = require(embedded, source=True, cache=True, destination=True)
    assert keeper.asked == ["ssm:/ttl", "ssm:/state"]
    assert embedded.source is not None
    assert (embedded.source.url, embedded.source.password) == ("postgresql://x", None)
    given = load("[source]\npassword = 'x'\n", keeper)
    replaced = connect_embedded(given, source_url="postgresql://x", momento="h:1", dynamodb_url="http://x", region="r")
    assert replaced.source is not None
    assert replaced.source.password is None


# What goes wrong.


def test_a_half_that_is_missing_is_told_before_anybody_is_asked(load: Loader) -> None:
    keeper = Keeper(VALUES)
    with pytest.raises(ConfigError, match="half a configuration: no destination"):
        require(load("[source]\nurl = 'ssm:/url'\n", keeper), source=True, destination=True)
    assert keeper.asked == []


def test_all_that_is_wrong_is_told_at_once(load: Loader) -> None:
    settings = load("[source]\nurl = 'ssm:/a'\npassword = 'ssm:/b'\n", Keeper({"ssm:/b": " "}))
    with pytest.raises(ConfigError) as caught:
        require(settings, source=True)
    assert "line 2: `url` in [source]: ssm:/a: there is no such thing" in caught.value.message
    assert "line 3: `password` in [source] has to be a password, as a text; ssm:/b is something else" in (
        caught.value.message
    )
    assert "Make it." in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("text", "half"),
    [
        ("[source]\nurl = 'ssm:/x'\n", "source"),
        ("[cache]\nlocal = 'ssm:/x'\n", "cache"),
        ("[cache]\napi_key = 'ssm:/x'\n", "cache"),
        ("[cache]\nlocal = 'h:1'\nttl = 'ssm:/x'\n", "cache"),
        ("[destination]\nendpoint_url = 'ssm:/x'\n", "destination"),
        ("[destination]\nregion = 'r'\n[state]\nenabled = 'ssm:/x'\n", "destination"),
    ],
)
def test_the_wrong_secret_is_not_told(load: Loader, text: str, half: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require(load(text, Keeper({"ssm:/x": SECRET})), **{half: True})
    assert SECRET not in f"{caught.value.message} {caught.value.hint} {caught.value.__cause__!r}"
    assert caught.value.hint


def test_what_passes_by_itself_is_told_with_its_place(load: Loader) -> None:
    settings = load("[source]\nurl = 'ssm:/x'\n", Keeper({"ssm:/x": Unavailable("ssm:/x: no answer", hint="Wait.")}))
    with pytest.raises(Unavailable, match=r"line 2: `url` in \[source\]: ssm:/x: no answer") as caught:
        look_up(settings, "source")
    assert caught.value.hint == "Wait."


def test_a_problem_of_the_state_table_is_told_where_it_is_used(load: Loader) -> None:
    settings = load("[destination]\nregion = 'r'\n[state]\ntable = 'env:MISSING'\n", Keeper({}))
    with pytest.raises(ConfigError, match=r"`table` in \[state\]: env:MISSING refers to"):
        require(settings, destination=True)
