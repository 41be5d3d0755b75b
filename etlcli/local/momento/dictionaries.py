"""The RPCs on dictionaries."""

# ruff: noqa: SLF001  the wire types' names begin with an underscore

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from momento_wire_types import cacheclient_pb2 as pb

from etlcli.local.momento.meter import operations
from etlcli.local.momento.refusals import InvalidRequestError

if TYPE_CHECKING:
    from etlcli.local.momento.service import Call, Handler

__all__ = ["HANDLERS"]


def _get(call: Call, request: pb._DictionaryGetRequest) -> pb._DictionaryGetResponse:
    dictionary = call.cache.dictionary(request.dictionary_name)
    fields = list(request.fields)
    if dictionary is None:
        call.spend(operations(len(request.dictionary_name) + sum(map(len, fields))))
        return pb._DictionaryGetResponse(missing=pb._DictionaryGetResponse._Missing())
    values = [dictionary.get(field) for field in fields]
    sizes = [len(value) for value in values if value is not None]
    call.spend(sum(map(operations, sizes)) or 1, sum(sizes))
    return pb._DictionaryGetResponse(
        found=pb._DictionaryGetResponse._Found(
            items=[
                pb._DictionaryGetResponse._DictionaryGetResponsePart(
                    result=pb.Miss if value is None else pb.Hit, cache_body=value
                )
                for value in values
            ]
        )
    )


def _fetch(call: Call, request: pb._DictionaryFetchRequest) -> pb._DictionaryFetchResponse:
    dictionary = call.cache.dictionary(request.dictionary_name)
    if dictionary is None:
        call.spend(operations(len(request.dictionary_name)))
        return pb._DictionaryFetchResponse(missing=pb._DictionaryFetchResponse._Missing())
    sizes = list(map(len, dictionary.values()))
    call.spend(sum(map(operations, sizes)), sum(sizes))
    return pb._DictionaryFetchResponse(
        found=pb._DictionaryFetchResponse._Found(
            items=[pb._DictionaryFieldValuePair(field=field, value=value) for field, value in dictionary.items()]
        )
    )


def _set(call: Call, request: pb._DictionarySetRequest) -> pb._DictionarySetResponse:
    cache = call.cache
    call.limits.check_request(request.ByteSize())
    items = [(item.field, item.value) for item in request.items]
    sizes = [len(value) for _, value in items]
    for size in sizes:
        call.limits.check_element(size)
    call.spend(sum(map(operations, sizes)) or 1, sum(sizes))
    cache.dictionary_set(request.dictionary_name, items, request.ttl_milliseconds, refresh_ttl=request.refresh_ttl)
    return pb._DictionarySetResponse()


def _increment(call: Call, request: pb._DictionaryIncrementRequest) -> pb._DictionaryIncrementResponse:
    cache = call.cache
    call.spend(1)
    value = cache.dictionary_increment(
        request.dictionary_name,
        request.field,
        request.amount,
        request.ttl_milliseconds,
        refresh_ttl=request.refresh_ttl,
    )
    return pb._DictionaryIncrementResponse(value=value)


def _delete(call: Call, request: pb._DictionaryDeleteRequest) -> pb._DictionaryDeleteResponse:
    which = request.WhichOneof("delete")
    if which is None:
        msg = "DictionaryDelete without fields"
        raise InvalidRequestError(msg)
    cache = call.cache
    call.spend(operations(len(request.dictionary_name) + sum(map(len, request.some.fields))))
    if which == "all":
        cache.dictionary_drop(request.dictionary_name)
    else:
        cache.dictionary_delete(request.dictionary_name, request.some.fields)
    return pb._DictionaryDeleteResponse()


def _length(call: Call, request: pb._DictionaryLengthRequest) -> pb._DictionaryLengthResponse:
    dictionary = call.cache.dictionary(request.dictionary_name)
    call.spend(operations(len(request.dictionary_name)))
    if dictionary is None:
        return pb._DictionaryLengthResponse(missing=pb._DictionaryLengthResponse._Missing())
    return pb._DictionaryLengthResponse(found=pb._DictionaryLengthResponse._Found(length=len(dictionary)))


HANDLERS: Mapping[str, Handler] = MappingProxyType(
    {
        "DictionaryGet": _get,
        "DictionaryFetch": _fetch,
        "DictionarySet": _set,
        "DictionaryIncrement": _increment,
        "DictionaryDelete": _delete,
        "DictionaryLength": _length,
    }
)
"""What answers each RPC, by its name on the wire."""
