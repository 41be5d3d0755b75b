"""For keys of three and more columns: a config that makes them two, ready to be pasted.

DynamoDB has a hash and a range attribute. So one of them, or both, are put together by templates: such that no two rows
can get one key, where the columns' types allow it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from etlcli.encoding.fields import has_text, is_injective
from etlcli.encoding.templates import Template, field_text
from etlcli.model import PgType

__all__ = ["propose_key", "toml_key", "toml_text"]

_SEPARATOR: Final = "#"
"""No number, date, uuid or address has it in its text."""

_ESCAPES: Final = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


@dataclass(frozen=True, slots=True)
class _Half:
    """One attribute of a proposed key: an attribute that there is, or a template."""

    attribute: str | None
    template: str
    is_sure: bool


def propose_key(
    columns: Sequence[str],
    types: Mapping[str, PgType],
    *,
    job: str,
    usable: Callable[[str], str | None],
    added: Mapping[str, str | bool | int | Decimal],
    taken: Mapping[str, object],
) -> str:
    """Write a hint with the config that makes two attributes of a key's columns.

    Args:
        columns: The key's columns, three or more.
        types: Their types.
        job: The job's name.
        usable: Names the attribute by which a column alone can be one of the key's; None where it cannot be.
        added: What the job's section has in ``attributes`` already: it is written out again.
        taken: All attribute names that are in use.
    """
    pairs = [(first, second) for first, second in _pairs(columns, types, usable) if first and second]
    if not pairs:
        culprits = [name for name in columns if not has_text(types[name])]
        listed = ", ".join(f"{name} ({types[name].name})" for name in culprits or columns)
        return (
            f"These cannot be joined in a template: {listed}. Copy a --query that turns them into text, and choose one"
            " or two of its columns with --key."
        )
    pair = next((pair for pair in pairs if pair[0].is_sure and pair[1].is_sure), pairs[0])
    attributes = {name: _toml_value(value) for name, value in added.items()}
    key = []
    for half, name in zip(pair, ("pk", "sk"), strict=True):
        if half.attribute is not None:
            key.append(half.attribute)
            continue
        free = _free(name, {*taken, *attributes})
        attributes[free] = toml_text(half.template)
        key.append(free)
    lines = ["Put this into the config; where it has this section, only the lines below the header:"]
    if not all(half.is_sure for half in pair):
        lines[0] = (
            f"Put this into the config; where it has this section, only the lines below the header. (Two rows whose"
            f" texts differ only in where a {_SEPARATOR} stands would get one key; a run looks for such rows first.)"
        )
    lines.append(f"[tables.{toml_key(job)}]")
    lines.append(f"key = [{', '.join(map(toml_text, key))}]")
    inside = ", ".join(f"{toml_key(name)} = {value}" for name, value in attributes.items())
    lines.append(f"attributes = {{ {inside} }}")
    return "\n".join(lines)


def _pairs(
    columns: Sequence[str], types: Mapping[str, PgType], usable: Callable[[str], str | None]
) -> Iterator[tuple[_Half | None, _Half | None]]:
    """List the ways to make two halves of the columns, the most natural first."""
    for place, column in enumerate(columns):
        rest = [*columns[:place], *columns[place + 1 :]]
        yield _alone(column, usable), _joined(rest, types)
    for place, column in reversed(list(enumerate(columns))):
        rest = [*columns[:place], *columns[place + 1 :]]
        yield _joined(rest, types), _alone(column, usable)
    for length in range(2, len(columns) - 1):
        yield _joined(columns[:length], types), _joined(columns[length:], types)
    # A column that is no key on its own may still be one within a template.
    for length in (1, len(columns) - 1):
        yield _joined(columns[:length], types), _joined(columns[length:], types)


def _alone(column: str, usable: Callable[[str], str | None]) -> _Half | None:
    attribute = usable(column)
    return None if attribute is None else _Half(attribute, "", is_sure=True)


def _joined(columns: Sequence[str], types: Mapping[str, PgType]) -> _Half | None:
    if not all(has_text(types[column]) for column in columns):
        return None
    text = _SEPARATOR.join(map(field_text, columns))
    return _Half(None, text, is_sure=is_injective(Template.parse(text), types))


def _free(name: str, taken: set[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free = f"{name}{number}"
        number += 1
    return free


def toml_text(text: str) -> str:
    """Write a text as TOML, in printable characters only."""
    out = []
    for character in text:
        if character in _ESCAPES:
            out.append(_ESCAPES[character])
        elif character.isprintable():
            out.append(character)
        else:
            code = ord(character)
            out.append(f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}")
    return f'"{"".join(out)}"'


def toml_key(name: str) -> str:
    """Write a key of TOML, in quotes where it needs them."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_text(name)


def _toml_value(value: str | bool | int | Decimal) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return toml_text(value)
    return str(value)
