"""What happens to a policy while something else does: two who promote, a configuration read anew, a guard's fault."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from farthing.policies.guard import Bounds, Guard, Verdict
from farthing.proxy.app import Running, running
from farthing.proxy.config import Config, load
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_lanes import ADMIN, OFF, SHORTER, policy, told, until


async def test_two_who_promote_the_same_at_once_leave_a_way_back(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        before = (await told(proxy))["active"]["version"]
        asked = {"sections": SHORTER, "now": True}
        both = [proxy.client.post("/farthing/api/policy/promote", json=asked, headers=ADMIN) for _ in range(2)]
        answers = await asyncio.gather(*both)

        assert sorted(one.status_code for one in answers) == [200, 409]
        assert (await policy(proxy, "rollback"))["active"]["version"] == before


async def test_a_gate_that_takes_long_takes_no_changed_configuration_back(up: ScriptedUpstream, tmp_path: Path) -> None:
    proxies: list[Running] = []

    async def gate(config: Config, suite: str) -> str:
        active = proxies[0].services.config
        await proxies[0].reload(active.model_copy(update={"limits": active.limits.model_copy(update=LIMITS)}))
        return ""

    flags = {"state_dir": tmp_path, "server.port": 0, "upstream.url": up.url, "semantic.mode": "off"}
    async with running(load(None, {}, flags), gate=gate) as proxy, httpx.AsyncClient(base_url=proxy.url) as client:
        proxies.append(proxy)
        asked = {"sections": OFF | {"cache": {"ttl_s": 61}}, "now": True, "gate": "suite"}
        answer = await client.post("/farthing/api/policy/promote", json=asked, headers=ADMIN)
        config = proxy.lanes.active.config

    assert answer.status_code == 200
    assert (config.cache.ttl_s, config.limits.max_in_flight) == (61, LIMITS["max_in_flight"])


LIMITS = {"max_in_flight": 51}


class Faulty(Guard):
    faults = 1

    def verdict(self) -> Verdict:
        if self.faults:
            self.faults -= 1
            raise ArithmeticError("a fault of ours")
        return super().verdict()


async def test_a_guard_that_failed_once_is_asked_again(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        begun = await policy(proxy, "promote", sections=SHORTER, steps=[0.5, 1], hold_s=0, min_requests=1)
        going = proxy.running.policies.going
        assert going is not None
        guard = going.watch.guard = Faulty(Bounds(), 1)
        guard.begin(0.5)
        for number in range(10):
            await proxy.post(chat(f"{number}"))
        while guard.faults:  # asking what it says would meet the fault too
            await asyncio.sleep(0.05)
        now = await until(proxy, lambda found: found["candidate"] is None)

    assert guard.faults == 0
    assert now["active"]["version"] == begun["candidate"]["version"]
