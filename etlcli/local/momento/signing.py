"""Signing keys: made, listed and revoked.

A client of Momento signs URLs with them. This server takes no such URLs, so a key is random, and opens nothing.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etlcli.local.momento.clock import Clock

__all__ = ["SigningKey", "SigningKeys"]

_KEY_BYTES = 64


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A signing key.

    Attributes:
        key_id: Its name.
        expires_at: When it expires, in seconds since 1970.
        gone_at: The same on the server's clock.
    """

    key_id: str
    expires_at: int
    gone_at: float


class SigningKeys:
    """The signing keys of one account.

    Args:
        clock: The time they live by.
        now: Seconds since 1970, which is how clients are told when a key expires.
    """

    def __init__(self, clock: Clock, now: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._now = now
        self._keys: dict[str, SigningKey] = {}

    def create(self, seconds: int) -> tuple[SigningKey, str]:
        """Makes a key.

        Args:
            seconds: Its time to live.

        Returns:
            What is kept of it, and the key itself, a JSON Web Key.
        """
        self._forget_expired()
        key = SigningKey(str(uuid.uuid4()), int(self._now()) + seconds, self._clock() + seconds)
        self._keys[key.key_id] = key
        secret = base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).decode("ascii").rstrip("=")
        return key, json.dumps({"kty": "oct", "use": "sig", "alg": "HS512", "kid": key.key_id, "k": secret})

    def live(self) -> list[SigningKey]:
        """The keys that have neither expired nor been revoked, in the order they were made."""
        self._forget_expired()
        return list(self._keys.values())

    def revoke(self, key_id: str) -> None:
        """Takes a key back, if it is there.

        Args:
            key_id: Its name.
        """
        self._keys.pop(key_id, None)

    def _forget_expired(self) -> None:
        now = self._clock()
        self._keys = {name: key for name, key in self._keys.items() if key.gone_at > now}
