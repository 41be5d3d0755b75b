"""Limits as a command line writes them: `on-demand`, `operations-per-second=500`, `item-bytes=1MB`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeAlias

from etlcli.config.units import parse_duration, parse_size
from etlcli.errors import UsageError
from etlcli.local.momento.limits import PRESETS, Limits

__all__ = ["SETTINGS", "read_limits"]

_Reader: TypeAlias = Callable[[str], int]

_NO_LIMIT = "none"
_EXAMPLES: Mapping[_Reader, str] = {parse_size: "256KB", parse_duration: "10m"}


def read_limits(preset: str, settings: Iterable[str] = ()) -> Limits:
    """Reads limits.

    Args:
        preset: One of `PRESETS`.
        settings: What differs from it, `NAME=VALUE` each, with the names of `SETTINGS`.

    Returns:
        The limits.

    Raises:
        UsageError: There is no such preset or limit, or it cannot have this value.
    """
    if preset not in PRESETS:
        raise UsageError(f"there are no limits {preset!r}", hint=f"There are: {', '.join(sorted(PRESETS))}.")
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = (part.strip() for part in setting.partition("="))
        if name not in SETTINGS:
            near = difflib.get_close_matches(name, SETTINGS, n=1)
            meant = f"Did you mean {near[0]}? " if near else ""
            raise UsageError(f"there is no limit {name!r}", hint=f"{meant}There are: {', '.join(SETTINGS)}.")
        if not equals:
            raise UsageError(f"limit {name}: no value", hint=f"Write {name}=VALUE.")
        field, reader = SETTINGS[name]
        changes[field] = _read(name, value, reader, can_be_none=getattr(PRESETS[_NO_LIMIT], field) is None)
    return replace(PRESETS[preset], **changes)


def _read(name: str, value: str, reader: _Reader, *, can_be_none: bool) -> int | None:
    if value == _NO_LIMIT and can_be_none:
        return None
    try:
        figure = reader(value)
    except ValueError as error:
        raise UsageError(f"limit {name}: {value!r} is {error}", hint=_hint(name, can_be_none=can_be_none)) from error
    if figure < 1:
        raise UsageError(f"limit {name}: {value!r} lets nothing through", hint=_hint(name, can_be_none=can_be_none))
    return figure


def _hint(name: str, *, can_be_none: bool) -> str:
    example = _EXAMPLES.get(SETTINGS[name][1], "500")
    return f"Write for example {name}={example}" + (f", or {name}=none for no limit." if can_be_none else ".")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        msg = "not a whole number"
        raise ValueError(msg)
    return int(text)


SETTINGS: Mapping[str, tuple[str, _Reader]] = MappingProxyType(
    {
        "operations-per-second": ("operations_per_second", _number),
        "bytes-per-second": ("bytes_per_second", parse_size),
        "control-calls-per-second": ("control_calls_per_second", _number),
        "stored-bytes": ("max_stored_bytes", parse_size),
        "caches": ("max_caches", _number),
        "item-bytes": ("max_item_bytes", parse_size),
        "element-bytes": ("max_element_bytes", parse_size),
        "request-bytes": ("max_request_bytes", parse_size),
        "ttl": ("max_ttl_seconds", parse_duration),
    }
)
"""The limits by their names on a command line: the field of `Limits`, and how its value is read."""
