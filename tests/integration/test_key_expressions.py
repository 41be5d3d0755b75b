"""Key attributes in SQL against those that the encoder makes: rows share one exactly where they share the other."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import orjson
import pytest

from etlcli.encoding import Recipe, ShapeOptions
from etlcli.model import Job, Selection
from etlcli.plan import make_plan, row_encoder
from etlcli.progress import Counters
from etlcli.source.postgres import PostgresSource
from tests.conftest import Schema

TABLE = """
create table t (
    id int, small smallint, code text, padded char(4), price numeric, seen timestamptz, day date, live bool, tag uuid
);
insert into t values
    (1, 7, '7', 'a', 1.0, '2024-01-31 23:59:59+00', '2024-01-31', true, repeat('a', 32)::uuid),
    (1, -7, '07', 'a ', 1.00, '2024-02-01 00:59:59+01', '2024-01-01', true, repeat('a', 32)::uuid),
    (11, 7, '7.0', 'b', 2, '2023-01-31 23:59:59+00', '2023-12-31', false, repeat('b', 32)::uuid),
    (2, 700000 % 32767, ' 7e0 ', '', 'NaN', 'infinity', 'infinity', null, null),
    (3, null, 'seven', null, null, null, null, false, repeat('c', 32)::uuid),
    (4, 12345, '', 'aaaa', -1.5, '0044-03-15 BC', '0044-03-15 BC', true, repeat('d', 32)::uuid),
    (-1, 0, '1e999999999', 'b', 0.00, '12024-01-31 00:00:00+00', '12024-01-31', true, repeat('b', 32)::uuid);
"""

SHAPES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "a column": (("id",), {}),
    "a renamed column": (("key",), {"rename": {"id": "key"}}),
    "a numeric": (("price",), {}),
    "a padded column": (("padded",), {}),
    "two columns": (("id", "code"), {}),
    "text as a number": (("code",), {"cast": {"code": "N"}}),
    "a number as text": (("price",), {"cast": {"price": "S"}}),
    "a hash": (("padded",), {"mask": {"padded": "hash"}}),
    "what is redacted": (("code",), {"mask": {"code": "redact"}}),
    "a constant": (("kind", "id"), {"attributes": {"kind": "film"}}),
    "a template": (("pk",), {"attributes": {"pk": "FILM#{id}"}}),
    "columns side by side": (("pk",), {"attributes": {"pk": "{id}{code}"}}),
    "zeros in front": (("pk",), {"attributes": {"pk": "{small:03d}"}}),
    "months": (("pk",), {"attributes": {"pk": "{day:%Y-%m}"}}),
    "hours": (("pk",), {"attributes": {"pk": "{seen:%Y%m%d %H%%}"}}),
    "a time": (("pk",), {"attributes": {"pk": "{seen}"}}),
    "flags": (("pk",), {"attributes": {"pk": "{live}/{tag}"}}),
    "text with its spaces": (("pk",), {"attributes": {"pk": "{padded}|"}}),
}


@pytest.mark.parametrize(("key", "wanted"), SHAPES.values(), ids=SHAPES)
def test_rows_share_a_key_in_sql_where_their_items_do(
    schema: Schema, key: tuple[str, ...], wanted: dict[str, Any]
) -> None:
    schema.execute(TABLE)
    recipe = Recipe(shape=ShapeOptions(**wanted))
    job = Job("t", Selection(table="t"), "ttt", "ttt", key=key)

    async def main() -> tuple[int, list[bytes]]:
        async with PostgresSource(schema.url, Counters()).snapshot() as snapshot:
            plan = make_plan(job, await snapshot.describe(job.selection), "here", recipe)
            found = await snapshot.duplicates(plan.reading, plan.key_specs)
            items: list[bytes] = []
            async for lines in snapshot.read(plan.reading):
                items += row_encoder(plan, recipe).encode(lines)[0]
            return len(found), items

    shared, items = asyncio.run(main())
    keys = Counter(
        tuple(
            Decimal(value["N"]) if "N" in value else str(value) for value in (orjson.loads(item)[name] for name in key)
        )
        for item in items
    )
    assert shared == sum(count > 1 for count in keys.values())
