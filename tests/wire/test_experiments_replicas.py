"""Experiments of replicas over a real Valkey: one salt, one state of sums, one end."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.config import load
from farthing.proxy.experiment_agreed import AgreedSums
from farthing.proxy.experiment_data import Data
from farthing.proxy.experiments_replicas import SharedExperiments
from farthing.proxy.figures import columns
from farthing.proxy.outcomes import FILE, Change
from farthing.proxy.row import Row
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import ScriptedUpstream
from tests.fakes.valkey import ValkeyProcess
from tests.proxy.test_experiment_agreed import totals
from tests.wire.test_experiments import ADMIN, declared, rate, shorter, told, units

__all__ = ["shorter"]

WITHIN_S = 60.0


@dataclass
class Fleet:
    """Replicas over one server, each with a state directory of its own. `arms`: which policy each user had."""

    up: ScriptedUpstream
    valkey: ValkeyProcess
    root: Path
    replicas: list[Proxied] = field(default_factory=list)

    @asynccontextmanager
    async def replica(self, name: str, **settings: Any) -> AsyncIterator[Proxied]:
        state = self.root / name
        state.mkdir(exist_ok=True)
        (state / "secret").write_text(f"{'5a' * 32}\n")  # tenants are told apart alike
        given = {"store__url": self.valkey.url, "cache__mode": "off"} | settings
        async with proxied(self.up.url, state, **given) as proxy:
            yield proxy

    async def fill(self, stack: AsyncExitStack, names: str, **settings: Any) -> list[Proxied]:
        found = [await stack.enter_async_context(self.replica(name, **settings)) for name in names]
        self.replicas += found
        return found


@pytest.fixture
async def fleet(up: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Fleet]:
    with ValkeyProcess() as valkey:
        yield Fleet(up, valkey, tmp_path)


async def until(holds: Callable[[], Awaitable[Any]], what: str = "") -> Any:
    """What it gives, once that is true."""
    end = time.monotonic() + WITHIN_S
    while not (found := await holds()):
        assert time.monotonic() < end, what
        await asyncio.sleep(0.05)
    return found


async def latest(proxy: Proxied, name: str = "trial") -> Any:
    return next((one for one in (await told(proxy))["experiments"] if one["name"] == name), None)


def state(proxy: Proxied, name: str = "trial") -> list[Any]:
    """What it holds of what all agree upon."""
    if name not in proxy.running.experiments.going:
        return []
    return list(machine_of(proxy, name).slices())


def machine_of(proxy: Proxied, name: str = "trial") -> AgreedSums:
    experiments = proxy.running.experiments
    assert isinstance(experiments, SharedExperiments)
    return experiments.joined[experiments.going[name].record.id].machine


def all_ledgers(replicas: list[Proxied], name: str = "trial") -> Data:
    """What one farthing counts that is told all rows and words in the files of all of them."""
    shape = replicas[0].running.experiments.going[name].shape
    data = Data(shape.name, shape.arms, shape.unit, shape.since_s, shape.wanted, shape.most_units,
                Path("none"), shape.sliced, {}, shape.rest)  # fmt: skip
    for one in replicas:
        with closing(sqlite3.connect(one.state_dir / "ledger.db")) as conn:
            data.on_rows([Row._make(row) for row in conn.execute(f"select {columns()} from requests order by rowid")])
    for one in replicas:
        with closing(sqlite3.connect(one.state_dir / FILE)) as conn:
            words = conn.execute("select request_id, metric, value from outcomes").fetchall()
        data.on_changes([Change(request_id, metric, (), (value,)) for request_id, metric, value in words])
    return data


async def alike(replicas: list[Proxied], requests: int, name: str = "trial") -> list[Any]:
    """The state that all of them hold, once so many requests have been assigned in it and no word waits."""

    async def holds() -> list[Any]:
        states = [state(one, name) for one in replicas]
        first = states[0]
        count = sum(
            seen[-1]
            for piece in first
            if piece[0] == "sums" and piece[1][0] == "assigned" and piece[1][1][0] == "units"
            for seen in piece[1][1][1]
        )
        waits = any(piece[0] == "pool" for piece in first)
        return first if count == requests and not waits and all(one == first for one in states) else []

    found: list[Any] = await until(holds, f"{[state(one, name)[:3] for one in replicas]}")
    return found


async def policy(proxy: Proxied, user: str, text: str = "q") -> str:
    return str((await proxy.post(chat(text), x_farthing_user=user)).headers["x-farthing-policy"])


async def reading(proxy: Proxied, holds: Callable[[Any], bool], name: str = "trial") -> Any:
    async def found() -> Any:
        one = await latest(proxy, name)
        return one if one and one["reading"] and holds(one) else None

    return await until(found, f"{await latest(proxy, name)}")


async def test_a_user_is_in_one_arm_at_every_replica_and_all_count_all(fleet: Fleet, shorter: str) -> None:
    trial = declared(shorter, minimum_days=1, slices=["tag:team"])
    async with AsyncExitStack() as stack:
        three = await fleet.fill(stack, "xyz", experiments=trial)
        records = [await latest(one) for one in three]
        assert len({(one["id"], one["salt"], one["since_s"]) for one in records}) == 1
        arms: dict[str, str] = {}
        answers: dict[str, tuple[int, Any]] = {}
        for number in range(36):
            user = f"u{number % 18}"
            at = (number // 18 + number) % 3
            answer = await three[at].post(chat(f"q{number}"), x_farthing_user=user, x_farthing_tags="team=a")
            policy = answer.headers["x-farthing-policy"]
            assert arms.setdefault(user, policy) == policy, "behind a balancer nobody changes sides"
            answers[user] = at, answer
        assert len(set(arms.values())) == 2
        for number, (at, answer) in enumerate(answers.values()):  # and feedback goes wherever the balancer sends it
            await rate(three[(at + number) % 3], answer, "good" if number % 3 else "bad")
        await alike(three, 36)
        of = {arm["name"]: arm["version"] for arm in records[0]["arms"]}
        shares = {name: list(arms.values()).count(version) for name, version in of.items()}
        seen = [
            await reading(
                one,
                lambda one: (
                    units(one) == shares
                    and sum(one["reading"]["candidates"]["new"]["metrics"]["rating"]["units"]) == 18
                ),
            )
            for one in three
        ]
        whole = all_ledgers(three)
        assert all(totals(machine_of(one)) == totals(whole) for one in three)
        metrics = [one["reading"]["candidates"]["new"]["metrics"] for one in seen]
        assert metrics[0] == metrics[1] == metrics[2]
        rows = [row for one in three for row in await one.rows(12)]
        assert len([row for row in rows if row["experiment"] == "trial"]) == 36

        body = {"name": "trial", "why": "enough"}
        stopped = await three[1].client.post("/farthing/api/experiments/stop", json=body, headers=ADMIN)
        assert stopped.json()["state"] == "stopped"
        for one in three:
            ended = await until(lambda one=one: has_ended(one))
            assert (ended["state"], ended["why"], ended["ended_s"]) == ("stopped", "enough", stopped.json()["ended_s"])
            assert ended["reading"] == stopped.json()["reading"]

        async def gone() -> bool:
            return fleet.valkey.command("KEYS *:experiment:*}:[als]*").startswith(b"*0")

        await until(gone, "nothing is left of its sums")
    async with AsyncExitStack() as stack:
        x, w = await fleet.fill(stack, "xw", experiments=trial)  # a replica that was there, and a new one
        for one in (x, w):
            assert "has ended (stopped)" in (await told(one))["waiting"]["trial"]
            assert not one.running.lanes.divided
        assert await gone(), "nor does it come back"


async def has_ended(proxy: Proxied, name: str = "trial") -> Any:
    one = await latest(proxy, name)
    return one if one and one["state"] != "running" else None


async def test_a_replica_that_restarts_or_joins_takes_what_was_agreed_and_tells_what_it_had_not_told(
    fleet: Fleet, shorter: str
) -> None:
    trial = declared(shorter, minimum_days=1)
    async with AsyncExitStack() as stack:
        (x,) = await fleet.fill(stack, "x", experiments=trial)
        async with AsyncExitStack() as short:
            (y,) = await fleet.fill(short, "y", experiments=trial)
            arms = {f"u{n}": await policy((x, y)[n % 2], f"u{n}") for n in range(12)}
            answer = await y.post(chat("q"), x_farthing_user="u1")
            await rate(x, answer, "bad")
            await alike([x, y], 13)
            for n in range(6):  # told at its end, or by its next process
                await policy(y, f"u{n}")
            await y.rows(13)
        await alike([x], 19)
        await rate(x, answer, "good")  # x has said otherwise before; its replica is away, so the word waits

        async def waits() -> bool:
            return len(machine_of(x).pool) == 1

        await until(waits)
        y, z = await fleet.fill(stack, "yz", experiments=trial)
        await policy(z, "u20")
        await alike([x, y, z], 20)
        for one in (x, y, z):
            assert {user: await policy(one, user) for user in arms} == arms

            def once(one: Any) -> bool:
                rating = one["reading"]["candidates"]["new"]["metrics"]["rating"]
                return sum(rating["units"]) == 1 and 1.0 in (rating["control"], rating["candidate"])

            await reading(one, once)
        records = [await latest(one) for one in (x, y, z)]
        assert len({one["id"] for one in records}) == 1


async def test_what_is_said_last_of_a_request_counts_whichever_replica_heard_what_was_said_before(
    fleet: Fleet, shorter: str
) -> None:
    trial = declared(shorter, minimum_days=1)
    async with AsyncExitStack() as stack:
        three = await fleet.fill(stack, "xyz", experiments=trial)
        x, y, z = three
        for number in range(6):  # each request by one replica, first heard of by another, and set right by any
            answer = await x.post(chat(f"q{number}"), x_farthing_user=f"u{number}")
            for one, rating in ((y, "bad"), (z, "bad"), ((x, y, z)[number % 3], "good")):
                await rate(one, answer, rating)

        def once(one: Any) -> bool:
            rating = one["reading"]["candidates"]["new"]["metrics"]["rating"]
            means = {rating["control"], rating["candidate"]} - {None}
            return sum(rating["units"]) == 6 and means == {1.0}

        for one in three:
            await reading(one, once)
        await alike(three, 6)
        whole = all_ledgers([x])
        assert totals(machine_of(y))["assigned"] == totals(whole)["assigned"]
        sums = machine_of(y).sums.trackers["rating"]
        assert sum(one.units for one in sums.sums) == sum(one.a for one in sums.sums) == 6
        words = [seen.words for seen in sums._units.values()]
        assert words == [1] * 6, "one word of each request"


async def test_without_the_server_all_go_on_by_the_salt_they_have_and_who_starts_waits(
    fleet: Fleet, shorter: str
) -> None:
    trial = declared(shorter, minimum_days=1)
    async with AsyncExitStack() as stack:
        x, y = await fleet.fill(stack, "xy", experiments=trial, store__deadline_ms=200)
        arms = {f"u{n}": await policy((x, y)[n % 2], f"u{n}") for n in range(12)}
        before = await latest(x)
        await alike([x, y], 12)
        fleet.valkey.kill()
        for one in (x, y):
            assert {user: await policy(one, user) for user in arms} == arms
        (z,) = await fleet.fill(stack, "z", experiments=trial, store__deadline_ms=200)
        assert "can't be asked" in (await told(z))["waiting"]["trial"]
        active = z.running.policies.standing.active
        assert {await policy(z, user) for user in arms} == {active}
        fleet.valkey.start()  # empty: it stores nothing on disk
        await until(lambda: runs(z), "the one that waited takes the record of those that ran")
        await policy(z, "u0")
        await alike([x, y, z], 37)
        for one in (x, y, z):
            now = await latest(one)
            assert (now["id"], now["salt"], now["state"]) == (before["id"], before["salt"], "running")
            assert {user: await policy(one, user) for user in arms} == arms


async def test_what_is_ended_without_the_server_is_ended_for_all_when_it_is_back(fleet: Fleet, shorter: str) -> None:
    trial = declared(shorter, minimum_days=1)
    async with AsyncExitStack() as stack:
        x, y = await fleet.fill(stack, "xy", experiments=trial)
        await policy(x, "u1")
        await alike([x, y], 1)
        fleet.valkey.freeze()
        try:
            body = {"name": "trial", "why": "now"}
            stopped = await x.client.post("/farthing/api/experiments/stop", json=body, headers=ADMIN)
        finally:
            fleet.valkey.thaw()
        assert stopped.json()["state"] == "stopped"
        ended = await until(lambda: has_ended(y))
        assert (ended["state"], ended["why"]) == ("stopped", "now")


async def test_a_verdict_at_one_replica_is_everybodys_and_one_incident(fleet: Fleet, shorter: str) -> None:
    trial = declared(shorter, unit="request", metric="rating")
    async with AsyncExitStack() as stack:
        x, y = await fleet.fill(stack, "xy", experiments=trial)
        active = x.running.policies.standing.active
        for number in range(400):
            one, other = (x, y) if number % 2 else (y, x)
            answer = await one.post(chat(f"q{number}"))
            await rate(other, answer, "bad" if answer.headers["x-farthing-policy"] == active else "good")
            if number % 10 == 0 and (await latest(x))["state"] != "running":
                break
        found = [await until(lambda one=one: has_ended(one)) for one in (x, y)]
        assert found[0]["state"] == "decided"
        for name in ("id", "state", "why", "ended_s", "reading"):
            assert found[0][name] == found[1][name]
        told_of = [(await one.client.get("/farthing/api/incidents")).json()["incidents"] for one in (x, y)]
        assert sorted(map(len, told_of)) == [0, 1]
        await until(lambda: _texts(fleet.root, found[0]["id"]))


async def test_another_declaration_or_policy_waits_where_it_did_not_run_and_ends_it_where_it_did(
    fleet: Fleet, shorter: str
) -> None:
    async with AsyncExitStack() as stack:
        (x,) = await fleet.fill(stack, "x", experiments=declared(shorter))
        (y,) = await fleet.fill(stack, "y", experiments=declared(shorter, level=0.01))
        assert "runs at other replicas" in (await told(y))["waiting"]["trial"]
        first = (await latest(x))["id"]
        changed = load(None, {}, {"experiments": declared(shorter, level=0.01)}).experiments
        await x.running.reload(x.services.config.model_copy(update={"experiments": changed}))
        await until(lambda: runs(y))
        now = [await latest(one) for one in (x, y)]
        assert now[0]["id"] == now[1]["id"] != first
        old = load(None, {}, {"experiments": declared(shorter)}).experiments
        await y.running.reload(y.services.config.model_copy(update={"experiments": old}))
        await until(lambda: has_ended(x))  # x has another now, and doesn't end what y might run
        assert "has ended" in (await told(y))["waiting"]["trial"]


async def test_a_hold_out_is_one_over_replicas_and_another_with_each_policy(fleet: Fleet) -> None:
    given: dict[str, Any] = {"holdout__share": 0.5, "holdout__unit": "user", "compress__tidy": True,
                             "cache__mode": "exact", "holdout__arms": ["all-off"]}  # fmt: skip
    async with AsyncExitStack() as stack:
        x, y = await fleet.fill(stack, "xy", **given)
        arms = {f"u{n}": await policy((x, y)[n % 2], f"u{n}") for n in range(20)}
        assert len(set(arms.values())) == 2
        assert {user: await policy(y, user) for user in arms} == arms
        await alike([x, y], 40, "holdout")
        first = await latest(x, "holdout")
        asked = {"sections": {"semantic": {"mode": "off"}, "cache": {"ttl_s": 99}}, "now": True}
        await x.client.post("/farthing/api/policy/promote", json=asked, headers=ADMIN)

        async def begun(one: Proxied) -> Any:
            now = await latest(one, "holdout")
            return now if now["id"] != first["id"] and now["state"] == "running" else None

        second = await until(lambda: begun(x))
        waits = await until(lambda: _waits(y, "holdout"))
        assert "other policies" in waits
        await y.client.post("/farthing/api/policy/promote", json=asked, headers=ADMIN)
        assert (await until(lambda: begun(y)))["id"] == second["id"]


async def test_what_a_replica_answered_before_it_joined_is_in_no_arm_of_a_hold_out(fleet: Fleet) -> None:
    given: dict[str, Any] = {"compress__tidy": True, "cache__mode": "exact", "holdout__arms": ["all-off"]}
    async with AsyncExitStack() as stack:
        (x,) = await fleet.fill(stack, "x", holdout__share=0.5, **given)
        (y,) = await fleet.fill(stack, "y", **given)
        for n in range(5):
            await policy(y, f"u{n}")
        await y.rows(5)
        holdout = load(None, {}, {"holdout.share": 0.5, "holdout.arms": ["all-off"]}).holdout
        await y.running.reload(y.services.config.model_copy(update={"holdout": holdout}))
        assert await runs(y, "holdout")
        for n in range(4):
            await policy((x, y)[n % 2], f"u{n}")
        rows = len([row for one in (x, y) for row in await one.rows() if row["policy"]])
        assert rows == 9
        async with AsyncExitStack() as short:
            fleet.valkey.kill()
            (z,) = await fleet.fill(short, "z", holdout__share=0.5, **given)
            await policy(z, "u7")
            fleet.valkey.start()
            await until(lambda: runs(z, "holdout"))
            assert (await latest(z, "holdout"))["id"] == (await latest(x, "holdout"))["id"]
            await policy(z, "u8")

            async def counted() -> bool:
                found = [await latest(one, "holdout") for one in (x, y, z)]
                return all(one["reading"] and sum(units(one).values()) == 5 for one in found)

            await until(counted, "two at x, two at y, one at z")


async def test_a_server_that_has_lost_everything_is_told_again_what_has_ended(fleet: Fleet, shorter: str) -> None:
    trial = declared(shorter)
    async with fleet.replica("x", experiments=trial) as x:
        body = {"name": "trial", "why": "enough"}
        await x.client.post("/farthing/api/experiments/stop", json=body, headers=ADMIN)
    fleet.valkey.command("FLUSHALL")
    async with AsyncExitStack() as stack:
        (x,) = await fleet.fill(stack, "x", experiments=trial)
        (y,) = await fleet.fill(stack, "y", experiments=trial)
        for one in (x, y):
            assert "has ended (stopped)" in (await told(one))["waiting"]["trial"]


async def test_of_two_that_were_begun_while_the_server_had_lost_the_first_the_older_one_stands(
    fleet: Fleet, shorter: str
) -> None:
    trial = declared(shorter, minimum_days=1)
    async with AsyncExitStack() as stack:
        (x,) = await fleet.fill(stack, "x", experiments=trial)
        older = (await latest(x))["id"]
        experiments = x.running.experiments
        assert isinstance(experiments, SharedExperiments)
        async with experiments._lock:  # it doesn't look meanwhile
            fleet.valkey.command("FLUSHALL")
            (y,) = await fleet.fill(stack, "y", experiments=trial)
            younger = (await latest(y))["id"]
            assert younger != older

        async def joined() -> bool:
            going = y.running.experiments.going.get("trial")
            return going is not None and going.record.id == older

        await until(joined)
        assert (await latest(x))["id"] == older
        await policy(y, "u1")
        await policy(x, "u2")
        await alike([x, y], 2)


async def runs(proxy: Proxied, name: str = "trial") -> bool:
    return name in proxy.running.experiments.going


async def _waits(proxy: Proxied, name: str) -> str:
    return str((await told(proxy))["waiting"].get(name, ""))


async def _texts(root: Path, id: str) -> bool:
    return len(list(root.glob(f"*/experiments/{id}.txt"))) == 2
