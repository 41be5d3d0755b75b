"""A bare sketch of the product's path, for this one table, in one file and with no promises: what is there to be had.

COPY's text becomes DynamoDB JSON once, is packed with zstd, goes through Momento with set and get, and is posted in
signed batches by aiohttp under uvloop, 64 at once. No snapshot's settings, no ledger, no checksums, no retries, no
rejects, no lease, no bound on anything but its queues: what fails, fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import psycopg
import uvloop
import zstandard
from momento import CacheClientAsync, Configurations
from momento.responses import CacheGet, CacheSet, CreateCache
from psycopg import sql

from tests.bench.ways.places import Places, arrived, asked_for, momento_at

__all__ = ["encode"]

_CHUNK_ROWS = 6000
_CHUNKS_AT_ONCE = 4
_IN_FLIGHT = 64
_BATCH = 25
_TTL = timedelta(minutes=80)


def encode(line: bytes) -> bytes:
    """Make an item of a line of COPY's text, for texts without a backslash."""
    number, title, year, rating, genres, country, runtime, tagline, updated_at, colour, extra = line.split(b"\t")
    return (
        b'{"movie_id":{"N":"%b"},"title":{"S":%b},"year":{"N":"%b"},"rating":{"N":"%b"},"genres":{"L":[%b]},'
        b'"country":{"S":%b},"runtime":{"N":"%b"},"tagline":{"S":%b},"updated_at":{"S":"%b"},"colour":{"BOOL":%b},'
        b'"extra":%b}'
        % (
            number,
            orjson.dumps(title.decode()),
            year,
            rating,
            b",".join([b'{"S":"%b"}' % genre.strip(b'"') for genre in genres[1:-1].split(b",")]),
            orjson.dumps(country.decode()),
            runtime,
            orjson.dumps(tagline.decode()),
            updated_at.replace(b" ", b"T").replace(b"+00", b"Z"),
            b"true" if colour == b"t" else b"false",
            orjson.dumps(_attribute(orjson.loads(extra))),
        )
    )


def _attribute(value: Any) -> dict[str, Any]:
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int() | float():
            return {"N": str(value)}
        case dict():
            return {"M": {name: _attribute(part) for name, part in value.items()}}
        case list():
            return {"L": [_attribute(part) for part in value]}
    return {"NULL": True}


class _Signer:
    """Signature version 4 of posts to one endpoint, with a key of the day."""

    def __init__(self, endpoint: str) -> None:
        self._host = urlsplit(endpoint).netloc
        self._day = datetime.now(UTC).strftime("%Y%m%d")
        self._scope = f"{self._day}/{os.environ['AWS_REGION']}/dynamodb/aws4_request"
        key = f"AWS4{os.environ['AWS_SECRET_ACCESS_KEY']}".encode()
        for part in self._scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        self._key = key

    def headers(self, body: bytes) -> dict[str, str]:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        target = "DynamoDB_20120810.BatchWriteItem"
        request = (
            f"POST\n/\n\nhost:{self._host}\nx-amz-date:{now}\nx-amz-target:{target}\n\n"
            f"host;x-amz-date;x-amz-target\n{hashlib.sha256(body).hexdigest()}"
        )
        text = f"AWS4-HMAC-SHA256\n{now}\n{self._scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key, text.encode(), "sha256").hex()
        return {
            "Host": self._host,
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Date": now,
            "X-Amz-Target": target,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{self._scope},"
            f" SignedHeaders=host;x-amz-date;x-amz-target, Signature={signature}",
        }


async def _copy(places: Places) -> int:
    lines: asyncio.Queue[list[bytes] | None] = asyncio.Queue(_CHUNKS_AT_ONCE)
    chunks: asyncio.Queue[str | None] = asyncio.Queue(_CHUNKS_AT_ONCE)
    batches: asyncio.Queue[list[bytes] | None] = asyncio.Queue(2 * _IN_FLIGHT)
    async with (
        CacheClientAsync(Configurations.Laptop.v1(), momento_at(places.momento), _TTL) as client,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=_IN_FLIGHT)) as session,
        await psycopg.AsyncConnection.connect(places.postgres_url) as connection,
        asyncio.TaskGroup() as group,
    ):
        created = await client.create_cache(places.cache)
        assert not isinstance(created, CreateCache.Error), created
        signer = _Signer(places.dynamodb_url)
        group.create_task(_read(places, connection, lines))
        storing = [group.create_task(_store(places, client, lines, chunks)) for _ in range(_CHUNKS_AT_ONCE)]
        fetching = [group.create_task(_fetch(places, client, chunks, batches)) for _ in range(_CHUNKS_AT_ONCE)]
        writing = [group.create_task(_write(places, session, signer, batches)) for _ in range(_IN_FLIGHT)]
        await asyncio.gather(*storing)
        await chunks.put(None)
        await asyncio.gather(*fetching)
        await batches.put(None)
        return sum(await asyncio.gather(*writing))


async def _read(
    places: Places, connection: psycopg.AsyncConnection[Any], lines: asyncio.Queue[list[bytes] | None]
) -> None:
    chunk: list[bytes] = []
    await connection.execute("set timezone = 'UTC'")
    statement = sql.SQL("copy (select * from {} order by 1) to stdout").format(sql.Identifier(places.table))
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        async for line in copy:
            chunk.append(encode(bytes(line)[:-1]))
            if len(chunk) == _CHUNK_ROWS:
                await lines.put(chunk)
                chunk = []
    if chunk:
        await lines.put(chunk)
    await lines.put(None)


async def _store(
    places: Places,
    client: CacheClientAsync,
    lines: asyncio.Queue[list[bytes] | None],
    chunks: asyncio.Queue[str | None],
) -> None:
    while (chunk := await lines.get()) is not None:
        key = secrets.token_hex(8)
        stored = await client.set(places.cache, key, zstandard.compress(b"\n".join(chunk), 3), _TTL)
        assert isinstance(stored, CacheSet.Success), stored
        await chunks.put(key)
    await lines.put(None)  # for the next one


async def _fetch(
    places: Places,
    client: CacheClientAsync,
    chunks: asyncio.Queue[str | None],
    batches: asyncio.Queue[list[bytes] | None],
) -> None:
    while (key := await chunks.get()) is not None:
        found = await client.get(places.cache, key)
        assert isinstance(found, CacheGet.Hit), found
        items = zstandard.decompress(found.value_bytes).split(b"\n")
        for start in range(0, len(items), _BATCH):
            await batches.put(items[start : start + _BATCH])
    await chunks.put(None)


async def _write(
    places: Places, session: aiohttp.ClientSession, signer: _Signer, batches: asyncio.Queue[list[bytes] | None]
) -> int:
    written = 0
    while (items := await batches.get()) is not None:
        puts = b'}},{"PutRequest":{"Item":'.join(items)
        body = b'{"RequestItems":{"%b":[{"PutRequest":{"Item":%b}}]}}' % (places.destination.encode(), puts)
        async with session.post(places.dynamodb_url, data=body, headers=signer.headers(body)) as response:
            answer = await response.read()
        assert answer == b'{"UnprocessedItems":{}}', answer
        written += len(items)
    await batches.put(None)
    return written


def main() -> None:
    """Copy a table."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        arrived(runner.run(_copy(asked_for())))


if __name__ == "__main__":
    main()
