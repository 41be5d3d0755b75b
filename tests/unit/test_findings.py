"""What is kept of differences: all are counted, and the first of each kind stay, in whatever order they are found."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from etlcli.verification.findings import Difference, Verification, Wanted


def numbered(number: int) -> Difference:
    return Difference("missing" if number % 3 else "different", {"id": {"N": str(number)}})


@given(st.integers(0, 60), st.integers(0, 25), st.randoms(use_true_random=False))
def test_the_first_of_each_kind_are_kept_in_the_order_of_the_rows(
    count: int, shown: int, chance: random.Random
) -> None:
    found = Verification("cache", Wanted(shown=shown))
    order = list(range(count))
    chance.shuffle(order)
    for number in order:
        found.note(numbered(number), divmod(number, 7))
    missing = [number for number in range(count) if number % 3]
    different = [number for number in range(count) if not number % 3]
    assert found.counts == {"missing": len(missing), "different": len(different)}
    assert found.total == count
    kept = [int(it.key["id"]["N"]) for it in found.differences]
    assert kept == missing[:shown] + different[:shown]
