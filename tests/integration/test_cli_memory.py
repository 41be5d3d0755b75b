"""Memory does not grow with the table: ``tests/bench/memory.py`` in small."""

from __future__ import annotations

from tests.bench.memory import LIMIT_BYTES, make_table, measure
from tests.conftest import Schema, Stack
from tests.integration.responder import Responder


def test_memory_does_not_grow_with_the_table(stack: Stack, schema: Schema, unique: str) -> None:
    few, many = 30_000, 90_000
    make_table(schema.url, "few", few)
    make_table(schema.url, "many", many)
    with Responder() as responder:
        smaller = measure(schema.url, stack.momento, responder.url, "few", f"{unique}-few")
        larger = measure(schema.url, stack.momento, responder.url, "many", f"{unique}-many")
        assert responder.items == smaller.rows + larger.rows == few + many
    assert larger.peak_bytes < LIMIT_BYTES, larger
    # Held in memory, the other 60,000 rows would be some 40 MB.
    assert larger.peak_bytes - smaller.peak_bytes < 25_000_000, (smaller, larger)
