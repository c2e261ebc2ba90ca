"""The real command line, as a process: start, signals, reload, kill -9, exit status."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from farthing.proxy.serve import _reload
from tests.fakes.commands import CLEAN, Command, farthing, forked
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted


@asynccontextmanager
async def serving(
    up: ScriptedUpstream, cwd: Path, *arguments: str, **env: str
) -> AsyncIterator[tuple[Command, httpx.AsyncClient]]:
    """`farthing serve` as a child; its log goes to serve.log."""
    with (cwd / "serve.log").open("ab") as log:
        options = ("--port", "0", "--upstream", up.url, "--state", "state", *arguments)
        child = forked("serve", *options, cwd=cwd, env=CLEAN | {"FARTHING_SEMANTIC__MODE": "off"} | env, stderr=log)
    try:
        url = ""
        for _ in range(600):
            lines = [
                json.loads(line) for line in (cwd / "serve.log").read_text("utf-8").splitlines() if line[:1] == "{"
            ]
            urls = [line["url"] for line in lines if line["event"] == "listening"]
            if urls:
                url = urls[-1].removesuffix("/v1")
                break
            assert child.returncode is None, (cwd / "serve.log").read_text("utf-8")
            await asyncio.sleep(0.05)
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            yield child, client
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
        (cwd / "serve.log").rename(cwd / "serve.old.log")


async def ask(client: httpx.AsyncClient, text: str = "hi", **more: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json=chat(text, **more))


def rows(cwd: Path) -> list[Any]:
    with closing(sqlite3.connect(cwd / "state" / "ledger.db")) as ledger:
        return list(ledger.execute("select cache, status, outcome from requests order by ts"))


async def test_sigterm_drains_and_writes_everything(tmp_path: Path) -> None:
    async with scripted() as up, serving(up, tmp_path) as (child, client):
        up.default.wait_s = 0.5
        under_way = asyncio.create_task(ask(client))
        while not up.calls:
            await asyncio.sleep(0.01)
        child.send_signal(signal.SIGTERM)

        assert (await under_way).status_code == 200
        assert await asyncio.wait_for(child.wait(), 10) == 0
    assert rows(tmp_path) == [("miss", 200, "completed")]


async def test_sighup_takes_a_good_configuration_over_and_refuses_a_bad_one(tmp_path: Path) -> None:
    config = tmp_path / "farthing.toml"
    config.write_text("[cache]\nttl_s = 100\n")
    async with scripted() as up, serving(up, tmp_path) as (child, client):
        await ask(client)
        for text, expected in (
            ("[cache]\nmode = 'off'\n", "bypass"),
            ("[cache]\nmod = 'x'\n", "bypass"),
            ("", "hit-exact"),
        ):
            config.write_text(text)
            child.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.5)
            assert (await ask(client)).headers["x-farthing-cache"] == expected
        assert "did you mean 'mode'" in (tmp_path / "serve.log").read_text()
        assert "farthing_config_reload_failures_total 1.0" in (await client.get("/metrics")).text


async def test_a_configuration_that_fails_only_in_use_does_not_end_the_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted() as up, proxied(up.url, tmp_path) as proxy:

        async def fail(config: object) -> tuple[str, ...]:
            raise ValueError("no such place")

        monkeypatch.setattr(proxy.running, "reload", fail)
        await _reload(proxy.running, lambda: proxy.services.config)
        assert (await ask(proxy.client)).status_code == 200
        assert "farthing_config_reload_failures_total 1.0" in (await proxy.client.get("/metrics")).text


async def test_a_reload_drops_no_request(tmp_path: Path) -> None:
    config = tmp_path / "farthing.toml"
    async with scripted() as up, serving(up, tmp_path) as (child, client):
        up.default.wait_s = 0.05

        async def keep_asking(name: int) -> list[int]:
            return [(await ask(client, f"{name} {n}")).status_code for n in range(15)]

        asking = [asyncio.create_task(keep_asking(name)) for name in range(4)]
        for ttl in range(5):
            config.write_text(f"[cache]\nttl_s = {ttl + 10}\n")
            child.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.1)
        assert {status for statuses in await asyncio.gather(*asking) for status in statuses} == {200}


async def test_kill_9_loses_nothing_that_is_older_than_the_flush(tmp_path: Path) -> None:
    async with scripted() as up:
        for turn in range(3):
            async with serving(up, tmp_path) as (child, client):
                answers = [await ask(client, f"{turn} {n}") for n in range(30)]
                hits = [await ask(client, f"{earlier} 3") for earlier in range(turn)]
                await asyncio.sleep(0.3)
                child.send_signal(signal.SIGKILL)
                await child.wait()
            assert {answer.status_code for answer in answers} == {200}
            assert {hit.headers["x-farthing-cache"] for hit in hits} <= {"hit-exact"}
    assert len(rows(tmp_path)) == 30 * 3 + 0 + 1 + 2


async def test_no_key_and_no_prompt_is_ever_logged(tmp_path: Path) -> None:
    async with scripted() as up, serving(up, tmp_path, FARTHING_LOG__LEVEL="debug") as (_, client):
        client.headers["Authorization"] = "Bearer sk-very-secret"
        await ask(client, "my private question")
        up.script(Script(reset=True), Script(cut_after=200), Script(body=b"\x00"))
        for n in range(3):
            await ask(client, f"my private question {n}", stream=n == 1)
        await client.post("/v1/chat/completions", content=b'{"model": my private question')
        shown = [await client.get(path) for path in ("/metrics", "/readyz", "/farthing/api/requests")]
        said = (tmp_path / "serve.log").read_text() + "".join(answer.text for answer in shown)

    assert "private" not in said
    assert "sk-very-secret" not in said


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["serve", "--workers", "0"], 2, "server.workers"),
        (["serve", "--workers", "2", "--host", "203.0.113.7", "--port", "0"], 2, "can't listen on"),
        (["serve", "--upstream", "nonsense"], 2, "must begin with http"),
        (["serve", "--config", "none.toml"], 2, "can't read none.toml"),
        (["serve", "--host", "203.0.113.7", "--port", "0"], 2, "can't listen on"),
        (["report"], 3, "there is no ledger"),
        (["report", "--format", "xml"], 3, "there is no ledger"),
        (["cache", "purge"], 2, "say what to purge"),
        (["cache", "purge", "--all", "--model", "m"], 2, "say what to purge"),
        (["cache", "purge", "--source", ""], 2, "source must be a text that is not empty"),
        (["cache", "purge", "--tag", "kb-17"], 2, "a tag looks like doc=kb-17"),
        (["cache", "purge", "--older-than", "soon"], 2, "no span of time"),
        (["cache", "purge", "--older-than", "7d", "--tag", "doc=a", "--json"], 0, '"purged": 0'),
        (["compress", "none.json"], 2, "can't read none.json"),
        (["prices", "show", "no-such-model"], 1, "no price is known"),
        (["prices", "show", "gpt-4o-mini"], 0, "genai-prices"),
        (["check"], 0, '"ttl_s": 86400'),
        (["version"], 0, "farthing "),
        (["cache", "stats"], 0, "entries"),
        (["policy", "off"], 0, "pass through unchanged"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_commands_say_what_is_wrong_and_exit_as_the_contract_says(
    tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    ended = farthing(*arguments, cwd=tmp_path, COLUMNS="200")
    assert said in ended.stdout + ended.stderr
    assert ended.returncode == status
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "command",
    [[], ["serve"], ["check"], ["report"], ["demo"], ["compress"], ["cache"], ["cache", "stats"], ["cache", "purge"],
     ["prices"], ["prices", "show"], ["prices", "check"], ["policy"], ["policy", "off"], ["policy", "on"], ["version"]],
)  # fmt: skip
def test_every_command_has_help_with_an_example(tmp_path: Path, command: list[str]) -> None:
    ended = farthing(*command, "--help", cwd=tmp_path, COLUMNS="200")
    assert ended.returncode == 0
    assert "Example: farthing" in ended.stdout


def test_compress_shows_before_and_after(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"rows": list(range(50))}, indent=4))
    table = farthing("compress", "result.json", "--diff", cwd=tmp_path, COLUMNS="120")
    machine = farthing("compress", "result.json", "--json", cwd=tmp_path)
    assert table.returncode == 0
    assert json.loads(machine.stdout)


async def test_the_state_directory_is_enough_to_reach_a_proxy_on_any_port(tmp_path: Path) -> None:
    async with scripted() as up, serving(up, tmp_path) as (_, client):
        await ask(client)
        stats = await asyncio.to_thread(farthing, "cache", "stats", "--state", "state", "--json", cwd=tmp_path)
        second = await asyncio.to_thread(farthing, "serve", "--state", "state", "--port", "0", cwd=tmp_path)
        purged = await asyncio.to_thread(farthing, "cache", "purge", "--state", "state", "--all", cwd=tmp_path)
        again = await ask(client)
    assert json.loads(stats.stdout)["entries"] == 1, stats.stderr
    assert second.returncode == 2
    assert "1 stored answer removed" in purged.stdout, purged.stderr
    assert again.headers["x-farthing-cache"] == "miss"


async def test_an_address_left_by_a_killed_proxy_means_nothing(tmp_path: Path) -> None:
    async with scripted() as up, serving(up, tmp_path) as (child, client):
        await ask(client)
        await asyncio.sleep(0.3)  # the answer is on the disk
        child.kill()
        await child.wait()
        assert (tmp_path / "state" / "lock").read_text().startswith("http://127.0.0.1:")
        stats = await asyncio.to_thread(farthing, "cache", "stats", "--state", "state", "--json", cwd=tmp_path)
    assert json.loads(stats.stdout)["entries"] == 1, stats.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_proxy_on_every_address_is_asked_over_loopback(tmp_path: Path, host: str) -> None:
    async with scripted() as up, serving(up, tmp_path, "--host", host):
        stats = await asyncio.to_thread(farthing, "cache", "stats", "--state", "state", "--json", cwd=tmp_path)
    assert json.loads(stats.stdout)["entries"] == 0, stats.stderr


async def test_a_second_proxy_on_the_same_state_says_so(tmp_path: Path) -> None:
    async with scripted() as up, serving(up, tmp_path):
        ended = await asyncio.to_thread(farthing, "serve", "--state", "state", "--port", "0", cwd=tmp_path)
    assert ended.returncode == 2
    assert "another farthing uses state" in ended.stderr
