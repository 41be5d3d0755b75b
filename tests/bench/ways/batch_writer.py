"""boto3's own ``batch_writer``, without a cache."""

from __future__ import annotations

import boto3

from tests.bench.ways.places import arrived, asked_for
from tests.bench.ways.rows import read_items


def main() -> None:
    """Copy a table."""
    places = asked_for()
    items = read_items(places.postgres_url, places.table)
    with boto3.resource("dynamodb").Table(places.destination).batch_writer() as writer:
        for item in items:
            writer.put_item(Item=item)
    arrived(len(items))


if __name__ == "__main__":
    main()
