"""Processes that share answers: one of them asks, and one that is killed is replaced."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.fakes.crew import ask
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import scripted
from tests.fakes.valkey import ValkeyProcess
from tests.scenario.test_serve import serving

LEASE_S = 1.0
ANSWER_S = 0.5


def state_of(path: Path) -> Path:
    """A replica's state directory, with the secret that all have."""
    (path / "state").mkdir(parents=True)
    (path / "state" / "secret").write_text(f"{'5a' * 32}\n")
    return path / "state"


async def test_a_replica_that_is_killed_while_it_asks_is_replaced_within_the_lease(tmp_path: Path) -> None:
    """It is a process, since only one that is killed says nothing of its end; the others live in this one."""
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(ValkeyProcess())
        up = await stack.enter_async_context(scripted())
        state_of(tmp_path / "x")
        settings = {
            "FARTHING_STORE__URL": valkey.url,
            "FARTHING_STORE__DEADLINE_MS": "5000",
            "FARTHING_CACHE__JOIN_LEASE_S": str(LEASE_S),
        }
        leader, first = await stack.enter_async_context(serving(up, tmp_path / "x", **settings))
        others = [
            await stack.enter_async_context(
                proxied(
                    up.url,
                    state_of(tmp_path / name),
                    store__url=valkey.url,
                    store__deadline_ms=5000,
                    cache__join_lease_s=LEASE_S,
                )
            )
            for name in "yz"
        ]
        first.headers["Authorization"] = "Bearer sk-one"

        up.default.wait_s = 30.0
        lost = asyncio.create_task(ask(first, "the same"))
        while not up.calls:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(one.post(chat("the same"))) for one in others for _ in range(10)]
        await asyncio.sleep(2 * LEASE_S)  # it is renewed
        assert len(up.calls) == 1

        up.default.wait_s = ANSWER_S
        leader.kill()
        killed = time.monotonic()
        answers = await asyncio.gather(*waiting)
        took_s = time.monotonic() - killed
        with pytest.raises(httpx.HTTPError):
            await lost
        assert {one.status_code for one in answers} == {200}
        assert {one.headers["x-farthing-cache"] for one in answers} == {"joined", "miss"}
        assert len(up.calls) == 2, "one of those who waited asked, and the others waited for that one"
        assert took_s < LEASE_S + ANSWER_S + 1.0, "a busy machine takes some time of its own"
