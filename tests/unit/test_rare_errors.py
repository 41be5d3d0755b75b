"""What goes wrong so seldom, or so deep, that no whole run meets it: each is an error of ours, and most name a cure."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import CredentialRetrievalError, DataNotFoundError

from etlcli.aws import events, handlers
from etlcli.blocks.calls import RunCall
from etlcli.blocks.ledger import StaleLedger, fetch_place
from etlcli.cache.momento import credential_provider
from etlcli.config.momento import MomentoAccess
from etlcli.config.references import Surroundings, parse
from etlcli.encoding.specs import spec_from_json
from etlcli.errors import CacheError, ConfigError, TerminalError, Unavailable, UsageError
from etlcli.local import postgres as local_postgres
from etlcli.local import postgres_home, process
from etlcli.local.postgres import Postgres
from etlcli.local.postgres_home import Home
from etlcli.local.stack import down, up
from etlcli.local.state import FOLDER_VARIABLE, PostgresRecord, State, Store
from etlcli.secrets import asking
from etlcli.sink.credentials import Credentials
from etlcli.sink.translate import Place, from_boto
from etlcli.stopping import Stopped

CALL = asdict(RunCall("R", "execution", "movies#R", 1000, 100))
HERE = Surroundings("eu-west-1", None)


# Events that no state machine of ours sends


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"event": {"table": 7}, "call": CALL, "block": 0}, "the event's table has to be a text, and is int"),
        ({"event": {"table": "t"}, "call": {}, "block": 0}, "the event's call is not as the Plan function answers it"),
        (
            {"event": {"table": "t"}, "call": CALL, "block": -1},
            "the event's block is -1, and has to be a number from 0",
        ),
        ({"event": {"table": "t"}, "call": CALL, "block": True}, "the event's block is True"),
    ],
)
def test_an_event_that_nobody_sends(event: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        events.read_block(event)


def test_a_table_that_takes_longer_than_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None: ...

    async def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr("etlcli.pipeline.extract", stop)
    monkeypatch.setattr("etlcli.wiring.recipe_of", lambda _: None)
    call: Any = SimpleNamespace(
        choice=lambda _: SimpleNamespace(job=SimpleNamespace(name="films"), options=None),
        container=SimpleNamespace(source=lambda: None, cache=nothing, state=nothing),
        report=None,
    )
    with pytest.raises(TerminalError, match="films was not extracted within one call's time") as caught:
        asyncio.run(handlers._extract_all(call, {"table": "films"}))
    assert "state machine" in str(caught.value.hint)


def test_a_block_that_the_run_has_not_is_one_that_the_cache_has_not_got_yet() -> None:
    manifest: Any = SimpleNamespace(run_id="R", blocks=2)
    staging: Any = None
    with pytest.raises(StaleLedger, match="the cache gives run R as one of 2 blocks, and this is block 2"):
        asyncio.run(fetch_place(staging, manifest, 2, ""))


# What others' libraries refuse


@pytest.mark.parametrize("kind", ["v2", "legacy"])
def test_a_key_that_the_sdk_does_not_take_is_not_shown(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(key: str, *_: str) -> None:
        raise ValueError(key)

    for name in ("from_api_key_v2", "from_string"):
        monkeypatch.setattr(f"momento.CredentialProvider.{name}", refuse)
    with pytest.raises(ConfigError, match="the momento SDK does not take the API key") as caught:
        credential_provider(MomentoAccess(kind, api_key="PLANTED", endpoint="cell-1.example.org"))
    assert "PLANTED" not in f"{caught.value.message}{caught.value.hint}"
    assert caught.value.__cause__ is None


def test_credentials_that_cannot_be_renewed_just_now_may_be_later() -> None:
    def fail() -> BotoCredentials:
        raise CredentialRetrievalError(provider="test", error_msg="no network")

    async def renew() -> None:
        credentials = Credentials(BotoCredentials("AKID", "hush"), fail)
        await credentials.renew(await credentials.current())

    with pytest.raises(Unavailable, match=r"have expired, and new ones cannot be had just now: .*no network") as caught:
        asyncio.run(renew())
    assert "it resumes" in str(caught.value.hint)


def test_what_boto3_does_not_even_send_is_an_error_of_the_configuration() -> None:
    error = from_boto(DataNotFoundError(data_path="dynamodb"), place=Place("films", "http://h"), action="CreateTable")
    assert isinstance(error, ConfigError)
    assert error.message.startswith("boto3 cannot call CreateTable on table films at http://h: ")


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")


@pytest.mark.usefixtures("credentials")
def test_a_secret_whose_name_none_can_have() -> None:
    with pytest.raises(ConfigError, match="no SSM parameter can have this name") as caught:
        asking.ask(replace(parse("ssm:x"), name=""), HERE)
    assert caught.value.hint


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("text", ["ssm:/x", "secretsmanager:x"])
def test_an_answer_that_is_not_of_aws(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: Callable[..., dict[str, Any]] = lambda **_: {}  # noqa: E731  what botocore makes of a proxy's page
    client = SimpleNamespace(
        get_parameter=answers,
        get_secret_value=answers,
        close=lambda: None,
        meta=SimpleNamespace(endpoint_url="https://proxy.example.org"),
    )
    monkeypatch.setattr("botocore.session.Session.create_client", lambda *_, **__: client)
    with pytest.raises(Unavailable, match=r"what answers at https://proxy\.example\.org is not AWS") as caught:
        asking.ask(parse(text), HERE)
    assert "HTTPS_PROXY" in str(caught.value.hint)


def test_who_should_give_credentials_for_a_secret_and_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise CredentialRetrievalError(provider="test", error_msg="no network")

    monkeypatch.setattr("botocore.session.Session.get_credentials", fail)
    with pytest.raises(Unavailable, match=r"ssm:/x: AWS credentials cannot be had just now \(.*no network"):
        asking.ask(parse("ssm:/x"), HERE)


@pytest.mark.parametrize(
    "document", [{}, {"name": "a"}, {"name": "a", "constant": {"X": "1"}}, {"name": "a", "column": "b", "cast": "M"}]
)
def test_a_manifest_with_an_attribute_that_is_none(document: dict[str, Any]) -> None:
    with pytest.raises(CacheError, match="is not an attribute as momento-etl describes one"):
        spec_from_json(document)


# The embedded stack


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "local"))
    made = Store(tmp_path / "local")
    made.prepare()
    return made


def test_a_wheel_without_its_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda _: SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    )
    with pytest.raises(TerminalError, match="is installed without PostgreSQL's programs") as caught:
        postgres_home.binaries(Home(tmp_path, None))
    assert "reinstall" in str(caught.value.hint)


def test_a_program_of_postgresql_that_fails_shows_the_end_of_its_log(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "initdb"
    program.write_text("#!/bin/sh\necho 'no room for it' >&2\nexit 3\n")
    program.chmod(0o700)
    monkeypatch.setattr(postgres_home, "binaries", lambda _: tmp_path)
    with pytest.raises(TerminalError, match=r"initdb failed \(exit 3\)\n.*no room for it") as caught:
        Postgres(store)._run(Home(tmp_path, None), "initdb", [])
    assert "its whole log" in str(caught.value.hint)


def test_a_sample_that_cannot_be_made(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise psycopg.OperationalError("no room for it")

    def remember(state: State) -> None:
        state.postgres = PostgresRecord(str(tmp_path), "hush")

    store.update(remember)
    monkeypatch.setattr(local_postgres, "_connect", refuse)
    monkeypatch.setattr(Postgres, "_home", lambda _: Home(tmp_path, None))
    with pytest.raises(TerminalError, match="the sample table could not be made: no room for it"):
        Postgres(store).complete(1)


def test_a_part_that_cannot_be_started_or_stopped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(process, "start", refuse, raising=False)
    monkeypatch.setattr(process, "spawn", refuse, raising=False)
    monkeypatch.setattr(Postgres, "prepare", refuse)
    monkeypatch.setattr(Postgres, "stray", lambda _: None)
    with pytest.raises(TerminalError, match="postgres could not be started: "):
        up()
    monkeypatch.setattr(Postgres, "stray", refuse)
    with pytest.raises(TerminalError, match="postgres could not be stopped: "):
        down()
    assert store.folder.is_dir()
