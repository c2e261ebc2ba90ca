"""Hostile and broken clients: a clear error where the error is ours, and neither crash nor stored rubbish."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from farthing.proxy.config import Log
from farthing.proxy.logs import set_up
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import ScriptedUpstream


@pytest.fixture
async def proxy(up: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[Proxied]:
    async with proxied(up.url, tmp_path, limits__body_timeout_s=0.3) as running:
        yield running


async def raw(proxy: Proxied, request: bytes, *, then: bytes = b"", wait_s: float = 0.0) -> bytes:
    """Bytes in, bytes out, until the server closes or a second has passed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(request)
    if then or wait_s:
        await asyncio.sleep(wait_s)
        writer.write(then)
    got = b""
    try:
        async with asyncio.timeout(1.5):
            while piece := await reader.read(65_536):
                got += piece
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    return got


def post(body: bytes, *headers: bytes, length: int | None = None) -> bytes:
    named = b"".join(header + b"\r\n" for header in headers)
    size = len(body) if length is None else length
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Connection: close\r\n%bContent-Length: %d\r\n\r\n%b" % (named, size, body)
    )


async def test_a_model_name_as_long_as_a_prompt_is_cut_in_the_books(proxy: Proxied, up: ScriptedUpstream) -> None:
    answer = await proxy.post(chat(model="m" * 380_000))
    (row,) = await proxy.rows(1)

    assert answer.status_code == 200
    assert up.calls[0].json["model"] == "m" * 380_000
    assert row["model_requested"] == "m" * 256
    assert len(row["model_served"]) <= 256
    assert len(answer.headers.get("x-farthing-model", "")) <= 256


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe{}",
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'\xef\xbb\xbf{"model":"m","messages":[]}',
        b'{"model":"m","messages":[],"temperature":NaN}',
        b'{"model":"m","messages":[],"temperature":Infinity}',
        b'{"model":"m","messages":[],"x":"\\ud800"}',
        b'{"model":"m","messages":[],"x":"\x00"}',
        b'{"model":"m","model":"n","messages":[]}',
        b'{"model":"m","messages":' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"a":' * 3_000 + b"1" + b"}" * 3_000,
        b'{"model":5,"messages":"x","stream":"yes","tools":{},"stream_options":7}',
        b'{"model":"m","messages":[{"role":"tool","content":[1,null,{"type":"text"}]}]}',
        b'{"model":"m","messages":{"0":{}},"n":"many"}',
        b'{"model":"m","messages":[],"seed":' + b"9" * 5_000 + b"}",
        b'{"model":"m","messages":[],"x":1e999999999}',
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_a_malformed_body_passes_through_as_it_is_and_is_never_cached(
    proxy: Proxied, up: ScriptedUpstream, body: bytes
) -> None:
    for _ in range(2):
        answer = await proxy.post(body)
        assert answer.status_code in (200, 400)
    if b"stream_options" not in body:
        assert up.calls[0].body == body
    rows = await proxy.rows(2)
    if b'"model":"m"' not in body or b"duplicate" in rows[0]["cache_reason"].encode():
        assert {row["cache"] for row in rows} == {"bypass"}
    assert (await proxy.post(chat("still alive"))).status_code == 200


@pytest.mark.parametrize(
    ("header", "value", "said"),
    [
        ("x-farthing-ttl", "soon", "is not a number of seconds"),
        ("x-farthing-ttl", "-5", "is not a number of seconds"),
        ("x-farthing-ttl", "\u00b2".encode(), "is not a number of seconds"),
        ("x-farthing-tags", b"team=\xff", "holds what is no text"),
        ("x-farthing-scope", b"\xff", "holds what is no text"),
        ("x-farthing-cache", "maybe", "must be off, exact or semantic"),
        ("x-farthing-compress", "hard", "must be off, tidy or squeeze"),
        ("x-farthing-tags", "no equals", "must look like"),
        ("x-farthing-tags", ",".join(f"a{n}=1" for n in range(20)), "must look like"),
        ("x-farthing-user", "u" * 300, "longer than 256"),
        ("x-farthing-defer", "soon", "span of time"),
    ],
)
async def test_our_own_headers_are_checked_in_the_openai_shape(
    proxy: Proxied, up: ScriptedUpstream, header: str, value: str | bytes, said: str
) -> None:
    raw = value if isinstance(value, bytes) else value.encode()
    answer = await proxy.client.post("/v1/chat/completions", json=chat(), headers={header.encode(): raw})
    error: dict[str, Any] = answer.json()["error"]

    assert answer.status_code == 400
    assert said in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == header
    assert up.calls == []
    assert (await proxy.rows(1))[0]["status"] == 400


async def test_a_hard_body_limit_answers_413(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, limits__max_body_bytes=1000) as proxy:

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 100

        for content in (b"x" * 1001, pieces()):
            answer = await proxy.client.post("/v1/chat/completions", content=content)
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert (await proxy.post(chat())).status_code == 200


async def test_a_body_that_never_ends_times_out(proxy: Proxied, up: ScriptedUpstream) -> None:
    got = await raw(proxy, post(b'{"model":', length=500), wait_s=0.6)
    assert got.startswith(b"HTTP/1.1 408")
    assert b'"code":"request_timeout"' in got
    assert up.calls == []


async def test_a_chunked_upload_beyond_the_hard_limit_is_413_too(up: ScriptedUpstream, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 100

    async with proxied(up.url, tmp_path, limits__max_body_bytes=1000) as proxy:
        answer = await proxy.client.post("/v1/files", content=pieces())
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_a_body_that_keeps_arriving_may_take_its_time(proxy: Proxied) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"steady"}]}'
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(post(b"", length=len(body)))
    for start in range(0, len(body), 10):
        await asyncio.sleep(0.1)
        writer.write(body[start : start + 10])
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_half_a_body_and_gone(proxy: Proxied, up: ScriptedUpstream) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    writer.write(post(b'{"model":', length=500))
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.close()
    row = (await proxy.rows(1))[0]
    assert row["outcome"] in ("abandoned", "failed")
    assert up.calls == []


async def test_a_slow_body_arrives(proxy: Proxied, up: ScriptedUpstream) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"slow"}]}'
    got = await raw(proxy, post(body[:20], length=len(body)), then=body[20:], wait_s=0.1)
    assert got.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Bad\x00: 1\r\nContent-Length: 0\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET http://169.254.0.1/secret HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET //evil/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 200_000 + b"\r\n\r\n",
    ],
    ids=["smuggling", "two-lengths", "nul-header", "bad-chunk", "absolute", "double-slash", "nonsense", "tls", "huge"],
)
async def test_broken_http_is_refused_and_reaches_nobody(
    proxy: Proxied, up: ScriptedUpstream, request_bytes: bytes
) -> None:
    got = await raw(proxy, request_bytes)
    assert got.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert set(json.loads(got.partition(b"\r\n\r\n")[2])["error"]) == {"message", "type", "param", "code"}
    assert up.calls == []
    assert (await proxy.post(chat("still alive"))).status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-hush\x01\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsk-hush, hush\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nContent-Length: 8\r\n\r\nsk-hush",
        b"POST /v1/files HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsk-hush, hush\r\n",
    ],
    ids=["header", "chunk", "lengths", "streamed-chunk"],
)
async def test_what_is_refused_is_neither_logged_nor_sent_back(
    proxy: Proxied, request_bytes: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    set_up(Log(format="json"), terminal=False)
    try:
        got = await raw(proxy, request_bytes)
        log = capfd.readouterr().err
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    assert b" 400 " in got.partition(b"\r\n")[0]
    assert b"hush" not in got
    assert "hush" not in log


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "body",
    [
        json.dumps(chat(deep=json.loads("[" * 220 + "]" * 220))).encode(),
        json.dumps(chat(big=0)).replace('"big": 0', '"big": 1e9999999').encode(),
        json.dumps(chat()).encode("utf-16"),
        json.dumps(chat()).encode("utf-32"),
        b"\xef\xbb\xbf" + json.dumps(chat()).encode(),
        json.dumps(chat(tools=[{"type": {}}, "x"])).encode(),
    ],
    ids=["deep", "huge-number", "utf-16", "utf-32", "bom", "odd-tools"],
)
async def test_what_farthing_cannot_read_the_upstream_still_gets(
    proxy: Proxied, up: ScriptedUpstream, body: bytes, stream: bool
) -> None:
    if stream and body.startswith(b"{"):
        body = b'{"stream":true,' + body[1:]
    assert b"farthing failed" not in (await proxy.post(body)).content
    assert up.calls[0].body == body or (stream and b"include_usage" in up.calls[0].body)


async def test_one_clients_odd_requests_cost_nobody_else_a_hit(proxy: Proxied) -> None:
    await proxy.post(chat())
    for odd in (b'{"temperature":1e9999999,', b'{"tools":[{"type":{}}],'):
        for _ in range(6):
            await proxy.client.post(
                "/v1/chat/completions",
                content=odd + json.dumps(chat("odd")).encode()[1:],
                headers={"Authorization": "Bearer other", "Content-Type": "application/json"},
            )
    assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"


@pytest.mark.parametrize("said", ["yes", "on", ""])
async def test_an_off_that_is_neither_is_refused(proxy: Proxied, up: ScriptedUpstream, said: str) -> None:
    answer = await proxy.post(chat(), x_farthing_off=said)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-farthing-off")
    assert up.calls == []


async def test_a_header_cannot_be_injected(proxy: Proxied, up: ScriptedUpstream) -> None:
    got = await raw(proxy, post(b"{}", b"x-farthing-user: a\r\n b"))
    assert b"\nb" not in got
    answer = await proxy.client.get("/v1/x%0d%0aInjected:%201")
    assert up.calls[-1].path == "/v1/x%0d%0aInjected:%201"
    assert "Injected" not in answer.headers


async def test_expect_continue(proxy: Proxied) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"big"}]}'
    got = await raw(proxy, post(b"", b"Expect: 100-continue", length=len(body)), then=body, wait_s=0.1)
    assert got.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")


class TestAdmin:
    async def test_only_this_machine_by_its_own_name_may_see_it(self, proxy: Proxied) -> None:
        assert (await proxy.client.get("/metrics")).status_code == 200
        rebound = await proxy.client.get("/farthing/api/summary", headers={"Host": "evil.example"})
        assert (rebound.status_code, rebound.json()["error"]["code"]) == (403, "loopback_only")

    async def test_what_changes_something_needs_a_header_no_form_can_send(self, proxy: Proxied) -> None:
        assert (await proxy.client.post("/farthing/api/policy/off")).status_code == 403
        assert not proxy.services.state.switch()

    async def test_a_token_opens_it_and_nothing_else_does(self, up: ScriptedUpstream, tmp_path: Path) -> None:
        async with proxied(up.url, tmp_path, server__admin_token="t0k") as proxy:
            assert (await proxy.client.get("/metrics")).status_code == 401
            good = {"Authorization": "Bearer t0k"}
            assert (await proxy.client.get("/metrics", headers=good)).status_code == 200
            assert (await proxy.client.get("/healthz")).status_code == 200

    @pytest.mark.parametrize("body", [b"[]", b"{bad", b'{"nope": 1}'])
    async def test_a_bad_selector_purges_nothing(self, proxy: Proxied, body: bytes) -> None:
        await proxy.post(chat())
        answer = await proxy.client.post("/farthing/api/cache/purge", content=body, headers={"x-farthing-admin": "1"})
        assert answer.status_code == 400
        assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"


@pytest.mark.parametrize(
    "directive", ["max-age", "max-age=-1", "max-age=1.5", "max-age=31536000000", "nonsense=\u00b2"]
)
async def test_an_odd_cache_control_is_no_reason_to_refuse(proxy: Proxied, directive: str) -> None:
    headers = {b"Cache-Control": directive.encode()}
    assert (await proxy.client.get("/v1/models", headers=headers)).status_code == 200
    assert (await proxy.client.post("/v1/chat/completions", json=chat(), headers=headers)).status_code == 200


async def test_a_lone_surrogate_costs_nobody_else_the_cache(proxy: Proxied) -> None:
    await proxy.post(chat())
    for n in range(8):
        body = b'{"model":"m","n":%d,"messages":[{"role":"user","content":"cut \\ud83d"}]}' % (n + 1)
        await proxy.post(body, Authorization="Bearer sk-other")
    assert (await proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"


async def test_a_credential_may_be_any_bytes(proxy: Proxied) -> None:
    headers = {b"Authorization": b"Bearer \xe9"}
    assert (await proxy.client.post("/v1/chat/completions", json=chat(), headers=headers)).status_code == 200


async def test_admin_is_closed_to_what_came_through_a_proxy(proxy: Proxied) -> None:
    for name in ("X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"):
        assert (await proxy.client.get("/metrics", headers={name: "203.0.113.9"})).status_code == 403
    assert b" 403 " in await raw(proxy, b"GET /metrics HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n")
