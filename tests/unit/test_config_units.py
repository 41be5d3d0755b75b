import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.config.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_overlap,
    parse_share,
    parse_size,
)
from etlcli.model import Overlap


@given(st.integers(min_value=0, max_value=10**15))
def test_a_formatted_duration_reads_back_exactly(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=10**17))
def test_a_formatted_size_reads_back_exactly(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text())
def test_any_text_is_a_figure_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with contextlib.suppress(ValueError):
            assert parse(text) >= 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("80m", 4800),
        ("90s", 90),
        ("24h", 86_400),
        ("1d", 86_400),
        ("4800", 4800),
        ("0", 0),
        (" 80 m ", 4800),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "80x", "1.5h", "-1s", "80M", "1h30m", "80mm", "٣s", "9" * 5000, "8 0m", "0x10"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="not a figure"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("80MB", 80_000_000),
        ("256KB", 256_000),
        ("1GiB", 1 << 30),
        ("1gib", 1 << 30),
        ("2 MiB", 2 << 20),
        ("12", 12),
        ("12B", 12),
        ("3GB", 3 * 10**9),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "80M", "1.5GB", "-1MB", "80 M B", "1TB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="not a figure"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(4800, "80m"), (86_400, "24h"), (172_800, "48h"), (90, "90s"), (0, "0s"), (3600, "1h")]
)
def test_durations_are_written_in_the_largest_whole_unit(seconds: int, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(80_000_000, "80MB"), (1 << 20, "1MiB"), (0, "0B"), (1500, "1500B"), (256_000, "256KB")]
)
def test_sizes_are_written_in_the_largest_whole_unit(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("text", "share"),
    [("0", "0"), ("100", "100"), ("50%", "50%"), (" 50 % ", "50%"), ("0.5%", "0.5%"), ("100%", "100%"), ("0%", "0%")],
)
def test_shares(text: str, share: str) -> None:
    assert str(parse_share(text)) == share
    assert parse_share(share) == parse_share(text)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "100.1%", "101%", "%", "half", "1e3", "٣%", "5%%"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_share(text)


@pytest.mark.parametrize(
    ("share", "part", "whole", "exceeded"),
    [
        ("10", 10, 10, False),
        ("10", 11, 1_000_000, True),
        ("0", 0, 0, False),
        ("0", 1, 1, True),
        ("50%", 5, 10, False),
        ("50%", 6, 11, True),
        ("0.1%", 1, 1000, False),
        ("0.1%", 1, 999, True),
        ("100%", 7, 7, False),
        ("0%", 0, 0, False),
        ("33%", 33 * 10**30, 10**32, False),
        ("33%", 33 * 10**30 + 1, 10**32, True),
    ],
)
def test_a_share_is_exceeded_by_more_than_it(share: str, part: int, whole: int, exceeded: bool) -> None:
    assert parse_share(share).exceeded_by(part, whole) is exceeded


@pytest.mark.parametrize(
    ("text", "overlap"),
    [
        ("5m", Overlap(300, is_duration=True)),
        (" 90s ", Overlap(90, is_duration=True)),
        ("1000", Overlap(1000, is_duration=False)),
        ("0", Overlap(0, is_duration=False)),
    ],
)
def test_overlaps(text: str, overlap: Overlap) -> None:
    assert parse_overlap(text) == overlap
