"""Rejected rows as a file of their own beside the run: a JSON object a line, made only where there is one to write."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from etlcli.encoding import hint_of
from etlcli.model import Reject
from etlcli.report import Report

__all__ = ["RejectsFile"]


class RejectsFile:
    """Writes runs' rejects, whole, as they are found: job, rule, message, hint, and the row as text with its types.

    The cache has them too, though not for long. So a disk that is full ends no run; it is a warning.

    Args:
        path: Where to write those of all runs; None for ``JOB-RUN.rejects.jsonl`` in the current folder for each.

    Attributes:
        path: What was written for the run that is listened to; None where nothing was, or where it failed.
    """

    def __init__(self, path: str | None) -> None:
        self._named = Path(path) if path is not None else None
        self._report = Report("")
        self._file: IO[str] | None = None
        self._failed = False
        self.path: Path | None = None

    def listen(self, report: Report) -> None:
        """Turn to a run: its ``hear_rejects`` is set to this, and it is the last one's turn no more."""
        if self._named is None:
            self.close()
        self._report, self._failed, self.path = report, False, None
        report.hear_rejects = self._write

    def close(self) -> None:
        """Close the file; harmless where there is none."""
        if self._file is not None:
            # What could not be written was told when it was tried, line by line.
            with suppress(OSError):
                self._file.close()
            self._file = None

    def _write(self, rejects: Sequence[Reject]) -> None:
        if self._failed:
            return
        self.path = self._named or Path(f"{_as_name(self._report.job)}-{self._report.run_id}.rejects.jsonl")
        try:
            if self._file is None:
                self._file = self.path.open("w", encoding="utf-8")
            for reject in rejects:
                self._file.write(json.dumps(self._line(reject), ensure_ascii=False) + "\n")
            # What is known to be lost must be on the disk even where the run itself is killed.
            self._file.flush()
        except OSError as error:
            self._fail(error)

    def _line(self, reject: Reject) -> dict[str, Any]:
        manifest = self._report.manifest
        types = manifest.types_read if manifest else {}
        return {
            "job": self._report.job,
            "rule": reject.rule,
            "message": reject.message,
            "hint": hint_of(reject.rule),
            "row": reject.row,
            "types": {name: types[name] for name in reject.row if name in types},
        }

    def _fail(self, error: OSError) -> None:
        self._failed = True
        self._report.warnings.append(
            f"rejected rows cannot be written to {self.path}: {error.strerror or error}; they are in the cache"
            f" (momento-etl inspect-cache {self._report.job} --run-id {self._report.run_id} --rejects)"
        )
        self.path = None


def _as_name(job: str) -> str:
    """Turn a job's name into what a file can be called."""
    return re.sub(r"[^\w.-]", "_", job).lstrip(".-") or "job"
