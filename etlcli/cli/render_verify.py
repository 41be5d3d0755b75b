"""What people see of a verification: what was compared with what, and each difference where it can be seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from etlcli.cli.blocks import Facts, plain_table
from etlcli.cli.output import visible
from etlcli.cli.render import age, item_values
from etlcli.comparison import AttributeDifference, AttributeValue
from etlcli.report import Report
from etlcli.verification import Difference, DifferenceKind, Verification

__all__ = ["verification_text"]

# Of two long values, as much is shown as there is room for beside each other, from shortly before where they part.
_VALUE_WIDTH = 32
_LEAD = 8

_TITLES: Mapping[DifferenceKind, str] = {
    "missing": "Missing: rows that have no item",
    "different": "Different: items that are not what their rows make",
    "surplus": "Surplus: items that no row has",
}


def verification_text(summary: dict[str, Any], found: Verification, report: Report) -> RenderableType:
    """Render what a verification came to.

    Args:
        summary: The summary object.
        found: What it came to.
        report: Where the summary comes from.
    """
    outcome = (_count(found.count, "difference"), "red bold") if found.count else ("no difference", "green bold")
    head = Text.assemble(
        (visible(f"verify {report.job}"), "bold"), ": ", outcome, f" in {summary['duration_seconds']:.1f} s"
    )
    lines: list[tuple[str, str | Text]] = [
        ("compared", f"{_compared(found)} with table {report.destination}"),
        ("source", _origin(found, report)),
    ]
    if found.wanted.sample is not None:
        lines.append(("sample", f"{found.wanted.sample} of the rows (--seed {found.wanted.seed} chooses them again)"))
    if found.rows_rejected:
        lines.append(("rejected", f"{_count(found.rows_rejected, 'row')}, of which no item is expected"))
    lines += [("missing", _figure(found.missing)), ("different", _figure(found.different))]
    if found.surplus is not None:
        lines.append(("surplus", _figure(found.surplus)))
    if report.counters.read_units:
        lines.append(("dynamodb", f"{report.counters.read_units:,.0f} read units"))
    if summary["momento_calls"]:
        calls = f"{summary['momento_calls']:,} calls, {summary['momento_operations']:,} metered operations"
        lines.append(("momento", calls))
    parts: list[RenderableType] = [head, Facts(lines)]
    counts: dict[DifferenceKind, int] = {
        "missing": found.missing,
        "different": found.different,
        "surplus": found.surplus or 0,
    }
    for kind, count in counts.items():
        shown = [difference for difference in found.differences if difference.kind == kind]
        if shown:
            table = _different(shown) if kind == "different" else _keys(shown)
            parts += [Text(), Text(_TITLES[kind], style="bold"), table]
        if count > len(shown):
            parts.append(Text(f"and {count - len(shown):,} more {kind} (--show N tells of more)", style="dim italic"))
    return Group(*parts)


def _compared(found: Verification) -> str:
    part = "" if found.rows_compared == found.rows else f"{found.rows_compared:,} of "
    return part + _count(found.rows, "row")


def _origin(found: Verification, report: Report) -> str:
    manifest = report.manifest
    if found.against == "source" or manifest is None:
        return f"{found.source}, as it is now"
    since = manifest.watermark.since if manifest.watermark is not None else None
    part = "" if since is None else f", only what is new since {since}"
    return (
        f"{found.source}, as run {manifest.run_id} read it {age(manifest.started_at)} ago{part} (cache {report.cache})"
    )


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
        for attribute in difference.attributes:
            expected, found = _side_by_side(attribute)
            table.add_row(key, visible(_path(attribute)), expected, found)
            key = ""  # once an item
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


def _figure(count: int) -> Text:
    return Text(f"{count:,}", style="red" if count else "")


def _count(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"
