"""The state's decisions, this machine's processes, and the adapter against a client by script."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar, cast

import pytest
from botocore.credentials import Credentials as BotoCredentials
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from etlcli.errors import ConfigError, EtlError, SinkError, Throttled, Unavailable, UsageError
from etlcli.ports import StateStore
from etlcli.progress import Counters
from etlcli.report import Report
from etlcli.retry import RetryPolicy
from etlcli.sink import state as adapter
from etlcli.sink.connect import Connection
from etlcli.sink.credentials import Credentials
from etlcli.sink.settings import DynamoDBSettings
from etlcli.sink.state import DynamoDBState
from etlcli.sink.translate import ForeignAnswer
from etlcli.state import (
    Claim,
    Held,
    Lease,
    LeaseRecord,
    LeaseWatch,
    Lost,
    Mark,
    NullState,
    Process,
    RunRecord,
    SchemaColumn,
    Standing,
    Taken,
    Watermark,
    WatermarkEntry,
    chunks_left,
    counts_of,
    host,
)
from etlcli.state.history import dump_run, load_run
from etlcli.state.host import HostProcesses, host_name, steady_clock
from etlcli.state.layout import cut, hash_value, progress_entry
from etlcli.state.lease import dump_lease, judge, seems_abandoned
from etlcli.state.progress import CHUNKS_PER_PAGE, chunks_by_page
from etlcli.summary import summarize
from tests.unit.test_sink_table import StubClient, fault

T = TypeVar("T")

NOW = 1_786_700_000.0
CLAIM = Claim("me", "ada", "momento-etl run")
RECORD = LeaseRecord.of(Claim("other", "bob", "momento-etl load"), NOW)
RUN = RunRecord("movies", "20260814T101502123Z-7f3a", "momento-etl run", "ada", "running", NOW)


# --- Leases


def test_how_a_lease_stands() -> None:
    assert judge(None, CLAIM, 0, dead=False) is Standing.FREE
    assert judge(RECORD, CLAIM, 0, dead=False) is Standing.HELD
    assert judge(RECORD, CLAIM, 29.999, dead=False) is Standing.HELD
    assert judge(RECORD, CLAIM, 30, dead=False) is Standing.EXPIRED
    assert judge(RECORD, CLAIM, 0, dead=True) is Standing.DEAD
    assert judge(replace(RECORD, holder="me"), CLAIM, 99, dead=True) is Standing.OURS
    # The holder stops by its own period, whatever the taker's is.
    assert judge(replace(RECORD, period_seconds=60), CLAIM, 59, dead=False) is Standing.HELD


def test_sending_stops_a_request_before_the_lease_ends() -> None:
    lease = Lease("movies", "me", 30.0, renewed_at=1000.0)
    assert lease.safe_until(20.0) == 1010.0
    assert lease.safe_until(30.0) == 1000.0
    assert lease.renew_from(20.0) == pytest.approx(1000.0 + 10 / 3)
    assert lease.renew_from(40.0) == 1000.0


def test_a_watch_counts_from_answer_to_question() -> None:
    watch = LeaseWatch()
    assert watch.look(RECORD, asked_at=0, answered_at=10) == 0
    assert watch.look(RECORD, asked_at=12, answered_at=99) == 2
    lives = [watch.saw_life]
    assert watch.look(replace(RECORD, renewals=1), asked_at=100, answered_at=101) == 0
    lives.append(watch.saw_life)
    assert lives == [False, True]
    assert watch.look(replace(RECORD, renewals=1), asked_at=131, answered_at=131) == 30


@pytest.mark.parametrize(
    ("seconds_later", "worth_it"),
    [(0, False), (29, False), (30, True), (3600, True), (-1, True), (-3600, True)],
)
def test_when_a_lease_is_worth_watching(seconds_later: float, worth_it: bool) -> None:
    watch = LeaseWatch()
    watch.look(RECORD, asked_at=0, answered_at=0)
    assert seems_abandoned(RECORD, watch, NOW + seconds_later) is worth_it
    watch.look(replace(RECORD, renewals=1), asked_at=1, answered_at=1)
    assert not seems_abandoned(RECORD, watch, NOW + seconds_later), "seen to live"


def test_no_taker_starts_before_the_holder_has_stopped() -> None:
    for seed in range(500):
        holder_stopped, taker_started = story_of_a_takeover(random.Random(seed))
        assert taker_started >= holder_stopped, f"seed {seed}"


def story_of_a_takeover(chance: random.Random) -> tuple[float, float]:
    # One time for all, two clocks that differ by hours, and requests that take as long as they like.
    skew, longest = chance.uniform(-9999, 9999), chance.uniform(1, 20)
    record, lease = RECORD, Lease("movies", RECORD.holder, RECORD.period_seconds, 0.0)
    watch, now = LeaseWatch(), chance.uniform(0, 3)
    dies_at = chance.uniform(0, 60)
    while True:
        sent = now
        now += chance.uniform(0, 6)  # on its way
        if sent < dies_at and chance.random() < 0.7:
            record, lease = replace(record, renewals=record.renewals + 1), replace(lease, renewed_at=sent)
        now += chance.uniform(0, 6)
        asked = now + skew
        now += chance.uniform(0, 6)
        seen = record
        now += chance.uniform(0, 6)
        if judge(seen, CLAIM, watch.look(seen, asked_at=asked, answered_at=now + skew), dead=False) is Standing.EXPIRED:
            return lease.safe_until(longest) + longest, now


# --- This machine


@pytest.fixture
def child() -> Any:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as it:
        yield it
        it.kill()


def test_a_process_is_known_again_until_it_is_dead(child: subprocess.Popen[bytes]) -> None:
    processes = HostProcesses()
    process = processes.find(child.pid)
    assert process is not None
    assert process == processes.find(child.pid)
    assert not processes.is_dead(process)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert processes.is_dead(process), "a zombie"
    assert processes.find(child.pid) is None
    child.wait()
    assert processes.is_dead(process), "gone"


def test_this_process_lives_and_another_with_its_pid_is_dead() -> None:
    processes = HostProcesses()
    mine = processes.current()
    assert mine is not None
    assert mine.pid == os.getpid()
    assert not processes.is_dead(mine)
    assert processes.is_dead(replace(mine, started="1")), "its pid was given to another"


def test_what_another_boot_or_container_started_is_not_judged(child: subprocess.Popen[bytes]) -> None:
    process = HostProcesses().find(child.pid)
    assert process is not None
    child.kill()
    child.wait()
    assert not HostProcesses().is_dead(replace(process, boot="elsewhere"))
    assert not HostProcesses().is_dead(replace(process, boot=process.boot + "1")), "another pid namespace"


def test_a_process_that_cannot_be_looked_at_is_not_dead(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = HostProcesses().find(child.pid)
    assert process is not None
    monkeypatch.setattr(host, "_started", lambda _pid: None)  # as where /proc hides others' processes
    assert not HostProcesses().is_dead(process)
    assert HostProcesses().current() is None
    monkeypatch.setattr(host, "_boot", lambda: None)
    assert not HostProcesses().is_dead(process)


def test_a_host_without_a_name_for_its_boot_takes_nothing_over_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_boot", lambda: None)
    assert HostProcesses().current() is None
    assert not HostProcesses().is_dead(Process("boot", 99_999_999, "1"))


def test_the_clock_goes_on() -> None:
    assert steady_clock() <= steady_clock()
    assert host_name()


# --- Records


def test_a_long_text_says_how_long_it_was() -> None:
    assert cut("short", 100) == "short"
    text = cut("ü" * 1000, 100)
    assert len(text.encode()) <= 100
    assert text.endswith("ü... (2,000 bytes in all)")
    assert cut("lone \ud800", 100) == "lone ?"


@pytest.mark.parametrize("name_bytes", [63, 400])
def test_no_run_is_over_the_limit_of_an_item(name_bytes: int) -> None:
    columns = tuple(SchemaColumn(f"{number:04d}".ljust(name_bytes, "x"), "numeric(38,10)[]") for number in range(1664))
    text = "é" * 400_000
    record = replace(
        RUN, command=text, host=text, error=text, hint=text, columns=columns, counts={f"c{i}": i for i in range(99)}
    )
    document = dump_run(record)
    assert len(json.dumps(document, ensure_ascii=False).encode()) < 350_000
    found = load_run(document, "movies", "it")
    assert found.columns == (columns if name_bytes == 63 else ())
    assert len(found.notes) == (4 if name_bytes == 63 else 5)
    assert found.counts == record.counts


def test_the_figures_of_a_summary() -> None:
    counts = counts_of(summarize("run", Report(job="movies"), 1.5))
    assert counts["rows_loaded"] == 0
    assert counts["duration_seconds"] == 1.5
    assert all(type(value) in {int, float} for value in counts.values()), "no flags, no texts"
    assert {"destination_created", "command", "error"}.isdisjoint(counts)


def test_marks_tell_jobs_and_runs_apart() -> None:
    mark = Mark("0f0f", NOW)
    assert mark.run_id_of(mark.value(RUN.run_id)) == RUN.run_id
    assert mark.run_id_of("0f0f0/x") is None
    assert mark.run_id_of("0f0f") is None
    assert mark.run_id_of("") is None


def test_no_job_is_taken_for_the_list_of_jobs() -> None:
    names = ["movies", "#jobs", "##jobs", "jobs", "#"]
    values = [hash_value(name) for name in names]
    assert values[0] == "movies"
    assert "#jobs" not in values
    assert len(set(values)) == len(names)


def test_chunks_and_pages() -> None:
    assert CHUNKS_PER_PAGE == 1000, "it is part of the table's format"
    assert chunks_by_page([0, 999, 1000, 5001, 999]) == {0: {0, 999}, 1: {0}, 5: {1}}
    assert chunks_left(5, [1, 3]) == [0, 2, 4]
    assert chunks_left(0, {1}) == []
    entries = [progress_entry("r", page) for page in (0, 2, 10, 99_999)]
    assert entries == sorted(entries)
    assert all(entry.startswith(progress_entry("r")) for entry in entries)


# --- Without a state table


def test_without_a_table_leases_mean_nothing_and_nothing_is_kept() -> None:
    async def use(store: StateStore) -> None:
        assert store.table is None
        assert not await store.prepare()
        answers = [await store.acquire("movies", CLAIM, LeaseWatch()) for _ in range(2)]
        for answer in answers:
            assert isinstance(answer, Taken)
            assert answer.lease.safe_until(20) > steady_clock() + 1e9
            assert await store.renew(answer.lease) == answer.lease
            assert await store.release(answer.lease)
        assert await store.fetch_lease("movies") is None
        await store.acknowledge("movies", "r", [1])
        assert await store.fetch_progress("movies", "r") == frozenset()
        await store.clear_progress("movies", "r")
        await store.put_run(RUN)
        assert await store.fetch_run("movies", RUN.run_id) is None
        assert await store.fetch_runs(None, 5) == []

    asyncio.run(use(NullState()))


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.fetch_watermark("movies"),
        lambda store: store.move_watermark("movies", Watermark("c", "int", "1", "r", NOW), 0),
        lambda store: store.reset_watermark("movies"),
        lambda store: store.fetch_mark("movies"),
        lambda store: store.ensure_mark("movies"),
    ],
    ids=["fetch_watermark", "move_watermark", "reset_watermark", "fetch_mark", "ensure_mark"],
)
def test_without_a_table_what_needs_one_says_so(use: Callable[[StateStore], Awaitable[object]]) -> None:
    async def main() -> None:
        await use(NullState())

    with pytest.raises(ConfigError, match=re.escape("[state] enabled = false")) as caught:
        asyncio.run(main())
    assert caught.value.hint


# --- The adapter, where DynamoDB misbehaves

MISSING = fault("ResourceNotFoundException")
FAILED = fault("ConditionalCheckFailedException")
DENIED = fault("AccessDeniedException", message="User: arn:aws:iam::1:user/x is not authorized")
LOST = ReadTimeoutError(endpoint_url="http://127.0.0.1:1")
PASSING = [
    fault("ProvisionedThroughputExceededException"),
    fault("ThrottlingException"),
    fault("InternalServerError", 500),
    fault("ExpiredTokenException"),
    EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
    ForeignAnswer(200, "<html>Please sign in</html>"),
    ForeignAnswer(504, "<html>"),
    ForeignAnswer(400, ""),
    LOST,
]
THERE = {
    "Table": {
        "TableStatus": "ACTIVE",
        "AttributeDefinitions": [
            {"AttributeName": "job", "AttributeType": "S"},
            {"AttributeName": "entry", "AttributeType": "S"},
        ],
        "KeySchema": [{"AttributeName": "job", "KeyType": "HASH"}, {"AttributeName": "entry", "KeyType": "RANGE"}],
    }
}


class Stubbed:
    """A store whose client answers by script."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[Any]) -> None:
        self.client = StubClient(**{"describe_table": [THERE], **answers})
        self.counters = Counters()
        credentials = Credentials(BotoCredentials("AKID", "hush"), lambda: BotoCredentials("AKID", "hush"))
        connection = Connection(cast(Any, self.client), credentials, "http://127.0.0.1:1", "eu-west-1", None, None)
        monkeypatch.setattr(adapter, "connect", lambda *_: connection)

    def use(self, use: Callable[[DynamoDBState], Awaitable[T]], patience: float = 5.0) -> T:
        async def main() -> T:
            policy = RetryPolicy(patience, base=0.001, ceiling=0.001)
            clock = iter(range(1000, 10_000)).__next__
            store = DynamoDBState(DynamoDBSettings(), "the-state", self.counters, policy, clock=clock, wall=lambda: NOW)
            async with store:
                return await use(store)

        return asyncio.run(main())

    @property
    def actions(self) -> list[str]:
        return [action for action, _ in self.client.calls if action != "close"]


def item(record: LeaseRecord) -> dict[str, Any]:
    from etlcli.sink.state_table import _attribute

    return cast(dict[str, Any], _attribute({"job": "movies", "entry": "lease", **dump_lease(record)})["M"])


def test_the_table_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stubbed(monkeypatch)

    async def use(store: DynamoDBState) -> None:
        await asyncio.gather(*(store.acknowledge("movies", "r", [1]) for _ in range(5)))

    stub.use(use)
    assert stub.actions == ["describe_table", *["update_item"] * 5]


def test_every_read_is_strongly_consistent(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stubbed(monkeypatch, query=[{"Items": [{"entry": {"S": "movies"}}]}, {"Items": []}])

    async def use(store: DynamoDBState) -> None:
        await store.fetch_lease("movies")
        await store.fetch_watermark("movies")
        await store.fetch_mark("movies")
        await store.fetch_run("movies", "r")
        await store.fetch_runs(None, 3)
        await store.fetch_progress("movies", "r")

    stub.use(use)
    reads = stub.client.named("get_item") + stub.client.named("query")
    assert len(reads) == 7
    assert all(read["ConsistentRead"] for read in reads)


@pytest.mark.parametrize(
    "answers",
    [
        {"describe_table": [MISSING], "create_table": [DENIED]},
        {"describe_table": [DENIED]},
        {"describe_table": [MISSING], "create_table": [fault("LimitExceededException")]},
    ],
    ids=["not allowed to create", "not allowed to look", "over the quota"],
)
def test_a_table_that_cannot_be_made_says_what_works_without(
    monkeypatch: pytest.MonkeyPatch, answers: dict[str, list[Any]]
) -> None:
    with pytest.raises(SinkError, match="the state table cannot be") as caught:
        Stubbed(monkeypatch, **answers).use(lambda store: store.acquire("movies", CLAIM, LeaseWatch()))
    assert "the-state" in caught.value.message
    hint = caught.value.hint or ""
    for words in ("extract", "[state] enabled = false", "hash key job (S), range key entry (S)", "incremental"):
        assert words in hint


@pytest.mark.parametrize(
    ("action", "use"),
    [
        ("get_item", lambda store: store.fetch_mark("movies")),
        ("query", lambda store: store.fetch_progress("movies", "r")),
        ("put_item", lambda store: store.move_watermark("movies", Watermark("c", "int", "1", "r", NOW), 0)),
        ("update_item", lambda store: store.acknowledge("movies", "r", [1])),
    ],
)
def test_a_right_that_is_missing_is_told_with_all_the_others(
    monkeypatch: pytest.MonkeyPatch, action: str, use: Callable[[DynamoDBState], Awaitable[object]]
) -> None:
    with pytest.raises(SinkError, match=r"the state table cannot be used: .*may not call") as caught:
        Stubbed(monkeypatch, **{action: [DENIED]}).use(use)
    for words in ("GetItem, Query, PutItem, UpdateItem and DeleteItem", "[state] enabled = false"):
        assert words in (caught.value.hint or "")


@pytest.mark.parametrize("action", ["describe_table", "get_item"])
def test_credentials_that_are_wrong_are_not_the_tables_fault(monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    stub = Stubbed(monkeypatch, **{action: [fault("UnrecognizedClientException")]})
    with pytest.raises(SinkError, match="does not accept the AWS credentials") as caught:
        stub.use(lambda store: store.acquire("movies", CLAIM, LeaseWatch()))
    assert "access key" in (caught.value.hint or "")
    assert caught.value.of_service


def test_a_table_whose_expiry_cannot_be_set_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stubbed(monkeypatch, describe_table=[MISSING, THERE], update_time_to_live=[DENIED])
    assert stub.use(lambda store: store.prepare()) is True
    assert len(stub.client.named("create_table")) == 1


def test_a_table_made_meanwhile_with_another_key_is_an_error_that_shows_both(monkeypatch: pytest.MonkeyPatch) -> None:
    other = json.loads(json.dumps(THERE).replace('"entry"', '"version"'))
    stub = Stubbed(monkeypatch, describe_table=[MISSING, other], create_table=[fault("ResourceInUseException")])
    with pytest.raises(UsageError, match=r"version \(S\)[^$]*entry \(S\)"):
        stub.use(lambda store: store.prepare())


def test_what_passes_is_tried_again_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stubbed(monkeypatch, get_item=[*PASSING, {}], put_item=[*PASSING, {}], query=[*PASSING, {"Items": []}])

    async def use(store: DynamoDBState) -> None:
        assert await store.fetch_mark("movies") is None
        assert await store.move_watermark("movies", Watermark("c", "int", "1", "r", NOW), 0)
        assert await store.fetch_progress("movies", "r") == frozenset()

    stub.use(use)
    # Renewed credentials are no retry.
    assert stub.counters.retries == 3 * (len(PASSING) - 1)
    assert stub.counters.throttles == 3 * 2
    assert stub.counters.throttle_reasons == {
        "ProvisionedThroughputExceededException": {"the-state": 3},
        "ThrottlingException": {"the-state": 3},
    }


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (fault("ThrottlingException"), Throttled, "throttles"),
        (fault("InternalServerError", 500), Unavailable, "the-state at http"),
        (LOST, Unavailable, "127.0.0.1"),
        (DENIED, SinkError, "may not call UpdateItem"),
        (fault("ExpiredTokenException"), SinkError, "expired"),
        (fault("ValidationException", message="Item size"), SinkError, "Item size"),
        (MISSING, SinkError, "gone"),
    ],
)
def test_errors_are_translated(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[EtlError], words: str
) -> None:
    stub = Stubbed(monkeypatch, update_item=[error])
    with pytest.raises(kind, match=words):
        stub.use(lambda store: store.acknowledge("movies", "r", [1]), patience=0)


def test_a_lease_whose_answer_was_lost_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = LeaseRecord.of(CLAIM, NOW)
    stub = Stubbed(monkeypatch, get_item=[{}, {"Item": item(mine)}], put_item=[LOST, FAILED], update_item=[{}])
    answer = stub.use(lambda store: store.acquire("movies", CLAIM, LeaseWatch()))
    assert isinstance(answer, Taken)
    assert answer.standing is Standing.OURS
    # It counts from the renewal, not from a try of which nobody knows when it was carried out.
    assert stub.actions == ["describe_table", "get_item", "put_item", "put_item", "get_item", "update_item"]


def test_a_lease_lost_to_somebody_faster_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stubbed(monkeypatch, get_item=[{}, {"Item": item(RECORD)}], put_item=[FAILED])
    answer = stub.use(lambda store: store.acquire("movies", CLAIM, LeaseWatch()))
    assert isinstance(answer, Held)
    assert answer.record == RECORD


def test_a_lease_given_back_meanwhile_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stubbed(monkeypatch, get_item=[{}], put_item=[FAILED, {}])
    assert isinstance(stub.use(lambda store: store.acquire("movies", CLAIM, LeaseWatch())), Taken)


def test_only_the_try_that_was_answered_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stubbed(monkeypatch, update_item=[LOST, LOST, {}])
    renewed = stub.use(lambda store: store.renew(Lease("movies", "me", 30.0, 0.0)))
    # The clock ticks once at each reading: before and after each of three tries.
    assert renewed == Lease("movies", "me", 30.0, 1004)


def test_a_lease_that_is_lost_is_known_to_be_so_even_where_its_new_holder_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = Stubbed(monkeypatch, update_item=[FAILED], get_item=[DENIED])
    assert stub.use(lambda store: store.renew(Lease("movies", "me", 30.0, 0.0))) == Lost("movies", None)


def test_a_renewal_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = Stubbed(monkeypatch)
    answered = threading.Event()
    stalled: Any = stub.client
    stalled.update_item = lambda **_: answered.wait(60)  # a server that says nothing

    async def use(store: DynamoDBState) -> None:
        try:
            with pytest.raises(Unavailable, match="no answer to UpdateItem"):
                await store.renew(Lease("movies", "me", 0.06, 0.0))
        finally:
            answered.set()  # or the loop's end would wait for the thread

    stub.use(use, patience=0)


def test_history_is_given_up_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "_HISTORY_SECONDS", 0.01)
    stub = Stubbed(monkeypatch, describe_table=[fault("ThrottlingException")])
    with pytest.raises(Throttled):
        stub.use(lambda store: store.put_run(RUN), patience=600)

    stub = Stubbed(monkeypatch)
    answered = threading.Event()
    stalled: Any = stub.client
    stalled.put_item = lambda **_: answered.wait(600)  # a server that says nothing

    async def use(store: DynamoDBState) -> None:
        try:
            with pytest.raises(Unavailable, match="no answer to PutItem"):
                await store.put_run(RUN)
        finally:
            answered.set()  # or the loop's end would wait for the thread

    stub.use(use, patience=600)


def test_a_watermark_whose_answer_was_lost_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    from etlcli.sink.state_table import _attribute
    from etlcli.state.watermark import dump_watermark

    mine = Watermark("updated_at", "date", "2026-08-14", "r", NOW + 0.5)
    stored = _attribute(dump_watermark(WatermarkEntry(4, mine)))["M"]
    stub = Stubbed(monkeypatch, put_item=[LOST, FAILED], get_item=[{"Item": stored}])
    assert stub.use(lambda store: store.move_watermark("movies", mine, 3)) is True
    assert stub.use(lambda store: store.move_watermark("movies", replace(mine, run_id="s"), 3)) is False


def test_a_query_asks_for_no_more_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    from etlcli.sink.state_table import _attribute

    def page(*numbers: int, more: bool) -> dict[str, Any]:
        records = [replace(RUN, run_id=f"r{number}") for number in numbers]
        items = [_attribute({"job": "movies", "entry": f"run#{it.run_id}", **dump_run(it)})["M"] for it in records]
        return {"Items": items} | ({"LastEvaluatedKey": {"entry": {"S": "x"}}} if more else {})

    stub = Stubbed(monkeypatch, query=[page(9, 8, more=True), page(more=True), page(7, more=True)])
    runs = stub.use(lambda store: store.fetch_runs("movies", 3))
    assert [run.run_id for run in runs] == ["r9", "r8", "r7"]
    assert [query["Limit"] for query in stub.client.named("query")] == [3, 1, 1]


def test_a_wrong_name_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with DynamoDBState(DynamoDBSettings(), "no/table", Counters()):
            pass

    monkeypatch.setattr(adapter, "connect", lambda *_: pytest.fail("it was asked"))
    with pytest.raises(UsageError, match=re.escape("[state] table")):
        asyncio.run(main())
