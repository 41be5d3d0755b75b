"""What is deployed, as the AWS SAM CLI sees it: valid, built, small enough, whole, and free of what nobody needs."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.aws.rights import Template
from tests.aws.sam import HOST, Sam
from tests.aws.test_template import EVERYTHING, FUNCTIONS
from tests.integration.command_line import CommandLine

MAX_ZIPPED_BYTES = 50_000_000
"""What Lambda takes of a zip directly ("Lambda quotas": 50 MB); more has to go through S3, and starts later."""

MAX_UNZIPPED_BYTES = 250_000_000
"""What it takes at all of what is in the zip (the same page)."""

EVERYTHING_USED = "import " + ", ".join(
    [
        *("etlcli.aws.handlers", "etlcli.wiring", "etlcli.pipeline", "etlcli.source.postgres", "etlcli.cache.momento"),
        *("etlcli.sink.dynamodb", "etlcli.sink.state", "etlcli.encoding", "uvloop", "orjson", "zstandard"),
    ]
)
"""What a first call has imported when it is over."""

ASL_VARIABLE = "MOMENTO_ETL_TEST_ASL_VALIDATOR"
ASL_VERSION = "4.0.0"


@pytest.fixture
def deployed(deploying: CommandLine) -> Path:
    deploying("deploy", "--out", "out", "--table", "movies", "--quiet")
    return deploying.folder / "out"


def test_sam_finds_the_template_valid(sam: Sam, deployed: Path) -> None:
    assert "is a valid SAM Template" in sam(deployed, "validate", "--lint")


def test_sam_builds_it_as_it_is_written(sam: Sam, deployed: Path, built_artifact: Path) -> None:
    """With no other words than ``deploy`` says: for this Python, and the processors that go with it."""
    config = tomllib.loads((deployed / "samconfig.toml").read_text(encoding="utf-8"))["default"]
    building, deploying = (
        dict(re.findall(r'(\w+)="([^"]*)"', config[command]["parameters"]["parameter_overrides"]))
        for command in ("build", "deploy")
    )
    assert building.items() <= deploying.items()
    assert deploying.keys() <= Template(deployed / "template.yaml", {}).content["Parameters"].keys()
    machine = "x86_64" if sys.version_info[:2] == (3, 11) else "arm64"
    assert building == {**HOST, "Architecture": machine}
    built = built_artifact
    if building != HOST:
        sam(deployed, "build", "Plan")
        built = deployed / ".aws-sam" / "build" / "Plan"
    libraries = list(built.rglob("*.so"))
    assert len(libraries) > 5
    for library in libraries:
        # e_machine in the header of an ELF file: EM_X86_64, EM_AARCH64.
        assert library.read_bytes()[18:20] == {"x86_64": b"\x3e\x00", "arm64": b"\xb7\x00"}[machine], library


def definition(deployed: Path) -> dict[str, Any]:
    """The state machine with its substitutions made, as CloudFormation does: in the text."""
    (machine,) = Template(deployed / "template.yaml", EVERYTHING).resources("AWS::Serverless::StateMachine").values()
    text = (deployed / machine["DefinitionUri"]).read_text(encoding="utf-8")
    given = machine["DefinitionSubstitutions"]
    used = set(re.findall(r"\$\{(\w+)\}", text))
    assert used <= given.keys()
    assert {f"{name}Arn" for name in FUNCTIONS} <= used
    for name, value in given.items():
        arn = f"arn:aws:lambda:eu-west-1:123456789012:function:{value.removesuffix('.Arn')}"
        text = text.replace(f"${{{name}}}", arn if value.endswith(".Arn") else str(value))
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_state_machine_is_valid(deployed: Path) -> None:
    folder = os.environ.get(ASL_VARIABLE)
    if not folder:
        pytest.skip(
            f"needs Node 20: npm install --prefix DIR asl-validator@{ASL_VERSION}, then {ASL_VARIABLE}=DIR;"
            " .ci/run does so"
        )
    program = Path(folder).resolve() / "node_modules" / ".bin" / "asl-validator"
    machine = definition(deployed)
    rendered = deployed / "rendered.json"
    for broken in (False, True):
        if broken:
            machine["StartAt"] = "Nowhere"
        rendered.write_text(json.dumps(machine), encoding="utf-8")
        command = [str(program), "--json-path", str(rendered)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert bool(ended.returncode) == broken, ended


def test_the_state_machine_calls_each_function_and_nothing_else(deployed: Path) -> None:
    called = []

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("Type") == "Task":
                assert node["Resource"] == "arn:aws:states:::lambda:invoke"
                called.append(node["Parameters"]["FunctionName"].rpartition(":")[2])
            for part in node.values():
                visit(part)
        elif isinstance(node, list):
            for part in node:
                visit(part)

    visit(definition(deployed))
    assert set(called) == FUNCTIONS.keys()


def test_it_is_small_enough_zipped_and_unzipped(built_artifact: Path) -> None:
    zipped = io.BytesIO()
    unzipped = 0
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in built_artifact.rglob("*"):
            if path.is_file():
                archive.write(path, path.relative_to(built_artifact))
                unzipped += path.stat().st_size
    assert len(zipped.getvalue()) < MAX_ZIPPED_BYTES
    assert unzipped < MAX_UNZIPPED_BYTES


def imported(artifact: Path, statement: str) -> dict[str, str | None]:
    """Run a statement with nothing but the artifact and Python itself; give what it imported, and from which files."""
    program = (
        f"import sys; sys.path.insert(0, ''); {statement}; import json;"
        "print(json.dumps({name: getattr(module, '__file__', None) for name, module in list(sys.modules.items())}))"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    environment = {"PATH": os.environ["PATH"], "AWS_EC2_METADATA_DISABLED": "true"}
    ended = subprocess.run(
        command, cwd=artifact, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr
    modules: dict[str, str | None] = json.loads(ended.stdout.splitlines()[-1])
    return modules


def test_it_is_whole(built_artifact: Path) -> None:
    handlers = " or ".join(f"not callable(handlers.{name})" for name in FUNCTIONS.values())
    look = f"import etlcli.aws.handlers as handlers; assert not ({handlers})"
    modules = imported(built_artifact, f"{EVERYTHING_USED}; {look}")
    assert {"momento", "psycopg", "psycopg_binary", "boto3", "aiohttp", "uvloop", "zstandard"} <= modules.keys()
    standard = Path(os.__file__).parent
    for name, file in modules.items():
        if file is not None:
            path = (built_artifact / file).resolve()
            assert path.is_relative_to(built_artifact.resolve()) or path.is_relative_to(standard), (name, file)
            assert "site-packages" not in file, (name, file)


def test_no_function_imports_what_none_needs(built_artifact: Path) -> None:
    modules = imported(built_artifact, EVERYTHING_USED)
    packages = {name.partition(".")[0] for name in modules}
    assert not packages & {"typer", "click", "rich", "moto", "pandas", "numpy", "pydantic", "pkg_resources", "pytest"}
    assert not [name for name in modules if name.startswith(("etlcli.cli", "etlcli.local", "etlcli.aws.deploying"))]
    # Python's own that take long to import, and that only tools have a use for.
    assert not modules.keys() & {"distutils", "doctest", "pdb", "tkinter", "unittest.mock", "lib2to3"}


def test_it_imports_few_modules_more_than_the_sdks_do(built_artifact: Path) -> None:
    """What the time follows from; that is measured by ``python -m tests.bench startup``."""
    sdks = imported(built_artifact, "import momento, psycopg, boto3")
    alone = imported(built_artifact, "import etlcli.aws.handlers")
    assert len(alone) < len(sdks), sorted(alone)
    own = imported(built_artifact, EVERYTHING_USED)
    assert len(own) < 1.5 * len(sdks), sorted(own.keys() - sdks.keys())
