"""What is shown while a run works: figures that are the counters', an end that follows from them, at any width."""

from __future__ import annotations

import io
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from etlcli.cli.progress_view import Bar, View
from etlcli.progress import Counters

BARS: tuple[Bar, ...] = ("read", "cached", "written")


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def drawn(view: View, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(view)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def at_work(**figures: int) -> Counters:
    counters = Counters(stage="extracting", rows_expected=1_200_000)
    for name, value in figures.items():
        setattr(counters, name, value)
    return counters


def test_each_stage_has_its_rows_rate_and_size(clock: Clock) -> None:
    counters = at_work()
    view = View(counters, BARS, clock=clock)
    clock.now += 10
    counters.rows_extracted, counters.bytes_encoded = 600_000, 120_000_000
    counters.rows_cached, counters.bytes_cached = 500_000, 20_000_000
    counters.rows_loaded, counters.requests_in_flight, counters.throttles = 300_000, 64, 7
    lines = drawn(view)
    assert re.search(r"^read .* 600,000 of ~1,200,000 +60,000 rows/s +120 MB$", lines[0]), lines
    assert re.search(r"^cached .* 500,000 of ~1,200,000 +50,000 rows/s +20 MB$", lines[1]), lines
    assert re.search(r"^written .* 300,000 of ~1,200,000 +30,000 rows/s$", lines[2]), lines
    # What is left goes by the slowest stage: 900,000 rows at 30,000.
    assert lines[3:] == ["0:00:10, about 0:00:30 left, 64 requests in flight, 7 throttles"]


def test_rates_are_those_of_the_last_seconds(clock: Clock) -> None:
    counters = at_work()
    view = View(counters, BARS, clock=clock)
    for second in range(60):
        clock.now += 1
        counters.rows_loaded += 100_000 if second < 5 else 1000
        view.look()
    assert "written" in drawn(view)[2]
    assert "1,000 rows/s" in drawn(view)[2]


def test_what_an_earlier_attempt_wrote_is_no_speed(clock: Clock) -> None:
    counters = at_work(rows_extracted=500_000, rows_loaded=500_000)
    view = View(counters, BARS, clock=clock)
    clock.now += 10
    counters.rows_loaded += 1000
    assert "100 rows/s" in drawn(view)[2]


def test_once_all_is_read_the_totals_are_exact(clock: Clock) -> None:
    counters = at_work(rows_extracted=1000, rows_cached=990, rows_loaded=495, rows_rejected=7, rows_dropped=3)
    counters.stage = "loading"
    lines = drawn(View(counters, BARS, clock=clock))
    assert "1,000 of 1,000" in lines[0]
    assert "990 of 990" in lines[1]
    assert "495 of 990" in lines[2]
    assert "7 rejected" in lines[3]
    assert "~" not in "".join(lines)


def test_an_estimate_that_was_too_low_is_none(clock: Clock) -> None:
    counters = at_work(rows_extracted=2_000_000)
    view = View(counters, BARS, clock=clock)
    clock.now += 10
    counters.rows_loaded = 1000
    lines = drawn(view)
    assert "2,000,000" in lines[0]
    assert " of " not in "".join(lines)
    assert " left" not in lines[3]


@pytest.mark.parametrize("width", [30, 40, 59, 60, 79, 80, 120])
def test_it_fits_and_keeps_the_rows(clock: Clock, width: int) -> None:
    counters = at_work(rows_expected=987_654_321)
    view = View(counters, BARS, "[12/60] a_job_with_a_name_that_goes_on_and_on_and_on_and_on_and_on", clock=clock)
    clock.now += 10
    counters.rows_extracted = counters.rows_cached = counters.rows_loaded = 123_456_789
    counters.bytes_encoded = counters.bytes_cached = 123_456_789
    counters.stage = "removing 1,234,567 items whose rows are gone, which takes a while"
    counters.items_deleted = 5
    lines = drawn(view, width)
    assert max(map(cell_len, lines)) <= width, lines
    assert len(lines) == 6
    assert all("123,456,789" in line for line in lines[1:4]), lines
    assert ("rows/s" in lines[1]) == (width >= 59)
    assert ("123 MB" in lines[1]) == (width >= 79)
    assert ("━" in lines[1]) == (width >= 79)
    assert not any("…" in line for line in lines[1:4]) or width < 40


def test_a_line_for_a_log_has_all_of_it(clock: Clock) -> None:
    counters = at_work(requests_in_flight=3, throttles=2)
    view = View(counters, BARS, "[1/2] films", clock=clock)
    clock.now += 10
    assert view.line() == "[1/2] films: 10s extracting"
    counters.rows_extracted, counters.rows_cached, counters.rows_loaded = 1_200_000, 1_100_000, 1_000_000
    assert view.line() == (
        "[1/2] films: 10s extracting: rows 1,200,000 read, 1,100,000 cached, 1,000,000 written;"
        " 100,000 rows/s, about 2s left, 3 requests in flight, 2 throttles"
    )
