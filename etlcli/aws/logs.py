"""What functions write to CloudWatch: one JSON object a line, and counters in its embedded metric format.

The format: CloudWatch's "Embedded metric format specification". Its counters need no call of any API.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from etlcli.hidden import masked

__all__ = ["count", "say"]

_NAMESPACE = "momento-etl"


def say(level: str, message: str, **facts: Any) -> None:
    """Write a line.

    Args:
        level: ``INFO``, ``WARN`` or ``ERROR``.
        message: What happened.
        facts: What it is about: job, run, block.
    """
    _write({"level": level, "message": message, **facts})


def count(counters: Mapping[str, int | float], **facts: Any) -> None:
    """Write counters, with the job as their dimension.

    Args:
        counters: The metrics by name; ``seconds`` has that unit.
        facts: What they are about; ``job`` is one of them.
    """
    metrics = [{"Name": name, "Unit": "Seconds" if name == "seconds" else "Count"} for name in counters]
    _write(
        {
            "_aws": {
                "Timestamp": round(time.time() * 1000),
                "CloudWatchMetrics": [{"Namespace": _NAMESPACE, "Dimensions": [["job"]], "Metrics": metrics}],
            },
            "level": "INFO",
            **facts,
            **counters,
        }
    )


def _write(line: dict[str, Any]) -> None:
    sys.stdout.write(masked(json.dumps(line, default=str)) + "\n")
    sys.stdout.flush()
