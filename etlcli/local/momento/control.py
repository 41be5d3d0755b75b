"""The RPCs that manage caches and signing keys."""

# ruff: noqa: SLF001  the wire types' names begin with an underscore

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from momento_wire_types import controlclient_pb2 as pb

from etlcli.local.momento.meter import CHUNK_BYTES

if TYPE_CHECKING:
    from etlcli.local.momento.limits import Limits
    from etlcli.local.momento.service import Call, Handler

__all__ = ["HANDLERS"]


def _create_cache(call: Call, request: pb._CreateCacheRequest) -> pb._CreateCacheResponse:
    call.spend_control()
    call.store.create(request.cache_name)
    return pb._CreateCacheResponse()


def _delete_cache(call: Call, request: pb._DeleteCacheRequest) -> pb._DeleteCacheResponse:
    call.spend_control()
    call.store.delete(request.cache_name)
    return pb._DeleteCacheResponse()


def _flush_cache(call: Call, request: pb._FlushCacheRequest) -> pb._FlushCacheResponse:
    call.spend_control()
    call.store.cache(request.cache_name).flush()
    return pb._FlushCacheResponse()


def _list_caches(call: Call, _request: pb._ListCachesRequest) -> pb._ListCachesResponse:
    call.spend_control()
    limits = _limits(call.limits)
    return pb._ListCachesResponse(
        cache=[pb._Cache(cache_name=name, cache_limits=limits) for name in call.store.names()]
    )


def _create_signing_key(call: Call, request: pb._CreateSigningKeyRequest) -> pb._CreateSigningKeyResponse:
    call.spend_control()
    made, key = call.store.signing_keys.create(request.ttl_minutes * 60)
    return pb._CreateSigningKeyResponse(key=key, expires_at=made.expires_at)


def _list_signing_keys(call: Call, _request: pb._ListSigningKeysRequest) -> pb._ListSigningKeysResponse:
    call.spend_control()
    return pb._ListSigningKeysResponse(
        signing_key=[
            pb._SigningKey(key_id=key.key_id, expires_at=key.expires_at) for key in call.store.signing_keys.live()
        ]
    )


def _revoke_signing_key(call: Call, request: pb._RevokeSigningKeyRequest) -> pb._RevokeSigningKeyResponse:
    call.spend_control()
    call.store.signing_keys.revoke(request.key_id)
    return pb._RevokeSigningKeyResponse()


def _limits(limits: Limits) -> pb._CacheLimits:
    """The limits as the service lists them; 0 for one that does not hold here."""
    return pb._CacheLimits(
        max_traffic_rate=int(limits.operations_per_second or 0),
        max_throughput_kbps=int((limits.bytes_per_second or 0) // CHUNK_BYTES),
        max_item_size_kb=-(-limits.max_item_bytes // CHUNK_BYTES),  # rounded up: 5 MB is listed as 4883
        max_ttl_seconds=limits.max_ttl_seconds,
    )


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "CreateCache": _create_cache,
        "DeleteCache": _delete_cache,
        "FlushCache": _flush_cache,
        "ListCaches": _list_caches,
        "CreateSigningKey": _create_signing_key,
        "ListSigningKeys": _list_signing_keys,
        "RevokeSigningKey": _revoke_signing_key,
    }
)
"""What answers each RPC, by its name on the wire."""
