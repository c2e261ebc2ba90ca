"""What the dashboard is told of requests that wait."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fakes.batches import batching
from tests.fakes.proxying import Proxied, chat
from tests.wire.test_defer import DAY, deferring, until


async def told(proxy: Proxied) -> Any:
    return (await proxy.client.get("/farthing/api/summary")).json()["state"]["deferred"]


async def test_counts_and_what_was_saved(tmp_path: Path) -> None:
    async with batching() as up, deferring(up, tmp_path, defer__flush_s=0.3) as proxy:
        assert (await told(proxy))["upstreams"] == []
        done = (await proxy.post(chat("one"), **DAY)).json()["id"]
        gone = (await proxy.post(chat("two"), **DAY)).json()["id"]
        await proxy.client.delete(f"/farthing/api/deferred/{gone}")
        early = await told(proxy)
        await until(proxy, done, "completed")
        rows = await proxy.rows(2)
        for _ in range(100):
            late = await told(proxy)
            if late["saved_usd"] != "0":
                break
    assert (early["waiting"], early["cancelled"], early["done"]) == (1, 1, 0) and early["oldest_s"] is not None
    assert (late["waiting"], late["running"], late["done"], late["failed"]) == (0, 0, 1, 0)
    saved = sum(row["saved_route_usd"] for row in rows)
    assert saved > 0 and float(late["saved_usd"]) * 10**12 == saved
    assert late["upstreams"][0]["upstream"] == "default" and late["oldest_s"] is None


async def test_no_batch_api_no_panel(tmp_path: Path) -> None:
    async with batching() as up, deferring(up, tmp_path, upstream__batch=False) as proxy:
        assert await told(proxy) is None
