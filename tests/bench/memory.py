"""Peak memory of a run, and whether it grows with the table: ``python tests/bench/memory.py [rows ...]``.

Each count of generated rows (100,000 and 1,000,000 where none is given) goes through ``momento-etl run`` on an embedded
PostgreSQL and Momento server of its own; DynamoDB is a responder that takes everything, since moto would be the bound.
What is measured is the peak resident set of the command's process, as the kernel counted it (``wait4``).

Exit code 1 where a peak is over 200 MB, or where the largest is over the smallest by more than 10 percent.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psycopg

if __name__ == "__main__":  # run as a script, this folder is what Python looks for modules in
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.integration.responder import Responder

__all__ = ["LIMIT_BYTES", "Measured", "make_table", "measure"]

LIMIT_BYTES = 200_000_000
GROWTH = 1.10
COUNTS = (100_000, 1_000_000)

_ROWS = """
create table {name} as
select n as id,
       md5(n::text) || md5((n + 1)::text) as title,
       (n % 1000) / 7.0 as rating,
       n::bigint * 7919 as gross,
       '2000-01-01'::timestamptz + n * interval '1 minute' as seen_at,
       n % 3 = 0 as colour,
       case when n % 5 > 0 then array['Drama', 'Crime', md5(n::text)] end as genres,
       jsonb_build_object('votes', n, 'source', jsonb_build_object('name', md5((n % 97)::text), 'x', n / 3.0)) as facts
  from generate_series(1, {count}) n;
alter table {name} add primary key (id);
analyze {name};
"""


# A process's peak starts with that of the one that started it (Linux counts what was there before exec), so what starts
# it is a Python with nothing in it rather than this one.
_LAUNCHER = """
import os, sys
child = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as figures:
    figures.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Measured:
    """What a run took.

    Attributes:
        rows: Rows that it moved.
        peak_bytes: The most memory that its process had at once.
        seconds: How long it took.
        chunks: Chunks that it stored.
    """

    rows: int
    peak_bytes: int
    seconds: float
    chunks: int


def make_table(postgres_url: str, name: str, count: int) -> None:
    """Generate a table with so many rows."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(_ROWS.format(name=name, count=count).encode())


def measure(postgres_url: str, momento: str, dynamodb_url: str, table: str, cache: str) -> Measured:
    """Move a table, and see what it takes."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PG", "AWS_", "MOMENTO_"))},
        "DATABASE_URL": postgres_url,
        "MOMENTO_LOCAL": momento,
        "AWS_ENDPOINT_URL_DYNAMODB": dynamodb_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
    }
    arguments = ("run", "--table", table, "--cache", cache, "--destination", cache, "--output", "json")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures"
        ended = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(figures), sys.executable, "-m", "etlcli", *arguments],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            check=False,
        )
        summary = json.loads(ended.stdout)
        assert ended.returncode == 0, summary
        peak = int(figures.read_text())
    assert summary["rows_loaded"] == summary["rows_extracted"], summary
    # Kilobytes on Linux, bytes on macOS.
    peak *= 1 if sys.platform == "darwin" else 1024
    return Measured(summary["rows_loaded"], peak, time.perf_counter() - started, summary["chunks"])


def main() -> int:
    """Print a line for each count, and how the peaks compare."""
    from etlcli.local import stack

    counts = [int(text.replace(",", "").replace("_", "")) for text in sys.argv[1:]] or list(COUNTS)
    with tempfile.TemporaryDirectory() as folder, Responder() as responder:
        os.environ["MOMENTO_ETL_LOCAL_DIR"] = str(Path(folder) / "local")
        endpoints = stack.up()
        try:
            results = []
            for count in counts:
                table = f"rows_{count}"
                make_table(endpoints.postgres_url, table, count)
                before = responder.items
                found = measure(endpoints.postgres_url, endpoints.momento, responder.url, table, f"bench-{count}")
                assert responder.items - before == found.rows == count, found
                results.append(found)
                sys.stdout.write(
                    f"{found.rows:>10,} rows  peak {found.peak_bytes / 1e6:6.1f} MB  {found.seconds:6.1f} s"
                    f"  {found.rows / found.seconds:>8,.0f} rows/s  {found.chunks:,} chunks\n"
                )
                sys.stdout.flush()
        finally:
            stack.down(purge=True)
    peaks = [found.peak_bytes for found in results]
    ratio = max(peaks) / min(peaks)
    sys.stdout.write(
        f"largest to smallest peak: {ratio:.3f} (at most {GROWTH:.2f}); limit {LIMIT_BYTES / 1e6:.0f} MB\n"
    )
    return 0 if max(peaks) < LIMIT_BYTES and ratio <= GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
