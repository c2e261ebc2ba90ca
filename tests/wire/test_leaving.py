"""Clients that leave: at a stream's last event they have it all, whenever its body ends; before it, they don't.

openai-python closes the connection at `[DONE]` (openai/_streaming.py), and often sooner than the body ends.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.legs import Legs, Tried
from farthing.proxy.usage import Usage
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.wire.test_routes import house, until, why


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with scripted() as one:
        yield one


async def read_until(proxy: Proxied, body: dict[str, Any], last: bytes, path: str = "/v1/chat/completions") -> None:
    """Send it, read up to `last`, and leave."""
    content = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(
        b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-one\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(content), content)
    )
    await asyncio.wait_for(reader.readuntil(last), 10)
    writer.close()


SHAPES = [
    (chat(stream=True), b"data: [DONE]\n\n", "/v1/chat/completions"),
    ({"model": "m", "prompt": "p", "stream": True}, b"data: [DONE]\n\n", "/v1/completions"),
    ({"model": "m", "input": "p", "stream": True, "store": False}, b"response.completed", "/v1/responses"),
    (
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "p"}], "stream": True},
        b'"message_stop"}',
        "/v1/messages",
    ),
]


@pytest.mark.parametrize(("body", "last", "path"), SHAPES, ids=[path for _, _, path in SHAPES])
@pytest.mark.parametrize("end_wait_s", [0.0, 0.3])
async def test_who_leaves_at_the_last_event_had_it_all(
    up: ScriptedUpstream, tmp_path: Path, body: dict[str, Any], last: bytes, path: str, end_wait_s: float
) -> None:
    up.default = Script(end_wait_s=end_wait_s, chunk_wait_s=0.01)
    async with proxied(up.url, tmp_path) as proxy:
        await read_until(proxy, body, last, path)
        (row,) = await proxy.rows(1)
        again = await proxy.post(body, path)
    assert (row["outcome"], row["error"], row["usage_source"]) == ("completed", "", "upstream")
    assert again.headers["x-farthing-cache"] == "hit-exact"
    assert [call.cancelled for call in up.calls] == [False]


async def test_an_end_that_never_comes_is_waited_for_some_seconds(
    up: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("farthing.cache.flight._END_WITHIN_S", 0.2)
    up.default = Script(end_wait_s=60)
    async with proxied(up.url, tmp_path) as proxy:
        await read_until(proxy, chat(stream=True), b"data: [DONE]\n\n")
        (row,) = await proxy.rows(1)
        again = await proxy.post(chat(stream=True))
        await until(lambda: up.calls[0].cancelled)
    assert (row["outcome"], row["error"], row["usage_source"]) == ("completed", "", "upstream")
    assert again.headers["x-farthing-cache"] == "hit-exact"


async def test_who_leaves_before_the_last_event_has_given_up(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default = Script(chunk_wait_s=0.05)
    async with proxied(up.url, tmp_path) as proxy:
        await read_until(proxy, chat(stream=True), b"word1")
        (row,) = await proxy.rows(1)
        await until(lambda: up.calls[0].cancelled)
    assert (row["outcome"], row["error"]) == ("abandoned", "every client left")


async def test_who_leaves_while_the_loser_of_a_hedge_is_counted_is_billed_for_the_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, go_on = Legs._counted, threading.Event()
    asked = threading.Event()

    def slowly(legs: Legs, tried: Tried) -> Usage:
        asked.set()
        assert go_on.wait(10)
        return counts(legs, tried)

    monkeypatch.setattr(Legs, "_counted", slowly)
    route = {"variants": ["mini-there"], "fallbacks": ["tiny-there"], "hedge_after_ms": 30}
    async with house(tmp_path, [route]) as at:
        at.cheap.script(Script(wait_s=30))
        asking = asyncio.get_running_loop().create_task(at.proxy.post(chat()))
        await until(asked.is_set)
        asking.cancel()
        await until(lambda: at.proxy.services.admit.in_flight == 1)
        await asyncio.sleep(0.05)  # until farthing has seen it leave
        go_on.set()
        (row,) = await at.books(1)
    assert (row["model_served"], row["attempts"], row["usage_source"]) == ("tiny", 2, "upstream")
    assert [one["variant"] for one in json.loads(row["attempts_detail"])] == ["mini-there", "tiny-there"]
    assert not [reason for _, action, reason in why(row) if action == "failed"]
