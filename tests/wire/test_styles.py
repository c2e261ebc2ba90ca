"""Clients of one API in front of an upstream of another, by the official clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.fakes.event_streams import by_words, message_events, written
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.wire.test_shapes import MESSAGE

pytestmark = pytest.mark.clients

TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
SAID: Any = [{"role": "user", "content": "weather?"}]
CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": "Let me look.",
                "tool_calls": [
                    {
                        "id": f"call_{i}",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Zürich"}'},
                    }
                    for i in range(2)
                ],
            },
        }
    ],
    "usage": {
        "prompt_tokens": 30,
        "completion_tokens": 9,
        "total_tokens": 39,
        "prompt_tokens_details": {"cached_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 4},
    },
}


def openai_client(proxy: Proxied, key: str = "sk-one") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=key, base_url=f"{proxy.url}/v1", max_retries=0)


def anthropic_client(proxy: Proxied) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key="sk-ant", base_url=proxy.url, max_retries=0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("off", [False, True])
async def test_openai_client_in_front_of_anthropic(
    up: ScriptedUpstream, tmp_path: Path, stream: bool, off: bool
) -> None:
    up.script(Script(answer=MESSAGE))
    extra = {"x-farthing-off": "1"} if off else {}
    async with (
        proxied(up.url, tmp_path, upstream__style="anthropic") as proxy,
        openai_client(proxy) as client,
    ):
        asked: Any = {"model": "m", "messages": SAID, "tools": TOOLS, "extra_headers": extra}
        if stream:
            texts, calls, thought, last = "", "", "", None
            async for chunk in await client.chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}
            ):
                if chunk.choices:
                    delta = chunk.choices[0].delta
                    texts += delta.content or ""
                    thought += getattr(delta, "reasoning_content", None) or ""
                    for call in delta.tool_calls or []:
                        calls += (call.function.arguments or "") if call.function else ""
                    finish = chunk.choices[0].finish_reason
                last = chunk
            assert last is not None
            usage = last.usage
        else:
            whole = await client.chat.completions.create(**asked)
            message = whole.choices[0].message
            texts, finish, usage = message.content or "", whole.choices[0].finish_reason, whole.usage
            thought = getattr(message, "reasoning_content", "")
            calls = "".join(call.function.arguments for call in message.tool_calls or [] if call.type == "function")
        [row] = await proxy.rows(1)

    assert (texts, thought, finish) == ("I'll look at the weather in Zürich.", "They want the weather.", "tool_calls")
    assert json.loads(calls) == MESSAGE["content"][3]["input"]
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (30, 17)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 10
    sent = up.calls[0]
    assert sent.path == "/v1/messages"
    assert (sent.headers["x-api-key"], sent.headers["anthropic-version"]) == ("sk-one", "2023-06-01")
    assert "Authorization" not in sent.headers
    assert sent.json["max_tokens"] == 4096
    assert (row["endpoint"], row["status"], row["outcome"]) == ("chat", 200, "completed")
    assert (row["tokens_in_original"], row["tokens_in_cached"], row["tokens_out"]) == (30, 10, 17)
    assert row["usage_source"] == "upstream"


async def test_what_was_adapted_is_cached_in_the_clients_shape(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.script(Script(answer=MESSAGE))
    async with proxied(up.url, tmp_path, upstream__style="anthropic") as proxy:
        first = await proxy.post(chat("weather?", stream=True))
        second = await proxy.post(chat("weather?"))
        third = await proxy.post(chat("weather?", stream=True))

    assert len(up.calls) == 1
    assert second.headers["x-farthing-cache"] == "hit-exact"
    assert second.json()["choices"][0]["message"]["content"] == "I'll look at the weather in Zürich."
    assert b'"usage"' not in first.content  # it didn't ask
    assert first.content.endswith(b"data: [DONE]\n\n")
    assert third.headers["x-farthing-cache"] == "hit-exact"


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropic_client_in_front_of_openai(up: ScriptedUpstream, tmp_path: Path, stream: bool) -> None:
    up.script(Script(answer=CHAT) if not stream else Script())
    body = chat_stream() if stream else None
    if stream:
        up._scripts.clear()
        up.script(Script(body=body, headers={"Content-Type": "text/event-stream"}))
    async with (
        proxied(up.url, tmp_path, upstream__style="openai") as proxy,
        anthropic_client(proxy) as client,
    ):
        asked: Any = {
            "model": "m",
            "max_tokens": 99,
            "messages": SAID,
            "tools": [{"name": "weather", "input_schema": {"type": "object"}}],
        }
        if stream:
            async with client.messages.stream(**asked) as events:
                message = await events.get_final_message()
        else:
            message = await client.messages.create(**asked)
        [row] = await proxy.rows(1)

    assert [block.type for block in message.content] == ["text", "tool_use", "tool_use"]
    assert message.content[0].type == "text"
    assert message.content[0].text == "Let me look."
    assert [block.input for block in message.content if block.type == "tool_use"] == [{"city": "Zürich"}] * 2
    assert message.stop_reason == "tool_use"
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens, message.usage.output_tokens) == (
        20,
        10,
        9,
    )
    sent = up.calls[0]
    assert sent.path == "/v1/chat/completions"
    assert sent.headers["Authorization"] == "Bearer sk-ant"
    assert not {"x-api-key", "anthropic-version"} & {name.lower() for name in sent.headers}
    assert sent.json["max_completion_tokens"] == 99
    assert (row["endpoint"], row["tokens_in_original"], row["tokens_reasoning"]) == ("messages", 30, 4)


def chat_stream() -> bytes:
    """CHAT as OpenAI streams it."""
    [choice] = CHAT["choices"]
    base = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    deltas: list[Any] = [{"role": "assistant", "content": ""}, {"content": "Let me "}, {"content": "look."}]
    for i, call in enumerate(choice["message"]["tool_calls"]):
        text = call["function"]["arguments"]
        deltas.append({"tool_calls": [{"index": i} | call | {"function": {"name": "weather", "arguments": ""}}]})
        deltas += [{"tool_calls": [{"index": i, "function": {"arguments": piece}}]} for piece in (text[:5], text[5:])]
    chunks = [base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    chunks.append(base | {"choices": [], "usage": CHAT["usage"]})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


async def test_what_cannot_be_said_is_refused_by_name(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with (
        proxied(up.url, tmp_path, upstream__style="anthropic") as proxy,
        openai_client(proxy) as client,
    ):
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="m", messages=SAID, n=2)
        [row] = await proxy.rows(1)

    assert (refused.value.param, refused.value.code) == ("n", "unsupported_parameter")
    assert up.calls == []
    assert row["status"] == 400


async def test_refusals_of_messages_have_anthropics_shape(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with (
        proxied(up.url, tmp_path, upstream__style="openai") as proxy,
        anthropic_client(proxy) as client,
    ):
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.messages.create(model="m", max_tokens=9, messages=SAID, extra_body={"top_k": 3})

    assert refused.value.body == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "top_k has no counterpart in the upstream's API"},
    }


async def test_errors_are_turned(up: ScriptedUpstream, tmp_path: Path) -> None:
    told = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    up.default = Script(status=529, body=told, headers={"retry-after": "7"})
    async with (
        proxied(up.url, tmp_path, upstream__style="anthropic", upstream__retries=0) as proxy,
        openai_client(proxy) as client,
    ):
        with pytest.raises(openai.InternalServerError) as failed:
            await client.chat.completions.create(model="m", messages=SAID)

    assert (failed.value.status_code, failed.value.type) == (503, "overloaded_error")
    assert failed.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize("body", [b"{", b'{"type":"message"}', b'{"type":"message","content":[{"type":"novel"}]}'])
async def test_an_answer_that_makes_no_sense_is_a_fault_of_the_upstreams(
    up: ScriptedUpstream, tmp_path: Path, body: bytes
) -> None:
    up.default = Script(body=body)
    async with proxied(up.url, tmp_path, upstream__style="anthropic") as proxy:
        answer = await proxy.post(chat())
        again = await proxy.post(chat())

    assert answer.status_code == again.status_code == 502
    assert answer.json()["error"]["type"] == "upstream_error"
    assert len(up.calls) == 2  # nothing of it is kept


async def test_what_cannot_be_turned_is_paid_for_all_the_same(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default = Script(body=json.dumps(MESSAGE | {"content": [{"type": "novel"}]}).encode())
    async with proxied(up.url, tmp_path, upstream__style="anthropic") as proxy:
        answer = await proxy.post(chat())
        [row] = await proxy.rows(1)

    assert answer.status_code == 502
    assert "content[0].type = 'novel' isn't known" in answer.json()["error"]["message"]
    assert (row["outcome"], row["tokens_out"], row["model_served"]) == ("failed", 17, "m")
    assert "adapted" in row["decisions"]


async def test_a_stream_that_makes_no_sense_ends_in_an_error_event(up: ScriptedUpstream, tmp_path: Path) -> None:
    events = written(message_events(MESSAGE, by_words), names=True, done=False)
    sse = b"".join([*events[:-1], b'event: novel\ndata: {"type":"novel"}\n\n'])
    up.default = Script(body=sse, headers={"Content-Type": "text/event-stream"})
    async with proxied(up.url, tmp_path, upstream__style="anthropic") as proxy:
        answer = await proxy.post(chat(stream=True))
        [row] = await proxy.rows(1)

    last = answer.content.rstrip().rpartition(b"\n\n")[2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["type"] == "upstream_error"
    assert b"[DONE]" not in answer.content
    assert (row["outcome"], row["tokens_out"]) == ("failed", 17)


async def test_a_body_that_cannot_be_read_is_refused(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, upstream__style="anthropic") as proxy:
        answers = [await proxy.post(b"not json"), await proxy.post(b"[1]")]
        answers.append(await proxy.post(b"{}", Content_Encoding="gzip"))

    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert up.calls == []


@pytest.mark.parametrize(
    ("style", "url", "settings", "path", "header"),
    [
        (
            "azure",
            "",
            {"api_version": "2024-10-21"},
            "/openai/deployments/m/chat/completions?api-version=2024-10-21",
            "api-key",
        ),
        ("azure", "/openai/v1", {}, "/openai/v1/chat/completions", "api-key"),
        ("gemini", "/v1beta/openai", {}, "/v1beta/openai/chat/completions", "Authorization"),
        ("ollama", "", {}, "/v1/chat/completions", "Authorization"),
    ],
)
async def test_other_styles_paths_keys_and_fields(
    up: ScriptedUpstream, tmp_path: Path, style: str, url: str, settings: dict[str, str], path: str, header: str
) -> None:
    up.default = Script(body=json.dumps(CHAT).encode())
    more: Any = {f"upstream__{name}": value for name, value in settings.items()}
    async with proxied(up.url.removesuffix("/v1") + url, tmp_path, upstream__style=style, **more) as proxy:
        answer = await proxy.post(chat(max_completion_tokens=5, user="me", seed=1))

    [call] = up.calls
    assert answer.status_code == 200
    assert call.path == path
    assert call.headers[header].removeprefix("Bearer ") == "sk-one"
    assert call.json["seed"] == 1
    assert ("user" in call.json) == (style != "gemini")
    assert ("max_tokens" in call.json) == (style == "ollama")


@pytest.mark.parametrize(
    ("style", "url", "settings", "path"),
    [
        (
            "azure",
            "",
            {"api_version": "2024-10-21"},
            "/openai/deployments/m/chat/completions?api-version=2024-10-21",
        ),
        ("gemini", "/v1beta/openai", {}, "/v1beta/openai/chat/completions"),
        ("ollama", "", {}, "/v1/chat/completions"),
    ],
)
async def test_messages_reach_other_styles_in_their_own_form(
    up: ScriptedUpstream, tmp_path: Path, style: str, url: str, settings: dict[str, str], path: str
) -> None:
    up.default = Script(body=json.dumps(CHAT).encode())
    more: Any = {f"upstream__{name}": value for name, value in settings.items()}
    asked = {"model": "m", "max_tokens": 5, "messages": SAID, "metadata": {"user_id": "me"}}
    async with proxied(up.url.removesuffix("/v1") + url, tmp_path, upstream__style=style, **more) as proxy:
        answer = await proxy.post(asked, "/v1/messages?beta=true")

    [call] = up.calls
    assert (answer.status_code, answer.json()["type"]) == (200, "message")
    assert call.path == path
    assert ("user" in call.json) == (style != "gemini")
    assert ("max_tokens" in call.json) == (style != "azure")


@pytest.mark.parametrize(("style", "path"), [("anthropic", "/v1/chat/completions"), ("openai", "/v1/messages")])
async def test_a_stream_that_ends_before_its_end_ends_in_an_error_event(
    up: ScriptedUpstream, tmp_path: Path, style: str, path: str
) -> None:
    """Its bytes end as if all were well: nobody but the adapter knows that half of it is missing."""
    whole = written(message_events(MESSAGE, by_words), names=True, done=False)
    sse = b"".join(whole[:-2]) if style == "anthropic" else b"\n\n".join(chat_stream().split(b"\n\n")[:4]) + b"\n\n"
    up.default = Script(body=sse, headers={"Content-Type": "text/event-stream"})
    async with proxied(up.url, tmp_path, upstream__style=style) as proxy:
        answers = [await proxy.post(chat(stream=True, max_tokens=9), path) for _ in range(2)]
        rows = await proxy.rows(2)

    for answer in answers:
        last = answer.content.rstrip().rpartition(b"\n\n")[2]
        assert b'"error"' in last and b"broke off" in last
        assert b"[DONE]" not in answer.content and b"message_stop" not in answer.content
    assert [row["outcome"] for row in rows] == ["failed", "failed"]
    assert len(up.calls) == 2  # nothing of it is kept


async def test_what_is_only_relayed_gets_the_key_where_it_belongs(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, upstream__style="anthropic") as proxy:
        answer = await proxy.client.get("/v1/models")

    assert answer.status_code == 200
    assert up.calls[0].path == "/v1/models"
    assert up.calls[0].headers["x-api-key"] == "sk-one"


async def test_the_operators_key_goes_before_the_clients(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.script(Script(answer=MESSAGE))
    async with proxied(up.url, tmp_path, upstream__style="anthropic", upstream__api_key="sk-own") as proxy:
        answer = await proxy.post(chat())

    assert answer.status_code == 200
    assert up.calls[0].headers["x-api-key"] == "sk-own"
    assert "sk-one" not in str(up.calls[0].headers)


async def test_without_a_style_messages_pass_as_they_are(up: ScriptedUpstream, tmp_path: Path) -> None:
    body = json.dumps(chat("weather?", max_tokens=5) | {"top_k": 3}, indent=1).encode()
    up.script(Script(answer=MESSAGE))
    async with proxied(up.url, tmp_path) as proxy:
        answer: httpx.Response = await proxy.post(body, "/v1/messages")

    assert answer.json() == MESSAGE
    assert up.calls[0].body == body
