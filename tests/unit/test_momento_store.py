"""The embedded Momento server's data, limits, rates and faults, without gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etlcli.local.momento.clock import ManualClock
from etlcli.local.momento.faults import PASSING, STATUSES, Disturbance, Faults, rpc_name
from etlcli.local.momento.limits import NO_LIMITS, ON_DEMAND, PRESETS, Limits
from etlcli.local.momento.meter import Meter, operations
from etlcli.local.momento.rate import TokenBucket
from etlcli.local.momento.refusals import (
    CacheExistsError,
    CallError,
    Err,
    InjectedError,
    InvalidRequestError,
    LimitError,
    NotAnIntegerError,
    UnknownCacheError,
    WrongTypeError,
)
from etlcli.local.momento.store import CONDITIONS, Cache, Store, TtlChange

HOUR = 3_600_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1000.0)


@pytest.fixture
def store(clock: ManualClock) -> Store:
    return Store(NO_LIMITS, clock)


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.create("cache")


def test_clock_does_not_go_back(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="does not go back"):
        clock.advance(-1)


# Caches


@pytest.mark.parametrize("name", ["abc", "a.b-c_D9", "x" * 255])
def test_cache_names_that_are_taken(store: Store, name: str) -> None:
    store.create(name)
    assert store.names() == [name]


@pytest.mark.parametrize("name", ["", "  ", "ab", "a b c", "x" * 256, "naïve", "a/b/c", "abc\n"])
def test_cache_names_that_are_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidRequestError):
        store.create(name)


def test_a_cache_is_made_once_and_deleted_once(store: Store) -> None:
    store.create("abc").set(b"k", b"v", HOUR)
    with pytest.raises(CacheExistsError):
        store.create("abc")
    store.delete("abc")
    assert store.stored_bytes == 0
    with pytest.raises(UnknownCacheError):
        store.delete("abc")
    assert store.create("abc").get(b"k") is None


def test_a_blank_name_is_no_unknown_cache(store: Store) -> None:
    with pytest.raises(InvalidRequestError):
        store.cache("  ")


def test_number_of_caches_is_limited(clock: ManualClock) -> None:
    store = Store(ON_DEMAND, clock)
    for name in ("one", "two", "three"):
        store.create(name)
    with pytest.raises(LimitError, match="at most 3"):
        store.create("four")
    store.delete("one")
    store.create("four")


# Time


def test_an_item_lives_until_its_ttl(cache: Cache, clock: ManualClock) -> None:
    cache.set(b"k", b"v", 1500)
    clock.advance(1.499)
    assert cache.get(b"k") == b"v"
    clock.advance(0.001)
    assert cache.get(b"k") is None


def test_ttl_zero_leaves_nothing_of_what_was_there(cache: Cache, store: Store) -> None:
    cache.set(b"k", b"old", HOUR)
    cache.set(b"k", b"new", 0)
    assert cache.get(b"k") is None
    assert store.stored_bytes == 0


def test_longest_ttl(cache: Cache) -> None:
    cache.set(b"k", b"v", 24 * HOUR)
    with pytest.raises(InvalidRequestError, match="86,400 s"):
        cache.set(b"k", b"w", 24 * HOUR + 1)
    assert cache.get(b"k") == b"v"


@pytest.mark.parametrize(
    ("how", "ttl_ms", "outcome", "left"),
    [
        ("overwrite", 5_000, TtlChange.SET, 5_000),
        ("overwrite", 20_000, TtlChange.SET, 20_000),
        ("overwrite", 0, TtlChange.SET, None),
        ("increase", 20_000, TtlChange.SET, 20_000),
        ("increase", 10_000, TtlChange.NOT_SET, 10_000),
        ("increase", 5_000, TtlChange.NOT_SET, 10_000),
        ("decrease", 5_000, TtlChange.SET, 5_000),
        ("decrease", 10_000, TtlChange.NOT_SET, 10_000),
        ("decrease", 20_000, TtlChange.NOT_SET, 10_000),
    ],
)
def test_another_ttl(cache: Cache, how: str, ttl_ms: int, outcome: TtlChange, left: int | None) -> None:
    assert cache.update_ttl(b"k", how, ttl_ms) is TtlChange.MISSING
    cache.set(b"k", b"v", 10_000)
    assert cache.update_ttl(b"k", how, ttl_ms) is outcome
    assert cache.ttl_milliseconds(b"k") == left


def test_a_renewed_item_outlives_its_first_ttl(cache: Cache, store: Store, clock: ManualClock) -> None:
    cache.set(b"k", b"v", 1_000)
    cache.update_ttl(b"k", "increase", 5_000)
    clock.advance(2)
    assert store.sweep() == 0
    assert cache.get(b"k") == b"v"


def test_a_sweep_frees_what_nobody_asks_for(cache: Cache, store: Store, clock: ManualClock) -> None:
    for number in range(10):
        cache.set(b"%d" % number, b"v" * 100, 1_000 + number)
    cache.dictionary_set(b"d", [(b"f", b"v")], 1_000, refresh_ttl=True)
    clock.advance(1.005)
    assert store.sweep() == 7
    assert len(cache) == 4
    clock.advance(1)
    store.sweep()
    assert (len(cache), store.stored_bytes) == (0, 0)


def test_overwriting_one_key_takes_no_room(cache: Cache, store: Store) -> None:
    for _ in range(10_000):
        cache.set(b"k", b"v", HOUR)
    assert store.stored_bytes == 2
    assert len(store._space._order) < 1_100


def test_flushing_again_and_again_takes_no_room(cache: Cache, store: Store) -> None:
    for _ in range(50):
        for number in range(50):
            cache.set(b"%d" % number, b"v", HOUR)
        cache.flush()
    assert store._space._order == []
    assert (len(cache), store.stored_bytes) == (0, 0)


# Stored bytes


def test_room_is_made_by_what_would_expire_soonest(clock: ManualClock) -> None:
    store = Store(Limits(max_stored_bytes=300), clock)
    one, two = store.create("one"), store.create("two")
    one.set(b"a", b"x" * 99, 3_000)
    two.set(b"b", b"x" * 99, 1_000)
    one.set(b"c", b"x" * 99, 2_000)
    assert (store.stored_bytes, store.evicted) == (300, 0)
    one.set(b"d", b"x" * 99, 4_000)
    assert two.get(b"b") is None
    assert [one.get(key) is not None for key in (b"a", b"c", b"d")] == [True, True, True]
    assert (store.stored_bytes, store.evicted) == (300, 1)


def test_expired_entries_make_room_first(clock: ManualClock) -> None:
    store = Store(Limits(max_stored_bytes=200), clock)
    cache = store.create("cache")
    cache.set(b"a", b"x" * 99, 1_000)
    cache.set(b"b", b"x" * 99, 2_000)
    clock.advance(1)
    cache.set(b"c", b"x" * 99, 3_000)
    assert cache.get(b"b") is not None
    assert store.evicted == 0


def test_a_growing_dictionary_makes_room_too(clock: ManualClock) -> None:
    store = Store(Limits(max_stored_bytes=200), clock)
    cache = store.create("cache")
    cache.set(b"a", b"x" * 99, 1_000)
    cache.dictionary_set(b"d", [(b"f", b"x" * 50)], 2_000, refresh_ttl=True)
    cache.dictionary_set(b"d", [(b"g", b"x" * 90)], 2_000, refresh_ttl=False)
    assert cache.get(b"a") is None
    assert store.stored_bytes == 1 + 51 + 91


# Sizes


def test_item_size() -> None:
    cache = Store(Limits(max_item_bytes=10), ManualClock()).create("cache")
    cache.set(b"long key", b"x" * 10, HOUR)
    with pytest.raises(LimitError) as refusal:
        cache.set(b"k", b"x" * 11, HOUR)
    assert refusal.value.err is Err.ITEM_SIZE


def test_dictionary_size_and_element_size() -> None:
    cache = Store(Limits(max_item_bytes=20, max_element_bytes=10), ManualClock()).create("cache")
    with pytest.raises(LimitError) as refusal:
        cache.dictionary_set(b"d", [(b"a", b"x" * 11)], HOUR, refresh_ttl=True)
    assert refusal.value.err is Err.ELEMENT_SIZE
    cache.dictionary_set(b"d", [(b"a", b"x" * 10)], HOUR, refresh_ttl=True)
    with pytest.raises(LimitError) as refusal:
        cache.dictionary_set(b"d", [(b"b", b"x" * 9)], HOUR, refresh_ttl=True)
    assert refusal.value.err is Err.ITEM_SIZE
    with pytest.raises(LimitError):
        cache.dictionary_set(b"e", [(b"a", b"x" * 10), (b"b", b"x" * 10)], HOUR, refresh_ttl=True)
    assert cache.dictionary(b"d") == {b"a": b"x" * 10}
    cache.dictionary_set(b"d", [(b"a", b"y")], HOUR, refresh_ttl=True)
    cache.dictionary_set(b"d", [(b"b", b"x" * 9)], HOUR, refresh_ttl=True)


def test_presets_keep_the_size_limits() -> None:
    assert set(PRESETS) == {"none", "on-demand"}
    for limits in PRESETS.values():
        assert (limits.max_item_bytes, limits.max_element_bytes) == (5_000_000, 131_072)
        assert limits.max_ttl_seconds == 86_400
    assert NO_LIMITS.operations_per_second is None
    assert ON_DEMAND.max_stored_bytes == 100_000_000


# Scalars


@pytest.mark.parametrize(
    ("condition", "absent", "equal", "other"),
    [
        ("present", False, True, True),
        ("absent", True, False, False),
        ("equal", False, True, False),
        ("not_equal", True, False, True),
        ("present_and_not_equal", False, False, True),
        ("absent_or_equal", True, True, False),
    ],
)
def test_conditional_sets(cache: Cache, condition: str, absent: bool, equal: bool, other: bool) -> None:
    assert cache.set_if(b"k", b"new", HOUR, condition, b"held") is absent
    assert cache.get(b"k") == (b"new" if absent else None)
    for compared, stored in ((b"held", equal), (b"other", other)):
        cache.set(b"k", b"held", HOUR)
        assert cache.set_if(b"k", b"new", HOUR, condition, compared) is stored
        assert cache.get(b"k") == (b"new" if stored else b"held")


def test_all_conditions_of_the_wire_are_known() -> None:
    pb = pytest.importorskip("momento_wire_types").cacheclient_pb2
    oneof = pb._SetIfRequest.DESCRIPTOR.oneofs_by_name["condition"]
    assert {field.name for field in oneof.fields} == set(CONDITIONS)


@pytest.mark.parametrize(("held", "amount", "total"), [(b"10", 0, 10), (b"-5", 5, 0), (b"+7", 1, 8), (b"007", 1, 8)])
def test_increment(cache: Cache, held: bytes, amount: int, total: int) -> None:
    cache.set(b"k", held, HOUR)
    assert cache.increment(b"k", amount, HOUR) == total
    assert cache.get(b"k") == str(total).encode()


def test_increment_starts_at_zero_and_sets_the_ttl(cache: Cache, clock: ManualClock) -> None:
    assert cache.increment(b"k", -3, HOUR) == -3
    cache.increment(b"k", 1, 1_000)
    clock.advance(1)
    assert cache.get(b"k") is None


@pytest.mark.parametrize(
    "held",
    [b"", b"abc", b"1.0", b" 1", b"1_0", b"0x1", "\u0661".encode(), b"9223372036854775808", b"9223372036854775807"],
)
def test_increment_of_what_is_no_integer(cache: Cache, held: bytes) -> None:
    cache.set(b"k", held, HOUR)
    with pytest.raises(NotAnIntegerError):
        cache.increment(b"k", 1, HOUR)
    assert cache.get(b"k") == held


# Dictionaries


def test_fields_are_merged_and_the_last_one_takes_the_dictionary_along(cache: Cache, store: Store) -> None:
    cache.dictionary_set(b"d", [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")], HOUR, refresh_ttl=True)
    cache.dictionary_set(b"d", [(b"b", b"22"), (b"c", b"4")], HOUR, refresh_ttl=True)
    assert cache.dictionary(b"d") == {b"a": b"3", b"b": b"22", b"c": b"4"}
    assert store.stored_bytes == 1 + 2 + 3 + 2
    cache.dictionary_delete(b"d", [b"a", b"nothing", b"b"])
    assert cache.dictionary(b"d") == {b"c": b"4"}
    cache.dictionary_delete(b"d", [b"c"])
    assert cache.dictionary(b"d") is None
    assert store.stored_bytes == 0
    cache.dictionary_delete(b"d", [b"c"])


def test_no_fields_make_no_dictionary(cache: Cache) -> None:
    cache.dictionary_set(b"d", [], HOUR, refresh_ttl=True)
    assert cache.item(b"d") is None


@pytest.mark.parametrize(("refresh", "survives"), [(True, True), (False, False)])
def test_refreshing_a_dictionary(cache: Cache, clock: ManualClock, refresh: bool, survives: bool) -> None:
    cache.dictionary_set(b"d", [(b"a", b"1")], 2_000, refresh_ttl=refresh)
    clock.advance(1)
    cache.dictionary_increment(b"d", b"a", 1, 2_000, refresh_ttl=refresh)
    clock.advance(1)
    assert (cache.dictionary(b"d") == {b"a": b"2"}) is survives


def test_refreshing_to_zero_drops_the_dictionary(cache: Cache, store: Store) -> None:
    cache.dictionary_set(b"d", [(b"a", b"1")], 2_000, refresh_ttl=True)
    cache.dictionary_set(b"d", [(b"b", b"1")], 0, refresh_ttl=True)
    assert cache.dictionary(b"d") is None
    assert store.stored_bytes == 0


def test_increment_of_a_field(cache: Cache) -> None:
    assert cache.dictionary_increment(b"d", b"f", 0, HOUR, refresh_ttl=True) == 0
    assert cache.dictionary_increment(b"d", b"f", 5, HOUR, refresh_ttl=True) == 5
    cache.dictionary_set(b"d", [(b"g", b"x")], HOUR, refresh_ttl=True)
    with pytest.raises(NotAnIntegerError):
        cache.dictionary_increment(b"d", b"g", 1, HOUR, refresh_ttl=True)


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.get(b"d"),
        lambda c: c.increment(b"d", 1, HOUR),
        lambda c: c.set_if(b"d", b"v", HOUR, "equal", b"v"),
        lambda c: c.dictionary(b"s"),
        lambda c: c.dictionary_set(b"s", [(b"f", b"v")], HOUR, refresh_ttl=True),
        lambda c: c.dictionary_increment(b"s", b"f", 1, HOUR, refresh_ttl=True),
        lambda c: c.dictionary_delete(b"s", [b"f"]),
        lambda c: c.dictionary_drop(b"s"),
    ],
)
def test_wrong_types_are_refused_and_change_nothing(cache: Cache, use: Callable[[Cache], object]) -> None:
    cache.set(b"s", b"1", HOUR)
    cache.dictionary_set(b"d", [(b"f", b"v")], HOUR, refresh_ttl=True)
    with pytest.raises(WrongTypeError):
        use(cache)
    assert cache.get(b"s") == b"1"
    assert cache.dictionary(b"d") == {b"f": b"v"}


def test_a_scalar_and_a_delete_take_the_place_of_a_dictionary(cache: Cache, store: Store) -> None:
    cache.dictionary_set(b"d", [(b"f", b"v")], HOUR, refresh_ttl=True)
    assert cache.set_if(b"d", b"v", HOUR, "absent") is False
    assert cache.set_if(b"d", b"v", HOUR, "present") is True
    assert cache.get(b"d") == b"v"
    cache.delete(b"d")
    cache.dictionary_set(b"d", [(b"f", b"v")], HOUR, refresh_ttl=True)
    cache.dictionary_drop(b"d")
    assert store.stored_bytes == 0


_KEYS = st.sampled_from([b"a", b"bb", b"ccc"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), _KEYS, st.binary(max_size=8), st.integers(0, 5)),
        st.tuples(st.just("field"), _KEYS, st.binary(max_size=8), st.integers(0, 5)),
        st.tuples(st.just("unfield"), _KEYS, st.just(b""), st.just(0)),
        st.tuples(st.just("ttl"), _KEYS, st.just(b""), st.integers(0, 5)),
        st.tuples(st.just("delete"), _KEYS, st.just(b""), st.just(0)),
        st.tuples(st.just("wait"), _KEYS, st.just(b""), st.integers(0, 3)),
        st.tuples(st.just("sweep"), _KEYS, st.just(b""), st.just(0)),
    ),
    max_size=40,
)


@given(_STEPS)
def test_bytes_in_use_are_those_of_what_is_held(steps: list[tuple[str, bytes, bytes, int]]) -> None:
    clock = ManualClock()
    store = Store(Limits(max_stored_bytes=30), clock)
    cache = store.create("cache")
    actions: dict[str, Callable[[bytes, bytes, int], Any]] = {
        "set": lambda key, value, ttl: cache.set(key, value, ttl * 1000),
        "field": lambda key, value, ttl: cache.dictionary_set(
            key, [(value[:1], value)], ttl * 1000, refresh_ttl=bool(len(value) % 2)
        ),
        "unfield": lambda key, _value, _ttl: cache.dictionary_delete(key, [b"", key[:1]]),
        "ttl": lambda key, _value, ttl: cache.update_ttl(key, "overwrite", ttl * 1000),
        "delete": lambda key, _value, _ttl: cache.delete(key),
        "wait": lambda _key, _value, seconds: clock.advance(seconds),
        "sweep": lambda _key, _value, _seconds: store.sweep(),
    }
    for action, key, value, number in steps:
        with contextlib.suppress(WrongTypeError):
            actions[action](key, value, number)
        held = 0
        for name, entry in cache._entries.items():
            item = entry.value
            inside = len(item) if isinstance(item, bytes) else sum(len(k) + len(v) for k, v in item.items())
            held += len(name) + inside
            assert item != {}
        assert store.stored_bytes == held <= 30
        assert store._space._count == len(cache)
    clock.advance(10)
    store.sweep()
    assert (len(cache), store.stored_bytes) == (0, 0)


# Meter and rates


@pytest.mark.parametrize(("size", "cost"), [(0, 1), (1, 1), (1024, 1), (1025, 2), (262_144, 256), (5_000_000, 4883)])
def test_what_an_element_costs(size: int, cost: int) -> None:
    assert operations(size) == cost


def test_meter_sums_up() -> None:
    meter = Meter()
    meter.by_rpc["Get"].calls += 2
    meter.by_rpc["Set"].calls += 1
    meter.by_rpc["Set"].operations += 7
    assert (meter.calls, meter.operations, meter.total.throttled) == (3, 7, 0)
    meter.reset()
    assert meter.calls == 0


def test_bucket_gives_its_rate_and_a_seconds_burst(clock: ManualClock) -> None:
    bucket = TokenBucket(100, clock)
    for _ in range(100):
        assert bucket.open()
        bucket.take(1)
    assert not bucket.open()
    clock.advance(0.5)
    for _ in range(50):
        assert bucket.open()
        bucket.take(1)
    assert not bucket.open()
    clock.advance(1000)
    assert bucket.open()
    bucket.take(99)
    assert bucket.open()
    bucket.take(1)
    assert not bucket.open()


def test_a_call_over_the_burst_is_let_in_and_paid_off(clock: ManualClock) -> None:
    bucket = TokenBucket(100, clock)
    assert bucket.open()
    bucket.take(256)
    clock.advance(1.5)
    assert not bucket.open()
    clock.advance(0.1)
    assert bucket.open()


def test_no_rate_lets_everything_through(clock: ManualClock) -> None:
    bucket = TokenBucket(None, clock)
    bucket.take(10**9)
    assert bucket.open()


# Faults


def _meet(faults: Faults, rpc: str, request: object = None, **metadata: str) -> CallError | None:
    try:
        return asyncio.run(faults.meet(rpc, request, {key.replace("_", "-"): value for key, value in metadata.items()}))
    except CallError as error:
        return error


def _status(error: CallError | None) -> str | None:
    return None if error is None else error.status


def test_rpc_names() -> None:
    assert [rpc_name(name) for name in ("Get", "SetIf", "DictionaryGet", "ItemGetTtl")] == [
        "get",
        "set-if",
        "dictionary-get",
        "item-get-ttl",
    ]


def test_every_status_of_grpc_can_be_asked_for() -> None:
    grpc = pytest.importorskip("grpc")
    assert {code.name.lower().replace("_", "-") for code in grpc.StatusCode} - {"ok"} == STATUSES


def test_metadata_asks_for_an_error_on_some_rpcs() -> None:
    faults = Faults()
    asked = {"return_error": "unavailable", "error_rpcs": "get dictionary-set"}
    assert _status(_meet(faults, "Get", **asked)) == "unavailable"
    assert _status(_meet(faults, "DictionarySet", **asked)) == "unavailable"
    assert _meet(faults, "Set", **asked) is None
    assert _meet(faults, "Get", return_error="unavailable") is None
    assert _meet(faults, "Get", error_rpcs="get") is None


def test_errors_are_counted_by_request_id() -> None:
    faults = Faults()
    asked = {"return_error": "internal", "error_rpcs": "get,set", "error_count": "2"}
    one = [_status(_meet(faults, rpc, request_id="one", **asked)) for rpc in ("Get", "Set", "Get")]
    two = [_status(_meet(faults, "Get", request_id="two", **asked)) for _ in range(3)]
    assert one == two == ["internal", "internal", None]
    faults.clear()
    assert _status(_meet(faults, "Get", request_id="one", **asked)) == "internal"


def test_counts_are_not_kept_for_ever() -> None:
    faults = Faults()

    async def many() -> None:
        for number in range(10_050):
            with pytest.raises(InjectedError):
                await faults.meet(
                    "Get", None, {"request-id": str(number), "return-error": "unknown", "error-rpcs": "get"}
                )

    asyncio.run(many())
    assert len(faults._by_id) == 10_000


def _recorded() -> tuple[Faults, list[float]]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return Faults(sleep=sleep), slept


def test_metadata_asks_for_a_delay() -> None:
    faults, slept = _recorded()
    for rpc in ("Get", "Set", "Get", "Get"):
        assert _meet(faults, rpc, request_id="x", delay_rpcs="get", delay_ms="250", delay_count="2") is None
    assert slept == [0.25, 0.25]


def test_a_call_waits_before_it_fails() -> None:
    faults, slept = _recorded()
    asked = {"return_error": "unavailable", "error_rpcs": "get", "delay_rpcs": "get", "delay_ms": "1"}
    assert _status(_meet(faults, "Get", **asked)) == "unavailable"
    assert slept == [0.001]


@pytest.mark.parametrize(
    "asked",
    [
        {"return_error": "no-such-thing", "error_rpcs": "get"},
        {"return_error": "internal", "error_rpcs": "get", "error_count": "two"},
        {"delay_rpcs": "get", "delay_ms": "-1"},
    ],
)
def test_metadata_that_make_no_sense(asked: dict[str, str]) -> None:
    assert _status(_meet(Faults(), "Get", **asked)) == "invalid-argument"


def test_set_if_not_exists_has_two_names() -> None:
    for name in ("set-if", "set-if-not-exists"):
        assert _status(_meet(Faults(), "SetIfNotExists", return_error="aborted", error_rpcs=name)) == "aborted"


def test_scripted_faults() -> None:
    faults, slept = _recorded()
    assert not faults.asked({})
    faults.delay("get", "set", seconds=3, count=1)
    failing = faults.fail("get", status="resource-exhausted", err=Err.OPERATIONS_RATE, count=2)
    assert faults.asked({})
    statuses = [_status(_meet(faults, "Get")) for _ in range(3)]
    assert statuses == ["resource-exhausted", "resource-exhausted", None]
    assert slept == [3]
    assert (failing.met, failing.left) == (2, 0)
    with pytest.raises(ValueError, match="no such status"):
        faults.fail("get", status="bad")


def test_a_scripted_fault_can_choose_its_requests() -> None:
    faults = Faults()
    faults.fail("get", status="unavailable", when=lambda request: request == "chosen")
    assert _meet(faults, "Get", "another") is None
    assert _status(_meet(faults, "Get", "chosen")) == "unavailable"


def test_an_answer_can_be_lost() -> None:
    faults = Faults()
    faults.fail("set", status="unavailable", after=True)
    lost = asyncio.run(faults.meet("Set", None, {}))
    assert _status(lost) == "unavailable"


def test_faults_at_random_are_a_share_of_all_calls_and_the_same_for_a_seed() -> None:
    def met(seed: int) -> list[str | None]:
        faults, slept = _recorded()
        disturbance = faults.disturbance = Disturbance(0.2, seed, seconds=3.0, throttles=1000)
        assert faults.asked({})
        answers: list[str | None] = []

        async def meet_many() -> None:
            for _ in range(2000):
                try:
                    error: CallError | None = await faults.meet("Get", None, {})
                except CallError as raised:
                    error = raised
                answers.append("delay" if slept else _status(error))
                slept.clear()

        asyncio.run(meet_many())
        assert sum(disturbance.met.values()) == sum(answer is not None for answer in answers)
        assert set(disturbance.met) == set(disturbance.kinds)
        assert disturbance.met["delay"] == answers.count("delay")
        return answers

    one = met(1)
    assert met(1) == one != met(2)
    assert 320 < sum(answer is not None for answer in one) < 480
    assert set(one) == {None, "delay", "resource-exhausted", *PASSING}


def test_random_faults_can_be_bounded_and_taken_back() -> None:
    faults, slept = _recorded()
    disturbance = faults.disturbance = Disturbance(1.0, 7, throttles=3)
    assert all(_meet(faults, "Set") is not None for _ in range(50))
    assert slept == []
    assert "delay" not in disturbance.kinds
    assert sum(disturbance.met[err] for err in LimitError.RATES) == 3
    faults.clear()
    assert not faults.asked({})
    assert _meet(faults, "Set") is None
