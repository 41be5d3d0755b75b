import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.config.momento import MomentoAccess, key_form, legacy_endpoint, parse_endpoint, parse_host_port


def jwt(claims: object, header: object | None = None) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part(header or {'alg': 'HS256'})}.{part(claims)}.c2lnbmF0dXJl"


def v1(fields: object) -> str:
    return base64.b64encode(json.dumps(fields).encode()).decode()


V2 = jwt({"t": "g", "jti": "x"})
LEGACY = jwt({"sub": "me", "cp": "control.cell-1.example.com", "c": "cache.cell-1.example.com"})
V1 = v1({"api_key": "secret", "endpoint": "cell-1.example.com"})


@pytest.mark.parametrize(
    ("key", "form"),
    [
        (V2, "v2"),
        (LEGACY, "legacy"),
        (V1, "legacy"),
        (jwt({"t": "g", "c": "x", "cp": "y"}), "v2"),
        (jwt({"t": "s"}), None),
        (jwt({"c": "cache.x"}), None),
        (jwt({"c": 1, "cp": 2}), None),
        (jwt(["t", "g"]), None),
        (jwt({"t": "g"}, header="no object"), None),
        (v1({"api_key": "secret"}), None),
        (v1(["api_key", "endpoint"]), None),
        (base64.b64encode(b"\xff\xfe\x00").decode(), None),
        (V2[:-20], None),
        (V2.rpartition(".")[0], None),
        (V1[:-3], None),
        ("", None),
        ("my-key", None),
        ("abcd", None),
        ("a.b.c", None),
        ("ключ.ключ.ключ", None),
        (" ".join(V2), None),
    ],
)
def test_forms_of_keys(key: str, form: str | None) -> None:
    assert key_form(key) == form


@given(st.text())
def test_any_text_has_a_form_or_none(key: str) -> None:
    assert key_form(key) in (None, "v2", "legacy")


def test_the_sdk_agrees_about_the_forms() -> None:
    resolver = pytest.importorskip("momento.auth.momento_endpoint_resolver")
    assert resolver._is_v2_api_key(V2)
    for legacy in (LEGACY, V1):
        assert not resolver._is_v2_api_key(legacy)
        assert resolver.resolve(legacy).cache_endpoint == "cache.cell-1.example.com"


@pytest.mark.parametrize(("key", "endpoint"), [(V1, "cell-1.example.com"), (LEGACY, "cell-1.example.com"), ("x", None)])
def test_the_endpoint_in_a_legacy_key(key: str, endpoint: str | None) -> None:
    assert legacy_endpoint(key) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "cell-1.example.com",
        "  cell-1.example.com ",
        "https://cell-1.example.com/",
        "cache.cell-1.example.com",
        "https://api.cache.cell-1.example.com",
        "control.cell-1.example.com:443",
        "token.cell-1.example.com",
    ],
)
def test_endpoints_as_people_paste_them(text: str) -> None:
    assert parse_endpoint(text) == "cell-1.example.com"


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "a b.c", "ftp://a.b", "https://a.b/path", "a.b:8080", "u:p@a.b", "-a.b", "a..b", V2, "a.b\n.c"],
)
def test_what_is_no_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match=r"has an|is not|is an API key"):
        parse_endpoint(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:1", ("localhost", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("momento.internal:08080", ("momento.internal", 8080)),
    ],
)
def test_host_and_port(text: str, expected: tuple[str, int]) -> None:
    assert parse_host_port(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        ":8080",
        "h:0",
        "h:65536",
        "h:",
        "h:x",
        "http://h:80",
        "::1:8080",
        "[::1]",
        "[x]:1",
        "h h:1",
        "1",
    ],
)
def test_what_is_no_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match="has no"):
        parse_host_port(text)


def test_an_access_does_not_show_its_key() -> None:
    assert V2 not in repr(MomentoAccess("v2", api_key=V2, endpoint="a.b"))
