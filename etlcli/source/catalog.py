"""What PostgreSQL's catalog says of a table or a query: columns, types, keys, size. Reads no rows of the user's."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from psycopg import sql
from psycopg.rows import namedtuple_row

from etlcli.errors import SourceError, UsageError
from etlcli.model import BaseTable, Column, PgType, Relation
from etlcli.source.names import candidates
from etlcli.source.ranges import KeyColumn, Operators, QualifiedName
from etlcli.source.wire import Connection, Parsed, parse

__all__ = ["ONLY_READS", "describe_key", "describe_query", "describe_table", "list_tables", "refuse_parameters"]

# The kinds of relations (pg_class.relkind) that hold rows, and those that do not.
_READABLE = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}
_UNREADABLE = {"i": "an index", "I": "an index", "S": "a sequence", "c": "a composite type", "t": "a TOAST table"}

# A parent stands for its whole tree, partitions and inheriting tables alike; what holds no rows itself counts nothing.
# reltuples is -1 for "never analysed" (0 before PostgreSQL 14).
_FIND = """
with recursive found as (
    select c.oid, n.nspname, c.relname, c.relkind::text as relkind, c.relhassubclass,
           pg_is_other_temp_schema(n.oid) as foreign_temporary
      from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.oid = to_regclass(%s)
), tree as (
    select oid from found
    union
    select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.oid
), sizes as (
    select sum(pg_table_size(l.oid)) filter (where l.relkind in ('r', 'm'))::bigint as stored_bytes,
           sum(greatest(l.reltuples, 0)) filter (where l.relkind in ('r', 'm', 'f'))::float8 as tuples
      from tree t join pg_class l on l.oid = t.oid
)
select found.*, case when relkind in ('r', 'p', 'm') then coalesce(stored_bytes, 0) end as stored_bytes, tuples
  from found cross join sizes
"""

# A NOT NULL constraint that was added as NOT VALID (since PostgreSQL 18) says nothing of the rows that were there.
_COLUMNS = """
select a.attname, a.atttypid, format_type(a.atttypid, a.atttypmod) as formatted,
       a.attnotnull and not exists (select from pg_constraint c
                                     where c.conrelid = a.attrelid and c.contype = 'n' and not c.convalidated
                                       and a.attnum = any(c.conkey)) as never_null
  from pg_attribute a
 where a.attrelid = %s and a.attnum > 0 and not a.attisdropped
 order by a.attnum
"""

# Only what holds for every row: no predicate, no expression, valid, no NULLs that count as different. A deferrable
# constraint holds as well, for another transaction sees rows only after their commit, which has checked it.
# (to_jsonb, since servers before PostgreSQL 15 have no such column.)
_UNIQUE = """
select i.indisprimary,
       array(select a.attname::text from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
               join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
              where k.place <= i.indnkeyatts order by k.place) as columns
  from pg_index i
 where i.indrelid = %s and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
   and (coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)
        or not exists (select from unnest(i.indkey::int2[]) with ordinality k(attnum, place)
                         join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                        where k.place <= i.indnkeyatts and not a.attnotnull))
 order by i.indisprimary desc, i.indexrelid
"""

_TYPES = """
select t.oid, t.typname, t.typtype::text as typtype, t.typbasetype, t.typrelid, t.typdelim::text as typdelim,
       format_type(t.oid, null) as formatted, e.oid as element, e.typdelim::text as element_delimiter,
       exists (select from pg_opclass o join pg_am m on m.oid = o.opcmethod and m.amname = 'btree'
                where o.opcdefault
                  and (o.opcintype = t.oid
                       or exists (select from pg_cast c
                                   where c.castsource = t.oid and c.casttarget = o.opcintype
                                     and c.castmethod = 'b' and c.castcontext = 'i'))) as ordered,
       t.typnamespace = 'pg_catalog'::regnamespace as built_in,
       (select r.rngsubtype from pg_range r
         where t.oid in (r.rngtypid, (to_jsonb(r) ->> 'rngmultitypid')::oid)) as subtype,
       (select x.extname from pg_depend d join pg_extension x on x.oid = d.refobjid
         where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'
           and d.refclassid = 'pg_extension'::regclass limit 1) as extension
  from pg_type t left join pg_type e on e.typarray = t.oid
 where t.oid = any(%s)
"""

# How ORDER BY compares values of a type: by the operators of its default operator class, or else by those of one that
# takes its values as they are.
_ORDER = """
select t.oid, y.nspname as schema, t.typname as name, s.nspname as operator_schema, o.oprname
  from pg_type t join pg_namespace y on y.oid = t.typnamespace
 cross join lateral (
       select c.opcfamily, c.opcintype
         from pg_opclass c join pg_am m on m.oid = c.opcmethod and m.amname = 'btree'
         join pg_type i on i.oid = c.opcintype
        where c.opcdefault
          and (i.oid = t.oid
               or i.typnamespace = 'pg_catalog'::regnamespace
                  and i.typname = case t.typtype when 'e' then 'anyenum' when 'r' then 'anyrange'
                                                 when 'm' then 'anymultirange' when 'c' then 'record'
                                                 else case when exists (select from pg_type e where e.typarray = t.oid)
                                                           then 'anyarray' end end
               or exists (select from pg_cast b
                           where b.castsource = t.oid and b.casttarget = i.oid
                             and b.castmethod = 'b' and b.castcontext = 'i'))
        order by i.oid = t.oid desc, i.typispreferred desc limit 1) c
  join pg_amop p on p.amopfamily = c.opcfamily and p.amoplefttype = c.opcintype and p.amoprighttype = c.opcintype
                and p.amoppurpose = 's' and p.amopstrategy in (1, 2, 4, 5)
  join pg_operator o on o.oid = p.amopopr join pg_namespace s on s.oid = o.oprnamespace
 where t.oid = any(%s)
 order by t.oid, p.amopstrategy
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

_SCHEMA = """
select oid, nspname, has_schema_privilege(oid, 'usage') as usable from pg_namespace where nspname = %s
"""

_SCHEMAS = "select nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema' order by 1"

# Partitions are part of their parent, wherever that is. So is a plain child all of whose columns a parent in the same
# schema has too: a read of the parent returns its rows whole. (Names sort by their bytes, in every database.)
_BASE_TABLES = """
select c.relname, pg_table_is_visible(c.oid) as visible
  from pg_class c
 where c.relnamespace = %s and c.relkind in ('r', 'p') and c.relpersistence <> 't' and not c.relispartition
   and not exists (
       select from pg_inherits i join pg_class p on p.oid = i.inhparent
        where i.inhrelid = c.oid and p.relnamespace = c.relnamespace
          and not exists (
              select from pg_attribute a
               where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                 and not exists (select from pg_attribute b
                                  where b.attrelid = p.oid and b.attname = a.attname and not b.attisdropped)))
 order by c.relname
"""

_OTHERS = """
select relkind::text as relkind, relispartition as is_partition, count(*) as number
  from pg_class where relnamespace = %s and relkind in ('r', 'p', 'v', 'm', 'f') and relpersistence <> 't'
 group by 1, 2 order by 1, 2
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


class _Resolved(NamedTuple):
    """Columns with their types; those of them that cannot be ordered by; those whose text may not be read back."""

    columns: tuple[Column, ...]
    unordered: frozenset[str]
    unsettled: frozenset[str]


async def describe_table(connection: Connection, typed: str) -> tuple[Relation, tuple[str, str]]:
    """Find the table, view or foreign table that a typed name means, with its columns, keys and size.

    Returns:
        The relation, and its schema and name.

    Raises:
        UsageError: There is none (near names are in the hint), or it is something that holds no rows.
    """
    found = await _find(connection, typed)
    if found.foreign_temporary:
        raise SourceError(
            f"{typed} is a temporary table of another session, which only that session can read",
            hint="Copy it into an ordinary table there, or give its rows as a --query.",
        )
    rows = await _rows(connection, _COLUMNS, found.oid)
    columns = [TypedName(row.attname, row.atttypid, row.formatted) for row in rows]
    # A plain parent's own constraints do not bind its children, whose rows a read of it returns.
    inherited = found.relhassubclass and found.relkind == "r"
    unique = [] if inherited else await _rows(connection, _UNIQUE, found.oid)
    primary = next((tuple(row.columns) for row in unique if row.indisprimary), ())
    resolved = await _resolve(connection, columns)
    return (
        Relation(
            name=_display(found.nspname, found.relname),
            columns=resolved.columns,
            primary_key=primary,
            unique_keys=tuple(frozenset(row.columns) for row in unique),
            estimated_rows=int(found.tuples) if found.tuples else None,
            stored_bytes=found.stored_bytes,
            unordered=resolved.unordered,
            unseekable=resolved.unsettled.union(row.attname for row in rows if not row.never_null),
        ),
        (found.nspname, found.relname),
    )


async def list_tables(connection: Connection, typed: str, where: str) -> list[BaseTable]:
    """List the base tables of the schema that a typed name means.

    Args:
        connection: In a snapshot.
        typed: The schema's name.
        where: The source, in words.

    Raises:
        UsageError: There is no such schema (near names are in the hint), or it has no base table.
        SourceError: The schema may not be used.
    """
    schema = await _find_schema(connection, typed)
    if not schema.usable:
        raise SourceError(
            f"PostgreSQL at {where} does not allow this user to use the schema {schema.nspname}",
            hint="Grant USAGE on the schema, and SELECT on its tables, to this user.",
        )
    rows = await _rows(connection, _BASE_TABLES, schema.oid)
    if not rows:
        others = await _rows(connection, _OTHERS, schema.oid)
        raise UsageError(f"the schema {schema.nspname} has no base tables", hint=_instead(others))
    return [
        BaseTable(f"{_quoted(schema.nspname)}.{_quoted(row.relname)}", schema.nspname, row.relname, row.visible)
        for row in rows
    ]


async def describe_query(connection: Connection, query: str) -> Relation:
    """Ask PostgreSQL what columns a query would return, without running it.

    Raises:
        UsageError: It returns no columns, two of one name, or asks for parameters.
        psycopg.Error: It does not parse, or names what does not exist.
    """
    # As it stands, so that the positions in PostgreSQL's errors are those of the user's text.
    parsed = await parse(connection, query.encode())
    refuse_parameters(parsed, "the query")
    columns = parsed.columns
    if not columns:
        raise UsageError("the query returns no columns", hint=ONLY_READS)
    names = [name for name, _, _ in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"the query returns more than one column named {', '.join(map(repr, twice))}",
            hint="Give each a name of its own with AS.",
        )
    formatted = await _rows(connection, _FORMAT, [oid for _, oid, _ in columns], [typmod for _, _, typmod in columns])
    typed = [TypedName(name, oid, row.formatted) for (name, oid, _), row in zip(columns, formatted, strict=True)]
    resolved = await _resolve(connection, typed)
    return Relation(name=None, columns=resolved.columns, unordered=resolved.unordered)


async def describe_key(connection: Connection, parsed: Parsed) -> list[KeyColumn]:
    """Look up how the columns of a statement compare, as which PostgreSQL names domains by what they stand on."""
    rows = await _rows(connection, _ORDER, [oid for _, oid, _ in parsed.columns])
    operators: dict[int, list[QualifiedName]] = {}
    types: dict[int, QualifiedName] = {}
    for row in rows:
        types[row.oid] = QualifiedName(row.schema, row.name)
        operators.setdefault(row.oid, []).append(QualifiedName(row.operator_schema, row.oprname))
    return [KeyColumn(name, types[oid], Operators(*operators[oid])) for name, oid, _ in parsed.columns]


def refuse_parameters(parsed: Parsed, what: str) -> None:
    """Raise UsageError where a text of the user's holds ``$1``."""
    if parsed.parameters:
        raise UsageError(
            f"{what} asks for parameters ($1), and there is nothing to fill them in with",
            hint="Write the values themselves.",
        )


async def _find(connection: Connection, typed: str) -> Any:
    other = None
    for parts in candidates(typed):
        rows = await _rows(connection, _FIND, sql.Identifier(*parts).as_string(connection))
        if rows and rows[0].relkind in _READABLE:
            return rows[0]
        other = other or (rows[0] if rows else None)
    if other is not None:
        raise UsageError(
            f"{typed} is {_UNREADABLE.get(other.relkind, 'no table')}, which holds no rows to copy",
            hint="Name a table, a view or a foreign table.",
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
    return f"Tables there: {_first(spoken)}."


async def _find_schema(connection: Connection, typed: str) -> Any:
    for parts in candidates(typed):
        if len(parts) == 1 and (rows := await _rows(connection, _SCHEMA, parts[0])):
            return rows[0]
    names = [row.nspname for row in await _rows(connection, _SCHEMAS)]
    wanted = typed.replace('"', "").lower()
    near = difflib.get_close_matches(wanted, [name.lower() for name in names], n=3, cutoff=0.6)
    shown = [_quoted(name) for name in names if name.lower() in near]
    raise UsageError(
        f"there is no schema {typed!r} in the source",
        hint=f"Did you mean {' or '.join(shown)}?" if shown else f"Schemas there: {_first(map(_quoted, names))}.",
    )


def _instead(others: Iterable[Any]) -> str:
    """Word a hint that says what a schema without base tables has instead."""
    counts: Counter[str] = Counter()
    for row in others:
        counts["partition" if row.is_partition else _READABLE[row.relkind]] += row.number
    if not counts:
        return "It is empty. Is it the right schema, and the right database?"
    listed = " and ".join(f"{number} {name}{'s' if number > 1 else ''}" for name, number in counts.items())
    partitions = " Partitions are copied with their parent." if counts["partition"] else ""
    return f"It has {listed}.{partitions} Name with --table what else is to be copied."


def _first(names: Iterable[str]) -> str:
    """List the first few of many names."""
    listed = list(names)
    more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
    return f"{', '.join(listed[:10])}{more}"


def _display(schema: str, table: str) -> str:
    """Write a name so that it can be typed back: bare in ``public``, else with its schema, quoted where needed."""
    parts = (table,) if schema == "public" else (schema, table)
    return ".".join(map(_quoted, parts))


def _quoted(part: str) -> str:
    return part if _plain(part) else '"' + part.replace('"', '""') + '"'


def _plain(name: str) -> bool:
    return name.isidentifier() and name == name.lower()


async def _resolve(connection: Connection, columns: list[TypedName]) -> _Resolved:
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
        wanted |= {row.subtype for row in rows if row.subtype}
        wanted |= {field.type_oid for relid in composites for field in fields.get(relid, [])}
    return _Resolved(
        tuple(Column(column.name, _build(column.type_oid, column.formatted, catalog, fields)) for column in columns),
        frozenset(column.name for column in columns if not _is_ordered(column.type_oid, catalog, fields)),
        frozenset(column.name for column in columns if not _is_settled(column.type_oid, catalog, fields)),
    )


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


def _is_ordered(oid: int, catalog: Mapping[int, Any], fields: Mapping[int, list[TypedName]]) -> bool:
    """Whether ``ORDER BY`` takes values of a type: it does where all that they consist of has a btree order."""
    row = catalog[oid]
    match row.typtype:
        case "d":
            return _is_ordered(row.typbasetype, catalog, fields)
        case "c":
            return all(_is_ordered(field.type_oid, catalog, fields) for field in fields.get(row.typrelid, []))
        case "e" | "r" | "m":
            return True
    return _is_ordered(row.element, catalog, fields) if row.element is not None else bool(row.ordered)


def _is_settled(oid: int, catalog: Mapping[int, Any], fields: Mapping[int, list[TypedName]]) -> bool:
    """Whether another session reads a type's text as the value that this one wrote.

    Dumps rely on it for every type but few: amounts of money are written as lc_monetary says, and the names that stand
    for objects of the catalog go by the search path.
    """
    row = catalog[oid]
    members = [row.typbasetype, row.element, row.subtype, *(field.type_oid for field in fields.get(row.typrelid, []))]
    if row.built_in and (row.typname == "money" or row.typname.startswith("reg")):
        return False
    return all(_is_settled(member, catalog, fields) for member in members if member)


async def _rows(connection: Connection, statement: str, *values: Any) -> list[Any]:
    async with connection.cursor(row_factory=namedtuple_row) as cursor:
        await cursor.execute(statement, values or None)
        return await cursor.fetchall()
