"""A whole proxy in the test's own loop, in front of a scripted upstream, with its ledger at hand."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from farthing.proxy.app import Running, running
from farthing.proxy.build import Services
from farthing.proxy.clock import Clock
from farthing.proxy.config import load

__all__ = ["PRICES", "Proxied", "chat", "proxied", "quiet"]

PRICES = {"models": {"m": {"input_usd_per_mtok": 2, "cached_usd_per_mtok": 1, "output_usd_per_mtok": 8}}}

_AT_ONCE = 16
"""Requests that wait for their answers, of one pool."""


@dataclass
class Proxied:
    """A running proxy. `client`: knows its address; give it a credential by `headers`."""

    url: str
    services: Services
    client: httpx.AsyncClient
    state_dir: Path
    running: Running

    async def rows(self, count: int | None = None) -> list[dict[str, Any]]:
        """The ledger, oldest first; waits until `count` rows are there."""
        for _ in range(200):
            if self.services.state.ledger is not None:
                await asyncio.to_thread(self.services.state.ledger.flush)
            with closing(sqlite3.connect(self.state_dir / "ledger.db")) as ledger:
                ledger.row_factory = sqlite3.Row
                found = [dict(row) for row in ledger.execute("select * from requests order by ts, rowid")]
            if count is None or len(found) >= count:
                return found
            await asyncio.sleep(0.02)
        raise AssertionError(f"{len(found)} rows after 4 s, expected {count}")

    async def post(self, body: Any, path: str = "/v1/chat/completions", **headers: str) -> httpx.Response:
        """POST a JSON body; header names with _ for -."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, bytes):
            return await self.client.post(path, content=body, headers={"Content-Type": "application/json"} | named)
        return await self.client.post(path, json=body, headers=named)


def chat(text: str = "hello there", **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": "m", "messages": [{"role": "user", "content": text}]} | more


class Pools(httpx.AsyncBaseTransport):
    """As many connections as are wanted. httpx's pool goes through all of its connections for each one that is free,
    so hundreds are spread over several; requests that come one after another use one connection, as in one pool."""

    def __init__(self) -> None:
        self._limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._pools: list[tuple[httpx.AsyncHTTPTransport, set[httpx.Request]]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send it by the first pool that has room for it."""
        free = next((at for at, (_, waiting) in enumerate(self._pools) if len(waiting) < _AT_ONCE), len(self._pools))
        if free == len(self._pools):
            self._pools.append((httpx.AsyncHTTPTransport(limits=self._limits), set()))
        pool, waiting = self._pools[free]
        waiting.add(request)
        try:
            return await pool.handle_async_request(request)
        finally:
            waiting.discard(request)

    async def aclose(self) -> None:
        """Close all of them."""
        for pool, _ in self._pools:
            await pool.aclose()


@asynccontextmanager
async def proxied(
    upstream_url: str,
    state_dir: Path,
    *,
    clock: Clock | None = None,
    env: dict[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[Proxied]:
    """A proxy; settings as `cache__ttl_s=5`. The semantic stage is off unless asked for."""
    flags: dict[str, Any] = {
        "state_dir": state_dir,
        "server.port": 0,
        "upstream.url": upstream_url,
        "upstream.retry_base_s": 0.01,
        "semantic.mode": "off",
        "store.deadline_ms": 5000,  # what a busy machine is late with would be a miss, or refused
        "spend.deadline_ms": 5000,
        "prices": PRICES,
    }
    flags |= {name.replace("__", "."): value for name, value in settings.items()}
    config = load(None, {}, flags)
    async with running(config, clock=clock) as proxy:
        headers = {"Authorization": "Bearer sk-one"}
        async with httpx.AsyncClient(base_url=proxy.url, timeout=30, transport=Pools(), headers=headers) as client:
            yield Proxied(proxy.url, proxy.services, client, state_dir, proxy)


async def quiet(proxy: Proxied) -> None:
    """Wait until what goes on behind the answers is done; on a busy machine it takes seconds."""
    for _ in range(2000):
        if not len(proxy.services.state.tasks):
            return
        await asyncio.sleep(0.01)
