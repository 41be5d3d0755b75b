"""The documents in the cache: round trips, and no garbage that gets any further."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.block import Block
from etlcli.cache import documents
from etlcli.cache.documents import FORMAT, Index, UnreadableError
from etlcli.errors import CacheError
from etlcli.model import (
    ChunkRecord,
    Column,
    Key,
    KeyAttribute,
    Manifest,
    PgType,
    Reject,
    SnapshotRecord,
    Totals,
)

WHAT = "movies/R/manifest"

# A composite within an array within a composite, and names in other scripts
ADDRESS = PgType("адрес", "адрес", "composite", fields=(Column("улица", PgType("text", "text")),))
NESTED = PgType(
    "customer",
    "customer",
    "composite",
    fields=(
        Column("addresses", PgType("адрес[]", "_адрес", "array", element=ADDRESS)),
        Column('odd "name"\n😀', PgType("box[]", "_box", "array", PgType("box", "box"), ";")),
        Column("embedding", PgType("vector(3)", "vector", extension="vector")),
    ),
)
MANIFEST = Manifest(
    job="продажи/2026",
    run_id="20260814T101502123Z-7f3a",
    status="complete",
    source='db:5432/shop "Sales"."Order Details"',
    fingerprint="00ff",
    columns=(Column("id", PgType("integer", "int4")), Column("客户", NESTED)),
    key=Key(KeyAttribute("id", "N"), KeyAttribute("客户", "S")),
    source_key=("id",),
    layout="packed",
    ttl_seconds=4800,
    started_at=1_786_000_000.25,
    written_at=1_786_000_001.5,
    completed_at=1_786_000_001.5,
    chunks_freed=3,
    snapshots=(SnapshotRecord("100:100:", 1_786_000_000.0),),
    totals=Totals(1_000_000, 2, 3, 4, 5, 6),
)
RECORD = ChunkRecord(0, 10, 1, 2, 3000, 400, "aa", "bb", ("1", None, "ключ"), ("9", "", "\x01"), 1_786_000_000.75)
BLOCK = Block(7, (None, ("9", "", "\x01"), ("ключ",)), "extracted", 3, 1, 2, ((448_001, 5),), 4, 6, 1_786_000_000.75)
REJECT = Reject("number-not-finite", "column x: NaN is no number", {"x": "NaN", "имя": "a\nb\x00c"})

text = st.text(st.characters(codec="utf-8"), max_size=8)
number = st.integers(0, 2**53)
seconds = st.floats(0, 4e9)
pg_types = st.recursive(
    st.builds(PgType, text, text, st.sampled_from(["base", "enum", "range", "pseudo"]), extension=st.none() | text),
    lambda inner: (
        st.builds(PgType, text, text, st.just("array"), inner, st.sampled_from([",", ";"]))
        | st.builds(
            PgType,
            text,
            text,
            st.just("composite"),
            fields=st.lists(st.builds(Column, text, inner), max_size=3).map(tuple),
        )
    ),
    max_leaves=6,
)
attributes = st.builds(KeyAttribute, text, st.sampled_from(["S", "N", "B"]))
manifests = st.builds(
    Manifest,
    job=text,
    run_id=text,
    status=st.sampled_from(["extracting", "complete"]),
    source=text,
    fingerprint=text,
    columns=st.lists(st.builds(Column, text, pg_types), max_size=4).map(tuple),
    key=st.builds(Key, attributes, st.none() | attributes),
    source_key=st.lists(text, max_size=2).map(tuple),
    layout=st.sampled_from(["packed", "rows"]),
    ttl_seconds=number,
    started_at=seconds,
    written_at=seconds,
    completed_at=st.none() | seconds,
    chunks_freed=number,
    snapshots=st.lists(st.builds(SnapshotRecord, text, seconds), max_size=2).map(tuple),
    totals=st.builds(Totals, *[number] * 6),
    kinds=st.dictionaries(text, text, max_size=3),
)
keys = st.lists(st.none() | text, max_size=2).map(tuple)
records = st.builds(ChunkRecord, *[number] * 6, text, text, keys, keys, seconds, number)
rejects = st.builds(Reject, text, text, st.dictionaries(text, text, max_size=4))


@given(manifests)
def test_manifests_come_back(manifest: Manifest) -> None:
    assert documents.load_manifest(documents.dump_manifest(manifest), WHAT) == manifest


def test_a_manifest_with_nested_types_comes_back() -> None:
    assert documents.load_manifest(documents.dump_manifest(MANIFEST), WHAT) == MANIFEST


@given(st.lists(records, max_size=5))
def test_ledger_pages_come_back(page: list[ChunkRecord]) -> None:
    found = documents.load_ledger_page(documents.dump_ledger_page(page), WHAT)
    assert found == page
    assert all(isinstance(record, ChunkRecord) for record in found)


@given(st.lists(rejects, max_size=5))
def test_rejects_come_back(page: list[Reject]) -> None:
    assert documents.load_rejects(documents.dump_rejects(page), WHAT) == page


@given(text)
def test_pointers_come_back(run_id: str) -> None:
    assert documents.load_pointer(documents.dump_pointer(run_id), WHAT) == run_id


@given(st.lists(text, max_size=5))
def test_lists_of_runs_come_back(runs: list[str]) -> None:
    assert documents.load_runs(documents.dump_runs(runs), WHAT) == runs


def test_whole_seconds_are_seconds_too() -> None:
    document = documents.dump_manifest(replace(MANIFEST, started_at=5))
    assert documents.load_manifest(document, WHAT).started_at == 5.0


def test_a_field_that_an_earlier_version_did_not_write_has_its_default() -> None:
    data = orjson.loads(documents.dump_manifest(MANIFEST))
    del data["chunks_freed"], data["totals"]["rows_dropped"]
    found = documents.load_manifest(orjson.dumps(data), WHAT)
    assert found == replace(MANIFEST, chunks_freed=0, totals=replace(MANIFEST.totals, rows_dropped=0))


def test_a_page_of_an_earlier_version_is_read() -> None:
    data = orjson.loads(documents.dump_ledger_page([RECORD, RECORD._replace(number=1, parts=1)]))
    for later in ("behind", "parts"):
        assert data["fields"].pop() == later
        for row in data["chunks"]:
            row.pop()
        assert documents.load_ledger_page(orjson.dumps(data), WHAT) == [RECORD, RECORD._replace(number=1)]
    data["fields"].pop()
    with pytest.raises(UnreadableError, match="damaged"):
        documents.load_ledger_page(orjson.dumps(data), WHAT)


Load = Callable[[bytes, str], Any]
KINDS: dict[str, tuple[bytes, Load]] = {
    "manifest": (documents.dump_manifest(MANIFEST), documents.load_manifest),
    "ledger": (documents.dump_ledger_page([RECORD, RECORD._replace(number=1)]), documents.load_ledger_page),
    "block": (documents.dump_block(BLOCK), documents.load_block),
    "rejects": (documents.dump_rejects([REJECT]), documents.load_rejects),
    "pointer": (documents.dump_pointer("R"), documents.load_pointer),
    "runs": (documents.dump_runs(["R", "Q"]), documents.load_runs),
}
each_kind = pytest.mark.parametrize(("document", "load"), KINDS.values(), ids=KINDS.keys())


@each_kind
def test_a_newer_format_is_refused(document: bytes, load: Load) -> None:
    data = {**orjson.loads(document), "format": FORMAT + 1, "surprise": []}
    with pytest.raises(CacheError, match=rf"{WHAT} was written by a newer momento-etl \(format 2") as caught:
        load(orjson.dumps(data), WHAT)
    assert caught.value.hint


@each_kind
@pytest.mark.parametrize("version", [None, 0, -1, True, "1", 1.0, [1]])
def test_an_odd_format_is_damage(document: bytes, load: Load, version: object) -> None:
    with pytest.raises(UnreadableError, match="damaged"):
        load(orjson.dumps({**orjson.loads(document), "format": version}), WHAT)


@each_kind
@pytest.mark.parametrize("garbage", [b"", b"{", b"null", b"[]", b"1", b"{}", b"\xff\xfe", b"\0" * 100, b'"text"'])
def test_garbage_is_refused(document: bytes, load: Load, garbage: bytes) -> None:
    for damaged in (garbage, document + garbage if garbage else document[:-1]):
        with pytest.raises(UnreadableError, match=f"{WHAT} is damaged") as caught:
            load(damaged, WHAT)
        assert caught.value.hint


@each_kind
def test_the_document_of_another_kind_is_refused(document: bytes, load: Load) -> None:
    for other, _ in KINDS.values():
        if other != document and not (load is documents.load_pointer and b"run_id" in other):
            with pytest.raises(UnreadableError):
                load(other, WHAT)


def test_whoever_reads_a_document_as_it_is_stored_may() -> None:
    for document, load in KINDS.values():
        assert load(documents.sealed(document, WHAT), WHAT) == load(document, WHAT)
        assert orjson.loads(documents.sealed(document, WHAT)).keys() == {*orjson.loads(document), "digest"}


@each_kind
def test_a_checksum_is_taken_away_again(document: bytes, load: Load) -> None:
    assert documents.unsealed(documents.sealed(document, WHAT), WHAT) == document
    assert documents.unsealed(document, WHAT) == document  # of an earlier version, which wrote none
    assert load(document, WHAT) == load(documents.unsealed(documents.sealed(document, WHAT), WHAT), WHAT)


@each_kind
def test_every_flipped_bit_is_seen_or_changes_nothing(document: bytes, load: Load) -> None:
    whole, expected = documents.sealed(document, WHAT), load(document, WHAT)
    for bit in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            found = load(documents.unsealed(bytes(damaged), WHAT), WHAT)
        except UnreadableError:
            continue
        assert found == expected


@each_kind
def test_every_truncation_is_seen(document: bytes, load: Load) -> None:
    whole = documents.sealed(document, WHAT)
    for length in range(len(whole)):
        with pytest.raises(UnreadableError, match=WHAT):
            load(documents.unsealed(whole[:length], WHAT), WHAT)


@each_kind
def test_a_document_under_another_key_is_refused(document: bytes, load: Load) -> None:
    assert load(document, WHAT) is not None
    with pytest.raises(UnreadableError, match="movies/S/manifest is damaged"):
        documents.unsealed(documents.sealed(document, WHAT), "movies/S/manifest")


def test_a_newer_version_whose_checksum_is_another_one_is_named() -> None:
    newer = b'{"format":2,"surprise":[],"digest":"0123456789abcdef"}'
    with pytest.raises(UnreadableError, match="was written by a newer momento-etl"):
        documents.unsealed(newer, WHAT)


def test_a_column_named_like_the_checksum_is_no_checksum() -> None:
    manifest = replace(MANIFEST, kinds={"a": "N", "digest": "0123456789abcdef"}, transform=None)
    document = documents.dump_manifest(manifest)
    assert documents.unsealed(document, WHAT) == document
    found = documents.load_manifest(documents.unsealed(documents.sealed(document, WHAT), WHAT), WHAT)
    assert found == manifest


def test_an_index_comes_back_and_no_other_document_is_taken_for_one() -> None:
    index = Index(3, "00ff-3")
    assert documents.load_index(documents.dump_index(index), WHAT) == index
    for document, _ in KINDS.values():
        assert documents.load_index(document, WHAT) is None
    for parts in (0, -1, "3", None):
        with pytest.raises(UnreadableError):
            documents.load_index(orjson.dumps({"format": 1, "parts": parts, "below": "x"}), WHAT)


@pytest.mark.parametrize("depth", [300, 900, 20_000])
def test_nesting_without_end_is_refused_or_read(depth: int) -> None:
    data = orjson.loads(documents.dump_manifest(MANIFEST))
    inner = orjson.dumps({**asdict(PgType("int4", "int4")), "element": 0})
    deep = inner.replace(b'"element":0', b'"element":@')
    whole = b"null"
    pieces = deep.split(b"@")
    whole = pieces[0] * depth + whole + pieces[1] * depth
    data["columns"] = [{"name": "x", "type": 0}]
    document = orjson.dumps(data).replace(b'"type":0', b'"type":' + whole)
    with pytest.raises(UnreadableError):
        documents.load_manifest(document, WHAT)


json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)


def mutated(data: st.DataObject, tree: Any) -> Any:
    """Change one place of a JSON tree: replace, remove, add or double something."""
    tree = copy.deepcopy(tree)
    place = tree
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            return data.draw(json)
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and data.draw(st.booleans()):
            place = place[key]
            continue
        match data.draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                place[key] = data.draw(json)
            case "remove":
                del place[key]
            case _ if isinstance(place, dict):
                place[data.draw(text)] = data.draw(json)
            case _:
                place.append(data.draw(json))
        return tree


DUMPS: dict[str, Callable[[Any], bytes]] = {
    "manifest": documents.dump_manifest,
    "ledger": documents.dump_ledger_page,
    "block": documents.dump_block,
    "rejects": documents.dump_rejects,
    "pointer": documents.dump_pointer,
    "runs": documents.dump_runs,
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_change_is_refused_or_makes_another_document(kind: str, data: st.DataObject) -> None:
    document, load = KINDS[kind]
    changed = orjson.dumps(mutated(data, orjson.loads(document)))
    try:
        found = load(changed, WHAT)
    except UnreadableError:
        return
    # What is taken is of the right types all the way down, so that it can be written and read again.
    assert load(DUMPS[kind](found), WHAT) == found


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_any_changed_bytes_are_refused_or_make_another_document(kind: str, data: st.DataObject) -> None:
    document, load = KINDS[kind]
    start = data.draw(st.integers(0, len(document)))
    end = data.draw(st.integers(start, min(len(document), start + 10)))
    changed = document[:start] + data.draw(st.binary(max_size=5)) + document[end:]
    try:
        found = load(changed, WHAT)
    except UnreadableError:
        return
    assert load(DUMPS[kind](found), WHAT) == found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ttl_seconds", "4800"),
        ("ttl_seconds", 1.5),
        ("written_at", "now"),
        ("status", "half"),
        ("columns", {}),
        ("key", None),
        ("totals", {"chunks": "3"}),
        ("totals", {"chunk": 3}),
        ("snapshots", [{"name": "x"}]),
        ("source_key", "id"),
        ("source_key", [None]),
    ],
)
def test_values_of_the_wrong_type_are_refused(field: str, value: object) -> None:
    data = {**orjson.loads(documents.dump_manifest(MANIFEST)), field: value}
    with pytest.raises(UnreadableError):
        documents.load_manifest(orjson.dumps(data), WHAT)
