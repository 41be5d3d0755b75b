"""What the state table keeps, as data, and what is decided by it. Pure, but for ``host``, which asks this machine.

The table has one hash attribute, ``job``, and one range attribute, ``entry``; many jobs share it:

    lease                   who may load for this job now
    watermark               how far its incremental runs have come
    mark                    what the items of its ``replace`` runs carry
    run#RUN_ID              the history of one run
    progress#RUN_ID#PAGE    which chunks of one run are in the destination

and under the job ``#jobs`` one entry for each job that has a history, so that all of them can be listed without a scan,
which would read every run of every job.

Every document says its format. A newer one is refused, never guessed at.
"""

from __future__ import annotations

from etlcli.state.history import RunRecord, RunState, SchemaColumn, counts_of, schema_of
from etlcli.state.layout import DEFAULT_STATE_TABLE, STATE_KEY
from etlcli.state.lease import (
    LEASE_SECONDS,
    Claim,
    Held,
    Lease,
    LeaseRecord,
    LeaseWatch,
    Lost,
    Process,
    Processes,
    Standing,
    Taken,
)
from etlcli.state.mark import Mark
from etlcli.state.null import NullState
from etlcli.state.progress import chunks_left
from etlcli.state.watermark import Watermark, WatermarkEntry

__all__ = [
    "DEFAULT_STATE_TABLE",
    "LEASE_SECONDS",
    "STATE_KEY",
    "Claim",
    "Held",
    "Lease",
    "LeaseRecord",
    "LeaseWatch",
    "Lost",
    "Mark",
    "NullState",
    "Process",
    "Processes",
    "RunRecord",
    "RunState",
    "SchemaColumn",
    "Standing",
    "Taken",
    "Watermark",
    "WatermarkEntry",
    "chunks_left",
    "counts_of",
    "schema_of",
]
