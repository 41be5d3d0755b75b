"""The Momento adapter: the SDK's answers as values or as our errors, retried while that can help, paced and metered."""

from __future__ import annotations

import asyncio
import re
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Self

from momento import CacheClientAsync, Configurations, CredentialProvider
from momento.config.transport.transport_strategy import StaticGrpcConfiguration, StaticTransportStrategy
from momento.errors import SdkException
from momento.requests import CollectionTtl
from momento.responses import CacheDictionaryFetch, CacheGet, CreateCache
from momento.responses.mixins import ErrorResponseMixin
from momento.responses.response import Response
from momento.retry import FixedCountRetryStrategy

from etlcli.cache.metering import metered
from etlcli.cache.pace import Costs, Line, Pace, Sent
from etlcli.cache.refusals import (
    MAX_ITEM_BYTES,
    NoSuchCacheError,
    NotAllowedError,
    is_metered,
    too_large_for_the_rate,
    translated,
    unavailable,
)
from etlcli.config.momento import MomentoAccess
from etlcli.errors import ConfigError, EtlError, Throttled, TransientError, Unavailable
from etlcli.hidden import hide, masked
from etlcli.progress import Counters
from etlcli.retry import DEFAULT_POLICY, FIRST_CONTACT_SECONDS, RetryPolicy

__all__ = ["CALL_SECONDS", "MAX_ITEM_BYTES", "MomentoCache", "Request"]

CALL_SECONDS = 15.0
"""The deadline of one call: a 256 KB chunk over a slow line takes seconds, and the SDK's presets for regions and Lambda
give up after 1.1 s."""

# A key that nobody stores under.
_NO_KEY = "?"
# What the SDK's words end with is meant for who programs with it.
_ADVICE = re.compile(r"; (please contact us|consider retrying|you may need to).*", re.DOTALL)


def credential_provider(access: MomentoAccess) -> CredentialProvider:
    """Make the SDK's credential provider.

    Raises:
        ConfigError: The SDK does not take the key.
    """
    try:
        match access:
            case MomentoAccess(kind="local", local=str(local)):
                host, _, port = local.rpartition(":")
                return CredentialProvider.for_momento_local(host, int(port))
            case MomentoAccess(kind="v2", api_key=str(key), endpoint=str(endpoint)):
                return CredentialProvider.from_api_key_v2(key, endpoint)
            case MomentoAccess(kind="legacy", api_key=str(key)):
                with warnings.catch_warnings():
                    # Legacy keys are still in use, and this is the SDK's only door for them.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    return CredentialProvider.from_string(key)
    except (SdkException, ValueError, KeyError, TypeError):
        pass  # The SDK's message may quote the key: it stays out.
    raise ConfigError(
        "the momento SDK does not take the API key",
        hint="Copy it again from the Momento console, whole.",
        of_service=True,
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of Momento.

    Attributes:
        doing: That in words.
        send: Makes the call.
        key: The key that it is about.
        cost: Its metered operations; None for a read, whose answer tells.
        size: The bytes of the value that is sent, or of all of a dictionary's.
        creating: Whether it makes the cache. Such calls have a deadline and a rate limit of their own.
    """

    doing: str
    send: Callable[[CacheClientAsync], Awaitable[Response]]
    key: str = ""
    cost: int | None = 1
    size: int = 0
    creating: bool = False


def _reading(key: str) -> str:
    return "looking whether it is there" if key == _NO_KEY else f"reading {key}"


class MomentoCache:
    """One named cache, through the ``momento`` SDK.

    Args:
        access: How to reach Momento and be let in.
        name: The cache's name.
        counters: Where calls, metered operations, throttles and retries are counted.
        retry: The waits, and the patience: seconds in which a call failed and no other got through either.
        call_seconds: The deadline of one call.
        pings: Whether connections are kept alive by pings, which a process that may be frozen cannot do.
        clock: Seconds that never go back.
        sleep: Waits so many seconds.

    Raises:
        ConfigError: The API key is malformed.
    """

    def __init__(
        self,
        access: MomentoAccess,
        name: str,
        counters: Counters,
        retry: RetryPolicy = DEFAULT_POLICY,
        *,
        call_seconds: float = CALL_SECONDS,
        pings: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._provider = credential_provider(access)
        hide(access.api_key, self._provider.auth_token)  # of a legacy key only a part is sent
        self._address = access.local or self._provider.cache_endpoint
        self._name = name
        self._counters = counters
        self._retry = retry
        self._call_seconds = call_seconds
        self._pings = pings
        self._clock = clock
        self._sleep = sleep
        self._pace = Pace(clock)
        self._line = Line(self._pace, sleep)
        self._costs = Costs()
        self._client: CacheClientAsync | None = None
        self._answered = False
        self._acknowledged_at = float("-inf")

    @property
    def name(self) -> str:
        """The cache's name."""
        return self._name

    @property
    def _where(self) -> str:
        return f"cache {self._name!r} at {self._address}"

    async def __aenter__(self) -> Self:
        """Make the SDK's client, which belongs to the running event loop. It connects at its first call."""
        deadline = timedelta(seconds=self._call_seconds)
        # The SDK's default keepalive and message sizes, which its with_client_timeout would drop; or, as its own Lambda
        # configuration, none: a process that is frozen answers no ping. That one's deadline is too short for chunks.
        grpc = (
            StaticGrpcConfiguration(deadline=deadline)
            if self._pings
            else StaticGrpcConfiguration(
                deadline=deadline, keepalive_permit_without_calls=False, keepalive_time=None, keepalive_timeout=None
            )
        )
        # None of the SDK's own immediate retries: ours back off, and every call is counted.
        no_retries = FixedCountRetryStrategy(max_attempts=0)
        configuration = Configurations.Laptop(StaticTransportStrategy(grpc), no_retries)
        self._client = CacheClientAsync(configuration, self._provider, timedelta(hours=1))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client's connections."""
        if self._client is not None:
            await self._client.__aexit__(kind, error, trace)
            self._client = None

    async def ensure(self) -> bool:
        """Make the cache if it is missing; answer whether it was made now. Costs one metered operation."""
        try:
            response = await self._call(
                Request("creating it", lambda client: client.create_cache(self._name), creating=True)
            )
        except NotAllowedError:
            # A key for data alone may not make caches, and need not where it is there already.
            if await self.exists():
                return False
            raise
        return isinstance(response, CreateCache.Success)

    async def exists(self) -> bool:
        """Whether the cache is there. Asked with a read, which every key may do that can load at all."""
        try:
            await self.get(_NO_KEY)
        except NoSuchCacheError:
            return False
        return True

    async def get(self, key: str) -> bytes | None:
        """The value under a key, or None for a miss. Costs its size in metered operations, a miss that of its key."""
        response = await self._call(Request(_reading(key), lambda client: client.get(self._name, key), key, cost=None))
        return response.value_bytes if isinstance(response, CacheGet.Hit) else None

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store a value for a time. Costs its size in metered operations."""
        ttl = timedelta(seconds=ttl_seconds)
        size = len(value)
        await self._call(
            Request(f"storing {key}", lambda client: client.set(self._name, key, value, ttl), key, metered(size), size)
        )

    async def get_dictionary(self, key: str) -> dict[str, bytes] | None:
        """The fields of a dictionary, or None for a miss. Each costs its size in metered operations."""
        response = await self._call(
            Request(f"reading {key}", lambda client: client.dictionary_fetch(self._name, key), key, cost=None)
        )
        if not isinstance(response, CacheDictionaryFetch.Hit):
            return None
        # A name that is no text is damaged: whoever checks the fields finds another one in its place.
        fields = response.value_dictionary_bytes_bytes.items()
        return {name.decode(errors="replace"): value for name, value in fields}

    async def set_dictionary(self, key: str, fields: Mapping[str, bytes], ttl_seconds: float) -> None:
        """Store a dictionary for a time. Each field costs its size in metered operations.

        A run writes under names of its own, so that fields of an earlier dictionary are never left among these.
        """
        ttl = CollectionTtl(timedelta(seconds=ttl_seconds), refresh_ttl=True)
        sizes = [len(value) for value in fields.values()]
        await self._call(
            Request(
                f"storing {key}",
                lambda client: client.dictionary_set_fields(self._name, key, fields, ttl=ttl),
                key,
                sum(map(metered, sizes)),
                sum(sizes),
            )
        )

    async def delete(self, key: str) -> None:
        """Remove a key; harmless where it is not there. Costs its size in metered operations."""
        cost = metered(len(key.encode()))
        await self._call(Request(f"removing {key}", lambda client: client.delete(self._name, key), key, cost))

    async def _call(self, request: Request) -> Response:
        """Send a request when its turn has come, and again while that can help.

        Returns:
            An answer that is no error.
        """
        place = None if request.creating else self._line.place()
        cost = self._costs.expected(request.key) if request.cost is None else request.cost
        failures = 0
        failed_at = 0.0  # when it failed first
        silent_at = 0.0  # when it was first left without an answer, of the last times in a row
        is_throttled = True
        while True:
            sent = None if place is None else await self._line.go(place, cost)
            try:
                return await self._attempt(request, sent)
            except TransientError as error:
                now = self._clock()
                failed_at = failed_at if failures else now
                silent_at = now if is_throttled else silent_at
                failures += 1
                pause = self._retry.wait(failures)
                is_throttled = isinstance(error, Throttled)
                if sent is not None and is_throttled:
                    self._pace.refuse(sent, pause)
                # From the first failure, since a first try that took long must not use it up by itself. Of the whole
                # cache where a rate is too high, since others may only have been first to use what the account allows;
                # of this call alone where nobody answers, since others that do get through are no help to it.
                since = max(failed_at, self._acknowledged_at) if is_throttled else silent_at
                patience = self._retry.patience if self._answered else min(self._retry.patience, FIRST_CONTACT_SECONDS)
                if now + pause - since > patience:
                    if is_throttled and cost > 1 and await self._lets_small_calls_through():
                        raise too_large_for_the_rate(error, cost) from error
                    raise
                self._counters.retries += not is_throttled
            if sent is None or not is_throttled:  # the pace holds the others back
                await self._sleep(pause)

    async def _attempt(self, request: Request, sent: Sent | None) -> Response:
        """Send a request once, and count it."""
        client = self._client
        assert client is not None, "the cache is used inside its context"
        self._counters.momento_calls += 1
        try:
            # The SDK's own deadline for these is a minute, whatever is configured.
            async with asyncio.timeout(self._call_seconds if request.creating else None):
                response = await request.send(client)
        except TimeoutError:
            raise unavailable(self._text(request, f"no answer within {self._call_seconds:g} seconds")) from None
        except BaseException:
            if sent is not None:
                self._pace.lose(sent)
            raise
        if isinstance(response, ErrorResponseMixin):
            failure = response.inner_exception
            what = _ADVICE.sub("", failure.message_wrapper)
            text = self._text(request, masked(f"{what}: {failure.message}"))
            was_there = self._acknowledged_at > float("-inf")
            error = translated(failure, text, self._where, request.size, creating=request.creating, was_there=was_there)
            self._answered = self._answered or not isinstance(error, Unavailable)
            self._counters.throttles += isinstance(error, Throttled)
            cost = int(is_metered(failure, error))
            self._counters.momento_operations += cost
            if sent is not None and isinstance(error, Unavailable):
                self._pace.lose(sent)
            elif sent is not None and not isinstance(error, Throttled):
                self._pace.succeed(sent, cost)
            raise error
        self._answered = True
        self._acknowledged_at = self._clock()
        cost = self._cost(request, response)
        self._counters.momento_operations += cost
        if sent is not None:
            self._pace.succeed(sent, cost)
        return response

    def _cost(self, request: Request, response: Response) -> int:
        """What a call did cost; and, as far as this one tells, what the next of its kind will."""
        match response:
            case CacheGet.Hit():
                cost = metered(len(response.value_bytes))
            case CacheDictionaryFetch.Hit():
                cost = sum(metered(len(value)) for value in response.value_dictionary_bytes_bytes.values())
            case _ if request.cost is None:
                return metered(len(request.key.encode()))  # a miss
            case _:
                cost = request.cost
        if request.cost is None or request.size:
            self._costs.learn(request.key, cost)
        return cost

    async def _lets_small_calls_through(self) -> bool:
        """Whether a call that costs 1 gets through just now."""
        request = Request("asking for little", lambda client: client.get(self._name, _NO_KEY), _NO_KEY)
        try:
            await self._attempt(request, None)
        except EtlError:
            return False
        return True

    def _text(self, request: Request, what: str) -> str:
        return f"Momento failed for {self._where} while {request.doing}: {what}"
