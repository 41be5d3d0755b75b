"""What ``inspect-cache`` shows: as much as the screen takes, and each chunk's state whatever the terminal can do."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from etlcli.block import BLOCK_CHUNKS
from etlcli.cli.render_inspection import checked_text, inspection_text
from etlcli.inspection import Checked, Finding, Inspection, RunView, chunk_states, findings_text
from etlcli.model import ChunkRecord, Column, Key, KeyAttribute, Manifest, PgType, Totals

RUN_ID = "20260814T101502123Z-7f3a"
KEY = Key(KeyAttribute("film_id", "N"))
ITEM = {"film_id": {"N": "42"}, "title": {"S": "The Abyss"}}
WIDE = {f"column_{n}": {"S": "some words " * 5} for n in range(9)}
TTL = 4800


def drawn(
    content: RenderableType, width: int = 80, height: int = 60, *, terminal: bool = True, encoding: str = "utf-8"
) -> list[str]:
    """What stands on a screen of that size."""
    held = io.BytesIO()
    file = io.TextIOWrapper(held, encoding=encoding, write_through=True)
    console = Console(file=file, width=width, height=height, force_terminal=terminal, color_system=None)
    console.print(content, crop=False)
    return [line.rstrip() for line in held.getvalue().decode(encoding).splitlines()]


def view(
    chunks: int, *, current: bool = True, age: float = 60, numbers: range | None = None, **changes: Any
) -> RunView:
    manifest = Manifest(
        job="films",
        run_id=RUN_ID,
        status="complete",
        source="db:5432/shop films",
        fingerprint="f",
        columns=(Column("film_id", PgType("integer", "int4")), Column("title", PgType("character varying", "varchar"))),
        key=KEY,
        source_key=("film_id",),
        layout="packed",
        ttl_seconds=TTL,
        started_at=time.time() - 75,
        written_at=time.time(),
        totals=Totals(rows_extracted=1_234_567, chunks=chunks, bytes_encoded=1_900_000, bytes_stored=243_141),
    )
    records = tuple(
        ChunkRecord(
            number=number,
            rows=1000,
            rejected=0,
            dropped=0,
            bytes_encoded=9000,
            bytes_stored=243_141,
            stored_digest="s",
            rows_digest="r",
            first_key=(str(place * 1000),),
            last_key=(str(place * 1000 + 999),),
            stored_at=time.time() - age,
        )
        for place, number in enumerate(range(chunks) if numbers is None else numbers)
    )
    left = None if not chunks else TTL - age
    return RunView(replace(manifest, **changes), records, left, current)


def inspected(*runs: RunView, sample: tuple[dict[str, Any], ...] = ({**ITEM, **WIDE}, {"film_id": {"N": "7"}})) -> Any:
    inspection = Inspection("films", "c", runs, sample)
    return inspection_text(inspection, inspection.current)


@pytest.mark.parametrize("width", [80, 120])
def test_all_of_it_on_a_high_screen(width: int) -> None:
    runs = (
        view(8, totals=Totals(rows_rejected=3), chunks_freed=4),
        view(0, current=False, status="extracting"),
        view(1, current=False, age=TTL + 1),
    )
    lines = drawn(inspected(*runs), width)
    text = "\n".join(lines)
    assert max(map(cell_len, lines)) <= width
    assert re.search(rf"^{RUN_ID}  current +8,000 +8  1\.95 MB +75s +7[89]m$", text, re.MULTILINE), text
    assert re.search(rf"^{RUN_ID}  partial +0 +0 +0 B +75s +-$", text, re.MULTILINE), text
    assert re.search(rf"^{RUN_ID}  complete .* expired$", text, re.MULTILINE), text
    assert "film_id integer, title character varying" in text
    assert "3 rows (--rejects lists them)" in text
    assert "4 chunks, after they had been loaded (--check tells which)" in text
    assert re.search(r"^ +3 +1,000 +243 kB +3000 +3999 +freed$", text, re.MULTILINE), text
    assert re.search(r"^ +4 +1,000 +243 kB +4000 +4999 +7[89]m$", text, re.MULTILINE), text
    # Whole columns only: the key's, then as many as there is room for; a row without a value shows that.
    header = next(line for line in lines if line.startswith("film_id  title"))
    shown = header.count("column_")
    assert shown == (1 if width == 80 else 3)
    # Their types: DynamoDB's, then PostgreSQL's where it is a column.
    assert re.search(r"^ N int4  S varchar  S", text, re.MULTILINE), text
    assert re.search(r"^ +42  The Abyss  some", text, re.MULTILINE), text
    assert re.search(r"^ +7  - +-", text, re.MULTILINE), text
    assert f"and {9 - shown} more attributes" in text


@pytest.mark.parametrize("chunks", [0, 1, 2, 5, 13, 100, 1000, 100_000])
@pytest.mark.parametrize("runs", [1, 10])
def test_a_low_screen_is_enough(chunks: int, runs: int) -> None:
    shown = view(chunks, chunks_freed=3, totals=Totals(rows_rejected=3))
    older = [view(chunks, current=False) for _ in range(runs - 1)]
    lines = drawn(inspected(shown, *older), height=24)
    assert len(lines) <= 22, "\n".join(lines)
    text = "\n".join(lines)
    assert f"{RUN_ID}  current" in text
    assert "42  The Abyss" in text
    if runs == 10:
        assert re.search(r"and \d more \(--output json has all\)", text), text


def test_the_run_that_is_shown_is_among_those_that_are_listed() -> None:
    partial = [view(5, current=False, status="extracting") for _ in range(9)]
    lines = drawn(inspected(*partial, view(500)), height=24)
    assert any("current" in line for line in lines)


def test_a_log_has_all_of_it_whatever_its_height() -> None:
    text = "\n".join(drawn(inspected(*[view(12)] * 10), height=5, terminal=False))
    assert text.count(f"{RUN_ID}  current") == 10
    assert len(re.findall(r"^ +\d+ +1,000 +243 kB", text, re.MULTILINE)) == 12


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_mark_shows_the_worst_of_its_chunks(encoding: str) -> None:
    run = view(640, chunks_freed=2)
    wrong = [Finding(7, "missing", "gone"), Finding(9, "expired", "old"), Finding(639, "damaged", "broken")]
    lines = drawn(checked_text(Checked(run, wrong, frozenset({0, 1, 2, 3, 4}))), encoding=encoding)
    stored, freed = ("■", "·") if encoding == "utf-8" else ("#", ".")
    assert lines[1] == "chunks  632 of 640 there, and undamaged; 5 freed once they were loaded"
    assert "Chunks, 4 to a mark" in lines
    marks = "".join(re.findall(rf"^ *\d+  ([{stored}{freed}x?!]+) ", "\n".join(lines), re.MULTILINE))
    # 0 to 3 are freed; 4 is freed and 7 missing; 9 has expired; then 156 groups are whole, and the last is not.
    assert marks == f"{freed}?x{stored * 156}!"
    assert lines[-1] == f"{stored} 632 stored   {freed} 5 freed once loaded   x 1 expired   ? 1 missing   ! 1 damaged"


def test_without_a_check_states_go_by_the_ledger_and_the_clock() -> None:
    assert chunk_states(view(4, chunks_freed=1)) == ["freed", "stored", "stored", "stored"]
    assert chunk_states(view(2, age=TTL + 1, chunks_freed=1)) == ["expired", "expired"]


def test_chunks_of_blocks_are_numbered_within_them() -> None:
    numbers = range(3 * BLOCK_CHUNKS, 3 * BLOCK_CHUNKS + 2)
    text = "\n".join(drawn(inspected(view(2, numbers=numbers, blocks=7))))
    assert re.search(r"^block 3: 0 +1,000 ", text, re.MULTILINE), text
    assert re.search(r"^blocks +7$", text, re.MULTILINE), text


def test_what_is_wrong_is_told_whole_and_in_few_lines() -> None:
    few = [Finding(n, "missing", f"chunk {n} is gone") for n in range(5)]
    assert findings_text(few).split("\n") == [f"chunk {n} is gone" for n in range(5)]
    assert findings_text([*few, Finding(9, "missing", "")]).split("\n")[5:] == ["and 1 more like these: chunk 9"]
    many = [Finding(n, "missing", "") for n in (0, 1, 2, 3, 4, 7, 8, 9, 11, 20, 21)]
    assert findings_text(many).endswith("and 6 more like these: chunks 7 to 9, 11, 20 to 21")


def test_a_key_that_is_wider_than_the_screen_is_cut() -> None:
    item = {"k": {"S": "電影" * 250}, "n": {"N": "1"}}
    key = Key(KeyAttribute("k", "S"))
    lines = drawn(inspected(view(1, key=key), sample=(item,)), 30)
    assert max(map(cell_len, lines[lines.index("First rows") :])) <= 30


def test_a_cache_without_runs() -> None:
    assert drawn(inspection_text(Inspection("films", "c", (), ()), None)) == ["Cache c holds no run of films."]
