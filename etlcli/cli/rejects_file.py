"""Rejected rows as a file of their own beside the run: a JSON object a line, made only where there is one to write."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from etlcli.model import Reject
from etlcli.report import Report

__all__ = ["RejectsFile"]


class RejectsFile:
    """Writes a run's rejects, whole, as they are found: rule, message, the row as text per column, and its types.

    The cache has them too, though not for long. So a disk that is full ends no run; it is a warning.

    Args:
        report: The run; its ``hear_rejects`` is set to this.
        path: Where to write; None for ``JOB-RUN.rejects.jsonl`` in the current folder.

    Attributes:
        path: What was written; None where nothing was, or where it failed.
    """

    def __init__(self, report: Report, path: str | None) -> None:
        self._report = report
        self._named = Path(path) if path is not None else None
        self._file: IO[str] | None = None
        self._failed = False
        self.path: Path | None = None
        report.hear_rejects = self._write

    def close(self) -> None:
        """Close the file; harmless where there is none."""
        if self._file is not None:
            # What could not be written was told when it was tried, line by line.
            with suppress(OSError):
                self._file.close()

    def _write(self, rejects: Sequence[Reject]) -> None:
        if self._failed:
            return
        try:
            if self._file is None:
                self.path = self._named or Path(f"{_as_name(self._report.job)}-{self._report.run_id}.rejects.jsonl")
                self._file = self.path.open("w", encoding="utf-8")
            for reject in rejects:
                self._file.write(json.dumps(self._line(reject), ensure_ascii=False) + "\n")
            # What is known to be lost must be on the disk even where the run itself is killed.
            self._file.flush()
        except OSError as error:
            self._fail(error)

    def _line(self, reject: Reject) -> dict[str, Any]:
        manifest = self._report.manifest
        types = {column.name: column.type.name for column in manifest.columns} if manifest else {}
        return {
            "rule": reject.rule,
            "message": reject.message,
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
