"""An answer that is no strict JSON goes on as it came, is not kept, and is billed by what it says that it used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream

WORDS = "one two three four five"
USAGE: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 7, "total_tokens": 16}


def answer(**more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}
    logprobs = {"content": [{"token": "one", "logprob": float("-inf")}, {"token": "two", "logprob": float("nan")}]}
    return json.dumps(
        {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice | {"logprobs": logprobs}]} | more
    ).encode()


@pytest.mark.parametrize("padding", [0, 100_000])
async def test_a_whole_answer(proxy: Proxied, up: ScriptedUpstream, padding: int) -> None:
    sent = answer(usage=USAGE, padding="x" * padding)
    up.script(Script(body=sent), Script(body=sent))
    got = []
    for number in range(2):
        got.append(await proxy.post(chat("odd")))
        await proxy.rows(number + 1)  # its flight has ended: the next request is one of its own
    assert [one.content for one in got] == [sent] * 2
    rows = await proxy.rows(2)
    for row in rows:
        assert (row["tokens_in_sent"], row["tokens_out"], row["usage_source"]) == (9, 7, "upstream")
        assert row["cost_usd"] > 0 and row["cache"] == "miss"


async def test_one_that_tells_no_usage_is_counted(proxy: Proxied, up: ScriptedUpstream) -> None:
    up.script(Script(body=answer()))
    await proxy.post(chat("odd"))
    (row,) = await proxy.rows(1)
    assert (row["tokens_out"], row["usage_source"]) == (proxy.services.state.tokenizer.count(WORDS, "m"), "counted")


async def test_a_stream(proxy: Proxied, up: ScriptedUpstream) -> None:
    delta = {"index": 0, "delta": {"content": WORDS}, "logprobs": {"content": [{"logprob": float("nan")}]}}
    last = {"choices": [], "usage": USAGE | {"speed": float("inf")}}
    events = [json.dumps({"model": "m", "choices": [delta]}), json.dumps({"model": "m"} | last), "[DONE]"]
    sent = "".join(f"data: {one}\n\n" for one in events).encode()
    up.script(Script(body=sent, headers={"Content-Type": "text/event-stream"}))
    got = await proxy.post(chat("odd", stream=True, stream_options={"include_usage": True}))
    assert got.content == sent
    (row,) = await proxy.rows(1)
    assert (row["tokens_in_sent"], row["tokens_out"], row["usage_source"]) == (9, 7, "upstream")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hit_on_one_that_told_no_usage_is_counted_once_and_then_known(
    up: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    message = {"role": "assistant", "content": WORDS}
    whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini"}
    whole |= {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    piece = whole | {"object": "chat.completion.chunk"}
    choices = (
        [{"index": 0, "delta": message, "finish_reason": None}],
        [{"index": 0, "delta": {}, "finish_reason": "stop"}],
    )
    events = "".join(f"data: {json.dumps(piece | {'choices': each})}\n\n" for each in choices) + "data: [DONE]\n\n"
    kind = {"Content-Type": "text/event-stream"} if stream else {"Content-Type": "application/json"}
    up.script(Script(body=(events if stream else json.dumps(whole)).encode(), headers=kind))
    async with proxied(up.url, tmp_path, ledger__drift_sample=0) as proxy:
        counts = []
        count = proxy.services.state.tokenizer.count_text_out
        monkeypatch.setattr(
            proxy.services.state.tokenizer, "count_text_out", lambda *told: (counts.append(1), count(*told))[1]
        )
        asked = chat("untold", model="gpt-4o-mini", stream=stream)
        got = []
        for number in range(4):
            got.append(await proxy.post(asked))
            await proxy.rows(number + 1)
        miss, *hits = await proxy.rows(4)
        assert [row["cache"] for row in hits] == ["hit-exact"] * 3
        for row in hits:
            assert row["usage_source"] == "counted" and row["modelled"] and row["cost_usd"] == 0
            assert row["baseline_usd"] == row["saved_exact_usd"] == miss["cost_usd"] > 0
            assert (row["tokens_in_sent"], row["tokens_out"]) == (0, miss["tokens_out"])
        assert len(counts) == 2  # the miss, and the first hit
        saved = [one.headers.get("x-farthing-saved-usd") for one in got]
        assert saved[:2] == [None, None] and saved[2] == saved[3] is not None
        assert round(float(saved[3]) * 10**12) == hits[0]["saved_exact_usd"]
