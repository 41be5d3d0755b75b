"""Near names, for messages."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["did_you_mean", "listed"]


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Write ``; did you mean `x`?`` for the nearest valid name, or nothing where none is near."""
    import difflib

    names = list(valid)
    # `primary_key` is nearer to `key` than the letters of `mask_key` are to it.
    near = [word for word in name.split("_") if word in names] or difflib.get_close_matches(
        name, names, n=1, cutoff=0.6
    )
    return f"; did you mean `{near[0]}`?" if near else ""


def listed(names: Iterable[str]) -> str:
    """Write names as a list: ``a, b, c``."""
    return ", ".join(names)
