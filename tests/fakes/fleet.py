"""Several scripted upstreams behind one proxy, which can be killed one by one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import ScriptedUpstream, scripted

__all__ = ["PLAIN", "Fleet", "ask", "before", "on"]

PLAIN: dict[str, Any] = {"cache__mode": "off"}


class Fleet:
    """Replicas that can be killed one by one."""

    def __init__(self) -> None:
        self.ups: list[ScriptedUpstream] = []
        self._stacks: list[AsyncExitStack] = []

    async def add(self) -> ScriptedUpstream:
        stack = AsyncExitStack()
        self.ups.append(await stack.enter_async_context(scripted()))
        self._stacks.append(stack)
        return self.ups[-1]

    async def kill(self, index: int) -> None:
        await self._stacks[index].aclose()

    @property
    def urls(self) -> list[str]:
        return [up.url for up in self.ups]

    def name(self, index: int) -> str:
        return self.ups[index].url.removeprefix("http://").removesuffix("/v1")

    @property
    def calls(self) -> list[int]:
        return [len(up.calls) for up in self.ups]


@asynccontextmanager
async def before(fleet: Fleet, state_dir: Path, **settings: Any) -> AsyncIterator[Proxied]:
    """A proxy before all of them, without a cache: each request is one upstream."""
    async with proxied(fleet.urls[0], state_dir, **PLAIN, upstream__replicas=fleet.urls, **settings) as proxy:
        yield proxy


async def ask(proxy: Proxied, count: int, at_once: int = 8, **headers: str) -> Counter[int]:
    """Different prompts, so many at once; the statuses of their answers."""
    places = asyncio.Semaphore(at_once)

    async def one(number: int) -> int:
        async with places:
            return (await proxy.post(chat(f"question {number}"), **headers)).status_code

    return Counter(await asyncio.gather(*map(one, range(count))))


def on(proxy: Proxied, name: str) -> dict[str, Any]:
    return next(told for told in proxy.services.pool.told() if told["name"] == name)
