"""Capture from end to end: what clients said and heard, by every way that an answer takes; and what is never kept."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from farthing.proxy import capture_admin
from farthing.proxy.capture_file import lines
from farthing.proxy.config import Config
from farthing.proxy.config_capture import Capture as Settings
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted

ADMIN = {"x-farthing-admin": "1"}


async def kept(proxy: Proxied, count: int) -> list[dict[str, Any]]:
    """What is on the disk, oldest first; waits until `count` are there."""
    for _ in range(200):
        capture = proxy.services.state.capture
        if capture is not None:
            await asyncio.to_thread(capture.flush)
        path = proxy.state_dir / "capture.db"
        found = [json.loads(line) for line in lines(path, 0)] if path.exists() else []
        if len(found) >= count:
            return found
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(found)} captured after 4 s, expected {count}")


def spoken(line: dict[str, Any]) -> Any:
    return line["response"]["choices"][0]["message"]["content"]


async def test_every_way_of_an_answer_is_captured_whole(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path, capture__enabled=True) as proxy:
        got = [await proxy.post(chat("one"), x_farthing_user="u1") for _ in range(3)]  # miss, hit, the short way
        await proxy.post(chat("one", stream=True))  # a hit in the other shape
        await proxy.post(chat("two", stream=True), x_farthing_tags="team=a")
        up.script(Script(wait_s=0.2))
        await asyncio.gather(*(proxy.post(chat("three")) for _ in range(2)))
        up.script(Script(status=400))
        await proxy.post(chat("four"))
        found = await kept(proxy, 8)
        rows = {row["id"]: row for row in await proxy.rows(8)}

    assert [line["row"]["cache"] for line in found[:5]] == ["miss", "hit-exact", "hit-exact", "hit-exact", "miss"]
    said = got[0].json()["choices"][0]["message"]["content"]
    assert [spoken(line) for line in found[:4]] == [said] * 4
    assert spoken(found[4]).startswith("You said")
    assert [line["stream"] for line in found[:5]] == [False] * 3 + [True] * 2
    assert {line["row"]["cache"] for line in found[5:7]} == {"miss", "joined"}
    assert all(spoken(line) == spoken(found[5]) for line in found[5:7])
    assert (found[7]["status"], "error" in found[7]["response"]) == (400, True)
    assert found[0]["request"] == chat("one") and found[4]["request"] == chat("two", stream=True)
    assert [line["user"] for line in found[:4]] == ["u1"] * 3 + [""]
    assert found[4]["tags"] == {"team": "a"}
    assert all(line["row"] == rows[line["id"]] for line in found)
    assert all(line["path"] == "/v1/chat/completions" for line in found)


async def test_what_asked_not_to_be_kept_never_is(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path, capture__enabled=True, compat__aliases=["bifrost", "litellm"]) as proxy:
        await proxy.post(chat("SECRET"), x_farthing_off="1")
        await proxy.post(chat("SECRET"), Cache_Control="no-store")
        await proxy.post(chat("SECRET"), x_bf_cache_no_store="true")
        await proxy.post(chat("SECRET", cache={"no-store": True}))
        await proxy.post(b'{"SECRET')
        await proxy.client.get("/v1/models")
        await proxy.post(chat("fine", cache={"ttl": 5}))
        found = await kept(proxy, 1)
        await proxy.rows(7)

    assert [line["request"] for line in found] == [chat("fine", cache={"ttl": 5})]  # as the client sent it
    assert not any(b"SECRET" in file.read_bytes() for file in tmp_path.glob("capture.db*"))


async def test_filters(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(
        up.url, tmp_path, capture__enabled=True, capture__endpoints=["chat"], capture__tags=["team=a", "team=b"]
    ) as proxy:
        await proxy.post({"model": "m", "input": "x"}, "/v1/embeddings", x_farthing_tags="team=a")
        await proxy.post(chat("no tag"))
        await proxy.post(chat("another"), x_farthing_tags="team=c")
        await proxy.post(chat("this"), x_farthing_tags="feature=x,team=b")
        found = await kept(proxy, 1)
        tenant = found[0]["tenant"]
    async with proxied(up.url, tmp_path, capture__enabled=True, capture__tenants=[tenant]) as proxy:
        await proxy.post(chat("theirs"), Authorization="Bearer other")
        await proxy.post(chat("ours"))
        again = await kept(proxy, 2)

    assert [line["request"]["messages"][0]["content"] for line in again] == ["this", "ours"]


async def test_it_costs_nothing_while_it_is_off(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        await proxy.post(chat())
        state = (await proxy.client.get("/farthing/api/capture")).json()
        ready = (await proxy.client.get("/readyz")).json()
        metrics = (await proxy.client.get("/metrics")).text

        assert proxy.services.state.capture is None
    assert state["enabled"] is False and state["rows"] == 0
    assert ready["capture"] == "off"
    assert "farthing_capture" not in metrics
    assert not list(tmp_path.glob("capture*"))


async def test_a_reload_switches_it(tmp_path: Path, up: ScriptedUpstream) -> None:
    def switched(config: Config, enabled: bool) -> Config:
        return config.model_copy(update={"capture": config.capture.model_copy(update={"enabled": enabled})})

    async with proxied(up.url, tmp_path) as proxy:
        config = proxy.services.config
        for number, enabled in enumerate((False, True, False, True)):
            await proxy.running.reload(switched(config, enabled))
            for _ in range(3):
                await proxy.post(chat(f"{number}"))
        found = await kept(proxy, 6)

    assert [line["request"]["messages"][0]["content"] for line in found] == ["1"] * 3 + ["3"] * 3


async def test_admin_tells_erases_and_counts(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path, capture__enabled=True, capture__share=1.0) as proxy:
        for user in ("u1", "u2", "u1"):
            await proxy.post(chat(f"I am {user}@example.com"), x_farthing_user=user)
        await kept(proxy, 3)
        told = (await proxy.client.get("/farthing/api/capture")).json()
        assert (told["enabled"], told["healthy"], told["rows"], told["written"], told["dropped"]) == (
            True,
            True,
            3,
            3,
            0,
        )
        assert told["redactions"]["email"] >= 3 and told["bytes"] > 1000 and told["oldest_s"] <= told["newest_s"]

        async def erase(asked: Any, headers: dict[str, str] = ADMIN) -> httpx.Response:
            return await proxy.client.post("/farthing/api/capture/erase", json=asked, headers=headers)

        assert (await erase({"user": "u1"}, {})).status_code == 403
        assert (await erase({})).status_code == 400
        assert (await erase({"user": "u1"})).json() == {"erased": 2, "damaged_files": 0}
        assert [line["user"] for line in await kept(proxy, 1)] == ["u2"]
        metrics = (await proxy.client.get("/metrics")).text
        assert "farthing_capture_rows_total 3.0" in metrics and "farthing_capture_dropped_total 0.0" in metrics
        assert (await proxy.client.get("/readyz")).json()["capture"] == "on, 100% of conversations"


async def test_a_locked_store_hurts_no_request_and_is_told(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path, capture__enabled=True) as proxy:
        await proxy.post(chat("before"))
        await kept(proxy, 1)
        with closing(sqlite3.connect(tmp_path / "capture.db", isolation_level=None)) as other:
            other.execute("begin exclusive")
            for n in range(5):
                assert (await proxy.post(chat(f"{n}"))).status_code == 200
            await proxy.client.get("/farthing/api/capture")  # waits until it was tried
            ready = (await proxy.client.get("/readyz")).json()
            assert (ready["status"], ready["capture"]) == ("ready", "failing")
            refused = await proxy.client.post("/farthing/api/capture/erase", json={"user": "u"}, headers=ADMIN)
            assert refused.status_code == 503
            other.execute("rollback")
        assert len(await kept(proxy, 6)) == 6


async def test_without_a_ledger_it_works_too(tmp_path: Path, up: ScriptedUpstream) -> None:
    async with proxied(up.url, tmp_path, capture__enabled=True, ledger__enabled=False) as proxy:
        await proxy.post(chat("one"))
        found = await kept(proxy, 1)

    assert found[0]["row"]["endpoint"] == "chat"


async def test_what_was_asked_is_found_by_key_and_moment(tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, capture__enabled=True) as proxy:
        for text in ("one", "two"):
            await proxy.post(chat(text))
        rows = await proxy.rows(2)
        assert proxy.services.state.capture is not None
        proxy.services.state.capture.flush()
        one, two = [(each["key_hash"], each["ts"]) for each in rows]
        known = await capture_admin.texts(proxy.services, [one, (two[0], two[1] + 1), ("nobody", one[1])])
        assert known == {one[0]: "one"}
        assert await capture_admin.texts(proxy.services, []) == {}
        off = proxy.services.config.model_copy(update={"capture": Settings()})
        await proxy.running.reload(off)
        assert await capture_admin.texts(proxy.running.services, [one]) == {}, "kept of former times, but not on now"
