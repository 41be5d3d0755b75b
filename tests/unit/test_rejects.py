"""Rejects: counted, shown and kept, whatever their size."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import orjson
from hypothesis import given
from hypothesis import strategies as st

from etlcli.cache.staging import REJECTS_PAGE, Stage, Staging
from etlcli.model import Key, KeyAttribute, Manifest, Reject
from etlcli.rejects import RejectKeeper
from etlcli.report import Report
from tests.contract.fakes.cache import ITEM_BYTES, FakeAccount, FakeCache

MANIFEST = Manifest(
    "movies", "R", "extracting", "s", "f", (), Key(KeyAttribute("id", "N")), (), "packed", 4800, 0.0, 0.0
)


class Scene:
    def __init__(self) -> None:
        self.account = FakeAccount(caches={"etl": {}})
        self.staging = Staging(FakeCache("etl", self.account), "movies", settling_seconds=0)
        self.report = Report("movies")

    def keeper(self, stage: Stage = "extract") -> RejectKeeper:
        return RejectKeeper(self.staging, self.report, MANIFEST, stage)

    async def keep(self, rejects: Sequence[Reject], stage: Stage = "extract") -> list[Reject]:
        keeper = self.keeper(stage)
        await keeper.add(rejects, 0)
        await keeper.finish()
        return await self.staging.fetch_rejects(MANIFEST)

    @property
    def pages(self) -> list[bytes]:
        return list(self.account.values("etl").values())


def reject(number: int, **row: str) -> Reject:
    return Reject("number-not-finite", f"row {number}", {"id": str(number), **row})


def test_all_are_counted_and_kept_and_the_first_are_shown() -> None:
    scene = Scene()
    rejects = [reject(number) for number in range(2 * REJECTS_PAGE + 7)]
    assert asyncio.run(scene.keep(rejects)) == rejects
    assert scene.report.counters.rows_rejected == len(rejects)
    assert scene.report.rejects == rejects[:20]
    assert len(scene.pages) == 3


def test_none_at_all_store_nothing() -> None:
    scene = Scene()
    assert asyncio.run(scene.keep([])) == []
    assert scene.pages == []


def test_many_additions_at_once_lose_none() -> None:
    scene = Scene()

    async def body() -> list[Reject]:
        keeper = scene.keeper()
        await asyncio.gather(*(keeper.add([reject(n) for n in range(s, s + 30)], 0) for s in range(0, 900, 30)))
        await keeper.finish()
        return await scene.staging.fetch_rejects(MANIFEST)

    found = asyncio.run(body())
    assert sorted(found, key=lambda it: int(it.row["id"])) == [reject(number) for number in range(900)]
    assert scene.report.counters.rows_rejected == 900
    assert len(scene.report.rejects) == 20


def test_both_halves_of_a_run_keep_their_own() -> None:
    scene = Scene()
    asyncio.run(scene.keep([reject(1)], "extract"))
    assert asyncio.run(scene.keep([reject(2)], "load")) == [reject(1), reject(2)]
    assert scene.report.counters.rows_rejected == 2


def test_what_an_earlier_load_of_the_run_rejected_is_forgotten() -> None:
    scene = Scene()
    asyncio.run(scene.keep([reject(number) for number in range(3 * REJECTS_PAGE)], "load"))
    assert asyncio.run(scene.keep([reject(1)], "load")) == [reject(1)]
    assert asyncio.run(scene.keep([], "load")) == []


def test_rows_rejected_for_their_size_still_fit_into_a_page() -> None:
    scene = Scene()
    rejects = [
        reject(1, wide="x" * 50_000_000),
        reject(2, **{f"column_{number}": "\x01" * 290_000 for number in range(40)}),
        reject(3, **{f"column_{number:060}": "\x01" * 5_000 for number in range(1600)}),
        Reject("refused-by-dynamodb", "no", {"item": '{"NULL":true},' * 300_000}),
        *(reject(number, text="ж" * 280_000) for number in range(4, 30)),
    ]
    found = asyncio.run(scene.keep(rejects))
    assert [it.message for it in found] == [it.message for it in rejects]
    assert max(map(len, scene.pages)) < ITEM_BYTES * 0.8
    assert "(50,000,000 characters)" in found[0].row["wide"]
    assert found[0].row["id"] == "1"
    assert found[0].row["wide"].startswith("x" * 30_000)
    assert all(row.row.keys() == was.row.keys() for row, was in zip(found, rejects, strict=True))
    assert found[4:] == rejects[4:]  # these are not cut


def test_keys_stay_whole_whatever_is_cut() -> None:
    scene = Scene()
    key = orjson.dumps({"pk": {"S": "\x01" * 2048}, "sk": {"S": '"' * 1024}}).decode()
    rejects = [Reject("rule", f"row {number}", {"wide": "x" * size}, key) for number, size in enumerate([9, 2_000_000])]
    found = asyncio.run(scene.keep([*rejects, *([replace(rejects[0], row={})] * 500)]))
    assert [it.key for it in found] == [key] * 502
    assert len(found[1].row["wide"]) < 2_000_000
    assert max(map(len, scene.pages)) < ITEM_BYTES * 0.8


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=30), max_size=4), max_size=30))
def test_rows_come_back_as_they_are(rows: list[dict[str, str]]) -> None:
    rejects = [Reject("rule", "message", row) for row in rows if _is_utf8(row)]
    assert asyncio.run(Scene().keep(rejects)) == rejects


def _is_utf8(row: dict[str, str]) -> bool:
    try:
        orjson.dumps(row)
    except TypeError:
        return False
    return True
