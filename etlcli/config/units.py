"""Durations, sizes and shares as people write them: ``80m``, ``256KB``, ``50%``."""

from __future__ import annotations

import re
from decimal import Decimal

from etlcli.model import Overlap, Share

__all__ = [
    "format_duration",
    "format_size",
    "parse_duration",
    "parse_overlap",
    "parse_share",
    "parse_size",
]

# The first unit that divides a figure without a rest is the one it is shown in.
_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
# Decimal units before binary ones: 256000 is better known as 256KB than as 250KiB.
_BYTES = {"GB": 10**9, "MB": 10**6, "KB": 10**3, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
_BYTES_BY_LOWER = {unit.lower(): factor for unit, factor in _BYTES.items()}

# ASCII digits only (\d takes those of every script), and no more than any sensible figure has.
_FIGURE = re.compile(r"([0-9]{1,18}) ?([A-Za-z]*)")
_SHARE = re.compile(r"([0-9]{1,18}) ?(%?)|([0-9]{1,3}\.[0-9]{1,6}) ?%")


def parse_duration(text: str) -> int:
    """Read ``80m``, ``90s``, ``24h``, ``1d`` or a plain number of seconds.

    Returns:
        Whole seconds.

    Raises:
        ValueError: The text is none of these.
    """
    return _parse(text, _SECONDS, "s")


def format_duration(seconds: int) -> str:
    """Write seconds in the largest unit that needs no fraction: 4800 is ``80m``; days are written as hours."""
    return _format(seconds, {unit: factor for unit, factor in _SECONDS.items() if unit != "d"})


def parse_size(text: str) -> int:
    """Read ``80MB``, ``256KB``, ``1GiB`` or a plain number of bytes; the unit's case does not matter.

    Returns:
        Bytes.

    Raises:
        ValueError: The text is none of these.
    """
    return _parse(text.lower(), _BYTES_BY_LOWER, "b")


def format_size(size: int) -> str:
    """Write bytes in the largest decimal unit that needs no fraction, else in a binary one: ``80MB``, ``1MiB``."""
    return _format(size, _BYTES)


def parse_share(text: str) -> Share:
    """Read ``100``, ``50%`` or ``0.5%``.

    Raises:
        ValueError: The text is none of these, or over 100%.
    """
    match = _SHARE.fullmatch(text.strip())
    if match is None:
        raise ValueError("neither a number nor a percentage")
    share = Share(Decimal(match[1] or match[3]), is_percentage=bool(match[2] or match[3]))
    if share.is_percentage and share.figure > 100:
        raise ValueError("more than all")
    return share


def parse_overlap(text: str) -> Overlap:
    """Read ``5m`` or ``1000``.

    Raises:
        ValueError: The text is none of these.
    """
    return Overlap(parse_duration(text), is_duration=not text.strip().isdecimal())


def _parse(text: str, units: dict[str, int], plain: str) -> int:
    match = _FIGURE.fullmatch(text.strip())
    factor = units.get(match[2] or plain) if match else None
    if match is None or factor is None:
        raise ValueError("not a figure with a unit")
    return int(match[1]) * factor


def _format(figure: int, units: dict[str, int]) -> str:
    if figure == 0:
        return f"0{list(units)[-1]}"
    return next(f"{figure // factor}{unit}" for unit, factor in units.items() if figure % factor == 0)
