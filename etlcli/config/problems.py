"""What is wrong with a configuration, gathered so that one error tells all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etlcli.errors import ConfigError

__all__ = ["Problem", "as_error"]

_MOST = 10


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        message: What, and where: without any secret.
        hint: What to do about it.
        line: The line of the file that it is about, as far as that is known.
    """

    message: str
    hint: str | None = None
    line: int | None = None


def as_error(problems: Sequence[Problem]) -> ConfigError:
    """Make one error of them; of very many, the first ones and their number."""
    if len(problems) == 1:
        return ConfigError(problems[0].message, hint=problems[0].hint)
    shown = sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0))[:_MOST]
    lines = [f"{len(problems)} problems in the configuration:", *(f"  {problem.message}" for problem in shown)]
    if len(problems) > _MOST:
        lines.append(f"  ... and {len(problems) - _MOST} more")
    hints = list(dict.fromkeys(problem.hint for problem in shown if problem.hint))
    return ConfigError("\n".join(lines), hint="\n".join(hints) or None)
