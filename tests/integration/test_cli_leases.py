"""Two runs of one job: one works, and the other says who does, whatever becomes of the first."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine, Result
from tests.integration.mortal import Mortals
from tests.integration.places import Place, place_for

ROWS = 60
ROUNDS = 20


@pytest.fixture
def place(forked: CommandLine, schema: Schema, stack: Stack, unique: str) -> Iterator[Place]:
    with place_for(forked, schema, stack, unique, ROWS) as made:
        # Who waits looks often.
        yield replace(made, line=made.line.changing({"etlcli.leasing._LOOK_SECONDS": 0.2}))


def says_who(result: Result, pid: int, command: str) -> None:
    """It exits with 5, has moved nothing, and names the other one: what it does, where, since when."""
    assert result.code == 5, str(result)
    assert (result.json["rows_extracted"], result.json["run_id"], result.json["status"]) == (0, None, "failed")
    error = result.json["error"]
    where = re.escape(socket.gethostname())
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    said = rf"another run of films is at work: momento-etl {command}, on {where} \(pid {pid}\), since {when}"
    assert re.fullmatch(said, error["message"]), str(result)
    assert "--wait-for-lease" in error["hint"]


def test_of_two_at_once_one_works_twenty_times_over(place: Place, mortals: Mortals) -> None:
    place.line("run", *place.to)
    for number in range(ROUNDS):
        place.keeper.hold(BatchWriteItem=0)
        # Now and then one of them is a load of what the last run left in the cache.
        commands = {f"A{number}": "run", f"B{number}": "load" if number % 3 == 2 else "run"}
        begun = {name: place.start(command, line=place.known_as(name)) for name, command in commands.items()}
        mortals.wait_for_one(begun.values())
        (loser, *both) = [name for name, process in begun.items() if process.poll() is not None]
        assert not both, "both of them have ended, though no write was answered"
        (winner,) = begun.keys() - {loser}
        place.keeper.release()
        works = place.line.finish(begun[winner])
        says_who(place.line.finish(begun[loser]), begun[winner].pid, commands[winner])
        assert works.code == 0, str(works)
        assert works.json["rows_loaded"] == ROWS
        assert (place.keeper.puts_by[winner], place.keeper.puts_by[loser]) == (ROWS, 0)
    place.assert_exact()
    runs = place.line("history", "films", "--limit", "100", "--output", "json").json["runs"]
    assert {run["status"] for run in runs} == {"succeeded"}


def test_a_holder_that_was_killed_is_followed_at_once(place: Place) -> None:
    place.keeper.hold(BatchWriteItem=1)
    holder = place.line.start("run", *place.to)
    place.keeper.wait_for("BatchWriteItem", 2)
    says_who(place.line("run", *place.to, "--output", "json", code=5), holder.pid, "run")
    holder.kill()
    holder.wait(60)
    place.keeper.release()
    # It does not wait, or it would exit with 5.
    summary = place.line("run", *place.to, "--output", "json").json
    assert summary["rows_loaded"] == ROWS
    assert any("took over the lease of momento-etl run" in text and "is dead" in text for text in summary["warnings"])
    place.assert_exact()


def test_who_waits_follows_one_that_ends(place: Place) -> None:
    place.keeper.hold(BatchWriteItem=0)
    holder = place.start("run", line=place.known_as("first"))
    place.keeper.wait_for("BatchWriteItem", 1)
    asked = place.keeper.calls["state:GetItem"]
    waiting = place.start("run", "--wait-for-lease", "60", line=place.known_as("second"))
    place.keeper.wait_for("state:GetItem", asked + 2)
    assert place.keeper.puts_by["second"] == 0
    place.keeper.release()
    first, second = place.line.finish(holder), place.line.finish(waiting)
    assert (first.code, second.code) == (0, 0), f"{first}\n{second}"
    assert second.json["rows_loaded"] == ROWS
    assert second.json["warnings"] == []


# --- A lease that another machine holds: written as that one would


PERIOD = 2.0


def foreign(place: Place, *, renewals: int = 0, expires_in: float = PERIOD) -> None:
    now = time.time()
    place.dynamodb.put_item(
        TableName=place.state_table,
        Item={
            "job": {"S": "films"},
            "entry": {"S": "lease"},
            "format": {"N": "1"},
            "holder": {"S": "5eed"},
            "host": {"S": "another-host"},
            "command": {"S": "momento-etl run"},
            "period_seconds": {"N": str(PERIOD)},
            "renewals": {"N": str(renewals)},
            "since": {"N": str(now - 600)},
            "expires_at": {"N": str(now + expires_in)},
            "process": {"M": {"boot": {"S": "another boot"}, "pid": {"N": str(os.getpid())}, "started": {"S": "1"}}},
        },
    )


@contextmanager
def renewed(place: Place, expires_in: float) -> Iterator[None]:
    """Renew that lease again and again while the block runs, by a clock that may be wrong."""
    over = threading.Event()

    def renew() -> None:
        renewals = 0
        while not over.wait(PERIOD / 8):
            renewals += 1
            foreign(place, renewals=renewals, expires_in=expires_in)

    foreign(place, expires_in=expires_in)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def test_another_hosts_lease_is_kept_or_waited_for(place: Place) -> None:
    place.line("run", *place.to)
    before = place.keeper.puts_by.total()
    foreign(place)
    held = place.line.fails("run", *place.to, code=5)
    assert "momento-etl run, on another-host (pid " in held.json["error"]["message"]
    assert place.keeper.puts_by.total() == before
    foreign(place)
    summary = place.line("run", *place.to, "--wait-for-lease", "60", "--output", "json").json
    assert summary["duration_seconds"] >= PERIOD  # it was seen for a whole period not to be renewed
    assert any("on another-host, which has not renewed it" in text for text in summary["warnings"])
    place.assert_exact()


@pytest.mark.parametrize(
    ("expires_in", "waits"), [(-3600.0, ("--wait-for-lease", "3")), (3600.0, ())], ids=["behind", "ahead"]
)
def test_a_clock_that_is_wrong_by_an_hour_decides_nothing(
    place: Place, expires_in: float, waits: tuple[str, ...]
) -> None:
    place.line("run", *place.to)
    before = place.keeper.puts_by.total()
    with renewed(place, expires_in):
        # By this machine's clock it looks abandoned. It is not: it is renewed.
        place.line.fails("run", *place.to, *waits, code=5)
    assert place.keeper.puts_by.total() == before
    foreign(place, expires_in=expires_in)
    summary = place.line("run", *place.to, "--output", "json").json
    assert summary["duration_seconds"] >= PERIOD
    assert summary["rows_loaded"] == ROWS


def test_a_process_that_was_stopped_for_longer_than_its_lease_writes_no_more(place: Place) -> None:
    place.keeper.hold(BatchWriteItem=0)
    short = place.known_as("asleep").changing(
        {
            "etlcli.state.lease.Claim.__init__.__defaults__": [None, PERIOD],
            "etlcli.sink.dynamodb.DynamoDBSink.request_seconds": 0.5,
            "etlcli.sink.dynamodb.REQUEST_SECONDS": 0.5,
        }
    )
    asleep = short.start("run", *place.to, "--output", "json", "--max-writes", "20")
    place.keeper.wait_for("BatchWriteItem", 1)
    asleep.send_signal(signal.SIGSTOP)
    before = place.keeper.puts_by["asleep"]
    place.keeper.release()
    summary = place.known_as("awake")("run", *place.to, "--wait-for-lease", "60", "--output", "json").json
    assert summary["rows_loaded"] == ROWS
    asleep.send_signal(signal.SIGCONT)
    result = place.line.finish(asleep)
    assert result.code == 1, str(result)
    assert "nothing more is written" in result.json["error"]["message"], str(result)
    assert place.keeper.puts_by["asleep"] == before < ROWS
    place.assert_exact()
