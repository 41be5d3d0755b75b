"""The handlers in this very process: what a container keeps, what it is refused, and how it says so."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from etlcli.aws import handlers
from etlcli.aws.container import Container
from etlcli.aws.failures import EtlTerminal, EtlTransient
from tests.conftest import Schema, Stack
from tests.integration.vault import Vault, vault


class Context:
    """A call that may take so many seconds."""

    aws_request_id = "request"

    def __init__(self, seconds: float = 60) -> None:
        self._ends_at = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        return int((self._ends_at - time.monotonic()) * 1000)


@pytest.fixture(scope="module")
def store() -> Iterator[Vault]:
    with vault() as made:
        yield made


@pytest.fixture
def container(
    stack: Stack, schema: Schema, store: Vault, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Container]:
    """A new container, whose config is in the folder that it runs in."""
    for name, value in {
        "MOMENTO_LOCAL": stack.momento,
        "AWS_ENDPOINT_URL_DYNAMODB": stack.dynamodb_url,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "MOMENTO_ETL_STATE_TABLE": f"state-{secrets.token_hex(6)}",
        "MOMENTO_ETL_CONFIG": "momento-etl.toml",
        **store.variables,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "momento-etl.toml").write_text(f'[source]\nurl = "{schema.url}"\n')
    made = Container()
    monkeypatch.setattr(handlers, "_container", made)
    yield made
    made.run(made.forget)
    made.close()


@pytest.mark.usefixtures("container")
def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "momento-etl.toml").write_text('[source]\nurl = "ssm:/no/such/parameter"\n')
    with pytest.raises(EtlTerminal, match="ssm:/no/such/parameter") as caught:
        handlers.plan({"table": "movies"}, Context())
    assert "hint: " in str(caught.value)


@pytest.mark.usefixtures("container")
def test_half_a_configuration_is_an_error_that_stays(tmp_path: Path) -> None:
    (tmp_path / "momento-etl.toml").write_text("")
    with pytest.raises(EtlTerminal, match="source"):
        handlers.plan({"table": "movies"}, Context())


@pytest.mark.usefixtures("container")
def test_a_password_that_was_rotated_is_read_anew(
    schema: Schema, stack: Stack, store: Vault, tmp_path: Path, unique: str, capsys: pytest.CaptureFixture[str]
) -> None:
    role, parameter = f"r_{secrets.token_hex(4)}", f"/etl/{unique}"
    schema.execute(
        f"create table films (id int primary key); insert into films values (1), (2);"
        f" create role {role} login password 'planted-first';"
        f" grant usage on schema {schema.name} to {role}; grant select on films to {role}"
    )
    try:
        store.parameter(parameter, "planted-first")
        url = psycopg.conninfo.make_conninfo(stack.postgres_url, user=role, password="")
        parts = psycopg.conninfo.conninfo_to_dict(url)
        (tmp_path / "momento-etl.toml").write_text(
            f'[source]\nurl = "postgresql://{role}@{parts["host"]}:{parts["port"]}/{parts["dbname"]}"\n'
            f'password = "ssm:{parameter}"\n'
        )
        event = {"table": f"{schema.name}.films", "cache": unique, "destination": unique}
        assert handlers.from_db_to_cache(event, Context())["rows"] == 2

        schema.connection.execute(sql.SQL("alter role {} password 'planted-second'").format(sql.Identifier(role)))
        store.parameter(parameter, "planted-second")
        assert handlers.from_db_to_cache(event, Context())["rows"] == 2
        said = capsys.readouterr()
        assert "the secrets are read anew" in said.out
        assert "planted" not in said.out + said.err

        # One that is wrong for good is an error that stays.
        schema.connection.execute(sql.SQL("alter role {} password 'planted-third'").format(sql.Identifier(role)))
        with pytest.raises(EtlTerminal, match="password"):
            handlers.from_db_to_cache(event, Context())
    finally:
        schema.execute(f"drop owned by {role}; drop role {role}")


@pytest.mark.usefixtures("container")
def test_a_call_whose_time_is_up_says_that_it_may_be_called_again(schema: Schema, unique: str) -> None:
    schema.execute("create table films (id int primary key); insert into films values (1)")
    event = {"event": {"table": "films", "cache": unique, "destination": unique}, "execution": "one"}
    with psycopg.connect(schema.url) as other:
        other.execute("lock table films in access exclusive mode")
        with pytest.raises(EtlTransient, match="time was up"):
            handlers.plan(event, Context(2))
    assert handlers.plan(event, Context())["blocks"] == [0]


@pytest.mark.usefixtures("container")
def test_connections_are_kept_from_one_call_to_the_next(schema: Schema, unique: str, container: Container) -> None:
    schema.execute("create table films (id int primary key); insert into films values (1)")
    event = {"table": "films", "cache": unique, "destination": unique}
    handlers.plan({"event": event, "execution": "one"}, Context())
    kept = dict(container._open)
    handlers.plan({"event": event, "execution": "one"}, Context())
    assert container._open == kept
    assert {name for name, *_ in kept} == {"cache", "sink", "state"}


@pytest.mark.usefixtures("container")
def test_abort_gives_the_lease_of_its_own_execution_back_and_no_other(schema: Schema, unique: str) -> None:
    schema.execute("create table films (id int primary key); insert into films values (1)")
    event = {"table": "films", "cache": unique, "destination": unique}
    planned = handlers.plan({"event": event, "execution": "one"}, Context())
    failed = {**event, "error": {"Error": "EtlTerminal", "Cause": '{"errorMessage": "another run is at work"}'}}
    answer = handlers.abort({"state": failed, "execution": "two"}, Context())
    assert answer == {"name": "films", "error": "another run is at work"}
    with pytest.raises(EtlTerminal, match="another run of films is at work: execution one"):
        handlers.plan({"event": event, "execution": "two"}, Context())
    answer = handlers.abort({"state": {**planned, "error": {"Cause": "killed"}}, "execution": "one"}, Context())
    assert (answer["run"], answer["error"]) == (planned["run"], "killed")
    assert handlers.plan({"event": event, "execution": "two"}, Context())["run"] != planned["run"]
    # What is not an object, or no job, has no lease to give back.
    assert handlers.abort({"state": {"error": {"Cause": "x"}}, "execution": "three"}, Context()) == {"error": "x"}
