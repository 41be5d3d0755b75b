"""json and jsonb: M, L, S, N, BOOL and NULL, straight from PostgreSQL's text to DynamoDB's, without a tree between.

Numbers keep their text (a float would lose digits), strings keep their escapes (PostgreSQL's are JSON's), and nothing
recurses, so no depth of nesting is too deep to be looked at.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final, cast

import orjson

from etlcli.encoding.copy_text import unescape
from etlcli.encoding.limits import MAX_ATTRIBUTE_NAME_BYTES, MAX_NESTING_LEVELS
from etlcli.encoding.nesting import check_nesting
from etlcli.encoding.numeric import number
from etlcli.encoding.options import EncodingOptions
from etlcli.encoding.registry import Unrepresentable, ValueEncoder, register, shorten
from etlcli.encoding.text import Text
from etlcli.errors import SourceError
from etlcli.model import PgType

__all__ = ["Document"]

_TOKEN: Final = re.compile(rb"""[ \t\n\r]+|([{}\[\],:])|"((?:[^"\\]|\\.)*+)"|(-?[0-9][0-9.eE+-]*)|(true|false|null)""")
_BETWEEN_STRINGS: Final = re.compile(rb"[ \t\n\r]+|([{}\[\],:])|(-?[0-9][0-9.eE+-]*)|(true|false|null)")
_ONE_NUMBER: Final = re.compile(rb"([:,\[ ]{1,16})(-?[0-9.]{1,37})([^0-9eE.]{0,48})")

_WORDS: Final = {
    b"true": b'{"BOOL":true}',
    b"false": b'{"BOOL":false}',
    b"null": b'{"NULL":true}',
    b"{": b'{"M":{',
    b"}": b"}}",
    b"[": b'{"L":[',
    b"]": b"]}",
    b",": b",",
    b":": b":",
}

_CACHED_PIECES: Final = 1024
"""How many pieces of punctuation a cache keeps; it is emptied when it is full. A schema's documents share a few."""

_CACHED_BYTES: Final = 64
"""The longest piece that is kept: a long one is a list of numbers, which hardly comes again."""

_BEFORE_VALUE: Final = 1
_BEFORE_KEY: Final = 2
"""The places of a piece's two forms, below."""


def _punctuation(piece: bytes) -> bytes:
    """Translate what stands between two strings: braces, brackets, commas, colons, numbers and words."""
    out = []
    end = 0
    for matched in _BETWEEN_STRINGS.finditer(piece):
        if matched.start() != end:
            break
        end = matched.end()
        mark, digits, word = matched.groups()
        if digits:
            out.append(b'{"N":"%b"}' % number(digits))
        elif mark or word:
            out.append(_WORDS[mark or word])
        else:
            out.append(b"\n" * matched[0].count(b"\n"))
    if end != len(piece):
        raise SourceError(f"{shorten(piece[end:])} within a json value is not JSON")
    return b"".join(out)


class _Pieces(dict[bytes, tuple[int, bytes, bytes]]):
    """Punctuation, translated: which form the piece before it takes, its own form before a value, and before a key.

    A form holds the quotes of the strings on both sides, so that documents are joined from forms and strings alone. The
    string before a piece is a key where the piece begins with a colon; the piece before that one takes its form by it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._around_numbers: dict[tuple[bytes, bytes], tuple[int, bytes, bytes, bytes]] = {}

    def __missing__(self, piece: bytes) -> tuple[int, bytes, bytes]:
        if one := _ONE_NUMBER.fullmatch(piece):
            # Numbers differ from document to document, so they are not cached, but what is around them is.
            before, digits, after = one.groups()
            form, opening, before_value, before_key = self._around_numbers.get((before, after)) or self._around(
                before, after
            )
            opening += digits
            return form, opening + before_value, opening + before_key
        after_key = piece.lstrip().startswith(b":")
        middle = (b'"' if after_key else b'"}') + _punctuation(piece)
        entry = (_BEFORE_KEY if after_key else _BEFORE_VALUE, middle + b'{"S":"', middle + b'"')
        if len(piece) <= _CACHED_BYTES:
            if len(self) >= _CACHED_PIECES:
                self.clear()
            self[piece] = entry
        return entry

    def _around(self, before: bytes, after: bytes) -> tuple[int, bytes, bytes, bytes]:
        if len(self._around_numbers) >= _CACHED_PIECES:
            self._around_numbers.clear()
        form, opening, _ = self[before]
        _, before_value, before_key = self[after or b" "]
        # Each of the two has quotes for a string at the cut, where the number is.
        opening = opening[: -len(b'{"S":"')] + b'{"N":"'
        around = (form, opening, before_value, before_key)  # and the number's closing quote and brace are a string's
        self._around_numbers[before, after] = around
        return around


class Document(ValueEncoder):
    """json or jsonb, which cannot be a key.

    Args:
        keys_may_repeat: Whether an object may have one key twice: in json, not in jsonb.
    """

    def __init__(self, *, keys_may_repeat: bool) -> None:
        self._keys_may_repeat = keys_may_repeat
        self._pieces = _Pieces()

    def content(self, text: bytes) -> bytes:
        """Translate one document.

        Raises:
            Unrepresentable: A number's rules, ``json-duplicate-key``, ``json-surrogate``, ``json-empty-key``,
                ``json-key-too-long`` or ``nesting-depth``.
        """
        value = self._without_escapes(text) if b"\\" not in text else None
        if value is None:
            value = _translate(text, keys_may_repeat=self._keys_may_repeat)
        elif b"\n" in value:  # between tokens of json, which keeps its spaces; within strings they are escaped
            value = value.replace(b"\n", b"")
        return check_nesting(value, text)

    def contents(self, cells: list[bytes]) -> list[bytes] | None:
        """Translate all documents without escapes as if they were one."""
        if self._keys_may_repeat:
            return self.each(cells)
        simple = [
            cell for cell in cells if b"\\" not in cell and cell.count(b"{") + cell.count(b"[") < MAX_NESTING_LEVELS
        ]
        try:
            translated = self._without_escapes(b"\n".join(simple))
            if translated is None:
                return self.each(cells)
            values = translated.split(b"\n")
            if len(simple) == len(cells):
                return values
            # The others, one by one, into their places.
            following = iter(values)
            left = set(simple)
            return [next(following) if cell in left else self.content(unescape(cell)) for cell in cells]
        except Unrepresentable:
            return None

    def _without_escapes(self, text: bytes) -> bytes | None:
        """Translate documents without any escape, whose strings are what stands between two quotes.

        Args:
            text: One document, or some of jsonb with line feeds between them (which are kept: jsonb writes none).

        Returns:
            None where a rule about keys may be broken, so that it is to be looked at with care.
        """
        parts = text.split(b'"')
        if len(parts) == 1:
            return _punctuation(text)
        strings = parts[1::2]
        pieces = list(map(self._pieces.__getitem__, parts[0::2]))
        some_are_long = len(text) > MAX_ATTRIBUTE_NAME_BYTES and max(map(len, strings)) > MAX_ATTRIBUTE_NAME_BYTES
        if some_are_long or self._keys_may_repeat or b"" in strings:
            keys = [string for string, piece in zip(strings, pieces[1:], strict=True) if piece[0] == _BEFORE_KEY]
            if (
                b"" in keys
                or (self._keys_may_repeat and len(set(keys)) != len(keys))
                or (some_are_long and max(map(len, keys), default=0) > MAX_ATTRIBUTE_NAME_BYTES)
            ):
                return None
        forms = cast("list[bytes]", [piece[following[0]] for piece, following in pairwise(pieces)])
        parts[0] = forms[0][len(b'"}') :]
        parts[2:-1:2] = forms[1:]
        parts[-1] = pieces[-1][_BEFORE_VALUE][: -len(b'{"S":"')]
        return b"".join(parts)


def _translate(text: bytes, *, keys_may_repeat: bool) -> bytes:
    """Translate any document, one token after the other."""
    out: list[bytes] = []
    open_objects: list[set[str] | None] = []  # the keys seen so far; None for an array
    key_is_next = False
    end = 0
    for matched in _TOKEN.finditer(text):
        if matched.start() != end:
            break
        end = matched.end()
        mark, string, digits, word = matched.groups()
        if mark:
            out.append(_WORDS[mark])
            if mark in b"{[":
                open_objects.append(set() if mark == b"{" else None)
            elif mark in b"}]":
                open_objects.pop()
            key_is_next = mark in b"{," and bool(open_objects) and open_objects[-1] is not None
        elif string is not None:
            decoded = _decode(string)
            if key_is_next:
                _check_key(decoded, open_objects[-1], text, keys_may_repeat=keys_may_repeat)
                out.append(b'"%b"' % string)
            else:
                out.append(b'{"S":"%b"}' % string)
        elif digits:
            out.append(b'{"N":"%b"}' % number(digits))
        elif word:
            out.append(_WORDS[word])
    if end != len(text):
        raise SourceError(f"{shorten(text[end:])} within a json value is not JSON")
    return b"".join(out)


def _decode(string: bytes) -> str:
    if b"\\" not in string:
        return string.decode()
    try:
        decoded: str = orjson.loads(b'"%b"' % string)
    except orjson.JSONDecodeError:
        # PostgreSQL checks the escapes of json for their form only, so half a surrogate pair is let in.
        raise Unrepresentable(
            "json-surrogate", f"the string {shorten(string)} has half a surrogate pair, which is no text in UTF-8"
        ) from None
    return decoded


def _check_key(key: str, seen: set[str] | None, text: bytes, *, keys_may_repeat: bool) -> None:
    if not key:
        # The guide asks for one character at least; dynalite takes an empty name within a map, and nobody says that
        # the service does.
        raise Unrepresentable("json-empty-key", f"an object in {shorten(text)} has an empty key")
    if len(key.encode()) > MAX_ATTRIBUTE_NAME_BYTES:
        raise Unrepresentable(
            "json-key-too-long", f"the key {shorten(key.encode())} is over {MAX_ATTRIBUTE_NAME_BYTES} bytes"
        )
    if keys_may_repeat and seen is not None:
        if key in seen:
            raise Unrepresentable(
                "json-duplicate-key", f"an object in {shorten(text)} has the key {shorten(key.encode())} twice"
            )
        seen.add(key)


@register("json", "jsonb")
def _document(pg_type: PgType, options: EncodingOptions) -> ValueEncoder:
    return Text() if options.json_as == "string" else Document(keys_may_repeat=pg_type.typname == "json")
