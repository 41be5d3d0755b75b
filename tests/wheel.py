"""Build the sdist, the wheel out of it, and use that outside the tree: what users install is what must work.

    python tests/wheel.py

Builds in isolation, so that the wheel has no file that the sdist lacks; installs into an empty folder, and from there
runs the main job on an embedded stack of its own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDED = (
    "etlcli/py.typed",
    "etlcli/aws/template.yaml",
    "etlcli/aws/state_machine.asl.json",
    "etlcli/local/sample/movies.csv",
    "etlcli/local/sample/movies.sql",
    "etlcli/local/sample/SOURCE.md",
)


# What somebody needs who has nothing but the sdist: to read, to test, to change.
SOURCES = (
    "CHANGELOG.md",
    "LICENSE",
    "README.md",
    "config.example.toml",
    "pyproject.toml",
    "tests/wheel.py",
    ".ci/test",
)


def check_sdist(sdist: Path) -> None:
    """See that it has what it should, under the version that the package has."""
    top = sdist.name.removesuffix(".tar.gz")
    with tarfile.open(sdist) as archive:
        names = set(archive.getnames())
        init = archive.extractfile(f"{top}/etlcli/__init__.py")
        assert init is not None
        version = re.search(rb'__version__ = "([^"]+)"', init.read())
    missing = [needed for needed in (*SOURCES, *NEEDED) if f"{top}/{needed}" not in names]
    known = ("etlcli/", "tests/", ".ci/", *(name for name in SOURCES if "/" not in name), "PKG-INFO", ".gitignore")
    strays = [name for name in names if name != top and not name.removeprefix(f"{top}/").startswith(known)]
    strays = [name for name in strays if name not in (f"{top}/etlcli", f"{top}/tests", f"{top}/.ci")]
    if missing or strays:
        sys.exit(f"the sdist lacks {missing} and has {strays} besides")
    if version is None or top != f"momento_etl-{version[1].decode()}":
        sys.exit(f"{sdist.name} is not called after the package's version, {version and version[1]!r}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = [sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(ROOT)]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = (folder / "dist").glob("*.whl")
        (sdist,) = (folder / "dist").glob("*.tar.gz")
        check_sdist(sdist)
        names = set(zipfile.ZipFile(wheel).namelist())
        missing = [needed for needed in NEEDED if needed not in names]
        strays = [found for found in names if not found.startswith(("etlcli/", "momento_etl-"))]
        if missing or strays:
            sys.exit(f"the wheel lacks {missing} and has {strays} besides the package")
        site = folder / "site"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
        subprocess.run(pip, check=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(site),
            "MOMENTO_ETL_LOCAL_DIR": str(folder / "local"),
        }

        def momento_etl(*words: str) -> str:
            command = [sys.executable, "-P", "-m", "etlcli", *words]
            done = subprocess.run(
                command, cwd=folder, env=environment, check=False, stdout=subprocess.PIPE, text=True, timeout=300
            )
            if done.returncode:
                sys.exit(f"{' '.join(words)} ended with {done.returncode}")
            return done.stdout

        where = [sys.executable, "-P", "-c", "import etlcli; print(etlcli.__file__)"]
        imported = subprocess.check_output(where, cwd=folder, env=environment, text=True).strip()
        if not Path(imported).is_relative_to(site):
            sys.exit(f"{imported} was used in place of the wheel")
        try:
            said = momento_etl("--version").strip()
            if said.split()[-1] not in wheel.name:
                sys.exit(f"{wheel.name} says that it is {said}")
            momento_etl("deploy", "--out", "aws", "--table", "movies", "--quiet")
            summary = json.loads(momento_etl("run", "--local", "--table", "movies", "--output", "json", "--quiet"))
        finally:
            momento_etl("local", "down", "--purge", "--quiet")
        if summary["rows_loaded"] < 3000:
            sys.exit(f"only {summary['rows_loaded']} films arrived")
        sys.stdout.write(f"{wheel.name}: {len(names)} files, {summary['rows_loaded']} films loaded from it\n")


if __name__ == "__main__":
    main()
