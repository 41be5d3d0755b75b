"""Credentials that expire in the middle: whoever gives them is asked for new ones, by all that talks to DynamoDB."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

import orjson
import pytest

from etlcli.errors import EtlError, SinkError, Unavailable
from etlcli.model import CREATE_DEFAULTS, Key, KeyAttribute
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink import credentials
from etlcli.sink.dynamodb import DynamoDBSink
from etlcli.sink.settings import DynamoDBSettings
from etlcli.sink.state import DynamoDBState
from tests.conftest import Schema
from tests.integration.command_line import CommandLine
from tests.integration.faulty_dynamodb import FaultyDynamoDB

T = TypeVar("T")

KEY = Key(KeyAttribute("id", "N"))
ITEMS = [orjson.dumps({"id": {"N": str(number)}}) for number in range(100)]
QUICK = RetryPolicy(patience=30.0, base=0.001, ceiling=0.002)
HASTY = RetryPolicy(patience=0.0)


class Provider:
    """A credential_process that gives a new access key each time: AKID1, AKID2, ...

    Attributes:
        profile: The profile that names it.
    """

    profile = "films"

    def __init__(self, folder: Path) -> None:
        self._count = folder / "count"
        self._trouble = folder / "trouble"
        self._minutes = folder / "minutes"
        self._count.write_text("0")
        self.good_for(60)
        script = folder / "provide"
        script.write_text(
            "#!/bin/sh\n"
            f"[ -e {self._trouble} ] && . {self._trouble}\n"
            f"count=$(($(cat {self._count}) + 1)); echo $count > {self._count}\n"
            """printf '{"Version":1,"AccessKeyId":"AKID%s","SecretAccessKey":"hush","SessionToken":"token%s","""
            f""""Expiration":"%s"}}' $count $count "$(cat {self._minutes})"\n"""
        )
        script.chmod(0o700)
        self.config = folder / "config"
        self.config.write_text(f"[profile {self.profile}]\ncredential_process = {script}\n")

    @property
    def asked(self) -> int:
        return int(self._count.read_text())

    def good_for(self, minutes: float) -> None:
        """Credentials from now on expire after so long."""
        self._minutes.write_text((dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)).isoformat())

    def fail(self, commands: str) -> None:
        """Do something else, from now on, than give credentials."""
        self._trouble.write_text(commands + "\n")


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Provider:
    made = Provider(tmp_path)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(made.config))
    monkeypatch.setenv("AWS_PROFILE", made.profile)
    return made


def with_both(
    server: FaultyDynamoDB,
    table: str,
    use: Callable[[DynamoDBSink, DynamoDBState], Awaitable[T]],
    retry: RetryPolicy = QUICK,
    counters: Counters | None = None,
) -> T:
    async def main() -> T:
        settings = DynamoDBSettings(region="us-east-1", endpoint_url=server.url)
        counted = counters or Counters()
        async with (
            DynamoDBSink(settings, table, counted, retry, max_in_flight=4) as sink,
            DynamoDBState(settings, f"{table}-state", counted, retry) as state,
        ):
            return await use(sink, state)

    return asyncio.run(main())


async def all_of_it(sink: DynamoDBSink, state: DynamoDBState) -> None:
    """Look up, create, write, read back, and note it."""
    if await sink.key() is None:
        await sink.create(KEY, CREATE_DEFAULTS)
    assert await sink.put(ITEMS) == []
    assert await sink.fetch(ITEMS) == [orjson.loads(item) for item in ITEMS]
    await state.acknowledge("films", "r", [1])
    assert await state.fetch_progress("films", "r") == {1}


def test_a_process_is_asked_for_new_ones(faulty_dynamodb: FaultyDynamoDB, unique: str, provider: Provider) -> None:
    async def use(sink: DynamoDBSink, state: DynamoDBState) -> None:
        await all_of_it(sink, state)
        first = set(faulty_dynamodb.signed)
        faulty_dynamodb.expired |= first
        await all_of_it(sink, state)
        # Sink and state ask each for itself, and neither more often than it has to.
        assert (len(first), len(faulty_dynamodb.signed)) == (2, 4)

    with_both(faulty_dynamodb, unique, use)
    assert provider.asked == 4


def test_administration_gets_new_ones_too(faulty_dynamodb: FaultyDynamoDB, unique: str, provider: Provider) -> None:
    async def use(sink: DynamoDBSink, state: DynamoDBState) -> None:
        faulty_dynamodb.expired |= {"AKID1", "AKID2"}
        assert await sink.key() is None
        await sink.create(KEY, CREATE_DEFAULTS)
        assert await state.prepare()

    with_both(faulty_dynamodb, unique, use)
    assert provider.asked == 4


def test_they_are_refreshed_before_they_expire(
    faulty_dynamodb: FaultyDynamoDB, unique: str, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_REFRESH_CHECK_SECONDS", 0.0)
    provider.good_for(5)

    async def use(sink: DynamoDBSink, state: DynamoDBState) -> None:
        await all_of_it(sink, state)
        provider.good_for(60)
        await all_of_it(sink, state)
        last = set(faulty_dynamodb.signed)
        await all_of_it(sink, state)
        assert set(faulty_dynamodb.signed) == last, "these are good for an hour"

    counters = Counters()
    with_both(faulty_dynamodb, unique, use, counters=counters)
    assert provider.asked > 4
    assert counters.retries == 0, "nobody was ever refused"


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param("echo no network >&2; exit 1", id="fails"),
        pytest.param("echo '<html>'; exit 0", id="prints something else"),
        pytest.param("echo '{\"Version\": 1}'; exit 0", id="gives half of it"),
        pytest.param(
            """echo '{"Version":1,"AccessKeyId":"OLD","SecretAccessKey":"hush","SessionToken":"t","""
            """"Expiration":"2020-01-01T00:00:00Z"}'; exit 0""",
            id="gives what has expired",
        ),
    ],
)
@pytest.mark.parametrize("mends", [True, False])
def test_a_process_in_trouble_is_asked_again_while_there_is_patience(
    faulty_dynamodb: FaultyDynamoDB, unique: str, provider: Provider, trouble: str, mends: bool
) -> None:
    async def begin(sink: DynamoDBSink, state: DynamoDBState) -> None:
        await all_of_it(sink, state)
        # It mends itself once it has been in trouble.
        provider.fail((f"rm {provider.config.parent}/trouble; " if mends else "") + trouble)
        faulty_dynamodb.expired |= set(faulty_dynamodb.signed)

    async def writing(sink: DynamoDBSink, state: DynamoDBState) -> None:
        await begin(sink, state)
        assert await sink.put(ITEMS) == []

    async def noting(sink: DynamoDBSink, state: DynamoDBState) -> None:
        await begin(sink, state)
        await state.acknowledge("films", "r", [2])

    for use in (writing, noting):
        if mends:
            with_both(faulty_dynamodb, unique, use)
            continue
        with pytest.raises(EtlError, match="credentials have expired, and n") as caught:
            with_both(faulty_dynamodb, unique, use, HASTY)
        assert isinstance(caught.value, Unavailable | SinkError)
        assert caught.value.hint
        assert "hush" not in f"{caught.value.message}{caught.value.hint}"
        provider.fail("")


@pytest.fixture
def container(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The endpoint of a container's credentials; gives the access keys that it has handed out."""
    given: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given.append(f"AKIDCONTAINER{len(given) + 1}")
            expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
            body = json.dumps(
                {
                    "AccessKeyId": given[-1],
                    "SecretAccessKey": "hush",
                    "Token": "token",
                    "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing goes to the tests' stderr."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/credentials")
    yield given
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_container_s_endpoint_is_asked_for_new_ones(
    faulty_dynamodb: FaultyDynamoDB, unique: str, container: list[str]
) -> None:
    async def use(sink: DynamoDBSink, state: DynamoDBState) -> None:
        await all_of_it(sink, state)
        faulty_dynamodb.expired |= set(container)
        await all_of_it(sink, state)

    with_both(faulty_dynamodb, unique, use)
    assert len(container) == 4
    assert set(faulty_dynamodb.signed) == set(container)


def test_a_run_outlives_its_credentials(
    command_line: CommandLine, faulty_dynamodb: FaultyDynamoDB, schema: Schema, unique: str, provider: Provider
) -> None:
    schema.execute(
        "create table films (id integer primary key);"
        " insert into films select n from generate_series(1, 400) n; analyze films"
    )
    aged = command_line.given(
        AWS_ENDPOINT_URL_DYNAMODB=faulty_dynamodb.url,
        AWS_ACCESS_KEY_ID=None,
        AWS_SECRET_ACCESS_KEY=None,
        AWS_SESSION_TOKEN=None,
        AWS_CONFIG_FILE=os.environ["AWS_CONFIG_FILE"],
        AWS_PROFILE=provider.profile,
    )
    arguments = ("run", "--table", "films", "--cache", unique, "--destination", unique, "--max-writes", "200")
    process = aged.start(*arguments, "--output", "json")
    faulty_dynamodb.wait_for("BatchWriteItem", 3)
    faulty_dynamodb.expired |= set(faulty_dynamodb.signed)
    result = aged.finish(process, *arguments)
    assert result.code == 0, str(result)
    assert result.json["rows_loaded"] == 400
    assert provider.asked == 4
