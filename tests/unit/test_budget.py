"""The bound on stored bytes: kept whatever the order of events, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.budget import CacheBudget
from etlcli.errors import CacheError

BOUND = 30


class Store:
    """What is stored in truth, and in which order it was freed."""

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.freed: list[str] = []
        self.peak = 0

    def put(self, name: str, size: int) -> None:
        self.held[name] = size
        self.peak = max(self.peak, self.bytes)

    @property
    def bytes(self) -> int:
        return sum(self.held.values())

    async def free(self, name: str) -> None:
        await asyncio.sleep(0)
        del self.held[name]
        self.freed.append(name)

    def freeing(self, name: str) -> Callable[[], Awaitable[None]]:
        return partial(self.free, name)


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(BOUND):
            await body()

    asyncio.run(bounded())


sizes = st.lists(st.integers(1, 60), max_size=40)


@given(
    limit=st.integers(60, 200), superseded=sizes, chunks=sizes, seed=st.integers(0, 2**32), workers=st.integers(1, 5)
)
def test_the_bound_holds_and_all_is_done(
    limit: int, superseded: list[int], chunks: list[int], seed: int, workers: int
) -> None:
    """Extractors reserve and store, loaders load in any order and release: with every interleaving that comes up."""
    rng = random.Random(seed)
    store = Store()
    held = sum(superseded)

    async def body() -> None:
        budget = CacheBudget(limit, loading=True)
        for number, size in enumerate(superseded):
            store.put(f"old-{number}", size)
            await budget.hold(size, store.freeing(f"old-{number}"))
        store.peak = 0
        todo = list(enumerate(chunks))[::-1]
        stored: list[tuple[str, int]] = []
        extracting = workers

        async def dither() -> None:
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)

        async def extract() -> None:
            nonlocal extracting
            while todo:
                number, size = todo.pop()
                await budget.reserve(size)
                await dither()
                store.put(f"new-{number}", size)
                stored.append((f"new-{number}", size))
            extracting -= 1

        async def load() -> None:
            while extracting or stored:
                await dither()
                if stored:
                    name, size = stored.pop(rng.randrange(len(stored)))
                    await dither()
                    await budget.release(size, store.freeing(name))
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(extract())
                group.create_task(load())
        assert budget.stored_bytes == store.bytes
        # What was there before counts; it may have been over the bound, but nothing was added while it was.
        assert store.peak <= max(limit, held if not chunks else 0)
        assert len(store.held) + len(store.freed) == len(superseded) + len(chunks)
        olds = [name for name in store.freed if name.startswith("old-")]
        assert store.freed[: len(olds)] == olds == [f"old-{number}" for number in range(len(olds))]

    run(body)


def test_nothing_is_freed_while_there_is_room() -> None:
    store = Store()

    async def body() -> None:
        budget = CacheBudget(100, loading=True)
        await budget.hold(30, store.freeing("old"))
        await budget.reserve(40)
        await budget.release(40, store.freeing("new"))
        await budget.reserve(30)
        assert (store.freed, budget.stored_bytes) == ([], 100)

    run(body)


def test_superseded_runs_go_first_then_the_oldest() -> None:
    store = Store()

    async def body() -> None:
        budget = CacheBudget(100, loading=True)
        for name in ("a", "b", "c"):
            store.put(name, 20)
            await budget.reserve(20)
            await budget.release(20, store.freeing(name))
        for name in ("old-1", "old-2"):  # even where it is heard of later
            store.put(name, 20)
            await budget.hold(20, store.freeing(name))
        for _ in range(5):
            await budget.reserve(20)
        assert store.freed == ["old-1", "old-2", "a", "b", "c"]
        assert budget.stored_bytes == 100

    run(body)


def test_it_waits_for_the_loader() -> None:
    store = Store()

    async def body() -> None:
        budget = CacheBudget(100, loading=True)
        for name in ("a", "b"):
            store.put(name, 50)
            await budget.reserve(50)
        waiting = [asyncio.create_task(budget.reserve(50)) for _ in range(2)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        await budget.release(50, store.freeing("b"))
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert [task.done() for task in waiting].count(True) == 1
        await budget.release(50, store.freeing("a"))
        await asyncio.gather(*waiting)
        assert (store.freed, budget.stored_bytes) == (["b", "a"], 100)

    run(body)


def test_without_a_loader_there_is_an_error_that_names_run() -> None:
    async def body() -> None:
        budget = CacheBudget(100, loading=False)
        await budget.reserve(60)
        with pytest.raises(CacheError, match="max_cached_bytes is 100") as caught:
            await budget.reserve(41)
        assert "momento-etl run" in str(caught.value.hint)
        assert budget.stored_bytes == 60
        await budget.reserve(40)

    run(body)


def test_without_a_loader_superseded_runs_still_make_room() -> None:
    store = Store()

    async def body() -> None:
        budget = CacheBudget(100, loading=False)
        store.put("old", 90)
        await budget.hold(90, store.freeing("old"))
        await budget.reserve(100)
        assert (store.freed, budget.stored_bytes) == (["old"], 100)
        with pytest.raises(CacheError):
            await budget.reserve(1)

    run(body)


@pytest.mark.parametrize("loading", [True, False])
def test_an_entry_over_the_bound_is_stored_alone(loading: bool) -> None:
    store = Store()

    async def body() -> None:
        budget = CacheBudget(100, loading=loading)
        await budget.reserve(150)  # into an empty cache
        assert budget.stored_bytes == 150
        store.put("large", 150)
        await budget.release(150, store.freeing("large"))
        await budget.reserve(30)
        assert (store.freed, budget.stored_bytes) == (["large"], 30)
        store.put("small", 30)
        await budget.release(30, store.freeing("small"))
        await budget.reserve(150)
        assert (store.freed, budget.stored_bytes) == (["large", "small"], 150)

    run(body)


class BrokenError(Exception):
    """The cache could not remove the entry."""


def test_a_failure_to_free_leaves_the_count_right() -> None:
    store = Store()

    async def body() -> None:
        budget = CacheBudget(100, loading=False)
        broken = True

        async def free() -> None:
            if broken:
                raise BrokenError
            await store.free("a")

        store.put("a", 80)
        await budget.reserve(80)
        await budget.release(80, free)
        for _ in range(3):
            with pytest.raises(BrokenError):
                await budget.reserve(50)
            assert budget.stored_bytes == 80
        broken = False
        await budget.reserve(50)
        assert (store.freed, budget.stored_bytes) == (["a"], 50)

    run(body)


def test_who_is_cancelled_while_waiting_or_freeing_blocks_nobody() -> None:
    store = Store()

    async def body() -> None:
        budget = CacheBudget(100, loading=True)
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def free() -> None:
            reached.set()
            await go_on.wait()
            await store.free("a")

        store.put("a", 100)
        await budget.reserve(100)
        waiting = asyncio.create_task(budget.reserve(10))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        freeing = asyncio.create_task(budget.reserve(10))
        await budget.release(100, free)
        await reached.wait()
        freeing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await freeing
        assert budget.stored_bytes == 100
        go_on.set()
        await budget.reserve(10)
        assert (store.freed, budget.stored_bytes) == (["a"], 10)

    run(body)
