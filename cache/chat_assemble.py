"""Chunks of a chat stream -> the one JSON value that they amount to. Pure.

Rules of this file:
1. Fields are kept as the stream had them. OpenAI's streams say `refusal: null` and `logprobs: null`, and so the
   assembled answer has them; they don't say `annotations: []`, and so it has none. Only `role` and `content` are
   always there, as in OpenAI's whole answers.

Sources: OpenAI API reference, "The chat completion object" and "The chat completion chunk object"; the fields beyond
it are those of DeepSeek, vLLM and OpenRouter (reasoning) and of Azure (an empty first chunk).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from farthing.cache.chunks import merged_chunks
from farthing.cache.shaping import Unsure, a, agree, in_order, once

__all__ = ["CHUNK", "TEXTS", "WHOLE", "merged"]

CHUNK, WHOLE = "chat.completion.chunk", "chat.completion"
TEXTS = ("reasoning_content", "reasoning", "content", "refusal")
_LISTS = ("reasoning_details", "annotations")


@dataclass(slots=True)
class _Call:
    """A tool call in the making: what was said once, and the pieces of its `arguments` or `input`."""

    once: dict[str, Any] = field(default_factory=dict)
    inner: dict[str, dict[str, Any]] = field(default_factory=dict)
    pieces: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def whole(self) -> dict[str, Any]:
        for (kind, name), texts in self.pieces.items():
            self.inner[kind][name] = "".join(texts)
        return self.once | self.inner


@dataclass(slots=True)
class _Choice:
    """A choice in the making. In `said`, None stands for a field that has been null until now."""

    said: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)
    lists: dict[str, list[Any]] = field(default_factory=dict)
    calls: dict[int, _Call] = field(default_factory=dict)
    legacy: _Call | None = None
    logprobs: dict[str, list[Any] | None] = field(default_factory=dict)
    around: dict[str, Any] = field(default_factory=dict)

    def add(self, choice: dict[str, Any]) -> None:
        for name, value in choice.items():
            if name == "delta":
                if value is not None:
                    self._delta(a(dict, value))
            elif name == "logprobs" and value is not None:
                self._logprobs(a(dict, value))
            elif name == "text":
                raise Unsure("a completion, not a chat")
            elif name != "index":
                agree(self.around, name, value)

    def _delta(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if value is None:
                self.said.setdefault(name, None)
            elif name in TEXTS:
                self.said.setdefault(name, None)
                self.texts.setdefault(name, []).append(a(str, value))
            elif name in _LISTS:
                self.said.setdefault(name, None)
                self.lists.setdefault(name, []).extend(a(list, value))
            elif name == "tool_calls":
                self._tool_calls(a(list, value))
            elif name == "function_call":
                self.said.setdefault(name, None)
                self.legacy = self.legacy or _Call()
                self.legacy.inner.setdefault("function_call", {})
                _inner(self.legacy, "function_call", "arguments", a(dict, value))
            elif name == "role":
                agree(self.said, name, a(str, value) or None)
            elif name == "audio":
                raise Unsure("audio comes in pieces of base64 that need not join")
            else:
                once(self.said, name, value)

    def _tool_calls(self, parts: list[Any]) -> None:
        self.said.setdefault("tool_calls", None)
        self.lists.setdefault("tool_calls", [])
        for part in parts:
            index = a(dict, part).get("index")
            if type(index) is not int:
                raise Unsure("a tool call without an index")
            call = self.calls.setdefault(index, _Call())
            for name, value in part.items():
                if name in ("function", "custom"):
                    if value is None:
                        continue
                    call.inner.setdefault(name, {})
                    _inner(call, name, "arguments" if name == "function" else "input", a(dict, value))
                elif name in ("id", "type"):
                    agree(call.once, name, value or None)
                elif name != "index":
                    once(call.once, name, value)

    def _logprobs(self, value: dict[str, Any]) -> None:
        for name, entries in value.items():
            if name not in ("content", "refusal"):
                raise Unsure(f"logprobs with {name}")
            known = self.logprobs.setdefault(name, None)
            if entries is not None and known is not None:
                known.extend(a(list, entries))
            elif entries is not None:
                self.logprobs[name] = list(a(list, entries))

    def whole(self, index: int) -> dict[str, Any]:
        if self.around.get("finish_reason") is None:
            raise Unsure("a choice without its end")
        message: dict[str, Any] = {"role": None, "content": None} | self.said
        message["role"] = message["role"] or "assistant"
        for name, texts in self.texts.items():
            message[name] = "".join(texts)
        message |= self.lists
        if self.calls:
            message["tool_calls"] = [call.whole() for call in in_order(self.calls)]
        if self.legacy is not None:
            message |= self.legacy.whole()
        choice: dict[str, Any] = {"index": index, "message": message} | self.around
        if self.logprobs:
            choice["logprobs"] = self.logprobs
        return choice


def merged(sse: bytes) -> dict[str, Any]:
    """The chat completion that a complete stream of chunks amounts to: see `chunks.merged_chunks`.

    Unsure besides: a name said twice, an unknown field in more than one piece, audio.
    Raises Unsure, ValueError, RecursionError.
    """
    return merged_chunks(sse, CHUNK, WHOLE, _Choice)


def _inner(call: _Call, kind: str, growing: str, value: dict[str, Any]) -> None:
    """Take note of a piece of a call's function: its name is said once, its arguments grow."""
    for name, item in value.items():
        if name == growing:
            call.inner[kind].setdefault(name, None)
            if item is not None:
                call.pieces.setdefault((kind, name), []).append(a(str, item))
        else:
            once(call.inner[kind], name, None if item == "" else item)
