"""How a source is logged in to: with a password that is given apart from its URL, or with tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from psycopg.abc import ConnDict
from psycopg.pq import Conninfo

from etlcli.errors import ConfigError

__all__ = ["Login", "TokenMaker", "login_of", "refuse_second_password", "with_tls"]

# libpq's words for encryption that it may do without.
_WITHOUT_TLS = ("disable", "allow", "prefer")


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where.

    Attributes:
        host: The server's name, as it is signed.
        port: Its port.
        user: The role.
    """

    host: str
    port: int
    user: str


TokenMaker: TypeAlias = Callable[[Login], str]
"""Makes what is sent as the password of one connection. It may block, and raises ``ConfigError`` or ``Unavailable``."""


def refuse_second_password(parameters: ConnDict) -> None:
    """Check that a URL has no password, where one is given apart from it.

    Raises:
        ConfigError: It has.
    """
    if parameters.get("password"):
        raise ConfigError(
            "the source has two passwords: one in its URL, and `password` below [source]"
            " (or MOMENTO_ETL_SOURCE_PASSWORD)",
            hint="Take one of them away.",
            of_service=True,
        )


def login_of(parameters: ConnDict) -> Login:
    """Find out who logs in where, from the parameters and from libpq's environment and services.

    Raises:
        ConfigError: It is not one host with a name, of which a token could be made.
    """
    known = {**_defaults(), **{name: str(value) for name, value in parameters.items() if value}}
    host, port = known.get("host", ""), known.get("port", "") or "5432"
    if not host or "," in host or host.startswith(("/", "@")) or not port.isdecimal():
        found = "several hosts" if "," in host + port else "a socket" if host else "no host"
        raise ConfigError(
            f'password = "rds-iam" needs one host to make a token for, and the source\'s address has {found}',
            hint="Write the endpoint of the database as RDS shows it into the URL: postgresql://USER@HOST:5432/DATABASE",
            of_service=True,
        )
    return Login(host, int(port), known.get("user", ""))


def with_tls(parameters: ConnDict) -> None:
    """Ask for TLS, without which a token would be there for everybody to read (and RDS takes none).

    Raises:
        ConfigError: The URL or the environment asks for less.
    """
    given = str(parameters.get("sslmode") or os.environ.get("PGSSLMODE") or "")
    if given in _WITHOUT_TLS:
        raise ConfigError(
            f'password = "rds-iam" goes with TLS only, and sslmode={given} may do without',
            hint="Take it out of the URL (or PGSSLMODE out of the environment), or ask for more than `require`:"
            " sslmode=verify-full&sslrootcert=/path/to/global-bundle.pem",
            of_service=True,
        )
    if not given and parameters.get("service"):
        # It may ask for more, which what is said here would undo.
        raise ConfigError(
            'password = "rds-iam" goes with TLS only, and the source\'s URL leaves sslmode to its service',
            hint="Write sslmode=verify-full (or require) into the URL too.",
            of_service=True,
        )
    if not given and _defaults().get("sslmode", "prefer") in _WITHOUT_TLS:
        parameters["sslmode"] = "require"


def _defaults() -> Mapping[str, str]:
    """What libpq takes where nothing is said: its environment variables, a service, the system's user."""
    return {
        option.keyword.decode(): option.val.decode(errors="replace") for option in Conninfo.get_defaults() if option.val
    }
