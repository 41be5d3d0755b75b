"""The listening port: start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
from momento_wire_types import cacheclient_pb2, cacheclient_pb2_grpc, controlclient_pb2, controlclient_pb2_grpc

from etlcli.errors import EtlError
from etlcli.local.momento import control, dictionaries, scalars
from etlcli.local.momento.api_keys import ApiKeys
from etlcli.local.momento.faults import Faults
from etlcli.local.momento.limits import NO_LIMITS, Limits
from etlcli.local.momento.meter import Meter
from etlcli.local.momento.service import Rates, Service
from etlcli.local.momento.store import Store

if TYPE_CHECKING:
    from etlcli.local.momento.clock import Clock

__all__ = ["DEFAULT_PORT", "STOP_SECONDS", "MomentoServer", "run", "serve"]

DEFAULT_PORT = 8080
"""The port of the official Momento Local, and the SDK's default for it."""

STOP_SECONDS = 2.0
"""What calls in flight get when a signal stops the server."""

_CURES: Mapping[int | None, str] = {
    errno.EADDRINUSE: "Choose another port, or stop what listens there.",
    errno.EACCES: "Choose a port above 1023.",
}
_SPARE_BYTES = 1024 * 1024  # over the largest request allowed, so that our limits answer, with their trailers
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # otherwise a second server on the same port is no error, and gets half the calls
    # The SDK pings every 5 s, with calls and without; gRPC would take that for an attack and close the connection.
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


@dataclass(frozen=True, slots=True)
class MomentoServer:
    """A running server.

    Attributes:
        host: The address it listens on.
        port: The port it listens on.
        limits: What is allowed.
        store: What it holds.
        meter: What was used.
        faults: The faults that calls meet; tests add to them.
        api_keys: The API keys that are let in; tests change them.
    """

    host: str
    port: int
    limits: Limits
    store: Store
    meter: Meter
    faults: Faults
    api_keys: ApiKeys

    @property
    def address(self) -> str:
        """Host and port, as a client is told them."""
        return _address(self.host, self.port)


@contextlib.asynccontextmanager
async def serve(
    port: int = 0,
    *,
    host: str = "127.0.0.1",
    limits: Limits = NO_LIMITS,
    clock: Clock = time.monotonic,
    faults: Faults | None = None,
    api_keys: ApiKeys | None = None,
    sweep_seconds: float = 1.0,
    stop_seconds: float = 0.0,
) -> AsyncIterator[MomentoServer]:
    """Runs a server while the block runs, on the running event loop.

    Args:
        port: The port; 0 for a free one.
        host: The address. Nothing is encrypted, and without API keys anyone is let in, so keep it on loopback.
        limits: What is allowed.
        clock: The time that TTLs and rates go by; not delays, for which see `Faults.sleep`.
        faults: Faults to start with.
        api_keys: The API keys that are let in; None for any, and for none.
        sweep_seconds: How often expired entries are removed, in real time.
        stop_seconds: What calls in flight get at the end.

    Yields:
        The server.

    Raises:
        EtlError: The port is taken, or there is no such address.
    """
    store, meter, faults, api_keys = Store(limits, clock), Meter(), faults or Faults(), api_keys or ApiKeys()
    largest = limits.max_request_bytes + _SPARE_BYTES
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", largest),
            *_OPTIONS,
        )
    )
    _add_services(server, Service(store, limits, Rates(limits, clock), meter, faults, api_keys))
    try:
        bound = server.add_insecure_port(_address(host, port))
    except RuntimeError as error:
        raise _cannot_listen(host, port) from error
    await server.start()
    sweeper = asyncio.create_task(_sweep(store, sweep_seconds))
    try:
        yield MomentoServer(host, bound, limits, store, meter, faults, api_keys)
    finally:
        sweeper.cancel()
        await server.stop(stop_seconds)


def run(
    port: int = DEFAULT_PORT,
    limits: Limits = NO_LIMITS,
    *,
    host: str = "127.0.0.1",
    ready: Callable[[MomentoServer], None] | None = None,
) -> None:
    """Runs a server until SIGTERM or SIGINT, which let calls in flight finish.

    Args:
        port: The port; 0 for a free one.
        limits: What is allowed.
        host: The address. The server asks for no credentials, so keep it on loopback.
        ready: Called once it listens.

    Raises:
        EtlError: The port is taken, or there is no such address.
    """
    asyncio.run(_run(port, limits, host, ready))


async def _run(port: int, limits: Limits, host: str, ready: Callable[[MomentoServer], None] | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serve(port, host=host, limits=limits, stop_seconds=STOP_SECONDS) as server:
        if ready is not None:
            ready(server)
        await stop.wait()


def _add_services(server: grpc.aio.Server, service: Service) -> None:
    cacheclient_pb2_grpc.add_ScsServicer_to_server(  # type: ignore[no-untyped-call]
        service.bind(
            cacheclient_pb2_grpc.ScsServicer(),
            cacheclient_pb2.DESCRIPTOR.services_by_name["Scs"].methods,
            {**scalars.HANDLERS, **dictionaries.HANDLERS},
        ),
        server,
    )
    controlclient_pb2_grpc.add_ScsControlServicer_to_server(  # type: ignore[no-untyped-call]
        service.bind(
            controlclient_pb2_grpc.ScsControlServicer(),
            controlclient_pb2.DESCRIPTOR.services_by_name["ScsControl"].methods,
            control.HANDLERS,
        ),
        server,
    )
    server.add_generic_rpc_handlers((_OtherServices(service),))


class _OtherServices(grpc.GenericRpcHandler):
    """Topics, leaderboards, tokens and whatever else Momento has: each call to one is UNIMPLEMENTED, and says so."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        rpc = handler_call_details.method.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(self._service.refuse(rpc))


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(host: str, port: int) -> EtlError:
    """Asks the system what gRPC's error does not say."""
    why, hint = "gRPC could not bind it", "Choose another port."
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except (OSError, OverflowError) as error:
        why = str(getattr(error, "strerror", None) or error).lower()
        hint = _CURES.get(getattr(error, "errno", None), "Give an address of this machine: 127.0.0.1 is always one.")
    return EtlError(f"the Momento server cannot listen on {_address(host, port)}: {why}", hint=hint)


async def _sweep(store: Store, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        store.sweep()
