"""`python -m etlcli.local.momento`: the server alone, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from etlcli.errors import EtlError
from etlcli.local.momento.limits import PRESETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from etlcli.local.momento.server import MomentoServer


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server.

    Args:
        arguments: The command line; None for the process's own.

    Returns:
        The exit code: 0 after a signal, 1 where the port is taken.
    """
    options = _parser().parse_args(arguments)
    # gRPC's core writes its own lines about a taken port; ours says it better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from etlcli.local.momento.server import run

    def ready(server: MomentoServer) -> None:
        sys.stdout.write(f"Momento server on {server.host}:{server.port}, limits: {options.limits}\n")
        sys.stdout.flush()

    try:
        run(options.port, PRESETS[options.limits], host=options.host, ready=ready)
    except EtlError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return int(error.exit_code)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m etlcli.local.momento",
        description="A Momento-compatible server for development. It asks for no credentials.",
    )
    parser.add_argument("--port", type=int, default=8080, help="port; 0 for a free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address (default: %(default)s)")
    parser.add_argument("--limits", choices=sorted(PRESETS), default="none", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
