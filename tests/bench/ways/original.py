"""The algorithm of the original system: a Momento call a field, both ways, and a put a row, one after the other.

A row is a dictionary under ``table:rownumber`` with a field a column; everything is a text from there on.
"""

from __future__ import annotations

from datetime import timedelta

import boto3
import psycopg
from momento import CacheClient, Configurations
from momento.requests import CollectionTtl
from momento.responses import CacheDictionaryGetField, CacheDictionarySetField, CreateCache
from psycopg import sql

from tests.bench.ways.places import arrived, asked_for, momento_at

_TTL = CollectionTtl(timedelta(minutes=80))


def main() -> None:
    """Copy a table."""
    places = asked_for()
    with psycopg.connect(places.postgres_url) as connection:
        cursor = connection.execute(sql.SQL("select * from {} order by 1").format(sql.Identifier(places.table)))
        columns = [column.name for column in cursor.description or ()]
        rows = cursor.fetchall()
    with CacheClient(Configurations.Laptop.v1(), momento_at(places.momento), timedelta(minutes=80)) as client:
        created = client.create_cache(places.cache)
        assert not isinstance(created, CreateCache.Error), created
        for number, row in enumerate(rows):
            for column, value in zip(columns, row, strict=True):
                key = f"{places.table}:{number}"
                stored = client.dictionary_set_field(places.cache, key, column, str(value), ttl=_TTL)
                assert isinstance(stored, CacheDictionarySetField.Success), stored
        table = boto3.resource("dynamodb").Table(places.destination)
        for number in range(len(rows)):
            item = {}
            for column in columns:
                found = client.dictionary_get_field(places.cache, f"{places.table}:{number}", column)
                assert isinstance(found, CacheDictionaryGetField.Hit), found
                item[column] = found.value_string
            table.put_item(Item=item)
    arrived(len(rows))


if __name__ == "__main__":
    main()
