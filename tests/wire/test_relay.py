"""The first promise on the wire: what farthing doesn't optimise passes byte for byte, both ways."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream

ODD = b'{ "model":"m",\n\t"messages" : [ {"role":"user","content":"h\\u00e9 \xc3\xa9"} ], "x":1.50e+1, "stream":false}'
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{ "x": 1 }'}}
ALL_OFF = {"cache__mode": "off", "semantic__mode": "off", "compress__tidy": False}


async def test_a_body_that_no_stage_changes_goes_upstream_as_it_came(proxy: Proxied, up: ScriptedUpstream) -> None:
    await proxy.post(ODD)
    assert up.calls[0].body == ODD


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", ["header", "config"])
async def test_off_means_the_clients_bytes_up_and_the_upstreams_bytes_down(
    up: ScriptedUpstream, tmp_path: Path, way: str, stream: bool
) -> None:
    settings = ALL_OFF if way == "config" else {}
    headers = {"x_farthing_off": "1"} if way == "header" else {}
    body = ODD.replace(b"false", b"true") if stream else ODD
    async with proxied(up.url, tmp_path, **settings) as proxy:
        direct = await proxy.client.post(f"{up.url}/chat/completions", content=body)
        up.calls.clear()
        for _ in range(2):
            through = await proxy.post(body, Accept_Encoding="br, gzip", **headers)
            assert up.calls[-1].body == body
            assert up.calls[-1].headers["Accept-Encoding"] == "br, gzip"
            assert [line for line in through.content.split(b"\n") if b"word" in line] != []
            assert len(through.content) == len(direct.content)
        assert len(up.calls) == 2
        assert {row["cache"] for row in await proxy.rows(2)} == {"bypass"}


async def test_compressed_bytes_pass_compressed(proxy: Proxied, up: ScriptedUpstream) -> None:
    import gzip

    up.script(Script(gzip=True))
    async with proxy.client.stream(
        "POST", "/v1/chat/completions", json=chat(), headers={"x-farthing-off": "1", "Accept-Encoding": "gzip"}
    ) as answer:
        raw = b"".join([piece async for piece in answer.aiter_raw()])
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(raw))["object"] == "chat.completion"
    assert (await proxy.rows(1))[0]["usage_source"] == "upstream"


@pytest.mark.parametrize(
    ("method", "path", "body", "kind"),
    [
        ("GET", "/v1/models?limit=1&x=%2F", b"", None),
        ("DELETE", "/v1/files/abc", b"", None),
        ("POST", "/v1/files", b"--b\r\n\r\n\x00\xff\r\n--b--", "multipart/form-data; boundary=b"),
        ("POST", "/v1/audio/speech", b"{}", "application/json"),
        ("PUT", "/unknown//path/%20?q", b"abc", "text/plain"),
        ("PATCH", "/v1/x", b"\x1f\x8b\x00", "application/octet-stream"),
        ("POST", "/v1/batches", b"{broken", "application/json"),
    ],
)  # fmt: skip
async def test_every_other_path_is_relayed_untouched(
    proxy: Proxied, up: ScriptedUpstream, method: str, path: str, body: bytes, kind: str | None
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = await proxy.client.request(method, path, content=body or None, headers=headers)

    assert (answer.status_code, up.calls[0].method, up.calls[0].path) == (200, method, path)
    assert up.calls[0].body == body
    if not path.startswith("/v1/models"):
        assert answer.content == body
    assert (await proxy.rows(1))[0]["endpoint"] == "other"


async def test_hop_by_hop_headers_stop_here_and_the_rest_goes_on(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.script(Script(headers={"X-Up": "1", "Connection": "x-hop, keep-alive", "X-Hop": "1", "Keep-Alive": "5"}))
    answer = await proxy.client.get(
        "/v1/anything",
        headers={"X-App": "1", "Connection": "x-secret", "X-Secret": "1", "TE": "trailers", "x-farthing-user": "u"},
    )
    seen = {name.lower() for name in up.calls[0].headers}

    assert {"x-app", "authorization"} <= seen
    assert not {"x-secret", "te", "x-farthing-user", "connection"} & seen
    assert answer.headers["X-Up"] == "1"
    assert "X-Hop" not in answer.headers


async def test_large_bodies_stream_both_ways_without_being_held(proxy: Proxied, up: ScriptedUpstream) -> None:
    import resource

    size = 50 * 2**20

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // 2**16):
            yield b"x" * 2**16

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await proxy.client.post("/v1/files", content=pieces(), headers={"Content-Type": "text/plain"})
    assert len(answer.content) == size == len(up.calls[0].body)
    # Upstream and client live in this process too and hold a few copies; the proxy adds none of its own.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 6 * size / 1024


async def test_a_json_body_beyond_the_parse_limit_passes_through(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, limits__parse_bytes=2000) as proxy:
        answer = await proxy.post(chat("x" * 5000))
        assert answer.status_code == 200
        assert len(up.calls[0].body) > 5000
        assert (await proxy.rows(1))[0]["cache_reason"] == "body is longer than limits.parse_bytes"


async def test_chunks_leave_at_once(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.default.chunk_wait_s = 0.05
    loop = asyncio.get_running_loop()
    async with proxy.client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as answer:
        times = [loop.time() async for _ in answer.aiter_raw()]

    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) >= 4
    assert max(gaps) > 0.02


@pytest.mark.parametrize("chunk_bytes", [1, 7, 64])
async def test_any_chunk_border_gives_the_same_stream(proxy: Proxied, up: ScriptedUpstream, chunk_bytes: int) -> None:
    up.script(Script(words=12), Script(chunk_bytes=chunk_bytes, words=12))
    whole = await proxy.post(chat(stream=True), Cache_Control="no-cache")
    cut = await proxy.post(chat(stream=True), Cache_Control="no-cache")

    def neutral(text: str) -> str:
        return re.sub(r"chatcmpl-\d|170000000\d", "", text)

    assert neutral(whole.text) == neutral(cut.text)
    rows = await proxy.rows(2)
    assert rows[0]["tokens_out"] == rows[1]["tokens_out"] == 12


async def test_the_clients_own_stream_options_stay(proxy: Proxied, up: ScriptedUpstream) -> None:
    await proxy.post(chat(stream=True, stream_options={"include_obfuscation": False}))
    assert up.calls[0].json["stream_options"] == {"include_obfuscation": False, "include_usage": True}


@pytest.mark.parametrize("status", [400, 422])
async def test_an_upstream_that_refuses_stream_options_is_asked_without(
    proxy: Proxied, up: ScriptedUpstream, status: int
) -> None:
    up.default.refuse_stream_options = status
    for text in ("a", "b"):
        answer = await proxy.post(chat(text, stream=True))
        assert answer.status_code == 200
        assert "[DONE]" in answer.text
    assert ["stream_options" in call.json for call in up.calls] == [True, False, False]
    rows = await proxy.rows(2)
    assert [row["usage_source"] for row in rows] == ["counted", "counted"]
    assert all(row["tokens_out"] > 0 and row["modelled"] for row in rows)


async def test_an_upstream_key_replaces_the_clients(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, upstream__api_key="sk-upstream") as proxy:
        await proxy.post(chat())
        await proxy.post(chat("b"), x_api_key="mine")
    assert up.calls[0].headers["Authorization"] == "Bearer sk-upstream"
    assert up.calls[1].headers["x-api-key"] == "sk-upstream"
    assert "mine" not in str(up.calls[1].headers)


async def test_tidy_shortens_tool_results_and_nothing_else(proxy: Proxied, up: ScriptedUpstream) -> None:
    result = json.dumps({"rows": [{"id": 1, "price": 1.50}, {"id": 2}]}, indent=4)
    body = chat('{ "a" :  1 }')
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": result},
    ]
    await proxy.post(body)
    sent = up.calls[0].json

    assert sent["messages"][2]["content"] == '{"rows":[{"id":1,"price":1.5},{"id":2}]}'
    assert sent["messages"][:2] == body["messages"][:2]
    row = (await proxy.rows(1))[0]
    assert (row["compress"], row["cache"]) == ("tidy", "miss")
    assert row["tokens_in_original"] > row["tokens_in_sent"] == up.calls[0].tokens_in
    assert row["saved_compress_usd"] > 0
    assert (await proxy.post(body)).headers["x-farthing-cache"] == "hit-exact"
    await proxy.post(body, x_farthing_compress="off", Cache_Control="no-cache")
    assert up.calls[-1].json == body


async def test_a_route_header_names_another_model(proxy: Proxied, up: ScriptedUpstream) -> None:
    answer = await proxy.post(chat(), x_farthing_route="cheap")
    assert (up.calls[0].model, answer.headers["x-farthing-model"]) == ("cheap", "cheap")
    row = (await proxy.rows(1))[0]
    assert (row["model_requested"], row["model_served"]) == ("m", "cheap")
    assert (await proxy.post(chat())).headers["x-farthing-cache"] == "miss"


async def test_tags_and_user_are_in_the_ledger(proxy: Proxied) -> None:
    await proxy.post(chat(), x_farthing_tags="team=search, feature=faq", x_farthing_user="u1")
    row = (await proxy.rows(1))[0]
    assert json.loads(row["tags"]) == {"team": "search", "feature": "faq"}
    assert row["user"] == "u1"
    assert "sk-one" not in str(row)
    assert "hello" not in str(row)


async def test_one_clients_own_mistake_turns_usage_off_for_nobody(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.script(Script(status=400, body=b'{"error": {"message": "stream_options is wrong"}}'), Script(status=400))
    assert (await proxy.post(chat("wrong", stream=True))).status_code == 400
    await proxy.post(chat("right", stream=True), Authorization="Bearer sk-two")
    assert up.calls[-1].json["stream_options"] == {"include_usage": True}


async def test_a_model_name_that_no_header_can_carry_harms_no_answer(proxy: Proxied, up: ScriptedUpstream) -> None:
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m\nx"}
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    up.script(Script(body=json.dumps(body | {"choices": [choice]}).encode()))
    for _ in range(2):
        assert (await proxy.post(chat())).json()["model"] == "m\nx"


async def test_a_client_that_asked_in_its_own_way_sees_its_usage(up: ScriptedUpstream, tmp_path: Path) -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    async with proxied(up.url, tmp_path, limits__parse_bytes=2000) as proxy:
        assert "usage" in (await proxy.post(chat("x" * 5000, **asked))).text
        await proxy.post(chat(stream=True, usage={"include": True}))
        assert "stream_options" not in up.calls[-1].json
    async with proxied(up.url, tmp_path, upstream__stream_usage=False) as proxy:
        text = "data: " + json.dumps({"choices": [], "usage": {"prompt_tokens": 1}}) + "\n\ndata: [DONE]\n\n"
        up.script(Script(body=text.encode(), headers={"Content-Type": "text/event-stream"}))
        assert (await proxy.post(chat("y", stream=True))).text == text


async def test_with_everything_off_a_stream_that_is_cut_is_cut_at_the_same_byte(
    proxy: Proxied, up: ScriptedUpstream
) -> None:
    """No whole event is waited for: what had come of the next one is the client's too."""
    async with httpx.AsyncClient() as straight:
        cuts = []
        for client, url in ((straight, up.url.removesuffix("/v1")), (proxy.client, "")):
            up.script(Script(cut_after=300, words=30))
            got = b""
            with pytest.raises(httpx.RemoteProtocolError):
                async with client.stream(
                    "POST", f"{url}/v1/chat/completions", json=chat(stream=True), headers={"x-farthing-off": "1"}
                ) as answer:
                    async for piece in answer.aiter_raw():
                        got += piece
            cuts.append(got)
    assert len(cuts[0]) == len(cuts[1]) > 0
    assert not cuts[0].endswith(b"\n\n")
