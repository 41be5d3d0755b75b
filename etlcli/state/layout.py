"""The state table's key, the names of its entries, and what all of its documents have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

from etlcli.errors import SinkError
from etlcli.model import Key, KeyAttribute

__all__ = [
    "DEFAULT_STATE_TABLE",
    "EXPIRES",
    "FORMAT",
    "JOBS",
    "LEASE",
    "MARK",
    "NAME_BYTES",
    "RUN",
    "STATE_KEY",
    "TEXT_BYTES",
    "WATERMARK",
    "cut",
    "document_of",
    "hash_value",
    "is_newer",
    "known_fields",
    "newer",
    "progress_entry",
    "reading",
    "run_entry",
]

FORMAT = 1
"""The version of every document."""

DEFAULT_STATE_TABLE = "momento-etl-state"
STATE_KEY = Key(KeyAttribute("job", "S"), KeyAttribute("entry", "S"))

LEASE, WATERMARK, MARK = "lease", "watermark", "mark"
RUN = "run#"
JOBS = "#jobs"

EXPIRES = "expires_on"
"""The attribute by which DynamoDB removes old entries: seconds since 1970, where an entry has it."""

# An item has at most 400 KB: what people write and read is cut well below that.
NAME_BYTES = 1_000
TEXT_BYTES = 8_000


def hash_value(job: str) -> str:
    """The hash attribute's value of a job: its name, where that cannot be taken for ``#jobs``."""
    return f"#{job}" if job.startswith("#") else job


def run_entry(run_id: str) -> str:
    """The range attribute's value of a run's history."""
    return f"{RUN}{run_id}"


def progress_entry(run_id: str, page: int | None = None) -> str:
    """The range attribute's value of one page of a run's progress; without a page, what all of them start with."""
    return f"progress#{run_id}#" if page is None else f"progress#{run_id}#{page:06d}"


def cut(text: str, limit: int) -> str:
    """Cut a text to ``limit`` bytes of UTF-8, and say so in its last words."""
    data = text.encode(errors="replace")
    if len(data) <= limit:
        return data.decode()
    note = f"... ({len(data):,} bytes in all)"
    return data[: limit - len(note)].decode(errors="ignore") + note


def is_newer(document: Mapping[str, Any]) -> bool:
    """Whether a document is of a format that this program does not know yet."""
    version = document.get("format")
    return isinstance(version, int) and version > FORMAT


def newer(what: str, version: object) -> SinkError:
    """Make the error for a document of a newer format."""
    return SinkError(
        f"{what} was written by a newer momento-etl (format {version}, this program knows {FORMAT})",
        hint="Use the newer version here too.",
    )


def document_of(record: Any) -> dict[str, Any]:
    """Write a dataclass as a document; what is None is left out."""
    return {"format": FORMAT, **{name: value for name, value in asdict(record).items() if value is not None}}


def known_fields(kind: type[Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """Take out of a document what a dataclass has a field for."""
    return {it.name: document[it.name] for it in fields(kind) if it.name in document}


@contextmanager
def reading(document: Mapping[str, Any], what: str) -> Iterator[None]:
    """Check a document's format, then translate what its reader trips over.

    Raises:
        SinkError: The document is damaged or of a newer version; ``what`` names it.
    """
    if is_newer(document):
        raise newer(what, document["format"])
    try:
        if not isinstance(document.get("format"), int):
            raise TypeError("no format")
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SinkError(
            f"{what} is damaged, or was not written by momento-etl",
            hint="Choose another table for the state ([state] table), or remove this entry.",
        ) from error
