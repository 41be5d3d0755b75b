"""Signed requests over aiohttp: one in, its answer out. Neither retries nor reads what is in them.

botocore's own client takes some milliseconds of CPU for a batch of 25; this takes a tenth.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import aiohttp
from yarl import URL

from etlcli import __version__
from etlcli.errors import SinkError, Unavailable
from etlcli.hidden import masked
from etlcli.sink.connect import CONNECT_SECONDS
from etlcli.sink.signing import Signer
from etlcli.sink.translate import Place, error_for, judge, untrusted_certificate

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

    from etlcli.sink.connect import Connection

__all__ = ["REQUEST_SECONDS", "Answer", "Poster"]

REQUEST_SECONDS = 20.0
"""The deadline of one request from the wait for a connection to the answer's last byte."""

# aiohttp holds the event loop up while it writes bytes larger than this, and warns of it; a file it writes in pieces.
_WHOLE_BYTES = 2**20


def _nobody_minds() -> None:
    """Nothing keeps a request from being sent."""


class Answer(NamedTuple):
    """What came back, and the credentials that were used for asking."""

    status: int
    body: bytes
    signer: ReadOnlyCredentials


class Poster:
    """Posts requests of one action to DynamoDB.

    Args:
        connection: Where to, and as whom.
        place: The same for messages.
        action: The API's name of what is asked, for example ``BatchWriteItem``.
        connections: At most so many at once.
        request_seconds: The deadline of one request.

    Attributes:
        may_send: Called right before each request is sent; it raises where nothing may be sent any more.
    """

    def __init__(
        self, connection: Connection, place: Place, action: str, *, connections: int, request_seconds: float
    ) -> None:
        self._connection = connection
        self._place = place
        self._action = action
        self._url = URL(connection.endpoint).with_user(None)
        # The host is named, since both aiohttp and botocore would work it out anew for each request.
        self._headers = {
            "Content-Type": "application/x-amz-json-1.0",
            "Host": self._url.host_port_subcomponent or "",
            "X-Amz-Target": f"DynamoDB_20120810.{action}",
        }
        self.may_send: Callable[[], None] = _nobody_minds
        self._signer: Signer | None = None
        self._session = aiohttp.ClientSession(
            # The pool's own limit is a safeguard only: the writer's gate lets no more requests come this far.
            connector=aiohttp.TCPConnector(limit=connections, ssl=connection.tls or True),
            timeout=aiohttp.ClientTimeout(total=request_seconds, sock_connect=CONNECT_SECONDS),
            headers={"User-Agent": f"momento-etl/{__version__}"},
            # An answer is some bytes; unasked for compression its checksum is that of what arrives.
            skip_auto_headers=("Accept", "Accept-Encoding"),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Proxies are settled already, once, as botocore reads the environment. aiohttp would do it for each
            # request, and look into ~/.netrc, in a thread.
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def renew(self, refused: ReadOnlyCredentials) -> None:
        """Look for other credentials than these, which have expired.

        Raises:
            SinkError: There are none any more.
        """
        await self._connection.credentials.renew(refused)

    async def post(self, body: bytes) -> Answer:
        """Sign and send one request, and read the whole answer.

        Raises:
            Unavailable: No connection, no answer in time, one that was cut or arrived with damage.
            SinkError: The endpoint's certificate is not trusted, or the proxy refuses.
        """
        signer = await self._connection.credentials.current()
        headers = self._sign(body, signer)
        data = body if len(body) <= _WHOLE_BYTES else io.BytesIO(body)
        self.may_send()
        try:
            async with self._session.post(
                self._url, data=data, headers=headers, proxy=self._connection.proxy, allow_redirects=False
            ) as response:
                answer = await response.read()
        except aiohttp.ClientConnectorCertificateError as error:
            raise untrusted_certificate(self._place, error.certificate_error) from error
        except aiohttp.ClientHttpProxyError as error:
            verdict = judge(error.status, "")
            raise error_for(verdict, error.status, "", error.message, place=self._place, action=self._action) from error
        except aiohttp.InvalidURL as error:
            raise SinkError(f"{self._place}: not a URL that can be posted to") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unavailable(masked(str(error)) or type(error).__name__) from error
        checksum = response.headers.get("X-Amz-Crc32")
        if checksum is not None and checksum != str(zlib.crc32(answer)):
            raise self._unavailable("the answer arrived with damage: its CRC32 differs")
        return Answer(response.status, answer, signer)

    def _sign(self, body: bytes, credentials: ReadOnlyCredentials) -> dict[str, str]:
        if self._signer is None or self._signer.credentials is not credentials:
            self._signer = Signer(credentials, self._connection.region, str(self._url), self._headers)
        return self._signer.headers(body)

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(
            f"no good answer to {self._action} on {self._place} ({reason})",
            hint="check that the endpoint can be reached from here, then run the same command: it resumes",
            of_service=True,
        )
