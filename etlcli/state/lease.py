"""Leases: who may load for a job now, and who may take that over. Decided here, without any I/O."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from etlcli.model import Process
from etlcli.state.layout import NAME_BYTES, TEXT_BYTES, cut, document_of, known_fields, reading

__all__ = [
    "LEASE_SECONDS",
    "Claim",
    "Held",
    "Lease",
    "LeaseRecord",
    "LeaseWatch",
    "Lost",
    "Process",
    "Processes",
    "Standing",
    "Taken",
    "dump_lease",
    "judge",
    "load_lease",
    "seems_abandoned",
]

LEASE_SECONDS = 30.0


class Processes(Protocol):
    """What this machine knows of processes."""

    def is_dead(self, process: Process) -> bool:
        """Whether it surely runs no more; False wherever that cannot be known from here."""
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """Somebody who wants to load for a job.

    Attributes:
        holder: A name that nobody else has, and that no earlier attempt had; where several processes share the right
            (one Step Functions execution), the name that they share.
        host: The machine's name, for people.
        command: What is being done, for people, without any secret: ``momento-etl run --table movies``.
        process: The process to watch; None where there is no single one, or where it cannot be told apart.
        period_seconds: For how long the lease is good without a renewal.
    """

    holder: str
    host: str
    command: str
    process: Process | None = None
    period_seconds: float = LEASE_SECONDS


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease as it stands in the table.

    Attributes:
        holder: As in ``Claim``.
        host: As in ``Claim``.
        command: As in ``Claim``.
        period_seconds: As in ``Claim``.
        renewals: Counts up. What a taker watches, since clocks of two hosts do not agree.
        since: When it was taken: seconds since 1970, by its holder's clock.
        expires_at: When it ends unless it is renewed, by its holder's clock. For people, and as a first guess only.
        process: As in ``Claim``.
    """

    holder: str
    host: str
    command: str
    period_seconds: float
    renewals: int
    since: float
    expires_at: float
    process: Process | None = None

    @classmethod
    def of(cls, claim: Claim, now: float) -> LeaseRecord:
        """Make the record of a lease that is taken now (seconds since 1970)."""
        return cls(
            holder=claim.holder,
            host=cut(claim.host, NAME_BYTES),
            command=cut(claim.command, TEXT_BYTES),
            period_seconds=claim.period_seconds,
            renewals=0,
            since=now,
            expires_at=now + claim.period_seconds,
            process=claim.process,
        )


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that is ours, as its holder keeps it.

    Attributes:
        job: The job.
        holder: As in ``Claim``.
        period_seconds: As in ``Claim``.
        renewed_at: By the holder's own steady clock: just before the request was sent that took or renewed it. A taker
            counts from when it was carried out, which is later.
    """

    job: str
    holder: str
    period_seconds: float
    renewed_at: float

    def safe_until(self, longest_request_seconds: float) -> float:
        """By the same clock: from then on nothing may be sent, since its answer could come after the lease's end.

        Args:
            longest_request_seconds: The deadline of one write request.
        """
        return self.renewed_at + self.period_seconds - longest_request_seconds

    def renew_from(self, longest_request_seconds: float) -> float:
        """By the same clock: when to renew, with time for two more tries before sending has to stop."""
        return self.renewed_at + max(0.0, self.period_seconds - longest_request_seconds) / 3.0


class Standing(Enum):
    """How a lease stands to somebody who wants it."""

    FREE = "nobody has it"
    OURS = "we have it"
    DEAD = "its holder's process is dead"
    EXPIRED = "its holder did not renew it for a whole period"
    HELD = "its holder lives, as far as we know"


class LeaseWatch:
    """What one taker has seen of one job's lease, by its own steady clock. Kept from one attempt to the next."""

    def __init__(self) -> None:
        self._sight: tuple[str, int] | None = None
        self._first_seen = 0.0
        self._changed = False

    @property
    def saw_life(self) -> bool:
        """Whether the lease was seen to change hands or to be renewed."""
        return self._changed

    def look(self, record: LeaseRecord, *, asked_at: float, answered_at: float) -> float:
        """Take note of what a strongly consistent read gave.

        Args:
            record: What was read.
            asked_at: When the read was sent.
            answered_at: When its answer came. The first sight of a state counts from here and a later one up to its
                ``asked_at``: whatever happened in between was not a renewal.

        Returns:
            The seconds for which it surely has not changed.
        """
        sight = (record.holder, record.renewals)
        if sight != self._sight:
            self._changed = self._changed or self._sight is not None
            self._sight, self._first_seen = sight, answered_at
        return max(0.0, asked_at - self._first_seen)


def judge(record: LeaseRecord | None, claim: Claim, unchanged_seconds: float, *, dead: bool) -> Standing:
    """Decide whether a lease may be taken.

    Args:
        record: The lease as it stands; None where there is none.
        claim: Who wants it.
        unchanged_seconds: For how long the taker itself has seen it unchanged.
        dead: Whether its holder is a process of this very machine that surely runs no more.
    """
    if record is None:
        return Standing.FREE
    if record.holder == claim.holder:
        return Standing.OURS
    if dead:
        return Standing.DEAD
    # The period is that of its holder, who stops by it.
    return Standing.EXPIRED if unchanged_seconds >= record.period_seconds else Standing.HELD


def seems_abandoned(record: LeaseRecord, watch: LeaseWatch, now: float) -> bool:
    """Whether a held lease is worth watching for a period, rather than to be taken for held at once.

    Its time has run out by this host's clock, or lies so far ahead that the two clocks cannot agree; and it was not
    seen to change. A wrong guess costs a wait or a second attempt, and never two holders.

    Args:
        record: The lease as it stands.
        watch: What was seen of it.
        now: Seconds since 1970, by this host's clock.
    """
    lives_by_the_clock = now < record.expires_at <= now + record.period_seconds
    return not lives_by_the_clock and not watch.saw_life


@dataclass(frozen=True, slots=True)
class Taken:
    """The lease is ours.

    Attributes:
        lease: To renew and to release.
        standing: How it stood before.
        before: Whose it was, where it was taken over or was ours already.
    """

    lease: Lease
    standing: Standing
    before: LeaseRecord | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody else has the lease.

    Attributes:
        job: The job.
        record: By whom, where, since when, with which command.
        seconds_left: After so many more seconds without a renewal the next attempt with the same watch takes it.
        seems_abandoned: As the function of that name says: watch it, rather than give up now.
    """

    job: str
    record: LeaseRecord
    seconds_left: float
    seems_abandoned: bool

    def __str__(self) -> str:
        """For people: who, where, since when."""
        process = f" (pid {self.record.process.pid})" if self.record.process else ""
        since = dt.datetime.fromtimestamp(self.record.since, dt.UTC)
        return (
            f"another run of {self.job} is at work: {self.record.command}, on {self.record.host}{process},"
            f" since {since:%Y-%m-%d %H:%M:%S} UTC"
        )


@dataclass(frozen=True, slots=True)
class Lost:
    """A lease that was ours is ours no more: nothing may be sent from now on.

    Attributes:
        job: The job.
        to: Who has it now; None where nobody has.
    """

    job: str
    to: LeaseRecord | None


def dump_lease(record: LeaseRecord) -> dict[str, Any]:
    """Write a lease."""
    return document_of(record)


def load_lease(document: Mapping[str, Any], what: str) -> LeaseRecord:
    """Read a lease.

    Raises:
        SinkError: It is damaged or of a newer version; ``what`` names it.
    """
    with reading(document, what):
        process = document.get("process")
        known = known_fields(LeaseRecord, document) | {"process": Process(**process) if process else None}
        return LeaseRecord(**known)
