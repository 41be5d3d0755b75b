"""psycopg's errors in our words. The one place that reads SQLSTATEs (PostgreSQL's manual, appendix A)."""

from __future__ import annotations

import re

import psycopg

from etlcli.errors import ConfigError, EtlError, SourceError, Unavailable, UsageError

__all__ = ["connection_error", "statement_error"]

# Conditions that a server reports while it cannot take a connection just yet. libpq hands a refused connection on as
# text only, without its SQLSTATE, so the text is all there is to tell "not yet" from "no".
_NOT_YET = (
    "the database system is starting up",
    "the database system is not yet accepting connections",
    "the database system is in recovery mode",
    "the database system is shutting down",
    "too many connections",
    "too many clients",
    "remaining connection slots are reserved",
    "no more connections allowed",  # PgBouncer's words
)
# A server's own words come after their severity (in the server's language) and two spaces; libpq's come without.
_FROM_SERVER = re.compile(r"[^\s:]+:  \S")
# What libpq itself refuses, though there is a server: waiting would not change it.
_NOT_THIS_WAY = (
    "authentication",
    "certificate",
    "channel binding",
    "does not support SSL",
    "GSSAPI",
    "invalid integer value",
    "no password supplied",
    "private key",
)

# Connection exceptions; the server was shut down or the connection ended by an administrator; a pooler found no room.
_GONE = ("08", "57P", "53300")
_PASSING = {"40001", "40P01", "55P03"}  # serialization failure (a replica's recovery conflict), deadlock, lock timeout


def connection_error(error: psycopg.Error, where: str) -> EtlError:
    """Translate a failure to connect to ``where`` (without secrets)."""
    text = _first_lines(str(error))
    answered = _FROM_SERVER.search(text) is not None
    # libpq takes parameters apart before it looks for a server ("connection is bad: invalid port number"), and psycopg
    # looks at some of them itself.
    bad_parameter = text.startswith("connection is bad:") and "connection to server" not in text
    if bad_parameter or isinstance(error, psycopg.ProgrammingError):
        return ConfigError(
            f"the connection's parameters are not right: {text}",
            hint="Check [source] url, or DATABASE_URL, and the PG... variables.",
            of_service=True,
        )
    refused = answered and not any(phrase in text for phrase in _NOT_YET)
    if not refused and (answered or not any(phrase in text for phrase in _NOT_THIS_WAY)):
        return Unavailable(
            f"PostgreSQL at {where} cannot be reached: {text}",
            hint="Is the server running, and are host and port right? A suspended database needs a moment to wake up.",
            of_service=True,
        )
    if "password" in text or "authentication" in text:
        return SourceError(
            f"PostgreSQL at {where} refused the login: {text}",
            hint="Check user and password in [source] url, DATABASE_URL, PGPASSWORD or the password file.",
            of_service=True,
        )
    return SourceError(
        f"PostgreSQL at {where} refused the connection: {text}",
        hint="Check the database's name, the user's right to connect, and what the connection asks for (sslmode, ...).",
        of_service=True,
    )


_MEND = "A row or a value is what PostgreSQL minds: mend it there, or leave it out with --where."


def statement_error(
    error: psycopg.Error, where: str, doing: str, *, text: str | None = None, reading: bool = True
) -> EtlError:
    """Translate a failed statement.

    Args:
        error: What psycopg raised.
        where: The source, in words.
        doing: In a few words, what for.
        text: The statement, where it is the user's own as it stands, to say in which of its lines the mistake is.
        reading: Whether rows were read. Before that, a value that PostgreSQL does not take is one that the user wrote.
    """
    state = error.sqlstate
    # DETAIL and HINT have their place in our hint.
    message = error.diag.message_primary or _first_lines(str(error))
    if state is None and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return SourceError(f"PostgreSQL at {where} failed while {doing}: {message}")
    if state is None or state.startswith(_GONE):
        return Unavailable(
            f"the connection to PostgreSQL at {where} broke while {doing}: {message}",
            hint="Run the same command again; if it breaks again, look into the server's log.",
        )
    if state in _PASSING:
        return Unavailable(
            f"PostgreSQL at {where} cancelled the statement while {doing}: {message}",
            hint="On a replica, raise max_standby_streaming_delay, or read from the primary.",
        )
    if state == "25006":
        return UsageError(
            f"the query writes, and the source is only read: {message}",
            hint="Give a query that only reads (SELECT, VALUES, TABLE). Nothing was changed.",
        )
    if state == "42501":
        return SourceError(
            f"PostgreSQL at {where} does not allow {doing}: {message}",
            hint="Grant SELECT on the table (and USAGE on its schema) to this user, or name the columns that it may"
            " read with --columns. Where a row security policy applies, use a role that may see every row: a policy"
            " must not hide rows unseen.",
        )
    if state == "42601" and error.diag.source_function == "exec_parse_message":
        # In the server's language it would be "cannot insert multiple commands into a prepared statement".
        return UsageError(
            "there is more than one statement", hint="Give one statement that only reads: SELECT, VALUES or TABLE."
        )
    if state.startswith(("42", "3F")) or (state.startswith("22") and not reading):
        return UsageError(
            f"PostgreSQL does not take the statement: {message}{_line(error, text)}", hint=_position_hint(error)
        )
    if state == "57014":
        return SourceError(
            f"PostgreSQL at {where} cancelled the statement while {doing}: {message}",
            hint="Somebody cancelled it, or a limit of the server did.",
        )
    return SourceError(f"PostgreSQL at {where} failed while {doing}: {message}", hint=_detail_hint(error) or _MEND)


def _first_lines(text: str) -> str:
    """Join an error's lines, without the echo of the statement, which can be long."""
    lines = [line.strip() for line in text.strip().splitlines()]
    kept = [line for line in lines if line and not line.startswith(("LINE ", "^", "CONTEXT:"))]
    return " ".join(kept)[:1000] or "no reason given"


def _line(error: psycopg.Error, text: str | None) -> str:
    """Name the line of a mistake, where the text has several."""
    position = error.diag.statement_position
    if text is None or position is None or "\n" not in text.strip():
        return ""
    return f" (line {text.count(chr(10), 0, int(position) - 1) + 1})"


def _position_hint(error: psycopg.Error) -> str:
    diagnostics = error.diag
    parts = [diagnostics.message_hint or "Check the table's and columns' names, --where and --query."]
    if diagnostics.message_detail:
        parts.insert(0, diagnostics.message_detail)
    return " ".join(parts)


def _detail_hint(error: psycopg.Error) -> str | None:
    parts = [part for part in (error.diag.message_detail, error.diag.message_hint) if part]
    return " ".join(parts) or None
