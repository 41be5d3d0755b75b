"""Errors and delays on request.

A call can ask for its own fault in its metadata, with the keys of the official Momento Local, as the SDKs' published
test helpers send them (`momento_local_middleware.py` in momentohq/client-sdk-python):

    request-id      a name for the counts below; all calls of one test share it
    return-error    the status to answer with: `unavailable`, `resource-exhausted`, `deadline-exceeded`, ...
    error-rpcs      the RPCs that fail, with spaces between: `get set dictionary-fetch`
    error-count     how many of them fail; without it, all
    delay-rpcs      the RPCs that wait
    delay-ms        for how long
    delay-count     how many of them wait; without it, all

A call that is both to wait and to fail waits first. An RPC's name is its name on the wire in lower case with hyphens;
the helpers call `SetIfNotExists` `set-if`. Faults can also be scripted here, for a client that adds no metadata, or
drawn at random for a share of all calls.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from etlcli.local.momento.refusals import InjectedError, InvalidRequestError, LimitError

__all__ = ["PASSING", "STATUSES", "Disturbance", "Fault", "Faults", "rpc_name"]

STATUSES = frozenset(
    {
        "aborted",
        "already-exists",
        "cancelled",
        "data-loss",
        "deadline-exceeded",
        "failed-precondition",
        "internal",
        "invalid-argument",
        "not-found",
        "out-of-range",
        "permission-denied",
        "resource-exhausted",
        "unauthenticated",
        "unavailable",
        "unimplemented",
        "unknown",
    }
)
"""The errors that can be asked for: gRPC's statuses."""

PASSING = ("aborted", "cancelled", "data-loss", "deadline-exceeded", "internal", "unavailable", "unknown")
"""Those that pass, so that the same call may be made again."""

_ASKS = ("return-error", "delay-rpcs")
_REMEMBERED_IDS = 10_000  # requests whose counts are kept; the oldest go


def rpc_name(name: str) -> str:
    """An RPC's name as the fault metadata has it.

    Args:
        name: Its name on the wire, `DictionaryGet`.

    Returns:
        `dictionary-get`.
    """
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


@dataclass(slots=True)
class Fault:
    """A scripted fault.

    Attributes:
        rpcs: The RPCs it befalls, as the fault metadata names them.
        status: The status to answer with; None for a delay only.
        err: The trailer `err` of the answer; None sends none.
        seconds: The delay.
        after: Whether the call is carried out all the same, and only its answer lost.
        when: Which requests it befalls, by their message; None for every one.
        left: How many calls it is still good for; None for any number.
        met: How many calls it befell.
    """

    rpcs: frozenset[str]
    status: str | None = None
    err: str | None = None
    seconds: float = 0.0
    after: bool = False
    when: Callable[[Any], bool] | None = None
    left: int | None = None
    met: int = 0

    def befalls(self, rpc: str, request: object) -> bool:
        """Tells whether a call meets this fault, and counts it if so."""
        if rpc not in self.rpcs or self.left == 0 or (self.when is not None and not self.when(request)):
            return False
        self.met += 1
        if self.left is not None:
            self.left -= 1
        return True


class Disturbance:
    """Faults at random, always the same ones in the same order for a seed.

    Each is as likely as the others: every status of `PASSING`, before the call is carried out and after it; both rate
    limits, with their trailers; and a delay.

    Args:
        rate: The share of calls that meet one, from 0 to 1.
        seed: What the draws depend on.
        seconds: How long a delay is; 0 for none.
        throttles: How many calls meet a rate limit at most. A client that heeds rate limits goes slower with each one,
            and would come to a stand under limits that have nothing to do with what it does.

    Attributes:
        kinds: All that can befall a call, by a name: `unavailable`, `unavailable after`,
            `operations_rate_limit_exceeded`, `delay`.
        met: How many calls met which.
    """

    def __init__(self, rate: float, seed: int, seconds: float = 0.0, throttles: int = 5) -> None:
        self._rate = rate
        self._throttles = throttles
        self._rng = random.Random(seed)
        none = frozenset[str]()
        self.kinds = {status: Fault(none, status) for status in PASSING}
        self.kinds |= {f"{status} after": Fault(none, status, after=True) for status in PASSING}
        self.kinds |= {str(err): Fault(none, "resource-exhausted", err) for err in sorted(LimitError.RATES)}
        if seconds:
            self.kinds["delay"] = Fault(none, seconds=seconds)
        self.met: Counter[str] = Counter()

    def draw(self) -> Fault | None:
        """Draws what befalls the next call; None for nothing."""
        if self._rng.random() >= self._rate:
            return None
        name = self._rng.choice(list(self.kinds))
        if name in LimitError.RATES and sum(self.met[err] for err in LimitError.RATES) >= self._throttles:
            name = "unavailable"
        self.met[name] += 1
        return self.kinds[name]


@dataclass(slots=True)
class _Counts:
    errors: int = 0
    delays: int = 0


@dataclass(slots=True)
class Faults:
    """The faults that calls meet.

    Attributes:
        sleep: How a delay passes; a test may put a recorder in its place.
        latency: Seconds that every call waits before anything else befalls it, as over a network.
        scripted: The faults set from Python. A call meets the first of them that befalls it and fails, and all delays
            before that.
        disturbance: Faults at random, for calls that no scripted one lets fail; None for none.
    """

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    latency: float = 0.0
    scripted: list[Fault] = field(default_factory=list)
    disturbance: Disturbance | None = None
    _by_id: OrderedDict[str, _Counts] = field(default_factory=OrderedDict)

    def fail(
        self,
        *rpcs: str,
        status: str,
        err: str | None = None,
        count: int | None = None,
        after: bool = False,
        when: Callable[[Any], bool] | None = None,
    ) -> Fault:
        """Lets calls fail.

        Args:
            *rpcs: The RPCs, `get`, `dictionary-set`, ...
            status: One of `STATUSES`.
            err: The trailer `err` to send.
            count: How many calls fail; None for all.
            after: Whether the call is carried out all the same, and only its answer lost.
            when: Which requests fail, by their message; None for every one.

        Returns:
            The fault, which counts what it befell.

        Raises:
            ValueError: There is no such status.
        """
        if status not in STATUSES:
            msg = f"no such status: {status!r} (there are {', '.join(sorted(STATUSES))})"
            raise ValueError(msg)
        fault = Fault(frozenset(rpcs), status=status, err=err, after=after, when=when, left=count)
        self.scripted.append(fault)
        return fault

    def delay(
        self,
        *rpcs: str,
        seconds: float,
        count: int | None = None,
        when: Callable[[Any], bool] | None = None,
    ) -> Fault:
        """Lets calls wait before they are carried out.

        Args:
            *rpcs: The RPCs, `get`, `dictionary-set`, ...
            seconds: For how long.
            count: How many calls wait; None for all.
            when: Which requests wait, by their message; None for every one.

        Returns:
            The fault, which counts what it befell.
        """
        fault = Fault(frozenset(rpcs), seconds=seconds, when=when, left=count)
        self.scripted.append(fault)
        return fault

    def clear(self) -> None:
        """Drops all scripted and random faults, and forgets the counts of all requests."""
        self.scripted.clear()
        self.disturbance = None
        self._by_id.clear()

    def asked(self, metadata: Mapping[str, Any]) -> bool:
        """Tells whether a call could meet a fault at all; the quick question of every call.

        Args:
            metadata: The call's.
        """
        if self.scripted or self.latency or self.disturbance is not None:
            return True
        return any(key in metadata for key in _ASKS)

    async def meet(self, rpc: str, request: object, metadata: Mapping[str, Any]) -> InjectedError | None:
        """Lets a call meet its faults.

        Args:
            rpc: The RPC's name on the wire.
            request: Its message.
            metadata: Its metadata.

        Returns:
            The error to answer with after the call was carried out; None for none.

        Raises:
            InjectedError: The call fails.
            InvalidRequestError: The metadata makes no sense.
        """
        if self.latency:
            await self.sleep(self.latency)
        names = {rpc_name(rpc)} | ({"set-if"} if rpc == "SetIfNotExists" else set())
        await self._meet_asked(names, metadata)
        for fault in self._befalling(names, request):
            if fault.seconds:
                await self.sleep(fault.seconds)
            if fault.status is not None:
                error = InjectedError(fault.status, fault.err)
                if fault.after:
                    return error
                raise error
        return None

    def _befalling(self, names: Iterable[str], request: object) -> Iterator[Fault]:
        for fault in self.scripted:
            if any(fault.befalls(name, request) for name in names):
                yield fault
        drawn = None if self.disturbance is None else self.disturbance.draw()
        if drawn is not None:
            yield drawn

    async def _meet_asked(self, names: Iterable[str], metadata: Mapping[str, Any]) -> None:
        delayed = _listed(names, metadata.get("delay-rpcs"))
        fails = _listed(names, metadata.get("error-rpcs")) and "return-error" in metadata
        if not delayed and not fails:
            return
        counts = self._counts(metadata.get("request-id"))
        if delayed and counts.delays < _number(metadata, "delay-count", float("inf")):
            counts.delays += 1
            await self.sleep(_number(metadata, "delay-ms", 0) / 1000)
        if fails and counts.errors < _number(metadata, "error-count", float("inf")):
            counts.errors += 1
            status = metadata["return-error"]
            if status not in STATUSES:
                msg = f"return-error: there is no status {status!r}"
                raise InvalidRequestError(msg)
            raise InjectedError(status)

    def _counts(self, request_id: str | None) -> _Counts:
        if request_id is None:
            return _Counts()
        counts = self._by_id.setdefault(request_id, _Counts())
        self._by_id.move_to_end(request_id)
        if len(self._by_id) > _REMEMBERED_IDS:
            self._by_id.popitem(last=False)
        return counts


def _listed(names: Iterable[str], rpcs: str | None) -> bool:
    return rpcs is not None and not set(rpcs.replace(",", " ").split()).isdisjoint(names)


def _number(metadata: Mapping[str, Any], key: str, default: float) -> float:
    text = metadata.get(key)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        msg = f"{key}: {text!r} is not a number"
        raise InvalidRequestError(msg)
    return int(text)
