"""Where an incremental run begins, as SQL: conditions on one column that an index on it can answer."""

from __future__ import annotations

from psycopg import sql

from etlcli.model import Since

__all__ = ["example_of", "finite", "is_since", "typed"]

# The first moment that each type has, after minus infinity. What is taken from an earlier one would be out of range.
_FIRST_TIMES = {
    "timestamptz": "4714-11-24 00:00:00+00 BC",
    "timestamp": "4714-11-24 00:00:00 BC",
    "date": "4714-11-24 BC",
}
_DAY_SECONDS = 86_400
# About 285,000 years: nearly all that a timestamp can be, and little enough to be added to its first moment.
_MOST_SECONDS = 9_000_000_000_000

_LEAST_WHOLE = {"int2": -(2**63), "int4": -(2**63), "int8": -(2**63), "oid": 0}
_MOST_FLOAT = 10**300

_HAVE_INFINITIES = frozenset({"timestamptz", "timestamp", "date", "float4", "float8"})
_NUMERIC_INFINITY_FROM = 140_000


def is_since(since: Since, typname: str) -> sql.Composable:
    """Write the condition that a row is new: its column is NULL, or at least the value less the overlap.

    The bound is computed so that it cannot leave the column's type, and without the column: of a range that starts
    there, and of the NULLs, an index finds the rows.

    Args:
        since: Where the run begins.
        typname: The column's base type, as the catalog names it.
    """
    return sql.SQL("({column} is null or {column} >= {bound})").format(
        column=sql.Identifier(since.column), bound=_bound(since, typname)
    )


def finite(column: str, typname: str, server_version: int) -> sql.Composable:
    """Write the condition that a column's value has others after it: neither infinite, nor NaN, nor NULL.

    Infinity and NaN sort above everything. As a run's newest value they would hide all that comes after.
    """
    name = sql.Identifier(column)
    if typname in _HAVE_INFINITIES or (typname == "numeric" and server_version >= _NUMERIC_INFINITY_FROM):
        return sql.SQL("{column} > {lowest} and {column} < {highest}").format(
            column=name, lowest=typed("-infinity", typname), highest=typed("infinity", typname)
        )
    if typname == "numeric":
        return sql.SQL("{} < {}").format(name, typed("NaN", typname))
    return sql.SQL("{} is not null").format(name)


def typed(text: str, typname: str) -> sql.Composable:
    """Write a value of a built-in type as a literal."""
    return sql.SQL("{}::{}").format(sql.Literal(text), sql.Identifier("pg_catalog", typname))


def example_of(typname: str) -> str:
    """Write a hint for a text that is no value of a type."""
    examples = {"date": "2026-08-14", "timestamp": "2026-08-14T10:00:00", "timestamptz": "2026-08-14T10:00:00Z"}
    return f"For example: {examples.get(typname, '1000')}"


def _bound(since: Since, typname: str) -> sql.Composable:
    value = typed(since.value, typname)
    if typname in _FIRST_TIMES:
        return _time_bound(value, since.overlap, typname)
    if typname in _LEAST_WHOLE:
        # Numeric cannot run over. All whole numbers compare with a bigint, an oid only with its like.
        kind, through = ("oid", "::int8::numeric") if typname == "oid" else ("int8", "::numeric")
        return sql.SQL("greatest({value}{through} - {overlap}::numeric, {least}::numeric)::int8::{kind}").format(
            value=value,
            through=sql.SQL(through),
            overlap=sql.Literal(str(since.overlap)),
            least=sql.Literal(str(_LEAST_WHOLE[typname])),
            kind=sql.SQL(kind),
        )
    if typname == "numeric":
        return sql.SQL("({} - {}::numeric)").format(value, sql.Literal(str(since.overlap)))
    overlap = sql.Literal(str(min(since.overlap, _MOST_FLOAT)))
    return sql.SQL("({}::float8 - {}::float8)").format(value, overlap)


def _time_bound(value: sql.Composable, seconds: int, typname: str) -> sql.Composable:
    """Take the overlap from a time: a date goes back whole days, and never less than was asked for."""
    seconds = min(seconds, _MOST_SECONDS)
    if typname == "date":
        overlap: sql.Composable = sql.Literal(-(-seconds // _DAY_SECONDS))
    else:
        overlap = sql.SQL("{}::interval").format(sql.Literal(f"{seconds} seconds"))
    return sql.SQL(
        "case when {value} < {first} + {overlap} then {lowest} else ({value} - {overlap})::{kind} end"
    ).format(
        value=value,
        first=typed(_FIRST_TIMES[typname], typname),
        overlap=overlap,
        lowest=typed("-infinity", typname),
        kind=sql.Identifier("pg_catalog", typname),
    )
