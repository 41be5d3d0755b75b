"""Rejected rows as a file of their own beside the run: a JSON object a line, made only where there is one to write."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from etlcli.cli import options
from etlcli.encoding import hint_of
from etlcli.errors import EtlError, UsageError
from etlcli.model import Reject
from etlcli.report import Report

__all__ = ["RejectsFile"]


class RejectsFile:
    """Writes runs' rejects, whole, as they are found: job, rule, message, hint, and the row as text with its types.

    The cache has them too, though not for long. So a disk that is full ends no run. Where nobody asked for the file it
    is a warning; who named one relies on it, and what was to go there and did not is a failure once the run is over.

    Args:
        path: Where to write those of all runs; None for ``JOB-RUN.rejects.jsonl`` in the current folder for each.

    Attributes:
        path: What was written for the run that is listened to; None where nothing was, or where it failed.
        failure: That the file which was named does not have all of this run's rejects; None where it has.
    """

    def __init__(self, path: str | None) -> None:
        self._named = Path(path) if path is not None else None
        self._report = Report("")
        self._file: IO[str] | None = None
        self._failed = False
        self.path: Path | None = None
        self.failure: EtlError | None = None

    def check(self) -> None:
        """Look whether the file that was named can be made, before anything moves.

        Raises:
            UsageError: It surely cannot.
        """
        path = self._named
        if path is None:
            return
        why = None
        if path.is_dir():
            why = "it is a folder"
        elif not path.parent.is_dir():
            why = f"there is no folder {path.parent}"
        elif not os.access(path if path.exists() else path.parent, os.W_OK):
            why = "it may not be written"
        if why is not None:
            raise UsageError(
                f"--rejects-file {path}: {why}", hint="Name a file in a folder that is there and may be written."
            )

    def listen(self, report: Report) -> None:
        """Turn to a run: its ``hear_rejects`` is set to this, and it is the last one's turn no more."""
        if self._named is None:
            self.close()
        self._report, self._failed, self.path, self.failure = report, False, None, None
        report.hear_rejects = self._write

    def outcome(self, error: BaseException | None, *, interrupted: bool = False) -> BaseException | None:
        """Tell what the run that is listened to failed with: its own error, else that the file lacks some of its rows.

        Args:
            error: Its own error.
            interrupted: Whether a signal has ended it, which is what is told of it.
        """
        if self.failure is None:
            return error
        if error is None and not interrupted:
            return self.failure
        self._report.warnings.append(self.failure.message)
        return error

    def close(self) -> None:
        """Close the file; harmless where there is none."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                # Most of it was told when it was tried, line by line; some file systems tell only now.
                if not self._failed:
                    self._fail(error)

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
        what = f"rejected rows cannot be written to {self.path}: {error.strerror or error}"
        cache = f" --cache {options.quoted(self._report.cache)}" if self._report.cache else ""
        there = (
            f"momento-etl inspect-cache {options.quoted(self._report.job)}{cache} --run-id {self._report.run_id}"
            " --rejects --output json"
        )
        if self._named is None:
            self._report.warnings.append(f"{what}; they are in the cache ({there})")
        else:
            self.failure = EtlError(
                what, hint=f"All other rows were moved. The cache has the rejected ones until they expire: {there}"
            )
        self.path = None


def _as_name(job: str) -> str:
    """Turn a job's name into what a file can be called."""
    return re.sub(r"[^\w.-]", "_", job).lstrip(".-") or "job"
