"""What happens to a policy while something else does: two who promote, a configuration read anew, a guard's fault."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from farthing.policies.guard import Bounds, Guard, Verdict
from farthing.proxy.app import Running, running
from farthing.proxy.config import Config, load
from farthing.proxy.versions import Book
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_lanes import ADMIN, BROKEN, OFF, SHORTER, policy, told, until


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


class HungDisk:
    """Holds up what writes policies down until it is let go."""

    def __init__(self, book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
        self.came, self.go = threading.Event(), threading.Event()
        for name in ("keep", "note", "save"):
            monkeypatch.setattr(book, name, self._held(getattr(book, name)))

    def _held(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def held(*given: Any) -> Any:
            self.came.set()
            assert self.go.wait(100)
            return write(*given)

        return held


async def test_a_disk_that_hangs_delays_no_roll_back(
    up: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        policies = proxy.running.policies
        first = policies.standing.active
        disk, number = HungDisk(policies.book, monkeypatch), itertools.count()
        try:
            async with asyncio.timeout(60):
                begun = await policy(proxy, "promote", sections=SHORTER, steps=[0.3, 0.6, 1], hold_s=0, min_requests=1)
                assert disk.came.is_set()
                while (await told(proxy))["candidate"] is not None:  # the guard goes on, step by step, to its end
                    await proxy.post(chat(f"{next(number)}"))
                assert policies.standing.active == begun["candidate"]["version"]
                await policy(proxy, "promote", sections=BROKEN, steps=[0.5, 1], hold_s=600)
                back = asyncio.ensure_future(policies.roll_back(why="its answers are wrong"))
                await asyncio.sleep(0)
                assert proxy.running.lanes.candidate is None
                assert await back == begun["candidate"]["version"]
                assert await policies.roll_back() == first  # known from before, so that nothing has to be read
                assert (await proxy.post(chat("hi"))).headers["x-farthing-policy"] == first
        finally:
            disk.go.set()
    book = Book(tmp_path / "policies")
    standing = book.standing()
    assert standing is not None
    assert (standing.active, standing.rollout) == (first, None)
    assert [one["what"] for one in book.changes()] == [
        "rolled back to", "candidate rolled back", "roll-out begun", "roll-out finished", "step to 60%",
        "roll-out begun", "started",
    ]  # fmt: skip


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
