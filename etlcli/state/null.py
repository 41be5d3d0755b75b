"""What stands in for the state table where the user wants none."""

from __future__ import annotations

import math
from collections.abc import Iterable

from etlcli.errors import ConfigError
from etlcli.state.history import RunRecord
from etlcli.state.lease import Claim, Lease, LeaseWatch, Standing, Taken
from etlcli.state.mark import Mark
from etlcli.state.watermark import Watermark, WatermarkEntry

__all__ = ["NullState"]


class NullState:
    """The state store of those who want none (``[state] enabled = false``).

    Leases are granted and mean nothing, progress and history are forgotten; what cannot do without says so.
    """

    @property
    def table(self) -> None:
        """There is none."""
        return

    async def prepare(self) -> bool:
        """Nothing is made."""
        return False

    async def acquire(self, job: str, claim: Claim, watch: LeaseWatch) -> Taken:  # noqa: ARG002  the port's
        """Grant a lease without end, to anybody."""
        return Taken(Lease(job, claim.holder, math.inf, 0.0), Standing.FREE)

    async def renew(self, lease: Lease) -> Lease:
        """The same lease."""
        return lease

    async def release(self, lease: Lease) -> bool:  # noqa: ARG002
        """There is nothing to release."""
        return True

    async def fetch_lease(self, job: str) -> None:  # noqa: ARG002
        """Nobody has one."""
        return

    async def fetch_progress(
        self,
        job: str,  # noqa: ARG002
        run_id: str,  # noqa: ARG002
        among: range | None = None,  # noqa: ARG002
    ) -> frozenset[int]:
        """Nothing is known to be in the destination."""
        return frozenset()

    async def acknowledge(self, job: str, run_id: str, chunks: Iterable[int]) -> None:
        """Forget it."""

    async def clear_progress(self, job: str, run_id: str) -> None:
        """There is none."""

    async def put_run(self, record: RunRecord) -> None:
        """Forget it."""

    async def fetch_run(self, job: str | None, run_id: str) -> None:  # noqa: ARG002
        """Nothing is remembered."""
        return

    async def fetch_runs(self, job: str | None, limit: int) -> list[RunRecord]:  # noqa: ARG002
        """Nothing is remembered."""
        return []

    async def fetch_jobs(self) -> list[str]:
        """Nothing is remembered."""
        return []

    async def fetch_watermark(self, job: str) -> WatermarkEntry:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise _needs_state(f"an incremental run of {job}")

    async def move_watermark(self, job: str, watermark: Watermark, expected_version: int) -> bool:  # noqa: ARG002
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise _needs_state(f"an incremental run of {job}")

    async def reset_watermark(self, job: str) -> None:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise _needs_state(f"the watermark of {job}")

    async def fetch_mark(self, job: str) -> Mark | None:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise _needs_state(f"the replace mode of {job}")

    async def ensure_mark(self, job: str) -> Mark:
        """Refuse.

        Raises:
            ConfigError: Always.
        """
        raise _needs_state(f"the replace mode of {job}")


def _needs_state(what: str) -> ConfigError:
    return ConfigError(
        f"{what} needs the state table, which is switched off ([state] enabled = false)",
        hint="Switch it on: [state] enabled = true. The table is made when first needed.",
    )
