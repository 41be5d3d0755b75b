"""Which jobs a command line asks for, where that takes a look at the source."""

from __future__ import annotations

from etlcli.config import Choice, Request, Settings, choose
from etlcli.progress import Counters

__all__ = ["jobs_to_run"]


async def jobs_to_run(settings: Settings, request: Request) -> list[Choice]:
    """Resolve the jobs that are asked for; the source is asked only where they are a schema's tables.

    Raises:
        UsageError: One of them is not as it should be, they exclude each other, or there is no such schema.
        EtlError: The source cannot be asked.
    """
    from etlcli import wiring

    source = wiring.open_source(settings, Counters())
    return choose(settings, request, await source.tables(request.schema) if request.schema is not None else ())
