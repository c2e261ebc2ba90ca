"""Texts on spans at a real OTLP receiver: only where it was asked for, of whom may be told, looked through."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.config_capture import OwnPattern
from farthing.proxy.otlp import Otlp
from tests.fakes.collector import Collector, Span, collector
from tests.fakes.otel_schema import checked
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream

ON: dict[str, Any] = {"otlp__every_s": 0.05, "otlp__metrics": False, "otlp__timeout_s": 1.0, "otlp__content": True}
INPUT, OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"
PROMPT = "PROMPT-of-ada@lovelace.example"


@pytest.fixture
async def held() -> AsyncIterator[Collector]:
    async with collector() as one:
        yield one


async def until(reached: Any) -> None:
    for _ in range(500):
        if reached():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it didn't come to pass")


def otlp_of(proxy: Proxied) -> Otlp:
    otlp = proxy.services.state.otlp
    assert otlp is not None
    return otlp


def everything(spans: list[Span]) -> str:
    return json.dumps([span.attributes for span in spans])


async def test_no_text_leaves_unless_it_is_asked_for(up: ScriptedUpstream, held: Collector, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **ON | {"otlp__content": False}) as proxy:
        for _ in range(3):
            await proxy.post(chat(PROMPT), x_farthing_tags="a=b")
        await held.until(lambda one: len(one.spans) == 3)
        assert otlp_of(proxy).contents is None
    assert "PROMPT" not in everything(held.spans) and INPUT not in everything(held.spans)


async def test_spans_of_every_api_hold_what_was_said(up: ScriptedUpstream, held: Collector, tmp_path: Path) -> None:
    up.default = Script(says="word by grace@hopper.example")
    message = {"model": "m", "max_tokens": 9, "system": "be kind", "messages": [{"role": "user", "content": PROMPT}]}
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **ON) as proxy:
        for _ in range(3):  # a miss, a hit, a hit by the short way
            await proxy.post(chat(PROMPT), authorization="Bearer sk-client-key-0123456789", cookie="biscuit")
        await proxy.post(chat(PROMPT, stream=True, n=1))
        await proxy.post({"model": "m", "input": PROMPT, "instructions": "be kind"}, "/v1/responses")
        await proxy.post(message, "/v1/messages")
        await proxy.post({"model": "m", "prompt": PROMPT}, "/v1/completions")
        await proxy.post({"model": "m", "input": PROMPT}, "/v1/embeddings")
        await held.until(lambda one: len(one.spans) == 8)
        otlp = otlp_of(proxy)
        assert otlp.contents is not None
        await until(lambda: otlp.contents is not None and otlp.contents.waiting_bytes == 0)
        assert otlp.dropped == 0
    said: list[Any] = []
    for span in held.spans:
        texts = checked(span.attributes)
        if span.attributes["farthing.endpoint"] == "embeddings":
            assert not texts and "PROMPT" not in everything([span])
            continue
        assert texts[INPUT][-1]["parts"][0]["content"].startswith("PROMPT-of-[email-") or "[email-" in str(texts[INPUT])
        assert "word by [email-" in str(texts[OUTPUT]), span.attributes
        assert span.attributes["gen_ai.response.finish_reasons"] == ["stop"]
        said.append((span.attributes["farthing.cache"], texts[INPUT], texts[OUTPUT]))
    assert [cache for cache, _, _ in said[:3]] == ["miss", "hit-exact", "hit-exact"]
    assert said[0][1:] == said[1][1:] == said[2][1:]
    assert [span.attributes.get("gen_ai.system_instructions") for span in held.spans[4:6]] == [
        '[{"type":"text","content":"be kind"}]'
    ] * 2
    for secret in ("lovelace", "hopper", "sk-client", "biscuit", "Bearer"):
        assert secret not in everything(held.spans)


async def test_who_is_not_captured_is_not_told_of(up: ScriptedUpstream, held: Collector, tmp_path: Path) -> None:
    more: dict[str, Any] = {"capture__tags": ("team=search",)}
    search = {"x_farthing_tags": "team=search"}
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **ON, **more) as proxy:
        await proxy.post(chat("PROMPT of another team"))
        await proxy.post(chat("PROMPT not to be stored"), cache_control="no-store", **search)
        await proxy.post(chat("PROMPT past farthing"), x_farthing_off="1", **search)
        await proxy.post(chat("PROMPT for no time"), x_farthing_ttl="0", **search)
        await proxy.post(chat("may be told"), **search)
        await held.until(lambda one: len(one.spans) == 5)
    assert "PROMPT" not in everything(held.spans)
    assert "may be told" in held.spans[4].attributes[INPUT]
    assert not (tmp_path / "capture.db").exists()


async def test_a_stream_that_breaks_off_is_told_as_far_as_it_came(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    up.script(Script(words=50, cut_after=1500))
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **ON) as proxy:
        await proxy.post(chat("go on", stream=True))
        await held.until(lambda one: len(one.spans) == 1)
    (message,) = checked(held.spans[0].attributes)[OUTPUT]
    assert message["finish_reason"] == "error"
    assert 0 < len(message["parts"][0]["content"].split()) < 50
    assert held.spans[0].attributes["error.type"] == "incomplete"


async def test_a_megabyte_is_cut_and_what_cannot_be_looked_through_is_counted(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, otlp__content_bytes=2048, **ON) as proxy:
        await proxy.post(chat("word " * 200_000))
        await proxy.post(chat("w" * 4_000_001))
        for odd in (b"\\ud800", b"\\u0000"):  # the first is a body that isn't understood
            body = b'{"model": "m", "messages": [{"role": "user", "content": "a' + odd + b'"}]}'
            assert (await proxy.post(body)).status_code == 200
        await held.until(lambda one: len(one.spans) == 4)
        await until(lambda: otlp_of(proxy).dropped == 1)
        assert "farthing_otlp_dropped_total 1.0" in (await proxy.client.get("/metrics")).text
    cut, left_out, surrogate, nul = (span.attributes for span in held.spans)
    assert len(cut[INPUT]) + len(cut[OUTPUT]) <= 2048
    assert cut["farthing.content.cut"] is True and checked(cut)[INPUT][0]["parts"][0]["content"].startswith("word word")
    assert left_out["farthing.content.left_out"] == "redaction" and INPUT not in left_out
    assert INPUT not in surrogate
    assert json.loads(nul[INPUT])[0]["parts"][0]["content"] == "a\x00"


async def test_what_is_to_be_taken_out_follows_a_reload(up: ScriptedUpstream, held: Collector, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **ON) as proxy:
        await proxy.post(chat("badge B-1234"))
        await held.until(lambda one: len(one.spans) == 1)
        config = proxy.services.config
        capture = config.capture.model_copy(update={"patterns": (OwnPattern(name="badge", pattern=r"B-\d{4}"),)})
        await proxy.running.reload(config.model_copy(update={"capture": capture}))
        await proxy.post(chat("badge B-1234 again"))
        await held.until(lambda one: len(one.spans) == 2)
    first, second = (span.attributes[INPUT] for span in held.spans)
    assert "B-1234" in first
    assert "B-1234" not in second and "[badge-" in second


async def test_texts_that_a_killed_sender_held_wait_no_longer(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    held.status = 503
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **ON) as proxy:
        otlp = otlp_of(proxy)
        contents = otlp.contents
        assert contents is not None
        await proxy.post(chat("lost"))
        await until(lambda: otlp.pending == 1 and not otlp.healthy)
        assert contents.waiting_bytes > 0
        first = otlp.process_id
        os.kill(first, signal.SIGKILL)
        held.status = 200
        await until(lambda: otlp.process_id != first)
        assert contents.waiting_bytes == 0
        await proxy.post(chat("kept"))
        await held.until(lambda one: len(one.spans) == 1)
    assert "kept" in held.spans[0].attributes[INPUT]


async def test_a_client_that_records_nothing_has_nothing_told(
    up: ScriptedUpstream, held: Collector, tmp_path: Path
) -> None:
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    async with proxied(up.url, tmp_path, otlp__endpoint=held.url, **ON) as proxy:
        await proxy.post(chat("PROMPT"), traceparent=header)
        await proxy.post(chat("other"))
        await held.until(lambda one: len(one.spans) == 1)
    assert "other" in held.spans[0].attributes[INPUT]
