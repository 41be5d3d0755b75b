"""awswrangler's ``put_items``, without a cache."""

from __future__ import annotations

import awswrangler

from tests.bench.ways.places import arrived, asked_for
from tests.bench.ways.rows import read_items


def main() -> None:
    """Copy a table."""
    places = asked_for()
    items = read_items(places.postgres_url, places.table)
    awswrangler.dynamodb.put_items(items=items, table_name=places.destination)
    arrived(len(items))


if __name__ == "__main__":
    main()
