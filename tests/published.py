"""What commands print, held against the schema that is published of it."""

from __future__ import annotations

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, exceptions

from etlcli.json_schema import summary_schema

__all__ = ["refuse_misfit"]


def refuse_misfit(printed: dict[str, Any]) -> None:
    """Fail where an object or an event is not as its schema says."""
    misfit = exceptions.best_match(_validator().iter_errors(printed))
    assert misfit is None, f"{misfit.message[:500]}, at {misfit.json_path} of {printed.get('command')}"


@cache
def _validator() -> Any:
    return Draft202012Validator(summary_schema())
