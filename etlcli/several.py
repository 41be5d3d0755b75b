"""What several jobs of one command come to: one exit code, one summary object. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from etlcli.errors import ExitCode
from etlcli.report import Report
from etlcli.summary import exit_code, summarize

__all__ = ["Ended", "Failure", "combine", "failures_of", "warnings_of", "worst"]

# From the one that says most to the one that says least.
_BADNESS = (
    ExitCode.SIGINT,
    ExitCode.SIGTERM,
    ExitCode.FAILED,
    ExitCode.USAGE,
    ExitCode.LEASE_HELD,
    ExitCode.DIFFERENCE,
    ExitCode.REJECTED_ROWS,
    ExitCode.DONE,
)

# Figures that add up.
_SUMS = (
    "rows_extracted",
    "rows_loaded",
    "rows_rejected",
    "rows_dropped",
    "chunks",
    "bytes_encoded",
    "bytes_cached",
    "momento_calls",
    "momento_operations",
    "throttles",
    "retries",
    "snapshots",
)
_MOST_NAMES = 10


class Ended(NamedTuple):
    """One of the jobs, over.

    Attributes:
        report: What is known of its run.
        summary: Its summary, as it would be alone.
        code: Its exit code, as it would be alone.
    """

    report: Report
    summary: dict[str, Any]
    code: ExitCode


class Failure(NamedTuple):
    """What went wrong alike, with one hint for all of it.

    Attributes:
        errors: Each job that failed so, with its message.
        hint: What to do about it.
    """

    errors: tuple[tuple[str, str], ...]
    hint: str | None


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Choose the exit code of the whole: an interruption, then failures, then what is less than one."""
    return min(codes, key=_BADNESS.index, default=ExitCode.DONE)


def combine(
    command: str,
    ended: Sequence[Ended],
    seconds: float,
    *,
    not_begun: Sequence[str] = (),
    error: BaseException | None = None,
    signal_number: int | None = None,
) -> tuple[dict[str, Any], ExitCode]:
    """Build the summary of a command of several jobs, and the exit code that goes with it.

    Args:
        command: The command's name.
        ended: The jobs that were begun, in order.
        seconds: How long all of it took.
        not_begun: The jobs that were to follow.
        error: What kept all of them from beginning.
        signal_number: The signal that ended it, where one did.
    """
    summaries = [each.summary for each in ended]
    own = summarize(command, Report(""), seconds, error=error, signal_number=signal_number)
    codes = [each.code for each in ended]
    if error is not None or signal_number is not None:
        codes.append(exit_code(own, error, signal_number))
    code = worst(codes)
    deleted = [summary["items_deleted"] for summary in summaries if summary["items_deleted"] is not None]
    return {
        "command": command,
        "status": _status(code),
        "job": None,
        "run_id": None,
        "resumed": any(summary["resumed"] for summary in summaries),
        "cache": _common(summaries, "cache"),
        "destination": _common(summaries, "destination"),
        "destination_created": any(summary["destination_created"] for summary in summaries),
        **{name: sum(summary[name] for summary in summaries) for name in _SUMS},
        "throttle_reasons": _reasons(summaries),
        "items_deleted": sum(deleted) if deleted else None,
        "duration_seconds": round(seconds, 3),
        "warnings": [warning for summary in summaries for warning in warnings_of(summary)],
        "jobs": summaries,
        "not_begun": list(not_begun),
        "error": own["error"] if error is not None else _error(own["error"], summaries, not_begun),
    }, code


def warnings_of(summary: dict[str, Any]) -> list[str]:
    """List a job's warnings, with its name where they do not say it themselves."""
    job = summary["job"]
    return [warning if warning.startswith(f"{job} ") else f"{job}: {warning}" for warning in summary["warnings"]]


def failures_of(summaries: Iterable[dict[str, Any]]) -> list[Failure]:
    """Gather the errors of jobs that failed by what is to be done about them.

    Hints that start with the same line and go on with what differs (a piece of config, ready to be pasted) become one,
    with that line once.
    """
    found: dict[str | None, tuple[list[tuple[str, str]], list[str]]] = {}
    for summary in summaries:
        if summary["status"] != "failed":
            continue
        hint: str | None = summary["error"]["hint"]
        head, _, rest = (hint or "").partition("\n")
        errors, rests = found.setdefault(head or None, ([], []))
        errors.append((summary["job"], summary["error"]["message"]))
        if rest and rest not in rests:
            rests.append(rest)
    return [
        Failure(tuple(errors), None if head is None else "\n".join([head, *rests]))
        for head, (errors, rests) in found.items()
    ]


def _error(
    interrupted: dict[str, str | None] | None, summaries: Sequence[dict[str, Any]], not_begun: Sequence[str]
) -> dict[str, str | None] | None:
    """Name what failed, and what was not begun."""
    failed = [summary["job"] for summary in summaries if summary["status"] == "failed"]
    parts = []
    if interrupted is not None:
        parts.append(str(interrupted["message"]))
    if failed:
        parts.append(f"{len(failed)} of {_jobs(len(summaries) + len(not_begun))} failed: {_names(failed)}")
    if not parts:
        return None
    if not_begun:
        why = "" if interrupted is not None else ", since they would meet the same"
        parts.append(f"not begun{why}: {_names(not_begun)}")
    hints = [failure.hint for failure in failures_of(summaries) if failure.hint]
    if interrupted is not None:
        hints.insert(0, str(interrupted["hint"]))
    return {"message": "; ".join(parts), "hint": "\n".join(hints) or None}


def _status(code: ExitCode) -> str:
    if code in (ExitCode.SIGINT, ExitCode.SIGTERM):
        return "interrupted"
    if code is ExitCode.DONE:
        return "succeeded"
    return "rejected_rows" if code is ExitCode.REJECTED_ROWS else "failed"


def _reasons(summaries: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    added: dict[str, dict[str, int]] = {}
    for summary in summaries:
        for code, resources in summary["throttle_reasons"].items():
            counts = added.setdefault(code, {})
            for resource, count in resources.items():
                counts[resource] = counts.get(resource, 0) + count
    return added


def _common(summaries: Sequence[dict[str, Any]], name: str) -> str | None:
    values = {summary[name] for summary in summaries}
    return values.pop() if len(values) == 1 else None


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
