"""Which chunks of a run are in the destination."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from etlcli.state.layout import reading

__all__ = ["CHUNKS_PER_PAGE", "PROGRESS_SECONDS", "chunks_by_page", "chunks_left", "load_progress"]

PROGRESS_SECONDS = 7 * 86_400
"""The chunks themselves leave the cache after a day at most; the rest is for whoever wants to know what happened."""

CHUNKS_PER_PAGE = 1000
"""A page is a set of at most so many numbers of three digits: about 4 KB, and so about 4 write units each time."""


def chunks_by_page(chunks: Iterable[int]) -> dict[int, set[int]]:
    """Sort chunks' numbers (from 0) by the page that has them: page to places within it."""
    pages: dict[int, set[int]] = {}
    for number in chunks:
        page, place = divmod(number, CHUNKS_PER_PAGE)
        pages.setdefault(page, set()).add(place)
    return pages


def chunks_left(total: int, done: Collection[int]) -> list[int]:
    """The chunks that are not in the destination yet, of so many in all, in order."""
    known = done if isinstance(done, set | frozenset) else frozenset(done)
    return [number for number in range(total) if number not in known]


def load_progress(document: Mapping[str, Any], what: str) -> set[int]:
    """Read one page of a run's progress: the numbers of the chunks that are in the destination.

    Raises:
        SinkError: As in ``load_lease``.
    """
    with reading(document, what):
        page = int(document["entry"].rpartition("#")[2])
        return {page * CHUNKS_PER_PAGE + int(place) for place in document["chunks"]}
