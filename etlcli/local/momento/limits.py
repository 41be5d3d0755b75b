"""What an account may do.

The figures of `ON_DEMAND` are those of Momento's public limits page (https://docs.momentohq.com/cache/limits, as of
2026-08).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from etlcli.local.momento.refusals import Err, InvalidRequestError, LimitError

__all__ = ["NO_LIMITS", "ON_DEMAND", "PRESETS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one account in one region. None means no limit; the size limits and the longest TTL always hold.

    Attributes:
        operations_per_second: Metered operations a second (see `meter`).
        bytes_per_second: Bytes of values a second, sent and received. Earlier accounts had 1 MB/s a cache; the present
            page names none.
        control_calls_per_second: Calls that manage caches, a second.
        max_stored_bytes: Keys, fields and values of all caches together. What the service does at this limit is not
            documented. Here nothing is refused; the entries that would expire soonest go, until the rest fits. A client
            that must not lose entries has to stay below by itself.
        max_caches: Caches at a time.
        max_item_bytes: A scalar's value, or all fields and values of a dictionary. The service documents "5 MB", and
            the SDKs' published tests store a value of 5,000,000 bytes.
        max_element_bytes: One value of a dictionary. The service documents "128 KB".
        max_request_bytes: One request message; what the Python SDK sends at most.
        max_ttl_seconds: The longest time to live. What the service does with a longer one is not documented; it is
            refused with INVALID_ARGUMENT, so that a client which asks for too much is told.
    """

    operations_per_second: float | None = None
    bytes_per_second: float | None = None
    control_calls_per_second: float | None = None
    max_stored_bytes: int | None = None
    max_caches: int | None = None
    max_item_bytes: int = 5_000_000
    max_element_bytes: int = 128 * 1024
    max_request_bytes: int = 5_243_000
    max_ttl_seconds: int = 24 * 60 * 60

    def check_item(self, size: int) -> None:
        """Refuses an item that is too large.

        Args:
            size: Its bytes.

        Raises:
            LimitError: It is over the item size limit.
        """
        if size > self.max_item_bytes:
            raise LimitError(
                Err.ITEM_SIZE, f"Item size limit exceeded: {size:,} bytes, at most {self.max_item_bytes:,}"
            )

    def check_element(self, size: int) -> None:
        """Refuses a collection's element that is too large.

        Args:
            size: Its value's bytes.

        Raises:
            LimitError: It is over the element size limit.
        """
        if size > self.max_element_bytes:
            raise LimitError(
                Err.ELEMENT_SIZE, f"Element size limit exceeded: {size:,} bytes, at most {self.max_element_bytes:,}"
            )

    def check_request(self, size: int) -> None:
        """Refuses a request message that is too large.

        Args:
            size: Its bytes on the wire.

        Raises:
            LimitError: It is over the request size limit.
        """
        if size > self.max_request_bytes:
            raise LimitError(
                Err.REQUEST_SIZE, f"Request size limit exceeded: {size:,} bytes, at most {self.max_request_bytes:,}"
            )

    def check_ttl(self, milliseconds: int) -> float:
        """Refuses a TTL that is too long.

        Args:
            milliseconds: The TTL as it is on the wire. 0 is taken, as the service takes it: such an item is stored and
                gone at once.

        Returns:
            The TTL in seconds.

        Raises:
            InvalidRequestError: It is longer than the longest.
        """
        seconds = milliseconds / 1000
        if seconds > self.max_ttl_seconds:
            msg = f"TTL of {seconds:,.3f} s is over the limit of {self.max_ttl_seconds:,} s"
            raise InvalidRequestError(msg)
        return seconds


NO_LIMITS = Limits()
"""Only the size limits and the longest TTL."""

ON_DEMAND = Limits(
    operations_per_second=100,
    control_calls_per_second=5,
    max_stored_bytes=100_000_000,
    max_caches=3,
)
"""A new account that pays as it goes."""

PRESETS: Mapping[str, Limits] = MappingProxyType({"none": NO_LIMITS, "on-demand": ON_DEMAND})
"""The limits that have a name on the command line."""
