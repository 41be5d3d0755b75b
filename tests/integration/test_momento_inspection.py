"""``inspect-cache`` over runs of very many chunks: how often the cache is asked, and that it fits a screen."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from etlcli import extraction
from etlcli.block import BLOCK_CHUNKS
from etlcli.cache import packed
from etlcli.cache.momento import MomentoCache
from etlcli.cache.staging import LEDGER_PAGE_CHUNKS, Staging
from etlcli.cli.render_inspection import checked_text, inspection_text
from etlcli.config.momento import MomentoAccess
from etlcli.inspection import check_chunks, findings_text, inspect_job
from etlcli.local.momento.server import MomentoServer, serve
from etlcli.model import ChunkRecord, Manifest
from etlcli.progress import Counters
from tests.integration.whole_run import CACHE, JOB, WholeRun, films

BOUND = 60  # seconds after which a test is given up
HEIGHT = 24
ROWS_A_CHUNK = 4


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few thousand rows fill a thousand chunks."""
    monkeypatch.setattr(packed, "MAX_ENCODED_BYTES", 400)
    monkeypatch.setattr(extraction, "_PIECE_BYTES", 200)


def play(scenario: Callable[[MomentoServer, MomentoCache, Counters], Awaitable[None]]) -> None:
    async def body() -> None:
        counters = Counters()
        async with asyncio.timeout(BOUND), serve(port=0) as server:
            access = MomentoAccess("local", local=server.address)
            async with MomentoCache(access, CACHE, counters) as cache:
                await scenario(server, cache, counters)

    asyncio.run(body())


def on_screen(content: RenderableType, width: int = 80) -> list[str]:
    """What a terminal of 24 lines shows; nothing is longer than it is wide."""
    console = Console(file=io.StringIO(), width=width, height=HEIGHT, force_terminal=True, color_system=None)
    console.print(content, crop=False)
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert max(map(cell_len, lines)) <= width
    return lines


async def thousand(cache: MomentoCache, counters: Counters) -> Manifest:
    whole = WholeRun(films(1000 * ROWS_A_CHUNK))
    await whole.extract(cache)
    manifest = whole.report.manifest
    assert manifest is not None
    assert manifest.totals.chunks >= 1000
    counters.reset()
    return manifest


def test_a_thousand_chunks_fit_a_screen_and_take_few_calls() -> None:
    async def scenario(_server: MomentoServer, cache: MomentoCache, counters: Counters) -> None:
        manifest = await thousand(cache, counters)
        chunks = manifest.totals.chunks
        inspection = await inspect_job(JOB.name, cache)
        assert inspection.current is not None
        assert len(inspection.current.chunks) == chunks
        pages = -(-chunks // LEDGER_PAGE_CHUNKS)
        # Whether the cache is there, the pointer, the list of runs, the manifest, the pages, and a chunk for the rows.
        assert counters.momento_calls <= pages + 6
        for width in (80, 120):
            lines = on_screen(inspection_text(inspection, inspection.current), width)
            assert len(lines) <= HEIGHT - 2, "\n".join(lines)
            text = "\n".join(lines)
            marks = sum(line.count("■") for line in lines) - 1  # one is the legend's
            per_mark = int(re.findall(r"Chunks, (\d+) to a mark", text)[0])
            assert marks == -(-chunks // per_mark)
            assert f"■ {chunks:,} stored" in text
            assert len([line for line in lines if " left " in line and "from" in line]) >= 2

    play(scenario)


def test_each_of_a_thousand_chunks_is_asked_for() -> None:
    async def scenario(_server: MomentoServer, cache: MomentoCache, counters: Counters) -> None:
        manifest = await thousand(cache, counters)
        chunks = manifest.totals.chunks
        whole = await check_chunks(JOB.name, cache)
        assert counters.momento_calls <= chunks + -(-chunks // LEDGER_PAGE_CHUNKS) + 4
        assert on_screen(checked_text(whole)) == [
            f"Run {manifest.run_id}: each of {chunks:,} chunks there, and undamaged."
        ]

        name = f"{JOB.name}/{manifest.run_id}/chunk"
        for number in (*range(100, 200), 700):
            await cache.delete(f"{name}/{number}")
        entry = await cache.get(f"{name}/800")
        assert entry is not None
        await cache.set(f"{name}/800", bytes([*entry[:40], entry[40] ^ 1, *entry[41:]]), 60)
        broken = await check_chunks(JOB.name, cache)
        assert [found.number for found in broken.wrong] == [*range(100, 200), 700, 800]
        assert [found.state for found in broken.wrong] == ["missing"] * 101 + ["damaged"]
        lines = on_screen(checked_text(broken))
        assert len(lines) <= HEIGHT - 2
        assert f"■ {chunks - 102:,} stored   ? 101 missing   ! 1 damaged" in lines[-1]
        # Every one is named, and a screen is enough for it.
        told = findings_text(broken.wrong).split("\n")
        assert len(told) == 6
        assert "chunk 100 " in told[0]
        assert told[-1] == "and 97 more like these: chunks 105 to 199, 700, 800"

        # What was freed is gone, and nothing is wrong with that.
        await Staging(cache, JOB.name).store_manifest(replace(manifest, chunks_freed=101))
        freed = await check_chunks(JOB.name, cache)
        assert [found.number for found in freed.wrong] == [800]
        assert freed.freed == {*range(100, 200), 700}
        # One more is missing than was freed: which ones are to be missing, nobody can tell.
        await Staging(cache, JOB.name).store_manifest(replace(manifest, chunks_freed=100))
        assert len((await check_chunks(JOB.name, cache)).wrong) == 102

    play(scenario)


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "under way"])
def test_a_run_of_many_blocks_fits_as_well(complete: bool) -> None:
    blocks, chunks = 40, 30

    async def scenario(_server: MomentoServer, cache: MomentoCache, counters: Counters) -> None:
        staging = Staging(cache, JOB.name)
        manifest = await thousand(cache, counters)
        (record, *_) = await staging.fetch_ledger(manifest)
        spread = replace(
            manifest,
            run_id="29991231T000000000Z-beef",
            status="complete" if complete else "extracting",
            blocks=blocks,
            block_chunks=(chunks,) * blocks if complete else (),
        )
        begun = range(blocks) if complete else range(blocks // 2)
        for block in begun:
            first = block * BLOCK_CHUNKS
            page: list[ChunkRecord] = [
                record._replace(number=first + place, stored_at=record.stored_at - 60) for place in range(chunks)
            ]
            await staging.store_ledger_page(spread.run_id, first // LEDGER_PAGE_CHUNKS, page, 60)
        await staging.store_manifest(spread)
        await staging.note_run(spread.run_id, 60)
        if complete:
            await staging.move_current(spread.run_id, 60)
        counters.reset()
        inspection = await inspect_job(JOB.name, cache)
        newest = inspection.runs[0]
        assert len(newest.chunks) == chunks * len(begun)
        assert newest.current is complete
        # A page a block, and one more where it is not known to be its last; some chunks are looked for in vain.
        pages = blocks if complete else blocks + len(begun)
        assert counters.momento_calls <= pages + -(-manifest.totals.chunks // LEDGER_PAGE_CHUNKS) + 10
        lines = on_screen(inspection_text(inspection, newest))
        assert len(lines) <= HEIGHT - 2, "\n".join(lines)
        text = "\n".join(lines)
        assert re.search(r"^ *block 0: 0 +■+", text, re.MULTILINE), text
        told = f"{blocks}" if complete else f"{blocks}, {len(begun)} of them begun"
        assert re.search(rf"^blocks +{told}$", text, re.MULTILINE), text

    play(scenario)
