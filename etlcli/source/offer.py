"""The tables that a shell offers: asked at once or not at all, since somebody waits at a prompt."""

from __future__ import annotations

import psycopg
from psycopg.conninfo import make_conninfo

from etlcli.source.address import parameters_of

__all__ = ["tables_to_offer"]

# Unqualified where that is enough, since it is how people name them. Partitions are copied with their parent.
_TABLES = """
select case when pg_table_is_visible(c.oid) then quote_ident(c.relname)
            else quote_ident(n.nspname) || '.' || quote_ident(c.relname) end
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'p', 'v', 'm', 'f') and not c.relispartition
   and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
   and has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
 order by not pg_table_is_visible(c.oid), 1
 limit %s
"""


def tables_to_offer(url: str, password: str | None, seconds: float, at_most: int) -> list[str]:
    """List the tables and views that the user may read, as ``--table`` takes them.

    Args:
        url: As for ``PostgresSource``.
        password: The password, where it is not in the URL.
        seconds: How long each of connecting and asking may take, in whole seconds, and no fewer than libpq's 2.
        at_most: Of more tables than these the first ones.

    Raises:
        ConfigError: The URL is malformed.
        psycopg.Error: The source does not answer, or refuses.
    """
    parameters = parameters_of(url)
    if password is not None:
        parameters["password"] = password
    patience = max(2, round(seconds))
    parameters |= {"connect_timeout": patience, "fallback_application_name": "momento-etl"}
    # A cursor that binds here, and no named statements: poolers of transactions know none.
    with (
        psycopg.connect(make_conninfo("", **parameters), autocommit=True, prepare_threshold=None) as connection,
        psycopg.ClientCursor(connection) as cursor,
    ):
        return [name for (name,) in cursor.execute(_TABLES, (at_most,)).fetchall()]
