"""Masks: what stands in place of a value that is not to be seen. NULL stays NULL."""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from etlcli.encoding.registry import ValueEncoder
from etlcli.encoding.specs import Mask
from etlcli.errors import ConfigError
from etlcli.model import AttributeType

__all__ = ["REDACTED", "mask_encoder", "mask_key_id"]

REDACTED: Final = b"***"
_ID_DIGITS: Final = 32


class _Masked(ValueEncoder):
    """S."""

    head = b'{"S":"'
    tail = b'"}'
    attribute_type: AttributeType | None = "S"


class _Hash(_Masked):
    """SHA-256 of PostgreSQL's text, in hexadecimal digits."""

    def content(self, text: bytes) -> bytes:
        return hashlib.sha256(text).hexdigest().encode()


class _Hmac(_Masked):
    """HMAC-SHA-256 of PostgreSQL's text under a secret key, in hexadecimal digits: nobody without the key can try."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def content(self, text: bytes) -> bytes:
        return hmac.digest(self._key, text, "sha256").hex().encode()


class _Redact(_Masked):
    """Three stars, whatever the value."""

    def content(self, text: bytes) -> bytes:  # noqa: ARG002  that is the point
        return REDACTED

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        return [REDACTED] * len(cells)


def mask_encoder(mask: Mask, key: bytes | None) -> ValueEncoder:
    """Build what hides a column's values.

    Raises:
        ConfigError: ``hmac`` has no key.
    """
    if mask == "hash":
        return _Hash()
    if mask == "redact":
        return _Redact()
    if not key:
        raise ConfigError(
            "a column is masked by hmac, and there is no key for it",
            hint='Add mask_key = "env:NAME" to the job\'s section, and put the key into that environment variable.',
        )
    return _Hmac(key)


def mask_key_id(key: bytes) -> str:
    """Name a key without giving it away: a run's fingerprint has this, since another key makes other items."""
    return hmac.digest(key, b"momento-etl mask key", "sha256").hex()[:_ID_DIGITS]
