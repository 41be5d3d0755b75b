"""What functions are called with, read and checked, and what they answer.

{"table": "movies"}                      a job, as the original's functions were called
{"event": ..., "call": ..., "block": 7}  a block of a run, as the state machine calls them
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from etlcli.blocks.calls import RunCall
from etlcli.blocks.planning import Spread
from etlcli.config import IncrementalFlags, JobFlags, Request, did_you_mean
from etlcli.errors import UsageError

__all__ = ["BlockEvent", "JobEvent", "read_block", "read_call", "read_job"]

_FLAGS = tuple(it.name for it in fields(JobFlags))
_EXAMPLE = '{"table": "movies"}'
_MOST_CONCURRENCY = 10_000
_MOST_RANGES = 1_000_000

# What the original's second function is handed by its first, and what callers leave in an event for themselves.
_ANSWERED = ("name", "rows", "run")


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A job that is to be run.

    Attributes:
        request: Which job, with what was said for it.
        spread: How it is to be spread.
        restart: Whether to begin anew where an earlier run did not end.
        run_id: The extraction to load; None for the current one.
        event: The event, to be handed on.
    """

    request: Request
    spread: Spread
    restart: bool = False
    run_id: str | None = None
    event: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BlockEvent:
    """A block that is to be worked on.

    Attributes:
        job: Whose it is.
        call: Of which run.
        number: The block.
        ledger: How far its ledger is, as the call before named it.
        lost: Chunks that are to be read again.
        figures: What was counted for it so far.
    """

    job: JobEvent
    call: RunCall
    number: int
    ledger: str = ""
    lost: tuple[int, ...] = ()
    figures: Mapping[str, int] = field(default_factory=dict)

    def answer(self, **changes: Any) -> dict[str, Any]:
        """The event of the next call."""
        return {
            "event": dict(self.job.event),
            "call": asdict(self.call),
            "block": self.number,
            "ledger": self.ledger,
            "lost": list(self.lost),
            "figures": dict(self.figures),
            **changes,
        }


def read_job(event: object) -> JobEvent:
    """Read the event of a job.

    Raises:
        UsageError: It is none; the message says what is wrong with it.
    """
    data = _object(event)
    if "name" in data and "table" not in data:
        data = {"table": data["name"], **{key: value for key, value in data.items() if key != "key"}}
    known = ("table", *_FLAGS, "since", "full_refresh", "restart", "concurrency", "ranges", "more", *_ANSWERED)
    for name in data:
        if name not in known:
            raise UsageError(
                f"the event has an unknown field {name!r}{did_you_mean(name, known)}",
                hint=f"It may have: {', '.join(sorted(known))}. The least is {_EXAMPLE}.",
            )
    table = _text(data, "table")
    if not table:
        raise UsageError("the event names no table", hint=f"For example: {_EXAMPLE}.")
    flags = {name: _flag(data, name) for name in _FLAGS if data.get(name) is not None}
    since = data.get("since")
    return JobEvent(
        Request(
            tables=(table,),
            flags=JobFlags(**flags),
            incremental=IncrementalFlags(
                since=None if since is None else str(since), full_refresh=_truth(data, "full_refresh")
            ),
        ),
        Spread(
            concurrency=_count(data, "concurrency", _MOST_CONCURRENCY) or Spread().concurrency,
            ranges=_count(data, "ranges", _MOST_RANGES),
        ),
        restart=_truth(data, "restart"),
        run_id=_text(data, "run") or None,
        event={name: value for name, value in data.items() if name not in ("more", *_ANSWERED)},
    )


def read_call(event: object) -> tuple[JobEvent, RunCall]:
    """Read the event of a function that works on a planned run.

    Raises:
        UsageError: It is none.
    """
    data = _object(event)
    call = _object(data.get("call"))
    try:
        return read_job(data.get("event")), RunCall(**call)
    except TypeError as error:
        raise UsageError(
            f"the event's call is not as the Plan function answers it: {error}",
            hint="Start the state machine with the job's own event, and let it call the functions.",
        ) from error


def read_block(event: object) -> BlockEvent:
    """Read the event of a function that works on a block.

    Raises:
        UsageError: It is none.
    """
    data = _object(event)
    job, call = read_call(data)
    number = data.get("block")
    if type(number) is not int or number < 0:
        raise UsageError(f"the event's block is {number!r}, and has to be a number from 0")
    lost = data.get("lost") or []
    figures = _object(data.get("figures") or {})
    return BlockEvent(job, call, number, _text(data, "ledger"), tuple(map(int, lost)), figures)


def _object(event: object) -> dict[str, Any]:
    if not isinstance(event, dict):
        raise UsageError(
            f"the event has to be an object, and is {'nothing' if event is None else type(event).__name__}",
            hint=f"For example: {_EXAMPLE}.",
        )
    return event


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if value is not None and not isinstance(value, str):
        raise UsageError(f"the event's {name} has to be a text, and is {type(value).__name__}")
    return value or ""


def _flag(data: Mapping[str, Any], name: str) -> str:
    """Read what a flag takes: a text; a number or a list of names will do."""
    value = data[name]
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    if isinstance(value, str) or type(value) is int:
        return str(value)
    raise UsageError(f"the event's {name} has to be a text, a number or a list of names, and is {value!r}")


def _truth(data: Mapping[str, Any], name: str) -> bool:
    value = data.get(name, False)
    if not isinstance(value, bool):
        raise UsageError(f"the event's {name} has to be true or false, and is {value!r}")
    return value


def _count(data: Mapping[str, Any], name: str, most: int) -> int | None:
    value = data.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:
        raise UsageError(f"the event's {name} has to be a number from 1 to {most:,}, and is {value!r}")
    return value
