"""``local up|down|status`` as a user meets them; what they stand on is tested in test_local_stack."""

from __future__ import annotations

from pathlib import Path

from tests.integration.command_line import CommandLine

PARTS = ["postgres", "momento", "dynamodb"]


def test_up_status_and_down(bare: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "state"
    own = bare.given(MOMENTO_ETL_LOCAL_DIR=str(folder))
    before = own("local", "status", "--output", "json").json
    assert [part["state"] for part in before["parts"]] == ["stopped"] * 3
    try:
        up = own("local", "up", "--output", "json")
        assert (up.json["command"], up.json["status"]) == ("local up", "succeeded")
        assert [part["part"] for part in up.json["parts"]] == PARTS
        assert [part["state"] for part in up.json["parts"]] == ["running"] * 3
        for part in PARTS:
            assert f"starting {part}" in up.err
        again = own("local", "up", "--output", "json", "--quiet")
        assert again.err == ""
        assert again.json["parts"] == up.json["parts"]
        shown = own("local", "status")
        assert shown.out.count(" running ") == 3
        assert f"logs  {folder}/*.log" in shown.out
        assert shown.err == ""
    finally:
        down = own("local", "down", "--purge", "--output", "json")
    assert [end["part"] for end in down.json["stopped"]] == PARTS
    assert {end["pid"] for end in down.json["stopped"]} == {part["pid"] for part in up.json["parts"]}
    assert down.json["purged"]
    for part in PARTS:
        assert f"stopped {part}" in down.err
    nothing = own("local", "down")
    assert (nothing.out, nothing.err) == ("", "Nothing was running.\n")
    assert own("local", "status").out.count(" stopped ") == 3


def test_a_folder_that_cannot_be_used(bare: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = bare.given(MOMENTO_ETL_LOCAL_DIR=str(tmp_path / "file" / "below")).fails("local", "up", code=2)
    assert "file" in refused.json["error"]["message"]


def test_what_local_leaves_unused_is_said(bare: CommandLine, unique: str) -> None:
    # A URL that leads nowhere: were it used, this would fail.
    configured = bare.given(DATABASE_URL="postgresql://nobody@127.0.0.1:9/nothing", AWS_REGION="eu-west-1")
    run = configured("run", "--local", "--table", "movies", "--limit", "5", "--cache", unique, "--destination", unique)
    assert "--local: not used: DATABASE_URL, AWS_REGION" in run.err
    assert "The embedded stack: a toy" in run.err
    assert f"momento-etl inspect-cache movies --local --cache {unique}" in run.err
