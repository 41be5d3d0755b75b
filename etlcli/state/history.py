"""The history of a job's runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeAlias

from etlcli.model import Column
from etlcli.state.layout import EXPIRES, NAME_BYTES, TEXT_BYTES, cut, document_of, known_fields, reading

__all__ = [
    "HISTORY_SECONDS",
    "RunRecord",
    "RunState",
    "SchemaColumn",
    "counts_of",
    "dump_run",
    "load_run",
    "schema_of",
]

HISTORY_SECONDS = 400 * 86_400
"""A year's runs can be compared with those of the year before."""

RunState: TypeAlias = Literal["running", "succeeded", "rejected_rows", "failed", "interrupted"]

# PostgreSQL has at most 1,600 columns a table, of names of 63 bytes: what is not made to be long fits.
_SCHEMA_BYTES = 300_000


class SchemaColumn(NamedTuple):
    """A column as the history keeps it, to show what has changed since."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run in a job's history.

    Attributes:
        job: The job's name.
        run_id: The run's name; they sort by their start.
        command: What was asked for, without any secret.
        host: Where it ran.
        status: How it ended. A run that was killed stays ``running``: whether it does, the lease knows.
        started_at: Seconds since 1970, UTC.
        ended_at: The same; None while it runs.
        counts: The summary's figures.
        columns: The source's columns as they were; empty where they are not known, or were too many.
        error: What ended it, where it failed.
        hint: What to do about it.
        notes: What was cut to make it fit.
    """

    job: str
    run_id: str
    command: str
    host: str
    status: RunState
    started_at: float
    ended_at: float | None = None
    counts: Mapping[str, int | float] = field(default_factory=dict)
    columns: Sequence[SchemaColumn] = ()
    error: str | None = None
    hint: str | None = None
    notes: Sequence[str] = ()

    @property
    def is_done(self) -> bool:
        """Whether it ended well: every row is accounted for."""
        return self.status in ("succeeded", "rejected_rows")


def schema_of(columns: Sequence[Column]) -> tuple[SchemaColumn, ...]:
    """Write columns as the history keeps them."""
    return tuple(SchemaColumn(column.name, column.type.name) for column in columns)


def counts_of(summary: Mapping[str, Any]) -> dict[str, int | float]:
    """Take the figures out of a command's summary."""
    return {
        name: value
        for name, value in summary.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def dump_run(record: RunRecord) -> dict[str, Any]:
    """Write a run's history, cut to what an item can hold, with its time to go."""
    notes = list(record.notes)

    def fitting(name: str, limit: int) -> str | None:
        text = getattr(record, name)
        if text is not None and len(text.encode(errors="replace")) > limit:
            notes.append(f"{name} was cut")
        return None if text is None else cut(text, limit)

    short = replace(
        record,
        command=fitting("command", TEXT_BYTES) or "",
        host=fitting("host", NAME_BYTES) or "",
        error=fitting("error", TEXT_BYTES),
        hint=fitting("hint", TEXT_BYTES),
    )
    document = document_of(short)
    del document["job"], document["columns"], document["notes"]
    schema = json.dumps([list(column) for column in record.columns], ensure_ascii=False, separators=(",", ":"))
    size = len(schema.encode(errors="replace"))
    if size > _SCHEMA_BYTES:
        # All or nothing: half a schema would look as if columns had been removed.
        notes.append(f"the schema was left out: {len(record.columns):,} columns, {size:,} bytes")
    elif record.columns:
        document["schema"] = schema
    if notes:
        document["notes"] = notes[:20]
    document[EXPIRES] = int(record.started_at) + HISTORY_SECONDS
    return document


def load_run(document: Mapping[str, Any], job: str, what: str) -> RunRecord:
    """Read a run's history.

    Raises:
        SinkError: As in ``load_lease``.
    """
    with reading(document, what):
        known = known_fields(RunRecord, document)
        columns = tuple(SchemaColumn(*column) for column in json.loads(document.get("schema", "[]")))
        return RunRecord(**known | {"job": job, "columns": columns, "notes": tuple(document.get("notes", ()))})
