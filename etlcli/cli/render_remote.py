"""What people see of a run by the Lambda functions before there is one."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from rich.console import Group, RenderableType
from rich.text import Text

from etlcli.cli.blocks import plain_table
from etlcli.cli.render import size
from etlcli.cli.render_plan import duration, money
from etlcli.forecast import Remote, RemoteBill

__all__ = ["remote_text"]


def remote_text(remote: Remote, bill: RemoteBill, *, exact: bool) -> RenderableType:
    """Render what a run by the functions would do: a line for each thing, and what it follows from.

    Args:
        remote: What is predicted.
        bill: What it costs.
        exact: Whether all rows were read that it is predicted from.
    """
    table = plain_table(f"In AWS, by the Lambda functions{'' if exact else ' (an estimate)'}")
    table.add_column("")
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    table.show_header = False
    for line in _lines(remote):
        table.add_row(*line)
    table.add_section()
    for name, amount, basis in _costs(remote, bill):
        table.add_row(name, money(amount), basis, style="bold" if name == "cost" else "")
    return Group(Text(), table)


def _lines(remote: Remote) -> Iterator[tuple[str, str, str]]:
    per_range, per_block = remote.work.rows / remote.ranges, remote.ranges / remote.blocks
    yield "rows", f"{remote.work.rows:,}", f"{size(remote.work.bytes_stored)} in the cache"
    yield "ranges", f"{remote.ranges:,}", f"about {per_range:,.0f} rows each"
    yield "blocks", f"{remote.blocks:,}", f"about {per_block:,.0f} {'range' if per_block < 1.5 else 'ranges'} each"
    asked = remote.asked.concurrency
    bounded = "" if asked == remote.concurrency else f", not {asked:,}: more would have too small a share"
    if asked > remote.blocks == remote.concurrency:
        bounded = ", since there are no more blocks"
    yield "at once", f"{remote.concurrency:,}", f"blocks{bounded}"
    share = size(remote.shares.cached_bytes)
    yield (
        "calls a block",
        f"{remote.rounds + remote.loads:,}",
        f"{remote.rounds:,} rounds of up to {share} in the cache",
    )
    waits = {
        "functions": (remote.functions_seconds, "the functions' own work"),
        "dynamodb": (
            remote.write_seconds,
            f"{remote.work.write_units:,} write units at {remote.limits.write_units:,}/s",
        ),
        "momento": (
            remote.momento_seconds,
            f"{remote.momento_operations:,} operations at {remote.limits.momento_operations:,}/s",
        ),
    }
    yield "time", duration(remote.seconds), f"at least; it waits for {waits[remote.bounded_by][1]}"
    for name, (seconds, basis) in waits.items():
        if name != remote.bounded_by:
            yield "", duration(seconds), basis
    if remote.enough < remote.concurrency:
        yield "", f"{remote.enough:,}", "at once would do, too; calls that wait are paid"


def _costs(remote: Remote, bill: RemoteBill) -> Iterator[tuple[str, Decimal, str]]:
    services = bill.services
    yield "cost", bill.total, ""
    yield "  DynamoDB", services.dynamodb_write, f"{remote.work.write_units:,} write units"
    if services.dynamodb_read:
        yield (
            "",
            services.dynamodb_read,
            f"{remote.work.read_units:,} read units, to look for items whose rows are gone",
        )
    yield "  Momento", services.momento_transfer, f"{remote.momento_operations:,} metered operations"
    compute = bill.lambda_compute + bill.lambda_requests
    yield "  Lambda", compute, f"{remote.gb_seconds:,.0f} GB-seconds in {remote.lambda_calls:,} calls"
    yield "  Step Functions", bill.state_transitions, f"{remote.transitions:,} state transitions"
