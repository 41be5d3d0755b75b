"""Manifest, ledger pages and rejects as the JSON documents that travel in the cache.

Every document says its format. A newer one is refused, never guessed at.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from etlcli.errors import CacheError
from etlcli.model import (
    ChunkRecord,
    Column,
    Key,
    KeyAttribute,
    Manifest,
    PgType,
    Reject,
    SnapshotRecord,
    Totals,
)

__all__ = [
    "FORMAT",
    "dump_ledger_page",
    "dump_manifest",
    "dump_pointer",
    "dump_rejects",
    "dump_runs",
    "load_ledger_page",
    "load_manifest",
    "load_pointer",
    "load_rejects",
    "load_runs",
]

FORMAT = 1
"""The version of every document below."""


def dump_manifest(manifest: Manifest) -> bytes:
    """Write a manifest."""
    return orjson.dumps({"format": FORMAT, **asdict(manifest)})


def load_manifest(document: bytes, what: str) -> Manifest:
    """Read a manifest.

    Raises:
        CacheError: It is damaged or of a newer version; ``what`` names it.
    """
    data = _open(document, what)
    try:
        key = data.pop("key")
        return Manifest(
            columns=tuple(_column(column) for column in data.pop("columns")),
            key=Key(KeyAttribute(**key["hash"]), KeyAttribute(**key["range"]) if key["range"] else None),
            source_key=tuple(data.pop("source_key")),
            snapshots=tuple(SnapshotRecord(**record) for record in data.pop("snapshots")),
            totals=Totals(**data.pop("totals")),
            **data,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(what) from error


def dump_ledger_page(records: list[ChunkRecord]) -> bytes:
    """Write a page of the ledger: a row a chunk, since every byte of it is metered."""
    return orjson.dumps(
        {"format": FORMAT, "fields": ChunkRecord._fields, "chunks": [tuple(record) for record in records]}
    )


def load_ledger_page(document: bytes, what: str) -> list[ChunkRecord]:
    """Read a page of the ledger.

    Raises:
        CacheError: It is damaged or of a newer version.
    """
    data = _open(document, what)
    try:
        if data["fields"] != list(ChunkRecord._fields):
            raise _damaged(what)
        records = [ChunkRecord(*row) for row in data["chunks"]]
        return [r._replace(first_key=tuple(r.first_key), last_key=tuple(r.last_key)) for r in records]
    except (KeyError, TypeError) as error:
        raise _damaged(what) from error


def dump_rejects(rejects: list[Reject]) -> bytes:
    """Write a page of rejects."""
    return orjson.dumps({"format": FORMAT, "rejects": [asdict(reject) for reject in rejects]})


def load_rejects(document: bytes, what: str) -> list[Reject]:
    """Read a page of rejects.

    Raises:
        CacheError: It is damaged or of a newer version.
    """
    try:
        return [Reject(**reject) for reject in _open(document, what)["rejects"]]
    except (KeyError, TypeError) as error:
        raise _damaged(what) from error


def dump_pointer(run_id: str) -> bytes:
    """Write the pointer to the newest complete extraction."""
    return orjson.dumps({"format": FORMAT, "run_id": run_id})


def load_pointer(document: bytes, what: str) -> str:
    """Read the pointer: a run_id.

    Raises:
        CacheError: It is damaged or of a newer version.
    """
    run_id = _open(document, what).get("run_id")
    if not isinstance(run_id, str):
        raise _damaged(what)
    return run_id


def dump_runs(run_ids: list[str]) -> bytes:
    """Write the list of a job's newest runs."""
    return orjson.dumps({"format": FORMAT, "runs": run_ids})


def load_runs(document: bytes, what: str) -> list[str]:
    """Read the list of a job's newest runs.

    Raises:
        CacheError: It is damaged or of a newer version.
    """
    runs = _open(document, what).get("runs")
    if not isinstance(runs, list):
        raise _damaged(what)
    return runs


def _column(data: dict[str, Any]) -> Column:
    return Column(data["name"], _type(data["type"]))


def _type(data: dict[str, Any]) -> PgType:
    element = data.pop("element")
    fields = data.pop("fields")
    return PgType(
        element=_type(element) if element else None, fields=tuple(_column(member) for member in fields), **data
    )


def _open(document: bytes, what: str) -> dict[str, Any]:
    try:
        data = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise _damaged(what) from error
    version = data.pop("format", None) if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise _damaged(what)
    if version > FORMAT:
        raise CacheError(
            f"{what} was written by a newer momento-etl (format {version}, this program knows {FORMAT})",
            hint="Use the newer version here too, or extract again with this one.",
        )
    assert isinstance(data, dict)
    return data


def _damaged(what: str) -> CacheError:
    return CacheError(
        f"{what} is damaged, or was not written by momento-etl", hint="Run momento-etl run (or extract) again."
    )
