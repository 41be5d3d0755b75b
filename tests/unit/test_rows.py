"""The rows layout: what a dictionary looks like, exact ways back, and no damage that goes unseen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.cache.rows import MAX_ELEMENT_BYTES, TYPES_FIELD, RowsChunk, RowsPacker, canonical, restore
from etlcli.errors import ChunkError, TooLarge
from etlcli.model import ChunkRecord

KINDS = {"movie_id": "N", "title": "S", "live": "BOOL", "poster": "B", "genres": "L"}
ITEM = {
    "movie_id": {"N": "42"},
    "title": {"S": "The Abyss"},
    "live": {"BOOL": True},
    "poster": {"B": "AAEC"},
    "genres": {"L": [{"S": "Action"}, {"NULL": True}]},
    "ratings": {"M": {"imdb": {"N": "7.60"}}},
}


def packed(*items: Mapping[str, Any], kinds: Mapping[str, str] = KINDS) -> RowsChunk:
    packer = RowsPacker(kinds)
    packer.add([orjson.dumps(item) for item in items])
    return packer.finish()


def record(chunk: RowsChunk) -> ChunkRecord:
    return ChunkRecord(
        0,
        chunk.rows,
        0,
        0,
        chunk.bytes_encoded,
        chunk.bytes_stored,
        chunk.stored_digest,
        chunk.rows_digest,
        (),
        (),
        0.0,
    )


def test_a_row_is_a_dictionary_that_people_can_read() -> None:
    (row,) = packed(ITEM).dictionaries
    assert row == {
        "movie_id": b"42",
        "title": b"The Abyss",
        "live": b"true",
        "poster": b"AAEC",
        "genres": b'[{"S":"Action"},{"NULL":true}]',
        "ratings": b'{"imdb":{"N":"7.60"}}',
        TYPES_FIELD: b'{"ratings":"M"}',  # json columns can hold anything, so that each row says what
    }


def test_an_attribute_of_another_type_than_the_others_says_so() -> None:
    (row,) = packed({"movie_id": {"N": "1"}, "title": {"NULL": True}}).dictionaries
    assert row == {"movie_id": b"1", "title": b"NULL", TYPES_FIELD: b'{"title":"NULL"}'}


values = st.recursive(
    st.one_of(
        st.builds(lambda text: {"S": text}, st.text(st.characters(exclude_categories=["Cs"]))),
        st.builds(lambda number: {"N": str(number)}, st.decimals(allow_nan=False, allow_infinity=False)),
        st.builds(lambda flag: {"BOOL": flag}, st.booleans()),
        st.just({"NULL": True}),
        st.sampled_from([{"B": ""}, {"B": "AA=="}, {"SS": ["a", "b"]}, {"NS": ["1"]}]),
    ),
    lambda inner: st.one_of(
        st.builds(lambda elements: {"L": elements}, st.lists(inner, max_size=3)),
        st.builds(lambda members: {"M": members}, st.dictionaries(st.text("abü"), inner, max_size=3)),
    ),
    max_leaves=6,
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
items = st.lists(st.dictionaries(names, values, min_size=1, max_size=5), max_size=5)


@given(items, st.dictionaries(names, st.sampled_from(["S", "N", "B", "BOOL", "L", "M"])))
def test_any_rows_come_back_exactly(rows: list[dict[str, Any]], kinds: dict[str, str]) -> None:
    chunk = packed(*rows, kinds=kinds)
    assert restore(chunk.dictionaries, kinds, record(chunk), "it") == [canonical(orjson.dumps(row)) for row in rows]


@pytest.mark.parametrize(
    "damaged",
    [
        {"movie_id": b"43"},
        {"title": b"The Abys"},
        {"live": b"false"},
        {"genres": b"[]"},
        {"genres": b"["},
        {"more": b"1"},
        {TYPES_FIELD: b"{}"},
        {TYPES_FIELD: b"no json"},
    ],
)
def test_damage_is_seen(damaged: dict[str, bytes]) -> None:
    chunk = packed(ITEM)
    with pytest.raises(ChunkError, match="chunk 0 is damaged: its rows do not match their checksum"):
        restore([{**chunk.dictionaries[0], **damaged}], KINDS, record(chunk), "chunk 0")


def test_every_flipped_bit_of_a_name_or_a_value_is_seen() -> None:
    chunk = packed(ITEM, {"movie_id": {"N": "1"}})
    for place, row in enumerate(chunk.dictionaries):
        for name, value in row.items():
            for bit in range(8 * len(value)):
                other = bytearray(value)
                other[bit // 8] ^= 1 << bit % 8
                damage(chunk, place, {**row, name: bytes(other)})
            rest = {field: kept for field, kept in row.items() if field != name}
            for bit in range(8 * len(name.encode())):
                raw = bytearray(name.encode())
                raw[bit // 8] ^= 1 << bit % 8
                damage(chunk, place, {**rest, raw.decode(errors="replace"): value})
            damage(chunk, place, rest)


def damage(chunk: RowsChunk, place: int, row: Mapping[str, bytes]) -> None:
    rows = list(chunk.dictionaries)
    rows[place] = row
    with pytest.raises(ChunkError, match="chunk 0 is damaged: its rows do not match their checksum") as caught:
        restore(rows, KINDS, record(chunk), "chunk 0")
    assert caught.value.hint


def test_lost_and_swapped_rows_are_seen() -> None:
    chunk = packed(ITEM, {"movie_id": {"N": "1"}})
    one, other = chunk.dictionaries
    lost: list[list[Mapping[str, bytes]]] = [[], [one], [other, one]]
    for rows in lost:
        with pytest.raises(ChunkError):
            restore(rows, KINDS, record(chunk), "chunk 0")


def test_a_value_over_the_limit_names_the_packed_layout() -> None:
    packed({"title": {"S": "x" * MAX_ELEMENT_BYTES}})
    with pytest.raises(TooLarge, match="the value of title has") as caught:
        packed({"title": {"S": "x" * (MAX_ELEMENT_BYTES + 1)}})
    assert 'layout = "packed"' in str(caught.value.hint)


def test_a_chunk_is_closed_after_some_rows() -> None:
    item = b'{"movie_id":{"N":"1"}}'
    almost, whole = RowsPacker(KINDS), RowsPacker(KINDS)
    assert almost.has_room(10**9)  # into an empty chunk all fit
    almost.add([item] * 499)
    assert not almost.full
    whole.add([item] * 500)
    assert whole.full
    assert not whole.has_room(10**9)
