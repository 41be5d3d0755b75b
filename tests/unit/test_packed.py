"""The packed layout: round trips, determinism, sizes, and no damage that goes unseen."""

from __future__ import annotations

import hashlib
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from etlcli.cache import packed as packed_module
from etlcli.cache.packed import MAX_ENCODED_BYTES, TARGET_STORED_BYTES, Packed, Packer, unpack
from etlcli.errors import ChunkError

WHAT = "chunk 7 of run R"
ITEMS = [b'{"id":{"N":"1"},"title":{"S":"Alien"}}', b'{"id":{"N":"2"}}', '{"id":{"S":"ключ"}}'.encode()]

rows = st.lists(st.binary(max_size=60).map(lambda raw: raw.replace(b"\n", b"")), max_size=40)
batches = st.lists(rows, max_size=6)


def pack(*batches: list[bytes]) -> Packed:
    packer = Packer()
    for batch in batches:
        packer.add(batch)
    return packer.finish()


SMALL = pack(ITEMS)


@given(batches)
def test_what_is_packed_comes_back(batches: list[list[bytes]]) -> None:
    packed = pack(*batches)
    items = [item for batch in batches for item in batch]
    assert unpack(packed.entry, WHAT) == items
    assert packed.rows == len(items)
    assert packed.bytes_encoded == sum(len(item) + 1 for item in items)
    assert packed.entry.endswith(bytes.fromhex(packed.stored_digest))


@given(batches)
def test_the_same_rows_make_the_same_entry(batches: list[list[bytes]]) -> None:
    assert pack(*batches) == pack(*batches)
    together = pack([item for batch in batches for item in batch])
    assert together.rows_digest == pack(*batches).rows_digest


@given(rows, rows)
def test_other_rows_have_another_digest(one: list[bytes], other: list[bytes]) -> None:
    assert (pack(one).rows_digest == pack(other).rows_digest) == (one == other)


def test_an_empty_chunk() -> None:
    assert pack() == pack([]) == pack([], [])
    assert pack().rows == pack().bytes_encoded == 0
    assert unpack(pack().entry, WHAT) == []


def test_the_header_is_as_it_is_documented() -> None:
    entry = SMALL.entry
    lines = b"".join(item + b"\n" for item in ITEMS)
    assert entry[:6] == b"METL\x01\x01"
    assert int.from_bytes(entry[6:10]) == 3
    assert int.from_bytes(entry[10:14]) == len(lines)
    assert entry[14:22] == hashlib.blake2b(lines, digest_size=8).digest() == bytes.fromhex(SMALL.rows_digest)
    assert zstandard.ZstdDecompressor().decompressobj().decompress(entry[22:-8]) == lines
    assert entry[-8:] == hashlib.blake2b(entry[:-8], digest_size=8).digest()


# Damage


@pytest.mark.parametrize("packed", [SMALL, pack()], ids=["rows", "empty"])
def test_every_flipped_bit_is_seen(packed: Packed) -> None:
    entry = packed.entry
    for bit in range(len(entry) * 8):
        damaged = bytearray(entry)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ChunkError, match=WHAT):
            unpack(bytes(damaged), WHAT)


@pytest.mark.parametrize("packed", [SMALL, pack()], ids=["rows", "empty"])
def test_every_truncation_and_extension_is_seen(packed: Packed) -> None:
    entry = packed.entry
    for length in range(len(entry)):
        for damaged in (entry[:length], entry[length + 1 :], entry + entry[:length] + b"\0"):
            with pytest.raises(ChunkError, match=WHAT):
                unpack(damaged, WHAT)


LARGE = pack([b'{"id":{"N":"%d"},"digest":{"S":"%x"}}' % (n, n * 7919**9) for n in range(5000)]).entry


@given(st.integers(0, len(LARGE) * 8 - 1))
def test_flipped_bits_of_a_large_chunk_are_seen(bit: int) -> None:
    damaged = bytearray(LARGE)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ChunkError, match=WHAT):
        unpack(bytes(damaged), WHAT)


@given(st.binary(max_size=200))
def test_what_is_no_chunk_is_refused(entry: bytes) -> None:
    with pytest.raises(ChunkError, match=WHAT) as caught:
        unpack(entry, WHAT)
    assert caught.value.hint


def sealed(body: bytes) -> bytes:
    """An entry whose last checksum is right, whatever is before it."""
    return body + hashlib.blake2b(body, digest_size=8).digest()


def headed(rows: int, encoded: int, content: bytes) -> bytes:
    """An entry of our format whose header says what it is told to."""
    magic, version, compression, _, _, digest = packed_module._HEADER.unpack_from(SMALL.entry)
    return sealed(packed_module._HEADER.pack(magic, version, compression, rows, encoded, digest) + content)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (b"", "is no chunk of momento-etl, or is damaged"),
        (headed(3, 100, b"not zstd"), "is damaged: it cannot be decompressed"),
        (headed(1, 4, zstandard.compress(b"{}{}")), "is damaged: its rows do not match their checksum"),
        (headed(1, 4, zstandard.compress(b"{} \n")), "is damaged: its rows do not match their checksum"),
    ],
)
def test_what_a_header_says_is_not_taken_on_trust(entry: bytes, said: str) -> None:
    with pytest.raises(ChunkError, match=f"{WHAT} {said}") as caught:
        unpack(entry, WHAT)
    assert caught.value.hint


@pytest.mark.parametrize(("place", "value"), [(4, 2), (4, 255), (4, 0), (5, 2)])
def test_a_version_from_the_future_is_refused(place: int, value: int) -> None:
    body = bytearray(SMALL.entry[:-8])
    body[place] = value
    with pytest.raises(ChunkError, match="does not know") as caught:
        unpack(sealed(bytes(body)), WHAT)
    assert "newer" in str(caught.value.hint)


@given(st.integers(6, 21), st.integers(1, 255))
def test_a_header_that_lies_under_a_good_checksum_is_refused(place: int, change: int) -> None:
    body = bytearray(SMALL.entry[:-8])
    body[place] ^= change
    # A length that could not be had would be asked of the memory: such a header is none of a chunk's.
    if body[10]:
        return
    with pytest.raises(ChunkError, match=WHAT):
        unpack(sealed(bytes(body)), WHAT)


@given(st.binary(max_size=300))
def test_other_contents_under_a_good_checksum_are_refused(contents: bytes) -> None:
    with pytest.raises(ChunkError, match=WHAT):
        unpack(sealed(SMALL.entry[:22] + contents), WHAT)


# Sizes


def test_chunks_that_do_not_compress_come_near_the_target() -> None:
    rng = random.Random(1)
    packer = Packer()
    while not packer.full:
        packer.add([rng.randbytes(1000).replace(b"\n", b" ") for _ in range(10)])
    assert TARGET_STORED_BYTES <= len(packer.finish().entry) < TARGET_STORED_BYTES * 1.6


def test_chunks_that_compress_well_come_near_the_target() -> None:
    rng = random.Random(1)
    packer = Packer()
    while not packer.full:
        packer.add(
            [b'{"id":{"N":"%d"},"paid":{"BOOL":true},"note":{"S":"%x"}}' % (n, rng.getrandbits(64)) for n in range(99)]
        )
    entry = packer.finish().entry
    assert TARGET_STORED_BYTES <= len(entry) < TARGET_STORED_BYTES * 1.3


def test_chunks_that_compress_to_nothing_end_at_the_bound_on_encoded_bytes() -> None:
    row = b'{"id":{"N":"1"}}' * 100
    packer = Packer()
    while not packer.full and packer.has_room(len(row) + 1):
        packer.add([row])
    packed = packer.finish()
    assert MAX_ENCODED_BYTES - 2 * len(row) < packed.bytes_encoded <= MAX_ENCODED_BYTES
    assert len(packed.entry) < TARGET_STORED_BYTES


def test_an_empty_chunk_has_room_for_any_row() -> None:
    packer = Packer()
    assert packer.has_room(MAX_ENCODED_BYTES * 2)
    packer.add([b"x" * MAX_ENCODED_BYTES])
    assert packer.full
    assert not packer.has_room(1)
