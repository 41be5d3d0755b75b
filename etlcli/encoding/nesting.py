"""The rule that every family of containers shares: DynamoDB's bound on nesting."""

from __future__ import annotations

from etlcli.encoding.limits import MAX_NESTING_LEVELS, nesting_levels
from etlcli.encoding.registry import Unrepresentable, shorten

__all__ = ["check_nesting"]


def check_nesting(value: bytes, text: bytes) -> bytes:
    """Give back an attribute value that is nested no deeper than DynamoDB takes.

    Args:
        value: The value as DynamoDB JSON.
        text: The same as PostgreSQL wrote it, for the message.

    Raises:
        Unrepresentable: ``nesting-depth``.
    """
    # Containers are counted first, whether nested or side by side: mostly there are too few to be too deep.
    if value.count(b'{"M":{') + value.count(b'{"L":[') >= MAX_NESTING_LEVELS:
        levels = nesting_levels(value)
        if levels > MAX_NESTING_LEVELS:
            raise Unrepresentable(
                "nesting-depth", f"{shorten(text)} has {levels} levels, DynamoDB takes {MAX_NESTING_LEVELS}"
            )
    return value
