"""The RPCs on scalars, and those on items of any type."""

# ruff: noqa: SLF001  the wire types' names begin with an underscore

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from momento_wire_types import cacheclient_pb2 as pb

from etlcli.local.momento.meter import operations
from etlcli.local.momento.refusals import CallError, InvalidRequestError, LimitError
from etlcli.local.momento.store import TtlChange, hash_of

if TYPE_CHECKING:
    from etlcli.local.momento.service import Call, Handler

__all__ = ["HANDLERS"]

_CONDITIONAL = 2  # what a conditional set costs for each operation of a plain one (see `meter`)


def _get(call: Call, request: pb._GetRequest) -> pb._GetResponse:
    value = call.cache.get(request.cache_key)
    if value is None:
        call.spend(operations(len(request.cache_key)))
        return pb._GetResponse(result=pb.Miss)
    call.spend(operations(len(value)), len(value))
    return pb._GetResponse(result=pb.Hit, cache_body=value)


def _get_with_hash(call: Call, request: pb._GetWithHashRequest) -> pb._GetWithHashResponse:
    value = call.cache.get(request.cache_key)
    if value is None:
        call.spend(operations(len(request.cache_key)))
        return pb._GetWithHashResponse(missing=pb._GetWithHashResponse._Missing())
    call.spend(operations(len(value)), len(value))
    return pb._GetWithHashResponse(found=pb._GetWithHashResponse._Found(value=value, hash=hash_of(value)))


def _set(call: Call, request: pb._SetRequest) -> pb._SetResponse:
    cache, value = call.cache, request.cache_body
    call.limits.check_item(len(value))
    call.spend(operations(len(value)), len(value))
    cache.set(request.cache_key, value, request.ttl_milliseconds)
    return pb._SetResponse(result=pb.Ok)


def _set_if(call: Call, request: pb._SetIfRequest) -> pb._SetIfResponse:
    condition = request.WhichOneof("condition")
    if condition is None:
        msg = "SetIf without a condition"
        raise InvalidRequestError(msg)
    cache, value = call.cache, request.cache_body
    call.limits.check_item(len(value))
    call.spend(_CONDITIONAL * operations(len(value)), len(value))
    other = getattr(getattr(request, condition), "value_to_check", b"")
    if cache.set_if(request.cache_key, value, request.ttl_milliseconds, condition, other):
        return pb._SetIfResponse(stored=pb._SetIfResponse._Stored())
    return pb._SetIfResponse(not_stored=pb._SetIfResponse._NotStored())


def _set_if_hash(call: Call, request: pb._SetIfHashRequest) -> pb._SetIfHashResponse:
    condition = request.WhichOneof("condition")
    if condition is None:
        msg = "SetIfHash without a condition"
        raise InvalidRequestError(msg)
    cache, value = call.cache, request.cache_body
    call.limits.check_item(len(value))
    factor = 1 if condition == "unconditional" else _CONDITIONAL
    call.spend(factor * operations(len(value)), len(value))
    other = getattr(getattr(request, condition), "hash_to_check", b"")
    stored = cache.set_if_hash(request.cache_key, value, request.ttl_milliseconds, condition, other)
    if stored is None:
        return pb._SetIfHashResponse(not_stored=pb._SetIfHashResponse._NotStored())
    return pb._SetIfHashResponse(stored=pb._SetIfHashResponse._Stored(new_hash=stored))


def _set_if_not_exists(call: Call, request: pb._SetIfNotExistsRequest) -> pb._SetIfNotExistsResponse:
    cache, value = call.cache, request.cache_body
    call.limits.check_item(len(value))
    call.spend(operations(len(value)), len(value))
    if cache.set_if(request.cache_key, value, request.ttl_milliseconds, "absent"):
        return pb._SetIfNotExistsResponse(stored=pb._SetIfNotExistsResponse._Stored())
    return pb._SetIfNotExistsResponse(not_stored=pb._SetIfNotExistsResponse._NotStored())


def _get_batch(call: Call, request: pb._GetBatchRequest) -> Iterator[pb._GetResponse]:
    cache = call.cache
    found: list[bytes | CallError | None] = []
    for item in request.items:
        try:
            found.append(cache.get(item.cache_key))
        except CallError as error:  # one item's error is the item's, not the batch's
            found.append(error)
    sizes = [len(value) for value in found if isinstance(value, bytes)]
    call.spend(sum(map(operations, sizes)) + len(found) - len(sizes) or 1, sum(sizes))
    return map(_got, found)


def _got(value: bytes | CallError | None) -> pb._GetResponse:
    if value is None:
        return pb._GetResponse(result=pb.Miss)
    if isinstance(value, CallError):
        return pb._GetResponse(result=pb.Invalid, message=value.details)
    return pb._GetResponse(result=pb.Hit, cache_body=value)


def _set_batch(call: Call, request: pb._SetBatchRequest) -> list[pb._SetResponse]:
    cache = call.cache
    call.limits.check_request(request.ByteSize())
    sizes = [len(item.cache_body) for item in request.items]
    call.spend(sum(map(operations, sizes)) or 1, sum(sizes))
    replies = []
    for item in request.items:
        try:
            cache.set(item.cache_key, item.cache_body, item.ttl_milliseconds)
        except (LimitError, InvalidRequestError) as error:
            replies.append(pb._SetResponse(result=pb.Invalid, message=error.details))
        else:
            replies.append(pb._SetResponse(result=pb.Ok))
    return replies


def _delete(call: Call, request: pb._DeleteRequest) -> pb._DeleteResponse:
    cache = call.cache
    call.spend(operations(len(request.cache_key)))
    cache.delete(request.cache_key)
    return pb._DeleteResponse()


def _keys_exist(call: Call, request: pb._KeysExistRequest) -> pb._KeysExistResponse:
    cache = call.cache
    call.spend(operations(sum(map(len, request.cache_keys))))
    return pb._KeysExistResponse(exists=[cache.item(key) is not None for key in request.cache_keys])


def _increment(call: Call, request: pb._IncrementRequest) -> pb._IncrementResponse:
    cache = call.cache
    call.spend(1)
    return pb._IncrementResponse(value=cache.increment(request.cache_key, request.amount, request.ttl_milliseconds))


_TTL_CHANGES: Mapping[TtlChange, Callable[[], pb._UpdateTtlResponse]] = MappingProxyType(
    {
        TtlChange.SET: lambda: pb._UpdateTtlResponse(set=pb._UpdateTtlResponse._Set()),
        TtlChange.NOT_SET: lambda: pb._UpdateTtlResponse(not_set=pb._UpdateTtlResponse._NotSet()),
        TtlChange.MISSING: lambda: pb._UpdateTtlResponse(missing=pb._UpdateTtlResponse._Missing()),
    }
)


def _update_ttl(call: Call, request: pb._UpdateTtlRequest) -> pb._UpdateTtlResponse:
    which = request.WhichOneof("update_ttl")
    if which is None:
        msg = "UpdateTtl without a TTL"
        raise InvalidRequestError(msg)
    cache = call.cache
    call.spend(operations(len(request.cache_key)))
    how = which.removesuffix("_to_milliseconds")
    return _TTL_CHANGES[cache.update_ttl(request.cache_key, how, getattr(request, which))]()


def _item_get_ttl(call: Call, request: pb._ItemGetTtlRequest) -> pb._ItemGetTtlResponse:
    left = call.cache.ttl_milliseconds(request.cache_key)
    call.spend(operations(len(request.cache_key)))
    if left is None:
        return pb._ItemGetTtlResponse(missing=pb._ItemGetTtlResponse._Missing())
    return pb._ItemGetTtlResponse(found=pb._ItemGetTtlResponse._Found(remaining_ttl_millis=left))


def _item_get_type(call: Call, request: pb._ItemGetTypeRequest) -> pb._ItemGetTypeResponse:
    item = call.cache.item(request.cache_key)
    call.spend(operations(len(request.cache_key)))
    if item is None:
        return pb._ItemGetTypeResponse(missing=pb._ItemGetTypeResponse._Missing())
    kind = pb._ItemGetTypeResponse.SCALAR if isinstance(item, bytes) else pb._ItemGetTypeResponse.DICTIONARY
    return pb._ItemGetTypeResponse(found=pb._ItemGetTypeResponse._Found(item_type=kind))


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "Get": _get,
        "GetWithHash": _get_with_hash,
        "GetBatch": _get_batch,
        "Set": _set,
        "SetBatch": _set_batch,
        "SetIf": _set_if,
        "SetIfHash": _set_if_hash,
        "SetIfNotExists": _set_if_not_exists,
        "Delete": _delete,
        "KeysExist": _keys_exist,
        "Increment": _increment,
        "UpdateTtl": _update_ttl,
        "ItemGetTtl": _item_get_ttl,
        "ItemGetType": _item_get_type,
    }
)
"""What answers each RPC, by its name on the wire."""
