"""How the server says no, without knowing gRPC.

Each refusal has a status, by its gRPC name in lower case with hyphens (the spelling of Momento Local's `return-error`),
and the value of the trailer `err`. The trailer's general values are those of Momento's published `trailers.proto`; the
limits' values are those the SDKs tell the limits apart by (`momento.errors.exceptions`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

__all__ = [
    "CacheExistsError",
    "CallError",
    "Err",
    "InjectedError",
    "InvalidRequestError",
    "LimitError",
    "NotAnIntegerError",
    "UnauthenticatedError",
    "UnimplementedError",
    "UnknownCacheError",
    "WrongTypeError",
]


class Err(StrEnum):
    """The values of the trailer `err`."""

    GENERAL = "general_momento_error"
    INVALID_TYPE = "invalid_type"
    OPERATIONS_RATE = "operations_rate_limit_exceeded"
    THROUGHPUT_RATE = "throughput_rate_limit_exceeded"
    REQUEST_SIZE = "request_size_limit_exceeded"
    ITEM_SIZE = "item_size_limit_exceeded"
    ELEMENT_SIZE = "element_size_limit_exceeded"


class CallError(Exception):
    """A call that is not carried out.

    Args:
        details: What is wrong, for the caller.
    """

    status: str = "internal"
    err: str | None = Err.GENERAL

    def __init__(self, details: str) -> None:
        super().__init__(details)
        self.details = details


class UnknownCacheError(CallError):
    """No cache has this name."""

    status = "not-found"

    def __init__(self, name: str) -> None:
        super().__init__(f"Cache with name: {name} does not exist")


class CacheExistsError(CallError):
    """A cache of this name is there already."""

    status = "already-exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"Cache with name: {name} already exists")


class InvalidRequestError(CallError):
    """A request that makes no sense."""

    status = "invalid-argument"


class WrongTypeError(CallError):
    """The key holds an item of another type than the call works on."""

    status = "failed-precondition"
    err = Err.INVALID_TYPE

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(f"The key holds a {found}, the call works on a {wanted}")


class NotAnIntegerError(CallError):
    """What is to be incremented is no integer of 64 bits, or would be none afterwards."""

    status = "failed-precondition"


class UnauthenticatedError(CallError):
    """A call without a key that is let in."""

    status = "unauthenticated"


class UnimplementedError(CallError):
    """A call this server does not have."""

    status = "unimplemented"


class LimitError(CallError):
    """A limit was met.

    Args:
        err: Which one, as the trailer tells it.
        details: What was met and by how much.
    """

    status = "resource-exhausted"
    RATES: ClassVar[frozenset[str]] = frozenset({Err.OPERATIONS_RATE, Err.THROUGHPUT_RATE})

    def __init__(self, err: Err, details: str) -> None:
        super().__init__(details)
        self.err = err


class InjectedError(CallError):
    """An error that a test asked for.

    Args:
        status: The status to answer with.
        err: The trailer `err`; None sends none.
    """

    def __init__(self, status: str, err: str | None = None) -> None:
        super().__init__(f"{status}, as the test asked for")
        self.status = status
        self.err = err
