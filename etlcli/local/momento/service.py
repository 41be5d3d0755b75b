"""What every call has in common: faults, API keys, rate limits, metering, and errors with their trailers.

An RPC is a plain function from a `Call` and a request to a reply (`scalars`, `dictionaries`, `control`); here it is
bound to the servicer that `momento-wire-types` generated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import grpc

from etlcli.local.momento.rate import TokenBucket
from etlcli.local.momento.refusals import (
    CallError,
    Err,
    InvalidRequestError,
    LimitError,
    UnauthenticatedError,
    UnimplementedError,
)

if TYPE_CHECKING:
    from etlcli.local.momento.api_keys import ApiKeys
    from etlcli.local.momento.clock import Clock
    from etlcli.local.momento.faults import Faults
    from etlcli.local.momento.limits import Limits
    from etlcli.local.momento.meter import Meter, Usage
    from etlcli.local.momento.store import Cache, Store

__all__ = ["Call", "Handler", "Rates", "Service"]

_CODES = {code.name.lower().replace("_", "-"): code for code in grpc.StatusCode}


class Rates:
    """The rate limits of one account.

    Args:
        limits: What is allowed.
        clock: The time.
    """

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._operations = TokenBucket(limits.operations_per_second, clock)
        self._bytes = TokenBucket(limits.bytes_per_second, clock)
        self._control = TokenBucket(limits.control_calls_per_second, clock)

    def admit(self, operations: int, size: int) -> None:
        """Lets a data call in.

        Args:
            operations: Its metered operations.
            size: The bytes of the values it moves.

        Raises:
            LimitError: The account is over a rate.
        """
        if not self._operations.open():
            raise LimitError(Err.OPERATIONS_RATE, "Operations rate limit exceeded")
        if not self._bytes.open():
            raise LimitError(Err.THROUGHPUT_RATE, "Throughput limit exceeded")
        self._operations.take(operations)
        self._bytes.take(size)

    def admit_control(self) -> None:
        """Lets a call that manages caches in.

        Raises:
            LimitError: The account is over the rate.
        """
        if not self._control.open():
            raise LimitError(Err.OPERATIONS_RATE, "Control operations rate limit exceeded")
        self._control.take(1)


class Call:
    """One call being answered.

    Args:
        store: All caches.
        limits: What is allowed.
        rates: The rate limits.
        usage: The RPC's counts.
        metadata: The call's metadata.
    """

    __slots__ = ("_metadata", "_rates", "_usage", "limits", "spent", "store")

    def __init__(self, store: Store, limits: Limits, rates: Rates, usage: Usage, metadata: Mapping[str, Any]) -> None:
        self.store = store
        self.limits = limits
        self.spent = False
        self._rates = rates
        self._usage = usage
        self._metadata = metadata

    @property
    def cache(self) -> Cache:
        """The cache that the call's metadata names.

        Raises:
            InvalidRequestError: They name none.
            UnknownCacheError: There is none of this name.
        """
        name = self._metadata.get("cache")
        if name is None:
            msg = "The metadata name no cache"
            raise InvalidRequestError(msg)
        return self.store.cache(name)

    def spend(self, operations: int, size: int = 0) -> None:
        """Pays for a data call: before it changes anything, and before its reply leaves.

        Args:
            operations: Its metered operations.
            size: The bytes of the values it moves.

        Raises:
            LimitError: The account is over a rate; nothing is metered.
        """
        self.spent = True
        self._rates.admit(operations, size)
        self._usage.operations += operations

    def spend_control(self) -> None:
        """Pays for a call that manages caches.

        Raises:
            LimitError: The account is over the rate; nothing is metered.
        """
        self.spent = True
        self._rates.admit_control()
        self._usage.operations += 1

    def settle(self, error: CallError) -> None:
        """Takes note of a call that is refused: one refused for what it asks costs 1.

        Args:
            error: The refusal.
        """
        if isinstance(error, LimitError) and error.err in LimitError.RATES:
            self._usage.throttled += 1
        elif not self.spent and not isinstance(error, UnauthenticatedError | UnimplementedError):
            self._usage.operations += 1


Handler: TypeAlias = Callable[[Call, Any], Any]
"""Answers one RPC: a reply, or for a streaming RPC an iterable of replies."""


@dataclass(frozen=True, slots=True)
class Service:
    """Answers calls.

    Attributes:
        store: All caches.
        limits: What is allowed.
        rates: The rate limits.
        meter: What was used.
        faults: The faults that calls meet.
        api_keys: The API keys that are let in.
    """

    store: Store
    limits: Limits
    rates: Rates
    meter: Meter
    faults: Faults
    api_keys: ApiKeys

    def bind(self, servicer: object, methods: Iterable[Any], handlers: Mapping[str, Handler]) -> Any:
        """Gives a generated servicer its methods.

        Args:
            servicer: An instance of the generated class.
            methods: The method descriptors of its service.
            handlers: What answers each RPC, by its name; the others are UNIMPLEMENTED.

        Returns:
            The servicer.
        """
        for method in methods:
            handler = handlers.get(method.name) or _unimplemented(method.name)
            answer = self._streaming if method.server_streaming else self._unary
            setattr(servicer, method.name, answer(method.name, handler))
        return servicer

    def refuse(self, rpc: str) -> Callable[[Any, Any], Awaitable[Any]]:
        """Makes the answer to an RPC that none of the bound services has.

        Args:
            rpc: Its name.

        Returns:
            A servicer's method, to which it is UNIMPLEMENTED.
        """
        return self._unary(rpc, _unimplemented(rpc))

    def _unary(self, rpc: str, handler: Handler) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            return await self._answer(rpc, handler, request, context)

        return answer

    def _streaming(self, rpc: str, handler: Handler) -> Callable[[Any, Any], AsyncIterator[Any]]:
        async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
            for reply in await self._answer(rpc, handler, request, context):
                yield reply

        return answer

    async def _answer(self, rpc: str, handler: Handler, request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata())
        usage = self.meter.by_rpc[rpc]
        usage.calls += 1
        if self.faults.asked(metadata):
            try:
                lost = await self.faults.meet(rpc, request, metadata)
            except CallError as error:
                await _abort(context, error)
        else:
            lost = None
        call = Call(self.store, self.limits, self.rates, usage, metadata)
        try:
            self.api_keys.check(metadata)
            reply = handler(call, request)
        except CallError as error:
            call.settle(error)
            await _abort(context, error)
        if lost is not None:
            await _abort(context, lost)
        return reply


async def _abort(context: Any, error: CallError) -> NoReturn:
    trailers = () if error.err is None else (("err", str(error.err)),)
    await context.abort(_CODES[error.status], error.details, trailers)
    raise AssertionError  # abort never returns


def _unimplemented(rpc: str) -> Handler:
    def answer(_call: Call, _request: object) -> NoReturn:
        msg = f"{rpc} is not implemented by the embedded Momento server; it has caches, scalars and dictionaries"
        raise UnimplementedError(msg)

    return answer
