"""``kill -9`` at seeded instants of a real run, phase by phase: the same command finishes the job (promise 2).

Twenty-one instants by default; ``MOMENTO_ETL_TEST_KILLS`` is how many in all.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from tests.conftest import Stack
from tests.integration.command_line import CommandLine
from tests.integration.mortal import PHASES, Instant, Mortals, When
from tests.integration.stateful_keeper import StatefulKeeper

KILLS = int(os.environ.get("MOMENTO_ETL_TEST_KILLS", "21"))
ROWS = 6000

# How often a run of so many rows does what a phase is named after, at least.
TIMES = {
    "reading": 6,
    "storing a chunk": 200,
    "writing the ledger": 10,
    "moving the pointer": 1,
    "writing a batch": 300,
    "recording progress": 50,
    "finishing": 1,
}
WHEN: tuple[When, ...] = ("before", "during", "after")

# Chunks on their way at once: four are loaded, and a few more may be loaded that the ledger does not know yet.
IN_FLIGHT = 4 + 8


@dataclass
class Place:
    """Where runs are killed: one table to read, and all that is written to, told apart by name."""

    mortals: Mortals
    keeper: StatefulKeeper
    environment: dict[str, str]
    folder: Path
    rows: dict[bytes, dict[str, Any]]

    def run(self, name: str, instant: Instant | None) -> tuple[int, str, str]:
        """Run the job under a name; answer with its exit code, stdout and stderr."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        arguments = ["run", "--table", "many", "--cache", name, "--destination", name, "--output", "json"]
        environment = {**self.environment, "MOMENTO_ETL_STATE_TABLE": f"state-{name}"}
        code = self.mortals.run(environment, folder, arguments, instant)
        return code, (folder / "out").read_text(), (folder / "err").read_text()


@pytest.fixture(scope="module")
def place(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("killed")
    separator = "&" if "?" in stack.postgres_url else "?"
    schema = f"killed_{secrets.token_hex(4)}"
    url = f"{stack.postgres_url}{separator}options=-csearch_path%3D{schema}"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create schema {schema}")
        connection.execute("create table many (id integer primary key, a text, n numeric)")
        connection.execute("insert into many select n, md5(n::text), n / 8.0 from generate_series(1, %s) n", (ROWS,))
        found = connection.execute("select id, a, trim_scale(n)::text from many").fetchall()
        rows = {
            orjson.dumps([{"N": str(number)}]): {"id": {"N": str(number)}, "a": {"S": text}, "n": {"N": figure}}
            for number, text, figure in found
        }
        with StatefulKeeper(stack.dynamodb_url) as keeper, Mortals() as mortals:
            line = CommandLine.on(stack, url, folder).given(AWS_ENDPOINT_URL_DYNAMODB=keeper.url)
            yield Place(mortals, keeper, line.variables(), folder, rows)
        connection.execute(f"drop schema {schema} cascade")


def instant_of(seed: int) -> Instant:
    """The same instant for the same seed; each phase in its turn."""
    chance = random.Random(seed)
    phase = PHASES[seed % len(PHASES)]
    when = WHEN[seed // len(PHASES) % len(WHEN)]
    return Instant(phase, chance.randint(1, TIMES[phase]), when, chance.uniform(0.0, 0.004))


@pytest.mark.parametrize("seed", range(KILLS))
def test_the_same_command_finishes_what_was_killed(place: Place, seed: int) -> None:
    instant = instant_of(seed)
    name = f"killed-{seed}"
    code, out, err = place.run(name, instant)
    assert code == -9, f"{instant}: it was not killed\n{out}\n{err}"
    code, out, err = place.run(name, None)
    assert code == 0, f"{instant}:\n{out}\n{err}"
    summary = json.loads(out)
    assert summary["rows_loaded"] == ROWS, instant
    assert summary["chunks"] >= 200, summary["chunks"]
    kept = {
        key: {attribute: _by_value(value) for attribute, value in item.items()}
        for key, item in place.keeper.kept[name].items()
    }
    assert kept == {
        key: {attribute: _by_value(value) for attribute, value in item.items()} for key, item in place.rows.items()
    }, instant
    largest = -(-ROWS // summary["chunks"]) + 5
    assert place.keeper.puts[name] <= ROWS + IN_FLIGHT * largest, f"{instant}: {place.keeper.puts[name]} puts"
    shutil.rmtree(place.folder / name)


def _by_value(value: dict[str, Any]) -> object:
    return float(value["N"]) if "N" in value else value


def test_every_phase_has_its_instants() -> None:
    phases = [instant_of(seed).phase for seed in range(KILLS)]
    assert min(phases.count(phase) for phase in PHASES) >= KILLS // len(PHASES)
