"""Secrets in foreign words: found in whatever way they are spelled there, and nothing else is taken for one."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.hidden import hide, hide_environment, hide_within, masked

ODD = "p@ss/w:o?r#d %s'\"\\é\N{SNOWMAN}\U0001f600\n+"


@pytest.mark.parametrize(
    "spelled",
    [
        ODD,
        quote(ODD),
        quote(ODD, safe=""),
        quote(ODD, safe="").lower(),
        quote_plus(ODD),
        repr(ODD)[1:-1],
        ascii(ODD)[1:-1],
        repr([f"it's {ODD}"])[8:-2],
        json.dumps(ODD)[1:-1],
        json.dumps(ODD, ensure_ascii=False)[1:-1],
        json.dumps(repr(ODD)[1:-1])[1:-1],
    ],
)
def test_however_it_is_spelled(spelled: str) -> None:
    hide(ODD)
    assert masked(f"the password {spelled} is wrong") == "the password *** is wrong"


@given(st.text(min_size=5, max_size=12), st.text(max_size=5), st.text(max_size=5))
def test_nothing_of_any_secret_is_left(secret: str, before: str, behind: str) -> None:
    hide(secret)
    for spelled in (secret, quote(secret.encode(errors="replace").decode()), repr(secret)[1:-1]):
        assert spelled not in masked(f"{before}{spelled}{behind}").replace("***", "")


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:PLANTED@h/d",
        "postgresql://u:PLANTED%20@h/d",
        "postgresql://u:it/PLANTED@PLANTED@h/d",
        "postgresql://u@h/d?sslmode=require&password=PLANTED",
        "host=h password=PLANTED user=u",
        r"host=h password='it\'s PLANTED' user=u",
        "http://u:PLANTED@proxy:8080",
    ],
)
def test_passwords_within_what_is_more(text: str) -> None:
    hide_within(text)
    assert "PLANTED" not in masked(text)
    assert masked("h d u proxy") == "h d u proxy"


def test_what_is_secret_in_the_environment() -> None:
    hide_environment(
        {
            "PGPASSWORD": "secret-1",
            "MOMENTO_API_KEY": "secret-2",
            "AWS_SESSION_TOKEN": "secret-3",
            "SHOP_URL": "postgresql://u:secret-4@h/d",
            "TOKENIZERS_PARALLELISM": "false",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/run/a-file",
            "PASSWORD": "1234",
        }
    )
    said = "secret-1 secret-2 secret-3 secret-4 false /run/a-file 1234"
    assert masked(said) == "*** *** *** *** false /run/a-file 1234"


def test_the_longest_goes_first() -> None:
    hide("secret", "secret-and-more", None)
    assert masked("secret-and-more, secret") == "***, ***"
