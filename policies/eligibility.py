"""May this request's answer be kept and given again? Pure; the reason goes to the ledger.

The rule: an answer may be reused where the request alone determines what was asked. What reads or leaves state
behind, acts elsewhere, or points at something that can change without the request changing, passes by.
Sources: OpenAI API reference (chat, responses, embeddings, completions), Anthropic API reference (messages).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from farthing.proxy.exchange import CacheMode, Controls, Endpoint

__all__ = ["Eligibility", "Rules", "eligible"]

_LOCAL_TOOLS = frozenset({"function", "custom"})
# Anthropic's server-side tools act elsewhere; its client-side ones (bash_*, text_editor_*, computer_*) only ask the
# client to act, which makes them like functions.
_ANTHROPIC_LOCAL = ("bash_", "text_editor_", "computer_", "memory_")
_STATEFUL_RESPONSES = ("previous_response_id", "conversation", "background", "prompt")
# Vendors' ways to let a plain call read the web (OpenRouter, xAI, Qwen).
_ELSEWHERE = ("plugins", "search_parameters", "enable_search")
_URL_MEMBERS = ("url", "image_url", "file_url", "video_url", "audio_url", "image", "video")
_NOT_DESCENDED = frozenset({"tool_calls", "function_call", "arguments", "input_schema", "parameters"})


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator declared. See config.Cache."""

    enabled: bool = True
    sampled: bool = True
    remote_urls: bool = False
    responses_never_chained: bool = False


@dataclass(frozen=True, slots=True)
class Eligibility:
    """`store`: the answer may be kept. `read`: a kept answer may be given. `join`: it may share a flight."""

    store: bool
    read: bool
    join: bool
    semantic: bool
    reason: str = ""


_ALL = Eligibility(True, True, True, True)


def eligible(
    endpoint: Endpoint, payload: dict[str, Any] | None, asked: Controls, rules: Rules, *, plain: bool = False
) -> Eligibility:
    """The verdict on one request. `payload` None: the body isn't understood. `plain`: what wire.is_plain said of it."""
    reason = _obstacle(endpoint, payload, asked, rules, plain)
    if reason:
        return Eligibility(False, False, False, False, reason)
    fresh = asked.no_cache
    semantic = asked.cache is not CacheMode.EXACT and not fresh
    if semantic:
        return _ALL
    return Eligibility(True, not fresh, not fresh, semantic, "no-cache" if fresh else "")


def _obstacle(endpoint: Endpoint, payload: dict[str, Any] | None, asked: Controls, rules: Rules, plain: bool) -> str:
    if endpoint is Endpoint.OTHER:
        return "endpoint is only relayed"
    if asked.off:
        return "x-farthing-off"
    if not rules.enabled:
        return "cache is off"
    if asked.cache is CacheMode.OFF:
        return "x-farthing-cache: off"
    if asked.no_store:
        return "no-store"
    if payload is None:
        return "body is not understood"
    if not isinstance(payload.get("model"), str):
        return "no model named"
    stream = payload.get("stream")
    if stream is not None and type(stream) is not bool:
        return "malformed: stream"
    options = payload.get("stream_options")
    if options is not None and not (isinstance(options, dict) and stream is True):
        return "malformed: stream_options"  # a hit would hide what the upstream has to say of it
    for name in _ELSEWHERE:
        if payload.get(name):
            return f"looks elsewhere: {name}"
    if payload["model"].endswith(":online") or payload["model"].rpartition("/")[2].startswith("sonar"):
        return "looks elsewhere: model"
    if endpoint is Endpoint.EMBEDDINGS:
        return _turns(payload.get("input"), rules)
    temperature = payload.get("temperature")
    if not rules.sampled and (isinstance(temperature, bool) or temperature != 0):
        return "sampled answer"
    match endpoint:
        case Endpoint.CHAT:
            return _chat(payload) or ("" if plain else _turns(payload.get("messages"), rules))
        case Endpoint.RESPONSES:
            return _responses(payload, rules) or ("" if plain else _turns(payload.get("input"), rules))
        case Endpoint.MESSAGES:
            return _messages(payload) or ("" if plain else _turns(payload.get("messages"), rules))
        case _:
            return ""


def _chat(payload: dict[str, Any]) -> str:
    for name in ("store", "conversation", "previous_response_id"):
        if payload.get(name):
            return f"stateful: {name}"
    if payload.get("web_search_options") is not None or "-search-" in payload["model"]:
        return "hosted tool: web search"
    return _tools(payload.get("tools"))


def _responses(payload: dict[str, Any], rules: Rules) -> str:
    if payload.get("store") is not False and not rules.responses_never_chained:
        return "stateful: store is not false"
    for name in _STATEFUL_RESPONSES:
        if payload.get(name):
            return f"stateful: {name}"
    return _tools(payload.get("tools"))


def _messages(payload: dict[str, Any]) -> str:
    for name in ("mcp_servers", "container"):
        if payload.get(name):
            return f"stateful: {name}"
    tools = payload.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        kind = tool.get("type", "custom") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or not (kind in _LOCAL_TOOLS or kind.startswith(_ANTHROPIC_LOCAL)):
            return f"hosted tool: {str(kind)[:40]}"
    return ""


def _tools(tools: Any) -> str:
    for tool in tools if isinstance(tools, list) else []:
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind not in _LOCAL_TOOLS:
            return f"hosted tool: {str(kind)[:40]}"
    return ""


def _turns(turns: Any, rules: Rules) -> str:
    """What in the messages points elsewhere."""
    if turns is None or isinstance(turns, str):
        return ""
    for part in _parts(turns):
        if "file_id" in part or part.get("type") in ("item_reference", "container_upload"):
            return "file or item id"
        if part.get("type") == "file" and isinstance(part.get("source"), str):
            return "file or item id"
        for name in _URL_MEMBERS:
            url = part.get(name)
            if isinstance(url, str) and "://" in url[:12] and not rules.remote_urls:
                return "remote URL"
        audio = part.get("audio")
        if isinstance(audio, dict) and "id" in audio:
            return "audio id"
    return ""


def _parts(turns: Any) -> Iterator[dict[str, Any]]:
    """Every message, content part and source in the turns; tool calls and their arguments are plain values."""
    stack = [turns]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(item)
        elif isinstance(item, dict):
            yield item
            inner = (value for name, value in item.items() if name not in _NOT_DESCENDED)
            stack.extend(value for value in inner if isinstance(value, dict | list))
