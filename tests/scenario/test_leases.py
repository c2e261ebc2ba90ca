"""Processes that share answers: one of them asks, and one that is killed is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from contextlib import AsyncExitStack, closing
from pathlib import Path

import httpx
import pytest

from tests.fakes.crew import ask, crew_of
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import scripted
from tests.fakes.valkey import ValkeyProcess
from tests.scenario.test_serve import serving

LEASE_S = 1.0
LONG_S = 60.0
ANSWER_S = 0.5


def state_of(path: Path) -> Path:
    """A replica's state directory, with the secret that all have."""
    (path / "state").mkdir(parents=True)
    (path / "state" / "secret").write_text(f"{'5a' * 32}\n")
    return path / "state"


@pytest.mark.parametrize(("lease_s", "stale_s"), [(LEASE_S, 0.0), (LONG_S, 1.0)], ids=["lapse", "connection"])
async def test_a_replica_that_is_killed_while_it_asks_is_replaced(
    tmp_path: Path, lease_s: float, stale_s: float
) -> None:
    """Once its lease has lapsed, or, where it listens to the server, as soon as its connection has ended.

    It is a process, since only one that is killed says nothing of its end; the others live in this one.
    """
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(ValkeyProcess())
        up = await stack.enter_async_context(scripted())
        state_of(tmp_path / "x")
        settings = {
            "FARTHING_STORE__URL": valkey.url,
            "FARTHING_STORE__DEADLINE_MS": "5000",
            "FARTHING_CACHE__JOIN_LEASE_S": str(lease_s),
            "FARTHING_STORE__STALE_S": str(stale_s),
        }
        leader, first = await stack.enter_async_context(serving(up, tmp_path / "x", **settings))
        others = [
            await stack.enter_async_context(
                proxied(
                    up.url,
                    state_of(tmp_path / name),
                    store__url=valkey.url,
                    store__deadline_ms=5000,
                    store__stale_s=stale_s,
                    cache__join_lease_s=lease_s,
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


async def test_a_worker_that_is_killed_while_it_asks_is_replaced_before_its_lease_has_lapsed(tmp_path: Path) -> None:
    settings = {"FARTHING_STORE__DEADLINE_MS": "5000", "FARTHING_CACHE__JOIN_LEASE_S": str(LONG_S)}
    async with scripted() as up, crew_of(2, up, tmp_path, **settings) as crew:
        clients = await crew.spread(8)
        up.default.wait_s = 30.0
        asking = [asyncio.create_task(ask(one, "the same")) for one in clients]
        while not up.calls:
            await asyncio.sleep(0.01)
        await asyncio.sleep(2 * LEASE_S)
        assert len(up.calls) == 1

        up.default.wait_s = ANSWER_S
        leader = holder_of(tmp_path / "state", list(crew.workers().values()))
        os.kill(leader, signal.SIGKILL)
        killed = time.monotonic()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        took_s = time.monotonic() - killed
        given = [one for one in answers if isinstance(one, httpx.Response)]
        assert {one.status_code for one in given} == {200}
        assert 0 < len(given) < len(clients), "those of the other worker, and those alone"
        assert len(up.calls) == 2
        assert took_s < ANSWER_S + 5.0, "a busy machine takes some time of its own"


def holder_of(state: Path, workers: list[int]) -> int:
    """The worker that asks the upstream now: it has the mark that stands beside the lease."""
    with closing(sqlite3.connect(state / "answers.db", timeout=5)) as file:
        ((mark,),) = file.execute("select mark from lease_holders").fetchall()
    holders = [
        pid
        for pid in workers
        if any(os.path.realpath(one) == str(state / "alive" / mark) for one in Path(f"/proc/{pid}/fd").iterdir())
    ]
    (holder,) = holders
    return holder
