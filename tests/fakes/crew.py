"""`farthing serve --workers N` as a child process, and what its workers are doing."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.commands import Command
from tests.fakes.proxying import chat
from tests.fakes.upstream import ScriptedUpstream
from tests.scenario.test_serve import serving

__all__ = ["Crew", "crew_of"]


@dataclass
class Crew:
    """A farthing of several workers. `client`: one of its clients."""

    child: Command
    client: httpx.AsyncClient
    cwd: Path
    size: int
    made: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    def fresh(self) -> httpx.AsyncClient:
        """A client with connections of its own, closed with the crew if nobody does before."""
        client = httpx.AsyncClient(
            base_url=self.client.base_url, timeout=30, headers={"Authorization": "Bearer sk-one"}
        )
        self.made.append(client)
        return client

    async def spread(self, count: int) -> list[httpx.AsyncClient]:
        """So many clients, of whose connections every worker has some: which one takes a connection is chance."""
        for _ in range(100):
            before = self.connections()
            clients = [self.fresh() for _ in range(count)]
            await asyncio.gather(*(one.get("/healthz") for one in clients))
            if sum(now > before[slot] for slot, now in self.connections().items()) == self.size:
                return clients
            await asyncio.gather(*(one.aclose() for one in clients))
            await asyncio.sleep(0.2)
        raise AssertionError(self.connections())

    def workers(self) -> dict[int, int]:
        """Process ids by slot; of two in one slot the newer one."""
        found = {}
        for pid in map(int, Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()):
            try:
                place = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[3]
            except (OSError, IndexError):
                continue  # it has just ended, or not begun yet
            found[json.loads(place)["slot"]] = pid
        return found

    def connections(self) -> Counter[int]:
        """How many connections each worker has open, by slot."""
        port = self.client.base_url.port
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        open_now = {line[9] for line in lines if int(line[1].rpartition(":")[2], 16) == port and line[3] == "01"}
        found: Counter[int] = Counter()
        for slot, pid in self.workers().items():
            links = []
            for one in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):  # closed in the meantime
                    links.append(str(one.readlink()))
            found[slot] = sum(link.removeprefix("socket:[").rstrip("]") in open_now for link in links)
        return found

    def log(self) -> list[dict[str, Any]]:
        lines = (self.cwd / "serve.log").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines if line[:1] == "{"]

    async def logged(self, event: str, count: int = 1, within_s: float = 60) -> list[dict[str, Any]]:
        """Wait for it to be logged so often."""
        until = time.monotonic() + within_s
        while True:
            found = [line for line in self.log() if line["event"] == event]
            if len(found) >= count:
                return found
            assert time.monotonic() < until, (self.cwd / "serve.log").read_text("utf-8")
            await asyncio.sleep(0.05)

    def rows(self, what: str = "count(*)") -> Any:
        with closing(sqlite3.connect(self.cwd / "state" / "ledger.db", timeout=5)) as ledger:
            return ledger.execute(f"select {what} from requests").fetchone()[0]

    async def admin(self, path: str, **asked: Any) -> httpx.Response:
        """An admin call over a connection of its own: to whichever worker takes it."""
        async with self.fresh() as client:
            return await client.post(f"/farthing/api/{path}", json=asked, headers={"x-farthing-admin": "1"})

    async def metric(self, name: str, client: httpx.AsyncClient | None = None) -> float:
        """The sum over all label sets."""
        text = (await (client or self.client).get("/metrics")).text
        return sum(
            float(line.rpartition(" ")[2]) for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name
        )


async def ask(client: httpx.AsyncClient, text: str, **more: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=chat(text, **more))


@asynccontextmanager
async def crew_of(count: int, up: ScriptedUpstream, cwd: Path, *arguments: str, **env: str) -> AsyncIterator[Crew]:
    """It, once all workers answer."""
    async with serving(up, cwd, "--workers", str(count), *arguments, **env) as (child, client):
        crew = Crew(child, client, cwd, count)
        await crew.logged("workers are ready")
        try:
            yield crew
        finally:
            for one in crew.made:
                await one.aclose()
