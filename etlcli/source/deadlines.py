"""How long PostgreSQL is waited for: no wait is without an end."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_DEADLINES", "KEEPALIVE", "Deadlines"]


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds after which an answer is not expected any more.

    Attributes:
        connect: For TCP, TLS and login together, with each address that a host has. libpq takes whole seconds, and no
            fewer than 2.
        statement: For what PostgreSQL answers at once unless something holds it up: the settings of a session, and all
            that looking at one table takes.
        read: For the next rows of a reading, however long it is in all; and for a question over all rows (duplicates,
            say). Before the first row PostgreSQL may have to sort or to search a large table.
        parting: For leaving in order. Past that a server notices by itself that nobody is there, once it writes.
    """

    connect: int = 15
    statement: float = 60.0
    read: float = 600.0
    parting: float = 5.0


DEFAULT_DEADLINES = Deadlines()

# A peer that vanished without a word is noticed within a minute, whatever is waited for: by probes where the line is
# idle, which it may be for long while the loader catches up, and by what it does not acknowledge. (The last one is
# Linux's own; elsewhere libpq leaves it out.)
KEEPALIVE = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""libpq's parameters, in seconds but for the last, in milliseconds."""
