"""Anybody may ask /readyz, as balancers do: strangers are told which parts aren't well, and the store isn't asked."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import FakeClock
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import scripted
from tests.fakes.valkey import ValkeyProcess

TOKEN = {"Authorization": "Bearer t0ken"}
STRANGERS: list[dict[str, str]] = [
    {"X-Forwarded-For": "127.0.0.1"},
    {"Host": "farthing.example"},
    {"Host": "10.2.3.4:8080", "User-Agent": "kube-probe/1.33"},
    {"Via": "1.1 balancer"},
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the server was asked; but for what replicas ask now and then, whatever anybody asks of them."""
    found: list[str] = []
    within = RedisStore._within

    async def noted(self: RedisStore, deadline_s: float, command: Any) -> Any:
        task = asyncio.current_task()
        if task is None or not task.get_name().startswith("what replicas agree upon"):
            found.append(getattr(command, "__qualname__", ""))
        return await within(self, deadline_s, command)

    monkeypatch.setattr(RedisStore, "_within", noted)
    return found


async def test_a_stranger_is_told_of_no_address_and_the_store_is_not_asked(tmp_path: Path, asked: list[str]) -> None:
    with ValkeyProcess() as server:
        async with scripted() as up, proxied(up.url, tmp_path, store__url=server.url, store__stale_s=0) as proxy:
            await proxy.post(chat())
            await proxy.rows(1)
            asked.clear()
            for headers in STRANGERS * 5:
                answer = await proxy.client.get("/readyz", headers=headers)
                assert (answer.status_code, answer.json()) == (200, {"status": "ready", "degraded": []})
            assert asked == []

            told = (await proxy.client.get("/readyz")).json()
            assert (told["status"], told["degraded"]) == ("ready", [])
            assert told["store"] == {"kind": "redis", "entries": 1, "healthy": True}
            assert told["upstream"] in up.url and told["replicas"]


async def test_the_operators_share_one_question_to_the_store(tmp_path: Path, asked: list[str]) -> None:
    clock = FakeClock()
    with ValkeyProcess() as server:
        given: dict[str, Any] = {"store__url": server.url, "store__stale_s": 0, "clock": clock}
        async with scripted() as up, proxied(up.url, tmp_path, **given) as proxy:
            asked.clear()
            await asyncio.gather(*(proxy.client.get("/readyz") for _ in range(16)))
            assert len(asked) == 1
            clock.advance(1.1)
            await asyncio.gather(*(proxy.client.get("/readyz") for _ in range(16)))
            assert len(asked) == 2


async def test_with_a_token_the_rest_is_for_whoever_has_it(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, server__admin_token="t0ken") as proxy:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = await proxy.client.get("/readyz", headers=headers)
            assert (answer.status_code, answer.json()) == (200, {"status": "ready", "degraded": []})
        told = (await proxy.client.get("/readyz", headers=TOKEN | {"X-Forwarded-For": "203.0.113.9"})).json()
        assert told["store"]["healthy"] and told["upstream"]


async def test_what_is_not_well_is_named_to_all_and_explained_to_the_operator(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"no database" * 1000)
    with ValkeyProcess() as server:
        given: dict[str, Any] = {"store__url": server.url, "store__stale_s": 0, "store__deadline_ms": 500}
        async with scripted() as up, proxied(up.url, tmp_path, **given) as proxy:
            assert (await stranger(proxy)).json() == {"status": "degraded", "degraded": ["ledger_aside"]}
            server.kill()
            await proxy.post(chat())
            told = await stranger(proxy)
            full = (await proxy.client.get("/readyz")).json()
    assert told.status_code == 200
    assert told.json() == {"status": "degraded", "degraded": ["store", "ledger_aside"]}
    assert (full["degraded"], full["store"]["healthy"]) == (["store", "ledger_aside"], False)
    assert len(full["ledger_aside"]) == 1


async def stranger(proxy: Any) -> Any:
    return await proxy.client.get("/readyz", headers=STRANGERS[0])
