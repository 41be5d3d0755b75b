"""A source's address: the URL taken apart, and said without any secret."""

from __future__ import annotations

import os
import re

import psycopg
from psycopg import conninfo
from psycopg.abc import ConnDict

from etlcli.errors import ConfigError
from etlcli.source.text import sendable

__all__ = ["described", "parameters_of"]

# What libpq takes from the environment where the URL does not say it.
_ENVIRONMENT = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "service": "PGSERVICE",
}


def parameters_of(url: str) -> ConnDict:
    """Take a URL or a connection string apart, and refuse what libpq takes but cannot have been meant.

    What goes wrong with a URL is mostly a password whose odd characters are not percent-encoded: libpq then takes
    part of it for the host, the port or the database, and would show it. So none of it is shown here.
    """
    try:
        parameters = conninfo.conninfo_to_dict(sendable(url, "the source's URL"))
    except psycopg.ProgrammingError:
        parameters = None  # libpq's message quotes the URL, so it stays out
    if parameters is not None:
        hosts = str(parameters.get("host") or parameters.get("hostaddr") or "").split(",")
        ports = str(parameters.get("port") or "").split(",")
        path = re.match(r"postgres(?:ql)?://(?:[^@/]*@)?[^/?]*/([^?]*)", url)
        if (
            all("@" not in host[1:] for host in hosts)  # at the start it names an abstract Unix socket
            and all(not port or port.isdecimal() for port in ports)
            and len(ports) in (1, len(hosts))
            and not (path and "@" in path[1])
        ):
            return parameters
    raise ConfigError(
        "the source's URL is malformed",
        hint="Write postgresql://USER@HOST:PORT/DATABASE, with odd characters percent-encoded"
        " (a slash in a password is %2F, an @ is %40).",
        of_service=True,
    )


def described(parameters: ConnDict) -> str:
    """Say where a source is, from the parameters and from the environment, which libpq asks for the others."""

    def named(keyword: str) -> str:
        return str(parameters.get(keyword) or os.environ.get(_ENVIRONMENT[keyword]) or "")

    database = f"/{named('dbname')}" if named("dbname") else ""
    addresses = named("host") or named("hostaddr")
    if named("service") and not parameters.get("host"):
        return f"service {named('service')}{database}"
    hosts = (
        [f"[{host}]" if ":" in host else host for host in addresses.split(",")] if addresses else ["the default host"]
    )
    ports = named("port").split(",")
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    return ",".join(f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)) + database
