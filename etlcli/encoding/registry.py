"""Which encoder writes which PostgreSQL type. The families register themselves here, one file each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias, final

from etlcli.encoding.copy_text import unescape
from etlcli.encoding.options import DEFAULT_OPTIONS, EncodingOptions
from etlcli.encoding.rules import Rule
from etlcli.model import AttributeType, PgType

__all__ = ["Unrepresentable", "ValueEncoder", "attribute_type", "encoder_for", "register", "register_kind", "shorten"]

SHOWN_CHARACTERS = 60


class Unrepresentable(Exception):  # noqa: N818  it names what is true of a value, and mostly ends as a Reject
    """A value that DynamoDB cannot hold as it is.

    Args:
        rule: The rule that it breaks.
        message: What is wrong, with the value shortened.
        column: The column's name, where it is known.
    """

    def __init__(self, rule: Rule, message: str, column: str | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.message = message
        self.column = column


def shorten(text: bytes) -> str:
    """A value as messages show it: quoted, on one line without control characters, and cut after 60 characters."""
    shown = text[: 4 * SHOWN_CHARACTERS + 4].decode(errors="replace")
    more = "..." if len(shown) > SHOWN_CHARACTERS else ""
    printable = [c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown[:SHOWN_CHARACTERS]]
    return f"'{''.join(printable)}{more}'"


class ValueEncoder(ABC):
    """Writes the values of one type as DynamoDB JSON: ``head``, the value's content, ``tail``.

    Attributes:
        head: What comes before the content of each value: ``{"S":"``.
        tail: What comes after it: ``"}``.
        attribute_type: The type a key attribute of it has; None where it cannot be a key.
    """

    head: bytes = b""
    tail: bytes = b""
    attribute_type: AttributeType | None = None

    @abstractmethod
    def content(self, text: bytes) -> bytes:
        """Write one value's content.

        Args:
            text: The value as PostgreSQL's output function wrote it, without COPY's escapes.

        Raises:
            Unrepresentable: DynamoDB cannot hold the value.
            SourceError: The text is not what PostgreSQL writes under the session settings that a source pins.
        """

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Write a column's contents at once: the fast way, chosen where all of a batch's cells allow it.

        Args:
            cells: Fields of COPY lines, escapes and all, none of them NULL.

        Returns:
            The contents, in order; None where a cell may break a rule, so that each is to be looked at on its own.
        """
        return self.each(cells)

    @final
    def each(self, cells: list[bytes]) -> list[bytes] | None:
        """What ``contents`` does where it knows no faster way: call ``content`` for each cell."""
        content = self.content
        try:
            return [content(unescape(cell)) for cell in cells]
        except Unrepresentable:
            return None

    def __call__(self, text: bytes) -> bytes:
        """Write one value: ``b'{"N":"1"}'``. Raises what ``content`` raises."""
        return self.head + self.content(text) + self.tail


Factory: TypeAlias = Callable[[PgType, EncodingOptions], ValueEncoder]

_BY_NAME: dict[tuple[str, str | None], Factory] = {}
_BY_KIND: dict[str, Factory] = {}


def register(*typnames: str, extension: str | None = None) -> Callable[[Factory], Factory]:
    """Make a factory (a function or an encoder class) the one for base types, by their name in the catalog.

    Args:
        typnames: Names in ``pg_type.typname``.
        extension: The extension that owns them; None for built-in types. Others of the same name are not meant.
    """

    def decorate(factory: Factory) -> Factory:
        _BY_NAME.update(((typname, extension), factory) for typname in typnames)
        return factory

    return decorate


def register_kind(kind: str) -> Callable[[Factory], Factory]:
    """Make a factory the one for a kind of type: ``array``, ``composite``, or ``base`` for all that nobody names."""

    def decorate(factory: Factory) -> Factory:
        _BY_KIND[kind] = factory
        return factory

    return decorate


def encoder_for(pg_type: PgType, options: EncodingOptions = DEFAULT_OPTIONS) -> ValueEncoder:
    """Build the encoder of a type. Call it once per schema, not per value.

    Args:
        pg_type: The type, with domains resolved to their base.
        options: How rows become items.
    """
    factory = None
    if pg_type.kind == "base":
        factory = _BY_NAME.get((pg_type.typname, pg_type.extension))
    return (factory or _BY_KIND.get(pg_type.kind) or _BY_KIND["base"])(pg_type, options)


def attribute_type(pg_type: PgType, options: EncodingOptions = DEFAULT_OPTIONS) -> AttributeType | None:
    """Tell the type of a key attribute made from a column; None where the column cannot be a key."""
    return encoder_for(pg_type, options).attribute_type
