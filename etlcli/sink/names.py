"""What a DynamoDB table may be called. Pure, so that a name is checked before anything is opened."""

from __future__ import annotations

import re

from etlcli.errors import UsageError

__all__ = ["check_table_name"]

# "Naming rules" in the DynamoDB developer guide; CreateTable's own pattern says the same.
_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")


def check_table_name(name: str) -> None:
    """Check a DynamoDB table's name against the service's rules, without any I/O.

    Raises:
        UsageError: DynamoDB would refuse the name; the hint has one that it takes, where one is near.
    """
    if _NAME.fullmatch(name):
        return
    hint = "a table's name has 3 to 255 characters of A-Z, a-z, 0-9, _, - and ."
    near = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")
    if near != name and _NAME.fullmatch(near):
        hint += f"; for example --destination {near}"
    raise UsageError(f"DynamoDB takes no table of the name {name!r}", hint=hint)
