"""A DynamoDB that answers writes after a set time, and forgets them.

    python -m tests.bench.endpoint UPSTREAM --state TABLE --latency-ms 5

BatchWriteItem and PutItem are answered here, as cheaply as Python can, since the endpoint shares the machine with what
is measured: it finds a request's end, counts its puts, and looks at nothing else. What is about the state table, and
whatever else is asked (DescribeTable, CreateTable, ...), goes on to a whole server behind it, so that leases and
progress are what they are elsewhere.

It prints its address, and answers each line on stdin with what it was sent so far.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress
from typing import cast

import aiohttp
import uvloop

from tests.bench.questions import answer_questions

__all__ = ["main"]

_END_OF_HEAD = b"\r\n\r\n"
_HEAD = b"HTTP/1.1 %d -\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n\r\n"
_ANSWERS = {
    b"BatchWriteItem": _HEAD % (200, 23) + b'{"UnprocessedItems":{}}',
    b"PutItem": _HEAD % (200, 2) + b"{}",
}
_PUT = b'"PutRequest"'
_PASSED_ON = ("authorization", "content-type", "x-amz-date", "x-amz-security-token", "x-amz-target")


class _Endpoint:
    """What all connections share.

    Args:
        upstream: The URL of the server behind.
        session: Asks it.
        state: The state table's name.
        seconds: How long a write takes.
    """

    def __init__(self, upstream: str, session: aiohttp.ClientSession, state: str, seconds: float) -> None:
        self.upstream = upstream
        self.session = session
        self.state = b'"%b"' % state.encode()
        self.seconds = seconds
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task[None]] = set()
        self.requests = self.items = self.size = self.in_flight = self.most_in_flight = 0

    def counts(self) -> dict[str, int]:
        """What was sent so far: write requests, items, bytes, and the most requests that waited at once."""
        return {
            "requests": self.requests,
            "items": self.items,
            "bytes": self.size,
            "most_in_flight": self.most_in_flight,
        }


class _Connection(asyncio.Protocol):
    """One client's connection; it asks one thing at a time."""

    def __init__(self, endpoint: _Endpoint) -> None:
        self._endpoint = endpoint
        self._received = bytearray()
        self._head: dict[str, str] = {}
        self._body_at = 0
        self._end = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is no subclass

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not self._end:
            at = received.find(_END_OF_HEAD)
            if at < 0:
                return
            lines = received[:at].decode("latin-1").split("\r\n")[1:]
            self._head = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            self._body_at = at + len(_END_OF_HEAD)
            self._end = self._body_at + int(self._head.get("content-length", "0"))
        if len(received) >= self._end:
            self._take()
            received.clear()
            self._end = 0

    def _take(self) -> None:
        """Answer a whole request."""
        endpoint = self._endpoint
        action = self._head.get("x-amz-target", "").rpartition(".")[2].encode()
        answer = _ANSWERS.get(action)
        if answer is None or (action == b"PutItem" and endpoint.state in self._received):
            task = endpoint.loop.create_task(self._pass_on(self._head, bytes(self._received[self._body_at :])))
            endpoint.tasks.add(task)
            task.add_done_callback(endpoint.tasks.discard)
            return
        endpoint.requests += 1
        endpoint.items += self._received.count(_PUT) or 1
        endpoint.size += self._end - self._body_at
        endpoint.in_flight += 1
        endpoint.most_in_flight = max(endpoint.most_in_flight, endpoint.in_flight)
        endpoint.loop.call_later(endpoint.seconds, self._answer, answer)

    def _answer(self, answer: bytes) -> None:
        self._endpoint.in_flight -= 1
        if not self._transport.is_closing():
            self._transport.write(answer)

    async def _pass_on(self, head: dict[str, str], body: bytes) -> None:
        headers = {name: head[name] for name in _PASSED_ON if name in head}
        async with self._endpoint.session.post(self._endpoint.upstream, data=body, headers=headers) as response:
            answer = await response.read()
        if not self._transport.is_closing():
            self._transport.write(_HEAD % (response.status, len(answer)) + answer)


async def _serve(upstream: str, state: str, seconds: float) -> None:
    async with aiohttp.ClientSession() as session:
        endpoint = _Endpoint(upstream, session, state, seconds)
        server = await endpoint.loop.create_server(lambda: _Connection(endpoint), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await answer_questions(f"http://127.0.0.1:{port}", endpoint.counts)
        server.close()


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(description="A DynamoDB that answers writes after a set time.")
    parser.add_argument("upstream", help="the URL of the server that answers everything else")
    parser.add_argument("--state", required=True, help="the name of the state table")
    parser.add_argument("--latency-ms", type=float, default=5.0, help="how long a write takes (default: %(default)s)")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options.upstream, options.state, options.latency_ms / 1000))


if __name__ == "__main__":
    main()
