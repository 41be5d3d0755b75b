"""What users write in SQL, as far as it has to be read here: PostgreSQL itself judges it."""

from __future__ import annotations

import re

from etlcli.errors import UsageError

__all__ = ["sendable", "statement_of"]

# The pieces of SQL that can hold a semicolon, and the words that can hold a dollar sign. Under
# standard_conforming_strings, which the source pins, only E'' strings have backslash escapes.
_PIECE = re.compile(
    r"""
    (?P<blank> \s+ | --[^\n]* )
  | (?P<comment> /\* )
  | (?P<end> ; )
  | [eE]'(?: [^'\\] | \\. | '' )*'
  | '[^']*'
  | "[^"]*"
  | (?P<tag> \$(?:[^\W\d]\w*)?\$ ) .*? (?P=tag)
  | [\w$]+
  | .
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(r"/\*|\*/")


def sendable(text: str, what: str) -> str:
    """Return a text that PostgreSQL can be sent.

    Raises:
        UsageError: It holds a NUL, or what no encoding has (bytes of the command line that are not UTF-8).
    """
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise UsageError(
            f"{what} holds a character that PostgreSQL cannot take",
            hint="Write it in UTF-8, and without NUL characters.",
        )
    return text


def statement_of(query: str) -> str:
    """Drop the semicolon that people end a statement with, and the comments behind it.

    A query with anything more behind a semicolon is returned as it is: PostgreSQL refuses it.

    Raises:
        UsageError: There is nothing but space and comments.
    """
    position = 0
    found = end = None
    while position < len(query):
        match = _PIECE.match(query, position)
        assert match is not None
        position = match.end()
        if match["comment"]:
            position = _after_comment(query, position)
        elif match["end"]:
            end = match.start() if end is None else end
        elif not match["blank"]:
            if end is not None:
                return query
            found = position
    if found is None:
        raise UsageError("the query is empty", hint="Give one statement that only reads: SELECT, VALUES or TABLE.")
    return query if end is None else query[:end]


def _after_comment(query: str, position: int) -> int:
    """Find where a block comment ends whose opening was read; they nest."""
    depth = 1
    while depth:
        edge = _COMMENT_EDGE.search(query, position)
        if edge is None:
            return len(query)
        depth += 1 if edge.group() == "/*" else -1
        position = edge.end()
    return position
