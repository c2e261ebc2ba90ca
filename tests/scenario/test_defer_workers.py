"""Deferred requests with several workers: any takes them, one sees to them, and when that one dies another one does.

Real processes, which take seconds to start; so one crew goes through all of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx

from tests.fakes.batches import batching
from tests.fakes.crew import Crew, crew_of
from tests.scenario.test_defer import HERE, SETTINGS, asked, statuses
from tests.scenario.test_workers import until

BUDGET = '[[budgets]]\nname = "all"\nusd = 100\nper = "day"\n'


def owner(crew: Crew) -> int | None:
    """The process id of the worker that sees to them, by the lock that it holds."""
    inode = str((crew.cwd / "state" / "deferred.lock").stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5].rpartition(":")[2] == inode and int(words[4]) in crew.workers().values():
            return int(words[4])
    return None


def account(crew: Crew) -> tuple[int, int]:
    """What the budget has spent and holds, in pico-dollars."""
    with closing(sqlite3.connect(crew.cwd / "state" / "spend.db", timeout=5)) as conn:
        spent, held = conn.execute("select coalesce(sum(spent), 0), coalesce(sum(held), 0) from accounts").fetchone()
    return int(spent), int(held)


def left(crew: Crew) -> int:
    """How many aren't completed: without a call, which would show the credential again."""
    with closing(sqlite3.connect(crew.cwd / "state" / "deferred.db", timeout=5)) as conn:
        return int(conn.execute("select count(*) from requests where state != 'completed'").fetchone()[0])


async def all_tell(clients: list[httpx.AsyncClient], ids: dict[str, str], status: str) -> bool:
    """Whether every client hears that of each of them, whoever answers it."""
    told = [await statuses(one) for one in clients]
    return all({id: one.get(id) for id in ids} == dict.fromkeys(ids, status) for one in told)


async def test_any_worker_takes_them_and_a_killed_one_loses_and_doubles_none(tmp_path: Path) -> None:
    config = tmp_path / "farthing.toml"
    config.write_text(BUDGET)
    chance, ids = random.Random(6), dict[str, str]()
    async with batching() as up, crew_of(2, up, tmp_path, "--config", str(config), **SETTINGS) as crew:
        clients = await crew.spread(4)
        ids |= {await asked(client, f"first {at}"): f"first {at}" for at, client in enumerate(clients)}
        await until(lambda: all_tell(clients, ids, "completed"))
        await until(lambda: crew.rows() == len(ids))
        await until(lambda: account(crew) == (crew.rows("sum(cost_usd)"), 0))

        up.polls = 3
        for turn in range(2):
            for at, client in enumerate(clients):
                text = f"{turn} {at}"
                ids[await asked(client, text)] = text
            await asyncio.sleep(chance.uniform(0, 0.3))
            killed = owner(crew)
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            await until(lambda killed=killed: owner(crew) not in (None, killed))
            clients = await crew.spread(4)
        await until(lambda: not left(crew))
        await until(lambda: all_tell(clients, ids, "completed"))

        # All are replaced: what clients showed goes on with them.
        up.polls = 10**9
        ids |= {await asked(client, f"last {at}"): f"last {at}" for at, client in enumerate(clients)}
        crew.child.send_signal(signal.SIGHUP)
        await crew.logged("workers are replaced")
        up.polls = 1
        await until(lambda: not left(crew))
        clients = await crew.spread(4)
        await until(lambda: all_tell(clients, ids, "completed"))

        up.polls, up.answers_before_end = 10**9, 0
        # Whoever is asked cancels and erases, though another one sees to them.
        for client in clients:
            gone = await asked(client, "never mind")
            assert (await client.delete(f"{HERE}/{gone}")).json()["status"] == "cancelled"
            assert (await client.get(f"{HERE}/{gone}/result")).status_code == 410
        erased = await crew.admin("erase", user="nobody")
        assert erased.json()["erased"]["deferred"] == 0, erased.text
        for client in clients:
            state = (await client.get("/farthing/api/summary")).json()["state"]
            assert state["deferred"]["done"] == len(ids) and state["deferred"]["cancelled"] == len(clients)
        for id, text in ids.items():
            for client in clients:
                got = await client.get(f"{HERE}/{id}/result")
                assert got.status_code == 200 and text in got.json()["choices"][0]["message"]["content"]

    with closing(sqlite3.connect(tmp_path / "state" / "ledger.db")) as ledger:
        rows = ledger.execute("select id, cost_usd from requests where outcome = 'completed'").fetchall()
    assert sorted(id for id, _ in rows) == sorted(ids)
    assert Counter(call.body for call in up.batched).most_common(1)[0][1] == 1
    assert up.calls == [] and sum(cost for _, cost in rows) == int(up.half_bill(("2", "1", "8")) * 10**12)
