"""Calls of a boto3 client, in a thread: with new credentials where the old ones have expired."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from botocore.exceptions import ClientError

from etlcli.sink.translate import Verdict, judge

__all__ = ["called"]

# As the writer.
_RENEWALS = 3


async def called(
    method: Callable[..., dict[str, Any]], renew: Callable[[], Awaitable[None]], **arguments: Any
) -> dict[str, Any]:
    """Call a client's method, once with each credentials that there are.

    Args:
        method: It blocks, under the client's own deadlines.
        renew: Looks for other credentials; raises where there are none.
        arguments: The method's.

    Raises:
        ClientError: DynamoDB refuses.
        BotoCoreError: Nothing usable was answered.
        ResponseParserError: The same.
    """
    for _ in range(_RENEWALS):
        try:
            return await asyncio.to_thread(method, **arguments)
        except ClientError as error:
            if judge(400, error.response.get("Error", {}).get("Code", "")) is not Verdict.EXPIRED:
                raise
        await renew()
    return await asyncio.to_thread(method, **arguments)
