"""The real command line with deferred requests, killed again and again: each is answered, and paid for once."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.fakes.batches import BatchUpstream, listening
from tests.fakes.message_batches import MessageBatchUpstream
from tests.fakes.proxying import chat
from tests.scenario.test_serve import serving

SETTINGS = {
    "FARTHING_UPSTREAM__BATCH": "true",
    "FARTHING_DEFER__MIN_S": "0",
    "FARTHING_DEFER__FLUSH_S": "0.1",
    "FARTHING_DEFER__POLL_S": "0.05",
    "FARTHING_PRICES__MODELS": "{m={input_usd_per_mtok=2,cached_usd_per_mtok=1,output_usd_per_mtok=8}}",
}
HERE = "/farthing/api/deferred"


async def asked(client: httpx.AsyncClient, text: str) -> str:
    answer = await client.post("/v1/chat/completions", json=chat(text), headers={"x-farthing-defer": "24h"})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def statuses(client: httpx.AsyncClient) -> dict[str, str]:
    return {one["id"]: one["status"] for one in (await client.get(HERE)).json()["data"]}


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_kill_9_in_the_middle_loses_none_and_pays_for_none_twice(tmp_path: Path, kind: str) -> None:
    fake = MessageBatchUpstream() if kind == "anthropic" else BatchUpstream()
    settings = SETTINGS | ({"FARTHING_UPSTREAM__STYLE": kind} if kind == "anthropic" else {})
    chance = random.Random(6)
    ids: dict[str, str] = {}
    async with listening(fake) as up:
        up.polls = 3
        for turn in range(3):
            async with serving(up, tmp_path, **settings) as (child, client):
                client.headers["Authorization"] = "Bearer sk-one"
                for number in range(5):
                    text = f"request {turn} {number}"
                    ids[await asked(client, text)] = text
                await asyncio.sleep(chance.uniform(0, 0.5))
                child.send_signal(signal.SIGKILL)
                await child.wait()
        async with serving(up, tmp_path, **settings) as (_, client):
            client.headers["Authorization"] = "Bearer sk-one"
            for _turn in range(600):
                told = await statuses(client)
                if set(told.values()) == {"completed"}:
                    break
                await asyncio.sleep(0.05)
            assert told == dict.fromkeys(ids, "completed")
            for id, text in ids.items():
                got = await client.get(f"{HERE}/{id}/result")
                assert got.status_code == 200
                assert text in got.json()["choices"][0]["message"]["content"]
            await asyncio.sleep(0.3)
        with closing(sqlite3.connect(tmp_path / "state" / "ledger.db")) as ledger:
            rows = ledger.execute("select id, cost_usd from requests").fetchall()
    assert sorted(id for id, _ in rows) == sorted(ids)
    assert sum(cost for _, cost in rows) == int(up.half_bill(("2", "1", "8")) * 10**12)
    assert up.calls == [] and len(up.batched) == len(ids)
