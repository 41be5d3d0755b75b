"""The caches and what can be done to their items.

Pure data: no gRPC, no asyncio; every method does all of its work or none. TTLs come in milliseconds, as on the wire.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TypeAlias

from etlcli.local.momento.clock import Clock
from etlcli.local.momento.limits import NO_LIMITS, Limits
from etlcli.local.momento.refusals import (
    CacheExistsError,
    Err,
    InvalidRequestError,
    LimitError,
    NotAnIntegerError,
    UnknownCacheError,
    WrongTypeError,
)
from etlcli.local.momento.signing import SigningKeys
from etlcli.local.momento.space import Entries, Entry, Space, Value

__all__ = ["CONDITIONS", "HASH_CONDITIONS", "Cache", "Store", "TtlChange", "hash_of"]

# The pattern that Momento's own CloudFormation resource publishes (momentohq/cfn-cache).
_CACHE_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,19}")
_INT64 = range(-(2**63), 2**63)

_Condition: TypeAlias = Callable[[Value | None, bytes], bool]

CONDITIONS: Mapping[str, _Condition] = MappingProxyType(
    {
        "present": lambda held, _: held is not None,
        "absent": lambda held, _: held is None,
        "equal": lambda held, other: held == other,
        "not_equal": lambda held, other: held != other,
        "present_and_not_equal": lambda held, other: held is not None and held != other,
        "absent_or_equal": lambda held, other: held is None or held == other,
    }
)
"""When a conditional set stores: by what the key holds and the value to compare it with. An absent key is not equal."""

_ASK_ONLY_FOR_PRESENCE = frozenset({"present", "absent"})

_HashCondition: TypeAlias = Callable[[bytes | None, bytes], bool]

HASH_CONDITIONS: Mapping[str, _HashCondition] = MappingProxyType(
    {
        "present_and_hash_equal": lambda held, other: held == other,
        "present_and_not_hash_equal": lambda held, other: held is not None and held != other,
        "absent_or_hash_equal": lambda held, other: held is None or held == other,
        "absent_or_not_hash_equal": lambda held, other: held is None or held != other,
        "unconditional": lambda _held, _other: True,
    }
)
"""When a set with a hash stores: by the hash of what the key holds, None where it holds nothing, and the caller's."""

_HASH_BYTES = 16


def hash_of(value: bytes) -> bytes:
    """Makes a value's hash. How the service makes its own is not documented; clients only ever compare them.

    Args:
        value: A scalar's value.

    Returns:
        The same bytes for the same value.
    """
    return hashlib.blake2b(value, digest_size=_HASH_BYTES).digest()


class TtlChange(Enum):
    """What became of a request for another TTL."""

    SET = "set"
    NOT_SET = "not_set"
    MISSING = "missing"


class Store:
    """All caches of one account, and its signing keys.

    Args:
        limits: Sizes, TTL, stored bytes and number of caches that are allowed.
        clock: The time entries live by.

    Attributes:
        signing_keys: The signing keys.
    """

    def __init__(self, limits: Limits = NO_LIMITS, clock: Clock = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._space = Space(clock, limits.max_stored_bytes)
        self._caches: dict[str, Cache] = {}
        self.signing_keys = SigningKeys(clock)

    @property
    def stored_bytes(self) -> int:
        """Bytes of keys, fields and values; expired entries count until the next sweep."""
        return self._space.stored_bytes

    @property
    def evicted(self) -> int:
        """Entries that went before their time, because of the limit on stored bytes."""
        return self._space.evicted

    def names(self) -> list[str]:
        """The caches' names, in order."""
        return sorted(self._caches)

    def create(self, name: str) -> Cache:
        """Makes an empty cache.

        Args:
            name: 3 to 255 letters, digits, `_`, `-` and `.`.

        Returns:
            The cache.

        Raises:
            InvalidRequestError: The name is not a cache's name.
            CacheExistsError: There is one already.
            LimitError: There are as many caches as are allowed.
        """
        if not _CACHE_NAME.fullmatch(name):
            msg = f"Invalid cache name {name!r}: 3 to 255 letters, digits, '_', '-' and '.'"
            raise InvalidRequestError(msg)
        if name in self._caches:
            raise CacheExistsError(name)
        if self._limits.max_caches is not None and len(self._caches) >= self._limits.max_caches:
            raise LimitError(Err.GENERAL, f"Cache count limit exceeded: at most {self._limits.max_caches}")
        cache = self._caches[name] = Cache(self._space, self._limits, self._clock)
        return cache

    def cache(self, name: str) -> Cache:
        """Finds a cache.

        Args:
            name: Its name.

        Returns:
            The cache.

        Raises:
            InvalidRequestError: The name is blank.
            UnknownCacheError: There is none of this name.
        """
        cache = self._caches.get(name)
        if cache is None:
            if not name.strip():
                msg = "Invalid cache name: it is blank"
                raise InvalidRequestError(msg)
            raise UnknownCacheError(name)
        return cache

    def delete(self, name: str) -> None:
        """Removes a cache and all it holds.

        Args:
            name: Its name.

        Raises:
            InvalidRequestError: The name is blank.
            UnknownCacheError: There is none of this name.
        """
        self.cache(name).flush()
        del self._caches[name]

    def sweep(self) -> int:
        """Removes what has expired.

        Returns:
            How many entries went.
        """
        return self._space.sweep()


class Cache:
    """One cache's items.

    A key holds one item, of one type. Reading or changing it as another type is refused; storing a scalar, and
    deleting, work whatever the key held.

    Args:
        space: The room it shares with the other caches.
        limits: Sizes and TTL that are allowed.
        clock: The time entries live by.
    """

    def __init__(self, space: Space, limits: Limits, clock: Clock) -> None:
        self._space = space
        self._limits = limits
        self._clock = clock
        self._entries: Entries = {}

    def __len__(self) -> int:
        return len(self._entries)

    def flush(self) -> None:
        """Removes all items."""
        self._space.clear(self._entries)

    # Items of any type

    def item(self, key: bytes) -> Value | None:
        """The item of a key, whatever its type.

        Args:
            key: The key.

        Returns:
            The item, or None where there is none.
        """
        entry = self._space.live(self._entries, key)
        return None if entry is None else entry.value

    def delete(self, key: bytes) -> None:
        """Removes an item, if it is there.

        Args:
            key: The key.
        """
        self._space.drop(self._entries, key)

    def ttl_milliseconds(self, key: bytes) -> int | None:
        """The time an item has left.

        Args:
            key: The key.

        Returns:
            Whole milliseconds, or None where there is no such item.
        """
        entry = self._space.live(self._entries, key)
        return None if entry is None else int((entry.expires_at - self._clock()) * 1000)

    def update_ttl(self, key: bytes, how: str, ttl_ms: int) -> TtlChange:
        """Gives an item another TTL.

        Args:
            key: The key.
            how: `overwrite`; `increase` and `decrease` change it only in their direction.
            ttl_ms: The new TTL, from now; 0 expires the item.

        Returns:
            What became of it.

        Raises:
            InvalidRequestError: The TTL is over the limit.
        """
        ttl = self._limits.check_ttl(ttl_ms)
        entry = self._space.live(self._entries, key)
        if entry is None:
            return TtlChange.MISSING
        left = entry.expires_at - self._clock()
        if (how == "increase" and ttl <= left) or (how == "decrease" and ttl >= left):
            return TtlChange.NOT_SET
        self._space.renew(self._entries, key, entry, ttl)
        return TtlChange.SET

    # Scalars

    def get(self, key: bytes) -> bytes | None:
        """A scalar's value.

        Args:
            key: The key.

        Returns:
            The value, or None where there is none.

        Raises:
            WrongTypeError: The key holds a collection.
        """
        entry = self._space.live(self._entries, key)
        if entry is None:
            return None
        if not isinstance(entry.value, bytes):
            raise WrongTypeError("dictionary", "scalar")
        return entry.value

    def set(self, key: bytes, value: bytes, ttl_ms: int) -> None:
        """Stores a scalar in place of what the key held.

        Args:
            key: The key.
            value: Its value.
            ttl_ms: Its time to live.

        Raises:
            LimitError: The value is over the item size limit.
            InvalidRequestError: The TTL is over the limit.
        """
        self._limits.check_item(len(value))
        ttl = self._limits.check_ttl(ttl_ms)
        self._space.put(self._entries, key, value, len(key) + len(value), ttl)

    def set_if(self, key: bytes, value: bytes, ttl_ms: int, condition: str, other: bytes = b"") -> bool:
        """Stores a scalar if a condition holds.

        Args:
            key: The key.
            value: Its value.
            ttl_ms: Its time to live.
            condition: One of `CONDITIONS`.
            other: The value to compare with, where the condition compares.

        Returns:
            Whether it was stored.

        Raises:
            WrongTypeError: The condition compares values, and the key holds a collection.
            LimitError: The value is over the item size limit.
            InvalidRequestError: The TTL is over the limit.
        """
        held = self.item(key) if condition in _ASK_ONLY_FOR_PRESENCE else self.get(key)
        if not CONDITIONS[condition](held, other):
            return False
        self.set(key, value, ttl_ms)
        return True

    def set_if_hash(self, key: bytes, value: bytes, ttl_ms: int, condition: str, other: bytes = b"") -> bytes | None:
        """Stores a scalar if the hash of what the key holds meets a condition.

        Args:
            key: The key.
            value: Its value.
            ttl_ms: Its time to live.
            condition: One of `HASH_CONDITIONS`.
            other: The hash to compare with, where the condition compares.

        Returns:
            The stored value's hash; None where it was not stored.

        Raises:
            WrongTypeError: The condition compares hashes, and the key holds a collection.
            LimitError: The value is over the item size limit.
            InvalidRequestError: The TTL is over the limit.
        """
        held = None if condition == "unconditional" else self.get(key)
        if not HASH_CONDITIONS[condition](None if held is None else hash_of(held), other):
            return None
        self.set(key, value, ttl_ms)
        return hash_of(value)

    def increment(self, key: bytes, amount: int, ttl_ms: int) -> int:
        """Adds to a scalar that is an integer in base 10; an absent one counts as 0. Its TTL starts anew.

        Args:
            key: The key.
            amount: What to add; may be negative.
            ttl_ms: Its time to live.

        Returns:
            The new value.

        Raises:
            WrongTypeError: The key holds a collection.
            NotAnIntegerError: The value is no integer, or the sum leaves 64 bits.
            InvalidRequestError: The TTL is over the limit.
        """
        total = _add(self.get(key), amount)
        self.set(key, b"%d" % total, ttl_ms)
        return total

    # Dictionaries

    def dictionary(self, name: bytes) -> Mapping[bytes, bytes] | None:
        """A dictionary's fields and values.

        Args:
            name: The dictionary's key.

        Returns:
            Them all, or None where there is no such dictionary. It changes with the dictionary.

        Raises:
            WrongTypeError: The key holds a scalar.
        """
        found = self._dictionary(name)
        return None if found is None else found[1]

    def dictionary_set(
        self, name: bytes, items: Iterable[tuple[bytes, bytes]], ttl_ms: int, *, refresh_ttl: bool
    ) -> None:
        """Stores fields; the dictionary's other fields stay.

        Args:
            name: The dictionary's key.
            items: Fields and values; of a field that comes twice, the last. None of them makes no dictionary.
            ttl_ms: The dictionary's time to live.
            refresh_ttl: Whether a dictionary that is there gets this TTL, or keeps its own.

        Raises:
            WrongTypeError: The key holds a scalar.
            LimitError: A value is over the element size limit, or the dictionary would be over the item size limit.
            InvalidRequestError: The TTL is over the limit.
        """
        ttl = self._limits.check_ttl(ttl_ms)
        new = dict(items)
        for value in new.values():
            self._limits.check_element(len(value))
        found = self._dictionary(name)
        if found is None:
            size = sum(map(len, new)) + sum(map(len, new.values()))
            self._limits.check_item(size)
            if new:
                self._space.put(self._entries, name, new, len(name) + size, ttl)
            return
        entry, held = found
        size = entry.size + sum(
            len(value) - len(held[field]) if field in held else len(field) + len(value) for field, value in new.items()
        )
        self._limits.check_item(size - len(name))
        held.update(new)
        if refresh_ttl:
            self._space.renew(self._entries, name, entry, ttl)
        if name in self._entries:
            self._space.resize(entry, size)

    def dictionary_increment(self, name: bytes, field: bytes, amount: int, ttl_ms: int, *, refresh_ttl: bool) -> int:
        """Adds to a field that is an integer in base 10; an absent one counts as 0.

        Args:
            name: The dictionary's key.
            field: The field.
            amount: What to add; may be negative.
            ttl_ms: The dictionary's time to live.
            refresh_ttl: Whether a dictionary that is there gets this TTL, or keeps its own.

        Returns:
            The new value.

        Raises:
            WrongTypeError: The key holds a scalar.
            NotAnIntegerError: The field's value is no integer, or the sum leaves 64 bits.
            LimitError: The dictionary would be over the item size limit.
            InvalidRequestError: The TTL is over the limit.
        """
        held = self.dictionary(name)
        total = _add(None if held is None else held.get(field), amount)
        self.dictionary_set(name, [(field, b"%d" % total)], ttl_ms, refresh_ttl=refresh_ttl)
        return total

    def dictionary_delete(self, name: bytes, fields: Iterable[bytes]) -> None:
        """Removes fields, and the dictionary with its last one. The TTL stays.

        Args:
            name: The dictionary's key.
            fields: The fields; those that are not there are passed over.

        Raises:
            WrongTypeError: The key holds a scalar.
        """
        found = self._dictionary(name)
        if found is None:
            return
        entry, held = found
        size = entry.size
        for field in fields:
            value = held.pop(field, None)
            if value is not None:
                size -= len(field) + len(value)
        self._space.resize(entry, size)
        if not held:
            self._space.drop(self._entries, name)

    def dictionary_drop(self, name: bytes) -> None:
        """Removes a dictionary, if it is there.

        Args:
            name: The dictionary's key.

        Raises:
            WrongTypeError: The key holds a scalar.
        """
        if self._dictionary(name) is not None:
            self._space.drop(self._entries, name)

    def _dictionary(self, name: bytes) -> tuple[Entry, dict[bytes, bytes]] | None:
        entry = self._space.live(self._entries, name)
        if entry is None:
            return None
        if not isinstance(entry.value, dict):
            raise WrongTypeError("scalar", "dictionary")
        return entry, entry.value


def _add(held: bytes | None, amount: int) -> int:
    """Adds to a stored integer, as `Increment` does (https://docs.momentohq.com/cache/develop/api-reference)."""
    if held is None:
        return amount
    if not _INTEGER.fullmatch(held) or (number := int(held)) not in _INT64:
        msg = "The stored value is not an integer in base 10"
        raise NotAnIntegerError(msg)
    if (total := number + amount) not in _INT64:
        msg = "The sum does not fit into 64 bits"
        raise NotAnIntegerError(msg)
    return total
