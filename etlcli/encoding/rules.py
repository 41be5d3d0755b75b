"""The rules that a row can break on its way to DynamoDB, and what to do about each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

__all__ = ["HINTS", "Rule", "hint_of"]

Rule: TypeAlias = Literal[
    "number-not-finite",
    "number-precision",
    "number-range",
    "array-bounds",
    "json-duplicate-key",
    "json-surrogate",
    "json-empty-key",
    "json-key-too-long",
    "hstore-empty-key",
    "hstore-key-too-long",
    "nesting-depth",
    "cast-number",
    "cast-boolean",
    "template-value",
    "key-null",
    "key-empty",
    "key-too-long",
    "key-type",
    "item-too-large",
    "transform-error",
    "transform-value",
    "refused-by-dynamodb",
]
"""A rule's short, stable name: it stands in rejects, which scripts read."""

_AS_TEXT: Final = (
    'on_unrepresentable = "string" keeps such values as text (not in a key), cast = { COLUMN = "S" } all of a column.'
)
_KEY: Final = "Mend these rows, leave them out with --where, or make the key of other columns: --key."

HINTS: Final[Mapping[Rule, str]] = MappingProxyType(
    {
        "number-not-finite": _AS_TEXT,
        "number-precision": f"{_AS_TEXT} Or round it in a --query.",
        "number-range": _AS_TEXT,
        "array-bounds": f"{_AS_TEXT} In a --query, COLUMN[:] gives the bounds up.",
        "json-duplicate-key": f'{_AS_TEXT} json = "string" does it to all json; in a --query, ::jsonb keeps the last.',
        "json-surrogate": f"{_AS_TEXT} Half a surrogate pair stays the escape that it is in json.",
        "json-empty-key": _AS_TEXT,
        "json-key-too-long": _AS_TEXT,
        "hstore-empty-key": _AS_TEXT,
        "hstore-key-too-long": _AS_TEXT,
        "nesting-depth": f'{_AS_TEXT} json = "string" does it to all json.',
        "cast-number": "Mend these values, take the column out of `cast`, or keep what is no number as text:"
        ' on_unrepresentable = "string".',
        "cast-boolean": "It takes true, t, yes, y, on, 1 and their opposites. Mend these values, take the column out of"
        ' `cast`, or keep what is neither as text: on_unrepresentable = "string".',
        "template-value": "Use the column without a format, {COLUMN}, or leave such rows out with --where.",
        "key-null": _KEY,
        "key-empty": _KEY,
        "key-too-long": "Make the key of other columns with --key, or of a digest, which is 64 characters of any text:"
        ' mask = { COLUMN = "hash" }.',
        "key-type": "The function has to leave a key attribute the type it has: str for S, numbers for N, bytes for B.",
        "item-too-large": "Names and values together may take 400 KB. Leave columns out, with --columns or"
        ' drop = ["COLUMN"], or keep what is large elsewhere.',
        "transform-error": "Mend the function; to leave a row out it returns None.",
        "transform-value": "The function returns None or a dict with names of text; values are None, bool, str, bytes,"
        " int, float, Decimal, dates, times, UUIDs, lists, dicts, or sets that are not empty.",
        "refused-by-dynamodb": "The message is DynamoDB's own. Mend these rows, or leave them out with --where.",
    }
)

_BY_NAME: Final[Mapping[str, str]] = {str(rule): hint for rule, hint in HINTS.items()}


def hint_of(rule: str) -> str | None:
    """Tell what to do about rows that break a rule; None for a rule that this version does not know."""
    return _BY_NAME.get(rule)
