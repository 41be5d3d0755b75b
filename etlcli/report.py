"""What a run tells its caller when it is over, well or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from etlcli.model import Manifest, Mode, Reject, SchemaChange, WatermarkMove
from etlcli.progress import Counters
from etlcli.stopping import Stop

if TYPE_CHECKING:
    from etlcli.verification.findings import Verification

__all__ = ["Report"]


@dataclass(slots=True)
class Report:
    """Facts of one run, filled in as they become known, so that a failure can tell what it got to.

    Attributes:
        job: The job's name.
        cache: The cache's name.
        destination: The destination table; None for an extraction alone.
        run_id: The run's name, once it has one.
        manifest: The run's manifest, as last known.
        counters: Its figures.
        warnings: What the user should know.
        rejects: The first few rejected rows; all of them are in the cache.
        resumed: Whether it took up a run that had not ended.
        table_created: Whether the destination table was made now.
        mode: What becomes of items that are there already.
        schema_changes: How the source's columns differ from the last run's.
        watermark: What an incremental run begins with; None for a run that takes all.
        watermark_moved: Whether the watermark was set to where this run ended.
        verification: What comparing the destination with the rows came to; None where that was not done to its end.
        hear_rejects: Told of rejected rows as they are found, all of them and whole; None for nobody.
        stop: Whether the run is to end early.
    """

    job: str
    cache: str | None = None
    destination: str | None = None
    run_id: str | None = None
    manifest: Manifest | None = None
    counters: Counters = field(default_factory=Counters)
    warnings: list[str] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    resumed: bool = False
    table_created: bool = False
    mode: Mode = "upsert"
    schema_changes: list[SchemaChange] = field(default_factory=list)
    watermark: WatermarkMove | None = None
    watermark_moved: bool = False
    verification: Verification | None = None
    hear_rejects: Callable[[Sequence[Reject]], None] | None = None
    stop: Stop = field(default_factory=Stop)
