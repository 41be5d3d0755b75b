"""Limits as a command line writes them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from etlcli.errors import UsageError
from etlcli.local.momento.custom import SETTINGS, read_limits
from etlcli.local.momento.limits import NO_LIMITS, ON_DEMAND, PRESETS, Limits


def test_presets() -> None:
    assert {name: read_limits(name) for name in PRESETS} == {"none": NO_LIMITS, "on-demand": ON_DEMAND}


def test_every_limit_has_a_name() -> None:
    assert sorted(field for field, _ in SETTINGS.values()) == sorted(field.name for field in fields(Limits))


@pytest.mark.parametrize(
    ("setting", "change"),
    [
        ("operations-per-second=500", {"operations_per_second": 500}),
        ("bytes-per-second=1MB", {"bytes_per_second": 1_000_000}),
        ("control-calls-per-second=1", {"control_calls_per_second": 1}),
        ("stored-bytes=50MB", {"max_stored_bytes": 50_000_000}),
        ("caches=7", {"max_caches": 7}),
        ("item-bytes=1MiB", {"max_item_bytes": 1_048_576}),
        ("element-bytes=64kb", {"max_element_bytes": 64_000}),
        ("request-bytes=5000", {"max_request_bytes": 5_000}),
        ("ttl=10m", {"max_ttl_seconds": 600}),
        (" caches = 7 ", {"max_caches": 7}),
        ("stored-bytes=none", {"max_stored_bytes": None}),
        ("operations-per-second=none", {"operations_per_second": None}),
    ],
)
def test_one_limit_over_a_preset(setting: str, change: dict[str, Any]) -> None:
    assert read_limits("on-demand", [setting]) == replace(ON_DEMAND, **change)


def test_the_last_word_counts() -> None:
    changed = read_limits("none", ["caches=1", "ttl=1h", "caches=2"])
    assert changed == replace(NO_LIMITS, max_caches=2, max_ttl_seconds=3600)


@pytest.mark.parametrize(
    ("preset", "settings", "message", "hint"),
    [
        ("generous", [], "there are no limits 'generous'", "There are: none, on-demand."),
        ("none", ["item-byte=1"], "there is no limit 'item-byte'", "Did you mean item-bytes? There are: "),
        ("none", ["max_item_bytes=1"], "there is no limit 'max_item_bytes'", ""),
        ("none", [""], "there is no limit ''", "There are: operations-per-second, "),
        ("none", ["caches"], "limit caches: no value", "Write caches=VALUE."),
        ("none", ["caches=0"], "limit caches: '0' lets nothing through", ", or caches=none for no limit."),
        ("none", ["caches=3.5"], "limit caches: '3.5' is not a whole number", "Write for example caches=500"),
        ("none", ["caches=-1"], "limit caches: '-1' is not a whole number", ""),
        ("none", ["caches=٣"], "limit caches: '٣' is not a whole number", ""),
        ("none", ["caches="], "limit caches: '' is not a whole number", ""),
        (
            "none",
            ["item-bytes=much"],
            "limit item-bytes: 'much' is not a figure",
            "Write for example item-bytes=256KB.",
        ),
        ("none", ["item-bytes=none"], "limit item-bytes: 'none' is not a figure", ""),
        ("none", ["ttl=0"], "limit ttl: '0' lets nothing through", "Write for example ttl=10m."),
        ("none", ["ttl=10 weeks"], "limit ttl: '10 weeks' is not a figure", ""),
    ],
)
def test_what_is_no_limit(preset: str, settings: list[str], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        read_limits(preset, settings)
    assert error.value.message.startswith(message)
    assert hint in (error.value.hint or "")
