"""Experiments of replicas that start, restart or join while the shared store is away, over a real Valkey."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest

from farthing.proxy.config import load
from farthing.proxy.experiments import Going
from farthing.proxy.experiments_replicas import SharedExperiments
from tests.fakes.proxying import chat
from tests.wire.test_experiments import ADMIN, declared, rate, shorter, told, units
from tests.wire.test_experiments_replicas import (
    Fleet,
    alike,
    fleet,
    has_ended,
    latest,
    machine_of,
    policy,
    reading,
    runs,
    until,
)  # fmt: skip

__all__ = ["fleet", "shorter"]


async def test_who_restarts_without_the_server_goes_on_with_what_ran_there_before(fleet: Fleet, shorter: str) -> None:
    trial = declared(shorter, minimum_days=1)
    async with AsyncExitStack() as stack:
        (x,) = await fleet.fill(stack, "x", experiments=trial)
        async with AsyncExitStack() as short:
            (y,) = await fleet.fill(short, "y", experiments=trial)
            arms = {f"u{n}": await policy((x, y)[n % 2], f"u{n}") for n in range(12)}
            rated = await y.post(chat("q"), x_farthing_user="u1")
            await alike([x, y], 13)
            before = await reading(y, lambda one: sum(units(one).values()) == 12)
        fleet.valkey.kill()
        (y,) = await fleet.fill(stack, "y", experiments=trial)
        assert "trial" not in (await told(y))["waiting"]
        assert {user: await policy(y, user) for user in arms} == arms
        await rate(x, rated, "bad")
        await rate(y, rated, "good")
        assert (await latest(y))["reading"]["shares"] == before["reading"]["shares"], "it says what it knew"
        fleet.valkey.start()  # empty: what it had is put back
        await alike([x, y], 25)
        for one in (x, y):
            now = await latest(one)
            assert (now["id"], now["salt"], now["state"]) == (before["id"], before["salt"], "running")
            assert {user: await policy(one, user) for user in arms} == arms
            assert sum(each.a for each in machine_of(one).sums.trackers["rating"].sums) == 1.0
        await alike([x, y], 49)


@pytest.mark.parametrize("forgets", [pytest.param(False, marks=pytest.mark.long), True])
async def test_what_had_ended_when_a_replica_restarted_without_the_server_ends_there_when_it_is_back(
    fleet: Fleet, shorter: str, forgets: bool
) -> None:
    """Also where the server knows nothing of it any more: then the one that ended it says so again."""
    trial = declared(shorter, minimum_days=1)
    async with AsyncExitStack() as stack:
        (x,) = await fleet.fill(stack, "x", experiments=trial)
        async with AsyncExitStack() as short:
            (y,) = await fleet.fill(short, "y", experiments=trial)
            for n in range(6):
                await policy((x, y)[n % 2], f"u{n}")
            await alike([x, y], 6)
        body = {"name": "trial", "why": "enough"}
        stopped = await x.client.post("/farthing/api/experiments/stop", json=body, headers=ADMIN)
        away, back = fleet.valkey.freeze, fleet.valkey.thaw
        if forgets:
            away, back = fleet.valkey.kill, fleet.valkey.start
        away()
        try:
            (y,) = await fleet.fill(stack, "y", experiments=trial)
            assert await runs(y)
            await policy(y, "u0")
        finally:
            back()
        ended = await until(lambda: has_ended(y))
        for name in ("id", "state", "why", "ended_s", "reading"):
            assert ended[name] == stopped.json()[name]
        active = y.running.policies.standing.active
        assert {await policy(y, f"u{n}") for n in range(6)} == {active}

        async def says_so() -> bool:
            return "has ended (stopped)" in str((await told(y))["waiting"].get("trial"))

        await y.running.experiments.apply()
        await until(says_so)
        assert (await latest(x))["state"] == "stopped"


async def test_what_is_answered_while_a_replica_joins_is_in_no_arm_of_a_hold_out(fleet: Fleet) -> None:
    """Its sums are fed already, and the parts aren't set yet."""
    given: dict[str, Any] = {"compress__tidy": True, "cache__mode": "exact", "holdout__arms": ["all-off"]}
    async with AsyncExitStack() as stack:
        (x,) = await fleet.fill(stack, "x", holdout__share=0.5, holdout__unit="user", **given)
        async with AsyncExitStack() as short:
            (y,) = await fleet.fill(short, "y", **given)
            experiments = y.running.experiments
            assert isinstance(experiments, SharedExperiments)
            go = experiments._go

            async def slowly(going: Going, *, resumed: bool) -> None:
                await go(going, resumed=resumed)
                for n in range(3):
                    await policy(y, f"u{n}")
                await y.rows(3)
                await until(all_read, "what was answered meanwhile is looked at before the parts are set")

            async def all_read() -> bool:
                last = (await y.rows())[-1]["id"]
                (joined,) = experiments.joined.values()
                place = joined.telling._rows._place
                return joined.telling.all_told and place is not None and bool(place[0] == last)

            experiments._go = slowly  # type: ignore[method-assign]
            holdout = load(
                None, {}, {"holdout.share": 0.5, "holdout.arms": ["all-off"], "holdout.unit": "user"}
            ).holdout
            await y.running.reload(y.services.config.model_copy(update={"holdout": holdout}))
            for n in range(4):
                await policy((x, y)[n % 2], f"u{n}")
            await until(all_read)
            await alike([x, y], 4, "holdout")
            id = (await latest(y, "holdout"))["id"]
            file = fleet.root / "y" / "experiments" / f"{id}.gaps"
            ((start, end),) = orjson.loads(file.read_bytes())
            rows = await y.rows(5)
            assert all(start <= row["ts"] < end for row in rows[:3]) and end <= rows[3]["ts"]
        file.write_bytes(orjson.dumps([[start, None]]))  # as if it had been killed before it wrote the end
        (y,) = await fleet.fill(stack, "y", holdout__share=0.5, holdout__unit="user", **given)
        await policy(y, "u1")
        await alike([x, y], 5, "holdout")
