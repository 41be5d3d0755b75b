"""What people see of ``verify``: what was compared with what, and what came of it."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from etlcli.cli.blocks import Facts
from etlcli.cli.output import visible
from etlcli.cli.render import age
from etlcli.cli.render_differences import difference_count, differences_text
from etlcli.report import Report
from etlcli.verification.findings import Verification

__all__ = ["verification_text"]


def verification_text(summary: dict[str, Any], found: Verification, report: Report) -> RenderableType:
    """Render what a verification came to.

    Args:
        summary: The summary object.
        found: What it came to.
        report: Where the summary comes from.
    """
    head = Text.assemble(
        (visible(f"verify {report.job}"), "bold"),
        ": ",
        difference_count(found),
        f" in {summary['duration_seconds']:.1f} s",
    )
    lines: list[tuple[str, str | Text]] = [
        ("compared", f"{_compared(found)} with table {report.destination}"),
        ("source", _origin(found, report)),
    ]
    if found.wanted.sample is not None:
        lines.append(("sample", f"{found.wanted.sample} of the rows (--seed {found.wanted.seed} chooses them again)"))
    if found.rows_rejected:
        lines.append(("rejected", f"{_rows(found.rows_rejected)}, of which no item is expected"))
    if found.rows_dropped:
        lines.append(("dropped", f"{_rows(found.rows_dropped)}, of which no item is expected"))
    lines += [(kind, Text(f"{count:,}", style="red" if count else "")) for kind, count in found.counts.items()]
    if report.counters.read_units:
        lines.append(("dynamodb", f"{report.counters.read_units:,.0f} read units"))
    if summary["momento_calls"]:
        calls = f"{summary['momento_calls']:,} calls, {summary['momento_operations']:,} metered operations"
        lines.append(("momento", calls))
    return Group(head, Facts(lines), *differences_text(found, more=" (--show N tells of more)"))


def _compared(found: Verification) -> str:
    part = "" if found.rows_compared == found.rows else f"{found.rows_compared:,} of "
    return part + _rows(found.rows)


def _origin(found: Verification, report: Report) -> str:
    manifest = report.manifest
    if found.against == "source" or manifest is None:
        return f"{found.source}, as it is now"
    since = manifest.watermark.since if manifest.watermark is not None else None
    part = "" if since is None else f", only what is new since {since}"
    return (
        f"{found.source}, as run {manifest.run_id} read it {age(manifest.started_at)} ago{part} (cache {report.cache})"
    )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"
