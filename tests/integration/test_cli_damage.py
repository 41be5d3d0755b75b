"""What the cache holds is damaged, missing, or of a newer version: it is named and never skipped, and run mends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest

from etlcli.cache import documents
from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine, Result
from tests.integration.places import Place, place_for
from tests.integration.source_helpers import until

ROWS = 250
TTL_MILLISECONDS = 4_800_000


@pytest.fixture
def place(forked: CommandLine, schema: Schema, stack: Stack, unique: str) -> Iterator[Place]:
    with place_for(forked, schema, stack, unique, ROWS) as made:
        # That an entry is not there is known soon.
        soon = {"etlcli.cache.staging.Staging.__init__.__kwdefaults__": {"settling_seconds": 0.2}}
        yield replace(made, line=made.line.changing(soon))


def stored(place: Place, key: str) -> bytes:
    value = place.cache.item(key.encode())
    assert isinstance(value, bytes)
    return value


def flip(place: Place, key: str) -> None:
    """Let one bit be another one."""
    value = stored(place, key)
    middle = len(value) // 2
    value = value[:middle] + bytes([value[middle] ^ 4]) + value[middle + 1 :]
    place.cache.set(key.encode(), value, TTL_MILLISECONDS)


def renew(place: Place, key: str) -> None:
    """Let a document be of a version that is not out yet."""
    document = documents.unsealed(stored(place, key), key)
    document = document.replace(b'"format":1', b'"format":2', 1)
    place.cache.set(key.encode(), documents.sealed(document, key), TTL_MILLISECONDS)


def lose(place: Place, key: str) -> None:
    place.cache.delete(key.encode())


def swap(place: Place, key: str) -> None:
    """Put another whole chunk in the place of one."""
    other = next(name for name in place.keys("/chunk/") if name != key)
    place.cache.set(key.encode(), stored(place, other), TTL_MILLISECONDS)


Damage = Callable[[Place, str], None]


class Case(NamedTuple):
    """A damage, and what is said of it.

    Attributes:
        damage: Does it.
        part: To which entry.
        said: By ``load`` and by ``inspect-cache --check``.
        inspected: By ``inspect-cache``; None where it says nothing.
        code: How ``inspect-cache`` ends.
    """

    damage: Damage
    part: str
    said: str
    inspected: str | None = None
    code: int = 0


DAMAGED = "is damaged, or was not written by momento-etl"
NEWER = "was written by a newer momento-etl"
CASES = {
    "chunk-damaged": Case(flip, "/chunk/", r"chunk \d+ of run \S+ is damaged: its checksum does not match"),
    "chunk-lost": Case(lose, "/chunk/", r"chunk \d+ of run \S+ is not in cache .*, though its time is not up"),
    "chunk-swapped": Case(swap, "/chunk/", r"chunk \d+ of run \S+ is not what the ledger says was stored"),
    "manifest-damaged": Case(flip, "/manifest", f"/manifest {DAMAGED}", f"/manifest {DAMAGED}", 1),
    "manifest-newer": Case(renew, "/manifest", f"/manifest {NEWER}", f"/manifest {NEWER}", 1),
    "manifest-lost": Case(lose, "/manifest", r"holds no run \S+ of films", "holds no run of films"),
    "ledger-damaged": Case(flip, "/ledger/", f"/ledger/0 {DAMAGED}", f"/ledger/0 {DAMAGED}", 1),
    "ledger-lost": Case(lose, "/ledger/", r"page 0 of the ledger of run \S+ is not in the cache"),
    "pointer-damaged": Case(flip, "/current", f"/current {DAMAGED}", f"/current {DAMAGED}", 1),
    "pointer-lost": Case(lose, "/current", "holds no complete extraction of films"),
}


def said(result: Result) -> str:
    """A failure's words: in the error that is told, with a hint, and not as a defect."""
    assert result.code == 1, str(result)
    assert result.json["error"]["hint"], str(result)
    assert "Traceback" not in result.err, str(result)
    assert "itself failed" not in result.err, str(result)
    return str(result.json["error"]["message"])


@pytest.mark.parametrize("name", CASES)
def test_it_is_named_and_run_makes_it_good(place: Place, name: str) -> None:
    case = CASES[name]
    inspect = ("inspect-cache", "films", *place.to[2:4])
    place.line("extract", *place.to[:4])
    case.damage(place, place.keys(case.part)[0])

    inspected = place.line(*inspect, code=case.code)
    if case.inspected is not None:
        assert re.search(case.inspected, inspected.out + inspected.err), str(inspected)
    checked = place.line(*inspect, "--check", "--output", "json", code=1)
    assert re.search(case.said, said(checked)), str(checked)
    loaded = place.line("load", *place.to, "--output", "json", code=1)
    assert re.search(case.said, said(loaded)), str(loaded)
    assert loaded.json["rows_loaded"] < ROWS

    summary = place.line("run", *place.to, "--output", "json").json
    assert summary["rows_loaded"] == summary["rows_extracted"] == ROWS
    place.assert_exact()
    # What is left of the damaged one hides nothing of the newer one.
    assert place.line(*inspect, "--output", "json").json["current"] == summary["run_id"]


@pytest.mark.parametrize("damage", [flip, lose])
def test_without_the_list_of_runs_the_current_one_is_there(place: Place, damage: Damage) -> None:
    run_id = place.line("extract", *place.to[:4]).out.strip()
    (key,) = place.keys("/runs")
    damage(place, key)
    listed = place.line("inspect-cache", "films", *place.to[2:4], "--output", "json")
    assert [run["run_id"] for run in listed.json["runs"]] == [run_id]
    assert len(listed.json["warnings"]) == listed.err.count("warning: ") == (damage is not lose)
    place.line("load", *place.to)
    place.assert_exact()
    place.line("run", *place.to)


@pytest.mark.parametrize("damage", [flip, lose])
def test_without_the_pointer_a_run_that_is_named_is_there(place: Place, damage: Damage) -> None:
    run_id = place.line("extract", *place.to[:4]).out.strip()
    (key,) = place.keys("/current")
    damage(place, key)
    for look in ((), ("--check",), ("--row", "7"), ("--rejects",)):
        place.line("inspect-cache", "films", *place.to[2:4], "--run-id", run_id, *look)
    place.line("load", *place.to, "--run-id", run_id)
    place.assert_exact()


def last_chunk(place: Place) -> str:
    return max(place.keys("/chunk/"), key=lambda key: int(key.rpartition("/")[2]))


def was_mended(result: Result, why: str) -> bool:
    return any(re.search(f"{why}.*its rows were read again", told) for told in result.json["warnings"])


@pytest.mark.parametrize("name", ["chunk-damaged", "chunk-lost", "chunk-swapped"])
def test_a_run_mends_it_in_its_course(place: Place, name: str) -> None:
    process = place.stalled("run", batches=2)
    until(lambda: bool(place.keys("/current")), "all is stored")
    CASES[name].damage(place, last_chunk(place))
    place.keeper.release()
    result = place.line.finish(process)
    assert result.code == 0, str(result)
    assert was_mended(result, CASES[name].said), str(result)
    place.assert_exact()


@pytest.mark.parametrize("name", ["chunk-damaged", "chunk-lost", "chunk-swapped"])
def test_a_run_that_was_killed_is_taken_up_and_mended(place: Place, name: str) -> None:
    process = place.stalled("run", batches=6)
    until(lambda: bool(place.keys("/current")), "all is stored")
    place.keeper.wait_for("state:UpdateItem", 1)  # something is noted as loaded
    process.kill()
    process.wait(60)
    place.keeper.release()
    CASES[name].damage(place, last_chunk(place))
    result = place.line("run", *place.to, "--output", "json")
    assert result.json["resumed"] is True, str(result)
    assert was_mended(result, CASES[name].said), str(result)
    place.assert_exact()
