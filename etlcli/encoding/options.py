"""How rows become items, where there is a choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["DEFAULT_OPTIONS", "EncodingOptions"]


@dataclass(frozen=True, slots=True)
class EncodingOptions:
    """The choices that decide what items look like; all of them belong in a run's fingerprint.

    Attributes:
        on_unrepresentable: What becomes of a value that its attribute type cannot hold: the row is rejected, the value
            becomes a string with PostgreSQL's own text, or the run fails. A key or an item that breaks DynamoDB's rules
            is rejected in any case: no string would mend it.
        json_as: ``native`` (maps, lists, strings, numbers, ...) or ``string`` (PostgreSQL's text).
        null_as: A NULL column is absent, or an attribute of type NULL; the same with the fields of composite types.
        timestamps_as: A timestamp with time zone is ISO 8601 in UTC, or the exact seconds since 1970 as a number.
        as_text: Columns that become strings with PostgreSQL's own text, whatever their type; keeps a numeric's scale.
    """

    on_unrepresentable: Literal["reject", "string", "fail"] = "reject"
    json_as: Literal["native", "string"] = "native"
    null_as: Literal["absent", "null"] = "absent"
    timestamps_as: Literal["iso", "epoch"] = "iso"
    as_text: frozenset[str] = frozenset()


DEFAULT_OPTIONS: Final = EncodingOptions()
