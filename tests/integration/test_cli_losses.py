"""What is lost in the middle of a command: entries that expire or are flushed, caches, tables, the source itself.

A command never calls a part the whole: it mends, or it ends with 1 and says what is gone, and the same one finishes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.conftest import Schema, Stack
from tests.integration.command_line import CommandLine, Result
from tests.integration.places import Place, place_for
from tests.integration.source_helpers import until

ROWS = 300
TTL = ("--ttl", "2s")

# Chunks whose items a loader holds in its hands: of these nothing can be lost.
IN_HANDS = 3


@pytest.fixture
def place(forked: CommandLine, schema: Schema, stack: Stack, unique: str) -> Iterator[Place]:
    with place_for(forked, schema, stack, unique, ROWS) as made:
        # That an entry is not there is known soon.
        soon = {"etlcli.cache.staging.Staging.__init__.__kwdefaults__": {"settling_seconds": 0.2}}
        yield replace(made, line=made.line.changing(soon))


def lose(place: Place, what: Callable[[Place], object], *command: str) -> Result:
    """Lose something while a command waits for DynamoDB, its first chunks in its hands and all of them stored."""
    recorded = place.keeper.calls["state:PutItem"] + 3
    process = place.stalled(*command, batches=2)
    until(lambda: bool(place.keys("/current")), "all is stored")
    place.keeper.wait_for("state:PutItem", recorded)  # the lease, the job's name, and that it has begun
    what(place)
    place.keeper.release()
    return place.line.finish(process)


def ends_well(result: Result) -> Result:
    assert result.code == 0, str(result)
    assert result.json["rows_loaded"] == result.json["rows_extracted"]
    return result


def ends_badly(result: Result, *said: str, hint: str) -> None:
    """With 1, with some rows loaded and not all of them, and in words."""
    assert result.code == 1, str(result)
    assert "Traceback" not in result.err, str(result)
    assert "itself failed" not in result.err, str(result)
    error = result.json["error"]
    for words in said:
        assert re.search(words, error["message"]), str(result)
    assert hint in error["hint"], str(result)
    assert 0 < result.json["rows_loaded"] < ROWS, str(result)


def finishes(place: Place, *command: str) -> Result:
    """The same command, and now it is all there."""
    result = ends_well(place.line.finish(place.start(*command)))
    place.assert_exact()
    return result


# --- Entries


def let_expire(place: Place) -> None:
    until(lambda: not place.keys("/chunk/"), "the chunks expire")


def flush(place: Place) -> None:
    place.cache.flush()


@pytest.mark.parametrize(
    ("what", "why"), [(let_expire, "it has expired"), (flush, "the cache was flushed, or the account is full")]
)
def test_chunks_that_are_gone_are_read_again(place: Place, what: Callable[[Place], object], why: str) -> None:
    result = ends_well(lose(place, what, "run", *TTL))
    place.assert_exact()
    summary = result.json
    mended = summary["snapshots"] - 1
    assert summary["chunks"] - IN_HANDS - 3 <= mended <= summary["chunks"] - IN_HANDS
    # The first ones one by one, and all of them in one line: a cache may have held thousands.
    *each, all_of_them = summary["warnings"]
    assert len(each) == 3
    for told in each:
        assert re.search(rf"chunk \d+ of run .*{why}: its rows were read again, and are the same", told), str(result)
    assert all_of_them == f"{mended} chunks in all were read again, and they are the same"


def test_rows_that_have_changed_meanwhile_are_told_of(place: Place) -> None:
    def change(place: Place) -> None:
        flush(place)
        place.schema.execute(f"update films set title = 'new' where id > {ROWS // 2}; delete from films where id = 299")

    result = ends_well(lose(place, change, "run"))
    place.assert_exact()
    assert result.json["rows_loaded"] == ROWS - 1
    assert re.search(r"chunks in all were read again, and in \d+ of them the source has changed since", result.err)


@pytest.mark.parametrize("what", [let_expire, flush])
def test_a_load_has_no_source_and_names_what_is_gone(place: Place, what: Callable[[Place], object]) -> None:
    place.line("extract", *place.to[:4], *TTL)
    ends_badly(
        lose(place, what, "load"),
        r"chunk \d+ of run \S+ is not in cache",
        hint="momento-etl inspect-cache films --check names all",
    )
    assert place.line.fails("load", *place.to, code=1).json["rows_loaded"] == 0
    finishes(place, "run")


@pytest.mark.parametrize("command", ["run", "load"])
def test_the_cache_is_deleted(place: Place, command: str) -> None:
    place.line("extract", *place.to[:4])
    result = lose(place, lambda place: place.momento.store.delete(place.to[3]), command)
    ends_badly(result, "there is no cache .* any more: it was deleted", hint="makes the cache anew")
    assert place.momento.store.names() == []
    finishes(place, "run")


# --- Tables


@pytest.mark.parametrize("command", ["run", "load"])
def test_the_state_table_is_deleted(place: Place, command: str) -> None:
    place.line("extract", *place.to[:4])
    result = lose(place, lambda place: place.dynamodb.delete_table(TableName=place.state_table), command)
    ends_badly(result, "the state table is gone", hint="makes the table anew")
    finishes(place, command)


@pytest.mark.parametrize("command", ["run", "load"])
def test_the_destination_is_deleted(place: Place, command: str) -> None:
    place.line("extract", *place.to[:4])
    result = lose(place, lambda place: place.keeper.drop(place.table), command)
    ends_badly(result, f"table {place.table} at .* does not exist: it was deleted", hint="create-table")
    assert finishes(place, command).json["destination_created"] is True


# --- The source, between one snapshot and the next


CHANGES = {
    "alter table films rename to elsewhere": "there is no table 'films'",
    "alter table films add column year integer": "the columns of .* changed while it was read",
    "alter table films drop column title": "the columns of .* changed while it was read",
    "alter table films alter id type bigint": "the columns of .* changed while it was read",
    "alter table films drop constraint films_pkey": "a primary key or a unique constraint of .* was dropped",
}
BACK = {
    "alter table films rename to elsewhere": "alter table elsewhere rename to films",
    "alter table films drop column title": "alter table films add column title text default 'new'",
    "alter table films add column year integer": "alter table films drop column year",
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_table_is_another_one_in_the_next_snapshot(place: Place, change: str) -> None:
    def flush_and_change(place: Place) -> None:
        flush(place)
        place.schema.execute(change)

    ends_badly(lose(place, flush_and_change, "run"), CHANGES[change], hint="Run the same command again")
    place.schema.execute(BACK.get(change, "select"))
    finishes(place, "run")


def test_two_rows_have_one_key_in_the_next_snapshot(place: Place) -> None:
    def make_twins(place: Place) -> None:
        flush(place)
        place.schema.execute(f"update films set title = 'film 1' where id in ({ROWS - 1}, {ROWS})")

    # The key is not the order that rows are read in, and no constraint says that it is unique.
    result = lose(place, make_twins, "run", "--key", "title")
    ends_badly(result, r"more than one row has the same destination key \(title\): film 1", hint="--key")
    place.schema.execute(f"update films set title = 'film ' || md5(id::text) where id >= {ROWS - 1}")
    finishes(place, "run", "--key", "title")
