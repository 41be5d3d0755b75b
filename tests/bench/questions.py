"""How a server in a process of its own is asked for its counts: a line on stdin, a line of JSON on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["answer_questions"]


async def answer_questions(address: str, answer: Callable[[], Mapping[str, Any]]) -> None:
    """Tell where the server is, then answer each line on stdin until that ends.

    So a server never outlives whoever started it, however that came to its end.

    Args:
        address: Printed first, once the server listens.
        answer: Gives the counts; the milliseconds of processor time that it used are added.
    """
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    _say(address)
    while await lines.readline():
        _say(json.dumps({**answer(), "cpu_ms": round(time.process_time() * 1000)}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
