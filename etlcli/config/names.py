"""The rules for names: what Momento and DynamoDB take, and what a job and its cache and table are called by default."""

from __future__ import annotations

import re

from etlcli.source.names import candidates

__all__ = ["NAME_RULE", "default_name", "is_valid_name", "job_name"]

NAME_RULE = "3 to 255 letters (a to z), digits, dots, hyphens and underscores"
"""What DynamoDB takes as a table's name (its API reference, TableName) and Momento as a cache's name (the schema of its
CloudFormation resource, momentohq/cfn-cache: ``^[a-zA-Z0-9-_.]{3,255}$``): the same rule, by chance."""

_VALID = re.compile(r"[A-Za-z0-9._-]{3,255}")


def is_valid_name(name: str) -> bool:
    """Whether a cache and a DynamoDB table can be called so."""
    return _VALID.fullmatch(name) is not None


def job_name(table: str) -> str:
    """Derive a job's name from a table's name as typed: without quotes, and without a leading ``public.``.

    ``public.movies`` is ``movies``; ``sales."Order Details"`` is ``sales.Order Details``.

    Raises:
        UsageError: The name is empty, or its quotes do not match.
    """
    parts = candidates(table)[0]
    if len(parts) == 2 and parts[0] == "public":
        parts = parts[1:]
    return ".".join(parts)


def default_name(job: str, suffix: str) -> str:
    """Derive the name of a job's cache or table from the job's name.

    Characters that may not be in it become ``_``. Where these are letters or digits of other scripts, six characters
    of a digest follow, or every six-letter Cyrillic name would become the same one. A name of fewer than three
    characters gets ``suffix``: the table ``t`` goes to ``t-table``.
    """
    import hashlib

    name = re.sub(r"[^A-Za-z0-9._-]", "_", job)
    if any(character.isalnum() and not character.isascii() for character in job):
        name += f"-{hashlib.sha256(job.encode()).hexdigest()[:6]}"
    return name if len(name) >= 3 else f"{name}-{suffix}"
