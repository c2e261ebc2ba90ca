"""The scripted upstream itself: other tests stand on its meter, so the meter is checked against what a client sees."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from tests.fakes.upstream import Script, ScriptedUpstream, raw_server, scripted

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Where is the tower?"}]}


@pytest.fixture
async def up() -> AsyncIterator[ScriptedUpstream]:
    async with scripted() as up:
        yield up


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as client:
        yield client


async def post(client: aiohttp.ClientSession, url: str, asked: dict[str, Any]) -> tuple[int, bytes]:
    async with client.post(url, json=asked) as answer:
        return answer.status, await answer.read()


def events(body: bytes) -> list[dict[str, Any]]:
    lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    return [json.loads(line) for line in lines]


async def test_the_same_question_has_the_same_answer_and_the_bill_is_its_usage(
    up: ScriptedUpstream, client: aiohttp.ClientSession
) -> None:
    bodies = [json.loads((await post(client, f"{up.url}/chat/completions", CHAT))[1]) for _ in range(2)]
    assert bodies[0]["choices"] == bodies[1]["choices"] and bodies[0]["id"] != bodies[1]["id"]
    usage = bodies[0]["usage"]
    assert usage == bodies[1]["usage"]
    cost = 2 * (Decimal(3) * usage["prompt_tokens"] + Decimal(15) * usage["completion_tokens"]) / 1_000_000
    assert up.bill(("3", "0.3", "15")) == cost > 0
    assert all(call.finished and not call.cancelled for call in up.calls)


@pytest.mark.parametrize("wants", [True, False])
async def test_a_stream_says_what_the_whole_says(
    up: ScriptedUpstream, client: aiohttp.ClientSession, wants: bool
) -> None:
    whole = json.loads((await post(client, f"{up.url}/chat/completions", CHAT))[1])
    asked = CHAT | {"stream": True} | ({"stream_options": {"include_usage": True}} if wants else {})
    _, body = await post(client, f"{up.url}/chat/completions", asked)
    chunks = events(body)
    said = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert said == whole["choices"][0]["message"]["content"]
    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert usages == ([whole["usage"]] if wants else [])
    assert up.calls[0].tokens_out == up.calls[1].tokens_out


async def test_the_borders_of_chunks_change_no_byte(up: ScriptedUpstream, client: aiohttp.ClientSession) -> None:
    up.script(Script(), Script(chunk_bytes=1), Script(chunk_bytes=7), Script(gzip=True))
    asked = CHAT | {"stream": True}
    bodies = [(await post(client, f"{up.url}/chat/completions", asked))[1] for _ in range(4)]
    texts = [[event["choices"] for event in events(body)] for body in bodies]
    assert texts[0] == texts[1] == texts[2] == texts[3]


async def test_body_and_headers_are_kept_as_they_came(up: ScriptedUpstream, client: aiohttp.ClientSession) -> None:
    raw = b'{ "model":"m",\n"messages" : [],"x":1.00, "x":2, "\xc3\xa4":"\\u00e4" }'
    async with client.post(f"{up.url}/chat/completions?a=%20b", data=raw, headers={"X-Odd": "Ä"}) as answer:
        assert answer.status == 200
    assert up.calls[0].body == raw
    assert up.calls[0].path == "/v1/chat/completions?a=%20b"
    assert up.calls[0].headers["X-Odd"] == "Ä"


async def test_what_it_does_not_know_comes_back(up: ScriptedUpstream, client: aiohttp.ClientSession) -> None:
    form = aiohttp.FormData()
    form.add_field("file", b"\x00\xff", filename="a.bin")
    async with client.post(f"{up.url}/files", data=form) as answer:
        echoed = await answer.read()
        assert answer.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert echoed == up.calls[0].body and b"\x00\xff" in echoed


async def test_embeddings_are_one_vector_in_two_writings(up: ScriptedUpstream, client: aiohttp.ClientSession) -> None:
    asked = {"model": "e", "input": ["one", "two and three"]}
    _, floats = await post(client, f"{up.url}/embeddings", asked)
    _, packed = await post(client, f"{up.url}/embeddings", asked | {"encoding_format": "base64"})
    for plain, coded in zip(json.loads(floats)["data"], json.loads(packed)["data"], strict=True):
        raw = base64.b64decode(coded["embedding"])
        assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == plain["embedding"]


@pytest.mark.parametrize(
    ("path", "asked", "usage_at"),
    [
        ("completions", {"prompt": "Once"}, None),
        ("responses", {"input": "Once"}, ("response", "usage", "output_tokens")),
        ("messages", {"messages": [{"role": "user", "content": "Once"}], "max_tokens": 9}, ("usage", "output_tokens")),
    ],
)
async def test_the_other_endpoints_stream_and_count(
    up: ScriptedUpstream,
    client: aiohttp.ClientSession,
    path: str,
    asked: dict[str, Any],
    usage_at: tuple[str, ...] | None,
) -> None:
    status, whole = await post(client, f"{up.url}/{path}", {"model": "m"} | asked)
    assert status == 200 and json.loads(whole)["usage"]
    status, body = await post(client, f"{up.url}/{path}", {"model": "m", "stream": True} | asked)
    assert status == 200 and len(events(body)) > 3
    if usage_at:
        found: list[Any] = []
        for event in events(body):
            value: Any = event
            for name in usage_at:
                value = value.get(name) if isinstance(value, dict) else None
            found.append(value)
        assert [value for value in found if value is not None][-1] == up.calls[1].tokens_out
    assert up.calls[0].tokens_out == up.calls[1].tokens_out


async def test_scripts_are_used_once_in_order_then_as_usual(
    up: ScriptedUpstream, client: aiohttp.ClientSession
) -> None:
    up.script(
        Script(status=429, headers={"Retry-After": "2", "x-should-retry": "true"}), Script(status=503, body=b"no")
    )
    async with client.post(f"{up.url}/chat/completions", json=CHAT) as answer:
        assert (answer.status, answer.headers["Retry-After"], answer.headers["x-should-retry"]) == (429, "2", "true")
        assert (await answer.json())["error"]["message"]
    assert await post(client, f"{up.url}/chat/completions", CHAT) == (503, b"no")
    assert (await post(client, f"{up.url}/chat/completions", CHAT))[0] == 200
    assert up.bill(("1", "1", "1")) * 1_000_000 == up.calls[2].tokens_in + up.calls[2].tokens_out


@pytest.mark.parametrize("script", [Script(reset=True), Script(cut_after=10), Script(cut_after=0)])
async def test_broken_connections_are_broken(
    up: ScriptedUpstream, client: aiohttp.ClientSession, script: Script
) -> None:
    up.script(script)
    with pytest.raises(aiohttp.ClientError):
        await post(client, f"{up.url}/chat/completions", CHAT)
    assert not up.calls[0].finished


async def test_a_client_that_leaves_a_stream_is_charged_for_what_was_sent(
    up: ScriptedUpstream, client: aiohttp.ClientSession
) -> None:
    up.script(Script(chunk_wait_s=0.02, words=500))
    async with client.post(f"{up.url}/chat/completions", json=CHAT | {"stream": True}) as answer:
        await answer.content.readuntil(b"word3")
        answer.close()
    for _ in range(100):
        if up.calls[0].cancelled:
            break
        await asyncio.sleep(0.01)
    assert up.calls[0].cancelled and not up.calls[0].finished
    assert 3 < up.calls[0].tokens_out < 100
    assert up.at_once == 0


async def test_waits_and_hangs_last(up: ScriptedUpstream, client: aiohttp.ClientSession) -> None:
    up.script(Script(wait_s=0.1), Script(hang=True))
    before = asyncio.get_running_loop().time()
    await post(client, f"{up.url}/chat/completions", CHAT)
    assert asyncio.get_running_loop().time() - before >= 0.1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await post(client, f"{up.url}/chat/completions", CHAT)


async def test_an_error_in_mid_stream_and_an_upstream_without_usage(
    up: ScriptedUpstream, client: aiohttp.ClientSession
) -> None:
    up.script(Script(error_event=True), Script(no_usage=True))
    _, body = await post(client, f"{up.url}/chat/completions", CHAT | {"stream": True})
    assert events(body)[-1]["error"] and b"[DONE]" not in body and len(events(body)) > 3
    _, body = await post(client, f"{up.url}/chat/completions", CHAT)
    assert "usage" not in json.loads(body)


@pytest.mark.parametrize(
    "answer", [b"\x00\xff rubbish\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort"]
)
async def test_raw_bytes_are_sent_as_they_are(client: aiohttp.ClientSession, answer: bytes) -> None:
    async with raw_server(answer) as url:
        with pytest.raises(aiohttp.ClientError):
            await post(client, f"{url}/chat/completions", CHAT)
