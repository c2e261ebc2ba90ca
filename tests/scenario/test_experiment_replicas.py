"""An experiment over two replicas as processes, one of which is several workers: one arm for a user wherever he comes,
and everybody counts all."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.crew import crew_of
from tests.fakes.proxying import chat
from tests.fakes.upstream import scripted
from tests.fakes.valkey import running_valkey
from tests.scenario.test_serve import serving

DECLARED = """
[cache]
mode = "off"

[[experiments]]
name = "trial"
unit = "user"
metric = "rating"
arms = [{name = "as-is", share = 0.5}, {name = "new", policy = "%s", share = 0.5}]
"""
WITHIN_S = 40.0
USERS = [f"u{number}" for number in range(9)]


async def ask(client: httpx.AsyncClient, user: str) -> httpx.Response:
    answer = await client.post("/v1/chat/completions", json=chat("q"), headers={"x-farthing-user": user})
    assert answer.status_code == 200
    return answer


async def until_all_take_part(clients: list[httpx.AsyncClient]) -> None:
    """A worker that isn't the keeper follows within half a second."""
    end = time.monotonic() + WITHIN_S
    while True:
        found = [{user: (await ask(one, user)).headers["x-farthing-policy"] for user in USERS} for one in clients]
        if all(one == found[0] for one in found) and len(set(found[0].values())) == 2:
            return
        assert time.monotonic() < end, found
        await asyncio.sleep(0.2)


async def until_all_say(clients: list[httpx.AsyncClient], users: int, rated: int) -> list[Any]:
    end = time.monotonic() + WITHIN_S
    while True:
        found = [(await one.get("/farthing/api/experiments")).json()["experiments"][0] for one in clients]
        if all(_counted(one) == (users, rated) for one in found):
            return found
        assert time.monotonic() < end, [_counted(one) for one in found]
        await asyncio.sleep(0.2)


def _counted(one: Any) -> tuple[int, int]:
    if not one["reading"] or "candidates" not in one["reading"]:
        return 0, 0
    rating = one["reading"]["candidates"]["new"]["metrics"]["rating"]
    return sum(one["reading"]["shares"]["units"].values()), sum(rating["units"])


async def test_workers_and_another_replica_are_one_experiment(tmp_path: Path) -> None:
    policy = tmp_path / "new.toml"
    policy.write_text('[semantic]\nmode = "off"\n[cache]\nttl_s = 60\n')
    config = tmp_path / "farthing.toml"
    config.write_text(DECLARED % policy)
    for name in "ab":
        (tmp_path / name / "state").mkdir(parents=True)
        (tmp_path / name / "state" / "secret").write_text(f"{'5a' * 32}\n")
    with running_valkey() as url:
        env = {"FARTHING_STORE__URL": url, "FARTHING_STORE__DEADLINE_MS": "5000", "FARTHING_SEMANTIC__MODE": "off"}
        async with (
            scripted() as up,
            crew_of(2, up, tmp_path / "a", "--config", str(config), **env) as crew,
            serving(up, tmp_path / "b", "--config", str(config), **env) as (_, alone),
        ):
            alone.headers["Authorization"] = "Bearer sk-one"  # as the crew's clients: it tells tenants apart
            clients = [*await crew.spread(6), alone]
            await until_all_say([*clients[:1], alone], 0, 0)
            await until_all_take_part(clients)
            arms: dict[str, set[str]] = {}
            answers = []
            for number in range(28):
                answer = await ask(clients[number % 7], f"u{number % 9}")
                arms.setdefault(f"u{number % 9}", set()).add(answer.headers["x-farthing-policy"])
                answers.append(answer)
            assert {len(found) for found in arms.values()} == {1}, arms
            for number, answer in enumerate(answers[:9]):
                said = {"id": answer.headers["x-farthing-id"], "rating": "good"}
                other = clients[(number + 3) % 7]
                await other.post("/farthing/api/feedback", json=said, headers={"x-farthing-admin": "1"})
            found = await until_all_say(clients, 9, 9)
            assert len({(one["id"], one["salt"]) for one in found}) == 1
