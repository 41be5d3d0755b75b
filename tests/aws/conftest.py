"""What the tests of the deployable side share: the command line, SAM where it is installed, and one built artifact.

``MOMENTO_ETL_TEST_SAM`` names the virtual environment that the AWS SAM CLI is installed into, which does not fit beside
this package's own dependencies; ``.ci/run`` sets it. Where it is set these tests run, whatever it takes; where it is
not, they are skipped.
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.command_line import CommandLine

SAM_VERSION = "1.170.0"
SAM_VARIABLE = "MOMENTO_ETL_TEST_SAM"
SAM_SECONDS = 600

HOST = {
    "Architecture": {"aarch64": "arm64"}.get(platform.machine(), platform.machine()),
    "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
}
"""The template's parameters that make what this machine can run."""

Sam = Callable[..., str]
"""Runs ``sam`` in a folder with some words, which have to succeed, and gives what it said."""


@pytest.fixture
def deploying(tmp_path: Path) -> CommandLine:
    """Commands in a folder of their own, with no configuration and no server."""
    folder = tmp_path / "here"
    folder.mkdir()
    return CommandLine({}, folder)


@pytest.fixture(scope="session")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Sam:
    """The AWS SAM CLI, which is told nothing of anybody's account."""
    folder = os.environ.get(SAM_VARIABLE)
    if not folder:
        pytest.skip(
            f"needs the AWS SAM CLI: pip install aws-sam-cli=={SAM_VERSION} into a virtual environment of its own,"
            f" then {SAM_VARIABLE}=DIR; .ci/run does so"
        )
    program = Path(folder).resolve() / "bin" / "sam"
    assert program.is_file(), f"{SAM_VARIABLE} is set, but there is no {program}"
    home = tmp_path_factory.mktemp("sam")

    def run(where: Path, *words: str) -> str:
        kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "HTTP"))}
        environment = {
            **kept,
            # The Python that it builds for is the one on the path.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(home),
            "SAM_CLI_TELEMETRY": "0",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        ended = subprocess.run(
            [str(program), *words],
            cwd=where,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SAM_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, f"sam {' '.join(words)}\n[{ended.returncode}]\n{ended.stdout}"
        return ended.stdout

    return run


@pytest.fixture(scope="session")
def built_artifact(sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A function's folder as ``sam build`` makes it of what ``deploy`` writes, for this machine's processor and Python.

    All five functions have the same code, so that one is enough. The config in it is an example, all comments: who
    runs it may write another one, in a copy.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # which all workers share
    out = root / "built" / "out"
    built = out / ".aws-sam" / "build" / "Plan"
    with (root / "built.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            out.parent.mkdir(exist_ok=True)
            CommandLine({}, out.parent)("deploy", "--out", "out", "--force", "--quiet")
            overrides = " ".join(f"{name}={value}" for name, value in HOST.items())
            sam(out, "build", "Plan", "--parameter-overrides", overrides)
    assert (built / "etlcli" / "aws").is_dir()
    return built
