"""Region, endpoint, credentials: found as boto3 finds them, and missed with a cure."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.credentials import Credentials as BotoCredentials
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import CredentialRetrievalError, ReadTimeoutError
from botocore.loaders import JSONFileLoader

from etlcli.errors import ConfigError, ExitCode, UsageError
from etlcli.progress import Counters
from etlcli.sink.connect import DescriptionReader, connect
from etlcli.sink.credentials import Credentials
from etlcli.sink.dynamodb import DynamoDBSink
from etlcli.sink.settings import DynamoDBSettings

STATIC = {"access_key_id": "AKID", "secret_access_key": "hush"}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def enter(settings: DynamoDBSettings, table: str = "movies") -> None:
    async def main() -> None:
        async with DynamoDBSink(settings, table, Counters()):
            pass

    asyncio.run(main())


def refused(settings: DynamoDBSettings) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        enter(settings)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.hint
    assert "hush" not in f"{caught.value.message}{caught.value.hint}"
    return caught.value


def test_no_region() -> None:
    assert "AWS_DEFAULT_REGION" in (refused(DynamoDBSettings(**STATIC)).hint or "")


def test_no_credentials() -> None:
    assert "no AWS credentials" in refused(DynamoDBSettings(region="eu-west-1")).message


@pytest.mark.parametrize("half", ["access_key_id", "secret_access_key"])
def test_half_of_the_fixed_credentials(half: str) -> None:
    (other,) = STATIC.keys() - {half}
    found = refused(DynamoDBSettings(region="eu-west-1", **{half: "hush"}))
    assert found.message == f"half of the credentials for DynamoDB is missing: {other}"


def test_half_of_the_environments_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    assert "AWS_SECRET_ACCESS_KEY" in refused(DynamoDBSettings(region="eu-west-1")).message


def test_no_such_profile(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile films]\nregion = eu-west-1\n")
    found = refused(DynamoDBSettings(profile="flims"))
    assert "flims" in found.message
    assert "films" in (found.hint or "")


def test_no_such_profile_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "flims")
    assert "flims" in refused(DynamoDBSettings(region="eu-west-1")).message


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "nonsense"])
def test_an_endpoint_that_is_no_url(url: str) -> None:
    assert url in refused(DynamoDBSettings(region="eu-west-1", endpoint_url=url, **STATIC)).message


def test_authorities_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/nowhere/ca.pem")
    found = refused(DynamoDBSettings(region="eu-west-1", **STATIC))
    assert "the certificate authorities in /nowhere/ca.pem cannot be read: " in found.message


def test_a_wrong_name_is_found_before_all_else() -> None:
    with pytest.raises(UsageError, match="no/slash"):
        enter(DynamoDBSettings(), "no/slash")


def test_a_profile_gives_region_and_credentials(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile films]\nregion = eu-north-1\naws_access_key_id = AKIDFILE\naws_secret_access_key = hush\n"
    )
    connection = connect(DynamoDBSettings(profile="films"))
    assert connection.region == "eu-north-1"
    assert connection.endpoint == "https://dynamodb.eu-north-1.amazonaws.com"
    assert connection.tls is not None
    assert connection.proxy is None
    assert asyncio.run(connection.credentials.current()).access_key == "AKIDFILE"
    connection.client.close()


@pytest.mark.parametrize(
    ("name", "value", "endpoint"),
    [
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("AWS_USE_FIPS_ENDPOINT", "true", "https://dynamodb-fips.us-east-1.amazonaws.com"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true", "https://dynamodb.us-east-1.api.aws"),
    ],
)
def test_the_endpoint_is_botocores(monkeypatch: pytest.MonkeyPatch, name: str, value: str, endpoint: str) -> None:
    monkeypatch.setenv(name, value)
    connection = connect(DynamoDBSettings(region="us-east-1", **STATIC))
    assert connection.endpoint == endpoint
    connection.client.close()


def test_the_client_has_a_deadline_and_asks_once() -> None:
    asked = 0
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(1)
        await ended.wait()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            connection = await asyncio.to_thread(connect, DynamoDBSettings("eu-west-1", url, **STATIC), 0.1)
            with pytest.raises(ReadTimeoutError):
                await asyncio.to_thread(connection.client.list_tables)
            connection.client.close()
            ended.set()

    asyncio.run(main())
    assert asked == 1


def test_the_proxy_is_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    connection = connect(DynamoDBSettings(region="us-east-1", **STATIC))
    assert connection.proxy == "http://proxy.example:3128"
    connection.client.close()


def test_messages_name_the_endpoint_without_its_password() -> None:
    connection = connect(DynamoDBSettings("us-east-1", "http://user:hush@127.0.0.1:8000/x", **STATIC))
    assert connection.address == "http://127.0.0.1:8000/x"
    connection.client.close()


def metadata(key: str, minutes: float) -> dict[str, Any]:
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes)
    return {"access_key": key, "secret_key": "hush", "token": "t", "expiry_time": expires.isoformat()}


def nobody() -> BotoCredentials:
    raise AssertionError("the chain is asked")


def test_credentials_are_refreshed_before_they_expire() -> None:
    now = 0.0
    source = RefreshableCredentials.create_from_metadata(
        metadata("first", 12), refresh_using=lambda: metadata("second", 60), method="test"
    )
    # Made with 12 minutes left, in which botocore may refresh at once.
    credentials = Credentials(source, nobody, clock=lambda: now)
    source.access_key = "first"
    now = 11.0
    assert asyncio.run(credentials.current()).access_key == "second"


def test_a_refresh_that_fails_leaves_the_credentials_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    fail = False

    def refresh() -> dict[str, Any]:
        if fail:
            raise CredentialRetrievalError(provider="test", error_msg="no network")
        return metadata("first", 60)

    source = RefreshableCredentials.create_from_metadata(metadata("first", 60), refresh_using=refresh, method="test")
    credentials = Credentials(source, nobody, clock=lambda: now)
    fail, now = True, 11.0
    monkeypatch.setattr(source, "_expiry_time", dt.datetime.now(dt.UTC))
    assert asyncio.run(credentials.current()).access_key == "first"


def test_credentials_are_the_same_object_until_they_change() -> None:
    credentials = Credentials(BotoCredentials("AKID", "hush"), nobody)
    assert asyncio.run(credentials.current()) is asyncio.run(credentials.current())


def test_many_refused_at_once_ask_the_chain_once() -> None:
    asked = 0

    def resolve() -> BotoCredentials:
        nonlocal asked
        asked += 1
        return BotoCredentials(f"AKID{asked}", "hush")

    async def main() -> None:
        credentials = Credentials(BotoCredentials("AKID0", "hush"), resolve)
        old = await credentials.current()
        await asyncio.gather(*(credentials.renew(old) for _ in range(9)))
        assert (await credentials.current()).access_key == "AKID1"

    asyncio.run(main())
    assert asked == 1


@pytest.mark.parametrize("what", ["endpoints", "partitions", "dynamodb/2012-08-10/service-2", "dynamodb/none"])
def test_descriptions_are_read_as_botocore_reads_them(what: str) -> None:
    path = str(Path(botocore.__file__).parent / "data" / what)
    found = DescriptionReader().load_file(path)
    assert found == JSONFileLoader().load_file(path)
    assert (found is None) == (what == "dynamodb/none")
