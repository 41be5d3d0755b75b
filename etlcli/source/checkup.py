"""What ``doctor`` asks of PostgreSQL: who answers, as whom, what stands between, and whether the jobs can read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from importlib.metadata import version

from etlcli.doctor import Check, failed_by
from etlcli.errors import EtlError, SourceError
from etlcli.model import Selection
from etlcli.retry import RetryPolicy
from etlcli.source.postgres import PostgresSource
from etlcli.source.server import Server, pooler_named
from etlcli.source.snapshot import PostgresSnapshot

__all__ = ["PATIENCE", "examine_source"]

PATIENCE = RetryPolicy(patience=10.0, base=0.5, ceiling=2.0)
"""For a suspended database, which needs a moment to wake up."""

_TLS_HINT = "Add sslmode=require to the URL: without TLS others on the way can read and damage what is sent."
_REPLICA_HINT = (
    "A long read can be cancelled in favour of what the primary changes: raise max_standby_streaming_delay for large"
    " tables. A run reads on where it was cancelled."
)


async def examine_source(source: PostgresSource, selections: Mapping[str, Selection]) -> AsyncIterator[Check]:
    """Look at a source.

    Args:
        source: With ``PATIENCE``, or another short one.
        selections: What each job reads, by the job's name.

    Raises:
        EtlError: It stopped answering in between.
    """
    try:
        async with source.snapshot() as snapshot:
            server = await snapshot.server()
    except EtlError as error:
        # A refusal is an answer.
        if isinstance(error, SourceError):
            yield Check("source", "reachable", "ok", f"PostgreSQL at {source.description} answers")
            yield failed_by("source", "login", error)
        else:
            yield failed_by("source", "reachable", error)
        return
    yield Check("source", "reachable", "ok", f"PostgreSQL at {source.description} answers")
    yield Check("source", "login", "ok", f"as {server.user}", facts={"user": server.user})
    for check in _judged(server):
        yield check
    yield await _pooler(source, server)
    async for check in _readable(source, selections):
        yield check


def _judged(server: Server) -> list[Check]:
    psycopg = version("psycopg")
    checks = [
        Check(
            "source",
            "version",
            "ok",
            f"PostgreSQL {server.version}, psycopg {psycopg}",
            facts={"server_version": server.version, "sdk_version": psycopg},
        ),
        Check(
            "source",
            "limits",
            "ok",
            f"{server.max_connections} connections at most; a run takes one",
            facts={"max_connections": server.max_connections},
        ),
    ]
    if server.is_encrypted or server.is_near:
        words = "the connection is encrypted" if server.is_encrypted else "the connection stays on this machine"
        checks.append(Check("source", "encryption", "ok", words, facts={"encrypted": server.is_encrypted}))
    else:
        words = "the connection is not encrypted"
        checks.append(Check("source", "encryption", "warning", words, _TLS_HINT, {"encrypted": False}))
    if server.is_replica:
        checks.append(Check("source", "replica", "warning", "this server is a replica", _REPLICA_HINT))
    return checks


async def _pooler(source: PostgresSource, server: Server) -> Check:
    """Look for a pooler: by the address, and by who announced itself."""
    named = pooler_named(server.host)
    if named is None and not server.is_behind_pooler:
        return Check("source", "pooler", "ok", "none stands between", facts={"pooler": False})
    by_transaction = await source.pools_transactions()
    who = named.name if named is not None else "a pooler or proxy (PgBouncer, or one like it)"
    how = ", which hands sessions out by the transaction" if by_transaction else ""
    direct = named.direct if named is not None else "the server's own address"
    return Check(
        "source",
        "pooler",
        "warning",
        f"{who} stands before PostgreSQL{how}",
        "A run works through it, and holds one of its connections for as long as it reads; its limits on the time of a"
        f" query or a transaction (query_timeout) apply. For large tables take {direct}.",
        {"pooler": True, "transaction_mode": by_transaction},
    )


async def _readable(source: PostgresSource, selections: Mapping[str, Selection]) -> AsyncIterator[Check]:
    """Have PostgreSQL judge what each job reads."""
    async with AsyncExitStack() as opened:
        snapshot: PostgresSnapshot | None = None
        for job, selection in selections.items():
            if snapshot is None:
                snapshot = await opened.enter_async_context(source.snapshot())
            try:
                relation = await snapshot.describe(selection)
            except EtlError as error:
                yield Check("source", "allowed", "failed", f"{job}: {error.message}", error.hint)
                # A transaction takes nothing more after an error.
                await opened.aclose()
                snapshot = None
                continue
            what = selection.table if selection.query is None else "its query"
            columns = len(relation.columns)
            words = f"{job}: may read {what}, {columns} column{'' if columns == 1 else 's'}"
            yield Check("source", "allowed", "ok", words, facts={"job": job, "columns": columns})
