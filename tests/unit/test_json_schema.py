"""The schemas are schemas; the config's takes what the program takes, and the summary's is closed."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from etlcli.config import SECTIONS, Option, load_settings
from etlcli.config.outline import header
from etlcli.errors import ConfigError, SourceError
from etlcli.json_schema import config_schema, summary_schema
from etlcli.model import SchemaChange, WatermarkMove
from etlcli.report import Report
from etlcli.several import Ended, combine
from etlcli.summary import exit_code, summarize
from tests.published import refuse_misfit

ROOT = Path(__file__).parents[2]
OPTIONS = [option for section in SECTIONS.values() for option in section.options.values()]
CONFIG = Draft202012Validator(config_schema())


def parsed(text: str) -> dict[str, Any]:
    # Through JSON, as a checker sees it.
    loaded: dict[str, Any] = json.loads(json.dumps(tomllib.loads(text)))
    return loaded


@pytest.mark.parametrize("schema", [config_schema(), summary_schema()], ids=["config", "summary"])
def test_they_are_schemas_and_every_reference_leads_somewhere(schema: dict[str, Any]) -> None:
    Draft202012Validator.check_schema(schema)
    for name in re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema)):
        assert name.replace("%20", " ") in schema["$defs"]


@pytest.mark.parametrize("schema", [config_schema(), summary_schema()], ids=["config", "summary"])
def test_every_object_is_closed_or_a_map(schema: Any) -> None:
    def look(part: Any) -> None:
        if isinstance(part, dict):
            if part.get("type") == "object" and "properties" in part:
                closed = part.get("additionalProperties", part.get("unevaluatedProperties"))
                assert closed is False or part in schema["$defs"].values(), part
            for value in part.values():
                look(value)
        elif isinstance(part, list):
            for value in part:
                look(value)

    look(schema)


def test_the_example_and_the_readmes_configs_are_valid() -> None:
    example = (ROOT / "config.example.toml").read_text(encoding="utf-8")
    CONFIG.validate(parsed(example))
    CONFIG.validate(parsed(re.sub(r"^#(?=\w)(?!query)", "", example, flags=re.MULTILINE)))
    for config in re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL):
        CONFIG.validate(parsed(config))


def line(option: Option, value: str) -> str:
    return f"{header(SECTIONS[option.section], 'movies')}\n{option.name} = {value}\n"


VALUES = [
    '"env:NAME"',
    '"text"',
    '""',
    "true",
    "0",
    "1",
    "-1",
    "25",
    "0.5",
    "100000000",
    '"80m"',
    '"1h"',
    '"80MB"',
    '"1GiB"',
    '"x y"',
    '"50%"',
    '"0.5%"',
    '["a"]',
    '["a", "b", "c"]',
    "[]",
    '[""]',
    '{ a = "S" }',
    '{ a = "hmac" }',
    "{ a = 1 }",
    "{}",
    '"rows"',
    '"http://127.0.0.1:8000"',
    "2020-01-01",
]


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.path))
def test_what_the_program_takes_is_valid(option: Option, tmp_path: Path) -> None:
    for value in [option.example, *VALUES]:
        text = line(option, value)
        (tmp_path / "one.toml").write_text(text)
        try:
            load_settings(str(tmp_path / "one.toml"), environ={"NAME": "1"}, folder=tmp_path)
        except ConfigError:
            continue
        if value != "2020-01-01":
            assert CONFIG.is_valid(parsed(text)), text


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: str(option.path))
def test_what_cannot_be_meant_is_not(option: Option) -> None:
    for value in ("[[1]]", "{ a = { b = 1 } }"):
        assert not CONFIG.is_valid(parsed(line(option, value))), value
    assert not CONFIG.is_valid(parsed(line(option, option.example).replace(f"{option.name} =", f"{option.name}x =")))


def test_a_config_of_unknown_sections_or_with_two_sources_is_not_valid() -> None:
    assert not CONFIG.is_valid({"sauce": {}})
    assert not CONFIG.is_valid({"tables": {"a": {"source": "a", "query": "select 1"}}})
    assert not CONFIG.is_valid({"cache": {"ttl": 90_000}})
    assert not CONFIG.is_valid({"tables": {"a": {"key": ["a", "b", "c"]}}})


def test_summaries_of_runs_are_valid_however_they_end() -> None:
    report = Report("movies", "movies", "movies", run_id="r")
    for command in ("run", "extract", "load", "verify", "", "local", "nonsense"):
        refuse_misfit(summarize(command, report, 1.5))
        refuse_misfit(summarize(command, report, 1.5, error=SourceError("no", hint="do")))
        refuse_misfit(summarize(command, report, 1.5, error=KeyError("no")))
        refuse_misfit(summarize(command, report, 1.5, signal_number=2))
    report.mode = "replace"
    report.schema_changes.append(SchemaChange("a", None, "text"))
    report.watermark = WatermarkMove("a", "int8", None, 0, "5", 1, moves=True, destination="movies")
    report.counters.throttle_reasons["Throttled"] = {"movies": 3}
    alone = summarize("run", report, 1.0)
    refuse_misfit(alone)
    for more in ({"error": SourceError("no")}, {"signal_number": 15}, {}):
        summary, _ = combine("run", [Ended(report, alone, exit_code(alone, None, None))], 2.0, not_begun=["x"], **more)
        refuse_misfit(summary)
    refuse_misfit({"event": "job", **alone})


@pytest.mark.parametrize("command", ["run", "verify", "history", "plan", "doctor", "local up"])
def test_a_field_more_or_less_is_a_misfit(command: str) -> None:
    failed = summarize(command, Report("a"), 1.0, error=SourceError("no"))
    refuse_misfit(failed)
    for changed in (failed | {"surprise": 1}, {name: value for name, value in failed.items() if name != "chunks"}):
        with pytest.raises(AssertionError):
            refuse_misfit(changed)
    if command not in ("run", "verify"):
        with pytest.raises(AssertionError):
            refuse_misfit({**failed, "status": "succeeded", "plan": 1})
