"""Signals at awkward times: while a lease is waited for, while it is planned, among throttles; and a second one.

The lease is free afterwards, whatever was going on, and the next run goes on.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import psycopg
import pytest

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine, Result
from tests.integration.mortal import Mortal
from tests.integration.places import Place, place_for
from tests.integration.source_helpers import until
from tests.integration.test_cli_interrupts import noiseless

ROWS = 300
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.fixture
def place(forked: CommandLine, schema: Schema, stack: Stack, unique: str) -> Iterator[Place]:
    with place_for(forked, schema, stack, unique, ROWS) as made:
        # Who waits looks often.
        yield replace(made, line=made.line.changing({"etlcli.leasing._LOOK_SECONDS": 0.2}))


def lease(place: Place) -> object:
    key = {"job": {"S": "films"}, "entry": {"S": "lease"}}
    return place.dynamodb.get_item(TableName=place.state_table, Key=key, ConsistentRead=True).get("Item")


def interrupted(place: Place, process: Mortal, number: signal.Signals, code: int) -> Result:
    process.send_signal(number)
    result = place.line.finish(process)
    assert result.code == code, str(result)
    assert result.json["status"] == "interrupted", str(result)
    assert result.json["error"]["message"] == f"interrupted by {number.name}"
    assert "to go on: momento-etl run --table films" in result.err
    noiseless(result)
    return result


def goes_on(place: Place) -> Result:
    """The next run does not wait for anybody, and finishes."""
    assert lease(place) is None
    result = place.line("run", *place.to, "--output", "json")
    assert result.json["rows_loaded"] == result.json["rows_extracted"] == ROWS
    place.assert_exact()
    return result


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_while_a_lease_is_waited_for(place: Place, number: signal.Signals, code: int) -> None:
    holder = place.stalled("run", batches=2)
    asked = place.keeper.calls["state:GetItem"]
    waiting = place.start("run", "--wait-for-lease", "600", line=place.known_as("waiting"))
    place.keeper.wait_for("state:GetItem", asked + 2)
    result = interrupted(place, waiting, number, code)
    assert result.json["run_id"] is None
    assert place.keeper.puts_by["waiting"] == 0
    # The holder has its lease still, and has not noticed.
    assert lease(place) is not None
    place.keeper.release()
    done = place.line.finish(holder)
    assert done.code == 0, str(done)
    goes_on(place)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_while_it_is_planned(place: Place, number: signal.Signals, code: int) -> None:
    # What asks for duplicates waits for the lock.
    with psycopg.connect(place.schema.url) as other:
        other.execute("lock table films in access exclusive mode")
        planning = place.start("run", "--key", "title")
        blocked = "select count(*) from pg_locks where not granted and relation = 'films'::regclass"
        until(lambda: place.schema.connection.execute(blocked).fetchone() == (1,), "it waits for the lock")
        result = interrupted(place, planning, number, code)
        assert result.json["rows_extracted"] == 0
        # No statement of it is left at the server, though the lock is still held.
        until(lambda: place.schema.connection.execute(blocked).fetchone() == (0,), "the statement is cancelled")
        other.rollback()
    goes_on(place)


def throttled(place: Place, line: CommandLine | None = None) -> Mortal:
    """A run that has loaded something, and then meets nothing but throttles."""
    place.keeper.hold(BatchWriteItem=6)
    process = place.start("run", line=line)
    place.keeper.wait_for("BatchWriteItem", 7)
    place.keeper.wait_for("state:UpdateItem", 1)  # some of it is noted
    place.keeper.throttles = True
    place.keeper.release()
    place.keeper.wait_for("BatchWriteItem", place.keeper.calls["BatchWriteItem"] + 20)
    return process


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_among_throttles(place: Place, number: signal.Signals, code: int) -> None:
    process = throttled(place, place.line.changing({"etlcli.cli.running._GRACE_SECONDS": 0.5}))
    result = interrupted(place, process, number, code)
    assert result.json["throttles"] >= 20
    assert 0 < result.json["rows_loaded"] < ROWS
    place.keeper.throttles = False
    assert goes_on(place).json["resumed"] is True


def test_throttles_that_pass_while_it_ends(place: Place) -> None:
    process = throttled(place)
    process.send_signal(signal.SIGTERM)
    until(lambda: "SIGTERM: stopping" in process.err, "it was heard")
    place.keeper.throttles = False
    result = place.line.finish(process)
    assert result.code == 143, str(result)
    # What it says that it has loaded is all that it has put: nothing in flight was given up.
    assert len(place.keeper.kept[place.table]) == result.json["rows_loaded"] < ROWS
    assert goes_on(place).json["resumed"] is True


def test_what_is_in_flight_is_finished_and_recorded(place: Place) -> None:
    process = place.stalled("run", batches=2)
    until(lambda: bool(place.keys("/current")), "all is stored")
    process.send_signal(signal.SIGTERM)
    until(lambda: "SIGTERM: stopping" in process.err, "it was heard")
    place.keeper.release()
    result = place.line.finish(process)
    assert result.code == 143, str(result)
    loaded = result.json["rows_loaded"]
    assert 0 < loaded == place.keeper.puts[place.table] < ROWS
    again = goes_on(place)
    assert again.json["resumed"] is True
    # Nothing was put twice.
    assert place.keeper.puts[place.table] == ROWS
    assert re.search(r"chunks are stored, [1-9]\d* of them loaded", again.err)


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_second_signal_ends_it_at_once_and_the_next_run_goes_on(
    place: Place, number: signal.Signals, code: int
) -> None:
    process = place.stalled("run", batches=2)
    process.send_signal(signal.SIGTERM)
    until(lambda: "SIGTERM: stopping" in process.err, "it was heard")
    # A second signal has to be a second wish, so they are sent until one is.
    while process.poll() is None:
        process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    result = place.line.finish(process)
    assert result.code == code, str(result)
    assert result.out == ""
    place.keeper.release()
    # It had no time to give its lease back; it is dead, and that is known on this machine.
    assert lease(place) is not None
    summary = place.line("run", *place.to, "--output", "json").json
    assert any("which is dead" in text for text in summary["warnings"])
    assert summary["rows_loaded"] == ROWS
    place.assert_exact()
