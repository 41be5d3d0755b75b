"""Table names as people type them: ``movies``, ``sales.orders``, ``"Order Details"``, ``sales."Order Details"``."""

from __future__ import annotations

from etlcli.errors import UsageError

__all__ = ["candidates"]


def candidates(text: str) -> list[tuple[str, ...]]:
    """List what a typed name can mean, likeliest first: each one ``(table,)`` or ``(schema, table)``.

    Without quotes, case is kept as typed and one dot separates schema from table; a table whose own name has a dot is
    the second guess, and the name in lower case (what SQL would read) the last one.

    Raises:
        UsageError: The name is empty, or its quotes do not match.
    """
    name = text.strip()
    if not name:
        raise UsageError("the table's name is empty", hint="Name a table: --table movies, or --table sales.orders.")
    if '"' in name:
        return [_quoted(name)]
    guesses: list[tuple[str, ...]] = []
    schema, dot, table = name.partition(".")
    if dot and schema and table:
        guesses.append((schema, table))
    guesses.append((name,))
    return list(dict.fromkeys([*guesses, *(tuple(part.lower() for part in guess) for guess in guesses)]))


def _quoted(name: str) -> tuple[str, ...]:
    """Read a name with quoted parts as SQL does: a quoted part is literal, an unquoted one is folded to lower case."""
    parts: list[str] = []
    rest = name
    while True:
        rest = rest.lstrip()
        if rest.startswith('"'):
            end = _closing_quote(rest)
            if end is None:
                break
            parts.append(rest[1:end].replace('""', '"'))
            rest = rest[end + 1 :].lstrip()
        else:
            part, dot, tail = rest.partition(".")
            if '"' in part:
                break
            parts.append(part.rstrip().lower())
            rest = dot + tail
        if not rest:
            if len(parts) in (1, 2) and all(parts):
                return tuple(parts)
            break
        if not rest.startswith("."):
            break
        rest = rest[1:]
    raise UsageError(
        f"the table's name is not well formed: {name}",
        hint='Quote each part that needs it, as in SQL: "Order Details", or sales."Order Details".',
    )


def _closing_quote(text: str) -> int | None:
    """Find the quote that closes the one at the start; a doubled quote stands for itself."""
    position = 1
    while (position := text.find('"', position)) != -1:
        if text[position + 1 : position + 2] != '"':
            return position
        position += 2
    return None
