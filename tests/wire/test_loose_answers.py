"""An answer that is no strict JSON goes on as it came, is not kept, and is billed by what it says that it used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fakes.proxying import Proxied, chat
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
