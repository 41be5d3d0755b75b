"""Runs in blocks as a state machine drives them: plan, each block in a loop while there is more, finish."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from etlcli.blocks.calls import Extracted, Loaded, Planned, RunCall
from etlcli.blocks.extracting import extract_block
from etlcli.blocks.finishing import finish_run
from etlcli.blocks.loading import load_block
from etlcli.blocks.planning import Spread, plan_run
from etlcli.errors import TransientError
from etlcli.model import CREATE_DEFAULTS
from etlcli.report import Report
from tests.integration.world import World

__all__ = ["ROUNDS", "Driver"]

T = TypeVar("T")

ROUNDS = 500
"""After so many calls for one block it surely goes round in circles."""


@dataclass
class Driver:
    """One execution of the state machine.

    Attributes:
        world: What it works on.
        execution: Its name.
        spread: How the run is spread.
        share: What a block may store, in place of what the plan says.
        kept: What it may leave there, in place of what the plan says.
        tries: How often a call is given that fails in passing.
        on_call: Hears of each call before it is given, with its report; may return a world to give it in.
        reports: Those of all calls that came to their end.
        calls: How many calls each block took.
    """

    world: World
    execution: str = "execution-1"
    spread: Spread = field(default_factory=lambda: Spread(concurrency=3, ranges=4))
    share: int | None = None
    kept: int | None = None
    tries: int = 1
    on_call: Callable[[str, Report], World | None] = lambda _name, _report: None
    reports: list[Report] = field(default_factory=list)
    calls: dict[int, int] = field(default_factory=dict)

    async def _give(self, name: str, call: Callable[[World, Report], Awaitable[T]]) -> T:
        for left in reversed(range(self.tries)):
            report = Report(self.world.job.name)
            world = self.on_call(name, report) or self.world
            world.report = report
            try:
                answer = await call(world, report)
            except TransientError:
                if not left:
                    raise
            else:
                self.reports.append(report)
                return answer
        raise AssertionError("never")

    async def plan(self) -> Planned:
        async def call(world: World, report: Report) -> Planned:
            return await plan_run(
                world.job,
                world.recipe,
                CREATE_DEFAULTS,
                self.spread,
                self.execution,
                world.source,
                world.cache,
                world.sink(),
                world.state,
                report,
            )

        planned = await self._give("plan", call)
        changes: dict[str, Any] = {}
        if self.share is not None:
            changes["cached_bytes"] = self.share
        if self.kept is not None:
            changes["kept_bytes"] = self.kept
        return replace(planned, call=replace(planned.call, **changes))

    async def extract(self, run: RunCall, block: int, told: str = "", lost: tuple[int, ...] = ()) -> Extracted:
        async def call(world: World, report: Report) -> Extracted:
            return await extract_block(
                run, block, told, lost, world.job, world.recipe, world.source, world.cache, world.state, report
            )

        return await self._give(f"extract {block}", call)

    async def load(self, run: RunCall, block: int, told: str) -> Loaded:
        async def call(world: World, report: Report) -> Loaded:
            return await load_block(run, block, told, world.job, world.cache, world.sink(), world.state, report)

        return await self._give(f"load {block}", call)

    async def work(self, run: RunCall, block: int) -> None:
        """Do a block as the state machine does."""
        lost: tuple[int, ...] = ()
        told, step = "", "extract"
        for self.calls[block] in range(1, ROUNDS):
            if step == "extract":
                told, lost, step = (await self.extract(run, block, told, lost)).ledger, (), "load"
                continue
            done = await self.load(run, block, told)
            told, lost = done.ledger, done.lost
            if not done.more:
                return
            step = "extract" if done.reads else "load"
        raise AssertionError(f"block {block} goes round in circles")

    async def finish(self, run: RunCall) -> Report:
        async def call(world: World, report: Report) -> Report:
            await finish_run(run, world.job, world.cache, world.sink(), world.state, report)
            return report

        return await self._give("finish", call)

    async def blocks(self, planned: Planned, *, at_once: bool = False) -> None:
        if not at_once:
            for block in planned.blocks:
                await self.work(planned.call, block)
            return
        gate = asyncio.Semaphore(planned.concurrency)

        async def one(block: int) -> None:
            async with gate:
                await self.work(planned.call, block)

        async with asyncio.TaskGroup() as group:
            for block in planned.blocks:
                group.create_task(one(block))

    async def run(self, *, at_once: bool = False) -> Report:
        """Do all of it."""
        planned = await self.plan()
        await self.blocks(planned, at_once=at_once)
        return await self.finish(planned.call)
