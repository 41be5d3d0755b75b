"""More in flight where DynamoDB is far away, and nowhere else."""

from __future__ import annotations

import pytest

from etlcli.sink.width import FIRST, Width


class World:
    """Answers take so long: those that come while the program has no time for them, longer."""

    def __init__(self, most: int, answer: float, late: float = 0.0) -> None:
        self.now = 0.0
        self.answer = answer
        self.late = late
        self.width = Width(most)

    def take(self, answers: int, *, some_wait: bool = True) -> None:
        for number in range(answers):
            self.now += self.answer / self.width.requests
            self.width.note_answer(self.answer + (number % 10) * self.late, some_wait=some_wait)


def test_far_away_it_grows_to_its_bound_within_some_round_trips() -> None:
    world = World(160, answer=0.05)
    grown = []
    while world.now < 0.25:
        world.take(1)
        grown.append(world.width.requests)
    assert sorted(set(grown)) == [64, 96, 144, 160]
    world.take(10_000)
    assert world.width.requests == 160


def test_no_more_than_a_processor_can_make() -> None:
    # 4,000 requests a second are 120 within 30 ms.
    world = World(1000, answer=0.03)
    world.take(10_000)
    assert world.width.requests == 120


def test_a_busy_program_knows_how_far_it_is_by_the_quickest_answer() -> None:
    near, far = World(1000, answer=0.005, late=0.01), World(1000, answer=0.05, late=0.01)
    near.take(10_000)
    far.take(10_000)
    assert (near.width.requests, far.width.requests) == (FIRST, 200)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(0.005, id="near"),
        pytest.param(20.0, id="a line that is full"),
        pytest.param(0.0, id="a clock that stands still"),
    ],
)
def test_where_more_are_no_help_it_stays(answer: float) -> None:
    world = World(1000, answer)
    world.take(10_000)
    assert world.width.requests == FIRST


def test_room_that_nobody_waits_for_is_not_widened() -> None:
    world = World(1000, answer=0.05)
    world.take(10_000, some_wait=False)
    for _ in range(100):
        world.take(FIRST - 1)
        world.take(1, some_wait=False)
    assert world.width.requests == FIRST


def test_trouble_takes_it_back_to_the_start_however_far_it_got() -> None:
    world = World(160, answer=0.05)
    world.take(10_000)
    world.width.note_trouble()
    assert world.width.requests == FIRST
    # A table that throttles one request in 60 is asked by no more at once than it ever was.
    for _ in range(100):
        world.take(60)
        world.width.note_trouble()
    assert world.width.requests == FIRST
    world.take(10_000)
    assert world.width.requests == 160


def test_a_bound_below_the_start_is_kept() -> None:
    world = World(4, answer=0.05)
    world.take(1000)
    world.width.note_trouble()
    assert world.width.requests == 4
