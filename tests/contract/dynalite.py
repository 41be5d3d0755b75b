"""dynalite, a DynamoDB in JavaScript that refuses nearly all that the service refuses, as a child of the tests.

A plugin of pytest's, named by the modules that use it. ``MOMENTO_ETL_TEST_DYNALITE`` names the folder that npm put it
into; ``.ci/run`` sets it. Where it is set these tests run, whatever it takes; where it is not, they are skipped.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

VERSION = "4.0.0"
VARIABLE = "MOMENTO_ETL_TEST_DYNALITE"
SECONDS = 60

# A port of the system's choice, which its own command line does not offer, and tables that are made at once. It ends
# when its standard input does, so that it does not outlive its parent, however that one ends.
PROGRAM = """
const options = {createTableMs: 0, deleteTableMs: 0, updateTableMs: 0}
const server = require(process.argv[1])(options)
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
process.stdin.on('end', () => process.exit()).resume()
"""


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Run dynalite from the folder that npm put it into, and give its URL."""
    package = folder / "node_modules" / "dynalite"
    node = shutil.which("node")
    assert node is not None, f"{VARIABLE} is set, but there is no node"
    assert package.is_dir(), f"{VARIABLE} is set, but there is no {package}"
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [node, "-e", PROGRAM, str(package)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        ) as server,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            said = select.select([server.stdout], [], [], SECONDS)[0] and server.stdout.readline()
            assert said, f"dynalite does not start: {_end_of(log)}"
            yield f"http://127.0.0.1:{int(said)}"
            assert server.poll() is None, f"dynalite fell over: {_end_of(log)}"
        finally:
            server.terminate()
            try:
                server.wait(SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()


def _end_of(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read()[-4000:].decode(errors="replace")


@pytest.fixture(scope="session")
def dynalite() -> Iterator[str]:
    """Its URL."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"needs Node 20: npm install --prefix DIR dynalite@{VERSION}, then {VARIABLE}=DIR; .ci/run does so")
    with running(Path(folder).resolve()) as url:
        yield url
