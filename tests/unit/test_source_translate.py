"""psycopg's errors in our words: which class, which message, which hint."""

from __future__ import annotations

import psycopg
import pytest

from etlcli.errors import ConfigError, EtlError, SourceError, SourceLoginError, TransientError, Unavailable, UsageError
from etlcli.source.translate import (
    UNREADABLE,
    connection_error,
    no_answer,
    silence,
    statement_error,
    unreadable,
)

AT = 'connection failed: connection to server at "10.0.0.7", port 5432 failed: '
WHERE = "db.example.org:5432/shop"


@pytest.mark.parametrize(
    ("text", "expected", "said"),
    [
        (AT + 'FATAL:  password authentication failed for user "x"', SourceLoginError, "refused the login"),
        (AT + 'FATAL:  no pg_hba.conf entry for host "1.2.3.4", user "x"', SourceError, "refused the connection"),
        (AT + 'FATAL:  database "nosuch" does not exist', SourceError, "refused the connection"),
        (AT + 'FATAL:  role "nosuch" does not exist', SourceLoginError, "refused the connection"),
        (AT + 'FATAL:  role "x" is not permitted to log in', SourceLoginError, "refused the connection"),
        # Servers speak their own language: the form tells that it was a server.
        (AT + 'ВАЖНО:  база данных "nosuch" не существует', SourceError, "refused the connection"),
        (AT + '致命错误:  数据库 "nosuch" 不存在', SourceError, "refused the connection"),
        (AT + "ERROR:  endpoint is disabled", SourceError, "refused the connection"),
        (AT + "fe_sendauth: no password supplied", SourceLoginError, "refused the login"),
        (AT + "server does not support SSL, but SSL was required", SourceError, "refused the connection"),
        (AT + 'root certificate file "/x/root.crt" does not exist', SourceError, "refused the connection"),
        (AT + "SSL error: certificate verify failed", SourceError, "refused the connection"),
        (AT + "channel binding required, but SSL not in use", SourceError, "refused the connection"),
        (AT + "authentication method requirement failed: not SCRAM", SourceLoginError, "refused the login"),
        (AT + 'invalid integer value "abc" for connection option "keepalives_idle"', SourceError, "refused"),
        (AT + "FATAL:  the database system is starting up", Unavailable, "cannot be reached"),
        (AT + "FATAL:  the database system is not yet accepting connections", Unavailable, "cannot be reached"),
        (AT + "FATAL:  the database system is shutting down", Unavailable, "cannot be reached"),
        (AT + "FATAL:  sorry, too many clients already", Unavailable, "cannot be reached"),
        (AT + 'FATAL:  too many connections for role "x"', Unavailable, "cannot be reached"),
        (AT + "FATAL:  no more connections allowed (max_client_conn)", Unavailable, "cannot be reached"),
        (AT + "FATAL:  query_wait_timeout", Unavailable, "cannot be reached"),
        (AT + "FATAL:  server login has been failing, try again later (server_login_retry)", Unavailable, "reached"),
        (
            AT + "FATAL:  server login has been failing, cached error: connect failed (server_login_retry)",
            Unavailable,
            "cannot be reached",
        ),
        (
            AT + "FATAL:  server login has been failing, cached error: password authentication failed for user"
            ' "x" (server_login_retry)',
            SourceLoginError,
            "refused the login",
        ),
        (
            AT
            + 'FATAL:  server login has been failing, cached error: database "x" does not exist (server_login_retry)',
            SourceError,
            "refused the connection",
        ),
        (AT + "FATAL:  Timed-out waiting to acquire database connection.", Unavailable, "cannot be reached"),
        (AT + "ERROR:  Couldn't connect to compute node", Unavailable, "cannot be reached"),
        (AT + "FATAL:  (EMAXCONN) max client connections reached, limit: 200", Unavailable, "cannot be reached"),
        (AT + "FATAL:  Max client connections reached", Unavailable, "cannot be reached"),
        (AT + "Connection refused\n\tIs the server running?", Unavailable, "cannot be reached"),
        (AT + "server closed the connection unexpectedly", Unavailable, "cannot be reached"),
        (AT + "SSL SYSCALL error: EOF detected", Unavailable, "cannot be reached"),
        ("connection timeout expired", Unavailable, "cannot be reached"),
        ("failed to resolve host 'nosuch': [Errno -2] Name or service not known", Unavailable, "cannot be reached"),
        (
            'connection is bad: connection to server on socket "/x/.s.PGSQL.5432" failed: No such file or directory',
            Unavailable,
            "cannot be reached",
        ),
        ('connection is bad: invalid port number: "70000"', ConfigError, "parameters are not right"),
        ('connection is bad: definition of service "nosuch" not found', ConfigError, "parameters are not right"),
        ('connection is bad: invalid sslmode value: "bogus"', ConfigError, "parameters are not right"),
    ],
)
def test_connecting(text: str, expected: type[EtlError], said: str) -> None:
    error = connection_error(psycopg.OperationalError(text), WHERE)
    assert type(error) is expected
    assert said in error.message
    assert error.hint
    assert "\n" not in error.message


def test_where_is_said_and_the_servers_words_too() -> None:
    error = connection_error(psycopg.OperationalError(AT + 'FATAL:  database "nosuch" does not exist'), WHERE)
    assert error.message.startswith(f"PostgreSQL at {WHERE} refused the connection: ")
    assert error.message.endswith('FATAL:  database "nosuch" does not exist')


def test_a_parameter_that_psycopg_itself_minds() -> None:
    error = connection_error(psycopg.ProgrammingError("bad value for connect_timeout: 'abc'"), WHERE)
    assert type(error) is ConfigError
    assert "connect_timeout" in error.message


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08000", Unavailable),
        ("08006", Unavailable),
        ("08P01", Unavailable),
        ("57P01", Unavailable),
        ("57P02", Unavailable),
        ("57P03", Unavailable),
        ("57P05", Unavailable),
        ("53300", Unavailable),
        ("25P03", Unavailable),
        ("40003", Unavailable),
        ("72000", Unavailable),
        ("40001", Unavailable),
        ("40P01", Unavailable),
        ("55P03", Unavailable),
        ("25006", UsageError),
        ("42601", UsageError),
        ("42P01", UsageError),
        ("42703", UsageError),
        ("42883", UsageError),
        ("3F000", UsageError),
        ("42501", SourceError),
        ("57014", SourceError),
        ("25P04", SourceError),
        ("57P04", SourceError),
        ("28P01", SourceLoginError),
        ("3D000", SourceError),
        ("58030", SourceError),
        ("53100", SourceError),
        ("53200", SourceError),
        ("22012", SourceError),
        ("22P02", SourceError),
        ("55000", SourceError),
        ("XX001", SourceError),
        ("25P02", SourceError),
    ],
)
def test_statements(state: str, expected: type[EtlError]) -> None:
    error = statement_error(psycopg.errors.lookup(state)("told so"), WHERE, "reading rows")
    assert type(error) is expected
    assert "told so" in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("state", "message", "expected"),
    [
        # PgBouncer has one SQLSTATE for nearly everything.
        ("08P01", "query_wait_timeout", Unavailable),
        ("08P01", "server conn crashed?", Unavailable),
        ("08P01", "idle transaction timeout", Unavailable),
        ("08P01", "server login has been failing, try again later (server_login_retry)", Unavailable),
        ("08P01", "query timeout", SourceError),
        ("08P01", "query_timeout", SourceError),
        ("08P01", "transaction timeout", SourceError),
        (
            "08P01",
            "server login has been failing, cached error: SASL authentication failed (server_login_retry)",
            SourceLoginError,
        ),
        # Others call it an internal error.
        ("XX000", "Couldn't connect to compute node", Unavailable),
        ("XX000", "(EMAXCONNSESSION) max clients reached in session mode", Unavailable),
        ("XX000", "could not read block 0", SourceError),
        # Before PostgreSQL 9.1 a replica's conflicts were cancellations.
        ("57014", "canceling statement due to conflict with recovery", Unavailable),
        ("57014", "canceling statement due to statement timeout", SourceError),
    ],
)
def test_what_the_text_tells(state: str, message: str, expected: type[EtlError]) -> None:
    error = statement_error(psycopg.errors.lookup(state)(message), WHERE, "reading rows")
    assert type(error) is expected
    assert message in error.message
    assert error.hint


@pytest.mark.parametrize("state", ["22P02", "22007", "22003"])
def test_before_rows_are_read_a_wrong_value_is_the_users(state: str) -> None:
    assert type(statement_error(psycopg.errors.lookup(state)("x"), WHERE, "checking", reading=False)) is UsageError


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("consuming input failed"),
        psycopg.InterfaceError("gone"),
        psycopg.DatabaseError("lost synchronization with server"),
    ],
)
def test_without_a_state_the_connection_broke(error: psycopg.Error) -> None:
    translated = statement_error(error, WHERE, "reading rows")
    assert type(translated) is Unavailable
    assert translated.message == f"the connection to PostgreSQL at {WHERE} broke while reading rows: {error}"


@pytest.mark.parametrize("kind", [psycopg.DataError, psycopg.InternalError, psycopg.ProgrammingError])
def test_what_psycopg_refuses_itself_is_no_broken_connection(kind: type[psycopg.Error]) -> None:
    translated = statement_error(kind("cannot do that"), WHERE, "reading rows")
    assert type(translated) is SourceError
    assert not isinstance(translated, TransientError)


def test_what_came_too_late_says_how_late_and_what_to_do() -> None:
    late, silent = no_answer(WHERE, "looking", 60.0), silence(WHERE, "reading rows", 600.0)
    assert late.message == f"PostgreSQL at {WHERE} did not answer within 60 s while looking"
    assert silent.message == f"PostgreSQL at {WHERE} sent nothing for 600 s while reading rows"
    assert "lock" in str(late.hint)
    assert "`read_timeout` below [source]" in str(silent.hint)


@pytest.mark.parametrize(
    "error", [KeyError("1700"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), AttributeError("x")]
)
def test_an_answer_that_cannot_be_read(error: Exception) -> None:
    assert isinstance(error, UNREADABLE)
    translated = unreadable(error, WHERE, "looking")
    assert translated.message.startswith(f"what PostgreSQL at {WHERE} answered while looking cannot be read: ")
    assert "sslmode=require" in str(translated.hint)


def test_the_echo_of_the_statement_stays_out() -> None:
    text = 'syntax error at or near "fro"\nLINE 1: select 1 fro t\n                 ^\nCONTEXT:  somewhere'
    error = statement_error(psycopg.errors.SyntaxError(text), WHERE, "looking")
    assert error.message == 'PostgreSQL does not take the statement: syntax error at or near "fro"'


def test_a_long_message_is_cut_and_an_empty_one_is_said_to_be() -> None:
    assert len(statement_error(psycopg.errors.SyntaxError("x" * 5000), WHERE, "looking").message) < 1100
    assert "no reason given" in statement_error(psycopg.OperationalError(""), WHERE, "looking").message
