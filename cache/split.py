"""A chat completion -> the chunks of the stream that amounts to it. Pure.

`split` proves itself: it returns a stream only where assembling it gives the same value again.

Source: OpenAI API reference, "The chat completion chunk object", and the streams that the API sends: the role comes
first, the finish reason last, usage in a chunk of its own without choices, and `usage: null` in all others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from farthing.cache.assemble import CHUNK, TEXTS, Unsure, a, merged
from farthing.cache.exact_json import dumps, loads

__all__ = ["split"]

_ENVELOPE = ("id", "created", "model", "service_tier", "system_fingerprint")
_PIECE_CHARS = 64
_PIECES = 8


def split(whole: bytes, include_usage: bool) -> bytes | None:
    """The stream of chunks that amounts to a chat completion, with `[DONE]`.

    `include_usage`: whether the client asked for the chunk with the usage.
    None where it isn't a chat completion that comes out of `assemble` unchanged.
    """
    try:
        value = a(dict, loads(whole))
        stream = _stream(value, usage=True)
        if a(dict, merged(stream)) != value:
            return None
        return stream if include_usage else _stream(value, usage=False)
    except (Unsure, ValueError, TypeError, RecursionError):
        return None


def _stream(value: dict[str, Any], *, usage: bool) -> bytes:
    envelope = {"id": value.get("id"), "object": CHUNK} | {name: value[name] for name in _ENVELOPE if name in value}
    said_once = {
        name: item
        for name, item in value.items()
        if name not in _ENVELOPE and name not in ("object", "choices", "usage")
    }
    tail = {"usage": None} if usage and "usage" in value else {}
    chunks = []
    for choice in a(list, value.get("choices")):
        for part in _parts(a(dict, choice)):
            chunks.append(envelope | said_once | {"choices": [part]} | tail)
            said_once = {}
    if usage and value.get("usage") is not None:
        chunks.append(envelope | {"choices": [], "usage": value["usage"]})
    return b"".join(b"data: " + dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"


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
            for tokens in _slices(logprobs["content"], 1):
                delta = {name: "".join(token["token"] for token in tokens)}
                yield index | {"delta": delta} | going | {"logprobs": logprobs | {"content": tokens}}
        else:
            for text in _slices(message[name], _PIECE_CHARS):
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
    for piece in _slices(a(str, text), _PIECE_CHARS):
        yield {kind: {growing: piece}}


def _slices(whole: Any, least: int) -> Iterator[Any]:
    """A text or list in at most eight pieces, none but the last shorter than `least`."""
    size = max(least, -(-len(whole) // _PIECES))
    for start in range(0, len(whole), size):
        yield whole[start : start + size]
