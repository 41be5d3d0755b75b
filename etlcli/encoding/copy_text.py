r"""PostgreSQL's COPY text format: fields separated by tabs, ``\N`` for NULL, backslash escapes.

PostgreSQL writes ``\b \f \n \r \t \v \\`` and no other escape (octal and hexadecimal forms are only read, never
written): https://www.postgresql.org/docs/current/sql-copy.html, "Text Format".
"""

from __future__ import annotations

from typing import Final

__all__ = ["NULL", "decode_fields", "unescape"]

NULL: Final = rb"\N"

_ESCAPES: Final = ((rb"\n", b"\n"), (rb"\t", b"\t"), (rb"\r", b"\r"), (rb"\b", b"\b"), (rb"\f", b"\f"), (rb"\v", b"\v"))


def _unescape_controls(part: bytes) -> bytes:
    for escape, byte in _ESCAPES:
        part = part.replace(escape, byte)
    return part


def unescape(cell: bytes) -> bytes:
    """Turn a field that is not NULL into PostgreSQL's own text."""
    if b"\\" not in cell:
        return cell
    # Split at doubled backslashes, no backslash that is left stands for itself. Reading from the left, the first two
    # that touch are always one escape, since no other escape ends in a backslash.
    parts = cell.split(rb"\\")
    return b"\\".join([_unescape_controls(part) if b"\\" in part else part for part in parts])


def decode_fields(line: bytes) -> list[bytes | None]:
    """Split a line, without its newline, into the texts of its fields; None is NULL."""
    fields = line.split(b"\t")
    if b"\\" not in line:
        return list(fields)
    return [None if field == NULL else unescape(field) for field in fields]
