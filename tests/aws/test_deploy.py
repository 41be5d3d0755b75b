"""``momento-etl deploy``: what it writes, what it refuses to write, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import etlcli
from etlcli.aws.deploying import Deployment, deploy, requirements
from etlcli.config import SECTIONS, load_settings
from etlcli.errors import TerminalError, UsageError
from tests.integration.command_line import CommandLine

PACKAGE = Path(etlcli.__file__).parent
CONFIG = """
[source]
url = "ssm:/etl/url"                          # postgresql://user@host/shop

[cache]
api_key = "secretsmanager:etl/momento#api_key"
endpoint = "cell-4-us-west-2-1.prod.a.momentohq.com"

[destination]
region = "eu-west-1"

[state]
table = "our-state"

[tables.films]
source = "public.movies"
destination = "films-copy"
mode = "replace"
mask = { title = "hmac" }
mask_key = "ssm:/etl/mask"

[tables.people]
mask_key = "secretsmanager:people"
"""


def configured(command_line: CommandLine, text: str) -> Path:
    path = command_line.folder / "momento-etl.toml"
    path.write_text(text, encoding="utf-8")
    return path


def overrides(folder: Path, command: str = "deploy") -> dict[str, str]:
    document = tomllib.loads((folder / "samconfig.toml").read_text(encoding="utf-8"))
    words: dict[str, Any] = document["default"][command]["parameters"]
    return dict(part.rstrip('"').split('="') for part in words["parameter_overrides"].split('" '))


def test_it_writes_what_sam_takes_and_says_what_comes_next(deploying: CommandLine) -> None:
    config = configured(deploying, CONFIG)
    said = deploying("deploy", "--out", "to aws", "--table", "films")
    assert [line.strip() for line in said.out.splitlines()[1:]] == ["cd 'to aws'", "sam build", "sam deploy --guided"]
    out = deploying.folder / "to aws"
    assert {path.name for path in out.iterdir()} == {
        "template.yaml",
        "state_machine.asl.json",
        "samconfig.toml",
        "function",
    }
    for name in ("template.yaml", "state_machine.asl.json"):
        assert (out / name).read_bytes() == (PACKAGE / "aws" / name).read_bytes()
    function = out / "function"
    assert {path.name for path in function.iterdir()} == {"etlcli", "requirements.txt", "momento-etl.toml"}
    assert (function / "momento-etl.toml").read_bytes() == config.read_bytes()


def test_the_parameters_are_what_the_config_says_of_the_job(deploying: CommandLine) -> None:
    configured(deploying, CONFIG)
    answer = deploying("deploy", "--out", "out", "--table", "films", "--output", "json").json
    assert answer["status"] == "succeeded"
    assert (answer["job"], answer["destination"], answer["stack"]) == ("films", "films-copy", "momento-etl-films")
    assert answer["parameters"] == {
        "Table": "films",
        "DestinationTable": "films-copy",
        "StateTable": "our-state",
        "Replace": "true",
        "SourceParameter": "/etl/url",
        "CacheSecret": "etl/momento",
        # The other job's key is none of this one's business.
        "MaskParameter": "/etl/mask",
    }
    out = deploying.folder / "out"
    given = overrides(out)
    assert given.items() >= answer["parameters"].items()
    assert overrides(out, "build").items() <= given.items()
    document = tomllib.loads((out / "samconfig.toml").read_text(encoding="utf-8"))
    assert document["default"]["global"]["parameters"] == {"stack_name": "momento-etl-films", "region": "eu-west-1"}


def test_the_code_is_the_package_without_what_only_the_command_line_needs(tmp_path: Path) -> None:
    deploy(tmp_path / "out", Deployment())
    code = tmp_path / "out" / "function" / "etlcli"
    written = {path.relative_to(code).as_posix() for path in code.rglob("*") if path.is_file()}
    source = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name.split("/")[0] for name in source - written} == {"cli", "local", "__main__.py", "aws"}
    assert {name for name in source - written if name.startswith("aws/")} == {
        "aws/deploying.py",
        "aws/parameters.py",
        "aws/shippable.py",
        "aws/template.yaml",
        "aws/state_machine.asl.json",
    }
    for name in written:
        assert (code / name).read_bytes() == (PACKAGE / name).read_bytes()


def test_what_it_needs_is_asked_for_as_it_is_installed_here() -> None:
    names = [line.partition("==")[0] for line in requirements()]
    assert names == ["aiohttp", "boto3", "momento", "orjson", "psycopg[binary]", "uvloop", "zstandard"]
    for line in requirements():
        name, _, version = line.partition(";")[0].partition("==")
        assert version == metadata.version(name.partition("[")[0])


def test_without_a_config_there_is_an_example_that_is_one(deploying: CommandLine) -> None:
    said = deploying("deploy", "--out", "out")
    assert "fill in out/function/momento-etl.toml" in said.err
    path = deploying.folder / "out" / "function" / "momento-etl.toml"
    text = path.read_text(encoding="utf-8")
    assert not tomllib.loads(text)
    lines = [line.removeprefix("#") for line in text.splitlines() if not line.startswith("# ")]
    path.write_text("\n".join(lines), encoding="utf-8")
    answer = deploying("deploy", "--out", "two", "--config", str(path), "--output", "json").json
    assert answer["parameters"]["SourceParameter"] == "/momento-etl/url"
    assert answer["parameters"]["CacheParameter"] == "/momento-etl/api_key"


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ('[source]\nurl = "postgresql://me:{}@host/shop"', "`url` in [source]"),
        ('[source]\nurl = "host=db password={}"', "`url` in [source]"),
        ('[source]\nurl = "postgresql://host/shop?user=me&password={}"', "`url` in [source]"),
        ('[source]\nurl = "postgresql://host/shop"\npassword = "{}"', "`password` in [source]"),
        ('[source]\n#password = "{}"', "line 2"),
        ('[cache]\napi_key = "{}"', "`api_key` in [cache]"),
        ('[tables."odd name"]\nmask_key = "{}"', '`mask_key` in [tables."odd name"]'),
        ('# [source]\n# url = "postgresql://me:{}@host/shop"', "line 2"),
        ('[cache]\n#api_key = "{}"', "line 2"),
        ('[tables.films]\nwhere = "true"  # as postgresql://me:{}@host/shop', "line 2"),
        ('[destination]\nendpoint_url = "http://me:{}@127.0.0.1"', "line 2"),
    ],
)
def test_no_secret_goes_into_the_code(deploying: CommandLine, written: str, named: str) -> None:
    secret = "PLANTED-in-config"
    configured(deploying, written.format(secret))
    failed = deploying.fails("deploy", "--out", "out", code=2)
    assert named in failed.json["error"]["message"]
    assert secret not in failed.out + failed.err
    assert not (deploying.folder / "out").exists()


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ('[source]\nurl = "env:DATABASE_URL"', "env:DATABASE_URL"),
        ('[destination]\nprofile = "team"', "`profile` in [destination]"),
        ('[cache]\napi_key = "ssm:"', "`api_key` in [cache]"),
        ('[source]\npassword = "ssm:arn:aws:ssm:eu-west-1:123456789012:parameter/x"', "`password` in [source]"),
        (
            '[cache]\napi_key = "secretsmanager:arn:aws:secretsmanager:eu-west-1:123456789012:secret:x-abcdef"',
            "`api_key` in [cache]",
        ),
        ('[tables.films]\ndestination = "ssm:/name"', "ssm:/name"),
        ("[nonsense]\nx = 1", "[nonsense]"),
    ],
)
def test_what_the_functions_could_not_use_is_refused(deploying: CommandLine, written: str, named: str) -> None:
    configured(deploying, written)
    failed = deploying.given(DATABASE_URL="postgresql://host/shop").fails(
        "deploy", "--out", "out", "--table", "films", code=2
    )
    assert named in failed.json["error"]["message"]
    assert not (deploying.folder / "out").exists()


def test_every_secret_option_is_refused_as_a_literal(tmp_path: Path) -> None:
    from etlcli.aws.shippable import check_shippable
    from etlcli.errors import ConfigError

    secrets = [option for section in SECTIONS.values() for option in section.options.values() if option.secret]
    assert len(secrets) >= 3
    for option in secrets:
        path = tmp_path / f"{option.path}.toml"
        section = f"{option.section}.films" if SECTIONS[option.section].named else option.section
        path.write_text(f'[{section}]\n{option.name} = "postgresql://me:PLANTED@host"\n', encoding="utf-8")
        with pytest.raises(ConfigError, match=f"`{option.name}`"):
            check_shippable(path)


@pytest.mark.parametrize(
    "written",
    [
        '[source]\nurl = "postgresql://me@host/shop"',
        '[source]\nurl = "postgresql://me:rds-iam@host/shop"',
        '[destination]\nregion = "env:AWS_REGION"',
        '[cache]\nlocal = "127.0.0.1:8080"',
        '#api_key = "env:MY_MOMENTO_KEY"',
        '[source]\nurl = "postgresql://me@host/shop"\npassword = "ssm:/etl/password"  # of the reader',
    ],
)
def test_what_is_no_secret_goes_along(deploying: CommandLine, written: str) -> None:
    configured(deploying, written)
    deploying("deploy", "--out", "out")
    assert (deploying.folder / "out" / "function" / "momento-etl.toml").read_text(encoding="utf-8") == written


def test_the_example_of_all_options_has_nothing_that_is_refused(tmp_path: Path) -> None:
    from etlcli.aws.shippable import check_shippable
    from etlcli.config import example_file

    path = tmp_path / "momento-etl.toml"
    path.write_text(example_file(), encoding="utf-8")
    assert check_shippable(path) == example_file()


def test_the_environment_is_not_the_functions(deploying: CommandLine) -> None:
    configured(deploying, CONFIG)
    here = deploying.given(MOMENTO_ETL_STATE_TABLE="another", AWS_REGION="us-west-2", MOMENTO_ETL_NONSENSE="1")
    answer = here("deploy", "--out", "out", "--table", "films", "--output", "json").json
    assert answer["parameters"]["StateTable"] == "our-state"
    text = (deploying.folder / "out" / "samconfig.toml").read_text(encoding="utf-8")
    assert "us-west-2" not in text


def test_a_reference_gives_the_right_to_what_it_names(deploying: CommandLine) -> None:
    source = '[source]\nurl = "ssm:no-slash"\npassword = "secretsmanager:db/etl#password"\n'
    configured(deploying, source + '[cache]\napi_key = "ssm:/etl/key:3"')
    answer = deploying("deploy", "--out", "out", "--table", "films", "--output", "json").json
    assert (
        answer["parameters"].items()
        >= {
            "SourceParameter": "/no-slash",
            "PasswordSecret": "db/etl",
            "CacheParameter": "/etl/key",
        }.items()
    )


def test_a_login_by_iam_needs_what_no_config_says(deploying: CommandLine) -> None:
    configured(deploying, '[source]\nurl = "postgresql://me@host/shop"\npassword = "rds-iam"')
    (warning,) = deploying("deploy", "--out", "out", "--output", "json").json["warnings"]
    assert "RdsUser" in warning


def test_one_job_alone_needs_no_name_and_of_two_none_is_chosen(deploying: CommandLine) -> None:
    configured(deploying, '[tables."Órdenes"]\ndestination = "orders"')
    answer = deploying("deploy", "--out", "one", "--output", "json").json
    assert answer["parameters"]["Table"] == "Órdenes"
    assert overrides(deploying.folder / "one")["Table"] == "Órdenes"
    assert answer["stack"] == "momento-etl-rdenes"
    configured(deploying, CONFIG)
    answer = deploying("deploy", "--out", "two", "--output", "json").json
    assert answer["parameters"] == {}
    assert "Table" not in overrides(deploying.folder / "two")


def test_a_name_that_an_input_cannot_have_is_refused(deploying: CommandLine) -> None:
    failed = deploying.fails("deploy", "--out", "out", "--table", '"Order Details"', code=2)
    assert "[tables.NAME]" in failed.json["error"]["hint"]


def test_a_folder_with_something_in_it_is_left_alone(deploying: CommandLine) -> None:
    out = deploying.folder / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    failed = deploying.fails("deploy", "--out", "out", code=2)
    assert "--force" in failed.json["error"]["hint"]
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    deploying("deploy", "--out", "out", "--force")
    assert (out / "mine.txt").read_text(encoding="utf-8") == "mine"
    assert (out / "template.yaml").exists()


def test_written_over_it_is_as_new_but_for_what_people_change(deploying: CommandLine) -> None:
    deploying("deploy", "--out", "out")
    out = deploying.folder / "out"
    changed = [out / "samconfig.toml", out / "function" / "momento-etl.toml"]
    for path in (*changed, out / "template.yaml", out / "function" / "etlcli" / "gone.py"):
        path.write_text("# changed\n", encoding="utf-8")
    said = deploying("deploy", "--out", "out", "--force", "--output", "json")
    assert said.json["kept"] == ["function/momento-etl.toml", "samconfig.toml"]
    assert "no config" not in said.err
    for path in changed:
        assert path.read_text(encoding="utf-8") == "# changed\n"
    assert (out / "template.yaml").read_bytes() == (PACKAGE / "aws" / "template.yaml").read_bytes()
    assert not (out / "function" / "etlcli" / "gone.py").exists()
    configured(deploying, CONFIG)
    deploying("deploy", "--out", "out", "--force")
    assert changed[1].read_text(encoding="utf-8") == CONFIG


def test_the_modules_of_transforms_go_along(deploying: CommandLine) -> None:
    (deploying.folder / "mine.py").write_text("def change(item):\n    return item\n", encoding="utf-8")
    package = deploying.folder / "ours" / "__pycache__"
    package.mkdir(parents=True)
    (package.parent / "parts.py").write_text("", encoding="utf-8")
    text = '[tables.a]\ntransform = "mine:change"\n[tables.b]\ntransform = "ours.parts:x"\n'
    configured(deploying, text + '[tables.c]\ntransform = "theirs:x"\n')
    said = deploying("deploy", "--out", "out", "--output", "json")
    (warning,) = said.json["warnings"]
    assert "theirs:x" in warning
    function = deploying.folder / "out" / "function"
    assert (function / "mine.py").exists()
    assert [path.name for path in (function / "ours").iterdir()] == ["parts.py"]


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="is no folder"):
        deploy(file, Deployment())
    with pytest.raises(TerminalError, match="cannot be written: Not a directory"):
        deploy(file / "below", Deployment())
    with pytest.raises(UsageError, match=f"{tmp_path} is not empty") as full:
        deploy(tmp_path, Deployment())
    assert "--force" in str(full.value.hint)
    with pytest.raises(UsageError, match="is in the package"):
        deploy(PACKAGE / "out", Deployment())
    assert not (PACKAGE / "out").exists()


def test_a_config_that_can_be_read_only_once_is_refused(deploying: CommandLine) -> None:
    failed = deploying.fails("deploy", "--out", "out", "--config", "/dev/stdin", code=2)
    assert "no file that could be copied" in failed.json["error"]["message"]


def test_a_package_that_is_not_installed_cannot_say_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    with pytest.raises(UsageError, match="is not installed as a package"):
        deploy(tmp_path / "out", Deployment())
    assert not (tmp_path / "out").exists()


def test_the_deployed_code_reads_the_deployed_config(deploying: CommandLine) -> None:
    """With nothing of this tree, as in a function: its folder alone, and the variable that the template sets."""
    configured(deploying, CONFIG)
    deploying("deploy", "--out", "out", "--table", "films")
    program = (
        "import json; from etlcli.config import load_settings; import etlcli;"
        "print(json.dumps([etlcli.__file__, str(load_settings().config_path), load_settings().state.table]))"
    )
    function = deploying.folder / "out" / "function"
    environment = {"PATH": os.environ["PATH"], "MOMENTO_ETL_CONFIG": "momento-etl.toml"}
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=function, env=environment, capture_output=True, text=True, check=True
    )
    file, config, state = json.loads(ended.stdout)
    assert Path(file).is_relative_to(function)
    assert (Path(config), state) == (function / "momento-etl.toml", "our-state")
    assert load_settings(config, environ={}).tables.keys() == {"films", "people"}
