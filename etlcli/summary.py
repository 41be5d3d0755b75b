"""The summary object that every command ends with: one shape on success and on failure."""

from __future__ import annotations

import signal
from typing import Any, Literal, TypeAlias

from etlcli.encoding import hint_of
from etlcli.errors import EtlError, ExitCode
from etlcli.report import Report
from etlcli.throttling import throttle_warnings
from etlcli.verification.findings import facts_of

__all__ = ["Status", "exit_code", "summarize"]

Status: TypeAlias = Literal["succeeded", "rejected_rows", "failed", "interrupted"]


def summarize(
    command: str,
    report: Report,
    seconds: float,
    *,
    error: BaseException | None = None,
    signal_number: int | None = None,
) -> dict[str, Any]:
    """Build the summary of a command that is over.

    Args:
        command: The command's name.
        report: What is known of the run.
        seconds: How long it took.
        error: What ended it, where it failed.
        signal_number: The signal that ended it, where one did.
    """
    counters = report.counters
    return {
        "command": command,
        "status": _status(report, error, interrupted=signal_number is not None),
        "job": report.job,
        "run_id": report.run_id,
        "resumed": report.resumed,
        "cache": report.cache,
        "destination": report.destination,
        "destination_created": report.table_created,
        "rows_extracted": counters.rows_extracted,
        "rows_loaded": counters.rows_loaded,
        "rows_rejected": counters.rows_rejected,
        "rows_dropped": counters.rows_dropped,
        "mode": report.mode,
        "items_deleted": counters.items_deleted if report.mode == "replace" else None,
        "schema_changes": [
            {"column": change.column, "before": change.before, "now": change.now} for change in report.schema_changes
        ],
        "watermark": _watermark(report),
        "chunks": counters.chunks_stored,
        "bytes_encoded": counters.bytes_encoded,
        "bytes_cached": counters.bytes_cached,
        "momento_calls": counters.momento_calls,
        "momento_operations": counters.momento_operations,
        "throttles": counters.throttles,
        "throttle_reasons": {code: dict(resources) for code, resources in counters.throttle_reasons.items()},
        "retries": counters.retries,
        "snapshots": counters.snapshots,
        "duration_seconds": round(seconds, 3),
        "verification": (None if report.verification is None else facts_of(report.verification, counters.read_units)),
        "warnings": [*report.warnings, *throttle_warnings(counters)],
        "rejects": [
            {"rule": reject.rule, "message": reject.message, "hint": hint_of(reject.rule), "row": reject.row}
            for reject in report.rejects
        ],
        "error": _error(error, signal_number),
    }


def exit_code(summary: dict[str, Any], error: BaseException | None, signal_number: int | None) -> ExitCode:
    """Tell the exit code that goes with a summary."""
    if signal_number is not None:
        return ExitCode(128 + signal_number)
    if error is not None:
        return error.exit_code if isinstance(error, EtlError) else ExitCode.FAILED
    return ExitCode.REJECTED_ROWS if summary["rows_rejected"] else ExitCode.DONE


def _status(report: Report, error: BaseException | None, *, interrupted: bool) -> Status:
    if interrupted:
        return "interrupted"
    if error is not None:
        return "failed"
    return "rejected_rows" if report.counters.rows_rejected else "succeeded"


def _watermark(report: Report) -> dict[str, str | int | None] | None:
    moved = report.watermark
    if moved is None:
        return None
    return {
        "column": moved.column,
        "since": moved.since,
        "overlap": moved.overlap,
        "value": moved.value,
        "moved": report.watermark_moved,
    }


def _error(error: BaseException | None, signal_number: int | None) -> dict[str, str | None] | None:
    if signal_number is not None:
        return {
            "message": f"interrupted by {signal.Signals(signal_number).name}",
            "hint": "What was written so far stays. Run the same command again for the rest.",
        }
    if error is None:
        return None
    if isinstance(error, EtlError):
        return {"message": error.message, "hint": error.hint}
    return {
        "message": f"momento-etl itself failed: {type(error).__name__}",
        "hint": "This is a defect: run again with --verbose, and report what it prints.",
    }
