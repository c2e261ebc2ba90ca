"""Three real farthings over one real Valkey behind a real nginx with the shipped configuration."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.fakes.commands import CLEAN, Command, forked
from tests.fakes.proxying import chat
from tests.fakes.upstream import ScriptedUpstream, scripted
from tests.fakes.valkey import free_port, running_valkey

NGINX = shutil.which("nginx") or next((path for path in ("/usr/sbin/nginx",) if Path(path).exists()), None)
SHIPPED = Path(__file__).parents[2] / "deploy" / "nginx"
SECRET = "5a" * 32

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed (Debian: apt install nginx)")


class Fleet:
    """Three farthings and their balancer. `url`: the balancer's, with /v1."""

    def __init__(self, home: Path, up: ScriptedUpstream, valkey: str) -> None:
        self.home, self._up, self._valkey = home, up, valkey
        self.ports = [free_port() for _ in range(3)]
        self._port = free_port()
        self.children: list[Command | None] = [None] * 3
        self.url = f"http://127.0.0.1:{self._port}/v1"

    async def start(self, number: int) -> None:
        """Start one and wait until it is ready."""
        state = self.home / f"state{number}"
        state.mkdir(exist_ok=True)
        (state / "secret").write_text(SECRET + "\n", "ascii")
        with (self.home / f"farthing{number}.log").open("ab") as log:
            options = ("--port", str(self.ports[number]), "--upstream", self._up.url, "--state", str(state))
            self.children[number] = child = forked(
                *("serve", *options),
                cwd=self.home,
                env=CLEAN | {"FARTHING_SEMANTIC__MODE": "off", "FARTHING_STORE__URL": self._valkey},
                stderr=log,
            )
        async with httpx.AsyncClient() as client:
            for _ in range(600):
                assert child.returncode is None, (self.home / f"farthing{number}.log").read_text()
                try:
                    if (await client.get(f"http://127.0.0.1:{self.ports[number]}/readyz")).status_code == 200:
                        return
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
        raise AssertionError("not ready within 30 s")

    async def stop(self, number: int, signal_number: int = signal.SIGTERM) -> int:
        """Signal one and wait for its end."""
        child = self.children[number]
        assert child is not None
        child.send_signal(signal_number)
        return await asyncio.wait_for(child.wait(), 30)

    async def balance(self) -> None:
        """Start nginx with what is shipped, but for addresses and places."""
        text = (SHIPPED / "nginx.conf").read_text("utf-8")
        for shipped, here in (
            ("listen 8080;", f"listen 127.0.0.1:{self._port};"),
            ("/tmp/nginx", f"{self.home}/nginx"),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        (self.home / "nginx.conf").write_text(text, "utf-8")
        self.name_upstreams()
        await self._nginx()
        for _ in range(100):
            if (self.home / "nginx.pid").exists():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("nginx did not start")

    def name_upstreams(self, down: int | None = None) -> None:
        """Write upstreams.conf, with one of the three taken out."""
        text = (SHIPPED / "upstreams.conf").read_text("utf-8")
        for number, port in enumerate(self.ports):
            shipped = f"server proxy{number + 1}:8080 max_fails=1 fail_timeout=2s"
            assert shipped in text
            mark = " down" if number == down else ""
            text = text.replace(shipped, f"server 127.0.0.1:{port} max_fails=1 fail_timeout=2s{mark}")
        (self.home / "upstreams.conf").write_text(text, "utf-8")

    async def reload(self) -> None:
        """As an operator: nginx -s reload, then a second for connections that the old workers accepted."""
        await self._nginx("-s", "reload")
        await asyncio.sleep(1)

    def unbalance(self) -> None:
        if (self.home / "nginx.pid").exists():
            os.kill(int((self.home / "nginx.pid").read_text()), signal.SIGTERM)

    async def _nginx(self, *more: str) -> None:
        assert NGINX is not None
        own = (
            ["-g", "user root;"] if os.geteuid() == 0 else []
        )  # else nobody's workers can't enter the test's directory
        command = [NGINX, "-p", str(self.home), "-c", str(self.home / "nginx.conf"), *own, *more]
        with (self.home / "nginx.log").open("ab") as log:  # not a pipe: the daemon would hold it open
            child = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        assert await asyncio.wait_for(child.wait(), 30) == 0, (self.home / "nginx.log").read_text()


@asynccontextmanager
async def fleet(home: Path) -> AsyncIterator[tuple[Fleet, ScriptedUpstream]]:
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(running_valkey())
        up = await stack.enter_async_context(scripted())
        made = Fleet(home, up, valkey)
        try:
            for number in range(3):
                await made.start(number)
            await made.balance()
            yield made, up
        finally:
            made.unbalance()
            for child in made.children:
                if child is not None and child.returncode is None:
                    child.kill()
                    await child.wait()


async def test_the_official_client_through_the_balancer(tmp_path: Path) -> None:
    async with (
        fleet(tmp_path) as (three, up),
        openai.AsyncOpenAI(base_url=three.url, api_key="sk-one", max_retries=0) as client,
    ):
        said: Any = [{"role": "user", "content": "hello"}]
        for _ in range(6):
            answer = await client.chat.completions.with_raw_response.create(model="m", messages=said)
        assert answer.headers["x-farthing-cache"] == "hit-exact"
        assert len(up.calls) == 1, "whoever was asked, the others knew the answer"

        up.default.chunk_wait_s = 0.1
        up.default.words = 8
        said[0]["content"] = "a stream"
        began = asyncio.get_running_loop().time()
        at_s = [
            asyncio.get_running_loop().time() - began
            async for piece in await client.chat.completions.create(model="m", messages=said, stream=True)
            if piece.choices and piece.choices[0].delta.content
        ]
        assert len(at_s) >= 4
        assert at_s[-1] - at_s[0] > 0.2, "the pieces came as they were made, not all at the end"

        async with httpx.AsyncClient(base_url=three.url.removesuffix("/v1")) as plain:
            paths = ("/metrics", "/farthing/", "/farthing/api/policy", "/healthz", "/readyz")
            seen = [(await plain.get(path)).status_code for path in paths]
            rated = await plain.post("/farthing/api/feedback", json={})
        assert seen == [404, 404, 404, 200, 200]
        assert rated.status_code != 404


async def hammer(three: Fleet, work: Callable[[], Any]) -> tuple[list[int], int]:
    """Whole answers and streams, all the while that `work` runs: the status of each, and how many came whole."""
    statuses: list[int] = []
    whole = 0
    going = True

    async def keep_asking(client: httpx.AsyncClient, name: int) -> None:
        nonlocal whole
        number = 0
        while going:
            number += 1
            body = chat(f"{name} {number}", stream=name % 2 == 1)
            try:
                answer = await client.post("/chat/completions", json=body)
            except httpx.TransportError:  # nginx closes idle connections when it is reloaded: once more, as SDKs do
                answer = await client.post("/chat/completions", json=body)
            statuses.append(answer.status_code)
            whole += answer.content.endswith(b"[DONE]\n\n") if name % 2 else b'"choices"' in answer.content

    async with httpx.AsyncClient(base_url=three.url, timeout=30) as client:
        asking = [asyncio.create_task(keep_asking(client, name)) for name in range(8)]
        try:
            await work()
        finally:
            going = False
            await asyncio.gather(*asking)
    return statuses, whole


async def test_a_rolling_restart_loses_no_request(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (three, up):
        up.default.wait_s = 0.05
        up.default.chunk_wait_s = 0.01

        async def roll() -> None:
            for number in range(3):
                three.name_upstreams(down=number)
                await three.reload()
                assert await three.stop(number) == 0
                await three.start(number)
                three.name_upstreams()
                await three.reload()

        statuses, whole = await hammer(three, roll)
    assert len(statuses) > 100
    assert set(statuses) == {200}
    assert whole == len(statuses)
    assert len(up.calls) == len(statuses), "none was asked twice"


async def test_one_that_is_killed_costs_only_what_it_had_under_way(tmp_path: Path) -> None:
    async with fleet(tmp_path) as (three, up):
        up.default.wait_s = 0.02

        async def kill() -> None:
            await asyncio.sleep(1)
            await three.stop(0, signal.SIGKILL)
            await asyncio.sleep(2)

        statuses, whole = await hammer(three, kill)
    lost = [status for status in statuses if status != 200]
    assert len(statuses) > 50
    assert len(lost) + statuses.count(200) - whole <= 8, "at most what it was answering"
    assert set(lost) <= {502, 504}
