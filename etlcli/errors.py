"""Every error this package raises on purpose.

    EtlError                    message, hint, exit code
    ├── UsageError              2  wrong options or arguments, names that do not exist
    │   └── ConfigError         2  wrong or half a configuration
    ├── TransientError          1  passes by itself: the adapters retry it within the time the user allows
    │   ├── Throttled           1  a rate limit; says whose
    │   └── Unavailable         1  a dropped connection, a timeout, an endpoint that does not answer
    └── TerminalError           1  stays until somebody does something
        ├── SourceError         1  PostgreSQL said no
        ├── CacheError          1  Momento said no
        │   ├── TooLarge        1  one value over the cache's size limit: split it, never retry it
        │   └── ChunkError      1  a chunk is missing, expired or damaged
        ├── SinkError           1  DynamoDB said no
        └── AuthenticationError 1  the password, key or credentials are not accepted: whoever keeps them may have new
                                   ones. Raised as SourceLoginError, CacheLoginError or SinkLoginError, each of which
                                   is its service's error, too

Adapters translate their library's errors into these once; the command line renders them once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

__all__ = [
    "AuthenticationError",
    "CacheError",
    "CacheLoginError",
    "ChunkError",
    "ConfigError",
    "EtlError",
    "ExitCode",
    "SinkError",
    "SinkLoginError",
    "SourceError",
    "SourceLoginError",
    "TerminalError",
    "Throttled",
    "TooLarge",
    "TransientError",
    "Unavailable",
    "UsageError",
    "first_error",
    "leading",
]


class ExitCode(IntEnum):
    """What the process tells its caller."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    REJECTED_ROWS = 3
    DIFFERENCE = 4
    LEASE_HELD = 5
    SIGINT = 130
    SIGTERM = 143


class EtlError(Exception):
    """An error with a cure.

    Args:
        message: What happened and where. One or more lines, no secret in it.
        hint: What to do about it, one or more lines; None where there is nothing to add.
        of_service: Whether a service as a whole failed or refused, by its address or its login: whatever is asked of it
            next would meet the same.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None, of_service: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.of_service = of_service


class UsageError(EtlError):
    """Options or arguments that cannot be carried out as they stand."""

    exit_code = ExitCode.USAGE


class ConfigError(UsageError):
    """A configuration that is wrong, unreadable or incomplete."""


class TransientError(EtlError):
    """Passes by itself; worth another try."""


class Throttled(TransientError):  # noqa: N818  the field's own word
    """A rate limit was met; the same request later is taken.

    Args:
        message: As for every error.
        hint: The same.
        reasons: What the service told of it: the limit, and what it is a limit of.
    """

    def __init__(self, message: str, *, hint: str | None = None, reasons: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message, hint=hint)
        self.reasons = tuple(reasons)


class Unavailable(TransientError):  # noqa: N818  gRPC's and HTTP's own word
    """No answer, or none in time."""


class TerminalError(EtlError):
    """Another try would meet the same answer."""


class SourceError(TerminalError):
    """PostgreSQL refused, or what it holds cannot be read."""


class CacheError(TerminalError):
    """Momento refused, or the cache does not hold what it should."""


class TooLarge(CacheError):  # noqa: N818  read as a state of a value
    """A value is over the cache's size limit: it has to be split, never retried."""


class ChunkError(CacheError):
    """A chunk is missing, expired or damaged."""


class LostChunk(ChunkError):  # noqa: N818  read as a state of a chunk
    """A chunk is not in the cache any more.

    Args:
        message: As for every error.
        hint: The same.
        has_expired: Whether its time was up.
    """

    def __init__(self, message: str, *, hint: str | None = None, has_expired: bool) -> None:
        super().__init__(message, hint=hint)
        self.has_expired = has_expired


class SinkError(TerminalError):
    """DynamoDB refused, or its table is not as it should be."""


class AuthenticationError(TerminalError):
    """A service does not accept what it was shown: a password, a key, a token.

    A process that lives long may have been overtaken by a rotation: it reads its secrets again, and tries once more.
    """


class SourceLoginError(SourceError, AuthenticationError):
    """PostgreSQL does not let this user in."""


class CacheLoginError(CacheError, AuthenticationError):
    """Momento does not accept the API key."""


class SinkLoginError(SinkError, AuthenticationError):
    """AWS does not accept the credentials, or they have expired."""


def leading(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Choose the error of a group that says most: the one to show, and to end with.

    What stays until somebody does something says more than what passes, and may have been the cause of it; ours say
    more than a fault of the program's, which only --verbose explains.
    """
    leaves = list(_leaves(group))
    for kind in (UsageError, TerminalError, EtlError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@contextmanager
def first_error() -> Iterator[None]:
    """Raise the one error that ended the work, rather than the group of it and what it cancelled."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = leading(group)
        raise error from error.__cause__
