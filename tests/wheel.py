"""Build the wheel and use it outside the tree: what users install is what must work.

    python tests/wheel.py

Builds in isolation, installs into an empty folder, and from there runs the main job on an embedded stack of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "dist"), str(ROOT)]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = (folder / "dist").glob("*.whl")
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
            momento_etl("deploy", "--out", "aws", "--table", "movies", "--quiet")
            summary = json.loads(momento_etl("run", "--local", "--table", "movies", "--output", "json", "--quiet"))
        finally:
            momento_etl("local", "down", "--purge", "--quiet")
        if summary["rows_loaded"] < 3000:
            sys.exit(f"only {summary['rows_loaded']} films arrived")
        sys.stdout.write(f"{wheel.name}: {len(names)} files, {summary['rows_loaded']} films loaded from it\n")


if __name__ == "__main__":
    main()
