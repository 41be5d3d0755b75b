"""The Lambda handlers. Each reads its event, calls the core, and answers what the state machine hands on.

plan                      begins a run, or takes up one that did not end: {"call", "blocks", "concurrency", ...}
from_db_to_cache          reads a block, as far as its time allows; or, as the original's, a whole small table
from_cache_to_dynamo_db   loads what is stored of a block; or, as the original's, the whole extraction
finish                    once every block is in place: counts, history, watermark, lease
abort                     notes that a run has failed, and gives its lease back
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from etlcli.aws import logs
from etlcli.aws.container import Container
from etlcli.aws.events import JobEvent, read_block, read_call, read_job
from etlcli.aws.failures import failure_of
from etlcli.blocks.extracting import extract_block
from etlcli.blocks.finishing import abort_run, finish_run
from etlcli.blocks.loading import load_block
from etlcli.blocks.planning import plan_run
from etlcli.config import Choice, choose, create_options, resolve_job
from etlcli.errors import AuthenticationError, EtlError, TerminalError, UsageError
from etlcli.model import Job, Key
from etlcli.report import Report
from etlcli.stopping import Stopped
from etlcli.summary import summarize

__all__ = ["abort", "finish", "from_cache_to_dynamo_db", "from_db_to_cache", "plan"]

# What is in flight when the time is nearly up gets so long to end by itself: this share of what was left at the start,
# but no more seconds and no less. A call that has just begun still has most of its time then.
_GRACE_SHARE = 0.2
_GRACE_SECONDS = (1.5, 20.0)

# Lambda ends the process at the end of its time. Before that the handler says so itself.
_LAST_WORDS_SECONDS = 0.5

# For how long another call that works on the same block is waited for: as long as the lease of a dead one lasts.
_WAIT_SECONDS = 40.0


class Context(Protocol):
    """What Lambda tells a handler of its call."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda ends the call."""
        ...


@dataclass(frozen=True, slots=True)
class _Call:
    """One call.

    Attributes:
        container: What is kept between calls.
        report: What it comes to.
        ends_at: By ``time.monotonic``: when Lambda ends it.
    """

    container: Container
    report: Report
    ends_at: float

    @property
    def wait_seconds(self) -> float:
        """For how long it may wait for another call."""
        return min(_WAIT_SECONDS, max(0.0, self.ends_at - time.monotonic()) / 2)

    def choice(self, event: JobEvent) -> Choice:
        """Resolve the job that an event is about, with how its rows become items: that may need a secret."""
        (choice,) = choose(self.container.settings(), event.request)
        return choice._replace(job=self._noted(choice.job, event))

    def job(self, event: JobEvent) -> Job:
        """Resolve the job that an event is about, by who makes no items, and so may not read what masks them."""
        request = event.request
        (table,) = request.tables
        settings = self.container.settings()
        return self._noted(resolve_job(settings, table, request.flags, request.incremental), event)

    def _noted(self, job: Job, event: JobEvent) -> Job:
        report = self.report
        report.job, report.cache, report.destination = job.name, job.cache, job.destination
        return replace(job, restart=event.restart)


_container = Container()


def plan(event: object, context: Context) -> dict[str, Any]:
    """Begin a run. Answers ``event``, ``call``, ``blocks``, ``concurrency``, and ``name`` and ``key`` as the original.

    Raises:
        EtlTransient: It may pass.
        EtlTerminal: It stays until somebody does something about it.
    """
    return _handle("Plan", _plan, event, context)


def from_db_to_cache(event: object, context: Context) -> dict[str, Any]:
    """Read rows into the cache: of a block, or all that an event like the original's asks for.

    Raises:
        EtlTransient: It may pass.
        EtlTerminal: It stays until somebody does something about it.
    """
    return _handle("FromDbToCache", _extract_block if _is_of_run(event) else _extract_all, event, context)


def from_cache_to_dynamo_db(event: object, context: Context) -> dict[str, Any]:
    """Load items: those of a block that are stored, or the whole extraction that an event names.

    Raises:
        EtlTransient: It may pass.
        EtlTerminal: It stays until somebody does something about it.
    """
    return _handle("FromCacheToDynamoDb", _load_block if _is_of_run(event) else _load_all, event, context)


def finish(event: object, context: Context) -> dict[str, Any]:
    """End a run of which every block was worked on. Answers its summary.

    Raises:
        EtlTransient: It may pass.
        EtlTerminal: Blocks are not in place, or it stays for another reason.
    """
    return _handle("Finish", _finish, event, context)


def abort(event: object, context: Context) -> dict[str, Any]:
    """Note that a run has failed, and give its lease back. Answers why it failed.

    Raises:
        EtlTransient: It may pass.
        EtlTerminal: It stays until somebody does something about it.
    """
    return _handle("Abort", _abort, event, context)


async def _plan(call: _Call, event: object) -> dict[str, Any]:
    from etlcli import wiring

    # The state machine tells which execution it is; whoever calls the function by itself is one of its own.
    wrapped = event if isinstance(event, dict) and "execution" in event else {"event": event, "execution": None}
    job = read_job(wrapped["event"])
    execution = str(wrapped["execution"] or f"call-{time.time_ns()}")
    choice = call.choice(job)
    container = call.container
    sink = await container.sink(choice.job)
    planned = await plan_run(
        choice.job,
        wiring.recipe_of(choice.options),
        create_options(container.settings()),
        job.spread,
        execution,
        container.source(),
        await container.cache(choice.job),
        sink,
        await container.state(),
        call.report,
    )
    manifest = call.report.manifest
    assert manifest is not None, "it was planned"
    return {
        "name": choice.job.name,
        "key": _named(manifest.key),
        "run": planned.call.run_id,
        "resumed": planned.resumed,
        "ranges": planned.ranges,
        "concurrency": planned.concurrency,
        "blocks": list(planned.blocks),
        "event": dict(job.event),
        "call": asdict(planned.call),
    }


async def _extract_block(call: _Call, event: object) -> dict[str, Any]:
    from etlcli import wiring

    block = read_block(event)
    choice = call.choice(block.job)
    container = call.container
    done = await extract_block(
        block.call,
        block.number,
        block.ledger,
        block.lost,
        choice.job,
        wiring.recipe_of(choice.options),
        container.source(),
        await container.cache(choice.job),
        await container.state(),
        call.report,
        wait_seconds=call.wait_seconds,
    )
    # What is stored is loaded before more is read.
    return block.answer(
        ledger=done.ledger, lost=[], figures=_added(block.figures, call.report), more=done.more, rows=done.rows
    )


async def _load_block(call: _Call, event: object) -> dict[str, Any]:
    block = read_block(event)
    job = call.job(block.job)
    container = call.container
    done = await load_block(
        block.call,
        block.number,
        block.ledger,
        job,
        await container.cache(job),
        await container.sink(job, block.call.max_writes),
        await container.state(),
        call.report,
        wait_seconds=call.wait_seconds,
    )
    step = ("FromDbToCache" if done.reads else "FromCacheToDynamoDb") if done.more else "none"
    return block.answer(
        ledger=done.ledger,
        lost=list(done.lost),
        figures=_added(block.figures, call.report),
        more=done.more,
        next=step,
        rows=done.rows,
    )


async def _finish(call: _Call, event: object) -> dict[str, Any]:
    asked, run = read_call(event)
    job = call.job(asked)
    container = call.container
    started = time.monotonic()
    await finish_run(
        run,
        job,
        await container.cache(job),
        await container.sink(job),
        await container.state(),
        call.report,
    )
    summary = summarize("run", call.report, time.monotonic() - started)
    for figures in _figures_of(event):
        for name in ("momento_calls", "momento_operations", "throttles", "retries"):
            summary[name] += figures.get(name, 0)
    manifest = call.report.manifest
    assert manifest is not None, "it is complete"
    original = _as_the_original(job, summary["rows_loaded"], manifest.key)
    return {**original, "run": run.run_id, "summary": summary}


async def _abort(call: _Call, event: object) -> dict[str, Any]:
    data = event if isinstance(event, dict) else {}
    state, execution = data.get("state"), data.get("execution")
    state = state if isinstance(state, dict) else {}
    why = _why(state.get("error"))
    logs.say("ERROR", f"the execution failed: {why}", execution=execution)
    if "call" in state:
        job, run = read_call(state)
        await abort_run(run, call.job(job), await call.container.state(), call.report, TerminalError(why))
        return {"name": call.report.job, "run": run.run_id, "error": why}
    # The plan itself failed: there is a lease to give back at most.
    try:
        job = read_job({name: value for name, value in state.items() if name != "error"})
    except UsageError:
        return {"error": why}
    from etlcli.leasing import release_shared

    name = call.job(job).name
    await release_shared(name, str(execution), await call.container.state(), call.report)
    return {"name": name, "error": why}


async def _extract_all(call: _Call, event: object) -> dict[str, Any]:
    """Do what the original's first function did: extract all at once."""
    from etlcli import pipeline, wiring

    job = read_job(event)
    choice = call.choice(job)
    container = call.container
    try:
        await pipeline.extract(
            choice.job,
            wiring.recipe_of(choice.options),
            container.source(),
            await container.cache(choice.job),
            await container.state(),
            call.report,
        )
    except Stopped as stopped:
        raise TerminalError(
            f"{choice.job.name} was not extracted within one call's time",
            hint="Start the state machine, which cuts a table into blocks; or give the function more time.",
        ) from stopped
    manifest = call.report.manifest
    assert manifest is not None, "it is complete"
    rows = manifest.totals.rows_extracted - manifest.totals.rows_rejected - manifest.totals.rows_dropped
    return {**job.event, **_as_the_original(choice.job, rows, manifest.key), "run": manifest.run_id}


async def _load_all(call: _Call, event: object) -> dict[str, Any]:
    """Do what the original's second function did: load all at once; it goes on where a call ends too early."""
    from etlcli import pipeline

    asked = read_job(event)
    job = call.job(asked)
    container = call.container
    more = False
    try:
        await pipeline.load(
            job,
            asked.run_id,
            create_options(container.settings()),
            await container.cache(job),
            await container.sink(job, job.max_writes),
            await container.state(),
            call.report,
        )
    except Stopped:
        more = True
    manifest = call.report.manifest
    key = None if manifest is None else manifest.key
    run = call.report.run_id
    return {**asked.event, **_as_the_original(job, call.report.counters.rows_loaded, key), "run": run, "more": more}


def _as_the_original(job: Job, rows: int, key: Key | None) -> dict[str, Any]:
    return {"name": job.name, "rows": rows, "key": _named(key)}


def _named(key: Key | None) -> str:
    """Name a key's attributes, as ``--key`` takes them; nothing where it is not known."""
    return "" if key is None else ",".join(attribute.name for attribute in key.attributes)


def _is_of_run(event: object) -> bool:
    return isinstance(event, dict) and "call" in event


def _added(before: Mapping[str, int], report: Report) -> dict[str, int]:
    """Add what this call counted to what those before it did."""
    counters = report.counters
    now = {
        "momento_calls": counters.momento_calls,
        "momento_operations": counters.momento_operations,
        "throttles": counters.throttles,
        "retries": counters.retries,
        "calls": 1,
    }
    return {name: int(before.get(name, 0)) + count for name, count in now.items()}


def _figures_of(event: object) -> list[Mapping[str, int]]:
    """What the blocks that came to their end have counted; of those that failed nobody knows."""
    found = event.get("figures") if isinstance(event, dict) else None
    blocks = found if isinstance(found, list) else []
    return [it["figures"] for it in blocks if isinstance(it, dict) and isinstance(it.get("figures"), dict)]


def _why(error: object) -> str:
    """Take the message out of what Step Functions caught."""
    if not isinstance(error, dict):
        return "for a reason that is not known"
    cause = error.get("Cause") or error.get("Error") or ""
    try:
        told = json.loads(cause)
        return str(told["errorMessage"])
    except (ValueError, TypeError, KeyError):
        return str(cause)[:1000]


def _handle(
    name: str, work: Callable[[_Call, object], Awaitable[dict[str, Any]]], event: object, context: Context
) -> dict[str, Any]:
    """Do one call's work within its time, log what came of it, and raise one of the two classes where it fails."""
    started = time.monotonic()
    left = context.get_remaining_time_in_millis() / 1000
    report = Report("", counters=_container.counters)
    call = _Call(_container, report, started + left)
    request = {"function": name, "request": context.aws_request_id}

    async def timed() -> dict[str, Any]:
        least, most = _GRACE_SECONDS
        grace = min(most, max(least, left * _GRACE_SHARE))
        timer = asyncio.get_running_loop().call_later(max(0.0, left - grace), report.stop.request)
        try:
            async with asyncio.timeout(max(0.1, left - _LAST_WORDS_SECONDS)):
                return await _let_in(work, call, event)
        finally:
            timer.cancel()

    try:
        answer = _container.run(timed)
    except Exception as error:  # noqa: BLE001  whatever it is, the state machine knows two classes only
        failure = failure_of(error)
        facts = _facts(report, event)
        logs.say("ERROR", str(failure), error=type(failure).__name__, **facts, **request)
        raise failure from (None if isinstance(error, EtlError | TimeoutError) else error)
    facts = _facts(report, event)
    for warning in report.warnings:
        logs.say("WARN", warning, **facts, **request)
    counters = report.counters
    rows = ("rows_extracted", "rows_loaded", "rows_rejected")
    logs.count(
        {
            # What the calls before it have counted, the last one only adds up.
            **({} if name == "Finish" else {it: getattr(counters, it) for it in rows}),
            "throttles": counters.throttles,
            "momento_operations": counters.momento_operations,
            "seconds": round(time.monotonic() - started, 3),
        },
        message=f"{name} is done",
        more=bool(answer.get("more")),
        **facts,
        **request,
    )
    return answer


async def _let_in(
    work: Callable[[_Call, object], Awaitable[dict[str, Any]]], call: _Call, event: object
) -> dict[str, Any]:
    """Do the work; where a service no longer takes a secret, once more with what the secret is by now."""
    try:
        return await work(call, event)
    except AuthenticationError as error:
        logs.say("WARN", f"{error.message}: the secrets are read anew", job=call.report.job)
        await call.container.forget()
        return await work(call, event)


def _facts(report: Report, event: object) -> dict[str, Any]:
    facts: dict[str, Any] = {"job": report.job, "run": report.run_id}
    if isinstance(event, dict) and "block" in event:
        facts["block"] = event["block"]
    return facts
