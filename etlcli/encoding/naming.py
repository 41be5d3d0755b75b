"""The rules for attribute names: none twice, none empty, none too long."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from etlcli.encoding.limits import MAX_ATTRIBUTE_NAME_BYTES, MAX_KEY_NAME_BYTES
from etlcli.encoding.registry import shorten
from etlcli.encoding.specs import AttributeSpec, origin_of
from etlcli.errors import ConfigError

__all__ = ["check_names"]


def check_names(attributes: Sequence[AttributeSpec], in_key: Collection[str]) -> None:
    """Check the names of an item's attributes.

    Args:
        attributes: The attributes.
        in_key: The names of those that make up the key.

    Raises:
        ConfigError: A name is used twice (both culprits are told), empty, or too long.
    """
    seen: dict[str, AttributeSpec] = {}
    for spec in attributes:
        name = spec.name
        limit = MAX_KEY_NAME_BYTES if name in in_key else MAX_ATTRIBUTE_NAME_BYTES
        size = len(name.encode(errors="replace"))
        if not 0 < size <= limit:
            what = "a key attribute's name" if name in in_key else "an attribute's name"
            raise ConfigError(
                f"{what}, {shorten(name.encode(errors='replace'))}, is not between 1 and {limit} bytes long"
                f" ({origin_of(spec)})",
                hint="Give it another name.",
            )
        if name in seen:
            raise ConfigError(
                f"{origin_of(seen[name])} and {origin_of(spec)} would both become the attribute {name}",
                hint="Rename or drop one of them.",
            )
        seen[name] = spec
