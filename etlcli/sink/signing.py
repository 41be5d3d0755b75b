"""Signature version 4 of requests that differ in nothing but their body and the second.

Source: AWS Signature Version 4, "Create a signed AWS API request". botocore works all of it out anew for each request;
here it does so once a second, and a request adds its body.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING

from botocore.auth import EMPTY_SHA256_HASH, SigV4Auth
from botocore.awsrequest import AWSRequest

if TYPE_CHECKING:
    from botocore.credentials import ReadOnlyCredentials

__all__ = ["Signer"]

_SERVICE = "dynamodb"


class Signer:
    """Signs POST requests to one URL.

    Args:
        credentials: Whose requests they are.
        region: The region to sign for.
        url: Where they go.
        headers: The headers that all of them have, all of which are signed; ``Host`` is one.
        clock: Seconds since 1970, which DynamoDB compares with its own.

    Attributes:
        credentials: As given.
    """

    def __init__(
        self,
        credentials: ReadOnlyCredentials,
        region: str,
        url: str,
        headers: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.credentials = credentials
        self._auth = SigV4Auth(credentials, _SERVICE, region)
        self._url = url
        self._own_headers = headers
        self._clock = clock
        self._second: int | None = None
        self._headers: dict[str, str] = {}
        self._key = self._before_body = self._before_digest = b""
        self._before_signature = ""

    def headers(self, body: bytes) -> dict[str, str]:
        """Name the headers of a request with this body, sent now."""
        second = int(self._clock())
        if second != self._second:
            self._begin(second)
        # The canonical request ends with the body's digest, and what is signed with that of the canonical request.
        canonical = self._before_body + sha256(body).hexdigest().encode()
        signed = self._before_digest + sha256(canonical).hexdigest().encode()
        signature = hmac.digest(self._key, signed, "sha256").hex()
        return {**self._headers, "Authorization": self._before_signature + signature}

    def _begin(self, second: int) -> None:
        """Work out what all requests of a second have in common."""
        timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        self._headers = {**self._own_headers, "X-Amz-Date": timestamp}
        if self.credentials.token:
            self._headers["X-Amz-Security-Token"] = self.credentials.token
        request = AWSRequest(method="POST", url=self._url, headers=self._headers)
        request.context["timestamp"] = timestamp
        scope = self._auth.credential_scope(request)
        self._key = f"AWS4{self.credentials.secret_key}".encode()
        for part in scope.split("/"):
            self._key = hmac.digest(self._key, part.encode(), "sha256")
        self._before_body = self._auth.canonical_request(request).removesuffix(EMPTY_SHA256_HASH).encode()
        self._before_digest = f"AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n".encode()
        names = self._auth.signed_headers(self._auth.headers_to_sign(request))
        self._before_signature = (
            f"AWS4-HMAC-SHA256 Credential={self.credentials.access_key}/{scope}, SignedHeaders={names}, Signature="
        )
        self._second = second
