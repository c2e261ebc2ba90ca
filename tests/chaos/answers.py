"""The one rule that makes a wrong answer visible: what the upstream says is a pure function of the prompt."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["answer", "asked", "events", "prompt_of", "said", "whole"]

_USAGE = {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}
_LONG_WORDS = 9_000  # some 80 KB: beyond what the proxy and its store do on the event loop


def answer(prompt: str) -> str:
    """What a right answer to this prompt says; a prompt that begins with `long` has one of 80 KB."""
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    words = [digest[at : at + 8] for at in range(0, 64, 8)]
    return " ".join(words * (_LONG_WORDS // 8 if prompt.startswith("long") else 2))


def asked(prompt: str, *, stream: bool) -> bytes:
    """The request's body."""
    body: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]}
    return json.dumps(body | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})).encode()


def prompt_of(body: bytes) -> tuple[str, bool]:
    """The prompt that a request asks, and whether it wants a stream."""
    told = json.loads(body)
    return told["messages"][-1]["content"], bool(told.get("stream"))


def whole(prompt: str) -> bytes:
    """The upstream's answer in one piece."""
    text = answer(prompt)
    message = {"role": "assistant", "content": text, "refusal": None}
    return json.dumps(
        _base("chat.completion")
        | {
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": _USAGE,
        }
    ).encode()


def events(prompt: str) -> list[bytes]:
    """The same as server-sent events, in pieces of four words and more."""
    words = [f"{word} " for word in answer(prompt).split()]
    words[-1] = words[-1].rstrip()
    step = max(4, len(words) // 16)
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": "".join(words[at : at + step])}, None) for at in range(0, len(words), step)]
    deltas.append(({}, "stop"))
    lines = [
        json.dumps(
            _base("chat.completion.chunk")
            | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]}
        )
        for delta, reason in deltas
    ]
    lines.append(json.dumps(_base("chat.completion.chunk") | {"choices": [], "usage": _USAGE}))
    return [f"data: {line}\n\n".encode() for line in [*lines, "[DONE]"]]


def said(body: bytes, *, stream: bool) -> str | None:
    """What an answer says; None where it isn't whole."""
    if not stream:
        try:
            told: str = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            return None
        return told
    lines = [line[6:] for line in body.decode("utf-8", "replace").split("\n") if line.startswith("data: ")]
    if not lines or lines[-1].strip() != "[DONE]":
        return None
    try:
        chunks = [json.loads(line) for line in lines[:-1]]
        return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _base(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-chaos", "object": kind, "created": 1_700_000_000, "model": "gpt-4o-mini-2024-07-18"}
