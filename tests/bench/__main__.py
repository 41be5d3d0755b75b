"""How fast it is: ``python -m tests.bench``, from the repository's root, after ``pip install -e '.[dev,bench]'``.

Everything runs on this machine: an embedded PostgreSQL, a Momento-compatible server, and a DynamoDB endpoint that takes
5 ms for a write. Let nothing else run meanwhile.

    compare   the product, a bare sketch of its path, awswrangler, boto3 and the original's algorithm, end to end
    stages    each stage of the product's path alone
    memory    peak memory and time a row, for 10,000 to 2,000,000 rows
    latency   the product where a write takes 50 ms
    limits    the product under the limits of a Momento account on demand
    scale     a run in blocks, as the Lambda functions do it: 1, 2, 4 and 8 at once, where a write takes 250 ms
    startup   how long --help takes, and importing the Lambda handlers
    cold      a Lambda function's cold start, where MOMENTO_ETL_TEST_SAM names an environment with the AWS SAM CLI
    all       all of these
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tests.aws.sam import SAM_VARIABLE, SAM_VERSION, build, installed_sam
from tests.bench import figures
from tests.bench.cold import cold
from tests.bench.compare import compare
from tests.bench.latency import LATENCIES_MS, latency
from tests.bench.limits import limits
from tests.bench.memory import COUNTS, memory
from tests.bench.plot import plot
from tests.bench.running import PRODUCT, prepare, run
from tests.bench.scale import BLOCKS, LATENCY_MS, scale
from tests.bench.servers import ROOT, Servers, embedded, serving
from tests.bench.stages import measure_stages
from tests.bench.startup import startup

__all__ = ["main", "measure"]

_MEASUREMENTS = ("compare", "stages", "memory", "latency", "limits", "scale", "startup", "cold")
_USUALLY = ("compare", "stages")
_HERE = Path(__file__).parent

# Under its limits an account on demand lets 20,000 rows through in some 16 seconds. And every stage alone holds all
# rows in memory.
_LIMITED_SHARE = 0.1
_STAGES_SHARE = 0.25
# One block at once, with a few slow requests in flight, writes some 400 rows a second. And a table that small is cut by
# all of its keys, not by a sample of them, so that its blocks are of one size.
_SCALE_SHARE = 0.06

_QUICK_ROWS = 400


def measure(
    wanted: Sequence[str], postgres_url: str, upstream: str, *, rows: int, counts: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Measure something.

    Args:
        wanted: What: of the module's list.
        postgres_url: A PostgreSQL.
        upstream: A whole DynamoDB, for the state table.
        rows: The rows of the largest table; some measurements take a part of them.
        counts: The rows of the tables whose memory is measured.
        rounds: How often everything is measured.

    Returns:
        The figures by measurement.
    """
    on = partial(serving, postgres_url, upstream)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        servers: dict[int, Servers] = {LATENCIES_MS[0]: stack.enter_context(on())}
        usual = servers[LATENCIES_MS[0]]
        if "compare" in wanted:
            found["compare"] = compare(usual, rows, rounds, _say)
        if "stages" in wanted:
            found["stages"] = measure_stages(usual, max(1, round(rows * _STAGES_SHARE)), rounds, _say)
        if {"memory", "latency", "limits"} & set(wanted):
            prepare(usual, ())
            idle = [run(usual, PRODUCT, 1, f"idle-{number}") for number in range(rounds)]
        if "memory" in wanted:
            found["memory"] = memory(usual, idle, counts, rounds, _say)
        if "latency" in wanted:
            servers |= {ms: stack.enter_context(on(latency_ms=ms)) for ms in LATENCIES_MS[1:]}
            found["latency"] = latency(servers, idle, rows, rounds, _say)
        if "limits" in wanted:
            limited = partial(on, limits="on-demand")
            found["limits"] = limits(limited, idle, max(1, round(rows * _LIMITED_SHARE)), rounds, _say)
        if "scale" in wanted:
            slow = stack.enter_context(on(latency_ms=LATENCY_MS))
            found["scale"] = scale(slow, max(BLOCKS, round(rows * _SCALE_SHARE)), rounds, _say)
        if "startup" in wanted:
            found["startup"] = startup(rounds, _say)
        if "cold" in wanted:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            sam = installed_sam(folder)
            if sam is None:
                _say(f"cold starts are left out: {SAM_VARIABLE} names no environment with aws-sam-cli=={SAM_VERSION}")
            else:
                found["cold"] = cold(usual, build(sam, folder / "built"), rounds, _say)
    return figures.stamped(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print what was found, and keep it.

    Returns:
        The exit code: 1 where something was asked for that is not installed.
    """
    options = _parser().parse_args(arguments)
    wanted = _MEASUREMENTS if "all" in options.what else tuple(options.what or _USUALLY)
    with embedded() as (postgres_url, upstream):
        measured = measure(
            wanted,
            postgres_url,
            upstream,
            rows=_QUICK_ROWS if options.quick else options.rows,
            counts=(_QUICK_ROWS,) if options.quick else COUNTS,
            rounds=1 if options.quick else options.rounds,
        )
    document = measured if options.quick else figures.save(options.json, measured)
    sys.stdout.write(figures.tables({name: document[name] for name in measured}) + "\n")
    if options.plot:
        try:
            paths = plot(document, options.json.parent)
        except (ModuleNotFoundError, KeyError) as error:
            _say(f"nothing is drawn without {error}: pip install 'momento-etl[bench]', and measure compare and stages")
            return 1
        _say(f"drawn: {', '.join(map(str, paths))}")
    if options.readme:
        figures.fill_readme(ROOT / "README.md", document)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", nargs="*", choices=(*_MEASUREMENTS, "all"), help="default: compare and stages")
    add("--rows", type=int, default=200_000, help="rows of the table (default: %(default)s)")
    add("--rounds", type=int, default=5, help="medians of so many (default: %(default)s)")
    add("--json", type=Path, default=_HERE / "speed.json", help="where the figures are kept (default: %(default)s)")
    add("--plot", action="store_true", help="draw speed.png and speed.svg beside that file")
    add("--readme", action="store_true", help="put the tables into the README")
    add("--quick", action="store_true", help="tiny tables, one round, and nothing kept: whether it all works")
    return parser


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
