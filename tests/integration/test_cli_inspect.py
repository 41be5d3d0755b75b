"""``inspect-cache``: what it shows, of which run, and that its figures are those of the run."""

from __future__ import annotations

import re

import pytest

from tests.conftest import Schema
from tests.integration.command_line import CommandLine


@pytest.fixture
def wide(schema: Schema) -> None:
    # Rows that do not compress, so that there are several chunks.
    schema.execute(
        "create table wide (id integer, part text, filler text, note text, primary key (part, id));"
        " insert into wide select n, case when n <= 300 then 'a,b' else 'ä\"\\' end,"
        " (select string_agg(md5(n::text || i::text), '') from generate_series(1, 60) i),"
        " case n when 5 then E'two\\nlines \\x1b[31m' end from generate_series(1, 600) n"
    )


@pytest.mark.usefixtures("wide")
def test_what_a_cache_holds(command_line: CommandLine, unique: str) -> None:
    first = command_line("extract", "--table", "wide", "--cache", unique, "--limit", "10").out.strip()
    second = command_line("extract", "--table", "wide", "--cache", unique, "--output", "json").json
    in_cache = ("inspect-cache", "wide", "--cache", unique)

    whole, row, other_run, check = command_line.at_once(
        lambda cli: cli(*in_cache, "--output", "json").json,
        lambda cli: cli(*in_cache, "--row", "a,b,5", "--output", "json").json,
        lambda cli: cli(*in_cache, "--run-id", first, "--output", "json").json,
        lambda cli: cli(*in_cache, "--check", "--output", "json").json,
    )
    assert whole["current"] == whole["run_id"] == second["run_id"]
    assert [run["run_id"] for run in whole["runs"]] == [second["run_id"], first]
    newest = whole["runs"][0]
    assert second["chunks"] > 1
    assert sum(chunk["rows"] for chunk in newest["chunks"]) == newest["totals"]["rows_extracted"] == 600
    assert sum(chunk["bytes_stored"] for chunk in newest["chunks"]) == second["bytes_cached"]
    assert [chunk["number"] for chunk in newest["chunks"]] == list(range(second["chunks"]))
    assert newest["chunks"][0]["first_key"] == ["a,b", "1"]
    assert newest["chunks"][-1]["last_key"] == ['ä"\\', "600"]
    assert 4700 < newest["seconds_left"] <= 4800
    assert [item["id"] for item in whole["sample"]] == [{"N": str(n)} for n in range(1, 6)]
    assert 0 < whole["momento_operations"] < second["momento_operations"]  # looking is cheap, and says what it costs
    assert row["row"]["part"] == {"S": "a,b"}
    assert row["row"]["note"] == {"S": "two\nlines \x1b[31m"}
    assert [run["run_id"] for run in other_run["runs"]] == [other_run["run_id"]] == [first]
    assert not other_run["runs"][0]["current"]
    assert check["chunks_checked"] == second["chunks"]

    text, row_text, other_text, check_text = command_line.at_once(
        lambda cli: cli(*in_cache),
        lambda cli: cli(*in_cache, "--row", "a,b,5"),
        lambda cli: cli(*in_cache, "--run-id", first, "--row", "a,b,1"),
        lambda cli: cli(*in_cache, "--check", "--run-id", first),
    )
    assert text.err == row_text.err == ""
    assert re.search(rf"^{second['run_id']} +current +600 +{second['chunks']} ", text.out, re.MULTILINE), text
    assert re.search(rf"^{first} +complete +10 +1 ", text.out, re.MULTILINE), text
    assert "hash part (S), range id (N)" in text.out
    assert not re.search(r" $", text.out, re.MULTILINE)
    assert "\x1b" not in row_text.out  # a row's value cannot take the terminal over
    assert "lines \\x1b[31m" in row_text.out
    assert first in other_text.out
    assert check_text.out == f"Run {first}: 1 chunk there, and undamaged.\n"
    assert command_line(*in_cache, "--rejects").out == f"Run {second['run_id']} has no rejected rows.\n"


@pytest.mark.usefixtures("wide")
def test_what_it_cannot_show(command_line: CommandLine, unique: str) -> None:
    command_line("extract", "--table", "wide", "--cache", unique, "--limit", "10", "--quiet")
    in_cache = ("inspect-cache", "wide", "--cache", unique)
    unknown = "20260101T000000000Z-0000"
    no_row, no_run, no_row_of_it, no_cache, both, no_job = command_line.at_once(
        lambda cli: cli.fails(*in_cache, "--row", "a,b,99", code=1),
        lambda cli: cli.fails(*in_cache, "--run-id", unknown, code=1),
        lambda cli: cli.fails(*in_cache, "--run-id", unknown, "--row", "a,b,1", code=1),
        lambda cli: cli.fails("inspect-cache", f"{unique}-none", code=1),
        lambda cli: cli.fails(*in_cache, "--row", "1", "--rejects", code=2),
        lambda cli: cli("inspect-cache", "other", "--cache", unique),
    )
    assert "has the key a,b,99" in no_row.err
    assert unknown in no_run.err
    assert unknown in no_row_of_it.err
    assert f"there is no cache '{unique}-none'" in no_cache.err
    assert "--row and --rejects" in both.err
    assert no_job.out == f"Cache {unique} holds no run of other.\n"
