"""What may be kept and given again, and why not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.places import places
from farthing.policies.eligibility import Rules, eligible
from farthing.proxy.exchange import CacheMode, Controls, Endpoint
from farthing.proxy.wire import is_plain

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
RESPONSE = {"model": "m", "input": "hi", "store": False}
MESSAGE = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def chat(*parts: Any, **more: Any) -> dict[str, Any]:
    return CHAT | {"messages": [{"role": "user", "content": list(parts)}]} | more


def reason(endpoint: Endpoint, payload: Any, asked: Controls = Controls(), rules: Rules = Rules()) -> str:  # noqa: B008
    verdict = eligible(endpoint, payload, asked, rules)
    assert verdict.store is (verdict.reason in ("", "no-cache"))
    return verdict.reason


@pytest.mark.parametrize(
    ("endpoint", "payload"),
    [
        (Endpoint.CHAT, CHAT),
        (Endpoint.CHAT, CHAT | {"store": False}),
        (Endpoint.CHAT, CHAT | {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        (Endpoint.CHAT, CHAT | {"tools": [{"type": "custom", "custom": {"name": "f"}}]}),
        (Endpoint.CHAT, chat({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}})),
        (Endpoint.EMBEDDINGS, {"model": "e", "input": ["a"]}),
        (Endpoint.COMPLETIONS, {"model": "c", "prompt": "a"}),
        (Endpoint.RESPONSES, RESPONSE),
        (Endpoint.MESSAGES, MESSAGE),
        (Endpoint.MESSAGES, MESSAGE | {"tools": [{"name": "f", "input_schema": {}}]}),
        (Endpoint.MESSAGES, MESSAGE | {"tools": [{"type": "bash_20250124", "name": "bash"}]}),
    ],
)
def test_a_request_that_says_all_there_is_may_be_cached(endpoint: Endpoint, payload: dict[str, Any]) -> None:
    assert reason(endpoint, payload) == ""


@pytest.mark.parametrize(
    ("endpoint", "payload", "expected"),
    [
        (Endpoint.OTHER, None, "endpoint is only relayed"),
        (Endpoint.CHAT, None, "body is not understood"),
        (Endpoint.CHAT, {"messages": []}, "no model named"),
        (Endpoint.CHAT, CHAT | {"store": True}, "stateful: store"),
        (Endpoint.CHAT, CHAT | {"web_search_options": {}}, "hosted tool: web search"),
        (Endpoint.CHAT, CHAT | {"model": "gpt-4o-search-preview"}, "hosted tool: web search"),
        (Endpoint.CHAT, CHAT | {"tools": [{"type": "web_search"}]}, "hosted tool: web_search"),
        (Endpoint.CHAT, CHAT | {"tools": ["junk"]}, "hosted tool: None"),
        (Endpoint.CHAT, chat({"type": "image_url", "image_url": {"url": "https://x/y.png"}}), "remote URL"),
        (Endpoint.CHAT, chat({"type": "file", "file": {"file_id": "f"}}), "file or item id"),
        (Endpoint.CHAT, CHAT | {"messages": [{"role": "assistant", "audio": {"id": "a"}}]}, "audio id"),
        (Endpoint.CHAT, CHAT | {"previous_response_id": "x"}, "stateful: previous_response_id"),
        (Endpoint.CHAT, CHAT | {"plugins": [{"id": "web"}]}, "looks elsewhere: plugins"),
        (Endpoint.CHAT, CHAT | {"search_parameters": {"mode": "auto"}}, "looks elsewhere: search_parameters"),
        (Endpoint.CHAT, CHAT | {"model": "openai/gpt-4o:online"}, "looks elsewhere: model"),
        (Endpoint.CHAT, CHAT | {"model": "perplexity/sonar-pro"}, "looks elsewhere: model"),
        (Endpoint.CHAT, chat({"type": "video_url", "video_url": {"url": "https://x/y.mp4"}}), "remote URL"),
        (Endpoint.EMBEDDINGS, {"model": "e", "input": [{"image": "https://x/y.png"}]}, "remote URL"),
        (Endpoint.RESPONSES, {"model": "m", "input": "hi"}, "stateful: store is not false"),
        (Endpoint.RESPONSES, RESPONSE | {"store": True}, "stateful: store is not false"),
        (Endpoint.RESPONSES, RESPONSE | {"previous_response_id": "r"}, "stateful: previous_response_id"),
        (Endpoint.RESPONSES, RESPONSE | {"conversation": "c"}, "stateful: conversation"),
        (Endpoint.RESPONSES, RESPONSE | {"background": True}, "stateful: background"),
        (Endpoint.RESPONSES, RESPONSE | {"prompt": {"id": "p"}}, "stateful: prompt"),
        (Endpoint.RESPONSES, RESPONSE | {"tools": [{"type": "file_search"}]}, "hosted tool: file_search"),
        (Endpoint.RESPONSES, RESPONSE | {"tools": [{"type": "mcp"}]}, "hosted tool: mcp"),
        (Endpoint.RESPONSES, RESPONSE | {"input": [{"type": "item_reference", "id": "x"}]}, "file or item id"),
        (
            Endpoint.RESPONSES,
            RESPONSE | {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]},
            "remote URL",
        ),
        (Endpoint.MESSAGES, MESSAGE | {"mcp_servers": [{}]}, "stateful: mcp_servers"),
        (Endpoint.MESSAGES, MESSAGE | {"tools": [{"type": "web_search_20250305"}]}, "hosted tool: web_search_20250305"),
        (
            Endpoint.MESSAGES,
            MESSAGE
            | {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x"}}]}
                ]
            },
            "remote URL",
        ),
    ],
)
def test_what_is_not_ours_to_reuse(endpoint: Endpoint, payload: Any, expected: str) -> None:
    assert reason(endpoint, payload) == expected


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (Controls(off=True), "x-farthing-off"),
        (Controls(no_store=True), "no-store"),
        (Controls(cache=CacheMode.OFF), "x-farthing-cache: off"),
    ],
)
def test_the_client_may_opt_out(asked: Controls, expected: str) -> None:
    assert reason(Endpoint.CHAT, CHAT, asked) == expected


def test_no_cache_stores_but_neither_reads_nor_joins() -> None:
    verdict = eligible(Endpoint.CHAT, CHAT, Controls(no_cache=True), Rules())

    assert (verdict.store, verdict.read, verdict.join, verdict.semantic) == (True, False, False, False)


def test_the_operator_may_declare() -> None:
    assert reason(Endpoint.CHAT, CHAT, rules=Rules(enabled=False)) == "cache is off"
    assert reason(Endpoint.CHAT, CHAT, rules=Rules(sampled=False)) == "sampled answer"
    assert reason(Endpoint.CHAT, CHAT | {"temperature": 0}, rules=Rules(sampled=False)) == ""
    assert reason(Endpoint.CHAT, CHAT | {"temperature": False}, rules=Rules(sampled=False)) == "sampled answer"
    assert reason(Endpoint.EMBEDDINGS, {"model": "e", "input": "a"}, rules=Rules(sampled=False)) == ""
    remote = chat({"type": "image_url", "image_url": {"url": "https://x/y.png"}})
    assert reason(Endpoint.CHAT, remote, rules=Rules(remote_urls=True)) == ""
    assert reason(Endpoint.RESPONSES, {"model": "m", "input": "x"}, rules=Rules(responses_never_chained=True)) == ""


def test_exact_only_keeps_the_semantic_cache_out() -> None:
    assert not eligible(Endpoint.CHAT, CHAT, Controls(cache=CacheMode.EXACT), Rules()).semantic
    assert eligible(Endpoint.CHAT, CHAT, Controls(), Rules()).semantic


@pytest.mark.parametrize("messages", [5, "text", {"a": 1}, [[["x"]]], [None, 3, "s", {"content": 4}]])
def test_wrong_types_never_raise(messages: Any) -> None:
    eligible(Endpoint.CHAT, CHAT | {"messages": messages, "tools": 7}, Controls(), Rules())


PARTS = st.dictionaries(
    st.sampled_from(["role", "content", "type", "file_id", "url"]),
    st.sampled_from(["user", "tool", "function", "assistant", "https://x/y", "item_reference", 3, None, []]),
    max_size=3,
)


@given(st.lists(PARTS | st.text(max_size=3), max_size=3), st.sampled_from(["messages", "input"]))
def test_what_is_plain_gets_the_same_verdict_and_has_no_result_to_tidy(turns: list[Any], name: str) -> None:
    payload = {"model": "m", "store": False, name: turns}
    if is_plain(payload):
        for endpoint in (Endpoint.CHAT, Endpoint.RESPONSES, Endpoint.MESSAGES):
            short = eligible(endpoint, payload, Controls(), Rules(), plain=True)
            assert short == eligible(endpoint, payload, Controls(), Rules())
            assert list(places(endpoint, payload)) == []
