"""Key attributes as SQL, so that PostgreSQL can be asked which rows would share one.

Only equality matters here: two rows must give one value exactly where their items would have one key. A NULL stands for
a row that has no key, and is rejected for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import sql

from etlcli.encoding import AttributeSpec, Constant, Field, FromColumn, FromTemplate
from etlcli.model import PgType

__all__ = ["key_expressions"]

# These compare as their items' values do. All others are compared by their text, which is what becomes of them: values
# may be equal to PostgreSQL (citext, intervals, collations that ignore case) and yet make different keys, and some
# types cannot be compared at all (json).
_BY_VALUE = frozenset(
    ("int2", "int4", "int8", "oid", "numeric", "float4", "float8", "bytea", "uuid", "date", "timestamp", "timestamptz")
)

# What a text must look like to become a number, with an exponent that cannot run over.
_NUMBER = r"^\s*[-+]?([0-9]{1,200}\.?[0-9]{0,200}|\.[0-9]{1,200})([eE][-+]?[0-9]{1,3})?\s*$"

_PARTS_OF_DATES = {"%Y": "YYYY", "%m": "MM", "%d": "DD", "%H": "HH24", "%M": "MI", "%S": "SS"}


def key_expressions(key: Sequence[str | AttributeSpec], types: Mapping[str, PgType]) -> list[sql.Composable]:
    """Write a key's attributes as SQL expressions over their columns.

    Args:
        key: The attributes; a name alone stands for a column as it is.
        types: The columns' types.
    """
    return [_expression(FromColumn(part, part) if isinstance(part, str) else part, types) for part in key]


def _expression(spec: AttributeSpec, types: Mapping[str, PgType]) -> sql.Composable:
    match spec:
        case Constant():
            return sql.SQL("{}::text").format(sql.Literal(spec.text))
        case FromTemplate():
            parts = [
                sql.SQL("{}::text").format(sql.Literal(part)) if isinstance(part, str) else _field(part, types)
                for part in spec.template.parts
            ]
            return sql.SQL('(({}) collate "C")').format(sql.SQL(" || ").join(parts))
        case FromColumn(mask="redact"):
            return sql.SQL("case when {} is not null then '***' end").format(sql.Identifier(spec.column))
        case FromColumn(cast="N") if types[spec.column].typname not in _BY_VALUE:
            text = _text(spec.column)
            return sql.SQL("case when {text} ~ {number} then {text}::numeric end").format(
                text=text, number=sql.Literal(_NUMBER)
            )
        case FromColumn(cast=None | "N", mask=None) if _compares_by_value(types[spec.column]):
            return sql.Identifier(spec.column)
        case FromColumn():
            return sql.SQL('({} collate "C")').format(_text(spec.column))


def _compares_by_value(pg_type: PgType) -> bool:
    return pg_type.kind == "base" and pg_type.extension is None and pg_type.typname in _BY_VALUE


def _text(column: str) -> sql.Composable:
    # concat() writes a value as COPY does, where a cast would drop the spaces at the end of a bpchar; of NULL it makes
    # an empty text.
    return sql.SQL("case when {0} is not null then concat({0}) end").format(sql.Identifier(column))


def _field(field: Field, types: Mapping[str, PgType]) -> sql.Composable:
    column = sql.Identifier(field.column)
    if field.padding is not None:
        # As Python pads: the sign comes first and counts, and nothing is ever cut off.
        return sql.SQL(
            "(case when {0} < 0 then '-' else '' end || lpad(abs({0}::numeric)::text,"
            " greatest({1} - case when {0} < 0 then 1 else 0 end, length(abs({0}::numeric)::text)), '0'))"
        ).format(column, sql.Literal(field.padding))
    if field.pieces:
        pieces = [
            sql.SQL("to_char({}, {})").format(column, sql.Literal(_PARTS_OF_DATES[piece]))
            if piece in _PARTS_OF_DATES
            else sql.SQL("{}::text").format(sql.Literal(piece))
            for piece in field.pieces
        ]
        return sql.SQL("(case when isfinite({0}) and extract(year from {0}) between 1 and 9999 then {1} end)").format(
            column, sql.SQL(" || ").join(pieces)
        )
    if types[field.column].typname == "bool":
        return sql.SQL("(case {} when true then 'true' when false then 'false' end)").format(column)
    return sql.SQL("({})").format(_text(field.column))
