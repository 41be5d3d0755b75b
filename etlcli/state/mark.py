"""What the items carry that a job writes in ``replace`` mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etlcli.state.layout import document_of, known_fields, reading

__all__ = ["Mark", "dump_mark", "load_mark"]


@dataclass(frozen=True, slots=True)
class Mark:
    """What the items that a job wrote in ``replace`` mode carry.

    The job's name alone would not do: another state table, or another account's, can have a job of the same name that
    writes to the same destination, and each would remove the other's items.

    Attributes:
        id: Chosen by chance when first needed, and kept.
        made_at: When: seconds since 1970, UTC.
    """

    id: str
    made_at: float

    def value(self, run_id: str) -> str:
        """The mark of one run's items."""
        return f"{self.id}/{run_id}"

    def run_id_of(self, value: str) -> str | None:
        """The run that left this mark; None where it is not this job's mark."""
        mine, slash, run_id = value.partition("/")
        return run_id if slash and mine == self.id else None


def dump_mark(mark: Mark) -> dict[str, Any]:
    """Write a mark."""
    return document_of(mark)


def load_mark(document: Mapping[str, Any], what: str) -> Mark:
    """Read a mark.

    Raises:
        SinkError: As in ``load_lease``.
    """
    with reading(document, what):
        return Mark(**known_fields(Mark, document))
