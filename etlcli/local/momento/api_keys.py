"""Which API keys are let in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from etlcli.local.momento.refusals import UnauthenticatedError

__all__ = ["ApiKeys"]


@dataclass(slots=True)
class ApiKeys:
    """The API keys that are let in. They can change while the server runs, as keys expire and are replaced.

    Attributes:
        accepted: The keys. None lets in every call, with a key or without, as the official Momento Local does.
    """

    accepted: frozenset[str] | None = None

    def only(self, *keys: str) -> None:
        """Lets in these keys, and no others any more.

        Args:
            *keys: The keys; without one, nobody is let in.
        """
        self.accepted = frozenset(keys)

    def check(self, metadata: Mapping[str, Any]) -> None:
        """Refuses a call that comes without a key that is accepted.

        Args:
            metadata: The call's.

        Raises:
            UnauthenticatedError: It does.
        """
        if self.accepted is not None and metadata.get("authorization") not in self.accepted:
            msg = "Invalid authentication credentials to access the cache service"
            raise UnauthenticatedError(msg)
