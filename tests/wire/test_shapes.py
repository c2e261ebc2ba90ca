"""One answer, asked for as a stream and as a whole: the official clients can't tell a replay from the upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes.event_streams import by_words, message_events, response_events, written
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream

pytestmark = pytest.mark.clients

TOKEN = {"token": "It ", "bytes": [73, 116, 32], "logprob": -0.25, "top_logprobs": []}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1_700_000_000,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "metadata": {},
    "model": "m",
    "output": [
        {
            "id": "rs_1",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "They want the weather in Paris."}],
            "content": [{"type": "reasoning_text", "text": "Call the tool."}],
            "encrypted_content": "gAAA",
        },
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "It is “warm”, I think. ☀", "annotations": [], "logprobs": [TOKEN]},
                {"type": "refusal", "refusal": "I can't say more than that."},
            ],
        },
        {
            "id": "fc_1",
            "type": "function_call",
            "status": "completed",
            "call_id": "call_1",
            "name": "weather",
            "arguments": '{"city": "Paris", "days": 2}',
        },
    ],
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 30,
        "input_tokens_details": {"cached_tokens": 10},
        "output_tokens": 12,
        "output_tokens_details": {"reasoning_tokens": 4},
        "total_tokens": 42,
    },
}
MESSAGE: dict[str, Any] = {
    "id": "msg_01",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [
        {"type": "thinking", "thinking": "They want the weather.", "signature": "EqQBCg=="},
        {"type": "redacted_thinking", "data": "EmwKAhgB"},
        {"type": "text", "text": "I'll look at the weather in Zürich."},
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "weather",
            "input": {"city": "Zürich", "days": 2, "x": [1.5, None]},
        },
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 20,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 10,
        "output_tokens": 17,
        "service_tier": "standard",
    },
}
COMPLETION: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1_700_000_000,
    "model": "m",
    "choices": [
        {
            "text": f"Once upon {what}",
            "index": index,
            "logprobs": {
                "tokens": ["Once ", "upon ", what],
                "token_logprobs": [-0.5, -1.25, -2.0],
                "top_logprobs": [{"Once ": -0.5}, {"upon ": -1.25}, {what: -2.0}],
                "text_offset": [4, 9, 14],
            },
            "finish_reason": reason,
        }
        for index, what, reason in ((0, "a time", "stop"), (1, "a hill", "length"))
    ],
    "usage": {"prompt_tokens": 8, "completion_tokens": 6, "total_tokens": 14},
}
ASKED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "/v1/responses": ({"model": "m", "input": "weather?", "store": False}, RESPONSE),
    "/v1/messages": (chat("weather?", max_tokens=99), MESSAGE),
    "/v1/completions": ({"model": "m", "prompt": "tell", "n": 2, "logprobs": 1}, COMPLETION),
}


@asynccontextmanager
async def clients(proxy: Proxied) -> AsyncIterator[tuple[openai.AsyncOpenAI, anthropic.AsyncAnthropic]]:
    async with (
        openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0) as one,
        anthropic.AsyncAnthropic(base_url=proxy.url, api_key="sk-two", max_retries=0) as two,
    ):
        yield one, two


async def by_stream(proxy: Proxied, path: str) -> dict[str, Any]:
    """What the official client makes of a stream."""
    body = ASKED[path][0]
    async with clients(proxy) as (one, two):
        match path:
            case "/v1/responses":
                async with one.responses.stream(**body) as stream:
                    final = await stream.get_final_response()
                    return final.model_dump(exclude_none=True)
            case "/v1/messages":
                async with two.messages.stream(**body) as heard:
                    return (await heard.get_final_message()).model_dump(exclude_none=True)
            case _:
                chunks = await one.completions.create(**body, stream=True, stream_options={"include_usage": True})
                return gathered([chunk async for chunk in chunks])


def gathered(chunks: list[Any]) -> dict[str, Any]:
    """Chunks of a completion joined, which the client leaves to the app."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            known = choices.setdefault(choice.index, {"index": choice.index, "text": "", "logprobs": {}})
            known["text"] += choice.text
            for name, items in (choice.logprobs.model_dump() if choice.logprobs else {}).items():
                known["logprobs"].setdefault(name, []).extend(items)
            known["finish_reason"] = choice.finish_reason
    usage = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usage) == 1
    return {"choices": [choices[i] for i in sorted(choices)], "usage": usage[0].model_dump(exclude_none=True)}


async def by_whole(proxy: Proxied, path: str) -> dict[str, Any]:
    """What the official client makes of a whole answer."""
    body = ASKED[path][0]
    async with clients(proxy) as (one, two):
        match path:
            case "/v1/responses":
                return (await one.responses.create(**body)).model_dump(exclude_none=True)
            case "/v1/messages":
                return (await two.messages.create(**body)).model_dump(exclude_none=True)
            case _:
                whole = (await one.completions.create(**body)).model_dump(exclude_none=True)
                return {"choices": whole["choices"], "usage": whole["usage"]}


def without_parsed(value: Any) -> Any:
    """Without what the streaming helpers add of their own."""
    if isinstance(value, list):
        return [without_parsed(item) for item in value]
    if isinstance(value, dict):
        return {name: without_parsed(item) for name, item in value.items() if not name.startswith("parsed")}
    return value


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("stored", ["stream", "whole"])
async def test_the_official_client_gets_the_same_in_both_shapes(
    proxy: Proxied, up: ScriptedUpstream, path: str, stored: str
) -> None:
    up.default = Script(answer=ASKED[path][1])
    first, then = (by_stream, by_whole) if stored == "stream" else (by_whole, by_stream)
    fresh = await first(proxy, path)
    replayed = await then(proxy, path)
    again = await first(proxy, path)

    assert len(up.calls) == 1
    assert without_parsed(fresh) == without_parsed(replayed) == without_parsed(again)
    rows = await proxy.rows(3)
    assert [row["cache"] for row in rows] == ["miss", "hit-exact", "hit-exact"]
    assert rows[0]["cost_usd"] == up.bill(("2", "1", "8")) * 10**12 > 0
    assert [row["saved_exact_usd"] for row in rows] == [0, rows[0]["cost_usd"], rows[0]["cost_usd"]]


@pytest.mark.parametrize("path", ASKED)
async def test_a_replayed_stream_says_event_for_event_what_the_upstreams_does(
    proxy: Proxied, up: ScriptedUpstream, path: str
) -> None:
    """The same kinds in the same order; only how texts are cut is ours."""
    body, answer = ASKED[path]
    up.default = Script(answer=answer)
    await proxy.post(body, path)
    replayed = await proxy.post(body | {"stream": True}, path)
    fresh = await proxy.post(body | {"stream": True}, path, Cache_Control="no-cache")

    def kinds(text: str) -> list[str]:
        named = [line for line in text.split("\n") if line.startswith("event: ")]
        return [name for i, name in enumerate(named) if name != "event: ping" and named[i - 1 : i] != [name]]

    assert (replayed.headers["x-farthing-cache"], len(up.calls)) == ("hit-exact", 2)
    assert replayed.headers["content-type"].startswith("text/event-stream")
    assert kinds(replayed.text) == kinds(fresh.text)
    assert bool(kinds(replayed.text)) == (path != "/v1/completions")


@pytest.mark.parametrize("path", ASKED)
async def test_a_whole_request_joins_a_stream_and_no_stream_joins_a_whole_one(
    proxy: Proxied, up: ScriptedUpstream, path: str
) -> None:
    body, answer = ASKED[path]
    up.default = Script(answer=answer, chunk_wait_s=0.02)
    leader = asyncio.create_task(proxy.post(body | {"stream": True}, path))
    while not up.calls:
        await asyncio.sleep(0.01)
    joined = await asyncio.gather(proxy.post(body, path), proxy.post(body | {"stream": True}, path))
    await leader
    assert [one.headers["x-farthing-cache"] for one in joined] == ["joined", "joined"]
    assert (joined[0].json(), joined[0].headers["content-type"]) == (answer, "application/json")

    up.default = Script(answer=answer, wait_s=0.3)
    other = body | {"temperature": 0.5}
    apart = await asyncio.gather(proxy.post(other, path), proxy.post(other | {"stream": True}, path))
    assert [one.headers["x-farthing-cache"] for one in apart] == ["miss", "miss"]
    assert len(up.calls) == 3


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("joins", [False, True])
async def test_a_stream_with_an_event_that_nobody_knows_answers_only_streams(
    proxy: Proxied, up: ScriptedUpstream, path: str, joins: bool
) -> None:
    body, answer = ASKED[path]
    events = response_events(answer, by_words) if path == "/v1/responses" else message_events(answer, by_words)
    odd = written([events[0], {"type": "vendor.heartbeat", "load": 0.5}, *events[1:]], names=True, done=False)
    up.script(Script(body=b"".join(odd), headers={"Content-Type": "text/event-stream"}, wait_s=0.2 * joins))
    up.default = Script(answer=answer)
    leader = asyncio.create_task(proxy.post(body | {"stream": True}, path))
    while joins and not up.calls:
        await asyncio.sleep(0.01)
    if not joins:
        await leader
        again = await proxy.post(body | {"stream": True}, path)
        assert (again.headers["x-farthing-cache"], again.text) == ("hit-exact", (await leader).text)
    whole = await proxy.post(body, path)

    assert whole.json() == answer
    assert whole.headers["x-farthing-cache"] == "miss"
    assert len(up.calls) == 2
    if not joins:
        assert (await proxy.rows(3))[-1]["cache_reason"] == "stored in another shape"
    await leader


async def test_a_near_duplicate_is_answered_in_the_other_shape(up: ScriptedUpstream, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"semantic__mode": "serve", "semantic__unproven": True, "semantic__threshold": 0.85,
                                "semantic__deadline_ms": 5000, "semantic__audit_daily_usd": 0}  # fmt: skip
    spoken = MESSAGE | {"content": MESSAGE["content"][2:3], "stop_reason": "end_turn"}
    up.default = Script(answer=spoken)
    async with proxied(up.url, tmp_path, **settings) as proxy:
        thread = proxy.services.thread
        assert thread is not None
        while not thread.loaded:
            await asyncio.sleep(0.02)
        first = chat("How do I reset my password?", max_tokens=9, stream=True)
        await proxy.post(first, "/v1/messages")
        while not thread.entries:
            await asyncio.sleep(0.02)
        whole = await proxy.post(chat("How can I reset my password?", max_tokens=9), "/v1/messages")

    assert (whole.headers["x-farthing-cache"], len(up.calls)) == ("hit-semantic", 1)
    assert whole.json() == spoken
