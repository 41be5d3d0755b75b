"""What the jobs of one command leave in their caches: kept while the jobs to come have room, then freed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import NamedTuple

from etlcli.cache.staging import Staging
from etlcli.errors import EtlError
from etlcli.ports import Cache
from etlcli.progress import Counters
from etlcli.report import Report

__all__ = ["Leftovers"]


class _Left(NamedTuple):
    job: str
    cache: str
    run_id: str
    size: int


class Leftovers:
    """Keeps what several jobs store, one after the other, under the bound that each of them has by itself.

    A job's own budget knows what its own runs have stored. The account's limit counts what all of them have, in
    whatever cache.

    Args:
        limit: The bound on stored bytes.
        open_cache: Opens a cache by its name.
    """

    def __init__(self, limit: int, open_cache: Callable[[str, Counters], AbstractAsyncContextManager[Cache]]) -> None:
        self._limit = limit
        self._open_cache = open_cache
        self._left: list[_Left] = []

    def note(self, report: Report) -> None:
        """Take account of what a job that is over has left."""
        if report.run_id is not None and report.cache is not None and report.counters.bytes_cached:
            # What it freed itself is not known here, but that it kept to the bound.
            size = min(report.counters.bytes_cached, self._limit)
            self._left.append(_Left(report.job, report.cache, report.run_id, size))

    async def make_room(self, report: Report) -> int:
        """Free the oldest runs until no more than half of the bound is taken.

        Args:
            report: The next job's: it is charged with the calls, and hears what could not be freed.

        Returns:
            How many bytes the next job may store.
        """
        while self._taken > self._limit // 2:
            left = self._left.pop(0)
            try:
                await self._free(left, report.counters)
            except EtlError as error:
                report.warnings.append(
                    f"what {left.job} has stored in cache {left.cache} could not be removed: {error.message}"
                )
        return self._limit - self._taken

    @property
    def _taken(self) -> int:
        return sum(left.size for left in self._left)

    async def _free(self, left: _Left, counters: Counters) -> None:
        async with self._open_cache(left.cache, counters) as cache:
            staging = Staging(cache, left.job)
            manifest = await staging.fetch_manifest(left.run_id)
            if manifest is None:
                return  # expired, and its chunks with it
            records = await staging.fetch_known_chunks(manifest)
            # First: whoever would load it is told why it is not there, rather than that it is damaged.
            await staging.store_manifest(replace(manifest, chunks_freed=len(records)))
            for record in records:
                await staging.free_chunk(manifest, record)
