"""Decide, without any I/O, what a job does with what the source holds: attributes, key, order, fingerprint."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from etlcli.encoding import ENCODING_VERSION, EncodingOptions, RowEncoder, attribute_type
from etlcli.errors import UsageError
from etlcli.model import Column, Job, Key, KeyAttribute, Relation
from etlcli.ports import Reading

__all__ = ["Plan", "make_plan", "row_encoder"]

_MAX_KEY_ATTRIBUTES = 2  # DynamoDB: a hash and a range attribute (Developer Guide, "Core components")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job does, decided.

    Attributes:
        job: The job.
        relation: What it reads.
        columns: The columns that become attributes, in order.
        reading: The pass over the source; it may read columns that are needed for their order only.
        key: The destination key.
        key_columns: The columns that the key's attributes come from.
        source_key: The columns that order the rows, and so the chunks; empty where the source has no key.
        keys_are_unique: Whether a constraint already guarantees that no two rows share a destination key.
        fingerprint: Hex digest of all that decides what the items look like.
        warnings: What the user should know before it is done.
    """

    job: Job
    relation: Relation
    columns: tuple[Column, ...]
    reading: Reading
    key: Key
    key_columns: tuple[str, ...]
    source_key: tuple[str, ...]
    keys_are_unique: bool
    fingerprint: str
    warnings: tuple[str, ...]


def make_plan(job: Job, relation: Relation, source: str, options: EncodingOptions) -> Plan:
    """Plan a job over what the source holds.

    Args:
        job: The job.
        relation: What the source said of its selection.
        source: Where the source is, in words; part of the fingerprint.
        options: How values become attributes.

    Raises:
        UsageError: A named column does not exist, or there is no key that DynamoDB can have.
    """
    warnings: list[str] = []
    columns = _chosen(job, relation)
    key_columns = _key_columns(job, relation, columns, warnings)
    key = _key(relation, key_columns, options)
    # Rows come in the order of the primary key, which an index gives without a sort, whatever the destination's key is.
    source_key = relation.primary_key or (() if relation.name is None and job.key is None else key_columns)
    names = tuple(column.name for column in columns)
    hidden = tuple(name for name in source_key if name not in names)
    reading = Reading(job.selection, names + hidden, source_key)
    keys_are_unique = any(unique <= set(key_columns) for unique in relation.unique_keys)
    plan = Plan(
        job=job,
        relation=relation,
        columns=columns,
        reading=reading,
        key=key,
        key_columns=key_columns,
        source_key=source_key,
        keys_are_unique=keys_are_unique,
        fingerprint=_fingerprint(job, relation, source, columns, key, source_key, options),
        warnings=tuple(warnings),
    )
    row_encoder(plan, options)  # refuses what cannot become items now, before anything is made or written
    return plan


def row_encoder(plan: Plan, options: EncodingOptions) -> RowEncoder:
    """Build the encoder of a plan's rows."""
    types = {column.name: column for column in plan.relation.columns}
    chosen = {column.name for column in plan.columns}
    return RowEncoder(
        [types[name] for name in plan.reading.columns],
        [name if name in chosen else None for name in plan.reading.columns],
        plan.key,
        source_key=plan.source_key,
        options=options,
    )


def _chosen(job: Job, relation: Relation) -> tuple[Column, ...]:
    by_name = {column.name: column for column in relation.columns}
    if job.selection.columns is None:
        columns = relation.columns
    else:
        for name in job.selection.columns:
            if name not in by_name:
                raise _unknown_column(name, "--columns", by_name)
        _refuse_twice(job.selection.columns, "--columns")
        columns = tuple(by_name[name] for name in job.selection.columns)
    if not columns:
        raise UsageError(
            f"{relation.name or 'the query'} has no columns", hint="There is nothing to copy from such a table."
        )
    return columns


def _key_columns(job: Job, relation: Relation, columns: tuple[Column, ...], warnings: list[str]) -> tuple[str, ...]:
    """Choose the key's columns: as asked for; else the primary key; else the first column, with a warning."""
    chosen = {column.name for column in columns}
    every = [column.name for column in relation.columns]
    if job.key:
        for name in job.key:
            if name not in every:
                raise _unknown_column(name, "--key", every)
        _refuse_twice(job.key, "--key")
        names, origin = job.key, "--key"
    elif relation.primary_key:
        names, origin = relation.primary_key, "the primary key"
    else:
        names, origin = (columns[0].name,), "the first column"
        what = f"{relation.name} has no primary key" if relation.name else "a query has no primary key"
        warnings.append(f"{what}: its first column, {names[0]}, is the destination key. Choose another with --key.")
    if len(names) > _MAX_KEY_ATTRIBUTES:
        raise UsageError(
            f"{origin} has {len(names)} columns ({', '.join(names)}), and a DynamoDB key has at most two attributes",
            hint=f"Name one or two columns that identify a row: --key {','.join(names[:2])}",
        )
    for name in names:
        if name not in chosen:
            raise UsageError(
                f"the key column {name} is not among --columns",
                hint=f"Add it: --columns {','.join([*(column.name for column in columns), name])}",
            )
    return names


def _key(relation: Relation, names: tuple[str, ...], options: EncodingOptions) -> Key:
    types = {column.name: column.type for column in relation.columns}
    attributes = []
    for name in names:
        attribute = attribute_type(types[name], options)
        if attribute is None:
            raise UsageError(
                f"column {name} is of type {types[name].name}, which cannot be a DynamoDB key: keys are text, numbers"
                " or bytes",
                hint="Choose another column with --key, or cast it in a --query.",
            )
        attributes.append(KeyAttribute(name, attribute))
    return Key(attributes[0], attributes[1] if len(attributes) > 1 else None)


def _refuse_twice(names: tuple[str, ...], option: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the column {name} is named twice in {option}", hint="Name it once.")


def _unknown_column(name: str, option: str, known: Iterable[str]) -> UsageError:
    names = list(known)
    near = [n for n in names if n.lower() == name.lower()] or difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Columns there: {', '.join(names[:30])}."
    return UsageError(f"there is no column {name!r}, named in {option}", hint=hint)


def _fingerprint(
    job: Job,
    relation: Relation,
    source: str,
    columns: tuple[Column, ...],
    key: Key,
    source_key: tuple[str, ...],
    options: EncodingOptions,
) -> str:
    decided = {
        "version": ENCODING_VERSION,
        "source": source,
        "relation": relation.name,
        "query": job.selection.query,
        "where": job.selection.where,
        "limit": job.selection.limit,
        "columns": [asdict(column) for column in columns],
        "key": asdict(key),
        "source_key": source_key,
        "options": {**asdict(options), "as_text": sorted(options.as_text)},
    }
    return hashlib.blake2b(json.dumps(decided, sort_keys=True).encode(), digest_size=16).hexdigest()
