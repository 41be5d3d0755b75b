"""The embedded Momento server in a process of its own, whose meter can be asked.

    python -m tests.bench.cache_server --limits none

It prints its address, and answers each line on stdin with the calls and metered operations since it began.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress

from etlcli.local.momento.limits import PRESETS, Limits
from etlcli.local.momento.server import serve
from tests.bench.questions import answer_questions

__all__ = ["main"]


async def _serve(limits: Limits) -> None:
    async with serve(limits=limits) as server:
        meter = server.meter
        await answer_questions(server.address, lambda: {"calls": meter.calls, "operations": meter.operations})


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(description="The embedded Momento server, whose meter can be asked.")
    parser.add_argument("--limits", choices=sorted(PRESETS), default="none", help="default: %(default)s")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(PRESETS[parser.parse_args().limits]))


if __name__ == "__main__":
    main()
