"""What checks come to, without any service: order, patience, what a failure becomes, clocks and addresses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from rich.console import Console

from etlcli.cli.render_doctor import CheckLine
from etlcli.doctor import Check, Checkup, examine, judge_clock, refuse_failures, summed_up
from etlcli.errors import SourceError, TerminalError, Unavailable
from etlcli.source.server import Server, pooler_named


def giving(*checks: Check, error: Exception | None = None, after: asyncio.Event | None = None) -> Checkup:
    async def checkup() -> AsyncIterator[Check]:
        if after is not None:
            await after.wait()
        for check in checks:
            yield check
        if error is not None:
            raise error

    return checkup


OK = Check("source", "reachable", "ok", "answers")
ALSO = Check("cache", "reachable", "ok", "answers")


def test_services_are_told_in_order_whichever_is_done_first() -> None:
    async def main() -> None:
        late = asyncio.Event()
        told: list[Check] = []

        async def second() -> AsyncIterator[Check]:
            yield ALSO
            late.set()

        found = await examine({"source": giving(OK, after=late), "cache": second}, told.append)
        assert found == told == [OK, ALSO]

    asyncio.run(main())


def test_an_error_is_a_failed_check_after_what_was_found() -> None:
    async def main() -> None:
        refusal = SourceError("no", hint="ask")
        gone = Unavailable("gone", hint="wait")
        found = await examine({"source": giving(OK, error=refusal), "cache": giving(error=gone)}, lambda _: None)
        assert found == [
            OK,
            Check("source", "allowed", "failed", "no", "ask"),
            Check("cache", "reachable", "failed", "gone", "wait"),
        ]

    asyncio.run(main())


def test_one_that_does_not_end_is_ended() -> None:
    async def main() -> None:
        never = asyncio.Event()
        found = await examine({"source": giving(after=never), "cache": giving(ALSO)}, lambda _: None, 0.01)
        assert [check.status for check in found] == ["failed", "ok"]
        assert "the checks were not done within 0.01 seconds" in found[0].message
        assert found[0].hint

    asyncio.run(main())


def test_a_defect_is_no_check() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(examine({"source": giving(error=KeyError("x"))}, lambda _: None))
    assert isinstance(raised.value.exceptions[0], KeyError)


def test_what_failed_is_named_once() -> None:
    refuse_failures([OK, Check("cache", "clock", "warning", "slow")])
    bad = Check("state", "allowed", "failed", "no")
    with pytest.raises(TerminalError) as raised:
        refuse_failures([OK, bad, bad, Check("cache", "login", "failed", "no")])
    assert raised.value.message == "3 checks failed: state allowed, cache login"
    assert summed_up([OK, bad, Check("cache", "clock", "warning", "")]) == "3 checks: 1 failed, 1 warning"
    assert raised.value.hint


@pytest.mark.parametrize(
    ("ahead", "status"),
    [
        (0.0, "ok"),
        (-1.2, "ok"),
        (29.0, "ok"),
        (31.0, "warning"),
        (-31.0, "warning"),
        (300.0, "failed"),
        (-9e6, "failed"),
    ],
)
def test_clocks(ahead: float, status: str) -> None:
    check = judge_clock("destination", ahead)
    assert check.status == status
    assert bool(check.hint) == (status != "ok")
    assert check.facts == {"clock_ahead_seconds": round(ahead)}
    if status != "ok":
        assert ("ahead of" if ahead > 0 else "behind") in check.message


@pytest.mark.parametrize(
    ("host", "name", "direct"),
    [
        ("ep-cool-sun-123-pooler.eu-central-1.aws.neon.tech", "Neon", "ep-cool-sun-123.eu-central-1.aws.neon.tech"),
        ("EP-X-Pooler.c-2.us-east-1.aws.neon.tech", "Neon", "ep-x.c-2."),
        ("aws-0-eu-central-1.pooler.supabase.com", "Supabase", "5432"),
        ("shop.proxy-abc123.eu-west-1.rds.amazonaws.com", "RDS Proxy", "database itself"),
    ],
)
def test_poolers_by_their_address(host: str, name: str, direct: str) -> None:
    found = pooler_named(host)
    assert found is not None
    assert name in found.name
    assert direct in found.direct


@pytest.mark.parametrize(
    "host",
    ["localhost", "", "/var/run/postgresql", "db-pooler.example.org", "ep-x.eu.aws.neon.tech", "x.rds.amazonaws.com"],
)
def test_other_addresses_are_no_poolers(host: str) -> None:
    assert pooler_named(host) is None


@pytest.mark.parametrize(
    ("host", "near"),
    [("/tmp", True), ("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("db.org", False)],
)
def test_what_stays_on_this_machine(host: str, near: bool) -> None:
    server = Server(
        "18.1",
        "u",
        is_replica=False,
        max_connections=100,
        host=host,
        port=5432,
        is_encrypted=False,
        is_behind_pooler=False,
    )
    assert server.is_near == near


BAD = Check("destination", "encryption", "failed", "not \x1b[31m so " + "long " * 30, "Do this.\nThen that.")


@pytest.mark.parametrize("width", [30, 80, 120])
def test_a_line_fits_the_screen(width: int) -> None:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(CheckLine(BAD))
    lines = captured.get().splitlines()
    assert all(len(line) <= width for line in lines), lines
    assert "\x1b[31m" not in captured.get()
    assert "hint: Do this." in captured.get()
    assert " ".join(lines).split()[:3] == ["failed", "destination", "encryption"]


def test_in_a_log_a_check_is_one_line_and_its_hint_another() -> None:
    console = Console(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(CheckLine(BAD), crop=False)
    assert len(captured.get().splitlines()) == 3
