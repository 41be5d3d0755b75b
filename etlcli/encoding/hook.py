"""A user's own function over finished items: ``transform = "module:function"``.

It gets each item as a dict of Python values, and returns a dict, or None to drop the row. What it returns is written
and checked by the same rules as what comes from PostgreSQL. An error in it is that row's alone.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn, TypeAlias

from etlcli.encoding.limits import MAX_HASH_KEY_BYTES, MAX_RANGE_KEY_BYTES
from etlcli.encoding.near import near_names
from etlcli.encoding.python_values import from_python, name_of, to_python
from etlcli.encoding.registry import Unrepresentable, shorten
from etlcli.encoding.rules import Rule
from etlcli.encoding.writers import key_problem
from etlcli.errors import ConfigError
from etlcli.hidden import masked
from etlcli.model import AttributeType, Key

__all__ = ["ItemTransform", "Transform", "load_transform"]

Function: TypeAlias = Callable[[dict[str, Any]], dict[str, Any] | None]

_FORM: Final = 'Write transform = "module:function".'
_SHOWN_PLACES: Final = 6
_VALUE_START: Final = len(b'{"S":"')
_VALUE_END: Final = len(b'"}')


@dataclass(frozen=True, slots=True)
class Transform:
    """A function that was found.

    Attributes:
        reference: ``module:function``.
        function: The function.
        digest: Hex digest of its module's source file; a run's fingerprint has it, since other code makes other items.
    """

    reference: str
    function: Function
    digest: str


def load_transform(reference: str, folder: Path | None = None) -> Transform:
    """Import the function that a config names. Modules in the current folder can be imported too.

    Args:
        reference: ``package.module:function``.
        folder: The folder that counts as the current one.

    Raises:
        ConfigError: There is no such module or function, importing it fails, or it is no function of one argument that
            returns its result as it is called.
    """
    module_name, colon, path = reference.strip().partition(":")
    if not colon or not all(part.isidentifier() for name in (module_name, path) for part in name.split(".")):
        raise ConfigError(f"transform: {reference!r} is not the name of a function in a module", hint=_FORM)
    here = str(folder or Path.cwd())
    if here not in sys.path:
        # Last: a file of the user's that is called like a library must not take its place.
        sys.path.append(here)
    module = _module(module_name, reference, here)
    try:
        function = operator.attrgetter(path)(module)
    except AttributeError:
        names = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ConfigError(
            f"transform {reference}: the module {module_name} ({_file(module)}) has no {path}",
            hint=near_names(path, names),
        ) from None
    _check(function, reference)
    return Transform(reference, function, _digest(module))


def _module(name: str, reference: str, here: str) -> ModuleType:
    try:
        # A module may have been written since Python last listed its folder.
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            _not_importable(name, reference, error)
        places = [place or here for place in sys.path]
        shown = places if len(places) <= _SHOWN_PLACES else [*places[: _SHOWN_PLACES - 1], "...", places[-1]]
        raise ConfigError(
            f"transform {reference}: there is no module {name}",
            hint=f"It is looked for in the current folder, {here}, and on Python's path (sys.path, PYTHONPATH):"
            f" {', '.join(shown)}.",
        ) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  a user's module can raise anything
        _not_importable(name, reference, error)


def _not_importable(name: str, reference: str, error: BaseException) -> NoReturn:
    raise ConfigError(
        f"transform {reference}: importing the module {name} failed: {type(error).__name__}: {_message(error)}",
        hint=f"Try it alone, in the current folder: python -c 'import {name}'. What it imports has to be on Python's"
        " path (sys.path, PYTHONPATH) or in the current folder.",
    ) from error


def _check(function: object, reference: str) -> None:
    if not callable(function):
        raise ConfigError(
            f"transform {reference}: it is not a function, but a value of type {type(function).__name__}", hint=_FORM
        )
    inner: object = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    for candidate in (inner, type(inner).__call__):  # the second is that of an object that can be called
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise _refused(reference, "is asynchronous", "Make it a plain function: def, without async.")
        if inspect.isgeneratorfunction(candidate):
            raise _refused(reference, "is a generator", "Return the item instead of yielding it.")
    try:
        inspect.signature(function).bind({})
    except ValueError:
        return  # some of Python's own have no signature that could be asked for
    except TypeError as error:
        raise _refused(
            reference, f"cannot be called with one item: {error}", "It takes one argument: a dict."
        ) from None


def _refused(reference: str, why: str, hint: str) -> ConfigError:
    return ConfigError(f"transform {reference}: the function {why}", hint=hint)


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "built in"


def _digest(module: ModuleType) -> str:
    try:
        content = Path(_file(module)).read_bytes()
    except OSError:
        content = b""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _message(error: BaseException) -> str:
    try:
        return shorten(masked(str(error)).encode(errors="replace"))
    except Exception:  # noqa: BLE001  a user's exception can fail to say what it is, too
        return "(no message)"


class ItemTransform:
    """A transform over encoded items of one key.

    Args:
        transform: The function.
        key: The destination key.
        reserved: An attribute name that is not the user's to write; None for none.
    """

    def __init__(self, transform: Transform, key: Key, reserved: str | None = None) -> None:
        self._transform = transform
        self._reserved = reserved
        limits = (MAX_HASH_KEY_BYTES, MAX_RANGE_KEY_BYTES)
        self._key: dict[str, tuple[AttributeType, int]] = {
            attribute.name: (attribute.type, limit) for attribute, limit in zip(key.attributes, limits, strict=False)
        }

    def __call__(self, item: bytes) -> bytes | None:
        """Transform an item. The key comes first in what is returned, then the rest in the order of the dict.

        Returns:
            The new item, or None where it is dropped.

        Raises:
            Unrepresentable: ``transform-error``: the function raised something. ``transform-value``: it returned what
                is no item. Or a rule of keys, numbers or nesting.
        """
        result = self._called(to_python(item))
        if result is None:
            return None
        if not isinstance(result, dict):
            # A coroutine that nobody waits for would complain on its own.
            if inspect.iscoroutine(result):
                result.close()
            raise self._wrong("transform-value", f"returned a {type(result).__name__}, neither a dict nor None")
        try:
            members = [self._key_member(name, result.get(name), limits) for name, limits in self._key.items()]
            members += [
                b'"%b":%b' % (name_of(name), from_python(name, value))
                for name, value in result.items()
                if name not in self._key
            ]
        except Unrepresentable as problem:
            raise self._wrong(problem.rule, f"returned an item that cannot be kept: {problem.message}") from None
        if self._reserved is not None and self._reserved in result:
            raise self._wrong("transform-value", f"returned the attribute {self._reserved}, which is momento-etl's own")
        return b"{" + b",".join(members) + b"}"

    def _called(self, item: dict[str, Any]) -> Any:
        try:
            return self._transform.function(item)
        except MemoryError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever it is, it is about this row
            raise self._wrong("transform-error", f"raised {type(error).__name__}: {_message(error)}") from None

    def _key_member(self, name: str, value: Any, rule: tuple[AttributeType, int]) -> bytes:
        kind, limit = rule
        if value is None:
            raise Unrepresentable("key-null", f"the key attribute {name} is missing")
        written = from_python(name, value)
        if not written.startswith(b'{"%b":"' % kind.encode()):
            raise Unrepresentable("key-type", f"the key attribute {name} has to be of type {kind}")
        if wrong := key_problem(written[_VALUE_START:-_VALUE_END], kind, limit):
            raise Unrepresentable(wrong[0], f"the key attribute {name}: {wrong[1]}")
        return b'"%b":%b' % (name_of(name), written)

    def _wrong(self, rule: Rule, what: str) -> Unrepresentable:
        return Unrepresentable(rule, f"the transform {self._transform.reference} {what}")
