"""The counters of a run. The core and its adapters count; the command line shows. Neither waits for the other."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

__all__ = ["Counters"]


@dataclass(slots=True)
class Counters:
    """Figures of one run, changed only from its event loop.

    Attributes:
        stage: What the run does just now, in words.
        rows_expected: The planner's estimate of the rows to come; None where there is none.
        rows_extracted: Rows that the source gave.
        rows_loaded: Items that the destination acknowledged.
        rows_rejected: Rows that the destination cannot hold.
        rows_dropped: Rows that a transform left out.
        rows_cached: Items in chunks that the cache acknowledged.
        chunks_stored: Chunks that the cache acknowledged.
        chunks_loaded: Chunks of which every item is in the destination.
        bytes_encoded: Bytes of encoded rows, before compression.
        bytes_cached: Bytes stored in the cache as chunks.
        momento_calls: Calls made to Momento, retries included.
        momento_operations: Metered operations: each element sent or received costs 1 per started 1,024 bytes.
        throttles: How often Momento or DynamoDB asked to slow down.
        throttle_reasons: How often DynamoDB did for each of its reasons, and each table or index; see
            ``etlcli.throttling.Reason``.
        retries: Calls made again after a dropped connection, a timeout or a passing error.
        snapshots: How many snapshots of the source were read.
        items_deleted: Items whose rows are gone, and that mode ``replace`` removed.
        requests_in_flight: Write requests that wait for their answer just now.
        rows_compared: Rows whose items were looked at by ``verify``.
        read_units: What looking at them consumed of the destination's read capacity, as far as it tells.
    """

    stage: str = "starting"
    rows_expected: int | None = None
    rows_extracted: int = 0
    rows_loaded: int = 0
    rows_rejected: int = 0
    rows_dropped: int = 0
    rows_cached: int = 0
    chunks_stored: int = 0
    chunks_loaded: int = 0
    bytes_encoded: int = 0
    bytes_cached: int = 0
    momento_calls: int = 0
    momento_operations: int = 0
    throttles: int = 0
    throttle_reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    retries: int = 0
    snapshots: int = 0
    items_deleted: int = 0
    requests_in_flight: int = 0
    rows_compared: int = 0
    read_units: float = 0.0

    def reset(self) -> None:
        """Begin anew, for another run through the same connections."""
        fresh = Counters()
        for it in fields(self):
            setattr(self, it.name, getattr(fresh, it.name))
