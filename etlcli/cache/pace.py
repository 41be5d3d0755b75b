"""How fast to use an account whose allowance nobody tells: as fast as it goes, until something is refused.

From then on there is a rate of metered operations a second. A refusal cuts it (multiplicative decrease); what gets
through raises it again, slowly near the rate that was refused last, and ever faster beyond (additive increase, of the
kind that TCP's CUBIC has). So it settles just below the allowance, and follows when that moves.

A call goes as soon as those before it are paid for, and is paid for afterwards: a single one may cost more than a
second's allowance, and what a read costs is known only once it is answered.
"""

from __future__ import annotations

import asyncio
import time
from bisect import insort
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Costs", "Line", "Pace", "Place", "Sent"]

# What is left of the rate after a refusal. A tenth less for some seconds loses nothing where an account saves up a
# second's allowance, and little elsewhere.
_CUT = 0.9

# In so many seconds' worth of the rate that was refused, it is back there (0.46 of them), and a tenth beyond (0.93).
_EPOCH_SECONDS = 20.0
_BACK_SECONDS = _EPOCH_SECONDS * (1 - _CUT) ** (1 / 3)

# One call, however large, raises the rate to so many times of what it was at most.
_STEEPEST = 4.0

# What was spared by being late is made up for, since timers and a busy event loop always are.
_LATENESS_SECONDS = 0.1

# Less is not worth a timer.
_SHORTEST_SECONDS = 0.0005

# A rate that was found while others used the account up must not hold a call back for minutes once they are gone.
_LONGEST_WAIT_SECONDS = 20.0

# After a refusal everybody waits for the first share of the time that the refused call is worth, and for the retry
# policy's pause besides; but for no more of that than the second share, or a second: what accounts save is lost then.
_HOLD = 0.1
_LATE = 0.25

# While one call tries whether there is some allowance again, the others look this often what became of it.
_TRIAL_SECONDS = 0.02

# How long the next in line sleeps before it looks again.
_NAP_SECONDS = 0.25

# The rate that an account has really given is reckoned over so many of the last calls that got through, or stretches
# of calls; and not over less than a second, since a limit of so much a second may say no for all the rest of it.
_STRETCHES = 4
_STRETCH_SECONDS = 0.5
_LIMITS_SECONDS = 1.0

# The kinds of keys whose cost is remembered, the last ones used; and what a new cost counts for beside those before.
_KINDS = 64
_NEWS = 0.25


class Sent(NamedTuple):
    """A call under way.

    Attributes:
        cost: What it was reckoned to cost, in metered operations.
        at: When it was sent.
        waited: Whether the pace, or those before it in the line, held it back.
        cuts: How often the rate had been cut by then.
    """

    cost: int
    at: float
    waited: bool
    cuts: int


@dataclass(slots=True)
class _Stretch:
    """Calls that got through one soon after the other.

    Attributes:
        since: When the first of them did.
        first: What it cost.
        total: What all of them cost.
    """

    since: float
    first: int
    total: int


class Pace:
    """The rate at which the calls of one client may go.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._rate: float | None = None
        self._refused_rate = 0.0
        self._gained = 0.0  # operations that got through since the last cut
        self._cuts = 0
        self._owed = 0.0  # operations that were let through and are not paid for yet
        self._owed_at = 0.0
        self._under_way = 0
        self._held_until = float("-inf")
        self._refusing = False
        self._trial: Sent | None = None  # the one call that goes while the last thing heard is a refusal
        self._through: deque[_Stretch] = deque(maxlen=_STRETCHES)

    @property
    def rate(self) -> float | None:
        """Metered operations a second; None as long as nothing was refused."""
        return self._rate

    def delay(self) -> float:
        """Seconds until the next call may go; 0 for now."""
        if self._rate is None and not self._refusing:
            return 0.0
        now = self._clock()
        self._pay(now)
        paid = self._owed / self._rate if self._rate is not None else 0.0
        delay = max(paid, self._held_until - now)
        if self._refusing and self._trial is not None:
            delay = max(delay, _TRIAL_SECONDS)
        return delay if delay > _SHORTEST_SECONDS else 0.0

    def send(self, cost: int, *, waited: bool) -> Sent:
        """Note that a call goes. Each is followed by ``succeed``, ``refuse`` or ``lose``.

        Args:
            cost: What it will cost, as far as is known.
            waited: Whether it was held back.
        """
        now = self._clock()
        self._pay(now)
        self._owed += cost
        self._under_way += cost
        sent = Sent(cost, now, waited, self._cuts)
        if self._refusing:
            self._trial = sent
        return sent

    def succeed(self, sent: Sent, cost: int) -> None:
        """Note that a call got through, and what it did cost."""
        now = self._clock()
        self._pay(now)
        self._owed += cost - sent.cost
        self._end(sent)
        if self._refusing or not sent.waited:
            # What is not used at once may be lost, so only a time in which more was wanted than given tells something.
            while self._through and self._through[0].since < now - _LIMITS_SECONDS:
                self._through.popleft()
        self._refusing = False
        if self._through and now - self._through[-1].since < _STRETCH_SECONDS:
            self._through[-1].total += cost
        else:
            self._through.append(_Stretch(now, cost, cost))
        self._gained += cost
        if self._rate is not None and sent.waited:
            passed = self._gained / self._refused_rate - _BACK_SECONDS
            raised = self._refused_rate * (1 + (passed / _EPOCH_SECONDS) ** 3)
            self._rate = min(raised, self._rate * _STEEPEST)

    def refuse(self, sent: Sent, pause: float) -> None:
        """Note that a call was refused for the rate, and hold all others back for a while.

        Args:
            sent: The call.
            pause: Seconds, by the retry policy.
        """
        now = self._clock()
        self._pay(now)
        self._owed = max(self._owed - sent.cost, 0)  # nothing is left over that lateness could have spared
        self._end(sent)
        refused = self._rate if self._rate is not None else float("inf")
        given = self._given(sent)
        # One cut for all that was sent too fast before it; more only where what was given since is less still.
        is_news = sent.cuts == self._cuts and self._gained > 0
        lower = min(refused, given)
        if lower < float("inf") and (is_news or given * _CUT < refused):
            self._refused_rate = lower
            self._rate = self._refused_rate * _CUT
            self._gained = 0.0
            self._cuts += 1
        self._refusing = True
        if self._rate is not None:
            own = min(sent.cost / self._rate, _LONGEST_WAIT_SECONDS)
            pause = own * _HOLD + min(pause, max(own * _LATE, _LIMITS_SECONDS))
        self._held_until = max(self._held_until, now + pause)

    def lose(self, sent: Sent) -> None:
        """Note that nobody knows what became of a call, so that it may have cost what it was to cost."""
        self._end(sent)

    def _end(self, sent: Sent) -> None:
        self._under_way -= sent.cost
        if sent is self._trial:
            self._trial = None

    def _pay(self, now: float) -> None:
        """Take the time that has passed into account."""
        if self._rate is None:
            self._owed = 0.0
        else:
            paid = (now - self._owed_at) * self._rate
            self._owed = min(self._owed, self._rate * _LONGEST_WAIT_SECONDS) - paid
            self._owed = max(self._owed, -self._rate * _LATENESS_SECONDS)
        self._owed_at = now

    def _given(self, refused: Sent) -> float:
        """The rate that the account cannot exceed, since it let so much through in a time, and then a call no more."""
        if not self._through:
            return float("inf")
        oldest = self._through[0]
        seconds = refused.at - oldest.since
        if seconds <= 0:
            return float("inf")
        # What is under way may have got through before. Of an account that lets a call in only while all of its cost
        # is left, a smaller one before this one tells less.
        spent = sum(it.total for it in self._through) + self._under_way + max(0, refused.cost - oldest.first)
        return spent / seconds


@dataclass(slots=True, eq=False)
class Place:
    """A call's place in the line, which it keeps until it got through."""

    number: int
    ahead: asyncio.Event = field(default_factory=asyncio.Event)

    def __lt__(self, other: Place) -> bool:
        return self.number < other.number


class Line:
    """Lets the calls of one pace go, the oldest first: a large one that was refused is not overtaken by small ones.

    Args:
        pace: The pace.
        sleep: Waits so many seconds.
    """

    def __init__(self, pace: Pace, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._pace = pace
        self._sleep = sleep
        self._waiting: list[Place] = []
        self._places = 0

    def place(self) -> Place:
        """Give a new call its place, behind all others."""
        self._places += 1
        return Place(self._places)

    async def go(self, place: Place, cost: int) -> Sent:
        """Wait until a call may go.

        Args:
            place: Its place; that of its first try for another one.
            cost: What it will cost, as far as is known.
        """
        if not self._waiting and self._pace.delay() <= 0:
            return self._pace.send(cost, waited=False)
        insort(self._waiting, place)
        try:
            while True:
                if self._waiting[0] is not place:
                    place.ahead.clear()
                    await place.ahead.wait()
                elif (delay := self._pace.delay()) > 0:
                    # In naps, since what is answered meanwhile may shorten it.
                    await self._sleep(min(delay, _NAP_SECONDS))
                else:
                    return self._pace.send(cost, waited=True)
        finally:
            self._waiting.remove(place)
            if self._waiting:
                self._waiting[0].ahead.set()


class Costs:
    """What reads will cost, as far as the calls before tell: keys that differ only after their last slash are alike."""

    def __init__(self) -> None:
        self._averages: dict[str, float] = {}

    def expected(self, key: str) -> int:
        """What reading a key will cost, in metered operations."""
        return round(self._averages.get(key.rpartition("/")[0], 1.0))

    def learn(self, key: str, cost: int) -> None:
        """Take note of what storing or reading a key did cost."""
        kind = key.rpartition("/")[0]
        before = self._averages.pop(kind, cost)
        if len(self._averages) >= _KINDS:
            del self._averages[next(iter(self._averages))]
        self._averages[kind] = before + (cost - before) * _NEWS
