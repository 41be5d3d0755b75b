"""Names that were meant, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["near_names"]

_SHOWN = 30


def near_names(name: str, known: Iterable[str]) -> str:
    """Write a hint for an unknown name: what was probably meant, else what there is."""
    names = list(known)
    near = [n for n in names if n.lower() == name.lower()] or difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"There are: {', '.join(names[:_SHOWN])}{more}." if names else "There are none."
