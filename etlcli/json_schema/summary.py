"""The object that every command ends with under ``--output json|jsonl``, and the events that come before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etlcli.job_state import JobState
from etlcli.json_schema.details import (
    CHECK,
    KEY,
    PART,
    PLAN,
    PLANS,
    REJECT,
    VERIFICATION,
    cached_run,
    past_run,
)
from etlcli.json_schema.shapes import (
    BOOLEAN,
    INTEGER,
    ITEM,
    NUMBER,
    STRING,
    Shape,
    Shapes,
    array_of,
    closed,
    described,
    map_of,
    one_of,
    or_null,
)
from etlcli.progress import Counters
from etlcli.state import Watermark

__all__ = ["summary_schema"]


_BASE: dict[str, Shape] = {
    "command": described(STRING, "What was called: `run`, `local up`. Empty where there is no such command."),
    "status": one_of("succeeded", "rejected_rows", "failed", "interrupted"),
    "job": described(STRING, "Empty where a command is about none."),
    "run_id": or_null(STRING),
    "resumed": described(BOOLEAN, "Whether a run that had not ended was gone on with."),
    "cache": or_null(STRING),
    "destination": or_null(STRING),
    "destination_created": BOOLEAN,
    "rows_extracted": INTEGER,
    "rows_loaded": INTEGER,
    "rows_rejected": INTEGER,
    "rows_dropped": described(INTEGER, "By a transform."),
    "mode": one_of("upsert", "replace"),
    "items_deleted": or_null(described(INTEGER, "Null but for mode replace.")),
    "schema_changes": array_of(closed({"column": STRING, "before": or_null(STRING), "now": or_null(STRING)})),
    "watermark": or_null(
        closed(
            {
                "column": STRING,
                "since": or_null(STRING),
                "overlap": INTEGER,
                "value": or_null(STRING),
                "moved": BOOLEAN,
            }
        )
    ),
    "chunks": INTEGER,
    "bytes_encoded": INTEGER,
    "bytes_cached": INTEGER,
    "momento_calls": INTEGER,
    "momento_operations": described(INTEGER, "Metered: each element sent or received costs 1 per started 1,024 bytes."),
    "throttles": INTEGER,
    "throttle_reasons": described(map_of(map_of(INTEGER)), "By DynamoDB's own names, and by table or index."),
    "retries": INTEGER,
    "snapshots": INTEGER,
    "duration_seconds": NUMBER,
    "verification": or_null({"$ref": "#/$defs/verification"}),
    "warnings": array_of(STRING),
    "rejects": described(array_of({"$ref": "#/$defs/reject"}), "The first few; inspect-cache --rejects has all."),
    "error": or_null(closed({"message": STRING, "hint": or_null(STRING)})),
}
_OF_ONE_JOB = ("mode", "schema_changes", "watermark", "verification", "rejects")


def summary_schema() -> Shape:
    """Make the schema."""
    shapes = Shapes()
    common = {name: shape for name, shape in _BASE.items() if name not in _OF_ONE_JOB}
    definitions: dict[str, Shape] = {
        "common": _open(common | {"job": or_null(_BASE["job"])}),
        "of_one_job": _open({name: _BASE[name] for name in _OF_ONE_JOB}),
        "reject": REJECT,
        "verification": VERIFICATION,
        "forecast": PLAN,
        "summary": _extended({}),
        "several": _several(),
    }
    choices = []
    for command, answered in _answers(shapes).items():
        definitions[command] = _answered(*answered)
        choices.append(_when("command", {"const": command}, _ref(command)))
    others = {"not": {"enum": list(_answers(shapes))}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What momento-etl prints with --output json, and each line with --output jsonl",
        "type": "object",
        "if": {"required": ["event"]},
        "then": _events(shapes),
        "else": {"required": ["command"], "allOf": [*choices, _when("command", others, _ref("summary"))]},
        "$defs": definitions | shapes.definitions,
    }


def _answers(shapes: Shapes) -> Mapping[str, tuple[Mapping[str, Shape], Sequence[Sequence[str]]]]:
    """What each command answers with besides, and the sets of it of which one is there where it succeeds."""
    run = cached_run(shapes, chunks=False)
    table = {"state_table": STRING}
    return {
        "inspect-cache": (
            {
                "current": or_null(STRING),
                "runs": array_of(cached_run(shapes, chunks=True)),
                "sample": array_of(ITEM),
                "run": run,
                "row": ITEM,
                "types": map_of(STRING),
                "chunks_checked": INTEGER,
            },
            (("current", "runs", "sample"), ("run", "row"), ("run", "types", "rejects"), ("run", "chunks_checked")),
        ),
        "create-table": ({"created": BOOLEAN, "key": KEY}, (("created", "key"),)),
        "history": (
            {**table, "runs": array_of(past_run(shapes)), "run": past_run(shapes)},
            (("state_table", "runs"), ("state_table", "run")),
        ),
        "state show": ({**table, "jobs": array_of(shapes.of(JobState))}, (("state_table", "jobs"),)),
        "state reset": ({**table, "forgotten": shapes.of(Watermark)}, (("state_table", "forgotten"),)),
        "init": (
            {"config_file": STRING, "overwritten": BOOLEAN, "missing_variables": array_of(STRING)},
            (("config_file", "overwritten", "missing_variables"),),
        ),
        "doctor": ({"checks": array_of(CHECK)}, (("checks",),)),
        "deploy": (
            {
                "out": STRING,
                "config": or_null(STRING),
                "kept": array_of(STRING),
                "stack": STRING,
                "parameters": map_of(STRING),
                "next": array_of(STRING),
            },
            (("out", "config", "kept", "stack", "parameters", "next"),),
        ),
        "local up": ({"parts": array_of(PART)}, (("parts",),)),
        "local status": ({"parts": array_of(PART)}, (("parts",),)),
        "local down": (
            {"stopped": array_of(closed({"part": STRING, "pid": INTEGER})), "purged": BOOLEAN},
            (("stopped", "purged"),),
        ),
        "run": ({"plan": or_null(_ref("forecast"))}, ()),
        "plan": ({"plan": or_null(_ref("forecast"))}, (("plan",),)),
    }


def _answered(more: Mapping[str, Shape], sets: Sequence[Sequence[str]]) -> Shape:
    """A command's own fields beside those of all; where it fails they may be missing."""
    answered = _extended(more)
    if sets:
        done = {"properties": {"status": {"enum": ["succeeded", "rejected_rows"]}}}
        answered |= {"if": done, "then": {"anyOf": [{"required": list(names)} for names in sets]}}
    if "plan" in more:
        # Several jobs have one object, too.
        return {"if": {"required": ["jobs"]}, "then": _ref("several"), "else": answered}
    return answered


def _several() -> Shape:
    """What several jobs came to."""
    plans = {"jobs": array_of(_extended({"plan": or_null(_ref("forecast"))})), "plan": or_null(PLANS)}
    return {
        "description": "Several jobs: the figures added up, and each job's own.",
        "allOf": [_ref("common")],
        "properties": {"job": {"type": "null"}, "not_begun": array_of(STRING), **plans},
        "required": ["jobs", "not_begun"],
        "unevaluatedProperties": False,
    }


def _events(shapes: Shapes) -> Shape:
    progress = closed({"event": {"const": "progress"}, "job": STRING, **shapes.properties(Counters)})
    job = _extended({"event": {"const": "job"}, "plan": or_null(_ref("forecast"))}, ("event",))
    return {**_when("event", {"const": "job"}, job), "else": progress}


def _open(properties: Mapping[str, Shape]) -> Shape:
    """Fields that an object has among others."""
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _extended(more: Mapping[str, Shape], required: Sequence[str] = ()) -> Shape:
    """The fields of every job's summary, these besides, and no other."""
    shape: Shape = {"allOf": [_ref("common"), _ref("of_one_job")], "unevaluatedProperties": False}
    shape["properties"] = {"job": STRING, **more}
    return {**shape, "required": list(required)} if required else shape


def _ref(name: str) -> Shape:
    return {"$ref": f"#/$defs/{name.replace(' ', '%20')}"}


def _when(name: str, value: Shape, then: Shape) -> dict[str, Any]:
    return {"if": {"properties": {name: value}}, "then": then}
