"""How Momento is reached and let in: the three kinds of access, told apart by form alone, without any network.

- v2: an API key (a JWT whose claim ``t`` is ``g``) and the region's endpoint, which the key does not carry;
- legacy: a key that carries its endpoints (base64 of a JSON object with ``api_key`` and ``endpoint``, or a JWT with
  the claims ``cp`` and ``c``), so that it goes alone;
- local: ``host:port`` of a Momento Local, without TLS and without a key.

Signatures are Momento's to check: here a key is only read far enough to know what must go with it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

__all__ = ["KeyForm", "MomentoAccess", "key_form", "legacy_endpoint", "parse_endpoint", "parse_host_port"]

KeyForm: TypeAlias = Literal["v2", "legacy"]

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# What the consoles and the HTTP API put in front of the name that the SDK wants; longest first.
_ENDPOINT_PREFIXES = ("api.cache.", "cache.", "control.", "token.")


@dataclass(frozen=True, slots=True)
class MomentoAccess:
    """One of the three kinds; what does not belong to it is None.

    Attributes:
        kind: ``v2``, ``legacy`` or ``local``.
        api_key: The key, for v2 and legacy.
        endpoint: The service endpoint, for v2: ``cell-4-us-west-2-1.prod.a.momentohq.com``.
        local: ``host:port``, for local; an IPv6 host in brackets.
    """

    kind: Literal["v2", "legacy", "local"]
    api_key: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    local: str | None = None


def key_form(api_key: str) -> KeyForm | None:
    """Tell which form a key has; None for one that is neither, for example because it was cut off in copying."""
    fields = _legacy_v1_fields(api_key)
    if fields is not None:
        return "legacy" if _texts(fields, "api_key", "endpoint") else None
    claims = _jwt_claims(api_key)
    if claims is None:
        return None
    if claims.get("t") == "g":
        return "v2"
    return "legacy" if _texts(claims, "cp", "c") else None


def legacy_endpoint(api_key: str) -> str | None:
    """Take the endpoint out of a legacy key; None where it has none, or one that is no endpoint."""
    fields = _legacy_v1_fields(api_key)
    carried = fields.get("endpoint") if fields is not None else (_jwt_claims(api_key) or {}).get("c")
    try:
        return parse_endpoint(str(carried))
    except ValueError:
        return None


def parse_endpoint(text: str) -> str:
    """Read an endpoint as people paste it.

    ``https://``, a trailing slash and the prefixes ``cache.``, ``api.cache.``, ``control.`` and ``token.`` are taken
    off, since consoles and the HTTP API show them and the SDK puts its own in front.

    Raises:
        ValueError: What is left is not a host name of at least two parts.
    """
    host = text.strip()
    if key_form(host):
        # By its letters it could even be a host name.
        raise ValueError("is an API key")
    scheme, separator, rest = host.partition("://")
    if separator:
        if scheme.lower() not in ("https", "http"):
            raise ValueError("has an unknown scheme")
        host = rest
    host = host.removesuffix("/").removesuffix(":443")
    for prefix in _ENDPOINT_PREFIXES:
        if host.startswith(prefix):
            host = host.removeprefix(prefix)
            break
    if len(host) > 253 or "." not in host or not _HOST.fullmatch(host):
        raise ValueError("is not a host name")
    return host


def parse_host_port(text: str) -> tuple[str, int]:
    """Read ``host:port``, with an IPv6 host in brackets: ``127.0.0.1:8080``, ``[::1]:8080``.

    Returns:
        The host without brackets, and the port.

    Raises:
        ValueError: It is not of that form.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        raise ValueError("has no port from 1 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not re.fullmatch(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?", host) or ":" not in host:
            raise ValueError("has no IPv6 address in its brackets")
    elif not _HOST.fullmatch(host):
        raise ValueError("has no host name")
    return host, int(port)


def _legacy_v1_fields(api_key: str) -> dict[str, object] | None:
    """Decode a key that is base64 as a whole (as the SDK asks: decoded and encoded again it is the same)."""
    try:
        raw = base64.b64decode(api_key, validate=True)
    except (ValueError, binascii.Error):
        return None
    if not raw or base64.b64encode(raw) != api_key.encode("ascii"):
        return None
    return _json_object(raw) or {}


def _jwt_claims(api_key: str) -> dict[str, object] | None:
    """Read a JWT's claims without checking its signature."""
    parts = api_key.split(".")
    if len(parts) != 3 or not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in parts):
        return None
    decoded = []
    for part in parts[:2]:
        try:
            raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        except (ValueError, binascii.Error):
            return None
        decoded.append(_json_object(raw))
    header, claims = decoded
    return None if header is None else claims


def _json_object(raw: bytes) -> dict[str, object] | None:
    try:
        value = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _texts(fields: dict[str, object], *names: str) -> bool:
    return all(isinstance(fields.get(name), str) and fields[name] for name in names)
