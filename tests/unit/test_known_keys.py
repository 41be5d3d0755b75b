"""Keys that were seen: none is forgotten, few are made up, and memory stays where it is."""

from __future__ import annotations

from etlcli.verification.known_keys import KnownKeys


def test_none_is_forgotten_and_next_to_none_made_up() -> None:
    known = KnownKeys()
    for number in range(20_000):
        known.add(b"key %d" % number)
    assert all(b"key %d" % number in known for number in range(20_000))
    assert sum(b"other %d" % number in known for number in range(20_000)) <= 2


def test_with_too_many_keys_none_is_forgotten_either() -> None:
    known = KnownKeys(1000)
    for number in range(5000):
        known.add(b"key %d" % number)
    assert all(b"key %d" % number in known for number in range(5000))


def test_an_empty_one_knows_nothing() -> None:
    assert b"" not in KnownKeys()
