"""A real Prometheus scrapes a real farthing, and answers every query of the dashboard and of the rules."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.test_monitoring import DASHBOARD, RULES, queries
from tests.fakes.prometheus import running_prometheus
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import scripted

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="there is no Prometheus (Debian: apt install prometheus)"
)
TOKEN = "admin-token"


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[httpx.AsyncClient]:
    """One that scrapes `target` twice a second, with the rules that are shipped."""
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\nrule_files: [{RULES}]\n"
        "scrape_configs:\n"
        f"  - job_name: farthing\n    authorization: {{credentials: {TOKEN}}}\n"
        f"    static_configs: [{{targets: ['{target}']}}]\n",
        "utf-8",
    )
    async with running_prometheus(config) as client:
        yield client


async def ask(client: httpx.AsyncClient, query: str) -> list[dict[str, Any]]:
    """The answer. Raises where Prometheus doesn't understand it, or finds that series don't match one to one."""
    answer = (await client.get("/api/v1/query", params={"query": query})).json()
    assert answer["status"] == "success", (query, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


async def test_prometheus_answers_every_query_that_is_shipped(tmp_path: Path) -> None:
    async with (
        scripted() as up,
        proxied(up.url, tmp_path / "state", server__admin_token=TOKEN, spend__daily_usd="100") as proxy,
        prometheus(tmp_path, proxy.url.removeprefix("http://")) as client,
    ):
        rows = await traffic(proxy, client)
        for _, query in queries():
            await ask(client, query.replace("[5m]", "[30s]"))
        spent = sum(row["cost_usd"] or 0 for row in rows) / 1e12
        (found,) = await ask(client, "farthing_cost_usd_total")
        assert float(found["value"][1]) == pytest.approx(spent)
        by_title = {panel["title"]: panel for panel in DASHBOARD["panels"]}
        for title in ("Savings by cause", "Hit rate", "Farthing's own part", "Tokens", "Today's budget used", "Ledger"):
            first = next(q for where, q in queries() if where == title)
            assert await ask(client, first), (title, by_title[title]["targets"][0]["expr"])
        down = await ask(client, 'ALERTS{alertname="FarthingDown"}')
        assert down == []
        assert await ask(client, "farthing:hit_ratio:rate5m")


async def traffic(proxy: Proxied, client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Requests before and after a scrape, so that there is a rate, until the rules have seen it."""
    asked = 0
    for _ in range(200):
        for _ in range(3):
            await proxy.post(chat(f"question {asked % 4}"))
            asked += 1
        await asyncio.sleep(0.3)
        try:
            if await ask(client, "farthing:hit_ratio:rate5m > 0"):
                break
        except httpx.TransportError:  # it isn't up yet
            continue
    rows = await proxy.rows(asked)
    for _ in range(200):
        seen = await ask(client, "sum(farthing_requests_total)")
        if float(seen[0]["value"][1]) == len(rows):
            return rows
        await asyncio.sleep(0.2)
    raise AssertionError(seen)
