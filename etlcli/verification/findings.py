"""What a verification is to do, what it found, and the error that says so. Pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from etlcli.comparison import AttributeDifference, AttributeValue
from etlcli.errors import ExitCode, TerminalError
from etlcli.model import Share

__all__ = [
    "Against",
    "Difference",
    "DifferenceFound",
    "DifferenceKind",
    "Place",
    "Verification",
    "Wanted",
    "facts_of",
    "refuse_differences",
]

Against: TypeAlias = Literal["cache", "source"]
"""Where the rows came from that the items were compared with."""

DifferenceKind: TypeAlias = Literal["missing", "different", "surplus"]
"""What can be wrong with an item, in the order in which it is told."""

Place: TypeAlias = tuple[int, ...]
"""Where a difference is among the rows: of two, the smaller one comes first."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a table is to be verified.

    Attributes:
        sample: How many of the rows are compared; None for all.
        seed: Decides which: the same seed takes the same ones.
        extra: Whether items are looked for that no row has.
        from_source: Whether rows are read from the source although the cache may have them.
        run_id: The run whose cached rows are wanted; None for the current one, or the source where there is none.
        shown: How many differences of each kind are kept.
    """

    sample: Share | None = None
    seed: int = 0
    extra: bool = False
    from_source: bool = False
    run_id: str | None = None
    shown: int = 20


class Difference(NamedTuple):
    """An item that is not as it should be.

    Attributes:
        kind: What is wrong.
        key: Its destination key, as DynamoDB JSON.
        attributes: What differs, where it is different.
    """

    kind: DifferenceKind
    key: Mapping[str, AttributeValue]
    attributes: tuple[AttributeDifference, ...] = ()


@dataclass(slots=True)
class Verification:
    """What a verification came to.

    Attributes:
        against: Where the rows came from.
        wanted: How it was to be done.
        source: What was read, now or by the run, in words.
        rows: Rows that should have an item.
        rows_compared: Those of them whose items were looked at.
        rows_rejected: Rows that DynamoDB cannot hold, of which no item is expected.
        rows_dropped: Rows that a transform leaves out.
        counts: How many items are wrong, by what is wrong; of what was not looked for there is no count.
    """

    against: Against
    wanted: Wanted
    source: str = ""
    rows: int = 0
    rows_compared: int = 0
    rows_rejected: int = 0
    rows_dropped: int = 0
    counts: dict[DifferenceKind, int] = field(default_factory=lambda: {"missing": 0, "different": 0})
    _first: dict[DifferenceKind, list[tuple[Place, Difference]]] = field(default_factory=dict)

    def note(self, difference: Difference, place: Place) -> None:
        """Count a difference, and keep it if it is among the first of its kind, in whatever order they are found."""
        self.counts[difference.kind] = self.counts.get(difference.kind, 0) + 1
        first = self._first.setdefault(difference.kind, [])
        insort(first, (place, difference), key=lambda it: it[0])
        del first[self.wanted.shown :]

    @property
    def total(self) -> int:
        """How many items are not as they should be."""
        return sum(self.counts.values())

    @property
    def differences(self) -> list[Difference]:
        """The first differences of each kind, in the order of the rows."""
        return [difference for kind in get_args(DifferenceKind) for _, difference in self._first.get(kind, ())]


class DifferenceFound(TerminalError):  # noqa: N818  it says what it is
    """The destination is not what the rows make."""

    exit_code = ExitCode.DIFFERENCE


def refuse_differences(found: Verification, table: str, hint: str) -> None:
    """Raise the error that tells of differences, where there are any.

    Args:
        found: What was found.
        table: The destination table's name.
        hint: What to do about them.

    Raises:
        DifferenceFound: There are.
    """
    if not found.total:
        return
    told = [
        f"{count:,} {'item is' if count == 1 else 'items are'} {kind}" for kind, count in found.counts.items() if count
    ]
    rows = "source's" if found.against == "source" else "cached"
    raise DifferenceFound(f"table {table} is not what the {rows} rows make: {', '.join(told)}", hint=hint)


def facts_of(found: Verification, read_units: float) -> dict[str, Any]:
    """Write what a verification came to as the object that JSON output has."""
    wanted = found.wanted
    return {
        "against": found.against,
        "source": found.source,
        "rows": found.rows,
        "rows_compared": found.rows_compared,
        "rows_rejected": found.rows_rejected,
        "rows_dropped": found.rows_dropped,
        "sample": None if wanted.sample is None else str(wanted.sample),
        "seed": None if wanted.sample is None else wanted.seed,
        **{kind: found.counts.get(kind) for kind in get_args(DifferenceKind)},
        "read_units": read_units,
        "differences": [
            {
                "kind": difference.kind,
                "key": difference.key,
                "attributes": [attribute._asdict() for attribute in difference.attributes],
            }
            for difference in found.differences
        ],
    }
