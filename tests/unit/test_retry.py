"""When to try again, and how long to wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from etlcli import retry
from etlcli.errors import CacheError, EtlError, SinkError, Throttled, TooLarge, Unavailable
from etlcli.local.momento.clock import ManualClock
from etlcli.progress import Counters
from etlcli.retry import RetryPolicy, retrying


class Scene:
    """A call that fails in order and then works, in a time that passes while it is under way and between tries."""

    def __init__(self, failures: Sequence[BaseException], monkeypatch: pytest.MonkeyPatch, takes: float = 0.0) -> None:
        self.clock = ManualClock(1000.0)
        self.counters = Counters()
        self.calls = 0
        self.pauses: list[float] = []
        self._failures = list(failures)
        self._takes = takes
        monkeypatch.setattr(retry, "asyncio", SimpleNamespace(sleep=self._sleep))

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)

    async def call(self) -> str:
        self.calls += 1
        self.clock.advance(self._takes)
        if self._failures:
            raise self._failures.pop(0)
        return "done"

    def run(self, policy: RetryPolicy) -> str:
        return asyncio.run(retrying(self.call, policy, self.counters, clock=self.clock))


def test_what_works_is_called_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene([], monkeypatch)
    assert scene.run(RetryPolicy()) == "done"
    assert (scene.calls, scene.pauses, scene.counters) == (1, [], Counters())


@pytest.mark.parametrize("error", [Throttled("slow down"), Unavailable("gone")])
def test_what_passes_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: EtlError) -> None:
    scene = Scene([error] * 6, monkeypatch)
    assert scene.run(RetryPolicy()) == "done"
    assert (scene.calls, len(scene.pauses), scene.counters.retries) == (7, 6, 6)


@pytest.mark.parametrize(
    "error",
    [CacheError("no"), TooLarge("no"), SinkError("no"), EtlError("no"), ValueError("no"), asyncio.CancelledError()],
)
def test_nothing_else_is_tried_again(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    scene = Scene([Unavailable("gone"), error], monkeypatch)
    with pytest.raises(type(error)):
        scene.run(RetryPolicy())
    assert (scene.calls, scene.counters.retries) == (2, 1)


def test_jitter_is_full_and_under_the_ceiling() -> None:
    policy = RetryPolicy(base=0.1, ceiling=3.0)
    for attempt, most in [(1, 0.1), (2, 0.2), (3, 0.4), (5, 1.6), (6, 3.0), (7, 3.0), (5000, 3.0)]:
        drawn = [policy.wait(attempt) for _ in range(2000)]
        assert 0 <= min(drawn) < most * 0.05
        assert most * 0.95 < max(drawn) <= most
        assert most * 0.4 < sum(drawn) / len(drawn) < most * 0.6


def test_patience_runs_out_with_the_last_error(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [Unavailable(str(number)) for number in range(1000)]
    scene = Scene(errors, monkeypatch)
    with pytest.raises(Unavailable) as caught:
        scene.run(RetryPolicy(patience=60.0, base=1.0, ceiling=10.0))
    assert caught.value.message == str(scene.calls - 1)
    # Never over it; and given up only where the next wait would be.
    assert 50.0 <= sum(scene.pauses) <= 60.0
    assert scene.counters.retries == scene.calls - 1


def test_no_patience_is_one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene([Unavailable("gone")], monkeypatch)
    with pytest.raises(Unavailable):
        scene.run(RetryPolicy(patience=0.0))
    assert (scene.calls, scene.counters.retries) == (1, 0)


def test_a_first_try_that_takes_long_does_not_use_up_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene([Unavailable("timed out")], monkeypatch, takes=15.0)
    assert scene.run(RetryPolicy(patience=10.0, base=0.1)) == "done"


def test_later_tries_use_up_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene([Unavailable("timed out")] * 10, monkeypatch, takes=15.0)
    with pytest.raises(Unavailable):
        scene.run(RetryPolicy(patience=40.0, base=0.1, ceiling=0.1))
    assert scene.calls == 4  # those that end 0, 15, 30 and 45 s after the first failure


def test_clients_do_not_come_back_together() -> None:
    random.seed(1)
    policy = RetryPolicy()
    assert len({policy.wait(5) for _ in range(100)}) == 100


@pytest.mark.parametrize(("known", "seconds"), [(True, 120.0), (False, 15.0)])
def test_an_endpoint_that_never_answered_is_given_up_sooner(
    monkeypatch: pytest.MonkeyPatch, known: bool, seconds: float
) -> None:
    now = 0.0

    async def sleep(pause: float) -> None:
        nonlocal now
        now += pause

    async def call() -> None:
        raise Unavailable("nobody there")

    monkeypatch.setattr(retry, "asyncio", SimpleNamespace(sleep=sleep))
    with pytest.raises(Unavailable):
        asyncio.run(retrying(call, RetryPolicy(), Counters(), is_known=lambda: known, clock=lambda: now))
    assert seconds - 5.0 <= now <= seconds
