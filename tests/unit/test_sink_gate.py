from __future__ import annotations

import asyncio

from etlcli.sink.gate import Gate


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_requests_and_bytes_are_bounded_and_turns_kept() -> None:
    async def main() -> None:
        gate = Gate(requests=3, size=100)
        order: list[str] = []

        async def enter(name: str, size: int) -> None:
            await gate.enter(size)
            order.append(name)

        await enter("a", 60)
        waiting = [asyncio.create_task(enter(name, size)) for name, size in [("b", 50), ("c", 10), ("d", 10)]]
        await turns()
        assert order == ["a"]  # c and d would fit, but it is b's turn
        gate.leave(60)
        await turns()
        assert order == ["a", "b", "c", "d"]
        gate.leave(50)
        await asyncio.gather(*waiting)

    asyncio.run(main())


def test_what_is_larger_than_the_bound_goes_alone() -> None:
    async def main() -> None:
        gate = Gate(requests=3, size=100)
        await gate.enter(1)
        large = asyncio.create_task(gate.enter(1000))
        await turns()
        assert not large.done()
        gate.leave(1)
        await large
        small = asyncio.create_task(gate.enter(1))
        await turns()
        assert not small.done()
        gate.leave(1000)
        await small

    asyncio.run(main())


def test_a_new_bound_counts_from_the_next_leave() -> None:
    async def main() -> None:
        gate = Gate(requests=2, size=100)
        await gate.enter(1)
        assert not gate.is_waited_for
        tasks = [asyncio.create_task(gate.enter(1)) for _ in range(5)]
        await turns()
        assert (gate.is_waited_for, sum(task.done() for task in tasks)) == (True, 1)
        gate.requests = 4
        gate.leave(1)
        await turns()
        assert sum(task.done() for task in tasks) == 4
        gate.requests = 2
        for left in (4, 4, 5):  # four are in, then three, then two, and the last has its turn
            gate.leave(1)
            await turns()
            assert sum(task.done() for task in tasks) == left
        assert not gate.is_waited_for

    asyncio.run(main())


def test_who_is_cancelled_while_waiting_lets_those_behind_through() -> None:
    async def main() -> None:
        gate = Gate(requests=2, size=100)
        await gate.enter(50)
        large, small = asyncio.create_task(gate.enter(60)), asyncio.create_task(gate.enter(10))
        await turns()
        large.cancel()
        await turns()
        assert small.done()

    asyncio.run(main())


def test_who_is_cancelled_with_its_turn_gives_it_back() -> None:
    async def main() -> None:
        gate = Gate(requests=1, size=100)
        await gate.enter(10)
        first, second = asyncio.create_task(gate.enter(10)), asyncio.create_task(gate.enter(10))
        await turns()
        gate.leave(10)
        first.cancel()  # it has its turn, and does not know yet
        await turns()
        assert first.cancelled()
        assert second.done()

    asyncio.run(main())
