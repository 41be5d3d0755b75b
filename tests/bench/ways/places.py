"""Where a way finds its servers, and what it says at its end."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from momento import CredentialProvider

__all__ = ["Places", "arrived", "asked_for", "momento_at"]


class Places(NamedTuple):
    """What a way is called with.

    Attributes:
        table: The source's table.
        cache: The Momento cache.
        destination: The DynamoDB table.
        postgres_url: The source.
        momento: ``host:port``.
        dynamodb_url: The endpoint.
    """

    table: str
    cache: str
    destination: str
    postgres_url: str
    momento: str
    dynamodb_url: str


def asked_for() -> Places:
    """Read the command line, and from the environment what the product reads from it too."""
    parser = argparse.ArgumentParser()
    for name in ("table", "cache", "destination"):
        parser.add_argument(name)
    words = parser.parse_args()
    return Places(
        words.table,
        words.cache,
        words.destination,
        os.environ["DATABASE_URL"],
        os.environ["MOMENTO_LOCAL"],
        os.environ["AWS_ENDPOINT_URL_DYNAMODB"],
    )


def arrived(rows: int) -> None:
    """Tell how many rows were written."""
    sys.stdout.write(json.dumps({"rows_loaded": rows}) + "\n")


def momento_at(address: str) -> CredentialProvider:
    """Make what the momento SDK wants to know of a server without TLS."""
    from momento import CredentialProvider

    host, _, port = address.rpartition(":")
    return CredentialProvider.for_momento_local(host, int(port))
