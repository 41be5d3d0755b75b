"""What people read: figures in words, tables at any width, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from etlcli.cli.blocks import item_values
from etlcli.cli.help import ClickError, usage_error
from etlcli.cli.options import written
from etlcli.cli.output import Output, OutputFormat, visible
from etlcli.cli.render import (
    age,
    history_table,
    item_table,
    past_run_text,
    rejects_table,
    size,
    summary_text,
)
from etlcli.errors import UsageError
from etlcli.hidden import hide, hide_within
from etlcli.inspection import RunView
from etlcli.model import ChunkRecord, Column, Key, KeyAttribute, Manifest, PgType, Reject, Totals
from etlcli.progress import Counters
from etlcli.report import Report
from etlcli.state import RunRecord
from etlcli.summary import summarize

RUN_ID = "20260814T101502123Z-7f3a"
COLUMNS = (
    Column("film_id", PgType("integer", "int4")),
    Column("title", PgType("text", "text")),
    Column("gross", PgType("bigint", "int8")),
)
KEY = Key(KeyAttribute("film_id", "N"))
ITEM = {"film_id": {"N": "42"}, "title": {"S": "The Abyss"}}


def drawn(content: RenderableType, width: int = 80, *, terminal: bool = True) -> list[str]:
    """What stands on a screen of that width."""
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=terminal,
        color_system=None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(content, crop=False)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def manifest(**changes: Any) -> Manifest:
    return replace(
        Manifest(
            job="films",
            run_id=RUN_ID,
            status="complete",
            source="db:5432/shop films",
            fingerprint="f",
            columns=COLUMNS,
            key=KEY,
            source_key=("film_id",),
            layout="packed",
            ttl_seconds=4800,
            started_at=time.time() - 75,
            written_at=time.time(),
            totals=Totals(rows_extracted=1_234_567, chunks=2, bytes_encoded=1_900_000, bytes_stored=243_141),
        ),
        **changes,
    )


def chunk(number: int, **changes: Any) -> ChunkRecord:
    record = ChunkRecord(
        number=number,
        rows=1000,
        rejected=0,
        dropped=0,
        bytes_encoded=9000,
        bytes_stored=243_141,
        stored_digest="s",
        rows_digest="r",
        first_key=(str(number * 1000),),
        last_key=(str(number * 1000 + 999),),
        stored_at=time.time() - 60,
    )
    return record._replace(**changes)


def view(chunks: int = 2, *, current: bool = True, left: float | None = 4000.0, **changes: Any) -> RunView:
    return RunView(manifest(**changes), tuple(chunk(number) for number in range(chunks)), left, current)


def summary_lines(report: Report, width: int = 80, **more: Any) -> list[str]:
    terminal = more.pop("terminal", True)
    summary = summarize("run", report, 2.5, **more)
    return drawn(
        summary_text(summary, report, moving_seconds=2.0, follow_up="momento-etl inspect-cache films"),
        width,
        terminal=terminal,
    )


def report(**figures: int) -> Report:
    counters = Counters(rows_extracted=3000, rows_loaded=3000, chunks_stored=1, bytes_cached=243_141, snapshots=1)
    for name, value in figures.items():
        setattr(counters, name, value)
    return Report("films", cache="c", destination="d", run_id=RUN_ID, manifest=manifest(), counters=counters)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (243_141, "243 kB"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (1_916_694, "1.92 MB"),
        (80_000_000, "80 MB"),
        (5_000_000_000_000_000, "5,000 TB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (172_800, "2d")]
)
def test_ages(seconds: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e9 + seconds)
    assert age(1e9) == text


@pytest.mark.parametrize(
    ("kind", "content", "text"),
    [
        ("S", "a\nb\x1b[2J\u202e", r"a\nb\x1b[2J\u202e"),
        ("N", "1.50", "1.50"),
        ("BOOL", False, "false"),
        ("NULL", True, "NULL"),
        ("L", [{"N": "1"}, {"S": 'a"'}, {"NULL": True}, {"L": []}], '[1, "a"", NULL, []]'),
        ("M", {"a": {"M": {"b\t": {"BOOL": True}}}}, r"{a: {b\t: true}}"),
        ("B", "AAE=", "AAE="),
    ],
)
def test_values(kind: str, content: Any, text: str) -> None:
    assert item_values(kind, content) == text


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert visible("plain ✓ 漢字 \U0001f468\u200d\U0001f469") == "plain ✓ 漢字 \U0001f468\u200d\U0001f469"
    assert visible("\x00\x1b\x7f\x9b\r\n\t\ud800") == r"\x00\x1b\x7f\x9b\r\n\t\ud800"
    assert visible("a\nb\r", lines=True) == "a\nb\\r"


def test_a_summary_of_success() -> None:
    lines = summary_lines(report(momento_calls=12, momento_operations=1494))
    assert lines == [
        "run films: done in 2.5 s",
        "read     3,000 rows from db:5432/shop films (1 snapshot)",
        "cached   1 chunk, 243 kB, in cache c for 80m",
        "written  3,000 items to table d",
        "rate     1,500 rows/s",
        "momento  12 calls, 1,494 metered operations",
        f"run      {RUN_ID}",
        "next     momento-etl inspect-cache films",
    ]


def test_a_summary_says_what_went_wrong_on_the_way() -> None:
    made = report(
        rows_extracted=3,
        rows_loaded=1,
        rows_rejected=1,
        rows_dropped=1,
        throttles=7,
        retries=2,
        snapshots=2,
        bytes_encoded=500_000,
    )
    made.table_created = True
    made.rejects.append(Reject("key-null", "the key film_id is NULL", {"title": "x\x1b[31m"}))
    text = "\n".join(summary_lines(made, 120))
    for words in (
        "done, with rejected rows",
        "(2 snapshots)",
        "243 kB (500 kB before compression)",
        "1 item to table d (made now)",
        "rejected  1 row\n",
        "dropped   1 row\n",
        "7 throttles, 2 retries",
        "next      momento-etl inspect-cache films --rejects",
        "1 rejected row\n",
        r"key-null  the key film_id is NULL  title=x\x1b[31m",
        "hint  key-null: Mend these rows",
    ):
        assert words in text, text


def test_a_hint_is_given_once_whatever_number_of_rows_and_rules_have_it() -> None:
    rules = ["number-range", "key-null", "number-range", "json-empty-key", "key-empty", "unheard-of"]
    rejects = [Reject(rule, "why", {"id": str(number)}) for number, rule in enumerate(rules)]
    lines = drawn(rejects_table(rejects, 6), 200)
    hints = [line.split(":")[0] for line in lines if line.startswith("hint")]
    assert hints == ["hint  number-range, json-empty-key", "hint  key-null, key-empty"]


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_a_summary_of_what_did_not_finish_names_no_next_step(status: str) -> None:
    more = {"error": UsageError("no")} if status == "failed" else {"signal_number": 2}
    lines = summary_lines(report(rows_loaded=0), **more)
    assert lines[0] == f"run films: {status} in 2.5 s"
    assert not any(line.startswith(("next", "rate")) for line in lines)


def test_a_summary_with_rejected_rows_fits_a_screen() -> None:
    made = report(rows_rejected=700, rows_loaded=2300)
    row = {"id": "1", "sensor": "a sensor of some name", "value": "NaN"}
    made.rejects += [Reject("number-not-finite", "column value: 'NaN' is not a number that DynamoDB holds", row)] * 100
    lines = summary_lines(made)
    assert "3 of 700 rejected rows" in lines
    assert len(lines) <= 22, "\n".join(lines)


def test_long_lines_hang_at_a_terminal_and_stay_whole_in_a_log() -> None:
    made = report()
    made.cache = "c" * 90
    lines = summary_lines(made, 60)
    assert all(len(line) <= 60 for line in lines)
    assert any(line.startswith("         c") for line in lines)
    assert f"cached   1 chunk, 243 kB, in cache {'c' * 90} for 80m" in summary_lines(made, 60, terminal=False)


def test_a_row_shows_its_columns_in_order_and_what_it_lacks() -> None:
    lines = drawn(item_table({**ITEM, "extra": {"BOOL": True}}, view()))
    assert [line.split() for line in lines[-4:]] == [
        ["film_id", "N", "42", "integer"],
        ["title", "S", "The", "Abyss", "text"],
        ["gross", "absent", "NULL", "bigint"],
        ["extra", "BOOL", "true"],
    ]


def test_rejects_tell_how_many_there_are() -> None:
    reject = Reject("number-not-finite", "column n: 'NaN' is not a number", {"id": "1", "t": "x" * 500})
    assert drawn(rejects_table([reject], 1))[0] == "1 rejected row"
    assert drawn(rejects_table([reject] * 5, 1200))[0] == "5 of 1,200 rejected rows"
    assert all(len(line) <= 80 for line in drawn(rejects_table([reject], 1)))


def test_options_are_written_ready_to_paste() -> None:
    assert written() == ""
    assert written(local=True, cache="it's", config=None) == " --local --cache 'it'\"'\"'s'"


def test_errors_are_told_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    Output(quiet=True).error(UsageError("one\ntwo\x1b[31m", hint="do\nthis"))
    assert capsys.readouterr().err == "error: one\n       two\\x1b[31m\nhint: do\n      this\n"
    Output(verbose=False).error(ValueError("odd"))
    told = capsys.readouterr().err
    assert "momento-etl itself failed: ValueError" in told
    assert "hint: This is a defect" in told


@pytest.mark.parametrize("verbose", [False, True])
def test_secrets_are_masked_in_what_others_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, verbose: bool
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "PLANTED-1")
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:PLANTED-2@host/db")
    output = Output(verbose=verbose)
    hide("PLANTED-3", None, "")
    hide_within("postgresql://user:PLANTED-4@host/db")
    output.error(ValueError("PLANTED-1 PLANTED-2 PLANTED-3 PLANTED-4 host"))
    told = capsys.readouterr().err
    assert "PLANTED" not in told
    assert "*** *** *** *** host" in told


def test_quiet_says_nothing_but_errors(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output(quiet=True)
    output.note("n")
    output.warn("w")
    output.show("s")
    assert capsys.readouterr() == ("", "")
    Output(OutputFormat.JSON).data("d")
    assert capsys.readouterr() == ("", "")


def test_usage_errors_of_typer_are_worded_as_ours() -> None:
    class NoSuchOption(ClickError):  # type: ignore[misc, valid-type]  # noqa: N818  typer's own name
        possibilities = ("--table", "--ttl")

    error, command = usage_error(NoSuchOption("No such option: --tabel (Possible options: --table, --ttl)"))
    assert (error.message, command) == ("no such option: --tabel", "")
    assert error.hint == "Did you mean --table? momento-etl --help shows what there is."


def past_run(**changes: Any) -> RunRecord:
    counts = {"rows_extracted": 12, "rows_loaded": 1_234_567, "rows_rejected": 0, "rows_dropped": 0, "chunks": 1}
    record = RunRecord("films", RUN_ID, "run", "ada", "succeeded", 1_786_700_000.5, 1_786_700_001.0, counts)
    return replace(record, **changes)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0.0 s"),
        (0.04, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1m 00s"),
        (3599.4, "59m 59s"),
        (3599.6, "1h 00m"),
        (360_000, "100h 00m"),
    ],
)
def test_how_long_a_past_run_took(seconds: float, words: str) -> None:
    lines = drawn(history_table([past_run(started_at=0.0, ended_at=seconds)], of_one_job=True))
    assert f"  {words}  " in lines[2]


def test_past_runs_show_what_fits() -> None:
    runs = [past_run(), past_run(job="films\x1b[2J", host="b" * 60, status="running", ended_at=None, counts={})]
    for width in (60, 80, 100, 160):
        assert all(cell_len(line) <= width for line in drawn(history_table(runs, of_one_job=False), width))
    narrow, wide = ("\n".join(drawn(history_table(runs, of_one_job=False), width)) for width in (80, 200))
    assert ("1,234,567" in narrow, "bbb" in narrow, "b" * 60 in wide) == (True, False, True)
    assert "2026-08-14 09:33:20" in wide
    # In a log nothing is left out, whatever a screen would have room for; nor is anything obeyed.
    log = "\n".join(drawn(history_table(runs, of_one_job=False), 20, terminal=False))
    assert "b" * 60 in log
    assert "\\x1b[2J" in log
    assert "or killed" in log
    assert "rejected" not in log, "where nothing was"
    assert "rejected" in "\n".join(drawn(history_table([past_run(counts={"rows_rejected": 1})], of_one_job=True), 200))
    # What a later version calls a run's end.
    odd: Any = "verified"
    assert "verified" in "\n".join(drawn(history_table([past_run(status=odd)], of_one_job=True)))


def test_all_of_a_past_run() -> None:
    run = past_run(status="failed", error="it broke\nhere", hint="mend it", notes=["error was cut"])
    lines = drawn(past_run_text(run))
    assert lines[0] == "run films: failed in 0.5 s"
    assert f"run      {RUN_ID}" in lines
    assert "rows     12 extracted, 1,234,567 loaded, 0 rejected, 0 dropped" in lines
    assert "cached   1 chunk, 0 B" in lines
    assert [line.split() for line in lines[-4:]] == [
        ["error", "it", "broke"],
        ["here"],
        ["hint", "mend", "it"],
        ["note", "error", "was", "cut"],
    ]
    running = drawn(past_run_text(past_run(status="running", ended_at=None, counts={})))
    assert running[0] == "run films: running"
    assert not any(line.startswith(("ended", "rows", "error")) for line in running)
