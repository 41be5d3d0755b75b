"""What was measured, as a file, as tables in Markdown, and in the README."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from etlcli import __version__
from tests.bench.stages import STAGES

__all__ = ["MARKS", "fill_readme", "load", "save", "stamped", "tables"]

MARKS = ("<!-- bench: written by python -m tests.bench --readme -->", "<!-- bench: end -->")
"""Between these two lines of the README its tables stand."""

_PICTURE_AT = "tests/bench/speed.svg"
_PICTURE = f"![Rows a second, and where the processor time goes]({_PICTURE_AT})"


def load(path: Path) -> dict[str, Any]:
    """Read what was measured before; nothing where there is no such file."""
    if not path.exists():
        return {}
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


def stamped(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Add to each measurement when and where it was made."""
    where = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
    }
    return {name: {**found, "measured": where} for name, found in measured.items()}


def save(path: Path, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Write what was measured now, beside what was measured before and not now.

    Returns:
        All of it.
    """
    document = load(path) | dict(measured)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return document


def tables(document: Mapping[str, Any]) -> str:
    """Write everything that was measured, as Markdown."""
    parts = {
        "compare": _compare,
        "stages": _stages,
        "memory": _memory,
        "latency": _latency,
        "limits": _limits,
        "scale": _scale,
        "startup": _startup,
        "cold": _cold,
    }
    return "\n\n".join(part(document[name]) for name, part in parts.items() if name in document)


def fill_readme(path: Path, document: Mapping[str, Any]) -> None:
    """Put the tables into the README, and the picture if it was drawn.

    Raises:
        RuntimeError: The README has no place for them.
    """
    before, begin, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not begin or not end:
        raise RuntimeError(f"{path} has no lines {MARKS[0]} and {MARKS[1]}")
    picture = path.parent / _PICTURE_AT
    parts = [begin, tables(document), *([_PICTURE] if picture.exists() else []), end]
    path.write_text(before + "\n\n".join(parts) + after, encoding="utf-8")


def _compare(figures: Mapping[str, Any]) -> str:
    times = figures["times_faster_than"]
    rows = [
        (
            way["label"],
            f"{way['rows_per_second']:,.0f}",
            "" if name not in times else f"{times[name]:,.2f}" if times[name] < 10 else f"{times[name]:,.0f}",
            f"{way['momento_operations_per_1000']:,.0f}" if way["momento_operations_per_1000"] else "none",
            f"{way['cpu_seconds_per_100k']:,.2f}",
        )
        for name, way in figures["ways"].items()
    ]
    head = (
        "way",
        "rows/s",
        "times slower than `momento-etl`",
        "metered Momento operations per 1,000 rows",
        "processor seconds per 100,000 rows",
    )
    own = figures["ways"]["product"]
    where = figures["measured"]
    return (
        f"{own['rows']:,} rows of 11 columns; medians of {figures['rounds']} rounds, start-up left out. Python"
        f" {where['python']} on {where['system']}, {where['cores']} cores for everything.\n\n{_table(head, rows)}"
    )


def _stages(figures: Mapping[str, Any]) -> str:
    found = figures["stages"]
    rows = [
        (
            "of that, sign" if stage == "sign" else stage,
            f"{found[stage]['rows_per_second']:,.0f}",
            f"{found[stage]['cpu_seconds_per_100k']:.2f}",
        )
        for stage in [*(stage for stage in STAGES if stage != "sign"), "sign"]
    ]
    total = sum(found[stage]["cpu_seconds_per_100k"] for stage in STAGES if stage != "sign")
    rows.insert(-1, ("all of it, one after the other", "", f"{total:.2f}"))
    return "Each stage alone:\n\n" + _table(("stage", "rows/s", "processor seconds per 100,000 rows"), rows)


def _memory(figures: Mapping[str, Any]) -> str:
    rows = [
        (f"{int(count):,} rows", f"{found['peak_bytes'] / 1e6:.0f} MB", f"{found['microseconds_per_row']:.1f} µs")
        for count, found in figures["counts"].items()
    ]
    return _table(("table", "most memory", "time a row"), rows)


def _latency(figures: Mapping[str, Any]) -> str:
    rows = [(f"{ms} ms", f"{rate:,.0f}") for ms, rate in figures["rows_per_second"].items()]
    return _table(("a write takes", "rows/s"), rows) + f"\n\nThe last is {figures['share']:.0%} of the first."


def _limits(figures: Mapping[str, Any]) -> str:
    times = figures["times_inevitable"]
    return (
        f"Under the limits of an account on demand, {figures['rows']:,} rows ({figures['operations']:,.0f} metered"
        f" operations) take {figures['seconds']:.1f} s, where the allowance makes {figures['inevitable_seconds']:.1f} s"
        " inevitable" + ("." if times is None else f": {times:.2f} times that.")
    )


def _scale(figures: Mapping[str, Any]) -> str:
    rows = [
        (
            "1 range" if at_once == "1" else f"{at_once} ranges",
            f"{rate:,.0f}",
            f"{figures['share_of_linear'][at_once]:.2f}",
        )
        for at_once, rate in figures["rows_per_second"].items()
    ]
    return (
        "In blocks, as the Lambda functions do it, each worker a process of its own with at most"
        f" {figures['in_flight']} requests in flight to a DynamoDB that takes {figures['latency_ms']} ms for a write;"
        f" {figures['rows']:,} rows in {figures['blocks']} ranges:\n\n"
        + _table(("in flight", "rows/s", "of so many times the first"), rows)
    )


def _startup(figures: Mapping[str, Any]) -> str:
    seconds = figures["seconds"]
    text = (
        f"`momento-etl --help` takes {seconds['help'] * 1000:.0f} ms, `python -c 'import typer, rich'`"
        f" {seconds['imports'] * 1000:.0f} ms: {figures['help_times_imports']:.1f} times that."
    )
    # What was kept before there were handlers has no figures of them.
    if "handlers" not in seconds:
        return text
    return (
        f"{text} Importing the Lambda handlers takes {seconds['handlers'] * 1000:.0f} ms, with all that a first call"
        f" imports {seconds['adapters'] * 1000:.0f} ms, and `python -c 'import momento, psycopg, boto3'`"
        f" {seconds['sdks'] * 1000:.0f} ms: {figures['handlers_times_sdks']:.1f} and"
        f" {figures['adapters_times_sdks']:.1f} times that."
    )


def _cold(figures: Mapping[str, Any]) -> str:
    where = figures["measured"]
    machine = f"{where['system']}, {where['cores']} cores, Python {where['python']}"
    return (
        f"A Lambda function as it is deployed, under AWS's runtime emulator on this machine ({machine}): from a"
        " container's start to the end of its first Plan, of a table of one row,"
        f" {figures['first_call_seconds']:.1f} s; the second Plan takes {figures['second_call_seconds'] * 1000:.0f} ms."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; all columns but the first are numbers."""
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join(["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)])
