"""A forecast as the object that programs read: names that stay, numbers as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from etlcli.encoding import hint_of
from etlcli.forecast.bill import Bill, RemoteBill, Timing
from etlcli.forecast.figures import Forecast
from etlcli.forecast.remote import MEMORY_MB, Remote
from etlcli.model import Job, Manifest

__all__ = ["facts_of", "remote_facts", "sum_of"]

_MICRODOLLAR = Decimal("0.000001")


def facts_of(
    job: Job, manifest: Manifest, forecast: Forecast, timing: Timing, bill: Bill, price_sources: dict[str, str]
) -> dict[str, Any]:
    """Write down what a run would do.

    Args:
        job: The job.
        manifest: The rehearsed run's.
        forecast: What is predicted.
        timing: How long it takes at least.
        bill: What it costs.
        price_sources: Where each price comes from.
    """
    usage = forecast.usage
    return {
        "exact": forecast.exact,
        "rows_read": forecast.sample.rows,
        "source": manifest.source,
        "columns": len(manifest.columns),
        "key": [{"name": attribute.name, "type": attribute.type} for attribute in manifest.key.attributes],
        "source_key": list(manifest.source_key),
        "mode": job.mode,
        "layout": job.layout,
        "duplicates_checked": forecast.checks_duplicates,
        "rows": {
            "extracted": usage.rows_extracted,
            "loaded": usage.rows_loaded,
            "rejected": usage.rows_rejected,
            "dropped": usage.rows_dropped,
        },
        "rejects": [
            {
                "rule": count.rule,
                "rows": count.rows,
                "hint": hint_of(count.rule),
                "examples": [{"message": example.message, "row": example.row} for example in count.examples],
            }
            for count in forecast.rejects
        ],
        "cache": {
            "chunks": usage.chunks,
            "chunks_freed": usage.chunks_freed,
            "bytes_encoded": usage.bytes_encoded,
            "bytes_stored": usage.bytes_stored,
            "calls": forecast.momento_calls,
            "operations": forecast.momento_operations,
            "max_cached_bytes": job.max_cached_bytes,
            "extract_fits": forecast.fits_extract,
        },
        "destination": {
            "exists": forecast.table_exists,
            "items": forecast.table_items,
            "writes": usage.rows_loaded,
            "write_units": forecast.write_units,
            "read_units": forecast.read_units,
            "max_deletes": str(job.max_deletes) if job.mode == "replace" else None,
        },
        "time": {
            "seconds": round(timing.seconds, 1),
            "bounded_by": timing.bounded_by,
            "momento_seconds": round(timing.momento_seconds, 1),
            "momento_limit": timing.limits.momento_operations,
            "write_seconds": round(timing.write_seconds, 1),
            "write_limit": timing.limits.write_units,
        },
        "cost": {
            "currency": "USD",
            "total": _money(bill.total),
            "dynamodb_write": _money(bill.dynamodb_write),
            "dynamodb_read": _money(bill.dynamodb_read),
            "momento_transfer": _money(bill.momento_transfer),
            "prices": {name: source for name, source in price_sources.items() if hasattr(bill, name)},
        },
        "remote": None,
        "would_fail": None if forecast.verdict is None else forecast.verdict._asdict(),
    }


def remote_facts(remote: Remote, bill: RemoteBill, price_sources: dict[str, str]) -> dict[str, Any]:
    """Write down what a run by the Lambda functions would do.

    Args:
        remote: What is predicted.
        bill: What it costs.
        price_sources: Where each price comes from.
    """
    return {
        "rows": remote.work.rows,
        "ranges": remote.ranges,
        "blocks": remote.blocks,
        "concurrency": remote.concurrency,
        "concurrency_asked": remote.asked.concurrency,
        "concurrency_enough": remote.enough,
        "rounds_per_block": remote.rounds,
        "calls_per_block": remote.rounds + remote.loads,
        "chunks": remote.chunks,
        "call_cached_bytes": remote.shares.cached_bytes,
        "momento_operations": remote.momento_operations,
        "write_units": remote.work.write_units,
        "lambda": {
            "calls": remote.lambda_calls,
            "memory_mb": MEMORY_MB,
            "gb_seconds": round(remote.gb_seconds, 1),
        },
        "state_transitions": remote.transitions,
        "time": {
            "seconds": round(remote.seconds, 1),
            "bounded_by": remote.bounded_by,
            "block_seconds": round(remote.block_seconds, 1),
            "functions_seconds": round(remote.functions_seconds, 1),
            "momento_seconds": round(remote.momento_seconds, 1),
            "momento_limit": remote.limits.momento_operations,
            "write_seconds": round(remote.write_seconds, 1),
            "write_limit": remote.limits.write_units,
        },
        "cost": {
            "currency": "USD",
            "total": _money(bill.total),
            "dynamodb_write": _money(bill.services.dynamodb_write),
            "dynamodb_read": _money(bill.services.dynamodb_read),
            "momento_transfer": _money(bill.services.momento_transfer),
            "lambda_compute": _money(bill.lambda_compute),
            "lambda_requests": _money(bill.lambda_requests),
            "state_transitions": _money(bill.state_transitions),
            "prices": dict(price_sources),
        },
        "problems": remote.problems,
    }


def sum_of(plans: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Add up what several runs would do, one after the other; None where there is none."""
    if not plans:
        return None

    def added(part: str, *names: str) -> dict[str, Any]:
        return {name: sum(plan[part][name] for plan in plans) for name in names}

    return {
        "exact": all(plan["exact"] for plan in plans),
        "rows_read": sum(plan["rows_read"] for plan in plans),
        "rows": added("rows", "extracted", "loaded", "rejected", "dropped"),
        "cache": added("cache", "chunks", "bytes_encoded", "bytes_stored", "calls", "operations"),
        "destination": added("destination", "writes", "write_units", "read_units"),
        "time": {"seconds": round(added("time", "seconds")["seconds"], 1)},
        "cost": {
            "currency": "USD",
            **{
                name: round(amount, 6)
                for name, amount in added(
                    "cost", "total", "dynamodb_write", "dynamodb_read", "momento_transfer"
                ).items()
            },
        },
    }


def _money(amount: Decimal) -> float:
    """Write an amount to the millionth of a dollar."""
    return float(amount.quantize(_MICRODOLLAR))
