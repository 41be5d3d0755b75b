"""From settings to a connection: boto3's client, the credentials, the endpoint and the way there.

All of it is botocore's own reckoning (profiles, environment, FIPS and dual-stack endpoints, proxies, certificate
authorities), so that the write path, which posts by itself, goes where boto3 would go.
"""

from __future__ import annotations

import gzip
import ipaddress
import ssl
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import boto3
import orjson
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoRegionError, PartialCredentialsError, ProfileNotFound
from botocore.httpsession import ProxyConfiguration, get_cert_path
from botocore.loaders import JSONFileLoader, Loader, create_loader
from botocore.session import Session as BotocoreSession
from botocore.utils import get_environ_proxies

from etlcli.errors import ConfigError
from etlcli.hidden import masked
from etlcli.sink.credentials import Credentials
from etlcli.sink.translate import ForeignAnswer, own_document, text_of

if TYPE_CHECKING:
    from botocore.credentials import Credentials as BotoCredentials
    from mypy_boto3_dynamodb import DynamoDBClient

    from etlcli.sink.settings import DynamoDBSettings

__all__ = ["CONNECT_SECONDS", "Connection", "DescriptionReader", "connect"]

CONNECT_SECONDS = 5.0
"""The deadline of one attempt to connect."""

_ADMINISTRATION_SECONDS = 20.0
_CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or sign in (aws sso login, aws configure)"
)


class DescriptionReader(JSONFileLoader):
    """Reads botocore's descriptions of services and endpoints, as it does, into plain dictionaries.

    Its ordered ones take megabytes more for as long as the process lives.
    """

    def load_file(self, file_path: str) -> Any:
        """Read one.

        Args:
            file_path: Its path without ``.json`` or ``.json.gz``.

        Returns:
            What it says; None where there is no such file.
        """
        plain, packed = Path(f"{file_path}.json"), Path(f"{file_path}.json.gz")
        if plain.is_file():
            return orjson.loads(plain.read_bytes())
        return orjson.loads(gzip.decompress(packed.read_bytes())) if packed.is_file() else None


@dataclass(frozen=True, slots=True)
class Connection:
    """What it takes to talk to DynamoDB.

    Attributes:
        client: For table administration; its calls block, and are tried once.
        credentials: What both the client and the write path sign with.
        endpoint: The URL that requests go to.
        region: The region to sign for.
        proxy: The proxy's URL; None for none.
        tls: Whom to trust; None where the endpoint is plain HTTP.
    """

    client: DynamoDBClient
    credentials: Credentials
    endpoint: str
    region: str
    proxy: str | None
    tls: ssl.SSLContext | None

    @property
    def address(self) -> str:
        """The endpoint as messages name it: without a user or a password."""
        parts = urlsplit(self.endpoint)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def connect(settings: DynamoDBSettings, answer_seconds: float = _ADMINISTRATION_SECONDS) -> Connection:
    """Find endpoint, region and credentials. Blocks: some credentials come from a network service.

    Args:
        settings: Where DynamoDB is, and as whom to talk to it.
        answer_seconds: How long the client waits for each answer.

    Raises:
        ConfigError: No region, no credentials or half of them, no such profile, an endpoint that is no URL.
    """
    if (settings.access_key_id is None) != (settings.secret_access_key is None):
        missing = "access_key_id" if settings.access_key_id is None else "secret_access_key"
        raise ConfigError(f"half of the credentials for DynamoDB is missing: {missing}", hint="set both or neither")
    with _of_service(), _config_errors():
        session = _session(settings)
        credentials = Credentials(_credentials(session), lambda: _credentials(_session(settings)))
        # boto3 has no other door to it; its own would stay with what they were when they expire.
        session._session._credentials = credentials.for_boto3()  # type: ignore[attr-defined]  # noqa: SLF001
        client = session.client(
            "dynamodb", endpoint_url=settings.endpoint_url, config=_client_config(settings, answer_seconds)
        )
        client.meta.events.register("before-parse.dynamodb", _refuse_foreign)
        endpoint = client.meta.endpoint_url
        proxies = {} if _is_loopback(settings.endpoint_url) else get_environ_proxies(endpoint)
        return Connection(
            client=client,
            credentials=credentials,
            endpoint=endpoint,
            region=client.meta.region_name,
            proxy=ProxyConfiguration(proxies).proxy_url_for(endpoint),
            tls=_tls(session) if endpoint.startswith("https:") else None,
        )


def _session(settings: DynamoDBSettings) -> boto3.Session:
    session = BotocoreSession(profile=settings.profile)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return boto3.Session(
        botocore_session=session,
        profile_name=settings.profile,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
    )


@cache
def _loader(data_path: str | None) -> Loader:
    # Its own one would have each session read the service's description anew, for as long as all else here takes.
    loader = create_loader(data_path)
    loader.file_loader = DescriptionReader()
    return loader


def _client_config(settings: DynamoDBSettings, answer_seconds: float) -> Config:
    return Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=answer_seconds,
        retries={"mode": "standard", "total_max_attempts": 1},  # our own policy retries, and counts it
        # No proxy stands between this machine and itself, whatever HTTP_PROXY says; None leaves it to botocore.
        proxies={} if _is_loopback(settings.endpoint_url) else None,
    )


def _refuse_foreign(response_dict: Mapping[str, Any], **_: object) -> None:
    """Keep botocore from making something of what DynamoDB has not said: a page of a proxy's would be an empty answer.

    It looks at the checksum only to try again, which is not its business here.

    Raises:
        ForeignAnswer: Somebody else has said it, or it arrived with damage.
    """
    status, body = response_dict["status_code"], response_dict["body"]
    if own_document(status, body) is None:
        raise ForeignAnswer(status, text_of(body))
    checksum = response_dict["headers"].get("x-amz-crc32")
    if checksum is not None and checksum != str(zlib.crc32(body)):
        raise ForeignAnswer(status, "the answer arrived with damage: its CRC32 differs")


def _is_loopback(url: str | None) -> bool:
    host = urlsplit(url or "").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credentials(session: boto3.Session) -> BotoCredentials:
    found = session.get_credentials()
    if found is None:
        raise ConfigError("no AWS credentials are set for DynamoDB", hint=_CREDENTIALS_HINT)
    return found


def _tls(session: boto3.Session) -> ssl.SSLContext:
    # AWS_CA_BUNDLE or ca_bundle in the profile; else the list that botocore itself trusts.
    configured = session._session.get_config_variable("ca_bundle")  # noqa: SLF001  boto3 has no other door to it
    bundle = str(configured or get_cert_path(verify=True))
    try:
        if Path(bundle).is_dir():
            return ssl.create_default_context(capath=bundle)
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:
        raise ConfigError(
            f"the certificate authorities in {bundle} cannot be read: {error}", hint="check AWS_CA_BUNDLE"
        ) from error


@contextmanager
def _of_service() -> Iterator[None]:
    """Mark what is wrong with the access itself: every table would meet it."""
    try:
        yield
    except ConfigError as error:
        error.of_service = True
        raise


@contextmanager
def _config_errors() -> Iterator[None]:
    """Translate what botocore raises while it looks at settings."""
    try:
        yield
    except NoRegionError as error:
        raise ConfigError(
            "no AWS region is set for DynamoDB",
            hint='set region = "..." under [destination], or AWS_DEFAULT_REGION, or a region in the AWS profile',
        ) from error
    except ProfileNotFound as error:
        known = ", ".join(sorted(BotocoreSession().available_profiles)) or "none"
        raise ConfigError(
            f"no such AWS profile: {masked(error.kwargs['profile'])}", hint=f"known profiles: {known}"
        ) from error
    except PartialCredentialsError as error:
        raise ConfigError(f"half of the AWS credentials is missing: {error}", hint=_CREDENTIALS_HINT) from error
    except (ClientError, BotoCoreError, ValueError) as error:
        raise ConfigError(
            f"DynamoDB cannot be used as it is set up: {masked(str(error))}", hint=_CREDENTIALS_HINT
        ) from error
