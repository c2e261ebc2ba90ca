"""Request smuggling: what can be cut at two places is refused, and what goes upstream can be cut at one place only.

The corpus is smuggling.toml. The upstream here keeps raw bytes, and a strict reader of the tests' own cuts them.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.proxying import proxied
from tests.fakes.upstream import raw_server
from tests.security.wire import exchange, raw_upstream, requests_in

CORPUS: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "smuggling.toml").read_text("utf-8"))["case"]


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["name"])
async def test_the_corpus(case: dict[str, Any], tmp_path: Path) -> None:
    async with raw_upstream() as up, proxied(up.url, tmp_path) as proxy:
        got = await exchange(proxy.url, case["bytes"].encode("latin-1"), wait_s=0.6)
        sent = [pair for heard in up.heard for pair in requests_in(bytes(heard))]

    if case["expect"] == "refused":
        head, _, told = got.partition(b"\r\n\r\n")
        assert head.split()[1] in (b"400", b"405")
        assert set(json.loads(told)["error"]) == {"message", "type", "param", "code"}  # and no second answer behind it
        assert up.all == b""
    elif case["expect"] == "one":
        ((head, body),) = sent
        assert body == case["body"].encode("latin-1")
        assert not head.startswith(b"GET /v1/smuggled")
        lower = head.lower()
        assert b"upgrade" not in lower and b"http2-settings" not in lower and b"sk-other" not in lower
    else:
        assert [head.split()[1] for head, _ in sent] == [b"/v1/models", b"/v1/smuggled"]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX-Note: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX-Note: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX\x00Note: a\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
        b"nonsense",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"y" * 400_000,
    ],
    ids=["two lengths", "both lengths", "fold", "bare CR", "NUL", "bare LF in a chunk", "nonsense", "endless head"],
)
async def test_an_upstream_s_ambiguous_answer_is_an_error_and_never_stored(answer: bytes, tmp_path: Path) -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"a"}]}'
    ask = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    async with raw_server(answer) as url, proxied(url, tmp_path, upstream__retries=0) as proxy:
        got = await exchange(proxy.url, ask, wait_s=2)
        stored = (await proxy.services.state.store.stats()).entries

    assert got.count(b"HTTP/1.1") == 1
    assert got.startswith(b"HTTP/1.1 502") or b"Set-Cookie" not in got
    assert stored == 0


async def test_a_second_answer_behind_the_first_is_nobody_s(tmp_path: Path) -> None:
    """Response queue poisoning: an upstream that says more than it was asked for loses its connection."""
    poison = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{"poison"}'
    async with raw_upstream() as up, proxied(up.url, tmp_path) as proxy:
        up.answer += poison
        said = [(await proxy.client.get(f"/v1/models?{n}")).text for n in range(4)]

    assert said == ["{}"] * 4
    assert len(up.heard) == 4
