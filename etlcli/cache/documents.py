"""Manifest, ledger pages and rejects as the JSON documents that travel in the cache.

Every document says its format. A newer one is refused, never guessed at.

A document that is stored has a checksum as its last member, over all before it and over the key that it is stored
under: a damaged one is seen, and so is one that belongs under another key. One that is too large for the account's
limit of an item is stored in parts, with an index of them in its place.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import types
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import orjson

from etlcli.block import Block
from etlcli.errors import CacheError
from etlcli.model import ChunkRecord, Manifest, Reject

__all__ = [
    "FORMAT",
    "Index",
    "UnreadableError",
    "checksum_of",
    "dump_block",
    "dump_index",
    "dump_ledger_page",
    "dump_manifest",
    "dump_pointer",
    "dump_rejects",
    "dump_runs",
    "load_block",
    "load_index",
    "load_ledger_page",
    "load_manifest",
    "load_pointer",
    "load_rejects",
    "load_runs",
    "sealed",
    "unsealed",
]

FORMAT = 1
"""The version of every document below."""

T = TypeVar("T")

_DIGEST_BYTES = 8
_SEAL = re.compile(rb'(.*),"digest":"([0-9a-f]{16})"\}', re.DOTALL)

# What a page of the ledger may hold: the fields of today, or those from before the last ones were added.
_PAGE_FIELDS = [
    list(ChunkRecord._fields[:count])
    for count in range(len(ChunkRecord._fields) - len(ChunkRecord._field_defaults), len(ChunkRecord._fields) + 1)
]

# What an index begins with, and no other document.
_INDEX = b'{"format":%d,"parts":' % FORMAT


class UnreadableError(CacheError):
    """A document is damaged, was not written by momento-etl, or by a newer one."""


class Index(NamedTuple):
    """What is stored in place of a document that is stored in parts.

    Attributes:
        parts: How many there are.
        below: Under which name below the document's key.
    """

    parts: int
    below: str


def sealed(document: bytes, key: str) -> bytes:
    """Add a checksum to a document, as its last member.

    Args:
        document: The document.
        key: The key that it will be stored under.
    """
    return b'%b,"digest":"%b"}' % (document[:-1], _digest(document, key))


def unsealed(document: bytes, key: str) -> bytes:
    """Check a document that was stored, and take its checksum away.

    One that has none was written by an earlier version, and is taken as it is.

    Raises:
        UnreadableError: It is damaged, was stored under another key, or is of a newer version.
    """
    found = _SEAL.fullmatch(document)
    if found is None:
        return document
    whole = found[1] + b"}"
    if found[2] != _digest(whole, key):
        _open(document, key)  # a newer version may reckon its checksum in another way: then that is what is said
        raise _damaged(key)
    return whole


def checksum_of(document: bytes) -> str:
    """The checksum of a document that has one."""
    found = _SEAL.fullmatch(document)
    assert found is not None, "it is sealed"
    return found[2].decode()


def dump_index(index: Index) -> bytes:
    """Write an index of parts."""
    return orjson.dumps({"format": FORMAT, **index._asdict()})


def load_index(document: bytes, what: str) -> Index | None:
    """Read an index of parts; None where the document is another one.

    Raises:
        UnreadableError: It is damaged.
    """
    if not document.startswith(_INDEX):
        return None
    data = _open(document, what)
    index = Index(_checked(int, data.get("parts"), what), _checked(str, data.get("below"), what))
    if index.parts < 1:
        raise _damaged(what)
    return index


def dump_manifest(manifest: Manifest) -> bytes:
    """Write a manifest."""
    return orjson.dumps({"format": FORMAT, **_told(manifest)})


def load_manifest(document: bytes, what: str) -> Manifest:
    """Read a manifest.

    Raises:
        UnreadableError: It is damaged or of a newer version; ``what`` names it.
    """
    return _checked(Manifest, _open(document, what), what)


def dump_block(block: Block) -> bytes:
    """Write a block."""
    return orjson.dumps({"format": FORMAT, **_told(block)})


def load_block(document: bytes, what: str) -> Block:
    """Read a block.

    Raises:
        UnreadableError: It is damaged or of a newer version.
    """
    return _checked(Block, _open(document, what), what)


def dump_ledger_page(records: list[ChunkRecord]) -> bytes:
    """Write a page of the ledger: a row a chunk, since every byte of it is metered."""
    return orjson.dumps(
        {"format": FORMAT, "fields": ChunkRecord._fields, "chunks": [tuple(record) for record in records]}
    )


def load_ledger_page(document: bytes, what: str) -> list[ChunkRecord]:
    """Read a page of the ledger. Fields that an earlier version did not write have their defaults.

    Raises:
        UnreadableError: It is damaged or of a newer version.
    """
    data = _open(document, what)
    if data.get("fields") not in _PAGE_FIELDS:
        raise _damaged(what)
    return list(_checked(tuple[ChunkRecord, ...], data.get("chunks"), what))


def dump_rejects(rejects: list[Reject]) -> bytes:
    """Write a page of rejects."""
    return orjson.dumps({"format": FORMAT, "rejects": [asdict(reject) for reject in rejects]})


def load_rejects(document: bytes, what: str) -> list[Reject]:
    """Read a page of rejects.

    Raises:
        UnreadableError: It is damaged or of a newer version.
    """
    return list(_checked(tuple[Reject, ...], _open(document, what).get("rejects"), what))


def dump_pointer(run_id: str) -> bytes:
    """Write the pointer to the newest complete extraction."""
    return orjson.dumps({"format": FORMAT, "run_id": run_id})


def load_pointer(document: bytes, what: str) -> str:
    """Read the pointer: a run_id.

    Raises:
        UnreadableError: It is damaged or of a newer version.
    """
    return _checked(str, _open(document, what).get("run_id"), what)


def dump_runs(run_ids: list[str]) -> bytes:
    """Write the list of a job's newest runs."""
    return orjson.dumps({"format": FORMAT, "runs": run_ids})


def load_runs(document: bytes, what: str) -> list[str]:
    """Read the list of a job's newest runs.

    Raises:
        UnreadableError: It is damaged or of a newer version.
    """
    return list(_checked(tuple[str, ...], _open(document, what).get("runs"), what))


def _told(value: Manifest | Block) -> dict[str, Any]:
    """The fields of an object but for those that have their defaults: every byte of a document is metered."""
    defaults = {it.name: it.default for it in fields(value)} | {
        it.name: it.default_factory() for it in fields(value) if it.default_factory is not MISSING
    }
    told = {name: getattr(value, name) for name in defaults if getattr(value, name) != defaults[name]}
    return {name: written for name, written in asdict(value).items() if name in told}


def _open(document: bytes, what: str) -> dict[str, Any]:
    try:
        data = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise _damaged(what) from error
    version = data.pop("format", None) if isinstance(data, dict) else None
    if type(version) is not int or version < 1:
        raise _damaged(what)
    if version > FORMAT:
        raise UnreadableError(
            f"{what} was written by a newer momento-etl (format {version}, this program knows {FORMAT})",
            hint="Use the newer version here too, or extract again with this one.",
        )
    assert isinstance(data, dict)
    data.pop("digest", None)  # the checksum of one that is read as it was stored
    return data


def _digest(document: bytes, key: str) -> bytes:
    return hashlib.blake2b(b"%b\0%b" % (key.encode(), document), digest_size=_DIGEST_BYTES).hexdigest().encode()


def _damaged(what: str) -> UnreadableError:
    return UnreadableError(
        f"{what} is damaged, or was not written by momento-etl", hint="Run momento-etl run (or extract) again."
    )


def _checked(kind: type[T], value: object, what: str) -> T:
    """Read a value as a type, all the way down, so that nothing that is not as it should be gets any further."""
    try:
        return cast(T, _read(kind, value))
    except (ValueError, RecursionError) as error:
        raise _damaged(what) from error


def _read(kind: Any, value: Any) -> Any:
    """Turn what JSON holds into a value of a type of ``etlcli.model``.

    Raises:
        ValueError: It is not one.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is float and type(value) is int:
        return float(value)
    if kind in (bool, int, float, str, types.NoneType):
        fits = type(value) is kind  # not isinstance: True is an int
    elif origin is Literal:
        fits = type(value) is str and value in arguments
    elif origin in (Union, types.UnionType):
        optional = [argument for argument in arguments if argument is not types.NoneType]
        assert len(optional) == 1, "the model has no other unions"
        return None if value is None else _read(optional[0], value)
    elif origin is tuple:
        kinds = itertools.repeat(arguments[0]) if arguments[-1] is Ellipsis else arguments
        elements = _a(list, value)
        return tuple([_read(kind, it) for kind, it in zip(kinds, elements, strict=arguments[-1] is not Ellipsis)])
    elif origin is dict:
        return {name: _read(arguments[1], element) for name, element in _a(dict, value).items()}
    elif is_dataclass(kind):
        return _read_object(kind, _a(dict, value))
    else:  # a named tuple
        hints, elements = _hints(kind), _a(list, value)
        if not len(hints) - len(kind._field_defaults) <= len(elements) <= len(hints):
            raise ValueError
        return kind(*[_read(hint, element) for hint, element in zip(hints.values(), elements, strict=False)])
    if not fits:
        raise ValueError
    return value


def _read_object(kind: Any, value: dict[str, Any]) -> Any:
    hints = _hints(kind)
    required = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
    if not required <= value.keys() <= hints.keys():
        raise ValueError
    return kind(**{name: _read(hints[name], element) for name, element in value.items()})


def _a(kind: type[T], value: object) -> T:
    if not isinstance(value, kind):
        raise ValueError  # noqa: TRY004  one kind of error for all that is not as it should be
    return value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
