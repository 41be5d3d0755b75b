"""Where each key of a TOML text stands: ``tomllib`` reads values, and keeps no line numbers.

The text has been read by ``tomllib`` before, so it is valid, and the scanner need only tell keys from values. Should
it come to other keys than ``tomllib`` did, it says nothing: no line is better than a wrong one.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

__all__ = ["Path", "locate"]

Path: TypeAlias = tuple[str, ...]
"""A key with all that it stands in: ``("tables", "movies", "key")``."""


def locate(text: str, document: Mapping[str, object]) -> dict[Path, int]:
    """Find the line, from 1, of each key and section of a text that ``tomllib`` read as ``document``."""
    scanner = _Scanner(text.replace("\r\n", "\n"))
    try:
        scanner.scan()
    except (IndexError, ValueError, RecursionError):
        return {}
    leaves = set(_leaves(document))
    return scanner.lines if scanner.leaves == leaves else {}


def _leaves(table: Mapping[str, object], prefix: Path = ()) -> Iterator[Path]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*prefix, key))
        else:
            yield (*prefix, key)


class _Scanner:
    """Walks over a valid TOML text. ``IndexError`` and ``ValueError`` mean that it lost its way."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self.leaves: set[Path] = set()
        self._starts = [0, *(place + 1 for place, character in enumerate(text) if character == "\n")]
        # Paths of arrays of tables: what stands in their elements has no path of its own.
        self._arrays: set[Path] = set()

    def scan(self) -> None:
        prefix: Path | None = ()
        while self._skip_blank():
            prefix = self._header() if self.text[self.at] == "[" else self._pair(prefix)

    def _header(self) -> Path | None:
        """Read ``[a.b]`` or ``[[a.b]]``; answer what the keys below it stand in, None inside an array."""
        line = self._line()
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        path = self._key()
        self._expect("]]" if array else "]")
        inside = any(path[:length] in self._arrays for length in range(1, len(path) + 1))
        if not inside:
            for length in range(1, len(path) + 1):
                self._note(path[:length], line)
        if array:
            if not inside:
                self._arrays.add(path)
                self.leaves.add(path)
            return None
        return None if inside else path

    def _pair(self, prefix: Path | None) -> Path | None:
        """Read ``key = value``; answer the prefix, for the next one."""
        line = self._line()
        key = self._key()
        self._expect("=")
        path = None if prefix is None else (*prefix, *key)
        if path is not None:
            for length in range(len(path) - len(key) + 1, len(path) + 1):
                self._note(path[:length], line)
        self._value(path)
        return prefix

    def _key(self) -> Path:
        parts = []
        while True:
            self._skip(" \t")
            start = self.at
            if self.text[self.at] in "\"'":
                self._string()
                parts.append(str(tomllib.loads(f"key = {self.text[start : self.at]}")["key"]))
            else:
                while self.text[self.at].isalnum() or self.text[self.at] in "-_":
                    self.at += 1
                if start == self.at:
                    raise ValueError("no key")
                parts.append(self.text[start : self.at])
            self._skip(" \t")
            if self.text[self.at] != ".":
                return tuple(parts)
            self.at += 1

    def _value(self, path: Path | None) -> None:
        """Skip a value; the keys of an inline table are noted."""
        self._skip(" \t")
        character = self.text[self.at]
        if path is not None and character != "{":
            self.leaves.add(path)
        if character in "\"'":
            self._string()
        elif character == "[":
            self._sequence("]", lambda: self._value(None))
        elif character == "{":
            self._sequence("}", lambda: self._pair(path))
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1

    def _sequence(self, end: str, element: Callable[[], object]) -> None:
        self.at += 1
        self._skip_blank()
        while self.text[self.at] != end:
            element()
            self._skip_blank()
            if self.text[self.at] == ",":
                self.at += 1
                self._skip_blank()
        self.at += 1

    def _string(self) -> None:
        quote = self.text[self.at]
        delimiter = quote * 3 if self.text.startswith(quote * 3, self.at) else quote
        self.at += len(delimiter)
        while not self.text.startswith(delimiter, self.at):
            # In a literal string (single quotes) a backslash is one.
            self.at += 2 if self.text[self.at] == "\\" and quote == '"' else 1
        self.at += len(delimiter)
        if len(delimiter) == 3:
            # Up to two quotes may stand right before the closing three.
            extra = 0
            while extra < 2 and self.text.startswith(quote, self.at):
                self.at += 1
                extra += 1

    def _skip(self, characters: str) -> None:
        while self.at < len(self.text) and self.text[self.at] in characters:
            self.at += 1

    def _skip_blank(self) -> bool:
        """Skip whitespace, newlines and comments; answer whether anything follows."""
        while self.at < len(self.text):
            self._skip(" \t\n")
            if not self.text.startswith("#", self.at):
                break
            end = self.text.find("\n", self.at)
            self.at = len(self.text) if end == -1 else end
        return self.at < len(self.text)

    def _expect(self, token: str) -> None:
        self._skip(" \t")
        if not self.text.startswith(token, self.at):
            raise ValueError(f"no {token}")
        self.at += len(token)

    def _line(self) -> int:
        return bisect_right(self._starts, self.at)

    def _note(self, path: Path, line: int) -> None:
        self.lines.setdefault(path, line)
