"""Processes that share answers, as processes: one of them asks, and one that is killed is replaced."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from tests.fakes.crew import ask, crew_of
from tests.fakes.upstream import scripted
from tests.fakes.valkey import ValkeyProcess
from tests.scenario.test_serve import serving

LEASE_S = 1.0
ANSWER_S = 0.5


async def test_a_replica_that_is_killed_while_it_asks_is_replaced_within_the_lease(tmp_path: Path) -> None:
    """Slow, for three processes: a killed one is the only one that says nothing of its end."""
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(ValkeyProcess())
        up = await stack.enter_async_context(scripted())
        settings = {"FARTHING_STORE__URL": valkey.url, "FARTHING_CACHE__JOIN_LEASE_S": str(LEASE_S)}
        found = []
        for name in "xyz":
            cwd = tmp_path / name
            (cwd / "state").mkdir(parents=True)
            (cwd / "state" / "secret").write_text(f"{'5a' * 32}\n")
            found.append(await stack.enter_async_context(serving(up, cwd, **settings)))
        (leader, first), *others = found

        up.default.wait_s = 30.0
        lost = asyncio.create_task(ask(first, "the same"))
        while not up.calls:
            await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(ask(client, "the same")) for _, client in others for _ in range(10)]
        await asyncio.sleep(2 * LEASE_S)  # it is renewed
        assert len(up.calls) == 1

        up.default.wait_s = ANSWER_S
        leader.kill()
        killed = time.monotonic()
        answers = await asyncio.gather(*waiting)
        took_s = time.monotonic() - killed
        assert {one.status_code for one in answers} == {200}
        assert sorted({one.headers["x-farthing-cache"] for one in answers}) == ["joined", "miss"]
        assert len(up.calls) == 2, "one of those who waited asked, and the others waited for that one"
        assert took_s < LEASE_S + ANSWER_S + 1.0, "a busy machine takes some time of its own"
        with pytest.raises(httpx.HTTPError):
            await lost


async def test_workers_without_a_server_ask_once_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    async with scripted() as up, crew_of(3, up, tmp_path, FARTHING_CACHE__JOIN_LEASE_S=str(LEASE_S)) as crew:
        clients = [crew.fresh() for _ in range(24)]
        try:
            up.default.wait_s = 0.5
            answers = await asyncio.gather(*(ask(one, "the same") for one in clients))
            assert {one.status_code for one in answers} == {200} and len(up.calls) == 1
            assert {one.headers["x-farthing-cache"] for one in answers} == {"miss", "joined"}
            assert len([slot for slot, open_now in crew.connections().items() if open_now]) > 1, "it was a question"
        finally:
            for one in clients:
                await one.aclose()
