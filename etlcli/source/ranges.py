"""A stretch of the source between two keys, as SQL.

Keys are compared as ORDER BY sorts them: by the operators of the order that each column's type has by default, whatever
the search path finds under their names, and under each column's own collation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psycopg import sql

from etlcli.model import KeyRange

__all__ = ["KeyColumn", "Operators", "QualifiedName", "is_within"]


class QualifiedName(NamedTuple):
    """The name of a type or of an operator, with its schema's."""

    schema: str
    name: str


class Operators(NamedTuple):
    """What compares two values of a type as ORDER BY sorts them."""

    less: QualifiedName
    at_most: QualifiedName
    at_least: QualifiedName
    greater: QualifiedName


class KeyColumn(NamedTuple):
    """A column of a key.

    Attributes:
        name: Its name.
        type: Its type; of a domain, what it stands on.
        operators: What compares its values.
    """

    name: str
    type: QualifiedName
    operators: Operators


def is_within(wanted: KeyRange, key: Sequence[KeyColumn]) -> sql.Composable:
    """Write the condition that a row's key lies within a range. An index on the key finds the rows.

    Args:
        wanted: The range.
        key: The columns that its keys are of.
    """
    conditions: list[sql.Composable] = []
    if wanted.after is not None:
        conditions.append(_is_beyond(key, wanted.after, "greater", "at_least", "greater"))
    if wanted.first is not None:
        conditions.append(_is_beyond(key, wanted.first, "at_least", "at_least", "greater"))
    if wanted.last is not None:
        conditions.append(_is_beyond(key, wanted.last, "at_most", "at_most", "less"))
    return sql.SQL(" and ").join(conditions) if conditions else sql.SQL("true")


def _is_beyond(
    key: Sequence[KeyColumn], values: Sequence[str], operator: str, loose: str, strict: str
) -> sql.Composable:
    """Compare whole keys: the first columns that differ decide.

    Args:
        key: The columns.
        values: What they are compared with.
        operator: What compares the keys.
        loose: The same for a column that others follow, where these may still decide; an index can begin with it.
        strict: The same where they do not.
    """
    pairs = list(zip(key, values, strict=True))
    if len({getattr(column.operators, operator) for column in key}) == 1:
        # PostgreSQL's own comparison of rows, which takes one operator's name for all columns.
        return sql.SQL("({}) {} ({})").format(
            sql.SQL(", ").join(sql.Identifier(column.name) for column in key),
            _operator(getattr(key[0].operators, operator)),
            sql.SQL(", ").join(_literal(column, value) for column, value in pairs),
        )
    condition: sql.Composable | None = None
    for column, value in reversed(pairs):
        if condition is None:
            condition = _compare(column, operator, value)
        else:
            condition = sql.SQL("({} and ({} or {}))").format(
                _compare(column, loose, value), _compare(column, strict, value), condition
            )
    assert condition is not None, "a key has columns"
    return condition


def _compare(column: KeyColumn, operator: str, value: str) -> sql.Composable:
    return sql.SQL("{} {} {}").format(
        sql.Identifier(column.name), _operator(getattr(column.operators, operator)), _literal(column, value)
    )


def _operator(operator: QualifiedName) -> sql.Composable:
    # An operator's name consists of signs that cannot end it, and is never quoted.
    return sql.SQL("operator({}.{})").format(sql.Identifier(operator.schema), sql.SQL(operator.name))


def _literal(column: KeyColumn, value: str) -> sql.Composable:
    return sql.SQL("{}::{}").format(sql.Literal(value), sql.Identifier(*column.type))
