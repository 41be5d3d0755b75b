"""The summary object, and the exit code that goes with it."""

from __future__ import annotations

import json
import signal

import pytest

from etlcli.errors import (
    CacheError,
    ConfigError,
    EtlError,
    ExitCode,
    SinkError,
    SourceError,
    Throttled,
    Unavailable,
    UsageError,
)
from etlcli.model import Reject
from etlcli.progress import Counters
from etlcli.report import Report
from etlcli.summary import exit_code, summarize

DESIGN = [
    "command",
    "status",
    "job",
    "run_id",
    "cache",
    "destination",
    "rows_extracted",
    "rows_loaded",
    "rows_rejected",
    "rows_dropped",
    "chunks",
    "bytes_cached",
    "momento_calls",
    "momento_operations",
    "throttles",
    "duration_seconds",
    "error",
]


def report(**figures: int) -> Report:
    return Report("films", cache="c", destination="d", run_id="r", counters=Counters(**figures))  # type: ignore[arg-type]


def test_every_field_of_the_design_is_there_from_the_start() -> None:
    summary = summarize("run", Report("films"), 0.0)
    assert set(DESIGN) <= summary.keys()
    assert summary["error"] is None
    assert summary["run_id"] is None
    assert json.loads(json.dumps(summary)) == summary


def test_figures_come_from_the_counters() -> None:
    made = report(
        rows_extracted=10,
        rows_loaded=6,
        rows_rejected=3,
        rows_dropped=1,
        chunks_stored=2,
        bytes_cached=99,
        bytes_encoded=300,
        momento_calls=7,
        momento_operations=8,
        throttles=4,
        retries=5,
        snapshots=1,
    )
    made.rejects.append(Reject("key-null", "why", {"id": "1"}))
    made.warnings.append("look")
    summary = summarize("run", made, 1.23456)
    assert {name: summary[name] for name in DESIGN} == {
        "command": "run",
        "status": "rejected_rows",
        "job": "films",
        "run_id": "r",
        "cache": "c",
        "destination": "d",
        "rows_extracted": 10,
        "rows_loaded": 6,
        "rows_rejected": 3,
        "rows_dropped": 1,
        "chunks": 2,
        "bytes_cached": 99,
        "momento_calls": 7,
        "momento_operations": 8,
        "throttles": 4,
        "duration_seconds": 1.235,
        "error": None,
    }
    (rejected,) = summary["rejects"]
    assert "--where" in rejected.pop("hint")
    assert rejected == {"rule": "key-null", "message": "why", "row": {"id": "1"}}
    assert summary["warnings"] == ["look"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("m", hint="h"), 2),
        (ConfigError("m", hint="h"), 2),
        (SourceError("m", hint="h"), 1),
        (CacheError("m", hint="h"), 1),
        (SinkError("m", hint="h"), 1),
        (Throttled("m", hint="h"), 1),
        (Unavailable("m", hint="h"), 1),
        (EtlError("m", hint="h"), 1),
    ],
)
def test_errors_of_ours_keep_their_words(error: EtlError, code: int) -> None:
    summary = summarize("run", report(rows_rejected=1), 0.0, error=error)
    assert (summary["status"], summary["error"]) == ("failed", {"message": "m", "hint": "h"})
    assert exit_code(summary, error, None) == code


def test_errors_that_are_none_of_ours_do_not_say_what_they_hold() -> None:
    error = ValueError("postgresql://user:password@host")
    summary = summarize("run", report(), 0.0, error=error)
    assert "password" not in json.dumps(summary)
    assert "ValueError" in summary["error"]["message"]
    assert summary["error"]["hint"]
    assert exit_code(summary, error, None) is ExitCode.FAILED


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_says_more_than_what_broke_after_it(number: signal.Signals, code: int) -> None:
    summary = summarize("run", report(rows_rejected=1), 0.0, signal_number=number)
    assert summary["status"] == "interrupted"
    assert summary["error"]["message"] == f"interrupted by {number.name}"
    assert exit_code(summary, None, number) == code


def test_rejected_rows_have_an_exit_code_of_their_own() -> None:
    assert exit_code(summarize("run", report(rows_rejected=1), 0.0), None, None) is ExitCode.REJECTED_ROWS
    assert exit_code(summarize("run", report(rows_rejected=0), 0.0), None, None) is ExitCode.DONE
