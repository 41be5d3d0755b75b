"""The AWS SAM CLI, which is told nothing of anybody's account, and what it builds of what ``deploy`` writes.

``MOMENTO_ETL_TEST_SAM`` names the virtual environment that it is installed into: it does not fit beside this package's
own dependencies.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.integration.command_line import CommandLine

__all__ = ["HOST", "SAM_VARIABLE", "SAM_VERSION", "Sam", "build", "installed_sam"]

SAM_VERSION = "1.170.0"
SAM_VARIABLE = "MOMENTO_ETL_TEST_SAM"

_SECONDS = 600

HOST = {
    "Architecture": {"aarch64": "arm64"}.get(platform.machine(), platform.machine()),
    "Runtime": f"python{sys.version_info.major}.{sys.version_info.minor}",
}
"""The template's parameters that make what this machine can run."""

Sam = Callable[..., str]
"""Runs ``sam`` in a folder with some words, which have to succeed, and gives what it said."""


def installed_sam(home: Path) -> Sam | None:
    """Give the SAM CLI with a home of its own; None where it is not installed."""
    folder = os.environ.get(SAM_VARIABLE)
    if not folder:
        return None
    program = Path(folder).resolve() / "bin" / "sam"
    assert program.is_file(), f"{SAM_VARIABLE} is set, but there is no {program}"
    return partial(_run, program, home)


def build(sam: Sam, folder: Path) -> Path:
    """Build the functions' code for this machine's processor and Python, below a folder that is made.

    All five functions have the same code, so that one is enough. The config in it is an example, all comments.

    Returns:
        The function's folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    CommandLine({}, folder)("deploy", "--out", "out", "--force", "--quiet")
    overrides = " ".join(f"{name}={value}" for name, value in HOST.items())
    sam(folder / "out", "build", "Plan", "--parameter-overrides", overrides)
    return folder / "out" / ".aws-sam" / "build" / "Plan"


def _run(program: Path, home: Path, where: Path, *words: str) -> str:
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
        timeout=_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, f"sam {' '.join(words)}\n[{ended.returncode}]\n{ended.stdout}"
    return ended.stdout
