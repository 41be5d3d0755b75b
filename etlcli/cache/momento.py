"""The Momento adapter: the SDK's answers as values or as our errors, retried while that can help, and metered."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from momento import CacheClientAsync, Configurations, CredentialProvider
from momento.config.transport.transport_strategy import StaticGrpcConfiguration, StaticTransportStrategy
from momento.errors import MomentoErrorCode, SdkException, UnknownServiceException
from momento.requests import CollectionTtl
from momento.responses import CacheDictionaryFetch, CacheGet, CreateCache
from momento.responses.mixins import ErrorResponseMixin
from momento.responses.response import Response
from momento.retry import FixedCountRetryStrategy

from etlcli.config.momento import MomentoAccess
from etlcli.config.names import NAME_RULE
from etlcli.errors import CacheError, ConfigError, EtlError, Throttled, TooLarge, Unavailable, UsageError
from etlcli.progress import Counters
from etlcli.retry import DEFAULT_POLICY, RetryPolicy, retrying

__all__ = ["MAX_ITEM_BYTES", "METERED_BYTES", "MomentoCache", "metered"]

MAX_ITEM_BYTES = 5_000_000
"""What one item may take (Momento's limits page: 5 MB), key included."""

METERED_BYTES = 1024
"""Every started so many bytes of an element, sent or received, cost one metered operation (the same page)."""

# A 256 KB chunk over a slow line takes seconds, and the SDK's in-region and Lambda presets give up after 1.1 s.
_DEADLINE = timedelta(seconds=15)


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
        "the momento SDK does not take the API key", hint="Copy it again from the Momento console, whole."
    )


def metered(size: int) -> int:
    """Reckon what sending or receiving an element of ``size`` bytes costs, in metered operations."""
    return max(1, -(-size // METERED_BYTES))


class MomentoCache:
    """One named cache, through the ``momento`` SDK.

    Args:
        access: How to reach Momento and be let in.
        name: The cache's name.
        counters: Where calls, metered operations, throttles and retries are counted.
        retry: How long a call is tried again.

    Raises:
        ConfigError: The API key is malformed.
    """

    def __init__(
        self, access: MomentoAccess, name: str, counters: Counters, retry: RetryPolicy = DEFAULT_POLICY
    ) -> None:
        self._provider = credential_provider(access)
        self._address = access.local or self._provider.cache_endpoint
        self._name = name
        self._counters = counters
        self._retry = retry
        self._client: CacheClientAsync | None = None
        self._answered = False

    @property
    def name(self) -> str:
        """The cache's name."""
        return self._name

    @property
    def _where(self) -> str:
        return f"cache {self._name!r} at {self._address}"

    async def __aenter__(self) -> Self:
        """Make the SDK's client, which belongs to the running event loop. It connects at its first call."""
        configuration = Configurations.Laptop(
            # The SDK's default keepalive and message sizes, which its with_client_timeout would drop.
            StaticTransportStrategy(StaticGrpcConfiguration(deadline=_DEADLINE)),
            # None of the SDK's own immediate retries: ours back off, and every call is counted.
            FixedCountRetryStrategy(max_attempts=0),
        )
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
            response = await self._call("creating it", lambda client: client.create_cache(self._name), creating=True)
        except _NotAllowedError:
            # A key for data alone may not make caches, and need not where it is there already.
            if await self.exists():
                return False
            raise
        self._counters.momento_operations += 1
        return isinstance(response, CreateCache.Success)

    async def exists(self) -> bool:
        """Whether the cache is there. Asked with a read, which every key may do that can load at all."""
        try:
            await self.get("?")
        except _NoSuchCacheError:
            return False
        return True

    async def get(self, key: str) -> bytes | None:
        """The value under a key, or None for a miss. Costs its size in metered operations, a miss that of its key."""
        response = await self._call(f"reading {key}", lambda client: client.get(self._name, key))
        value = response.value_bytes if isinstance(response, CacheGet.Hit) else None
        self._counters.momento_operations += metered(len(key.encode() if value is None else value))
        return value

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Store a value for a time. Costs its size in metered operations."""
        ttl = timedelta(seconds=ttl_seconds)
        await self._call(f"storing {key}", lambda client: client.set(self._name, key, value, ttl), len(value))
        self._counters.momento_operations += metered(len(value))

    async def get_dictionary(self, key: str) -> dict[str, bytes] | None:
        """The fields of a dictionary, or None for a miss. Each costs its size in metered operations."""
        response = await self._call(f"reading {key}", lambda client: client.dictionary_fetch(self._name, key))
        if not isinstance(response, CacheDictionaryFetch.Hit):
            self._counters.momento_operations += metered(len(key.encode()))
            return None
        fields = response.value_dictionary_string_bytes
        self._counters.momento_operations += sum(metered(len(value)) for value in fields.values())
        return fields

    async def set_dictionary(self, key: str, fields: Mapping[str, bytes], ttl_seconds: float) -> None:
        """Store a dictionary for a time. Each field costs its size in metered operations.

        A run writes under names of its own, so that fields of an earlier dictionary are never left among these.
        """
        ttl = CollectionTtl(timedelta(seconds=ttl_seconds), refresh_ttl=True)
        await self._call(
            f"storing {key}",
            lambda client: client.dictionary_set_fields(self._name, key, fields, ttl=ttl),
            max(map(len, fields.values())),
        )
        self._counters.momento_operations += sum(metered(len(value)) for value in fields.values())

    async def delete(self, key: str) -> None:
        """Remove a key; harmless where it is not there. Costs its size in metered operations."""
        await self._call(f"removing {key}", lambda client: client.delete(self._name, key))
        self._counters.momento_operations += metered(len(key.encode()))

    async def _call(
        self,
        doing: str,
        send: Callable[[CacheClientAsync], Awaitable[Response]],
        size: int = 0,
        *,
        creating: bool = False,
    ) -> Response:
        """Send a request, again while that can help. ``size`` is that of the value sent, in bytes.

        Returns:
            An answer that is no error.
        """
        client = self._client
        assert client is not None, "the cache is used inside its context"

        async def attempt() -> Response:
            self._counters.momento_calls += 1
            response = await send(client)
            if isinstance(response, ErrorResponseMixin):
                failure = response.inner_exception
                error = self._translated(failure, doing, size, creating=creating)
                self._answered = self._answered or not isinstance(error, Unavailable)
                self._counters.throttles += isinstance(error, Throttled)
                self._counters.momento_operations += _is_metered(failure, error)
                raise error
            self._answered = True
            return response

        return await retrying(attempt, self._retry, self._counters, is_known=lambda: self._answered)

    def _translated(self, error: SdkException, doing: str, size: int, *, creating: bool) -> EtlError:
        """Word an error of the SDK as ours."""
        text = f"Momento failed for {self._where} while {doing}: {error.message_wrapper}: {error.message}"
        match error.error_code:
            case MomentoErrorCode.LIMIT_EXCEEDED_ERROR | MomentoErrorCode.CLIENT_RESOURCE_EXHAUSTED:
                if creating and _reason(error) not in {None, *_RATE_LIMITS}:
                    return CacheError(
                        text,
                        hint="The account may have no more caches: delete one, ask Momento for more, or let several"
                        " jobs share one ([cache] name).",
                    )
                return _limit(text, error, size)
            case code if code in _PASSING or isinstance(error, UnknownServiceException):
                return Unavailable(text, hint="Is the endpoint right, and may gRPC (HTTP/2) pass firewall and proxy?")
            case MomentoErrorCode.NOT_FOUND_ERROR:
                return _NoSuchCacheError(
                    f"there is no {self._where}",
                    hint="momento-etl extract (or run) makes the cache. Otherwise check its name, and the account and"
                    " region of the API key.",
                )
            case MomentoErrorCode.AUTHENTICATION_ERROR:
                return CacheError(text, hint="The API key is expired, revoked or of another region: make a new one.")
            case MomentoErrorCode.PERMISSION_ERROR:
                return _NotAllowedError(text, hint="Give the API key read and write permission for this cache.")
            case MomentoErrorCode.INVALID_ARGUMENT_ERROR if creating:
                return UsageError(text, hint=f"A cache's name has {NAME_RULE}: choose another with --cache.")
            case MomentoErrorCode.INVALID_ARGUMENT_ERROR | MomentoErrorCode.BAD_REQUEST_ERROR:
                return CacheError(text, hint="Check the cache's name and the time to live (at most 24 hours).")
            case _:
                return CacheError(text)


class _NoSuchCacheError(CacheError):
    """The cache does not exist."""


class _NotAllowedError(CacheError):
    """The API key lacks a permission."""


# And UNKNOWN, what gRPC calls a broken answer: its class, since it shares its code with requests that are wrong.
_PASSING = {
    MomentoErrorCode.TIMEOUT_ERROR,
    MomentoErrorCode.SERVER_UNAVAILABLE,
    MomentoErrorCode.CANCELLED_ERROR,
    MomentoErrorCode.INTERNAL_SERVER_ERROR,
    MomentoErrorCode.CONNECTION_ERROR,
}

# What the `err` trailer of RESOURCE_EXHAUSTED says when a rate is too high, and when a value is too large.
_RATE_LIMITS = {"operations_rate_limit_exceeded", "throughput_rate_limit_exceeded"}
_SIZE_LIMITS = {"item_size_limit_exceeded", "element_size_limit_exceeded", "request_size_limit_exceeded"}


# What Momento refuses for what it asks costs one metered operation all the same; what never got that far, nothing.
_METERED_REFUSALS = {
    MomentoErrorCode.NOT_FOUND_ERROR,
    MomentoErrorCode.INVALID_ARGUMENT_ERROR,
    MomentoErrorCode.FAILED_PRECONDITION_ERROR,
}


def _is_metered(failure: SdkException, error: EtlError) -> bool:
    if failure.transport_details is None:
        return False  # the SDK's own refusal
    if failure.error_code is MomentoErrorCode.LIMIT_EXCEEDED_ERROR:
        # gRPC's own refusal to send has the same status, and no trailer.
        return not isinstance(error, Throttled) and _reason(failure) is not None
    return failure.error_code in _METERED_REFUSALS


def _reason(error: SdkException) -> str | None:
    """What the `err` trailer says."""
    details = error.transport_details
    metadata = details.grpc.metadata if details is not None else None
    reason = metadata.get("err") if metadata is not None else None
    return reason if isinstance(reason, str) else None


def _limit(text: str, error: SdkException, size: int) -> EtlError:
    """Tell a value that is too large from a rate that is too high: they share a status."""
    reason = _reason(error)
    # What gRPC itself refuses before sending has no trailer; such a refusal is always about size.
    if reason in _SIZE_LIMITS or (reason is None and size > MAX_ITEM_BYTES):
        return TooLarge(text, hint=f"It has {size:,} bytes; an item in the cache can have {MAX_ITEM_BYTES:,}.")
    return Throttled(
        text,
        hint="The account's rate limit is too low for this job in the time it may take: ask Momento to raise it.",
    )
