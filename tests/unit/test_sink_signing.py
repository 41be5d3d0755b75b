"""Signatures are botocore's, to the letter."""

from __future__ import annotations

import datetime as dt
import itertools

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from etlcli.sink.signing import Signer

NEW_YEAR = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
KEYS = ReadOnlyCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", None)

bodies = st.binary(max_size=300)
moments = st.integers(0, 7_000_000_000_000).map(lambda ms: dt.datetime.fromtimestamp(ms / 1000, dt.UTC))
secrets = st.text("abcXYZ019/+=", min_size=1, max_size=50)
owners = st.builds(ReadOnlyCredentials, secrets, secrets, st.none() | secrets | st.just("") | st.just("two  words "))
regions = st.sampled_from(["eu-west-1", "us-gov-east-1", "cn-north-1", "local"])
urls = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["dynamodb.eu-west-1.amazonaws.com", "127.0.0.1", "[::1]", "xn--bcher-kva.example"]),
    st.sampled_from(["", ":8000", ":80", ":443"]),
    st.sampled_from(["", "/", "/a/./b/", "/with space/~x", "/%25", "/?b=2&a-b=1&a=3&flag"]),
)


class Clock:
    def __init__(self) -> None:
        self.now = NEW_YEAR

    def __call__(self) -> float:
        return self.now.timestamp()


def own_headers(url: str) -> dict[str, str]:
    return {
        "Content-Type": "application/x-amz-json-1.0",
        "Host": URL(url).host_port_subcomponent or "",
        "X-Amz-Target": "DynamoDB_20120810.BatchWriteItem",
    }


def by_botocore(owner: ReadOnlyCredentials, region: str, url: str, body: bytes, now: dt.datetime) -> dict[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda: now)
        request = AWSRequest(method="POST", url=url, data=body, headers=own_headers(url))
        SigV4Auth(owner, "dynamodb", region).add_auth(request)
    return dict(request.headers.items())


@given(owners, regions, urls, st.lists(st.tuples(bodies, moments), min_size=1, max_size=4))
def test_signatures_are_botocores(
    owner: ReadOnlyCredentials, region: str, url: str, requests: list[tuple[bytes, dt.datetime]]
) -> None:
    url, clock = str(URL(url)), Clock()
    signer = Signer(owner, region, url, own_headers(url), clock=clock)
    for body, clock.now in requests:
        assert signer.headers(body) == by_botocore(owner, region, url, body, clock.now)


def test_signatures_follow_the_clock_over_seconds_and_days_and_back() -> None:
    url, clock = "https://dynamodb.eu-west-1.amazonaws.com/", Clock()
    signer = Signer(KEYS, "eu-west-1", url, own_headers(url), clock=clock)
    seen = set()
    for seconds, body in itertools.product((-1.0, -0.25, 0.0, 0.75, 1.0, 86_400.0, -0.5), (b"{}", b'{"a":1}')):
        clock.now = NEW_YEAR + dt.timedelta(seconds=seconds)
        headers = signer.headers(body)
        assert headers == by_botocore(KEYS, "eu-west-1", url, body, clock.now)
        seen.add(headers["Authorization"])
    assert len(seen) == 8  # two bodies, in four different seconds


def test_what_is_handed_out_is_the_callers() -> None:
    url = "http://127.0.0.1:8000/"
    signer = Signer(KEYS, "eu-west-1", url, own_headers(url), clock=NEW_YEAR.timestamp)
    first = signer.headers(b"{}")
    signer.headers(b"{}").clear()
    assert signer.headers(b"{}") == first
