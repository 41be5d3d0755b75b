"""psycopg's errors in our words. The one place that reads SQLSTATEs (PostgreSQL's manual, appendix A).

What passes by itself becomes ``Unavailable``, in the middle of a reading too: the same question, asked in a new
snapshot, may well be answered. What would meet the same answer again is terminal.
"""

from __future__ import annotations

import re

import psycopg

from etlcli.errors import ConfigError, EtlError, SourceError, SourceLoginError, Unavailable, UsageError

__all__ = ["UNREADABLE", "connection_error", "no_answer", "silence", "statement_error", "unreadable"]

# Conditions that pass, as servers, poolers and proxies report them. libpq hands a refused connection on as text only,
# without its SQLSTATE, and what stands between has one SQLSTATE for nearly all it says (PgBouncer 08P01, others XX000),
# so the text is all there is to tell "not yet" from "no". In lower case.
_NOT_YET = (
    # PostgreSQL
    "the database system is starting up",
    "the database system is not yet accepting connections",
    "the database system is in recovery mode",
    "the database system is shutting down",
    "too many connections",
    "too many clients",
    "remaining connection slots are reserved",
    # PgBouncer
    "no more connections allowed",
    "client connections exceeded",
    "query_wait_timeout",
    "server login has been failing",
    "server conn crashed",
    "pgbouncer cannot connect to server",
    "client_login_timeout (server down)",
    # RDS Proxy
    "timed-out waiting to acquire database connection",
    "maximum number of client connections to the proxy exceeded",
    "rate of connection to proxy exceeded",
    "too many competing requests",
    # Neon's proxy
    "couldn't connect to compute node",
    "too many database connection attempts",
    # Supavisor
    "max client connections reached",
    "max clients reached",
)
# A pooler that may not log in tells the reason of its last attempt, and tries again some seconds later.
_CACHED = re.compile(r"cached error: (.*)\(server_login_retry\)", re.DOTALL)
_LASTING = ("authentication failed", "does not exist", "no pg_hba.conf entry", "not permitted to log in")
# How long a statement or a transaction may take at all, by PgBouncer.
_POOLERS_LIMIT = ("query timeout", "query_timeout", "transaction timeout")

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

# Connection exceptions; the server was shut down, crashed or restarts, or an administrator ended the connection; there
# was no room for another connection; a transaction was idle for too long, which after our settings only a pooler minds.
_GONE = ("08", "57P", "53300", "25P03")
# Transactions rolled back (40001 is a replica's conflict with what it has to replay, 40P01 a deadlock), a lock that was
# not had in time, a snapshot that has grown too old.
_PASSING = ("40", "55P03", "72000")
# The login is refused, or the database is not there (any more). A pooler says so only when it has something to do.
_REFUSED = ("28", "3D", "57P04")
# Of these, what another user or password may get around; with a new secret both may be others. (28000 is also what
# PostgreSQL says of an address that it lets nobody in from.) libpq hands on the text alone, in the server's language.
_NOT_LET_IN = ("28P01", "28000")
_OF_THE_ROLE = re.compile(r'role ".*" (?:does not exist|is not permitted to log in)|no such user', re.IGNORECASE)
# Somebody cancelled the statement, or a limit did: on a statement, or on a transaction (since PostgreSQL 17).
_CANCELLED = ("57014", "25P04")
# The server has no disk or memory left, or cannot reach its files.
_IN_TROUBLE = ("53", "58")
# By what a cancellation for a replica's sake is told from others: the function's name, in versions that have one for it
# (PostgreSQL's words may be in any language), or the words.
_CONFLICT = ("RecoveryConflict", "conflict with recovery")


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
    refused = answered and not _is_not_yet(text)
    if not refused and (answered or not any(phrase in text for phrase in _NOT_THIS_WAY)):
        return Unavailable(
            f"PostgreSQL at {where} cannot be reached: {text}",
            hint="Is the server running, and are host and port right? A suspended database needs a moment to wake up.",
            of_service=True,
        )
    return _refusal(text, where)


def _refusal(text: str, where: str, sqlstate: str | None = None) -> SourceError:
    if "password" in text or "authentication" in text:
        return SourceLoginError(
            f"PostgreSQL at {where} refused the login: {text}",
            hint="Check user and password in [source] url (and password), DATABASE_URL, PGPASSWORD or the password"
            " file.",
            of_service=True,
        )
    kind = SourceLoginError if sqlstate in _NOT_LET_IN or _OF_THE_ROLE.search(text) else SourceError
    return kind(
        f"PostgreSQL at {where} refused the connection: {text}",
        hint="Check the database's name, the user's right to connect, and what the connection asks for (sslmode, ...).",
        of_service=True,
    )


def no_answer(where: str, doing: str, seconds: float) -> Unavailable:
    """Say that a statement was not answered in time which should have been answered at once."""
    return Unavailable(
        f"PostgreSQL at {where} did not answer within {seconds:g} s while {doing}",
        hint="Something holds it up: a lock on the table (ALTER TABLE, VACUUM FULL, ...; pg_stat_activity shows it), a"
        " pooler without a free connection, or the network. Run the same command again once that is over.",
    )


def silence(where: str, doing: str, seconds: float) -> Unavailable:
    """Say that nothing came for as long as a reading may be silent."""
    return Unavailable(
        f"PostgreSQL at {where} sent nothing for {seconds:g} s while {doing}",
        hint="If it was at work (sorting, or looking for the first row), allow it more with `read_timeout` below"
        " [source], or give it an index. If not, look at the server and the network, and run the same command again.",
    )


# These psycopg raises itself, of what it was given. What libpq finds wrong with a connection is an OperationalError, or
# in the place of a result a DatabaseError as such.
_FOUND_BY_PSYCOPG = (psycopg.DataError, psycopg.InternalError, psycopg.ProgrammingError, psycopg.NotSupportedError)

UNREADABLE = (AttributeError, LookupError, ValueError)
"""What an answer leads to that is not what was asked for: names, figures and texts that do not fit. The catalog always
fits, so it was hit on its way, where no TLS protects it."""


def unreadable(error: Exception, where: str, doing: str) -> Unavailable:
    """Translate one of ``UNREADABLE``."""
    return Unavailable(
        f"what PostgreSQL at {where} answered while {doing} cannot be read: {type(error).__name__}: {error}",
        hint="It was damaged on its way, most likely. Run the same command again, with sslmode=require in the URL.",
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
    if state is None and isinstance(error, _FOUND_BY_PSYCOPG):
        return SourceError(f"PostgreSQL at {where} failed while {doing}: {message}")
    if state is not None:
        if state.startswith(_REFUSED) or _is_lasting(message):
            return _refusal(message, where, state)
        if state in _CANCELLED or (state == "08P01" and message in _POOLERS_LIMIT):
            return _cancelled(error, message, where, doing)
    if state is None or state.startswith(_GONE) or _is_not_yet(message):
        return Unavailable(
            f"the connection to PostgreSQL at {where} broke while {doing}: {message}",
            hint="Run the same command again; if it breaks again, look into the server's log.",
        )
    if state.startswith(_PASSING):
        return _passing(message, where, doing)
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
    if state.startswith(_IN_TROUBLE):
        return SourceError(
            f"PostgreSQL at {where} failed while {doing}: {message}",
            hint="The server itself lacks something (disk, memory, a file): look into its log.",
        )
    return SourceError(f"PostgreSQL at {where} failed while {doing}: {message}", hint=_detail_hint(error) or _MEND)


def _cancelled(error: psycopg.Error, message: str, where: str, doing: str) -> EtlError:
    if any(word in f"{error.diag.source_function} {message}" for word in _CONFLICT):
        return _passing(message, where, doing)
    return SourceError(
        f"PostgreSQL at {where} cancelled the statement while {doing}: {message}",
        hint="Somebody cancelled it, or a limit of the server's or a pooler's did (statement_timeout,"
        " transaction_timeout, query_timeout): raise it for this user, or read less at a time with --where.",
    )


def _passing(message: str, where: str, doing: str) -> Unavailable:
    return Unavailable(
        f"PostgreSQL at {where} cancelled the statement while {doing}: {message}",
        hint="On a replica, raise max_standby_streaming_delay, or read from the primary.",
    )


def _is_not_yet(text: str) -> bool:
    """Whether a text says of a refusal that it passes."""
    lowered = text.lower()
    return any(phrase in lowered for phrase in _NOT_YET) and not _is_lasting(text)


def _is_lasting(text: str) -> bool:
    """Whether a pooler says that it may not log in to its server, and will not be allowed to."""
    cached = _CACHED.search(text)
    return cached is not None and any(phrase in cached[1] for phrase in _LASTING)


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
