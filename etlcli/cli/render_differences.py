"""What people see of differences between items and their rows: each where it can be seen, at any width."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile

from rich.console import RenderableType
from rich.text import Text

from etlcli.cli.blocks import item_values, plain_table
from etlcli.cli.output import visible
from etlcli.comparison import AttributeDifference, AttributeValue
from etlcli.verification.findings import Difference, DifferenceKind, Verification

__all__ = ["difference_count", "differences_text"]

# Of two long values, as much is shown as there is room for beside each other, from shortly before where they part.
_VALUE_WIDTH = 32
_LEAD = 8

# Where a whole column differs, it does so in many items: what else one of them has is told by --output json.
_ATTRIBUTES_SHOWN = 5

_TITLES: Mapping[DifferenceKind, str] = {
    "missing": "Missing: rows that have no item",
    "different": "Different: items that are not what their rows make",
    "surplus": "Surplus: items that no row has",
}


def difference_count(found: Verification) -> Text:
    """Say how many differences there are."""
    if not found.total:
        return Text("no difference", style="green bold")
    return Text("1 difference" if found.total == 1 else f"{found.total:,} differences", style="red bold")


def differences_text(found: Verification | None, *, more: str = "") -> list[RenderableType]:
    """Render the differences that were kept, kind by kind, and how many more there are; nothing where there is none.

    Args:
        found: What was found; None where nobody looked.
        more: How to see more of them.
    """
    parts: list[RenderableType] = []
    if found is None:
        return parts
    for kind, count in found.counts.items():
        shown = [difference for difference in found.differences if difference.kind == kind]
        if shown:
            table = _different(shown) if kind == "different" else _keys(shown)
            parts += [Text(), Text(_TITLES[kind], style="bold"), table]
        if count > len(shown):
            parts.append(Text(f"and {count - len(shown):,} more {kind}{more}", style="dim italic"))
    return parts


def _keys(differences: Sequence[Difference]) -> RenderableType:
    table = plain_table(None)
    for name in differences[0].key:
        table.add_column(visible(name), overflow="fold")
    for difference in differences:
        table.add_row(*(_key_value(value) for value in difference.key.values()))
    return table


def _different(differences: Sequence[Difference]) -> RenderableType:
    table = plain_table(None)
    table.add_column(visible(", ".join(differences[0].key)), overflow="fold")
    for name in ("attribute", "in the row", "in the table"):
        table.add_column(name, overflow="fold")
    for difference in differences:
        key = ", ".join(_key_value(value) for value in difference.key.values())
        for attribute in difference.attributes[:_ATTRIBUTES_SHOWN]:
            expected, found = _side_by_side(attribute)
            table.add_row(key, visible(_path(attribute)), expected, found)
            key = ""  # once an item
        if (left := len(difference.attributes) - _ATTRIBUTES_SHOWN) > 0:
            table.add_row("", Text(f"and {left:,} more attributes", style="dim italic"), "", "")
    return table


def _path(difference: AttributeDifference) -> str:
    """Write where a value is, as programs do: ``cast[0].name``."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in difference.path]
    return difference.attribute + "".join(steps)


def _side_by_side(difference: AttributeDifference) -> tuple[Text, Text]:
    """Write two values so that one sees where they differ."""
    expected, found = difference.expected, difference.found
    kinds = {next(iter(value)) for value in (expected, found) if value is not None}
    texts = [None if value is None else _written(value, with_kind=len(kinds) > 1) for value in (expected, found)]
    first, second = texts
    start = 0
    if first is not None and second is not None and max(len(first), len(second)) > _VALUE_WIDTH:
        same = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))))
        start = max(0, same - _LEAD)
    left, right = (Text("absent", style="dim") if text is None else Text(_cut(text, start)) for text in texts)
    return left, right


def _written(value: AttributeValue, *, with_kind: bool) -> str:
    ((kind, content),) = value.items()
    match kind:
        case "S":
            text = _quoted(content)  # a blank at its end is a difference, too
        case "SS" | "NS" | "BS":
            text = "{" + ", ".join(map(_quoted if kind == "SS" else str, sorted(content))) + "}"
        case _:
            text = item_values(kind, content)
    return f"{kind} {text}" if with_kind else text


def _quoted(text: str) -> str:
    return visible(json.dumps(text, ensure_ascii=False))


def _cut(text: str, start: int) -> str:
    before = "…" if start else ""
    room = _VALUE_WIDTH - len(before)
    rest = text[start:]
    return before + (rest if len(rest) <= room else f"{rest[: room - 1]}…")


def _key_value(value: AttributeValue) -> str:
    ((kind, content),) = value.items()
    return item_values(kind, content)
