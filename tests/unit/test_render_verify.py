"""What people see of a verification: every difference where it can be seen, at any width."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from etlcli.cli.render import summary_text
from etlcli.cli.render_verify import verification_text
from etlcli.comparison import AttributeDifference, attribute_differences
from etlcli.report import Report
from etlcli.summary import summarize
from etlcli.verification.findings import Difference, Verification, Wanted

KEY = {"id": {"N": "7"}}
ALL = Wanted()


def rendered(found: Verification, width: int = 80, **counted: Any) -> list[str]:
    report = Report("movies", cache="etl", destination="films")
    for name, figure in counted.items():
        setattr(report.counters, name, figure)
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(verification_text(summarize("verify", report, 1.25), found, report))
    assert isinstance(console.file, StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def different(expected: dict[str, Any], found: dict[str, Any]) -> Verification:
    return with_differences(Difference("different", KEY, tuple(attribute_differences({"a": expected}, {"a": found}))))


def with_differences(*differences: Difference, wanted: Wanted = ALL, rows: int = 1) -> Verification:
    found = Verification("source", wanted, "shop movies", rows, rows)
    for number, difference in enumerate(differences):
        found.note(difference, (number,))
    return found


def test_where_nothing_is_wrong() -> None:
    lines = rendered(Verification("source", Wanted(), "shop movies", 1200, 1200), read_units=1200.0)
    assert lines == [
        "verify movies: no difference in 1.2 s",
        "compared   1,200 rows with table films",
        "source     shop movies, as it is now",
        "missing    0",
        "different  0",
        "dynamodb   1,200 read units",
    ]


@pytest.mark.parametrize(
    ("expected", "found", "shown"),
    [
        ({"N": "7.5"}, {"N": "7.6"}, ["7.5", "7.6"]),
        ({"S": "a"}, {"S": "a "}, ['"a"', '"a "']),
        ({"S": "7"}, {"N": "7"}, ['S "7"', "N 7"]),
        ({"S": "x\x1b[2J"}, {"S": "x"}, [r'"x\u001b[2J"', '"x"']),
        ({"SS": ["b", "a"]}, {"L": []}, ['SS {"a", "b"}', "L []"]),
        (
            {"S": "It was a bright cold day in April, and the clocks were striking thirteen."},
            {"S": "It was a bright cold day in April, and the clocks were striking twelve."},
            ['…riking thirteen."', '…riking twelve."'],
        ),
        ({"S": "x" * 500}, {"S": "x" * 250}, ["…" + "x" * 30 + "…", "…" + "x" * 8 + '"']),
    ],
)
def test_two_values_are_shown_where_they_part(
    expected: dict[str, Any], found: dict[str, Any], shown: list[str]
) -> None:
    (row,) = [line for line in rendered(different(expected, found)) if line.startswith("7 ")]
    assert row.split("a", 1)[1].strip().replace(shown[0], "", 1).strip() == shown[1], row


def test_what_is_absent_is_called_so() -> None:
    one = (AttributeDifference("note", (), None, {"S": "by hand"}),)
    two = (
        AttributeDifference("note", (), {"S": "by hand"}, None),
        AttributeDifference("tree", ("cast", 0), {"N": "1"}, {"N": "2"}),
    )
    lines = rendered(
        with_differences(Difference("different", KEY, one), Difference("different", {"id": {"N": "8"}}, two))
    )
    assert lines[-4:] == [
        "──────────────────────────────────────────",
        '7   note          absent      "by hand"',
        '8   note          "by hand"   absent',
        "    tree.cast[0]  1           2",
    ]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_it_fits_the_screen(width: int) -> None:
    long = {"S": "x" * 300}
    keys = [{"pk": {"S": f"MOVIE#{'y' * 60}{number}"}, "sk": {"S": "RELEASE"}} for number in range(12)]
    found = with_differences(
        *(Difference("missing", key) for key in keys[:4]),
        Difference("different", keys[0], (AttributeDifference("a" * 90, (), long, {"N": "1"}),)),
        *(Difference("surplus", key) for key in keys),
        wanted=Wanted(extra=True, shown=3),
        rows=10_000_000,
    )
    found.rows_rejected = 5
    lines = rendered(found, width, throttles=1)
    assert all(len(line) <= width for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "17 differences" in text
    assert "and 1 more missing" in text
    assert "and 9 more surplus" in text
    assert "and 0 more" not in text
    assert "5 rows, of which no item is expected" in text


def test_of_an_item_with_many_differences_some_are_shown() -> None:
    many = tuple(AttributeDifference(f"a{number}", (), {"N": "1"}, {"N": "2"}) for number in range(12))
    lines = rendered(with_differences(Difference("different", KEY, many)))
    assert [line.split()[-3] for line in lines[-6:-1]] == ["a0", "a1", "a2", "a3", "a4"]
    assert lines[-1].split() == ["and", "7", "more", "attributes"]


@pytest.mark.parametrize("width", [80, 120])
def test_a_run_that_verified_tells_it_in_its_summary(width: int) -> None:
    def summary(found: Verification | None) -> str:
        report = Report("movies", cache="etl", destination="films", run_id="r", verification=found)
        console = Console(file=StringIO(), width=width, force_terminal=True, color_system=None)
        console.print(summary_text(summarize("run", report, 1.0), report, moving_seconds=1.0))
        assert isinstance(console.file, StringIO)
        return console.file.getvalue()

    assert "verified" not in summary(None)
    assert "1,200 items: no difference" in summary(with_differences(rows=1200))
    found = with_differences(Difference("missing", KEY), rows=1200)
    found.rows_compared = 1000
    text = summary(found)
    assert "1,000 of 1,200 items: 1 difference" in text
    assert "Missing: rows that have no item" in text
