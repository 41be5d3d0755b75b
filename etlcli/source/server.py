"""What a PostgreSQL server says of itself and of this connection, and what its address tells of a pooler."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from etlcli.source.wire import Connection, run

__all__ = ["Pooler", "Server", "describe_server", "pooler_named"]

_QUESTION = b"""
select pg_backend_pid(), current_user, current_setting('server_version'), pg_is_in_recovery(),
       current_setting('max_connections')
"""


class Server(NamedTuple):
    """A server, seen through one connection.

    Attributes:
        version: As it says it: ``18.1``.
        user: Whom it takes us for.
        is_replica: Whether it replays another server's changes.
        max_connections: How many it takes at once.
        host: The host that was connected to.
        port: And its port.
        is_encrypted: Whether what we send is; to a pooler, as far as that.
        is_behind_pooler: Whether somebody else than the server answered when we connected: the process that was
            announced then is not the one at work.
    """

    version: str
    user: str
    is_replica: bool
    max_connections: int
    host: str
    port: int
    is_encrypted: bool
    is_behind_pooler: bool

    @property
    def is_near(self) -> bool:
        """Whether it is on this machine: a Unix socket, or a loopback address."""
        if self.host.startswith(("/", "@")) or self.host in ("", "localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


async def describe_server(connection: Connection) -> Server:
    """Ask it.

    Raises:
        psycopg.Error: It does not answer.
    """
    ((pid, user, version, is_replica, max_connections),) = await run(connection, _QUESTION)
    info = connection.info
    return Server(
        version=str(version).partition(" ")[0],  # Debian's adds what it is packaged as
        user=str(user),
        is_replica=is_replica == "t",
        max_connections=int(max_connections or 0),
        host=info.host,
        port=info.port,
        is_encrypted=connection.pgconn.ssl_in_use,
        is_behind_pooler=int(pid or 0) != info.backend_pid,
    )


class Pooler(NamedTuple):
    """A pooler that an address names.

    Attributes:
        name: Whose it is.
        direct: How to reach the database without it.
    """

    name: str
    direct: str


def pooler_named(host: str) -> Pooler | None:
    """Recognise a provider's pooler by its address; None for any other address."""
    first, _, domain = host.lower().partition(".")
    if first.endswith("-pooler") and ".neon." in f".{domain}":
        return Pooler("Neon's pooler", f"the host {first.removesuffix('-pooler')}.{domain}")
    if domain == "pooler.supabase.com" or host.lower().endswith(".pooler.supabase.com"):
        return Pooler("Supabase's pooler", "the direct connection that its dashboard shows, or port 5432 for sessions")
    if ".proxy-" in host.lower() and ".rds.amazonaws.com" in host.lower():
        return Pooler("RDS Proxy", "the endpoint of the database itself")
    return None
