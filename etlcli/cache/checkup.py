"""What ``doctor`` asks of Momento: who answers, whether the key may do what a run does, and which caches there are.

One value of some bytes is stored, read and removed. Where no cache is there yet to do so in, one is made for it, and
removed with it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.metadata import version

from momento.responses import ListCaches

from etlcli.cache.momento import MomentoCache, Request
from etlcli.cache.refusals import NotAllowedError
from etlcli.doctor import Check, failed_by
from etlcli.errors import CacheError, EtlError, Unavailable
from etlcli.retry import RetryPolicy

__all__ = ["PATIENCE", "ProbedCache", "examine_cache"]

PATIENCE = RetryPolicy(patience=10.0, base=0.1, ceiling=1.0)

_PREFIX = "momento-etl-doctor-"
_VALUE = b"momento-etl doctor"
_TTL_SECONDS = 60.0
# Reads are eventually consistent: a miss soon after a write is asked again.
_MISSES = 5
_PAUSE_SECONDS = 0.5
# Of more jobs' caches than these nobody wants a line each.
_MOST_CACHES = 10


class ProbedCache(MomentoCache):
    """A cache that can be removed as a whole, and knows the others of its account."""

    async def remove(self) -> None:
        """Remove the cache, with all that is in it."""
        await self._call(Request("removing it", lambda client: client.delete_cache(self.name), creating=True))

    async def count_caches(self) -> int:
        """Count the account's caches in this region."""
        response = await self._call(Request("listing caches", lambda client: client.list_caches(), creating=True))
        return len(response.caches) if isinstance(response, ListCaches.Success) else 0

    @property
    def address(self) -> str:
        """The endpoint's host, or host and port of a Momento Local."""
        return self._address


async def examine_cache(opened: Callable[[str], ProbedCache], names: Sequence[str]) -> AsyncIterator[Check]:
    """Look at Momento.

    Args:
        opened: Makes a cache of a name, with ``PATIENCE`` or another short one; each is used in its own context.
        names: The caches that the jobs use, or one that they would; each once.

    Raises:
        EtlError: It stopped answering in between.
    """
    there: list[str] = []
    missing: list[str] = []
    async with opened(names[0] if names else f"{_PREFIX}{secrets.token_hex(4)}") as first:
        try:
            await first.exists()
        except EtlError as error:
            for check in _not_let_in(first, error):
                yield check
            return
        yield Check("cache", "reachable", "ok", f"Momento at {first.address} answers")
        yield Check("cache", "login", "ok", "the API key is accepted")
        momento = version("momento")
        yield Check("cache", "version", "ok", f"momento SDK {momento}", facts={"sdk_version": momento})
        yield await _limits(first)
    for name in names[:_MOST_CACHES]:
        async with opened(name) as cache:
            (there if await cache.exists() else missing).append(name)
    for name in there:
        yield Check("cache", "cache", "ok", f"cache {name} is there", facts={"cache": name})
    if there:
        async with opened(there[0]) as cache:
            yield await _stores(cache)
    if missing or not there:
        async with opened(f"{_PREFIX}{secrets.token_hex(4)}") as cache:
            async for check in _makes(cache, missing, stores=not there):
                yield check


def _not_let_in(cache: ProbedCache, error: EtlError) -> list[Check]:
    """Tell who it is that does not let us in."""
    if isinstance(error, Unavailable) or not isinstance(error, CacheError):
        return [failed_by("cache", "reachable", error)]
    reachable = Check("cache", "reachable", "ok", f"Momento at {cache.address} answers")
    return [reachable, failed_by("cache", "allowed" if isinstance(error, NotAllowedError) else "login", error)]


async def _limits(cache: ProbedCache) -> Check:
    """Say what is known of the account's limits: of those that matter Momento tells only how many caches there are."""
    words = "an account on demand takes 100 metered operations a second, 100 MB in all and 3 caches"
    hint = "Where yours takes more, tell plan: --momento-limit N."
    try:
        count = await cache.count_caches()
    except EtlError:
        # A key for some caches alone may not list them.
        return Check("cache", "limits", "ok", words, hint)
    has = f"; this one has {count} cache{'' if count == 1 else 's'} here"
    return Check("cache", "limits", "ok", words + has, hint, {"caches": count})


async def _makes(cache: ProbedCache, missing: Sequence[str], *, stores: bool) -> AsyncIterator[Check]:
    """Make a cache, store something in it where that was not tried elsewhere, and remove it."""
    for_what = f" ({', '.join(missing)} will be made by the first run)" if missing else ""
    try:
        await cache.ensure()
    except EtlError as error:
        hint = error.hint
        if isinstance(error, NotAllowedError):
            hint = "Give the API key the right to make caches, or make them in the Momento console: " + (
                ", ".join(missing) or "one for each job, or one for all ([cache] name)"
            )
        yield Check("cache", "allowed", "failed", error.message, hint)
        return
    yield Check("cache", "allowed", "ok", f"may make caches{for_what}")
    try:
        if stores:
            yield await _stores(cache)
    finally:
        left = await _removed(cache)
    if left is not None:
        yield left


async def _removed(cache: ProbedCache) -> Check | None:
    try:
        await cache.remove()
    except EtlError as error:
        return Check(
            "cache",
            "allowed",
            "warning",
            f"the cache {cache.name} that was made to try it could not be removed: {error.message}",
            "Remove it in the Momento console. It is empty.",
        )
    return None


async def _stores(cache: ProbedCache) -> Check:
    """Store, read and remove one small value."""
    key = f"{_PREFIX}{secrets.token_hex(8)}"
    try:
        await cache.set(key, _VALUE, _TTL_SECONDS)
        found = await cache.get(key)
        for _ in range(_MISSES):
            if found is not None:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
            found = await cache.get(key)
        await cache.delete(key)
    except EtlError as error:
        return failed_by("cache", "allowed", error)
    if found != _VALUE:
        return Check(
            "cache",
            "allowed",
            "failed",
            f"what was just stored in cache {cache.name} is not there",
            "Is the endpoint that of the key's account, and does something flush this cache?",
        )
    return Check("cache", "allowed", "ok", f"may store, read and remove in cache {cache.name}")
