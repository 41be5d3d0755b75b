"""Administration against a client by script, with a clock that only its waits move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from etlcli.errors import ConfigError, EtlError, SinkError, Throttled, Unavailable, UsageError
from etlcli.model import CREATE_DEFAULTS, CreateOptions, Key, KeyAttribute
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy
from etlcli.sink.credentials import Credentials
from etlcli.sink.table import Table
from etlcli.sink.translate import ForeignAnswer, Place

PLACE = Place("movies", "http://127.0.0.1:1")
KEY = Key(KeyAttribute("order_id", "N"), KeyAttribute("line", "S"))


def described(status: str) -> dict[str, Any]:
    return {
        "Table": {
            "TableStatus": status,
            "AttributeDefinitions": [
                {"AttributeName": "by_index", "AttributeType": "B"},
                {"AttributeName": "line", "AttributeType": "S"},
                {"AttributeName": "order_id", "AttributeType": "N"},
            ],
            "KeySchema": [
                {"AttributeName": "order_id", "KeyType": "HASH"},
                {"AttributeName": "line", "KeyType": "RANGE"},
            ],
        }
    }


def fault(code: str, status: int = 400, message: str = "so it is") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "Any",
    )


MISSING = fault("ResourceNotFoundException")
IN_USE = fault("ResourceInUseException")


class StubClient:
    """Each action answers with the next of its answers, the last one for ever."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, action: str) -> Callable[..., Any]:
        def call(**arguments: Any) -> Any:
            self.calls.append((action, arguments))
            answers = self.answers.get(action, [{}])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call

    def named(self, action: str) -> list[dict[str, Any]]:
        return [arguments for name, arguments in self.calls if name == action]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)


def found() -> BotoCredentials:
    """New credentials are found at once."""
    return BotoCredentials("AKID", "hush")


def table(
    client: StubClient,
    clock: Clock | None = None,
    counters: Counters | None = None,
    patience: float = 5,
    resolve: Callable[[], BotoCredentials] = found,
) -> Table:
    clock = clock or Clock()
    policy = RetryPolicy(patience, base=0.001, ceiling=0.001)
    credentials = Credentials(found(), resolve)
    return Table(cast(Any, client), PLACE, counters or Counters(), policy, credentials, clock=clock, sleep=clock.sleep)


def test_the_key_of_a_table() -> None:
    assert asyncio.run(table(StubClient(describe_table=[described("ACTIVE")])).key()) == KEY


@pytest.mark.parametrize("status", ["CREATING", "UPDATING"])
def test_a_table_in_the_making_is_waited_for(status: str) -> None:
    clock = Clock()
    client = StubClient(describe_table=[*[described(status)] * 12, described("ACTIVE")])
    assert asyncio.run(table(client, clock).key()) == KEY
    assert clock.waits[0] < 0.1
    assert clock.waits == sorted(clock.waits)
    assert clock.waits[-1] == 2.0


def test_a_table_on_its_way_out_is_none() -> None:
    client = StubClient(describe_table=[*[described("DELETING")] * 5, MISSING])
    assert asyncio.run(table(client).key()) is None


@pytest.mark.parametrize("status", ["CREATING", "DELETING"])
def test_no_table_is_waited_for_for_ever(status: str) -> None:
    clock = Clock()
    with pytest.raises(Unavailable, match=status):
        asyncio.run(table(StubClient(describe_table=[described(status)]), clock).key())
    assert 290 < clock.now <= 300


def test_a_long_update_does_not_keep_a_table_from_its_use() -> None:
    clock = Clock()
    assert asyncio.run(table(StubClient(describe_table=[described("UPDATING")]), clock).key()) == KEY
    assert 25 < clock.now <= 30


def test_what_a_table_is_created_with() -> None:
    client = StubClient(describe_table=[MISSING, described("CREATING"), described("ACTIVE")])
    options = CreateOptions(
        tags={"team": "films"}, deletion_protection=True, point_in_time_recovery=True, ttl_attribute="gone_at"
    )
    asyncio.run(table(client).create(KEY, options))
    assert client.named("create_table") == [
        {
            "TableName": "movies",
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": "order_id", "AttributeType": "N"},
                {"AttributeName": "line", "AttributeType": "S"},
            ],
            "KeySchema": [
                {"AttributeName": "order_id", "KeyType": "HASH"},
                {"AttributeName": "line", "KeyType": "RANGE"},
            ],
            "Tags": [{"Key": "team", "Value": "films"}],
            "DeletionProtectionEnabled": True,
        }
    ]
    assert client.named("update_continuous_backups") == [
        {"TableName": "movies", "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True}}
    ]
    assert client.named("update_time_to_live") == [
        {"TableName": "movies", "TimeToLiveSpecification": {"Enabled": True, "AttributeName": "gone_at"}}
    ]
    # Options can only be set once the table is ACTIVE.
    assert [name for name, _ in client.calls][:4] == ["create_table", *["describe_table"] * 3]


def test_nothing_that_was_not_asked_for_is_set() -> None:
    client = StubClient(describe_table=[described("ACTIVE")])
    asyncio.run(table(client).create(KEY, CREATE_DEFAULTS))
    assert [name for name, _ in client.calls] == ["create_table", "describe_table"]
    assert "Tags" not in client.named("create_table")[0]
    assert "DeletionProtectionEnabled" not in client.named("create_table")[0]


def test_expiry_that_is_on_already_is_left_alone() -> None:
    on = {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLED", "AttributeName": "gone_at"}}
    client = StubClient(create_table=[IN_USE], describe_table=[described("ACTIVE")], describe_time_to_live=[on])
    asyncio.run(table(client).create(KEY, CreateOptions(ttl_attribute="gone_at")))
    assert client.named("update_time_to_live") == []


def test_expiry_that_was_switched_on_by_a_try_whose_answer_was_lost_is_on() -> None:
    off = {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
    on = {"TimeToLiveDescription": {"TimeToLiveStatus": "ENABLING", "AttributeName": "gone_at"}}
    refused = fault("ValidationException", message="TimeToLive is already enabled")
    lost = ReadTimeoutError(endpoint_url="http://127.0.0.1:1")

    def client(then: Any) -> StubClient:
        return StubClient(
            describe_table=[described("ACTIVE")], describe_time_to_live=[off, then], update_time_to_live=[lost, refused]
        )

    asyncio.run(table(client(on)).create(KEY, CreateOptions(ttl_attribute="gone_at")))
    with pytest.raises(SinkError, match="already enabled"):
        asyncio.run(table(client(off)).create(KEY, CreateOptions(ttl_attribute="gone_at")))


def test_backups_that_are_not_ready_yet_are_asked_for_again() -> None:
    client = StubClient(
        describe_table=[described("ACTIVE")],
        update_continuous_backups=[*[fault("ContinuousBackupsUnavailableException")] * 3, {}],
    )
    asyncio.run(table(client).create(KEY, CreateOptions(point_in_time_recovery=True)))
    assert len(client.named("update_continuous_backups")) == 4


def test_a_table_made_by_somebody_else_meanwhile_will_do() -> None:
    client = StubClient(create_table=[IN_USE], describe_table=[described("CREATING"), described("ACTIVE")])
    asyncio.run(table(client).create(KEY, CREATE_DEFAULTS))


def test_a_table_made_by_somebody_else_with_another_key_will_not() -> None:
    client = StubClient(create_table=[IN_USE], describe_table=[described("ACTIVE")])
    with pytest.raises(SinkError, match=r"hash order_id \(N\), range line \(S\), not hash id \(N\)"):
        asyncio.run(table(client).create(Key(KeyAttribute("id", "N")), CREATE_DEFAULTS))


def test_a_table_being_deleted_is_waited_out_and_made_anew() -> None:
    client = StubClient(
        create_table=[IN_USE, {}], describe_table=[described("DELETING"), MISSING, MISSING, described("ACTIVE")]
    )
    asyncio.run(table(client).create(KEY, CREATE_DEFAULTS))
    assert len(client.named("create_table")) == 2


def test_a_wrong_name_asks_nobody() -> None:
    client = StubClient()
    place = Place("no", "http://127.0.0.1:1")
    target = Table(cast(Any, client), place, Counters(), RetryPolicy(), Credentials(found(), found))
    with pytest.raises(UsageError):
        asyncio.run(target.create(KEY, CREATE_DEFAULTS))
    assert client.calls == []


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (fault("AccessDeniedException"), SinkError, "DescribeTable"),
        (fault("UnrecognizedClientException"), SinkError, "credentials"),
        (fault("ExpiredTokenException"), SinkError, "expired"),
        (
            fault("LimitExceededException", message="256 tables"),
            SinkError,
            "the AWS account has reached a limit at DescribeTable .*256 tables",
        ),
        (fault("ValidationException", message="tag"), SinkError, "tag"),
        (ForeignAnswer(404, "<html>nginx</html>"), Unavailable, "does not speak DynamoDB"),
        (ForeignAnswer(407, ""), SinkError, "407"),
        (fault("ThrottlingException"), Throttled, "throttles"),
        (fault("InternalServerError", 500), Unavailable, "movies at http"),
        (ForeignAnswer(502, "<html>"), Unavailable, "502"),
        (ProxyConnectionError(proxy_url="http://p", error="Tunnel connection failed: 407 Auth"), SinkError, "407"),
        (ProxyConnectionError(proxy_url="http://p", error="Tunnel connection failed: 503 Busy"), Unavailable, "503"),
        (ProxyConnectionError(proxy_url="http://p", error="refused"), Unavailable, "proxy"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), Unavailable, "127.0.0.1"),
        (ReadTimeoutError(endpoint_url="http://127.0.0.1:1"), Unavailable, "127.0.0.1"),
        (ResponseParserError("<html>"), Unavailable, "html"),
        (NoCredentialsError(), ConfigError, "credentials"),
    ],
)
def test_errors_are_translated(error: Exception, kind: type[EtlError], words: str) -> None:
    with pytest.raises(kind, match=words):
        asyncio.run(table(StubClient(describe_table=[error]), patience=0).key())


def test_what_passes_is_tried_again() -> None:
    counters = Counters()
    passing = [
        fault("ThrottlingException"),
        fault("InternalServerError", 500),
        ResponseParserError("<html>"),
        ForeignAnswer(200, "<html>Please sign in</html>"),
        ForeignAnswer(503, ""),
        ForeignAnswer(404, "<html>default backend</html>"),
        ForeignAnswer(400, ""),
        {},
    ]
    client = StubClient(describe_table=[*passing, described("ACTIVE")])
    assert asyncio.run(table(client, counters=counters).key()) == KEY
    assert counters.retries == len(passing)


def test_expired_credentials_are_renewed() -> None:
    expired, asked = fault("ExpiredTokenException"), 0

    def resolve() -> BotoCredentials:
        nonlocal asked
        asked += 1
        return BotoCredentials(f"AKID{asked}", "hush")

    client = StubClient(describe_table=[expired, expired, described("ACTIVE")])
    assert asyncio.run(table(client, resolve=resolve).key()) == KEY
    assert asked == 2


def test_credentials_that_stay_expired() -> None:
    client = StubClient(describe_table=[fault("ExpiredTokenException")])
    with pytest.raises(SinkError, match="expired") as caught:
        asyncio.run(table(client).key())
    assert caught.value.hint
    assert len(client.calls) == 4
