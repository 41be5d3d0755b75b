"""Schema drift: how a source's columns differ from what the last run saw."""

from __future__ import annotations

from collections.abc import Sequence

from etlcli.errors import ConfigError, SourceError
from etlcli.model import Column, Job, SchemaChange
from etlcli.ports import StateStore
from etlcli.state import SchemaColumn, schema_of

__all__ = ["CHANGES_NAMED", "compare", "look", "refuse", "told", "warning"]

CHANGES_NAMED = 10
"""So many changes are told one by one: a table can have 1,600 columns."""

# Mostly the newest run is the one to compare with; after a month of failures, or of loads, it is further back.
_RUNS_LOOKED_AT = (1, 20, 400)
_SUCCEEDED = ("succeeded", "rejected_rows")


async def look(job: Job, columns: Sequence[Column], state: StateStore) -> list[SchemaChange]:
    """Compare a source's columns with those that the last run to succeed saw; nothing is a change where there is none.

    All columns of the relation count, whatever the job takes of them. Loads have seen none: they do not count.

    Raises:
        ConfigError: The job freezes its schema, and there is no state table, by configuration.
        EtlError: The state table failed.
    """
    if job.freezes_schema and state.table is None:
        raise ConfigError(
            f"the schema of {job.name} is frozen (schema_contract), and there is nothing to compare it with: the state"
            " table is switched off ([state] enabled = false)",
            hint='Switch it on: [state] enabled = true. Or take schema_contract = "evolve".',
        )
    for limit in _RUNS_LOOKED_AT:
        runs = await state.fetch_runs(job.name, limit)
        for record in runs:
            if record.status in _SUCCEEDED and record.columns:
                return compare(record.columns, schema_of(columns))
        if len(runs) < limit:
            break
    return []


def compare(before: Sequence[SchemaColumn], now: Sequence[SchemaColumn]) -> list[SchemaChange]:
    """Tell what was removed, what changed its type, and what was added, each in the table's order.

    A column with a new name is one that was removed and one that was added. Another order is no change.
    """
    old, new = dict(before), dict(now)
    changes = [SchemaChange(name, kind, new.get(name)) for name, kind in old.items() if new.get(name) != kind]
    return changes + [SchemaChange(name, None, kind) for name, kind in new.items() if name not in old]


def refuse(job: Job, changes: Sequence[SchemaChange]) -> None:
    """Refuse changes where the job freezes its schema.

    Raises:
        SourceError: It does, and there are some.
    """
    if job.freezes_schema and changes:
        raise SourceError(
            f"columns of {job.name} changed since its last run, and its schema is frozen (schema_contract):\n"
            f"{told(changes)}",
            hint="If that is meant, accept it once: --schema-contract evolve",
        )


def warning(job: Job, changes: Sequence[SchemaChange]) -> str:
    """Write what a run that goes on says of changes, of which there are some."""
    text = f"columns of {job.name} changed since its last run:\n{told(changes)}"
    if job.incremental is None or job.incremental.full_refresh:
        return text
    return f"{text}\nItems of rows that this run does not take keep their old shape until one with --full-refresh."


def told(changes: Sequence[SchemaChange]) -> str:
    """Write changes, each on a line of its own; of many, the first few and how many more there are."""
    lines = [f"  {change}".replace("\n", "\\n") for change in changes[:CHANGES_NAMED]]
    if len(changes) > CHANGES_NAMED:
        lines.append(f"  and {len(changes) - CHANGES_NAMED:,} more (--output json has all)")
    return "\n".join(lines)
