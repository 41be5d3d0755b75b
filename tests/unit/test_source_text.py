"""Users' own SQL, as far as it is read here."""

from __future__ import annotations

import pytest

from etlcli.errors import UsageError
from etlcli.source.text import sendable, statement_of


@pytest.mark.parametrize(
    ("query", "statement"),
    [
        ("select 1", "select 1"),
        ("select 1;", "select 1"),
        ("select 1 ; ;; ", "select 1 "),
        ("\n  select 1;\n", "\n  select 1"),
        ("select 1; -- done", "select 1"),
        ("select 1; /* done; */ ;\n-- and; over", "select 1"),
        ("select 1; /* a /* nested; */ one; */", "select 1"),
        ("select 1 -- a; b", "select 1 -- a; b"),
        ("select 1 -- a; b\n;", "select 1 -- a; b\n"),
        ("select 1 /* ; */", "select 1 /* ; */"),
        ("select ';'", "select ';'"),
        ("select 'it''s; -- so'", "select 'it''s; -- so'"),
        (r"select 'a\';", r"select 'a\'"),
        (r"select E'a\';b';", r"select E'a\';b'"),
        (r"select e'''\\';", r"select e'''\\'"),
        ('select 1 as "a;b""c;";', 'select 1 as "a;b""c;"'),
        ("select $$;$$;", "select $$;$$"),
        ("select $a$ $b$ ; $a$ ;", "select $a$ $b$ ; $a$ "),
        ("select $1$;$1$ ;", "select $1$;$1$ ;"),  # no dollar quote: two statements, for PostgreSQL to refuse
        ("select a$b$ from t;", "select a$b$ from t"),
        ("select note'x;y';", "select note'x;y'"),
        ("select 1; select 2", "select 1; select 2"),
        ("select 1; select 2;", "select 1; select 2;"),
        ("-- first\nselect 1;", "-- first\nselect 1"),
        ("select '", "select '"),
        ("select 1 /* open;", "select 1 /* open;"),
        ("select $$ open;", "select $$ open"),  # PostgreSQL refuses it either way
    ],
)
def test_the_end_of_a_statement(query: str, statement: str) -> None:
    assert statement_of(query) == statement


@pytest.mark.parametrize("query", ["", "  \n", ";", " ; ; ", "-- select 1", "/* select 1 */", "/* /* a */ b */ ; -- c"])
def test_nothing_but_comments_is_refused(query: str) -> None:
    with pytest.raises(UsageError, match="the query is empty") as caught:
        statement_of(query)
    assert "SELECT" in (caught.value.hint or "")


@pytest.mark.parametrize("text", ["a\0b", "\0", "caf\udce9", "\ud800"])
def test_what_cannot_be_sent_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the query holds a character that PostgreSQL cannot take"):
        sendable(text, "the query")


def test_what_can_be_sent_is_returned() -> None:
    assert sendable("select 'é 🎬\n\t\x01'", "the query") == "select 'é 🎬\n\t\x01'"
