"""What the services take in a second, which bounds every run."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the services take in a second.

    Attributes:
        momento_operations: Metered operations. An account on demand starts with 100 (Momento's limits page).
        write_units: DynamoDB's write units. A new on-demand table takes 4,000, and up to 40,000 once it has grown
            (Developer Guide, "on-demand capacity mode", and the default table quota).
    """

    momento_operations: int = 100
    write_units: int = 4000


DEFAULT_LIMITS = Limits()
