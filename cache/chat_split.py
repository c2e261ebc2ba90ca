"""A chat completion -> the chunks of the stream that amounts to it. Pure.

Source: OpenAI API reference, "The chat completion chunk object", and the streams that the API sends: the role comes
first, the finish reason last, usage in a chunk of its own without choices, and `usage: null` in all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from farthing.cache.chat_assemble import CHUNK, TEXTS
from farthing.cache.chunks import chunk_stream
from farthing.cache.shaping import PIECE_CHARS, a, slices

__all__ = ["stream"]


def stream(value: dict[str, Any], *, usage: bool) -> bytes:
    """The chunks of a chat completion, with `[DONE]`; `usage`: with the chunk that says it. Raises Unsure."""
    return chunk_stream(value, CHUNK, _parts, usage=usage)


def _parts(choice: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A choice in pieces: role and what is said once, texts, tool calls, and the end."""
    message = a(dict, choice.get("message"))
    index = {"index": choice.get("index")}
    none: dict[str, Any] = {"logprobs": None} if "logprobs" in choice else {}
    going: dict[str, Any] = none | {"finish_reason": None}
    head: dict[str, Any] = {}
    for name, item in message.items():
        if name in TEXTS and item:
            a(str, item)
            head[name] = "" if name == "content" else None
        elif name == "tool_calls" and item:
            a(list, item)
        elif name == "function_call" and item:
            head[name] = a(dict, item)
        else:
            head[name] = item
    logprobs = choice.get("logprobs")
    yield (
        index
        | {"delta": head}
        | going
        | ({"logprobs": logprobs} if logprobs and not _aligned(message, logprobs) else {})
    )
    for name in TEXTS:
        if not message.get(name):
            continue
        if name == "content" and logprobs and _aligned(message, logprobs):
            for tokens in slices(logprobs["content"], 1):
                delta = {name: "".join(token["token"] for token in tokens)}
                yield index | {"delta": delta} | going | {"logprobs": logprobs | {"content": tokens}}
        else:
            for text in slices(message[name], PIECE_CHARS):
                yield index | {"delta": {name: text}} | going
    for i, call in enumerate(message.get("tool_calls") or []):
        yield from (
            index | {"delta": {"tool_calls": [{"index": i} | part]}} | going for part in _call_parts(a(dict, call))
        )
    end = {name: item for name, item in choice.items() if name not in ("index", "message", "logprobs")}
    yield index | {"delta": {}} | none | end


def _aligned(message: dict[str, Any], logprobs: Any) -> bool:
    """Whether the tokens of the logprobs make up the content, so that each can travel with its text."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not tokens or logprobs.get("refusal") is not None:
        return False
    if not message.get("content"):
        return False  # there is no text for empty tokens to travel with
    texts = [token.get("token") if isinstance(token, dict) else None for token in tokens]
    return all(isinstance(text, str) for text in texts) and "".join(map(str, texts)) == message.get("content")


def _call_parts(call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A tool call in pieces: first its name, then its arguments."""
    kind, growing = ("custom", "input") if isinstance(call.get("custom"), dict) else ("function", "arguments")
    inner = a(dict, call.get(kind))
    text = inner.get(growing)
    if not text:
        yield call
        return
    yield call | {kind: inner | {growing: ""}}
    for piece in slices(a(str, text), PIECE_CHARS):
        yield {kind: {growing: piece}}
