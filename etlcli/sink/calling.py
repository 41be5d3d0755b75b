"""Calls of a boto3 client, in a thread: with new credentials where the old ones have expired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from etlcli.sink.translate import Verdict, judge

if TYPE_CHECKING:
    from etlcli.sink.credentials import Credentials

__all__ = ["called"]

# As the writer: a chain without new credentials gives the old ones again.
_RENEWALS = 3


async def called(method: Callable[..., dict[str, Any]], credentials: Credentials, **arguments: Any) -> dict[str, Any]:
    """Call a client's method; with expired credentials, again with new ones.

    Args:
        method: It blocks, under the client's own deadlines.
        credentials: What the client signs with.
        arguments: The method's.

    Raises:
        ClientError: DynamoDB refuses.
        BotoCoreError: Nothing usable was answered.
        ResponseParserError: The same.
        SinkError: The credentials have expired, and there are no new ones.
        Unavailable: The same, and new ones cannot be had just now.
    """
    for _ in range(_RENEWALS):
        signer = await credentials.current()
        try:
            return await asyncio.to_thread(method, **arguments)
        except ClientError as error:
            if judge(400, error.response.get("Error", {}).get("Code", "")) is not Verdict.EXPIRED:
                raise
        await credentials.renew(signer)
    return await asyncio.to_thread(method, **arguments)
