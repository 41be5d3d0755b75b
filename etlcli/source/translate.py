"""psycopg's errors in our words. The one place that reads SQLSTATEs (PostgreSQL's manual, appendix A)."""

from __future__ import annotations

import psycopg

from etlcli.errors import EtlError, SourceError, Unavailable, UsageError

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
)

_GONE = ("08", "57P")  # connection exceptions; the server was shut down or the connection ended by an administrator
_PASSING = {"40001", "40P01", "55P03"}  # serialization failure (a replica's recovery conflict), deadlock, lock timeout


def connection_error(error: psycopg.Error, where: str) -> EtlError:
    """Translate a failure to connect to ``where`` (without secrets)."""
    text = _first_lines(str(error))
    if not _server_answered(text) or any(phrase in text for phrase in _NOT_YET):
        return Unavailable(
            f"PostgreSQL at {where} cannot be reached: {text}",
            hint="Is the server running, and are host and port right? A suspended database needs a moment to wake up.",
        )
    if "password" in text or "authentication" in text:
        return SourceError(
            f"PostgreSQL at {where} refused the login: {text}",
            hint="Check user and password in [source] url, DATABASE_URL, PGPASSWORD or the password file.",
        )
    return SourceError(
        f"PostgreSQL at {where} refused the connection: {text}",
        hint="Check the database's name and the user's right to connect.",
    )


def statement_error(error: psycopg.Error, where: str, doing: str) -> EtlError:
    """Translate a failed statement; ``doing`` says in a few words what for."""
    state = error.sqlstate
    text = _first_lines(str(error))
    if state is None or state.startswith(_GONE) or isinstance(error, psycopg.InterfaceError):
        return Unavailable(
            f"the connection to PostgreSQL at {where} broke while {doing}: {text}",
            hint="Run the same command again; if it breaks again, look into the server's log.",
        )
    if state in _PASSING:
        return Unavailable(
            f"PostgreSQL at {where} cancelled the statement while {doing}: {text}",
            hint="On a replica, raise max_standby_streaming_delay, or read from the primary.",
        )
    if state == "25006":
        return UsageError(
            f"the query writes, and the source is only read: {text}",
            hint="Give a query that only reads (SELECT, VALUES, TABLE). Nothing was changed.",
        )
    if state == "42501":
        return SourceError(
            f"PostgreSQL at {where} does not allow {doing}: {text}",
            hint="Grant SELECT on the table (and USAGE on its schema) to this user. Where a row security policy"
            " applies, use a role that may see every row: a policy must not hide rows unseen.",
        )
    if state.startswith("42"):
        return UsageError(f"PostgreSQL does not take the statement: {text}", hint=_position_hint(error))
    if state == "57014":
        return SourceError(
            f"PostgreSQL at {where} cancelled the statement while {doing}: {text}",
            hint="Somebody cancelled it, or a limit of the server did.",
        )
    return SourceError(f"PostgreSQL at {where} failed while {doing}: {text}", hint=_detail_hint(error))


def _server_answered(text: str) -> bool:
    # A refusal by the server itself starts with its severity, which is not translated in the languages it comes in.
    return "FATAL" in text or "PANIC" in text


def _first_lines(text: str) -> str:
    """Join an error's lines, without the echo of the statement, which can be long."""
    lines = [line.strip() for line in text.strip().splitlines()]
    kept = [line for line in lines if line and not line.startswith(("LINE ", "^", "CONTEXT:"))]
    return " ".join(kept)[:1000] or "no reason given"


def _position_hint(error: psycopg.Error) -> str:
    diagnostics = error.diag
    parts = [diagnostics.message_hint or "Check the table's and columns' names, --where and --query."]
    if diagnostics.message_detail:
        parts.insert(0, diagnostics.message_detail)
    return " ".join(parts)


def _detail_hint(error: psycopg.Error) -> str | None:
    parts = [part for part in (error.diag.message_detail, error.diag.message_hint) if part]
    return " ".join(parts) or None
