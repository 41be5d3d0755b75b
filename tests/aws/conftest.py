"""What the tests of the deployable side share: the command line, SAM where it is installed, and one built artifact.

``MOMENTO_ETL_TEST_SAM`` names the virtual environment that the AWS SAM CLI is installed into, which does not fit beside
this package's own dependencies; ``.ci/run`` sets it. Where it is set these tests run, whatever it takes; where it is
not, they are skipped.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tests.aws.sam import SAM_VARIABLE, SAM_VERSION, Sam, build, installed_sam
from tests.integration.command_line import CommandLine


@pytest.fixture
def deploying(tmp_path: Path) -> CommandLine:
    """Commands in a folder of their own, with no configuration and no server."""
    folder = tmp_path / "here"
    folder.mkdir()
    return CommandLine({}, folder)


@pytest.fixture(scope="session")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Sam:
    """The AWS SAM CLI, which is told nothing of anybody's account."""
    found = installed_sam(tmp_path_factory.mktemp("sam"))
    if found is None:
        pytest.skip(
            f"needs the AWS SAM CLI: pip install aws-sam-cli=={SAM_VERSION} into a virtual environment of its own,"
            f" then {SAM_VARIABLE}=DIR; .ci/run does so"
        )
    return found


@pytest.fixture(scope="session")
def built_artifact(sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A function's folder as ``sam build`` makes it of what ``deploy`` writes, for this machine's processor and Python.

    All five functions have the same code, so that one is enough. The config in it is an example, all comments: who
    runs it may write another one, in a copy.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # which all workers share
    built = root / "built" / "out" / ".aws-sam" / "build" / "Plan"
    with (root / "built.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            build(sam, root / "built")
    assert (built / "etlcli" / "aws").is_dir()
    return built
