"""What PostgreSQL's catalog says of a table or a query: columns, types, keys, size. Reads no rows of the user's."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import psycopg
from psycopg import generators, sql
from psycopg.abc import PQGen
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import namedtuple_row

from etlcli.errors import UsageError
from etlcli.model import Column, PgType, Relation
from etlcli.source.names import candidates

__all__ = ["ONLY_READS", "Connection", "describe_query", "describe_table", "parse"]

Connection = psycopg.AsyncConnection[Any]

# The kinds of relations (pg_class.relkind) that hold rows, and those that do not.
_READABLE = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}
_UNREADABLE = {"i": "an index", "I": "an index", "S": "a sequence", "c": "a composite type", "t": "a TOAST table"}

_FIND = """
select c.oid, n.nspname, c.relname, c.relkind::text as relkind, c.reltuples::float8 as reltuples, c.relhassubclass,
       case when c.relkind in ('r', 'm', 'p') then
           coalesce((select sum(pg_table_size(t.relid)) from pg_partition_tree(c.oid) t), pg_table_size(c.oid))::bigint
       end as stored_bytes,
       case when c.relkind = 'p' then
           (select sum(greatest(l.reltuples, 0))::float8
              from pg_partition_tree(c.oid) t join pg_class l on l.oid = t.relid
             where t.isleaf)
       end as leaf_tuples
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.oid = to_regclass(%s)
"""

_COLUMNS = """
select a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod) as formatted
  from pg_attribute a
 where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
 order by a.attnum
"""

# Only what holds for every row now: no predicate, no expression, valid, checked at once.
_UNIQUE = """
select i.indisprimary,
       array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
               join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
              where k.place <= i.indnkeyatts order by k.place) as columns
  from pg_index i
 where i.indrelid = %s and i.indisunique and i.indisvalid and i.indimmediate
   and i.indpred is null and i.indexprs is null
 order by i.indisprimary desc, i.indexrelid
"""

_TYPES = """
select t.oid, t.typname, t.typtype::text as typtype, t.typbasetype, t.typrelid, t.typdelim::text as typdelim,
       format_type(t.oid, null) as formatted, e.oid as element, e.typdelim::text as element_delimiter,
       (select x.extname from pg_depend d join pg_extension x on x.oid = d.refobjid
         where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
           and d.refclassid = 'pg_extension'::regclass limit 1) as extension
  from pg_type t left join pg_type e on e.typarray = t.oid
 where t.oid = any(%s)
"""

_FIELDS = """
select a.attrelid, a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod) as formatted
  from pg_attribute a
 where a.attrelid = any(%s) and a.attnum > 0 and not a.attisdropped
 order by a.attrelid, a.attnum
"""

_NAMES = """
select n.nspname, c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname not in ('pg_catalog', 'information_schema')
   and n.nspname !~ '^pg_toast' and not c.relispartition
 order by n.nspname, c.relname limit 5000
"""

_FORMAT = """
select format_type(t.oid, t.typmod) as formatted
  from unnest(%s::oid[], %s::int4[]) with ordinality t(oid, typmod, place) order by t.place
"""

ONLY_READS = "Give one statement that only reads: SELECT, VALUES or TABLE. The source is never written to."

_Kind = Literal["base", "array", "enum", "composite", "range", "multirange", "pseudo"]
_KINDS: dict[str, _Kind] = {"b": "base", "e": "enum", "c": "composite", "r": "range", "m": "multirange", "p": "pseudo"}


class TypedName(NamedTuple):
    """A column before its type is resolved."""

    name: str
    type_oid: int
    formatted: str


async def describe_table(connection: Connection, typed: str) -> tuple[Relation, tuple[str, str]]:
    """Find the table, view or foreign table that a typed name means, with its columns, keys and size.

    Returns:
        The relation, and its schema and name.

    Raises:
        UsageError: There is none (near names are in the hint), or it is something that holds no rows.
    """
    found = await _find(connection, typed)
    columns = [TypedName(*row) for row in await _rows(connection, _COLUMNS, found.oid)]
    # A plain parent's own constraints do not bind its children, whose rows a read of it returns.
    inherited = found.relhassubclass and found.relkind == "r"
    unique = [] if inherited else await _rows(connection, _UNIQUE, found.oid)
    primary = next((tuple(row.columns) for row in unique if row.indisprimary), ())
    estimate = found.leaf_tuples if found.relkind == "p" else found.reltuples
    types = await _resolve(connection, columns)
    return (
        Relation(
            name=_display(found.nspname, found.relname),
            columns=tuple(Column(column.name, types[place]) for place, column in enumerate(columns)),
            primary_key=primary,
            unique_keys=tuple(frozenset(row.columns) for row in unique),
            # -1 stands for "never analysed" (PostgreSQL 14 and later; 0 before), and views have no figure at all.
            estimated_rows=int(estimate) if estimate is not None and estimate > 0 else None,
            stored_bytes=found.stored_bytes,
        ),
        (found.nspname, found.relname),
    )


async def describe_query(connection: Connection, query: str) -> Relation:
    """Ask PostgreSQL what columns a query would return, without running it.

    Raises:
        UsageError: It returns no columns, two of one name, or is not one that only reads.
        psycopg.Error: It does not parse, or names what does not exist.
    """
    names = await parse(connection, sql.SQL(query))
    if not names:
        raise UsageError("the query returns no rows", hint=ONLY_READS)
    twice = sorted({name.name for name in names if [other.name for other in names].count(name.name) > 1})
    if twice:
        raise UsageError(
            f"the query returns more than one column named {', '.join(map(repr, twice))}",
            hint="Give each a name of its own with AS.",
        )
    types = await _resolve(connection, names)
    return Relation(name=None, columns=tuple(Column(name.name, types[place]) for place, name in enumerate(names)))


async def parse(connection: Connection, statement: sql.Composable) -> list[TypedName]:
    """Have PostgreSQL parse one statement and describe its columns; nothing is executed.

    The extended protocol takes one statement only, so text that smuggles in a second one is refused here. The
    statement has no name, which transaction poolers allow within a transaction.

    Raises:
        psycopg.Error: It does not parse, or names what does not exist.
    """
    pgconn = connection.pgconn
    text = statement.as_bytes(connection)
    await connection.wait(_exchange(pgconn, lambda: pgconn.send_prepare(b"", text)))
    result = await connection.wait(_exchange(pgconn, lambda: pgconn.send_describe_prepared(b"")))
    fields = [((result.fname(n) or b"").decode(), result.ftype(n), result.fmod(n)) for n in range(result.nfields)]
    formatted = await _rows(connection, _FORMAT, [oid for _, oid, _ in fields], [typmod for _, _, typmod in fields])
    return [TypedName(name, oid, row.formatted) for (name, oid, _), row in zip(fields, formatted, strict=True)]


def _exchange(pgconn: PGconn, send: Callable[[], None]) -> PQGen[PGresult]:
    """Send one request of the extended protocol and wait for its single result, as psycopg's own calls do."""
    send()
    results: list[PGresult] = yield from generators.execute(pgconn)
    (result,) = results
    if result.status == ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
    return result


async def _find(connection: Connection, typed: str) -> Any:
    for parts in candidates(typed):
        rows = await _rows(connection, _FIND, sql.Identifier(*parts).as_string(connection))
        if rows:
            found = rows[0]
            if found.relkind in _READABLE:
                return found
            what = _UNREADABLE.get(found.relkind, "no table")
            raise UsageError(
                f"{typed} is {what}, which holds no rows to copy", hint="Name a table, a view or a foreign table."
            )
    names = [(row.nspname, row.relname) for row in await _rows(connection, _NAMES)]
    raise UsageError(f"there is no table {typed!r} in the source", hint=_near(typed, names))


def _near(typed: str, names: Iterable[tuple[str, str]]) -> str:
    """Word a hint that names the tables that are most like what was typed."""
    spoken = {_display(schema, table): f"{schema}.{table}".lower() for schema, table in names}
    if not spoken:
        return "The database holds no table that this user can see. Is it the right database?"
    wanted = typed.replace('"', "").lower()
    scores = {
        shown: max(
            difflib.SequenceMatcher(None, wanted, plain).ratio(),
            difflib.SequenceMatcher(None, wanted, plain.partition(".")[2]).ratio(),
        )
        for shown, plain in spoken.items()
    }
    nearest = [shown for shown in sorted(scores, key=lambda shown: -scores[shown])[:3] if scores[shown] >= 0.6]
    if nearest:
        return f"Did you mean {' or '.join(nearest)}?"
    listed = list(spoken)[:10]
    more = f" and {len(spoken) - len(listed)} more" if len(spoken) > len(listed) else ""
    return f"Tables there: {', '.join(listed)}{more}."


def _display(schema: str, table: str) -> str:
    """Write a name so that it can be typed back: bare in ``public``, else with its schema, quoted where needed."""
    parts = (table,) if schema == "public" else (schema, table)
    return ".".join(part if _plain(part) else '"' + part.replace('"', '""') + '"' for part in parts)


def _plain(name: str) -> bool:
    return name.isidentifier() and name == name.lower()


async def _resolve(connection: Connection, columns: list[TypedName]) -> list[PgType]:
    """Resolve the columns' types, through domains, arrays and composites, in one query a level."""
    catalog: dict[int, Any] = {}
    fields: dict[int, list[TypedName]] = {}
    wanted = {column.type_oid for column in columns}
    while missing := wanted - catalog.keys():
        rows = await _rows(connection, _TYPES, list(missing))
        catalog |= {row.oid: row for row in rows}
        composites = {row.typrelid for row in rows if row.typtype == "c"} - fields.keys()
        for row in await _rows(connection, _FIELDS, list(composites)) if composites else []:
            fields.setdefault(row.attrelid, []).append(TypedName(row.attname, row.atttypid, row.formatted))
        wanted = {row.typbasetype for row in rows if row.typbasetype} | {row.element for row in rows if row.element}
        wanted |= {field.type_oid for relid in composites for field in fields.get(relid, [])}
    return [_build(column.type_oid, column.formatted, catalog, fields) for column in columns]


def _build(oid: int, formatted: str, catalog: Mapping[int, Any], fields: Mapping[int, list[TypedName]]) -> PgType:
    row = catalog[oid]
    if row.typtype == "d":
        return _build(row.typbasetype, formatted, catalog, fields)
    if row.element is not None:
        element = catalog[row.element]
        return PgType(
            name=formatted,
            typname=row.typname,
            kind="array",
            element=_build(row.element, element.formatted, catalog, fields),
            delimiter=row.element_delimiter,
            extension=row.extension,
        )
    kind = _KINDS[row.typtype]
    members = fields.get(row.typrelid, []) if kind == "composite" else []
    return PgType(
        name=formatted,
        typname=row.typname,
        kind=kind,
        fields=tuple(Column(f.name, _build(f.type_oid, f.formatted, catalog, fields)) for f in members),
        extension=row.extension,
    )


async def _rows(connection: Connection, statement: str, *values: Any) -> list[Any]:
    async with connection.cursor(row_factory=namedtuple_row) as cursor:
        await cursor.execute(statement, values or None)
        return await cursor.fetchall()
