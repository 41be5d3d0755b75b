"""More in flight where DynamoDB is far away, and nowhere else."""

from __future__ import annotations

import pytest

from etlcli.sink.width import FIRST, Width


class World:
    """Answers take so long, and this program has so much to do for each."""

    def __init__(self, most: int, answer: float, work: float) -> None:
        self.now = self.worked = 0.0
        self.answer = answer
        self.work = work
        self.width = Width(most, clock=lambda: self.now, busy=lambda: self.worked)

    def take(self, answers: int, *, some_wait: bool = True) -> None:
        for _ in range(answers):
            self.now += max(self.answer / self.width.requests, self.work)
            self.worked += self.work
            self.width.note_answer(some_wait=some_wait)


def test_far_away_it_grows_to_its_bound_within_some_round_trips() -> None:
    world = World(160, answer=0.05, work=0.0001)
    grown = []
    while world.now < 0.25:
        world.take(1)
        grown.append(world.width.requests)
    assert sorted(set(grown)) == [64, 96, 144, 160]
    world.take(10_000)
    assert world.width.requests == 160


def test_no_more_than_keep_the_program_busy() -> None:
    # 90 answers in flight are as many as it can take within 50 ms.
    world = World(1000, answer=0.05, work=0.05 / 90)
    world.take(10_000)
    assert world.width.requests == 96


@pytest.mark.parametrize(
    ("answer", "work"),
    [
        pytest.param(0.005, 0.0004, id="near, and the program is busy"),
        pytest.param(20.0, 0.0, id="a line that is full"),
        pytest.param(0.0, 0.0, id="a clock that stands still"),
    ],
)
def test_where_more_are_no_help_it_stays(answer: float, work: float) -> None:
    world = World(1000, answer, work)
    world.take(10_000)
    assert world.width.requests == FIRST


def test_room_that_nobody_waits_for_is_not_widened() -> None:
    world = World(1000, answer=0.05, work=0.0)
    world.take(10_000, some_wait=False)
    for _ in range(100):
        world.take(FIRST - 1)
        world.take(1, some_wait=False)
    assert world.width.requests == FIRST


def test_trouble_takes_it_back_to_the_start_however_far_it_got() -> None:
    world = World(160, answer=0.05, work=0.0)
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
    world = World(4, answer=0.05, work=0.0)
    world.take(1000)
    world.width.note_trouble()
    assert world.width.requests == 4
