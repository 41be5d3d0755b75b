"""What Momento's refusals mean: the SDK's error codes, and the trailers behind them, as our errors.

``RESOURCE_EXHAUSTED`` is the one that takes a second look. Its trailer ``err`` tells a rate that is too high from a
value that is too large; what gRPC itself refuses to send, since it is too large, has the same status and no trailer.
"""

from __future__ import annotations

from momento.errors import MomentoErrorCode, SdkException, UnknownServiceException

from etlcli.config.names import NAME_RULE
from etlcli.errors import CacheError, CacheLoginError, EtlError, Throttled, TooLarge, Unavailable, UsageError

__all__ = [
    "MAX_ITEM_BYTES",
    "NoSuchCacheError",
    "NotAllowedError",
    "is_metered",
    "too_large_for_the_rate",
    "translated",
    "unavailable",
]

MAX_ITEM_BYTES = 5_000_000
"""What one item may take (Momento's limits page: 5 MB), key included, where the account has no limit of its own."""

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


class NoSuchCacheError(CacheError):
    """The cache does not exist."""


class NotAllowedError(CacheError):
    """The API key lacks a permission."""


def translated(error: SdkException, text: str, where: str, size: int, *, creating: bool, was_there: bool) -> EtlError:
    """Word an error of the SDK as ours.

    Args:
        error: The error.
        text: What happened and where.
        where: The cache, in words.
        size: The bytes of the value or the values that were sent.
        creating: Whether the cache was to be made.
        was_there: Whether the cache has answered before.
    """
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
            return unavailable(text)
        case MomentoErrorCode.NOT_FOUND_ERROR if was_there:
            return NoSuchCacheError(
                f"there is no {where} any more: it was deleted meanwhile",
                hint="Run momento-etl run (or extract) again: it makes the cache anew, and reads what was in it again.",
            )
        case MomentoErrorCode.NOT_FOUND_ERROR:
            return NoSuchCacheError(
                f"there is no {where}",
                hint="momento-etl extract (or run) makes the cache. Otherwise check its name, and the account and"
                " region of the API key.",
            )
        case MomentoErrorCode.AUTHENTICATION_ERROR:
            return CacheLoginError(
                text, hint="The API key is expired, revoked or of another region: make a new one.", of_service=True
            )
        case MomentoErrorCode.PERMISSION_ERROR:
            return NotAllowedError(text, hint="Give the API key read and write permission for this cache.")
        case MomentoErrorCode.INVALID_ARGUMENT_ERROR if creating:
            return UsageError(text, hint=f"A cache's name has {NAME_RULE}: choose another with --cache.")
        case MomentoErrorCode.INVALID_ARGUMENT_ERROR | MomentoErrorCode.BAD_REQUEST_ERROR:
            return CacheError(text, hint="Check the cache's name and the time to live (at most 24 hours).")
        case MomentoErrorCode.FAILED_PRECONDITION_ERROR:
            return CacheError(
                text,
                hint="Something else is stored under this name: run momento-etl run (or extract) again, in a cache of"
                " the job's own (--cache).",
            )
        case _:
            return CacheError(text)


def unavailable(text: str) -> Unavailable:
    """Word that there was no answer."""
    return Unavailable(
        text, hint="Is the endpoint right, and may gRPC (HTTP/2) pass firewall and proxy?", of_service=True
    )


def too_large_for_the_rate(error: EtlError, cost: int) -> Throttled:
    """Say more of a call that was refused to the end, while small ones are let through."""
    return Throttled(
        f"{error.message}\n  it costs {cost:,} metered operations at once, and calls that cost 1 get through",
        hint="The account seems to allow less in a second than one chunk costs: ask Momento to raise it, or set"
        ' layout = "rows", whose calls carry one row each.',
    )


def is_metered(failure: SdkException, error: EtlError) -> bool:
    """Whether a call that was refused cost a metered operation.

    Args:
        failure: The SDK's error.
        error: The same as ours.
    """
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
        return TooLarge(
            text,
            hint=f"It has {size:,} bytes, which is over the account's limit; without one of its own that is"
            f" {MAX_ITEM_BYTES:,} an item, and 128 KB an element of a collection.",
        )
    return Throttled(
        text,
        hint="The account's rate limit is too low for this job in the time it may take: ask Momento to raise it.",
    )
