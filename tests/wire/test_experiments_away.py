"""Experiments of replicas that start, restart or join while the shared store is away, over a real Valkey."""

from __future__ import annotations

from contextlib import AsyncExitStack

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


async def test_what_had_ended_when_a_replica_restarted_without_the_server_ends_there_when_it_is_back(
    fleet: Fleet, shorter: str
) -> None:
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
        fleet.valkey.freeze()
        try:
            (y,) = await fleet.fill(stack, "y", experiments=trial)
            assert await runs(y)
            await policy(y, "u0")
        finally:
            fleet.valkey.thaw()
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
