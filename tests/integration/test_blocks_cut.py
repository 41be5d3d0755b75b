"""The blocks that a sample of a table's pages gives: none is so much larger than the others that all wait for it."""

from __future__ import annotations

import asyncio

import pytest

from etlcli.blocks.planning import Spread, _edges, _sampled_share
from etlcli.model import Job, Selection
from etlcli.plan import make_plan
from tests.conftest import Schema
from tests.integration.source_helpers import source

ROWS = 60_000
BLOCKS = 8


@pytest.mark.parametrize("order", ["n", "md5(n::text)"])
def test_blocks_of_a_sampled_table_are_about_as_large_each(schema: Schema, order: str) -> None:
    """Whether the rows lie on PostgreSQL's pages in the order of the key, or in any other."""
    schema.execute(
        "create table films (id int primary key, title text);"
        f" insert into films select n, repeat('x', 200) from generate_series(1, {ROWS}) n order by {order};"
        " analyze films"
    )

    async def edges() -> list[tuple[str, ...] | None]:
        async with source(schema.url).snapshot() as snapshot:
            selection = Selection("films")
            plan = make_plan(Job("films", selection, "c", "films"), await snapshot.describe(selection), "here")
            share = _sampled_share(plan, BLOCKS)
            assert share is not None, "it is cut by a sample"
            assert share < 50
            return await _edges(plan, Spread(ranges=BLOCKS), snapshot, None)

    found = [int(edge[0]) for edge in asyncio.run(edges()) if edge is not None]
    assert len(found) == BLOCKS - 1
    sizes = [high - low for low, high in zip([0, *found], [*found, ROWS], strict=True)]
    assert max(sizes) < 1.5 * ROWS / BLOCKS, sizes
    assert min(sizes) > 0.5 * ROWS / BLOCKS, sizes
