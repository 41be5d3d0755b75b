"""What stands within summaries: plans, verifications, runs in the cache and in the history."""

from __future__ import annotations

from etlcli.doctor import Check
from etlcli.json_schema.shapes import (
    ANY,
    BOOLEAN,
    INTEGER,
    ITEM,
    NUMBER,
    STRING,
    Shape,
    Shapes,
    array_of,
    closed,
    described,
    map_of,
    one_of,
    or_null,
)
from etlcli.model import ChunkRecord, Manifest
from etlcli.state import RunRecord

__all__ = ["CHECK", "KEY", "PART", "PLAN", "PLANS", "REJECT", "VERIFICATION", "cached_run", "past_run"]

_SECONDS = described(NUMBER, "Seconds.")

KEY = array_of(closed({"name": STRING, "type": one_of("S", "N", "B")}))

REJECT = closed(
    {
        "rule": STRING,
        "message": STRING,
        "hint": or_null(STRING),
        "row": map_of(STRING),
        "key": or_null(STRING),
        "chunk": INTEGER,
    },
    # inspect-cache --rejects alone tells these.
    optional=("key", "chunk"),
)

CHECK = described(
    closed(
        {
            "endpoint": one_of("config", "local", "source", "cache", "destination", "state"),
            "name": STRING,
            "status": one_of("ok", "warning", "failed"),
            "message": STRING,
            "hint": or_null(STRING),
            "facts": map_of({"type": ["string", "number", "boolean", "null"]}),
        }
    ),
    (Check.__doc__ or "").partition("\n")[0],
)

PART = closed(
    {
        "part": one_of("postgres", "momento", "dynamodb"),
        "state": one_of("running", "stopped", "not answering"),
        "port": or_null(INTEGER),
        "pid": or_null(INTEGER),
        "since": or_null(described(STRING, "When it was started: ISO 8601.")),
        "log": STRING,
        "problem": or_null(STRING),
    }
)

VERIFICATION = closed(
    {
        "against": one_of("cache", "source"),
        "source": STRING,
        "rows": INTEGER,
        "rows_compared": INTEGER,
        "rows_rejected": INTEGER,
        "rows_dropped": INTEGER,
        "sample": or_null(STRING),
        "seed": or_null(INTEGER),
        "missing": or_null(INTEGER),
        "different": or_null(INTEGER),
        "surplus": or_null(described(INTEGER, "Null where nobody looked for it.")),
        "read_units": NUMBER,
        "differences": array_of(
            closed(
                {
                    "kind": one_of("missing", "different", "surplus"),
                    "key": ITEM,
                    "attributes": array_of(
                        closed({"attribute": STRING, "path": array_of(ANY), "expected": ANY, "found": ANY})
                    ),
                }
            )
        ),
    }
)

_ROWS = closed(dict.fromkeys(("extracted", "loaded", "rejected", "dropped"), INTEGER))
_COSTS = dict.fromkeys(("total", "dynamodb_write", "dynamodb_read", "momento_transfer"), NUMBER)

_REMOTE = described(
    closed(
        {
            **dict.fromkeys(("rows", "ranges", "blocks"), INTEGER),
            "concurrency": described(INTEGER, "Blocks that are worked on at once."),
            "concurrency_asked": INTEGER,
            "concurrency_enough": described(INTEGER, "So many keep the service busy that the run waits for."),
            "rounds_per_block": described(INTEGER, "A call of FromDbToCache and one of FromCacheToDynamoDb."),
            "calls_per_block": INTEGER,
            "chunks": INTEGER,
            "call_cached_bytes": INTEGER,
            "momento_operations": INTEGER,
            "write_units": INTEGER,
            "lambda": closed({"calls": INTEGER, "memory_mb": INTEGER, "gb_seconds": NUMBER}),
            "state_transitions": INTEGER,
            "time": closed(
                {
                    "seconds": _SECONDS,
                    "bounded_by": one_of("functions", "momento", "dynamodb"),
                    "block_seconds": _SECONDS,
                    "functions_seconds": _SECONDS,
                    "momento_seconds": _SECONDS,
                    "momento_limit": INTEGER,
                    "write_seconds": _SECONDS,
                    "write_limit": INTEGER,
                }
            ),
            "cost": closed(
                {
                    "currency": {"const": "USD"},
                    **_COSTS,
                    **dict.fromkeys(("lambda_compute", "lambda_requests", "state_transitions"), NUMBER),
                    "prices": map_of(STRING),
                }
            ),
            "problems": array_of(STRING),
        }
    ),
    "What a run by the Lambda functions would do; null without --remote.",
)

PLAN = closed(
    {
        "exact": described(BOOLEAN, "Whether every row was read; else all figures are estimates."),
        "rows_read": INTEGER,
        "source": STRING,
        "columns": INTEGER,
        "key": KEY,
        "source_key": array_of(STRING),
        "mode": one_of("upsert", "replace"),
        "layout": one_of("packed", "rows"),
        "duplicates_checked": BOOLEAN,
        "rows": _ROWS,
        "rejects": array_of(
            closed(
                {
                    "rule": STRING,
                    "rows": INTEGER,
                    "hint": or_null(STRING),
                    "examples": array_of(closed({"message": STRING, "row": map_of(STRING)})),
                }
            )
        ),
        "cache": closed(
            dict.fromkeys(
                (
                    "chunks",
                    "chunks_freed",
                    "bytes_encoded",
                    "bytes_stored",
                    "calls",
                    "operations",
                    "max_cached_bytes",
                ),
                INTEGER,
            )
            | {"extract_fits": BOOLEAN}
        ),
        "destination": closed(
            {
                "exists": or_null(BOOLEAN),
                "items": or_null(INTEGER),
                "writes": INTEGER,
                "write_units": INTEGER,
                "read_units": NUMBER,
                "max_deletes": or_null(STRING),
            }
        ),
        "time": closed(
            {
                "seconds": _SECONDS,
                "bounded_by": one_of("momento", "dynamodb"),
                "momento_seconds": _SECONDS,
                "momento_limit": INTEGER,
                "write_seconds": _SECONDS,
                "write_limit": INTEGER,
            }
        ),
        "cost": closed({"currency": {"const": "USD"}, **_COSTS, "prices": map_of(STRING)}),
        "remote": or_null(_REMOTE),
        "would_fail": or_null(closed({"message": STRING, "hint": or_null(STRING)})),
    }
)

PLANS = closed(
    {
        "exact": BOOLEAN,
        "rows_read": INTEGER,
        "rows": _ROWS,
        "cache": closed(dict.fromkeys(("chunks", "bytes_encoded", "bytes_stored", "calls", "operations"), INTEGER)),
        "destination": closed({"writes": INTEGER, "write_units": INTEGER, "read_units": NUMBER}),
        "time": closed({"seconds": _SECONDS}),
        "cost": closed({"currency": {"const": "USD"}, **_COSTS}),
    }
)


def cached_run(shapes: Shapes, *, chunks: bool) -> Shape:
    """A run that the cache holds: its manifest, and where they are asked for its chunks."""
    properties = shapes.properties(Manifest) | {"current": BOOLEAN, "seconds_left": or_null(_SECONDS)}
    if chunks:
        properties["chunks"] = array_of(closed(shapes.properties(ChunkRecord)))
    return closed(properties)


def past_run(shapes: Shapes) -> Shape:
    """A run in the history; the columns only where a single one is asked for."""
    properties = shapes.properties(RunRecord)
    del properties["hint"]
    properties |= {
        "error": or_null(closed({"message": STRING, "hint": or_null(STRING)})),
        "duration_seconds": or_null(_SECONDS),
        "columns": INTEGER,
        "schema": array_of(closed({"name": STRING, "type": STRING})),
    }
    return closed(properties, optional=("schema",))
