"""Several jobs as one: the worst exit code, one object, and hints that can be pasted together."""

from __future__ import annotations

import io
import itertools
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from etlcli.cli.rejects_file import RejectsFile
from etlcli.cli.render import job_line, jobs_text
from etlcli.errors import EtlError, ExitCode, SourceError, UsageError
from etlcli.model import Reject
from etlcli.progress import Counters
from etlcli.report import Report
from etlcli.several import Ended, combine, failures_of, warnings_of, worst
from etlcli.summary import exit_code, summarize


def ended(job: str, error: BaseException | None = None, signal_number: int | None = None, **figures: Any) -> Ended:
    report = Report(job, cache=figures.pop("cache", "c"), destination=job, run_id=figures.pop("run_id", "r"))
    report.warnings += figures.pop("warnings", [])
    report.mode = "replace" if "items_deleted" in figures else "upsert"
    report.table_created = figures.pop("table_created", False)
    report.counters = Counters(**figures)
    summary = summarize("run", report, 1.5, error=error, signal_number=signal_number)
    return Ended(report, summary, exit_code(summary, error, signal_number))


def test_the_worst_of_any_two() -> None:
    order = (130, 143, 1, 2, 5, 4, 3, 0)
    for (place, one), (other_place, other) in itertools.product(enumerate(order), repeat=2):
        codes = [ExitCode(one), ExitCode(other)]
        assert worst(codes) == order[min(place, other_place)]
        assert worst([ExitCode.DONE, *codes]) == worst(codes)
    assert worst([]) is ExitCode.DONE
    # None is forgotten: a code that is added later has to find its place.
    assert {worst([code]) for code in ExitCode} == set(ExitCode)


def test_figures_are_added_up_and_every_field_is_there() -> None:
    jobs = [
        ended("aaa", rows_extracted=5, rows_loaded=3, rows_rejected=2, chunks_stored=1, momento_operations=9),
        ended("bbb", rows_extracted=10, rows_loaded=9, rows_dropped=1, chunks_stored=4, throttles=2, retries=1),
    ]
    jobs[0].summary["throttle_reasons"] = {"UnprocessedItems": {"aaa": 1, "bbb": 2}}
    jobs[1].summary["throttle_reasons"] = {"A": {"x": 3}}
    summary, code = combine("run", jobs, 3.25)
    of_one = {"mode", "schema_changes", "watermark", "rejects", "resumed", "verification"}
    assert summary.keys() >= jobs[0].summary.keys() - of_one
    assert (summary["job"], summary["run_id"], summary["cache"], summary["destination"]) == (None, None, "c", None)
    assert [summary[f"rows_{what}"] for what in ("extracted", "loaded", "rejected", "dropped")] == [15, 12, 2, 1]
    assert (summary["chunks"], summary["momento_operations"], summary["throttles"], summary["retries"]) == (5, 9, 2, 1)
    assert (summary["status"], summary["error"], code) == ("rejected_rows", None, ExitCode.REJECTED_ROWS)
    assert summary["throttle_reasons"] == {"UnprocessedItems": {"aaa": 1, "bbb": 2}, "A": {"x": 3}}
    assert summary["duration_seconds"] == 3.25
    assert summary["jobs"] == [job.summary for job in jobs]
    assert summary["not_begun"] == []
    assert json.loads(json.dumps(summary)) == summary


def test_what_is_true_of_some_only() -> None:
    jobs = [ended("aaa", cache="x"), ended("bbb", cache="y", items_deleted=2, table_created=True), ended("ccc")]
    summary, code = combine("run", jobs, 1.0)
    assert (summary["cache"], summary["items_deleted"], summary["destination_created"]) == (None, 2, True)
    assert (summary["status"], code) == ("succeeded", ExitCode.DONE)
    assert combine("run", [], 0.0)[0]["items_deleted"] is None


def test_failed_jobs_are_named() -> None:
    jobs = [
        ended("aaa"),
        ended("bbb", SourceError("no right", hint="Grant it.")),
        ended("ccc", UsageError("no key", hint="Choose one.")),
        ended("ddd", rows_rejected=1),
    ]
    summary, code = combine("run", jobs, 1.0)
    assert (summary["status"], code) == ("failed", ExitCode.FAILED)
    assert summary["error"] == {"message": "2 of 4 jobs failed: bbb, ccc", "hint": "Grant it.\nChoose one."}
    summary, code = combine("run", jobs[2:], 1.0)
    assert (summary["status"], code) == ("failed", ExitCode.USAGE)
    cut, code = combine("run", jobs[:2], 1.0, not_begun=["ccc", "ddd"])
    assert cut["error"]["message"] == "1 of 4 jobs failed: bbb; not begun, since they would meet the same: ccc, ddd"
    assert cut["not_begun"] == ["ccc", "ddd"]


def test_very_many_names_are_not_listed() -> None:
    jobs = [ended(f"job{number}", SourceError("no", hint=None)) for number in range(200)]
    message = combine("run", jobs, 1.0)[0]["error"]["message"]
    assert message.startswith("200 of 200 jobs failed: job0, job1, ")
    assert message.endswith("job9 and 190 more")


@pytest.mark.parametrize(("number", "code", "name"), [(2, 130, "SIGINT"), (15, 143, "SIGTERM")])
def test_an_interruption_says_most(number: int, code: int, name: str) -> None:
    jobs = [ended("aaa", SourceError("no", hint="h")), ended("bbb", signal_number=number)]
    summary, exit_with = combine("run", jobs, 1.0, not_begun=["ccc"], signal_number=number)
    assert (summary["status"], exit_with) == ("interrupted", code)
    assert summary["error"]["message"] == f"interrupted by {name}; 1 of 3 jobs failed: aaa; not begun: ccc"
    assert "Run the same command again" in summary["error"]["hint"]
    # Before there was any job.
    summary, exit_with = combine("run", [], 1.0, signal_number=number)
    assert (summary["status"], exit_with, summary["error"]["message"]) == (
        "interrupted",
        code,
        f"interrupted by {name}",
    )


def test_what_kept_all_of_them_from_beginning() -> None:
    summary, code = combine("run", [], 1.0, error=UsageError("no such schema", hint="h"))
    assert (summary["status"], code, summary["jobs"]) == ("failed", ExitCode.USAGE, [])
    assert summary["error"] == {"message": "no such schema", "hint": "h"}
    summary, code = combine("run", [], 1.0, error=ValueError("secret"))
    assert code is ExitCode.FAILED
    assert "secret" not in json.dumps(summary)


def test_hints_that_are_configs_become_one_config() -> None:
    def proposed(job: str, head: str = "Put this into the config:") -> UsageError:
        return UsageError("three columns", hint=f'{head}\n[tables."{job}"]\nkey = ["a", "sk"]')

    jobs = [
        ended("s.a", proposed("s.a")),
        ended("s.b", SourceError("no right", hint="Grant it.")),
        ended("s.c", proposed("s.c")),
        ended("s.d", SourceError("no right either", hint="Grant it.")),
        ended("s.e", EtlError("nothing to say")),
        ended("s.f"),
    ]
    first, second, third = failures_of(job.summary for job in jobs)
    assert first.errors == (("s.a", "three columns"), ("s.c", "three columns"))
    assert first.hint is not None
    head, _, config = first.hint.partition("\n")
    assert head == "Put this into the config:"
    assert tomllib.loads(config) == {"tables": {name: {"key": ["a", "sk"]} for name in ("s.a", "s.c")}}
    assert second == ((("s.b", "no right"), ("s.d", "no right either")), "Grant it.")
    assert third == ((("s.e", "nothing to say"),), None)


def test_warnings_say_whose_they_are() -> None:
    summary = ended("s.t", warnings=["s.t has no primary key", "s.table is large", "look"]).summary
    assert warnings_of(summary) == ["s.t has no primary key", "s.t: s.table is large", "s.t: look"]


# ---- On the screen --------------------------------------------------------------------------------------------------


def drawn(content: RenderableType, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    console.print(content, crop=False)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_line_a_job() -> None:
    rejected = ended("s.t", rows_extracted=1500, rows_loaded=1499, rows_rejected=1).summary
    assert str(job_line(rejected, "[3/60]")) == (
        "[3/60] s.t: done, with rejected rows in 1.5 s, 1,499 items, 1 row rejected"
    )
    failed = ended("s.\x1b[31mt", UsageError("first\nsecond", hint="h"), run_id=None).summary
    assert str(job_line(failed, "[4/60]")) == "[4/60] s.\\x1b[31mt: failed in 1.5 s: first"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_table_of_sixty_jobs(width: int) -> None:
    jobs = [ended(f"sales.a_rather_long_name_of_a_table_{number}", rows_loaded=10**number) for number in range(9)]
    jobs += [ended(f"sales.t{number}", rows_loaded=1) for number in range(49)]
    jobs.append(ended("bad", SourceError("no", hint=None)))
    summary, _ = combine("run", jobs, 75.0, not_begun=["later"])
    lines = drawn(jobs_text(summary), width)
    assert all(cell_len(line) <= width for line in lines), lines
    text = "\n".join(lines)
    assert " ".join(text.split()).startswith("run of 60 jobs: failed in 75.0 s, 111,111,160 items job ")
    if width >= 80:
        assert all(f"t{number} " in text for number in range(49))
        assert len(lines) == 60 + 5
        assert any(line.split() == ["later", "not", "begun"] for line in lines)
    assert "deleted" not in text
    gone, _ = combine("run", [ended("aaa", items_deleted=3), ended("bbb")], 1.0)
    assert any(line.split() == ["aaa", "done", "0", "0", "3", "1.5", "s"] for line in drawn(jobs_text(gone)))
    assert any(line.split() == ["bbb", "done", "0", "0", "-", "1.5", "s"] for line in drawn(jobs_text(gone)))


# ---- Rejected rows --------------------------------------------------------------------------------------------------


def rejecting(path: str | None, *names: str) -> list[Path | None]:
    """Reject a row of each job; answer with where they went."""
    file = RejectsFile(path)
    paths: list[Path | None] = []
    for name in names:
        report = Report(name, run_id="r")
        file.listen(report)
        assert report.hear_rejects is not None
        assert file.path is None
        report.hear_rejects([Reject("key-null", "why", {"id": name})])
        report.hear_rejects([Reject("key-null", "again", {"id": name})])
        paths.append(file.path)
    file.close()
    return paths


def rows(path: Path) -> list[tuple[str, str]]:
    return [(line["job"], line["message"]) for line in map(json.loads, path.read_text().splitlines())]


def test_each_jobs_rejects_go_to_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = rejecting(None, "aaa", "b/b", "aaa")
    assert [str(path) for path in paths] == ["aaa-r.rejects.jsonl", "b_b-r.rejects.jsonl", "aaa-r.rejects.jsonl"]
    assert rows(tmp_path / "b_b-r.rejects.jsonl") == [("b/b", "why"), ("b/b", "again")]


def test_a_file_that_is_named_holds_those_of_all_jobs(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text("of an earlier command\n")
    assert rejecting(str(path), "aaa", "bbb") == [path, path]
    assert rows(path) == [(job, message) for job in ("aaa", "bbb") for message in ("why", "again")]


def test_a_job_without_rejects_names_no_file(tmp_path: Path) -> None:
    file = RejectsFile(str(tmp_path / "all.jsonl"))
    paths: list[Path | None] = []
    for name in ("aaa", "bbb"):
        report = Report(name, run_id="r")
        file.listen(report)
        if name == "aaa":
            assert report.hear_rejects is not None
            report.hear_rejects([Reject("key-null", "why", {"id": "1"})])
        paths.append(file.path)
    file.close()
    assert paths == [tmp_path / "all.jsonl", None]


def test_a_full_disk_is_a_failure_of_each_job_whose_rows_the_named_file_lacks() -> None:
    file = RejectsFile("/dev/full")
    file.check()
    for name in ("aaa", "bbb"):
        report = Report(name, run_id="r")
        file.listen(report)
        assert report.hear_rejects is not None
        for _ in range(2):
            report.hear_rejects([Reject("key-null", "why", {"id": "1"})])
        assert file.path is None
        assert isinstance(file.failure, EtlError)
        assert f"inspect-cache {name} --run-id r --rejects" in str(file.failure.hint)
        assert file.outcome(None) is file.failure
        # What a job failed with by itself goes first, and this is told beside it.
        assert report.warnings == []
        failed = EtlError("failed")
        assert file.outcome(failed) is failed
        assert file.outcome(None, interrupted=True) is None
        assert report.warnings == [file.failure.message] * 2
    file.listen(Report("ccc", run_id="r"))
    assert file.outcome(None) is None
    file.close()


def test_a_full_disk_is_told_once_for_each_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    file = RejectsFile(None)
    for name in ("aaa", "bbb"):
        (tmp_path / f"{name}-r.rejects.jsonl").symlink_to("/dev/full")
        report = Report(name, run_id="r")
        file.listen(report)
        assert report.hear_rejects is not None
        for _ in range(2):
            report.hear_rejects([Reject("key-null", "why", {"id": "1"})])
        (warning,) = report.warnings
        assert f"inspect-cache {name} --run-id r --rejects" in warning
        assert file.path is None
        assert file.outcome(None) is None
    file.close()
