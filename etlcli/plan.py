"""Decide, without any I/O, what a job does with what the source holds: attributes, key, order, fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace

from etlcli.encoding import (
    ENCODING_VERSION,
    PLAIN,
    AttributeSpec,
    FromColumn,
    Recipe,
    RowEncoder,
    Shape,
    make_shape,
    near_names,
    spec_to_json,
)
from etlcli.errors import UsageError
from etlcli.marking import mark_bytes
from etlcli.model import Column, Job, Key, Relation
from etlcli.ports import Reading

__all__ = ["Plan", "make_plan", "row_encoder"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job does, decided.

    Attributes:
        job: The job.
        relation: What it reads.
        source: The same in words, without any secret: host, database, table or query.
        shape: What its items consist of.
        columns: The attributes that columns became, in order, with the columns' types.
        reading: The pass over the source; it may read columns that are needed for their order or a template only.
        key: The destination key.
        key_columns: The columns that the key's attributes come from.
        source_key: The columns that order the rows, and so the chunks; empty where the source has no key.
        keys_are_unique: Whether a constraint already guarantees that no two rows share a destination key.
        asks_for_duplicates: Whether PostgreSQL is to be asked for rows that do. What the user's own function makes of a
            key it cannot tell; a warning says so.
        fingerprint: Hex digest of all that decides what the items look like.
        warnings: What the user should know before it is done.
    """

    job: Job
    relation: Relation
    source: str
    shape: Shape
    columns: tuple[Column, ...]
    reading: Reading
    key: Key
    key_columns: tuple[str, ...]
    source_key: tuple[str, ...]
    keys_are_unique: bool
    asks_for_duplicates: bool
    fingerprint: str
    warnings: tuple[str, ...]

    @property
    def resumes(self) -> bool:
        """Whether reading can go on behind a row, by the text of its key, in another session.

        It can where no two rows have the same place in the order, every row has one, and the text that the ledger keeps
        leads back to it; what is masked, the ledger does not keep. With a limit nobody could tell how many rows are
        left to take. What cannot is one range, which is extracted anew.
        """
        order = frozenset(self.source_key)
        return (
            self.job.selection.limit is None
            and any(unique <= order for unique in self.relation.unique_keys)
            and not order & (self.relation.unseekable | self.shape.masked)
        )

    @property
    def key_specs(self) -> tuple[AttributeSpec, ...]:
        """What the key's attributes are made of, in the key's order."""
        by_name = {spec.name: spec for spec in self.shape.attributes}
        return tuple(by_name[attribute.name] for attribute in self.key.attributes)


def make_plan(job: Job, relation: Relation, source: str, recipe: Recipe = PLAIN) -> Plan:
    """Plan a job over what the source holds.

    Args:
        job: The job.
        relation: What the source said of its selection.
        source: Where the source is, in words; part of the fingerprint.
        recipe: How rows become items.

    Raises:
        UsageError: A named column does not exist, or there is no key that DynamoDB can have.
    """
    if not relation.columns:
        raise UsageError(
            f"{relation.name or 'the query'} has no columns", hint="There is nothing to copy from such a table."
        )
    warnings: list[str] = []
    names, origin = _key_names(job, relation, recipe, warnings)
    shape = make_shape(
        relation.columns,
        replace(
            recipe.shape,
            columns=_chosen(job, relation),
            reserved=job.mark if job.mode == "replace" else recipe.shape.reserved,
        ),
        names,
        options=recipe.encoding,
        job=job.name,
        key_origin=origin,
        key_of_columns=not job.key,
    )
    # Rows come in the order of the primary key, which an index gives without a sort, whatever the destination's key is.
    source_key = relation.primary_key or (() if relation.name is None and not job.key else shape.key_columns)
    source_key = tuple(name for name in source_key if name not in relation.unordered)
    if recipe.transform is not None:
        warnings.append(
            f"{recipe.transform.reference} may change keys, so PostgreSQL cannot be asked for duplicates: of two items"
            " with one key one overwrites the other"
        )
    if job.layout == "rows":
        many = f"{relation.estimated_rows:,}" if relation.estimated_rows is not None else "some"
        warnings.append(
            f"the rows layout costs a call and {len(shape.attributes)} metered operations or more a row, both ways, for"
            f" about {many} rows; the packed one costs about a hundredth of it"
        )
    keys_are_unique = any(unique <= shape.identifying for unique in relation.unique_keys)
    hidden = tuple(name for name in source_key if name not in shape.columns)
    types = {column.name: column.type for column in relation.columns}
    plan = Plan(
        job=job,
        relation=relation,
        source=f"{source} {relation.name or 'query'}",
        shape=shape,
        columns=tuple(
            Column(spec.name, types[spec.column]) for spec in shape.attributes if isinstance(spec, FromColumn)
        ),
        reading=Reading(job.selection, shape.columns + hidden, source_key),
        key=shape.key,
        key_columns=shape.key_columns,
        source_key=source_key,
        keys_are_unique=keys_are_unique,
        asks_for_duplicates=not keys_are_unique and recipe.transform is None,
        fingerprint=_fingerprint(job, relation, source, shape, source_key, recipe),
        warnings=tuple(warnings),
    )
    row_encoder(plan, recipe)  # refuses what cannot become items now, before anything is made or written
    return plan


def row_encoder(plan: Plan, recipe: Recipe = PLAIN) -> RowEncoder:
    """Build the encoder of a plan's rows."""
    columns = {column.name: column for column in plan.relation.columns}
    return RowEncoder(
        [columns[name] for name in plan.reading.columns],
        plan.shape.attributes,
        plan.key,
        source_key=plan.source_key,
        options=recipe.encoding,
        mask_key=recipe.mask_key,
        transform=recipe.transform,
        reserved=plan.job.mark if plan.job.mode == "replace" else None,
        reserved_bytes=mark_bytes(plan.job.mark) if plan.job.mode == "replace" else 0,
    )


def _chosen(job: Job, relation: Relation) -> tuple[str, ...] | None:
    """Check the columns that were asked for."""
    chosen = job.selection.columns
    known = [column.name for column in relation.columns]
    for name in chosen or ():
        if name not in known:
            parts = name.split()
            apart = f"Columns have commas between them: {','.join(parts)}" if {*parts} <= {*known} else None
            raise UsageError(f"there is no column {name!r}, named in --columns", hint=apart or near_names(name, known))
    _refuse_twice(chosen or (), "--columns")
    return chosen


def _key_names(job: Job, relation: Relation, recipe: Recipe, warnings: list[str]) -> tuple[tuple[str, ...], str]:
    """Choose the key: as asked for; else the primary key; else the first column, with a warning."""
    if job.key:
        _refuse_twice(job.key, "--key")
        return job.key, "--key"
    if relation.primary_key:
        return relation.primary_key, "the primary key"
    names = job.selection.columns or tuple(column.name for column in relation.columns)
    first = next((name for name in names if name not in recipe.shape.drop), names[0])
    what = f"{relation.name} has no primary key" if relation.name else "a query has no primary key"
    warnings.append(f"{what}: its first column, {first}, is the destination key. Choose another with --key.")
    return (first,), "the first column"


def _refuse_twice(names: tuple[str, ...], option: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the column {name} is named twice in {option}", hint="Name it once.")


def _fingerprint(
    job: Job, relation: Relation, source: str, shape: Shape, source_key: tuple[str, ...], recipe: Recipe
) -> str:
    types = {column.name: column.type for column in relation.columns}
    decided = {
        "version": ENCODING_VERSION,
        "source": source,
        "relation": relation.name,
        "query": job.selection.query,
        "where": job.selection.where,
        "limit": job.selection.limit,
        "columns": [[name, asdict(types[name])] for name in shape.columns],
        "attributes": [spec_to_json(spec) for spec in shape.attributes],
        "key": asdict(shape.key),
        "source_key": source_key,
        "recipe": recipe.fingerprint(),
        "mode": job.mode,
        "mark": job.mark if job.mode == "replace" else None,
    }
    return hashlib.blake2b(json.dumps(decided, sort_keys=True).encode(), digest_size=16).hexdigest()
