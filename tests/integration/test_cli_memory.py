"""Memory does not grow with the table: ``tests/bench/memory.py`` in small."""

from __future__ import annotations

from tests.bench.memory import LIMIT_BYTES
from tests.bench.running import PRODUCT, prepare, run
from tests.bench.servers import serving
from tests.conftest import Schema, Stack


def test_memory_does_not_grow_with_the_table(stack: Stack, schema: Schema) -> None:
    few, many = 30_000, 90_000
    with serving(schema.url, stack.dynamodb_url) as servers:
        prepare(servers, (few, many))
        smaller = run(servers, PRODUCT, few, "memory-few").ended
        larger = run(servers, PRODUCT, many, "memory-many").ended
    # A peak is what happened to come together at one moment, and here other tests compete for the processors.
    assert larger.peak_bytes < 1.1 * LIMIT_BYTES, larger
    # Held in memory, the other 60,000 rows would be some 40 MB.
    assert larger.peak_bytes - smaller.peak_bytes < 25_000_000, (smaller, larger)
