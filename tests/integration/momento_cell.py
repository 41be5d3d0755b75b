"""A cell of Momento's as it is reached from outside: by its name, over TLS, with an API key.

It serves from a thread of its own. What stands for the network between it and a command is an HTTP proxy, which gRPC
goes through by itself: no name has to be resolved for it, and nobody needs the right to listen on port 443.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from etlcli.local.momento.api_keys import ApiKeys
from etlcli.local.momento.server import MomentoServer, serve
from tests.integration.beside import beside

__all__ = ["ENDPOINT", "MomentoCell", "certified", "legacy_key", "momento_cell", "v2_key"]

ENDPOINT = "cell-1.momento.example"
_PIECE_BYTES = 65536


@dataclass(frozen=True)
class MomentoCell:
    """Where it is.

    Attributes:
        server: What it holds, whom it lets in.
        variables: What a command's environment needs, besides the key, to come to it.
    """

    server: MomentoServer
    variables: Mapping[str, str]


def v2_key(secret: str) -> str:
    """Make an API key that goes with an endpoint, whose signature is a secret."""
    return f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part({'t': 'g', 'id': 'etl'})}.{secret}"


def legacy_key(secret: str) -> str:
    """Make a key of the older kind, which carries its endpoint; inside is what is sent, whose signature is a secret."""
    inner = f"{_part({'alg': 'HS256'})}.{_part({'sub': 'etl'})}.{secret}"
    return base64.b64encode(json.dumps({"endpoint": ENDPOINT, "api_key": inner}).encode()).decode()


def _part(claims: Mapping[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


@contextmanager
def momento_cell(folder: Path, api_keys: ApiKeys) -> Iterator[MomentoCell]:
    """Run one that lets in these keys, with a certificate that is left in a folder."""
    tls = certified(folder, ENDPOINT)
    tls.set_alpn_protocols(["h2"])

    @asynccontextmanager
    async def serving() -> AsyncIterator[MomentoCell]:
        async with serve(port=0, api_keys=api_keys) as server:

            async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await _connect(reader, writer, tls, server.port)

            async with await asyncio.start_server(connect, "127.0.0.1", 0) as proxy:
                variables = {
                    "MOMENTO_ENDPOINT": ENDPOINT,
                    "grpc_proxy": f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}",
                    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(folder / "certificate.pem"),
                }
                yield MomentoCell(server, variables)

    with beside(serving) as cell:
        yield cell


async def _connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext, port: int) -> None:
    """Be the proxy, and then the end of the TLS behind it."""
    writers = [writer]
    try:
        asked = (await reader.readuntil(b"\r\n\r\n")).split()
        assert asked[0] == b"CONNECT"
        assert asked[1].endswith(f"{ENDPOINT}:443".encode())
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()
        await writer.start_tls(tls)
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.append(inner_writer)
        await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))
    except (OSError, asyncio.IncompleteReadError):
        pass  # whoever connected has gone
    finally:
        for each in writers:
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(_PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    writer.close()


def certified(folder: Path, host: str) -> ssl.SSLContext:
    """Make a certificate for a host, and leave it and its key in a folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(host), x509.DNSName(f"*.{host}")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return tls
