"""How far a job's incremental runs have come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etlcli.state.layout import FORMAT, document_of, known_fields, reading

__all__ = ["Watermark", "WatermarkEntry", "dump_watermark", "load_watermark"]


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far a job's incremental runs have come.

    Attributes:
        column: The column that is followed.
        type: Its PostgreSQL type, as the catalog names it.
        value: The value, in PostgreSQL's own text.
        run_id: The run that set it.
        set_at: When: seconds since 1970, UTC.
        source: What the run read, in words: host, database, table or query; empty where that is not known.
        destination: The table that it wrote to; empty likewise.
        fingerprint: Hex digest of all that decided what its items look like; empty likewise.
    """

    column: str
    type: str
    value: str
    run_id: str
    set_at: float
    source: str = ""
    destination: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class WatermarkEntry:
    """A watermark and how often it has been moved.

    Attributes:
        version: Counts up with each move and each reset, and never starts anew, so that a run that read it before a
            reset cannot move it after; 0 where there never was one.
        watermark: None where there is none.
    """

    version: int = 0
    watermark: Watermark | None = None


def dump_watermark(entry: WatermarkEntry) -> dict[str, Any]:
    """Write a watermark."""
    return {**(document_of(entry.watermark) if entry.watermark else {"format": FORMAT}), "version": entry.version}


def load_watermark(document: Mapping[str, Any], what: str) -> WatermarkEntry:
    """Read a watermark.

    Raises:
        SinkError: As in ``load_lease``.
    """
    with reading(document, what):
        known = known_fields(Watermark, document)
        return WatermarkEntry(document["version"], Watermark(**known) if known else None)
