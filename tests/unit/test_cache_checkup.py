"""What ``doctor`` makes of what Momento answers: each thing that can be wrong, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self, cast

import pytest

from etlcli.cache import checkup
from etlcli.cache.checkup import ProbedCache, examine_cache
from etlcli.cache.refusals import NotAllowedError
from etlcli.doctor import Check
from etlcli.errors import CacheError, EtlError, Unavailable


class Account:
    """An account's caches, and what it refuses.

    Attributes:
        caches: Those that are there, with what is in them.
        refusing: What is raised by which call.
        misses: How many reads do not see what is there yet.
    """

    def __init__(self, *caches: str, misses: int = 0, **refusing: EtlError) -> None:
        self.caches: dict[str, dict[str, bytes]] = {name: {} for name in caches}
        self.refusing = refusing
        self.misses = misses
        self.made: list[str] = []

    def check(self, call: str) -> None:
        if call in self.refusing:
            raise self.refusing[call]

    def examine(self, *names: str) -> list[Check]:
        async def main() -> list[Check]:
            opened = cast("Callable[[str], ProbedCache]", lambda name: Cache(self, name))
            return [check async for check in examine_cache(opened, names)]

        return asyncio.run(main())


class Cache:
    """One cache of it."""

    def __init__(self, account: Account, name: str) -> None:
        self.account = account
        self.name = name
        self.address = "cell-1"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def exists(self) -> bool:
        self.account.check("exists")
        return self.name in self.account.caches

    async def ensure(self) -> bool:
        self.account.check("ensure")
        self.account.caches[self.name] = {}
        self.account.made.append(self.name)
        return True

    async def remove(self) -> None:
        self.account.check("remove")
        del self.account.caches[self.name]

    async def count_caches(self) -> int:
        self.account.check("count")
        return len(self.account.caches)

    async def get(self, key: str) -> bytes | None:
        self.account.check("get")
        if self.account.misses:
            self.account.misses -= 1
            return None
        return self.account.caches[self.name].get(key)

    async def set(self, key: str, value: bytes, _ttl: float) -> None:
        self.account.check("set")
        self.account.caches[self.name][key] = value

    async def delete(self, key: str) -> None:
        self.account.check("delete")
        self.account.caches[self.name].pop(key, None)


def failures(checks: list[Check]) -> list[tuple[str, str]]:
    return [(check.name, check.status) for check in checks if check.status != "ok"]


@pytest.fixture(autouse=True)
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_PAUSE_SECONDS", 0.0)


def test_a_cache_that_is_there_is_used_and_left_as_it_was() -> None:
    account = Account("movies")
    assert failures(account.examine("movies")) == []
    assert account.caches == {"movies": {}}
    assert account.made == []


def test_where_none_is_there_one_is_made_and_removed() -> None:
    account = Account()
    checks = account.examine("movies", "actors")
    assert failures(checks) == []
    assert any("movies, actors will be made" in check.message for check in checks)
    assert account.caches == {}
    assert len(account.made) == 1


def test_without_any_job_it_is_tried_all_the_same() -> None:
    account = Account()
    assert failures(account.examine()) == []
    assert (account.caches, len(account.made)) == ({}, 1)


def test_reads_that_come_too_early_are_asked_again() -> None:
    assert failures(Account("movies", misses=3).examine("movies")) == []
    lost = Account("movies", misses=99)
    assert failures(lost.examine("movies")) == [("allowed", "failed")]
    assert lost.caches == {"movies": {}}


NO = NotAllowedError("no", hint="ask")
WRONG = CacheError("wrong key", hint="new key", of_service=True)


@pytest.mark.parametrize(
    ("refusing", "expected"),
    [
        ({"exists": Unavailable("gone", hint="wait")}, [("reachable", "failed")]),
        ({"exists": WRONG}, [("login", "failed")]),
        ({"exists": NO}, [("allowed", "failed")]),
        ({"count": NO}, []),
        ({"set": NO}, [("allowed", "failed")]),
        ({"get": NO}, [("allowed", "failed")]),
        ({"delete": NO}, [("allowed", "failed")]),
        ({"ensure": NO}, []),
    ],
)
def test_what_is_refused_for_a_cache_that_is_there(refusing: Any, expected: list[tuple[str, str]]) -> None:
    checks = Account("movies", **refusing).examine("movies")
    assert failures(checks) == expected
    assert all(check.hint for check in checks if check.status == "failed")


def test_a_key_that_may_make_no_cache_is_told_which_are_missing() -> None:
    checks = Account("movies", ensure=NO).examine("movies", "actors")
    assert failures(checks) == [("allowed", "failed")]
    (failed,) = (check for check in checks if check.status == "failed")
    assert "actors" in (failed.hint or "")
    assert "movies" not in (failed.hint or "")
    full = Account(ensure=CacheError("too many", hint="delete one")).examine("actors")
    assert (full[-1].message, full[-1].hint) == ("too many", "delete one")


def test_what_cannot_be_removed_is_told() -> None:
    account = Account(remove=NO)
    checks = account.examine("movies")
    assert failures(checks) == [("allowed", "warning")]
    assert account.made[0] in checks[-1].message
