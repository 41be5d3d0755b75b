"""Why DynamoDB throttles, in plain words, and what to do about it. Pure.

Since 2025 its throttling exceptions carry reasons: ``ThrottlingReason`` in the API reference, "DynamoDB throttling
resolution guide" in the developer guide. A reason's name is made of what is throttled (Table or Index), the operation
(Read or Write) and the limit.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from etlcli.errors import Throttled
from etlcli.progress import Counters

__all__ = ["Reason", "count_throttle", "throttle_warnings"]

_PARTS = re.compile(r"(Table|Index)(Read|Write)(\w+)Exceeded")

# What is worth a warning: so many throttles, and one for so many items, which is about every 20th request.
_GOOD_DEAL = 20
_ITEMS_A_THROTTLE = 500

# A reason of less than one in so many of them is left to the figures.
_WORTH_NAMING = 10


class _Limit(NamedTuple):
    name: str
    detail: str
    cure: str


_LIMITS = {
    "KeyRangeThroughput": _Limit(
        "one hot key range",
        "its partition takes no more {kind}s in a second",
        "give the hash key more different values (a partition takes 1,000 write units and 3,000 read units in a second;"
        " those of a new table are divided within minutes)",
    ),
    "ProvisionedThroughput": _Limit(
        "table limit",
        "the {kind} capacity that was provisioned",
        "raise the provisioned capacity, or switch to on-demand capacity",
    ),
    "MaxOnDemandThroughput": _Limit(
        "table limit",
        "the maximum on-demand {kind} throughput that was set",
        "raise the maximum throughput in the table's settings",
    ),
    "AccountLimit": _Limit(
        "account limit",
        "the {kind}s that an account may send to one table in this region",
        "ask AWS for a higher quota (Service Quotas, Amazon DynamoDB)",
    ),
}
_UNEXPLAINED_CURE = (
    "look at the table's throttle metrics in CloudWatch (WriteKeyRangeThroughputThrottleEvents and its like), which"
    " tell the limits apart"
)


class Reason(NamedTuple):
    """A reason for a throttle.

    Attributes:
        code: As DynamoDB spells it, for example ``TableWriteKeyRangeThroughputExceeded``. Where it gives none: its
            error code, ``UnprocessedItems`` or ``UnprocessedKeys``.
        resource: The table (``movies``) or the index (``movies/index/by-title``).
    """

    code: str
    resource: str

    def __str__(self) -> str:
        """The reason in plain words."""
        table, _, index = self.resource.partition("/index/")
        limit, kind = self._limit()
        if limit is not None:
            words = f"{limit.name}: {limit.detail.format(kind=kind)}"
            if index:
                words = f"an index's limit, {words.removeprefix('table limit: ')}"
        elif self._is_unprocessed:
            words = "it left items unprocessed, for which it gives no reason"
        else:
            words = "for no known reason"
        return f"{words} ({self.code} on {f'index {index} of ' if index else ''}table {table})"

    @property
    def cure(self) -> str:
        """What to do about it, as words that a sentence can begin or end with."""
        limit, kind = self._limit()
        cure = _UNEXPLAINED_CURE if limit is None else limit.cure
        return cure if kind == "read" else f"{cure}, or lower --max-writes"

    @property
    def _is_unprocessed(self) -> bool:
        return self.code in {"UnprocessedItems", "UnprocessedKeys"}

    def _limit(self) -> tuple[_Limit | None, str]:
        """The limit that was met, and whether it is one of reads or of writes."""
        parts = _PARTS.fullmatch(self.code)
        if parts is None:
            return None, "read" if self.code == "UnprocessedKeys" else "write"
        return _LIMITS.get(parts[3]), parts[2].lower()


def count_throttle(counters: Counters, error: Throttled) -> None:
    """Count a throttle, and each of its reasons."""
    counters.throttles += 1
    for code, resource in error.reasons:
        resources = counters.throttle_reasons.setdefault(code, {})
        resources[resource] = resources.get(resource, 0) + 1


def throttle_warnings(counters: Counters) -> list[str]:
    """Say by what DynamoDB throttled a run, and what to do about it, where it throttled it a good deal."""
    counts = {
        Reason(code, resource): count
        for code, resources in counters.throttle_reasons.items()
        for resource, count in resources.items()
    }
    total = sum(counts.values())
    if total < max(_GOOD_DEAL, counters.rows_loaded / _ITEMS_A_THROTTLE):
        return []
    return [
        f"DynamoDB throttled {count:,} requests: {reason}. To go faster, {reason.cure}."
        for reason, count in sorted(counts.items(), key=lambda item: -item[1])
        if count * _WORTH_NAMING >= total
    ]
